"""Length and number of imagined rollouts where a configuration leaves them to the length of the task's episodes."""

from __future__ import annotations

from typing import Literal, NamedTuple

Auto = Literal["auto"]

LONGEST_WHOLE_EPISODE, PART_OF_LONGER_ONE = 50, 25
STEPS_PER_ITERATION, FEWEST_ROLLOUTS = 4000, 16


class RolloutSettings(NamedTuple):
    """Length k and number of rollouts, and the fraction that starts anew in each iteration, at first and at the end."""

    horizon: int
    n_rollouts: int
    reset_fraction: float
    final_reset_fraction: float | None


def rollout_settings(
    episode_length: int,
    horizon: int | Auto,
    n_rollouts: int | Auto,
    reset_fraction: float | Auto,
    final_reset_fraction: float | Auto | None,
) -> RolloutSettings:
    """Replaces every ``auto`` by a value that suits the episodes.

    Rollouts are whole episodes of up to 50 steps. Longer episodes are practised in parts of 25 steps, half of which
    first start anew in the dataset; in the end so few do that a rollout lasts as long as an episode. An iteration has
    about 4,000 steps.

    Args:
        episode_length: steps after which the task truncates an episode.
        horizon: k, steps per rollout.
        n_rollouts: rollouts per iteration.
        reset_fraction: fraction of rollouts that start anew in each iteration.
        final_reset_fraction: the same at the end; None for no change.
    """
    if horizon == "auto":
        horizon = episode_length if episode_length <= LONGEST_WHOLE_EPISODE else PART_OF_LONGER_ONE
    count = max(STEPS_PER_ITERATION // max(horizon, 1), FEWEST_ROLLOUTS) if n_rollouts == "auto" else n_rollouts
    if reset_fraction == "auto":
        reset_fraction = 1.0 if horizon >= episode_length else 0.5
    if final_reset_fraction == "auto":
        final_reset_fraction = min(horizon / episode_length, reset_fraction)
    return RolloutSettings(horizon, count, reset_fraction, final_reset_fraction)
