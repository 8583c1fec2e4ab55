"""Parameters of the original's arithmetic: its fixed types, floored as its own loader does.

A network whose parameters do not fit the original's types gets more integer bits, and the report says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import OverflowRiskError
from pysim.arithmetic import ICCAD23, Tensor
from pysim.design import DECODE, Design
from pysim.files import Tensors
from pysim.formats import Format, Overflow, Quantization
from pysim.kernels.iccad23 import FEATURE
from pysim.model import Model
from pysim.precision import Precision
from pysim.program import program, tensors, values
from pysim.reports import TensorReport, make_report
from pysim.statistic import Statistic

FloatArray = NDArray[np.float64]

ORIGINAL_FRAC = {"patch_weight": 16, "linear_weight": 14, "attention_bias": 9, "linear_bias": 11, "norm": 11}
"""Fraction bits of the original's 16-bit parameter types: ap_fixed<16, 0>, <16, 2>, <16, 7>, <16, 5>, <16, 5>."""

PARAMETER_WIDTH = 16


def quantize(
    model: Model,
    precision: Precision,
    attention_rows: int,
    statistics: dict[str, Statistic],
    progress: Callable[[int], Any],
) -> Design:
    """Floor every parameter to its type; activations have one fixed type, calibration only reports on them."""
    operations = program(model.spec, precision)
    parameters = [tensor for tensor in tensors(operations).values() if tensor.role is not None]
    kinds = [_kind(tensor) for tensor in parameters]
    reals = [model.value(tensor) for tensor in parameters]
    largest = dict.fromkeys(ORIGINAL_FRAC, 0.0)
    for kind, value in zip(kinds, reals, strict=True):
        if kind in largest:
            largest[kind] = max(largest[kind], float(np.abs(value).max(initial=0.0)))
    feature = FEATURE.with_modes(Quantization.AP_TRN, Overflow.AP_SAT)
    formats = {kind: _format(kind, most) for kind, most in largest.items()}

    found: Tensors = {}
    reports: list[TensorReport] = []
    for tensor, kind, value in zip(parameters, kinds, reals, strict=True):
        fmt = formats.get(kind, feature)
        integers = fmt.quantize(value)
        error = fmt.to_float(integers) - value
        clipped = np.abs(error) > 1.01 * fmt.lsb
        reports.append(make_report(tensor.name, "weight", value, error, clipped, fmt.lsb, fmt.width))
        found[tensor.name] = integers.astype(tensor.dtype)
        if tensor.frac is not None:
            found[tensor.frac.name] = np.full(tensor.frac.shape, fmt.frac, tensor.frac.dtype)
    for name, statistic in statistics.items():
        samples = statistic.samples
        error = feature.to_float(feature.quantize(samples)) - samples
        clipped = np.abs(error) > 1.01 * FEATURE.lsb
        reports.append(make_report(name, "activation", samples, error, clipped, FEATURE.lsb, FEATURE.width))
    for each in values(operations).values():
        if each.scales:
            found[f"{DECODE}{each.name}.scale"] = np.full(each.scales, FEATURE.lsb)
            found[f"{DECODE}{each.name}.offset"] = np.zeros(each.scales)
    progress(model.spec.depth)
    return Design(model.spec, precision, attention_rows, FEATURE.frac, found, tuple(reports))


def _kind(tensor: Tensor) -> str:
    """The original's type of a parameter; features have none of their own."""
    return "" if tensor.role is None else ICCAD23.PARAMETERS.get(tensor.role, "")


def _format(kind: str, largest: float) -> Format:
    """The original's type, or the nearest with enough integer bits for the network at hand."""
    needed = math.floor(math.log2(max(largest, 2.0**-30))) + 2
    if needed > PARAMETER_WIDTH:
        raise OverflowRiskError(
            f"{kind.replace('_', ' ')}: {largest:.3g} needs more than the {PARAMETER_WIDTH} bits of the original",
            hint="check the checkpoint, or choose the precision w16a16",
        )
    return Format(
        PARAMETER_WIDTH,
        min(ORIGINAL_FRAC[kind], PARAMETER_WIDTH - needed),
        True,
        Quantization.AP_TRN,
        Overflow.AP_SAT,
    )
