"""The original Edge-MoE as a design to compare with: M3ViT-tiny on a ZCU102 at 300 MHz.

Ideal cycles, counted from its published code with an initiation interval of 1 everywhere: 256 multiply-
accumulates a cycle, no weight loaded behind compute outside its experts, attention matrices in DRAM.
"""

from __future__ import annotations

from pysim.spec import ModelSpec

CLOCK_MHZ = 300.0

STAGE_CYCLES = {
    "patch embedding": 73_752,
    "norms": 74_304,
    "residual additions": 74_304,
    "weight loads outside the experts": 222_120,
    "queries, keys, values, projection": 891_648,
    "queries times keys": 1_226_016,
    "attention times values": 1_226_016,
    "dense MLPs": 891_648,
    "gates": 68_886,
    "experts, loads overlapped": 1_065_564,
}

TOTAL_CYCLES = 5_836_290
"""Cycles of an image, 22,032 outside the stages above included."""
NARROW_PORTS_MS = 30.6
"""The same count when every beat of its 128-bit ports takes two cycles, as in its block design."""
PUBLISHED_MS = 34.64
"""Latency of one image in the paper."""
DRAM_BYTES = 160_000_000


def describes(spec: ModelSpec) -> bool:
    """Whether the original runs this network: it has one shape only."""
    moe = spec.moe
    return (
        (spec.image_size, spec.patch_size, spec.dim, spec.depth, spec.heads, spec.mlp_dim)
        == ((128, 256), 16, 192, 12, 3, 768)
        and moe is not None
        and (moe.experts, moe.hidden_dim, moe.top_k) == (16, 384, 2)
        and spec.moe_layers == frozenset(range(1, 12, 2))
    )


def ideal_ms() -> float:
    """Milliseconds an image of the ideal count."""
    return TOTAL_CYCLES / CLOCK_MHZ / 1e3
