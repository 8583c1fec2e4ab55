"""An emulated board whose kernel can be told to misbehave."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from common.contract import DONE, START
from host import Result
from host.emulated import EmulatedBoard, EmulatedKernel, EmulatedMemory
from host.hwh import Kernel
from host.manifest import Manifest

Expected = dict[str, NDArray[np.int64]]
"""What the simulator says of every image, by task."""


def check(results: list[Result], expected: NDArray[np.int64]) -> None:
    """Results are those of the simulator, in order."""
    assert len(results) == len(expected)
    for result, tokens in zip(results, expected, strict=True):
        assert_array_equal(result.integers, tokens)


class FaultyKernel(EmulatedKernel):
    """The compiled kernel; `mode` says what is wrong with it.

    never: a call does not end. nothing: it ends at once without running. done: it claims to be done all the time.
    id: it reports other hardware. status: it reports what no driver knows. hold: a call ends only when `go` is set.

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
            outputs["hardware_id"] ^= 1
        if self.mode == "status" and outputs is not None:
            outputs["status"] = 7
        return outputs

    def call(self, **arguments: int) -> dict[str, int]:
        """Set 32-bit registers, start the kernel, wait for its end, and read what it wrote."""
        registers = self.kernel.registers
        for name, value in arguments.items():
            self.write(registers[name if name in registers else f"{name}_r"], value & 0xFFFF_FFFF)
        self.write(registers["CTRL"], START)
        while not self.read(registers["CTRL"]) & DONE:
            self.interrupt.wait(0.01)
        names = ("cycles_1", "cycles_2", "max_batch", "status")
        return {name: self.read(registers[name]) for name in names}

    def read(self, offset: int) -> int:
        value = super().read(offset)
        return value | DONE if self.mode == "done" and offset == self.kernel.registers["CTRL"] else value


def faulty_board(host: Path, library: Path) -> tuple[EmulatedBoard, FaultyKernel]:
    """An emulated board and its kernel."""
    board = EmulatedBoard(Manifest.load(host), library, FaultyKernel)
    assert isinstance(board.hardware, FaultyKernel)
    return board, board.hardware
