"""Router: which experts a token visits, with what weight, and the queues that experts work through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysim.gates import GateKind
from pysim.kernels.softmax import probabilities, single_pass

IntArray = NDArray[np.int64]


def top_k(logits: IntArray, k: int) -> IntArray:
    """(tokens, k) indices of the k largest logits of each row, largest first; the lowest index wins a tie."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


@dataclass(frozen=True)
class Routing:
    """The choices of one MoE layer.

    Attributes:
        experts: (tokens, k) chosen experts, best first.
        scores: (tokens, k) their weights in `PROBABILITY`.
        count: number of experts of the layer.
    """

    experts: IntArray
    scores: IntArray
    count: int

    def queue(self, expert: int) -> tuple[IntArray, IntArray]:
        """Token numbers, in token order, that chose `expert`, and its score for each."""
        tokens, choice = np.nonzero(self.experts == expert)
        return tokens, self.scores[tokens, choice]

    @property
    def lengths(self) -> IntArray:
        """(experts,) tokens in each expert's queue."""
        return np.bincount(self.experts.ravel(), minlength=self.count)

    @property
    def active(self) -> IntArray:
        """The queue of experts that have any token, in ascending order."""
        return np.flatnonzero(self.lengths)


def route(logits: IntArray, k: int, kind: GateKind) -> Routing:
    """Top-k of the logits, with single-pass softmax scores.

    The choice is made on the logits, which softmax leaves in order, so that two probabilities that round to
    the same integer do not turn into a tie.

    Args:
        logits: (tokens, experts) integers in `SCORE`.
        k: experts per token, at most the number of experts.
        kind: which logits the softmax of the scores sums over.
    """
    chosen = top_k(logits, k)
    selected = np.take_along_axis(logits, chosen, axis=1)
    start = np.zeros(len(logits), np.int64)
    maxima, sums = single_pass(kind.terms(logits, selected), start)
    return Routing(chosen, probabilities(selected, maxima, sums), logits.shape[1])
