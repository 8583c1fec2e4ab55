"""The command `report`: one page of HTML about a Design or a build."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgemoe
from common.errors import InputError
from edgemoe.options import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from codegen.report import Built, Observation
    from edgemoe.console import Console
    from pysim.design import Design

    Pixels = NDArray[np.uint8]

IMAGES = 8
"""Images that are run with a trace; further ones are left out."""


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
    from codegen.report import Facts, render_page
    from pysim.extras import require
    from pysim.files import new_file, require_new

    console: Console = ctx.obj
    require_new(output)
    require("a report", "plotly")
    if model is not None and not images:
        raise InputError("--model without --images: nothing to compare", hint="give --images PATH")
    design, built, given = _read(source)
    pixels = edgemoe.load_images(list(images), design, fit=True)[:IMAGES] if images else None
    observations = _observe(console, design, pixels, model, task) if pixels is not None else []
    path = given / "sensitivity.json"
    facts = Facts(
        title=f"{design.spec.name} in {design.precision.name}"
        + (f" on {built.board.title}" if built else ""),
        version=edgemoe.__version__,
        design=design,
        built=built,
        observations=observations,
        pixels=pixels,
        sensitivity=json_format.loads(path.read_text()) if path.is_file() else None,
    )
    page = render_page(facts)
    with new_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    console.show(f"{output}: {len(page.encode()) / 1e6:.1f} MB, opens in any browser, without a network")
    console.result(
        {
            "report": str(output),
            "bytes": len(page.encode()),
            "design_id": design.design_id,
            "images": 0 if pixels is None else len(pixels),
            "tasks": [each.task for each in observations],
        }
    )


def _read(source: Path) -> tuple[Design, Built | None, Path]:
    """A Design, its hardware if the source is a build, and the Design's folder."""
    from boards import load_board
    from codegen.build import Build
    from codegen.performance import evaluate
    from codegen.report import Built
    from codegen.verification import read_verification

    if not (source / "build.toml").is_file():
        return edgemoe.load_design(source), None, source
    build = Build.load(source)
    board = load_board(build.spec.board)
    performance = evaluate(build.architecture, board)
    built = Built(build.architecture, board, performance, read_verification(build))
    return build.design, built, source / "design"


def _observe(
    console: Console, design: Design, pixels: Pixels, model: Path | None, tasks: list[str] | None
) -> list[Observation]:
    from codegen.report import Observation

    reference = edgemoe.load_model(model) if model is not None else None
    observed = []
    for name in tasks or design.spec.tasks:
        with console.progress(f"simulating {name}") as progress:
            simulation = edgemoe.simulate(design, pixels, name, trace=True, progress=progress)
        comparison = None
        if reference is not None:
            comparison = edgemoe.compare(reference, design, pixels, name, simulation=simulation)
        observed.append(Observation(name, simulation, comparison))
    return observed
