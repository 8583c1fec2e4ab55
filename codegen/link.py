"""The link configuration of a card: which bank of its memory each port of the kernel reaches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from boards import VIVADO_TEMPLATES, Board
from codegen.architecture import Architecture
from codegen.context import TOP, ScriptContext
from codegen.sources import Sources
from codegen.weight_image import image_layout, output_bytes
from common.contract import REPORT_BYTES, XCLBIN
from common.errors import InputError

COMPUTE_UNIT: Final = f"{TOP}_1"
"""Name of the kernel's only instance."""

LINK_FILE: Final = "link.cfg"


@dataclass(frozen=True)
class Port:
    """A memory port of the kernel.

    Attributes:
        arguments: those that go through it.
        nbytes: what they point to, together.
    """

    arguments: tuple[str, ...]
    nbytes: int


@dataclass(frozen=True)
class _Context:
    """Objects that the template knows beside those of all scripts."""

    title: str
    platform: str | None
    kernel_frequency: int
    compute_unit: str
    xclbin: str
    banks: dict[str, str]


def memory_ports(architecture: Architecture) -> list[Port]:
    """The kernel's memory ports, those of the weights first; two images and results each are in memory at a time."""
    hardware = architecture.hardware
    weights = architecture.sections["end"] * architecture.port_bytes
    images = 2 * hardware.max_batch * image_layout(architecture).image_bytes
    result = 2 * output_bytes(architecture, hardware.max_batch) + REPORT_BYTES
    return [
        *(Port((f"weights_{port}",), weights) for port in range(hardware.weight_ports)),
        Port(("image",), images),
        Port(("output", "report"), result),
    ]


def memory_banks(architecture: Architecture, board: Board) -> dict[str, str]:
    """Banks of each pointer argument, as `v++` spells them: `HBM[3]`, or `HBM[3:4]`; no two ports share one.

    Raises:
        InputError: the board does not say what its banks are, or has too few.
    """
    if board.memory_bank is None or board.bank_mb is None:
        raise InputError(
            f"board {board.name} says nothing of the memory behind its ports",
            hint='give memory_bank ("HBM" or "DDR") and bank_mb in the board file: docs/boards.md',
        )
    first, banks = 0, {}
    for port in memory_ports(architecture):
        last = first + -(-port.nbytes // (board.bank_mb << 20)) - 1
        tag = f"{board.memory_bank}[{first}]" if last == first else f"{board.memory_bank}[{first}:{last}]"
        banks.update(dict.fromkeys(port.arguments, tag))
        first = last + 1
    if first > board.ports:
        raise InputError(
            f"the kernel's ports need {first} banks, but {board.name} has {board.ports}",
            hint="fewer weight ports, such as --set weight_ports=1, or a smaller batch",
        )
    return banks


def write_link(architecture: Architecture, folder: Path, board: Board) -> None:
    """Write `link.cfg` into a new folder, for a kernel that XRT runs.

    Raises:
        InputError: see `memory_banks`.
    """
    own = _Context(
        board.title,
        board.platform,
        int(architecture.hardware.clock_mhz),
        COMPUTE_UNIT,
        XCLBIN,
        memory_banks(architecture, board),
    )
    folder.mkdir()
    text = Sources(VIVADO_TEMPLATES).text(LINK_FILE, ScriptContext.of(architecture, board), own)
    (folder / LINK_FILE).write_text(text)
