"""DSP, BRAM, URAM and LUT of a Design before synthesis, by formulas that `docs/estimate.md` explains.

DSP and memory follow from what the templates instantiate. LUTs are the least certain: adders, multiplexers and
shifters by their widths, with a factor for control.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from boards.family import Family
from codegen.architecture import Architecture, ceil_div, smallest
from codegen.memories import Widths, memories
from pysim.arithmetic import ICCAD23, REQUANTISE, Arithmetic
from pysim.datapath import ACCUMULATOR_LIMIT, GELU_INPUT, NORM_WEIGHT_WIDTH, NORMALIZED
from pysim.tables import EXP2, RECIPROCAL, RSQRT, PiecewiseLinear

CONTROL_FACTOR = 1.3
"""LUTs of state machines, address counters and multiplexers, on top of the data path's."""
PORT_LUTS = 1500
"""LUTs of one AXI master."""
SHIFTER_LUTS = 3 * 64
"""LUTs of a 64-bit barrel shifter: six levels, of which a LUT takes two."""
FF_FACTOR = 1.5
"""Flip-flops for each LUT of logic."""

ACTIVATED_WIDTH = GELU_INPUT.width + 12
"""Bits of an activation function's exact output."""

ADDRESS_PRODUCTS = 15
"""Products in addresses and bounds: a token by the words of its row, a task by its gate's beats, rounds by their steps.

All are narrow: a slice each, unless the tool makes shifts and additions of those with a constant."""


@dataclass(frozen=True)
class Resources:
    """Resources of a device that a design uses.

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


def packed_sum_luts(architecture: Architecture, chain: int) -> int:
    """LUTs that split the sums of chains of packed products, give the sign back, and add them up.

    Products of their own are summed in the DSP cascade; there it is 0.
    """
    if not architecture.packed:
        return 0
    width = architecture.precision.weight_width + architecture.operand_width + (chain - 1).bit_length()
    sums = architecture.outputs * architecture.hardware.token_tile
    return sums * ceil_div(architecture.lanes, chain) * (width + 1)


@dataclass(frozen=True)
class Style:
    """Ways in which products and sums are spelled, so that they take fewer slices and LUTs.

    Attributes:
        split: whether a factor that is longer than a slice's port is split there, and a mantissa shortened by its
            leading half; else as a tool does it.
        constant: whether products with the number of channels are shifts and additions.
        late_bias: whether biases come to complete sums, which are as wide as their products need then.
        gated: whether networks without experts have the products with gate scores, too.
    """

    split: bool
    constant: bool
    late_bias: bool
    gated: bool


HLS_STYLES: Final[Mapping[Arithmetic, Style]] = {
    REQUANTISE: Style(split=True, constant=True, late_bias=True, gated=False),
    ICCAD23: Style(split=False, constant=False, late_bias=False, gated=False),
}
"""Ways of the generated C++, by arithmetic."""
RTL_STYLE: Final = Style(split=False, constant=False, late_bias=False, gated=True)
"""Ways of the RTL kernels."""


def _style(architecture: Architecture, style: Style | None) -> Style:
    return style or HLS_STYLES[architecture.network.arithmetic]


def _product_dsp(device: Family, style: Style, bits: int, factor: int) -> int:
    """DSP slices of a product of a long number with a multiplier or a mantissa of so many bits."""
    if not style.split:
        return device.multiplier_dsp(bits, factor)
    if bits <= device.wide_port:
        return 1
    return 1 + device.multiplier_dsp(bits - (device.wide_port - 1), device.narrow_port)


def _product_luts(device: Family, style: Style, bits: int, *, mantissa: bool) -> int:
    """LUTs of such a product: the sum of its parts, and that with the mantissa's half."""
    if not style.split:
        return 0
    whole = bits + device.narrow_port
    parts = whole - (device.wide_port - 1) if bits > device.wide_port else 0
    return parts + (whole if mantissa else 0)


