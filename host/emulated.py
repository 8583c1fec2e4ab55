"""An emulated board: the generated kernel, compiled for this computer, behind its registers and shared memory.

The kernel runs in a thread of its own while the program goes on, as on a board. The processor's cache is modelled
too: a buffer exists twice, and only `flush` and `invalidate` carry it from one copy to the other, so that a driver
that forgets one of them computes nonsense here as well. What the processor wrote and did not flush is also evicted, at
the worst time there is: it goes over what the kernel has just written.
"""

from __future__ import annotations

import ctypes
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.contract import DONE, EMULATED_HWH, IDLE, READY, REPORT_BYTES, START
from common.errors import InputError
from host.board import give_back, take
from host.errors import AcceleratorError
from host.hwh import Kernel, read_hwh
from host.manifest import Manifest
from host.registers import register_names
from host.xrt_board import read_report

Bytes = NDArray[np.uint8]


PAGE = 4096
CACHE_LINE = 64
RUBBISH, CACHED_RUBBISH = 0xA5, 0x5A
"""Bytes that new memory holds, in the DRAM and in the cache: whatever its last owner left."""
FIRST_ADDRESS = 0x8_7000_0000
"""Above 4 GiB, as the upper DRAM of a Zynq UltraScale+: both words of a pointer count."""
TIMEOUT = 600.0
TICK = 0.1e-3
"""Seconds between two changes of the emulated clock counter."""


