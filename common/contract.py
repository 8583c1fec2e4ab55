"""The contract between a build and its host: files of the `host` folder, and the kernel's control interface.

The control interface is that of Vitis HLS (UG1399, S_AXILITE Control Register Map).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, NamedTuple

from common.capacities import CAPACITIES

VERSION = 3
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

STATUS_DONE, STATUS_BATCH, STATUS_TASK, STATUS_TABLE, STATUS_MEMORY = range(5)
"""Values of the kernel's register `status`: done, or refused for its batch or its task; of an RTL accelerator, too, for
a job table that it could not read, or because memory refused an access."""


REPORT: Final = ("hardware_id", "max_batch", "status")
"""Outputs of a kernel that XRT runs, in the order of their 64-bit words in the memory of its argument `report`."""
REPORT_BYTES: Final = 64
"""Bytes of that memory: whole beats of every port that a kernel may have."""

RUNTIMES: Final = ("pynq", "xrt")
"""Programs that load and run a kernel: PYNQ on a board, XRT on a card."""

Backend = Literal["hls", "rtl"]
"""Language of an accelerator: C++ for Vitis HLS, with its network synthesised in, or SystemVerilog, which reads the job
table from memory."""
BACKENDS: Final[tuple[Backend, ...]] = ("hls", "rtl")


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


WAIT_FOR_ROUTER: Final = "wait_for_router"
"""Register of an RTL accelerator: 1 fetches weights of experts only once their router has decided, 0 before as well."""


def kernel_arguments(ports: int, *, xrt: bool, rtl: bool = False) -> list[Argument]:
    """Arguments of the kernel that the host sets and reads, in their order: those of both backends come first.

    The registers follow from it (`codegen.hwh.control_registers`). A call without images writes all outputs, so that
    the host knows what the accelerator has room for before it lends it memory.

    Args:
        ports: weight ports.
        xrt: whether XRT runs it. Such a kernel puts its outputs into memory, and has neither cycles nor capacities.
        rtl: whether it is an RTL accelerator, which can be told to wait for its routers.
    """
    weights = [f"weights_{port}" for port in range(ports)]
    inputs = [
        *(Argument(name, 64, output=False) for name in ("image", "output", *weights)),
        *(Argument(name, 32, output=False) for name in ("batch", "task")),
    ]
    if xrt:
        return [
            *inputs,
            *(Argument(name, 64 if name == "hardware_id" else 32, output=True) for name in REPORT),
        ]
    counts = ("max_batch", "status", *CAPACITIES[1:])
    return [
        *inputs,
        *(Argument(name, 64, output=True) for name in ("hardware_id", "cycles")),
        *(Argument(name, 32, output=True) for name in counts),
        *([Argument(WAIT_FOR_ROUTER, 32, output=False)] if rtl else []),
    ]
