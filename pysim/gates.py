"""Kinds of gates, a row each: how the weights of the chosen experts are made of all logits."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

Logits = TypeVar("Logits")


class GateKind(Enum):
    """Which logits the softmax of a gate sums over. The experts are the `top_k` largest logits in any kind."""

    OVER_ALL = "softmax-topk"
    """All of them; the weights of the chosen experts sum to less than 1."""
    OVER_SELECTED = "topk-softmax"
    """Those of the chosen experts, whose weights sum to 1."""

    def terms(self, logits: Logits, selected: Logits) -> Logits:
        """What the softmax sums over: all logits of a token, or those of its chosen experts."""
        return selected if self.over_selected else logits

    @property
    def over_selected(self) -> bool:
        """The flag that tells the kinds apart in hardware."""
        return self is GateKind.OVER_SELECTED


GATE_KINDS: Mapping[str, GateKind] = {kind.value: kind for kind in GateKind}
"""Every kind by its name in a `model.toml`."""
