"""Evaluate the Fashion-MNIST network on all 10,000 test images, bit by bit, in every preset.

Calibrates on training images, quantises to each preset, and runs every test image through the float network and through
each Design: the classes of garments, and those of patches. Exit code 1 where a preset loses more than it may.

    python scripts/evaluate_fashion.py --workers 2 --resume /tmp/fashion
    python scripts/evaluate_fashion.py --images 500 --precision w8a8

The images come from Debian's package ``dataset-fashion-mnist``, the network from the package itself.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from common.errors import EdgeMoeError
from edgemoe.chunks import CHUNK_TOKENS, Arrays, Places, join, run_chunks
from edgemoe.evaluation import Job, Part, count
from frontend import fashion
from pysim.metrics import Figure, metrics_for
from pysim.model import Model
from pysim.precision import NAMED
from pysim.quantizer import quantize

MODEL: Final = Path(fashion.__file__).parent / "data" / "fashion"
CALIBRATION_IMAGES: Final = 256
MAIN: Final = {"garment": "top1", "parts": "pixel_accuracy"}
"""Metric of each task whose loss is limited, in points."""
LIMITS: Final = {"w16a16": 0.1, "w8a10": 0.2, "w8a8": 0.3}
"""Points that a preset may lose on either task."""

console = Console(stderr=True)


def count_all(jobs: Mapping[str, Job], part: Part) -> Arrays:
    """Counts of every Design, and of the float network once, on some images: a pure function."""
    found: Arrays = {}
    for name, job in jobs.items():
        for key, counts in count(job, part).items():
            network, metric = key.split(".")
            found[f"{'float' if network == 'float' else name}.{metric}"] = counts
    return found


def evaluate(
    model: Model, task: str, garments: fashion.Garments, designs: Mapping[str, Any], places: Places
) -> dict[str, dict[str, dict[str, Figure]]]:
    """Figures by metric and network: its own, and the difference from the float network."""
    jobs = {
        name: Job(design, model, task, None, float_too=number == 0)
        for number, (name, design) in enumerate(designs.items())
    }
    labels = garments.labels[task]
    if labels.ndim == 2:
        labels = labels.reshape(-1, *model.spec.grid)
    size = CHUNK_TOKENS // model.spec.tokens
    starts = range(0, len(garments), size)

    def part(start: int) -> Part:
        where = slice(start, start + size)
        return Part(garments.images[where], labels[where])

    identity = {"task": task, "model": model.sha256, "images": len(garments), "chunk": size}
    identity |= {name: design.design_id for name, design in designs.items()}
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task(task, total=len(starts))
        counts = join(
            run_chunks(
                count_all,
                jobs,
                [partial(part, start) for start in starts],
                places.of(task),
                identity,
                lambda done: bars.update(bar, completed=done),
            )
        )
    metrics = metrics_for(task, jobs[next(iter(jobs))].output_shape, labels)
    return {
        metric.name: {
            "float": {"value": metric.figure(counts[f"float.{metric.name}"])},
            **{
                name: {
                    "value": metric.figure(counts[f"{name}.{metric.name}"]),
                    "difference": metric.difference(
                        counts[f"float.{metric.name}"], counts[f"{name}.{metric.name}"]
                    ),
                }
                for name in jobs
            },
        }
        for metric in metrics
    }


def print_table(found: Mapping[str, Any], images: int) -> None:
    """Print what people read."""
    table = Table(title=f"Fashion-MNIST, {images:,} test images: percent, and difference from float [95 %]")
    for heading in ("task", "metric", "network", "value", "interval", "difference", "interval", "limit"):
        table.add_column(heading, justify="right" if heading not in ("task", "metric", "network") else "left")
    for task, metrics in found.items():
        for metric, networks in metrics.items():
            for name, figures in networks.items():
                value, difference = figures["value"], figures.get("difference")
                row = [task, metric, name, f"{value.value:.2f}", f"{value.low:.2f}-{value.high:.2f}"]
                if difference is not None:
                    row += [f"{difference.value:+.2f}", f"{difference.low:+.2f} to {difference.high:+.2f}"]
                    row += [f"-{LIMITS[name]:g}"] if metric == MAIN[task] and name in LIMITS else [""]
                table.add_row(*row)
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def missed(found: Mapping[str, Any]) -> list[str]:
    """Presets that lose more than they may, with the task."""
    return [
        f"{name} on {task}"
        for task, metric in MAIN.items()
        for name, figures in found[task][metric].items()
        if name in LIMITS and -figures["difference"].value > LIMITS[name] + 1e-9
    ]


def as_json(found: Mapping[str, Any]) -> Any:
    """The figures as JSON has them."""
    return json.loads(json.dumps(found, default=vars))


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")] = MODEL,
    data: Annotated[Path, typer.Option(help="Folder of the data set.")] = fashion.FOLDER,
    images: Annotated[int, typer.Option(min=1, help="Test images, the first of them.")] = 10_000,
    precision: Annotated[
        list[str] | None, typer.Option(help="Preset; repeatable. All where none is given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes of one thread each.")] = 0,
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler to run on instead.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder for what is done.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Evaluate the Fashion-MNIST network in every preset."""
    try:
        places = Places(workers, scheduler, resume)
        network = Model.load(model)
        calibration = fashion.load_garments("train", data).images[:CALIBRATION_IMAGES]
        garments, designs = fashion.load_garments("test", data).first(images), {}
        for name in precision or NAMED:
            start = time.perf_counter()
            designs[name] = quantize(network, calibration, NAMED[name])
            console.print(f"quantised to {name} in {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        found = {task: evaluate(network, task, garments, designs, places) for task in fashion.TASKS}
        console.print(f"evaluated in {time.perf_counter() - start:.1f} s")
    except EdgeMoeError as error:
        console.print(f"[red]error:[/red] {error.message}" + (f" ({error.hint})" if error.hint else ""))
        raise typer.Exit(error.exit_code) from None
    print_table(found, len(garments))
    if out is not None:
        out.write_text(json.dumps(as_json(found), indent=1) + "\n")
    for each in missed(found):
        console.print(f"[red]loses too much:[/red] {each}")
    raise typer.Exit(1 if missed(found) else 0)


if __name__ == "__main__":
    typer.run(main)
