"""The Fashion-MNIST network: its data set's files, its labels, and what presets make of the shipped sample."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
from common.errors import InputError
from frontend import fashion
from pysim.files import read_npz
from pysim.model import Model
from pysim.precision import PRESETS

FOLDER = Path(fashion.__file__).parent / "data" / "fashion"


@pytest.fixture(scope="module")
def sample() -> dict[str, NDArray[np.uint8]]:
    return read_npz(FOLDER / "sample.npz")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(FOLDER)


def write(folder: Path, images: NDArray[np.uint8], classes: NDArray[np.uint8]) -> None:
    for name, magic, array in (
        ("t10k-images-idx3-ubyte.gz", 0x803, images),
        ("t10k-labels-idx1-ubyte.gz", 0x801, classes),
    ):
        header = np.array([magic, *array.shape], ">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(header + array.tobytes()))


def test_files_of_the_data_set(sample: dict[str, NDArray[np.uint8]], tmp_path: Path) -> None:
    images, classes = sample["images"][:5], sample["garment"][:5]
    write(tmp_path, images[:, 0], classes)
    found = fashion.load_garments("test", tmp_path)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels["garment"], classes)
    np.testing.assert_array_equal(found.labels["parts"], sample["parts"][:5])
    assert len(found) == 5 and len(found.first(2)) == len(found.first(2).labels["parts"]) == 2


def test_parts_are_patches_that_are_half_covered() -> None:
    image = np.zeros((1, 1, 28, 28), np.uint8)
    image[0, 0, :2, :4] = 255  # half of the first patch
    image[0, 0, :2, 4:7] = 255  # less of the second
    image[0, 0, 4:8, :4] = fashion.BACKGROUND
    parts = fashion.label(image, np.array([7])).labels["parts"]
    assert parts.shape == (1, 49) and np.flatnonzero(parts).tolist() == [0] and parts[0, 0] == 8


def test_damaged_files_of_the_data_set(sample: dict[str, NDArray[np.uint8]], tmp_path: Path) -> None:
    images, classes = sample["images"][:5, 0], sample["garment"][:5]
    with pytest.raises(InputError, match="no such file") as caught:
        fashion.load_garments("test", tmp_path)
    assert "dataset-fashion-mnist" in caught.value.hint
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    write(tmp_path, images, classes)
    whole = file.read_bytes()
    plain = gzip.decompress(whole)
    for content, message in (
        (whole[:300], "not readable"),
        (b"no gzip", "not readable"),
        (gzip.compress(plain[:-1]), "3919 values, expected 3920"),
        (gzip.compress(plain + b"\0"), "3921 values, expected 3920"),
        (gzip.compress(b"\0\0\x08\x04" + plain[4:]), "not an IDX file"),
        (gzip.compress(plain[:7]), "not an IDX file"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=message):
            fashion.load_garments("test", tmp_path)
    write(tmp_path, images, classes[:4])
    with pytest.raises(InputError, match=r"labels \(4,\)"):
        fashion.load_garments("test", tmp_path)
    write(tmp_path, images, np.full(5, 10, np.uint8))
    with pytest.raises(InputError, match="up to 10"):
        fashion.load_garments("test", tmp_path)
    with pytest.raises(InputError, match="unknown split"):
        fashion.load_garments("heldout", tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", PRESETS)
@pytest.mark.filterwarnings("ignore::common.errors.QuantizationWarning")
def test_presets_on_the_sample(model: Model, sample: dict[str, NDArray[np.uint8]], precision: str) -> None:
    """On 64 images little can be said of tenths of a point: all 10,000 are what `evaluate_fashion.py` takes."""
    design = edgemoe.quantize(model, sample["images"][:16], precision)
    for task, metric, least in (("garment", "top1", 80.0), ("parts", "pixel_accuracy", 85.0)):
        score = edgemoe.evaluate(design, model, sample, task)[metric]
        assert score.figures["float"].value >= least
        assert score.difference is not None and abs(score.difference.value) <= 2.0
