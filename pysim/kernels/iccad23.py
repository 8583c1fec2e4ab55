"""The arithmetic of the original Edge-MoE: 32-bit features that truncate and wrap, products truncated one by one.

Features are `ap_fixed<32, 10>`, 22 fraction bits. The original takes exp, square root and the softmax's reciprocal
from its vendor's library; here exp is a table within 2**-20 of exact, and the other two are exact and floored.
Its LayerNorm divides by an operator of the type, which wraps like every other one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Any

import numpy as np
from numba import config, njit
from numpy.typing import NDArray

from pysim.formats import Format
from pysim.kernels.units import UnitTable, interpolate, unit_table
from pysim.tables import PiecewiseLinear, sample

IntArray = NDArray[np.int64]

FEATURE = Format(32, 22)
FRAC = FEATURE.frac
ONE = 1 << FRAC
HEAD_BLOCK = 8
"""Dimensions whose products are summed before the attention scale is applied."""

EXP2_FINE = sample("exp2_fine", lambda x: 2.0**-x, np.arange(513) / 512, frac=30, step_bits=FRAC - 9)
LOG2_E_FRAC = 30
LOG2_E = round(math.log2(math.e) * 2**LOG2_E_FRAC)
EXP_UNIT = unit_table(EXP2_FINE)

GELU_STEP_BITS = 17
GELU_LIMIT = 11 << (FRAC - 1)
"""5.5: from here on GELU is ReLU."""
GELU_TABLE = np.array(
    [round(2.0**FRAC * u * 0.5 * math.erfc(u / math.sqrt(2))) for u in np.arange(177) / 32], dtype=np.int64
)

TABLES: tuple[PiecewiseLinear, ...] = (EXP2_FINE,)


@njit(cache=True, inline="always")
def wrap(value: int) -> int:
    """Keep the low 32 bits, signed."""
    return ((value + (1 << 31)) & ((1 << 32) - 1)) - (1 << 31)


@njit(cache=True, inline="always")
def exp_scalar(x: int, unit: UnitTable, log2_e: int, log2_e_frac: int, frac: int) -> int:
    """exp(x) for a feature x <= 0, within 2**-20: 2**(x * log2(e)), from a table of the fraction."""
    exponent = (-x * log2_e) >> log2_e_frac
    whole = exponent >> frac
    value = interpolate(unit, exponent & ((1 << frac) - 1))
    shift = unit.frac + unit.step_bits - frac + whole
    return value >> shift if shift < 62 else 0


@njit(cache=True, nogil=True)
def _linear(x: Any, weight: Any, bias: Any, shift: int, out: Any) -> None:
    for t in range(x.shape[0]):
        for c in range(weight.shape[0]):
            total = np.int64(0)
            for i in range(x.shape[1]):
                total += (x[t, i] * weight[c, i]) >> shift
            out[t, c] = wrap(bias[c] + total)


def linear(x: IntArray, weight: NDArray[Any], bias: IntArray, *, shift: int) -> IntArray:
    """Dot products whose every product is floored by `shift` bits, plus a bias, wrapped to 32 bits.

    Wrapping is modular, so one wrap at the end equals a wrap at every addition.

    Args:
        x: (tokens, inputs) features (or pixels).
        weight: (outputs, inputs) integers.
        bias: (outputs,) features.
        shift: fraction bits of x and of the weights, less 22.
    """
    out = np.empty((x.shape[0], weight.shape[0]), np.int64)
    wide = weight.astype(np.int64)
    workers = cpu_count() or 1
    rows = max(1, -(-x.shape[0] // workers))

    def part(start: int) -> None:
        _linear(x[start : start + rows], wide, bias, shift, out[start : start + rows])

    _each(part, range(0, x.shape[0], rows))
    return out


def _each(part: Any, starts: Iterable[int]) -> None:
    # As many threads as numba's own functions would take; a worker has one.
    with ThreadPoolExecutor(config.NUMBA_NUM_THREADS) as pool:
        list(pool.map(part, starts))


@njit(cache=True, nogil=True)
def _gelu(x: Any, table: Any, limit: int, step_bits: int, frac: int, out: Any) -> None:
    for i in range(x.size):
        magnitude = abs(x[i])
        delta = np.int64(0)
        if magnitude < limit:
            index = magnitude >> step_bits
            offset = (magnitude & ((1 << step_bits) - 1)) << (frac - step_bits)
            delta = table[index] + ((offset * (table[index + 1] - table[index])) >> frac)
        out[i] = max(x[i], 0) - delta


def gelu(x: IntArray) -> IntArray:
    """relu(x) - delta(|x|), step 2**-5 up to 5.5; features in and out."""
    flat = np.ascontiguousarray(x).ravel()
    out = np.empty_like(flat)
    _gelu(flat, GELU_TABLE, GELU_LIMIT, GELU_STEP_BITS, FRAC, out)
    return out.reshape(x.shape)


@njit(cache=True, nogil=True)
def _scores(q: Any, k: Any, block: int, frac: int, scale_shift: int, multiplier: int, out: Any) -> None:
    rows, tokens, head_dim = q.shape
    for row in range(rows):
        for i in range(tokens):
            for j in range(tokens):
                score = np.int64(0)
                for start in range(0, head_dim, block):
                    total = np.int64(0)
                    for d in range(start, min(start + block, head_dim)):
                        total += (q[row, i, d] * k[row, j, d]) >> frac
                    score += (wrap(total) * multiplier) >> scale_shift
                out[row, i, j] = wrap(score)


def attention_scale(head_dim: int) -> tuple[int, int]:
    """1 / sqrt(head_dim) as (multiplier, right shift): a pure shift for head dimensions that are powers of 4."""
    shift = (head_dim.bit_length() - 1) // 2
    if 4**shift == head_dim:
        return 1, shift
    return round(2.0**FRAC / math.sqrt(head_dim)), FRAC


def scores(q: IntArray, k: IntArray) -> IntArray:
    """(rows, tokens, tokens) scaled scores of (rows, tokens, head_dim) queries and keys."""
    out = np.empty((q.shape[0], q.shape[1], q.shape[1]), np.int64)
    multiplier, shift = attention_scale(q.shape[2])

    def part(row: int) -> None:
        _scores(q[row : row + 1], k[row : row + 1], HEAD_BLOCK, FRAC, shift, multiplier, out[row : row + 1])

    _each(part, range(q.shape[0]))
    return out


@njit(cache=True, nogil=True)
def _single_pass(
    scores: Any, first: Any, unit: UnitTable, log2_e: int, log2_e_frac: int, frac: int, maxima: Any, sums: Any
) -> None:
    lowest, keys = -(1 << 31), scores.shape[1]
    for row in range(scores.shape[0]):
        maximum, total = np.int64(lowest), np.int64(0)
        key = first[row]
        for _ in range(keys):
            score = scores[row, key]
            if score > maximum:
                e = exp_scalar(max(maximum - score, lowest), unit, log2_e, log2_e_frac, frac)
                total = wrap(((total * e) >> frac) + (1 << frac))
                maximum = score
            else:
                e = exp_scalar(max(score - maximum, lowest), unit, log2_e, log2_e_frac, frac)
                total = wrap(total + e)
            key = key + 1 if key + 1 < keys else 0
        maxima[row], sums[row] = maximum, total


def single_pass(score: IntArray, first: IntArray) -> tuple[IntArray, IntArray]:
    """Running maximum and sum of each row (rows, keys), keys in the row's own order; features in and out."""
    maxima, sums = np.empty(len(score), np.int64), np.empty(len(score), np.int64)
    _single_pass(np.ascontiguousarray(score), first, EXP_UNIT, LOG2_E, LOG2_E_FRAC, FRAC, maxima, sums)
    return maxima, sums


