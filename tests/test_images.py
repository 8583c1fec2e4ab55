"""Image files: every kind that is read, and a clear error for every kind that is not."""

from __future__ import annotations

import sys
import types
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
from common.fits import FILTERS, RESIZES, Fit
from common.pictures import fit_picture, load_picture, patches
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
    assert raised.value.hint == "--resize crop|stretch|pad resizes and converts"
    for resize in RESIZES:
        assert load_image(path, spec, resize=resize).shape == (3, 8, 16)


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


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".ppm", ".npy", ".gif", ".webp", ".tif"])
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
    @given(st.lists(places, max_size=4), st.integers(0, len(original)), st.sampled_from([None, *RESIZES]))
    def check(changes: list[tuple[int, int]], length: int, resize: str | None) -> None:
        content = bytearray(original)
        for place, value in changes:
            content[place] = value
        path.write_bytes(content[:length])
        try:
            loaded = load_image(path, spec, resize=resize)
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


# Pictures made to fit


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def first(picture: Image.Image) -> Pixels:
    """Channels first."""
    return np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(
    ("size", "share", "scaled", "corner"),
    [
        (
            (40, 30),
            1.0,
            (29, 22),
            (4, 0),
        ),  # square network: 22 pixels of the shorter side, then the middle 22
        ((30, 40), 1.0, (22, 29), (0, 4)),
        ((40, 30), 22 / 25, (33, 25), (6, 2)),
        ((22, 22), 1.0, (22, 22), (0, 0)),
        ((22, 22), 22 / 25, (25, 25), (2, 2)),
        ((10, 11), 1.0, (22, 24), (0, 1)),
    ],
)
def test_crop(
    size: tuple[int, int], share: float, scaled: tuple[int, int], corner: tuple[int, int], resample: str
) -> None:
    """The shorter side is resized to the network's over the share, the middle is cut out; as torchvision rounds."""
    picture, filters = Image.fromarray(noise(size[1], size[0])), Image.Resampling
    expected = picture.resize(scaled, filters[resample.upper()]).crop(
        (*corner, corner[0] + 22, corner[1] + 22)
    )
    if scaled == size:
        expected = picture
    assert_array_equal(fit_picture(picture, (3, 22, 22), Fit("crop", share, resample)), first(expected))


def test_crop_of_other_shapes_covers_the_network() -> None:
    picture = Image.fromarray(noise(30, 40))
    expected = picture.resize((16, 12), Image.Resampling.BILINEAR).crop((0, 2, 16, 10))
    assert_array_equal(fit_picture(picture, (3, 8, 16)), first(expected))


def test_stretch() -> None:
    picture = Image.fromarray(noise(30, 40))
    expected = picture.resize((16, 8), Image.Resampling.BICUBIC)
    assert_array_equal(fit_picture(picture, (3, 8, 16), Fit("stretch", 1.0, "bicubic")), first(expected))
    expected = picture.resize((20, 10), Image.Resampling.BILINEAR).crop((2, 1, 18, 9))
    assert_array_equal(fit_picture(picture, (3, 8, 16), Fit("stretch", 0.8)), first(expected))


def test_pad() -> None:
    picture = Image.fromarray(noise(30, 40))
    found = fit_picture(picture, (3, 8, 16), Fit("pad"))
    inside = first(picture.resize((11, 8), Image.Resampling.BILINEAR))
    assert_array_equal(found[:, :, 2:13], inside)
    assert not found[:, :, :2].any() and not found[:, :, 13:].any()
    tall = fit_picture(Image.fromarray(noise(40, 10)), (3, 8, 16), Fit("pad"))
    assert tall[:, :, 7:9].any() and not tall[:, :, :7].any() and not tall[:, :, 9:].any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_cameras(spec: ModelSpec, tmp_path: Path, orientation: int) -> None:
    """A picture that is stored turned or mirrored comes out upright, whether it is made to fit or not."""
    upright = noise(8, 16)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    for resize in (None, "crop", "stretch"):
        assert_array_equal(load_image(path, spec, resize=resize), upright.transpose(2, 0, 1))


# Colours


