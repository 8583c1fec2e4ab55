"""The scripts for Vivado: a block design for each family of processing systems, from `boards/vivado`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from boards import FAMILIES, VIVADO_TEMPLATES, Board
from codegen.architecture import Architecture
from codegen.context import ScriptContext
from codegen.hwh import INSTANCE
from codegen.sources import Sources

COUNTER: Final = "cycle_counter.v"
"""The counter beside the kernel."""

COUNT_BITS: Final = 64
"""Bits of the kernel's `clock_count`."""


@dataclass(frozen=True)
class _Context:
    """Objects that the templates know beside those of all scripts."""

    instance: str
    title: str
    board_part: str
    port_width: int
    memory_masters: list[list[str]]
    count_bits: int


def memory_masters(architecture: Architecture, board: Board) -> list[list[str]]:
    """The kernel's memory interfaces by the high-performance port that they share.

    Weights first, each on a port of its own as long as there are any: they are nearly all of the traffic.
    """
    hardware = architecture.hardware
    masters = [f"gmem_weights_{port}" for port in range(hardware.weight_ports)]
    masters += ["gmem_image", "gmem_output"]
    used = min(board.ports, len(masters))
    return [masters[port::used] for port in range(used)]


def write_block_design(architecture: Architecture, folder: Path, board: Board) -> bool:
    """Write `build.tcl`, and the cycle counter of an HLS kernel: an RTL accelerator counts by itself.

    Args:
        architecture: of the design.
        folder: to make, where there is a script for the board's family.
        board: the board.

    Returns:
        Whether there is one.
    """
    system = FAMILIES[board.family].processing_system
    if system is None:
        return False
    own = _Context(
        INSTANCE,
        board.title,
        board.board_part,
        board.port_width,
        memory_masters(architecture, board),
        COUNT_BITS,
    )
    sources = Sources(VIVADO_TEMPLATES)
    folder.mkdir()
    files = [(system.block_design, "build.tcl")]
    if architecture.hardware.backend == "hls":
        files.append((COUNTER, COUNTER))
    for source, target in files:
        (folder / target).write_text(sources.text(source, ScriptContext.of(architecture, board), own))
    return True
