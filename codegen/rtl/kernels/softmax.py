"""Single-pass softmax over rows of scores."""

from __future__ import annotations

from collections.abc import Sequence

from codegen.architecture import Architecture
from codegen.latency import ROUND_LATENCY, SLICE_LATENCY, SOFTMAX_PASS_LATENCY, UNIT_LATENCY
from codegen.rtl.kernels.base import Call, Kernel, Source, address_bits, common
from codegen.rtl.kernels.units import EXP2_SOURCES, RECIPROCAL_SOURCES
from codegen.rtl.streams import Field, IntArray, Stream
from pysim.datapath import PROBABILITY, SCORE

MAXIMUM_BITS = SCORE.width - SCORE.frac + 1
"""Bits of a running maximum: a whole number, a score rounded up."""

SECOND_PASS_LATENCY = 3 + UNIT_LATENCY["exp2"] + 2 + ROUND_LATENCY
"""Score from memory, its register, distance; exponential; product; rounding."""

LEAST_EXACT_KEYS = 12
"""Shorter rows wait for each other's statistics: `cycles` holds from here on."""

PASS_SOURCE = Source("edgemoe_softmax_pass.sv", "common/softmax_pass.sv")


def softmax_kernel(architecture: Architecture) -> Kernel:
    """Rows of scores to probabilities, with each row's maximum and sum."""
    keys = architecture.softmax_keys
    streams = (
        Stream("scores", "in", (Field("score", SCORE.width),)),
        Stream("probabilities", "out", (Field("probability", PROBABILITY.width, False),)),
        Stream(
            "statistics",
            "out",
            (Field("sum", architecture.softmax_sum_bits, False), Field("maximum", MAXIMUM_BITS)),
        ),
    )
    names = {stream.name: stream for stream in streams} | {
        "max_keys": keys,
        "key_bits": address_bits(keys),
        "second_pass_latency": SECOND_PASS_LATENCY,
    }
    own = Source("edgemoe_softmax.sv", "softmax.sv", names)
    sources = (
        own,
        PASS_SOURCE,
        *EXP2_SOURCES,
        *RECIPROCAL_SOURCES,
        *common("adder_tree", "product", "round_saturate"),
    )
    return Kernel("softmax", "Single-pass softmax", streams, sources, has_flag=True)


def call(kernel: Kernel, name: str, rows: Sequence[IntArray]) -> Call:
    """Softmax of rows of scores, of any lengths."""
    frames = [kernel.stream("scores").pack(score=row) for row in rows]
    return Call(name, {"scores": frames}, {"probabilities": len(rows), "statistics": len(rows)})


def cycles(rows: int, keys: int) -> int:
    """Cycles from the first score of rows of the same length to their last probability."""
    first_row = keys + SOFTMAX_PASS_LATENCY + UNIT_LATENCY["mantissa"]
    return first_row + rows * keys + SECOND_PASS_LATENCY + SLICE_LATENCY
