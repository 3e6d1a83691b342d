"""Video files that are written frame by frame: MP4 for video players, GIF for pages that show only images."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

MP4_RATE = 30.0  # maximum number of frames per second
GIF_RATE, GIF_FRAMES = 25.0, 250  # the second limits a GIF's file size, and its memory before it is written
LAST_FRAME_MS = 1000  # a GIF restarts immediately, so the last frame stays longer


class VideoFile(Protocol):
    """A video file with every ``stride``-th frame of an episode.

    Frames are uint8 arrays ``(height, width, 3)``, all of the same size.
    """

    stride: int

    def add(self, frame: np.ndarray) -> None: ...

    def close(self) -> None:
        """Writes the remaining frames and closes the file."""
        ...


class Mp4File:
    """H.264 in full size. Frames are encoded immediately.

    Args:
        path: the file.
        rate: environment steps per second; above 30, frames are skipped.
    """

    def __init__(self, path: Path, rate: float) -> None:
        import imageio.v2 as imageio

        self.stride = math.ceil(rate / MP4_RATE)
        self._writer: Any = imageio.get_writer(
            path, format="FFMPEG", fps=rate / self.stride, codec="libx264", quality=7, macro_block_size=1
        )

    def add(self, frame: np.ndarray) -> None:
        height, width = frame.shape[:2]
        self._writer.append_data(frame[: height // 2 * 2, : width // 2 * 2])  # the codec requires even sizes

    def close(self) -> None:
        self._writer.close()


class GifFile:
    """A small looping animation. Frames are held in memory, with one byte per pixel, until ``close``.

    Args:
        path: the file.
        rate: environment steps per second.
        steps: maximum number of steps in the video; frames of long episodes are skipped.
        width: width in pixels; smaller frames are not enlarged.
    """

    def __init__(self, path: Path, rate: float, steps: int, width: int) -> None:
        self.stride = max(math.ceil(rate / GIF_RATE), math.ceil(steps / GIF_FRAMES))
        self._path, self._width = path, width
        self._frame_ms = 10 * round(100 * self.stride / rate)  # the format has a resolution of 10 ms
        self._frames: list[Image.Image] = []
        self._palette: Image.Image | None = None

    def add(self, frame: np.ndarray) -> None:
        image = Image.fromarray(np.ascontiguousarray(frame))
        if image.width > self._width:
            height = max(1, round(image.height * self._width / image.width))
            image = image.resize((self._width, height), Image.Resampling.BOX)
        if self._palette is None:
            self._palette = _palette(image)
        # Without dithering, static regions are identical in all frames and take no space.
        self._frames.append(image.quantize(palette=self._palette, dither=Image.Dither.NONE))

    def close(self) -> None:
        if self._frames:
            first, *others = self._frames
            times = [self._frame_ms] * len(others) + [LAST_FRAME_MS]
            first.save(self._path, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=False)
        self._frames = []


FORMATS: dict[str, Callable[[Path, float, int, int], VideoFile]] = {
    "mp4": lambda path, rate, steps, width: Mp4File(path, rate),  # noqa: ARG005
    "gif": GifFile,
}


def missing_package(kind: str) -> str | None:
    """Returns the missing package for a format of ``FORMATS``, or None if nothing is missing."""
    return "imageio-ffmpeg" if kind == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None else None


def _palette(image: Image.Image) -> Image.Image:
    """Returns 64 colours of the first frame and 125 evenly spaced ones, for colours that appear later."""
    own = image.quantize(64, Image.Quantize.MEDIANCUT).getpalette() or []
    levels = (0, 64, 128, 192, 255)
    cube = [value for red in levels for green in levels for blue in levels for value in (red, green, blue)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*own[: 3 * 64], *cube])
    return palette
