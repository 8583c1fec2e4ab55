"""Files of the accelerator's library modules: SystemVerilog that no Design changes."""

from __future__ import annotations

import re
from pathlib import Path

from hls import TEMPLATES

_FOLDERS = ("common", "accelerator", "engines")
_PREFIX = "edgemoe_"
_NAME = re.compile(rf"\b{_PREFIX}(\w+)")
_COMMENT = re.compile(r"//[^\n]*")
_PACKAGE = "job_pkg"

LIBRARY_TOPS = (
    "edgemoe_memory",
    "edgemoe_fifo",
    "edgemoe_ring_buffer",
    "edgemoe_axi_read",
    "edgemoe_axi_write",
    "edgemoe_weight_streamer",
    "edgemoe_scoreboard",
    "edgemoe_job_memory",
    "edgemoe_shared_memory",
    "edgemoe_operand_memory",
    "edgemoe_head_memory",
    "edgemoe_queue_memory",
    "edgemoe_parameter_loader",
    "edgemoe_positions",
    "edgemoe_pixels",
    "edgemoe_patch_queue",
    "edgemoe_gather",
    "edgemoe_output",
)
"""Modules that are checked by themselves; all others are parts of them."""


def write_library(folder: Path, *tops: str) -> list[Path]:
    """Write the files of modules and of all that they are made of, the package first; returns them.

    Args:
        folder: where to.
        tops: names of modules.
    """
    found: dict[str, Path] = {}
    wanted = [top.removeprefix(_PREFIX) for top in tops]
    while wanted:
        name = wanted.pop()
        file = _file(name)
        if name not in found and file is not None:
            found[name] = folder / f"{_PREFIX}{name}.sv"
            found[name].write_text(file.read_text())
            wanted += _NAME.findall(_COMMENT.sub("", file.read_text()))
    return [found[name] for name in sorted(found, key=lambda name: (name != _PACKAGE, name))]


def _file(name: str) -> Path | None:
    files = [TEMPLATES / "rtl" / folder / f"{name}.sv" for folder in _FOLDERS]
    return next((file for file in files if file.is_file()), None)
