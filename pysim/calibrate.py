"""Statistics of a network's activations on calibration images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from pysim import reference
from pysim.arithmetic import Kind
from pysim.model import Model
from pysim.program import program, values

FloatArray = NDArray[np.float64]

BATCH_TOKENS = 4096
"""Images are calibrated together up to this many tokens."""

SAMPLED_ROWS = 512
"""Rows of each tensor that are kept for choosing scales by error."""


@dataclass
class Statistic:
    """Range, mean and sampled rows of one tensor, over every calibration image and task.

    Attributes:
        low: (channels,) smallest value.
        high: (channels,) largest value.
        total: (channels,) sum over rows.
        rows: number of rows seen.
        samples: (up to SAMPLED_ROWS, channels) rows drawn evenly from all that were seen.
    """

    low: FloatArray
    high: FloatArray
    total: FloatArray
    rows: int
    samples: FloatArray

    @property
    def mean(self) -> FloatArray:
        """(channels,) mean."""
        return self.total / max(self.rows, 1)

    @property
    def largest(self) -> float:
        """Largest magnitude of all channels."""
        return float(max(-self.low.min(), self.high.max(), 0.0))

    def affine(self, scale: FloatArray | float, offset: FloatArray | float) -> Statistic:
        """The statistic of (x - offset) / scale, for positive scales."""
        return Statistic(
            (self.low - offset) / scale,
            (self.high - offset) / scale,
            (self.total - self.rows * np.asarray(offset)) / scale,
            self.rows,
            (self.samples - offset) / scale,
        )

    def part(self, columns: slice) -> Statistic:
        """The statistic of some of the channels."""
        return Statistic(
            self.low[columns], self.high[columns], self.total[columns], self.rows, self.samples[:, columns]
        )


def merge(parts: list[Statistic]) -> Statistic:
    """One statistic over the rows of several tensors of the same channels."""
    return Statistic(
        np.min([part.low for part in parts], axis=0),
        np.max([part.high for part in parts], axis=0),
        np.sum([part.total for part in parts], axis=0),
        sum(part.rows for part in parts),
        np.concatenate([part.samples for part in parts]),
    )


@dataclass
class _Collector:
    """Keeps a uniform sample of rows: each row has a random key, and the smallest keys stay."""

    generator: np.random.Generator
    skipped: frozenset[str]
    """Names of values that have a fixed format."""
    statistics: dict[str, Statistic] = field(default_factory=dict)
    keys: dict[str, FloatArray] = field(default_factory=dict)

    def __call__(self, name: str, value: FloatArray) -> None:
        if name in self.skipped:
            return
        rows = value.reshape(-1, value.shape[-1])
        keys = self.generator.random(len(rows))
        new = Statistic(rows.min(axis=0), rows.max(axis=0), rows.sum(axis=0), len(rows), rows)
        if name in self.statistics:
            new = merge([self.statistics[name], new])
            keys = np.concatenate([self.keys[name], keys])
        kept = np.argsort(keys)[:SAMPLED_ROWS]
        new.samples, self.keys[name] = new.samples[kept].copy(), keys[kept]
        self.statistics[name] = new


def _batch(model: Model) -> int:
    return max(1, BATCH_TOKENS // model.spec.tokens)


def calibration_runs(model: Model, images: NDArray[np.uint8]) -> int:
    """Number of times that `calibrate` will report progress."""
    return -(-len(images) // _batch(model)) * len(model.spec.tasks)


def calibrate(
    model: Model, images: NDArray[np.uint8], progress: Callable[[int], Any]
) -> dict[str, Statistic]:
    """Run the float network on every image and task, and gather statistics of each tensor.

    Args:
        model: the network.
        images: (images, channels, H, W) pixels.
        progress: called with the runs done.

    Raises:
        InputError: no image was given.
    """
    if len(images) == 0:
        raise InputError("no calibration image was given", hint="pass at least one with --images")
    fixed = (Kind.SCORE, Kind.PROBABILITY)
    names = (value.name for value in values(program(model.spec)).values() if value.kind in fixed)
    collector = _Collector(np.random.default_rng(0), frozenset(names))
    batch, done = _batch(model), 0
    for start in range(0, len(images), batch):
        for task in range(len(model.spec.tasks)):
            reference.run(model, images[start : start + batch], task, tap=collector)
            done += 1
            progress(done)
    return collector.statistics
