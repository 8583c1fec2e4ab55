"""Picture files to the 8-bit pixels that a network takes, and pixels to patches.

Needs numpy (and pillow where a picture is read): the board prepares its images with this very code.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.fits import RESIZES, Fit
from common.printable import one_line
from common.reading import require_file
from common.video import CAMERA_FRAMES, Source, Video, is_video

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]
"""Channels, height and width."""

SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jpeg",
        ".jpg",
        ".npy",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
"""Files of a folder that are images, in lower case."""

Say = Callable[[str], Any]
"""Takes a sentence about what was done to a picture."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_HEIF = (".heic", ".heif")
_OPAQUE = 255


def patches(images: NDArray[Any], patch_size: int) -> NDArray[Any]:
    """Cut images into patches: (images, channels, H, W) to (images, patches, channels * patch_size**2).

    Patches run row by row; inside a patch, values run by channel, row, column, as a convolution kernel does.
    """
    count, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    cut = images.reshape(count, channels, rows, patch_size, columns, patch_size)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, channels * patch_size**2)


def image_files(paths: Iterable[Path], say: Say | None = None) -> list[Path]:
    """The files among `paths`, and in order of their names the image files of the folders among them.

    Args:
        paths: files and folders.
        say: told of files of folders that are no images.

    Raises:
        InputError: a folder holds no image.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        there = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        found = [file for file in there if file.suffix.lower() in SUFFIXES]
        if not found:
            raise InputError(
                f"{path}: no image in this folder", hint=f"looked for {', '.join(sorted(SUFFIXES))}"
            )
        if say is not None and len(found) < len(there):
            others = [one_line(file.name) for file in there if file not in found]
            more = ", ..." if len(others) > 3 else ""
            say(f"{path}: {len(others)} of {len(there)} files are no images: {', '.join(others[:3])}{more}")
        files += found
    return files


class Named(NamedTuple):
    """One image.

    Attributes:
        name: its file, for people; with its number where the file holds several.
        pixels: (channels, H, W) uint8.
    """

    name: str
    pixels: Pixels


def each_picture(
    sources: Iterable[Source],
    shape: Shape,
    *,
    fit: Fit | None = None,
    say: Say | None = None,
    frames: int | None = None,
) -> Generator[Named, None, None]:
    """Images one after the other, of pictures, batches, videos and cameras; a video is read as far as it is asked for.

    Args:
        sources: files, as `load_pictures` takes them, and numbers of cameras.
        shape: channels, height and width that the network takes.
        fit: how to make a picture fit; None refuses one of another size or other colours.
        say: told of what was done beyond that.
        frames: of each video and camera at most; all of a video and 100 of a camera where it is not given.

    Raises:
        InputError: as of `load_picture`.
    """
    for source in sources:
        if is_video(source):
            with Video(source) as video:
                most = CAMERA_FRAMES if frames is None and isinstance(source, int) else frames
                number = -1
                for number, frame in enumerate(islice(video, most)):
                    yield Named(f"{video.name}[{number}]", _fitted_frame(video.name, frame, shape, fit))
                if number < 0:
                    raise InputError(f"{video.name}: no frame in this video")
            continue
        assert isinstance(source, Path)
        pictures = load_pictures(source, shape, fit=fit, say=say)
        for number, pixels in enumerate(pictures):
            yield Named(f"{source}[{number}]" if len(pictures) > 1 else str(source), pixels)


def _fitted_frame(name: str, frame: NDArray[np.uint8], shape: Shape, fit: Fit | None) -> Pixels:
    """A frame (rows, columns, 3) as (channels, H, W)."""
    mode = _mode(name, shape)
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise InputError(f"{name}: reading videos needs pillow", hint="pip install pillow") from None
    return _fitted(name, Image.fromarray(frame), mode, shape, fit)


def load_pictures(
    path: Path, shape: Shape, *, fit: Fit | None = None, say: Say | None = None, frames: int | None = None
) -> Pixels:
    """The images of one file as (images, channels, H, W) uint8: one, but for a batch in an `.npy` file, or a video.

    Args:
        path: see `load_picture`; or a video.
        shape: channels, height and width that the network takes.
        fit: how to make a picture fit; None refuses one of another size or other colours.
        say: told of what was done beyond that: turned, the first of several frames.
        frames: of a video at most.

    Raises:
        InputError: as of `load_picture`.
    """
    if is_video(path):
        return np.stack([image.pixels for image in each_picture([path], shape, fit=fit, frames=frames)])
    require_file(path, missing="no such image")
    if path.suffix.lower() == ".npy":
        array = _load_array(path, shape)
        return array[None] if array.ndim == len(shape) else array
    if path.suffix == ".bin":
        return _load_raw(path, shape)[None]
    return _load_picture(path, shape, fit, say)[None]


def load_picture(path: Path, shape: Shape, *, fit: Fit | None = None, say: Say | None = None) -> Pixels:
    """One image as (channels, H, W) uint8.

    Args:
        path: a picture; an `.npy` file of that shape and type; or a raw `.float32.bin` file of the original
            Edge-MoE, whose values are multiples of 1/256.
        shape: channels, height and width that the network takes.
        fit: how to make a picture fit (and convert its colours) instead of refusing it.
        say: told of what was done beyond that.

    Raises:
        InputError: an unreadable file, or one of another size or mode; colours that cannot be converted; a batch.
    """
    if is_video(path):
        raise InputError(f"{path}: a video, expected one image")
    pictures = load_pictures(path, shape, fit=fit, say=say)
    if len(pictures) != 1:
        raise InputError(f"{path}: {len(pictures)} images, expected one")
    return pictures[0]


def fit_picture(picture: Any, shape: Shape, fit: Fit | None = None) -> Pixels:
    """A pillow image, turned as it says, converted and made to fit, as (channels, H, W) uint8.

    Raises:
        InputError: colours that cannot be converted.
    """
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(picture)
    return _channels_first(_resized(_converted(upright, shape[0]), shape, fit or Fit()))


def _resized(picture: Any, shape: Shape, fit: Fit) -> Any:
    """A picture of the network's size."""
    from PIL import Image, ImageOps

    _, height, width = shape
    # A hair more, as 224 / (224 / 592) is 591.999...
    inner = tuple(math.floor(side / fit.crop + 1e-6) for side in (width, height))
    # Pillow before 9.1, as on older board images, has the filters in the module itself.
    resample = getattr(getattr(Image, "Resampling", Image), fit.resample.upper())
    size = inner
    if fit.method != "stretch":
        ratios = [there / wanted for there, wanted in zip(picture.size, inner, strict=True)]
        ratio = min(ratios) if fit.method == "crop" else max(ratios)
        # The shorter side of a square comes out exact, and the other is cut, as in torchvision.
        whole: Callable[[float], int] = int if inner[0] == inner[1] and fit.method == "crop" else round
        scaled = [max(1, whole(there / ratio + 1e-9)) for there in picture.size]
        exact = ratios.index(ratio)
        scaled[exact] = inner[exact]
        size = (scaled[0], scaled[1])
    if picture.size != size:
        picture = picture.resize(size, resample)
    left, top = (
        round((there - wanted) / 2) for there, wanted in zip(picture.size, (width, height), strict=True)
    )
    if left < 0 or top < 0:
        borders = (max(0, -left), max(0, -top))
        right, bottom = (
            max(0, wanted - there - border)
            for wanted, there, border in zip((width, height), picture.size, borders, strict=True)
        )
        picture = ImageOps.expand(picture, (*borders, right, bottom), fill=0)
        left, top = max(0, left), max(0, top)
    return picture.crop((left, top, left + width, top + height))


