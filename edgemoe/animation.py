"""Films of pictures: a GIF, and an MP4 where imageio with ffmpeg is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import InputError
from common.video import imageio, quiet

if TYPE_CHECKING:
    from PIL import Image

SHOW_FPS = 2.0
"""Pictures a second where they are no video."""

MOST_GIF_FRAMES = 240
"""Frames of a GIF, which is large: of more, some are left out."""

MOST_GIF_FPS = 50.0
"""Frames a second that browsers show of a GIF, whose frames last whole hundredths of a second."""

_EVEN = 2
"""Multiple that an MP4's width and height have to be: its colours have half as many samples each way."""


def animate(
    stem: Path, pictures: Sequence[Path], fps: float | None, note: Callable[[str], Any]
) -> list[Path]:
    """Write a GIF and an MP4 of picture files.

    Args:
        stem: their path without a suffix.
        pictures: files, in order; smaller ones get a white border.
        fps: frames a second.
        note: told why there is no MP4.

    Returns:
        What was written; nothing of a single picture.
    """
    if len(pictures) < 2:
        return []
    rate, size = fps or SHOW_FPS, _largest(pictures)
    gif = stem.with_name(f"{stem.name}.gif")
    _write_gif(gif, pictures, size, rate)
    try:
        package = imageio("an MP4")
    except InputError as error:
        note(f"no MP4 beside {gif.name}: {error.hint}")
        return [gif]
    film = stem.with_name(f"{stem.name}.mp4")
    # Of a quality at which the text of the legends stays sharp.
    options = {"codec": "libx264", "quality": 8, "pixelformat": "yuv420p", "macro_block_size": _EVEN}
    with (
        quiet(),
        package.get_writer(str(film.resolve()), format="FFMPEG", mode="I", fps=rate, **options) as writer,
    ):
        for frame in _frames(pictures, size):
            writer.append_data(np.asarray(frame))
    return [gif, film]


def _write_gif(path: Path, pictures: Sequence[Path], size: tuple[int, int], rate: float) -> None:
    step = max(-(-len(pictures) // MOST_GIF_FRAMES), round(rate / MOST_GIF_FPS))
    chosen = pictures[:: max(1, step)]
    frames = _frames(chosen, size)
    first = next(frames)
    milliseconds = max(20, round(1000 * max(1, step) / rate))
    first.save(path, save_all=True, append_images=frames, duration=milliseconds, loop=0)


def _largest(pictures: Sequence[Path]) -> tuple[int, int]:
    """Width and height that hold every picture, even numbers both."""
    from PIL import Image

    sizes = []
    for path in pictures:
        with Image.open(path) as picture:
            sizes.append(picture.size)
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    return width + width % _EVEN, height + height % _EVEN


def _frames(pictures: Sequence[Path], size: tuple[int, int]) -> Iterator[Image.Image]:
    """The pictures at one size."""
    from PIL import Image

    for path in pictures:
        with Image.open(path) as picture:
            frame = Image.new("RGB", size, "white")
            frame.paste(picture)
            yield frame
