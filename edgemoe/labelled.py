"""Labelled images: folders of one class each, pictures with masks, and `.npz` files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.pictures import SUFFIXES, image_files
from common.reading import require_file
from pysim.files import read_npz
from pysim.images import load_image
from pysim.spec import ModelSpec

Pixels = NDArray[np.uint8]
Labels = NDArray[Any]

IMAGES, LABELS = "images", "labels"
"""Names of the arrays in a file, and of the folders beside each other."""


@dataclass(frozen=True)
class Labelled:
    """Images with the labels of one task; they are read when they are asked for.

    Attributes:
        count: how many there are.
        identity: what tells this data set from others, for results that are kept.
        classes: names of the classes, where folders name them.
    """

    count: int
    identity: str
    classes: tuple[str, ...]
    _images: Callable[[slice], Pixels]
    _labels: Callable[[slice], Labels]

    def images(self, part: slice) -> Pixels:
        """Pixels (images, channels, H, W) of some images."""
        return self._images(part)

    def labels(self, part: slice) -> Labels:
        """Labels (images, ...) of some images."""
        return self._labels(part)


def labelled(
    data: str | Path | Mapping[str, NDArray[Any]], spec: ModelSpec, task: str, *, resize: str | None = None
) -> Labelled:
    """Labelled images of a task.

    Args:
        data: arrays, as a file has them; an `.npz` file with `images` and, named like the task or `labels`, their
            labels; a folder with a folder `images` and, named likewise, one of masks of the same names; or a folder
            with one folder for each class.
        spec: shape of the network.
        task: its name.
        resize: how to make pictures that do not fit, fit: `crop`, `stretch` or `pad`, or `own`, the network's own way;
            masks stay as they are.

    Raises:
        InputError: nothing of the kind, or images and labels that do not go together.
    """
    if resize == "own":
        resize = spec.fit().method
    if not isinstance(data, str | Path):
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(data[name]).tobytes() for name in sorted(data)))
        return from_arrays(data, spec, task, "data", digest.hexdigest())
    path = Path(data)
    if not path.is_dir():
        require_file(path, missing="no such data set")
        arrays = read_npz(path)
        return from_arrays(arrays, spec, task, str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    if (path / IMAGES).is_dir():
        return _with_masks(path, spec, task, resize)
    return _of_classes(path, spec, resize)


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], spec: ModelSpec, task: str, name: str, identity: str
) -> Labelled:
    """Labelled images in memory: `images` (images, channels, H, W), or (images, H, W) of one channel, and labels.

    Raises:
        InputError: arrays are missing, or of another shape.
    """
    images, key = arrays.get(IMAGES), task if task in arrays else LABELS
    labels = arrays.get(key)
    if images is None or labels is None:
        wanted = f"`{IMAGES}` and `{task}` or `{LABELS}`"
        raise InputError(f"{name}: arrays {', '.join(sorted(arrays)) or 'none'}, expected {wanted}")
    if images.ndim == 3:
        images = images[:, None]
    shape = (spec.in_channels, *spec.image_size)
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise InputError(
            f"{name}: {IMAGES}: {images.dtype} of shape {images.shape}, expected uint8 of shape (images, "
            + ", ".join(map(str, shape))
            + ")"
        )
    if labels.ndim == 0 or len(labels) != len(images):
        raise InputError(
            f"{name}: {key}: shape {labels.shape}, expected one for each of {len(images)} images"
        )
    if labels.ndim == 2 and labels.shape[1] == spec.patches:
        labels = labels.reshape(-1, *spec.grid)
    return Labelled(len(images), identity, (), images.__getitem__, labels.__getitem__)


def _of_classes(path: Path, spec: ModelSpec, resize: str | None) -> Labelled:
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise InputError(
            f"{path}: no folders in it",
            hint=f"expected one folder for each class, or a folder `{IMAGES}` and one of masks",
        )
    names = [folder.name for folder in folders]
    # Numbered folders mean their numbers: 10 comes after 9, and a class without pictures leaves a gap.
    numbers = [int(name) for name in names] if all(map(str.isdecimal, names)) else list(range(len(names)))
    found = [
        (file, number)
        for folder, number in zip(folders, numbers, strict=True)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise InputError(f"{path}: no image in its folders", hint=f"looked for {', '.join(sorted(SUFFIXES))}")
    files, classes = [file for file, _ in found], np.array([number for _, number in found])
    return Labelled(
        len(files),
        _identity(path, files, spec, resize),
        tuple(names),
        lambda part: _load(files[part], spec, resize),
        classes.__getitem__,
    )


def _with_masks(path: Path, spec: ModelSpec, task: str, resize: str | None) -> Labelled:
    folder = next((path / name for name in (task, LABELS) if (path / name).is_dir()), None)
    if folder is None:
        raise InputError(f"{path}: no folder `{task}` or `{LABELS}` beside `{IMAGES}`")
    files = image_files([path / IMAGES])
    masks = []
    for file in files:
        found = [folder / f"{file.stem}{suffix}" for suffix in (".png", ".npy")]
        mask = next((each for each in found if each.is_file()), None)
        if mask is None:
            raise InputError(f"{folder}: no label for {file.name}", hint=f"expected {found[0].name} or .npy")
        masks.append(mask)
    return Labelled(
        len(files),
        _identity(path, [*files, *masks], spec, resize),
        (),
        lambda part: _load(files[part], spec, resize),
        lambda part: _stack([_read_mask(mask) for mask in masks[part]], masks[part]),
    )


def _load(files: list[Path], spec: ModelSpec, resize: str | None) -> Pixels:
    return np.stack([load_image(file, spec, resize=resize) for file in files])


def _stack(arrays: list[NDArray[Any]], files: list[Path]) -> Labels:
    for array, file in zip(arrays, files, strict=True):
        if (array.shape, array.dtype) != (arrays[0].shape, arrays[0].dtype):
            raise InputError(
                f"{file}: {array.dtype} of shape {array.shape}, but {files[0].name} is {arrays[0].dtype} of shape"
                f" {arrays[0].shape}",
                hint="labels of a data set have one size and type",
            )
    return np.stack(arrays)


def _read_mask(path: Path) -> NDArray[Any]:
    """Classes (rows, columns) of a PNG, by number or palette; or an `.npy` of classes or real values."""
    require_file(path)
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        from PIL import Image

        with Image.open(path) as picture:
            if picture.mode not in ("1", "L", "P", "I", "I;16"):
                raise InputError(
                    f"{path}: a {picture.mode} picture, expected one class number for each pixel",
                    hint="save masks as grey or palette PNG; real values as .npy of floats",
                )
            return np.asarray(picture).astype(np.int64)
    except InputError:
        raise
    except Exception as error:  # Parsers of pictures and arrays raise whatever they meet.
        raise InputError(f"{path}: not a readable label: {error}") from None


def _identity(path: Path, files: list[Path], spec: ModelSpec, resize: str | None) -> str:
    """Hash of the names, sizes and times of files, and of how they are read: not of what they hold, which is much."""
    digest = hashlib.sha256(f"{spec.image_shape} {resize}\n".encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
