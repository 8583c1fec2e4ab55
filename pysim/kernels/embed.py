"""Patch embedding operands: 8-bit pixels, patch by patch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.pictures import patches
from pysim.datapath import PIXEL_OFFSET


def pixel_operands(images: NDArray[np.uint8], patch_size: int) -> NDArray[np.int64]:
    """(images * patches, values) signed bytes p - 128, the operands of the patch embedding."""
    cut = patches(images, patch_size)
    return cut.reshape(-1, cut.shape[-1]).astype(np.int64) - PIXEL_OFFSET
