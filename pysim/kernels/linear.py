"""Linear engine: exact dot products, one bias, one rounding, one saturation.

    y[t, c] = sat(((sum_k x[t, k] * w[c, k] + bias[c]) * multiplier[c] + half) >> shift[c])  (+ addend[t, c])

Every requantisation of the accelerator has this form. Weights, biases, multipliers and shifts are data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.errors import OverflowRiskError
from pysim.formats import Format

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Requantise:
    """Rule by which a wide integer becomes a narrow one: `sat((value * multiplier + half) >> shift)`.

    Attributes:
        multiplier: int64 (channels,) or (1,), at least 1; all ones where a design has no multipliers.
        shift: int64 (channels,) or (1,), 0 to `MAX_SHIFT`.
    """

    multiplier: IntArray
    shift: IntArray

    def __call__(self, values: IntArray, out: Format, addend: IntArray | int = 0) -> IntArray:
        """Requantise `values` (tokens, channels), add `addend` (broadcast, in units of `out`), saturate once."""
        result = np.empty(values.shape, np.int64)
        channels = (values.shape[1],)
        _requantise(
            values,
            np.ascontiguousarray(np.broadcast_to(self.multiplier, channels)),
            np.ascontiguousarray(np.broadcast_to(self.shift, channels)),
            np.broadcast_to(np.asarray(addend, np.int64), values.shape),
            out.min,
            out.max,
            result,
        )
        return result


@njit(cache=True, nogil=True)
def _requantise(
    values: Any, multiplier: Any, shift: Any, addend: Any, low: int, high: int, result: Any
) -> None:
    half = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
    for t in range(values.shape[0]):
        for c in range(values.shape[1]):
            value = ((values[t, c] * multiplier[c] + half[c]) >> shift[c]) + addend[t, c]
            result[t, c] = min(max(value, low), high)


def accumulator_width(inputs: int, x: Format, weight_width: int) -> int:
    """Bits that hold any dot product of `inputs` terms and a bias as large as the dot product itself."""
    largest = inputs * max(-x.min, x.max) << (weight_width - 1)
    return largest.bit_length() + 2


def accumulate(x: IntArray, weight: NDArray[Any], bias: IntArray | None = None) -> IntArray:
    """Exact integer dot products.

    Args:
        x: (tokens, inputs) integers.
        weight: (outputs, inputs) integers.
        bias: (outputs,) integers in the accumulator's units.

    Returns:
        (tokens, outputs) int64.

    Raises:
        OverflowRiskError: the operands could leave 2**53, where float64 products stop being exact integers.
    """
    if x.size and weight.size:
        bound = x.shape[1] * max(-int(x.min()), int(x.max())) * max(-int(weight.min()), int(weight.max()))
        if bound >= 1 << 53:
            raise OverflowRiskError(
                f"a dot product of {x.shape[1]} terms may reach 2**{bound.bit_length()}, expected under 2**53",
                hint="use narrower operands",
            )
        # Integers this small are exact in floating point, whatever the order of the sum, and BLAS multiplies
        # floats some fifty times as fast as integers.
        exact = np.float32 if bound < 1 << 24 else np.float64
        product = (x.astype(exact) @ weight.T.astype(exact)).astype(np.int64)
    else:
        product = np.zeros((x.shape[0], weight.shape[0]), np.int64)
    return product if bias is None else product + bias
