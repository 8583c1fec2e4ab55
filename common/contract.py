"""The contract between a build and its host: files of the `host` folder, and the kernel's control interface.

The control interface is that of Vitis HLS (UG1399, S_AXILITE Control Register Map).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

VERSION = 2
"""Version of the manifest's format."""
MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"
HEADS = "heads.npz"
XCLBIN = "edgemoe.xclbin"
"""Binary of a card, which `v++ --link` leaves in the `host` folder."""
EMULATED_HWH = Path("emulated", "edgemoe.hwh")
"""Hardware description of the emulated board."""

START = 1 << 0
DONE = 1 << 1
"""Cleared when it is read."""
IDLE = 1 << 2
READY = 1 << 3
"""Cleared when it is read."""

STATUS_DONE, STATUS_BATCH, STATUS_TASK = range(3)
"""Values of the kernel's register `status`: done, or refused for its batch or its task."""


REPORT: Final = ("hardware_id", "max_batch", "status")
"""Outputs of a kernel that XRT runs, in the order of their 64-bit words in the memory of its argument `report`."""
REPORT_BYTES: Final = 64
"""Bytes of that memory: whole beats of every port that a kernel may have."""

RUNTIMES: Final = ("pynq", "xrt")
"""Programs that load and run a kernel: PYNQ on a board, XRT on a card."""


class Argument(NamedTuple):
    """An argument of the kernel that is a register.

    Attributes:
        name: as in the C++.
        bits: 32 or 64.
        output: whether the kernel writes it.
    """

    name: str
    bits: int
    output: bool
