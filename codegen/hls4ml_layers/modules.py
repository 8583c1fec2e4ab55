"""The layers as torch modules: what hls4ml converts, and the simulator's integers that its C++ must return.

Each has the formats of its inputs and of its result. On floats, `forward` gives what the hardware gives; `integers`
gives the integers themselves. Both run the simulator's kernels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysim.datapath import GELU_INPUT, NORM_WEIGHT_WIDTH, NORMALIZED, PROBABILITY, SCORE
from pysim.design import Design
from pysim.errors import InputError
from pysim.extras import missing
from pysim.formats import Format, Overflow, Quantization
from pysim.kernels.gelu import GELU_FRAC, gelu
from pysim.kernels.layernorm import MIN_EPSILON, largest_variance, normalize
from pysim.kernels.linear import Requantise
from pysim.kernels.softmax import softmax
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
        """Of a `torch.nn.LayerNorm` over the last axis, with its parameters rounded to nearest."""
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
        name = f"blocks.{layer}.norm{which}"
        shift = design.scalar(f"{name}.{'gate_shift' if gate else 'shift'}")
        result = design.precision.gate_input if gate else design.precision.activation
        gamma, beta = (design.tensors[f"{name}.{part}"] for part in ("gamma", "beta"))
        source = Format(design.residual.width, 0)
        return cls(source, result, gamma, beta, shift - NORMALIZED.frac, design.scalar("epsilon"))

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
            InputError: another arithmetic, a layer without experts, an unknown task.
        """
        precision, moe = design.precision, design.spec.moe
        if precision.arithmetic != "requantise":
            raise InputError(
                f"precision {precision.name!r} has no layer for hls4ml", hint="use w8a8 or w16a16"
            )
        if moe is None or layer not in design.spec.moe_layers:
            raise InputError(
                f"layer {layer} has no experts", hint=f"layers with experts: {sorted(design.spec.moe_layers)}"
            )
        super().__init__((precision.activation, precision.gate_input), Format(design.residual.width, 0))
        self.design, self.layer, self.moe = design, layer, moe
        self.task = task_number(design.spec, task)
        self.gate = 0 if len(design.tensors[f"blocks.{layer}.gate.weight"]) == 1 else self.task

    def parameters_by_name(self) -> Mapping[str, tuple[IntArray, int, bool]]:
        """Every integer array with its width and whether it is signed."""
        tensors, name, precision = self.design.tensors, f"blocks.{self.layer}", self.design.precision
        widths = {"weight": precision.weight_width, "bias": 48, "multiplier": 17, "shift": 8}
        found: dict[str, tuple[IntArray, int, bool]] = {}
        for part, key, index in (
            ("fc1", "fc1", ()),
            ("fc2", "fc2", ()),
            ("hidden", "hidden", ()),
            ("gate", "gate", (self.gate,)),
        ):
            shift = tensors[f"{name}.{key}.shift"][index]
            kinds = {
                "multiplier": tensors.get(f"{name}.{key}.multiplier", np.ones(1, np.int64)),
                "shift": shift,
            }
            if f"{name}.{key}.multiplier" in tensors:
                kinds["multiplier"] = kinds["multiplier"][index]
            if part != "hidden":
                kinds["weight"] = tensors[f"{name}.{key}.weight"][index]
                kinds["bias"] = tensors[f"{name}.{key}.bias"][(self.task,) if part == "gate" else index]
            for kind, values in kinds.items():
                whole = values if kind in ("weight", "bias") else np.broadcast_to(values, shift.shape)
                width = precision.gate_width if (part, kind) == ("gate", "weight") else widths[kind]
                found[f"{part}_{kind}"] = (whole.astype(np.int64).ravel(), width, kind in ("weight", "bias"))
        zero = tensors[f"{name}.hidden.zero"].astype(np.int64)
        return found | {"hidden_zero": (zero, precision.activation_width + 1, True)}

    def integers(self, *inputs: IntArray) -> IntArray:
        """See `IntegerModule`."""
        from pysim.engines import RequantiseEngines

        tokens, gate_tokens = inputs
        engines = RequantiseEngines(self.design)
        routing = engines.route(engines.logits(self.layer, self.task, gate_tokens))
        return engines.experts(self.layer, routing, tokens, np.zeros_like(tokens))[0]
