"""Each method's loss computed by hand, and small problems with a known optimum."""

import math

import lightning.pytorch as pl
import pytest
import torch

from momalit.baselines import ICQLModule, IOMARModule, IQLModule, ITD3BCModule, MAIQLModule
from momalit.baselines.value_learner import Minibatch
from momalit.core.records import Sequence
from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.functional.value_learning import conservative_gap
from tests.baselines.logs import Recorded, fit, one_step_dataset, team

SMALL = {"width": 32, "batch_size": 128, "steps_per_epoch": 150, "lr": 3e-3}


def constant(values, number):
    """Sets value networks to output ``number`` for all inputs."""
    values.out.weight.data.zero_()
    values.out.bias.data.fill_(number)


def minibatch(module, action, reward, terminated):
    """One step of each of B episodes, in which all states are zero."""
    rows, spec = len(reward), module.team
    state = torch.zeros(2, rows, spec.state_size)
    inputs = module.policy.inputs
    return Minibatch(
        inputs=inputs(state, torch.zeros(2, rows, spec.n_agents, spec.action_size)), keep=torch.ones(2, rows),
        state=state, context=state, action=action.unsqueeze(0), scaled_action=inputs.scaled(action).unsqueeze(0),
        reward=torch.tensor([reward]), terminated=torch.tensor([terminated]),
        valid=torch.ones(1, rows, dtype=torch.bool),
    )  # fmt: skip


def close(found, expected):
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def act(module, state):
    """Returns the team's deterministic actions at an episode's first step in the states ``(B, S)``."""
    spec = module.spec
    sequence = Sequence(
        state.unsqueeze(0), torch.zeros(1, len(state), spec.n_agents, spec.action_size),
        torch.zeros(1, len(state), dtype=torch.bool),
    )  # fmt: skip
    with torch.no_grad():
        return module.actor.clip(module.actor(sequence)[0].mode)[0]


# --- losses by hand ------------------------------------------------------------------------------------------------
def test_the_loss_of_iql():
    """Twin Q-values are 2 and 3, those of the target networks 1 and 4, and V = 2, so the advantage is negative."""
    module = IQLModule(team(discrete=True), width=8, discount=0.5)
    constant(module.q, 2.0)
    module.q.out.bias.data[1] = 3.0
    constant(module.q_target, 1.0)
    module.q_target.out.bias.data[1] = 4.0
    constant(module.v, 2.0)
    module.policy.head.weight.data.zero_()
    action = torch.eye(4)[[0, 3]].unsqueeze(1)
    losses = module.losses(minibatch(module, action, [1.0, 1.0], [False, True]))
    # u = min(1, 4) - 2 = -1. Targets are 1 + 0.5 * 2 = 2 and 1. The policy is uniform over four combinations.
    close(losses["value"], 0.3 * 1)
    close(losses["critic"], ((2 - 2) ** 2 + (3 - 2) ** 2 + (2 - 1) ** 2 + (3 - 1) ** 2) / 2)
    close(losses["policy"], math.exp(-3) * math.log(4))


def test_the_loss_of_maiql():
    """The mixer is a sum: Q_tot = 2 + 1, V_tot = 2 (-1). Both agents have the same weight."""
    module = MAIQLModule(team(discrete=True), width=8, mixer="vdn", discount=0.5, temperature=0.5)
    for network in (module.q, module.q_target):
        constant(network, 2.0)
        network.out.bias.data[1::2] = 1.0  # agent 1, both twins
    constant(module.v, -1.0)
    module.policy.head.weight.data.zero_()
    action = torch.eye(2).unsqueeze(0)
    losses = module.losses(minibatch(module, action, [5.0], [False]))
    close(losses["value"], 0.7 * (3 + 2) ** 2)
    close(losses["critic"], 2 * (3 - (5 - 0.5 * 2)) ** 2)
    close(losses["policy"], math.exp(0.5 * 5) * math.log(2))