@njit(cache=True, nogil=True)
def _exponentials(
    scores: Any, maxima: Any, unit: UnitTable, log2_e: int, log2_e_frac: int, frac: int, out: Any
) -> None:
    lowest = -(1 << 31)
    for row in range(scores.shape[0]):
        for key in range(scores.shape[1]):
            difference = max(scores[row, key] - maxima[row], lowest)
            out[row, key] = exp_scalar(difference, unit, log2_e, log2_e_frac, frac)


def exponentials(score: IntArray, maxima: IntArray) -> IntArray:
    """exp(score - maximum) of (rows, keys) scores and (rows,) maxima; features in and out."""
    out = np.empty(score.shape, np.int64)
    _exponentials(np.ascontiguousarray(score), maxima, EXP_UNIT, LOG2_E, LOG2_E_FRAC, FRAC, out)
    return out


def reciprocal(value: IntArray) -> IntArray:
    """1 / value of the softmax's sums: floor(2**44 / value), saturated for values up to 2**-9."""
    return np.minimum((1 << (2 * FRAC)) // np.maximum(value, 1), FEATURE.max)


def inverse(value: IntArray) -> IntArray:
    """1 / value of positive features, as their type divides: floor(2**44 / value), wrapped for values up to 2**-9."""
    return _wrap((1 << (2 * FRAC)) // value)


@njit(cache=True, nogil=True)
def _weighted(probabilities: Any, v: Any, frac: int, out: Any) -> None:
    for i in range(probabilities.shape[0]):
        for d in range(v.shape[1]):
            out[i, d] = 0
        for j in range(probabilities.shape[1]):
            p = probabilities[i, j]
            for d in range(v.shape[1]):
                out[i, d] += (v[j, d] * p) >> frac
        for d in range(v.shape[1]):
            out[i, d] = wrap(out[i, d])


def attention(q: IntArray, k: IntArray, v: IntArray, first: IntArray) -> tuple[IntArray, IntArray]:
    """Reordered attention: (output, scores).

    Args:
        q: (rows, tokens, head_dim) features, rows = images times heads.
        k: as q.
        v: as q.
        first: (tokens,) the key each row meets first.
    """
    rows, tokens, _ = q.shape
    score = scores(q, k)
    flat = score.reshape(-1, tokens)
    maxima, sums = single_pass(flat, np.tile(first, rows))
    weights = (exponentials(flat, maxima) * reciprocal(sums)[:, None]) >> FRAC
    weights = weights.reshape(rows, tokens, tokens)
    out = np.empty(q.shape, np.int64)

    def part(row: int) -> None:
        _weighted(weights[row], v[row], FRAC, out[row])

    _each(part, range(rows))
    return out, score


def floor_sqrt(value: IntArray) -> IntArray:
    """floor(sqrt(value)) of integers from 0 to 2**62, exactly."""
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root -= root * root > value
    return root + ((root + 1) * (root + 1) <= value)


def layer_norm(x: IntArray, gamma: IntArray, beta: IntArray, *, norm_frac: int) -> IntArray:
    """LayerNorm as mean(x * x) - mean(x)**2, every product floored; features in and out.

    The reciprocal of a deviation up to 2**-9 wraps: nearly constant tokens get any multiple of themselves. A variance
    that is not positive (floors and wraps can make it so) has no root to divide by; it is taken as one unit, whose
    reciprocal wraps to 0, so that such a token becomes `beta`.

    Args:
        x: (tokens, channels) features.
        gamma: (channels,) with `norm_frac` fraction bits.
        beta: as gamma.
        norm_frac: fraction bits of gamma and beta.
    """
    share = ONE // x.shape[1]
    part = (x * share) >> FRAC
    mean = _wrap(part.sum(axis=1))
    squares = _wrap(((x * part) >> FRAC).sum(axis=1))
    variance = _wrap(squares - ((mean * mean) >> FRAC) + 4)
    deviation = floor_sqrt(np.maximum(variance, 1) << FRAC)
    y = _wrap((_wrap(x - mean[:, None]) * inverse(deviation)[:, None]) >> FRAC)
    y = _wrap((y * gamma) >> norm_frac)
    return _wrap(y + (beta << (FRAC - norm_frac)))


def _wrap(values: IntArray) -> IntArray:
    return ((values + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def add(x: IntArray, y: IntArray) -> IntArray:
    """Sum of features, wrapped."""
    return _wrap(x + y)


def scale(y: IntArray, score: IntArray) -> IntArray:
    """Product of features, floored and wrapped."""
    return _wrap((y * score) >> FRAC)