def _channel_luts(architecture: Architecture, style: Style) -> int:
    """LUTs of a product with the number of channels: an adder for each digit but one, of which some are negative."""
    if not style.constant:
        return 0
    dim = architecture.spec.dim
    digits = (dim ^ 3 * dim).bit_count()
    return (digits - 1) * (architecture.network.residual_width + dim.bit_length())


def dsp_by_engine(architecture: Architecture, style: Style | None = None) -> dict[str, int]:
    """DSP slices of each engine; that of the generated C++, where no other style is given."""
    device, style = architecture.hardware.device, _style(architecture, style)
    lanes, precision = architecture.lanes, architecture.precision
    hardware, spec = architecture.hardware, architecture.spec
    multiplier_dsp = device.multiplier_dsp
    macs = lanes * architecture.outputs * hardware.token_tile
    widths = Widths.of(architecture)
    per_mac = multiplier_dsp(precision.weight_width, widths.product)
    residual, channel_bits = architecture.network.residual_width, spec.dim.bit_length()
    multiplier = _product_dsp(device, style, ACCUMULATOR_LIMIT, 17) if precision.multipliers else 0
    hidden = _product_dsp(device, style, ACTIVATED_WIDTH, 17) if precision.multipliers else 0
    # Of networks without experts, nothing is scaled by a gate's score.
    gated = multiplier_dsp(residual, 18) if spec.moe_layers or style.gated else 0
    channels = 0 if style.constant else multiplier_dsp(residual, channel_bits + 1)
    delta = architecture.network.activation.delta
    activation = 0 if delta is None else multiplier_dsp(delta.slope_format.width, delta.step_bits + 1)
    slots = smallest(hardware.attention_rows, spec.tokens)
    reciprocal = multiplier_dsp(RECIPROCAL.slope_format.width, RECIPROCAL.step_bits + 1)
    rsqrt = multiplier_dsp(RSQRT.slope_format.width, RSQRT.step_bits + 1)
    attention, exponential = widths.attention, widths.exponential
    engines = {
        "linear": ceil_div(macs, 2) if architecture.packed else macs * per_mac,
        "write-back": lanes * (multiplier + activation + hidden + gated),
        "attention": slots
        * lanes
        * (multiplier_dsp(attention, attention) + multiplier_dsp(exponential, attention))
        + lanes * _product_dsp(device, style, exponential + attention, 19)
        + reciprocal,
        "layernorm": lanes
        * (
            multiplier_dsp(residual, residual)
            + channels
            + _product_dsp(device, style, residual + channel_bits + 1, 19)
            + multiplier_dsp(NORMALIZED.width, NORM_WEIGHT_WIDTH)
        )
        + multiplier_dsp(2 * residual + channel_bits, channel_bits + 1)
        + multiplier_dsp(residual + channel_bits, residual + channel_bits)
        + rsqrt,
    }
    if spec.moe_layers:
        logits = lanes * architecture.router_lanes * multiplier_dsp(widths.gate, precision.gate_width)
        scaling = architecture.router_lanes * multiplier
        engines["router"] = logits + scaling + reciprocal + _product_dsp(device, style, exponential, 19)
    return engines


def _table_luts(table: PiecewiseLinear) -> int:
    """LUTs of a table in fabric: one holds 64 entries of a bit."""
    return ceil_div(len(table.base), 64) * (table.base_format.width + table.slope_format.width)


def _mantissa_luts(table: PiecewiseLinear) -> int:
    """LUTs of a reciprocal or a root: leading one, alignment, table, sum."""
    return 2 * 64 + SHIFTER_LUTS + _table_luts(table) + table.base_format.width


