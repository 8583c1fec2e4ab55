"""The network that an accelerator runs: its weights in memory, room for images and results, and what may replace it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.capacities import Capacities, lacking_text
from common.errors import InputError
from host.board import Board, Buffer
from host.manifest import Manifest


@dataclass(frozen=True)
class Slot:
    """Memory of one call; there are two, so that one is filled while the kernel works on the other."""

    image: Buffer
    output: Buffer


class Files:
    """Files of a program, read and checked."""

    def __init__(self, manifest: Manifest) -> None:
        """Read weights and task heads.

        Raises:
            InputError: one of them is missing or damaged.
        """
        self.manifest, self.weights = manifest, manifest.read_weights()
        self.heads: Mapping[str, NDArray[Any]] = manifest.read_heads()


class Program:
    """A network in a board's memory.

    Attributes:
        manifest: what is known of it.
        heads: tensors of the task heads, by name.
        pointers: to its weights, by the argument of the kernel.
        slots: memory of two calls.
        buffers: all of its memory.
    """

    def __init__(self, board: Board, files: Files, images: int) -> None:
        """Allocate memory, and put the weights there.

        Args:
            board: the board.
            files: of the program.
            images: those of a call at most.

        Raises:
            AcceleratorError: the board has too little memory left; what was allocated is given back.
        """
        self.manifest, self.heads = files.manifest, files.heads
        self.buffers: list[Buffer] = []
        with ExitStack() as stack:
            stack.callback(self.free)
            self.pointers = {
                f"weights_{port}": self._filled(board, words, f"weights_{port}").address
                for port, words in enumerate(files.weights)
            }
            self.slots = [self._slot(board, images) for _ in range(2)]
            stack.pop_all()

    def free(self) -> None:
        """Give all memory back; a second time does nothing."""
        while self.buffers:
            self.buffers.pop().free()

    def _allocate(self, board: Board, nbytes: int, argument: str) -> Buffer:
        buffer = board.allocate(nbytes, argument)
        self.buffers.append(buffer)
        return buffer

    def _filled(self, board: Board, words: NDArray[np.uint8], argument: str) -> Buffer:
        buffer = self._allocate(board, len(words), argument)
        buffer.array[:] = words
        buffer.flush()
        return buffer

    def _slot(self, board: Board, images: int) -> Slot:
        slot = Slot(
            self._allocate(board, images * self.manifest.images.image_bytes, "image"),
            self._allocate(board, images * self.manifest.output.image_bytes, "output"),
        )
        # Nothing of it may be left in the cache, to be written back over the kernel's results later on.
        slot.output.array[:] = 0
        slot.output.flush()
        return slot


def require_program(now: Manifest, program: Manifest, has: Capacities | None, *, compiled: bool) -> None:
    """Refuse a program that an accelerator cannot run.

    Args:
        now: manifest of the program that it runs.
        program: of the one that is to replace it.
        has: the accelerator's capacities; None where it does not tell them.
        compiled: whether the accelerator is C++ compiled for this computer, with its network in it.

    Raises:
        InputError: it cannot; the message names every reason.
    """
    fixed = "the C++ on an emulated board" if compiled else "an accelerator of HLS"
    if compiled or now.backend == "hls":
        if program.program_id != now.program_id:
            raise InputError(
                f"{program.path}: {program.name} is another network than {now.name}, which this accelerator has "
                f"synthesised in: {fixed} takes other weights of the same network only",
                hint="generate an RTL accelerator (--backend rtl), which reads its network from memory, or a build of "
                "this network",
            )
        return
    reasons = []
    lacking = has.lacking(program.needs) if has is not None else {}
    if lacking:
        reasons.append(lacking_text(lacking))
    if program.hardware_id != now.hardware_id:
        for name in ("backend", "precision", "activation"):
            wants, there = getattr(program, name), getattr(now, name)
            if wants != there:
                reasons.append(f"{name}: it needs {wants}, the accelerator has {there}")
        reasons.append(f"it is for hardware {program.hardware_id}, the accelerator is {now.hardware_id}")
    if reasons:
        raise InputError(
            f"{program.path}: {program.name} does not fit this accelerator: {'; '.join(reasons)}",
            hint="`edgemoe compile` its Design for this accelerator's build; or generate an accelerator that holds it",
        )
