"""The whole accelerator in SystemVerilog: its sizes, and the generated top with its registers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from codegen.architecture import (
    NORM_LATENCY,
    PACK_BITS,
    RECORD_BYTES,
    SHIFT_BITS,
    Architecture,
    ceil_div,
    norm_lag,
    setting_names,
)
from codegen.context import TOP
from codegen.hardware import MemoryKind
from codegen.hwh import argument_offsets, control_registers
from codegen.latency import UNIT_LATENCY, router_interval
from codegen.manifest import rtl_arguments
from codegen.rtl.kernels.base import Source
from codegen.rtl.kernels.softmax import MAXIMUM_BITS
from codegen.rtl.kernels.units import (
    ACTIVATED_BITS,
    EXP2_SOURCES,
    RECIPROCAL_SOURCES,
    RSQRT_SOURCES,
    activation_sources,
)
from codegen.rtl.library import write_library
from codegen.rtl.render import rtl_contexts, rtl_sources
from pysim import datapath
from pysim.arithmetic import REQUANTISE

MODULE: Final = "edgemoe_accelerator"
"""Library module that the generated top instantiates."""

STYLES: Final[Mapping[MemoryKind, str]] = {"lut": "distributed", "block": "block", "ultra": "ultra"}
"""Kinds of memory, as Vivado spells them in the attribute `ram_style` (UG901)."""

READ_SIGNALS: Final = (
    *(f"AR{signal}" for signal in ("ADDR", "LEN", "SIZE", "BURST", "VALID", "READY")),
    *(f"R{signal}" for signal in ("DATA", "RESP", "LAST", "VALID", "READY")),
)
"""Signals of an AXI4 port that reads."""

WRITE_SIGNALS: Final = (
    *(f"AW{signal}" for signal in ("ADDR", "LEN", "SIZE", "BURST", "VALID", "READY")),
    *(f"W{signal}" for signal in ("DATA", "STRB", "LAST", "VALID", "READY")),
    *(f"B{signal}" for signal in ("RESP", "VALID", "READY")),
)
"""Signals of an AXI4 port that writes."""

Parameter = int | str


def accelerator_parameters(architecture: Architecture) -> dict[str, Parameter]:
    """Value of each parameter of `edgemoe_accelerator` that a Design's hardware sets."""
    return (
        _parallelism(architecture)
        | _capacities(architecture)
        | _numbers(architecture)
        | _layout(architecture)
        | _styles(architecture)
    )


def _parallelism(architecture: Architecture) -> dict[str, Parameter]:
    hardware = architecture.hardware
    return {
        "LANES": hardware.lanes,
        "OUTPUTS": hardware.outputs,
        "TOKEN_TILE": hardware.token_tile,
        "ATTENTION_ROWS": min(hardware.attention_rows, architecture.capacities.max_tokens),
        "ROUTER_LANES": hardware.router_lanes,
        "PORTS": hardware.weight_ports,
        "PORT_BITS": hardware.axi_width,
        "RING_BEATS": hardware.stream_beats,
    }


def _capacities(architecture: Architecture) -> dict[str, Parameter]:
    hardware, most = architecture.hardware, architecture.capacities
    # One queue is there for patches in any case; of more, a router decides, though it has one expert only.
    experts = max(most.max_experts, 2) if most.max_experts else 1
    words, ranks = most.max_token_words, max(most.max_top_k, 1)
    parts = hardware.outputs // hardware.lanes
    # The longest results of a linear layer are queries, keys and values, or values between two layers.
    blocks = ceil_div(max(3 * most.max_mixed_words, most.max_row_words), parts)
    groups = ceil_div(experts, hardware.router_lanes)
    lags = [norm_lag(count, NORM_LATENCY[REQUANTISE]) for count in range(1, words + 1)]
    interval = router_interval(words, groups, hardware.router_lanes, ranks, True)
    return {
        "JOBS": most.max_jobs,
        "MAX_BATCH": most.max_batch,
        "MAX_TOKENS": most.rows,
        "IMAGE_TOKENS": most.max_tokens,
        "DIM": words * hardware.lanes,
        "TOKEN_WORDS": words,
        "ROW_WORDS": most.max_row_words,
        "HEAD_WORDS": most.max_head_words,
        "MIXED_WORDS": most.max_mixed_words,
        "IN_WORDS": min(hardware.weight_rows, most.max_row_words),
        "OUT_WORDS": blocks * parts,
        "BLOCKS": blocks,
        "MAX_GROUP": most.max_group,
        "WEIGHT_ROWS": hardware.weight_rows,
        "EXPERTS": experts,
        "RANKS": ranks,
        "GATE_GROUPS": groups,
        "GATE_RECORD_BEATS": ceil_div(groups * hardware.router_lanes * RECORD_BYTES, architecture.beat_bytes),
        "SETTINGS": len(setting_names(REQUANTISE, experts)),
        "INTERVAL_BITS": interval.bit_length(),
        "LAG_BITS": max(lags).bit_length(),
        "WAIT_BITS": max(lag * count for count, lag in enumerate(lags, 1)).bit_length(),
    }


