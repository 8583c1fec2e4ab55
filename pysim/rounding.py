"""Rounding weights so that a layer's output, not each weight, keeps close to the exact one.

The weights of a row are rounded one after the other, and the error of each is made up for in those that are
still to come, as far as the calibrated inputs are correlated (the method of GPTQ, arXiv 2210.17323, section 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pysim.scaling import round_half_up

FloatArray = NDArray[np.float64]

DAMPING = 0.01
"""Share of the mean input energy that is added to every input's: keeps rare inputs from being written off."""

BLOCK = 32
"""Inputs whose errors are spread over all later inputs in one product."""


def round_weights(weight: FloatArray, scale: FloatArray, width: int, inputs: FloatArray | None) -> FloatArray:
    """Integers of `width` bits for a weight matrix.

    Args:
        weight: (outputs, inputs) real weights.
        scale: (outputs,) real value of one unit of each row.
        width: bits of the integers.
        inputs: (rows, inputs) calibrated inputs; None rounds every weight to nearest.
    """
    top = (1 << (width - 1)) - 1
    units = weight / scale[:, None]
    if inputs is None or not inputs.any():
        return np.clip(round_half_up(units), -top - 1, top)
    energy = inputs.T @ inputs
    energy[np.diag_indices_from(energy)] += DAMPING * np.trace(energy) / len(energy)
    # Row k of the upper factor says how an error of input k is best spread over the inputs after it.
    spread = np.linalg.cholesky(np.linalg.inv(energy)).T
    integers = np.empty_like(units)
    for start in range(0, units.shape[1], BLOCK):
        stop = min(start + BLOCK, units.shape[1])
        errors = np.empty((len(units), stop - start))
        for k in range(start, stop):
            integers[:, k] = np.clip(round_half_up(units[:, k]), -top - 1, top)
            errors[:, k - start] = (units[:, k] - integers[:, k]) / spread[k, k]
            units[:, k + 1 : stop] -= errors[:, k - start, None] * spread[k, k + 1 : stop]
        units[:, stop:] -= errors @ spread[start:stop, stop:]
    return integers
