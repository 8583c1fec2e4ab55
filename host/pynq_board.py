"""A board with PYNQ: overlay, contiguous memory, interrupts."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from host.board import give_back, take
from host.errors import AcceleratorError
from host.hwh import Kernel, read_hwh

TIMEOUT = 10.0
POLL = 50e-6
"""Seconds between two looks at the control register where there is no interrupt to wait for."""


class PynqBuffer:
    """Contiguous memory that PYNQ allocated."""

    def __init__(self, buffer: Any) -> None:
        """Wrap what `pynq.allocate` returned: bytes."""
        self._buffer = buffer
        self.address = int(buffer.physical_address)
        self.array: NDArray[np.uint8] = np.asarray(buffer)

    def flush(self) -> None:
        """Write the cache back."""
        self._buffer.flush()

    def invalidate(self) -> None:
        """Drop what the cache holds of it."""
        self._buffer.invalidate()

    def free(self) -> None:
        """Give the memory back."""
        # The view first: it must not outlive what it looks at.
        self.array = np.zeros(0, np.uint8)
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            buffer.freebuffer()


class PynqBoard:
    """The board that PYNQ finds, or an emulated device of PYNQ's."""

    def __init__(self, bitfile: Path, kernel: str, device: Any = None) -> None:
        """Name the files; the board is not touched before `open`.

        Args:
            bitfile: the bitstream, with its `.hwh` beside it.
            kernel: name of the kernel's top function.
            device: the PYNQ device; by default the active one.

        Raises:
            InputError: PYNQ is not installed here, or it finds no device.
        """
        try:
            import pynq
        except ImportError as error:
            raise InputError(
                f"PYNQ cannot be imported: {error}",
                hint="on a board, use the Python of its PYNQ image; anywhere else, `--emulate` (Python: emulate=True)",
            ) from None
        self._pynq = pynq
        self._bitfile, self._name = bitfile, kernel
        if device is None:
            try:
                device = pynq.Device.active_device
            except RuntimeError as error:
                raise InputError(
                    f"PYNQ finds no board: {error}",
                    hint="run as root, with PYNQ's environment; without a board, `--emulate` (Python: emulate=True)",
                ) from None
        self._device = device
        self.emulated = bool(getattr(device, "emulated", False))
        self.compiled = bool(getattr(device, "compiled", False))
        self.timeout = float(getattr(device, "timeout", TIMEOUT))
        self._lock: IO[str] | None = None

    def open(self) -> Kernel:
        """Take the board and load the bitstream."""
        path = self._bitfile.with_suffix(".hwh") if self.emulated else self._bitfile
        if not path.is_file():
            raise InputError(
                f"{path}: no such file",
                hint="vivado/build.tcl leaves .bit and .hwh in the host folder of the build; "
                "without a board, `--emulate` (Python: emulate=True)",
            )
        kernel = read_hwh(self._bitfile.with_suffix(".hwh"), self._name)
        take(self._device)
        try:
            if not self.emulated:
                self._lock = _lock_file(f"edgemoe-{getattr(self._device, 'tag', 'board')}.lock")
            self._load(path, kernel)
        except BaseException:
            self.close()
            raise
        return kernel

    def _load(self, path: Path, kernel: Kernel) -> None:
        try:
            # An emulated device has no configuration memory to download to.
            self._bind(path, kernel, download=not self.emulated)
        except (OSError, RuntimeError, ValueError, AttributeError) as error:
            raise AcceleratorError(
                f"{path}: PYNQ cannot load it: {error}",
                hint="was it made for this board? PYNQ must run as root to load a bitstream",
            ) from None

    def _bind(self, path: Path, kernel: Kernel, *, download: bool) -> None:
        self._kernel = kernel
        # Interrupts and clocks ask for the active device, whichever the overlay is for.
        self._pynq.Device.active_device = self._device
        with warnings.catch_warnings():
            # Without a UIO device for it there is polling, of which nobody need be warned.
            warnings.filterwarnings("ignore", message="Interrupt .* not created")
            self._overlay = self._pynq.Overlay(str(path.resolve()), download=download, device=self._device)
            self._ip = getattr(self._overlay, kernel.instance)
        self._interrupt = getattr(self._ip, "interrupt", None)

    def allocate(self, nbytes: int, argument: str) -> PynqBuffer:
        """Contiguous memory, the same for every argument."""
        try:
            return PynqBuffer(self._pynq.allocate((nbytes,), np.uint8, target=self._device))
        except (RuntimeError, MemoryError, OSError) as error:
            raise AcceleratorError(
                f"{nbytes:,} bytes of contiguous memory are not to be had: {error}",
                hint="close other notebooks that hold buffers, or enlarge the CMA (kernel argument cma=)",
            ) from None

    def read(self, offset: int) -> int:
        """A register of the kernel."""
        return int(self._ip.read(offset))

    def write(self, offset: int, value: int) -> None:
        """Set a register of the kernel."""
        self._ip.write(offset, value)

    def wait(self, seconds: float) -> None:
        """Sleep until the kernel's interrupt, or for a moment where it cannot be waited for."""
        if self._interrupt is not None and wait_for_interrupt(self._interrupt, seconds):
            return
        time.sleep(min(seconds, POLL))

    def reset(self) -> None:
        """Load the bitstream anew, which stops the kernel whatever it does."""
        if self.emulated:
            self._device.reset_kernel()
        else:
            # A new overlay, because a download makes the interrupts of the old one invalid.
            self._bind(self._bitfile, self._kernel, download=True)

    def diagnose(self) -> str:
        """The knowledge of an emulated device."""
        return str(getattr(self._device, "fault", ""))

    def close(self) -> None:
        """Give the board back; the bitstream stays on it."""
        self._overlay = self._ip = self._interrupt = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        give_back(self._device)


def wait_for_interrupt(interrupt: Any, seconds: float) -> bool:
    """Wait for a PYNQ interrupt; False where its event loop is busy, as in a notebook: then there is polling."""
    try:
        with warnings.catch_warnings():
            # PYNQ tied the interrupt to this loop when it made it, in the same way.
            warnings.simplefilter("ignore", DeprecationWarning)
            loop = asyncio.get_event_loop()
    except RuntimeError:  # Not the main thread.
        return False
    if loop.is_running():
        return False
    with suppress(TimeoutError, asyncio.TimeoutError):
        loop.run_until_complete(asyncio.wait_for(interrupt.wait(), seconds))
    return True


def _lock_file(name: str) -> IO[str]:
    """A lock that ends with the process, for programs that share a board.

    Raises:
        AcceleratorError: another program has it.
    """
    path = Path(tempfile.gettempdir(), name)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AcceleratorError(
            f"{path}: cannot be opened: {error.strerror}", hint="run as the same user"
        ) from None
    file = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise AcceleratorError(
            "the board is in use by an Accelerator of another program",
            hint="shut down the other notebook or script first",
        ) from None
    return file