def _numbers(architecture: Architecture) -> dict[str, Parameter]:
    precision = architecture.precision
    return {
        "X_BITS": architecture.operand_width,
        "W_BITS": precision.weight_width,
        "W_STORED": 8 * architecture.weight_bytes,
        "BIAS_BITS": architecture.bias_bits,
        "MULTIPLIER_BITS": architecture.multiplier_bits,
        "MULTIPLIES": int(precision.multipliers),
        "RECORD_STORED": 8 * RECORD_BYTES,
        "SHIFT_STORED": SHIFT_BITS,
        "SUM_BITS": datapath.ACCUMULATOR_LIMIT,
        "PACK_BITS": PACK_BITS if architecture.packed else 0,
        "HEAD_BITS": precision.attention_width,
        "HIDDEN_BITS": precision.activation_width,
        "RESIDUAL_BITS": architecture.network.residual_width,
        "PROBABILITY_BITS": datapath.PROBABILITY.width,
        "PROBABILITY_FRAC": datapath.PROBABILITY.frac,
        "ACTIVATION_IN_BITS": datapath.GELU_INPUT.width,
        "ACTIVATION_OUT_BITS": ACTIVATED_BITS,
        "GATE_BITS": precision.gate_width,
        "GATE_STORED": 8 * architecture.gate_bytes,
        "SCORE_BITS": datapath.SCORE.width,
        "SCORE_FRAC": datapath.SCORE.frac,
        "SCORE_LIFT": architecture.score_lift,
        "MAXIMUM_BITS": MAXIMUM_BITS,
        "EXP_BITS": datapath.EXPONENTIAL.width,
        "EXP_FRAC": datapath.EXPONENTIAL.frac,
        "EXP_SUM_BITS": architecture.softmax_sum_bits,
        "WEIGHTED_BITS": architecture.softmax_sum_bits + precision.attention_width,
        "MANTISSA_FRAC": datapath.MANTISSA_FRAC,
        "NORMALIZED_BITS": datapath.NORMALIZED.width,
        "NORMALIZED_FRAC": datapath.NORMALIZED.frac,
        "GAMMA_BITS": datapath.NORM_WEIGHT_WIDTH,
        "BETA_BITS": datapath.ACCUMULATOR_LIMIT,
        "PIXEL_OFFSET": architecture.pixel_offset,
        "ACTIVATION": UNIT_LATENCY[architecture.network.activation.unit],
        "EXP2": UNIT_LATENCY["exp2"],
        "MANTISSA": UNIT_LATENCY["mantissa"],
    }


def _layout(architecture: Architecture) -> dict[str, Parameter]:
    return {
        "RECORD_BEATS": architecture.record_beats,
        "WORD_BEATS": architecture.word_beats,
        "GATE_WORD_BEATS": architecture.gate_word_beats,
        "NORM_WORD_BEATS": architecture.norm_word_beats,
        "POSITION_WORD_BEATS": architecture.position_word_beats,
        "GATE_SHIFT": architecture.settings.index("gate_shift"),
    }


def _styles(architecture: Architecture) -> dict[str, Parameter]:
    hardware = architecture.hardware
    return {
        "WEIGHT_STYLE": STYLES[hardware.weight_memory],
        "OPERAND_STYLE": STYLES[hardware.operand_memory],
        "RESIDUAL_STYLE": STYLES[hardware.residual_memory],
        "HEAD_STYLE": STYLES[hardware.head_memory],
        "GATE_STYLE": STYLES[hardware.gate_memory],
        "RING_STYLE": STYLES[hardware.stream_memory or "block"],
    }


def accelerator_files(architecture: Architecture, folder: Path, name: str = TOP) -> list[Path]:
    """Write the accelerator's SystemVerilog: packages first, the generated top last; returns the files.

    Args:
        architecture: of the Design on its hardware.
        folder: where to; it exists.
        name: of the top module: other than its own where a test has two accelerators side by side.
    """
    written = write_library(folder, MODULE, "edgemoe_call_control", "edgemoe_axi_lite")
    sources, contexts = rtl_sources(), rtl_contexts(architecture)
    activation = architecture.network.activation
    generated = (*EXP2_SOURCES, *RECIPROCAL_SOURCES, *RSQRT_SOURCES, *activation_sources(activation))
    arguments = rtl_arguments(architecture)
    registers = control_registers(arguments)
    own = {
        "name": name,
        "parameters": accelerator_parameters(architecture),
        "arguments": arguments,
        "registers": registers,
        "offsets": argument_offsets(arguments),
        "constants": architecture.capacities.as_dict(),
        "tasks": architecture.capacities.max_tasks,
        "read_signals": READ_SIGNALS,
        "write_signals": WRITE_SIGNALS,
    }
    for source in (*generated, Source(f"{name}.sv", "top.sv", own)):
        file = folder / source.file
        if file not in written:
            file.write_text(sources.text(source.source, *contexts, source.names))
            written.append(file)
    return written
