"""The demo on a part of its held-out set; `make demo` runs all of it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import edgemoe
from codegen.csim import CsimResult
from common.errors import CheckError, InputError
from edgemoe import Progress, demo
from edgemoe.cli import main
from edgemoe.console import Console
from pysim.precision import PRESETS

SCENES = 40


@pytest.mark.compile
def test_demo_prints_and_keeps_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    demo.run_demo(console, tmp_path / "demo", scenes=SCENES)
    console.finish()
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert data["scenes"] == SCENES and data["seconds"] > 0
    assert set(data["presets"]) == set(PRESETS)
    for preset, results in data["presets"].items():
        for task, result in results["tasks"].items():
            assert result["accuracy"] >= data["float"]["accuracy"][task] - demo.TARGET_LOSS.get(preset, 2.0)
            assert (
                result["sqnr_db_same_routing"]
                > {"w16a16": 70, "w8a8": 35, "w8a10": 45, "iccad23": 40}[preset]
            )
            assert result["routing_agreement"]["total"] == 2 * 2 * 65 * SCENES
            assert [sum(entry["tokens"]) for entry in result["routing"]] == 2 * [2 * 65 * SCENES]
    for text in (
        "40 held-out scenes",
        "float64",
        "w16a16",
        "w8a8",
        "iccad23",
        "Tokens per expert, task segment",
        "Against the simulator",
        f"{data['verify']['values']:,} values compared, 0 mismatches",
        f"{data['estimate']['cycles']:,} cycles",
    ):
        assert text in captured.err

    assert data["verify"]["mismatches"] == 0
    assert data["verify"]["engines"]["network"] == {
        "values": demo.VERIFIED_SCENES * 65 * 48,
        "mismatches": 0,
    }
    assert data["estimate"]["batch"] == 1 and data["estimate"]["board"] == "zcu102"
    assert data["estimate"]["fits"] and data["estimate"]["ms"] < 0.2

    saved = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert saved == {key: value for key, value in data.items() if key != "seconds"}
    for preset in PRESETS:
        design = edgemoe.load_design(tmp_path / "demo" / "designs" / preset)
        assert design.design_id == data["presets"][preset]["design_id"]
    built = edgemoe.load_design(tmp_path / "demo" / "build" / "design")
    assert edgemoe.estimate(built).cycles == data["estimate"]["cycles"]
    assert edgemoe.verify(tmp_path / "demo" / "build").failed == 0
    model = edgemoe.load_model(tmp_path / "demo" / "model")
    assert len(edgemoe.load_images([tmp_path / "demo" / "images"], model)) == demo.SAVED_IMAGES
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "blocks.3.logits" in page and "linear_heads" in page
    with Image.open(tmp_path / "demo" / "scenes.png") as picture:
        assert picture.width > 500


@pytest.fixture
def only_w8a8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the demo short: one preset, and calibration on a few scenes."""
    monkeypatch.setattr(demo, "PRESETS", ["w8a8"])
    monkeypatch.setattr(demo, "PICTURED_PRESET", "w8a8")
    monkeypatch.setattr(demo, "CALIBRATION_SCENES", 16)


@pytest.mark.compile
@pytest.mark.usefixtures("only_w8a8")
def test_demo_without_a_folder_says_how_to_keep_it(capsys: pytest.CaptureFixture[str]) -> None:
    demo.run_demo(Console(as_json=False), scenes=3)
    captured = capsys.readouterr()
    assert "nothing was saved: -o DIR keeps" in captured.err
    assert "(+0.00)" in captured.out


@pytest.mark.compile
@pytest.mark.usefixtures("only_w8a8")
def test_a_missed_promise_fails_the_demo_and_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "TARGET_LOSS", {"w8a8": -100.0})
    console = Console(as_json=True)
    with pytest.raises(
        CheckError, match=r"w8a8 loses 0\.00 percentage points on digit, promised -100"
    ) as raised:
        demo.run_demo(console, tmp_path / "demo", scenes=3)
    assert (tmp_path / "demo" / "summary.json").is_file()
    console.finish(raised.value)
    data = json.loads(capsys.readouterr().out)
    assert "promised -100" in data["error"] and set(data["presets"]) == {"w8a8"}


@pytest.mark.compile
@pytest.mark.usefixtures("only_w8a8")
@pytest.mark.parametrize("abnormal", [False, True])
def test_compiled_code_that_differs_fails_the_demo(
    abnormal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(build: Path, *, progress: Progress) -> CsimResult:
        assert (build / "hls" / "src" / "top.cpp").is_file()
        if abnormal:
            raise CheckError("the test bench ended abnormally")
        return CsimResult({"network": (1234, 2)}, mismatches=["network[5]: got 1, expected 2"])

    monkeypatch.setattr(edgemoe, "verify", verify)
    console = Console(as_json=True)
    message = "ended abnormally" if abnormal else "2 of 1234 values of the compiled C"
    with pytest.raises(CheckError, match=message) as raised:
        demo.run_demo(console, scenes=2)
    console.finish(raised.value)
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert "presets" in data and "estimate" in data
    assert ("verify" not in data) == abnormal
    assert ("network[5]: got 1, expected 2" in captured.err) != abnormal


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("matplotlib", "matplotlib"),
        ("sklearn", "scikit-learn"),
        ("clang_format", "clang-format"),
        ("hls4ml", "hls4ml"),
        ("g++", r"g\+\+ was not found"),
    ],
)
def test_what_is_missing_is_said_before_the_work(
    missing: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec, which = importlib.util.find_spec, shutil.which
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    tools = {"g++": {"g++"}, "clang_format": {"clang-format"}}.get(missing, set())
    monkeypatch.setattr(
        shutil, "which", lambda name, **named: None if name in tools else which(name, **named)
    )
    monkeypatch.setattr(demo, "_load", lambda scenes: pytest.fail("work began"))
    with pytest.raises(InputError, match=message) as raised:
        demo.run_demo(Console(as_json=True), tmp_path / "demo")
    assert raised.value.hint and not (tmp_path / "demo").exists()


@pytest.mark.compile
@pytest.mark.usefixtures("only_w8a8")
def test_the_command_runs_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_demo = demo.run_demo
    monkeypatch.setattr(demo, "run_demo", lambda console, output: run_demo(console, output, scenes=2))
    assert main(["demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenes"] == 2
