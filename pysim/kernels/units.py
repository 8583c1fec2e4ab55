"""Function units read from tables: powers of two, reciprocal, reciprocal square root.

The scalar functions are compiled and shared by the kernels that call them inside a loop. They take every
constant as an argument, because compiled code is cached on disk and would not notice a changed global.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.datapath import EXPONENTIAL, SCORE
from pysim.tables import EXP2, RECIPROCAL, RSQRT, PiecewiseLinear


class UnitTable(NamedTuple):
    """A `PiecewiseLinear` in the form that compiled functions take."""

    base: NDArray[np.int64]
    slope: NDArray[np.int64]
    address_bits: int
    step_bits: int
    frac: int


def unit_table(table: PiecewiseLinear, octaves: int = 1) -> UnitTable:
    """Unpack a table; `address_bits` counts the address within one octave."""
    segments = len(table.base) // octaves
    return UnitTable(table.base, table.slope, (segments - 1).bit_length(), table.step_bits, table.frac)


class Exp2Unit(NamedTuple):
    """The power-of-two unit: its table and the fraction bits of its input and output."""

    table: UnitTable
    input_frac: int
    output_frac: int


EXP2_UNIT = Exp2Unit(unit_table(EXP2), SCORE.frac, EXPONENTIAL.frac)
RECIPROCAL_TABLE = unit_table(RECIPROCAL)
RSQRT_TABLE = unit_table(RSQRT, octaves=2)


@njit(cache=True, inline="always")
def interpolate(table: UnitTable, index: int) -> int:
    """Base plus chord at `index` >= 0 = address and offset joined; `frac + step_bits` fraction bits."""
    # Unsigned, so that no code is made for indices that count from the end.
    address = np.uint64(index) >> np.uint64(table.step_bits)
    offset = index & ((1 << table.step_bits) - 1)
    return (table.base[address] << table.step_bits) + table.slope[address] * offset


@njit(cache=True, inline="always")
def exp2_scalar(difference: int, unit: Exp2Unit) -> int:
    """2**-difference for a difference >= 0, rounded once."""
    value = interpolate(unit.table, difference & ((1 << unit.input_frac) - 1))
    shift = (difference >> unit.input_frac) + unit.table.frac + unit.table.step_bits - unit.output_frac
    return (value + (1 << (shift - 1))) >> shift if shift < 62 else 0


@njit(cache=True)
def leading_one(value: Any) -> int:
    """Position of the highest set bit of a positive uint64."""
    position = 0
    for step in (32, 16, 8, 4, 2, 1):
        if value >> np.uint64(position + step) != np.uint64(0):
            position += step
    return position


@njit(cache=True)
def mantissa_scalar(value: Any, table: UnitTable, octaves: int) -> tuple[int, int]:
    """Table lookup of a positive uint64 by its leading bits: (mantissa, position of the leading one).

    Bits below the table's resolution are dropped. With two octaves the parity of the position selects one.
    """
    bits = table.address_bits + table.step_bits
    position = leading_one(value)
    if position >= bits:
        index = np.int64(value >> np.uint64(position - bits)) - (1 << bits)
    else:
        index = (np.int64(value) << (bits - position)) - (1 << bits)
    if octaves == 2 and position & 1:
        index += 1 << bits
    return (interpolate(table, index) + (1 << (table.step_bits - 1))) >> table.step_bits, position


@njit(cache=True)
def _exp2_all(differences: Any, unit: Exp2Unit, out: Any) -> None:
    for i in range(differences.size):
        out[i] = exp2_scalar(differences[i], unit)


@njit(cache=True)
def _mantissa_all(values: Any, table: UnitTable, octaves: int, mantissas: Any, positions: Any) -> None:
    for i in range(values.size):
        mantissas[i], positions[i] = mantissa_scalar(values[i], table, octaves)


def exp2(differences: NDArray[np.int64]) -> NDArray[np.int64]:
    """2**-d for score differences d >= 0.

    Args:
        differences: integers >= 0 in units of `SCORE.lsb`, any shape.

    Returns:
        Integers in `EXPONENTIAL`, same shape. Worst error: `accuracy.exp2_worst_error`.
    """
    flat = np.ascontiguousarray(differences, dtype=np.int64).ravel()
    out = np.empty_like(flat)
    _exp2_all(flat, EXP2_UNIT, out)
    return out.reshape(np.shape(differences))


def _mantissas(
    values: NDArray[np.uint64], table: UnitTable, octaves: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    flat = np.ascontiguousarray(values, dtype=np.uint64).ravel()
    mantissas, positions = np.empty(flat.size, np.int64), np.empty(flat.size, np.int64)
    _mantissa_all(flat, table, octaves, mantissas, positions)
    return mantissas.reshape(np.shape(values)), positions.reshape(np.shape(values))


def reciprocal(values: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """1 / value of positive integers, as (mantissa, exponent): mantissa * 2**-(MANTISSA_FRAC + exponent)."""
    return _mantissas(values, RECIPROCAL_TABLE, 1)


def rsqrt(values: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """1 / sqrt(value) of positive integers, as (mantissa, exponent) like `reciprocal`."""
    mantissas, positions = _mantissas(values, RSQRT_TABLE, 2)
    return mantissas, positions >> 1
