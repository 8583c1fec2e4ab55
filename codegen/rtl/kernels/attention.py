"""Reordered attention: query rows in blocks, keys skewed, scores on chip."""

from __future__ import annotations

import numpy as np

from codegen.architecture import SOFTMAX_CYCLES, Architecture, attention_steps, ceil_div
from codegen.latency import ROUND_LATENCY, SOFTMAX_PASS_LATENCY, UNIT_LATENCY, tree_latency
from codegen.rtl.kernels.base import MEMORY, Call, Kernel, Source, Values, address_bits, controlled, engines
from codegen.rtl.kernels.softmax import PASS_SOURCE
from codegen.rtl.kernels.units import EXP2_SOURCES, RECIPROCAL_SOURCES
from codegen.rtl.streams import Field, IntArray, Register, Stream
from pysim.datapath import EXPONENTIAL, score_lift

START_LATENCY = 2
"""Cycles from a head in memory (or the one before out of the pipeline) to its first step."""

ANY_HEADS = 8
"""Bits of the number of heads where it is told at run time."""


def stage_cycles(lanes: int) -> dict[str, int]:
    """Cycles from a word's reading to what comes of it, all derived from the latencies of the parts.

    The second turn's distance is the only one at which each row's statistics are replaced after their last use
    and before their first, whatever the length of a step; see `docs/rtl.md`.
    """
    dot = 4 + tree_latency(lanes)
    score = dot + 1 + ROUND_LATENCY
    distance = score + SOFTMAX_PASS_LATENCY - 1
    weight = 3 + UNIT_LATENCY["exp2"]
    leave = distance + weight + 2
    assert leave - distance > 2 + UNIT_LATENCY["mantissa"]
    out = leave + ROUND_LATENCY + 3 + ROUND_LATENCY
    return {
        "dot": dot,
        "score_cycles": score,
        "distance": distance,
        "weight_cycles": weight,
        "leave_cycles": leave,
        "out_cycles": out,
    }


def attention_kernel(architecture: Architecture, *, any_size: bool = False) -> Kernel:
    """Attention of a Design; with `any_size`, of up to as many tokens, rows and words, told at run time."""
    lanes, spec, precision = architecture.lanes, architecture.spec, architecture.precision
    width = precision.attention_width
    tokens, words = spec.tokens, architecture.head_words
    rows = min(architecture.hardware.attention_rows, tokens)
    step = architecture.attention_step
    streams = (
        Stream("qkv", "in", tuple(Field(name, width, True, lanes) for name in "qkv")),
        Stream("mixed", "out", (Field("mixed", precision.activation_width, True, lanes),)),
    )
    depth = tokens * words
    key_bits, word_bits = tokens.bit_length(), words.bit_length()
    head_bits = ANY_HEADS if any_size else spec.heads.bit_length()
    step_bits = max(step, SOFTMAX_CYCLES).bit_length()
    head_address_bits = address_bits(2 * depth)
    registers = (Register("score_shift", 6), Register("attention_shift", 8, signed=True))
    sizes = {
        Register("heads", head_bits): spec.heads,
        Register("tokens", key_bits): tokens,
        Register("words", word_bits): words,
        Register("rows", key_bits): rows,
        Register("block_words", head_address_bits): rows * words,
        Register("step", step_bits): step,
    }
    names = {stream.name: stream for stream in streams} | {
        "rows": rows,
        "max_tokens": tokens,
        "max_words": words,
        "depth": depth,
        "head_bits": head_bits,
        "key_bits": key_bits,
        "word_bits": word_bits,
        "step_bits": step_bits,
        "address_bits": head_address_bits,
        "score_lift": score_lift(width),
        "weighted_bits": EXPONENTIAL.width + width + tokens.bit_length(),
    }
    own = Source("edgemoe_attention.sv", "attention.sv", names)
    parts = controlled("attention", "adder_tree", "product", "round_saturate")
    sources = (
        own,
        *engines("attention_core"),
        MEMORY,
        PASS_SOURCE,
        *EXP2_SOURCES,
        *RECIPROCAL_SOURCES,
        *parts,
    )
    kernel = Kernel("attention", "Reordered attention", streams, sources, registers, sizes, has_flag=True)
    return kernel.with_sizes() if any_size else kernel


def call(
    kernel: Kernel,
    name: str,
    q: IntArray,
    k: IntArray,
    v: IntArray,
    *,
    attention_rows: int,
    score_shift: int,
    attention_shift: int,
) -> Call:
    """Attention over (heads, tokens, head_dim) queries, keys and values."""
    stream = kernel.stream("qkv")
    lanes = stream.fields[0].lanes
    heads, tokens, head_dim = q.shape
    words = ceil_div(head_dim, lanes)

    def padded(values: IntArray) -> IntArray:
        return np.pad(values, ((0, 0), (0, 0), (0, words * lanes - head_dim))).reshape(heads, -1, lanes)

    parts = {"q": padded(q), "k": padded(k), "v": padded(v)}
    frames = [stream.pack(**{part: values[head] for part, values in parts.items()}) for head in range(heads)]
    # As in the weight image: all products are shifted left first.
    lift = score_lift(stream.fields[0].bits)
    registers = {"score_shift": score_shift + lift, "attention_shift": attention_shift}
    if any(register.name == "tokens" for register in kernel.registers):
        rows = min(attention_rows, tokens)
        registers |= {
            "heads": heads,
            "tokens": tokens,
            "words": words,
            "rows": rows,
            "block_words": rows * words,
            "step": max(words, SOFTMAX_CYCLES),
        }
    return Call(name, {"qkv": frames}, {"mixed": heads}, registers)


def output(values: Values, heads: int, head_dim: int) -> IntArray:
    """(heads, tokens, head_dim)."""
    mixed = values["mixed"]["mixed"]
    words = ceil_div(head_dim, mixed.shape[1])
    return mixed.reshape(heads, -1, words * mixed.shape[1])[..., :head_dim]


def cycles(architecture: Architecture, heads: int, tokens: int, head_dim: int, attention_rows: int) -> int:
    """Cycles of a call: the first head comes in, then one head after the other is computed."""
    words = ceil_div(head_dim, architecture.lanes)
    before_last = (attention_steps(tokens, attention_rows) - 1) * max(words, SOFTMAX_CYCLES)
    head = before_last + words + stage_cycles(architecture.lanes)["out_cycles"]
    return tokens * words + START_LATENCY + (heads - 1) * (head + START_LATENCY) + head
