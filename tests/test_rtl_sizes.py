"""RTL kernels of sizes at which the width of a counter or an address changes: powers of two, one of everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgemoe
from blank import blank, on_hardware
from boards import load_board
from codegen.architecture import Architecture
from codegen.hardware import Hardware, default_hardware
from codegen.project import generate
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.base import address_bits
from codegen.rtl.render import render
from codegen.rtl.simulation import Scenario, build, lint, play
from codegen.rtl.vectors import checks
from codegen.rtl.verify import verify_rtl
from common.errors import InputError
from pysim.design import Design
from pysim.model import Model
from pysim.precision import PRESETS, Precision
from pysim.spec import ModelSpec

pytestmark = pytest.mark.rtl

NARROW_ATTENTION = Precision(
    name="narrow attention", attention_width=4, activation_width=18, residual_width=8
)
"""Dot products of fewer bits than a score has; operands wider than anything else that the linear engine gives."""


def architecture(
    tokens: int,
    precision: Precision,
    hardware: tuple[int, int, int, int, int],
    *,
    experts: int = 1,
    channels: int = 8,
    heads: int = 2,
) -> Architecture:
    """Of a small network; hardware is (lanes, outputs, token_tile, attention_rows, weight_rows)."""
    spec = ModelSpec.model_validate(
        {
            "name": "sizes",
            "image_size": (1, tokens - 1),
            "patch_size": 1,
            "in_channels": 1,
            "dim": channels,
            "depth": 1,
            "heads": heads,
            "mlp_dim": 2 * channels,
            "tasks": ["a"],
            "moe": {
                "layers": "all",
                "experts": experts,
                "hidden_dim": channels,
                "top_k": max(experts // 2, 1),
            },
        }
    )
    names = ("lanes", "outputs", "token_tile", "attention_rows", "weight_rows")
    sizes = dict(zip(names, hardware, strict=True))
    return blank(spec, precision, Hardware().changed(axi_width=64, weight_ports=1, **sizes))


WIDE_RESIDUAL = Precision(name="wide residual", residual_width=32)
"""A stream of more bits than a port of a DSP slice has."""

W8A8, W16A16 = PRESETS["w8a8"], PRESETS["w16a16"]
SIZES = {
    "2 tokens, one of everything": architecture(2, W16A16, (1, 1, 1, 1, 16), channels=1, heads=1),
    "4 tokens, 1 lane, 8 bits": architecture(4, W8A8, (1, 2, 1, 4, 16), experts=2),
    "8 tokens, 2 lanes": architecture(8, W8A8, (2, 4, 2, 8, 16), experts=4),
    "16 tokens, 4 lanes": architecture(16, W16A16, (4, 4, 4, 16, 8), experts=8, channels=16),
    "64 tokens, 8 lanes": architecture(64, W8A8, (8, 16, 8, 3, 64), experts=16, channels=32, heads=4),
    "256 tokens, 16 lanes": architecture(256, W16A16, (16, 32, 1, 4, 512), experts=32, channels=64),
    "7 tokens, as many tiles as a power of two": architecture(7, W8A8, (4, 8, 2, 4, 64)),
    "a tile of 15 words, and no token longer": architecture(5, W16A16, (8, 24, 5, 2, 16), channels=4),
    "wide residual": architecture(5, WIDE_RESIDUAL, (4, 8, 2, 2, 16), experts=3),
    "narrow attention": architecture(5, NARROW_ATTENTION, (4, 8, 2, 2, 16), experts=3),
}


@pytest.mark.parametrize("name", SIZES)
def test_verilator_accepts_every_kernel(name: str, tmp_path: Path) -> None:
    for kernel in kernels_of(SIZES[name]).values():
        folder = tmp_path / kernel.name
        folder.mkdir()
        lint(render(SIZES[name], [kernel], folder), kernel.top)


def test_lint_names_what_verilator_refuses(tmp_path: Path) -> None:
    source = tmp_path / "edgemoe_bad.sv"
    source.write_text(
        "module edgemoe_bad (input logic [3:0] a, output logic [1:0] b);\n  assign b = a;\nendmodule\n"
    )
    with pytest.raises(InputError, match=r"edgemoe_bad: Verilator refuses it:\n.*WIDTHTRUNC"):
        lint([source], "edgemoe_bad")


@pytest.mark.parametrize(("depth", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9)])
def test_bits_of_an_address(depth: int, bits: int) -> None:
    assert address_bits(depth) == bits


@pytest.fixture(scope="module")
def eight_tokens(micro_with: Callable[..., Model]) -> tuple[Design, Architecture]:
    """8 tokens of 16 channels in 2 heads, 4 experts; 2 lanes: nothing but powers of two."""
    moe: dict[str, Any] = {"layers": [0], "experts": 4, "hidden_dim": 8, "top_k": 2}
    model = micro_with(moe, image_size=(4, 28), dim=16, heads=2, mlp_dim=16, depth=1)
    design = edgemoe.quantize(model, edgemoe.random_images(model, 2), "w8a8")
    small = {"lanes": 2, "outputs": 2, "token_tile": 2, "attention_rows": 2, "weight_rows": 32}
    return design, on_hardware(design, **small)


@pytest.mark.parametrize("name", ["attention", "linear"])
def test_eight_tokens_equal_the_simulators(
    name: str, eight_tokens: tuple[Design, Architecture], tmp_path: Path
) -> None:
    design, architecture = eight_tokens
    image = edgemoe.random_images(design, 1)
    kernel, mine = kernels_of(architecture)[name], checks(design, architecture, image, task=1)[name]
    compiled = build(render(architecture, [kernel], tmp_path), kernel.top)
    scenarios = [Scenario(check.call.name, [check.call]) for check in mine]
    for check, (result,) in zip(mine, play(kernel, compiled, scenarios), strict=True):
        assert check.difference(kernel, result) == ""
        assert result.cycles == check.cycles, check.call.name


@pytest.mark.nightly
@pytest.mark.parametrize("grid", [(1, 7), (3, 5), (7, 9), (15, 17)], ids=["8", "16", "64", "256"])
def test_a_network_of_so_many_tokens_passes_verify(
    grid: tuple[int, int], micro_with: Callable[..., Model], tmp_path: Path
) -> None:
    """Every kernel, as `verify --rtl` plays them."""
    model = micro_with({"layers": [1]}, image_size=(4 * grid[0], 4 * grid[1]), depth=2)
    images = edgemoe.random_images(model, 2)
    design = edgemoe.quantize(model, images, "w8a8")
    small = {"lanes": 4, "outputs": 8, "token_tile": 2, "attention_rows": 4}
    hardware = default_hardware(design.network).changed(**small)
    target, _ = generate(design, tmp_path / "build", load_board("zcu102"), hardware=hardware)
    result = verify_rtl(target, images[:1])
    assert result.problems == []
    assert all(mismatches == 0 for _, mismatches in result.engines.values())
