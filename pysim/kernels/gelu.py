"""GELU as ReLU minus a small even function from a table (Edge-MoE, section IV-C)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.datapath import GELU_INPUT
from pysim.kernels.units import UnitTable, interpolate, unit_table
from pysim.tables import GELU_DELTA

GELU_FRAC = GELU_DELTA.value_frac
"""Fraction bits of the GELU unit's exact output, before requantisation."""

_TABLE = unit_table(GELU_DELTA)


@njit(cache=True, nogil=True)
def _gelu(x: Any, table: UnitTable, align: int, out: Any) -> None:
    limit = 1 << (table.address_bits + table.step_bits)
    for i in range(x.size):
        magnitude = abs(x[i])
        delta = interpolate(table, magnitude) if magnitude < limit else 0
        out[i] = (max(x[i], 0) << align) - delta


def gelu(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """GELU as relu(x) - delta(|x|), exact from the table on: nothing is rounded here.

    Args:
        x: integers in `GELU_INPUT`, any shape.

    Returns:
        Integers with `GELU_FRAC` fraction bits, same shape. Worst error: `accuracy.gelu_worst_error`.
    """
    flat = np.ascontiguousarray(x).ravel()
    out = np.empty_like(flat)
    _gelu(flat, _TABLE, GELU_FRAC - GELU_INPUT.frac, out)
    return out.reshape(x.shape)
