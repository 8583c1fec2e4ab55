"""Patch embedding operands: 8-bit pixels, patch by patch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysim.datapath import PIXEL_OFFSET


def patches(images: NDArray[Any], patch_size: int) -> NDArray[Any]:
    """Cut images into patches: (images, channels, H, W) to (images, patches, channels * patch_size**2).

    Patches run row by row; inside a patch, values run by channel, row, column, as a convolution kernel does.
    """
    count, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    cut = images.reshape(count, channels, rows, patch_size, columns, patch_size)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, channels * patch_size**2)


def pixel_operands(images: NDArray[np.uint8], patch_size: int) -> NDArray[np.int64]:
    """(images * patches, values) signed bytes p - 128, the operands of the patch embedding."""
    cut = patches(images, patch_size)
    return cut.reshape(-1, cut.shape[-1]).astype(np.int64) - PIXEL_OFFSET
