"""Pictures of what the task heads make of a run: `simulate --save`, `run --save`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgemoe
from common.painting import Painted, difference_panel, image_panel, label_panel, map_panel, side_by_side
from edgemoe.animation import animate
from edgemoe.heads import decoded
from pysim.files import new_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgemoe.runs import TaskRun
    from host.cli import Run
    from pysim.model import Model

    FloatArray = NDArray[np.float64]
    Pixels = NDArray[np.uint8]


def outcome_panel(
    title: str,
    task: str,
    output: FloatArray,
    image: Pixels,
    classes: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
) -> Painted:
    """Panel of what a head makes of one image: a map of its patches, or the classes of the whole image.

    Args:
        title: of the panel.
        task: name of the task.
        output: (channels,) of a head of the whole image, or (rows, columns, channels).
        image: (channels, H, W).
        classes: names of the classes.
        limits: least and largest value of a map of values; its own where they are not given.
    """
    if output.ndim == 1:
        return label_panel(title, output, image, classes)
    return map_panel(title, task, output, image, classes, limits)


def beside_float(
    task: str, integer: FloatArray, exact: FloatArray, image: Pixels, classes: Sequence[str] = ()
) -> list[Painted]:
    """The image, what the float and the integer network make of it, and, of a map, where they differ."""
    limits = None
    if exact.ndim == 3 and exact.shape[-1] == 1:
        limits = float(min(exact.min(), integer.min())), float(max(exact.max(), integer.max()))
    panels = [
        image_panel(image),
        outcome_panel(f"{task}, float", task, exact, image, classes, limits),
        outcome_panel(f"{task}, integer", task, integer, image, classes, limits),
    ]
    if exact.ndim == 3:
        panels.append(difference_panel("difference", exact, integer, image))
    return panels


def simulated_sheets(
    model: Model, pixels: Pixels, runs: Sequence[TaskRun], outputs: Mapping[str, FloatArray], *, beside: bool
) -> Iterable[tuple[str, Sequence[Painted]]]:
    """A name and the panels of every image and task whose head the model has.

    Args:
        model: the float network.
        pixels: (images, channels, H, W).
        runs: one a task.
        outputs: of the heads for all images, by task: see `decoded`.
        beside: whether the float network runs, and is shown beside.
    """
    for run in runs:
        if run.task not in outputs:
            continue
        task, classes, integers = run.task, model.spec.head(run.task).classes, outputs[run.task]
        exact = decoded(model, task, edgemoe.reference(model, pixels, task).tokens) if beside else None
        for number, (image, integer) in enumerate(zip(pixels, integers, strict=True)):
            if exact is not None:
                panels = beside_float(task, integer, exact[number], image, classes)
            else:
                panels = [image_panel(image), outcome_panel(task, task, integer, image, classes)]
            yield f"{number:04}.{task}", panels


def run_sheets(runs: Sequence[Run]) -> Iterable[tuple[str, Sequence[Painted]]]:
    """A name and the panels of every run of the accelerator whose task has a head in the build."""
    numbers: dict[str, int] = {}
    for run in runs:
        number, task = numbers.setdefault(run.image, len(numbers)), run.result.task
        output = run.result.output
        if output is not None:
            panels = [
                image_panel(run.pixels),
                outcome_panel(task, task, output, run.pixels, run.result.classes),
            ]
            yield f"{number:04}.{task}", panels


def save_sheets(
    folder: Path,
    sheets: Iterable[tuple[str, Sequence[Painted]]],
    fps: float | None,
    note: Callable[[str], Any],
) -> str:
    """Write pictures into a new folder, all or nothing, and of each task that has several a GIF and an MP4.

    Args:
        folder: to make.
        sheets: a name, `NUMBER.TASK`, and panels of each.
        fps: frames a second of the film; those of a slow show where it is not given.
        note: told why there is no MP4.

    Returns:
        What was written, for people.
    """
    by_task: dict[str, list[Path]] = {}
    with new_folder(folder) as temporary:
        for name, panels in sheets:
            path = temporary / f"{name}.png"
            side_by_side(panels).save(path, optimize=True)
            by_task.setdefault(name.partition(".")[2], []).append(path)
        films = [
            film for task, files in by_task.items() for film in animate(temporary / task, files, fps, note)
        ]
    count = sum(len(files) for files in by_task.values())
    return f"{count} picture(s)" + (f", {', '.join(film.name for film in films)}" if films else "")
