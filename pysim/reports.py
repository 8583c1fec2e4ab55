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
) -> TensorReport:
    """Sum up the rounding of `values`, given the error of each and whether the range cut it off."""
    mantissa, exponent = math.frexp(scale)
    return TensorReport(
        name=name,
        kind=kind,
        low=float(values.min(initial=0.0)),
        high=float(values.max(initial=0.0)),
        width=width,
        scale=scale,
        frac=1 - exponent if mantissa == 0.5 else None,
        clipped=float(clipped.mean()) if clipped.size else 0.0,
        sqnr_db=sqnr_db(values, error),
    )


def sqnr_db(signal: FloatArray, error: FloatArray) -> float:
    """10 log10 of the energy of the signal over that of the error, at most 400 dB (nothing was lost)."""
    return decibels(float((signal * signal).sum()), float((error * error).sum()))


def decibels(power: float, noise: float) -> float:
    """Ratio of two energies in dB, at most 400."""
    if noise <= power * 1e-40:
        return 400.0
    return 10 * math.log10(max(power, 1e-300) / noise)
