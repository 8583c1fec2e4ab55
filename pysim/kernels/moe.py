"""Expert-by-expert execution over queues (Edge-MoE, section IV-E): each expert's weights are loaded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pysim.datapath import PROBABILITY
from pysim.formats import Format
from pysim.kernels.linear import Requantise
from pysim.kernels.router import Routing

IntArray = NDArray[np.int64]

GATE_SCALE = Requantise(np.ones(1, np.int64), np.full(1, PROBABILITY.frac))
"""Product of an expert's output and a gate score, back to the output's units."""


def run_experts(
    residual: IntArray,
    tokens: IntArray,
    routing: Routing,
    expert: Callable[[int, IntArray], IntArray],
    out: Format,
) -> IntArray:
    """Add the gate-weighted outputs of the chosen experts to the residual stream.

    Experts run in ascending order; each addition saturates, as the write-back of the linear engine does.

    Args:
        residual: (tokens, dim) in `out`.
        tokens: (tokens, dim) normalised tokens, the experts' input.
        routing: choices and scores.
        expert: output (n, dim) in `out` of an expert for n tokens.
        out: format of the residual stream.
    """
    result = residual.copy()
    for number in routing.active.tolist():
        queue, scores = routing.queue(number)
        _add_weighted(
            expert(number, tokens[queue]),
            scores,
            queue,
            int(GATE_SCALE.half[0]),
            int(GATE_SCALE.shift[0]),
            out.min,
            out.max,
            result,
        )
    return result


@njit(cache=True, nogil=True)
def _add_weighted(
    values: Any, scores: Any, queue: Any, half: int, shift: int, low: int, high: int, result: Any
) -> None:
    for i in range(values.shape[0]):
        score, token = scores[i], queue[i]
        for c in range(values.shape[1]):
            value = ((np.int64(values[i, c]) * score + half) >> shift) + result[token, c]
            result[token, c] = min(max(value, low), high)