def test_the_loss_of_td3_bc():
    """Twin Q-values are -4 and 3 for agent 0, 8 for agent 1. Policies output 0. The data's actions are 0.5 and -1."""
    module = ITD3BCModule(team(discrete=False), width=8, discount=0.5, policy_delay=1)
    module.noise = torch.Generator().manual_seed(0)
    for network in (module.q, module.q_target):
        constant(network, 0.0)
        network.out.bias.data[:, 0, 0] = torch.tensor([-4.0, 8.0, 3.0, 8.0])
    module.policy.head.weight.data.zero_()
    action = torch.tensor([[[0.5], [-1.0]]])
    losses = module.losses(minibatch(module, action, [1.0], [False]))
    # Targets are 1 + 0.5 * (-4) = -1 and 1 + 0.5 * 8 = 5, for both twins. The loss is the mean over agents.
    close(losses["critic"], ((-4 + 1) ** 2 + (3 + 1) ** 2 + 2 * (8 - 5) ** 2) / 2)
    # λ Q is -2.5 for agent 0 and 2.5 for agent 1.
    close(losses["policy"], (0.5**2 + 1**2) / 2 - (-2.5 + 2.5) / 2)


def test_the_loss_of_cql_for_discrete_actions():
    """The first action has Q = log 3 and probability 3/4, the second has Q = 0, for all agents."""
    module = ICQLModule(team(discrete=True), width=8, discount=0.5, cql_alpha=2.0)
    for network in (module.q, module.q_target):
        constant(network, 0.0)
        network.out.bias.data[..., 0] = math.log(3)
    module.policy.head.weight.data.zero_()
    module.policy.head.bias.data[..., 0] = math.log(3)
    action = torch.eye(2).unsqueeze(0)
    losses = module.losses(minibatch(module, action, [1.0], [False]))
    target = 1 + 0.5 * 0.75 * math.log(3)
    close(losses["critic"], 2 * ((math.log(3) - target) ** 2 + target**2) / 2)
    close(losses["conservative"], 2.0 * 2 * (2 * math.log(4) - math.log(3)) / 2)
    entropy = math.log(4) - 0.75 * math.log(3)
    close(losses["policy"], -0.1 * entropy - 0.75 * math.log(3))  # the initial temperature is 0.1
    losses["temperature"].backward()
    torch.testing.assert_close(module.log_temperature.grad, torch.full((2,), (entropy - 0.1 * math.log(2)) / 2))


def test_the_loss_of_cql_for_continuous_actions():
    """All Q-values are 2, and those of the target networks are 1."""
    module = ICQLModule(team(discrete=False), width=8, discount=0.5, n_action_samples=4000, initial_std=0.1)
    module.noise = torch.Generator().manual_seed(0)
    constant(module.q, 2.0)
    constant(module.q_target, 1.0)
    losses = module.losses(minibatch(module, torch.zeros(1, 2, 1), [1.0], [False]))
    close(losses["critic"], 2 * (2 - 1.5) ** 2)
    policy = module.policy.distribution(module.hidden_states(module.policy, _one(module), 0, 1), torch.zeros(1, 1, 1))
    module.noise.manual_seed(0)
    actions, log_density = module._sample_actions(policy, policy)
    assert actions.shape == (12000, 1, 1, 2, 1)
    torch.testing.assert_close(log_density[:4000], torch.full((4000, 1, 1, 2), -math.log(2)))
    # The other actions are sampled from the policies, whose initial standard deviation is 0.1.
    sampled, normal = actions[4000:], torch.distributions.Normal(0.0, 0.1)
    assert float(sampled.std()) == pytest.approx(0.1, rel=0.05)
    torch.testing.assert_close(log_density[4000:], normal.log_prob(sampled).squeeze(-1), atol=1e-3, rtol=1e-3)
    expected = conservative_gap(torch.full((12000, 1, 1, 2), 2.0), torch.tensor(2.0), log_density)
    close(
        losses["conservative"],
        2 * float(expected.mean()),
    )


def _one(module):
    return minibatch(module, torch.zeros(1, 2, 1), [1.0], [False])


def test_the_loss_of_omar():
    module = IOMARModule(team(discrete=False), width=8, omar_coefficient=0.25)
    module.noise = torch.Generator().manual_seed(0)
    constant(module.q, 3.0)
    module.policy.head.weight.data.zero_()
    module.search = lambda _, action: torch.full_like(action, 0.5)
    losses = module.losses(minibatch(module, torch.zeros(1, 2, 1), [1.0], [False]))
    close(losses["policy"], 0.25 * 0.5**2 - 0.75 * 3)


