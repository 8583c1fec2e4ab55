"""Report of what quantisation did to each tensor."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

FloatArray = NDArray[np.float64]


class TensorReport(BaseModel):
    """Error of the quantisation of one tensor, measured on the calibration images (or on the weights themselves)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["weight", "activation"]
    low: float
    """Smallest value, in real units."""
    high: float
    """Largest value, in real units."""
    width: int
    """Bits of the integers."""
    scale: float
    """Real value of one unit; the largest of its channels where they differ."""
    frac: int | None = None
    """Fraction bits, where the scale is the power of two 2**-frac for all channels."""
    clipped: float
    """Share of the values that the format's range cuts off."""
    beyond: float = 0.0
    """Distance by which calibrated values leave the range, as a share of it; 0 where it holds all."""
    sqnr_db: float
    """Signal to quantisation noise of this rounding alone."""


def make_report(
    name: str,
    kind: Literal["weight", "activation"],
    values: FloatArray,
    error: FloatArray,
    clipped: NDArray[np.bool_],
    scale: float,
    width: int,
    extremes: tuple[float, float] | None = None,
    beyond: float = 0.0,
) -> TensorReport:
    """Sum up the rounding of `values`, given the error of each and whether the range cut it off.

    `extremes` are the smallest and the largest of all, where `values` are but a sample; `beyond` is how far they leave
    the range.
    """
    mantissa, exponent = math.frexp(scale)
    low, high = extremes or (float(values.min(initial=0.0)), float(values.max(initial=0.0)))
    return TensorReport(
        name=name,
        kind=kind,
        low=low,
        high=high,
        width=width,
        scale=scale,
        frac=1 - exponent if mantissa == 0.5 else None,
        clipped=float(clipped.mean()) if clipped.size else 0.0,
        beyond=beyond,
        sqnr_db=sqnr_db(values, error),
    )


def beyond_range(low: float, high: float, scale: float, width: int, zero: int = 0) -> float:
    """Part of a range by which values from `low` to `high` leave it: 0 where none is more than half a unit outside."""
    limit = 1 << (width - 1)
    excess = max(high / scale + zero - (limit - 1), -limit - (low / scale + zero))
    return excess / (2 * limit) if excess > 0.51 else 0.0


def sqnr_db(signal: FloatArray, error: FloatArray) -> float:
    """10 log10 of the energy of the signal over that of the error, at most 400 dB (nothing was lost)."""
    return decibels(float((signal * signal).sum()), float((error * error).sum()))


def decibels(power: float, noise: float) -> float:
    """Ratio of two energies in dB, at most 400."""
    if noise <= power * 1e-40:
        return 400.0
    return 10 * math.log10(max(power, 1e-300) / noise)
