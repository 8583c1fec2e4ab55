"""Resources by engine, and what Yosys's statistics become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blank import on_hardware
from codegen.memories import memories
from codegen.resources import (
    RTL_STYLE,
    Resources,
    dsp_by_engine,
    engine_resources,
    estimate_resources,
    luts_by_engine,
)
from codegen.rtl.kernels import kernels_of
from codegen.rtl.library import write_library
from codegen.rtl.resources import ENGINES, kernel_memories, kernel_parts
from codegen.rtl.synthesis import parse_statistics, script
from codegen.rtl.yosys_dialect import rewrite
from common.errors import InputError
from pysim.design import Design

CELLS = {
    "$scopeinfo": 18,
    "CARRY4": 108,
    "DSP48E2": 5,
    "FDRE": 940,
    "FDSE": 34,
    "INV": 36,
    "LUT1": 1,
    "LUT2": 336,
    "LUT6": 339,
    "MUXF7": 34,
    "RAM32M16": 7,
    "RAM64M8": 2,
    "RAMB18E2": 3,
    "RAMB36E2": 4,
    "SRL16E": 99,
}


def statistics(cells: dict[str, int]) -> str:
    return json.dumps({"design": {"num_cells": sum(cells.values()), "num_cells_by_type": cells}})


def test_statistics_become_resources() -> None:
    found = parse_statistics(statistics(CELLS))
    assert found == Resources(dsp=5, bram36=5.5, uram=0, lut=1 + 336 + 339 + 8 * 7 + 8 * 2 + 99, ff=974)


@pytest.mark.parametrize("text", ["", "{}", '{"design": 3}', '{"design": {}}'])
def test_what_is_not_statistics_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not the statistics"):
        parse_statistics(text)


def test_an_unknown_cell_is_not_left_out_in_silence() -> None:
    with pytest.raises(InputError, match=r"a cell \$_DFF_P_, which is not known"):
        parse_statistics(statistics(CELLS | {"$_DFF_P_": 1}))


def test_script_names_files_and_top() -> None:
    commands = script(["a.sv", "b.v"], "edgemoe_x")
    assert commands.startswith("read_verilog -sv -defer a.sv b.v; synth_xilinx -family xcup")
    assert commands.count("-top edgemoe_x") == 2


def test_packages_are_imported_ahead_of_modules(tmp_path: Path) -> None:
    """That Yosys reads the result, the proofs of such modules show."""
    files = write_library(tmp_path, "edgemoe_gather")
    before = {file.name: file.read_text() for file in files}
    rewrite(files)
    after = {file.name: file.read_text() for file in files}
    assert {name for name in before if before[name] != after[name]} == {"edgemoe_gather.sv"}
    text = after["edgemoe_gather.sv"]
    assert text.index("import edgemoe_job_pkg::*;\n") < text.index("module edgemoe_gather\n")
    assert "input  edgemoe_job_pkg::job_t start_job," in text and " job_t" not in text


@pytest.mark.parametrize("preset", ["w16a16", "w8a8", "iccad23"])
def test_engines_sum_to_the_whole(preset: str, designs: dict[str, Design]) -> None:
    architecture = on_hardware(designs[preset])
    engines, whole = engine_resources(architecture), estimate_resources(architecture)
    for name in ("dsp", "bram36", "uram", "lut", "ff"):
        assert sum(getattr(part, name) for part in engines.values()) == getattr(whole, name)
    # Nothing that is known of an engine gets lost on the way.
    assert whole.dsp == sum(dsp_by_engine(architecture).values()) + engines["addresses"].dsp
    assert set(luts_by_engine(architecture)) == set(dsp_by_engine(architecture)) <= set(engines)
    assert set(memories(architecture)) <= set(engines)


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_every_engine_is_in_one_kernel(preset: str, designs: dict[str, Design]) -> None:
    architecture = on_hardware(designs[preset])
    kernels = kernels_of(architecture)
    held = [engine for engines in ENGINES.values() for engine in engines]
    assert sorted(held) == sorted(dsp_by_engine(architecture))
    for name, engines in ENGINES.items():
        parts = kernel_parts(architecture, kernels[name])
        dsp = sum(part.dsp for part in parts.values())
        assert dsp == sum(dsp_by_engine(architecture, RTL_STYLE)[engine] for engine in engines)
        assert (
            parts["memories"].bram36
            == sum(m.bram18 for m in kernel_memories(architecture, kernels[name])) / 2
        )
        assert parts["engine without memories"].lut > 0
