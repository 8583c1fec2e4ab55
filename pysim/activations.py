"""Activation functions of the MLPs, a row each: all that tells one from another, from the float function to hardware.

Each is x * s(x) with s(-x) = 1 - s(x), so that relu(x) - f(x) is an even function: one table of it serves both signs
(Edge-MoE, section IV-C). The integers are those of `pysim.kernels.gelu.activate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysim.tables import GELU_DELTA, GELU_TANH_DELTA, QUICK_GELU_DELTA, PiecewiseLinear

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes:
        name: in a `model.toml`.
        title: for people.
        function: the function itself, in float64.
        delta: relu(x) - f(x) as a function of |x|; None where f is relu, which needs no table.
        unit: function unit that computes it: `UNIT_unit` in C++, `edgemoe_UNIT_unit` in SystemVerilog.
    """

    name: str
    title: str
    function: Callable[[FloatArray], FloatArray]
    delta: PiecewiseLinear | None
    unit: str = "gelu"


def _gelu(x: FloatArray) -> FloatArray:
    from scipy.special import erfc  # slow to import, and not needed to name a function

    return np.asarray(0.5 * x * erfc(-x / math.sqrt(2)))


def _gelu_tanh(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _quick_gelu(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * x * (1 + np.tanh(0.851 * x)))


def _relu(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0.0)


ACTIVATIONS: Mapping[str, Activation] = {
    each.name: each
    for each in (
        Activation("gelu", "GELU", _gelu, GELU_DELTA),
        Activation("gelu_tanh", "GELU by tanh", _gelu_tanh, GELU_TANH_DELTA),
        Activation("quick_gelu", "GELU by a sigmoid", _quick_gelu, QUICK_GELU_DELTA),
        Activation("relu", "ReLU", _relu, None, unit="relu"),
    )
}
"""Every activation function by its name."""
