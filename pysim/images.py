"""Image files to the 8-bit pixels that a network takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pysim.errors import InputError
from pysim.spec import ModelSpec

Pixels = NDArray[np.uint8]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def load_images(paths: Iterable[Path], spec: ModelSpec, *, fit: bool = False) -> Pixels:
    """Read images, and every image file of folders among `paths`, as (images, channels, H, W).

    Raises:
        InputError: naming the file that is unreadable, or of another size or mode than the network takes.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        if not found:
            raise InputError(
                f"{path}: no image in this folder", hint=f"looked for {', '.join(sorted(_SUFFIXES))}"
            )
        files += found
    shape = (spec.in_channels, *spec.image_size)
    images = [load_image(file, spec, fit=fit) for file in files]
    return np.stack(images) if images else np.zeros((0, *shape), np.uint8)


_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".npy"}


def load_image(path: Path, spec: ModelSpec, *, fit: bool = False) -> Pixels:
    """Read one image as (channels, H, W) uint8.

    Args:
        path: a picture; an `.npy` file of that shape and type; or a raw `.float32.bin` file of the original
            Edge-MoE, whose values are multiples of 1/256.
        spec: says how many channels and which size the network takes.
        fit: resize a picture (bilinear) and convert its colours instead of refusing it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such image")
    shape = (spec.in_channels, *spec.image_size)
    if path.suffix == ".npy":
        return _load_array(path, shape)
    if path.suffix == ".bin":
        return _load_raw(path, shape)
    return _load_picture(path, spec, fit)


def _load_array(path: Path, shape: tuple[int, ...]) -> Pixels:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's parser of headers raises whatever it meets, tokenizer errors too.
        raise InputError(f"{path}: not a readable .npy file: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.shape != shape:
        raise InputError(
            f"{path}: {getattr(array, 'dtype', type(array).__name__)} of shape "
            f"{getattr(array, 'shape', ())}, expected uint8 of shape {shape}"
        )
    return array


def _load_raw(path: Path, shape: tuple[int, ...]) -> Pixels:
    expected = 4 * int(np.prod(shape))
    size = path.stat().st_size
    if size != expected:
        raise InputError(f"{path}: {size} bytes, expected {expected}: float32 of shape {shape}")
    pixels = np.fromfile(path, "<f4").astype(np.float64).reshape(shape) * 256
    if not (
        np.isfinite(pixels).all()
        and (pixels == np.rint(pixels)).all()
        and pixels.min() >= 0
        and pixels.max() < 256
    ):
        raise InputError(f"{path}: values are not 8-bit pixels", hint="expected multiples of 1/256 in [0, 1)")
    return pixels.astype(np.uint8)


def _load_picture(path: Path, spec: ModelSpec, fit: bool) -> Pixels:
    height, width = spec.image_size
    mode = _MODES.get(spec.in_channels)
    if mode is None:
        raise InputError(
            f"{path}: no picture has the {spec.in_channels} channels of this network", hint="use .npy"
        )
    try:
        with Image.open(path) as picture:
            if not fit and (picture.size != (width, height) or picture.mode != mode):
                raise InputError(
                    f"{path}: {picture.size[0]}x{picture.size[1]} pixels of mode {picture.mode}, "
                    f"expected {width}x{height} of mode {mode}",
                    hint="--fit resizes and converts",
                )
            fitted = (
                picture.convert(mode).resize((width, height), Image.Resampling.BILINEAR) if fit else picture
            )
            pixels = np.asarray(fitted, np.uint8)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they meet.
        raise InputError(f"{path}: not a readable image: {error}") from None
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))
