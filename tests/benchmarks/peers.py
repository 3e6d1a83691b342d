"""What other projects do for the same work, in plain PyTorch, to time beside this library.

Written from descriptions of the method, without their code. They do the same number of gradient steps on the same
number of transitions, with networks of the same width; random data stand for what they would load, because values do
not affect the speed.

- ``EinsumEnsemble``: an ensemble in one stack, as model-based offline libraries for single agents have it: ``einsum``
  per layer, batches cut from NumPy arrays, weight decay as a term of the loss.
- ``WindowedTeam``: the update of MOMA-PPO's research code as its paper describes it. Every sample is a window of ten
  steps, which a GRU encodes from a zero state; one network after another, actors and critic with a backward pass each.
- ``SequenceTeam``: recurrent PPO as most people would write it: one ``nn.GRU`` per agent, over whole rollouts from
  stored hidden states.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momalit.core.team import TeamSpec
from momalit.nn.mixers import QMixer
from tests.benchmarks.workloads import precision

WINDOW, EPOCHS = 10, 5


class EinsumLayer(nn.Module):
    """M linear layers."""

    def __init__(self, members: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, n_in, n_out) / (2 * n_in**0.5))
        self.bias = nn.Parameter(torch.zeros(members, 1, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(M, B, n_in)`` -> ``(M, B, n_out)``."""
        return torch.einsum("mbi,mio->mbo", x, self.weight) + self.bias


