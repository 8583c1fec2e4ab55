"""Pictures of what task heads make of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from codegen.build import Build
from common import painting
from common.painting import LEAST_WIDTH, LINE, MARGIN, MOST_NAMES
from edgemoe.cli import main

RNG = np.random.default_rng(3)
IMAGE = RNG.integers(0, 256, (3, 8, 16), np.uint8)


def test_colours_stay_apart() -> None:
    colours = painting.palette(MOST_NAMES).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=-1)
    assert apart[~np.eye(MOST_NAMES, dtype=bool)].min() > 40
    assert (colours[0] == 110).all()
    assert_array_equal(painting.palette(3), painting.palette(40)[:3])


def test_values_run_from_one_end_of_the_ramp_to_the_other() -> None:
    colours = painting.ramp(np.array([[0.0, 5.0, 10.0, 99.0, -9.0]]), 0.0, 10.0)[0]
    assert_array_equal(colours[0], painting.ramp(np.zeros((1, 1)), 0, 1)[0, 0])
    assert_array_equal(colours[2], colours[3])
    assert_array_equal(colours[0], colours[4])
    assert (colours[1] != colours[0]).any() and (colours[1] != colours[2]).any()
    assert painting.ramp(np.full((2, 2), 7.0), 7.0, 7.0).shape == (2, 2, 3)


def test_a_patch_is_as_large_as_its_part_of_the_image() -> None:
    output = np.zeros((2, 4, 5))
    output[1, 3, 4] = 1
    panel = painting.map_panel("map", "semseg", output, np.zeros((3, 8, 16), np.uint8))
    assert panel.colours.shape == (8, 16, 3)
    assert (panel.colours[4:, 12:] == panel.colours[4, 12]).all()
    assert (panel.colours[3, 12] != panel.colours[4, 12]).any()
    assert [name for name, _ in panel.legend] == ["class 0", "class 4"]


def test_names_of_classes_where_there_are_any() -> None:
    output = np.eye(3)[None]
    named = painting.map_panel("map", "semseg", output, np.zeros((1, 4, 12), np.uint8), ["sky", "road"])
    assert [name for name, _ in named.legend] == ["sky", "road", "class 2"]
    label = painting.label_panel("class", np.array([0.0, 9.0, 1.0]), IMAGE, ["a", "b", "c"])
    assert [name.split(":")[0] for name, _ in label.legend] == ["b", "c", "a"]


def test_values_and_directions() -> None:
    depth = painting.map_panel("depth", "depth", np.arange(8.0).reshape(2, 4, 1), IMAGE, limits=(0.0, 14.0))
    assert [name for name, _ in depth.legend] == ["0", "7", "14"]
    up = np.zeros((2, 4, 3))
    up[..., 2] = 5
    normals = painting.map_panel("normals", "normals", up, IMAGE)
    assert_array_equal(normals.colours[0, 0], [128, 128, 255])
    # Three classes are no direction.
    assert painting.map_panel("parts", "parts", up, IMAGE).legend[0][0] == "class 2"


def test_differences() -> None:
    first, second = np.zeros((2, 4, 3)), np.zeros((2, 4, 3))
    second[0, 1, 2] = 1
    panel = painting.difference_panel("difference", first, second, IMAGE)
    assert panel.legend[0][0] == "1 of 8 patches differ"
    assert_array_equal(panel.colours[0, 4], (220, 30, 20))
    values = painting.difference_panel("difference", first[..., :1], second[..., 2:], IMAGE)
    assert values.legend[-1][0] == "1"


def test_side_by_side() -> None:
    panels = [painting.image_panel(IMAGE), painting.image_panel(IMAGE[:1], "grey")]
    sheet = painting.side_by_side(panels)
    factor = LEAST_WIDTH // 16
    assert sheet.size == (3 * MARGIN + 2 * LEAST_WIDTH, 2 * MARGIN + LINE + factor * 8)
    pixels = np.asarray(sheet)
    assert_array_equal(pixels[MARGIN + LINE :: factor, MARGIN::factor][:8, :16], IMAGE.transpose(1, 2, 0))


def test_simulate_saves_pictures(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(folders / "images" / "00.png")
    common = ["simulate", str(folders / "w8a8"), "--image", image, "--task", "all"]
    assert main([*common, "--save", str(tmp_path / "none")]) == 2
    assert "--save without --model or --reference" in capsys.readouterr().err
    assert main([*common, "--reference", str(folders / "model"), "--save", str(tmp_path / "saved")]) == 0
    names = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert names == ["0000.depth.png", "0000.semseg.png"]
    with Image.open(tmp_path / "saved" / names[0]) as picture:
        assert picture.width == 5 * MARGIN + 4 * LEAST_WIDTH
    assert not (tmp_path / "none").exists()


@pytest.mark.compile
def test_run_saves_pictures(built: Build, library: Path, folders: Path, tmp_path: Path) -> None:
    image = str(folders / "images" / "00.png")
    saved = tmp_path / "saved"
    assert (
        main(["run", str(built.folder), "--image", image, "--task", "all", "--emulate", "--save", str(saved)])
        == 0
    )
    assert sorted(path.name for path in saved.iterdir()) == ["0000.depth.png", "0000.semseg.png"]
