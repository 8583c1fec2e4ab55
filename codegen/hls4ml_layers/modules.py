"""The layers as torch modules: what hls4ml converts, and the simulator's integers that its C++ must return.

Each has the formats of its inputs and of its result. On floats, `forward` gives what the hardware gives; `integers`
gives the integers themselves. Both run the simulator's kernels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError, QuantizationWarning
from pysim.datapath import (
    ACCUMULATOR_LIMIT,
    GELU_INPUT,
    MULTIPLIER_WIDTH,
    NORM_WEIGHT_WIDTH,
    NORMALIZED,
    PROBABILITY,
    SCORE,
)
from pysim.design import Design
from pysim.extras import missing
from pysim.formats import Format, Overflow, Quantization
from pysim.kernels.gelu import GELU_FRAC, gelu
from pysim.kernels.layernorm import MIN_EPSILON, largest_variance, normalize
from pysim.kernels.linear import Requantise
from pysim.kernels.softmax import softmax
from pysim.program import Experts, Gate, Index, Norm, Scaling, blocks, of_type
from pysim.scaling import multiplier_and_shift, power_of_two, round_half_up
from pysim.simulator import task_number

try:
    import torch
    from hls4ml.utils.torch import HLS4MLModule
    from torch import Tensor
except ModuleNotFoundError as error:
    raise missing(error.name, "hls4ml's layers", extra="hls4ml") from None

IntArray = NDArray[np.int64]

LOG2_E = math.log2(math.e)
MOST_GAMMA_FRAC = 24
"""Fraction bits of gamma at most, however small it is."""


def rounding(fmt: Format) -> Format:
    """The format with one rounding and saturation, as every value of these layers has them."""
    return fmt.with_modes(Quantization.AP_RND, Overflow.AP_SAT)


class IntegerModule(HLS4MLModule):
    """A layer on integers.

    Attributes:
        inputs: formats of its inputs.
        result: format of its result.
    """

    def __init__(self, inputs: tuple[Format, ...], result: Format) -> None:
        super().__init__()
        self.inputs = tuple(rounding(fmt) for fmt in inputs)
        self.result = rounding(result)

    def integers(self, *inputs: IntArray) -> IntArray:
        """Result (rows, channels) of inputs (rows, channels), all of them integers in their formats."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        """The layer on real numbers, which are brought into the input formats first."""
        whole = [
            fmt.quantize(given.detach().double().numpy()).reshape(-1, given.shape[-1])
            for fmt, given in zip(self.inputs, inputs, strict=True)
        ]
        real = self.result.to_float(self.integers(*whole))
        return torch.from_numpy(real).reshape(*inputs[0].shape).to(inputs[0].dtype)


class TableGelu(IntegerModule):
    """GELU as ReLU minus a table."""

    def __init__(self, source: Format, result: Format) -> None:
        super().__init__((source,), result)

    def integers(self, *inputs: IntArray) -> IntArray:
        """See `IntegerModule`."""
        x = rounding(GELU_INPUT).requantise(inputs[0], self.inputs[0].frac)
        return self.result.requantise(gelu(x), GELU_FRAC)


class SinglePassSoftmax(IntegerModule):
    """Softmax over the last axis in one pass over its terms.

    Attributes:
        multiplier: with `shift`, the factor from the input's units to scores in units of log2.
        shift: see `multiplier`.
    """

    def __init__(self, source: Format, result: Format = PROBABILITY, *, scale: float = LOG2_E) -> None:
        """Set the formats.

        Args:
            source: of the scores.
            result: of the probabilities.
            scale: factor on the scores; log2(e) makes the softmax one of natural exponentials, as usual, and 1 one
                of powers of two. The scale of attention can go in here too.
        """
        super().__init__((source,), result)
        if not 0 < scale < math.inf:
            raise InputError(f"softmax: scale = {scale}, expected a positive number")
        widest, most = max(-source.min, source.max) * source.lsb * scale, SCORE.max * SCORE.lsb
        if widest > most:
            warnings.warn(
                f"softmax: scores of {source} reach {widest:.4g} in units of log2, and count as {most:.4g} from there "
                "on: those that are larger come out equal",
                QuantizationWarning,
                stacklevel=2,
            )
        factor = np.array([scale * 2.0 ** (SCORE.frac - source.frac)])
        multiplier, shift = multiplier_and_shift(factor, "softmax")
        self.multiplier, self.shift = int(multiplier[0]), int(shift[0])

    def integers(self, *inputs: IntArray) -> IntArray:
        """See `IntegerModule`."""
        scale = Requantise(np.array([self.multiplier]), np.array([self.shift]))
        scores = scale(np.ascontiguousarray(inputs[0]), SCORE)
        return self.result.requantise(softmax(scores, np.zeros(len(scores), np.int64)), PROBABILITY.frac)


class ExactLayerNorm(IntegerModule):
    """LayerNorm over the last axis, from exact sums.

    Attributes:
        gamma: (channels,) integers of `NORM_WEIGHT_WIDTH` bits with `gamma_frac` fraction bits.
        beta: (channels,) integers in the units of a normalised value times gamma.
        epsilon: in units of the squared sums.
    """

    def __init__(
        self, source: Format, result: Format, gamma: IntArray, beta: IntArray, gamma_frac: int, epsilon: int
    ) -> None:
        super().__init__((source,), result)
        channels = len(gamma)
        if largest_variance(source.width, channels) + epsilon >= 1 << 64:
            raise InputError(
                f"LayerNorm over {channels} channels of {source}: its sums leave 64 bits",
                hint="use fewer bits",
            )
        self.gamma, self.beta = np.asarray(gamma, np.int64), np.asarray(beta, np.int64)
        self.gamma_frac, self.epsilon = gamma_frac, max(epsilon, MIN_EPSILON)

    @classmethod
    def from_torch(cls, norm: Any, source: Format, result: Format) -> ExactLayerNorm:
        """The integer twin of a `torch.nn.LayerNorm` over the last axis, with its parameters rounded to nearest."""
        gamma, beta = (parameter.detach().double().numpy() for parameter in (norm.weight, norm.bias))
        frac = min(power_of_two(float(np.abs(gamma).max()), NORM_WEIGHT_WIDTH), MOST_GAMMA_FRAC)
        return cls(
            source,
            result,
            round_half_up(np.ldexp(gamma, frac)).astype(np.int64),
            round_half_up(np.ldexp(beta, NORMALIZED.frac + frac)).astype(np.int64),
            frac,
            round(norm.eps * len(gamma) ** 2 * 4.0**source.frac),
        )

    @classmethod
    def from_design(cls, design: Design, layer: int, which: int, *, gate: bool = False) -> ExactLayerNorm:
        """Norm 1 or 2 of a Design's layer, on raw integers; `gate` gives the router's copy of norm 2."""
        norm = of_type(blocks(design.program)[layer], Norm)[which - 1]
        shift, result = (norm.gate_shift, norm.gate_output) if gate else (norm.shift, norm.output)
        assert result is not None
        gamma, beta = (design.integers(tensor) for tensor in (norm.gamma, norm.beta))
        source, frac = Format(design.residual.width, 0), design.scalar(shift) - NORMALIZED.frac
        return cls(source, result.format, gamma, beta, frac, design.scalar(norm.epsilon))

    def integers(self, *inputs: IntArray) -> IntArray:
        """See `IntegerModule`."""
        wide = normalize(inputs[0], self.epsilon) * self.gamma + self.beta
        return self.result.requantise(wide, NORMALIZED.frac + self.gamma_frac)


class MixtureOfExperts(IntegerModule):
    """Gate and experts of a Design's layer, on raw integers: the sum that is added to the residual stream.

    Its inputs are the operands of the experts and those of the gate, which are two copies of one LayerNorm.
    """

    def __init__(self, design: Design, layer: int, task: str | int = 0) -> None:
        """Take the integers of a Design.

        Args:
            design: of one of the presets that round once.
            layer: number of a layer with experts.
            task: task whose gate is used.

        Raises:
            InputError: another arithmetic or activation function, a layer without experts, an unknown task.
        """
        precision, moe = design.precision, design.spec.moe
        if not design.arithmetic.exact:
            raise InputError(
                f"precision {precision.name!r} has no layer for hls4ml", hint="use w8a8 or w16a16"
            )
        if design.spec.activation != "gelu":
            raise InputError(
                f"activation {design.spec.activation}: no layer for hls4ml, whose experts go through GELU",
                hint="use the accelerator itself, or train the network with gelu",
            )
        if moe is None or layer not in design.spec.moe_layers:
            raise InputError(
                f"layer {layer} has no experts", hint=f"layers with experts: {sorted(design.spec.moe_layers)}"
            )
        self.moe, self.task = moe, task_number(design.spec, task)
        self.design, block = design, blocks(design.program)[layer]
        (self.gate,), (self.experts,) = of_type(block, Gate), of_type(block, Experts)
        operands = (self.experts.fc1.input.format, self.gate.input.format)
        super().__init__(operands, Format(design.residual.width, 0))

    def parameters_by_name(self) -> Mapping[str, tuple[IntArray, int, bool]]:
        """Every integer array with its width and whether it is signed."""
        gate, fc1, fc2 = self.gate, self.experts.fc1, self.experts.fc2
        index, bias_index = gate.weight_index(self.task), gate.bias_index(self.task)
        assert fc1.activation is not None
        found: dict[str, tuple[IntArray, int, bool]] = {}
        for part, op, at, bias_at in (
            ("fc1", fc1, (), ()),
            ("fc2", fc2, (), ()),
            ("gate", gate, index, bias_index),
        ):
            weight, bias = self.design.integers(op.weight, at), self.design.integers(op.bias, bias_at)
            found[f"{part}_weight"] = (weight.ravel(), op.weight_width, True)
            found[f"{part}_bias"] = (bias.ravel(), ACCUMULATOR_LIMIT, True)
            found |= self._scaling(part, op.scaling, at)
        found |= self._scaling("hidden", fc1.activation.scaling, ())
        zero = self.design.integers(fc1.activation.zero)
        return found | {"hidden_zero": (zero, self.design.precision.activation_width + 1, True)}

    def _scaling(
        self, part: str, scaling: Scaling | None, index: Index
    ) -> Iterator[tuple[str, tuple[IntArray, int, bool]]]:
        requantise = self.design.requantise(scaling, index)
        multiplier = np.broadcast_to(requantise.multiplier, requantise.shift.shape)
        # One bit more than they have, as they are unsigned.
        yield f"{part}_multiplier", (multiplier.ravel(), MULTIPLIER_WIDTH + 1, False)
        yield f"{part}_shift", (requantise.shift.ravel(), 8, False)

    def integers(self, *inputs: IntArray) -> IntArray:
        """See `IntegerModule`."""
        from pysim.engines import engines_of

        tokens, gate_tokens = inputs
        engines = engines_of(self.design)
        routing = engines.route(self.gate, engines.logits(self.gate, self.task, gate_tokens))
        return engines.experts(self.experts, routing, tokens, np.zeros_like(tokens))[0]
