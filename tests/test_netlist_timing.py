"""Paths of netlists by rough delays, and that no core's worst path or widest enable grows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from codegen.rtl.kernels import kernels_of
from codegen.rtl.netlist_timing import NET, NET_PER_DOUBLING, Timing, read_timing
from codegen.rtl.synthesis import CORES, script
from common.errors import InputError
from scripts import time_rtl

Cells = dict[str, dict[str, Any]]


def cell(kind: str, **ports: list[int | str]) -> dict[str, Any]:
    outputs = ("Q", "O", "CO", "P", "DOUT")
    return {
        "type": kind,
        "port_directions": {port: "output" if port in outputs else "input" for port in ports},
        "connections": ports,
    }


def timing(tmp_path: Path, cells: Cells, names: dict[str, list[int]], **options: Any) -> Timing:
    module = {
        "attributes": {"src": "top.sv:3.1-9.10"},
        "ports": {"in": {"direction": "input", "bits": [90]}, "out": {"direction": "output", "bits": [91]}},
        "cells": cells,
        "netnames": {name: {"bits": bits} for name, bits in ({"in": [90]} | names).items()},
    }
    file = tmp_path / "netlist.json"
    file.write_text(json.dumps({"modules": {"core": module}}))
    return read_timing(file, "core", "top", **options)


def net(loads: int) -> float:
    return NET + NET_PER_DOUBLING * math.log2(1 + loads)


def found(timing: Timing, source: str, target: str) -> float:
    (path,) = (path for path in timing.paths if (path.source, path.target) == (source, target))
    return path.ns


def ff(d: int, q: int, **ports: list[int | str]) -> dict[str, Any]:
    controls: dict[str, list[int | str]] = {"CE": ["1"], "R": ["0"]}
    return cell("FDRE", C=[99], D=[d], Q=[q], **controls | ports)


def test_a_path_through_luts_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    cells = {"a": ff(90, 1), "l": cell("LUT2", I0=[1], I1=["1"], O=[2]), "b": ff(2, 3), "c": ff(2, 91)}
    result = timing(tmp_path, cells, {"a": [1], "b": [3], "out": [91]})
    # Clock, net to one load, LUT, net to two loads, setup.
    assert found(result, "a", "b") == pytest.approx(0.08 + net(1) + 0.10 + net(2) + 0.06, abs=1e-3)
    assert found(result, "in", "a") == pytest.approx(0.08 + net(1) + 0.06, abs=1e-3)
    assert result.worst.text == "a -> b (FDRE LUT2)"
    assert result.worst.luts == 1


def test_a_carry_chain_has_no_nets_inside(tmp_path: Path) -> None:
    low = cell(
        "CARRY4", S=[2, "0", "0", "0"], DI=["0"] * 4, CI=["0"], CYINIT=["0"], O=["x"] * 4, CO=[3, 4, 5, 6]
    )
    high = cell("CARRY4", S=["0"] * 4, DI=["0"] * 4, CI=[6], CYINIT=["0"], O=[7, 8, 9, 10], CO=["x"] * 4)
    cells = {"a": ff(90, 1), "l": cell("LUT1", I0=[1], O=[2]), "low": low, "high": high, "b": ff(10, 91)}
    result = timing(tmp_path, cells, {"a": [1], "b": [91]})
    wanted = 0.08 + net(1) + 0.10 + 0.12 + 0.018 + 0.07 + net(1) + 0.06
    assert found(result, "a", "b") == pytest.approx(wanted, abs=1e-3)


def test_products_and_memories_have_delays_of_their_own(tmp_path: Path) -> None:
    cells = {
        "m": cell("RAMB18E2", CLKARDCLK=[99], ADDRARDADDR=[90], DOUT=[1]),
        "d": cell("DSP48E2", A=[1], B=["1"], C=[1], P=[2]),
        "b": ff(2, 91),
    }
    result = timing(tmp_path, cells, {"b": [91]})
    assert found(result, "m", "b") == pytest.approx(1.00 + net(2) + 1.90 + net(1) + 0.06, abs=1e-3)
    # The address comes from a port, to a memory with a setup of its own.
    assert found(result, "in", "m") == pytest.approx(0.08 + net(1) + 0.30, abs=1e-3)


def test_a_port_may_come_from_a_memory(tmp_path: Path) -> None:
    cells = {"a": ff(90, 91)}
    assert timing(tmp_path, cells, {}).worst.ns == pytest.approx(0.08 + net(1) + 0.06, abs=1e-3)
    late = timing(tmp_path, cells, {}, memory_ports=("in",))
    assert late.worst.ns == pytest.approx(1.00 + net(1) + 0.06, abs=1e-3)


def test_bits_of_a_register_are_one_and_constants_begin_no_path(tmp_path: Path) -> None:
    cells = {
        "a0": ff(90, 1),
        "a1": ff(90, 2),
        "l": cell("LUT2", I0=[1], I1=[2], O=[3]),
        "k": cell("LUT1", I0=["1"], O=[4]),
        "b": ff(3, 91),
        "c": ff(4, 5),
    }
    result = timing(tmp_path, cells, {"a": [1, 2], "b": [91], "c": [5]})
    assert {(path.source, path.target) for path in result.paths} == {
        ("in", "a"),
        ("a", "b"),
        ("b", "port out"),
    }


def test_an_enable_counts_what_it_drives(tmp_path: Path) -> None:
    held = {f"r{i}": ff(90, 10 + i, CE=[1], R=[2]) for i in range(3)}
    cells = {"e": ff(90, 1), "z": ff(90, 2), "s": cell("SRL16E", CLK=[99], CE=[1], D=[90], Q=[91]), **held}
    result = timing(tmp_path, cells, {"enable": [1], "zero": [2]})
    assert result.enables == (("enable", 4), ("zero", 3))
    assert result.widest == ("enable", 4)
    assert ("enable", "r0 CE") in {(path.source, path.target) for path in result.paths}


def test_a_loop_is_told(tmp_path: Path) -> None:
    cells = {"l": cell("LUT2", I0=[90], I1=[2], O=[1]), "k": cell("LUT1", I0=[1], O=[2]), "b": ff(2, 91)}
    with pytest.raises(InputError, match="a loop without a register"):
        timing(tmp_path, cells, {})


def test_an_unknown_cell_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cell ODD: its delay is not known"):
        timing(tmp_path, {"o": cell("ODD", I=[90], O=[1]), "b": ff(1, 91)}, {})


@pytest.mark.parametrize("text", ["", "{}", '{"modules": {"core": 3}}'])
def test_what_is_no_netlist_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "netlist.json"
    file.write_text(text)
    with pytest.raises(InputError, match="not a netlist of top"):
        read_timing(file, "core", "top")


def test_another_module_than_the_wanted_one_is_refused(tmp_path: Path) -> None:
    timing(tmp_path, {"a": ff(90, 91)}, {})
    with pytest.raises(InputError, match=r"not a netlist of other: .*it is one of top"):
        read_timing(tmp_path / "netlist.json", "core", "other")


def test_a_core_is_cut_out_of_its_kernel() -> None:
    commands = script(["a.sv"], "edgemoe_linear", CORES["linear"], netlist=True)
    assert "delete edgemoe_linear; hierarchy -auto-top" in commands
    assert "connect -nounset -set ce 1'1" in commands
    assert commands.count("-top core") == 3 and commands.endswith("write_json netlist.json")
    assert "ce" not in script(["a.sv"], "edgemoe_router", CORES["router"]).split()


def check(worst: time_rtl.Worst, folder: Path) -> None:
    """The worst path and the widest enable are no more than recorded."""
    architecture = worst.architecture
    result, _ = time_rtl.time_kernel(architecture, kernels_of(architecture)[worst.kernel], folder / "rtl")
    assert result.worst.ns <= worst.ns, f"{result.worst.text}; it was {worst.path}"
    assert result.widest[1] <= worst.enabled, result.widest


RECORD = time_rtl.read_record()
SMALL, LARGE = (
    [pytest.param(worst, id=worst.kernel) for worst in RECORD if (worst.model == "micro") is small]
    for small in (True, False)
)


@pytest.mark.rtl
@pytest.mark.parametrize("worst", SMALL)
def test_no_path_of_a_small_core_grows(worst: time_rtl.Worst, tmp_path: Path) -> None:
    check(worst, tmp_path)


@pytest.mark.rtl
@pytest.mark.nightly
@pytest.mark.parametrize("worst", LARGE)
def test_no_path_of_a_core_grows(worst: time_rtl.Worst, tmp_path: Path) -> None:
    check(worst, tmp_path)


KNOWN_LONGER = {("linear", (16, 16, 2, 2)): 4.139}
"""Paths above the limit that nobody has mended yet, in ns; docs/rtl-resources.md says where they run."""


@pytest.mark.parametrize("worst", LARGE)
def test_the_record_keeps_to_the_limits(worst: time_rtl.Worst) -> None:
    known = KNOWN_LONGER.get((worst.kernel, worst.sizes))
    assert worst.ns <= time_rtl.LONGEST_NS if known is None else worst.ns == known
    assert worst.enabled <= time_rtl.MOST_ENABLED
