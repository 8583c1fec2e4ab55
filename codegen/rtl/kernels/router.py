"""Router: logits, top-k, softmax, and queues of tokens for the experts."""

from __future__ import annotations

import numpy as np

from codegen.architecture import INDEX_BITS, Architecture, ceil_div
from codegen.latency import (
    ROUND_LATENCY,
    SLICE_LATENCY,
    SOFTMAX_PASS_LATENCY,
    UNIT_LATENCY,
    router_interval,
    tree_latency,
)
from codegen.rtl.kernels.base import MEMORY, Call, Kernel, Source, Values, address_bits, controlled, engines
from codegen.rtl.kernels.softmax import PASS_SOURCE
from codegen.rtl.kernels.units import EXP2_SOURCES, RECIPROCAL_SOURCES
from codegen.rtl.streams import Bytes, Field, IntArray, Register, Stream
from pysim.datapath import PROBABILITY
from pysim.kernels.router import Routing

START_LATENCY = 2
"""Cycles from the gate in memory to the first word."""

REQUANTISE_CYCLES = 3 + ROUND_LATENCY
"""Sum and record, product in two, rounding."""

SCORE_CYCLES = 1 + UNIT_LATENCY["exp2"] + 2 + ROUND_LATENCY
"""Distance, exponential, product, rounding."""


def sum_cycles(lanes: int) -> int:
    """Cycles from a word to the sum that it completes: memory, its register, products, their tree."""
    return 3 + tree_latency(lanes)


def router_kernel(architecture: Architecture, *, any_size: bool = False) -> Kernel:
    """The router of a Design; with `any_size`, of up to as many experts, ranks and words, told at run time."""
    spec, precision, lanes = architecture.spec, architecture.precision, architecture.lanes
    assert spec.moe is not None
    words, experts, top_k = architecture.token_words, architecture.experts, spec.moe.top_k
    over_selected = spec.moe.gate_kind.over_selected
    groups, tokens = architecture.gate_groups, architecture.batch_tokens
    router_lanes = architecture.router_lanes
    longest = router_interval(words, groups, router_lanes, top_k, True)
    expert_bits, rank_bits = experts.bit_length(), top_k.bit_length()
    step_bits = max(words, router_lanes).bit_length()
    streams = (
        Stream("gate", "in", (Field("byte", 8, False, architecture.beat_bytes),)),
        Stream("x", "in", (Field("x", precision.gate_width, True, lanes),)),
        Stream(
            "queues",
            "out",
            (
                Field("token", 32, False),
                Field("score", max(PROBABILITY.width, 32), False),
                Field("expert", 16, False),
                Field("rank", 16, False),
            ),
        ),
        Stream("active", "out", (Field("expert", 32, False), Field("length", 32, False))),
    )
    registers = (Register("tokens", INDEX_BITS),)
    sizes = {
        Register("words", step_bits): words,
        Register("experts", expert_bits): experts,
        Register("top_k", rank_bits): top_k,
        Register("over_selected", 1): int(over_selected),
        Register("group_steps", step_bits): max(words, router_lanes),
        Register("interval", longest.bit_length()): router_interval(
            words, groups, router_lanes, top_k, over_selected
        ),
    }
    names = {stream.name: stream for stream in streams} | {
        "max_experts": experts,
        "max_top_k": top_k,
        "max_tokens": tokens,
        "token_bits": INDEX_BITS,
        "word_bits": step_bits,
        "group_bits": groups.bit_length(),
        "expert_bits": expert_bits,
        "rank_bits": rank_bits,
        "interval_bits": longest.bit_length(),
        "weight_depth": groups * words,
        "queue_address_bits": address_bits(experts * tokens),
    }
    own = Source("edgemoe_router.sv", "router.sv", names)
    parts = controlled("router", "dot", "collector", "adder_tree", "product", "round_saturate")
    sources = (own, *engines("router_core"), MEMORY, PASS_SOURCE, *EXP2_SOURCES, *RECIPROCAL_SOURCES, *parts)
    kernel = Kernel("router", "Router", streams, sources, registers, sizes, has_flag=True)
    return kernel.with_sizes() if any_size else kernel


