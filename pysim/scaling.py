"""Choosing scales: powers of two, whole ranges, least squared errors of weights, multipliers and shifts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.errors import OverflowRiskError
from pysim.datapath import MAX_SHIFT, MULTIPLIER_WIDTH

FloatArray = NDArray[np.float64]

CLIP_BELOW_WIDTH = 12
"""Width of weights from which on their ranges are kept whole: clipping gains nothing where steps are that fine."""

_CLIPS = np.linspace(0.525, 1.0, 20)


def power_of_two(largest: float, width: int) -> int:
    """The most fraction bits with which a signed integer of `width` bits still holds `largest`."""
    limit = (1 << (width - 1)) - 1
    return math.floor(math.log2(limit / max(largest, 2.0**-40)))


def round_half_up(values: FloatArray) -> FloatArray:
    """The nearest integer, ties upwards, as AP_RND does."""
    return np.floor(values + 0.5)


def whole_range_scale(largest: float, width: int) -> float:
    """The scale of signed integers of `width` bits that holds values up to `largest`."""
    return (largest or 1.0) / ((1 << (width - 1)) - 1)


def whole_range(low: float, high: float, width: int) -> tuple[float, int]:
    """Scale and zero point of signed integers of `width` bits that hold values of an uneven range, and 0.

    The zero point is the integer that stands for 0.
    """
    low, high = min(low, 0.0), max(high, 2.0**-20)
    scale = (high - low) / ((1 << width) - 1)
    return scale, round(-(1 << (width - 1)) - low / scale)


def weight_scales(weight: FloatArray, width: int) -> FloatArray:
    """Least-error scale of each row of a weight matrix (rows, inputs)."""
    largest = np.abs(weight).max(axis=1)
    top = (1 << (width - 1)) - 1
    largest = np.where(largest > 0, largest, 1.0)
    if width >= CLIP_BELOW_WIDTH:
        return np.asarray(largest / top)
    best, best_error = largest / top, np.full(len(weight), math.inf)
    for clip in _CLIPS:
        scale = clip * largest / top
        rounded = np.clip(round_half_up(weight / scale[:, None]), -top - 1, top) * scale[:, None]
        error = ((rounded - weight) ** 2).sum(axis=1)
        best, best_error = np.where(error < best_error, scale, best), np.minimum(error, best_error)
    return best


def multiplier_and_shift(factor: FloatArray, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write positive factors as multiplier * 2**-shift with a multiplier of `MULTIPLIER_WIDTH` bits."""
    exponent = np.floor(np.log2(factor)).astype(np.int64)
    shift = np.minimum(MULTIPLIER_WIDTH - 1 - exponent, MAX_SHIFT)
    multiplier = np.rint(np.ldexp(factor, shift)).astype(np.int64)
    carried = multiplier >> MULTIPLIER_WIDTH
    multiplier, shift = multiplier >> carried, shift - carried
    if (shift < 0).any():
        raise OverflowRiskError(
            f"{name}: a requantisation factor of {float(factor.max()):.3g} is 2**{MULTIPLIER_WIDTH} or more",
            hint="the layer's weights are far too large for its inputs: check the checkpoint",
        )
    return np.maximum(multiplier, 1), shift


def pure_shift(factor: FloatArray, name: str) -> NDArray[np.int64]:
    """The shifts of factors that are powers of two, 1 or smaller."""
    shift = -np.rint(np.log2(factor)).astype(np.int64)
    if (shift < 0).any() or (shift > MAX_SHIFT).any():
        raise OverflowRiskError(
            f"{name}: a requantisation shift of {int(shift.min())} to {int(shift.max())}, "
            f"expected 0 to {MAX_SHIFT}",
            hint="weights or activations far out of proportion, or narrow ones whose products have fewer fraction bits "
            "than the result: check the checkpoint, or choose a precision with multipliers = true",
        )
    return shift
