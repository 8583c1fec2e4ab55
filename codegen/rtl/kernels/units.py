"""Function units behind streams: powers of two, reciprocal, reciprocal square root, the activation function."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.latency import SLICE_LATENCY, UNIT_LATENCY
from codegen.rtl.kernels.base import Call, Kernel, Source, common
from codegen.rtl.streams import Field, Stream
from pysim.activations import Activation
from pysim.datapath import EXPONENTIAL, GELU_INPUT, MANTISSA_FRAC, SCORE
from pysim.kernels.gelu import GELU_FRAC
from pysim.tables import EXP2, RECIPROCAL, RSQRT, PiecewiseLinear

ACTIVATED_BITS = GELU_INPUT.width + GELU_FRAC - GELU_INPUT.frac
"""Exact: the positive part, moved up to the table's units; delta takes nothing away that leaves this range."""


def rom(table: PiecewiseLinear, template: str = "rom") -> Source:
    """The file of a table."""
    return Source(f"edgemoe_rom_{table.name}.v", f"units/{template}.v", {"table": table})


EXP2_SOURCES = (Source("edgemoe_exp2_unit.v", "units/exp2_unit.v"), rom(EXP2))


def activation_sources(activation: Activation) -> tuple[Source, ...]:
    """The unit of an activation function, with its table where it has one."""
    delta = activation.delta
    names = {"activated_bits": ACTIVATED_BITS}
    unit = Source(f"edgemoe_{activation.unit}_unit.v", f"units/{activation.unit}_unit.v", names)
    return (unit,) if delta is None else (unit, rom(delta))


def _mantissa(table: PiecewiseLinear, purpose: str, octaves: int) -> tuple[Source, ...]:
    names = {"table": table, "purpose": purpose, "octaves": octaves}
    return Source(f"edgemoe_{table.name}_unit.v", "units/mantissa_unit.v", names), rom(table, "quarter_rom")


RECIPROCAL_SOURCES = _mantissa(RECIPROCAL, "Reciprocal", 1)
RSQRT_SOURCES = _mantissa(RSQRT, "Reciprocal square root", 2)

_MANTISSA = (Field("mantissa", MANTISSA_FRAC + 1, False), Field("position", 6, False))


def _kernel(
    name: str,
    title: str,
    sources: tuple[Source, ...],
    cycles: int,
    taken: Field,
    given: tuple[Field, ...],
    lanes: int = 1,
) -> Kernel:
    x = Stream("x", "in", (Field(taken.name, taken.bits, taken.signed, lanes),))
    y = Stream("y", "out", tuple(Field(f.name, f.bits, f.signed, lanes) for f in given))
    names = {"cycles": cycles, "lanes": lanes, "x": x, "y": y}
    own = Source(f"edgemoe_{name}.sv", "kernel_unit.sv", names | {"taken": taken, "given": given})
    return Kernel(name, title, (x, y), (own, *sources, *common()))


def unit_kernels(architecture: Architecture) -> tuple[Kernel, ...]:
    """exp2, reciprocal, rsqrt and the activation; the last with the lanes of the linear engine's write-back."""
    activation = architecture.network.activation
    mantissa = UNIT_LATENCY["mantissa"]
    value = Field("value", 64, False)
    return (
        _kernel(
            "exp2",
            "Powers of two",
            EXP2_SOURCES,
            UNIT_LATENCY["exp2"],
            Field("difference", SCORE.width + 1, False),
            (Field("exponential", EXPONENTIAL.width, False),),
        ),
        _kernel("reciprocal", "Reciprocals", RECIPROCAL_SOURCES, mantissa, value, _MANTISSA),
        _kernel("rsqrt", "Reciprocal square roots", RSQRT_SOURCES, mantissa, value, _MANTISSA),
        _kernel(
            activation.unit,
            activation.title,
            activation_sources(activation),
            UNIT_LATENCY[activation.unit],
            Field("x", GELU_INPUT.width),
            (Field("y", ACTIVATED_BITS),),
            architecture.lanes,
        ),
    )


def call(kernel: Kernel, name: str, **values: NDArray[Any]) -> Call:
    """One frame of inputs, in beats of the kernel's lanes."""
    return Call(name, {"x": [kernel.stream("x").pack(**values)]}, {"y": 1})


def cycles(name: str, beats: int) -> int:
    """Cycles from the first beat to the last result."""
    return beats + UNIT_LATENCY.get(name, UNIT_LATENCY["mantissa"]) + SLICE_LATENCY
