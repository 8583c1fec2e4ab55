"""Rendering the HLS project of a Design from the sources under `hls/`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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
    attention_steps,
)
from codegen.hardware import MemoryKind
from codegen.schedule import job_table
from codegen.sources import Sources, file_name, is_template
from codegen.testdata import job_tests
from codegen.weight_image import image_layout, output_bytes
from common.errors import InputError
from hls import TEMPLATES
from pysim import datapath, tables
from pysim.arithmetic import ICCAD23, REQUANTISE, Arithmetic
from pysim.iccad23_quantizer import PARAMETER_WIDTH
from pysim.kernels import iccad23
from pysim.program import Value
from pysim.spec import ModelSpec
from pysim.tables import PiecewiseLinear

TOP = "edgemoe_top"
"""Name of the kernel, the same in C++, in the tool scripts and in the IP."""

IP_VENDOR = "edgemoe"
IP_VERSION = "0.1"

ENGINES = ("load", "image", "linear", "norm", "attention", "router", "gather", "output")
"""Engines whose trip counts are counted."""

PROJECT_FOLDERS = ("src", "tb", "scripts")
"""Folders of sources that make up the HLS project."""

BLACKBOX_FILES = ("blackbox.h", "blackbox.cpp")
"""Files that a project with blackboxes has in `src` beside the others."""

CLOCK_UNCERTAINTY = "27%"
"""Share of the clock period that synthesis leaves to place and route: the default of Vitis HLS."""

STYLE = "{BasedOnStyle: Google, ColumnLimit: 110}"
"""Of the C++, for clang-format; `.clang-format` says the same to editors."""


class ReplacedUnit(Protocol):
    """A function unit that the engines call as an RTL blackbox: `codegen.rtl.blackbox.Blackbox`, for the templates."""

    @property
    def unit(self) -> str:
        """Name of the unit."""


def project_sources(architecture: Architecture) -> Sources:
    """Sources of the HLS project."""
    sources = Sources(TEMPLATES)
    env = sources.environment
    ports = architecture.hardware.weight_ports

    def declared(prefix: str = "") -> str:
        return ", ".join(f"{prefix}WeightPort weights_{port}" for port in range(ports))

    env.filters["prefix"] = lambda value, prefix: prefix + value
    env.filters["stored"] = _stored
    env.filters["quoted"] = lambda value: f'"{value}"'
    env.globals["weight_ports_declared"] = declared
    env.globals["weight_ports_passed"] = lambda: ", ".join(f"weights_{port}" for port in range(ports))
    return sources


def _stored(value: Value) -> str:
    """A value of the simulator as the test bench names it."""
    return f'{{"{value.name}", {value.kind.name}, {value.channels}}}'


def context(architecture: Architecture) -> dict[str, Any]:
    """Every name that the templates use."""
    network, spec = architecture.network, architecture.spec
    hardware, precision, moe = architecture.hardware, architecture.precision, spec.moe
    shapes = architecture.shapes.values()
    port_bytes = architecture.port_bytes
    sections = architecture.sections
    return {
        "top": TOP,
        "engines": ENGINES,
        "name": spec.name,
        "hardware_id": architecture.hardware_id,
        "tokens": spec.tokens,
        "patches": spec.patches,
        "dim": spec.dim,
        "depth": spec.depth,
        "heads": spec.heads,
        "experts": architecture.experts,
        "top_k": moe.top_k if moe else 1,
        "tasks": architecture.gates,
        "normalize_over_selected": moe is not None and moe.normalize_over_selected,
        "max_batch": hardware.max_batch,
        "lanes": architecture.lanes,
        "softmax_sum_bits": architecture.softmax_sum_bits,
        "outputs": architecture.outputs,
        "token_tile": hardware.token_tile,
        "attention_rows": hardware.attention_rows,
        "router_lanes": architecture.router_lanes,
        "token_words": architecture.token_words,
        "patch_words": architecture.patch_words,
        "head_words": architecture.head_words,
        "weight_rows": hardware.weight_rows,
        "max_group": architecture.max_group,
        "max_pairs": max(shape.pairs for shape in shapes),
        "packed": architecture.packed,
        "packed_chain": architecture.packed_chain,
        "pack_bits": PACK_BITS,
        "dsp_port_bits": hardware.device.wide_port,
        "storage": storage(architecture),
        "max_blocks": max(shape.blocks for shape in shapes),
        "regions": architecture.regions,
        "weight_bits": precision.weight_width,
        "activation_bits": precision.activation_width,
        "operand_bits": architecture.operand_width,
        "attention_bits": precision.attention_width,
        "gate_bits": precision.gate_width,
        "residual_bits": network.residual_width,
        "score": datapath.SCORE,
        "exponential": datapath.EXPONENTIAL,
        "probability": datapath.PROBABILITY,
        "gelu_input": datapath.GELU_INPUT,
        "normalized": datapath.NORMALIZED,
        "mantissa_frac": datapath.MANTISSA_FRAC,
        "gamma_bits": datapath.NORM_WEIGHT_WIDTH,
        "pixel_offset": architecture.pixel_offset,
        "accumulator_bits": datapath.ACCUMULATOR_LIMIT,
        "bias_bits": architecture.bias_bits,
        "multipliers": precision.multipliers,
        "multiplier_bits": datapath.MULTIPLIER_WIDTH if precision.multipliers else 1,
        "shift_bits": SHIFT_BITS,
        "axi_bits": hardware.axi_width,
        "weight_ports": hardware.weight_ports,
        "stored_weight_bits": 8 * architecture.weight_bytes,
        "stored_gate_bits": 8 * architecture.gate_bytes,
        "record_bits": 8 * RECORD_BYTES,
        "position_bits": 8 * POSITION_BYTES,
        "setting_bits": 8 * SETTING_BYTES,
        "header_bits": 8 * HEADER_BYTES,
        "record_beats": architecture.record_beats,
        "word_beats": architecture.word_beats,
        "norm_word_beats": architecture.norm_word_beats,
        "setting_beats": architecture.setting_beats,
        "position_word_beats": architecture.position_word_beats,
        "gate_record_beats": architecture.gate_record_beats,
        "gate_word_beats": architecture.gate_word_beats,
        "gate_groups": architecture.gate_groups,
        "sections": sections,
        "shapes": architecture.shapes,
        "jobs": job_table(architecture),
        "settings": list(architecture.settings),
        "attention_step": architecture.attention_step,
        "attention_steps": attention_steps(spec.tokens, hardware.attention_rows),
        "norm_lag": architecture.norm_lag,
        "image_depth": hardware.max_batch * image_layout(architecture).image_bytes // port_bytes,
        "ports_data": ", ".join(f"weights_{port}_words.data()" for port in range(hardware.weight_ports)),
        "job_tests": job_tests(architecture),
        "output_depth": output_bytes(architecture, hardware.max_batch) // port_bytes,
        "arithmetic": architecture.arithmetic,
        "tables": function_tables(architecture),
    } | _ARITHMETIC_CONTEXTS[network.arithmetic](spec)


SMALL_TABLE = 256
"""Most segments of a table that LUTs hold in any case."""

IMPLEMENTATIONS: Mapping[MemoryKind, str] = {"lut": "lutram", "block": "bram", "ultra": "uram"}
"""Kinds of memory, as `bind_storage` spells them (UG1399)."""


def storage(architecture: Architecture) -> dict[str, Any]:
    """What holds each memory, as `bind_storage` spells it."""
    hardware = architecture.hardware
    kinds: dict[str, MemoryKind] = {
        "weights": hardware.weight_memory,
        "operands": hardware.operand_memory,
        "residual": hardware.residual_memory,
        "heads": hardware.head_memory,
        "gate_input": hardware.gate_memory,
        "scores": hardware.score_memory,
        "choices": hardware.choice_memory,
    }
    found = {name: IMPLEMENTATIONS[kind] for name, kind in kinds.items()}
    return found | {"tables": table_storage(function_tables(architecture), hardware.table_memory)}


def table_storage(functions: Iterable[PiecewiseLinear], large: MemoryKind = "block") -> dict[str, str]:
    """What holds each function table, by its name."""
    return {
        table.name: IMPLEMENTATIONS["lut" if len(table.base) <= SMALL_TABLE else large] for table in functions
    }


def function_tables(architecture: Architecture) -> tuple[PiecewiseLinear, ...]:
    """Tables of the function units."""
    return _FUNCTION_TABLES[architecture.network.arithmetic]


_ICCAD23_GELU = PiecewiseLinear(
    "gelu_delta",
    iccad23.GELU_TABLE[:-1],
    np.diff(iccad23.GELU_TABLE),
    iccad23.FRAC,
    iccad23.GELU_STEP_BITS,
)
_FUNCTION_TABLES: dict[Arithmetic, tuple[PiecewiseLinear, ...]] = {
    REQUANTISE: tables.TABLES,
    ICCAD23: (*iccad23.TABLES, _ICCAD23_GELU),
}


def _iccad23_context(spec: ModelSpec) -> dict[str, Any]:
    score_multiplier, score_shift = iccad23.attention_scale(spec.head_dim)
    return {
        "feature": iccad23.FEATURE,
        "parameter_bits": PARAMETER_WIDTH,
        "product_shift": PRODUCT_SHIFT,
        "log2_e": iccad23.LOG2_E,
        "log2_e_frac": iccad23.LOG2_E_FRAC,
        "head_block": iccad23.HEAD_BLOCK,
        "score_multiplier": score_multiplier,
        "score_shift": score_shift,
    }


_ARITHMETIC_CONTEXTS: dict[Arithmetic, Callable[[ModelSpec], dict[str, Any]]] = {
    REQUANTISE: lambda spec: {},
    ICCAD23: _iccad23_context,
}


def script_context(architecture: Architecture, board: Board, sources: Sequence[str]) -> dict[str, Any]:
    """What the tool scripts need to know beside the design."""
    clock_mhz = architecture.hardware.clock_mhz
    return {
        "part": board.part,
        "clock_mhz": f"{clock_mhz:g}",
        "clock_ns": f"{1e3 / clock_mhz:.3f}",
        "clock_uncertainty": CLOCK_UNCERTAINTY,
        "sources": list(sources),
        "testbench": "tb/testbench.cpp",
        "data_folder": "tb/tb_data",
        "vendor": IP_VENDOR,
        "version": IP_VERSION,
    }


def _sources(arithmetic: str) -> dict[Path, Path]:
    """Source of every file; those in an arithmetic's folder, if any, replace the ones of the same name in `src`."""
    found = {
        # The tool scripts stand beside the folders whose files they name.
        Path("" if folder == "scripts" else folder) / file_name(source): source
        for folder in PROJECT_FOLDERS
        for source in (TEMPLATES / folder).iterdir()
    }
    own = TEMPLATES / arithmetic
    replacing = own.iterdir() if own.is_dir() else ()
    return found | {Path("src") / file_name(source): source for source in replacing}


