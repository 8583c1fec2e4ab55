"""`verify --rtl` and the blackboxes of a build: what is right passes, what is not is told and leaves a waveform."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
from boards import load_board
from codegen.build import Build
from codegen.hardware import Hardware
from codegen.latency import UNIT_LATENCY
from codegen.project import generate
from codegen.rtl import verify as module
from codegen.rtl.blackbox import BLACKBOXES
from codegen.rtl.blackbox_files import run_blackbox
from codegen.rtl.kernels import kernels_of
from codegen.rtl.verify import RtlResult, verify_rtl
from common.errors import InputError
from edgemoe.cli import main
from pysim.design import Design

pytestmark = pytest.mark.rtl

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def rtl_build(tmp_path_factory: pytest.TempPathFactory, designs: dict[str, Design], images: Pixels) -> Build:
    """A build of little hardware, which Verilator builds quickly, with every blackbox: to read, not to change."""
    hardware = Hardware(lanes=4, outputs=8, token_tile=2, attention_rows=3, max_batch=2)
    folder = tmp_path_factory.mktemp("rtl") / "build"
    return generate(
        designs["w8a8"],
        folder,
        load_board("zcu102"),
        images[:1],
        hardware=hardware,
        blackboxes=list(BLACKBOXES),
    )[0]


@pytest.fixture
def own_build(rtl_build: Build, tmp_path: Path) -> Build:
    """A copy to change."""
    shutil.copytree(rtl_build.folder, tmp_path / "build")
    return Build.load(tmp_path / "build")


@pytest.fixture(scope="session")
def verified(rtl_build: Build, images: Pixels) -> RtlResult:
    return verify_rtl(rtl_build, images[:1], task=1)


def test_every_kernel_and_blackbox_is_right(rtl_build: Build, verified: RtlResult) -> None:
    kernels = kernels_of(rtl_build.architecture)
    assert set(verified.engines) == set(kernels) | {f"{unit}_blackbox" for unit in BLACKBOXES}
    for values, mismatches in verified.engines.values():
        assert values > 100
        assert mismatches == 0
    assert verified.problems == []


def test_cycles_are_those_that_were_computed(verified: RtlResult) -> None:
    compared, wrong = verified.cycles
    assert wrong == 0
    exact = [stage for stage in verified.stages if stage.computed is not None]
    assert compared == len(exact) + len(BLACKBOXES)
    assert all(stage.measured == stage.computed for stage in exact)
    named = {stage.stage for stage in verified.stages}
    assert {"blocks.0.norm1", "blocks.0.attention", "blocks.0.fc2", "blocks.1.router"} <= named
    assert "blocks.0.norm1" in verified.estimates


def flip_bit(path: Path, pattern: str, bit: int) -> None:
    """Flip a bit of the first number that the pattern's group holds."""
    text = path.read_text()
    match = re.search(pattern, text)
    assert match is not None
    flipped = str(int(match[1]) ^ (1 << bit))
    path.write_text(text[: match.start(1)] + flipped + text[match.end(1) :])


