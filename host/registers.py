"""The control interface of a kernel: its arguments and control bits, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from common.contract import DONE, IDLE, READY, START, Argument
from common.errors import InputError
from host.hwh import Kernel

_FLAGS = {START: "start", DONE: "done", IDLE: "idle", READY: "ready"}
_WORD = 0xFFFF_FFFF


class Bus(Protocol):
    """Registers of one IP, 32 bits each."""

    def read(self, offset: int) -> int:
        """The register at a byte offset."""

    def write(self, offset: int, value: int) -> None:
        """Set the register at a byte offset."""


def register_names(argument: Argument, registers: Sequence[str] | set[str]) -> list[str]:
    """Registers of an argument, low word first, as a `.hwh` names them; empty where it has none.

    Two words are called `_1` and `_2`. Vitis HLS appends `_r` to names that Verilog or VHDL reserve.
    """
    words = argument.bits // 32
    for name in (argument.name, f"{argument.name}_r"):
        names = [name] if words == 1 else [f"{name}_{word + 1}" for word in range(words)]
        if all(each in registers for each in names):
            return names
    return []


class Registers:
    """Arguments and control bits of a kernel, by name.

    An argument is written only when its value changes.

    Attributes:
        argument_writes: how often an argument was written.
    """

    def __init__(self, bus: Bus, kernel: Kernel, arguments: Sequence[Argument]) -> None:
        """Find every argument among the registers.

        Raises:
            InputError: the kernel has no registers for an argument.
        """
        self._bus, self._kernel = bus, kernel
        self._offsets: dict[str, list[int]] = {}
        self._valid: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self.argument_writes = 0
        known = set(kernel.registers)
        for argument in arguments:
            names = register_names(argument, known)
            if not names:
                raise InputError(
                    f"{kernel.source}: {kernel.instance} has no {argument.bits}-bit register for {argument.name}",
                    hint="the bitstream was made from other hardware than this manifest: copy both from one build",
                )
            self._offsets[argument.name] = [kernel.registers[name] for name in names]
            control = names[0] if argument.bits == 32 else names[0][:-2]
            if argument.output and f"{control}_ctrl" in known:
                self._valid[argument.name] = kernel.registers[f"{control}_ctrl"]
        self._control = kernel.registers["CTRL"]

    def set(self, name: str, value: int) -> None:
        """Write an argument, unless it has that value already."""
        if self._written.get(name) == value:
            return
        for word, offset in enumerate(self._offsets[name]):
            self._bus.write(offset, value >> 32 * word & _WORD)
        self._written[name] = value
        self.argument_writes += 1

    def get(self, name: str) -> int:
        """Read an argument."""
        return sum(self._bus.read(offset) << 32 * word for word, offset in enumerate(self._offsets[name]))

    def take_valid(self, name: str) -> bool:
        """Whether the kernel has written an output since the last call of this; True where it cannot be known."""
        offset = self._valid.get(name)
        return offset is None or bool(self._bus.read(offset) & 1)

    def control(self) -> int:
        """The control register. Reading it clears `DONE` and `READY`."""
        return self._bus.read(self._control)

    def start(self) -> None:
        """Start the kernel."""
        self._bus.write(self._control, START)

    def enable_interrupt(self) -> None:
        """Let the kernel's interrupt rise when it is done."""
        registers = self._kernel.registers
        if "GIER" in registers and "IP_IER" in registers:
            self._bus.write(registers["IP_IER"], 1)
            self._bus.write(registers["GIER"], 1)

    def clear_interrupt(self) -> None:
        """Take the interrupt back: by reading its status (releases since 2022), else by writing it (before)."""
        offset = self._kernel.registers.get("IP_ISR")
        if offset is None or not self._bus.read(offset):
            return
        status = self._bus.read(offset)
        if status:
            self._bus.write(offset, status)

    def forget(self) -> None:
        """Take nothing for written any more: after a reset all registers are zero."""
        self._written.clear()

    def state(self) -> str:
        """Control bits and arguments, for people."""
        control = self.control()
        flags = [name for bit, name in _FLAGS.items() if control & bit]
        values = ", ".join(f"{name} = {self.get(name):#x}" for name in self._offsets)
        return f"CTRL = {control:#x} ({', '.join(flags) or 'running'}), {values}"
