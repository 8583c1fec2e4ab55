"""Task heads of a network, and what they make of simulated images: pictures and words are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.decoded import decoded_json, described
from common.heads import on_grid
from pysim.compare import check_same_shape
from pysim.reference import apply_head

if TYPE_CHECKING:
    from pysim.design import Design
    from pysim.model import Model

FloatArray = NDArray[np.float64]


def decoded(model: Model, task: str, tokens: FloatArray) -> FloatArray | None:
    """Outputs of a task's head for all images, patches in rows and columns; None where the task has no head."""
    output = apply_head(model, task, tokens)
    return None if output is None else on_grid(output, model.spec.grid)


@dataclass(frozen=True)
class Heads:
    """Task heads of a network, and what they make of simulated images.

    Attributes:
        model: whose heads these are; None where no results are decoded.
        outputs: of all images by task, of those that have a head and were decoded.
        classes: names of the classes by task.
    """

    model: Model | None
    outputs: dict[str, FloatArray]
    classes: dict[str, list[str]]

    @classmethod
    def of(cls, design: Design, model: Model | None) -> Heads:
        """The heads of a Model, whose names of classes are the Design's where it has none.

        Raises:
            InputError: the Model has another shape.
        """
        if model is not None:
            check_same_shape(model, design)
        specs = [design.spec] if model is None else [model.spec, design.spec]
        named = {task: [spec.head(task).classes for spec in specs] for task in design.spec.tasks}
        return cls(model, {}, {task: next(filter(None, found), []) for task, found in named.items()})

    def decode(self, task: str, tokens: FloatArray) -> None:
        """Keep what a task's head, if there is one, makes of final tokens (images, tokens, dim)."""
        found = None if self.model is None else decoded(self.model, task, tokens)
        if found is not None:
            self.outputs[task] = found

    def described(self, task: str) -> list[str]:
        """Results of each image in words; nothing without a head."""
        return [f"{task}: {described(task, each, self.classes[task])}" for each in self.outputs.get(task, ())]

    def as_json(self, task: str, names: Sequence[str]) -> dict[str, Any]:
        """Results of each image, under the key names that scripts rely on."""
        if task not in self.outputs:
            return {}
        decoded = [decoded_json(task, each, self.classes[task]) for each in self.outputs[task]]
        return {"outputs": [{"image": name} | each for name, each in zip(names, decoded, strict=True)]}
