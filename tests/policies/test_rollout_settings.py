"""Rollout settings that follow from the length of the episodes."""

import pytest

from momalit.core.errors import UserError
from momalit.core.team import AgentSpec, TeamSpec
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.rollout_settings import rollout_settings

NAMES = ("horizon", "n_rollouts", "reset_fraction", "final_reset_fraction", "initial_state_fraction", "time_limit")
AUTO = dict.fromkeys(NAMES, "auto")


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (10, (10, 800, 1.0, 1.0, 1.0, "end")),
        (50, (50, 160, 1.0, 1.0, 1.0, "end")),
        (51, (25, 320, 0.5, 25 / 51, 0.5, "bootstrap")),
        (1000, (25, 320, 0.5, 0.025, 0.5, "bootstrap")),
    ],
)
def test_long_episodes_are_practised_in_parts(length, expected):
    assert rollout_settings(length, **AUTO) == expected


def test_given_settings_stay():
    assert rollout_settings(1000, 40, 7, 0.3, None, 0.1, "bootstrap") == (40, 7, 0.3, None, 0.1, "bootstrap")
    assert rollout_settings(1000, "auto", 7, 0.01, "auto", 0.1, "auto") == (25, 7, 0.01, 0.01, 0.1, "bootstrap")
    assert rollout_settings(10, "auto", 7, 1.0, None, 0.1, "auto").time_limit == "bootstrap"


@pytest.mark.parametrize(("horizon", "reset", "initial"), [(9, 1.0, 1.0), (10, 0.5, 1.0), (10, 1.0, 0.5)])
def test_returns_end_only_with_whole_episodes(horizon, reset, initial):
    with pytest.raises(UserError, match=r"model\.time_limit: found end with horizon .* expected whole episodes: 10, 1"):
        rollout_settings(10, horizon, 7, reset, None, initial, "end")


def test_checkpoints_store_the_numbers():
    spec = TeamSpec("line", (AgentSpec("a", (0,), 1, (-1.0,), (1.0,)),), 1, False, 200, (("state", 0),))
    module = MOMAPPOModule(spec, n_minibatches=4, **AUTO)
    stored = {name: module.hparams[name] for name in AUTO}
    assert tuple(stored.values()) == (25, 320, 0.5, 0.125, 0.5, "bootstrap")


@pytest.mark.parametrize(("length", "stops"), [(50, False), (200, True)])
def test_rollouts_stop_where_they_are_parts_of_episodes(length, stops):
    spec = TeamSpec("line", (AgentSpec("a", (0,), 1, (-1.0,), (1.0,)),), 1, False, length, (("state", 0),))
    module = MOMAPPOModule(spec, n_minibatches=4, pessimism={"adaptive_horizon": "auto"}, **AUTO)
    assert module.pessimism.adaptive_horizon is stops
    assert MOMAPPOModule(spec, n_minibatches=4, **AUTO).pessimism.adaptive_horizon is True
