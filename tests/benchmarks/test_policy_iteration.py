"""What one policy iteration costs on one thread: 2,000 imagined transitions and the update on them.

The sizes are those of the paper's Reacher runs: k = 10, two agents, five elites of 4x200 units, actors and critics 256
wide with a memory of 128, five epochs with as many gradient steps as minibatches of 64 transitions give.
"""

from collections.abc import Iterator

import pytest
import torch

from momalit.dynamics import WorldModel
from momalit.moma_ppo import MOMAPPOModule
from momalit.records import Rollout

pytestmark = pytest.mark.benchmark(group="policy iteration")
ROWS, HORIZON, MINIBATCHES, EPOCHS = 200, 10, 31, 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def team(reacher) -> MOMAPPOModule:
    torch.manual_seed(0)
    module = MOMAPPOModule(reacher.spec, horizon=HORIZON, rows=ROWS, minibatches=MINIBATCHES)
    module.world_model = WorldModel(reacher.spec, 5, (200,) * 4, "never")
    module.world_model.space.fit(reacher.train, 0.99)
    module.pessimism.adaptive_horizon = False
    return module


@pytest.fixture
def rollout(team, reacher) -> Rollout:
    return imagine(team, reacher)


def imagine(team: MOMAPPOModule, reacher) -> Rollout:
    random = torch.Generator().manual_seed(0)
    index = torch.randint(len(reacher.train), (ROWS,), generator=random)
    return team.imagine(reacher.train.sequence(index, team.memory_length), HORIZON, random)


def update(team: MOMAPPOModule, rollout: Rollout) -> int:
    optimizer = torch.optim.Adam(
        [{"params": list(team.actor.parameters())}, {"params": list(team.critic.parameters())}], 5e-4, fused=True
    )
    rollout, steps = team.with_advantages(rollout), 0
    for minibatch in team.minibatches(rollout, torch.Generator().manual_seed(0)):
        optimizer.zero_grad()
        team.training_step(minibatch, 0).backward()
        team.configure_gradient_clipping(optimizer)
        optimizer.step()
        steps += 1
    return steps


def test_imagine_2000_transitions(benchmark, team, reacher):
    rollout = benchmark.pedantic(imagine, (team, reacher), rounds=5, warmup_rounds=1)
    assert int(rollout.valid.sum()) == ROWS * HORIZON


def test_update_on_2000_transitions(benchmark, team, rollout):
    assert benchmark.pedantic(update, (team, rollout), rounds=3, warmup_rounds=1) == EPOCHS * MINIBATCHES


def test_sgemm_limit(benchmark):
    """What the machine gives at best, to hold the others against: 100 products of 1024x1024 matrices."""
    a, b = torch.randn(2, 1024, 1024)

    def products() -> None:
        for _ in range(100):
            a @ b

    benchmark.pedantic(products, rounds=3, warmup_rounds=1)
