"""Commands on a board, or an emulated one: run, and verify --host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgemoe
from common.errors import InputError
from edgemoe.console import Console
from edgemoe.options import Json

if TYPE_CHECKING:
    from codegen.build import Build
    from codegen.csim import CsimResult


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(run)


def run(
    ctx: typer.Context,
    build_dir: Annotated[
        Path, typer.Argument(metavar="BUILD", help="Build folder, its host folder, or a .bit with its files.")
    ],
    image: Annotated[
        list[Path], typer.Option(metavar="PATH", help="Image, or a folder of them; repeatable.")
    ],
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="Task, or `all`; the first if not given.")
    ] = None,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Without a board: run the C++, compiled with g++.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, metavar="SECONDS", help="Longest that a call may take.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Save tokens and decoded outputs.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Save pictures of what the task heads make of the images."),
    ] = None,
    benchmark: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, metavar="N", help="Measure latency, images a second and power with N runs."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run images on the accelerator: on a board with PYNQ, or on an emulated one."""
    from host.cli import as_text, chosen_tasks, measured, run_files, save_runs, summary
    from pysim.files import new_file, require_new

    console: Console = ctx.obj
    for path in (out, save):
        if path is not None:
            require_new(path)
    with console.progress("compiling the kernel") as progress:
        accelerator = edgemoe.Accelerator(build_dir, emulate=emulate, timeout=timeout, progress=progress)
    runs = []
    with accelerator:
        for each in run_files(accelerator, image, chosen_tasks(accelerator, task)):
            runs.append(each)
            console.show(as_text(each))
        results = summary(accelerator, runs)
        if benchmark is not None:
            results |= measured(accelerator, runs, benchmark, console.show)
    if out is not None:
        with new_file(out) as temporary:
            save_runs(temporary, runs)
        console.show(f"saved {out}")
    if save is not None:
        from edgemoe.saving import run_sheets, save_sheets

        console.show(f"saved {save}: {save_sheets(save, run_sheets(accelerator.manifest, runs))} picture(s)")
    console.result(results)


def verify_host(console: Console, build: Build, images: list[Path] | int) -> CsimResult:
    """Run image files, or so many random images, through the host's driver on an emulated board."""
    from edgemoe.accelerator import emulated_board
    from edgemoe.host_check import check_host

    design = build.design
    if isinstance(images, int):
        pixels = edgemoe.random_images(design, images)
    else:
        pixels = edgemoe.load_images(images, design, resize="own")
        if not len(pixels):
            raise InputError("--host: no image to run")
    with console.progress("compiling the kernel") as progress:
        board = emulated_board(build.folder, progress)
    with console.progress("running the emulated board") as progress:
        result = check_host(build, board, pixels, progress)
    tasks = design.spec.tasks
    console.show(
        f"emulated board: {len(pixels)} image(s), tasks {', '.join(tasks)}, switched at every call: "
        f"{len(pixels) * len(tasks)} calls, streams and batches besides"
    )
    return result
