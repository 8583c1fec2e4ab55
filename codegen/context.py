"""Objects that templates know: frozen ones, whose attributes they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from boards import Board
from codegen.architecture import (
    HEADER_BYTES,
    PACK_BITS,
    POSITION_BYTES,
    PRODUCT_SHIFT,
    RECORD_BYTES,
    SETTING_BYTES,
    SHIFT_BITS,
    Architecture,
)
from codegen.hardware import Hardware, MemoryKind
from pysim import datapath, tables
from pysim.activations import Activation
from pysim.arithmetic import ICCAD23, REQUANTISE, Arithmetic
from pysim.formats import Format
from pysim.iccad23_quantizer import PARAMETER_WIDTH
from pysim.kernels import iccad23
from pysim.kernels.gelu import GELU_FRAC
from pysim.precision import Precision
from pysim.spec import ModelSpec
from pysim.tables import PiecewiseLinear

TOP = "edgemoe_top"
"""Name of the kernel, the same in C++, in the tool scripts and in the IP."""

XO = f"vitis/{TOP}.xo"
"""Kernel of a card, which `run_hls.tcl` exports for `v++ --link`; relative to the HLS project."""

IP_VENDOR = "edgemoe"
IP_VERSION = "0.1"

CLOCK_UNCERTAINTY = "27%"
"""Share of the clock period that synthesis leaves to place and route: the default of Vitis HLS."""

SMALL_TABLE = 256
"""Most segments of a table that LUTs hold in any case."""

IMPLEMENTATIONS: Mapping[MemoryKind, str] = {"lut": "lutram", "block": "bram", "ultra": "uram"}
"""Kinds of memory, as `bind_storage` spells them (UG1399)."""


@dataclass(frozen=True)
class Stored:
    """Bits that numbers take in the weight image.

    Attributes:
        record: bias, multiplier and shift of an output.
        shift: the shift in it.
        position: a channel of the position table.
        setting: a scalar setting of a layer.
        header: what all layers share.
        weight: a weight of a linear layer.
        gate: a weight of a gate.
    """

    record: int
    shift: int
    position: int
    setting: int
    header: int
    weight: int
    gate: int


@dataclass(frozen=True)
class Storage:
    """Kind of each memory: `lutram`, `bram` or `uram`, as `bind_storage` spells them (UG1399)."""

    weights: str
    operands: str
    residual: str
    heads: str
    gate_input: str
    scores: str
    choices: str
    jobs: str
    tables: dict[str, str]
    """Kind of memory of each function table, by its name."""


@dataclass(frozen=True)
class Original:
    """Numbers of the original's arithmetic."""

    feature: Format
    parameter_bits: int
    product_shift: int
    log2_e: int
    log2_e_frac: int
    head_block: int
    score_multiplier: int
    score_shift: int


@dataclass(frozen=True)
class Context:
    """Objects that every template of C++ and SystemVerilog knows.

    Attributes:
        architecture: sizes, beats and jobs of the network on its hardware.
        spec: shape of the network.
        precision: widths of its numbers.
        hardware: how much of it there is.
        datapath: formats that all networks share: the module `pysim.datapath`.
        stored: bits of numbers in the weight image.
        storage: what holds each memory.
        tables: of the function units.
        original: numbers of the original's arithmetic; None for the other one.
        activation: the activation function.
        gelu_frac: fraction bits of an activation function's exact output.
        pack_bits: distance of two weights that share a DSP slice.
    """

    architecture: Architecture
    spec: ModelSpec
    precision: Precision
    hardware: Hardware
    datapath: ModuleType
    stored: Stored
    storage: Storage
    tables: tuple[PiecewiseLinear, ...]
    original: Original | None
    activation: Activation
    gelu_frac: int = GELU_FRAC
    pack_bits: int = PACK_BITS

    @classmethod
    def of(cls, architecture: Architecture) -> Context:
        """The context of a network on its hardware."""
        spec = architecture.spec
        return cls(
            architecture,
            spec,
            architecture.precision,
            architecture.hardware,
            datapath,
            Stored(
                record=8 * RECORD_BYTES,
                shift=SHIFT_BITS,
                position=8 * POSITION_BYTES,
                setting=8 * SETTING_BYTES,
                header=8 * HEADER_BYTES,
                weight=8 * architecture.weight_bytes,
                gate=8 * architecture.gate_bytes,
            ),
            storage(architecture),
            function_tables(architecture),
            _ORIGINAL[architecture.network.arithmetic](spec),
            architecture.network.activation,
        )