def luts_by_engine(architecture: Architecture, style: Style | None = None) -> dict[str, float]:
    """LUTs of the data path of each engine: an adder or a two-way choice costs a LUT a bit."""
    device, style = architecture.hardware.device, _style(architecture, style)
    lanes, hardware, spec = architecture.lanes, architecture.hardware, architecture.spec
    sums = architecture.outputs * hardware.token_tile
    slots = smallest(hardware.attention_rows, spec.tokens)
    # An exponential, with its table and its product in fabric.
    exp2 = 3 * (EXP2.base_format.width + EXP2.slope_format.width) + EXP2.slope_format.width * EXP2.step_bits
    widths = Widths.of(architecture)
    # A shifter, a rounding and a saturation.
    requantise = SHIFTER_LUTS + 2 * 64
    score_path = 2 * SHIFTER_LUTS + 2 * widths.exponential + 2 * exp2
    residual, multipliers = architecture.network.residual_width, architecture.precision.multipliers
    scaled = ACCUMULATOR_LIMIT, ACTIVATED_WIDTH
    scaling = sum(_product_luts(device, style, bits, mantissa=False) for bits in scaled) if multipliers else 0
    mixing = _product_luts(device, style, widths.exponential + widths.attention, mantissa=True)
    norming = _product_luts(device, style, residual + spec.dim.bit_length() + 1, mantissa=True)
    sum_bits = architecture.sum_bits if style.late_bias else ACCUMULATOR_LIMIT
    engines: dict[str, float] = {
        "linear": packed_sum_luts(architecture, architecture.packed_chain) + sums * 2 * sum_bits,
        # Three barrel shifters, three saturations, the bias and the residual addition.
        "write-back": lanes
        * (3 * SHIFTER_LUTS + 3 * 64 + (ACCUMULATOR_LIMIT if style.late_bias else 0) + 64 + scaling),
        # Of each row its scores and its weighted values; the division of the row that leaves rounds twice a lane.
        "attention": slots * (score_path + lanes * widths.weighted)
        + lanes * (2 * requantise + mixing)
        + _mantissa_luts(RECIPROCAL),
        "layernorm": lanes * (3 * SHIFTER_LUTS + 4 * 64 + norming + _channel_luts(architecture, style))
        + 8 * 64,
    }
    if spec.moe_layers:
        # Requantised logits; two exponentials, each with its shifter; the reciprocal; the lengths of the queues.
        engines["router"] = (
            architecture.router_lanes
            * (64 * 4 + multipliers * _product_luts(device, style, ACCUMULATOR_LIMIT, mantissa=False))
            + _product_luts(device, style, widths.exponential, mantissa=True)
            + 4 * SHIFTER_LUTS
            + 60 * (spec.moe.top_k if spec.moe else 1)
            + 2 * (exp2 + SHIFTER_LUTS)
            + _mantissa_luts(RECIPROCAL)
            + 2 * architecture.experts * architecture.batch_tokens.bit_length()
        )
    return engines


def logic_resources(architecture: Architecture, style: Style | None = None) -> dict[str, Resources]:
    """Resources that each engine, the AXI ports and addresses take beside memories."""
    luts = {name: found * CONTROL_FACTOR for name, found in luts_by_engine(architecture, style).items()}
    luts["ports"] = (architecture.hardware.weight_ports + 2) * PORT_LUTS
    engines = {
        name: Resources(
            dsp=slices, lut=_rounded(luts.get(name, 0)), ff=_rounded(FF_FACTOR * luts.get(name, 0))
        )
        for name, slices in (dsp_by_engine(architecture, style) | {"ports": 0}).items()
    }
    return engines | {"addresses": Resources(dsp=ADDRESS_PRODUCTS)}


def _rounded(value: float) -> int:
    """A whole number; of arrays, element by element."""
    return np.rint(value).astype(np.int64) if isinstance(value, np.ndarray) else round(value)


def engine_resources(architecture: Architecture, style: Style | None = None) -> dict[str, Resources]:
    """Resources of each engine, of the memories that they share, of the AXI ports, and of addresses."""
    engines = logic_resources(architecture, style)
    for name, held in memories(architecture).items():
        engines[name] = engines.get(name, Resources()) + Resources(
            bram36=sum(memory.bram18 for memory in held) / 2,
            uram=sum(memory.uram for memory in held),
            lut=sum(memory.luts for memory in held),
        )
    return engines


def estimate_resources(architecture: Architecture) -> Resources:
    """Resources of the whole kernel."""
    return sum(engine_resources(architecture).values(), Resources())
