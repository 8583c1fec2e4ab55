"""Expert-by-expert execution over queues (Edge-MoE, section IV-E): each expert's weights are loaded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
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
    for number in routing.active:
        queue, scores = routing.queue(int(number))
        weighted = expert(int(number), tokens[queue]) * scores[:, None]
        result[queue] = GATE_SCALE(weighted, out, result[queue])
    return result
