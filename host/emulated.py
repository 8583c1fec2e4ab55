"""An emulated board: the generated kernel, compiled for this computer, behind its registers and shared memory.

The kernel runs in a thread of its own while the program goes on, as on a board. The processor's cache is modelled
too: a buffer exists twice, and only `flush` and `invalidate` carry it from one copy to the other, so that a driver
that forgets one of them computes nonsense here as well.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from host.board import give_back, take
from host.errors import AcceleratorError
from host.hwh import Kernel, read_hwh
from host.manifest import Manifest
from host.registers import DONE, IDLE, READY, START, register_names
from pysim.errors import InputError

Bytes = NDArray[np.uint8]

HWH = Path("emulated", "edgemoe.hwh")
"""Description of the emulated board, beside the manifest."""

PAGE = 4096
FIRST_ADDRESS = 0x8_7000_0000
"""Above 4 GiB, as the upper DRAM of a Zynq UltraScale+: both words of a pointer count."""
TIMEOUT = 600.0
TICK = 0.1e-3
"""Seconds between two changes of the emulated clock counter."""


class EmulatedBuffer:
    """A buffer and its copy in the emulated DRAM."""

    def __init__(self, memory: EmulatedMemory, address: int, nbytes: int) -> None:
        """Memory of so many bytes; `EmulatedMemory.allocate` makes it."""
        self._memory = memory
        self.address = address
        self.array = _pages(nbytes)
        self.dram = _pages(nbytes)

    def flush(self) -> None:
        """Carry the processor's copy to the DRAM."""
        self.dram[:] = self.array

    def invalidate(self) -> None:
        """Carry the DRAM's copy to the processor."""
        self.array[:] = self.dram

    def free(self) -> None:
        """Give the addresses back."""
        self._memory.free(self)


def _pages(nbytes: int) -> Bytes:
    """Zeroed memory that starts at a page, as contiguous memory on a board does."""
    raw = np.zeros(nbytes + PAGE, np.uint8)
    start = -raw.ctypes.data % PAGE
    return raw[start : start + nbytes]


