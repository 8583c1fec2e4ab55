"""Function tables: piecewise-linear, with power-of-two steps, owned by the simulator.

Every function unit of the accelerator is a table of base values and slopes, read at an address made of the
input's upper bits and interpolated with its lower bits. The integers here are the only ones: generated C++
and SystemVerilog print them as literals. `docs/arithmetic.md` lists each table's domain and its worst error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysim.datapath import GELU_INPUT, SCORE
from pysim.formats import Format


@dataclass(frozen=True)
class PiecewiseLinear:
    """A function sampled at equal steps, with chords between the samples.

    The value at (address, offset) is `(base[address] << step_bits) + slope[address] * offset`, an exact
    integer with `frac + step_bits` fraction bits; `offset` counts 2**step_bits steps inside a segment.

    Attributes:
        name: what C++ and SystemVerilog call it.
        base: int64 (segments,), the function at each segment's start, `frac` fraction bits.
        slope: int64 (segments,), the change over the segment, `frac` fraction bits.
        frac: fraction bits of base and slope.
        step_bits: input bits that interpolate inside one segment.
    """

    name: str
    base: NDArray[np.int64]
    slope: NDArray[np.int64]
    frac: int
    step_bits: int

    @property
    def address_bits(self) -> int:
        """Input bits that choose the segment."""
        return (len(self.base) - 1).bit_length()

    @property
    def base_format(self) -> Format:
        """The narrowest format that holds every base."""
        return _narrowest(self.base, self.frac)

    @property
    def slope_format(self) -> Format:
        """The narrowest format that holds every slope."""
        return _narrowest(self.slope, self.frac)

    @property
    def words(self) -> list[int]:
        """Unsigned words of a memory that holds the table: in each, the base of a segment above its slope."""
        slope_bits = self.slope_format.width
        mask = (1 << slope_bits) - 1
        pairs = zip(self.base.tolist(), self.slope.tolist(), strict=True)
        return [base << slope_bits | slope & mask for base, slope in pairs]

    @property
    def word_bits(self) -> int:
        """Bits of such a word."""
        return self.base_format.width + self.slope_format.width

    @property
    def value_frac(self) -> int:
        """Fraction bits of an interpolated value."""
        return self.frac + self.step_bits


def _narrowest(values: NDArray[np.int64], frac: int) -> Format:
    low, high = int(values.min()), int(values.max())
    width = max(high.bit_length(), (~low).bit_length() if low < 0 else 0) + (low < 0)
    return Format(max(width, 1), frac, signed=low < 0)


def sample(
    name: str, function: Callable[[float], float], points: NDArray[np.float64], frac: int, step_bits: int
) -> PiecewiseLinear:
    """Round `function` at `points` (one more than there are segments) to nearest."""
    values = np.array([round(math.ldexp(function(float(x)), frac)) for x in points], dtype=np.int64)
    return PiecewiseLinear(name, values[:-1], np.diff(values), frac, step_bits)


def _exp2() -> PiecewiseLinear:
    address_bits = 7
    points = np.arange(2**address_bits + 1) / 2**address_bits
    return sample("exp2", lambda x: 2.0**-x, points, frac=22, step_bits=SCORE.frac - address_bits)


def _reciprocal() -> PiecewiseLinear:
    address_bits = 8
    points = 1 + np.arange(2**address_bits + 1) / 2**address_bits
    return sample("reciprocal", lambda x: 1 / x, points, frac=17, step_bits=10)


def _rsqrt() -> PiecewiseLinear:
    """Two octaves, so that the exponent that is left over is even: [1, 2) and then [2, 4)."""
    address_bits = 7
    octave = 1 + np.arange(2**address_bits + 1) / 2**address_bits
    low = sample("rsqrt", lambda x: 1 / math.sqrt(x), octave, frac=17, step_bits=11)
    high = sample("rsqrt", lambda x: 1 / math.sqrt(x), 2 * octave, frac=17, step_bits=11)
    return PiecewiseLinear(
        "rsqrt", np.concatenate([low.base, high.base]), np.concatenate([low.slope, high.slope]), 17, 11
    )


def _delta(name: str, rest: Callable[[float], float]) -> PiecewiseLinear:
    """delta(a) = a * rest(a) on [0, 8), so that f(x) = relu(x) - delta(|x|) (Edge-MoE, section IV-C).

    Args:
        name: of the table.
        rest: 1 - s(a) of a function x * s(x) with s(-x) = 1 - s(x).
    """
    segments_per_unit_bits = 6
    points = np.arange(8 * 2**segments_per_unit_bits + 1) / 2**segments_per_unit_bits
    step_bits = GELU_INPUT.frac - segments_per_unit_bits
    return sample(name, lambda a: a * rest(a), points, frac=18, step_bits=step_bits)


EXP2 = _exp2()
"""2**-f for a fraction f in [0, 1)."""
RECIPROCAL = _reciprocal()
"""1/m for a mantissa m in [1, 2)."""
RSQRT = _rsqrt()
"""1/sqrt(m) for a mantissa m in [1, 4)."""
GELU_DELTA = _delta("gelu_delta", lambda a: 0.5 * math.erfc(a / math.sqrt(2)))
"""relu(x) - gelu(x) as a function of |x| in [0, 8); zero beyond."""
GELU_TANH_DELTA = _delta(
    "gelu_tanh_delta", lambda a: 1 / (1 + math.exp(2 * math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))
)
"""The same of GELU by its approximation with tanh (Hendrycks and Gimpel, arXiv 1606.08415, section 2)."""
QUICK_GELU_DELTA = _delta("quick_gelu_delta", lambda a: 1 / (1 + math.exp(1.702 * a)))
"""The same of x * sigmoid(1.702 x) (ibidem)."""

UNIT_TABLES = (EXP2, RECIPROCAL, RSQRT)
"""Tables that every network has."""
TABLES = (*UNIT_TABLES, GELU_DELTA, GELU_TANH_DELTA, QUICK_GELU_DELTA)
"""All tables; of the last three, a network has that of its activation function."""
