"""Quantisation of a float Model: scales chosen on calibration images, parameters rounded to nearest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from common.errors import OverflowRiskError
from pysim import iccad23_quantizer
from pysim.agreement import best
from pysim.arithmetic import ICCAD23, REQUANTISE, Arithmetic, Kind, Tensor, arithmetic_of
from pysim.balance import Balance, choose
from pysim.calibrate import calibrate, calibration_runs, hidden_name, input_name
from pysim.clipping import clips, held_out, judges_gates
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
from pysim.design import DECODE, Design, default_attention_rows
from pysim.doubts import examine
from pysim.files import Tensors
from pysim.formats import Format
from pysim.kernels.gelu import GELU_FRAC
from pysim.kernels.layernorm import MIN_EPSILON, largest_variance
from pysim.kernels.linear import accumulator_width
from pysim.model import Model
from pysim.precision import Precision
from pysim.program import (
    Activated,
    Attention,
    Destination,
    Embed,
    Experts,
    Gate,
    Index,
    Linear,
    Norm,
    Operation,
    Scaling,
    Value,
    linears,
    of_type,
    program,
    values,
)
from pysim.reports import TensorReport, beyond_range, make_report
from pysim.rounding import round_weights
from pysim.scaling import (
    CLIP_BELOW_WIDTH,
    multiplier_and_shift,
    power_of_two,
    pure_shift,
    round_half_up,
    weight_scales,
    whole_range,
    whole_range_scale,
)
from pysim.statistic import Statistic, merge
from pysim.threads import one_blas_thread

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RESIDUAL_HEADROOM = 2.0
"""The residual stream holds this many times the largest value seen in calibration."""

KEY_HEADROOM = 2.0
"""Keys hold this many times the largest centred one seen in calibration, if that is no more than without centring."""

_MAX_FRAC = 24
"""Fraction bits of ordinary values, and of tensors that calibration saw empty, which have nothing to resolve."""
_FINEST_FRAC = (MAX_SHIFT + SCORE.frac) // 2
"""Fraction bits of small values: queries and keys of that many make scores by the largest shift there is."""
_NOTHING = 2.0**-40
"""Values up to here are rounding noise of the float network."""
LOG2_E = math.log2(math.e)


def quantize(
    model: Model,
    images: NDArray[np.uint8],
    precision: Precision,
    attention_rows: int | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Design:
    """Calibrate on images, quantise, and run the first few: `warnings` of the Design say what is doubtful about it.

    Args:
        model: the float network.
        images: (images, channels, H, W) uint8 calibration images.
        precision: a preset or one of your own.
        attention_rows: P, the query rows that share one pass over the keys; the default suits a ZCU102.
        progress: called with the steps done and in total: calibration runs, then layers.

    Raises:
        InputError: no images.
        OverflowRiskError: a sum could leave its accumulator, or weights are far out of proportion.
    """
    if attention_rows is None:
        attention_rows = default_attention_rows(model.spec, precision)
    runs, depth = calibration_runs(model, images), model.spec.depth

    def report(done: int) -> None:
        if progress:
            progress(done, runs + depth)

    with one_blas_thread():
        held = held_out(model, precision, len(images))
        statistics = calibrate(model, images, report, moments=precision.learned_rounding, held=held)
        for name, clip in clips(model, precision, images[held], statistics).items():
            statistics[name] = replace(statistics[name], clip=clip)
        run = _QUANTIZERS[arithmetic_of(precision)]
        design = run(model, precision, attention_rows, statistics, lambda layers: report(runs + layers))
        findings = examine(model, design, images)
    return design.with_findings(findings.warnings, findings.agreement)


@dataclass(frozen=True)
class _Operand:
    """Integers that enter a linear layer: their scale, zero point, mean, width, and what was balanced before."""

    scale: float
    statistic: Statistic
    format: Format
    balance: Balance
    zero: int = 0

    def read(self, weight: FloatArray, bias: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weights and bias of a layer that reads the balanced values instead of the plain ones."""
        return weight * self.balance.scale, bias + weight @ self.balance.offset

    @property
    def energy(self) -> FloatArray | None:
        """(inputs, inputs) covariance of the integers in balanced real units, where calibration gathered it."""
        moments = self.statistic.moments
        if moments is None:
            return None
        covariance = moments.covariance() / np.outer(self.balance.scale, self.balance.scale)
        # Rounding adds noise of its own, evenly spread over one unit and alike in all inputs.
        covariance[np.diag_indices_from(covariance)] += self.scale**2 / 12
        return covariance

    def narrowed(self, values: FloatArray) -> FloatArray:
        """(rows, inputs) balanced values as the integers have them."""
        integers = round_half_up(values / self.scale) + self.zero
        kept = np.clip(integers, self.format.min, self.format.max)
        return np.asarray((kept - self.zero) * self.scale)

    @property
    def rounding_mean(self) -> FloatArray:
        """(inputs,) mean of what rounding to integers adds: values that crowd on a few integers are moved alike."""
        samples = self.statistic.samples
        return np.asarray((self.narrowed(samples) - samples).mean(axis=0))


