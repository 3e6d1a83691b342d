"""What is timed: the library's own steps on data of the right shapes. Speed does not depend on the numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch

from momalit.core.records import Rollout
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs import make_env, team_spec
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.module import WorldModelModule

SMALL, PAPER = (200,) * 4, (1024,) * 4
WIDTHS = {"4x200": SMALL, "4x1024": PAPER}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


def make_spec(task: str, **settings: object) -> TeamSpec:
    """The team of a real task."""
    env = make_env(task, **settings)
    try:
        return team_spec(env, task, settings)
    finally:
        env.close()


def make_data(spec: TeamSpec, transitions: int, length: int = 50) -> Trajectories:
    """Random trajectories in the shapes of a task."""
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
def precision(name: str) -> Iterator[None]:
    """What Lightning's ``bf16-mixed`` does around a step; nothing for ``fp32``."""
    kind = PRECISIONS[name]
    with torch.autocast("cpu", kind, enabled=kind is not None):
        yield


def world_model_step(spec: TeamSpec, hidden: tuple[int, ...], number: str, members: int = 7) -> Callable[[], None]:
    """One gradient step of the ensemble on a batch of 256 transitions per member, drawing the batch included."""
    torch.manual_seed(0)
    data = make_data(spec, 20_000)
    module = WorldModelModule(spec, members, 5, hidden)
    module.space.fit(data, 0.99)
    optimizer = torch.optim.AdamW(module.network.parameters(), 1e-3, fused=True)
    order = torch.stack([torch.randperm(len(data)) for _ in range(members)])

    def step() -> None:
        optimizer.zero_grad()
        with precision(number):
            loss = module.training_step(data.transitions(order[:, :256]), 0)
        loss.backward()
        optimizer.step()

    return step


def model_products(spec: TeamSpec, hidden: tuple[int, ...], rows: int, members: int) -> float:
    """Multiplications and additions of one forward pass of ``members`` networks over ``rows`` rows."""
    sizes = [spec.state_size + spec.joint_action_size, *hidden, 2 * (spec.state_size + 1) + 1]
    return 2.0 * members * rows * sum(a * b for a, b in pairwise(sizes))


@dataclass
class Practice:
    """A team with its model, and the log it starts from: one policy iteration in two halves.

    Args:
        spec: the team.
        hidden: widths of the model's hidden layers; it has five elites.
        rows: rollouts.
        horizon: their steps.
        minibatches: per pass, of five.
        number: ``fp32`` or ``bf16``.
        sizes: of the policies' networks; those of the paper by default.
    """

    spec: TeamSpec
    hidden: tuple[int, ...]
    rows: int
    horizon: int
    minibatches: int
    number: str = "fp32"
    sizes: tuple[int, int] = (256, 128)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.data = make_data(self.spec, 20_000)
        width, gru_size = self.sizes
        self.team = MOMAPPOModule(
            self.spec,
            horizon=self.horizon,
            n_rollouts=self.rows,
            n_minibatches=self.minibatches,
            width=width,
            gru_size=gru_size,
        )
        self.team.world_model = WorldModel(self.spec, 5, self.hidden, "never")
        self.team.world_model.space.fit(self.data, 0.99)
        self.team.pessimism.adaptive_horizon = False  # every row to its end, so that all runs do the same work
        self.optimizer = self.team.make_optimizer()

    def imagine(self) -> Rollout:
        random = torch.Generator().manual_seed(0)
        index = torch.randint(len(self.data), (self.rows,), generator=random)
        with precision(self.number):
            return self.team.imagine(self.data.sequence(index, self.team.burn_in), self.horizon, random)

    def update(self, rollout: Rollout) -> int:
        steps = 0
        with precision(self.number):
            rollout = self.team.with_advantages(rollout)
        for minibatch in self.team.minibatches(rollout, torch.Generator().manual_seed(0)):
            self.optimizer.zero_grad()
            with precision(self.number):
                loss = self.team.training_step(minibatch, 0)
            loss.backward()
            self.team.configure_gradient_clipping(self.optimizer)
            self.optimizer.step()
            steps += 1
        return steps

    def iterate(self) -> int:
        return self.update(self.imagine())
