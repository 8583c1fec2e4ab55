"""The RTL accelerator in a build: its files, and what makes an IP of them for Vivado's block design."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from boards import VIVADO_TEMPLATES, Board
from codegen.architecture import Architecture
from codegen.context import TOP, ScriptContext
from codegen.hwh import ADDRESS_RANGE, control_registers
from codegen.manifest import arguments_of
from codegen.rtl.accelerator import READ_SIGNALS, WRITE_SIGNALS, accelerator_files
from codegen.rtl.render import rtl_contexts, rtl_sources
from codegen.sources import Sources

IP_TOP: Final = "edgemoe_ip"
"""Module round the accelerator in plain Verilog, as which Vivado packages it."""

PACKAGE_SCRIPT: Final = "package.tcl"


def read_ports(architecture: Architecture) -> list[str]:
    """Names of the memory ports that read."""
    return [*(f"gmem_weights_{port}" for port in range(architecture.hardware.weight_ports)), "gmem_image"]


WRITE_PORTS: Final = ("gmem_output",)
"""Names of the memory ports that write."""


def write_accelerator(architecture: Architecture, folder: Path) -> list[Path]:
    """Write the accelerator's SystemVerilog, and round it the module that becomes an IP; returns the files.

    Args:
        architecture: of the Design on its hardware.
        folder: to make.
    """
    folder.mkdir(parents=True)
    files = accelerator_files(architecture, folder)
    registers = control_registers(arguments_of(architecture))
    own = {
        "top": TOP,
        "ip_top": IP_TOP,
        "address_bits": registers[-1].offset.bit_length(),
        "interfaces": _interfaces(architecture),
        "read_ports": read_ports(architecture),
        "write_ports": WRITE_PORTS,
        "read_signals": READ_SIGNALS,
        "write_signals": WRITE_SIGNALS,
    }
    wrapper = folder / f"{IP_TOP}.v"
    wrapper.write_text(
        rtl_sources().text(wrapper.name.replace(IP_TOP, "ip"), *rtl_contexts(architecture), own)
    )
    return [*files, wrapper]


def write_package_script(architecture: Architecture, sources: list[Path], folder: Path, board: Board) -> None:
    """Write `package.tcl`, which makes an IP of the files that `write_accelerator` gave.

    Args:
        architecture: of the Design on its hardware.
        sources: the files.
        folder: where to; it exists.
        board: the board.
    """
    own = {
        "ip_top": IP_TOP,
        "sources": [file.name for file in sources],
        "interfaces": _interfaces(architecture),
        "registers": control_registers(arguments_of(architecture)),
        "address_range": ADDRESS_RANGE,
    }
    text = Sources(VIVADO_TEMPLATES).text(PACKAGE_SCRIPT, ScriptContext.of(architecture, board), own)
    (folder / PACKAGE_SCRIPT).write_text(text)


def _interfaces(architecture: Architecture) -> list[str]:
    masters = [f"m_axi_{port}" for port in (*read_ports(architecture), *WRITE_PORTS)]
    return ["s_axi_control", *masters]
