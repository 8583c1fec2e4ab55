"""The command line: what each command makes and prints, its exit codes, and JSON with nothing beside it."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
from codegen.build import Build
from common.errors import CheckError
from common.process import BROKEN_PIPE
from edgemoe import cli
from pysim.design import Design
from pysim.model import Model
from pysim.precision import PRESETS

Pixels = NDArray[np.uint8]


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, which must not hold what JSON does not have."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} in JSON")

        data = json.loads(self.out, parse_constant=refuse)
        assert isinstance(data, dict)
        return data


class Run:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        self.capsys.readouterr()
        found = cli.main([str(argument) for argument in arguments])
        captured = self.capsys.readouterr()
        assert found == code, captured.err
        return Result(found, captured.out, captured.err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


# --- The commands -------------------------------------------------------------------------------------------


def test_version_and_help(run: Run) -> None:
    assert run("--version").out == f"edgemoe {edgemoe.__version__}\n"
    text = run("--help").out
    for command in ("init", "import", "export", "quantize", "simulate", "evaluate", "demo", "zoo"):
        assert command in text
        assert "--json" in run(command, "--help").out
        assert run(command, "-h").out == run(command, "--help").out
    assert run().out == run("-h").out == text
    assert run().err == ""
    assert run("zoo", "-h", "--json").out == run("zoo", "-h").out


def test_init(run: Run, tmp_path: Path) -> None:
    result = run("init", "micro", "-o", tmp_path / "a", "--seed", 5)
    assert "26,160 parameters" in result.out and result.err == ""
    expected = edgemoe.init_model("micro", seed=5)
    for name, tensor in edgemoe.load_model(tmp_path / "a").weights.items():
        assert_array_equal(tensor, expected.weights[name])
    again = run("init", tmp_path / "a" / "model.toml", "-o", tmp_path / "b", "--json").json
    assert again == {
        "model": str(tmp_path / "b"),
        "name": "micro",
        "parameters": 26160,
        "tasks": ["semseg", "depth"],
        "notes": "",
    }


def test_zoo(run: Run) -> None:
    assert "m3vit-small-pascal" in run("zoo").out
    entries = {entry["name"]: entry for entry in run("zoo", "--json").json["zoo"]}
    assert entries["m3vit-tiny"]["tokens"] == 129
    assert entries["m3vit-tiny"]["tasks"] == ["semseg", "depth"]


def test_quantize_writes_the_design(
    run: Run, folders: Path, designs: dict[str, Design], tmp_path: Path
) -> None:
    out = tmp_path / "design"
    result = run(
        "quantize", folders / "model", "-o", out, "--images", folders / "images", "--precision", "w8a8"
    )
    assert result.err == ""
    assert "SQNR dB" in result.out and "blocks." in result.out
    design = edgemoe.load_design(out)
    assert design.weights_sha256 == designs["w8a8"].weights_sha256
    assert design.design_id == designs["w8a8"].design_id in result.out


def test_quantize_in_json(run: Run, folders: Path, tmp_path: Path) -> None:
    first, second = (folders / "images" / f"{number:02}.png" for number in (0, 1))
    arguments = ("--images", first, "--images", second, "--attention-rows", 4, "--json", "--all")
    result = run("quantize", folders / "model", "-o", tmp_path / "design", *arguments)
    assert "warning: only 2 calibration image(s)" in result.err
    data = result.json
    assert data["warnings"] == ["only 2 calibration image(s): ranges may be too narrow for others"]
    assert (data["images"], data["precision"]) == (2, "w16a16")
    design = edgemoe.load_design(tmp_path / "design")
    assert design.attention_rows == 4
    assert [tensor["name"] for tensor in data["tensors"]] == [report.name for report in design.reports]
    assert {"kind", "low", "high", "width", "scale", "frac", "clipped", "sqnr_db"} < set(data["tensors"][0])


def test_quantize_warns_of_a_design_that_is_noise(run: Run, folders: Path, tmp_path: Path) -> None:
    model = edgemoe.load_model(folders / "model")
    model.weights.update({name: tensor * np.float32(1e-8) for name, tensor in model.weights.items()})
    model.save(tmp_path / "model")
    arguments = ("--images", folders / "images", "--precision", "iccad23")
    result = run("quantize", tmp_path / "model", "-o", tmp_path / "a", *arguments)
    warnings = edgemoe.load_design(tmp_path / "a").warnings
    assert warnings
    for text in warnings:
        assert result.err.count(f"warning: {text}\n") == 1
    data = run("quantize", tmp_path / "model", "-o", tmp_path / "b", *arguments, "--json").json
    assert data["warnings"] == list(warnings)


def test_quantize_reports_every_tensor_on_request(run: Run, folders: Path, tmp_path: Path) -> None:
    common = ("quantize", folders / "model", "--images", folders / "images")
    grouped = run(*common, "-o", tmp_path / "a").out
    every = run(*common, "-o", tmp_path / "b", "--all").out
    assert len(every.splitlines()) > 2 * len(grouped.splitlines())
    assert "blocks.3.fc2.4" in every


def test_simulate(run: Run, folders: Path, designs: dict[str, Design], images: Pixels) -> None:
    picture = folders / "images" / "01.png"
    data = run("simulate", folders / "w16a16", "--image", picture, "--json").json
    expected = edgemoe.simulate(designs["w16a16"], images[1:2])
    digest = hashlib.sha256(expected.integers.astype("<i8").tobytes()).hexdigest()
    assert (data["task"], data["images"], data["tokens_sha256"]) == ("semseg", 1, digest)
    assert data["seconds"] > 0 and data["stages"] == [] and "sqnr_db" not in data
    assert [entry["layer"] for entry in data["routing"]] == [1, 3]
    for entry in data["routing"]:
        assert entry["tokens"] == expected.routing[entry["layer"]].lengths.tolist()
        assert entry["unused"] == [i for i, count in enumerate(entry["tokens"]) if count == 0]
        assert entry["task"] == "semseg"
    text = run("simulate", folders / "w16a16", "--image", picture).out
    assert digest[:16] in text and "Tokens per expert, task semseg" in text


def test_simulate_beside_a_reference(run: Run, folders: Path, micro: Model) -> None:
    common = ("simulate", folders / "w8a8", "--image", folders / "images", "--reference", folders / "model")
    data = run(*common, "--task", "depth", "--json").json
    assert data["task"] == "depth" and data["images"] == 12
    assert data["sqnr_db_same_routing"] > 35
    assert 0 < data["mean_error"] < data["max_error"]
    assert 0 < data["routing_agreement"]["equal"] <= data["routing_agreement"]["total"] == 2 * 2 * 12 * 9
    stages = {stage["name"]: stage for stage in data["stages"]}
    assert stages["blocks.3.output"]["sqnr_db"] == data["sqnr_db_same_routing"]
    assert stages["blocks.1.scores"]["shape"] == [12, 2, 9, 9]
    text = run(*common).out
    for expected in ("SQNR", "max error", "MAE", "choices equal", "blocks.2.attention"):
        assert expected in text


def test_stages_of_many_images_come_from_the_first(
    run: Run, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("simulate", folders / "w8a8", "--image", folders / "images", "--reference", folders / "model")
    whole = run(*common, "--json").json
    monkeypatch.setattr("edgemoe.runs.TRACE_BYTES", 1)
    first = run(*common, "--json").json
    assert (whole["stage_images"], first["stage_images"]) == (12, 1)
    assert whole["sqnr_db"] == first["sqnr_db"]
    assert "stages: the first 1 of 12 images" in run(*common).out
    assert run(*common, "--trace", "--json").json["stage_images"] == 12


def test_simulate_every_task(run: Run, folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "result.npz"
    common = ("simulate", folders / "w16a16", "--image", folders / "images" / "00.png")
    data = run(*common, "--task", "all", "--out", out, "--json").json
    assert [entry["task"] for entry in data["runs"]] == ["semseg", "depth"]
    assert [(entry["task"], entry["layer"]) for entry in data["routing"]] == [
        ("semseg", 1),
        ("semseg", 3),
        ("depth", 1),
        ("depth", 3),
    ]
    for entry in data["runs"]:
        alone = run(*common, "--task", entry["task"], "--json").json
        assert alone["tokens_sha256"] == entry["tokens_sha256"]
    with np.load(out, allow_pickle=False) as arrays:
        assert (
            hashlib.sha256(arrays["depth.integers"].tobytes()).hexdigest() == data["runs"][1]["tokens_sha256"]
        )
    assert [path.name for path in out.parent.iterdir()] == ["result.npz"]


@pytest.mark.parametrize("name", ["result.npz", "result"])
def test_simulate_saves_the_trace(
    run: Run, folders: Path, designs: dict[str, Design], images: Pixels, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    common = ("simulate", folders / "w8a8", "--image", folders / "images", "--out", out)
    assert "blocks.0.scores" in run(*common, "--trace").out
    expected = edgemoe.simulate(designs["w8a8"], images, trace=True)
    with np.load(out, allow_pickle=False) as arrays:
        assert_array_equal(arrays["integers"], expected.integers)
        assert_array_equal(arrays["tokens"], expected.tokens)
        assert_array_equal(arrays["experts.3"], expected.routing[3].experts)
        assert {key for key in arrays if key.startswith("trace.")} == {
            f"trace.{key}" for key in expected.trace
        }
        assert_array_equal(arrays["trace.blocks.1.hidden"], expected.trace["blocks.1.hidden"])


def test_the_trace_is_saved_only_on_request(run: Run, folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.npz"
    common = ("simulate", folders / "w8a8", "--image", folders / "images", "--out", out)
    run(*common, "--reference", folders / "model")
    with np.load(out, allow_pickle=False) as arrays:
        assert not [key for key in arrays if key.startswith("trace.")]


def test_import(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "image.float32.bin").write_bytes(b"")
    result = run("import", source, "-o", tmp_path / "model", code=2)
    assert result.err.startswith(f"error: {source}: no layer in this folder\nhint: ")
    run("import", source, "-o", tmp_path / "model", "--image-size", "128", code=2)
    result = run("import", source, "-o", tmp_path / "model", "--kind", "pickle", code=2)
    assert (
        result.err == "error: --kind pickle: unknown\nhint: this release imports m3vit, edge-moe, vit, onnx\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- Errors -------------------------------------------------------------------------------------------------


def wrong_arguments(folders: Path, out: Path) -> list[tuple[Sequence[object], str]]:
    design, model, images = folders / "w16a16", folders / "model", folders / "images"
    quantize, simulate = ("quantize", model, "-o", out), ("simulate", design, "--out", out)
    return [
        (("paint",), "No such command 'paint'"),
        (("zoo", "--colour"), "No such option"),
        (("zoo", "extra"), "extra"),
        (("init", "micro"), "Missing option"),
        (("init", "macro", "-o", out), "macro: neither a file nor a name in the zoo"),
        (("init", "micro", "-o", out, "--seed", "x"), "--seed"),
        (("init", "micro", "-o", out, "--seed", "-1"), "--seed"),
        (("import", folders / "nothing", "-o", out), "nothing: no such file or folder"),
        ((*quantize,), "Missing option"),
        ((*quantize, "--images", images, "--precision", "w4a4"), "precision 'w4a4' is unknown"),
        ((*quantize, "--images", images, "--attention-rows", 0), "--attention-rows"),
        ((*quantize, "--images", images, "--attention-rows", 9999), "--attention-rows"),
        ((*quantize, "--images", folders), "no image in this folder"),
        ((*quantize, "--images", folders / "none.png"), "none.png: no such image"),
        ((*quantize, "--images", model / "model.toml"), "model.toml: not a readable image"),
        (("quantize", design, "-o", out, "--images", images), "this is a Design, expected a Model"),
        ((*simulate, "--image", images, "--task", "flow"), "task 'flow' is unknown"),
        ((*simulate, "--image", images, "--reference", design), "this is a Design, expected a Model"),
        (("simulate", model, "--out", out, "--image", images), "this is a Model, expected a Design"),
        (("simulate", images, "--out", out, "--image", images), "design.toml: no such file"),
        (("simulate", design / "design.toml", "--image", images), "a file, expected a Design folder"),
        (("simulate", folders / "nothing", "--image", images), "nothing: no such folder"),
    ]


def test_wrong_input_ends_with_2_one_message_and_no_output(run: Run, folders: Path, tmp_path: Path) -> None:
    for arguments, message in wrong_arguments(folders, tmp_path / "out"):
        plain = run(*arguments, code=2)
        assert plain.err.startswith("error: ") and message in plain.err, (arguments, plain.err)
        assert "Traceback" not in plain.err and plain.out == ""
        in_json = run(*arguments, "--json", code=2)
        assert set(in_json.json) == {"error", "hint"}
        assert message in in_json.json["error"]
        assert in_json.err == "" or in_json.err.startswith("warning: ")
        assert list(tmp_path.iterdir()) == []


def test_folders_of_another_kind_are_told_apart(
    run: Run, folders: Path, built: Build, tmp_path: Path
) -> None:
    model, design, build = folders / "model", folders / "w8a8", built.folder
    out, image = ("-o", tmp_path / "out"), ("--image", folders / "images")
    quantise = f"edgemoe quantize {model} -o DESIGN --images PATH"
    wrong = [
        (("simulate", model, *image), "a Model, expected a Design", f"quantise it: {quantise}"),
        (("simulate", build, *image), "a build, expected a Design", f"its Design is {build / 'design'}"),
        (
            ("simulate", build / "host", *image),
            "the host folder of a build, expected a Design",
            f"the Design of the build is {build / 'design'}",
        ),
        (("generate", model, *out), "a Model, expected a Design", f"quantise it: {quantise}"),
        (("quantize", build, *out, "--images", model), "a build, expected a Model", "give the Model folder"),
        (("export", design, *out), "a Design, expected a Model", "give the Model folder that it was"),
        (("verify", design), "a Design, expected a build", f"edgemoe generate {design} -o BUILD"),
        (("verify", model), "a Model, expected a build", f"{quantise}; edgemoe generate DESIGN -o BUILD"),
        (
            ("verify", build / "host"),
            "the host folder of a build, expected a build",
            f"build folder: {build}",
        ),
        (("run", design, *image), "a Design, expected a build", f"edgemoe generate {design} -o BUILD"),
        (("run", model, *image, "--emulate"), "a Model, expected a build", "quantise it and generate"),
        (
            ("generate", design, *out, "--model", design),
            "a Design, expected a Model",
            "give the Model folder",
        ),
    ]
    for arguments, message, hint in wrong:
        data = run(*arguments, "--json", code=2).json
        assert data["error"] == f"{arguments[1]}: this is {message}", arguments
        assert hint in data["hint"], arguments
    data = run("import", design, *out, "--json", code=2).json
    assert "a Design folder, expected a network in floats" in data["error"]
    data = run("simulate", folders, *image, "--json", code=2).json
    assert data["error"] == f"{folders}: not a Design"
    first = sorted(PRESETS)[:3]  # of more, the first few
    assert data["hint"] == f"did you mean {' or '.join(str(folders / p) for p in first)}?"
    assert not (tmp_path / "out").exists()


def test_existing_output_is_refused_before_any_work(
    run: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("work was done")

    for verb in ("init_model", "load_model", "load_design", "quantize", "simulate"):
        monkeypatch.setattr(edgemoe, verb, never)
    file = tmp_path / "file"
    file.write_text("precious")
    images = folders / "images"
    for arguments in (
        ("init", "micro", "-o", file),
        ("import", folders, "-o", file),
        ("quantize", folders / "model", "--images", images, "-o", file),
        ("simulate", folders / "w8a8", "--image", images, "--out", file),
        ("demo", "-o", file),
    ):
        assert f"error: {file}: exists already\nhint: " in run(*arguments, code=2).err
    assert file.read_text() == "precious"


def test_a_failure_while_writing_leaves_nothing(
    run: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    simulate = ("simulate", folders / "w8a8", "--image", folders / "images", "--out", tmp_path / "a")
    assert "a: cannot be written: No space left" in run(*simulate, code=2).err
    assert "b: cannot be written: No space left" in run("init", "micro", "-o", tmp_path / "b", code=2).err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CheckError("bits differ", hint="look"), 1, "error: bits differ\nhint: look\n"),
        (PermissionError(13, "Permission denied", "secret"), 2, "error: secret: Permission denied\n"),
        (
            MemoryError(),
            2,
            "error: not enough memory\nhint: run fewer images or --frames, or without --trace\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_goes_wrong_inside(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(edgemoe, "init_model", fail)
    assert run("init", "micro", "-o", tmp_path / "a", code=code).err == message


def test_a_bug_is_not_hidden(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgemoe, "init_model", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("init", "micro", "-o", tmp_path / "a")


def test_numbers_that_json_lacks_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    from edgemoe.console import Console

    console = Console(as_json=True)
    console.result({"a": math.nan, "b": [{"c": math.inf}], "d": 1.5})
    console.finish()
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [{"c": None}], "d": 1.5}


def test_a_reader_that_leaves_is_no_failed_check(folders: Path) -> None:
    code = "import sys; from edgemoe.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "zoo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == BROKEN_PIPE


def test_help_needs_no_heavy_imports() -> None:
    code = (
        "import sys; from edgemoe.cli import main; main(['--help']);"
        "print(sorted({'numba', 'scipy', 'numpy', 'pydantic', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
