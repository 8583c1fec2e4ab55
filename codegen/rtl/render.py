"""Rendering the SystemVerilog of kernels from the sources under `hls/rtl`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from codegen.architecture import Architecture
from codegen.context import Context
from codegen.latency import LATENCY
from codegen.rtl.kernels.base import Kernel
from codegen.rtl.kernels.softmax import MAXIMUM_BITS
from codegen.rtl.streams import Stream
from codegen.sources import Sources
from hls import TEMPLATES
from pysim.tables import EXP2, PiecewiseLinear

AXI_LITE_SIGNALS = tuple(
    f"{channel}{signal}"
    for channel, signals in {
        "AW": ("ADDR", "VALID", "READY"),
        "W": ("DATA", "STRB", "VALID", "READY"),
        "B": ("RESP", "VALID", "READY"),
        "AR": ("ADDR", "VALID", "READY"),
        "R": ("DATA", "RESP", "VALID", "READY"),
    }.items()
    for signal in signals
)
"""Signals of an AXI4-Lite port."""


def rtl_sources() -> Sources:
    """Sources of the kernels. Verilog is full of double braces: names stand in `${ ... }` instead."""
    sources = Sources(TEMPLATES / "rtl", TEMPLATES, variable_start_string="${", variable_end_string="}")
    env = sources.environment
    env.filters["signed"] = _signed
    env.filters["segments"] = _segments
    env.filters["suffix"] = lambda text, suffix: text + suffix
    env.globals["beat"] = _beat
    return sources


def _signed(value: int, width: int) -> str:
    """A signed literal."""
    return f"-{width}'sd{-value}" if value < 0 else f"{width}'sd{value}"


def _segments(table: PiecewiseLinear) -> list[tuple[int, int]]:
    return list(zip(table.base.tolist(), table.slope.tolist(), strict=True))


def _beat(stream: Stream, **signals: str) -> str:
    """A beat of signals, one for each field: its lanes side by side where it has several."""
    parts = []
    for field in reversed(stream.fields):
        signal = signals[field.name]
        if field.lanes == 1:
            signal = f"{field.stored}'({'$signed' if field.signed else '$unsigned'}({signal}))"
        parts.append(signal)
    return "{" + ", ".join(parts) + "}"


@dataclass(frozen=True)
class RtlContext:
    """Objects that every template of SystemVerilog knows beside those of all templates.

    Attributes:
        sum_bits: of the sum of a row's exponentials.
        latency: cycles of the parts.
        exp2: table of the powers of two.
        axi_lite_signals: signals of an AXI4-Lite port.
        maximum_bits: of a running maximum of scores.
    """

    sum_bits: int
    latency: Mapping[str, int]
    exp2: PiecewiseLinear = EXP2
    axi_lite_signals: tuple[str, ...] = AXI_LITE_SIGNALS
    maximum_bits: int = MAXIMUM_BITS


def rtl_contexts(architecture: Architecture) -> tuple[Context, RtlContext]:
    """Objects that every template of SystemVerilog knows."""
    return Context.of(architecture), RtlContext(architecture.softmax_sum_bits, LATENCY)


def render(architecture: Architecture, kernels: Iterable[Kernel], folder: Path) -> list[Path]:
    """Write the files of kernels, each once; returns them."""
    sources, contexts = rtl_sources(), rtl_contexts(architecture)
    written: dict[str, Path] = {}
    for kernel in kernels:
        for source in kernel.sources:
            if source.file not in written:
                own = {**source.names, "kernel": kernel}
                written[source.file] = folder / source.file
                written[source.file].write_text(sources.text(source.source, *contexts, own))
    return list(written.values())
