"""Linear engine: exact dot products, one bias, one rounding, one saturation.

    y[t, c] = sat(((sum_k x[t, k] * w[c, k] + bias[c]) * multiplier[c] + half) >> shift[c])  (+ addend[t, c])

Every requantisation of the accelerator has this form. Weights, biases, multipliers and shifts are data.

BLAS multiplies the integers as floats, some fifty times as fast as integers, where every sum is an integer so small
that the float type holds it exactly, in whatever order BLAS adds: up to 2**24 in float32, up to 2**53 in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.errors import OverflowRiskError
from pysim.formats import Format

IntArray = NDArray[np.int64]
Exact = NDArray[Any]
"""Integers in the type that they were computed in: a float type that holds each of them exactly, or int64."""

EXACT_BITS: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): 24,
    np.dtype(np.float64): 53,
    np.dtype(np.int64): 62,
}
"""Integers up to this power of two are all held by a type."""

FEW_PRODUCTS = 1 << 18
"""Dot products that stay in a core's cache from one step to the next."""


@dataclass(frozen=True)
class Requantise:
    """Rule by which a wide integer becomes a narrow one: `sat((value * multiplier + half) >> shift)`.

    Attributes:
        multiplier: int64 (channels,) or (1,), at least 1; all ones where a design has no multipliers.
        shift: int64 (channels,) or (1,), 0 to `MAX_SHIFT`.
    """

    multiplier: IntArray
    shift: IntArray

    @cached_property
    def half(self) -> IntArray:
        """Half of the last bit that is kept, added before the shift so that it rounds to nearest, ties up."""
        return np.where(self.shift > 0, 1 << np.maximum(self.shift - 1, 0), 0)

    def channels(self, count: int) -> tuple[IntArray, IntArray, IntArray]:
        """Multiplier, half and shift of each of `count` channels, in the layout that compiled functions take."""
        return _spread(self.multiplier, count), _spread(self.half, count), _spread(self.shift, count)

    def __call__(
        self,
        values: Exact,
        out: Format,
        addend: NDArray[Any] | int = 0,
        bias: IntArray | None = None,
        result: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Requantise.

        Args:
            values: (tokens, channels) integers.
            out: format of the results.
            addend: one integer, or (tokens, channels), in units of `out`; it is added before the one saturation.
            bias: (channels,) that the values lack; none where they are sums already.
            result: (tokens, channels) where the results go; a new int64 array where it is not given.

        Returns:
            (tokens, channels) integers in `out`.
        """
        if result is None:
            result = np.empty(values.shape, np.int64)
        count = values.shape[1]
        bias = _spread(np.zeros(1, np.int64) if bias is None else bias, count)
        old, zero = (addend, 0) if isinstance(addend, np.ndarray) else (None, addend)
        _requantise(values, bias, *self.channels(count), old, zero, out.min, out.max, result)
        return result


def _spread(values: IntArray, count: int) -> IntArray:
    return values if len(values) == count else np.full(count, values[0])


@njit(cache=True, nogil=True)
def _requantise(
    values: Any,
    bias: Any,
    multiplier: Any,
    half: Any,
    shift: Any,
    addend: Any,
    zero: int,
    low: int,
    high: int,
    result: Any,
) -> None:
    for t in range(values.shape[0]):
        for c in range(values.shape[1]):
            total = np.int64(values[t, c]) + bias[c]
            value = ((total * multiplier[c] + half[c]) >> shift[c]) + zero
            if addend is not None:
                value += addend[t, c]
            result[t, c] = min(max(value, low), high)


def accumulator_width(inputs: int, x: Format, weight_width: int) -> int:
    """Bits that hold any dot product of `inputs` terms and a bias as large as the dot product itself."""
    largest = inputs * max(-x.min, x.max) << (weight_width - 1)
    return largest.bit_length() + 2


@dataclass(frozen=True)
class Weights:
    """Weights of a layer, ready for BLAS.

    Attributes:
        matrix: (outputs, inputs) integers, in the type in which all dot products are exact.
    """

    matrix: Exact

    @classmethod
    def of(cls, weight: NDArray[Any], largest: int) -> Weights:
        """Prepare (outputs, inputs) integers for operands of a magnitude of at most `largest`.

        Raises:
            OverflowRiskError: dot products could leave 2**62.
        """
        # float64 overflows nowhere on the way, and is exact as far as it is chosen itself.
        sums = np.abs(weight.astype(np.float64)).sum(axis=1)
        bound = int(sums.max(initial=0.0)) * largest
        for dtype, bits in EXACT_BITS.items():
            if bound < 1 << bits:
                return cls(np.ascontiguousarray(weight, dtype))
        raise OverflowRiskError(
            f"a dot product of {weight.shape[1]} terms may reach 2**{bound.bit_length()}, expected under 2**62",
            hint="use narrower operands",
        )

    def blocks(self, x: NDArray[Any]) -> Iterator[tuple[slice, Exact]]:
        """The `products`, of some tokens after the other: so few that what comes next finds them in the cache."""
        rows = max(1, FEW_PRODUCTS // max(1, len(self.matrix)))
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            yield part, self.products(x[part])

    def products(self, x: NDArray[Any]) -> Exact:
        """Exact dot products (tokens, outputs) of integers (tokens, inputs) with every row of weights."""
        return x.astype(self.matrix.dtype, copy=False) @ self.matrix.T


def accumulate(x: IntArray, weight: NDArray[Any], bias: IntArray | None = None) -> IntArray:
    """Exact integer dot products.

    Args:
        x: (tokens, inputs) integers.
        weight: (outputs, inputs) integers.
        bias: (outputs,) integers in the accumulator's units.

    Returns:
        (tokens, outputs) int64.

    Raises:
        OverflowRiskError: the operands could leave 2**62.
    """
    largest = max(-int(x.min(initial=0)), int(x.max(initial=0)))
    sums = Weights.of(weight, largest).products(x).astype(np.int64)
    return sums if bias is None else sums + bias
