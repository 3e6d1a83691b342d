"""The workloads of the benchmarks: steps of the library on random data, whose values do not affect the speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from momalit.core.records import Rollout
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs import make_env, team_spec
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.module import WorldModelModule

SMALL, PAPER = (200, 2), (1024, 2)  # width and number of blocks of the world model's networks
NETWORKS = {"200-2": SMALL, "1024-2": PAPER}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
TASKS: dict[str, dict[str, object]] = {"reacher": {"observability": "independent"}, "ant": {}}
N_ROLLOUTS, HORIZON, N_MINIBATCHES = 202, 10, 31


def make_spec(task: str, **settings: object) -> TeamSpec:
    """Returns the team of a task."""
    env = make_env(task, **settings)
    try:
        return team_spec(env, task, settings)
    finally:
        env.close()


def make_data(spec: TeamSpec, transitions: int, length: int = 50) -> Trajectories:
    """Returns random trajectories with the shapes of a task."""
    random = torch.Generator().manual_seed(0)
    episodes = transitions // length
    shape = (transitions, spec.n_agents, spec.action_size)
    action = torch.rand(shape, generator=random) * 2 - 1
    if spec.discrete:
        action = torch.nn.functional.one_hot(action.argmax(-1), spec.action_size).float()
    no = torch.zeros(transitions, dtype=torch.bool)
    state = torch.randn(transitions + episodes, spec.state_size, generator=random)
    lengths = torch.full((episodes,), length)
    return Trajectories.from_lengths(
        state, action * spec.action_mask(), torch.randn(transitions, generator=random), no, no, lengths
    )


@contextmanager
def precision(name: str, device: str = "cpu") -> Iterator[None]:
    """Uses autocast as Lightning's ``bf16-mixed`` does; no effect for other names."""
    dtype = PRECISIONS.get(name)
    with torch.autocast(device, dtype, enabled=dtype is not None):
        yield


def world_model_step(
    spec: TeamSpec,
    network: tuple[int, int],
    precision_name: str,
    members: int = 7,
    rows: int = 256,
    device: str = "cpu",
) -> Callable[[], None]:
    """Returns one gradient step of the ensemble on ``rows`` transitions per member, including their selection."""
    torch.manual_seed(0)
    data = make_data(spec, 20_000)
    module = WorldModelModule(spec, members, min(members, 5), *network)
    module.space.fit(data, 0.99)
    module, data = module.to(device), data.to(device)
    optimizer = torch.optim.AdamW(module.network.parameters(), 1e-3, fused=True)
    order = torch.randint(len(data), (members, rows), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with precision(precision_name, device):
            loss = module.training_step(data.transitions(order), 0)
        loss.backward()
        optimizer.step()

    return step


def model_products(spec: TeamSpec, network: tuple[int, int], rows: int, members: int) -> float:
    """Returns the multiplications and additions of one forward pass of ``members`` networks on a batch of ``rows``."""
    width, n_blocks = network
    ends = spec.state_size + spec.joint_action_size + 2 * (spec.state_size + 1) + 1
    return 2.0 * members * rows * width * (ends + 2 * n_blocks * width)


@dataclass
class PolicyIteration:
    """A policy iteration in its two parts, rollout and update, with a team, a world model and a dataset.

    Args:
        spec: the team.
        network: width and number of blocks of the world model's networks.
        n_rollouts: number of rollouts.
        horizon: steps per rollout.
        n_minibatches: minibatches in each of five passes.
        precision_name: ``fp32`` or ``bf16``.
        sizes: units of the policies' linear layers and GRUs; by default those of the paper.
        members: members of the world model, all of them elites.
        device: where everything is.
    """

    spec: TeamSpec
    network: tuple[int, int]
    n_rollouts: int
    horizon: int
    n_minibatches: int
    precision_name: str = "fp32"
    sizes: tuple[int, int] = (256, 128)
    members: int = 5
    device: str = "cpu"

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.data = make_data(self.spec, 20_000)
        width, gru_size = self.sizes
        self.team = MOMAPPOModule(
            self.spec,
            horizon=self.horizon,
            n_rollouts=self.n_rollouts,
            n_minibatches=self.n_minibatches,
            width=width,
            gru_size=gru_size,
        )
        self.team.world_model = WorldModel(self.spec, self.members, *self.network, "never")
        self.team.world_model.space.fit(self.data, 0.99)
        self.team.pessimism.adaptive_horizon = False  # all rollouts have full length, so that all runs do the same work
        self.team, self.data = self.team.to(self.device), self.data.to(self.device)
        self.optimizer = self.team.make_optimizer()

    def imagine(self) -> Rollout:
        random = torch.Generator(self.device).manual_seed(0)
        index = torch.randint(len(self.data), (self.n_rollouts,), generator=random, device=self.device)
        with precision(self.precision_name, self.device):
            return self.team.imagine(self.data.sequence(index, self.team.burn_in), self.horizon, random)

    def update(self, rollout: Rollout) -> int:
        steps = 0
        with precision(self.precision_name, self.device):
            rollout = self.team.with_advantages(rollout)
        for minibatch in self.team.minibatches(rollout, torch.Generator().manual_seed(0)):
            self.optimizer.zero_grad()
            with precision(self.precision_name, self.device):
                loss = self.team.training_step(minibatch, 0)
            loss.backward()
            self.team.configure_gradient_clipping(self.optimizer)
            self.optimizer.step()
            steps += 1
        return steps

    def iterate(self) -> int:
        return self.update(self.imagine())
