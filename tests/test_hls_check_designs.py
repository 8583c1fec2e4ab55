"""The generated C++ of many designs through the HLS checks, and of some through the check build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgemoe
from boards import load_board
from codegen.architecture import Architecture
from codegen.hls_check import check_project
from codegen.hls_check.execution import execute
from codegen.performance import on_board
from codegen.project import generate
from codegen.render import render
from codegen.rtl.hls_kernels import write_hls_kernels
from conftest import NARROW
from pysim.design import Design, Parallelism
from pysim.errors import InputError
from pysim.model import Model
from pysim.precision import PRESETS

BOARD = load_board("u280")
RANDOM_DESIGNS = 15


def drawn(number: int) -> dict[str, int]:
    """A parallelism: everything but the clock."""
    rng = np.random.default_rng(number)
    lanes = 2 ** int(rng.integers(0, 5))
    return {
        "linear_in": lanes,
        "linear_out": lanes * 2 ** int(rng.integers(0, 3)),
        "token_tile": 2 ** int(rng.integers(0, 4)),
        "attention_rows": 2 ** int(rng.integers(0, 5)),
        "axi_width": 2 ** int(rng.integers(6, 10)),
        "weight_ports": int(rng.integers(1, 6)),
        "weight_rows": int(rng.integers(48, 300)),
        "max_batch": int(rng.integers(1, 4)),
    }


def render_project(design: Design, folder: Path) -> Path:
    architecture = Architecture(on_board(design, BOARD, design.parallelism.max_batch))
    render(architecture, folder, BOARD)
    write_hls_kernels(architecture, folder, BOARD)
    return folder


def assert_clean(project: Path) -> None:
    findings = check_project(project)
    assert not findings, "\n".join(map(str, findings))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("parallelism", [None, NARROW], ids=["default", "narrow"])
def test_presets(
    preset: str, parallelism: Parallelism | None, designs: dict[str, Design], tmp_path: Path
) -> None:
    design = designs[preset]
    if parallelism:
        design = design.with_parallelism(**parallelism.model_dump())
    assert_clean(render_project(design, tmp_path))


@pytest.mark.parametrize("number", range(RANDOM_DESIGNS))
def test_random_parallelism(number: int, designs: dict[str, Design], tmp_path: Path) -> None:
    preset = list(PRESETS)[number % len(PRESETS)]
    changes = drawn(number)
    try:
        project = render_project(designs[preset].with_parallelism(**changes), tmp_path)
    except InputError:
        # A buffer that the largest layer does not fit; twice as deep, it does.
        changes["weight_rows"] *= 8
        project = render_project(designs[preset].with_parallelism(**changes), tmp_path)
    assert_clean(project)


CHECKED = {
    "w8a8": (NARROW, 2),
    "w16a16": (
        Parallelism(
            linear_in=4,
            linear_out=4,
            token_tile=1,
            attention_rows=1,
            axi_width=64,
            weight_ports=1,
            weight_rows=16,
        ),
        1,
    ),
    "iccad23": (NARROW, 1),
}
"""Parallelism and images of the designs that run as a check build."""


@pytest.mark.parametrize("preset", CHECKED)
def test_check_build(preset: str, tmp_path: Path, micro_with: Callable[..., Model]) -> None:
    parallelism, batch = CHECKED[preset]
    model = micro_with({})
    design = edgemoe.quantize(model, edgemoe.random_images(model, 6), preset)
    design = design.with_parallelism(**parallelism.model_dump())
    images = edgemoe.random_images(design, batch, seed=5)
    build, _ = generate(design, tmp_path / "build", BOARD, images, task=1, batch=batch, must_fit=False)
    execution = execute(build.hls)
    assert not execution.findings, "\n".join(map(str, execution.findings))
    for result in execution.results.values():
        assert result.engines["network"] == (batch * design.spec.tokens * design.spec.dim, 0)
    idle = [str(about) for about in execution.dependences if not about.runs]
    assert not idle or (batch == 1 and all("COPY" in about or "memory.cpp" in about for about in idle)), idle
