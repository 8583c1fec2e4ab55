"""Time the evaluation of the Fashion-MNIST network with one worker and with two.

The images are the shipped sample, over and over: what they show costs no time. Each run counts the seconds of the clock
from beginning to end, with the start of the processes, and the seconds of processors that its workers took: on a
computer that does other things too, the second tell more. Exit code 1 where a target is missed.

    python scripts/bench_evaluate.py
    python scripts/bench_evaluate.py --images 2000 --precision w16a16
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from edgemoe.chunks import Places
from edgemoe.evaluation import Job, evaluate
from edgemoe.labelled import from_arrays
from frontend import fashion
from pysim.files import read_npz
from pysim.model import Model
from pysim.precision import NAMED
from pysim.quantizer import quantize

FOLDER: Final = Path(fashion.__file__).parent / "data" / "fashion"
ALL: Final = 10_000
MOST_SECONDS: Final = 180.0
"""Seconds of the clock in which two workers have to evaluate all images, on two cores."""
LEAST_GAIN: Final = 1.7
"""Times as fast as one worker that two have to be."""


def processor_seconds() -> float:
    """Seconds of processors that processes took which this one started, and which have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(
    images: Annotated[int, typer.Option(min=1, help="Images.")] = ALL,
    task: Annotated[str, typer.Option(help="Task.")] = "parts",
    precision: Annotated[str, typer.Option(help="Preset.")] = "w8a8",
) -> None:
    """Time the evaluation with one worker and with two."""
    model, sample = Model.load(FOLDER), read_npz(FOLDER / "sample.npz")
    design = quantize(model, sample["images"], NAMED[precision])
    many = np.arange(images) % len(sample["images"])
    arrays = {"images": sample["images"][many], "labels": sample[task][many]}
    data = from_arrays(arrays, model.spec, task, "sample", "sample")
    job = Job(design, model, task, None, True)
    table = Table(title=f"{images:,} images, task {task}, {precision} and float64")
    for heading in ("workers", "seconds", "of processors", f"{ALL:,} images"):
        table.add_column(heading, justify="right")
    seconds = {}
    for workers in (1, 2):
        before, start = processor_seconds(), time.perf_counter()
        evaluate(job, data, Places(workers))
        seconds[workers] = time.perf_counter() - start
        taken = processor_seconds() - before
        cells = (seconds[workers], taken, seconds[workers] * ALL / images)
        table.add_row(str(workers), *(f"{each:.1f}" for each in cells))
    gain = seconds[1] / seconds[2]
    Console().print(table)
    print(f"two workers are {gain:.2f} x one (at least {LEAST_GAIN} x)")
    slow = seconds[2] * ALL / images > MOST_SECONDS
    raise typer.Exit(1 if slow or gain < LEAST_GAIN else 0)


if __name__ == "__main__":
    typer.run(main)
