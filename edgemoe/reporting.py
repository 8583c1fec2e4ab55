"""The command `report`: one page of HTML about a Design or a build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgemoe
from common.errors import InputError
from common.reading import read_json
from edgemoe.options import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from codegen.report import Built, Facts, Observation
    from edgemoe.console import Console
    from pysim.design import Design
    from pysim.model import Model

    Pixels = NDArray[np.uint8]

IMAGES = 8
"""Images that are run with a trace; further ones are left out."""

SENSITIVITY = "sensitivity.json"
"""File of a Design folder with what each tensor costs alone."""


def report(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Build folder or Design folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="HTML file to make.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help=f"Image, or a folder of them; repeatable. The first {IMAGES} are run."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL_DIR", help="Float network to compare with; needs --images."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="Task to run; repeatable. All if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Write what is known of a Design or a build as one page of HTML."""
    from pysim.files import require_new

    console: Console = ctx.obj
    require_new(output)
    if model is not None and not images:
        raise InputError("--model without --images: nothing to compare", hint="give --images PATH")
    design, built = read_source(source)
    pixels = edgemoe.load_images(images, design, resize="own")[:IMAGES] if images else None
    reference = edgemoe.load_model(model) if model is not None else None
    with console.progress("simulating") as progress:
        facts = collect(source, design, built, pixels, reference, task, progress)
    size = write(facts, output)
    console.show(f"{output}: {size / 1e6:.1f} MB, opens in any browser, without a network")
    console.result(
        {
            "report": str(output),
            "bytes": size,
            "design_id": design.design_id,
            "images": 0 if pixels is None else len(pixels),
            "tasks": [each.task for each in facts.observations],
        }
    )


def read_source(source: Path) -> tuple[Design, Built | None]:
    """A Design, and its hardware if the source is a build."""
    from boards import load_board
    from codegen.build import Build
    from codegen.performance import evaluate
    from codegen.report import Built
    from codegen.verification import read_verification

    if not (source / "build.toml").is_file():
        return edgemoe.load_design(source), None
    build = Build.load(source)
    board = load_board(build.spec.board)
    performance = evaluate(build.architecture, board)
    return build.design, Built(build.architecture, board, performance, read_verification(build))


def collect(
    source: Path,
    design: Design,
    built: Built | None,
    pixels: Pixels | None,
    model: Model | None,
    tasks: Sequence[str] | None,
    progress: Callable[[int, int], Any] | None = None,
) -> Facts:
    """Everything that a report shows: runs the images, task by task.

    Args:
        source: folder of the Design or the build.
        design: what `read_source` found.
        built: what `read_source` found.
        pixels: (images, channels, H, W) uint8; None for a report without runs.
        model: the float network to compare with.
        tasks: names of tasks; all where there are none.
        progress: called with tasks done and in total.
    """
    from codegen.report import Facts, Observation

    names = tasks or design.spec.tasks
    observed: list[Observation] = []
    for done, name in enumerate(names if pixels is not None else ()):
        assert pixels is not None
        if progress:
            progress(done, len(names))
        simulation = edgemoe.simulate(design, pixels, name, trace=True)
        comparison = None
        if model is not None:
            comparison = edgemoe.compare(model, design, pixels, name, simulation=simulation)
        observed.append(Observation(name, simulation, comparison))
    losses = (source / "design" if built else source) / SENSITIVITY
    return Facts(
        title=f"{design.spec.name} in {design.precision.name}"
        + (f" on {built.board.title}" if built else ""),
        version=edgemoe.__version__,
        design=design,
        built=built,
        observations=observed,
        pixels=pixels,
        sensitivity=read_json(losses) if losses.is_file() else None,
    )


def write(facts: Facts, output: Path) -> int:
    """Write the page into a new file, and return its bytes."""
    from codegen.report import render_page
    from pysim.files import new_file

    page = render_page(facts).encode()
    with new_file(output) as temporary:
        temporary.write_bytes(page)
    return len(page)
