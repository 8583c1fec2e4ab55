"""Image files to the 8-bit pixels that a network takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.pictures import Pixels, Say, image_files, load_picture, load_pictures
from pysim.spec import ModelSpec


def load_images(
    paths: Iterable[Path], spec: ModelSpec, *, resize: str | None = None, say: Say | None = None
) -> Pixels:
    """Read images, and every image file of folders among `paths`, as (images, channels, H, W).

    Args:
        paths: pictures, `.npy` files of one image or of a batch, folders.
        spec: the network's shape.
        resize: how to make pictures fit: one of `common.pictures.RESIZES`; None refuses those that do not.
        say: told of what was done and left out.

    Raises:
        InputError: naming the file that is unreadable, or of another size or mode than the network takes.
    """
    fit = None if resize is None else spec.fit(resize)
    images = [load_pictures(file, spec.image_shape, fit=fit, say=say) for file in image_files(paths, say)]
    pixels = np.concatenate(images) if images else np.zeros((0, *spec.image_shape), np.uint8)
    if fit is not None and say is not None and len(pixels):
        own = spec.pictures
        say(
            f"pictures {fit}"
            + (f"; the network's own way: {own.fit}" if own is not None and own.fit != fit else "")
        )
    return pixels


def load_image(path: Path, spec: ModelSpec, *, resize: str | None = None) -> Pixels:
    """Read one image as (channels, H, W) uint8: see `common.pictures.load_picture`."""
    return load_picture(path, spec.image_shape, fit=None if resize is None else spec.fit(resize))
