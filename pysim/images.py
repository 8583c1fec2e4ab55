"""Image files to the 8-bit pixels that a network takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.pictures import Pixels, Say, each_picture, image_files, load_picture
from pysim.spec import ModelSpec


def load_images(
    paths: Iterable[Path],
    spec: ModelSpec,
    *,
    resize: str | None = None,
    say: Say | None = None,
    frames: int | None = None,
) -> Pixels:
    """Read images, and every image file of folders among `paths`, as (images, channels, H, W): see `named_images`."""
    return named_images(paths, spec, resize=resize, say=say, frames=frames)[1]


def named_images(
    paths: Iterable[Path],
    spec: ModelSpec,
    *,
    resize: str | None = None,
    say: Say | None = None,
    frames: int | None = None,
) -> tuple[list[str], Pixels]:
    """Names of images, by their files, and the images as (images, channels, H, W).

    Args:
        paths: pictures, `.npy` files of one image or of a batch, videos, folders.
        spec: the network's shape.
        resize: how to make pictures fit: one of `common.pictures.RESIZES`; None refuses those that do not.
        say: told of what was done and left out.
        frames: of each video at most.

    Raises:
        InputError: naming the file that is unreadable, or of another size or mode than the network takes.
    """
    fit = None if resize is None else spec.fit(resize)
    found = list(each_picture(image_files(paths, say), spec.image_shape, fit=fit, say=say, frames=frames))
    names = [image.name for image in found]
    pixels = (
        np.stack([image.pixels for image in found]) if found else np.zeros((0, *spec.image_shape), np.uint8)
    )
    if fit is not None and say is not None and len(pixels):
        own = spec.pictures
        say(
            f"pictures {fit}"
            + (f"; the network's own way: {own.fit}" if own is not None and own.fit != fit else "")
        )
    return names, pixels


def load_image(path: Path, spec: ModelSpec, *, resize: str | None = None) -> Pixels:
    """Read one image as (channels, H, W) uint8: see `common.pictures.load_picture`."""
    return load_picture(path, spec.image_shape, fit=None if resize is None else spec.fit(resize))
