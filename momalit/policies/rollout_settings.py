"""Length and number of imagined rollouts where a configuration leaves them to the length of the task's episodes."""

from __future__ import annotations

from typing import Literal, NamedTuple

from momalit.core.checks import require_choice, require_numbers
from momalit.core.errors import UserError

Auto = Literal["auto"]
BOOTSTRAP, END = "bootstrap", "end"
TIME_LIMITS = (BOOTSTRAP, END)

LONGEST_WHOLE_EPISODE, PART_OF_LONGER_ONE = 50, 25
STEPS_PER_ITERATION, FEWEST_ROLLOUTS = 8000, 16


class RolloutSettings(NamedTuple):
    """Length k and number of rollouts, where they start, and what comes after an episode's time limit.

    ``reset_fraction`` of them start anew in each iteration, and ``final_reset_fraction`` in the end.
    """

    horizon: int
    n_rollouts: int
    reset_fraction: float
    final_reset_fraction: float | None
    initial_state_fraction: float
    time_limit: str


def _given(**settings: float | Auto | None) -> dict[str, float | None]:
    """The settings that are not ``auto``."""
    return {name: value for name, value in settings.items() if value != "auto"}


def rollout_settings(
    episode_length: int,
    horizon: int | Auto,
    n_rollouts: int | Auto,
    reset_fraction: float | Auto,
    final_reset_fraction: float | Auto | None,
    initial_state_fraction: float | Auto,
    time_limit: str,
) -> RolloutSettings:
    """Replaces every ``auto`` by a value that suits the episodes.

    Rollouts are whole episodes of up to 50 steps, from the first step to the time limit, where returns end. Longer
    episodes are practised in parts of 25 steps, half of which first start anew in the dataset; in the end so few do
    that a rollout lasts as long as an episode. An iteration has about 8,000 steps.

    Args:
        episode_length: steps after which the task truncates an episode.
        horizon: k, steps per rollout.
        n_rollouts: rollouts per iteration.
        reset_fraction: fraction of rollouts that start anew in each iteration.
        final_reset_fraction: the same at the end; None for no change.
        initial_state_fraction: fraction of the starts that are the first step of an episode.
        time_limit: ``end`` or ``bootstrap``, see ``PPOModule``.

    Raises:
        UserError: a number is outside its range, ``time_limit`` is unknown, or returns are to end there but rollouts
            are not whole episodes.
    """
    require_numbers("model.", _given(horizon=horizon, n_rollouts=n_rollouts), least=1)
    require_numbers("model.", _given(reset_fraction=reset_fraction), above=0, most=1)
    require_numbers("model.", _given(final_reset_fraction=final_reset_fraction), above=0, most=1, optional=True)
    require_numbers("model.", _given(initial_state_fraction=initial_state_fraction), least=0, most=1)
    require_choice("model.time_limit", time_limit, (*TIME_LIMITS, "auto"))
    if horizon == "auto":
        horizon = episode_length if episode_length <= LONGEST_WHOLE_EPISODE else PART_OF_LONGER_ONE
    count = max(STEPS_PER_ITERATION // max(horizon, 1), FEWEST_ROLLOUTS) if n_rollouts == "auto" else n_rollouts
    if reset_fraction == "auto":
        reset_fraction = 1.0 if horizon >= episode_length else 0.5
    if final_reset_fraction == "auto":
        final_reset_fraction = min(horizon / episode_length, reset_fraction)
    whole = horizon == episode_length and reset_fraction == 1 and final_reset_fraction in (None, 1)
    if initial_state_fraction == "auto":
        initial_state_fraction = 1.0 if whole else 0.5
    whole = whole and initial_state_fraction == 1
    if time_limit == "auto":
        time_limit = END if whole else BOOTSTRAP
    if time_limit == END and not whole:
        raise UserError(
            f"model.time_limit: found end with horizon {horizon}, reset_fraction {reset_fraction:g} and"
            f" initial_state_fraction {initial_state_fraction:g}, expected whole episodes: {episode_length}, 1 and 1"
        )
    return RolloutSettings(horizon, count, reset_fraction, final_reset_fraction, initial_state_fraction, time_limit)
