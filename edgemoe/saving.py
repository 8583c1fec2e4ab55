"""Pictures of what the task heads make of a run: `simulate --save`, `run --save`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import edgemoe
from common.heads import on_grid
from common.painting import Painted, difference_panel, image_panel, label_panel, map_panel, side_by_side
from common.pictures import load_picture
from pysim.files import new_folder
from pysim.reference import apply_head

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgemoe.runs import TaskRun
    from host.cli import Run
    from host.manifest import Manifest
    from pysim.model import Model

    FloatArray = NDArray[np.float64]
    Pixels = NDArray[np.uint8]


def outcome_panel(
    title: str, task: str, output: FloatArray, image: Pixels, limits: tuple[float, float] | None = None
) -> Painted:
    """Panel of what a head makes of one image: a map of its patches, or the classes of the whole image.

    Args:
        title: of the panel.
        task: name of the task.
        output: (channels,) of a head of the whole image, or (rows, columns, channels).
        image: (channels, H, W).
        limits: least and largest value of a map of values; its own where they are not given.
    """
    if output.ndim == 1:
        return label_panel(title, output, image)
    return map_panel(title, task, output, image, limits=limits)


def beside_float(task: str, integer: FloatArray, exact: FloatArray, image: Pixels) -> list[Painted]:
    """The image, what the float and the integer network make of it, and, of a map, where they differ."""
    limits = None
    if exact.ndim == 3 and exact.shape[-1] == 1:
        limits = float(min(exact.min(), integer.min())), float(max(exact.max(), integer.max()))
    panels = [
        image_panel(image),
        outcome_panel(f"{task}, float", task, exact, image, limits),
        outcome_panel(f"{task}, integer", task, integer, image, limits),
    ]
    if exact.ndim == 3:
        panels.append(difference_panel("difference", exact, integer, image))
    return panels


def simulated_sheets(
    model: Model, pixels: Pixels, runs: Sequence[TaskRun]
) -> Iterable[tuple[str, Sequence[Painted]]]:
    """A name and the panels of every image and task whose head the model has."""
    for run in runs:
        if model.spec.head(run.task).kind == "none":
            continue
        exact = edgemoe.reference(model, pixels, run.task).tokens
        both = (_decoded(model, run.task, tokens) for tokens in (run.simulation.tokens, exact))
        for number, (image, integer, float_) in enumerate(zip(pixels, *both, strict=True)):
            yield f"{number:04}.{run.task}", beside_float(run.task, integer, float_, image)


def _decoded(model: Model, task: str, tokens: FloatArray) -> FloatArray:
    """Outputs of a task's head for all images."""
    output = apply_head(model, task, tokens)
    assert output is not None, "tasks without a head are left out"
    return on_grid(output, model.spec.grid)


def run_sheets(manifest: Manifest, runs: Sequence[Run]) -> Iterable[tuple[str, Sequence[Painted]]]:
    """A name and the panels of every run of the accelerator whose task has a head in the build."""
    numbers: dict[Path, int] = {}
    for run in runs:
        number = numbers.setdefault(run.image, len(numbers))
        output = run.result.output
        if output is not None:
            image = load_picture(run.image, manifest.images.shape, fit=manifest.fit)
            panels = [image_panel(image), outcome_panel(run.result.task, run.result.task, output, image)]
            yield f"{number:04}.{run.result.task}", panels


def save_sheets(folder: Path, sheets: Iterable[tuple[str, Sequence[Painted]]]) -> int:
    """Write pictures into a new folder, all or nothing, and return how many they are."""
    count = 0
    with new_folder(folder) as temporary:
        for name, panels in sheets:
            side_by_side(panels).save(temporary / f"{name}.png", optimize=True)
            count += 1
    return count
