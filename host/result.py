"""Results of the accelerator for one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.decoded import Guess, described, guesses
from common.errors import InputError
from common.heads import MEANS, on_grid, run_head
from host.manifest import Task


@dataclass(frozen=True)
class Result:
    """One image's final tokens, and what the task's head makes of them.

    Attributes:
        task: name of the task.
        integers: (tokens, dim) int32, as the hardware returned them; prefix tokens, such as the class token, first.
        cycles: clock cycles of the call, by the hardware's own counter; None on an emulated board with compiled C++,
            whose counter goes by this computer's clock.
        images: images of the same call, which share its cycles.
        latency_ms: `cycles` in milliseconds; None with them.
    """

    task: str
    integers: NDArray[np.int32]
    cycles: int | None
    images: int
    latency_ms: float | None
    _frac: int
    _grid: tuple[int, int]
    _task: Task
    _weights: Mapping[str, NDArray[Any]]

    @cached_property
    def tokens(self) -> NDArray[np.float64]:
        """(tokens, dim): the integers in real units."""
        return np.asarray(np.ldexp(self.integers.astype(np.float64), -self._frac))

    @cached_property
    def output(self) -> NDArray[np.float64] | None:
        """Output of the task's head; None where the task has no head, or the build came without its weights.

        (rows, columns, out_channels) for a head on each patch token; (out_channels,) for one of the whole image.
        """
        if self._task.head.kind == "none" or not self._weights:
            return None
        output = run_head(self._task.head, self.task, self._weights, self.tokens[None])
        assert output is not None
        return on_grid(output, self._grid)[0]

    @property
    def label(self) -> int:
        """The class of the image: the largest output of a head of the whole image."""
        return int(self._of_kind("cls-linear", *MEANS, "cls-mean-linear", "distilled-linear").argmax())

    @property
    def map(self) -> NDArray[np.float64] | NDArray[np.int64]:
        """(rows, columns), one value a patch: the class, or where there is but one channel, its value."""
        output = self._of_kind("token-linear")
        return output[..., 0] if output.shape[-1] == 1 else output.argmax(-1)

    @property
    def guesses(self) -> list[Guess]:
        """The likeliest classes of the image, or the most frequent of its patches, by name; none of values."""
        return [] if self.output is None else guesses(self.task, self.output, self._task.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the task's classes; none where the build has none."""
        return self._task.classes

    def __str__(self) -> str:
        """Output of the head, in a few words."""
        if self.output is None:
            return f"{self.integers.shape[0]} tokens (no head in this build)"
        return described(self.task, self.output, self.classes)

    def _of_kind(self, *kinds: str) -> NDArray[np.float64]:
        if self.output is None:
            raise InputError(
                f"task {self.task} has no head to decode its tokens with",
                hint="`edgemoe generate --model MODEL_DIR` takes heads along; tokens and integers are there without",
            )
        if self._task.head.kind not in kinds:
            raise InputError(
                f"the head of task {self.task} is {self._task.head.kind}, not {' or '.join(kinds)}"
            )
        return self.output
