"""Runs the computations on the meta device, where tensors have shapes but no values, and reading a value is an error.

Code that passes here does not synchronise with the host, and its control flow does not depend on the data. The device
has no generators, so sampling is tested without one.
"""

from types import SimpleNamespace

import pytest
import torch

from momalit.core.records import Rollout, Transitions
from momalit.core.team import AgentSpec, TeamSpec
from momalit.nn.mixers import MIXERS, NO_MIXER
from momalit.policies.ppo import PPOModule
from momalit.policies.rollout import collect_rollout, initial_start
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.imagination import ImaginedEnv, Pessimism
from momalit.world_model.module import WorldModelModule

META = torch.device("meta")
T, B, S = 5, 8, 6


def make_spec(discrete):
    if discrete:
        agents = (AgentSpec("a", (0, 1), 2, legal=(4, 5)), AgentSpec("b", (2,), 3))
    else:
        agents = (AgentSpec("a", (0, 1), 1, (-1.0,), (1.0,)), AgentSpec("b", (2,), 3, (-1.0,) * 3, (1.0,) * 3))
    return TeamSpec("shapes", agents, S, discrete, 10, tuple(("state", i) for i in range(S)))


@pytest.fixture(params=[False, True], ids=["continuous", "discrete"])
def spec(request):
    return make_spec(request.param)


def empty(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device=META)


def make_rollout():
    flag = empty(T, B, dtype=torch.bool)
    return Rollout(
        empty(T + 1, B, S), empty(T + 1, B, 2, 3), empty(T + 1, B, dtype=torch.bool), empty(T, B, 2, 3),
        empty(T, B, 2), empty(T, B), flag, flag, flag, flag,
    )  # fmt: skip


def test_a_training_step_of_the_world_model(spec):
    module = WorldModelModule(spec, n_members=3, n_elites=2, width=16, n_blocks=1).to(META)
    batch = Transitions(empty(3, B, S), empty(3, B, 2, 3), empty(3, B), empty(3, B, S), empty(3, B, dtype=torch.bool))
    module.training_step(batch, 0).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in module.network.parameters())


@pytest.mark.parametrize("sample", [False, True])
def test_an_imagined_rollout(spec, sample):
    actor = PPOModule(spec, width=16, gru_size=8).to(META).actor
    model = WorldModel(spec, 3, 16, 1).to(META)
    env = ImaginedEnv(model, Pessimism(lambda_aleatoric=1.0), sample)
    start = initial_start(empty(B, S), 2, 3)
    env.reset(start.now.state[0])
    rollout = collect_rollout(env, actor, start, T, None)
    assert rollout.state.shape == (T + 1, B, S)
    assert rollout.log_prob.shape == (T, B, 2)
    assert rollout.valid.dtype == torch.bool
    assert env.uncertainties().shape == env.penalties().shape == (T, B)
    assert all(value.device == META for value in vars(rollout).values() if value is not None)


def test_sampling_actions(spec):
    actor = PPOModule(spec, width=16, gru_size=8).to(META).actor
    policy, _ = actor(make_rollout().sequence)
    assert policy.sample().shape == (T + 1, B, 2, 3)
    assert actor.clip(policy.sample()).shape == (T + 1, B, 2, 3)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mixer", [*MIXERS, NO_MIXER])
def test_an_iteration_of_ppo(spec, mixer, shared):
    class Bounded(PPOModule):
        def value_range(self):
            return empty(()), empty(())

        def stop_value(self):
            return empty(())

    module = Bounded(spec, width=16, gru_size=8, mixer=mixer, share_parameters=shared).to(META)
    module._trainer = SimpleNamespace()
    rollout = module.with_advantages(make_rollout())
    assert rollout.advantage.shape == rollout.target.shape == (T, B)
    batch = rollout.rows(torch.empty(4, dtype=torch.long, device=META))
    assert batch.n_rows == 4
    module.training_step(batch, 0).backward()
    module.configure_gradient_clipping(None)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in module.parameters() if p.requires_grad)
