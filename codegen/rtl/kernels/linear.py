"""Linear engine: run-time sizes, ping-pong weights, and a way for the results of each kind of layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import INDEX_BITS, Architecture, ceil_div
from codegen.latency import ROUND_LATENCY, SLICE_LATENCY, UNIT_LATENCY, tree_latency
from codegen.rtl.kernels.base import MEMORY, Call, Kernel, Source, Values, address_bits, controlled, engines
from codegen.rtl.kernels.units import ACTIVATED_BITS, activation_sources
from codegen.rtl.streams import Bytes, Field, IntArray, Register, Stream
from pysim.datapath import MULTIPLIER_WIDTH, PROBABILITY
from pysim.program import Destination

CORE = ("linear_core", "linear_sequencer", "weight_buffer", "mac_array", "write_back")
"""Modules of the engine behind its streams."""


def write_cycles(architecture: Architecture) -> int:
    """The longest way of a result: sum, multiplier, rounding, saturation, activation, multiplier, rounding."""
    return 1 + 2 + ROUND_LATENCY + 1 + UNIT_LATENCY[architecture.network.activation.unit] + 2 + ROUND_LATENCY


def sum_cycles(lanes: int) -> int:
    """Cycles from an operand word to the sum that it completes: memory, two registers, products, their tree."""
    return 4 + tree_latency(lanes)


def max_group(architecture: Architecture) -> int:
    """Blocks that half of the weight buffer can tell apart."""
    return architecture.max_group


def linear_kernel(architecture: Architecture, *, words: int | None = None) -> Kernel:
    """The linear engine of a Design.

    Args:
        architecture: of the Design.
        words: operand words that a token may have at most; what the Design's own layers have if not given.
    """
    lanes, precision = architecture.lanes, architecture.precision
    hardware = architecture.hardware
    shapes = architecture.shapes.values()
    in_words = words or max(shape.in_words for shape in shapes)
    blocks = max(shape.blocks for shape in shapes) if words is None else max(words, 64)
    group = max_group(architecture)
    parts = architecture.outputs // lanes
    tiles = ceil_div(architecture.batch_tokens, hardware.token_tile)
    residual = architecture.network.residual_width
    widest = max(residual, precision.attention_width, precision.activation_width)
    hidden_multiplier_bits = MULTIPLIER_WIDTH if precision.multipliers else 1
    streams = (
        Stream("x", "in", (Field("x", architecture.operand_width, True, lanes),)),
        Stream("weights", "in", (Field("byte", 8, False, architecture.beat_bytes),)),
        Stream("old", "in", (Field("old", residual, True, lanes), Field("score", PROBABILITY.width, False))),
        Stream("y", "out", (Field("y", widest, True, lanes),)),
    )
    word_bits, block_bits = in_words.bit_length(), blocks.bit_length()
    out_word_bits = (blocks * parts).bit_length()
    registers = (
        Register("tokens", INDEX_BITS),
        Register("in_words", word_bits),
        Register("out_words", out_word_bits),
        Register("blocks", block_bits),
        Register("destination", 2),
        Register("hidden_multiplier", hidden_multiplier_bits),
        Register("hidden_shift", 6),
        Register("hidden_zero", precision.activation_width, signed=True),
    )
    names = {stream.name: stream for stream in streams} | {
        "token_bits": INDEX_BITS,
        "word_bits": word_bits,
        "out_word_bits": out_word_bits,
        "block_bits": block_bits,
        "x_depth": tiles * in_words,
        "x_address_bits": address_bits(tiles * in_words),
        "max_group": group,
        "step_bits": max(in_words, architecture.write_steps).bit_length(),
        "tile_bits": address_bits(hardware.token_tile),
        "activated_bits": ACTIVATED_BITS,
    }
    own = Source("edgemoe_linear.sv", "linear.sv", names)
    dot = "dot_pair" if architecture.packed else "dot"
    parts_used = controlled("linear", dot, "collector", "adder_tree", "product", "round_saturate", "saturate")
    return Kernel(
        "linear",
        "Linear engine",
        streams,
        (own, *engines(*CORE), MEMORY, *activation_sources(architecture.network.activation), *parts_used),
        registers,
        has_flag=True,
    )


@dataclass(frozen=True)
class Job:
    """Sizes of one layer for so many tokens.

    Attributes:
        tokens: rows of operands.
        in_words: operand words a token.
        out_words: result words a token.
        blocks: blocks of outputs.
    """

    tokens: int
    in_words: int
    out_words: int
    blocks: int

    def order(self, architecture: Architecture) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(token, word) of each result, in the order in which results leave and old values are taken."""
        pairs = list(self._order(architecture.outputs // architecture.lanes, _tile(architecture)))
        tokens, words = np.array(pairs, np.intp).reshape(-1, 2).T
        return tokens, words

    def _order(self, parts: int, tile: int) -> Iterator[tuple[int, int]]:
        for block in range(self.blocks):
            for first in range(0, self.tokens, tile):
                for token in range(first, min(first + tile, self.tokens)):
                    for word in range(block * parts, min((block + 1) * parts, self.out_words)):
                        yield token, word


def _tile(architecture: Architecture) -> int:
    return architecture.hardware.token_tile


def job_of(architecture: Architecture, tokens: int, inputs: int, outputs: int) -> Job:
    """The job of a layer of so many channels in and out."""
    blocks = ceil_div(outputs, architecture.outputs)
    return Job(tokens, architecture.words(inputs), architecture.words(outputs), blocks)


def call(
    kernel: Kernel,
    architecture: Architecture,
    name: str,
    x: IntArray,
    weights: Bytes,
    outputs: int,
    destination: Destination,
    *,
    old: IntArray | None = None,
    scores: IntArray | None = None,
    hidden: tuple[int, int, int] = (1, 0, 0),
) -> Call:
    """One layer.

    Args:
        kernel: the kernel.
        architecture: of its Design.
        name: for messages.
        x: (tokens, inputs) operands.
        weights: (beats, bytes) of the layer, as the weight image holds it.
        outputs: channels.
        destination: of the results.
        old: (tokens, outputs) that results are added to, where the destination takes them.
        scores: (tokens,) gate scores, for experts.
        hidden: multiplier, shift and zero point behind the activation function.
    """
    lanes = architecture.lanes
    job = job_of(architecture, len(x), x.shape[1], outputs)
    padded = np.pad(x, ((0, 0), (0, job.in_words * lanes - x.shape[1])))
    inputs = {"x": [kernel.stream("x").pack(x=padded.reshape(-1, lanes))], "weights": [weights]}
    if destination.takes_old:
        assert old is not None
        tokens, words = job.order(architecture)
        old_words = np.pad(old, ((0, 0), (0, job.out_words * lanes - outputs))).reshape(len(x), -1, lanes)
        gate = np.zeros(len(x), np.int64) if scores is None else scores
        inputs["old"] = [kernel.stream("old").pack(old=old_words[tokens, words], score=gate[tokens])]
    multiplier, shift, zero = hidden
    registers = {
        "tokens": job.tokens,
        "in_words": job.in_words,
        "out_words": job.out_words,
        "blocks": job.blocks,
        "destination": int(destination),
        "hidden_multiplier": multiplier,
        "hidden_shift": shift,
        "hidden_zero": zero,
    }
    return Call(name, inputs, {"y": 1}, registers)


def output(architecture: Architecture, values: Values, job: Job, outputs: int) -> IntArray:
    """(tokens, outputs)."""
    words = np.empty((job.tokens, job.out_words, architecture.lanes), np.int64)
    words[job.order(architecture)] = values["y"]["y"]
    return words.reshape(job.tokens, -1)[:, :outputs]


def cycles(architecture: Architecture, job: Job) -> int:
    """Cycles of a call: operands and the first group come in, then each group computes as the next one loads.

    Times are cycles, the first beat's being 1. A half of the weight buffer takes the next group but one as soon as
    the last of its records has been used.
    """
    rounds = max(job.in_words, architecture.write_steps)
    tiles = ceil_div(job.tokens, _tile(architecture))
    block_beats = architecture.record_beats + job.in_words * architecture.word_beats
    most = min(architecture.hardware.weight_rows // job.in_words, max_group(architecture))
    groups = [min(most, job.blocks - first) for first in range(0, job.blocks, most)]
    to_sum = sum_cycles(architecture.lanes)
    loaded, start, ends = 0, 0, [0, 0]
    for number, blocks in enumerate(groups):
        free = ends[-2] + to_sum + 1 if number >= 2 else 0
        loaded = max(loaded, free) + blocks * block_beats
        here = max(loaded, job.tokens * job.in_words) + 1
        follows = number > 0 and here <= ends[-1]
        start = ends[-1] + 1 if follows else max(here, ends[-1] + 1) + 1
        ends.append(start + (blocks * tiles + 1) * rounds - 1)
    parts = architecture.outputs // architecture.lanes
    last = (job.tokens - 1) % _tile(architecture) * parts + (job.out_words - 1) % parts
    return ends[-1] - rounds + 1 + last + to_sum + write_cycles(architecture) + SLICE_LATENCY
