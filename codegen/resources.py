"""DSP, BRAM, URAM and LUT of a Design before synthesis, by formulas that `docs/estimate.md` explains.

DSP and memory follow from what the templates instantiate. LUTs are the least certain: adders, multiplexers and
shifters by their widths, with a factor for control.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.architecture import PRODUCT_SHIFT, ROUTER_LANES, Architecture, ceil_div
from pysim.datapath import ACCUMULATOR_LIMIT, EXPONENTIAL, GELU_INPUT, NORM_WEIGHT_WIDTH, NORMALIZED, SCORE
from pysim.kernels.iccad23 import FEATURE
from pysim.tables import EXP2, GELU_DELTA, RECIPROCAL, RSQRT, PiecewiseLinear

LUTRAM_DEPTH = 64
"""Memories up to this depth are built of LUTs."""
PORT_BRAM36 = 4
"""Buffers of one AXI master."""
CONTROL_FACTOR = 1.3
"""LUTs of state machines, address counters and multiplexers, on top of the data path's."""
PORT_LUTS = 1500
"""LUTs of one AXI master."""
SHIFTER_LUTS = 3 * 64
"""LUTs of a 64-bit barrel shifter: six levels, of which a LUT takes two."""
FF_FACTOR = 1.5
"""Flip-flops for each LUT of logic."""

_BRAM18_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
_DSP_PORTS = (26, 17)
"""Unsigned bits of the two factors of one DSP48E2 (27 x 18 signed)."""


@dataclass(frozen=True)
class Memory:
    """One array on chip.

    Attributes:
        name: what it holds.
        copies: how many of them, for example banks.
        depth: words of one copy.
        width: bits of a word.
    """

    name: str
    copies: int
    depth: int
    width: int

    @property
    def in_luts(self) -> bool:
        """Whether it is shallow enough for LUT memory."""
        return self.depth <= LUTRAM_DEPTH

    @property
    def bram18(self) -> int:
        """Halves of a 36 Kb block, over all copies, in the shape that needs fewest."""
        if self.in_luts:
            return 0
        return self.copies * min(ceil_div(self.depth, d) * ceil_div(self.width, w) for d, w in _BRAM18_SHAPES)

    @property
    def luts(self) -> int:
        """LUTs, over all copies: eight hold 64 words of seven bits with a port of their own for writing."""
        return self.copies * ceil_div(self.width * 8, 7) if self.in_luts else 0


@dataclass(frozen=True)
class Widths:
    """Bits of what the engines multiply and store, by arithmetic."""

    activation: int
    attention: int
    gate: int
    exponential: int
    product: int
    """Of an operand of the linear engine, as it enters a multiplier."""

    @classmethod
    def of(cls, architecture: Architecture) -> Widths:
        """The widths of an architecture's arithmetic."""
        precision = architecture.design.precision
        if architecture.arithmetic == "iccad23":
            feature = FEATURE.width
            return cls(feature, feature, feature, feature, feature + PRODUCT_SHIFT)
        activation = precision.activation_width
        return cls(
            activation, precision.attention_width, precision.gate_width, EXPONENTIAL.width + 1, activation
        )


@dataclass(frozen=True)
class Resources:
    """What a design uses of a device.

    Attributes:
        dsp: DSP slices.
        bram36: 36 Kb blocks; halves count as such.
        uram: 288 Kb blocks.
        lut: look-up tables.
        ff: flip-flops.
    """

    dsp: int = 0
    bram36: float = 0
    uram: int = 0
    lut: int = 0
    ff: int = 0

    def __add__(self, other: Resources) -> Resources:
        """Both together."""
        return Resources(
            self.dsp + other.dsp,
            self.bram36 + other.bram36,
            self.uram + other.uram,
            self.lut + other.lut,
            self.ff + other.ff,
        )


