"""Statistics of a tensor, as calibration keeps them: exact ranges and means, second moments, and a few rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SAMPLED_ROWS = 448
"""Rows of each tensor that are kept at random, for choosing scales by error."""

EXTREME_ROWS = 64
"""Rows of the largest norm that are kept beside them, and as many of prefix tokens: few, but what they do counts."""

TOWARDS_BOUNDS = 0.5
"""Share of the way from a tensor's own range to that of its bounds that its range reaches."""


@dataclass(frozen=True)
class Moments:
    """Weighted second moments of a tensor's rows, about a point near their mean.

    Attributes:
        base: (channels,) the point; far from the mean, differences of large numbers would be left.
        total: (channels,) weighted sum of (row - base).
        products: (channels, channels) weighted sum of the outer products of (row - base).
        weight: sum of the weights.
    """

    base: FloatArray
    total: FloatArray
    products: FloatArray
    weight: float

    def covariance(self) -> FloatArray:
        """(channels, channels) weighted mean of the outer products of (row - mean)."""
        mean = self.total / self.weight
        return np.asarray(self.products / self.weight - np.outer(mean, mean), np.float64)

    def add(self, other: Moments) -> Moments:
        """The moments of both; the other's base must be this one's."""
        return Moments(
            self.base, self.total + other.total, self.products + other.products, self.weight + other.weight
        )


@dataclass
class Statistic:
    """Range, mean and sampled rows of one tensor, over every calibration image and task.

    Attributes:
        low: (channels,) smallest value of all rows.
        high: (channels,) largest value of all rows.
        total: (channels,) sum over rows, each times its weight.
        rows: number of rows seen.
        samples: (up to SAMPLED_ROWS, channels) rows drawn evenly from all that were seen.
        extremes: rows of the largest norm and of prefix tokens, which a few even samples would miss.
        weight: sum of the weights, which are 1 but for experts' rows: there the squares of gate scores.
        clip: share of the largest value that a range need reach to.
        moments: second moments, where calibration was asked for them and a linear layer reads the tensor.
        fitted: of hidden values, the statistic of the pictures that were not held out, where some were.
        held: (rows, channels) rows of the held-out pictures, of what gates read, sampled evenly.
    """

    low: FloatArray
    high: FloatArray
    total: FloatArray
    rows: int
    samples: FloatArray
    extremes: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    weight: float | None = None
    moments: Moments | None = None
    clip: float = 1.0
    fitted: Statistic | None = None
    held: FloatArray | None = None

    @property
    def mean(self) -> FloatArray:
        """(channels,) weighted mean."""
        return self.total / (max(self.rows, 1) if self.weight is None else self.weight)

    @property
    def largest(self) -> float:
        """Largest magnitude of all channels."""
        return float(max(-self.low.min(), self.high.max(), 0.0))

    @property
    def extent(self) -> tuple[float, float]:
        """The smallest and the largest value of all channels, and 0 between them."""
        return float(self.low.min(initial=0.0)), float(self.high.max(initial=0.0))

    @property
    def probes(self) -> FloatArray:
        """(rows, channels) samples and extremes: what choices are made by."""
        return np.concatenate([self.samples, self.extremes]) if len(self.extremes) else self.samples

    def affine(self, scale: FloatArray | float, offset: FloatArray | float) -> Statistic:
        """The statistic of (x - offset) / scale, for positive scales; moments and `fitted` stay those of x."""
        weight = self.rows if self.weight is None else self.weight
        return replace(
            self,
            low=(self.low - offset) / scale,
            high=(self.high - offset) / scale,
            total=(self.total - weight * np.asarray(offset)) / scale,
            samples=(self.samples - offset) / scale,
            extremes=(self.extremes - offset) / scale if len(self.extremes) else self.extremes,
            held=None if self.held is None else (self.held - offset) / scale,
        )

    def towards(self, bounds: Statistic) -> Statistic:
        """The same statistic with a range on the way to that of another, which bounds it on any image.

        Its own range is what it happened to be on those seen, and all that bounds allow is seldom reached.
        """
        low, high = np.minimum(self.low, bounds.low), np.maximum(self.high, bounds.high)
        share = TOWARDS_BOUNDS
        return replace(
            self, low=(1 - share) * self.low + share * low, high=(1 - share) * self.high + share * high
        )


