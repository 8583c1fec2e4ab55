"""Proof that no sum of a Design can leave its accumulator, whatever the image."""

from __future__ import annotations

import numpy as np

from common.errors import OverflowRiskError
from pysim.datapath import ACCUMULATOR_LIMIT, EXPONENTIAL, MAX_SHIFT, MULTIPLIER_WIDTH, NORM_WEIGHT_WIDTH
from pysim.files import Tensors
from pysim.program import Attention, Gate, Linear, Norm, Program, products

FLOAT64_INTEGER_BITS = 53
"""The simulator multiplies integers in float64, exactly while sums stay under this many bits."""


def check_accumulators(operations: Program, tensors: Tensors) -> None:
    """Refuse parameters with which any sum could leave its accumulator.

    Args:
        operations: of an arithmetic whose sums are exact.
        tensors: their integers.

    Raises:
        OverflowRiskError: naming the layer, the bits it may need and the bits there are.
    """
    for op in operations:
        if isinstance(op, Attention):
            _check_attention(op, tensors)
        elif isinstance(op, Norm):
            _check_norm(op, tensors)
    for product in products(operations):
        _check_product(product, tensors)


def _check_attention(op: Attention, tensors: Tensors) -> None:
    assert op.score_shift is not None
    shift, least = int(tensors[op.score_shift.name][0]), -op.score_lift
    if not least <= shift <= MAX_SHIFT + least:
        raise OverflowRiskError(f"{op.score_shift.name}: {shift}, expected {least} to {MAX_SHIFT + least}")
    bits = (op.tokens << EXPONENTIAL.frac).bit_length() + op.value.format.width
    if bits > FLOAT64_INTEGER_BITS:
        raise OverflowRiskError(
            f"attention over {op.tokens} tokens may need {bits} bits, there are {FLOAT64_INTEGER_BITS}",
            hint="use smaller images or a narrower attention_width",
        )


def _check_norm(op: Norm, tensors: Tensors) -> None:
    gamma = int(np.abs(tensors[op.gamma.name]).max(initial=0))
    if gamma >= 1 << (NORM_WEIGHT_WIDTH - 1):
        raise OverflowRiskError(f"{op.gamma.name}: {gamma} needs more than {NORM_WEIGHT_WIDTH} bits")


def _check_product(op: Linear | Gate, tensors: Tensors) -> None:
    weight, bias = tensors[op.weight.name], tensors[op.bias.name]
    sums = np.abs(weight.astype(np.int64)).sum(axis=-1).astype(object) * -op.input.format.min
    # In Python integers, as -2**63 has no absolute value in int64.
    bits = int((sums + np.abs(bias.astype(object))).max()).bit_length()
    if bits + 1 > ACCUMULATOR_LIMIT:
        raise OverflowRiskError(
            f"{op.name}: a dot product of {weight.shape[-1]} terms may need {bits + 1} bits, "
            f"the accumulator has {ACCUMULATOR_LIMIT}",
            hint="choose narrower operands, or check the layer for outlying biases",
        )
    assert op.scaling is not None
    multiplier_bits = 0 if op.scaling.multiplier is None else MULTIPLIER_WIDTH
    if bits + multiplier_bits > MAX_SHIFT:
        raise OverflowRiskError(
            f"{op.name}: requantising may need {bits + multiplier_bits} bits, there are {MAX_SHIFT}"
        )
    shift = int(tensors[op.scaling.shift.name].max())
    if shift > MAX_SHIFT:
        raise OverflowRiskError(f"{op.scaling.shift.name}: {shift}, expected at most {MAX_SHIFT}")
