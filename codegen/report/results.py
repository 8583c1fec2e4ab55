"""Results of task heads on the pictures of a report: in words, and maps in colour."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.decoded import described
from common.painting import LEAST_WIDTH, MOST_NAMES, map_panel

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Result:
    """Output of a head for one picture.

    Attributes:
        task: name of the task.
        picture: number of the picture.
        words: the likeliest classes, or the range of values.
        painted: a map as the data URL of a PNG; empty for a head of the whole image.
        legend: name and colour, as CSS has it, of what is to be seen in the map.
    """

    task: str
    picture: int
    words: str
    painted: str
    legend: tuple[tuple[str, str], ...]


def results(task: str, outputs: FloatArray, pixels: Pixels, classes: Sequence[str]) -> list[Result]:
    """Outputs of a task's head, picture by picture.

    Args:
        task: its name.
        outputs: (images, channels), or (images, rows, columns, channels).
        pixels: (images, channels, H, W).
        classes: names of the classes.
    """
    found = []
    for number, (output, image) in enumerate(zip(outputs, pixels, strict=True)):
        painted, legend = "", []
        if output.ndim == 3:
            panel = map_panel(task, task, output, _smaller(image, output.shape[:2]), classes)
            painted = data_url(panel.colours.transpose(2, 0, 1))
            legend = [(name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in panel.legend]
        shown = tuple(legend[:MOST_NAMES])
        found.append(Result(task, number, described(task, output, classes), painted, shown))
    return found


def _smaller(image: Pixels, grid: tuple[int, ...]) -> Pixels:
    """Every so many pixels of an image, a whole number of them in a patch, so that the page stays small."""
    patch = image.shape[1] // grid[0]
    steps = [
        step for step in range(1, patch + 1) if patch % step == 0 and image.shape[2] // step >= LEAST_WIDTH
    ]
    step = max(steps, default=1)
    return image[:, ::step, ::step]


def data_url(image: Pixels) -> str:
    """A PNG of an image (channels, H, W), in grey unless it has three channels."""
    colours = image.transpose(1, 2, 0) if image.shape[0] == 3 else image.mean(axis=0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
