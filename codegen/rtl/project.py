"""The `rtl` folder of a build: every kernel's SystemVerilog, their description, and the whole accelerator's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codegen.architecture import Architecture
from codegen.rtl.accelerator import accelerator_files
from codegen.rtl.kernels import has_kernels, kernels_of
from codegen.rtl.kernels.base import Kernel
from codegen.rtl.render import render

DESCRIPTION = "kernels.json"
ACCELERATOR = "accelerator"
"""Folder of the whole accelerator's SystemVerilog."""


def write_rtl(architecture: Architecture, folder: Path) -> None:
    """Write kernels and accelerator of a Design into a new folder, which stays empty where there are none."""
    folder.mkdir(parents=True)
    if not has_kernels(architecture):
        return
    kernels = kernels_of(architecture)
    render(architecture, kernels.values(), folder)
    (folder / ACCELERATOR).mkdir()
    accelerator_files(architecture, folder / ACCELERATOR)
    described = {name: describe(kernel) for name, kernel in kernels.items()}
    content = {"hardware_id": architecture.hardware_id, "kernels": described}
    (folder / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n")


def describe(kernel: Kernel) -> dict[str, Any]:
    """Module, files, streams and registers of a kernel."""
    offsets = kernel.register_map
    return {
        "top": kernel.top,
        "title": kernel.title,
        "files": [source.file for source in kernel.sources],
        "streams": [
            {
                "name": stream.name,
                "direction": stream.direction,
                "width": stream.width,
                "fields": [
                    {
                        "name": field.name,
                        "bits": field.bits,
                        "signed": field.signed,
                        "lanes": field.lanes,
                        "first_bit": stream.offset(field.name),
                        "lane_bits": field.stored,
                    }
                    for field in stream.fields
                ],
            }
            for stream in kernel.streams
        ],
        "registers": [
            {"name": r.name, "offset": offsets[r.name], "bits": r.bits, "signed": r.signed}
            for r in kernel.registers
        ],
    }
