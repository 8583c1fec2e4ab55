"""Activation functions as ReLU minus a small even function from a table (Edge-MoE, section IV-C)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.activations import ACTIVATIONS, Activation
from pysim.datapath import GELU_INPUT
from pysim.kernels.units import UnitTable, interpolate, unit_table
from pysim.tables import GELU_DELTA

GELU_FRAC = GELU_DELTA.value_frac
"""Fraction bits of the exact output of every activation function, before requantisation."""


@njit(cache=True, nogil=True)
def _gelu(x: Any, table: UnitTable, align: int, out: Any) -> None:
    limit = 1 << (table.address_bits + table.step_bits)
    for i in range(x.size):
        magnitude = abs(x[i])
        delta = interpolate(table, magnitude) if magnitude < limit else 0
        out[i] = (max(x[i], 0) << align) - delta


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


def gelu(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """GELU of integers in `GELU_INPUT`: see `activate`."""
    return activate(ACTIVATIONS["gelu"], x)
