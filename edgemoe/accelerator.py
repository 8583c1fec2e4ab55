"""`edgemoe.Accelerator`: the host's driver, with an emulated board where there is no real one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import host
from host.board import Board
from pysim.folders import refuse_other


class Accelerator(host.Accelerator):
    """A generated accelerator, on a board or emulated: see `host.Accelerator` for what it does.

    Examples:
        >>> with edgemoe.Accelerator("build", emulate=True) as accelerator:  # doctest: +SKIP
        ...     accelerator.run("photo.jpg", task="depth").map
    """

    def __init__(
        self,
        build: str | os.PathLike[str],
        *,
        emulate: bool = False,
        board: Board | None = None,
        timeout: float | None = None,
        progress: Callable[[int, int], Any] | None = None,
    ) -> None:
        """Open the accelerator of a build.

        Args:
            build: a build folder (with `emulate`), or what `host.Accelerator` takes.
            emulate: run the generated C++, compiled with g++, behind an emulated board.
            board: a board of your own making.
            timeout: seconds that a call may take.
            progress: called with files compiled and in total, with `emulate`.

        Raises:
            InputError: a file is missing or damaged, or there is no board, or no compiler.
            AcceleratorError: the board is taken, does not answer, or holds another design.
        """
        refuse_other(Path(build), "build", also_host=True)
        if emulate and board is None:
            board = emulated_board(Path(build), progress)
        super().__init__(build, board=board, timeout=timeout)


def emulated_board(build: Path, progress: Callable[[int, int], Any] | None = None) -> Board:
    """An emulated board for a build folder, or for the host folder in one; compiles the kernel."""
    from codegen.build import Build
    from codegen.csim import build_library
    from common.contract import MANIFEST
    from host.emulated import EmulatedBoard
    from host.manifest import Manifest

    inside = (build / MANIFEST).is_file() and (build.parent / "build.toml").is_file()
    loaded = Build.load(build.parent if inside else build)
    return EmulatedBoard(Manifest.load(loaded.host), build_library(loaded.hls, progress))
