"""Let Verilator and slang read all SystemVerilog: kernels and accelerator of some Designs, and its library modules.

    python scripts/lint_rtl.py

Every warning of either is an error. Exit code 1 if there is one. slang keeps to the standard where Verilator and Yosys
read on: a name that is used before its declaration, for one, which Vivado refuses.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from codegen.architecture import Architecture
from codegen.context import TOP
from codegen.hardware import Hardware
from codegen.rtl.accelerator import accelerator_files
from codegen.rtl.kernels import kernels_of
from codegen.rtl.library import LIBRARY_TOPS, write_library
from codegen.rtl.render import render
from codegen.rtl.simulation import lint
from codegen.rtl.slang import elaborate
from common.errors import EdgeMoeError
from frontend.zoo import find_spec
from pysim.network import Network
from pysim.precision import preset

HARDWARE = Hardware(
    lanes=4, outputs=8, token_tile=3, attention_rows=4, axi_width=64, weight_ports=2, weight_rows=128
)
PRECISIONS = ("w16a16", "w8a8")


def tops(folder: Path) -> Iterator[tuple[Sequence[Path], str]]:
    """Files and name of every module that is looked at by itself."""
    for precision in PRECISIONS:
        architecture = Architecture(Network(find_spec("micro"), preset(precision)), HARDWARE)
        for kernel in kernels_of(architecture).values():
            own = folder / precision / kernel.name
            own.mkdir(parents=True)
            yield render(architecture, [kernel], own), kernel.top
        own = folder / precision / TOP
        own.mkdir()
        yield accelerator_files(architecture, own), TOP
    for top in LIBRARY_TOPS:
        own = folder / top
        own.mkdir()
        yield write_library(own, top), top


def main() -> None:
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        for sources, top in tops(Path(temporary)):
            for check in (elaborate, lint):
                try:
                    check(sources, top)
                except EdgeMoeError as error:
                    print(error, file=sys.stderr)
                    failures += 1
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
