"""Base of the searches of a board's room: the fastest hardware, and what is short where nothing fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from boards import Board
from codegen.fit.space import Fixed, Limits
from codegen.fit.times import Queues
from codegen.hardware import Hardware
from codegen.performance import Performance, evaluate, on_board
from common.errors import InputError
from pysim.network import Network

Progress = Callable[[int, int], Any]

NONE: Final = 1 << 60
"""Cycles of what does not fit."""
ENDLESS: Final = 1 << 40
"""More of a resource than any board has."""
NEAR: Final = 0.02
"""Step with which the need of a resource is found."""


@dataclass(frozen=True)
class Fitted:
    """The fastest hardware within limits.

    Attributes:
        hardware: its sizes.
        performance: its estimate on the board.
    """

    hardware: Hardware
    performance: Performance


class Space(ABC):
    """The space of a network on a board; what was computed for one search serves the next.

    Args:
        network: shape and precision.
        board: the board.
        clock_mhz: clock; the board's default where it is not given.
        batch: images that go through together.
        queues: lengths of the experts' queues, where they are known.
        fixed: fields of `Hardware` that are given.
    """

    def __init__(
        self,
        network: Network,
        board: Board,
        *,
        clock_mhz: float | None = None,
        batch: int = 1,
        queues: Queues | None = None,
        fixed: Fixed | None = None,
    ) -> None:
        self.network, self.board, self.batch, self.queues = network, board, batch, queues
        self.fixed = fixed or {}
        self.clock_mhz = board.clock_mhz_default if clock_mhz is None else clock_mhz

    @abstractmethod
    def run(self, limits: Limits, least_cycles: int = 0, progress: Progress | None = None) -> Fitted | None:
        """The fastest hardware within limits, or None.

        Args:
            limits: the most that it may take.
            least_cycles: what no hardware within the limits beats, if such a bound is known.
            progress: called with the widths of words that are done, and in total.
        """

    def fitted(self, hardware: Hardware) -> Fitted:
        """Hardware with its estimate."""
        architecture = on_board(self.network, self.board, hardware, self.batch)
        return Fitted(hardware, evaluate(architecture, self.board, self.batch, self.queues))

    def fastest(self, limits: Limits, progress: Progress | None = None) -> Fitted:
        """The fastest hardware within limits.

        Raises:
            InputError: nothing fits.
        """
        found = self.run(limits, progress=progress)
        if found is None:
            network = self.network
            raise InputError(
                f"no hardware for {network.spec.name} in {network.precision.name} fits {self.board.name}: "
                f"{self._missing(limits)}",
                hint="choose a narrower precision, a larger board, or more of a resource (--margin)",
            )
        return found

    def _missing(self, limits: Limits) -> str:
        """The resource that is short, if it is one alone, and by how much."""
        for name in ("bram36", "lut", "dsp", "uram"):
            there = getattr(limits, name)
            if self.run(limits.but(**{name: ENDLESS}), NONE) is None:
                continue
            low, high = float(there), max(2.0 * there, 8.0)
            while self.run(limits.but(**{name: int(high)}), NONE) is None:
                low, high = high, 2 * high
            while high - low > max(1, NEAR * high):
                middle = (low + high) / 2
                if self.run(limits.but(**{name: int(middle)}), NONE) is None:
                    low = middle
                else:
                    high = middle
            return f"{name} is short: about {high:,.0f} would do, {there:,g} may be used"
        return "more than one resource is short"
