"""`edgemoe.Accelerator`: the host's driver, with an emulated board where there is no real one."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import host
from common.contract import Backend
from host.board import Board
from pysim.folders import refuse_other

if TYPE_CHECKING:
    from codegen.build import Build
    from host.emulated import Hardware


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
        backend: Backend = "hls",
        board: Board | None = None,
        timeout: float | None = None,
        progress: Callable[[int, int], Any] | None = None,
    ) -> None:
        """Open the accelerator of a build.

        Args:
            build: a build folder (with `emulate`), or what `host.Accelerator` takes.
            emulate: run an emulated board.
            backend: what stands on it: the generated C++, compiled with g++ (`hls`), or the accelerator in
                SystemVerilog, simulated by Verilator cycle by cycle (`rtl`).
            board: a board of your own making.
            timeout: seconds that a call may take.
            progress: called with files compiled and in total, with `emulate` and the C++.

        Raises:
            InputError: a file is missing or damaged, or there is no board, no compiler or no Verilator.
            AcceleratorError: the board is taken, does not answer, or holds another design.
        """
        refuse_other(Path(build), "build", also_host=True)
        if emulate and board is None:
            board = emulated_board(Path(build), progress, backend)
        super().__init__(build, board=board, timeout=timeout)


def emulated_board(
    build: Path, progress: Callable[[int, int], Any] | None = None, backend: Backend = "hls"
) -> Board:
    """An emulated board for a build folder, or for the host folder in one; compiles what stands on it."""
    from codegen.build import Build
    from codegen.csim import build_library
    from common.contract import MANIFEST
    from host.emulated import EmulatedBoard
    from host.manifest import Manifest

    inside = (build / MANIFEST).is_file() and (build.parent / "build.toml").is_file()
    loaded = Build.load(build.parent if inside else build)
    manifest = Manifest.load(loaded.host)
    if backend == "rtl":
        return EmulatedBoard(manifest, *_rtl(loaded))
    return EmulatedBoard(manifest, build_library(loaded.hls, progress))


def _rtl(build: Build) -> tuple[Path, Hardware]:
    """The Verilated accelerator of a build, and what stands it behind its registers, with the memory of the board."""
    from boards import load_board
    from codegen.context import TOP
    from codegen.rtl.accelerator_build import build_accelerator
    from codegen.rtl.accelerator_check import accelerator_sources, board_memory
    from host.emulated_rtl import EmulatedRtl

    memory = board_memory(build.architecture, load_board(build.spec.board))
    return build_accelerator(accelerator_sources(build), TOP), partial(EmulatedRtl, memory=memory)
