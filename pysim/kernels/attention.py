"""Reordered attention (Edge-MoE, section IV-A) with the scores of a row block on chip.

Rows of Q are taken P at a time. The keys stream past a block once; the row at offset o of its block is
loaded at step o and meets the keys in the order o, o + 1, ..., N - 1, 0, ..., o - 1. Dot products are exact
in any order; the running sum of the softmax is not, and so the block size is part of the result.

The division is done once a row, at the end: out = (sum_j e_j * v_j) * (1 / s). With 1 / s as a mantissa u and
the position of the leading one of s, the weighted sum is first brought to the scale of s, which leaves
`EXPONENTIAL.frac` bits behind the point, and then multiplied by u.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.datapath import EXPONENTIAL, MANTISSA_FRAC, SCORE
from pysim.formats import Format
from pysim.kernels.softmax import probabilities, step_scalar
from pysim.kernels.units import EXP2_UNIT, RECIPROCAL_TABLE, Exp2Unit, UnitTable, exp2_scalar, mantissa_scalar

IntArray = NDArray[np.int64]

LEAST_POSITION = EXPONENTIAL.frac - 1
"""Lowest bit at which a row sum can have its leading one: the largest exponential alone is more than a half."""


FEW_SCORES = 1 << 16
"""Scores of heads that are taken together: few enough to stay in a core's cache from one step to the next."""


def first_keys(tokens: int, attention_rows: int) -> IntArray:
    """(tokens,) the key that each row meets first: its offset within its block."""
    return np.arange(tokens, dtype=np.int64) % attention_rows


@njit(cache=True, nogil=True)
def _softmax_rows(
    products: Any,
    first: Any,
    half: int,
    shift: int,
    low: int,
    high: int,
    unit: Exp2Unit,
    scores: Any,
    maxima: Any,
    sums: Any,
) -> None:
    """Scores of products, and in place of these the exponentials 2**(score - maximum) of their rows.

    The running sum is that of `step_scalar`, key by key in the row's order. Once the running maximum has got to the
    row's own, what it adds are the exponentials that are there already.
    """
    tokens, keys = first.shape[0], products.shape[1]
    row, exponentials = np.empty(keys, np.int64), np.empty(keys, np.int64)
    for r in range(products.shape[0]):
        for key in range(keys):
            row[key] = min(max((np.int64(products[r, key]) + half) >> shift, low), high)
        for key in range(scores.shape[1]):
            scores[r, key] = row[key]
        top = row.max()
        maximum = -((-top) >> unit.input_frac)
        for key in range(keys):
            exponentials[key] = exp2_scalar((maximum << unit.input_frac) - row[key], unit)
            products[r, key] = exponentials[key]
        key = first[r % tokens]
        running, total = -((-row[key]) >> unit.input_frac), np.int64(0)
        done = 0
        while done < keys and running < maximum:
            running, total = step_scalar(running, total, row[key], unit)
            key = key + 1 if key + 1 < keys else 0
            done += 1
        # The rest, up to the last key and from the first on.
        stop = min(key + keys - done, keys)
        for rest in range(key, stop):
            total += exponentials[rest]
        for rest in range(keys - done - (stop - key)):
            total += exponentials[rest]
        maxima[r], sums[r] = maximum, total


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
        scores: (rows, tokens, tokens) in `SCORE`, where rows counts images times heads; (rows, tokens, 0) where they
            were not asked for.
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
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    *,
    attention_rows: int,
    score_shift: int,
    attention_shift: int,
    out: Format,
    keep_scores: bool = True,
) -> AttentionResult:
    """Softmax(q @ k.T) @ v for every head.

    Args:
        q: (rows, tokens, head_dim), rows = images times heads, or (images, heads, tokens, head_dim); holds the factor
            log2(e) / sqrt(head_dim).
        k: as q.
        v: as q.
        attention_rows: P, rows that share one pass over the keys.
        score_shift: right shift from products q * k to `SCORE`; a negative one shifts left.
        attention_shift: further right shift from the units of v to those of the output.
        out: format of the output.
        keep_scores: return the scores.

    Returns:
        Arrays with rows = images times heads on their first axis.
    """
    tokens, head_dim = q.shape[-2:]
    count, heads = len(q), math.prod(q.shape[1:-2])
    rows = count * heads
    first = first_keys(tokens, attention_rows)
    scores = np.empty((rows, tokens, tokens if keep_scores else 0), np.int64)
    maxima, sums = np.empty((rows, tokens), np.int64), np.empty((rows, tokens), np.int64)
    output = np.empty((rows, tokens, head_dim), np.int64)
    few = max(1, FEW_SCORES // (heads * tokens**2))
    left, right = max(-score_shift, 0), max(score_shift, 0)
    for start in range(0, count, few):
        part = slice(start * heads, (start + few) * heads)
        # Under 2**53 for operands of up to 18 bits and heads of up to 2**17 channels: exact in float64.
        queries, keys, values = (
            each[start : start + few].astype(np.float64, order="C").reshape(-1, tokens, head_dim)
            for each in (q, k, v)
        )
        products = queries @ keys.transpose(0, 2, 1)
        if left:
            products *= 1 << left
        _softmax_rows(
            products.reshape(-1, tokens),
            first,
            (1 << right) >> 1,
            right,
            SCORE.min,
            SCORE.max,
            EXP2_UNIT,
            scores[part].reshape(len(products) * tokens, -1),
            maxima[part].reshape(-1),
            sums[part].reshape(-1),
        )
        _normalise(
            (products @ values).reshape(-1, head_dim),
            sums[part].reshape(-1),
            RECIPROCAL_TABLE,
            LEAST_POSITION,
            MANTISSA_FRAC + LEAST_POSITION + attention_shift,
            out.min,
            out.max,
            output[part].reshape(-1, head_dim),
        )
    return AttentionResult(output, scores, maxima, sums)
