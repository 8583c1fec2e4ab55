"""Image files to the 8-bit pixels that a network takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.pictures import Pixels, image_files, load_picture
from pysim.spec import ModelSpec


def load_images(paths: Iterable[Path], spec: ModelSpec, *, fit: bool = False) -> Pixels:
    """Read images, and every image file of folders among `paths`, as (images, channels, H, W).

    Raises:
        InputError: naming the file that is unreadable, or of another size or mode than the network takes.
    """
    images = [load_image(file, spec, fit=fit) for file in image_files(paths)]
    return np.stack(images) if images else np.zeros((0, *spec.image_shape), np.uint8)


def load_image(path: Path, spec: ModelSpec, *, fit: bool = False) -> Pixels:
    """Read one image as (channels, H, W) uint8: see `common.pictures.load_picture`."""
    return load_picture(path, spec.image_shape, fit=fit)