def _converted(picture: Any, channels: int) -> Any:
    """A picture in the network's colours.

    Raises:
        InputError: what is transparent, or has no range that stands for white.
    """
    wanted = _MODES[channels]
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        picture = _eight_bits(
            picture
        )  # pictures of 16 bits and several colours come with their upper bytes already
    if picture.mode in ("I", "F"):
        raise InputError(
            f"pixels of 32 bits (mode {picture.mode}), of which none stands for white",
            hint="save it with 8 or 16 bits a channel, or as an .npy file of uint8",
        )
    if picture.mode == "P":
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in ("PA", "La", "LA", "RGBa"):
        picture = picture.convert("RGBA")
    if picture.mode == "RGBA" and wanted != "RGBA":
        if picture.getchannel("A").getextrema()[0] < _OPAQUE:
            raise InputError(
                "it is transparent in places, and the network takes no alpha",
                hint="flatten it onto the background that it is to have",
            )
    elif picture.mode == "CMYK":
        picture = _from_print(picture)
    return picture if picture.mode == wanted else picture.convert(wanted)


def _eight_bits(picture: Any) -> Any:
    """The upper bytes of grey pixels of 16 bits."""
    from PIL import Image

    return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _from_print(picture: Any) -> Any:
    """A picture in the colours of a printer in those of a screen, by its profile if it has one."""
    profile = picture.info.get("icc_profile")
    if profile:
        from PIL import ImageCms

        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(
                picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
    return picture.convert("RGB")


def _channels_first(picture: Any) -> Pixels:
    return np.ascontiguousarray(np.atleast_3d(np.asarray(picture, np.uint8)).transpose(2, 0, 1))


def _load_array(path: Path, shape: Shape) -> Pixels:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's parser of headers raises whatever it meets, tokenizer errors too.
        raise InputError(f"{path}: not a readable .npy file: {error}") from None
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.uint8
        or array.shape[-3:] != shape
        or array.ndim > 4
    ):
        found = getattr(array, "shape", ())
        channels_last = tuple(found[-3:]) == (*shape[1:], shape[0])
        raise InputError(
            f"{path}: {getattr(array, 'dtype', type(array).__name__)} of shape {found}, expected uint8 of shape "
            f"{shape}, or a batch of such",
            hint="the channels come first here: array.transpose(2, 0, 1)"
            if channels_last and len(found) == 3
            else "",
        )
    if array.size == 0:
        raise InputError(f"{path}: shape {array.shape}: no image in it")
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


