"""Top functions of the HLS project for the kernels: C++ with the same ports as the SystemVerilog, and their script.

Synthesised one by one, they give Verilog on which the test benches of the kernels run (`verify --rtl --rtl-dir`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boards import Board
from codegen.architecture import Architecture
from codegen.render import context, environment, format_cpp, script_context, source_files
from codegen.rtl.kernels import has_kernels, kernels_of
from codegen.rtl.kernels.base import Kernel
from pysim.errors import InputError

if TYPE_CHECKING:
    from codegen.rtl.blackbox import Blackbox

FOLDER = "kernels"
SCRIPT = "run_kernels.tcl"

RESULTS = "kernels_rtl"
"""Folder of the script's HLS projects, one for each kernel: what `--rtl-dir` takes."""

AP_INT_BITS = 1024
"""Widest `ap_int` unless the compiler is told otherwise (UG1399, arbitrary precision data types)."""

MOST_AP_INT_BITS = 4096
"""Widest that it may be told (ibidem)."""

_UNIT_TEMPLATE = "kernel_unit.sv"
"""Template of the function units' SystemVerilog, which they share as they share the one of their C++."""


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
    env = environment(architecture)
    names = context(architecture) | {"widest_stream": _widest_stream(kernels.values())}
    target = folder / FOLDER
    target.mkdir()
    written = [target / "streams.h", *(target / f"{name}.cpp" for name in kernels)]
    written[0].write_text(env.get_template(f"{FOLDER}/streams.h.j2").render(names))
    for file, kernel in zip(written[1:], kernels.values(), strict=True):
        template = env.get_template(f"{FOLDER}/{_template(kernel)}.cpp.j2")
        file.write_text(template.render(names | dict(kernel.sources[0].names) | {"kernel": kernel}))
    format_cpp(written)
    script = folder / SCRIPT
    text = env.get_template(f"{FOLDER}/{SCRIPT}.j2").render(
        script_context(architecture, board, source_files()) | _script_names(architecture, kernels, blackboxes)
    )
    script.write_text(text)
    return [*written, script]


def _template(kernel: Kernel) -> str:
    return "unit" if kernel.sources[0].template == _UNIT_TEMPLATE else kernel.name


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


def _script_names(
    architecture: Architecture, kernels: Mapping[str, Kernel], blackboxes: Sequence[Blackbox]
) -> dict[str, Any]:
    """What this script needs to know beside what all scripts do."""
    return {
        "kernels": {name: kernel.top for name, kernel in kernels.items()},
        "kernels_folder": FOLDER,
        "results_folder": RESULTS,
        "hardware_id": architecture.hardware_id,
        "widest_stream": _widest_stream(kernels.values()),
        "ap_int_bits": AP_INT_BITS,
        "blackboxes": blackboxes,
    }