def test_the_search_of_omar_finds_the_best_action_and_never_returns_a_worse_one():
    module = IOMARModule(team(discrete=False), cem_iterations=3, cem_samples=200, cem_elites=20)
    module.noise = torch.Generator().manual_seed(0)
    module.q.action_values = lambda _, action: -(action - 0.7).square().sum(-1).unsqueeze(0)
    found = module.search(torch.zeros(2, 1, 5, 8), torch.zeros(1, 5, 2, 1))
    torch.testing.assert_close(found, torch.full_like(found, 0.7), atol=0.02, rtol=0)
    best = torch.full((1, 5, 2, 1), 0.7)
    assert torch.equal(module.search(torch.zeros(2, 1, 5, 8), best), best)


# --- known optima --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def matrix_game():
    """Both agents observe a cue (±1) and act at random. The reward is 1 + cue / 2 if both choose the cue's action."""
    spec = team(discrete=True)
    random = torch.Generator().manual_seed(0)
    cue = torch.randint(2, (4000,), generator=random)
    action = torch.randint(2, (4000, 2), generator=random)
    correct = (action == cue.unsqueeze(1)).all(1)
    state = 2.0 * cue.unsqueeze(1) - 1
    return one_step_dataset(spec, state, torch.eye(2)[action], correct * (1 + state[:, 0] / 2))


@pytest.mark.parametrize(
    ("kind", "settings"), [(IQLModule, {}), (MAIQLModule, {}), (MAIQLModule, {"gru_size": 8}), (ICQLModule, {})]
)
def test_the_best_joint_discrete_action_is_learned_from_random_data(kind, settings, matrix_game):
    pl.seed_everything(0, verbose=False)
    module = fit(kind(matrix_game.spec, **SMALL, **settings), matrix_game, 2)
    assert act(module, torch.tensor([[-1.0], [1.0]])).argmax(-1).tolist() == [[0, 0], [1, 1]]


def test_the_value_of_iql_is_the_expectile(matrix_game):
    """A reward r has probability 1/4, otherwise it is 0. The τ-expectile v solves τ (r - v) / 4 = 3 (1 - τ) v / 4."""
    pl.seed_everything(0, verbose=False)
    module = fit(IQLModule(matrix_game.spec, **SMALL, expectile=0.9, target_update_rate=0.05), matrix_game, 3)
    batch = matrix_game.train.segments(torch.arange(500), 0, 1)
    with torch.no_grad():
        value = module.state_values(module.encode(batch), 0, 1)[0, :, 0]
    factor, reward = module.scale.factor, torch.where(batch.sequence.state[0, :, 0] > 0, 1.5, 0.5)
    torch.testing.assert_close(value, factor * reward * 0.9 / (0.9 + 3 * 0.1), atol=0.06, rtol=0)


@pytest.fixture(scope="module")
def target_game():
    """Each agent observes its own target and adds -(a - target)² to the reward. The dataset's actions are random."""
    spec = team(discrete=False, state_size=2, observes=((0,), (1,)))
    random = torch.Generator().manual_seed(0)
    state = torch.rand(4000, 2, generator=random) - 0.5
    action = torch.rand(4000, 2, 1, generator=random) * 2 - 1
    return one_step_dataset(spec, state, action, -(action.squeeze(-1) - state).square().sum(-1))


@pytest.mark.parametrize(
    ("kind", "settings", "error"),
    [
        (IQLModule, {"temperature": 10.0}, 0.15),
        (MAIQLModule, {"temperature": 10.0, "gru_size": 0}, 0.15),
        (ITD3BCModule, {"alpha": 100.0, "gru_size": 0}, 0.1),
        (ICQLModule, {"cql_alpha": 0.0, "target_entropy": -2.0, "gru_size": 0}, 0.1),
        (IOMARModule, {"cql_alpha": 0.0, "gru_size": 0}, 0.1),
    ],
)
def test_the_best_continuous_action_is_learned_from_random_data(kind, settings, error, target_game):
    pl.seed_everything(0, verbose=False)
    module = fit(kind(target_game.spec, **SMALL, **settings), target_game, 4)
    state = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 0.8 - 0.4
    assert float((act(module, state).squeeze(-1) - state).square().mean().sqrt()) < error


