"""Capacities of an accelerator: the sizes of the largest network that it takes.

An accelerator whose job table is in memory runs every network that needs no more of any of them. One that has its
network synthesised in has that network's sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from common.errors import InputError


@dataclass(frozen=True)
class Capacities:
    """Capacities of an accelerator, or what a network needs of them.

    Attributes:
        max_batch: images of a call.
        max_tokens: tokens of an image. Memories have so many rows for each image of a batch.
        max_token_words: words of a token of the residual stream.
        max_head_words: words of an attention head.
        max_mixed_words: words of a row of queries, keys or values: all heads.
        max_row_words: words of a row of operands: the regions of a token, one behind the other.
        max_experts: experts of a layer; 0 without any.
        max_top_k: experts that a token chooses; 0 without any.
        max_tasks: tasks.
        max_jobs: jobs of the job table.
        max_group: blocks of outputs in half of the weight buffer. A network with larger groups is cut into more.
    """

    max_batch: int
    max_tokens: int
    max_token_words: int
    max_head_words: int
    max_mixed_words: int
    max_row_words: int
    max_experts: int
    max_top_k: int
    max_tasks: int
    max_jobs: int
    max_group: int

    @property
    def rows(self) -> int:
        """Rows of the memories, and entries of an expert's queue: the tokens of a whole batch."""
        return self.max_batch * self.max_tokens

    def as_dict(self) -> dict[str, int]:
        """The capacities by their names."""
        return {name: getattr(self, name) for name in CAPACITIES}

    def lacking(self, needed: Capacities) -> dict[str, tuple[int, int]]:
        """Capacities that do not suffice, by name: what is needed, and what there is."""
        there = self.as_dict()
        return {name: (count, there[name]) for name, count in needed.as_dict().items() if count > there[name]}

    def require(self, needed: Capacities, program: str) -> None:
        """Refuse a network that needs more.

        Args:
            needed: what it needs.
            program: what the message calls it.

        Raises:
            InputError: it needs more of some, which the message names.
        """
        lacking = self.lacking(needed)
        if lacking:
            raise InputError(
                f"{program} does not fit the accelerator: {lacking_text(lacking)}",
                hint="generate an accelerator that holds it: "
                + " ".join(f"--set {name}={needs}" for name, (needs, _) in lacking.items()),
            )


def lacking_text(lacking: Mapping[str, tuple[int, int]]) -> str:
    """Capacities that do not suffice, as `Capacities.lacking` gives them, for people."""
    return "; ".join(
        f"{name}: it needs {needs:,}, the accelerator holds {there:,}"
        for name, (needs, there) in lacking.items()
    )


CAPACITIES: Final = tuple(field.name for field in fields(Capacities))
"""Names of the capacities, `max_batch` first: of the fields, of the keys in a manifest, and of the registers."""
