"""Memories of the RTL accelerator, and the resources that it is expected to take, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from codegen.architecture import JOB_BYTES, Architecture, ceil_div
from codegen.context import IMPLEMENTATIONS
from codegen.hardware import MemoryKind
from codegen.manifest import rtl_arguments
from codegen.memories import Memory, engine_memories
from codegen.resources import CONTROL_FACTOR, RTL_STYLE, Resources, engine_resources
from codegen.rtl.accelerator import accelerator_parameters
from codegen.rtl.kernels import kernels_of
from codegen.rtl.resources import CONTROL_FF, LUTS_PER_REGISTER_BIT, tree_luts
from codegen.schedule import Engine

NOTES: Final = 32
"""Jobs between the fetcher and the dispatcher of the weight streamer."""

MASTER_LUTS: Final = 600
"""LUTs of an AXI master: two adders of an address, a burst's length, counters, queues of a few words."""

JOB_BITS: Final = 8 * JOB_BYTES
PLACE_BITS: Final = 9 * 12
"""Bits that a job takes along in the scoreboard beside its record: how many jobs of each engine must be done."""


def accelerator_memories(architecture: Architecture) -> dict[str, list[Memory]]:
    """Every array of the accelerator, by the engine that it belongs to; the streamer's are under `ports`."""
    sizes = {
        name: value for name, value in accelerator_parameters(architecture).items() if isinstance(value, int)
    }
    found = {
        "activations": _activations(architecture, sizes),
        "linear": _linear(architecture, sizes),
        "write-back": engine_memories(architecture, "write-back"),
        "attention": engine_memories(architecture, "attention"),
        "layernorm": _norm(sizes),
        "router": _router(architecture, sizes) if sizes["EXPERTS"] > 1 else [],
        "jobs": [Memory("job table", 1, sizes["JOBS"], JOB_BITS, bound=_kind("block"))],
        "ports": _ports(architecture, sizes),
    }
    return {name: held for name, held in found.items() if held}


def _kind(kind: MemoryKind) -> str:
    return IMPLEMENTATIONS[kind]


def _activations(architecture: Architecture, sizes: Mapping[str, int]) -> list[Memory]:
    hardware, tokens, lanes = architecture.hardware, sizes["MAX_TOKENS"], sizes["LANES"]
    entry = (tokens - 1).bit_length() + sizes["PROBABILITY_BITS"]
    return [
        Memory(
            "residual stream",
            1,
            tokens * sizes["TOKEN_WORDS"],
            lanes * sizes["RESIDUAL_BITS"],
            bound=_kind(hardware.residual_memory),
            field="residual_memory",
        ),
        Memory(
            "queries, keys, values",
            3,
            tokens * sizes["MIXED_WORDS"],
            lanes * sizes["HEAD_BITS"],
            bound=_kind(hardware.head_memory),
            field="head_memory",
        ),
        Memory("queues", 1, sizes["EXPERTS"] << (tokens - 1).bit_length(), entry),
    ]


def _linear(architecture: Architecture, sizes: Mapping[str, int]) -> list[Memory]:
    hardware, outputs, lanes = architecture.hardware, sizes["OUTPUTS"], sizes["LANES"]
    records = 2 * sizes["MAX_GROUP"]
    tiles = ceil_div(sizes["MAX_TOKENS"], sizes["TOKEN_TILE"])
    return [
        Memory(
            "weight buffer",
            1,
            2 * sizes["WEIGHT_ROWS"],
            outputs * lanes * sizes["W_BITS"],
            bound=_kind(hardware.weight_memory),
            field="weight_memory",
        ),
        Memory("biases", 1, records, outputs * sizes["BIAS_BITS"]),
        Memory("multipliers and shifts", 1, records, outputs * (sizes["MULTIPLIER_BITS"] + 6)),
        Memory(
            "operands",
            sizes["TOKEN_TILE"],
            tiles * sizes["ROW_WORDS"],
            lanes * sizes["X_BITS"],
            bound=_kind(hardware.operand_memory),
            field="operand_memory",
        ),
    ]


