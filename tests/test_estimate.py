"""The estimate: figures for the network of the original, resources, fit."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import edgemoe
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
    ("changes", "complaint"),
    [
        ({"linear_in": 16, "linear_out": 24}, "linear_out = 24 is not a multiple of linear_in = 16"),
        ({"axi_width": 32}, "axi_width = 32"),
        ({"weight_rows": 1}, "weight_rows = 1"),
    ],
)
def test_parallelism_that_cannot_be_built(
    changes: dict[str, int], complaint: str, designs: dict[str, Design]
) -> None:
    parallelism = Parallelism().model_copy(update=changes)
    with pytest.raises(InputError, match=complaint):
        Architecture(dataclasses.replace(designs["w16a16"], parallelism=parallelism))


def test_weight_buffer_holds_one_block_at_least(designs: dict[str, Design]) -> None:
    """Of the layer with the most operand words, to the row."""

    def built(rows: int) -> Architecture:
        parallelism = Parallelism(linear_in=4, linear_out=4, weight_rows=rows)
        return Architecture(dataclasses.replace(designs["w16a16"], parallelism=parallelism))

    roomy = built(512)
    words = {name: roomy.linear(name).in_words for name in roomy.job_names}
    most = max(words.values())
    (longest,) = [name for name in ("patch", "fc2") if words[name] == most]
    assert built(most).group(longest) == 1
    with pytest.raises(
        InputError, match=f"weight_rows = {most - 1} do not hold one block of layer {longest}, "
    ):
        built(most - 1)


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