def unit_functions(replaced: Iterable[str] = ()) -> Callable[[str], str]:
    """What the engines call for a function unit: the unit, or the blackbox in its place."""
    names = frozenset(replaced)
    return lambda name: f"{name}_{'rtl' if name in names else 'unit'}"


def render(
    architecture: Architecture, folder: Path, board: Board, blackboxes: Sequence[ReplacedUnit] = ()
) -> list[Path]:
    """Write every file into `folder`: sources copied, templates rendered and formatted; returns the files.

    Args:
        architecture: of the design.
        folder: of the project.
        board: the board.
        blackboxes: function units that the engines call as RTL blackboxes.
    """
    sources = project_sources(architecture)
    sources.environment.globals["unit"] = unit_functions(box.unit for box in blackboxes)
    names = context(architecture) | script_context(architecture, board, source_files())
    names |= {"blackboxes": blackboxes}
    files = _sources(architecture.arithmetic)
    if blackboxes:
        files |= {Path("src") / name: TEMPLATES / f"blackbox/{name}.j2" for name in BLACKBOX_FILES}
    rendered = []
    for file, source in files.items():
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        place = source.relative_to(TEMPLATES).parent / file.name
        target.write_text(sources.text(place.as_posix(), names))
        if is_template(source) and target.suffix in (".cpp", ".h"):
            rendered.append(target)
    format_cpp(rendered)
    return sorted(folder / file for file in files)


def source_files() -> list[str]:
    """The engines' C++ files, as seen from the folder of the HLS project."""
    names = (file_name(path) for path in (TEMPLATES / "src").iterdir())
    return sorted(f"src/{name}" for name in names if name.endswith(".cpp"))


def format_cpp(files: Sequence[Path]) -> None:
    """Run clang-format."""
    subprocess.run(
        [find_formatter(), "-i", f"--style={STYLE}", *map(str, files)], check=True, capture_output=True
    )


def find_formatter() -> str:
    """Path of clang-format, which is installed with edgemoe, beside Python.

    Without it nothing is generated: the text, and with it the cache of compiled files, would differ from machine to
    machine.

    Raises:
        InputError: it is missing.
    """
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    tool = shutil.which("clang-format", path=os.pathsep.join(places))
    if tool is None:
        raise InputError("clang-format was not found", hint="pip install clang-format")
    return tool