@dataclass(frozen=True)
class ScriptContext:
    """Objects that the scripts for tools know beside those of all templates.

    Attributes:
        top: name of the kernel.
        hardware_id: identity of the hardware.
        part: name of the device.
        clock_mhz: the clock, as people write it.
        clock_ns: its period.
        sources: the engines' C++ files, as seen from the folder of the HLS project.
        clock_uncertainty: share of the period that is left to place and route.
        testbench: its file.
        data_folder: of the test bench.
        vendor: of the IP.
        version: of the IP.
        library: of the IP: the backend.
        flow_target: what the kernel is exported for: `vivado` as an IP, `vitis` as a file that `v++` links.
        kernel_file: the exported kernel of the latter.
    """

    top: str
    hardware_id: str
    part: str
    clock_mhz: str
    clock_ns: str
    sources: tuple[str, ...]
    library: str
    clock_uncertainty: str = CLOCK_UNCERTAINTY
    testbench: str = "tb/testbench.cpp"
    data_folder: str = "tb/tb_data"
    vendor: str = IP_VENDOR
    version: str = IP_VERSION
    flow_target: str = "vivado"
    kernel_file: str = XO

    @classmethod
    def of(cls, architecture: Architecture, board: Board, sources: tuple[str, ...] = ()) -> ScriptContext:
        """The context of a project for a board."""
        clock_mhz = architecture.hardware.clock_mhz
        return cls(
            TOP,
            architecture.hardware_id,
            board.part,
            f"{clock_mhz:g}",
            f"{1e3 / clock_mhz:.3f}",
            sources,
            architecture.hardware.backend,
            flow_target="vitis" if architecture.hardware.device.xrt else "vivado",
        )


def storage(architecture: Architecture) -> Storage:
    """Kind of each memory."""
    hardware = architecture.hardware
    return Storage(
        weights=IMPLEMENTATIONS[hardware.weight_memory],
        operands=IMPLEMENTATIONS[hardware.operand_memory],
        residual=IMPLEMENTATIONS[hardware.residual_memory],
        heads=IMPLEMENTATIONS[hardware.head_memory],
        gate_input=IMPLEMENTATIONS[hardware.gate_memory],
        scores=IMPLEMENTATIONS[hardware.score_memory],
        choices=IMPLEMENTATIONS[hardware.choice_memory],
        jobs="lutram",
        tables=table_storage(function_tables(architecture), hardware.table_memory),
    )


def table_storage(functions: Iterable[PiecewiseLinear], large: MemoryKind = "block") -> dict[str, str]:
    """Kind of memory of each function table, by its name."""
    return {
        table.name: IMPLEMENTATIONS["lut" if len(table.base) <= SMALL_TABLE else large] for table in functions
    }


def function_tables(architecture: Architecture) -> tuple[PiecewiseLinear, ...]:
    """Tables of the function units."""
    return _FUNCTION_TABLES[architecture.network.arithmetic](architecture.network.activation)


_ICCAD23_GELU = PiecewiseLinear(
    "gelu_delta",
    iccad23.GELU_TABLE[:-1],
    np.diff(iccad23.GELU_TABLE),
    iccad23.FRAC,
    iccad23.GELU_STEP_BITS,
)


def _tables(activation: Activation) -> tuple[PiecewiseLinear, ...]:
    return tables.UNIT_TABLES if activation.delta is None else (*tables.UNIT_TABLES, activation.delta)


_FUNCTION_TABLES: dict[Arithmetic, Callable[[Activation], tuple[PiecewiseLinear, ...]]] = {
    REQUANTISE: _tables,
    ICCAD23: lambda activation: (*iccad23.TABLES, _ICCAD23_GELU),
}


def _original(spec: ModelSpec) -> Original:
    score_multiplier, score_shift = iccad23.attention_scale(spec.head_dim)
    return Original(
        feature=iccad23.FEATURE,
        parameter_bits=PARAMETER_WIDTH,
        product_shift=PRODUCT_SHIFT,
        log2_e=iccad23.LOG2_E,
        log2_e_frac=iccad23.LOG2_E_FRAC,
        head_block=iccad23.HEAD_BLOCK,
        score_multiplier=score_multiplier,
        score_shift=score_shift,
    )


_ORIGINAL: dict[Arithmetic, Callable[[ModelSpec], Original | None]] = {
    REQUANTISE: lambda spec: None,
    ICCAD23: _original,
}