class EinsumEnsemble(nn.Module):
    """Predicts mean and log-variance of state change and reward.

    Args:
        spec: the team.
        members: number of members.
        width: units of four hidden layers.
        precision_name: ``fp32`` or ``bf16``.
    """

    def __init__(self, spec: TeamSpec, members: int, width: int, precision_name: str = "fp32") -> None:
        super().__init__()
        self.members, self.precision_name = members, precision_name
        n_in, self.n_out = spec.state_size + spec.joint_action_size, spec.state_size + 1
        sizes = [n_in, *4 * [width], 2 * self.n_out]
        self.layers = nn.ModuleList(EinsumLayer(members, a, b) for a, b in pairwise(sizes))
        self.highest = nn.Parameter(torch.full((self.n_out,), 0.5))
        self.lowest = nn.Parameter(torch.full((self.n_out,), -10.0))
        self.optimizer = torch.optim.Adam(self.parameters(), 1e-3)
        random = np.random.default_rng(0)
        self.x = random.standard_normal((20_000, n_in), np.float32)
        self.y = random.standard_normal((20_000, self.n_out), np.float32)
        self.order = random.integers(len(self.x), size=(members, 256))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers[:-1]:
            x = F.silu(layer(x))
        mean, raw = self.layers[-1](x).float().chunk(2, -1)
        bounded = self.highest - F.softplus(self.highest - raw)
        return mean, self.lowest + F.softplus(bounded - self.lowest)

    def step(self) -> None:
        """One gradient step on 256 transitions per member."""
        x, y = torch.as_tensor(self.x[self.order]), torch.as_tensor(self.y[self.order])
        with precision(self.precision_name):
            mean, log_variance = self(x)
        likelihood = ((mean - y) ** 2 * torch.exp(-log_variance)).mean((1, 2)) + log_variance.mean((1, 2))
        decay = sum(5e-5 * (layer.weight**2).sum() for layer in self.layers)
        loss = likelihood.sum() + decay + 0.01 * (self.highest.sum() - self.lowest.sum())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def advance(self, state: np.ndarray, action: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Next states and penalised rewards of ``(B, S)`` and ``(B, U)``, by way of NumPy as for an environment."""
        x = torch.as_tensor(np.concatenate([state, action], -1)).expand(self.members, -1, -1)
        with precision(self.precision_name):
            mean, log_variance = self(x)
        outcome = mean.numpy() + np.exp(0.5 * log_variance.numpy()) * random.standard_normal(mean.shape, np.float32)
        chosen = outcome[random.integers(self.members, size=len(state)), np.arange(len(state))]
        return state + chosen[:, :-1], chosen[:, -1] - np.linalg.norm(mean.numpy().std(0), axis=-1)


class Encoder(nn.Module):
    """A linear layer, a GRU and a linear head for one agent."""

    def __init__(self, n_in: int, n_out: int, sizes: tuple[int, int]) -> None:
        super().__init__()
        width, gru_size = sizes
        self.linear, self.gru = nn.Linear(n_in, width), nn.GRU(width, gru_size, batch_first=True)
        self.head = nn.Linear(gru_size, n_out)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """``(B, T, n_in)`` -> ``(B, T, n_out)``."""
        return self.head(self.gru(F.relu(self.linear(x)), h)[0])


class Team(nn.Module):
    """Actors and QMIX critic of a team with continuous actions, one network per agent, and their PPO step."""

    def __init__(self, spec: TeamSpec, precision_name: str = "fp32", sizes: tuple[int, int] = (256, 128)) -> None:
        super().__init__()
        self.spec, self.precision_name, self.gru_size = spec, precision_name, sizes[1]
        self.inputs = [len(agent.observes) + agent.action_size for agent in spec.agents]
        outputs = [agent.action_size for agent in spec.agents]
        self.actors = nn.ModuleList(Encoder(*ends, sizes) for ends in zip(self.inputs, outputs, strict=True))
        self.log_std = nn.ParameterList(torch.zeros(n) for n in outputs)
        self.critics = nn.ModuleList(Encoder(n, 1, sizes) for n in self.inputs)
        self.mixer = QMixer(spec.n_agents, spec.state_size)
        self.of_actors = [*self.actors.parameters(), *self.log_std.parameters()]
        self.of_critics = [*self.critics.parameters(), *self.mixer.parameters()]
        self.optimizers = [torch.optim.Adam(parameters, 5e-4) for parameters in (self.of_actors, self.of_critics)]

    def encode(self, networks: nn.ModuleList, batch: Batch) -> list[Tensor]:
        """The networks' outputs, each ``(..., n_out)``."""
        raise NotImplementedError

    def policies(self, batch: Batch) -> list[torch.distributions.Normal]:
        means = self.encode(self.actors, batch)
        return [torch.distributions.Normal(m.float(), s.exp()) for m, s in zip(means, self.log_std, strict=True)]

    def gradient_steps(self, batch: Batch) -> None:
        """One step of the actors and one of the critic."""
        with precision(self.precision_name):
            policies = self.policies(batch)
            terms = []
            for policy, action, old in zip(policies, batch.actions, batch.log_probs, strict=True):
                ratio = torch.exp(policy.log_prob(action).sum(-1) - old)
                clipped = ratio.clamp(0.8, 1.2)
                terms.append(torch.minimum(ratio * batch.advantage, clipped * batch.advantage).mean())
                terms.append(0.01 * policy.entropy().sum(-1).mean())
            actor_loss = -sum(terms)
            values = torch.cat(self.encode(self.critics, batch), -1).float()
            critic_loss = F.huber_loss(self.mixer(values, batch.state), batch.target)
        losses, groups = (actor_loss, critic_loss), (self.of_actors, self.of_critics)
        for loss, parameters, optimizer in zip(losses, groups, self.optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()

    def update(self, data: Batch, n_minibatches: int) -> None:
        """Five passes over the data in random minibatches."""
        for _ in range(EPOCHS):
            for part in torch.randperm(len(data.state)).tensor_split(n_minibatches):
                self.gradient_steps(data.rows(part))


@dataclass
class Batch:
    """What PPO learns from. Lists have one entry per agent; the first axis of every tensor is that of the samples."""

    inputs: list[Tensor]
    hidden_states: list[Tensor]
    actions: list[Tensor]
    log_probs: list[Tensor]
    state: Tensor
    advantage: Tensor
    target: Tensor

    @classmethod
    def random(cls, team: Team, samples: int, steps: int, of_each_step: bool) -> Batch:
        """Random numbers for ``samples`` sequences of ``steps`` steps.

        Args:
            team: whose networks read them.
            samples: B.
            steps: T, steps of each input.
            of_each_step: whether every step is learnt from, so that shapes are ``(B, T, ...)``; else the last.
        """
        shape = (samples, steps) if of_each_step else (samples,)
        spec = team.spec
        return cls(
            [torch.randn(samples, steps, n) for n in team.inputs],
            [torch.randn(samples, team.gru_size) for _ in team.inputs],
            [torch.randn(*shape, agent.action_size) for agent in spec.agents],
            [torch.randn(shape) for _ in spec.agents],
            torch.randn(*shape, spec.state_size),
            torch.randn(shape),
            torch.randn(shape),
        )

    def rows(self, part: Tensor) -> Batch:
        lists = (self.inputs, self.hidden_states, self.actions, self.log_probs)
        return Batch(
            *([tensor[part] for tensor in tensors] for tensors in lists),
            self.state[part],
            self.advantage[part],
            self.target[part],
        )


class WindowedTeam(Team):
    """Every sample is encoded anew from the ten steps that end with it."""

    def encode(self, networks: nn.ModuleList, batch: Batch) -> list[Tensor]:
        return [network(x)[:, -1] for network, x in zip(networks, batch.inputs, strict=True)]

    def data(self, n_rollouts: int, horizon: int) -> Batch:
        return Batch.random(self, n_rollouts * horizon, WINDOW, of_each_step=False)

    @torch.no_grad()
    def imagine(self, ensemble: EinsumEnsemble, n_rollouts: int, horizon: int) -> None:
        """Acts in an ensemble. At every step each agent encodes its last ten observations."""
        random, spec = np.random.default_rng(0), self.spec
        state = random.standard_normal((n_rollouts, spec.state_size), np.float32)
        windows = [torch.zeros(n_rollouts, WINDOW, n) for n in self.inputs]
        for _ in range(horizon):
            with precision(self.precision_name):
                actions = [
                    torch.distributions.Normal(actor(x)[:, -1].float(), log_std.exp()).sample().clamp(-1, 1)
                    for actor, log_std, x in zip(self.actors, self.log_std, windows, strict=True)
                ]
            state, _ = ensemble.advance(state, torch.cat(actions, -1).numpy(), random)
            state = state.clip(-10, 10)
            windows = [
                torch.cat([x[:, 1:], torch.cat([torch.as_tensor(state[:, agent.observes]), action], -1)[:, None]], 1)
                for agent, action, x in zip(spec.agents, actions, windows, strict=True)
            ]


class SequenceTeam(Team):
    """Rollouts are encoded as sequences, from the hidden states with which they were collected."""

    def encode(self, networks: nn.ModuleList, batch: Batch) -> list[Tensor]:
        return [network(x, h[None]) for network, x, h in zip(networks, batch.inputs, batch.hidden_states, strict=True)]

    def data(self, n_rollouts: int, horizon: int) -> Batch:
        return Batch.random(self, n_rollouts, horizon, of_each_step=True)
