"""The generated C++ of many designs through the HLS checks, and of some through the check build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgemoe
from boards import Board, load_board
from codegen.build import Build
from codegen.hardware import Hardware, default_hardware
from codegen.hls_check import check_project
from codegen.hls_check.execution import execute
from codegen.performance import on_board
from codegen.project import generate
from codegen.render import render
from codegen.rtl.hls_kernels import write_hls_kernels
from common.errors import InputError
from conftest import NARROW
from edgemoe.cli import main
from pysim.design import Design
from pysim.model import Model
from pysim.precision import PRESETS

BOARD = load_board("zcu111")
CARD = load_board("u280")
RANDOM_DESIGNS = 15
IN_EVERY_RUN = 8
"""Of the random designs; the others wait for the night."""


def drawn(number: int) -> dict[str, int]:
    """Sizes of hardware: everything but the clock."""
    rng = np.random.default_rng(number)
    lanes = 2 ** int(rng.integers(0, 5))
    return {
        "lanes": lanes,
        "outputs": lanes * 2 ** int(rng.integers(0, 3)),
        "token_tile": 2 ** int(rng.integers(0, 4)),
        "attention_rows": 2 ** int(rng.integers(0, 5)),
        "axi_width": 2 ** int(rng.integers(6, 10)),
        "weight_ports": int(rng.integers(1, 6)),
        "weight_rows": int(rng.integers(48, 300)),
        "max_batch": int(rng.integers(1, 4)),
    }


def render_project(design: Design, hardware: Hardware | None, folder: Path, board: Board = BOARD) -> Path:
    architecture = on_board(design.network, board, hardware)
    render(architecture, folder, board)
    write_hls_kernels(architecture, folder, board)
    return folder


OPEN: set[tuple[str, str]] = {
    ("src/attention_arithmetic.h", "accumulator-chain"),
    ("src/attention_arithmetic.h", "accumulator-width"),
    ("src/norm_arithmetic.h", "accumulator-width"),
    ("src/router.cpp", "accumulator-width"),
}
"""Known findings of iccad23, by file and rule: its 32-bit sums wrap, so no width tells lanes from what is carried."""


def assert_clean(project: Path) -> None:
    findings = [finding for finding in check_project(project) if (finding.file, finding.rule) not in OPEN]
    assert not findings, "\n".join(map(str, findings))


@pytest.mark.compile
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("hardware", [None, NARROW], ids=["default", "narrow"])
def test_presets(preset: str, hardware: Hardware | None, designs: dict[str, Design], tmp_path: Path) -> None:
    assert_clean(render_project(designs[preset], hardware, tmp_path))


@pytest.mark.compile
def test_a_card(designs: dict[str, Design], tmp_path: Path) -> None:
    assert_clean(render_project(designs["w8a8"], NARROW, tmp_path, CARD))


@pytest.mark.compile
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.nightly] if number >= IN_EVERY_RUN else [])
        for number in range(RANDOM_DESIGNS)
    ],
)
def test_random_parallelism(number: int, designs: dict[str, Design], tmp_path: Path) -> None:
    preset = list(PRESETS)[number % len(PRESETS)]
    hardware = default_hardware(designs[preset].network).changed(**drawn(number))
    try:
        project = render_project(designs[preset], hardware, tmp_path)
    except InputError:
        # A buffer that the largest layer does not fit; twice as deep, it does.
        hardware = hardware.changed(weight_rows=8 * hardware.weight_rows)
        project = render_project(designs[preset], hardware, tmp_path)
    assert_clean(project)


CHECKED = {
    "w16a16": (
        Hardware(
            lanes=4,
            outputs=4,
            token_tile=1,
            attention_rows=1,
            axi_width=64,
            weight_ports=1,
            weight_rows=16,
        ),
        2,
    ),
    "iccad23": (NARROW, 1),
}
"""Hardware and number of images of the designs that run as a check build, beside the one that `verify --check` runs."""


@pytest.mark.compile
@pytest.mark.parametrize("preset", CHECKED)
def test_check_build(preset: str, tmp_path: Path, micro_with: Callable[..., Model]) -> None:
    hardware, batch = CHECKED[preset]
    model = micro_with({})
    design = edgemoe.quantize(model, edgemoe.random_images(model, 6), preset)
    images = edgemoe.random_images(design, batch, seed=5)
    build, _ = generate(
        design, tmp_path / "build", BOARD, images, hardware=hardware, task=1, batch=batch, must_fit=False
    )
    execution = execute(build.hls)
    assert not execution.findings, "\n".join(map(str, execution.findings))
    for result in execution.results.values():
        assert result.engines["network"] == (batch * design.spec.tokens * design.spec.dim, 0)
    idle = {about.text.file for about in execution.dependences if not about.runs}
    # Positions are copied from the first image to the others.
    assert idle <= ({"src/memory.cpp"} if batch == 1 else set())


@pytest.fixture
def build(built: Build, tmp_path: Path) -> Path:
    """A build without kernels."""
    folder = tmp_path / "build"
    shutil.copytree(built.folder, folder)
    shutil.rmtree(folder / "hls/kernels")
    return folder


@pytest.mark.compile
def test_command_line(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(build), "--check", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["findings"] == [] and result["mismatches"] == 0 and result["values"] > 0
    distances = {(about["memory"], about["declared"], about["least"]) for about in result["dependences"]}
    assert ("operands", None, None) in distances
    assert any(declared is not None and declared == least for _, declared, least in distances)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("distance = SCORE_DISTANCE true", "distance = SCORE_DISTANCES true", "pragma-expression"),
        (
            "dependence variable = scores inter RAW",
            "dependence variable = scores inter false RAW",
            "pragma-table",
        ),
        (
            "variable = scores complete dim = 1",
            "variable = scores complete dim = 3",
            "pragma-dimension",
        ),
    ],
)
def test_command_line_names_the_line(
    old: str, new: str, rule: str, build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build / "hls/src/attention.cpp"
    text = source.read_text()
    line = text.count("\n", 0, text.index(old)) + 1
    source.write_text(text.replace(old, new))
    assert main(["verify", str(build), "--check"]) == 1
    errors = capsys.readouterr().err
    assert f"src/attention.cpp:{line}: " in errors and f"[{rule}]" in errors
    assert "hint: docs/hls-checks.md" in errors
