"""LayerNorm from exact integer sums.

With S1 = sum x and S2 = sum x * x over the D channels of a token, D * S2 - S1**2 is D**2 times the variance,
exactly: nothing cancels, because nothing was rounded. With V = D * S2 - S1**2 + epsilon,

    n[c] = (D * x[c] - S1) / sqrt(V)              rounded to `NORMALIZED`
    y[c] = sat((n[c] * gamma[c] + beta[c]) >> shift)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.errors import InputError
from pysim.datapath import MANTISSA_FRAC, NORMALIZED
from pysim.formats import Format
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


@njit(cache=True, inline="always")
def _normalize_token(
    x: Any, epsilon: int, table: UnitTable, shift_base: int, low: int, high: int, out: Any
) -> None:
    channels = x.shape[0]
    total, squares = np.int64(0), np.int64(0)
    for c in range(channels):
        value = np.int64(x[c])
        total += value
        squares += value * value
    # Unsigned arithmetic modulo 2**64: V itself fits, even where one of its two terms does not.
    spread = np.uint64(channels) * np.uint64(squares) - np.uint64(total) * np.uint64(total)
    mantissa, position = mantissa_scalar(spread + np.uint64(epsilon), table, 2)
    shift = shift_base + (position >> 1)
    half = 1 << (shift - 1)
    for c in range(channels):
        value = ((channels * np.int64(x[c]) - total) * mantissa + half) >> shift
        out[c] = min(max(value, low), high)


@njit(cache=True, nogil=True)
def _normalize(
    x: Any, epsilon: int, table: UnitTable, shift_base: int, low: int, high: int, out: Any
) -> None:
    for token in range(x.shape[0]):
        _normalize_token(x[token], epsilon, table, shift_base, low, high, out[token])


@njit(cache=True, nogil=True)
def _layer_norm(
    x: Any,
    epsilon: int,
    table: UnitTable,
    shift_base: int,
    inner: tuple[int, int],
    gamma: Any,
    beta: Any,
    shifts: tuple[int, ...],
    ranges: Any,
    outs: Any,
) -> None:
    channels = x.shape[1]
    row = np.empty(channels, np.int64)
    for token in range(x.shape[0]):
        _normalize_token(x[token], epsilon, table, shift_base, inner[0], inner[1], row)
        for c in range(channels):
            row[c] = row[c] * gamma[c] + beta[c]
        for out in range(len(outs)):
            low, high = ranges[out]
            shift = shifts[out]
            half = (1 << shift) >> 1
            for c in range(channels):
                outs[out][token, c] = min(max((row[c] + half) >> shift, low), high)


def normalize(x: IntArray, epsilon: int) -> IntArray:
    """(x - mean) / std of each token.

    Args:
        x: (tokens, channels) integers, with `variance_width(...) <= 64`.
        epsilon: the norm's epsilon in units of V (times D**2 and the square of x's unit), at least
            `MIN_EPSILON`; V + epsilon must stay under 2**64.

    Returns:
        (tokens, channels) integers in `NORMALIZED`.
    """
    _check_epsilon(epsilon)
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


def layer_norm(
    x: NDArray[Any], epsilon: int, gamma: IntArray, beta: IntArray, outs: Sequence[tuple[int, Format]]
) -> tuple[NDArray[np.int32], ...]:
    """A LayerNorm with gamma and beta, narrowed to one format or to several.

    Args:
        x: as `normalize` takes it.
        epsilon: likewise.
        gamma: (channels,).
        beta: (channels,), in the units of the products with gamma.
        outs: for each result the right shift from those units, and its format.

    Returns:
        (tokens, channels) integers in each format.
    """
    _check_epsilon(epsilon)
    results = tuple(np.empty(x.shape, np.int32) for _ in outs)
    _layer_norm(
        x,
        epsilon,
        RSQRT_TABLE,
        MANTISSA_FRAC - NORMALIZED.frac,
        (NORMALIZED.min, NORMALIZED.max),
        gamma,
        beta,
        tuple(shift for shift, _ in outs),
        tuple((out.min, out.max) for _, out in outs),
        results,
    )
    return results


def _check_epsilon(epsilon: int) -> None:
    if epsilon < MIN_EPSILON:
        raise InputError(f"LayerNorm: epsilon = {epsilon} units, expected at least {MIN_EPSILON}")
