"""The RTL accelerator in a build: its files, and what makes an IP of them for Vivado's block design."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from boards import VIVADO_TEMPLATES, Board
from codegen.architecture import Architecture
from codegen.build import ACCELERATOR
from codegen.context import TOP, ScriptContext
from codegen.hwh import ADDRESS_RANGE, control_registers
from codegen.manifest import arguments_of
from codegen.rtl.accelerator import READ_SIGNALS, WRITE_SIGNALS
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


def write_package_script(architecture: Architecture, accelerator: Path, folder: Path, board: Board) -> None:
    """Write the module round the accelerator, and `package.tcl`, which makes an IP of it.

    Args:
        architecture: of the Design on its hardware.
        accelerator: folder of the accelerator's files, a neighbour's child: all of them go into the IP.
        folder: where to; it exists.
        board: the board.
    """
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
        "registers": registers,
        "address_range": ADDRESS_RANGE,
        "sources": sorted(f"../{ACCELERATOR}/{file.name}" for file in accelerator.iterdir()),
    }
    wrapper = rtl_sources().text("ip.v", *rtl_contexts(architecture), own)
    (folder / f"{IP_TOP}.v").write_text(wrapper)
    script = Sources(VIVADO_TEMPLATES).text(PACKAGE_SCRIPT, ScriptContext.of(architecture, board), own)
    (folder / PACKAGE_SCRIPT).write_text(script)


def _interfaces(architecture: Architecture) -> list[str]:
    masters = [f"m_axi_{port}" for port in (*read_ports(architecture), *WRITE_PORTS)]
    return ["s_axi_control", *masters]