def memories(architecture: Architecture) -> dict[str, list[Memory]]:
    """Every array that the generated C++ keeps on chip, by the engine that it belongs to.

    What several engines read and write is under `activations`.
    """
    design, lanes = architecture.design, architecture.lanes
    parallelism, precision, spec = design.parallelism, design.precision, architecture.spec
    tokens, words = architecture.max_tokens, architecture.token_words
    widths = Widths.of(architecture)
    weighted = widths.exponential + widths.attention + 7
    slots = min(parallelism.attention_rows, spec.tokens)
    rows = ceil_div(tokens, parallelism.token_tile) * architecture.regions["row"]
    weight_word = architecture.outputs * lanes * precision.weight_width
    gate_word = lanes * ROUTER_LANES * precision.gate_width
    found = {
        "activations": [
            Memory("residual stream", 1, tokens * words, lanes * design.residual.width),
            Memory("queries, keys, values", 3, tokens * architecture.mixed_words, lanes * widths.attention),
        ],
        "linear": [
            Memory("weight buffer", 2, parallelism.weight_rows, weight_word),
            Memory("operands", parallelism.token_tile, rows, lanes * widths.activation),
        ],
        "write-back": [table_memory(GELU_DELTA, lanes)],
        "attention": [
            Memory("attention scores", slots, spec.tokens, SCORE.width),
            Memory("query rows", slots, architecture.head_words, lanes * widths.attention),
            Memory("weighted values", slots, architecture.head_words, lanes * weighted),
        ],
        "layernorm": [Memory("norm parameters", 1, words, lanes * (NORM_WEIGHT_WIDTH + ACCUMULATOR_LIMIT))],
    }
    if spec.moe_layers:
        queue_width = 17 + tokens.bit_length()
        found["router"] = [
            Memory("router's tokens", 1, tokens * words, lanes * widths.gate),
            Memory("gate weights", 1, architecture.gate_groups * words, gate_word),
            Memory("logits", 1, architecture.experts * tokens, SCORE.width),
            Memory("queues", 1, architecture.experts * tokens, queue_width),
        ]
    return found


def table_memory(table: PiecewiseLinear, copies: int) -> Memory:
    """A function's table, a word a segment; each reader has a copy."""
    width = table.base_format.width + table.slope_format.width
    return Memory(f"table {table.name}", copies, len(table.base), width)


def multiplier_dsp(first: int, second: int) -> int:
    """DSP slices of a product of two signed numbers of so many bits."""
    wide, narrow = max(first, second), min(first, second)
    return ceil_div(wide - 1, _DSP_PORTS[0]) * ceil_div(narrow - 1, _DSP_PORTS[1])


def dsp_by_engine(architecture: Architecture) -> dict[str, int]:
    """DSP slices of each engine."""
    design, lanes = architecture.design, architecture.lanes
    precision, parallelism, spec = design.precision, design.parallelism, architecture.spec
    macs = lanes * architecture.outputs * parallelism.token_tile
    widths = Widths.of(architecture)
    per_mac = multiplier_dsp(precision.weight_width, widths.product)
    residual, channel_bits = design.residual.width, spec.dim.bit_length()
    multiplier = multiplier_dsp(ACCUMULATOR_LIMIT, 17) if precision.multipliers else 0
    hidden = multiplier_dsp(GELU_INPUT.width + 12, 17) if precision.multipliers else 0
    gelu = multiplier_dsp(GELU_DELTA.slope_format.width, GELU_DELTA.step_bits + 1)
    slots = min(parallelism.attention_rows, spec.tokens)
    reciprocal = multiplier_dsp(RECIPROCAL.slope_format.width, RECIPROCAL.step_bits + 1)
    rsqrt = multiplier_dsp(RSQRT.slope_format.width, RSQRT.step_bits + 1)
    attention, exponential = widths.attention, widths.exponential
    engines = {
        "linear": ceil_div(macs, 2) if architecture.packed else macs * per_mac,
        "write-back": lanes * (multiplier + gelu + hidden + multiplier_dsp(residual, 18)),
        "attention": slots
        * lanes
        * (multiplier_dsp(attention, attention) + multiplier_dsp(exponential, attention))
        + lanes * multiplier_dsp(exponential + attention, 19)
        + reciprocal,
        "layernorm": lanes
        * (
            multiplier_dsp(residual, residual)
            + multiplier_dsp(residual, channel_bits + 1)
            + multiplier_dsp(residual + channel_bits + 1, 19)
            + multiplier_dsp(NORMALIZED.width, NORM_WEIGHT_WIDTH)
        )
        + multiplier_dsp(64, channel_bits)
        + multiplier_dsp(residual + channel_bits, residual + channel_bits)
        + rsqrt,
    }
    if spec.moe_layers:
        logits = lanes * ROUTER_LANES * multiplier_dsp(widths.gate, precision.gate_width)
        scaling = ROUTER_LANES * multiplier
        engines["router"] = logits + scaling + reciprocal + multiplier_dsp(exponential, 19)
    return engines


