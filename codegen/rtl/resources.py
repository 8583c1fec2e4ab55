"""Expected resources of a kernel: the estimate of its engine, and what the kernel has instead or on top.

An engine of the HLS project shares the memories of the activations with the others and has no ports of its own; a
kernel that stands alone has buffers, registers and streams. Nothing here is fitted: every part is counted from the
Design.
"""

from __future__ import annotations

from dataclasses import replace

from codegen.architecture import Architecture
from codegen.memories import Memory, Widths, engine_memories, memories, table_memory
from codegen.resources import CONTROL_FACTOR, RTL_STYLE, Resources, engine_resources, packed_sum_luts
from codegen.rtl.kernels.base import Kernel
from pysim.datapath import (
    ACCUMULATOR_LIMIT,
    MANTISSA_FRAC,
    MULTIPLIER_WIDTH,
    NORM_WEIGHT_WIDTH,
    PROBABILITY,
)

ENGINES = {
    "linear": ("linear", "write-back"),
    "attention": ("attention",),
    "layernorm": ("layernorm",),
    "router": ("router",),
}
"""Engines of the estimate that a kernel holds. The other kernels are parts of these."""

CONTROL_FF = 110
"""Flip-flops of AXI4-Lite itself: address, data and strobe that wait, read data, states."""
LUTS_PER_REGISTER_BIT = 3
"""LUTs of a bit of an argument: byte enables, and the choice of what is read."""


def kernel_memories(architecture: Architecture, kernel: Kernel) -> list[Memory]:
    """Arrays of a kernel that holds an engine."""
    lanes, precision, spec = architecture.lanes, architecture.precision, architecture.spec
    names, widths = kernel.sources[0].names, Widths.of(architecture)
    # What a memory is built of is said in the C++ only.
    shared = {
        memory.name: replace(memory, bound="") for held in memories(architecture).values() for memory in held
    }
    if kernel.name == "linear":
        records = 2 * names["max_group"]
        scale = MULTIPLIER_WIDTH + 6 if precision.multipliers else 6
        weights = shared["weight halves"]
        row = weights.copies // 2 * weights.width
        return [
            Memory("weight buffer", 1, 2 * weights.depth, row),
            Memory("biases", 1, records, architecture.outputs * architecture.bias_bits),
            Memory("multipliers and shifts", 1, records, architecture.outputs * scale),
            replace(shared["operands"], depth=names["x_depth"]),
            *(
                table_memory(delta, lanes)
                for delta in (architecture.network.activation.delta,)
                if delta is not None
            ),
        ]
    if kernel.name == "attention":
        return [
            Memory("queries, keys, values of two heads", 3, 2 * names["depth"], lanes * widths.attention),
            shared["attention scores"],
            shared["query rows"],
            shared["weighted values"],
        ]
    if kernel.name == "layernorm":
        residual = architecture.network.residual_width
        statistics = residual + names["dim_bits"] + MANTISSA_FRAC + 1 + 6
        return [
            Memory("tokens that wait", 1, 1 << names["wait_bits"], lanes * residual),
            Memory(
                "norm parameters", 1, 1 << names["word_bits"], lanes * (NORM_WEIGHT_WIDTH + ACCUMULATOR_LIMIT)
            ),
            Memory("statistics", 1, 1 << names["slot_bits"], statistics),
        ]
    gates = shared["gate weights"]
    entry = names["token_bits"] + PROBABILITY.width + names["rank_bits"]
    return [
        Memory("two tokens", 1, 2 << names["word_bits"], lanes * widths.gate),
        replace(gates, copies=1, width=gates.copies * gates.width),
        Memory("queues", 1, architecture.experts * spec.tokens, entry),
    ]


def kernel_parts(architecture: Architecture, kernel: Kernel) -> dict[str, Resources]:
    """Resources of a kernel that holds an engine, part by part; their sum is what is expected."""
    engines = engine_resources(architecture, RTL_STYLE)
    held = [memory for name in ENGINES[kernel.name] for memory in engine_memories(architecture, name)]
    estimate = sum((engines[name] for name in ENGINES[kernel.name]), Resources())
    shallow = sum(memory.luts for memory in held)
    own = kernel_memories(architecture, kernel)
    inputs = sum(stream.width for stream in kernel.inputs)
    outputs = sum(stream.width + 1 for stream in kernel.outputs)
    registers = sum(register.bits for register in kernel.registers)
    return {
        "engine without memories": replace(estimate, bram36=0, uram=0, lut=estimate.lut - shallow),
        "memories": Resources(bram36=sum(m.bram18 for m in own) / 2, lut=sum(m.luts for m in own)),
        "sums of products in fabric": Resources(lut=tree_luts(architecture, kernel)),
        "streams": Resources(lut=inputs + outputs, ff=2 * outputs),
        "registers": Resources(lut=LUTS_PER_REGISTER_BIT * registers, ff=registers + CONTROL_FF),
        "held words": Resources(ff=_held_bits(architecture, kernel)),
    }


RTL_CHAIN = 2
"""Packed products that the RTL sums before it splits them, where there is room (`hls/rtl/common/dot_pair.sv`)."""


def _is_chained(architecture: Architecture) -> bool:
    return architecture.lanes % RTL_CHAIN == 0 and architecture.packed_chain >= RTL_CHAIN


def tree_luts(architecture: Architecture, kernel: Kernel) -> int:
    """Adders of products in fabric, where the estimate sums them in the cascade of DSP slices."""
    lanes, hardware = architecture.lanes, architecture.hardware
    widths = Widths.of(architecture)
    levels = (lanes - 1).bit_length()
    if kernel.name == "linear" and architecture.packed:
        # The engine splits the sum of a longer chain of products than the kernel.
        own = packed_sum_luts(architecture, RTL_CHAIN if _is_chained(architecture) else 1)
        return round(CONTROL_FACTOR * (own - packed_sum_luts(architecture, architecture.packed_chain)))
    if kernel.name == "linear":
        trees = architecture.outputs * hardware.token_tile
        width = architecture.precision.weight_width + widths.activation
    elif kernel.name == "attention":
        trees, width = min(hardware.attention_rows, architecture.spec.tokens), 2 * widths.attention
    elif kernel.name == "router":
        trees, width = architecture.router_lanes, 2 * widths.gate
    else:
        return 0
    return trees * (lanes - 1) * (width + levels)


def _held_bits(architecture: Architecture, kernel: Kernel) -> int:
    """Registers of whole words that the HLS engine reads from a memory instead."""
    beat = 8 * architecture.beat_bytes
    if kernel.name == "linear":
        return (architecture.record_beats - 1 + architecture.word_beats - 1) * beat
    if kernel.name == "layernorm":
        return (architecture.norm_word_beats - 1) * beat
    if kernel.name == "router":
        # The records of all experts, and the lengths of their queues.
        experts, lengths = (
            architecture.gate_groups * architecture.router_lanes,
            kernel.sources[0].names["token_bits"],
        )
        collectors = (architecture.gate_word_beats - 1) * beat
        return collectors + experts * 64 + architecture.experts * lengths
    return 0
