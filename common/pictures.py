"""Picture files to the 8-bit pixels that a network takes, and pixels to patches.

Needs numpy (and pillow where a picture is read): the board prepares its images with this very code.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.reading import require_file

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]
"""Channels, height and width."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".npy"})
"""Files of a folder that are images, in lower case."""

RESAMPLE = "bilinear"
"""Filter with which pictures of another size are resized."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def patches(images: NDArray[Any], patch_size: int) -> NDArray[Any]:
    """Cut images into patches: (images, channels, H, W) to (images, patches, channels * patch_size**2).

    Patches run row by row; inside a patch, values run by channel, row, column, as a convolution kernel does.
    """
    count, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    cut = images.reshape(count, channels, rows, patch_size, columns, patch_size)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, channels * patch_size**2)


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths`, and in order of their names the image files of the folders among them.

    Raises:
        InputError: a folder holds no image.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not found:
            raise InputError(
                f"{path}: no image in this folder", hint=f"looked for {', '.join(sorted(SUFFIXES))}"
            )
        files += found
    return files


def load_picture(path: Path, shape: Shape, *, fit: bool = False) -> Pixels:
    """Read one image as (channels, H, W) uint8.

    Args:
        path: a picture; an `.npy` file of that shape and type; or a raw `.float32.bin` file of the original
            Edge-MoE, whose values are multiples of 1/256.
        shape: channels, height and width that the network takes.
        fit: resize a picture (bilinear) and convert its colours instead of refusing it.

    Raises:
        InputError: an unreadable file, or one of another size or mode.
    """
    require_file(path, missing="no such image")
    if path.suffix == ".npy":
        return _load_array(path, shape)
    if path.suffix == ".bin":
        return _load_raw(path, shape)
    return _load_picture(path, shape, fit)


def fit_picture(picture: Any, shape: Shape) -> Pixels:
    """A pillow image, resized (bilinear) and converted to (channels, H, W) uint8."""
    from PIL import Image

    channels, height, width = shape
    fitted = picture.convert(_MODES[channels]).resize((width, height), _resampling(Image))
    return _channels_first(fitted)


def _resampling(image: Any) -> Any:
    # Pillow before 9.1, as on older board images, has the filters in the module itself.
    return getattr(getattr(image, "Resampling", image), RESAMPLE.upper())


def _channels_first(picture: Any) -> Pixels:
    return np.ascontiguousarray(np.atleast_3d(np.asarray(picture, np.uint8)).transpose(2, 0, 1))


def _load_array(path: Path, shape: Shape) -> Pixels:
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


def _load_raw(path: Path, shape: Shape) -> Pixels:
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


def _load_picture(path: Path, shape: Shape, fit: bool) -> Pixels:
    channels, height, width = shape
    mode = _MODES.get(channels)
    if mode is None:
        raise InputError(f"{path}: no picture has the {channels} channels of this network", hint="use .npy")
    try:
        from PIL import Image

        with Image.open(path) as picture:
            if fit:
                return fit_picture(picture, shape)
            if picture.size != (width, height) or picture.mode != mode:
                raise InputError(
                    f"{path}: {picture.size[0]}x{picture.size[1]} pixels of mode {picture.mode}, "
                    f"expected {width}x{height} of mode {mode}",
                    hint="--fit resizes and converts",
                )
            return _channels_first(picture)
    except InputError:
        raise
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: reading pictures needs pillow", hint="pip install pillow, or give .npy"
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever they meet.
        raise InputError(f"{path}: not a readable image: {error}") from None
