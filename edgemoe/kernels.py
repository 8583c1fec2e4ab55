"""The RTL kernels and the whole accelerator in RTL on the command line: verify --rtl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import edgemoe
from edgemoe.console import Console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from codegen.build import Build
    from codegen.csim import CsimResult
    from codegen.rtl.verify import RtlResult, StageCycles


def verify_rtl(console: Console, build: Build, rtl_dir: Path | None, images: list[Path]) -> CsimResult:
    """Run a build's kernels, or those of Vitis HLS in `rtl_dir`, on the first image (random pixels if none).

    Without `rtl_dir`, the accelerator follows, on all images and for all tasks.
    """
    from codegen.rtl.verify import verify_rtl as run

    design = build.design
    pixels = edgemoe.random_images(design, 1)
    if images:
        pixels = edgemoe.load_images(images, design, resize="own")
    with console.progress("simulating RTL") as progress:
        result = run(build, pixels[:1], rtl_folder=rtl_dir, progress=progress)
    _show_cycles(console, result)
    console.result({"rtl_stages": [vars(stage) for stage in result.stages]})
    compared = result.as_csim()
    return compared if rtl_dir else compared + _verify_accelerator(console, build, pixels)


def _verify_accelerator(console: Console, build: Build, pixels: NDArray[np.uint8]) -> CsimResult:
    """Run a build's accelerator, and show its cycles."""
    from codegen.csim import CsimResult
    from codegen.rtl.accelerator_check import verify_accelerator
    from edgemoe.tables import table

    with console.progress("simulating the accelerator") as progress:
        result = verify_accelerator(build, pixels, progress=progress)
    rows = [
        (
            stage.stage,
            f"{stage.values:,}",
            f"{stage.cycles:,}",
            "-" if stage.estimate is None else f"{stage.estimate:,}",
        )
        for stage in result.stages
    ]
    columns = ("stage", "values", "cycles counted", "computed")
    console.show(table("The accelerator under Verilator, its first call", columns, rows))
    ms = result.cycles / build.architecture.hardware.clock_mhz / 1e3
    console.show(
        f"accelerator: {result.runs} calls; {result.cycles:,} cycles in the first, {ms:.3f} ms at "
        f"{build.architecture.hardware.clock_mhz:g} MHz; its schedule computed: {result.estimate:,}"
    )
    console.result(
        {
            "accelerator": {
                "calls": result.runs,
                "cycles": result.cycles,
                "estimate": result.estimate,
                "stages": [vars(stage) for stage in result.stages],
            }
        }
    )
    engines = {"rtl.accelerator": (result.values, result.mismatches)}
    return CsimResult(engines=engines, mismatches=result.problems)


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