class EmulatedMemory:
    """Physical addresses and the buffers behind them.

    Attributes:
        buffers: those that were not freed.
        capacity: bytes that may be allocated together.
    """

    def __init__(self, capacity: int = 512 << 20) -> None:
        """Nothing allocated; by default, as much room as PYNQ images keep for contiguous memory."""
        self.buffers: dict[int, EmulatedBuffer] = {}
        self.capacity = capacity
        self._next = FIRST_ADDRESS

    def allocate(self, nbytes: int) -> EmulatedBuffer:
        """Contiguous memory.

        Raises:
            AcceleratorError: the capacity is used up.
        """
        used = sum(len(buffer.array) for buffer in self.buffers.values())
        if used + nbytes > self.capacity:
            raise AcceleratorError(
                f"{nbytes:,} bytes of contiguous memory are not to be had: {used:,} of {self.capacity:,} are in use",
                hint="close other programs that hold buffers",
            )
        buffer = EmulatedBuffer(self, self._next, nbytes)
        self.buffers[self._next] = buffer
        # A page stays free in between, so that running over the end of a buffer meets nobody.
        self._next += -(-nbytes // PAGE) * PAGE + PAGE
        return buffer

    def free(self, buffer: EmulatedBuffer) -> None:
        """Give a buffer back; a second time does nothing."""
        self.buffers.pop(buffer.address, None)

    def dram(self, address: int, nbytes: int) -> Bytes | None:
        """The DRAM at an address; None unless all of it lies in one buffer."""
        for start, buffer in self.buffers.items():
            if start <= address and address + nbytes <= start + len(buffer.dram):
                return buffer.dram[address - start : address - start + nbytes]
        return None


_library_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
"""A library has one set of on-chip memories, however many boards of this process it stands for."""


class EmulatedKernel:
    """The compiled kernel behind the registers of a `.hwh`.

    Attributes:
        kernel: the kernel's description, from the `.hwh`.
        fault: why the kernel is stuck; empty while it is not.
        interrupt: set when the interrupt rises.
        calls: how often the compiled kernel ran to its end.
    """

    def __init__(self, library: Path, manifest: Manifest, kernel: Kernel, memory: EmulatedMemory) -> None:
        """Load a compiled kernel.

        Args:
            library: shared library with the kernel's top function.
            manifest: of the build that it was compiled from.
            kernel: where its registers are.
            memory: what its pointers point into.

        Raises:
            InputError: the library cannot be loaded, lacks the function, or a register is missing.
        """
        try:
            self._function = getattr(ctypes.CDLL(str(library)), manifest.kernel)
        except (OSError, AttributeError) as error:
            raise InputError(f"{library}: not a compiled kernel: {error}") from None
        self._function.restype = None
        self._library_lock = _library_locks[library.resolve()]
        self.kernel, self._manifest, self._memory = kernel, manifest, memory
        self._names: dict[int, tuple[str, int]] = {}
        self._valid: dict[int, str] = {}
        self._connect(kernel)
        self._lock = threading.RLock()
        self._generation = 0
        self.interrupt = threading.Event()
        self.calls = 0
        self._clear()

    def _connect(self, kernel: Kernel) -> None:
        for argument in self._manifest.arguments:
            names = register_names(argument, set(kernel.registers))
            if not names:
                raise InputError(f"{kernel.source}: no register for {argument.name}")
            for word, name in enumerate(names):
                self._names[kernel.registers[name]] = (argument.name, 32 * word)
            base = names[0] if argument.bits == 32 else names[0][:-2]
            if argument.output:
                self._valid[kernel.registers[f"{base}_ctrl"]] = argument.name

    def _clear(self) -> None:
        self.fault = ""
        self._values = {argument.name: 0 for argument in self._manifest.arguments}
        self._new: set[str] = set()
        self._flags, self._enabled, self._global_enable, self._status = IDLE, 0, 0, 0
        self.interrupt.clear()

    def read(self, offset: int) -> int:
        """A register, with what reading it clears."""
        registers = self.kernel.registers
        with self._lock:
            if offset == registers["CTRL"]:
                flags = self._flags
                self._flags &= ~(DONE | READY)
                return flags
            if offset == registers["GIER"]:
                return self._global_enable
            if offset == registers["IP_IER"]:
                return self._enabled
            if offset == registers["IP_ISR"]:
                return self._status
            if offset in self._valid:
                fresh = self._valid[offset] in self._new
                self._new.discard(self._valid[offset])
                return int(fresh)
            if offset in self._names:
                name, low = self._names[offset]
                return self._values[name] >> low & 0xFFFF_FFFF
            return 0

    def write(self, offset: int, value: int) -> None:
        """Set a register; setting the start bit starts the kernel."""
        registers = self.kernel.registers
        with self._lock:
            if offset == registers["CTRL"]:
                if value & START and self._flags & IDLE:
                    self._start()
            elif offset == registers["GIER"]:
                self._global_enable = value & 1
            elif offset == registers["IP_IER"]:
                self._enabled = value
            elif offset == registers["IP_ISR"]:
                self._status ^= value
                if not self._status:
                    self.interrupt.clear()
            elif offset in self._names:
                name, low = self._names[offset]
                kept = self._values[name] & ~(0xFFFF_FFFF << low)
                self._values[name] = kept | (value & 0xFFFF_FFFF) << low

    def reset(self) -> None:
        """Forget everything; a call that is running ends unheard, in memory that it keeps for itself."""
        with self._lock:
            self._generation += 1
            self._clear()

    def _start(self) -> None:
        self._flags = START
        generation = self._generation
        arguments = dict(self._values)
        threading.Thread(target=self._run, args=(generation, arguments), daemon=True).start()

    def _run(self, generation: int, arguments: dict[str, int]) -> None:
        outputs = self.execute(arguments)
        with self._lock:
            if generation != self._generation or outputs is None:
                return
            self.calls += 1
            self._values.update(outputs)
            self._new.update(outputs)
            self._flags = DONE | IDLE | READY
            if self._enabled & 1:
                self._status |= 1
                if self._global_enable:
                    self.interrupt.set()

    def execute(self, arguments: dict[str, int]) -> dict[str, int] | None:
        """Call the compiled kernel.

        Args:
            arguments: value of every argument register.

        Returns:
            What it wrote to the output registers; None where it never ends.
        """
        manifest, weights = self._manifest, self._manifest.weights
        batch = arguments["batch"]
        sizes = {"image": batch * manifest.images.image_bytes, "output": batch * manifest.output.image_bytes}
        sizes.update({f"weights_{port}": weights.port_bytes for port in range(weights.ports)})
        if batch > manifest.max_batch:
            self.fault = (
                f"batch = {batch}, of {manifest.max_batch} at most: the kernel writes over its memories"
            )
            return None
        pointers = self._pointers(arguments, sizes)
        if pointers is None:
            return None
        clock, outputs = np.ones(1, np.uint64), np.zeros(2, np.uint64)
        words = [ctypes.c_void_p(part.ctypes.data) for part in (clock, outputs[:1], outputs[1:])]
        scalars = [ctypes.c_int(batch), ctypes.c_int(arguments["task"])]
        with self._library_lock, _Clock(clock, manifest.clock_mhz):
            self._function(*[ctypes.c_void_p(p.ctypes.data) for p in pointers], *scalars, *words)
        return {"design_id": int(outputs[0]), "cycles": int(outputs[1])}

    def _pointers(self, arguments: dict[str, int], sizes: dict[str, int]) -> list[Bytes] | None:
        found = []
        for name, size in sizes.items():
            # A call without images touches no memory.
            memory = (
                self._memory.dram(arguments[name], size) if arguments["batch"] else np.zeros(PAGE, np.uint8)
            )
            if memory is None:
                self.fault = (
                    f"{name} = {arguments[name]:#x}: no buffer holds the {size:,} bytes from there, "
                    "so the bus does not answer"
                )
                return None
            found.append(memory)
        return found


class _Clock:
    """A counter that goes up with the wall clock, at the frequency of the design, while the kernel runs."""

    def __init__(self, count: NDArray[np.uint64], mhz: float) -> None:
        self._count, self._mhz = count, mhz
        self._started, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()
        self._started.wait()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _tick(self) -> None:
        start = time.perf_counter()
        self._started.set()
        while not self._stop.wait(TICK):
            self._count[0] = 1 + int((time.perf_counter() - start) * self._mhz * 1e6)


class EmulatedBoard:
    """The built-in emulated board, for where PYNQ is not installed.

    Attributes:
        memory: its memory.
        hardware: the kernel.
    """

    emulated = True
    timeout = TIMEOUT

    def __init__(
        self, manifest: Manifest, library: Path, hardware: type[EmulatedKernel] = EmulatedKernel
    ) -> None:
        """A board for a build.

        Args:
            manifest: of the build.
            library: its kernel, compiled for this computer.
            hardware: what stands behind the registers.
        """
        self.kernel = read_hwh(manifest.path.parent / HWH, manifest.kernel)
        self.memory = EmulatedMemory()
        self.hardware = hardware(library, manifest, self.kernel, self.memory)

    def open(self) -> Kernel:
        """Take the board."""
        take(self)
        return self.kernel

    def allocate(self, nbytes: int) -> EmulatedBuffer:
        """Contiguous memory."""
        return self.memory.allocate(nbytes)

    def read(self, offset: int) -> int:
        """A register of the kernel."""
        return self.hardware.read(offset)

    def write(self, offset: int, value: int) -> None:
        """Set a register of the kernel."""
        self.hardware.write(offset, value)

    def wait(self, seconds: float) -> None:
        """Sleep until the kernel's interrupt, or a moment where it is not connected."""
        if self.kernel.interrupt:
            self.hardware.interrupt.wait(seconds)
        else:
            time.sleep(min(seconds, TICK))

    def reset(self) -> None:
        """Stop the kernel."""
        self.hardware.reset()

    def diagnose(self) -> str:
        """Why the kernel is stuck."""
        return self.hardware.fault

    def close(self) -> None:
        """Give the board back; it can be opened again."""
        give_back(self)
