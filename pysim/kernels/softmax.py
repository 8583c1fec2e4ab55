"""Single-pass softmax in base 2 (Edge-MoE, section IV-B), with a maximum in whole powers of two.

For scores x met one after the other, a running maximum m and a running sum s of 2**(x - m):

    c = ceil(x)
    c > m:  s = s >> (c - m),  m = c
    s = s + 2**(x - m)

The original keeps m = x and multiplies s by an exponential whenever the maximum moves, so that the error of
its table piles up over a row of ascending scores. Here m is an integer (the idea of Softermax, arXiv
2103.09301): the sum is shifted, which costs no multiplier and loses no more than one rounding. Each shift
rounds s, so the result depends on the order in which a row meets its scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.datapath import MANTISSA_FRAC, PROBABILITY
from pysim.kernels.units import (
    EXP2_UNIT,
    RECIPROCAL_TABLE,
    Exp2Unit,
    UnitTable,
    exp2_scalar,
    mantissa_scalar,
)

IntArray = NDArray[np.int64]


@njit(cache=True, inline="always")
def step_scalar(maximum: int, total: int, score: int, unit: Exp2Unit) -> tuple[int, int]:
    """One score of the single pass: the new running maximum and sum."""
    ceiling = -((-score) >> unit.input_frac)
    if ceiling > maximum:
        shift = min(ceiling - maximum, 62)
        total = (total + (1 << (shift - 1))) >> shift
        maximum = ceiling
    return maximum, total + exp2_scalar((maximum << unit.input_frac) - score, unit)


@njit(cache=True, nogil=True)
def _single_pass(scores: Any, first: Any, unit: Exp2Unit, maxima: Any, sums: Any) -> None:
    keys = scores.shape[1]
    for row in range(scores.shape[0]):
        key = first[row]
        maximum, total = -((-scores[row, key]) >> unit.input_frac), 0
        for _ in range(keys):
            maximum, total = step_scalar(maximum, total, scores[row, key], unit)
            key = key + 1 if key + 1 < keys else 0
        maxima[row], sums[row] = maximum, total


def single_pass(scores: IntArray, first: IntArray) -> tuple[IntArray, IntArray]:
    """Maximum and sum of exponentials of each row in one pass.

    Args:
        scores: (rows, keys) integers in `SCORE`.
        first: (rows,) index of the key that each row meets first; it goes on upwards and wraps around.

    Returns:
        Maxima (rows,), whole numbers; sums (rows,) with `EXPONENTIAL.frac` fraction bits, more than 0.5.
    """
    rows = scores.shape[0]
    maxima, sums = np.empty(rows, np.int64), np.empty(rows, np.int64)
    _single_pass(np.ascontiguousarray(scores), first, EXP2_UNIT, maxima, sums)
    return maxima, sums


@njit(cache=True, nogil=True)
def _probabilities(
    scores: Any, maxima: Any, sums: Any, unit: Exp2Unit, table: UnitTable, shift_base: int, one: int, out: Any
) -> None:
    for row in range(scores.shape[0]):
        mantissa, position = mantissa_scalar(np.uint64(sums[row]), table, 1)
        # The sum has the exponential's fraction bits, so that they cancel.
        shift = shift_base + position
        half = 1 << (shift - 1)
        for key in range(scores.shape[1]):
            exponential = exp2_scalar((maxima[row] << unit.input_frac) - scores[row, key], unit)
            out[row, key] = min((exponential * mantissa + half) >> shift, one)


def probabilities(scores: IntArray, maxima: IntArray, sums: IntArray) -> IntArray:
    """Softmax probabilities 2**(x - m) / s.

    Args:
        scores: (rows, keys) in `SCORE`.
        maxima: (rows,) whole numbers, as `single_pass` returns them (no score used is larger).
        sums: (rows,) as `single_pass` returns them.

    Returns:
        (rows, keys) integers in `PROBABILITY`.
    """
    out = np.empty(scores.shape, np.int64)
    _probabilities(
        np.ascontiguousarray(scores),
        maxima,
        sums,
        EXP2_UNIT,
        RECIPROCAL_TABLE,
        MANTISSA_FRAC - PROBABILITY.frac,
        1 << PROBABILITY.frac,
        out,
    )
    return out


def softmax(scores: IntArray, first: IntArray) -> IntArray:
    """Both passes: probabilities (rows, keys) in `PROBABILITY` of scores (rows, keys) in `SCORE`."""
    return probabilities(scores, *single_pass(scores, first))
