"""Rounding weights so that a layer's output, not each weight, keeps close to the exact one.

The weights of a row are rounded one after the other, and the error of each is made up for in those that are
still to come, as far as the calibrated inputs are correlated (the method of GPTQ, arXiv 2210.17323, section 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtri

from pysim.scaling import round_half_up

FloatArray = NDArray[np.float64]

DAMPING = 0.01
"""Share of the mean input energy that is added to every input's: keeps rare inputs from being written off."""

BLOCK = 32
"""Inputs whose errors are spread over all later inputs in one product."""


def round_weights(weight: FloatArray, scale: FloatArray, width: int, energy: FloatArray | None) -> FloatArray:
    """Integers of `width` bits for a weight matrix.

    Args:
        weight: (outputs, inputs) real weights.
        scale: (outputs,) real value of one unit of each row.
        width: bits of the integers.
        energy: (inputs, inputs) covariance of the inputs, to any factor: what an error of two weights does to the
            output; None rounds every weight to nearest.
    """
    top = (1 << (width - 1)) - 1
    units = weight / scale[:, None]
    if energy is None or not energy.any():
        return np.clip(round_half_up(units), -top - 1, top)
    spread = _spread(energy)
    # One input after the other: rows are contiguous.
    units = np.ascontiguousarray(units.T)
    integers = np.empty_like(units)
    for start in range(0, len(units), BLOCK):
        stop = min(start + BLOCK, len(units))
        errors = np.empty((stop - start, units.shape[1]))
        for k in range(start, stop):
            integers[k] = np.clip(round_half_up(units[k]), -top - 1, top)
            errors[k - start] = (units[k] - integers[k]) / spread[k, k]
            units[k + 1 : stop] -= spread[k, k + 1 : stop, None] * errors[k - start]
        units[stop:] -= spread[start:stop, stop:].T @ errors
    return np.ascontiguousarray(integers.T)


def _spread(energy: FloatArray) -> FloatArray:
    """Upper triangle U with U'U = inv(energy): row k says how to spread an error of input k over those after it."""
    damped = energy + DAMPING * np.trace(energy) / len(energy) * np.eye(len(energy))
    # The factor of the matrix turned round, turned round, is an upper one: damped = F F'. Then U is the inverse of F.
    factor = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    inverse, failed = dtrtri(np.asfortranarray(factor))
    assert not failed, "a factor with zeros on its diagonal"
    return np.ascontiguousarray(inverse)