def test_sixteen_bits_become_eight(spec: ModelSpec, tmp_path: Path) -> None:
    deep = (noise(8, 16, 1).astype(np.uint16) << 8) + 200
    grey = spec.model_copy(update={"in_channels": 1})
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert_array_equal(load_image(tmp_path / name, grey, resize="crop")[0], deep >> 8)
        assert_array_equal(load_image(tmp_path / name, spec, resize="crop"), np.stack([deep >> 8] * 3))
        with pytest.raises(InputError, match="of mode I;16, expected"):
            load_image(tmp_path / name, grey)


@pytest.mark.parametrize(("mode", "dtype"), [("I", np.int32), ("F", np.float32)])
def test_thirty_two_bits_are_refused(spec: ModelSpec, tmp_path: Path, mode: str, dtype: type) -> None:
    path = tmp_path / "deep.tif"
    Image.fromarray(np.full((8, 16), 70000, dtype)).save(path)
    with pytest.raises(InputError, match=rf"deep\.tif: pixels of 32 bits \(mode {mode}\)"):
        load_image(path, spec, resize="crop")


def test_palettes(spec: ModelSpec, tmp_path: Path) -> None:
    colours = np.array([[10, 20, 30], [200, 100, 0], [0, 255, 7]], np.uint8)
    index = np.random.default_rng(0).integers(0, 3, (8, 16), dtype=np.uint8)
    picture = Image.fromarray(index).convert("L")
    picture.putpalette(colours.tobytes())
    for name in ("palette.png", "palette.gif"):
        picture.save(tmp_path / name)
        assert_array_equal(
            load_image(tmp_path / name, spec, resize="crop"), colours[index].transpose(2, 0, 1)
        )
    picture.save(tmp_path / "hole.png", transparency=1)
    with pytest.raises(InputError, match=r"hole\.png: it is transparent in places"):
        load_image(tmp_path / "hole.png", spec, resize="crop")


def test_alpha(spec: ModelSpec, tmp_path: Path) -> None:
    """What is opaque loses its alpha; what is not has no colour of its own."""
    pixels = noise(8, 16, 4)
    pixels[..., 3] = 255
    path = save(tmp_path / "picture.png", pixels)
    assert_array_equal(load_image(path, spec, resize="stretch"), pixels[..., :3].transpose(2, 0, 1))
    pixels[3, 4, 3] = 254
    save(path, pixels)
    with pytest.raises(InputError, match="transparent in places") as raised:
        load_image(path, spec, resize="stretch")
    assert "flatten it" in raised.value.hint
    four = spec.model_copy(update={"in_channels": 4})
    assert_array_equal(load_image(path, four, resize="crop"), pixels.transpose(2, 0, 1))
    Image.fromarray(noise(8, 16, 2), "LA").save(path)
    with pytest.raises(InputError, match="transparent in places"):
        load_image(path, spec, resize="crop")


def test_print_colours(spec: ModelSpec, tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 4), np.uint8)
    pixels[..., 0], pixels[:, 8:, 3] = 255, 255  # cyan, and black
    path = tmp_path / "print.tif"
    Image.fromarray(pixels, "CMYK").save(path)
    loaded = load_image(path, spec, resize="crop")
    assert_array_equal(loaded[:, 0, 0], [0, 255, 255])
    assert_array_equal(loaded[:, 0, 15], [0, 0, 0])


def test_one_bit_and_grey(spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "bits.png"
    Image.fromarray(noise(8, 16, 1) > 99).save(path)
    assert set(np.unique(load_image(path, spec, resize="crop"))) == {0, 255}


# Files and folders


def test_a_folder_reads_every_kind_and_names_what_it_leaves_out(micro: Model, tmp_path: Path) -> None:
    for suffix in ("png", "gif", "webp", "tif", "tiff", "bmp", "JPG"):
        Image.fromarray(noise(8, 16)).save(tmp_path / f"picture.{suffix}")
    for name in ("labels.csv", "notes.txt", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    said: list[str] = []
    pixels = edgemoe.load_images(tmp_path, micro, resize="crop", say=said.append)
    assert pixels.shape == (7, 3, 8, 16)
    assert said[0] == f"{tmp_path}: 2 of 9 files are no images: labels.csv, notes.txt"
    assert said[-1] == "pictures resized and cut to the network's shape (bilinear)"


def test_frames(spec: ModelSpec, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 16, 3), grey, np.uint8)) for grey in (10, 200)]
    path, said = tmp_path / "moving.webp", list[str]()
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert load_picture(path, spec.image_shape, say=said.append).max() == 10
    assert said == [f"{path}: the first of 2 frames"]