def _norm(sizes: Mapping[str, int]) -> list[Memory]:
    lanes, words = sizes["LANES"], 1 << sizes["TOKEN_WORDS"].bit_length()
    statistics = sizes["RESIDUAL_BITS"] + sizes["DIM"].bit_length() + sizes["MANTISSA_FRAC"] + 1 + 6
    return [
        Memory("tokens that wait", 1, 1 << sizes["WAIT_BITS"], lanes * sizes["RESIDUAL_BITS"]),
        Memory("norm parameters", 1, 2 * words, lanes * (sizes["GAMMA_BITS"] + sizes["BETA_BITS"])),
        Memory("statistics", 1, 1 << sizes["LAG_BITS"], statistics),
    ]


def _router(architecture: Architecture, sizes: Mapping[str, int]) -> list[Memory]:
    lanes, words = sizes["LANES"], sizes["TOKEN_WORDS"]
    return [
        Memory(
            "router's tokens",
            1,
            sizes["MAX_TOKENS"] * words,
            lanes * sizes["GATE_BITS"],
            bound=_kind(architecture.hardware.gate_memory),
            field="gate_memory",
        ),
        Memory(
            "gate weights",
            1,
            sizes["GATE_GROUPS"] * words,
            sizes["ROUTER_LANES"] * lanes * sizes["GATE_BITS"],
        ),
    ]


def _ports(architecture: Architecture, sizes: Mapping[str, int]) -> list[Memory]:
    hardware = architecture.hardware
    return [
        Memory(
            "weights ahead of the engines",
            sizes["PORTS"],
            sizes["RING_BEATS"],
            sizes["PORT_BITS"],
            bound=_kind(hardware.stream_memory or "block"),
            field="stream_memory",
        ),
        Memory("jobs of these weights", 1, NOTES, JOB_BITS + 32),
    ]


def accelerator_parts(architecture: Architecture) -> dict[str, Resources]:
    """Resources of the accelerator, part by part; their sum is what is expected.

    Engines are those of the estimate, in the ways of the RTL; memories, streamer, scoreboard and registers are counted.
    """
    engines = engine_resources(architecture, RTL_STYLE)
    held = [memory for name in engines for memory in engine_memories(architecture, name)]
    logic = sum(engines.values(), Resources())
    own = [memory for group in accelerator_memories(architecture).values() for memory in group]
    kernels = kernels_of(architecture)
    trees = sum(
        tree_luts(architecture, kernels[name])
        for name in ("linear", "attention", "router")
        if name in kernels
    )
    ports, arguments = (
        architecture.hardware.weight_ports,
        rtl_arguments(architecture),
    )
    bits = sum(argument.bits for argument in arguments if not argument.output)
    note = JOB_BITS + PLACE_BITS
    return {
        "engines without memories": replace(
            logic, bram36=0, uram=0, lut=logic.lut - sum(m.luts for m in held)
        ),
        "memories": Resources(
            bram36=sum(m.bram18 for m in own) / 2, uram=sum(m.uram for m in own), lut=sum(m.luts for m in own)
        ),
        "sums of products in fabric": Resources(lut=trees),
        "masters": Resources(lut=(ports + 2) * MASTER_LUTS, ff=(ports + 2) * MASTER_LUTS),
        # Two jobs wait before every engine, and one is in it.
        "jobs": Resources(lut=round(CONTROL_FACTOR * len(Engine) * note), ff=3 * len(Engine) * note),
        "registers": Resources(lut=LUTS_PER_REGISTER_BIT * bits, ff=bits + CONTROL_FF),
    }


def accelerator_resources(architecture: Architecture) -> Resources:
    """Resources of the accelerator that are expected."""
    return sum(accelerator_parts(architecture).values(), Resources())
