"""Float-equivalent rewriting of a network so that narrow integers represent it better.

Between a LayerNorm and the layers that read it, and between the values of attention and its projection, each
channel may be shifted and scaled if the neighbouring parameters undo it: y' = (y - offset) / scale, with
weight' = weight * scale and bias' = bias + weight @ offset. Hardware pays nothing, as the factors disappear
in parameters that exist anyway. Shifting centres a channel's range on 0; scaling moves the difficulty of
outlying channels from activations into weights (the idea of SmoothQuant, arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysim.scaling import whole_range_scale
from pysim.statistic import Statistic

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]

EXPONENTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of a channel's range that may move into the weights; the best is chosen group by group."""


PROBED_OUTPUTS = 256
"""Outputs of a layer that a choice is judged by, at least half as many."""


@dataclass(frozen=True)
class Balance:
    """y' = (y - offset) / scale, channel by channel."""

    scale: FloatArray
    offset: FloatArray

    @classmethod
    def identity(cls, channels: int) -> Balance:
        """The balance that changes nothing."""
        return cls(np.ones(channels), np.zeros(channels))


def choose(
    statistic: Statistic, weights: list[FloatArray], activation_width: int, weight_width: int
) -> Balance:
    """Centre every channel, and choose the scales that leave the least error in the layers that read them.

    Args:
        statistic: of the activations; its range is kept whole.
        weights: (outputs, channels) of every layer that reads them.
        activation_width: bits of the activations.
        weight_width: bits of the weights.
    """
    column = np.max([np.abs(weight).max(axis=0) for weight in weights], axis=0)
    column = np.maximum(column, 1e-4 * column.max(initial=1e-20))
    # Some outputs of a few layers stand for all: their weights are of one kind. Single precision ranks them as well,
    # in units of the largest and about the mean, so that it is not spent on what all rows share.
    probes = [_in_units(weight[:: -(-len(weight) // PROBED_OUTPUTS)]) for weight in weights[:4]]
    mean, unit = statistic.mean, _largest(statistic.probes - statistic.mean)
    rows = ((statistic.probes - mean) / unit).astype(np.float32)
    exact = [rows @ weight.T for weight in probes]
    energies = [max(float(value.var()), 1e-20) for value in exact]

    def error(balance: Balance) -> float:
        scale, offset = balance.scale.astype(np.float32), ((balance.offset - mean) / unit).astype(np.float32)
        largest = statistic.affine(balance.scale, balance.offset).largest / unit
        rounded = _rounder((rows - offset) / scale, largest, activation_width)
        total = 0.0
        for weight, value, energy in zip(probes, exact, energies, strict=True):
            result = rounded @ _rounded_rows(weight * scale, weight_width).T
            result += weight @ offset - value
            total += float((result * result).mean()) / energy
        return total

    return min(_candidates(statistic, column), key=error)


def _largest(values: FloatArray) -> float:
    return float(np.abs(values).max(initial=0.0)) or 1.0


def _in_units(values: FloatArray) -> Float32Array:
    """Values over the largest magnitude among them."""
    return np.asarray((values / _largest(values)).astype(np.float32))


def _candidates(statistic: Statistic, column: FloatArray) -> Iterator[Balance]:
    """Centres and reaches by the extremes of each channel, and by its mean and spread."""
    middle = (statistic.low + statistic.high) / 2
    spread = np.sqrt(((statistic.probes - statistic.mean) ** 2).mean(axis=0))
    for offset, reach in ((middle, (statistic.high - statistic.low) / 2), (statistic.mean, spread)):
        reach = np.maximum(reach, 1e-4 * reach.max(initial=1e-20))
        for exponent in EXPONENTS:
            scale = reach**exponent / column ** (1 - exponent)
            yield Balance(scale / np.exp(np.log(scale).mean()), offset)


def _rounder(values: Float32Array, largest: float, width: int) -> Float32Array:
    scale, top = np.float32(whole_range_scale(largest, width)), (1 << (width - 1)) - 1
    return _clipped(values / scale, top) * scale


def _rounded_rows(weight: Float32Array, width: int) -> Float32Array:
    # Without the search for the best clipping: it would take longer than all the rest, and changes no choice.
    top = (1 << (width - 1)) - 1
    scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True), np.float32(1e-30)) / np.float32(top)
    return _clipped(weight / scale, top) * scale


def _clipped(units: Float32Array, top: int) -> Float32Array:
    return np.asarray(np.clip(np.floor(units + np.float32(0.5)), -top - 1, top), np.float32)
