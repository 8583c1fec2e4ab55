"""An emulated board whose kernel can be told to misbehave."""

from __future__ import annotations

import threading
from pathlib import Path

from host.emulated import EmulatedBoard, EmulatedKernel, EmulatedMemory
from host.hwh import Kernel
from host.manifest import Manifest
from host.registers import DONE


class FaultyKernel(EmulatedKernel):
    """The compiled kernel; `mode` says what is wrong with it.

    never: a call does not end. nothing: it ends at once without running. done: it claims to be done all the time.
    id: it reports another design. hold: a call ends only when `go` is set.

    Attributes:
        writes: (offset, value) of every write to a register, in order.
    """

    mode = ""

    def __init__(self, library: Path, manifest: Manifest, kernel: Kernel, memory: EmulatedMemory) -> None:
        super().__init__(library, manifest, kernel, memory)
        self.go = threading.Event()
        self.writes: list[tuple[int, int]] = []

    def write(self, offset: int, value: int) -> None:
        self.writes.append((offset, value))
        super().write(offset, value)

    def execute(self, arguments: dict[str, int]) -> dict[str, int] | None:
        if self.mode == "never":
            return None
        if self.mode == "nothing":
            return {}
        if self.mode == "hold":
            self.go.wait(30)
        outputs = super().execute(arguments)
        if self.mode == "id" and outputs is not None:
            outputs["design_id"] ^= 1
        return outputs

    def read(self, offset: int) -> int:
        value = super().read(offset)
        return value | DONE if self.mode == "done" and offset == self.kernel.registers["CTRL"] else value


def faulty_board(host: Path, library: Path) -> tuple[EmulatedBoard, FaultyKernel]:
    """An emulated board and its kernel."""
    board = EmulatedBoard(Manifest.load(host), library, FaultyKernel)
    assert isinstance(board.hardware, FaultyKernel)
    return board, board.hardware
