"""LayerNorm from exact integer sums."""

from __future__ import annotations

import numpy as np

from codegen.architecture import INDEX_BITS, NORM_LATENCY, Architecture, ceil_div, norm_lag
from codegen.latency import LONG_PRODUCT_LATENCY, ROUND_LATENCY, SLICE_LATENCY, UNIT_LATENCY, tree_latency
from codegen.rtl.kernels.base import Call, Kernel, Source, Values, controlled, engines
from codegen.rtl.kernels.units import RSQRT_SOURCES
from codegen.rtl.streams import Bytes, Field, IntArray, Register, Stream
from pysim.arithmetic import REQUANTISE

NORMALISE_CYCLES = 2 + 2 + 3 + ROUND_LATENCY + 2 + ROUND_LATENCY
"""Word from memory, its register; scaling, centring; deviation; rounding; gamma, beta; rounding."""


def statistics_cycles(lanes: int) -> int:
    """Cycles from the last word of a token to its reciprocal deviation in memory."""
    return 4 + tree_latency(lanes) + LONG_PRODUCT_LATENCY + 1 + UNIT_LATENCY["mantissa"] + 1


def layernorm_kernel(architecture: Architecture, channels: int | None = None) -> Kernel:
    """LayerNorm of a Design; or, given a number of channels, of up to as many, told at run time."""
    lanes, precision = architecture.lanes, architecture.precision
    largest = channels or architecture.spec.dim
    words = ceil_div(largest, lanes)
    dim_bits, word_bits = largest.bit_length(), words.bit_length()
    longest_lag = norm_lag(1, NORM_LATENCY[REQUANTISE]) if channels else architecture.norm_lag
    assert statistics_cycles(lanes) <= NORM_LATENCY[REQUANTISE]
    streams = (
        Stream("parameters", "in", (Field("byte", 8, False, architecture.beat_bytes),)),
        Stream("x", "in", (Field("x", architecture.network.residual_width, True, lanes),)),
        Stream(
            "y",
            "out",
            (
                Field("operand", precision.activation_width, True, lanes),
                Field("gate_operand", precision.gate_width, True, lanes),
            ),
        ),
    )
    registers = (
        Register("tokens", INDEX_BITS),
        Register("epsilon", 64),
        Register("shift", 6),
        Register("gate_shift", 6),
    )
    sizes = {
        Register("dim", dim_bits): architecture.spec.dim,
        Register("words", word_bits): architecture.token_words,
        Register("lag", longest_lag.bit_length()): architecture.norm_lag,
    }
    names = {stream.name: stream for stream in streams} | {
        "dim_bits": dim_bits,
        "word_bits": word_bits,
        "token_bits": INDEX_BITS,
        "lag_bits": longest_lag.bit_length(),
        "slot_bits": longest_lag.bit_length(),
        # The longest wait in words: of few words the lag, of many words two tokens.
        "wait_bits": max(norm_lag(w, NORM_LATENCY[REQUANTISE]) * w for w in (1, words)).bit_length(),
        "activation_stored": streams[2].field("operand").stored,
        "gate_stored": streams[2].field("gate_operand").stored,
    }
    own = Source("edgemoe_layernorm.sv", "layernorm.sv", names)
    parts = controlled("layernorm", "collector", "adder_tree", "product", "round_saturate")
    kernel = Kernel(
        "layernorm",
        "LayerNorm",
        streams,
        (own, *engines("norm_core"), *RSQRT_SOURCES, *parts),
        registers,
        sizes,
        has_flag=True,
    )
    return kernel.with_sizes() if channels else kernel


def call(
    kernel: Kernel,
    name: str,
    x: IntArray,
    parameters: Bytes,
    *,
    epsilon: int,
    shift: int,
    gate_shift: int,
) -> Call:
    """Normalise x (tokens, channels) with the beats (beats, bytes) of its gamma and beta."""
    stream = kernel.stream("x")
    lanes = stream.fields[0].lanes
    tokens, channels = x.shape
    words = ceil_div(channels, lanes)
    padded = np.zeros((tokens, words * lanes), np.int64)
    padded[:, :channels] = x
    registers = {"tokens": tokens, "epsilon": epsilon, "shift": shift, "gate_shift": gate_shift}
    if any(register.name == "dim" for register in kernel.registers):
        registers |= {"dim": channels, "words": words, "lag": norm_lag(words, NORM_LATENCY[REQUANTISE])}
    inputs = {"parameters": [parameters], "x": [stream.pack(x=padded.reshape(-1, lanes))]}
    return Call(name, inputs, {"y": 1}, registers)


def outputs(values: Values, channels: int) -> dict[str, IntArray]:
    """Operands of the linear engine and of the router, (tokens, channels) each."""

    def tokens(part: IntArray) -> IntArray:
        words = ceil_div(channels, part.shape[1])
        return part.reshape(-1, words * part.shape[1])[:, :channels]

    return {name: tokens(part) for name, part in values["y"].items()}


def cycles(architecture: Architecture, tokens: int, channels: int) -> int:
    """Cycles of a call: parameters, then tokens and lag, then the way out."""
    words = ceil_div(channels, architecture.lanes)
    steps = (tokens + norm_lag(words, NORM_LATENCY[REQUANTISE])) * words
    return words * architecture.norm_word_beats + steps + NORMALISE_CYCLES + SLICE_LATENCY