def _table_luts(table: PiecewiseLinear) -> int:
    """LUTs of a table in fabric: one holds 64 entries of a bit."""
    return ceil_div(len(table.base), 64) * (table.base_format.width + table.slope_format.width)


def _mantissa_luts(table: PiecewiseLinear) -> int:
    """LUTs of a reciprocal or a root: leading one, alignment, table, sum."""
    return 2 * 64 + SHIFTER_LUTS + _table_luts(table) + table.base_format.width


def luts_by_engine(architecture: Architecture) -> dict[str, float]:
    """LUTs of the data path of each engine: an adder or a two-way choice costs a LUT a bit."""
    design, lanes = architecture.design, architecture.lanes
    precision, parallelism, spec = design.precision, design.parallelism, architecture.spec
    macs = lanes * architecture.outputs * parallelism.token_tile
    product = precision.weight_width + precision.activation_width
    # Packed products are corrected and summed in LUTs; products of their own are summed in the DSP cascade.
    per_mac = product + 1 if architecture.packed else 0
    sums = architecture.outputs * parallelism.token_tile
    slots = min(parallelism.attention_rows, spec.tokens)
    # An exponential, with its table and its product in fabric.
    exp2 = 3 * (EXP2.base_format.width + EXP2.slope_format.width) + EXP2.slope_format.width * EXP2.step_bits
    widths = Widths.of(architecture)
    # A shifter, a rounding and a saturation.
    requantise = SHIFTER_LUTS + 2 * 64
    score_path = 2 * SHIFTER_LUTS + 2 * widths.exponential + 2 * exp2
    engines: dict[str, float] = {
        "linear": macs * per_mac + sums * 2 * ACCUMULATOR_LIMIT,
        # Three barrel shifters, three saturations and the residual addition.
        "write-back": lanes * (3 * SHIFTER_LUTS + 3 * 64 + 64),
        # Of each row its scores and its weighted values; the division of the row that leaves rounds twice a lane.
        "attention": slots * (score_path + lanes * (widths.exponential + widths.attention + 7))
        + lanes * 2 * requantise
        + _mantissa_luts(RECIPROCAL),
        "layernorm": lanes * (3 * SHIFTER_LUTS + 4 * 64) + 8 * 64,
    }
    if spec.moe_layers:
        # Requantised logits; two exponentials, each with its shifter; the reciprocal; the lengths of the queues.
        engines["router"] = (
            ROUTER_LANES * 64 * 4
            + 4 * SHIFTER_LUTS
            + 60 * (spec.moe.top_k if spec.moe else 1)
            + 2 * (exp2 + SHIFTER_LUTS)
            + _mantissa_luts(RECIPROCAL)
            + 2 * architecture.experts * architecture.max_tokens.bit_length()
        )
    return engines


def engine_resources(architecture: Architecture) -> dict[str, Resources]:
    """Resources of each engine, of the memories that they share, and of the AXI ports."""
    arrays, dsp, logic = memories(architecture), dsp_by_engine(architecture), luts_by_engine(architecture)
    engines = {}
    for name, held in arrays.items():
        luts = logic.get(name, 0) * CONTROL_FACTOR
        shallow = sum(memory.luts for memory in held)
        blocks = sum(memory.bram18 for memory in held) / 2
        engines[name] = Resources(dsp.get(name, 0), blocks, 0, round(luts) + shallow, round(FF_FACTOR * luts))
    ports = architecture.design.parallelism.weight_ports + 2
    engines["ports"] = Resources(
        0, ports * PORT_BRAM36, 0, ports * PORT_LUTS, round(FF_FACTOR * ports * PORT_LUTS)
    )
    return engines


def estimate_resources(architecture: Architecture) -> Resources:
    """Resources of the whole kernel."""
    return sum(engine_resources(architecture).values(), Resources())
