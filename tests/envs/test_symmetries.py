"""Symmetries that tasks declare, against their environments: image and next step may be taken in either order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from momalit.core.errors import UserError
from momalit.core.records import Transitions
from momalit.core.team import STATE, TeamSpec
from momalit.envs import make_env, team_spec
from momalit.envs.symmetries import symmetries_named, symmetries_of


def columns_of(spec: TeamSpec, observations: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
    return np.array([state[i] if key == STATE else observations[key][i] for key, i in spec.sources], np.float64)


def image(
    spec: TeamSpec, maps: Any, which: int, state: np.ndarray, action: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The state and the padded joint action ``(A, U)`` seen through one map."""
    steps = Transitions(*(torch.tensor(x) for x in (state, action, 0.0, state, False)))
    seen = maps.to("cpu").floating(torch.float64).apply(steps, torch.tensor(which))
    return seen.state.numpy(), seen.action.numpy()


def put(env: Any, state: np.ndarray) -> None:
    """Puts a MuJoCo robot into an observed state."""
    env.reset(seed=0)
    robot = env._env
    if env.metadata["name"] == "ant":
        robot.set_state(np.concatenate([[0.0, 0.0], state[:13]]), state[13:])
    else:
        angles, target = np.arctan2(state[2:4], state[:2]), state[4:6]
        robot.set_state(np.concatenate([angles, target]), np.concatenate([state[6:8], [0.0, 0.0]]))


def joint(spec: TeamSpec, action: np.ndarray) -> dict[str, np.ndarray]:
    return {agent.name: action[i, : agent.action_size] for i, agent in enumerate(spec.agents)}


def step(env: Any, spec: TeamSpec, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
    observations, rewards, ended, *_ = env.step(joint(spec, action))
    return columns_of(spec, observations, env.state()), np.mean(list(rewards.values())), any(ended.values())


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [("ant", {}, 16), ("ant", {"factoring": "2x4"}, 16), ("ant", {"factoring": "2x4d"}, 16), ("reacher", {}, 16)],
)
def test_robots_in_the_image_do_the_image_of_what_they_do(name: str, settings: dict[str, Any], count: int) -> None:
    env = make_env(name, **settings)
    spec, random = team_spec(env, name, settings), np.random.default_rng(0)
    maps = symmetries_of(spec, env.symmetries)
    assert len(maps) == count  # a quarter turn of the ant, eight times, is twice around: q and -q are the same
    if name == "ant":
        assert (maps.offsets == 0).all()
    for _ in range(8):
        env.reset(seed=int(random.integers(1000)))
        for _ in range(random.integers(1, 15)):
            step(env, spec, random.uniform(-1, 1, (spec.n_agents, spec.action_size)))
        if not env.agents:
            continue
        # Contact forces and their warm starts are no columns of the state, so both worlds start from the state alone.
        before, action = (
            env._env._get_obs()[: spec.state_size],
            random.uniform(-1, 1, (spec.n_agents, spec.action_size)),
        )
        put(env, before)
        after, reward, terminated = step(env, spec, action)
        which = int(random.integers(count))
        seen, done = image(spec, maps, which, before, action)
        put(env, seen)
        after_seen, reward_seen, terminated_seen = step(env, spec, done)
        np.testing.assert_allclose(after_seen, image(spec, maps, which, after, action)[0], atol=2e-4)
        assert reward_seen == pytest.approx(reward, abs=5e-3)
        assert terminated_seen == terminated


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 4),
        ({"n_agents": 3}, 12),
        ({"n_agents": 3, "n_actions": 3, "payoff": "pairs"}, 36),
        ({"n_actions": 3, "convention_payoff": [1.0, 2.0, 1.0]}, 4),
        ({"n_agents": 8}, 512),
    ],
)
def test_coordination_game(settings: dict[str, Any], count: int) -> None:
    env, random = make_env("icg", **settings), np.random.default_rng(0)
    spec = team_spec(env, "icg", settings)
    maps = symmetries_of(spec, env.symmetries)
    assert len(maps) == count
    for which in range(min(count, 40)):
        options = np.eye(spec.action_size)
        played, before = (options[random.integers(spec.action_size, size=spec.n_agents)] for _ in range(2))
        state, seen_before = before.ravel(), image(spec, maps, which, before.ravel(), before)
        np.testing.assert_array_equal(seen_before[0], seen_before[1].ravel())  # the state is the last actions
        _, done = image(spec, maps, which, state, played)
        np.testing.assert_array_equal(np.sort(done, 1)[:, -2:], [[0, 1]] * spec.n_agents)
        choices, choices_seen = played.argmax(1).tolist(), done.argmax(1).tolist()
        assert env.reward(choices) == env.reward(choices_seen)
        np.testing.assert_array_equal(
            image(spec, maps, which, env.encode(choices), played)[0], env.encode(choices_seen)
        )


def test_ridge_game() -> None:
    env, random = make_env("ridges", n_agents=3), np.random.default_rng(0)
    spec = team_spec(env, "ridges", {"n_agents": 3})
    maps = symmetries_of(spec, env.symmetries)
    assert len(maps) == 12
    for which in range(12):
        played = random.uniform(-1, 1, (3, 1)).astype(np.float32)
        _, done = image(spec, maps, which, np.zeros(3), played.astype(np.float64))
        assert env.reward(list(done.astype(np.float32))) == pytest.approx(env.reward(list(played)))


