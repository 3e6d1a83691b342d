"""FilmedEnv: an environment that is filmed while a team plays."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from callbacks.video_files import VideoFile
from momalit.core.errors import UserError
from momalit.core.records import Step
from momalit.core.team import TeamSpec
from momalit.envs.vector_env import VectorTeamEnv

UNKNOWN_RATE = 10.0  # steps per second of an environment that does not tell


class FilmedEnv(VectorTeamEnv):
    """One environment whose frames go to ``files`` while episodes are played.

    Args:
        spec: the team.
        max_steps: frames of later steps of an episode are not made.

    Raises:
        UserError: the environment cannot be made, or not rendered; with the cause in one line.
    """

    def __init__(self, spec: TeamSpec, max_steps: int) -> None:
        rendering = replace(spec, env={**spec.env, "render_mode": "rgb_array"}) if spec.env else spec
        try:
            super().__init__(rendering, 1)
        except UserError:  # it has no such setting; it may render all the same
            super().__init__(spec, 1)
        self.rate = float(getattr(self.envs[0], "metadata", {}).get("render_fps") or UNKNOWN_RATE)
        self.files: list[VideoFile] = []
        self._max_steps = max_steps
        self._try_to_render()

    def reset(self, seeds: Sequence[int]) -> Tensor:
        state = super().reset(seeds)
        self._show(0)
        return state

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        self._show(int(self._time[0]))
        return step

    def _try_to_render(self) -> None:
        super().reset([0])
        # A viewer that gymnasium could not finish complains once more when it is collected; once is enough.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            cause = self._obstacle()
        finally:
            sys.unraisablehook = hook
        if cause is not None:
            self.close()
            raise UserError(cause)

    def _obstacle(self) -> str | None:
        try:
            _checked(self.envs[0].render())
        except NotImplementedError:
            return "the environment renders nothing"
        except Exception as error:
            return one_line(error)
        return None

    def _show(self, time: int) -> None:
        takers = [file for file in self.files if time % file.stride == 0] if time <= self._max_steps else []
        if takers:
            frame = _checked(self.envs[0].render())
            for file in takers:
                file.add(frame)


def one_line(error: Exception) -> str:
    """What went wrong, in one line."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())


def _checked(frame: Any) -> np.ndarray:
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] in (3, 4):
        return frame[:, :, :3]
    found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
    raise UserError(f"render() gave {found}, expected an rgb_array: uint8 (height, width, 3)")
