"""The scripts for Vivado: a block design for each family of processing systems, from `boards/vivado`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from boards import VIVADO_TEMPLATES, Board
from codegen.architecture import Architecture
from codegen.hwh import INSTANCE
from codegen.render import TOP, script_context
from codegen.sources import Sources

SCRIPTS: Final = {"zynq-ultrascale+": "zynq_ultrascale.tcl", "zynq-7000": "zynq_7000.tcl"}
"""Source of the script, by family of the board; an Alveo card has no processing system."""

COUNT_BITS: Final = 64
"""Bits of the kernel's `clock_count`."""


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
    """Write `build.tcl` and the cycle counter.

    Args:
        architecture: of the design.
        folder: to make, where there is a script for the board's family.
        board: the board.

    Returns:
        Whether there is one.
    """
    script = SCRIPTS.get(board.family)
    if script is None:
        return False
    names: dict[str, Any] = script_context(architecture, board, ()) | {
        "top": TOP,
        "instance": INSTANCE,
        "hardware_id": architecture.hardware_id,
        "title": board.title,
        "board_part": board.board_part,
        "port_width": board.port_width,
        "memory_masters": memory_masters(architecture, board),
        "count_bits": COUNT_BITS,
    }
    sources = Sources(VIVADO_TEMPLATES)
    folder.mkdir()
    for source, target in ((script, "build.tcl"), ("cycle_counter.v", "cycle_counter.v")):
        (folder / target).write_text(sources.text(source, names))
    return True
