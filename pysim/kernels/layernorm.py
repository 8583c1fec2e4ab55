"""LayerNorm from exact integer sums.

With S1 = sum x and S2 = sum x * x over the D channels of a token, D * S2 - S1**2 is D**2 times the variance,
exactly: nothing cancels, because nothing was rounded. With V = D * S2 - S1**2 + epsilon,

    n[c] = (D * x[c] - S1) / sqrt(V)              rounded to `NORMALIZED`
    y[c] = sat((n[c] * gamma[c] + beta[c]) >> shift)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.errors import InputError
from pysim.datapath import MANTISSA_FRAC, NORMALIZED
from pysim.kernels.units import RSQRT_TABLE, UnitTable, mantissa_scalar

IntArray = NDArray[np.int64]

MIN_EPSILON = 16
"""Keeps the shift after the reciprocal square root positive, even for a token of equal channels."""


def largest_variance(width: int, channels: int) -> int:
    """The largest V of `channels` values of `width` signed bits: half of them at either end."""
    return (channels << (width - 1)) ** 2


def variance_width(width: int, channels: int) -> int:
    """Bits of V for `channels` values of `width` signed bits; the engine has 64."""
    return largest_variance(width, channels).bit_length()


@njit(cache=True, nogil=True)
def _normalize(
    x: Any, epsilon: int, table: UnitTable, shift_base: int, low: int, high: int, out: Any
) -> None:
    channels = x.shape[1]
    for token in range(x.shape[0]):
        total, squares = np.int64(0), np.int64(0)
        for c in range(channels):
            total += x[token, c]
            squares += x[token, c] * x[token, c]
        # Unsigned arithmetic modulo 2**64: V itself fits, even where one of its two terms does not.
        spread = np.uint64(channels) * np.uint64(squares) - np.uint64(total) * np.uint64(total)
        mantissa, position = mantissa_scalar(spread + np.uint64(epsilon), table, 2)
        shift = shift_base + (position >> 1)
        half = 1 << (shift - 1)
        for c in range(channels):
            value = ((channels * x[token, c] - total) * mantissa + half) >> shift
            out[token, c] = min(max(value, low), high)


def normalize(x: IntArray, epsilon: int) -> IntArray:
    """(x - mean) / std of each token.

    Args:
        x: (tokens, channels) integers, with `variance_width(...) <= 64`.
        epsilon: the norm's epsilon in units of V (times D**2 and the square of x's unit), at least
            `MIN_EPSILON`; V + epsilon must stay under 2**64.

    Returns:
        (tokens, channels) integers in `NORMALIZED`.
    """
    if epsilon < MIN_EPSILON:
        raise InputError(f"LayerNorm: epsilon = {epsilon} units, expected at least {MIN_EPSILON}")
    out = np.empty(x.shape, np.int64)
    _normalize(
        np.ascontiguousarray(x),
        epsilon,
        RSQRT_TABLE,
        MANTISSA_FRAC - NORMALIZED.frac,
        NORMALIZED.min,
        NORMALIZED.max,
        out,
    )
    return out