class EmulatedBuffer:
    """A buffer as the processor sees it through its cache (`array`), and as it is in the emulated DRAM (`dram`)."""

    def __init__(self, memory: EmulatedMemory, address: int, nbytes: int) -> None:
        """Memory of so many bytes, which holds rubbish; `EmulatedMemory.allocate` makes it."""
        self._memory = memory
        self.address = address
        self.array, self.dram, self._clean = (_pages(nbytes) for _ in range(3))
        self.array[:] = self._clean[:] = CACHED_RUBBISH
        self.dram[:] = RUBBISH

    def flush(self, start: int = 0, nbytes: int | None = None) -> None:
        """Carry the processor's copy to the DRAM: all of it, or a range of bytes."""
        self._write_back(_range(start, nbytes))

    def invalidate(self, start: int = 0, nbytes: int | None = None) -> None:
        """Carry the DRAM's copy to the processor: all of it, or a range of bytes."""
        part = _range(start, nbytes)
        self.array[part] = self._clean[part] = self.dram[part]

    def evict(self) -> None:
        """Write back every line of the cache that the processor has changed, as a cache may at any time."""
        for start in CACHE_LINE * np.unique(np.flatnonzero(self.array != self._clean) // CACHE_LINE):
            self._write_back(slice(start, start + CACHE_LINE))

    def _write_back(self, part: slice) -> None:
        self.dram[part] = self._clean[part] = self.array[part]

    def free(self) -> None:
        """Give the addresses back."""
        self._memory.free(self)


def _range(start: int, nbytes: int | None) -> slice:
    return slice(start, None if nbytes is None else start + nbytes)


def _pages(nbytes: int) -> Bytes:
    """Memory that starts at a page, as contiguous memory on a board does."""
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

    def find(self, address: int, nbytes: int) -> EmulatedBuffer | None:
        """The buffer that holds so many bytes from an address; None unless all of them lie in one."""
        for start, buffer in self.buffers.items():
            if start <= address and address + nbytes <= start + len(buffer.dram):
                return buffer
        return None


_library_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
"""A library has one set of on-chip memories, however many boards of this process it stands for."""


class EmulatedHardware(ABC):
    """A kernel behind the registers of a `.hwh`, and its interrupt.

    Attributes:
        kernel: the kernel's description, from the `.hwh`.
        fault: why the kernel is stuck; empty while it is not.
        interrupt: set when the interrupt rises.
    """

    compiled = False
    """Whether the kernel is C++ compiled for this computer."""

    def __init__(self, kernel: Kernel) -> None:
        """A kernel at rest."""
        self.kernel, self.fault, self.interrupt = kernel, "", threading.Event()

    @abstractmethod
    def read(self, offset: int) -> int:
        """A register, with what reading it clears."""

    @abstractmethod
    def write(self, offset: int, value: int) -> None:
        """Set a register; setting the start bit starts the kernel."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything; a call that is running ends unheard."""


class EmulatedRegisters(EmulatedHardware):
    """The registers of a `.hwh`, and behind them a kernel that somebody else emulates.

    Attributes:
        calls: how often the kernel ran to its end.
    """

    def __init__(self, manifest: Manifest, kernel: Kernel, memory: EmulatedMemory) -> None:
        """Connect a kernel.

        Args:
            manifest: of the build that the kernel was made from.
            kernel: where its registers are.
            memory: what its pointers point into.

        Raises:
            InputError: a register is missing.
        """
        super().__init__(kernel)
        self._manifest, self._memory = manifest, memory
        self._names: dict[int, tuple[str, int]] = {}
        self._valid: dict[int, str] = {}
        self._connect(kernel)
        self._lock = threading.RLock()
        self._generation = 0
        self.calls = 0
        self._clear()

    @abstractmethod
    def execute(self, arguments: dict[str, int]) -> dict[str, int] | None:
        """Run a call.

        Args:
            arguments: value of every argument register.

        Returns:
            What it wrote to the output registers; None where it never ends.
        """

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


class EmulatedKernel(EmulatedRegisters):
    """The compiled kernel behind the registers of a `.hwh`."""

    compiled = True

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
        super().__init__(manifest, kernel, memory)
        self._max_batch = self._call(self._scratch(), 0, 0)["max_batch"]

    def execute(self, arguments: dict[str, int]) -> dict[str, int] | None:
        """Call the compiled kernel: see `EmulatedRegisters.execute`."""
        batch, task = (ctypes.c_int(arguments[name]).value for name in ("batch", "task"))
        if not 0 < batch <= self._max_batch:
            # A call without images touches no memory, nor does one that the kernel refuses.
            return self._call(self._scratch(), batch, task)
        buffers = self._buffers(arguments, batch)
        if buffers is None:
            return None
        memory = [buffer.dram[arguments[name] - buffer.address :] for name, buffer in buffers.items()]
        outputs = self._call(memory, batch, task)
        buffers["output"].evict()
        return outputs

    def _scratch(self) -> list[Bytes]:
        """Memory for a call that touches none."""
        return [np.zeros(PAGE, np.uint8) for _ in range(2 + self._manifest.weights.ports)]

    def _call(self, memory: Sequence[Bytes], batch: int, task: int) -> dict[str, int]:
        if self._manifest.runtime == "xrt":
            return self._call_of_xrt(memory, batch, task)
        clock = np.ones(1, np.uint64)
        outputs = {
            argument.name: np.zeros(1, f"u{argument.bits // 8}")
            for argument in self._manifest.arguments
            if argument.output
        }
        words = [ctypes.c_void_p(array.ctypes.data) for array in (clock, *outputs.values())]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in memory]
        with self._library_lock, _Clock(clock, self._manifest.clock_mhz):
            self._function(*pointers, ctypes.c_int(batch), ctypes.c_int(task), *words)
        return {name: int(value[0]) for name, value in outputs.items()}

    def _call_of_xrt(self, memory: Sequence[Bytes], batch: int, task: int) -> dict[str, int]:
        """Outputs of a call of a kernel that puts them into memory."""
        report = np.full(REPORT_BYTES, RUBBISH, np.uint8)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in memory]
        with self._library_lock:
            self._function(
                *pointers, ctypes.c_int(batch), ctypes.c_int(task), ctypes.c_void_p(report.ctypes.data)
            )
        return read_report(report)

    def _buffers(self, arguments: dict[str, int], batch: int) -> dict[str, EmulatedBuffer] | None:
        """Buffers that a call points into, in the order of the kernel's arguments; None where it points into none."""
        images, output, weights = self._manifest.images, self._manifest.output, self._manifest.weights
        sizes = {"image": batch * images.image_bytes, "output": batch * output.image_bytes}
        sizes.update({f"weights_{port}": weights.port_bytes for port in range(weights.ports)})
        found = {}
        for name, size in sizes.items():
            buffer = self._memory.find(arguments[name], size)
            if buffer is None:
                self.fault = (
                    f"{name} = {arguments[name]:#x}: no buffer holds the {size:,} bytes from there, "
                    "so the bus does not answer"
                )
                return None
            found[name] = buffer
        return found


Hardware = Callable[[Path, Manifest, Kernel, EmulatedMemory], EmulatedHardware]
"""Makers of the kernel behind the registers: `EmulatedKernel`, of a shared library, or `emulated_rtl`, of Verilog."""


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

    def __init__(self, manifest: Manifest, library: Path, hardware: Hardware = EmulatedKernel) -> None:
        """A board for a build.

        Args:
            manifest: of the build.
            library: its kernel, compiled for this computer.
            hardware: what makes of it the kernel behind the registers.
        """
        self.kernel = read_hwh(manifest.path.parent / EMULATED_HWH, manifest.kernel)
        self.memory = EmulatedMemory()
        self.hardware = hardware(library, manifest, self.kernel, self.memory)
        self.compiled = self.hardware.compiled

    def open(self) -> Kernel:
        """Take the board."""
        take(self)
        return self.kernel

    def allocate(self, nbytes: int, argument: str) -> EmulatedBuffer:
        """Contiguous memory, the same for every argument."""
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
