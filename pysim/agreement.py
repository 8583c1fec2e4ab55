"""Agreement of two routings, and whether one of two candidates agrees better than chance explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

DEVIATIONS = 2.0
"""Standard deviations from which on a difference of agreement is more than chance."""


def agreeing(chosen: IntArray, own: IntArray) -> BoolArray:
    """(tokens, k) whether each of (tokens, k) chosen experts is among another choice, in whatever order."""
    return np.asarray((chosen[:, :, None] == own[:, None, :]).any(axis=2))


@dataclass(frozen=True)
class Paired:
    """Count of the choices that two candidates make unlike, of which one is right.

    Attributes:
        gained: choices that only the second makes as the float network does.
        lost: choices that only the first makes as the float network does.
    """

    gained: int = 0
    lost: int = 0

    def add(self, first: BoolArray, second: BoolArray) -> Paired:
        """The counts with those of further choices, each marked where it is right."""
        return Paired(self.gained + int((second & ~first).sum()), self.lost + int((first & ~second).sum()))

    @property
    def _beyond_chance(self) -> bool:
        # A sign test, as of tosses of a coin (McNemar): their difference has a variance of their number.
        return abs(self.gained - self.lost) > DEVIATIONS * (self.gained + self.lost) ** 0.5

    @property
    def better(self) -> bool:
        """Whether the second agrees better, beyond chance."""
        return self.gained > self.lost and self._beyond_chance

    @property
    def worse(self) -> bool:
        """Whether the second agrees less, beyond chance."""
        return self.lost > self.gained and self._beyond_chance


def best(candidates: Sequence[IntArray], own: IntArray) -> int:
    """Index of the first of some candidates' (tokens, k) choices that no later one beats beyond chance."""
    chosen = 0
    for index in range(1, len(candidates)):
        first, second = (agreeing(candidates[i], own) for i in (chosen, index))
        if Paired().add(first, second).better:
            chosen = index
    return chosen
