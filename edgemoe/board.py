"""Commands on a board, or an emulated one: run, and verify --host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgemoe
from common.contract import Backend
from common.errors import InputError
from edgemoe.console import Console
from edgemoe.options import Json, Out, TaskName

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
        list[Path] | None,
        typer.Option(
            "--image", "--images", metavar="PATH", help="Image, video, or folder of images; repeatable."
        ),
    ] = None,
    camera: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Frames of this camera; 0 is the first.")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            metavar="N",
            help="Frames of a video or camera at most; 100 of a camera if not given.",
        ),
    ] = None,
    task: TaskName = None,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Without a board: run the C++, compiled with g++.")
    ] = False,
    backend: Annotated[
        Backend,
        typer.Option(
            help="With --emulate: rtl runs the SystemVerilog under Verilator instead, cycle by cycle."
        ),
    ] = "hls",
    timeout: Annotated[
        float | None, typer.Option(min=0.001, metavar="SECONDS", help="Longest that a call may take.")
    ] = None,
    out: Out = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Save pictures of what the task heads make of the images; of several a GIF and MP4.",
        ),
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
    from common.outputs import kind_of
    from common.video import frame_rate
    from host.cli import as_text, chosen_tasks, measured, run_files, save_runs, sources, summary
    from pysim.files import new_file, require_new

    console: Console = ctx.obj
    for path in (out, save):
        if path is not None:
            require_new(path)
    kind = None if out is None else kind_of(out)
    images = sources(image or [], camera)
    rate = frame_rate(images)
    with console.progress("compiling the kernel") as progress:
        accelerator = edgemoe.Accelerator(
            build_dir, emulate=emulate, backend=backend, timeout=timeout, progress=progress
        )
    runs = []
    with accelerator:
        for each in run_files(accelerator, images, chosen_tasks(accelerator, task), frames):
            runs.append(each)
            console.show(as_text(each))
        results = summary(accelerator, runs)
        if benchmark is not None:
            results |= measured(accelerator, runs, benchmark, console.show)
    console.result(results)
    if out is not None and kind is not None:
        with new_file(out) as temporary:
            save_runs(temporary, kind, runs, console.collected)
        console.show(f"saved {out}")
    if save is not None:
        from edgemoe.saving import run_sheets, save_sheets

        saved = save_sheets(save, run_sheets(runs), rate, console.note)
        console.show(f"saved {save}: {saved}")


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
