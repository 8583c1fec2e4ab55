"""The RTL kernels on the command line: verify --rtl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import edgemoe
from edgemoe.console import Console

if TYPE_CHECKING:
    from codegen.build import Build
    from codegen.csim import CsimResult
    from codegen.rtl.verify import RtlResult, StageCycles


def verify_rtl(console: Console, build: Build, rtl_dir: Path | None, images: list[Path]) -> CsimResult:
    """Run a build's kernels, or those of Vitis HLS in `rtl_dir`, on the first image (random pixels if none)."""
    from codegen.rtl.verify import verify_rtl as run

    design = build.design
    pixels = edgemoe.random_images(design, 1)
    if images:
        pixels = edgemoe.load_images(images, design, resize="own")[:1]
    with console.progress("simulating RTL") as progress:
        result = run(build, pixels, rtl_folder=rtl_dir, progress=progress)
    _show_cycles(console, result)
    console.result({"rtl_stages": [vars(stage) for stage in result.stages]})
    return result.as_csim()


def _show_cycles(console: Console, result: RtlResult) -> None:
    """A row for every stage; experts of a layer together."""
    from edgemoe.tables import table

    together: dict[tuple[str, str], list[StageCycles]] = {}
    for stage in result.stages:
        together.setdefault((stage.kernel, stage.part_of), []).append(stage)
    rows = []
    for (kernel, name), stages in together.items():
        computed = [stage.computed for stage in stages if stage.computed is not None]
        rows.append(
            (
                kernel,
                name,
                f"{sum(stage.values for stage in stages):,}",
                f"{sum(stage.measured for stage in stages):,}",
                f"{sum(computed):,}" if len(computed) == len(stages) else "-",
                f"{result.estimates[name]:,}" if name in result.estimates else "-",
            )
        )
    columns = ("kernel", "stage", "values", "cycles measured", "computed", "HLS estimate")
    console.show(table("RTL kernels under Verilator, one call of each stage", columns, rows, left=2, keys=2))
