"""Results of task heads as pictures: maps in colour over the image, with a legend, and several side by side.

Needs numpy and pillow: the board paints its results with this very code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.decoded import class_name, guesses, is_direction
from common.errors import InputError

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]
"""(rows, columns, 3) colours."""

LEAST_WIDTH = 256
"""Columns that a panel has at least: pictures of small networks are enlarged."""

MARGIN, LINE = 8, 14
"""Pixels between panels, and from one line of text to the next."""

MOST_NAMES = 24
"""Classes that a legend lists."""

OVER = 0.55
"""Share of a class's colour where it lies over the image."""

_GOLDEN = 0.61803398875
_INK, _PAPER = (24, 32, 40), (255, 255, 255)

_RAMP = np.array(
    [(48, 18, 59), (65, 125, 224), (40, 188, 170), (150, 220, 70), (250, 190, 60), (180, 30, 10)], float
)
"""Colours of values from the least to the largest."""


class Painted(NamedTuple):
    """A panel.

    Attributes:
        title: printed above it.
        colours: (rows, columns, 3) uint8.
        legend: (name, colour) of what is to be seen in it; none for an image.
    """

    title: str
    colours: Pixels
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()


def palette(count: int) -> NDArray[np.uint8]:
    """Colours (count, 3) that stay apart: hues a golden section apart, in three shades; grey first."""
    numbers = np.arange(count)
    wheel = np.clip(np.abs((numbers[:, None] * _GOLDEN % 1.0 * 6 + (0, 4, 2)) % 6 - 3) - 1, 0, 1)
    shade = np.array((0.95, 0.6, 0.78))[numbers // 8 % 3, None]
    colours = np.rint(255 * shade * (0.25 + 0.75 * wheel)).astype(np.uint8)
    colours[:1] = 110
    return colours


def ramp(values: FloatArray, low: float, high: float) -> Pixels:
    """Values (rows, columns) in colours, from `low` to `high`."""
    place = np.clip((values - low) / (high - low if high > low else 1.0), 0, 1) * (len(_RAMP) - 1)
    below = np.minimum(place.astype(int), len(_RAMP) - 2)
    share = (place - below)[..., None]
    return np.rint(_RAMP[below] * (1 - share) + _RAMP[below + 1] * share).astype(np.uint8)


def image_panel(image: NDArray[np.uint8], title: str = "image") -> Painted:
    """An image (channels, H, W): in colour if it has three channels, grey otherwise."""
    grey = image.mean(axis=0).astype(np.uint8)
    colours = image.transpose(1, 2, 0) if image.shape[0] == 3 else np.repeat(grey[..., None], 3, axis=2)
    return Painted(title, np.ascontiguousarray(colours))


def map_panel(
    title: str,
    task: str,
    output: FloatArray,
    image: NDArray[np.uint8],
    classes: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
) -> Painted:
    """The output of a head on each patch, in colours, as large as the image.

    Args:
        title: of the panel.
        task: name of the task: three channels of `normals` are directions.
        output: (rows, columns, channels).
        image: (channels, H, W), over which classes are painted.
        classes: names of the classes; their numbers where there are none.
        limits: least and largest value of a map of values; its own where they are not given.
    """
    height, width = image.shape[1:]
    if output.shape[-1] == 1:
        values = output[..., 0]
        low, high = limits or (float(values.min()), float(values.max()))
        ends = ((f"{low:.3g}", low), (f"{(low + high) / 2:.3g}", (low + high) / 2), (f"{high:.3g}", high))
        colours = enlarged(ramp(values, low, high), height, width)
        shown = ramp(np.array([[value for _, value in ends]]), low, high)[0]
        return Painted(title, colours, tuple((name, _rgb(shown[i])) for i, (name, _) in enumerate(ends)))
    if is_direction(task, output.shape[-1]):
        length = np.maximum(np.linalg.norm(output, axis=-1, keepdims=True), 1e-9)
        colours = np.rint(127.5 * (output / length + 1)).astype(np.uint8)
        return Painted(title, enlarged(colours, height, width))
    chosen = output.argmax(-1)
    table = palette(output.shape[-1])
    over = OVER * enlarged(table[chosen], height, width) + (1 - OVER) * image_panel(image).colours
    there = [int(number) for number in np.unique(chosen)]
    return Painted(
        title,
        np.rint(over).astype(np.uint8),
        tuple((class_name(classes, number), _rgb(table[number])) for number in there),
    )


def difference_panel(title: str, first: FloatArray, second: FloatArray, image: NDArray[np.uint8]) -> Painted:
    """Two outputs of a head: where classes differ, in red over the image; of values the size of the difference."""
    height, width = image.shape[1:]
    if first.shape[-1] == 1:
        apart = np.abs(first - second)[..., 0]
        most = float(apart.max())
        colours = enlarged(ramp(apart, 0.0, most), height, width)
        return Painted(
            title,
            colours,
            (("0", _rgb(ramp(np.zeros((1, 1)), 0, 1)[0, 0])), (f"{most:.3g}", _rgb(_RAMP[-1]))),
        )
    differs = first.argmax(-1) != second.argmax(-1)
    base = image_panel(image).colours * 0.5
    red = enlarged(differs.astype(np.uint8)[..., None], height, width)
    colours = np.where(red, (220, 30, 20), base).astype(np.uint8)
    return Painted(
        title, colours, ((f"{int(differs.sum())} of {differs.size} patches differ", (220, 30, 20)),)
    )


def label_panel(
    title: str, scores: FloatArray, image: NDArray[np.uint8], classes: Sequence[str] = ()
) -> Painted:
    """The classes of a whole image: the five likeliest as bars beside their names."""
    height, width = image.shape[1:]
    best = guesses("", scores, classes)
    colours = np.full((height, width, 3), 245, np.uint8)
    table = palette(len(scores))
    step = max(1, height // max(1, len(best)))
    for place, guess in enumerate(best):
        top = place * step
        colours[top : top + max(1, step * 3 // 4), : max(1, round(width * guess.share))] = table[guess.number]
    return Painted(
        title,
        colours,
        tuple((f"{guess.name}: {100 * guess.share:.1f} %", _rgb(table[guess.number])) for guess in best),
    )


def enlarged(colours: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Each patch as large as its part of an image, with hard edges."""
    rows, columns = colours.shape[:2]
    return np.repeat(np.repeat(colours, height // rows, axis=0), width // columns, axis=1)


def side_by_side(panels: Sequence[Painted]) -> Any:
    """One pillow image of panels with their titles above and their legends below.

    Raises:
        InputError: no pillow.
    """
    try:
        from PIL import Image, ImageDraw
    except ModuleNotFoundError:
        raise InputError("painting results needs pillow", hint="pip install pillow") from None
    height, width = panels[0].colours.shape[:2]
    factor = max(1, -(-LEAST_WIDTH // width))
    height, width = factor * height, factor * width
    lines = max(min(len(panel.legend), MOST_NAMES + 1) for panel in panels)
    size = (MARGIN + len(panels) * (width + MARGIN), 2 * MARGIN + LINE + height + lines * LINE)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, panel in enumerate(panels):
        left, top = MARGIN + number * (width + MARGIN), MARGIN + LINE
        pen.text((left, MARGIN // 2), panel.title, fill=_INK)
        picture = Image.fromarray(np.ascontiguousarray(panel.colours))
        sheet.paste(picture.resize((width, height), getattr(Image, "Resampling", Image).NEAREST), (left, top))
        for line, (name, colour) in enumerate(_shortened(panel.legend)):
            y = top + height + 3 + line * LINE
            pen.rectangle((left, y, left + 9, y + 9), fill=colour)
            pen.text((left + 14, y - 1), name.encode("ascii", "replace").decode(), fill=_INK)
    return sheet


def _shortened(
    legend: Sequence[tuple[str, tuple[int, int, int]]],
) -> Sequence[tuple[str, tuple[int, int, int]]]:
    if len(legend) <= MOST_NAMES:
        return legend
    return [*legend[:MOST_NAMES], (f"and {len(legend) - MOST_NAMES} more", _PAPER)]


def _rgb(colour: NDArray[Any]) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in colour)
    return red, green, blue
