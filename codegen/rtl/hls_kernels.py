"""Top functions of the HLS project for the kernels: C++ with the same ports as the SystemVerilog, and their script.

Synthesised one by one, they give Verilog on which the test benches of the kernels run (`verify --rtl --rtl-dir`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boards import Board
from codegen.architecture import Architecture
from codegen.context import Context, ScriptContext
from codegen.render import format_cpp, project_sources, source_files
from codegen.rtl.blackbox import Blackbox
from codegen.rtl.kernels import has_kernels, kernels_of
from codegen.rtl.kernels.base import Kernel
from common.errors import InputError

FOLDER = "kernels"
SCRIPT = "run_kernels.tcl"

RESULTS = "kernels_rtl"
"""Folder of the script's HLS projects, one for each kernel: what `--rtl-dir` takes."""

AP_INT_BITS = 1024
"""Widest `ap_int` unless the compiler is told otherwise (UG1399, arbitrary precision data types)."""

MOST_AP_INT_BITS = 4096
"""Widest that it may be told (ibidem)."""

_UNIT_SOURCE = "kernel_unit.sv"
"""Source of the SystemVerilog that all function units share; they share that of their C++, too."""


def write_hls_kernels(
    architecture: Architecture, folder: Path, board: Board, blackboxes: Sequence[Blackbox] = ()
) -> list[Path]:
    """Write the kernels' C++ and the script that synthesises it into an HLS project; nothing if there are none.

    Args:
        architecture: of the Design.
        folder: of the project, where `render` has written the engines.
        board: the board.
        blackboxes: function units that the engines call as RTL blackboxes.

    Returns:
        The files.

    Raises:
        InputError: beats that are wider than any `ap_int` may be.
    """
    if not has_kernels(architecture):
        return []
    kernels = kernels_of(architecture)
    _check_streams(kernels.values())
    sources, context = project_sources(architecture), Context.of(architecture)
    target = folder / FOLDER
    target.mkdir()
    streams = target / "streams.h"
    streams.write_text(sources.text(f"{FOLDER}/streams.h"))
    tops = []
    for name, kernel in kernels.items():
        own = {**kernel.sources[0].names, "kernel": kernel}
        tops.append(target / f"{name}.cpp")
        tops[-1].write_text(sources.text(f"{FOLDER}/{_source(kernel)}.cpp", context, own))
    format_cpp(tops)
    script = folder / SCRIPT
    scripts = ScriptContext.of(architecture, board, source_files())
    about = _Context.of(kernels, blackboxes)
    script.write_text(sources.text(f"{FOLDER}/{SCRIPT}", scripts, about))
    return [streams, *tops, script]


def _source(kernel: Kernel) -> str:
    return "unit" if kernel.sources[0].source == _UNIT_SOURCE else kernel.name


def _check_streams(kernels: Iterable[Kernel]) -> None:
    for kernel in kernels:
        for stream in kernel.streams:
            if stream.width > MOST_AP_INT_BITS:
                weights = any(field.name == "byte" for field in stream.fields)
                raise InputError(
                    f"beats of stream {stream.name} of kernel {kernel.name} would have {stream.width} bits, "
                    f"expected at most {MOST_AP_INT_BITS}: Vitis HLS has no wider ap_int",
                    hint="choose fewer weight_ports or a smaller axi_width"
                    if weights
                    else "choose a smaller value for lanes",
                )


def _widest_stream(kernels: Iterable[Kernel]) -> int:
    return max(stream.width for kernel in kernels for stream in kernel.streams)


@dataclass(frozen=True)
class _Context:
    """Objects that this script knows beside those of all scripts.

    Attributes:
        kernels: top function of each kernel, by its name.
        widest_stream: bits of the widest beat.
        blackboxes: function units that the engines call as RTL blackboxes.
        kernels_folder: of their C++.
        results_folder: of their projects.
        ap_int_bits: widest `ap_int` unless the compiler is told otherwise.
    """

    kernels: dict[str, str]
    widest_stream: int
    blackboxes: Sequence[Blackbox]
    kernels_folder: str = FOLDER
    results_folder: str = RESULTS
    ap_int_bits: int = AP_INT_BITS

    @classmethod
    def of(cls, kernels: Mapping[str, Kernel], blackboxes: Sequence[Blackbox]) -> _Context:
        """The context of some kernels."""
        tops = {name: kernel.top for name, kernel in kernels.items()}
        return cls(tops, _widest_stream(kernels.values()), blackboxes)
