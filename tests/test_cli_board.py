"""`run`, `verify --host` and `generate --model` from the command line."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
from codegen.build import Build
from edgemoe.cli import main

Pixels = NDArray[np.uint8]
Captured = pytest.CaptureFixture[str]


def output(capsys: Captured, *arguments: object, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def as_json(capsys: Captured, *arguments: object, code: int = 0) -> dict[str, Any]:
    return dict(json.loads(output(capsys, *arguments, "--json", code=code)[0]))


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


class TestRun:
    @pytest.mark.compile
    def test_every_task(self, built: Build, folders: Path, images: Pixels, capsys: Captured) -> None:
        pictures = folders / "images"
        data = as_json(capsys, "run", built.folder, "--image", pictures, "--task", "all", "--emulate")
        design = edgemoe.load_design(built.folder / "design")
        assert (data["design_id"], data["board"], data["emulated"]) == (built.spec.design_id, "zcu111", True)
        assert [run["task"] for run in data["runs"]] == ["semseg", "depth"] * len(images)
        for number, task in enumerate(design.spec.tasks):
            expected = edgemoe.simulate(design, images, task).integers.astype("<i8")
            for run, tokens in zip(data["runs"][number::2], expected, strict=True):
                assert run["tokens_sha256"] == hashlib.sha256(tokens.tobytes()).hexdigest()
                assert run["cycles"] is run["latency_ms"] is None
                assert np.shape(run["map"]) == (2, 4)

    @pytest.mark.compile
    def test_text_and_file(self, built: Build, folders: Path, tmp_path: Path, capsys: Captured) -> None:
        picture, out = folders / "images" / "00.png", tmp_path / "out" / "results.npz"
        arguments = ("--image", picture, "--task", "depth", "--emulate", "--out", out)
        # The emulated board needs the C++, which a host folder alone does not have.
        shutil.copytree(built.host, tmp_path / "alone")
        _, err = output(capsys, "run", tmp_path / "alone", *arguments, code=2)
        assert "the host folder of a build, expected a build" in err and "give the whole build folder" in err
        assert not out.exists()
        text, _ = output(capsys, "run", built.host, *arguments)
        assert re.search(
            r"00.png: depth: map 2x4, \S+ to \S+, mean \S+; \S+ s emulated; tokens [0-9a-f]{16}\n", text
        )
        with np.load(out) as archive:
            assert set(archive.files) == {"0.image", "0.depth.integers", "0.depth.output"}
            assert archive["0.depth.integers"].shape == (9, 24)
        _, err = output(capsys, "run", built.folder, *arguments, code=2)
        assert "exists already" in err

    @pytest.mark.compile
    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            (("--task", "nonsense"), 2, "task 'nonsense' is unknown"),
            (("--timeout", "0"), 2, "timeout"),
            (("--image", "nowhere.png"), 2, "nowhere.png: no such image"),
        ],
    )
    def test_bad_input(
        self,
        built: Build,
        folders: Path,
        tmp_path: Path,
        capsys: Captured,
        arguments: tuple[str, ...],
        code: int,
        reason: str,
    ) -> None:
        picture = folders / "images" / "00.png"
        out = tmp_path / "out.npz"
        common = ("run", built.folder, "--image", picture, "--emulate", "--out", out)
        _, err = output(capsys, *common, *arguments, code=code)
        assert reason in err
        assert not list(tmp_path.iterdir())

    def test_without_a_board(self, built: Build, folders: Path, capsys: Captured) -> None:
        picture = folders / "images" / "00.png"
        data = as_json(capsys, "run", built.folder, "--image", picture, code=2)
        assert data["error"].startswith("PYNQ cannot be imported") and "--emulate" in data["hint"]

    def test_not_a_build(self, folders: Path, tmp_path: Path, capsys: Captured) -> None:
        picture = folders / "images" / "00.png"
        for emulate in ((), ("--emulate",)):
            _, err = output(capsys, "run", tmp_path, "--image", picture, *emulate, code=2)
            assert err.startswith("error: ") and "hint: " in err


class TestVerifyHost:
    @pytest.mark.compile
    def test_random_images(self, built: Build, capsys: Captured) -> None:
        data = as_json(capsys, "verify", built.folder, "--host", "--images", 9)
        values = 9 * 24
        expected = {
            "host.switches": 17,
            **{
                f"host.{kind}.{task}": 9 * values
                for kind in ("tokens", "real")
                for task in ("semseg", "depth")
            },
            **{
                f"host.{kind}.{task}": 8 * values
                for kind in ("stream", "batch")
                for task in ("semseg", "depth")
            },
        }
        assert {name: engine["values"] for name, engine in data["engines"].items()} == expected
        assert data["mismatches"] == 0 and data["values"] == sum(expected.values())

    @pytest.mark.compile
    def test_images_beside_the_test_bench(self, built: Build, folders: Path, capsys: Captured) -> None:
        picture = folders / "images" / "03.png"
        text, _ = output(capsys, "verify", built.folder, "--csim", "--host", "--image", picture)
        assert "1 image(s), tasks semseg, depth, switched at every call: 2 calls" in text
        for engine in ("network", "host.tokens.depth", "host.switches"):
            assert re.search(rf"\n {engine} .* 0 *\n", text)

    @pytest.mark.compile
    def test_changed_code_is_found(self, built: Build, tmp_path: Path, capsys: Captured) -> None:
        shutil.copytree(built.folder, tmp_path / "build")
        change(tmp_path / "build/hls/src/top.cpp", "task * job.task_beats", "0 * job.task_beats")
        data = as_json(capsys, "verify", tmp_path / "build", "--host", "--images", 2, code=1)
        wrong = {name for name, engine in data["engines"].items() if engine["mismatches"]}
        assert wrong == {f"host.{kind}.depth" for kind in ("tokens", "real", "stream", "batch")}
        assert data["mismatches"] > 0 and "differ from the simulator's" in data["error"]

    @pytest.mark.compile
    def test_design_of_other_hardware(self, built: Build, tmp_path: Path, capsys: Captured) -> None:
        shutil.copytree(built.folder, tmp_path / "build")
        change(tmp_path / "build/hls/src/top.cpp", "*hardware_id = HARDWARE_ID", "*hardware_id = 0x1234")
        _, err = output(capsys, "verify", tmp_path / "build", "--host", "--images", 1, code=1)
        assert "on the board is hardware 0000000000001234" in err


@pytest.mark.compile
def test_generate_takes_heads_along(folders: Path, tmp_path: Path, capsys: Captured) -> None:
    common = ("generate", folders / "w8a8", "--board", "zcu102")
    text, _ = output(capsys, *common, "-o", tmp_path / "with", "--model", folders / "model")
    assert "next: edgemoe verify" in text
    output(capsys, *common, "-o", tmp_path / "without")
    assert (tmp_path / "with/host/heads.npz").is_file()
    assert not (tmp_path / "without/host/heads.npz").exists()
    kept = {path.name for path in (tmp_path / "with/host").iterdir()}
    assert kept == {"manifest.json", "weights.bin", "heads.npz", "common", "emulated", "host"}
    assert {path.name for path in (tmp_path / "with/vivado").iterdir()} == {"build.tcl", "cycle_counter.v"}
    weights = [(tmp_path / name / "host/weights.bin").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]