def flip_exp2(build: Build) -> None:
    """One bit of one entry: the same everywhere, so that Verilator builds it once."""
    flip_bit(build.rtl / "edgemoe_rom_exp2.v", r"7'd77: .* <= \{\d+'d(\d+),", 0)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let `verify_rtl` see these kernels alone."""
    monkeypatch.setattr(
        module,
        "kernels_of",
        lambda architecture: {n: k for n, k in kernels_of(architecture).items() if n in names},
    )


def test_flipped_bit_in_a_table_is_found_and_leaves_a_waveform(
    own_build: Build, images: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "exp2")
    flip_exp2(own_build)
    result = verify_rtl(own_build, images[:1])
    assert result.engines["exp2"][1] > 0
    (problem,) = result.problems
    waves = own_build.rtl / "failed-exp2.vcd"
    assert re.fullmatch(
        rf"edgemoe_exp2, table sweep: table sweep: beat \d+, exponential\[\d+\] is \d+, expected \d+; "
        rf"waveform in {re.escape(str(waves))}",
        problem,
    )
    assert waves.read_text().startswith("$version")


def test_a_cycle_more_is_found(own_build: Build, images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "router")
    path = own_build.rtl / "edgemoe_router.sv"
    text = path.read_text()
    changed = re.sub(
        r"(localparam logic \[\d+:0\] interval = \d+'d)(\d+);", lambda m: f"{m[1]}{int(m[2]) + 1};", text
    )
    assert changed != text
    path.write_text(changed)
    result = verify_rtl(own_build, images[:1])
    assert result.engines["router"][1] == 0
    assert result.cycles == (1, 1) or result.cycles[1] == 1
    assert "computed" in result.problems[0]


def test_missing_file_is_told(own_build: Build, images: Pixels) -> None:
    (own_build.rtl / "edgemoe_softmax.sv").unlink()
    with pytest.raises(InputError, match=r"edgemoe_softmax\.sv: no such file"):
        verify_rtl(own_build, images[:1])


def test_code_that_is_no_verilog_is_told(
    own_build: Build, images: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "gelu")
    (own_build.rtl / "edgemoe_gelu.sv").write_text("this is no Verilog\n")
    with pytest.raises(InputError, match="edgemoe_gelu: Verilator refuses it"):
        verify_rtl(own_build, images[:1])


# --- Command line -------------------------------------------------------------------------------------------


def test_command_line_prints_cycles_and_counts(
    own_build: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "layernorm", "exp2")
    assert main(["verify", str(own_build.folder), "--rtl", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["mismatches"] == 0
    assert set(result["engines"]) >= {"rtl.layernorm", "rtl.exp2", "rtl.cycles"}
    assert result["values"] == sum(engine["values"] for engine in result["engines"].values())
    assert {"kernel", "stage", "values", "measured", "computed"} <= set(result["rtl_stages"][0])
    assert "HLS estimate" in captured.err
    assert result["engines"]["rtl.accelerator"]["values"] > 10_000
    counted = result["accelerator"]
    stages = {stage["stage"]: stage for stage in counted["stages"]}
    assert {"positions", "embed", "blocks.0.fc2", "blocks.1.experts", "output"} <= set(stages)
    assert all(0 < stage["cycles"] < counted["cycles"] for stage in stages.values())
    assert all(stage["values"] for stage in stages.values())
    # Both tasks, and once more with stalls.
    assert counted["calls"] == 3


def test_command_line_fails_where_a_value_differs(
    own_build: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "exp2")
    flip_exp2(own_build)
    assert main(["verify", str(own_build.folder), "--rtl"]) == 1
    captured = capsys.readouterr()
    assert "edgemoe_exp2, table sweep" in captured.err
    assert "differ from the simulator's" in captured.err


def test_the_originals_arithmetic_has_none(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = str(tmp_path / "build")
    assert main(["generate", str(folders / "iccad23"), "-o", build]) == 0
    assert list((tmp_path / "build/rtl").iterdir()) == []
    assert main(["verify", build, "--rtl"]) == 2
    assert "no RTL kernels" in capsys.readouterr().err
    assert main(["generate", str(folders / "iccad23"), "-o", f"{build}2", "--blackbox", "gelu"]) == 2
    assert "no RTL blackboxes" in capsys.readouterr().err
    assert not (tmp_path / "build2").exists()


def test_unknown_blackbox(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(folders / "w8a8"), "-o", str(tmp_path / "b"), "--blackbox", "tanh"]) == 2
    error = capsys.readouterr().err
    assert "blackbox 'tanh' is unknown" in error
    assert "exp2, gelu, reciprocal, rsqrt" in error
    assert not (tmp_path / "b").exists()


# --- Blackboxes ---------------------------------------------------------------------------------------------


def test_blackbox_json_says_what_vitis_must_know(rtl_build: Build) -> None:
    folder = rtl_build.hls / "blackbox"
    for unit, box in BLACKBOXES.items():
        described = json.loads((folder / f"{unit}.json").read_text())
        assert described["c_function_name"] == described["rtl_top_module_name"] == box.function
        assert described["rtl_performance"] == {
            "latency": str(UNIT_LATENCY.get(unit, UNIT_LATENCY["mantissa"])),
            "II": "1",
        }
        assert set(described["rtl_resource_usage"]) == {"FF", "LUT", "BRAM", "URAM", "DSP"}
        text = (folder / described["rtl_files"][0]).read_text()
        assert f"module {box.function} (" in text
        ports = [
            described["c_return"]["rtl_ports"]["data_write_out"],
            *described["rtl_common_signal"].values(),
        ]
        ports += [parameter["rtl_ports"]["data_read_in"] for parameter in described["c_parameters"]]
        for port in ports:
            assert re.search(rf"\b{port}\b", text), port
        for file in described["rtl_files"]:
            assert (folder / file).suffix == ".v"
            assert (folder / file).is_file()
        for entry in described["c_files"]:
            assert box.function in (folder / entry["c_file"]).resolve().read_text()


def test_blackboxes_are_named_to_both_tools_and_called(rtl_build: Build) -> None:
    script = (rtl_build.hls / "run_hls.tcl").read_text()
    config = (rtl_build.hls / "hls_config.cfg").read_text()
    sources = "".join(path.read_text() for path in (rtl_build.hls / "src").glob("*arithmetic.h"))
    for unit in BLACKBOXES:
        assert f"add_files -blackbox blackbox/{unit}.json" in script
        assert f"syn.blackbox.file=blackbox/{unit}.json" in config
    assert "gelu_rtl(" in sources
    assert "src/blackbox.cpp" not in script


def test_compiled_blackbox_models_change_nothing(rtl_build: Build) -> None:
    result = edgemoe.verify(rtl_build.folder)
    assert result.failed == 0


def test_no_blackbox_unless_asked_for(folders: Path, tmp_path: Path) -> None:
    build = edgemoe.generate(Design.load(folders / "w8a8"), tmp_path / "build")
    assert not (build.hls / "blackbox").exists()
    assert not (build.hls / "src/blackbox.h").exists()
    assert "blackbox" not in (build.hls / "run_hls.tcl").read_text()


def test_blackbox_with_another_latency_than_its_json_is_found(
    own_build: Build, images: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "gelu")
    for unit in BLACKBOXES:
        if unit != "gelu":
            (own_build.hls / f"blackbox/{BLACKBOXES[unit].function}.v").unlink()
    path = own_build.hls / "blackbox/gelu.json"
    described: dict[str, Any] = json.loads(path.read_text())
    described["rtl_performance"]["latency"] = str(UNIT_LATENCY["gelu"] + 1)
    path.write_text(json.dumps(described))
    result = verify_rtl(own_build, images[:1])
    assert result.cycles[1] == 1
    assert "gelu.json says" in result.problems[-1]


def test_blackbox_holds_its_results_under_stalls(rtl_build: Build) -> None:
    box = BLACKBOXES["reciprocal"]
    run = run_blackbox(box, rtl_build.hls / "blackbox", np.arange(1, 300, dtype=np.uint64))
    free, stalled = run.outputs
    for name in free:
        np.testing.assert_array_equal(free[name], stalled[name])
    assert run.idle
