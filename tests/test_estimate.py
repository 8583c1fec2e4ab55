"""The estimate: figures for the network of the original, resources, fit."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

import edgemoe
from blank import blank_design
from boards import load_board
from codegen import original
from codegen.architecture import Architecture
from codegen.performance import estimate, nearest_fit, require_fit
from codegen.resources import Memory, dsp_by_engine, multiplier_dsp
from edgemoe.cli import main
from frontend.zoo import find_spec
from pysim.design import Design, Parallelism
from pysim.errors import InputError
from pysim.model import init_model
from pysim.precision import PRESETS, Precision
from pysim.quantizer import quantize
from pysim.spec import ModelSpec, MoeSpec

TARGET_MS = {"w16a16": 4.6, "w8a8": 3.4}


@pytest.fixture(scope="module")
def tiny() -> dict[str, Design]:
    """M3ViT-tiny in both widths; without what makes 8 bits accurate, as an estimate depends on the shape alone."""
    model = init_model(find_spec("m3vit-tiny"))
    images = edgemoe.random_images(model, 1)
    narrow = Precision(name="narrow", weight_width=8, activation_width=8, multipliers=True)
    return {
        preset: quantize(model, images, precision)
        for preset, precision in (("w16a16", PRESETS["w16a16"]), ("w8a8", narrow))
    }


@pytest.mark.parametrize("preset", TARGET_MS)
def test_target_of_the_original_network(preset: str, tiny: dict[str, Design]) -> None:
    performance = estimate(tiny[preset], load_board("zcu102"))
    assert performance.ms <= TARGET_MS[preset]
    assert all(performance.share(name) <= 0.8 for name in ("dsp", "bram36", "lut"))
    assert performance.cycles == sum(stage.cycles for stage in performance.stages)
    assert performance.ms < original.ideal_ms() < original.NARROW_PORTS_MS < original.PUBLISHED_MS


def test_batch_shares_weights(tiny: dict[str, Design]) -> None:
    board = load_board("zcu102")
    one, eight = (estimate(tiny["w16a16"], board, batch) for batch in (1, 8))
    assert eight.ms < 0.8 * one.ms
    assert eight.dram_bytes < 0.2 * one.dram_bytes


def test_original_is_recognised() -> None:
    assert original.describes(find_spec("m3vit-tiny"))
    assert not original.describes(find_spec("micro"))
    assert sum(original.STAGE_CYCLES.values()) == 5_814_258
    assert original.TOTAL_CYCLES - sum(original.STAGE_CYCLES.values()) == 22_032


@pytest.mark.parametrize(
    ("bits", "slices"),
    [((16, 16), 1), ((18, 27), 1), ((19, 27), 2), ((28, 18), 2), ((25, 16), 1), ((35, 35), 4)],
)
def test_multipliers(bits: tuple[int, int], slices: int) -> None:
    assert multiplier_dsp(*bits) == slices


@pytest.mark.parametrize(
    ("memory", "bram18"),
    [
        (Memory("one", 1, 512, 36), 1),
        (Memory("deep", 1, 513, 36), 2),
        (Memory("narrow", 1, 1024, 18), 1),
        (Memory("banks", 4, 2048, 9), 4),
        (Memory("luts", 3, 64, 100), 0),
    ],
)
def test_memories(memory: Memory, bram18: int) -> None:
    assert memory.bram18 == bram18
    assert (memory.luts > 0) == (bram18 == 0)


def test_packed_products_halve_the_dsp_slices(designs: dict[str, Design]) -> None:
    shared, single = (
        Architecture(dataclasses.replace(designs[preset], parallelism=Parallelism()))
        for preset in ("w8a8", "w16a16")
    )
    assert 2 * dsp_by_engine(shared)["linear"] == dsp_by_engine(single)["linear"]


def test_a_design_that_does_not_fit_names_what_is_short_and_what_fits(tiny: dict[str, Design]) -> None:
    board = load_board("ultra96v2")
    with pytest.raises(InputError, match=r"does not fit ultra96v2: dsp 1932 of 360") as caught:
        require_fit(tiny["w16a16"], board)
    assert "the fastest that fits has linear_in" in caught.value.hint
    fitting = nearest_fit(tiny["w16a16"], board)
    assert fitting is not None
    assert estimate(fitting, board).fits


def test_no_parallelism_fits(tiny: dict[str, Design]) -> None:
    board = load_board("pynq-z2").model_copy(update={"dsp": 1})
    assert nearest_fit(tiny["w16a16"], board) is None


@pytest.mark.parametrize(
    ("preset", "changes", "complaint", "hint"),
    [
        ("w16a16", {"linear_out": 24}, "linear_out = 24 is not a multiple of linear_in = 16", "in words"),
        ("w16a16", {"axi_width": 32}, "axi_width = 32, expected at least 64", "must not straddle"),
        ("w16a16", {"weight_rows": 1}, "weight_rows = 1 do not hold one block of layer", "raise weight_rows"),
        (
            "w8a8",
            {"linear_in": 5, "linear_out": 5},
            "linear_out = 5 is odd: two outputs share a DSP slice where weights have 8 bits and operands 8",
            "an even linear_out, such as 10, or an even linear_in",
        ),
    ],
)
def test_parallelism_that_cannot_be_built(
    preset: str, changes: dict[str, int], complaint: str, hint: str, designs: dict[str, Design]
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        Architecture(designs[preset].with_parallelism(**changes))
    assert hint in caught.value.hint


def test_odd_outputs_are_built_where_products_are_not_packed(designs: dict[str, Design]) -> None:
    assert Architecture(designs["w16a16"].with_parallelism(linear_in=5, linear_out=5)).outputs == 5


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"linear_in": 0}, r"parallelism: linear_in: .*greater than or equal to 1 \(got 0\)"),
        ({"linear_out": 2048}, "parallelism: linear_out: .*1024"),
        ({"axi_width": 100}, "parallelism: axi_width: .*32, 64, 128, 256 or 512"),
        ({"linear_inn": 4}, "parallelism: linear_inn: Extra inputs"),
        ({"token_tile": 1.5}, "parallelism: token_tile"),
    ],
)
def test_values_that_no_parallelism_has(
    changes: dict[str, Any], complaint: str, designs: dict[str, Design]
) -> None:
    with pytest.raises(InputError, match=complaint):
        designs["w8a8"].with_parallelism(**changes)


def shaped(preset: str, images: int = 1, *, tokens: int = 5, experts: int = 2, hidden: int = 2) -> Design:
    spec = ModelSpec(
        name="shaped",
        image_size=(1, tokens - 1),
        patch_size=1,
        in_channels=1,
        dim=2,
        depth=1,
        heads=1,
        mlp_dim=2,
        tasks=["a"],
        moe=MoeSpec(layers="all", experts=experts, hidden_dim=hidden, top_k=1),
    )
    narrow = Parallelism(linear_in=1, linear_out=2, weight_rows=8192, max_batch=images)
    return blank_design(spec, PRESETS[preset], narrow)


@pytest.mark.parametrize(
    ("design", "complaint"),
    [
        (
            shaped("w8a8", 64, tokens=1024),
            r"65536 tokens \(1024 an image, max_batch = 64\), expected at most 65535",
        ),
        (shaped("w16a16", experts=65536), "moe.experts = 65536, expected at most 65535: the router numbers"),
        (shaped("iccad23", experts=512), "moe.experts = 512, expected at most 511: the sum of a token's"),
        (
            shaped("iccad23", 64, tokens=1 << 19, hidden=64),
            r"the operand memory would have \d+ words, expected fewer than",
        ),
    ],
    ids=["tokens", "experts", "experts-iccad23", "words"],
)
def test_networks_that_the_generated_code_cannot_count(design: Design, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Architecture(design)


@pytest.mark.parametrize(
    "design",
    [shaped("w8a8", 63, tokens=1024), shaped("w16a16", experts=65535), shaped("iccad23", experts=511)],
    ids=["tokens", "experts", "experts-iccad23"],
)
def test_the_largest_networks_that_it_counts(design: Design) -> None:
    assert Architecture(design).sections["end"] > 0


def test_command_line(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path_factory.mktemp("estimate")
    model = edgemoe.init_model("micro")
    edgemoe.quantize(model, edgemoe.random_images(model, 2)).save(folder / "design")
    assert main(["estimate", str(folder / "design"), "--json", "--batch", "4"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"cycles", "ms", "stages", "dram_bytes", "resources", "fits"} <= set(result)
    assert {"name", "cycles", "bound_by"} <= set(result["stages"][0])
    assert result["resources"]["dsp"].keys() >= {"used", "available"}
    assert result["batch"] == 4
    assert np.isclose(result["ms"], result["cycles"] / 300e3 / 4)
    assert main(["boards", "--json"]) == 0
    assert "zcu102" in [board["name"] for board in json.loads(capsys.readouterr().out)["boards"]]