def merge(parts: list[Statistic]) -> Statistic:
    """One statistic over the rows of several tensors of the same channels, without moments."""
    extremes = [part.extremes for part in parts if len(part.extremes)]
    return Statistic(
        np.min([part.low for part in parts], axis=0),
        np.max([part.high for part in parts], axis=0),
        np.sum([part.total for part in parts], axis=0),
        sum(part.rows for part in parts),
        np.concatenate([part.samples for part in parts]),
        np.concatenate(extremes) if extremes else parts[0].extremes,
        None
        if all(part.weight is None for part in parts)
        else sum(part.weight or part.rows for part in parts),
    )


class _Reservoir:
    """The rows of the smallest keys, of all that were offered."""

    def __init__(self, size: int) -> None:
        self.size, self.keys, self.rows = size, np.zeros(0), np.zeros((0, 0))

    def offer(self, keys: FloatArray, rows: FloatArray) -> None:
        """Take what belongs in; rows that do not are never copied."""
        best = np.argsort(keys, kind="stable")[: self.size]
        if not self.keys.size:
            self.keys, self.rows = keys[best], rows[best]
            return
        keys, rows = np.concatenate([self.keys, keys[best]]), np.concatenate([self.rows, rows[best]])
        kept = np.argsort(keys, kind="stable")[: self.size]
        self.keys, self.rows = keys[kept], rows[kept]


class RowCollector:
    """Collector of the rows of one tensor, while calibration runs."""

    def __init__(self, with_moments: bool) -> None:
        self.with_moments = with_moments
        self.statistic: Statistic | None = None
        # Each row has a random key, and the smallest keys stay: an even sample.
        self.even, self.largest, self.prefix = map(_Reservoir, (SAMPLED_ROWS, EXTREME_ROWS, EXTREME_ROWS))

    def add(
        self,
        rows: FloatArray,
        keys: FloatArray,
        prefix: NDArray[np.bool_] | None,
        weights: FloatArray | None,
    ) -> None:
        """Take (rows, channels), with a random key of each and, at will, whether it is a prefix token, and a weight."""
        total = rows.sum(axis=0) if weights is None else weights @ rows
        weight = None if weights is None else float(weights.sum())
        new = Statistic(
            rows.min(axis=0),
            rows.max(axis=0),
            total,
            len(rows),
            rows[:0],
            rows[:0],
            weight,
            self._moments(rows, weights),
        )
        old = self.statistic
        if old is None:
            self.statistic = new
        else:
            moments = old.moments.add(new.moments) if old.moments and new.moments else None
            self.statistic = replace(merge([old, new]), moments=moments)
        self.even.offer(keys, rows)
        self.largest.offer(-np.einsum("ij,ij->i", rows, rows), rows)
        if prefix is not None and prefix.any():
            self.prefix.offer(keys[prefix], rows[prefix])

    def _moments(self, rows: FloatArray, weights: FloatArray | None) -> Moments | None:
        if not self.with_moments:
            return None
        known = self.statistic.moments if self.statistic else None
        base = rows.mean(axis=0) if known is None else known.base
        centred = rows - base
        if weights is None:
            return Moments(base, centred.sum(axis=0), _squares(centred), float(len(rows)))
        root = np.sqrt(weights)[:, None]
        return Moments(base, weights @ centred, _squares(centred * root), float(weights.sum()))

    def result(self) -> Statistic:
        """The statistic of all rows."""
        assert self.statistic is not None
        extremes = [reservoir.rows for reservoir in (self.largest, self.prefix) if len(reservoir.keys)]
        return replace(self.statistic, samples=self.even.rows, extremes=np.concatenate(extremes))


def _squares(rows: FloatArray) -> FloatArray:
    """(channels, channels) sum of the outer products of rows, in single precision: rounding asks for no more."""
    largest = float(np.abs(rows).max(initial=0.0)) or 1.0
    units = (rows / largest).astype(np.float32)
    return (units.T @ units).astype(np.float64) * largest**2
