"""Single-pass softmax in base 2 (Edge-MoE, section IV-B): one exponential a step.

For scores x met one after the other, a running maximum m and a running sum s of 2**(x - m):

    x > m:  s = s * 2**(m - x) + 1,  m = x
    else:   s = s + 2**(x - m)

Each step rounds s, so the result depends on the order in which a row meets its scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.datapath import EXPONENTIAL, MANTISSA_FRAC
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
    one = 1 << unit.output_frac
    if score > maximum:
        scaled = total * exp2_scalar(score - maximum, unit)
        return score, ((scaled + (one >> 1)) >> unit.output_frac) + one
    return maximum, total + exp2_scalar(maximum - score, unit)


@njit(cache=True, nogil=True)
def _single_pass(scores: Any, first: Any, unit: Exp2Unit, maxima: Any, sums: Any) -> None:
    keys = scores.shape[1]
    for row in range(scores.shape[0]):
        key = first[row]
        maximum, total = scores[row, key], 1 << unit.output_frac
        for _ in range(keys - 1):
            key = key + 1 if key + 1 < keys else 0
            maximum, total = step_scalar(maximum, total, scores[row, key], unit)
        maxima[row], sums[row] = maximum, total


def single_pass(scores: IntArray, first: IntArray) -> tuple[IntArray, IntArray]:
    """Maximum and sum of exponentials of each row in one pass.

    Args:
        scores: (rows, keys) integers in `SCORE`.
        first: (rows,) index of the key that each row meets first; it goes on upwards and wraps around.

    Returns:
        Maxima (rows,) in `SCORE`; sums (rows,) with `EXPONENTIAL.frac` fraction bits, at least 1.
    """
    rows = scores.shape[0]
    maxima, sums = np.empty(rows, np.int64), np.empty(rows, np.int64)
    _single_pass(np.ascontiguousarray(scores), first, EXP2_UNIT, maxima, sums)
    return maxima, sums


@njit(cache=True, nogil=True)
def _probabilities(
    scores: Any, maxima: Any, sums: Any, unit: Exp2Unit, table: UnitTable, mantissa_frac: int, out: Any
) -> None:
    for row in range(scores.shape[0]):
        mantissa, position = mantissa_scalar(np.uint64(sums[row]), table, 1)
        # The sum has the exponential's fraction bits, so they cancel, and the result gets them again.
        shift = mantissa_frac + position - unit.output_frac
        half = 1 << (shift - 1)
        for key in range(scores.shape[1]):
            exponential = exp2_scalar(maxima[row] - scores[row, key], unit)
            out[row, key] = (exponential * mantissa + half) >> shift


def probabilities(scores: IntArray, maxima: IntArray, sums: IntArray) -> IntArray:
    """Softmax probabilities 2**(x - m) / s.

    Args:
        scores: (rows, keys) in `SCORE`.
        maxima: (rows,) in `SCORE`, as `single_pass` returns them (at least the largest score used).
        sums: (rows,) as `single_pass` returns them.

    Returns:
        (rows, keys) integers in `EXPONENTIAL`.
    """
    out = np.empty(scores.shape, np.int64)
    _probabilities(
        np.ascontiguousarray(scores), maxima, sums, EXP2_UNIT, RECIPROCAL_TABLE, MANTISSA_FRAC, out
    )
    return np.minimum(out, 1 << EXPONENTIAL.frac)


def softmax(scores: IntArray, first: IntArray) -> IntArray:
    """Both passes: probabilities (rows, keys) in `EXPONENTIAL` of scores (rows, keys) in `SCORE`."""
    return probabilities(scores, *single_pass(scores, first))
