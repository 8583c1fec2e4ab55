"""Pixels in the order in which the kernel reads them, and its output back in the order of tokens.

The kernel handles channels in words of `lanes`, and every word starts on a new beat of its memory port.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.pictures import patches

Bytes = NDArray[np.uint8]


class ImageLayout(NamedTuple):
    """Layout of images in memory: patch after patch, each cut into words of lanes, each word in whole beats."""

    shape: tuple[int, int, int]
    """Channels, height and width."""
    patch_size: int
    lanes: int
    patch_words: int
    word_bytes: int
    """Bytes of one word of pixels, the rest of its last beat included."""
    padding: int
    """Value of lanes beyond the pixels of a patch: it stands for 0 in the kernel."""

    @property
    def patches(self) -> int:
        """Patches of one image."""
        _, height, width = self.shape
        return (height // self.patch_size) * (width // self.patch_size)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.patches * self.patch_words * self.word_bytes


class OutputLayout(NamedTuple):
    """Layout of final tokens in memory: token after token, each in words of lanes, each word in whole beats."""

    tokens: int
    dim: int
    lanes: int
    token_words: int
    word_bytes: int
    """Bytes of one word of 32-bit integers, the rest of its last beat included."""

    @property
    def image_bytes(self) -> int:
        """Bytes of one image's tokens."""
        return self.tokens * self.token_words * self.word_bytes


def check_images(images: NDArray[np.uint8], shape: tuple[int, int, int]) -> None:
    """Refuse anything but (images, channels, H, W) uint8.

    Raises:
        InputError: another type, dtype or shape.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        found = f"dtype {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(
            f"image: {found}, expected an array of uint8",
            hint="pixels are 8-bit, 0 to 255: image.astype(numpy.uint8)",
        )
    if images.ndim != 4 or images.shape[1:] != shape:
        hint = "channels come first: (channels, height, width)"
        raise InputError(f"image: shape {images.shape[1:]}, expected {shape}", hint=hint)


def pack_images(images: NDArray[np.uint8], layout: ImageLayout, out: Bytes | None = None) -> Bytes:
    """Lay images out as the kernel reads them.

    Args:
        images: (images, channels, H, W) uint8.
        layout: where everything goes.
        out: memory to write to, at least as long as the images are; allocated where it is not given.

    Returns:
        (images * image_bytes) uint8.
    """
    size = len(images) * layout.image_bytes
    packed = np.empty(size, np.uint8) if out is None else out[:size]
    values = images.shape[1] * layout.patch_size**2
    words, lanes = layout.patch_words, layout.lanes
    if layout.word_bytes == lanes and values == words * lanes:
        _cut_into(images, layout, packed)
        return packed
    rows = patches(images, layout.patch_size).reshape(len(images) * layout.patches, values)
    target = packed.reshape(len(rows), words, layout.word_bytes)
    target[:, :, lanes:] = 0
    full, rest = divmod(values, lanes)
    target[:, :full, :lanes] = rows[:, : full * lanes].reshape(len(rows), full, lanes)
    if rest:
        target[:, full, :rest] = rows[:, full * lanes :]
        target[:, full, rest:lanes] = layout.padding
    return packed


def _cut_into(images: NDArray[np.uint8], layout: ImageLayout, packed: Bytes) -> None:
    """The patches of images that fill their words and beats exactly, in one copy."""
    count, channels, height, width = images.shape
    size = layout.patch_size
    rows, columns = height // size, width // size
    cut = images.reshape(count, channels, rows, size, columns, size).transpose(0, 2, 4, 1, 3, 5)
    packed.reshape(cut.shape)[...] = cut


def unpack_tokens(output: Bytes, images: int, layout: OutputLayout) -> NDArray[np.int32]:
    """Tokens (images, tokens, dim) out of the kernel's output, as a copy."""
    words = output[: images * layout.image_bytes].view("<i4").reshape(-1, layout.word_bytes // 4)
    lanes = words[:, : layout.lanes].reshape(images, layout.tokens, -1)
    return np.array(lanes[:, :, : layout.dim], np.int32)
