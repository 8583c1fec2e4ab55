"""Activation functions as ReLU minus a small even function from a table (Edge-MoE, section IV-C)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.activations import ACTIVATIONS, Activation
from pysim.datapath import GELU_INPUT
from pysim.formats import Format
from pysim.kernels.linear import Exact, Requantise
from pysim.kernels.units import UnitTable, interpolate, unit_table
from pysim.tables import GELU_DELTA

GELU_FRAC = GELU_DELTA.value_frac
"""Fraction bits of the exact output of every activation function, before requantisation."""


@njit(cache=True, inline="always")
def _scalar(x: int, table: UnitTable, limit: int, align: int) -> int:
    """The function of one value; beyond the table it is ReLU."""
    magnitude = abs(x)
    delta = interpolate(table, min(magnitude, limit - 1))
    return (max(x, 0) << align) - (delta if magnitude < limit else 0)


@njit(cache=True, nogil=True)
def _gelu(x: Any, table: UnitTable, align: int, out: Any) -> None:
    limit = 1 << (table.address_bits + table.step_bits)
    for i in range(x.size):
        out[i] = _scalar(x[i], table, limit, align)


@njit(cache=True, nogil=True)
def _activate_sums(
    sums: Any,
    bias: Any,
    before: Any,
    inner: tuple[int, int],
    table: Any,
    align: int,
    after: Any,
    zero: int,
    outer: tuple[int, int],
    result: Any,
) -> None:
    tokens, channels = sums.shape
    multiplier, half, shift = before
    multiplier2, half2, shift2 = after
    row = np.empty(channels, np.int64)
    limit = 0 if table is None else 1 << (table.address_bits + table.step_bits)
    for t in range(tokens):
        # Three loops instead of one: the first and the last become vector instructions whatever the table is.
        for c in range(channels):
            value = ((np.int64(sums[t, c]) + bias[c]) * multiplier[c] + half[c]) >> shift[c]
            row[c] = min(max(value, inner[0]), inner[1])
        for c in range(channels):
            if table is None:
                row[c] = max(row[c], 0) << align
            else:
                row[c] = _scalar(row[c], table, limit, align)
        for c in range(channels):
            value = ((row[c] * multiplier2[c] + half2[c]) >> shift2[c]) + zero
            result[t, c] = min(max(value, outer[0]), outer[1])


@cache
def _table(name: str) -> UnitTable | None:
    delta = ACTIVATIONS[name].delta
    assert delta is None or delta.value_frac == GELU_FRAC
    return None if delta is None else unit_table(delta)


def activate(activation: Activation, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The function as relu(x) - delta(|x|), exact from the table on: nothing is rounded here.

    Args:
        activation: which one.
        x: integers in `GELU_INPUT`, any shape.

    Returns:
        Integers with `GELU_FRAC` fraction bits, same shape. Worst error: `accuracy.activation_worst_error`.
    """
    align, table = GELU_FRAC - GELU_INPUT.frac, _table(activation.name)
    if table is None:
        return np.maximum(x, 0) << align
    flat = np.ascontiguousarray(x).ravel()
    out = np.empty_like(flat)
    _gelu(flat, table, align, out)
    return out.reshape(x.shape)


def activate_sums(
    activation: Activation,
    sums: Exact,
    bias: NDArray[np.int64],
    before: Requantise,
    after: Requantise,
    zero: int,
    out: Format,
    result: NDArray[Any],
) -> None:
    """Step from the sums of a linear layer to the operands of the next: requantise, `activate`, requantise.

    The same integers as the three one after the other, row by row instead of in passes over all of them.

    Args:
        activation: which function.
        sums: (tokens, channels) sums without their bias.
        bias: (channels,).
        before: from sums to `GELU_INPUT`.
        after: from the function's result to `out`.
        zero: what is added at last.
        out: format of the results.
        result: (tokens, channels) where they go.
    """
    count = sums.shape[1]
    _activate_sums(
        sums,
        bias,
        before.channels(count),
        (GELU_INPUT.min, GELU_INPUT.max),
        _table(activation.name),
        GELU_FRAC - GELU_INPUT.frac,
        after.channels(count),
        zero,
        (out.min, out.max),
        result,
    )


def gelu(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """GELU of integers in `GELU_INPUT`: see `activate`."""
    return activate(ACTIVATIONS["gelu"], x)