def call(
    kernel: Kernel,
    name: str,
    x: IntArray,
    gate: Bytes,
    *,
    experts: int,
    top_k: int,
    over_selected: bool,
    groups: int,
    router_lanes: int,
) -> Call:
    """Route x (tokens, channels) by the beats (beats, bytes) of a gate of `groups` groups of `router_lanes` experts."""
    stream = kernel.stream("x")
    lanes = stream.fields[0].lanes
    words = ceil_div(x.shape[1], lanes)
    padded = np.pad(x, ((0, 0), (0, words * lanes - x.shape[1])))
    registers = {"tokens": len(x)}
    if any(register.name == "experts" for register in kernel.registers):
        registers |= {
            "words": words,
            "experts": experts,
            "top_k": top_k,
            "over_selected": int(over_selected),
            "group_steps": max(words, router_lanes),
            "interval": router_interval(words, groups, router_lanes, top_k, over_selected),
        }
    inputs = {"gate": [gate], "x": [stream.pack(x=padded.reshape(-1, lanes))]}
    return Call(name, inputs, {"queues": 1, "active": 1}, registers)


def outputs(values: Values) -> dict[str, IntArray]:
    """Queues one behind the other (tokens, scores, experts, ranks), and the experts that have any, with lengths."""
    queues = {f"queue_{name}s": part.ravel() for name, part in values["queues"].items()}
    return queues | {
        "active": values["active"]["expert"].ravel(),
        "lengths": values["active"]["length"].ravel(),
    }


def expected_outputs(routing: Routing) -> dict[str, IntArray]:
    """The values that `outputs` must have."""
    queues = [routing.queue(int(expert)) for expert in routing.active]
    tokens = np.concatenate([tokens for tokens, _ in queues])
    experts = np.repeat(routing.active, routing.lengths[routing.active])
    return {
        "queue_tokens": tokens,
        "queue_scores": np.concatenate([scores for _, scores in queues]),
        "queue_experts": experts,
        "queue_ranks": (routing.experts[tokens] == experts[:, None]).argmax(axis=1),
        "active": routing.active,
        "lengths": routing.lengths[routing.active],
    }


def cycles(
    architecture: Architecture,
    shape: tuple[int, int],
    *,
    experts: int,
    top_k: int,
    over_selected: bool,
    last_active: int,
) -> int:
    """Cycles of a call with x of a shape (tokens, channels).

    The gate comes in, every token takes its interval, and the queues leave, up to that of the last expert that has
    any token.
    """
    tokens, words, groups = shape[0], architecture.words(shape[1]), architecture.gate_groups
    beats = architecture.gate_record_beats + groups * words * architecture.gate_word_beats
    entered = entered_cycles(architecture, *shape, groups, experts, top_k, over_selected)
    sent = 1 + last_active + 1 + tokens * top_k
    return beats + entered + sent + SLICE_LATENCY


def entered_cycles(
    architecture: Architecture,
    tokens: int,
    channels: int,
    groups: int,
    experts: int,
    top_k: int,
    over_selected: bool,
) -> int:
    """Cycles from the gate in memory, with so many groups of experts, to the last entry in a queue."""
    words, router_lanes = architecture.words(channels), architecture.router_lanes
    last_group, lane = divmod(experts - 1, router_lanes)
    last_logit = last_group * max(words, router_lanes) + words + sum_cycles(architecture.lanes) + lane
    each = router_interval(words, groups, router_lanes, top_k, over_selected)
    chosen = top_k if over_selected else 0
    statistics = SOFTMAX_PASS_LATENCY + UNIT_LATENCY["mantissa"]
    entered = (
        START_LATENCY + (tokens - 1) * each + last_logit + REQUANTISE_CYCLES + chosen + statistics + top_k
    )
    return entered + SCORE_CYCLES
