"""Compiling a whole accelerator with Verilator and our C++ main, as a program that `RtlProcess` runs."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from codegen.children import in_worker
from codegen.csim import PARTIAL, find_compiler
from codegen.rtl.simulation import (
    ONE_FILE,
    RANDOM_STATE,
    STRICT,
    configuration,
    make_environment,
    refused,
    replaced,
    verilator_folder,
)
from common.errors import InputError
from hls import TEMPLATES
from pysim.cache import cache_folder
from pysim.scratch import scratch

PREFIX = "Vaccelerator"
"""Name of the C++ class, whatever the module."""

LOG = "build.log"
"""Name of the file with what the tools said."""

MAIN = TEMPLATES / "rtl" / "sim"
"""Our main program and its headers."""

VISIBLE = (
    'public_flat_rd -module "edgemoe_memory" -var "words"',
    'public_flat_rd -module "*" -var "event_done"',
    'public_flat_rd -module "*" -var "event_job"',
    'public_flat_rd -module "*" -var "event_start"',
)
"""Signals inside the module that the main program reads."""

_PORT = re.compile(r"VL_(?:IN|OUT)\w*\(&(\w+),")
_READ, _WRITE = (re.compile(rf"m_axi_(\w+)_{signal}") for signal in ("RDATA", "WDATA"))
_CLOCK_COUNT = "clock_count"


def build_accelerator(sources: Sequence[Path], top: str, *, waves: bool = False) -> Path:
    """Compile an accelerator; cached under everything that goes into it.

    Args:
        sources: SystemVerilog of the module and all that it instantiates, in any order; names of packages end with
            `_pkg`. Its ports are those of the HLS kernel: AXI4-Lite `s_axi_control_*`, AXI4 `m_axi_<name>_*`,
            `interrupt`, and maybe `clock_count`.
        top: the module.
        waves: whether it can record waveforms, which makes it slower.

    Returns:
        The program, in the cache.

    Raises:
        InputError: no Verilator, no compiler, or code that Verilator refuses; its warnings are errors.
    """
    tools = verilator_folder()
    find_compiler()
    main = sorted(MAIN.iterdir())
    sources = sorted(sources, key=lambda file: (not file.stem.endswith("_pkg"), file.name))
    digest = hashlib.sha256(f"{top} {waves} {VISIBLE} {RANDOM_STATE} {ONE_FILE} {STRICT} {tools}".encode())
    for file in (*sources, *main):
        digest.update(file.name.encode() + file.read_bytes())
    folder = cache_folder("rtl") / f"accelerator-{digest.hexdigest()[:32]}"
    if not (folder / PREFIX).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch(folder.parent / PARTIAL) as partial:
            partial.mkdir()
            in_worker(_compile, sources, top, partial, tools, waves)
            with replaced(folder):
                partial.rename(folder)
    return folder / PREFIX


def _compile(sources: Sequence[Path], top: str, folder: Path, tools: Path, waves: bool) -> None:
    environment = os.environ | make_environment(tools)
    command = [
        str(tools / "verilator"),
        *("--cc", "--exe", "-O3", STRICT, *RANDOM_STATE, *ONE_FILE),
        *("--prefix", PREFIX, "--top-module", top, "--Mdir", str(folder)),
        *("-CFLAGS", f"-DVL_USER_STOP -I{MAIN} -I."),
        *(("--trace-vcd",) if waves else ()),
        str(configuration(folder, VISIBLE)),
        *map(str, sources),
        str(MAIN / "accelerator_main.cpp"),
    ]
    _run(command, top, environment, folder)
    (folder / "ports.h").write_text(_ports((folder / f"{PREFIX}.h").read_text(), top))
    jobs = str(os.cpu_count() or 1)
    _run(["make", "-C", str(folder), "-f", f"{PREFIX}.mk", "-j", jobs, PREFIX], top, environment, folder)
    # What is left is the program: all that it was made of takes ten times its room.
    for file in folder.iterdir():
        if file.name not in (PREFIX, LOG):
            file.unlink()


def _run(command: Sequence[str], top: str, environment: dict[str, str], folder: Path) -> None:
    log = folder / LOG
    with log.open("w") as file:
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=folder, check=False
        )
    if done.returncode:
        raise refused(top, log.read_text(errors="replace"))


def _ports(header: str, top: str) -> str:
    """Lists of a module's AXI4 ports, from the C++ that Verilator made of it."""
    names = _PORT.findall(header)
    read, write = (
        [found[1] for name in names if (found := pattern.fullmatch(name))] for pattern in (_READ, _WRITE)
    )
    if not read and not write:
        raise InputError(f"{top}: no AXI4 port", hint="an accelerator has ports m_axi_<name>_RDATA or _WDATA")
    lines = [
        "#pragma once",
        "#define EDGEMOE_READ_PORTS(PORT) " + " ".join(f"PORT({name})" for name in read),
        "#define EDGEMOE_WRITE_PORTS(PORT) " + " ".join(f"PORT({name})" for name in write),
    ]
    if _CLOCK_COUNT in names:
        lines.append("#define EDGEMOE_CLOCK_COUNT")
    return "\n".join([*lines, ""])
