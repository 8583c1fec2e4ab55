"""From a float Model to an integer Design: scales chosen on calibration images, parameters rounded to nearest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysim import iccad23_quantizer
from pysim.balance import Balance, choose
from pysim.calibrate import Statistic, calibrate, calibration_runs, merge
from pysim.datapath import (
    GELU_INPUT,
    MANTISSA_FRAC,
    MAX_SHIFT,
    NORM_WEIGHT_WIDTH,
    NORMALIZED,
    PIXEL_FRAC,
    PIXEL_OFFSET,
    SCORE,
)
from pysim.design import DECODE, Design, Parallelism, default_parallelism, design_tensors
from pysim.doubts import doubts
from pysim.errors import OverflowRiskError
from pysim.files import Tensors
from pysim.formats import Format
from pysim.kernels.gelu import GELU_FRAC
from pysim.kernels.layernorm import MIN_EPSILON, largest_variance
from pysim.kernels.linear import accumulator_width
from pysim.model import Model
from pysim.precision import Precision
from pysim.reports import TensorReport, make_report
from pysim.rounding import round_weights
from pysim.scaling import (
    least_error_range,
    least_error_scale,
    multiplier_and_shift,
    power_of_two,
    pure_shift,
    round_half_up,
    weight_scales,
)

FloatArray = NDArray[np.float64]

RESIDUAL_HEADROOM = 2.0
"""The residual stream holds this many times the largest value seen in calibration."""

_MAX_FRAC = 24
"""Fraction bits of ordinary values, and of tensors that calibration saw empty, which have nothing to resolve."""
_FINEST_FRAC = (MAX_SHIFT + SCORE.frac) // 2
"""Fraction bits of small values: queries and keys of that many make scores by the largest shift there is."""
_NOTHING = 2.0**-40
"""Values up to here are rounding noise of the float network."""
_FEW_ROWS = 64
"""An expert that calibration reached less often than this takes its scale from the whole layer."""

LOG2_E = math.log2(math.e)


def quantize(
    model: Model,
    images: NDArray[np.uint8],
    precision: Precision,
    parallelism: Parallelism | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Design:
    """Calibrate on images, quantise, and run the first few: `warnings` of the Design say what is doubtful about it.

    Args:
        model: the float network.
        images: (images, channels, H, W) uint8 calibration images.
        precision: a preset or one of your own.
        parallelism: how much hardware; the defaults suit a ZCU102.
        progress: called with the steps done and in total: calibration runs, then layers.

    Raises:
        InputError: no images.
        OverflowRiskError: a sum could leave its accumulator, or weights are far out of proportion.
    """
    parallelism = parallelism or default_parallelism(model.spec, precision)
    runs, depth = calibration_runs(model, images), model.spec.depth

    def report(done: int) -> None:
        if progress:
            progress(done, runs + depth)

    statistics = calibrate(model, images, report)
    design = _design(model, precision, parallelism, statistics, lambda layer: report(runs + layer))
    return design.with_warnings(doubts(model, design, images))


def _design(
    model: Model,
    precision: Precision,
    parallelism: Parallelism,
    statistics: dict[str, Statistic],
    progress: Callable[[int], Any],
) -> Design:
    """The quantised network; progress is called with the layers done."""
    if precision.arithmetic == "iccad23":
        design = iccad23_quantizer.quantize(model, precision, parallelism, statistics)
        progress(model.spec.depth)
        return design
    try:
        return _Quantizer(model, precision, statistics, fine=True).run(parallelism, progress)
    except OverflowRiskError:
        # Small values in calibration beside large weights: no shift takes the sums to units that fine.
        return _Quantizer(model, precision, statistics, fine=False).run(parallelism, progress)


@dataclass(frozen=True)
class _Operand:
    """Integers that enter a linear layer: their scale, zero point, mean and width."""

    scale: float
    statistic: Statistic
    format: Format
    zero: int = 0


@dataclass
class _Quantizer:
    model: Model
    precision: Precision
    statistics: dict[str, Statistic]
    fine: bool
    """Whether small values get as many fraction bits as the hardware can hold."""
    tensors: Tensors = field(default_factory=dict)
    reports: list[TensorReport] = field(default_factory=list)

    def run(self, parallelism: Parallelism, progress: Callable[[int], Any]) -> Design:
        spec = self.model.spec
        stream = ["embed"] + [
            f"blocks.{layer}.{name}" for layer in range(spec.depth) for name in ("attn_residual", "output")
        ]
        merged = merge([self.statistics[name] for name in stream])
        largest = RESIDUAL_HEADROOM * max(merged.largest, float(np.abs(self.model["pos_embed"]).max()))
        width = self.precision.residual(0, spec.dim).width
        self.residual_frac = min(power_of_two(largest, width), self._finest_residual(largest, width))
        self.residual_scale = 2.0**-self.residual_frac
        self._report_activation("residual stream", merged, self.residual_scale, width)

        self._embed()
        self._epsilon()
        for layer in range(spec.depth):
            self._attention(layer)
            self._mlp(layer)
            progress(layer + 1)
        expected = design_tensors(spec, self.precision)
        typed = {
            name: np.asarray(tensor).astype(expected[name].dtype if name in expected else np.float64)
            for name, tensor in self.tensors.items()
        }
        return Design(spec, self.precision, parallelism, self.residual_frac, typed, tuple(self.reports))

    def _finest_residual(self, largest: float, width: int) -> int:
        """Fraction bits that the residual stream may have.

        Beyond the ordinary ones it has to hold the embedding of any image, however dark those of calibration were,
        and LayerNorm's epsilon has to fit beside its sums.
        """
        if not self.fine or largest <= _NOTHING:
            return _MAX_FRAC
        spec = self.model.spec
        weight = self.model["patch_embed.weight"].reshape(spec.dim, spec.patch_values)
        base = self.model["patch_embed.bias"] + self.model["pos_embed"][1:]
        highest = (base + np.maximum(weight, 0).sum(axis=1)).max(initial=0.0)
        lowest = (base + np.minimum(weight, 0).sum(axis=1)).min(initial=0.0)
        frac = power_of_two(max(float(highest), -float(lowest)), width)
        while frac > _MAX_FRAC and not self._holds_epsilon(frac):
            frac -= 1
        return max(frac, _MAX_FRAC)

    def _holds_epsilon(self, residual_frac: int) -> bool:
        """Whether LayerNorm's epsilon fits its place, and its sums with it."""
        spec = self.model.spec
        epsilon = _epsilon_units(spec.norm_eps, spec.dim, residual_frac)
        sums = largest_variance(self.precision.residual(0, spec.dim).width, spec.dim)
        return epsilon < 1 << 63 and sums + epsilon < 1 << 64

    def _embed(self) -> None:
        spec = self.model.spec
        weight = self.model["patch_embed.weight"].reshape(spec.dim, spec.patch_values)
        # Pixels enter as p - 128; the exact weights make up for it, so their rounding meets centred pixels.
        bias = self.model["patch_embed.bias"] + weight.sum(axis=1) * PIXEL_OFFSET * 2.0**-PIXEL_FRAC
        centre = np.zeros((1, spec.patch_values))
        pixels = _Operand(
            2.0**-PIXEL_FRAC,
            Statistic(centre[0], centre[0], centre[0], 0, centre),
            Format(PIXEL_FRAC, 0),
        )
        self._linear("patch", weight, bias, pixels, self.residual_scale)
        position = round_half_up(self.model["pos_embed"] / self.residual_scale)
        self.tensors["position"] = position.astype(np.int64)

    def _epsilon(self) -> None:
        spec = self.model.spec
        if not self._holds_epsilon(self.residual_frac):
            raise OverflowRiskError(
                f"norm_eps = {spec.norm_eps} is larger than any variance of the residual stream",
                hint="check norm_eps in model.toml",
            )
        epsilon = _epsilon_units(spec.norm_eps, spec.dim, self.residual_frac)
        self.tensors["epsilon"] = np.array([max(epsilon, MIN_EPSILON)])

    def _attention(self, layer: int) -> None:
        block, spec, precision = f"blocks.{layer}", self.model.spec, self.precision
        weight, bias = self.model[f"{block}.attn.qkv.weight"], self.model.qkv_bias(layer)
        balance = self._balance(f"{block}.norm1", np.split(weight, 3))
        operand = self._norm(f"{block}.norm1", balance)
        weight, bias = weight * balance.scale, bias + weight @ balance.offset

        # Base-2 scores: the factor of exp(x) = 2**(x * log2(e)) and the attention scale go into the queries.
        factor = LOG2_E / math.sqrt(spec.head_dim)
        query, value = slice(0, spec.dim), slice(2 * spec.dim, 3 * spec.dim)
        projection = self.model[f"{block}.attn.proj.weight"]
        mixed_balance = self._balance(f"{block}.attention", [projection])
        mixed = self.statistics[f"{block}.attention"].affine(mixed_balance.scale, mixed_balance.offset)
        mixed_scale = self._activation_scale(mixed)
        self._report_activation(f"{block}.attention", mixed, mixed_scale, precision.activation_width)
        values = self.statistics[f"{block}.v"].affine(mixed_balance.scale, mixed_balance.offset)

        q_frac, k_frac = (
            min(power_of_two(largest, precision.attention_width), self._finest(largest))
            for largest in (
                factor * self.statistics[f"{block}.q"].largest,
                self.statistics[f"{block}.k"].largest,
            )
        )
        score_shift = q_frac + k_frac - SCORE.frac
        if score_shift < 0:
            raise OverflowRiskError(
                f"{block}: attention scores are far beyond the range of the softmax unit",
                hint="check the query and key weights of the checkpoint",
            )
        # Values differ in scale from the attention output by a power of two, which its normalisation shifts out.
        # That shifts by MANTISSA_FRAC and more anyway, so that a negative share of it does no harm.
        ratio = power_of_two(values.largest / mixed_scale, precision.attention_width)
        ratio = min(max(ratio, -MANTISSA_FRAC), MANTISSA_FRAC)
        # Values that calibration saw constant have nothing to resolve.
        ratio = min(ratio, self._finest(values.largest) + math.floor(math.log2(mixed_scale)))
        value_scale = mixed_scale * 2.0**-ratio
        self.tensors[f"{block}.score_shift"] = np.array([score_shift])
        self.tensors[f"{block}.attention_shift"] = np.array([ratio])

        weight[query], bias[query] = weight[query] * factor, bias[query] * factor
        weight[value] = weight[value] / mixed_balance.scale[:, None]
        bias[value] = (bias[value] - mixed_balance.offset) / mixed_balance.scale
        scales = np.repeat([2.0**-q_frac, 2.0**-k_frac, value_scale], spec.dim)
        self._linear(f"{block}.qkv", weight, bias, operand, scales)
        for name, statistic, scale in (
            ("q", self.statistics[f"{block}.q"].affine(1 / factor, 0.0), 2.0**-q_frac),
            ("k", self.statistics[f"{block}.k"], 2.0**-k_frac),
            ("v", values, value_scale),
        ):
            self._report_activation(f"{block}.{name}", statistic, scale, precision.attention_width)
        self._decode(f"{block}.q", np.full(spec.dim, 2.0**-q_frac / factor))
        self._decode(f"{block}.k", np.full(spec.dim, 2.0**-k_frac))
        self._decode(f"{block}.v", value_scale * mixed_balance.scale, mixed_balance.offset)
        self._decode(f"{block}.attention", mixed_scale * mixed_balance.scale, mixed_balance.offset)

        self._linear(
            f"{block}.proj",
            projection * mixed_balance.scale,
            self.model[f"{block}.attn.proj.bias"] + projection @ mixed_balance.offset,
            _Operand(mixed_scale, mixed, precision.activation),
            self.residual_scale,
        )

    def _mlp(self, layer: int) -> None:
        block, spec = f"blocks.{layer}", self.model.spec
        if spec.moe is None or layer not in spec.moe_layers:
            source = f"{block}.mlp"
            fc1 = self.model[f"{source}.fc1.weight"]
            balance = self._balance(f"{block}.norm2", [fc1])
            operand = self._norm(f"{block}.norm2", balance)
            bias = self.model[f"{source}.fc1.bias"] + fc1 @ balance.offset
            self._linear(f"{block}.fc1", fc1 * balance.scale, bias, operand, GELU_INPUT.lsb)
            hidden = self._hidden(f"{block}.hidden", [self.statistics[f"{block}.hidden"]])
            fc2, bias = self.model[f"{source}.fc2.weight"], self.model[f"{source}.fc2.bias"]
            self._linear(f"{block}.fc2", fc2, bias, hidden[0], self.residual_scale)
            return

        source, experts = f"{block}.moe", range(spec.moe.experts)
        all_fc1 = self.model[f"{source}.fc1.weight"]
        balance = self._balance(f"{block}.norm2", list(all_fc1))
        operand = self._norm(f"{block}.norm2", balance)
        self._gate(layer, balance, operand)
        for expert in experts:
            fc1 = all_fc1[expert]
            bias = self.model[f"{source}.fc1.bias"][expert] + fc1 @ balance.offset
            self._linear(f"{block}.fc1", fc1 * balance.scale, bias, operand, GELU_INPUT.lsb, (expert,))
        pooled = self.statistics[f"{block}.hidden"]
        seen = [self.statistics.get(f"{block}.experts.{expert}.hidden", pooled) for expert in experts]
        statistics = [own if own.rows >= _FEW_ROWS else pooled for own in seen]
        hidden = self._hidden(f"{block}.hidden", statistics)
        fc2, fc2_bias = self.model[f"{source}.fc2.weight"], self.model[f"{source}.fc2.bias"]
        for expert in experts:
            name = f"{block}.fc2"
            self._linear(name, fc2[expert], fc2_bias[expert], hidden[expert], self.residual_scale, (expert,))

    def _gate(self, layer: int, balance: Balance, operand: _Operand) -> None:
        spec, block, width = self.model.spec, f"blocks.{layer}", self.precision.gate_width
        shift = int(self.tensors[f"{block}.norm2.shift"][0])
        # The router reads the same normalised value with more of its fraction.
        spare = power_of_two(operand.statistic.largest / operand.scale, width)
        gate_shift = max(shift - spare, 1)
        scale = operand.scale * 2.0 ** (gate_shift - shift)
        self.tensors[f"{block}.norm2.gate_shift"] = np.array([gate_shift])
        gate_operand = _Operand(scale, operand.statistic, self.precision.gate_input)
        self._report_activation(f"{block}.gate_input", operand.statistic, scale, width)
        shared = len(self.model.weights[f"{block}.moe.gate.weight"]) == 1
        for task in range(len(spec.tasks)):
            weight, bias = self.model.gate(layer, task)
            bias = (bias + weight @ balance.offset) * LOG2_E
            weight = weight * balance.scale * LOG2_E
            self._linear(
                f"{block}.gate",
                weight,
                bias,
                gate_operand,
                SCORE.lsb,
                (0 if shared else task,),
                bias_index=(task,),
                width=width,
            )

    def _hidden(self, name: str, statistics: list[Statistic]) -> list[_Operand]:
        """Requantisation of the GELU output, one for each expert where there are several."""
        width, operands = self.precision.activation_width, []
        factors, zeros = [], []
        for statistic in statistics:
            if self.precision.multipliers:
                scale, zero = least_error_range(statistic.samples, width)
            else:
                scale, zero = self._activation_scale(statistic, 2.0**-_MAX_FRAC), 0
            operands.append(_Operand(scale, statistic, self.precision.activation, zero))
            factors.append(2.0**-GELU_FRAC / scale)
            zeros.append(zero)
        self._scaling(name, np.array(factors), ())
        self.tensors[f"{name}.zero"] = np.array(zeros)
        scales = np.array([operand.scale for operand in operands])
        self._decode(name, scales, -np.array(zeros) * scales)
        pooled = merge(statistics)
        self._report_activation(name, pooled, float(scales.max()), width, zeros[0])
        return operands

    def _norm(self, name: str, balance: Balance) -> _Operand:
        """Gamma and beta of a LayerNorm, with the scale of its output folded in."""
        statistic = self.statistics[name].affine(balance.scale, balance.offset)
        gamma = self.model[f"{name}.weight"] / balance.scale
        # What gamma makes of one unit of a normalised value: nothing finer is there.
        unit = NORMALIZED.lsb * 2.0 ** math.ceil(math.log2(max(float(np.abs(gamma).max()), _NOTHING)))
        scale = self._activation_scale(statistic, unit)
        gamma = gamma / scale
        beta = (self.model[f"{name}.bias"] - balance.offset) / balance.scale / scale
        frac = min(power_of_two(float(np.abs(gamma).max(initial=0.0)), NORM_WEIGHT_WIDTH), _MAX_FRAC)
        shift = NORMALIZED.frac + frac
        if shift < 1:
            raise OverflowRiskError(
                f"{name}: gamma is far larger than the norm's output", hint="check the checkpoint"
            )
        self.tensors[f"{name}.gamma"] = round_half_up(np.ldexp(gamma, frac)).astype(np.int64)
        limit = 2.0 ** (self.precision.activation_width + 2)
        self.tensors[f"{name}.beta"] = round_half_up(np.ldexp(np.clip(beta, -limit, limit), shift)).astype(
            np.int64
        )
        self.tensors[f"{name}.shift"] = np.array([shift])
        self._decode(name, scale * balance.scale, balance.offset)
        self._report_activation(name, statistic, scale, self.precision.activation_width)
        return _Operand(scale, statistic, self.precision.activation)

    def _linear(
        self,
        name: str,
        weight: FloatArray,
        bias: FloatArray,
        operand: _Operand,
        out_scale: FloatArray | float,
        index: tuple[int, ...] = (),
        *,
        bias_index: tuple[int, ...] | None = None,
        width: int | None = None,
    ) -> None:
        """Integer parameters of one linear layer, stored at `index` of the tensors of that name."""
        width = width or self.precision.weight_width
        out_scale = np.broadcast_to(np.asarray(out_scale, np.float64), len(weight))
        # Rows of tiny weights under an ordinary bias take a coarser scale, so that the bias fits beside the sum.
        bias_limit = 2.0 ** (accumulator_width(weight.shape[1], operand.format, width) - 3)
        least = np.abs(bias) / operand.scale / bias_limit
        scale = np.maximum(weight_scales(weight, width), least)
        # A row without weights takes any scale: one that its requantisation can express.
        dead = ~weight.any(axis=1)
        scale[dead] = np.minimum(scale[dead], np.maximum(out_scale[dead] / operand.scale, least[dead]))
        if not self.precision.multipliers:
            scale = np.exp2(np.ceil(np.log2(scale)))
            # A row of weights too small to matter gets the finest scale that its shift can undo.
            scale = np.maximum(scale, np.exp2(np.round(np.log2(out_scale / operand.scale)) - 40))
        inputs = operand.statistic.samples if self.precision.learned_rounding else None
        integers = round_weights(weight, scale, width, inputs)
        self._report_weight(name, index, weight, integers, scale, width)

        # Rounded weights shift the mean of an output; the calibrated mean of the inputs tells by how much.
        mean = operand.statistic.mean
        corrected = bias + (weight - integers * scale[:, None]) @ mean
        unit = operand.scale * scale
        whole_bias = round_half_up(corrected / unit).astype(np.int64)
        whole_bias -= operand.zero * integers.sum(axis=1).astype(np.int64)
        self._store(f"{name}.weight", index, integers.astype(np.int64))
        self._store(f"{name}.bias", index if bias_index is None else bias_index, whole_bias)
        self._scaling(name, unit / out_scale, index)

    def _scaling(self, name: str, factor: FloatArray, index: tuple[int, ...]) -> None:
        if self.precision.multipliers:
            multiplier, shift = multiplier_and_shift(factor, name)
            self._store(f"{name}.multiplier", index, multiplier)
        else:
            shift = pure_shift(factor, name)
        self._store(f"{name}.shift", index, shift)

    def _store(self, name: str, index: tuple[int, ...], values: NDArray[Any]) -> None:
        if name not in self.tensors:
            expected = design_tensors(self.model.spec, self.precision)[name]
            self.tensors[name] = np.zeros(expected.shape, expected.dtype)
        self.tensors[name][index] = values

    def _balance(self, name: str, weights: list[FloatArray]) -> Balance:
        if not self.precision.balanced:
            return Balance.identity(self.model.spec.dim)
        precision = self.precision
        return choose(self.statistics[name], weights, precision.activation_width, precision.weight_width)

    def _finest(self, largest: float) -> int:
        """Fraction bits that a tensor may have, by its largest value."""
        # Channels that calibration saw constant leave nothing but rounding noise once they are centred.
        return _FINEST_FRAC if self.fine and largest > _NOTHING else _MAX_FRAC

    def _activation_scale(self, statistic: Statistic, least: float = 0.0) -> float:
        """Scale of a tensor; `least` is the finest that makes sense, if that is finer than ordinary ones."""
        width, finest = self.precision.activation_width, self._finest(statistic.largest)
        floor = max(2.0**-finest, min(least, 2.0**-_MAX_FRAC))
        if self.precision.multipliers:
            return max(least_error_scale(statistic.samples, width), floor)
        return max(2.0 ** -power_of_two(statistic.largest, width), floor)

    def _decode(self, name: str, scale: FloatArray, offset: FloatArray | None = None) -> None:
        self.tensors[f"{DECODE}{name}.scale"] = scale
        self.tensors[f"{DECODE}{name}.offset"] = np.zeros(len(scale)) if offset is None else offset

    def _report_activation(
        self, name: str, statistic: Statistic, scale: float, width: int, zero: int = 0
    ) -> None:
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        integers = round_half_up(statistic.samples / scale) + zero
        kept = np.clip(integers, low, high)
        error = (kept - zero) * scale - statistic.samples
        clipped = kept != integers
        self.reports.append(make_report(name, "activation", statistic.samples, error, clipped, scale, width))

    def _report_weight(
        self,
        name: str,
        index: tuple[int, ...],
        weight: FloatArray,
        integers: FloatArray,
        scale: FloatArray,
        width: int,
    ) -> None:
        label = ".".join([name, *map(str, index)])
        error = integers * scale[:, None] - weight
        limit = 1 << (width - 1)
        rounded = round_half_up(weight / scale[:, None])
        clipped = (rounded < -limit) | (rounded > limit - 1)
        self.reports.append(make_report(label, "weight", weight, error, clipped, float(scale.max()), width))


def _epsilon_units(norm_eps: float, dim: int, residual_frac: int) -> int:
    """LayerNorm's epsilon in units of its sums: times the squares of the channels and of the stream's unit."""
    return round(norm_eps * dim**2 * 4.0**residual_frac)
