"""Fitted-Q evaluation: the value of a team from a log, without a world model.

The established way to judge policies offline (Le et al., 2019; Paine et al., 2020), for comparison.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momalit.core.trajectories import Trajectories
from momalit.nn.actors import TeamActor
from momalit.nn.standardizer import Standardizer
from momalit.policies.rollout import initial_start

EPISODES_PER_PASS = 64
TARGET_RATE = 0.05


@torch.no_grad()
def team_actions(actor: TeamActor, data: Trajectories) -> Tensor:
    """The deterministic joint action at every recorded state, given the recorded history, ``(N + E, A, U)``.

    The order is that of ``data.state``, the last state of every episode included.
    """
    parts = []
    for episodes in torch.arange(len(data.lengths)).split(EPISODES_PER_PASS):
        lengths = data.lengths[episodes]
        sequence = data.sequence(data.first[episodes], 0, int(lengths.max()))
        action = actor.clip(actor(sequence)[0].mode).transpose(0, 1)
        recorded = torch.arange(action.shape[1]) <= lengths.unsqueeze(1)
        parts.append(action[recorded])
    return torch.cat(parts)


def fitted_q(
    actor: TeamActor,
    data: Trajectories,
    initial_states: Tensor,
    discount: float = 0.99,
    steps: int = 4_000,
    batch_size: int = 256,
    width: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
) -> float:
    """Estimates the discounted return of the deterministic team.

    Args:
        actor: the team, on the data's device.
        data: the log.
        initial_states: where episodes begin, ``(N, S)``.
        discount: γ.
        steps: gradient steps.
        batch_size: transitions per step.
        width: units of the two hidden layers.
        lr: learning rate.
        seed: seed of the network and the batches.
    """
    action, mask = team_actions(actor, data), actor.mask.bool().flatten()
    state_size = data.state.shape[1]
    random = torch.Generator().manual_seed(seed)
    inputs = Standardizer(state_size + int(mask.sum()))
    inputs.fit(torch.cat([data.state[data.row], data.action.flatten(1)[:, mask]], 1))
    reward_scale = data.reward.std().clamp(min=1e-8)
    offset = data.reward.mean() / reward_scale / (1 - discount)  # what is left to learn are differences
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(len(inputs.mean), width), nn.LayerNorm(width), nn.SiLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1),
        )  # fmt: skip
        target = torch.optim.swa_utils.AveragedModel(
            network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(1 - TARGET_RATE)
        )

    def value(net: nn.Module, state: Tensor, joint: Tensor) -> Tensor:
        q: Tensor = net(inputs(torch.cat([state, joint.flatten(1)[:, mask]], 1)))
        return q.squeeze(1) + offset

    optimizer = torch.optim.Adam(network.parameters(), lr)
    for _ in range(steps):
        index = torch.randint(len(data), (batch_size,), generator=random)
        batch, following = data.transitions(index), action[data.row[index] + 1]
        with torch.no_grad():
            next_value = value(target, batch.next_state, following) * ~batch.terminated
            goal = batch.reward / reward_scale + discount * next_value
        loss = F.smooth_l1_loss(value(network, batch.state, batch.action), goal)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        target.update_parameters(network)
    with torch.no_grad():
        now = initial_start(initial_states, *actor.mask.shape).now
        first = actor.clip(actor(now)[0].mode)[0]
        return float(value(target, initial_states, first).mean() * reward_scale)
