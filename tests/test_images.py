"""Image files: every kind that is read, and a clear error for every kind that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

import edgemoe
from common.errors import EdgeMoeError, InputError
from common.pictures import patches
from pysim.images import load_image, load_images
from pysim.model import Model
from pysim.spec import ModelSpec

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def spec(micro: Model) -> ModelSpec:
    return micro.spec


def save(path: Path, pixels: Pixels) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm"])
def test_a_picture_keeps_its_pixels(spec: ModelSpec, images: Pixels, tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"image{suffix}", images[0].transpose(1, 2, 0))
    assert_array_equal(load_image(path, spec), images[0], strict=True)


def test_an_array_and_a_raw_file(spec: ModelSpec, images: Pixels, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", images[0])
    (images[0].astype("<f4") / 256).tofile(tmp_path / "image.float32.bin")
    for name in ("image.npy", "image.float32.bin"):
        assert_array_equal(load_image(tmp_path / name, spec), images[0], strict=True)


def test_a_folder_is_read_in_order_of_names(micro: Model, images: Pixels, folders: Path) -> None:
    assert_array_equal(edgemoe.load_images([folders / "images"], micro), images)
    two = [folders / "images" / "03.png", folders / "images"]
    assert_array_equal(edgemoe.load_images(list(two), micro)[:2], images[[3, 0]])


def test_no_path_is_no_image(spec: ModelSpec) -> None:
    assert load_images([], spec).shape == (0, 3, 8, 16)


def test_grey_and_rgba(spec: ModelSpec, tmp_path: Path) -> None:
    for channels, shape in ((1, (8, 16)), (4, (8, 16, 4))):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        path = save(tmp_path / f"{channels}.png", pixels)
        loaded = load_image(path, spec.model_copy(update={"in_channels": channels}))
        assert_array_equal(loaded, pixels.reshape(8, 16, channels).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("size", "mode", "found"),
    [((8, 16), "RGB", "8x16 pixels of mode RGB"), ((16, 8), "L", "of mode L"), ((16, 8), "P", "of mode P")],
)
def test_wrong_size_or_mode_is_refused_unless_fitted(
    spec: ModelSpec, tmp_path: Path, size: tuple[int, int], mode: str, found: str
) -> None:
    path = tmp_path / "image.png"
    Image.new(mode, size, 7).save(path)
    with pytest.raises(InputError, match=found) as raised:
        load_image(path, spec)
    assert "expected 16x8 of mode RGB" in raised.value.message
    assert raised.value.hint == "--fit resizes and converts"
    assert load_image(path, spec, fit=True).shape == (3, 8, 16)


def test_no_picture_has_five_channels(spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (16, 8)).save(path)
    with pytest.raises(InputError, match="5 channels"):
        load_image(path, spec.model_copy(update={"in_channels": 5}))


def test_unreadable_files(spec: ModelSpec, tmp_path: Path) -> None:
    for name, content, message in (
        ("text.png", b"not an image", "not a readable image"),
        ("empty.jpg", b"", "not a readable image"),
        ("text.npy", b"not an array", r"not a readable .npy file"),
        ("empty.npy", b"", r"not a readable .npy file"),
        ("short.bin", b"1234", "4 bytes, expected 1536"),
        ("nan.bin", np.full(384, np.nan, "<f4").tobytes(), "not 8-bit pixels"),
        ("half.bin", np.full(384, 1 / 512, "<f4").tobytes(), "not 8-bit pixels"),
        ("one.bin", np.full(384, 1, "<f4").tobytes(), "not 8-bit pixels"),
        ("huge.bin", np.full(384, 3e38, "<f4").tobytes(), "not 8-bit pixels"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as raised:
            load_image(tmp_path / name, spec)
        assert name in raised.value.message


def test_arrays_of_another_kind(spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    for array in (np.zeros((3, 8, 16)), np.zeros((8, 16, 3), np.uint8), np.array([{}], object)):
        np.save(path, array)
        with pytest.raises(InputError, match=r"array\.npy"):
            load_image(path, spec)


def test_missing_paths(spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such image"):
        load_images([tmp_path / "image.png"], spec)
    with pytest.raises(InputError, match="no image in this folder"):
        load_images([tmp_path], spec)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".ppm", ".npy"])
def test_mutated_images_raise_nothing_but_our_errors(
    spec: ModelSpec, images: Pixels, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"image{suffix}"
    if suffix == ".npy":
        np.save(path, images[0])
    else:
        save(path, images[0].transpose(1, 2, 0))
    original = path.read_bytes()
    places = st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255))

    @settings(max_examples=150, deadline=5000)
    @given(st.lists(places, max_size=4), st.integers(0, len(original)), st.booleans())
    def check(changes: list[tuple[int, int]], length: int, fit: bool) -> None:
        content = bytearray(original)
        for place, value in changes:
            content[place] = value
        path.write_bytes(content[:length])
        try:
            loaded = load_image(path, spec, fit=fit)
        except EdgeMoeError:
            return
        assert loaded.shape == (3, 8, 16) and loaded.dtype == np.uint8

    check()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_patches_hold_their_pixels_in_order(size: int) -> None:
    rows, columns = 2, 3
    pixels = np.arange(2 * 4 * rows * columns * size**2).reshape(2, 4, rows * size, columns * size)
    cut = patches(pixels, size)
    assert cut.shape == (2, rows * columns, 4 * size**2)
    for row, column in np.ndindex(rows, columns):
        window = pixels[..., row * size : (row + 1) * size, column * size : (column + 1) * size]
        assert_array_equal(cut[:, row * columns + column], window.reshape(2, -1))
