"""A dense and an MoE layer of M3ViT-tiny, kernel by kernel in RTL, on real shapes: more than a million values."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgemoe
from blank import on_hardware
from codegen.architecture import Architecture
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.base import Kernel
from codegen.rtl.render import render
from codegen.rtl.simulation import Scenario, build, play
from codegen.rtl.vectors import Checks, checks
from pysim.design import Design

pytestmark = pytest.mark.rtl

ENGINES = {"layernorm": 123_840, "attention": 49_536, "linear": 470_592, "router": 1_056}
"""Values that one layer of each kind gives: 129 tokens of 192 channels, 3 heads, 16 experts."""

STALLED = 2
"""Once freely, once with stalls."""


@pytest.fixture(scope="module")
def design() -> Design:
    model = edgemoe.init_model("m3vit-tiny", seed=1)
    return edgemoe.quantize(model, edgemoe.random_images(model, 1), "w16a16")


@pytest.fixture(scope="module")
def architecture(design: Design) -> Architecture:
    """Less parallel than on a board, so that Verilator builds it quickly: shapes and values are the same."""
    return on_hardware(design, outputs=16, token_tile=2, attention_rows=13)


@pytest.fixture(scope="module")
def layer_checks(design: Design, architecture: Architecture) -> Checks:
    return checks(design, architecture, edgemoe.random_images(design, 1), task=1)


@pytest.mark.parametrize("name", ENGINES)
def test_layers_equal_the_simulators(
    name: str, architecture: Architecture, layer_checks: Checks, tmp_path: Path
) -> None:
    kernel: Kernel = kernels_of(architecture)[name]
    mine = layer_checks[name]
    assert sum(check.values for check in mine) == ENGINES[name]
    compiled = build(render(architecture, [kernel], tmp_path), kernel.top)
    scenarios = [Scenario(check.call.name, [check.call]) for check in mine]
    scenarios += [
        Scenario(f"{check.call.name}, stalled", [check.call], stalls=number)
        for number, check in enumerate(mine)
    ]
    results = [result for (result,) in play(kernel, compiled, scenarios)]
    for check, result in zip(mine * STALLED, results, strict=True):
        assert check.difference(kernel, result) == ""
        assert check.mismatches(kernel, result) == 0
    for check, result in zip(mine, results[: len(mine)], strict=True):
        assert result.cycles == check.cycles, check.call.name


def test_a_million_values_are_compared() -> None:
    assert STALLED * sum(ENGINES.values()) > 1_000_000
