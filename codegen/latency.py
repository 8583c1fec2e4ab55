"""Latencies of the RTL's pipelines, in cycles: the templates build them, the cycle counts add them up."""

from __future__ import annotations

UNIT_LATENCY = {
    "exp2": 4,  # table, chord, sum, shift
    "mantissa": 5,  # leading one, alignment, table, chord, sum
    "gelu": 5,  # magnitude, table, its register, chord, difference
    "relu": 1,  # positive part
}
"""Function units."""

ROUND_LATENCY = 2
"""Shift, then rounding and saturation."""

LONG_PRODUCT_LATENCY = 4
"""A product of up to eight pieces of 27 x 18 bits, and their sum."""

SOFTMAX_PASS_LATENCY = 3 + UNIT_LATENCY["exp2"] + 1
"""Rounding up, maximum, distance; exponential; sum."""

SLICE_LATENCY = 1
"""A register slice at an output."""

LATENCY = UNIT_LATENCY | {"softmax_pass": SOFTMAX_PASS_LATENCY, "round": ROUND_LATENCY}
"""Latencies that the templates know by name."""


def tree_latency(terms: int) -> int:
    """Cycles of an adder tree, which adds two by two."""
    return (terms - 1).bit_length()


def _choice_cycles(top_k: int, over_selected: bool) -> int:
    """Least cycles between the last logits of two tokens, so that no top-k is overwritten while it is in use."""
    return 1 + (top_k if over_selected else 0) + SOFTMAX_PASS_LATENCY + UNIT_LATENCY["mantissa"] + top_k


def router_interval(words: int, groups: int, router_lanes: int, top_k: int, over_selected: bool) -> int:
    """Cycles a token takes in the router: those of its logits, or those of its choice where these are more."""
    return max(groups * max(words, router_lanes), _choice_cycles(top_k, over_selected))
