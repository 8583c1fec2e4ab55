"""Reordered attention (Edge-MoE, section IV-A) with the scores of a row block on chip.

Rows of Q are taken P at a time. The keys stream past a block once; the row at offset o of its block is
loaded at step o and meets the keys in the order o, o + 1, ..., N - 1, 0, ..., o - 1. Dot products are exact
in any order; the running sum of the softmax is not, and so the block size is part of the result.

The division is done once a row, at the end: out = (sum_j e_j * v_j) * (1 / s). With 1 / s as a mantissa u and
the position of the leading one of s, the weighted sum is first brought to the scale of s, which leaves
`EXPONENTIAL.frac` bits behind the point, and then multiplied by u.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.datapath import EXPONENTIAL, MANTISSA_FRAC, SCORE
from pysim.formats import Format
from pysim.kernels.linear import Requantise
from pysim.kernels.softmax import probabilities, single_pass
from pysim.kernels.units import EXP2_UNIT, RECIPROCAL_TABLE, Exp2Unit, UnitTable, exp2_scalar, mantissa_scalar

IntArray = NDArray[np.int64]

LEAST_POSITION = EXPONENTIAL.frac - 1
"""Lowest bit at which a row sum can have its leading one: the largest exponential alone is more than a half."""


def first_keys(tokens: int, attention_rows: int) -> IntArray:
    """(tokens,) the key that each row meets first: its offset within its block."""
    return np.arange(tokens, dtype=np.int64) % attention_rows


@njit(cache=True, nogil=True)
def _exponentials(scores: Any, maxima: Any, unit: Exp2Unit, out: Any) -> None:
    for row in range(scores.shape[0]):
        for key in range(scores.shape[1]):
            out[row, key] = exp2_scalar((maxima[row] << unit.input_frac) - scores[row, key], unit)


@njit(cache=True, nogil=True)
def _normalise(
    weighted: Any, sums: Any, table: UnitTable, least: int, shift: int, low: int, high: int, out: Any
) -> None:
    for row in range(weighted.shape[0]):
        mantissa, position = mantissa_scalar(np.uint64(sums[row]), table, 1)
        align = position - least
        for channel in range(weighted.shape[1]):
            scaled = np.int64(weighted[row, channel])
            if align > 0:
                scaled = (scaled + (1 << (align - 1))) >> align
            value = (scaled * mantissa + (1 << (shift - 1))) >> shift
            out[row, channel] = min(max(value, low), high)


@dataclass(frozen=True)
class AttentionResult:
    """Output of the attention engine.

    Attributes:
        output: (rows, tokens, head_dim) integers in the output format.
        scores: (rows, tokens, tokens) in `SCORE`, where rows counts images times heads.
        maxima: (rows, tokens) whole numbers.
        sums: (rows, tokens) with `EXPONENTIAL.frac` fraction bits.
    """

    output: IntArray
    scores: IntArray
    maxima: IntArray
    sums: IntArray

    def probabilities(self) -> IntArray:
        """(rows, tokens, tokens) in `PROBABILITY`: for people; the engine never forms them."""
        shape = self.scores.shape
        flat = probabilities(self.scores.reshape(-1, shape[-1]), self.maxima.ravel(), self.sums.ravel())
        return flat.reshape(shape)


def attention(
    q: IntArray,
    k: IntArray,
    v: IntArray,
    *,
    attention_rows: int,
    score_shift: int,
    attention_shift: int,
    out: Format,
) -> AttentionResult:
    """Softmax(q @ k.T) @ v for every head.

    Args:
        q: (rows, tokens, head_dim), rows = images times heads; holds the factor log2(e) / sqrt(head_dim).
        k: as q.
        v: as q.
        attention_rows: P, rows that share one pass over the keys.
        score_shift: right shift from products q * k to `SCORE`; a negative one shifts left.
        attention_shift: further right shift from the units of v to those of the output.
        out: format of the output.
    """
    rows, tokens, head_dim = q.shape
    # Under 2**53 for operands of up to 18 bits and heads of up to 2**17 channels: exact in float64.
    products = (q.astype(np.float64) @ k.astype(np.float64).transpose(0, 2, 1)).astype(np.int64)
    to_score = Requantise(np.ones(1, np.int64), np.full(1, max(score_shift, 0)))
    scores = to_score(products.reshape(-1, tokens) << max(-score_shift, 0), SCORE)

    first = np.tile(first_keys(tokens, attention_rows), rows)
    maxima, sums = single_pass(scores, first)
    exponentials = np.empty(scores.shape)
    _exponentials(scores, maxima, EXP2_UNIT, exponentials)
    weighted = exponentials.reshape(rows, tokens, tokens) @ v.astype(np.float64)

    output = np.empty((rows * tokens, head_dim), np.int64)
    _normalise(
        weighted.reshape(-1, head_dim),
        sums,
        RECIPROCAL_TABLE,
        LEAST_POSITION,
        MANTISSA_FRAC + LEAST_POSITION + attention_shift,
        out.min,
        out.max,
        output,
    )
    return AttentionResult(
        output.reshape(q.shape),
        scores.reshape(rows, tokens, tokens),
        maxima.reshape(rows, tokens),
        sums.reshape(rows, tokens),
    )
