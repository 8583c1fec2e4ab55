"""Outputs of task heads in words: likeliest classes by their names, maps, values.

Needs numpy only: the board says its results with this very code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MOST = 5
"""Classes that are named, of one output."""

_VECTORS = ("normal",)
"""Parts of names of tasks whose three channels are a direction, and not classes."""


class Guess(NamedTuple):
    """A class that a head takes an image for, or patches of it.

    Attributes:
        number: of the class.
        name: of the class; `class NUMBER` where it has none.
        share: of the whole image its probability, by softmax; of a map the share of patches.
    """

    number: int
    name: str
    share: float


def class_name(classes: Sequence[str], number: int) -> str:
    """Name of a class, or `class NUMBER` where there is none."""
    return classes[number] if number < len(classes) else f"class {number}"


def is_direction(task: str, channels: int) -> bool:
    """Whether the channels of a task's output are one direction in space."""
    return channels == 3 and any(part in task for part in _VECTORS)


def has_classes(task: str, output: FloatArray) -> bool:
    """Whether the channels of an output are classes: neither one value nor a direction."""
    channels = output.shape[-1]
    return channels > 1 and not (output.ndim == 3 and is_direction(task, channels))


def probabilities(scores: FloatArray) -> FloatArray:
    """Softmax of the scores (classes,) of one image."""
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def guesses(task: str, output: FloatArray, classes: Sequence[str] = (), most: int = MOST) -> list[Guess]:
    """The likeliest classes of an image, or the most frequent ones of its patches, the first first.

    Args:
        task: name of the task.
        output: (channels,) of a head of the whole image, or (rows, columns, channels).
        classes: their names, by their numbers.
        most: how many at most.

    Returns:
        None of them where the channels are no classes; of a map those that occur.
    """
    if not has_classes(task, output):
        return []
    if output.ndim == 1:
        shares = probabilities(output)
        order = np.argsort(-output, kind="stable")[:most]
    else:
        counts = np.bincount(output.argmax(-1).ravel(), minlength=output.shape[-1])
        shares = counts / counts.sum()
        order = np.argsort(-counts, kind="stable")[: min(most, int((counts > 0).sum()))]
    return [Guess(int(number), class_name(classes, int(number)), float(shares[number])) for number in order]


def described(task: str, output: FloatArray, classes: Sequence[str] = ()) -> str:
    """An output of one image in a few words: see `guesses`."""
    place = f"map {output.shape[0]}x{output.shape[1]}" if output.ndim == 3 else ""
    found = guesses(task, output, classes)
    if found:
        named = ", ".join(f"{_quoted(guess.name)} ({100 * guess.share:.1f} %)" for guess in found)
        return f"{place}: {named}" if place else named
    if not place:
        return f"value {output[0]:.4g}"
    if is_direction(task, output.shape[-1]):
        return f"{place} of directions"
    return f"{place}, {output.min():.4g} to {output.max():.4g}, mean {output.mean():.4g}"


def _quoted(name: str) -> str:
    """A name of a class for a list; those of ImageNet are lists of synonyms."""
    return f'"{name}"' if "," in name else name


def decoded_json(task: str, output: FloatArray, classes: Sequence[str] = ()) -> dict[str, Any]:
    """An output under the key names that scripts rely on: `top` of classes, `low`, `high` and `mean` of values."""
    if has_classes(task, output):
        found = guesses(task, output, classes)
        return {"top": [{"class": each.number, "name": each.name, "share": each.share} for each in found]}
    return {"low": float(output.min()), "high": float(output.max()), "mean": float(output.mean())}
