"""Designs with random integers in place of quantised weights: the same on every machine, and made at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysim.arithmetic import ICCAD23, Kind, Role, Tensor, arithmetic_of
from pysim.datapath import GELU_INPUT, MULTIPLIER_WIDTH, NORMALIZED, SCORE
from pysim.design import DECODE, Design
from pysim.files import Tensors
from pysim.formats import Format
from pysim.iccad23_quantizer import ORIGINAL_FRAC
from pysim.kernels.gelu import GELU_FRAC
from pysim.kernels.iccad23 import FEATURE
from pysim.precision import Precision
from pysim.program import (
    Attention,
    Embed,
    Gate,
    Linear,
    Norm,
    Program,
    Scaling,
    linears,
    products,
    program,
    values,
)
from pysim.spec import ModelSpec

GAMMA_FRAC = 14


def random_design(spec: ModelSpec, precision: Precision, attention_rows: int = 16, seed: int = 0) -> Design:
    """A Design of that shape in which values fill a good part of their ranges, and seldom leave them."""
    operations = program(spec, precision)
    maker = _Requantising if arithmetic_of(precision).exact else _Truncating
    tensors = maker(operations, np.random.default_rng(seed)).make()
    for value in values(operations).values():
        if value.scales:
            tensors[f"{DECODE}{value.name}.scale"] = np.ones(value.scales)
            tensors[f"{DECODE}{value.name}.offset"] = np.zeros(value.scales)
    return Design(spec, precision, attention_rows, FEATURE.frac, tensors)


@dataclass
class _Requantising:
    """Uniform weights, and the shifts that bring their sums to an eighth of the range of the results."""

    operations: Program
    generator: np.random.Generator
    tensors: Tensors = field(default_factory=dict)

    def make(self) -> Tensors:
        for op in products(self.operations):
            self._product(op)
        for each in self.operations:
            if isinstance(each, Embed):
                self._draw(each.position, _spread(Kind.STREAM, each.output.format))
            elif isinstance(each, Norm):
                self._norm(each)
            elif isinstance(each, Attention):
                width = each.query.format.width
                product = 2 * (width - 3) + math.log2(each.head_dim) / 2
                self._fill(each.score_shift, max(round(product - SCORE.frac), -each.score_lift))
                self._fill(each.attention_shift, each.value.format.width - each.output.format.width)
        for linear in linears(self.operations):
            if linear.activation is not None:
                self._scaling(linear.activation.scaling, GELU_FRAC - 1, linear.output.format.width - 3)
                self._draw(linear.activation.zero, 2)
        return self.tensors

    def _product(self, op: Linear | Gate) -> None:
        terms = op.weight.shape[-1]
        sums = math.log2(terms / 3) / 2 + op.input.format.width - 3 + op.weight_width - 1
        self._draw(op.weight, op.weight_width - 1)
        self._draw(op.bias, round(sums))
        if isinstance(op, Gate):
            target = SCORE.frac
        elif op.activation is not None:
            target = GELU_INPUT.frac
        else:
            target = _spread(op.output.kind, op.output.format)
        self._scaling(op.scaling, sums, target)

    def _norm(self, op: Norm) -> None:
        gamma = self.generator.integers(1 << GAMMA_FRAC, 3 << (GAMMA_FRAC - 1), op.gamma.shape)
        self.tensors[op.gamma.name] = gamma.astype(op.gamma.dtype)
        full = NORMALIZED.frac + GAMMA_FRAC
        self._draw(op.beta, full)
        self._fill(op.epsilon, 1 << 12)
        self._fill(op.shift, full - (op.output.format.width - 3))
        if op.gate_output is not None:
            self._fill(op.gate_shift, full - (op.gate_output.format.width - 3))

    def _scaling(self, scaling: Scaling | None, sums: float, target: int) -> None:
        assert scaling is not None
        spare = MULTIPLIER_WIDTH - 1 if scaling.multiplier is not None else 0
        self._fill(scaling.shift, max(round(sums - target), 0) + spare)
        if scaling.multiplier is not None:
            multiplier = self.generator.integers(1 << spare, 2 << spare, scaling.multiplier.shape)
            self.tensors[scaling.multiplier.name] = multiplier.astype(scaling.multiplier.dtype)

    def _draw(self, tensor: Tensor | None, bits: int) -> None:
        """Uniform integers of `bits` bits and a sign."""
        assert tensor is not None
        drawn = self.generator.integers(-(1 << bits), 1 << bits, tensor.shape)
        self.tensors[tensor.name] = drawn.astype(tensor.dtype)

    def _fill(self, tensor: Tensor | None, value: int) -> None:
        assert tensor is not None
        self.tensors[tensor.name] = np.full(tensor.shape, value, tensor.dtype)


def _spread(kind: Kind, fmt: Format) -> int:
    """Bits of a value of ordinary size; the residual stream grows with every layer."""
    return fmt.width - (8 if kind is Kind.STREAM else 3)


@dataclass
class _Truncating:
    """Parameters of the original's types, of the size that a trained network's have."""

    operations: Program
    generator: np.random.Generator

    def make(self) -> Tensors:
        found: Tensors = {}
        for tensor in (tensor for op in self.operations for tensor in op.tensors):
            frac = FEATURE.frac
            if tensor.frac is not None and tensor.role is not None:
                frac = ORIGINAL_FRAC[ICCAD23.PARAMETERS[tensor.role]]
                found[tensor.frac.name] = np.full(tensor.frac.shape, frac, tensor.frac.dtype)
            found[tensor.name] = self._parameter(tensor, 1 << frac).astype(tensor.dtype)
        return found

    def _parameter(self, tensor: Tensor, one: int) -> NDArray[Any]:
        role = tensor.role
        assert role is not None
        if role is Role.GAMMA:
            return self.generator.integers(3 * one // 4, 5 * one // 4, tensor.shape)
        if role.is_bias or role is Role.POSITION:
            reach = one // 4
        else:
            reach = min(round(one * (3 / tensor.shape[-1]) ** 0.5), (1 << 15) - 1)
        return self.generator.integers(-reach, reach, tensor.shape)
