"""The accelerator in SystemVerilog behind an emulated board: Verilated, clock cycle by clock cycle.

The registers are the accelerator's own, and so is the interrupt. Its clock runs while a call does, in a thread of its
own. The DRAM of the emulated board is copied to the simulator when a call starts, as far as pointers lead there, and
the result back when the driver sees that it is done.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from common.contract import DONE, START
from common.errors import CheckError, InputError
from common.rtl_process import Memory, RtlProcess
from host.emulated import EmulatedBuffer, EmulatedHardware, EmulatedMemory
from host.errors import AcceleratorError
from host.hwh import Kernel
from host.manifest import Manifest
from host.registers import register_names

CHUNK = 5000
"""Cycles after which the driver gets its turn to read a register."""

BREATH = 1e-4
"""Seconds between two chunks, in which it does."""


class EmulatedRtl(EmulatedHardware):
    """A Verilated accelerator behind its own registers."""

    def __init__(
        self,
        program: Path,
        manifest: Manifest,
        kernel: Kernel,
        dram: EmulatedMemory,
        memory: Memory | None = None,
    ) -> None:
        """Start the simulator.

        Args:
            program: what `codegen.rtl.accelerator_build` made.
            manifest: of the build that it was made from.
            kernel: where its registers are.
            dram: what its pointers point into.
            memory: how fast that is.

        Raises:
            InputError: the program cannot be started, a register is missing, or the build is for a card.
        """
        super().__init__(kernel)
        if manifest.runtime == "xrt":
            raise InputError(
                f"{manifest.path}: for a card, whose registers the accelerator in SystemVerilog does not have",
                hint="leave out --backend rtl",
            )
        self._dram, self._memory = dram, memory or Memory()
        self._pointers: dict[str, list[int]] = {}
        for argument in manifest.arguments:
            names = register_names(argument, set(kernel.registers))
            if not names:
                raise InputError(f"{kernel.source}: no register for {argument.name}")
            if argument.bits == 64 and not argument.output:
                self._pointers[argument.name] = [kernel.registers[name] for name in names]
        self._lock = threading.RLock()
        self._process = RtlProcess(program)
        self._written: dict[int, int] = {}
        self._running = False
        self._generation = 0
        self._process.set_memory(self._memory)

    def read(self, offset: int) -> int:
        """A register of the accelerator.

        Raises:
            AcceleratorError: the accelerator has broken a rule, and does nothing any more.
        """
        with self._lock:
            self._require_sound()
            value = self._process.read_register(offset)
            if offset == self.kernel.registers["CTRL"] and value & DONE:
                self._finish()
            return value

    def write(self, offset: int, value: int) -> None:
        """Set a register of the accelerator; setting the start bit starts its clock."""
        with self._lock:
            self._require_sound()
            registers = self.kernel.registers
            self._written[offset] = value
            starts = offset == registers["CTRL"] and bool(value & START) and not self._running
            if starts:
                self._lend_buffers()
            self._process.write_register(offset, value)
            if offset == registers["IP_ISR"] and not self._process.run(0)[0]:
                self.interrupt.clear()
            if starts:
                self._running = True
                clock = threading.Thread(target=self._clock, args=(self._generation,), daemon=True)
                clock.start()

    def reset(self) -> None:
        """Begin anew, with all registers 0."""
        with self._lock:
            self._generation += 1
            self._running, self.fault = False, ""
            self._written.clear()
            self.interrupt.clear()
            self._process.renew()
            self._process.set_memory(self._memory)

    def _require_sound(self) -> None:
        if self.fault:
            raise AcceleratorError(self.fault, hint="this is a fault of the accelerator: please report it")

    def _clock(self, generation: int) -> None:
        """Let the clock run until the interrupt, or until the driver has seen the end."""
        while True:
            with self._lock:
                if generation != self._generation or not self._running:
                    return
                try:
                    high, _ = self._process.run(CHUNK)
                except CheckError as error:
                    self.fault = error.message
                    self.interrupt.set()
                    return
                if high:
                    self.interrupt.set()
                    return
            time.sleep(BREATH)

    def _pointer(self, name: str) -> int:
        return sum(
            self._written.get(offset, 0) << 32 * word for word, offset in enumerate(self._pointers[name])
        )

    def _lend_buffers(self) -> None:
        """Show the simulator the buffers that pointers lead to, each to the ports whose pointers do."""
        self._process.forget_buffers()
        ports: dict[int, list[str]] = {}
        for name in self._pointers:
            buffer = self._dram.find(self._pointer(name), 1)
            if buffer is not None:
                ports.setdefault(buffer.address, []).append(f"gmem_{name}")
        for address, names in ports.items():
            buffer = self._dram.buffers[address]
            self._process.add_buffer(address, len(buffer.dram), *names)
            self._process.write(address, buffer.dram)

    def _finish(self) -> None:
        """Take the result over; what the processor's cache held of the buffer's old contents goes over it."""
        if not self._running:
            return
        self._running = False
        buffer: EmulatedBuffer | None = self._dram.find(self._pointer("output"), 1)
        if buffer is not None:
            buffer.dram[:] = self._process.read(buffer.address, len(buffer.dram))
            buffer.evict()
