"""Worst errors of the function units, measured over every input of their formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysim.activations import Activation
from pysim.datapath import EXPONENTIAL, GELU_INPUT, MANTISSA_FRAC, SCORE
from pysim.kernels.gelu import GELU_FRAC, activate
from pysim.kernels.units import exp2, reciprocal, rsqrt
from pysim.tables import RECIPROCAL, RSQRT, PiecewiseLinear


@dataclass(frozen=True)
class WorstError:
    """The largest error of a function unit, measured over every input of its format.

    Attributes:
        error: absolute error, or relative where `relative`.
        at: the real input where it occurs.
        inputs: how many inputs were tried.
        relative: whether `error` is relative to the exact value.
    """

    error: float
    at: float
    inputs: int
    relative: bool

    @property
    def bits(self) -> float:
        """log2 of the error: -14.2 means 2**-14.2."""
        return math.log2(self.error)


def exp2_worst_error() -> WorstError:
    """exp2 unit over every score difference up to the largest whose exponential is not zero, and beyond it."""
    differences = np.arange((EXPONENTIAL.width + 2) << SCORE.frac, dtype=np.int64)
    exact = np.exp2(-differences / 2.0**SCORE.frac)
    error = np.abs(EXPONENTIAL.to_float(exp2(differences)) - exact)
    worst = int(error.argmax())
    return WorstError(float(error[worst]), worst * SCORE.lsb, differences.size, relative=False)


def _mantissa_worst_error(
    unit: Callable[[NDArray[np.uint64]], tuple[NDArray[np.int64], NDArray[np.int64]]],
    power: float,
    octaves: int,
    table: PiecewiseLinear,
) -> WorstError:
    """Both ends of every bucket of inputs that share their leading bits: between them the exact value is
    monotone and the unit's is constant, so no input inside is worse.
    """
    bits = (len(table.base) // octaves - 1).bit_length() + table.step_bits
    guard = 20
    starts = np.concatenate(
        [np.arange(1 << bits, 2 << bits, dtype=np.uint64) << np.uint64(guard + o) for o in range(octaves)]
    )
    widths = np.repeat(np.uint64(1) << np.arange(guard, guard + octaves, dtype=np.uint64), 1 << bits)
    inputs = np.concatenate([starts, starts + widths - np.uint64(1)])
    mantissa, exponent = unit(inputs)
    exact = inputs.astype(np.float64) ** power
    error = np.abs(np.ldexp(mantissa.astype(np.float64), -MANTISSA_FRAC - exponent) / exact - 1)
    worst = int(error.argmax())
    return WorstError(float(error[worst]), float(inputs[worst]), inputs.size, relative=True)


def reciprocal_worst_error() -> WorstError:
    """Reciprocal unit over every leading-bit pattern that its table tells apart."""
    return _mantissa_worst_error(reciprocal, -1.0, 1, RECIPROCAL)


def rsqrt_worst_error() -> WorstError:
    """Reciprocal-square-root unit over every leading-bit pattern that its table tells apart."""
    return _mantissa_worst_error(rsqrt, -0.5, 2, RSQRT)


def activation_worst_error(activation: Activation) -> WorstError:
    """Activation function over every input of its format."""
    worst = WorstError(0.0, 0.0, 0, relative=False)
    chunk = 1 << 20
    for start in range(GELU_INPUT.min, GELU_INPUT.max + 1, chunk):
        x = np.arange(start, min(start + chunk, GELU_INPUT.max + 1), dtype=np.int64)
        real = GELU_INPUT.to_float(x)
        error = np.abs(
            np.ldexp(activate(activation, x).astype(np.float64), -GELU_FRAC) - activation.function(real)
        )
        at = int(error.argmax())
        if error[at] > worst.error:
            worst = WorstError(float(error[at]), float(real[at]), 0, relative=False)
    return WorstError(worst.error, worst.at, 1 << GELU_INPUT.width, relative=False)