def _load_picture(path: Path, shape: Shape, fit: Fit | None, say: Say | None) -> Pixels:
    mode = _mode(path, shape)
    try:
        from PIL import Image

        if path.suffix.lower() in _HEIF:
            _register_heif(path)
        with Image.open(path) as picture:
            frames = getattr(picture, "n_frames", 1)
            if say is not None and frames > 1:
                say(f"{path}: the first of {frames} frames")
            return _fitted(path, picture, mode, shape, fit)
    except InputError as error:
        if error.message.startswith(str(path)):
            raise
        raise InputError(f"{path}: {error.message}", hint=error.hint) from None
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: reading pictures needs pillow", hint="pip install pillow, or give .npy"
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever they meet.
        raise InputError(f"{path}: not a readable image: {error}") from None


def _mode(name: Path | str, shape: Shape) -> str:
    """Pillow's name of the network's colours."""
    mode = _MODES.get(shape[0])
    if mode is None:
        raise InputError(f"{name}: no picture has the {shape[0]} channels of this network", hint="use .npy")
    return mode


def _fitted(name: Path | str, picture: Any, mode: str, shape: Shape, fit: Fit | None) -> Pixels:
    """A pillow image made to fit, or refused."""
    from PIL import ImageOps

    if fit is not None:
        return fit_picture(picture, shape, fit)
    _, height, width = shape
    upright = ImageOps.exif_transpose(picture)
    if upright.size != (width, height) or upright.mode != mode:
        raise InputError(
            f"{name}: {upright.size[0]}x{upright.size[1]} pixels of mode {upright.mode}, "
            f"expected {width}x{height} of mode {mode}",
            hint=f"--resize {'|'.join(RESIZES)} resizes and converts",
        )
    return _channels_first(upright)


def _register_heif(path: Path) -> None:
    """Teach pillow the pictures of phones, where the package for it is installed."""
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found]
    except ImportError:
        raise InputError(
            f"{path}: pictures of this kind need another package",
            hint="pip install pillow-heif, or save it as PNG or JPEG",
        ) from None
    register_heif_opener()
