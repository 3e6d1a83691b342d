"""Rollout settings that follow from the length of the episodes."""

import pytest

from momalit.core.team import AgentSpec, TeamSpec
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.rollout_settings import rollout_settings

AUTO = dict.fromkeys(("horizon", "n_rollouts", "reset_fraction", "final_reset_fraction"), "auto")


@pytest.mark.parametrize(
    ("length", "expected"),
    [(10, (10, 400, 1.0, 1.0)), (50, (50, 80, 1.0, 1.0)), (51, (25, 160, 0.5, 25 / 51)), (1000, (25, 160, 0.5, 0.025))],
)
def test_long_episodes_are_practised_in_parts(length, expected):
    assert rollout_settings(length, **AUTO) == expected


def test_given_settings_stay():
    assert rollout_settings(1000, 40, 7, 0.3, None) == (40, 7, 0.3, None)
    assert rollout_settings(1000, "auto", 7, 0.01, "auto") == (25, 7, 0.01, 0.01)


def test_checkpoints_store_the_numbers():
    spec = TeamSpec("line", (AgentSpec("a", (0,), 1, (-1.0,), (1.0,)),), 1, False, 200, (("state", 0),))
    module = MOMAPPOModule(spec, n_minibatches=4, **AUTO)
    stored = {name: module.hparams[name] for name in AUTO}
    assert stored == {"horizon": 25, "n_rollouts": 160, "reset_fraction": 0.5, "final_reset_fraction": 0.125}


@pytest.mark.parametrize(("length", "stops"), [(50, False), (200, True)])
def test_rollouts_stop_where_they_are_parts_of_episodes(length, stops):
    spec = TeamSpec("line", (AgentSpec("a", (0,), 1, (-1.0,), (1.0,)),), 1, False, length, (("state", 0),))
    module = MOMAPPOModule(spec, n_minibatches=4, pessimism={"adaptive_horizon": "auto"}, **AUTO)
    assert module.pessimism.adaptive_horizon is stops
    assert MOMAPPOModule(spec, n_minibatches=4, **AUTO).pessimism.adaptive_horizon is True
