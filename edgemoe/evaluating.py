"""Accuracy on labelled images on the command line: evaluate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgemoe
from common.tasks import chosen_tasks
from edgemoe.console import Console
from edgemoe.options import FitFlag, Json, Resize, Resume, Scheduler, TaskName, Workers, resizing

if TYPE_CHECKING:
    from edgemoe.evaluation import Evaluation
    from edgemoe.tables import FoldedTable
    from pysim.metrics import Figure


def evaluate(
    ctx: typer.Context,
    design_dir: Annotated[Path, typer.Argument(metavar="DESIGN_DIR", help="Design folder.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR|FILE.npz",
            help="Labelled images: one folder a class, `images` beside a folder of masks, or arrays.",
        ),
    ],
    reference: Annotated[
        Path,
        typer.Option(metavar="MODEL_DIR", help="The float network, whose heads decode the tokens of both."),
    ],
    task: TaskName = None,
    integer_only: Annotated[
        bool,
        typer.Option("--integer-only", help="Leave the float network out, which takes most of the time."),
    ] = False,
    resize: Resize = None,
    fit: FitFlag = False,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    resume: Resume = None,
    json: Json = False,
) -> None:
    """Measure the accuracy of a Design on labelled images, beside the float network's."""
    from edgemoe.chunks import Places
    from edgemoe.evaluation import Job
    from edgemoe.evaluation import evaluate as run
    from edgemoe.labelled import labelled

    console: Console = ctx.obj
    places = Places(workers, scheduler, resume)
    design, model = edgemoe.load_design(design_dir), edgemoe.load_model(reference)
    if design.spec.notes:
        console.warn(design.spec.notes)
    found, start = [], time.perf_counter()
    for name in chosen_tasks(design.spec.tasks, task):
        decoder = None
        if model.spec.head(name).kind == "none":
            from frontend.decoder import load_decoder

            decoder = load_decoder(reference, model.spec, name)
        job = Job(design, model, name, decoder, not integer_only)
        images = labelled(data, design.spec, name, resize=resizing(resize, fit))
        with console.progress(f"evaluating {name}") as progress:
            found.append(run(job, images, places.of(name), progress=progress))
    seconds = time.perf_counter() - start
    console.show(scores(found, design.precision.name))
    console.show(f"{design_dir}: {found[0].images:,} image(s), {seconds:.1f} s; intervals of 95 %")
    console.result(
        {
            "design_id": design.design_id,
            "precision": design.precision.name,
            "images": found[0].images,
            "seconds": seconds,
            "tasks": [each.as_json() for each in found],
        }
    )


def scores(found: Sequence[Evaluation], precision: str) -> FoldedTable:
    """Every metric of every task, float beside integer."""
    from edgemoe.tables import table

    rows = []
    for evaluation in found:
        for score in evaluation.scores:
            own, both = score.figures, score.difference
            cells = [_shown(own.get("float")), _shown(own["integer"]), _shown(both, sign="+")]
            rows.append((evaluation.task, score.metric.title, *cells))
    columns = ("task", "metric", "float", precision, "difference")
    return table("Accuracy", columns, rows, left=2, keys=2)


def _shown(figure: Figure | None, sign: str = "") -> str:
    if figure is None:
        return ""
    return f"{figure.value:{sign}.2f} [{figure.low:{sign}.2f}, {figure.high:{sign}.2f}]"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(evaluate)