@dataclass
class _Quantizer:
    model: Model
    precision: Precision
    statistics: dict[str, Statistic]
    fine: bool
    """Whether small values get as many fraction bits as the hardware can hold."""
    tensors: Tensors = field(default_factory=dict)
    reports: list[TensorReport] = field(default_factory=list)
    operands: dict[str, list[_Operand]] = field(default_factory=dict)
    """Operands by the name of the value; one for each expert where they differ."""

    def run(self, attention_rows: int, progress: Callable[[int], Any]) -> Design:
        spec = self.model.spec
        self.operations = program(spec, self.precision)
        self._stream()
        for layer, block in groupby(self.operations, key=lambda op: op.layer):
            for op in block:
                self._quantize(op)
            if layer is not None:
                progress(layer + 1)
        return Design(
            spec, self.precision, attention_rows, self.residual_frac, self.tensors, tuple(self.reports)
        )

    def _stream(self) -> None:
        """The scale of the residual stream."""
        streams = [value for value in values(self.operations).values() if value.kind is Kind.STREAM]
        merged = merge([self.statistics[value.name] for value in streams])
        (embed,) = of_type(self.operations, Embed)
        position = self.model.value(embed.position)
        largest = RESIDUAL_HEADROOM * max(merged.largest, float(np.abs(position).max()))
        width = embed.output.format.width
        self.residual_frac = min(power_of_two(largest, width), self._finest_residual(embed, largest))
        self.residual_scale = 2.0**-self.residual_frac
        self._report_activation("residual stream", merged, self.residual_scale, width)

    def _finest_residual(self, op: Embed, largest: float) -> int:
        """Fraction bits that the residual stream may have.

        Beyond the ordinary ones it has to hold the embedding of any image, however dark those of calibration were,
        and LayerNorm's epsilon has to fit beside its sums.
        """
        if not self.fine or largest <= _NOTHING:
            return _MAX_FRAC
        weight, bias, position = (self.model.value(t) for t in (op.patch.weight, op.patch.bias, op.position))
        base = bias + position[op.prefix :]
        highest = (base + np.maximum(weight, 0).sum(axis=1)).max(initial=0.0)
        lowest = (base + np.minimum(weight, 0).sum(axis=1)).min(initial=0.0)
        frac = power_of_two(max(float(highest), -float(lowest)), op.output.format.width)
        while frac > _MAX_FRAC and not self._holds_epsilon(op.output, self._epsilon_units(op.output, frac)):
            frac -= 1
        return max(frac, _MAX_FRAC)

    def _epsilon_units(self, stream: Value, frac: int) -> int:
        """LayerNorm's epsilon in units of its sums: times the squares of the channels and of the stream's unit."""
        return round(self.model.spec.norm_eps * stream.channels**2 * 4.0**frac)

    @staticmethod
    def _holds_epsilon(stream: Value, epsilon: int) -> bool:
        """Whether LayerNorm's epsilon fits its place, and its sums with it."""
        sums = largest_variance(stream.format.width, stream.channels)
        return epsilon < 1 << 63 and sums + epsilon < 1 << 64

    def _quantize(self, op: Operation) -> None:
        match op:
            case Embed():
                self._embed(op)
            case Norm():
                self._norm(op)
            case Linear(destination=Destination.HEADS):
                self._projections(op)
            case Linear():
                self._layer(op, [self.statistics[op.output.name]])
            case Attention():
                pass  # its scales were chosen with the layer that makes its queries, keys and values
            case Gate():
                self._gate(op)
            case Experts():
                self._layer(op.fc1, self._of_experts(op, hidden_name), self._of_experts(op, input_name))
                self._layer(op.fc2, [])
            case _:
                assert_never(op)

    def _embed(self, op: Embed) -> None:
        weight, bias, position = (self.model.value(t) for t in (op.patch.weight, op.patch.bias, op.position))
        # Pixels enter as p - 128; the exact weights make up for it, so their rounding meets centred pixels.
        bias = bias + weight.sum(axis=1) * PIXEL_OFFSET * 2.0**-PIXEL_FRAC
        pixels = op.patch.input
        seen = self.statistics[pixels.name]
        operand = _Operand(2.0**-PIXEL_FRAC, seen, pixels.format, Balance.identity(pixels.channels))
        self._linear(op.patch, weight, bias, operand, self.residual_scale)
        self._store(op.position, (), round_half_up(position / self.residual_scale))

    def _readers(self, value: Value) -> list[FloatArray]:
        """Weights (outputs, channels) of every linear layer that reads a value, each of its results apart."""
        return [
            part
            for op in linears(self.operations)
            if op.input.name == value.name
            for weight in [self.model.value(op.weight)]
            for index in op.indices
            for part in np.split(weight[index], len(op.results))
        ]

    def _projections(self, op: Linear) -> None:
        """Queries, keys and values, and the scales of the attention that takes them."""
        query, key, value = op.results
        (attention,) = (a for a in of_type(self.operations, Attention) if a.query == query)
        operand = self._operand(op.input)
        weight, bias = operand.read(self.model.value(op.weight), self.model.value(op.bias))

        # Base-2 scores: the factor of exp(x) = 2**(x * log2(e)) and the attention scale go into the queries.
        factor = LOG2_E / math.sqrt(attention.head_dim)
        output = attention.output
        # Averages of values stay within the values' range on any image; those of calibration may be far inside.
        bounded = self.statistics[output.name].towards(self.statistics[value.name])
        balance = self._balance(output, bounded)
        mixed = bounded.affine(balance.scale, balance.offset)
        mixed_scale = self._activation_scale(mixed)
        self._report_activation(output.name, mixed, mixed_scale, output.format.width)
        mixed_values = self.statistics[value.name].affine(balance.scale, balance.offset)

        # The same vector added to all keys adds the same number to all scores of a query, which softmax ignores.
        plain = self.statistics[key.name]
        middle = (plain.low + plain.high) / 2
        keys = plain.affine(1.0, middle)
        queries = self.statistics[query.name].affine(1 / factor, 0.0)
        # Wide keys keep of the range that centring sets free what other images may need.
        spare = KEY_HEADROOM if key.format.width >= CLIP_BELOW_WIDTH else 1.0
        reach = min(spare * keys.largest, plain.largest)
        q_frac, k_frac = self._score_fracs(attention, queries.largest, reach)
        value_scale = self._value_scale(attention, mixed_values, mixed_scale)
        dim = query.channels
        its_queries, its_keys, its_values = (slice(i * dim, (i + 1) * dim) for i in range(3))
        weight[its_queries], bias[its_queries] = weight[its_queries] * factor, bias[its_queries] * factor
        bias[its_keys] = bias[its_keys] - middle
        weight[its_values] = weight[its_values] / balance.scale[:, None]
        bias[its_values] = (bias[its_values] - balance.offset) / balance.scale
        self._linear(op, weight, bias, operand, np.repeat([2.0**-q_frac, 2.0**-k_frac, value_scale], dim))
        for result, statistic, scale in (
            (query, queries, 2.0**-q_frac),
            (key, keys, 2.0**-k_frac),
            (value, mixed_values, value_scale),
        ):
            self._report_activation(result.name, statistic, scale, result.format.width)
        self._decode(query, np.full(dim, 2.0**-q_frac / factor))
        self._decode(key, np.full(dim, 2.0**-k_frac), middle)
        self._decode(value, value_scale * balance.scale, balance.offset)
        self._decode(output, mixed_scale * balance.scale, balance.offset)
        self.operands[output.name] = [_Operand(mixed_scale, mixed, output.format, balance)]

    def _score_fracs(self, op: Attention, *largest: float) -> tuple[int, int]:
        """Fraction bits of queries and of keys, by their largest values."""
        q_frac, k_frac = (
            min(
                power_of_two(each, op.query.format.width),
                self._finest(each),
                _FINEST_FRAC - op.score_lift // 2,
            )
            for each in largest
        )
        shift = q_frac + k_frac - SCORE.frac
        if shift < -op.score_lift:
            raise OverflowRiskError(
                f"blocks.{op.layer}: queries and keys up to {largest[0]:.3g} and {largest[1]:.3g} have {q_frac} and "
                f"{k_frac} fraction bits in {op.query.format.width} bits: scores of them leave the softmax's range",
                hint="check the query and key weights",
            )
        self._store(op.score_shift, (), shift)
        return q_frac, k_frac

    def _value_scale(self, op: Attention, statistic: Statistic, mixed_scale: float) -> float:
        """Scale of the values, which are mixed to an output of the scale `mixed_scale`."""
        # They differ by a power of two, which the normalisation of the output shifts out. That shifts by
        # MANTISSA_FRAC and more anyway, so that a negative share of it does no harm.
        attention_shift = power_of_two(statistic.largest / mixed_scale, op.value.format.width)
        attention_shift = min(max(attention_shift, -MANTISSA_FRAC), MANTISSA_FRAC)
        # Values that calibration saw constant have nothing to resolve.
        attention_shift = min(
            attention_shift, self._finest(statistic.largest) + math.floor(math.log2(mixed_scale))
        )
        self._store(op.attention_shift, (), attention_shift)
        return mixed_scale * 2.0**-attention_shift

    def _layer(self, op: Linear, hidden: list[Statistic], given: Sequence[Statistic] = ()) -> None:
        """A linear layer, of all experts where there are several.

        `hidden` is what its activation function leads to, and `given` are the inputs of each expert, where they are
        known apart.
        """
        weights, biases = self.model.value(op.weight), self.model.value(op.bias)
        out_scale = self.residual_scale if op.activation is None else GELU_INPUT.lsb
        for index in op.indices:
            operand = self._operand(op.input, index)
            if given:
                balance = operand.balance
                operand = replace(operand, statistic=given[index[0]].affine(balance.scale, balance.offset))
            self._linear(op, *operand.read(weights[index], biases[index]), operand, out_scale, index)
        if op.activation is not None:
            self._hidden(op.output, op.activation, hidden)

    def _operand(self, value: Value, index: Index = ()) -> _Operand:
        found = self.operands[value.name]
        return found[index[0]] if len(found) > 1 else found[0]

    def _of_experts(self, op: Experts, name: Callable[[Experts, int], str]) -> list[Statistic]:
        """A statistic of every expert by itself; empty where calibration did not gather it."""
        names = [name(op, expert) for expert in range(op.experts)]
        return [self.statistics[each] for each in names if each in self.statistics]

    def _gate(self, op: Gate) -> None:
        operand = self._operand(op.input)
        weights, biases = self.model.value(op.weight), self.model.value(op.bias)
        for task in range(op.tasks):
            index, bias_index = op.weight_index(task), op.bias_index(task)
            weight, bias = operand.read(weights[index], biases[bias_index])
            weight, bias = weight * LOG2_E, bias * LOG2_E
            scale = self._gate_weight_scale(op, weight, bias, operand)
            self._linear(op, weight, bias, operand, SCORE.lsb, index, bias_index=bias_index, scale=scale)

    def _gate_weight_scale(
        self, op: Gate, weight: FloatArray, bias: FloatArray, operand: _Operand
    ) -> FloatArray:
        """Scale of each expert's row: of least squared error, or the whole range where it keeps more choices."""
        width, top = op.weight_width, (1 << (op.weight_width - 1)) - 1
        least, held = weight_scales(weight, width), operand.statistic.held
        # Of scales that are powers of two, a coarser one may be beyond what a shift undoes.
        if held is None or not judges_gates(self.precision) or not self.precision.multipliers:
            return least
        whole = np.abs(weight).max(axis=1) / top
        scales = (least, np.where(whole > 0, whole, least))
        rounded = (
            np.clip(round_half_up(weight / scale[:, None]), -top - 1, top) * scale[:, None]
            for scale in scales
        )
        chosen = [_choices(operand.narrowed(held) @ each.T + bias, op.top_k) for each in rounded]
        return scales[best(chosen, _choices(held @ weight.T + bias, op.top_k))]

    def _hidden(self, value: Value, activation: Activated, statistics: list[Statistic]) -> None:
        """Requantisation of the activation function's output, one for each expert where there are several."""
        width, balance = value.format.width, Balance.identity(value.channels)
        operands = []
        for statistic in statistics:
            if self.precision.multipliers:
                low, high = statistic.extent
                scale, zero = whole_range(low, statistic.clip * high, width)
            else:
                scale, zero = self._activation_scale(statistic, 2.0**-_MAX_FRAC), 0
            operands.append(_Operand(scale, statistic, value.format, balance, zero))
        scales, zeros = (np.array([getattr(o, name) for o in operands]) for name in ("scale", "zero"))
        self._scaling(value.name, activation.scaling, 2.0**-GELU_FRAC / scales, ())
        self._store(activation.zero, (), zeros)
        self._decode(value, scales, -zeros * scales)
        beyond = max(beyond_range(*o.statistic.extent, o.scale, width, o.zero) for o in operands)
        merged, coarsest = merge(statistics), operands[int(scales.argmax())]
        self._report_activation(value.name, merged, coarsest.scale, width, coarsest.zero, beyond)
        self.operands[value.name] = operands

    def _norm(self, op: Norm) -> None:
        """Gamma and beta of a LayerNorm, with the scale of its output folded in."""
        output = op.output
        balance = self._balance(output, self.statistics[output.name])
        statistic = self.statistics[output.name].affine(balance.scale, balance.offset)
        gamma = self.model.value(op.gamma) / balance.scale
        # What gamma makes of one unit of a normalised value: nothing finer is there.
        unit = NORMALIZED.lsb * 2.0 ** math.ceil(math.log2(max(float(np.abs(gamma).max()), _NOTHING)))
        scale = self._activation_scale(statistic, unit)
        gamma = gamma / scale
        beta = (self.model.value(op.beta) - balance.offset) / balance.scale / scale
        frac = min(power_of_two(float(np.abs(gamma).max(initial=0.0)), NORM_WEIGHT_WIDTH), _MAX_FRAC)
        shift = NORMALIZED.frac + frac
        if shift < 1:
            raise OverflowRiskError(
                f"{op.name}: gamma is far larger than the norm's output", hint="check the checkpoint"
            )
        self._store(op.gamma, (), round_half_up(np.ldexp(gamma, frac)))
        limit = 2.0 ** (output.format.width + 2)
        self._store(op.beta, (), round_half_up(np.ldexp(np.clip(beta, -limit, limit), shift)))
        self._store(op.shift, (), shift)
        self._store(op.epsilon, (), self._epsilon(op.input))
        self._decode(output, scale * balance.scale, balance.offset)
        self._report_activation(output.name, statistic, scale, output.format.width)
        self.operands[output.name] = [_Operand(scale, statistic, output.format, balance)]
        if op.gate_output is not None:
            self._gate_input(op, op.gate_output, shift)

    def _gate_input(self, op: Norm, value: Value, shift: int) -> None:
        """The router reads the same normalised value with more of its fraction."""
        operand, width = self._operand(op.output), value.format.width
        spare = power_of_two(operand.statistic.largest / operand.scale, width)
        shifts = [max(shift - spare, 1)]
        if judges_gates(self.precision) and operand.statistic.held is not None:
            # A finer unit clips the largest values, which may be of less use to the router than the bits are.
            shifts += [finer for finer in (shifts[0] - 1, shifts[0] - 2) if finer >= 1]
        read = [
            _Operand(operand.scale * 2.0 ** (each - shift), operand.statistic, value.format, operand.balance)
            for each in shifts
        ]
        chosen = self._finest_routing(value, read) if len(read) > 1 else 0
        self._store(op.gate_shift, (), shifts[chosen])
        self._report_activation(value.name, operand.statistic, read[chosen].scale, width)
        self.operands[value.name] = [read[chosen]]

    def _finest_routing(self, value: Value, operands: Sequence[_Operand]) -> int:
        """Index of the operand of the router by which it chooses experts most like the float network's."""
        (op,) = (gate for gate in of_type(self.operations, Gate) if gate.input.name == value.name)
        held = operands[0].statistic.held
        assert held is not None
        own, chosen = list[IntArray](), [list[IntArray]() for _ in operands]
        for task in range(op.tasks):
            weight = self.model.value(op.weight)[op.weight_index(task)]
            bias = self.model.value(op.bias)[op.bias_index(task)]
            weight, bias = operands[0].read(weight, bias)
            own.append(_choices(held @ weight.T + bias, op.top_k))
            for operand, found in zip(operands, chosen, strict=True):
                found.append(_choices(operand.narrowed(held) @ weight.T + bias, op.top_k))
        return best([np.concatenate(found) for found in chosen], np.concatenate(own))

    def _epsilon(self, stream: Value) -> int:
        epsilon = self._epsilon_units(stream, self.residual_frac)
        if not self._holds_epsilon(stream, epsilon):
            raise OverflowRiskError(
                f"norm_eps = {self.model.spec.norm_eps} is larger than any variance of the residual stream",
                hint="check norm_eps in model.toml",
            )
        return max(epsilon, MIN_EPSILON)

    def _linear(
        self,
        op: Linear | Gate,
        weight: FloatArray,
        bias: FloatArray,
        operand: _Operand,
        out_scale: FloatArray | float,
        index: Index = (),
        *,
        bias_index: Index | None = None,
        scale: FloatArray | None = None,
    ) -> None:
        """Integer parameters of one linear layer, stored at `index` of its tensors.

        `scale` is that of each row of weights, where it is not the one of least squared error.
        """
        width = op.weight_width
        out_scale = np.broadcast_to(np.asarray(out_scale, np.float64), len(weight))
        # Rows of tiny weights under an ordinary bias take a coarser scale, so that the bias fits beside the sum.
        bias_limit = 2.0 ** (accumulator_width(weight.shape[1], operand.format, width) - 3)
        least = np.abs(bias) / operand.scale / bias_limit
        scale = np.maximum(weight_scales(weight, width) if scale is None else scale, least)
        # A row without weights takes any scale: one that its requantisation can express.
        dead = ~weight.any(axis=1)
        scale[dead] = np.minimum(scale[dead], np.maximum(out_scale[dead] / operand.scale, least[dead]))
        if not self.precision.multipliers:
            scale = np.exp2(np.ceil(np.log2(scale)))
            # A row of weights too small to matter gets the finest scale that its shift can undo.
            scale = np.maximum(scale, np.exp2(np.round(np.log2(out_scale / operand.scale)) - 40))
        learned = self.precision.learned_rounding
        integers = round_weights(weight, scale, width, operand.energy if learned else None)
        self._report_weight(op.name, index, weight, integers, scale, width)

        # Rounding shifts the mean of an output, of weights and, where they are few, of inputs: the calibrated means
        # tell by how much.
        mean = operand.statistic.mean
        corrected = bias + (weight - integers * scale[:, None]) @ mean
        if learned and operand.format.width < CLIP_BELOW_WIDTH:
            corrected -= (integers * scale[:, None]) @ operand.rounding_mean
        unit = operand.scale * scale
        whole_bias = round_half_up(corrected / unit).astype(np.int64)
        whole_bias -= operand.zero * integers.sum(axis=1).astype(np.int64)
        self._store(op.weight, index, integers)
        self._store(op.bias, index if bias_index is None else bias_index, whole_bias)
        self._scaling(op.name, op.scaling, unit / out_scale, index)

    def _scaling(self, name: str, scaling: Scaling | None, factor: FloatArray, index: Index) -> None:
        assert scaling is not None
        if scaling.multiplier is not None:
            multiplier, shift = multiplier_and_shift(factor, name)
            self._store(scaling.multiplier, index, multiplier)
        else:
            shift = pure_shift(factor, name)
        self._store(scaling.shift, index, shift)

    def _store(self, tensor: Tensor | None, index: Index, values: NDArray[Any] | int) -> None:
        assert tensor is not None
        stored = self.tensors.setdefault(tensor.name, np.zeros(tensor.shape, tensor.dtype))
        stored[index] = np.asarray(values).astype(np.int64)

    def _balance(self, value: Value, statistic: Statistic) -> Balance:
        if not self.precision.balanced:
            return Balance.identity(value.channels)
        return choose(statistic, self._readers(value), value.format.width, self.precision.weight_width)

    def _finest(self, largest: float) -> int:
        """Fraction bits that a tensor may have, by its largest value."""
        # Channels that calibration saw constant leave nothing but rounding noise once they are centred.
        return _FINEST_FRAC if self.fine and largest > _NOTHING else _MAX_FRAC

    def _activation_scale(self, statistic: Statistic, least: float = 0.0) -> float:
        """Scale of a tensor; `least` is the finest that makes sense, if that is finer than ordinary ones."""
        width, finest = self.precision.activation_width, self._finest(statistic.largest)
        floor = max(2.0**-finest, min(least, 2.0**-_MAX_FRAC))
        if self.precision.multipliers:
            return max(whole_range_scale(statistic.largest, width), floor)
        return max(2.0 ** -power_of_two(statistic.largest, width), floor)

    def _decode(self, value: Value, scale: FloatArray, offset: FloatArray | None = None) -> None:
        self.tensors[f"{DECODE}{value.name}.scale"] = scale
        self.tensors[f"{DECODE}{value.name}.offset"] = np.zeros(len(scale)) if offset is None else offset

    def _report_activation(
        self,
        name: str,
        statistic: Statistic,
        scale: float,
        width: int,
        zero: int = 0,
        beyond: float | None = None,
    ) -> None:
        """Note the rounding of a tensor; `beyond` says how far it leaves its range, where that is not one for all."""
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        values = statistic.probes
        integers = round_half_up(values / scale) + zero
        kept = np.clip(integers, low, high)
        error = (kept - zero) * scale - values
        clipped = kept != integers
        ends = statistic.extent
        if beyond is None:
            beyond = beyond_range(*ends, scale, width, zero)
        report = make_report(name, "activation", values, error, clipped, scale, width, ends, beyond)
        self.reports.append(report)

    def _report_weight(
        self,
        name: str,
        index: Index,
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


def _choices(logits: FloatArray, top_k: int) -> IntArray:
    """(tokens, top_k) experts of the largest logits, the first of equal ones."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :top_k]


def _requantise(
    model: Model,
    precision: Precision,
    attention_rows: int,
    statistics: dict[str, Statistic],
    progress: Callable[[int], Any],
) -> Design:
    try:
        return _Quantizer(model, precision, statistics, fine=True).run(attention_rows, progress)
    except OverflowRiskError:
        # Small values in calibration beside large weights: no shift takes the sums to units that fine.
        return _Quantizer(model, precision, statistics, fine=False).run(attention_rows, progress)


_Quantize = Callable[[Model, Precision, int, dict[str, Statistic], Callable[[int], Any]], Design]
_QUANTIZERS: dict[Arithmetic, _Quantize] = {
    REQUANTISE: _requantise,
    ICCAD23: iccad23_quantizer.quantize,
}
