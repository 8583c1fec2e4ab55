"""What became of a case."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        state: "failed", or how the case ended well.
        detail: in words; of a failure, all that is needed to understand it.
        count: examples that the case tried.
    """

    state: str
    detail: str
    count: int = 1