@pytest.mark.parametrize(("name", "count"), [("spread", 288), ("tag", 96)])
def test_particles(name: str, count: int) -> None:
    pytest.importorskip("mpe2")
    env, random = make_env(name), np.random.default_rng(0)
    spec = team_spec(env, name)
    maps = symmetries_of(spec, env.symmetries)
    assert len(maps) == count
    world = env.unwrapped.world
    for which in random.integers(count, size=12).tolist():
        env.reset(seed=which)
        for thing in world.agents:  # near each other, so that some touch
            thing.state.p_pos = thing.state.p_pos * 0.3
        action = random.uniform(-1, 1, (spec.n_agents, spec.action_size))
        before, _, _ = step(env, spec, action)
        seen, done = image(spec, maps, which, before, action)
        after, reward, _ = step(env, spec, action)
        expected = image(spec, maps, which, after, action)[0]
        place(env, name, seen, spec)
        found, found_reward, _ = step(env, spec, done)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found_reward == pytest.approx(reward, abs=1e-5)


def place(env: Any, name: str, state: np.ndarray, spec: TeamSpec) -> None:
    """Puts everything where a state says: the rows of all agents are in it."""
    world = env.unwrapped.world
    marks = [mark for mark in world.landmarks if not getattr(mark, "boundary", False)]
    width, at = len(spec.agents[0].observes), 0
    for k, agent in enumerate(world.agents):
        row = state[at : at + width]
        agent.state.p_vel, agent.state.p_pos = row[:2].copy(), row[2:4].copy()
        at += width if k < spec.n_agents else 0
    for k, mark in enumerate(marks):
        mark.state.p_pos = state[2:4] + state[4 + 2 * k : 6 + 2 * k]
    if name == "tag":
        # What the prey does follows from what it observes now.
        env._seen_by_others = {"agent_0": env.unwrapped.observe("agent_0")}


# --- one's own functions ----------------------------------------------------------------------------------------------
def swapped(observations, actions):
    """The agents of the coordination game exchanged."""
    return {STATE: np.roll(observations[STATE], 2)}, {"agent_0": actions["agent_1"], "agent_1": actions["agent_0"]}


def game() -> TeamSpec:
    return team_spec(make_env("icg"), "icg")


def test_a_function_by_name() -> None:
    assert len(symmetries_named("tests.envs.test_symmetries:swapped", game())) == 2
    assert len(symmetries_named("declared", game())) == 4


def test_offsets_count() -> None:
    spec = team_spec(make_env("ridges"), "ridges")

    def shifted(observations, actions):
        return {STATE: 1.0 - observations[STATE]}, actions

    maps = symmetries_of(spec, [shifted])
    assert len(maps) == 2
    np.testing.assert_allclose(image(spec, maps, 1, np.array([0.25, -1.0]), np.zeros((2, 1)))[0], [0.75, 2.0])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _, a: ({}, a), "found no observation of state in what it returns"),
        (lambda o, _: (o, {}), "found no action of agent_0"),
        (lambda o, a: ({STATE: o[STATE][:2]}, a), r"found shape \(2,\) for the observation of state, expected \(4,\)"),
        (lambda o, a: ({STATE: o[STATE] ** 2}, a), "not affine"),
        (lambda o, a: ({STATE: 0 * o[STATE]}, a), "cannot be undone"),
        (lambda o, a: ({STATE: 2 * o[STATE]}, a), "cannot be undone or that scales"),
        (lambda o, a: (o, {k: -v for k, v in a.items()}), "outside their bounds"),
        (lambda o, a: ({STATE: o[STATE] + a["agent_0"].sum()}, a), "depend on actions"),
        (lambda o, _: o["nobody"], "failed with KeyError: 'nobody'"),
    ],
)
def test_functions_that_are_no_symmetries(function, message) -> None:
    with pytest.raises(UserError, match=message):
        symmetries_of(game(), [function])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "found 'nothing', expected declared or module:name"),
        ("tests.envs.test_symmetries:missing", "expected declared or module:name"),
    ],
)
def test_unknown_names(name, message) -> None:
    with pytest.raises(UserError, match=message):
        symmetries_named(name, game())


def test_an_environment_that_declares_none() -> None:
    spec = team_spec(make_env("tests.envs.levers:Levers"), "tests.envs.levers:Levers")
    with pytest.raises(UserError, match="declares none"):
        symmetries_named("declared", spec)


@pytest.mark.parametrize("name", ["rescue:Rescue", "stock:Stock", "crane:Crane", "levers:Levers"])
def test_teams_of_every_kind_are_themselves(name) -> None:
    """Agents that leave, action masks, discrete beside continuous actions, agents of different sizes."""
    spec = team_spec(make_env(f"tests.envs.{name}"), f"tests.envs.{name}")
    maps = symmetries_of(spec, [lambda observations, actions: (observations, actions)])
    assert len(maps) == 1
    state, action = np.arange(1.0, 1 + spec.state_size), np.ones((spec.n_agents, spec.action_size))
    seen = image(spec, maps, 0, state, action)
    np.testing.assert_array_equal(seen[0], state)
    np.testing.assert_array_equal(seen[1], action)
