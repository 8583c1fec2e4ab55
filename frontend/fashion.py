"""Fashion-MNIST: photographs of garments with a task on the image and one on its patches.

Source: 60,000 training and 10,000 test images of 28x28 grey pixels (H. Xiao, K. Rasul, R. Vollgraf, arXiv
1708.07747; (c) 2017 Zalando SE, MIT licence). They are read from files in the IDX format, such as those that Debian's
package `dataset-fashion-mnist` installs; nothing is downloaded.

An image carries two labels of different kinds:

* ``garment``: the class of the image, 0..9, named by `CLASSES`;
* ``parts``: one class for each of the 7x7 patches of 4x4 pixels, row-major: 0 is background and ``1 + c`` is part of
  a garment of class ``c``. A patch is garment where at least half of its pixels are not background. It needs local
  shape (is this patch garment?) and global recognition (of which class?) at the same time.

A network reads the pixel value ``p`` as ``p / 256``.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.pictures import patches
from common.reading import require_file

Split = Literal["train", "test"]

FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
"""Folder into which Debian's package puts the files."""

IMAGE_SIZE: Final = 28
PATCH_SIZE: Final = 4
PATCHES_PER_SIDE: Final = IMAGE_SIZE // PATCH_SIZE
TASKS: Final = ("garment", "parts")
CLASSES: Final = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""Garments, by their number in the files."""

BACKGROUND: Final = 8
"""Pixels up to this value are background, which is 0 but for traces of the resampling."""

_PREFIXES: Final = {"train": "train", "test": "t10k"}
_IMAGES: Final = (0x803, "images-idx3-ubyte.gz")
_LABELS: Final = (0x801, "labels-idx1-ubyte.gz")
_MOST_VALUES: Final = 1 << 28
"""Values of a file that are believed: several times as many as there are."""


@dataclass(frozen=True, eq=False)
class Garments:
    """A set of labelled images.

    Attributes:
        images: ``uint8``, shape ``(n, 1, 28, 28)``; the network input is ``images / 256``.
        labels: ``"garment"`` is ``int64`` of shape ``(n,)``, values 0..9; ``"parts"`` is ``int64`` of shape
            ``(n, 49)``, values 0..10, patches in row-major order.
    """

    images: NDArray[np.uint8]
    labels: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def first(self, count: int) -> Garments:
        """The first images, `count` at most."""
        return Garments(self.images[:count], {task: part[:count] for task, part in self.labels.items()})


def load_garments(split: Split, folder: Path = FOLDER) -> Garments:
    """Images and labels of one split, in the order of the files.

    Args:
        split: ``"train"`` (60,000 images) or ``"test"`` (10,000 images).
        folder: of the four files, named as the data set names them.

    Raises:
        InputError: a file is missing or damaged, or there is no such split.
    """
    if split not in _PREFIXES:
        raise InputError(f"unknown split {split!r}", hint="use 'train' or 'test'")
    images = _read(folder, split, *_IMAGES)
    classes = _read(folder, split, *_LABELS)
    if images.shape != (len(classes), IMAGE_SIZE, IMAGE_SIZE) or classes.max(initial=0) >= len(CLASSES):
        raise InputError(
            f"{folder}: images {images.shape} and labels ({len(classes)},) up to {classes.max(initial=0)},"
            f" expected as many images of {IMAGE_SIZE}x{IMAGE_SIZE} as labels from 0 to {len(CLASSES) - 1}"
        )
    return label(images[:, None], classes.astype(np.int64))


def label(images: NDArray[np.uint8], classes: NDArray[np.int64]) -> Garments:
    """Images (n, 1, 28, 28) of the given classes (n,), with the labels of both tasks."""
    covered = (patches(images, PATCH_SIZE) > BACKGROUND).mean(axis=-1) >= 0.5
    parts = np.where(covered, 1 + classes[:, None], 0)
    return Garments(images, {"garment": classes, "parts": parts})


def _read(folder: Path, split: Split, magic: int, name: str) -> NDArray[np.uint8]:
    """Bytes of an IDX file: a magic number that ends in the number of axes, the axes' sizes, and the values."""
    path, axes = folder / f"{_PREFIXES[split]}-{name}", magic & 0xFF
    require_file(path, hint="Debian has the files in its package dataset-fashion-mnist")
    try:
        with gzip.open(path) as file:
            header = file.read(4 + 4 * axes)
            if len(header) != 4 + 4 * axes or int.from_bytes(header[:4], "big") != magic:
                raise InputError(f"{path}: not an IDX file of bytes with {axes} axes", hint="copy it again")
            shape = tuple(map(int, np.frombuffer(header, ">u4", offset=4)))
            size = math.prod(shape)
            values = file.read(min(size, _MOST_VALUES) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: not readable: {error}", hint="it may be truncated: copy it again"
        ) from None
    if len(values) != size:
        raise InputError(
            f"{path}: {len(values)} values, expected {size}", hint="it is damaged: copy it again"
        )
    return np.frombuffer(bytearray(values), np.uint8).reshape(shape)
