"""FilmedEnv: an environment that records videos of its episodes."""

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

DEFAULT_RATE = 10.0  # steps per second, for environments without render_fps


class FilmedEnv(VectorTeamEnv):
    """A single environment that adds a frame to ``files`` at every step.

    Args:
        spec: the team.
        max_steps: later steps of an episode are not rendered.

    Raises:
        UserError: the environment cannot be created or rendered. The message is one line with the cause.
    """

    def __init__(self, spec: TeamSpec, max_steps: int) -> None:
        rendering = replace(spec, env={**spec.env, "render_mode": "rgb_array"}) if spec.env else spec
        try:
            super().__init__(rendering, 1)
        except UserError:  # without a render_mode setting it may still render
            super().__init__(spec, 1)
        self.rate = float(getattr(self.envs[0], "metadata", {}).get("render_fps") or DEFAULT_RATE)
        self.files: list[VideoFile] = []
        self._max_steps = max_steps
        self._test_rendering()

    def reset(self, seeds: Sequence[int]) -> Tensor:
        state = super().reset(seeds)
        self._record_frame(0)
        return state

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        self._record_frame(int(self._time[0]))
        return step

    def _test_rendering(self) -> None:
        super().reset([0])
        # After a failure, the garbage collection of gymnasium's viewer prints a second error.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            cause = self._render_error()
        finally:
            sys.unraisablehook = hook
        if cause is not None:
            self.close()
            raise UserError(cause)

    def _render_error(self) -> str | None:
        try:
            _rgb(self.envs[0].render())
        except NotImplementedError:
            return "the environment cannot render"
        except Exception as error:
            return one_line(error)
        return None

    def _record_frame(self, time: int) -> None:
        files = [file for file in self.files if time % file.stride == 0] if time <= self._max_steps else []
        if files:
            frame = _rgb(self.envs[0].render())
            for file in files:
                file.add(frame)


def one_line(error: Exception) -> str:
    """Returns the error message in one line."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())


def _rgb(frame: Any) -> np.ndarray:
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] in (3, 4):
        return frame[:, :, :3]
    found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
    raise UserError(f"render(): found {found}, expected an rgb_array: uint8 (height, width, 3)")
