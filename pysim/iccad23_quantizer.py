"""Parameters of the original's arithmetic: its fixed types, floored as its own loader does.

A network whose parameters do not fit the original's types gets more integer bits, and the report says so.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pysim.calibrate import Statistic
from pysim.design import DECODE, ICCAD23_FRACS, Design, Parallelism, decode_tensors, design_tensors
from pysim.errors import OverflowRiskError
from pysim.files import Tensors
from pysim.formats import Format, Overflow, Quantization
from pysim.kernels.iccad23 import FEATURE
from pysim.model import Model
from pysim.precision import Precision
from pysim.reports import TensorReport, make_report

FloatArray = NDArray[np.float64]

ORIGINAL_FRAC = dict(zip(ICCAD23_FRACS, (16, 14, 9, 11, 11), strict=True))
"""Fraction bits of the original's 16-bit parameter types: ap_fixed<16, 0>, <16, 2>, <16, 7>, <16, 5>, <16, 5>."""

PARAMETER_WIDTH = 16


def quantize(
    model: Model, precision: Precision, parallelism: Parallelism, statistics: dict[str, Statistic]
) -> Design:
    """Floor every parameter to its type; activations have one fixed type, calibration only reports on them."""
    spec = model.spec
    sources = dict(_sources(model))
    largest = {kind: 0.0 for kind in ICCAD23_FRACS}
    for kind, value in sources.values():
        if kind in largest:
            largest[kind] = max(largest[kind], float(np.abs(value).max(initial=0.0)))
    formats = {kind: _format(kind, largest[kind]) for kind in ICCAD23_FRACS}
    formats["feature"] = FEATURE.with_modes(Quantization.AP_TRN, Overflow.AP_SAT)

    tensors: Tensors = {f"frac.{kind}": np.array([formats[kind].frac], np.int32) for kind in ICCAD23_FRACS}
    reports: list[TensorReport] = []
    expected = design_tensors(spec, precision)
    for name, (kind, value) in sources.items():
        fmt = formats[kind]
        integers = fmt.quantize(value)
        error = fmt.to_float(integers) - value
        clipped = np.abs(error) > 1.01 * fmt.lsb
        reports.append(make_report(name, "weight", value, error, clipped, fmt.lsb, fmt.width))
        tensors[name] = integers.astype(expected[name].dtype)
    for name, statistic in statistics.items():
        samples = statistic.samples
        error = formats["feature"].to_float(formats["feature"].quantize(samples)) - samples
        clipped = np.abs(error) > 1.01 * FEATURE.lsb
        reports.append(make_report(name, "activation", samples, error, clipped, FEATURE.lsb, FEATURE.width))
    for name, tensor in decode_tensors(spec).items():
        unit = FEATURE.lsb if name.endswith(".scale") else 0.0
        tensors[name] = np.full(tensor.shape, unit)
    assert all(name.startswith(DECODE) or name in expected for name in tensors)
    return Design(spec, precision, parallelism, FEATURE.frac, tensors, tuple(reports))


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


def _sources(model: Model) -> list[tuple[str, tuple[str, FloatArray]]]:
    """Every tensor of the Design: its name, the kind of its type, and its real values."""
    spec = model.spec
    entries: list[tuple[str, tuple[str, FloatArray]]] = [
        (
            "patch.weight",
            ("patch_weight", model["patch_embed.weight"].reshape(spec.dim, spec.patch_values)),
        ),
        ("patch.bias", ("linear_bias", model["patch_embed.bias"])),
        ("position", ("feature", model["pos_embed"])),
    ]
    for layer in range(spec.depth):
        block = f"blocks.{layer}"
        for norm in ("norm1", "norm2"):
            entries.append((f"{block}.{norm}.gamma", ("norm", model[f"{block}.{norm}.weight"])))
            entries.append((f"{block}.{norm}.beta", ("norm", model[f"{block}.{norm}.bias"])))
        entries += [
            (f"{block}.qkv.weight", ("linear_weight", model[f"{block}.attn.qkv.weight"])),
            (f"{block}.qkv.bias", ("attention_bias", model.qkv_bias(layer))),
            (f"{block}.proj.weight", ("linear_weight", model[f"{block}.attn.proj.weight"])),
            (f"{block}.proj.bias", ("attention_bias", model[f"{block}.attn.proj.bias"])),
        ]
        source = f"{block}.moe" if layer in spec.moe_layers else f"{block}.mlp"
        for part in ("fc1", "fc2"):
            entries.append((f"{block}.{part}.weight", ("linear_weight", model[f"{source}.{part}.weight"])))
            entries.append((f"{block}.{part}.bias", ("linear_bias", model[f"{source}.{part}.bias"])))
        if layer in spec.moe_layers:
            biases = [model.gate(layer, task)[1] for task in range(len(spec.tasks))]
            entries.append((f"{block}.gate.weight", ("linear_weight", model[f"{block}.moe.gate.weight"])))
            entries.append((f"{block}.gate.bias", ("feature", np.stack(biases))))
    return entries