def test_conservative_values_prefer_actions_of_the_dataset():
    """All actions have the same reward, and all of the dataset's are about 0.5. CQL's policies stay near 0.5."""
    pl.seed_everything(0, verbose=False)
    spec = team(discrete=False)
    noise = 0.02 * torch.randn(2000, 2, 1, generator=torch.Generator().manual_seed(0))
    data = one_step_dataset(spec, torch.zeros(2000, 1), 0.5 + noise, torch.zeros(2000))
    module = fit(ICQLModule(spec, **SMALL), data, 3)
    torch.testing.assert_close(act(module, torch.zeros(1, 1)), torch.full((1, 2, 1), 0.5), atol=0.1, rtol=0)


def test_values_are_discounted_and_bootstrap_after_a_time_limit():
    """State 0 leads to state 1, which has reward 1 and repeats until a time limit. V(1) = 2, V(0) = 1 for γ = 1/2."""
    spec = team(discrete=True, n_agents=1)
    episodes = 500
    state = torch.tensor([0.0, 1.0, 1.0]).repeat(episodes).unsqueeze(1)
    action = torch.eye(2)[torch.randint(2, (2 * episodes, 1), generator=torch.Generator().manual_seed(0))]
    reward, last = torch.tensor([0.0, 1.0]).repeat(episodes), torch.tensor([False, True]).repeat(episodes)
    trajectories = Trajectories.from_lengths(state, action, reward, last & False, last, torch.full((episodes,), 2))
    pl.seed_everything(0, verbose=False)
    data = Recorded(spec, trajectories)
    module = fit(MAIQLModule(spec, **SMALL, discount=0.5, target_update_rate=0.05), data, 3)
    batch = trajectories.segments(torch.arange(2), 0, 1)
    with torch.no_grad():
        value = module.state_values(module.encode(batch), 0, 1).flatten() / module.scale.factor
    torch.testing.assert_close(value, torch.tensor([1.0, 2.0]), atol=0.05, rtol=0)


@pytest.mark.parametrize("discrete", [False, True])
def test_values_stay_finite_if_an_agent_has_left(discrete):
    """The last of three steps is taken without the second agent. Each step earns between 0 and 1."""
    bounds = ((), ()) if discrete else ((-1.0,), (1.0,))
    agents = tuple(AgentSpec(n, (0, 1, 2), 3 if discrete else 1, *bounds, present=i) for i, n in enumerate("ab", 1))
    spec = TeamSpec("leaving", agents, 3, discrete, 3, tuple(("state", i) for i in range(3)))
    episodes, random = 64, torch.Generator().manual_seed(0)
    state = torch.zeros(episodes, 4, 3)
    state[:, :, 0], state[:, :, 1], state[:, :2, 2] = torch.arange(4) / 3, 1, 1
    size = (episodes, 3, 2)
    action = (
        torch.nn.functional.one_hot(torch.randint(3, size, generator=random), 3).float()
        if discrete
        else torch.rand(*size, 1, generator=random) * 2 - 1
    )
    action[:, 2, 1] = 0
    reward = torch.rand(episodes, 3, generator=random)
    ends = torch.zeros(episodes, 3, dtype=torch.bool)
    ends[:, -1] = True
    tensors = [tensor.flatten(0, 1) for tensor in (state, action, reward, ends, torch.zeros_like(ends))]
    data = Recorded(spec, Trajectories.from_lengths(*tensors, torch.full((episodes,), 3)))
    torch.manual_seed(0)
    module = fit(ICQLModule(spec, gru_size=0, target_update_rate=0.05, **SMALL), data, 4)
    batch = module.encode(data.train.segments(data.train.first[:1] + 1, 0, 1))
    with torch.no_grad():
        hidden_state = module.q.hidden_states(batch.inputs, batch.keep, batch.first, batch.last)
        if discrete:
            values = module.scale.value(module.q.all_values(hidden_state))
        else:
            values = module.scale.value(module.q.action_values(hidden_state, batch.scaled_action.unsqueeze(0)))
    assert float((values / module.scale.factor).abs().max()) < 10
