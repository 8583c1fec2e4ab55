"""Frames of videos and cameras, read by ffmpeg through the package imageio.

Needs imageio with ffmpeg, where a video is read: the board reads its frames with this very code.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.printable import one_line
from common.reading import require_file

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"})
"""Files that are videos, in lower case."""

CAMERA_FRAMES = 100
"""Frames of a camera where nobody says how many."""

Source = Path | int
"""A file, or the number of a camera."""

_DEVICES = Path("/dev")
"""Folder in which Linux has its cameras."""

_FILES_ONLY = ["-protocol_whitelist", "file"]
"""Options of ffmpeg: what a file names is never fetched."""


def is_video(source: Source) -> bool:
    """Whether a source is a camera or, by its suffix, a video."""
    return isinstance(source, int) or source.suffix.lower() in SUFFIXES


def imageio(purpose: str) -> Any:
    """The package that runs ffmpeg.

    Args:
        purpose: what needs it, the subject of the message.

    Raises:
        InputError: it is not installed, or without ffmpeg.
    """
    try:
        import imageio.v2
        import imageio_ffmpeg  # noqa: F401 - whether it is there
    except ImportError:
        raise InputError(
            f"{purpose} needs the packages imageio and imageio-ffmpeg, which are not installed",
            hint="pip install 'edgemoe[video]', or on a board pip install imageio imageio-ffmpeg; "
            "or save its frames as pictures in a folder",
        ) from None
    return imageio.v2


@contextmanager
def quiet() -> Iterator[None]:
    """A block without warnings of pipes that imageio-ffmpeg leaves to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


class Video:
    """An open video or camera, whose frames are iterated over once; a context manager that ends ffmpeg.

    Attributes:
        name: of the file or camera, for people.
        fps: frames a second.
    """

    def __init__(self, source: Source) -> None:
        """Start ffmpeg.

        Args:
            source: a file, or the number of a camera.

        Raises:
            InputError: there is none, it cannot be read, or imageio with ffmpeg is not installed.
        """
        if isinstance(source, int):
            self.name, opened, options = f"camera {source}", f"<video{source}>", []
        else:
            require_file(source, missing="no such video")
            self.name, opened, options = one_line(source), str(source.resolve()), _FILES_ONLY
        package = imageio(f"reading {self.name}")
        with quiet():
            reason = self._open(package, opened, options)
        if reason:
            hint = "is it connected, and no other program using it?" if isinstance(source, int) else ""
            raise InputError(f"{self.name}: not readable as a video: {reason}", hint=hint)

    def _open(self, package: Any, name: str, options: list[str]) -> str:
        """Start ffmpeg, and return what went wrong."""
        try:
            self._reader = package.get_reader(name, format="FFMPEG", mode="I", input_params=options)
            self.fps = float(self._reader.get_meta_data()["fps"])
        except Exception as error:  # imageio and ffmpeg raise whatever they meet.
            return _first_line(error)
        return ""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Frames (rows, columns, 3), red, green and blue.

        Raises:
            InputError: the file is damaged, or the camera was taken away.
        """
        try:
            frames = iter(self._reader)
            while True:
                with quiet():
                    frame = next(frames, None)
                if frame is None:
                    return
                yield np.asarray(frame, np.uint8)
        except (OSError, RuntimeError, IndexError) as error:
            raise InputError(f"{self.name}: reading stopped: {_first_line(error)}") from None

    def close(self) -> None:
        """End ffmpeg."""
        with quiet():
            self._reader.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_readable(source: Source) -> None:
    """Refuse a video or camera that cannot be read, as far as is known without opening it; whatever else passes.

    Raises:
        InputError: the packages for it are not installed, or there is no such camera.
    """
    if not is_video(source):
        return
    imageio(f"reading {f'camera {source}' if isinstance(source, int) else one_line(source)}")
    if isinstance(source, int) and sys.platform == "linux" and not (_DEVICES / f"video{source}").exists():
        there = ", ".join(sorted(path.name.removeprefix("video") for path in _DEVICES.glob("video*")))
        raise InputError(
            f"camera {source}: there is no {_DEVICES / f'video{source}'}",
            hint=f"cameras here: {there}"
            if there
            else "no camera is connected, or this program may not see it",
        )


def _first_line(error: Exception) -> str:
    """Message of an error, without the output of ffmpeg that follows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def frame_rate(sources: Iterable[Source]) -> float | None:
    """Frames a second of the first video among sources; None where there is none."""
    for source in sources:
        if isinstance(source, Path) and is_video(source):
            with closing(Video(source)) as video:
                return video.fps
    return None
