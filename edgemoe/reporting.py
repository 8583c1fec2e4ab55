"""The command `report`: one page of HTML about a Design or a build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgemoe
from common.errors import InputError
from edgemoe import completion
from edgemoe.options import Json
from edgemoe.report_contents import collect, read_source, write

if TYPE_CHECKING:
    from edgemoe.console import Console

IMAGES = 8
"""Images that are run with a trace; further ones are left out."""


def report(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Build folder or Design folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="HTML file to make.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            "--image",
            metavar="PATH",
            help=f"Image, or a folder of them; repeatable. The first {IMAGES} are run.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL_DIR", help="Float network to compare with; needs --images."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help="Task to run; repeatable. All if not given.",
            autocompletion=completion.tasks,
        ),
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
