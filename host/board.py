"""Boards as the driver sees them. PYNQ answers on a real one (`pynq_board`), `emulated` anywhere."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from host.errors import AcceleratorError
from host.hwh import Kernel
from host.registers import Bus


class Buffer(Protocol):
    """Memory that the board's processor and the kernel share, with a cache between them."""

    array: NDArray[np.uint8]
    address: int
    """Physical, for the kernel."""

    def flush(self) -> None:
        """Make what the processor wrote visible to the kernel."""

    def invalidate(self) -> None:
        """Make what the kernel wrote visible to the processor."""

    def free(self) -> None:
        """Give the memory back; `array` must not be used any more."""


class Board(Bus, Protocol):
    """A board with the kernel on it; reading and writing are those of the kernel's registers."""

    emulated: bool
    compiled: bool
    """Whether the kernel is C++ compiled for this computer: its network is in it, and its cycles say nothing."""
    timeout: float
    """Seconds that a call may take unless the user says otherwise."""

    def open(self) -> Kernel:
        """Take the board, put the kernel on it, and say where the kernel is.

        Raises:
            AcceleratorError: somebody else has it.
        """

    def allocate(self, nbytes: int, argument: str) -> Buffer:
        """Contiguous memory that an argument of the kernel will point to; `AcceleratorError` where there is none."""

    def wait(self, seconds: float) -> None:
        """Sleep until the kernel's interrupt, or where there is none for a moment; never longer than asked."""

    def reset(self) -> None:
        """Stop the kernel whatever it does, and set all registers to zero."""

    def diagnose(self) -> str:
        """The board's knowledge about a kernel that is stuck, or nothing."""

    def close(self) -> None:
        """Give the board back."""


_taken: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()


def take(device: Any) -> None:
    """Take a device.

    Raises:
        AcceleratorError: it is taken in this process.
    """
    with _lock:
        if device in _taken:
            raise AcceleratorError(
                "the board is in use by another Accelerator of this program",
                hint="close that one first: `accelerator.close()`, or a `with` block",
            )
        _taken.add(device)


def give_back(device: Any) -> None:
    """Give a device back."""
    with _lock:
        _taken.discard(device)
