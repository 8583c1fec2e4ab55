"""Kinds of gates, a row each: how the weights of the chosen experts are made of all logits."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

Logits = TypeVar("Logits")


class GateKind(Enum):
    """Kind of a gate: the logits that its softmax sums over. In any kind it chooses the `top_k` largest."""

    OVER_ALL = "softmax-topk"
    """All logits; the weights of the chosen experts sum to less than 1."""
    OVER_SELECTED = "topk-softmax"
    """Logits of the chosen experts, whose weights sum to 1."""

    def terms(self, logits: Logits, selected: Logits) -> Logits:
        """Terms of the softmax: all logits of a token, or those of its chosen experts."""
        return selected if self.over_selected else logits

    @property
    def over_selected(self) -> bool:
        """Flag that tells the kinds apart in hardware."""
        return self is GateKind.OVER_SELECTED


GATE_KINDS: Mapping[str, GateKind] = {kind.value: kind for kind in GateKind}
"""Every kind by its name in a `model.toml`."""
