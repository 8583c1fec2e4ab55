"""Function units as RTL blackboxes of the HLS project: Vitis HLS schedules them by their exact latency and II."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from codegen.architecture import Architecture
from codegen.latency import UNIT_LATENCY
from codegen.rtl.kernels import has_kernels
from codegen.rtl.kernels.base import Source
from codegen.rtl.kernels.units import (
    ACTIVATED_BITS,
    EXP2_SOURCES,
    RECIPROCAL_SOURCES,
    RSQRT_SOURCES,
    activation_sources,
)
from codegen.rtl.streams import Field
from common.errors import InputError
from pysim.activations import ACTIVATIONS
from pysim.datapath import EXPONENTIAL, GELU_INPUT, MANTISSA_FRAC, SCORE

INITIATION_INTERVAL = 1
CONTROL_SIGNALS = ("idle", "start", "ready", "done", "continue")


@dataclass(frozen=True)
class Blackbox:
    """One function unit. Its argument and result are native C++ types, the only ones documented to work in a blackbox.

    Attributes:
        unit: its name.
        argument: name of its argument.
        argument_type: in C++.
        result_type: in C++.
        taken: what the unit reads of the argument.
        outputs: what it gives, from the lowest bit of the result on.
        sources: of the unit.
        latency: cycles from an argument to its result.
        resources: as Yosys counts them for UltraScale+ (`docs/rtl-resources.md`).
    """

    unit: str
    argument: str
    argument_type: str
    result_type: str
    taken: Field
    outputs: tuple[Field, ...]
    sources: tuple[Source, ...]
    latency: int
    resources: dict[str, int]

    @property
    def function(self) -> str:
        """Name of the C++ function and of the Verilog module, which must be the same."""
        return f"edgemoe_{self.unit}_blackbox"

    @property
    def argument_bits(self) -> int:
        """Width of the argument's port."""
        return _BITS[self.argument_type]

    @property
    def result_bits(self) -> int:
        """Width of the result's port."""
        return _BITS[self.result_type]

    def description(self) -> dict[str, Any]:
        """Description for Vitis HLS (UG1399, JSON file for RTL blackbox)."""
        common = {"module_clock": "ap_clk", "module_reset": "ap_rst", "module_clock_enable": "ap_ce"}
        common |= {f"ap_ctrl_chain_protocol_{signal}": f"ap_{signal}" for signal in CONTROL_SIGNALS}
        return {
            "c_function_name": self.function,
            "rtl_top_module_name": self.function,
            "c_files": [{"c_file": "../src/blackbox.cpp", "cflag": "-std=c++14 -I../src"}],
            "rtl_files": [f"{self.function}.v", *(source.file for source in self.sources)],
            "c_parameters": [
                {
                    "c_name": self.argument,
                    "c_port_direction": "in",
                    "rtl_ports": {"data_read_in": self.argument},
                }
            ],
            "c_return": {"c_port_direction": "out", "rtl_ports": {"data_write_out": "ap_return"}},
            "rtl_common_signal": common,
            "rtl_performance": {"latency": str(self.latency), "II": str(INITIATION_INTERVAL)},
            "rtl_resource_usage": {name: str(count) for name, count in self.resources.items()},
        }


_BITS = {"unsigned": 32, "int": 32, "unsigned long long": 64, "long long": 64}
_MANTISSA_OUTPUTS = (Field("mantissa", MANTISSA_FRAC + 1, False), Field("position", 6, False))


def _mantissa(unit: str, sources: tuple[Source, ...], lut: int, ff: int) -> Blackbox:
    value = Field("value", 64, False)
    latency = UNIT_LATENCY["mantissa"]
    used = {"FF": ff, "LUT": lut, "BRAM": 0, "URAM": 0, "DSP": 1}
    return Blackbox(
        unit, "value", "unsigned long long", "unsigned", value, _MANTISSA_OUTPUTS, sources, latency, used
    )


BLACKBOXES = {
    box.unit: box
    for box in (
        Blackbox(
            "exp2",
            "difference",
            "unsigned",
            "unsigned",
            Field("difference", SCORE.width + 1, False),
            (Field("exponential", EXPONENTIAL.width, False),),
            EXP2_SOURCES,
            UNIT_LATENCY["exp2"],
            {"FF": 169, "LUT": 404, "BRAM": 0, "URAM": 0, "DSP": 0},
        ),
        Blackbox(
            "gelu",
            "x",
            "int",
            "long long",
            Field("x", GELU_INPUT.width),
            (Field("y", ACTIVATED_BITS),),
            activation_sources(ACTIVATIONS["gelu"]),
            UNIT_LATENCY["gelu"],
            {"FF": 145, "LUT": 102, "BRAM": 1, "URAM": 0, "DSP": 1},
        ),
        _mantissa("reciprocal", RECIPROCAL_SOURCES, lut=448, ff=246),
        _mantissa("rsqrt", RSQRT_SOURCES, lut=441, ff=251),
    )
}
"""Units that can be blackboxes, by name; `gelu` is that of every activation function with a table."""


def chosen(architecture: Architecture, names: Sequence[str]) -> tuple[Blackbox, ...]:
    """The blackboxes of these names, each once.

    Raises:
        InputError: a name that is none, a unit that the network does not have, or a Design of the original's
            arithmetic.
    """
    unknown = [name for name in names if name not in BLACKBOXES]
    if unknown:
        raise InputError(f"blackbox {unknown[0]!r} is unknown", hint=f"there are {', '.join(BLACKBOXES)}")
    if names and not has_kernels(architecture):
        raise InputError(
            f"precision {architecture.precision.name}: no RTL blackboxes",
            hint="the original's arithmetic exists as C++ only; choose w16a16 or w8a8",
        )
    activation = architecture.network.activation
    if "gelu" in names and activation.unit != "gelu":
        raise InputError(
            f"blackbox 'gelu': the network's activation function is {activation.name}, which is a comparison",
            hint="leave this blackbox out",
        )
    own = {"gelu": replace(BLACKBOXES["gelu"], sources=activation_sources(activation))}
    return tuple(own.get(name, box) for name, box in BLACKBOXES.items() if name in names)