def test_heic_needs_a_package(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "picture.png", noise(8, 16)).rename(tmp_path / "photo.HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        InputError, match=r"photo\.HEIC: pictures of this kind need another package"
    ) as raised:
        load_image(path, spec)
    assert "pip install pillow-heif" in raised.value.hint
    with pytest.raises(InputError, match="another package"):
        load_images([tmp_path], spec)
    registered: list[bool] = []
    package = types.SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    assert load_image(path, spec).shape == (3, 8, 16) and registered == [True]


def test_batches_of_arrays(micro: Model, tmp_path: Path) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 16), dtype=np.uint8)
    np.save(tmp_path / "batch.npy", batch)
    np.save(tmp_path / "one.npy", batch[2])
    loaded = edgemoe.load_images([tmp_path / "batch.npy", tmp_path / "one.npy"], micro)
    assert_array_equal(loaded, [*batch, batch[2]])
    with pytest.raises(InputError, match="5 images, expected one"):
        load_image(tmp_path / "batch.npy", micro.spec)
    np.save(tmp_path / "last.npy", batch[0].transpose(1, 2, 0))
    with pytest.raises(InputError, match=r"expected uint8 of shape \(3, 8, 16\), or a batch") as raised:
        edgemoe.load_images(tmp_path / "last.npy", micro)
    assert raised.value.hint == "the channels come first here: array.transpose(2, 0, 1)"
    for empty in (np.zeros((0, 3, 8, 16), np.uint8), np.zeros((1, 1, 3, 8, 16), np.uint8)):
        np.save(tmp_path / "empty.npy", empty)
        with pytest.raises(InputError, match=r"empty\.npy"):
            edgemoe.load_images(tmp_path / "empty.npy", micro)


def test_the_networks_own_way(micro: Model, tmp_path: Path) -> None:
    """What a folder says about pictures is kept by Models and Designs, and taken where nothing else is said."""
    pictures = {"resize": "stretch", "crop": 0.8, "resample": "bicubic"}
    spec = ModelSpec.model_validate(micro.spec.model_dump() | {"pictures": pictures})
    model = Model(spec, micro.weights)
    model.save(tmp_path / "model")
    kept = edgemoe.load_model(tmp_path / "model").spec
    assert (
        kept == spec and kept.fit() == Fit("stretch", 0.8, "bicubic") and kept.shape() == micro.spec.shape()
    )
    assert kept.fit("crop") == Fit("crop", 1.0, "bicubic") and micro.spec.fit() == Fit()
    save(tmp_path / "photo.png", noise(30, 40))
    own = edgemoe.load_images(tmp_path / "photo.png", model, resize="own")
    assert_array_equal(
        own[0], fit_picture(Image.fromarray(noise(30, 40)), (3, 8, 16), Fit("stretch", 0.8, "bicubic"))
    )
    said: list[str] = []
    edgemoe.load_images(tmp_path / "photo.png", model, resize="pad", say=said.append)
    assert said == [
        "pictures resized and padded (bicubic); the network's own way: stretched (bicubic, the middle 0.8 of it kept)"
    ]
    with pytest.raises(InputError, match="resize = 'fold', expected one of crop, stretch, pad"):
        edgemoe.load_images(tmp_path / "photo.png", model, resize="fold")


def test_paths_of_the_facade(micro: Model, tmp_path: Path) -> None:
    path = save(tmp_path / "picture.png", noise(8, 16))
    for paths in (str(path), path, [str(path)], (path,), iter([path])):
        assert edgemoe.load_images(paths, micro).shape == (1, 3, 8, 16)
    with pytest.raises(InputError, match="ph: no such image"):
        edgemoe.load_images("ph", micro)
    for wrong in (3, None, [3], np.zeros(3)):
        with pytest.raises(InputError, match="expected a path, or a list of them"):
            edgemoe.load_images(wrong, micro)  # type: ignore[arg-type]
