"""Quantisation: scales, rounding, balancing, and Designs of networks that nobody would train.

Integers of a Design are read back as real numbers and held against the float weights they came from.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import edgemoe
from codegen.hardware import default_hardware, hardware_id
from common.errors import InputError, OverflowRiskError
from edgemoe.cli import main
from frontend.zoo import find_spec
from pysim import clipping, quantizer, reference, tables
from pysim import statistic as calibrated_rows
from pysim.activations import ACTIVATIONS
from pysim.agreement import Paired, agreeing, best
from pysim.balance import Balance, choose
from pysim.calibrate import FEW_ROWS, calibrate
from pysim.clipping import clipped_gains, clips, held_out
from pysim.datapath import GELU_INPUT, MAX_SHIFT, NORMALIZED, SCORE
from pysim.design import Design
from pysim.model import Model, init_model
from pysim.precision import NARROWED, PRESETS, Precision
from pysim.program import Linear, of_type
from pysim.quantizer import quantize
from pysim.rounding import BLOCK, DAMPING, round_weights
from pysim.scaling import (
    multiplier_and_shift,
    power_of_two,
    pure_shift,
    round_half_up,
    weight_scales,
    whole_range,
    whole_range_scale,
)
from pysim.sensitivity import sensitivity
from pysim.statistic import EXTREME_ROWS, SAMPLED_ROWS, RowCollector, Statistic

pytestmark = pytest.mark.slow

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Weights = dict[str, NDArray[Any]]
MakeModel = Callable[..., Model]

many = settings(max_examples=300, deadline=None, derandomize=True)


# --- Scales -------------------------------------------------------------------------------------------------


@many
@given(st.floats(2.0**-38, 2.0**60), st.integers(4, 32))
def test_power_of_two_is_the_finest_that_holds(largest: float, width: int) -> None:
    frac, limit = power_of_two(largest, width), 2 ** (width - 1) - 1
    assert math.ldexp(largest, frac) <= limit * (1 + 1e-12)
    assert math.ldexp(largest, frac + 1) > limit * (1 - 1e-12)


@pytest.mark.parametrize(
    ("largest", "width", "frac"),
    [(127.0, 8, 0), (127.5, 8, -1), (1.0, 8, 6), (0.99, 8, 7), (1.0, 16, 14), (1e9, 8, -23), (0.0, 8, 46)],
)
def test_power_of_two_by_hand(largest: float, width: int, frac: int) -> None:
    assert power_of_two(largest, width) == frac


def test_round_half_up() -> None:
    values = np.array([0.5, -0.5, 1.5, -1.5, 0.49, -0.51, 2.0])
    assert round_half_up(values).tolist() == [1, 0, 2, -1, 0, -1, 2]


@many
@given(st.lists(st.floats(2.0**-46, 2.0**15.9), min_size=1, max_size=9))
def test_multiplier_and_shift_error(factors: list[float]) -> None:
    multiplier, shift = multiplier_and_shift(np.array(factors), "layer")
    assert ((multiplier >= 1 << 15) & (multiplier < 1 << 16)).all()
    assert ((shift >= 0) & (shift <= MAX_SHIFT)).all()
    error = np.abs(np.ldexp(multiplier.astype(np.float64), -shift) / factors - 1)
    assert error.max() <= 2.0**-16 < 2.0**-15


def test_multiplier_that_rounds_up_to_17_bits_is_halved() -> None:
    multiplier, shift = multiplier_and_shift(np.array([1 - 2.0**-18, 2 - 2.0**-18, 1.0]), "layer")
    assert (multiplier.tolist(), shift.tolist()) == ([1 << 15] * 3, [15, 14, 15])


@pytest.mark.parametrize("exponent", [-48, -55, -61, -62, -63, -70, -1000])
def test_multiplier_of_next_to_nothing(exponent: int) -> None:
    """The largest shift stays, the multiplier gets shorter, down to 1."""
    multiplier, shift = multiplier_and_shift(np.array([1.25 * 2.0**exponent]), "layer")
    assert shift[0] == MAX_SHIFT
    assert multiplier[0] == max(1, round(1.25 * 2.0 ** (exponent + MAX_SHIFT)))


@pytest.mark.parametrize("factor", [2.0**16, 65535.9, 1e30])
def test_multiplier_too_large(factor: float) -> None:
    with pytest.raises(OverflowRiskError, match=r"some\.layer: a requantisation factor"):
        multiplier_and_shift(np.array([1.0, factor]), "some.layer")
    assert multiplier_and_shift(np.array([65535.4]), "layer")[0].tolist() == [65535]


def test_pure_shift() -> None:
    exponents = np.arange(MAX_SHIFT + 1)
    assert_array_equal(pure_shift(np.array([2.0**-exponent for exponent in exponents]), "layer"), exponents)


@pytest.mark.parametrize("factor", [2.0, 2.0**40, 2.0**-63, 2.0**-900])
def test_pure_shift_out_of_range(factor: float) -> None:
    with pytest.raises(
        OverflowRiskError, match=r"some\.layer: a requantisation shift of .* expected 0 to 62"
    ):
        pure_shift(np.array([1.0, factor, 0.5]), "some.layer")


def samples(kind: str, count: int = 4000) -> FloatArray:
    rng = np.random.default_rng(5)
    values = {
        "uniform": rng.uniform(-3, 3, count),
        "normal": rng.normal(0, 1, count),
        "heavy tails": rng.standard_t(3, count),
        "one outlier": np.append(rng.normal(0, 1, count - 1), 30.0),
        "gelu": np.maximum(rng.normal(0, 1, count), -0.17),
        "few": np.array([1.0, -1.0, 0.5]),
        "negative": -np.abs(rng.normal(0, 1, count)),
    }
    return values[kind]


KINDS = ["uniform", "normal", "heavy tails", "one outlier", "gelu", "few", "negative"]


def squared_error(values: FloatArray, scale: float, width: int, zero: int = 0) -> float:
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    kept = np.minimum(np.maximum(np.floor(values / scale + 0.5) + zero, low), high)
    return float((((kept - zero) * scale - values) ** 2).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [4, 8, 10, 16])
def test_whole_ranges_hold_every_value_and_no_more(kind: str, width: int) -> None:
    values, top = samples(kind), 2 ** (width - 1) - 1
    low, high = min(values.min(), 0.0), max(values.max(), 2.0**-20)
    scale, zero = whole_range(float(values.min()), float(values.max()), width)
    assert -top - 1 <= zero <= top
    for end in (low, high):
        whole = math.floor(end / scale + 0.5) + zero
        assert abs((min(max(whole, -top - 1), top) - zero) * scale - end) <= 1.01 * scale
    assert scale == (high - low) / (2 * top + 1)
    largest = float(np.abs(values).max())
    assert whole_range_scale(largest, width) * top == pytest.approx(largest)


@pytest.mark.parametrize("width", [12, 16, 18])
def test_wide_weights_are_not_clipped(width: int) -> None:
    values = samples("one outlier")
    rows = np.stack([values, -2 * values])
    assert_array_equal(weight_scales(rows, width), np.array([30.0, 60.0]) / (2 ** (width - 1) - 1))


def test_scales_of_nothing_are_scales() -> None:
    for width in (8, 16):
        assert 0 < whole_range_scale(0.0, width) < math.inf
        assert 0 < whole_range(0.0, 0.0, width)[0] < math.inf
        assert (weight_scales(np.zeros((3, 4)), width) > 0).all()


@pytest.mark.parametrize("width", [4, 8])
def test_weight_scales_are_chosen_row_by_row(width: int) -> None:
    rows = np.stack([samples(kind, 300) * 10.0**i for i, kind in enumerate(KINDS[:4])])
    scales = weight_scales(rows, width)
    assert_array_equal(scales, [weight_scales(row[None], width)[0] for row in rows])
    for row, scale in zip(rows, scales, strict=True):
        whole = float(np.abs(row).max()) / (2 ** (width - 1) - 1)
        errors = [squared_error(row, whole * clip, width) for clip in np.arange(21, 41) / 40]
        assert squared_error(row, scale, width) <= min(errors) * (1 + 1e-9)


# --- Learned rounding ---------------------------------------------------------------------------------------


def correlated(rows: int, inputs: int, seed: int) -> FloatArray:
    """Inputs that follow a few hidden causes, with a mean."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(rows, max(1, inputs // 4))) @ rng.normal(size=(max(1, inputs // 4), inputs))
    return causes + 0.3 * rng.normal(size=(rows, inputs)) + rng.normal(size=inputs)


def nearest(weight: FloatArray, scale: FloatArray, width: int) -> FloatArray:
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    return np.clip(np.floor(weight / scale[:, None] + 0.5), low, high)


def output_error(weight: FloatArray, integers: FloatArray, scale: FloatArray, x: FloatArray) -> FloatArray:
    return np.asarray(((x @ (integers * scale[:, None] - weight).T) ** 2).sum(axis=0))


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("inputs", [24, 31, 32, 33, 64, 100])
def test_learned_rounding_has_less_output_error(inputs: int, width: int) -> None:
    weight = np.random.default_rng(inputs).normal(size=(40, inputs))
    scale, x = weight_scales(weight, width), correlated(500, inputs, inputs)
    learned = output_error(weight, round_weights(weight, scale, width, x.T @ x), scale, x)
    plain = output_error(weight, nearest(weight, scale, width), scale, x)
    assert learned.sum() < 0.5 * plain.sum()
    assert (learned < plain).mean() > 0.8
    # On inputs of the same kind that it has not seen, too.
    unseen = np.concatenate([correlated(500, inputs, inputs), x])[::2]
    assert (
        output_error(weight, round_weights(weight, scale, width, x[::2].T @ x[::2]), scale, unseen).sum()
        < 0.7 * output_error(weight, nearest(weight, scale, width), scale, unseen).sum()
    )


def rounded_one_by_one(units: FloatArray, energy: FloatArray, width: int) -> FloatArray:
    """Each integer is the nearest to the best real number there, given all integers before it.

    With errors d and energy E, the error d' E d is least where the free errors are -inverse(E_ff) E_fs d_s.
    """
    result = np.empty_like(units)
    for row, out in zip(units, result, strict=True):
        for k in range(len(row)):
            pull = energy[k:, :k] @ (row[:k] - out[:k])
            best = row[k] + np.linalg.solve(energy[k:, k:], pull)[0]
            out[k] = min(max(math.floor(best + 0.5), -(2 ** (width - 1))), 2 ** (width - 1) - 1)
    return result


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("inputs", [1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 5])
def test_learned_rounding_is_optimal_integer_by_integer(inputs: int, width: int) -> None:
    weight = np.random.default_rng(width).normal(size=(6, inputs))
    scale, x = weight_scales(weight, width), correlated(200, inputs, 3)
    energy = x.T @ x
    energy += np.eye(inputs) * DAMPING * np.trace(energy) / inputs
    expected = rounded_one_by_one(weight / scale[:, None], energy, width)
    assert_array_equal(round_weights(weight, scale, width, x.T @ x), expected)


@pytest.mark.parametrize("energy", [None, np.zeros((9, 9)), np.diag(np.full(9, 9.0))])
def test_rounding_is_to_nearest_where_there_is_nothing_to_learn(energy: FloatArray | None) -> None:
    """No inputs, dead inputs, and inputs that are not correlated."""
    weight = np.random.default_rng(0).normal(size=(11, 9))
    scale = 1.5 * weight_scales(weight, 4)
    scale[3] *= 0.2
    assert_array_equal(round_weights(weight, scale, 4, energy), nearest(weight, scale, 4))
    assert nearest(weight, scale, 4)[3].min() == -8


def test_ties_go_up() -> None:
    weight = np.array([[0.5, -0.5, 1.5, -1.5, 126.5, 127.5, -128.5, -129.0]])
    assert round_weights(weight, np.ones(1), 8, None).tolist() == [[1, 0, 2, -1, 127, 127, -128, -128]]


def test_whole_weights_stay_and_arguments_are_left_alone() -> None:
    weight = np.random.default_rng(2).integers(-128, 128, (7, 40)).astype(np.float64)
    x = correlated(100, 40, 4)
    energy = x.T @ x
    before = weight.copy(), energy.copy()
    assert_array_equal(round_weights(weight, np.ones(7), 8, energy), weight)
    round_weights(weight + 0.3, np.ones(7), 8, energy)
    assert_array_equal(weight, before[0])
    assert_array_equal(energy, before[1])


@pytest.mark.parametrize("width", [4, 8])
def test_learned_rounding_stays_in_range_and_rows_do_not_mix(width: int) -> None:
    weight = np.random.default_rng(6).normal(size=(12, 50))
    scale, x = np.full(12, 0.4 * weight_scales(weight, width).min()), correlated(60, 50, 8)
    x[:, [3, 17, 49]] = 0  # rare inputs have no energy of their own
    whole = round_weights(weight, scale, width, x.T @ x)
    assert (whole.min(), whole.max()) == (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    assert_array_equal(whole, np.round(whole))
    for row in range(len(weight)):
        assert_array_equal(whole[row], round_weights(weight[[row]], scale[[row]], width, x.T @ x)[0])


# --- Balance ------------------------------------------------------------------------------------------------


def statistic_of(values: FloatArray) -> Statistic:
    return Statistic(values.min(axis=0), values.max(axis=0), values.sum(axis=0), len(values), values)


@pytest.mark.parametrize("readers", [1, 3, 6])
def test_balance_can_be_undone_and_helps(readers: int) -> None:
    rng = np.random.default_rng(readers)
    y = rng.normal(size=(300, 20)) * np.geomspace(0.05, 20, 20) + rng.normal(size=20) * 5
    weights = [rng.normal(size=(15, 20)) for _ in range(readers)]
    balance = choose(statistic_of(y), weights, 8, 8)
    assert (balance.scale > 0).all()
    assert_allclose(np.log(balance.scale).mean(), 0, atol=1e-12)
    balanced = (y - balance.offset) / balance.scale
    errors = {}
    for name, used in (("with", balance), ("without", Balance.identity(20))):
        moved = (y - used.offset) / used.scale
        step = whole_range_scale(float(np.abs(moved).max()), 8)
        kept = np.clip(round_half_up(moved / step), -128, 127) * step
        errors[name] = 0.0
        for weight in weights:
            inner = weight * used.scale
            scale = weight_scales(inner, 8)
            result = kept @ (nearest(inner, scale, 8) * scale[:, None]).T + weight @ used.offset
            errors[name] += float(((result - y @ weight.T) ** 2).sum())
    for weight in weights:
        assert_allclose(balanced @ (weight * balance.scale).T + weight @ balance.offset, y @ weight.T)
    assert errors["with"] < 0.5 * errors["without"]


@pytest.mark.parametrize("dead", ["activations", "weights", "both", "one channel"])
def test_balance_of_dead_channels_is_finite(dead: str) -> None:
    rng = np.random.default_rng(3)
    y, weight = rng.normal(size=(50, 6)), rng.normal(size=(4, 6))
    if dead in ("activations", "both"):
        y[:] = 0
    if dead in ("weights", "both"):
        weight[:] = 0
    if dead == "one channel":
        y[:, 2], weight[:, 4] = 1.5, 0
    balance = choose(statistic_of(y), [weight], 8, 8)
    assert np.isfinite(balance.scale).all() and np.isfinite(balance.offset).all()
    assert (balance.scale > 0).all()


# --- Ranges and rows of calibration -------------------------------------------------------------------------


def shown(values: FloatArray, batch: int = 1000, **given: Any) -> Statistic:
    """What calibration keeps of rows that it is shown in batches."""
    rows = RowCollector(with_moments=True)
    keys = np.random.default_rng(0).random(len(values))
    for start in range(0, len(values), batch):
        part = slice(start, start + batch)
        each = {name: None if array is None else array[part] for name, array in given.items()}
        rows.add(values[part], keys[part], each.get("prefix"), each.get("weights"))
    return rows.result()


def test_one_row_of_seventy_deviations_is_held(micro: Model, images: Pixels) -> None:
    """The row that an even sample misses is the one that counts: DINOv2's class token in a hidden neuron."""
    rng = np.random.default_rng(11)
    values = rng.normal(0, 0.2, (4112, 24))
    values[4100, 5] = 14.0
    rows = RowCollector(with_moments=False)
    # The largest key: an even sample will not have it.
    keys = np.append(rng.random(len(values) - 1), 1.0)
    keys[[4100, -1]] = keys[[-1, 4100]]
    rows.add(values, keys, None, None)
    statistic = rows.result()
    assert (statistic.samples < 2).all() and statistic.high[5] == 14.0
    assert (statistic.extremes == values[4100]).all(axis=1).any()
    assert statistic.extent == (values.min(), 14.0)
    scale, zero = whole_range(*statistic.extent, 8)
    assert (127 - zero) * scale >= 14.0 - scale
    # And so does the balanced range of an operand, whatever the choice.
    balance = choose(statistic, [rng.normal(size=(16, 24))], 8, 8)
    moved = statistic.affine(balance.scale, balance.offset)
    assert 127 * whole_range_scale(moved.largest, 8) >= (14.0 - balance.offset[5]) / balance.scale[5] * (
        1 - 1e-12
    )


def test_designs_hold_what_their_samples_miss(
    micro: Model, images: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrated_rows, "SAMPLED_ROWS", 2)
    monkeypatch.setattr(calibrated_rows, "EXTREME_ROWS", 1)
    design = quantize(micro, images, PRESETS["w8a10"])
    hidden = {
        op.output.name: op.output.format
        for op in of_type(design.program, Linear)
        if op.activation is not None
    }
    largest = dict.fromkeys(hidden, 0.0)

    def tap(name: str, value: FloatArray) -> None:
        if name in hidden:
            largest[name] = max(largest[name], float(value.max()))

    for task in range(len(micro.spec.tasks)):
        reference.run(micro, images, task, tap=tap)
    for name, fmt in hidden.items():
        scale, offset = design.decode(name)
        assert (fmt.max * scale + offset >= largest[name] - scale).all(), name
    assert hidden


def test_rows_of_prefix_tokens_are_kept() -> None:
    values = np.random.default_rng(12).normal(size=(4112, 6))
    prefix = np.arange(4112) % 257 == 0
    statistic = shown(values, prefix=prefix)
    kept = {tuple(row) for row in statistic.extremes}
    assert {tuple(row) for row in values[prefix]} <= kept
    norms = np.sort((values**2).sum(axis=1))
    assert np.isin(norms[-EXTREME_ROWS:], (statistic.extremes**2).sum(axis=1)).all()
    assert len(statistic.samples) == SAMPLED_ROWS


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_those_of_all_rows(weighted: bool) -> None:
    """Far from zero, too: what counts is the spread about the mean."""
    rng = np.random.default_rng(13)
    values = rng.normal(size=(2500, 8)) @ rng.normal(size=(8, 8)) + 1000 * rng.normal(size=8)
    weights = rng.uniform(0.1, 2, 2500) if weighted else None
    statistic = shown(values, weights=weights)
    assert statistic.moments is not None
    expected = np.cov(values.T, aweights=weights, bias=True)
    assert_allclose(statistic.moments.covariance(), expected, atol=1e-4 * np.abs(expected).max())
    assert_allclose(statistic.mean, np.average(values, axis=0, weights=weights), rtol=1e-10)
    assert_array_equal(statistic.low, values.min(axis=0))
    assert_array_equal(statistic.high, values.max(axis=0))


def test_attention_holds_half_of_what_values_allow(micro: Model, images: Pixels) -> None:
    """Its output is an average of values: another image may bring more of them than calibration's averages were."""
    design = quantize(micro, images, PRESETS["w8a8"])
    statistics = calibrate(micro, images, lambda done: None)
    for layer in range(micro.spec.depth):
        scale, offset = design.decode(f"blocks.{layer}.attention")
        own, values = statistics[f"blocks.{layer}.attention"], statistics[f"blocks.{layer}.v"]
        assert (own.high < values.high).all() and (own.low > values.low).all()
        assert (127 * scale + offset >= (own.high + values.high) / 2 - 0.01 * scale).all()
        assert (-127 * scale + offset <= (own.low + values.low) / 2 + 0.01 * scale).all()


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_keys_are_centred(micro: Model, images: Pixels, preset: str) -> None:
    """A large constant in the keys costs nothing: softmax does not see it."""
    bias = micro.weights["blocks.2.attn.qkv.bias"].copy()
    bias[24:48] += 40 * np.sign(bias[24:48])
    model = Model(micro.spec, micro.weights | {"blocks.2.attn.qkv.bias": bias})
    plain, moved = (quantize(each, images, PRESETS[preset]) for each in (micro, model))
    assert_array_equal(plain.decode("blocks.2.k")[0], moved.decode("blocks.2.k")[0])
    assert_allclose(np.abs(moved.decode("blocks.2.k")[1] - plain.decode("blocks.2.k")[1]), 40, rtol=1e-5)
    runs = [edgemoe.simulate(each, images[:2], trace=True) for each in (plain, moved)]
    keys = [run.trace["blocks.2.k"] for run in runs]
    assert np.abs(keys[0] - keys[1]).max() <= 1
    every = [edgemoe.simulate(moved, images, task, trace=True).trace["blocks.2.k"] for task in range(2)]
    low, high = np.min(every, axis=(0, 1)), np.max(every, axis=(0, 1))
    assert (np.abs(low + high) < 0.02 * (high - low)).all()
    compared = edgemoe.compare(model, moved, images[:2], 0, simulation=runs[1])
    scores = next(stage for stage in compared.stages if stage.name == "blocks.2.scores")
    assert scores.sqnr_db > {"w16a16": 60, "w8a8": 25}[preset]


# --- A Design read back -------------------------------------------------------------------------------------

READABLE = {
    "w16a16": PRESETS["w16a16"],
    "w8a8": PRESETS["w8a8"],
    "balanced": Precision(name="balanced", activation_width=8, multipliers=True, balanced=True),
    "shifts": Precision(name="shifts", weight_width=14, activation_width=10, learned_rounding=True),
}
"""w8a8's weights are learned, and clipped: of 16 bits and to nearest they can be told from the exact ones."""


@pytest.fixture(scope="module")
def statistics(micro: Model, images: Pixels) -> dict[str, Statistic]:
    return calibrate(micro, images, lambda done: None, moments=True)


@pytest.fixture(scope="module", params=READABLE)
def readable(request: pytest.FixtureRequest, micro: Model, images: Pixels) -> Design:
    return quantize(micro, images, READABLE[request.param])


def factor_of(design: Design, name: str, index: Any = ()) -> FloatArray:
    """Of a layer's requantisation: units of its sums in units of its result."""
    multiplier = design.tensors.get(f"{name}.multiplier")
    m = 1.0 if multiplier is None else multiplier[index].astype(np.float64)
    return np.asarray(np.ldexp(m, -design.tensors[f"{name}.shift"][index].astype(np.int64)))


def layers_of(model: Model, design: Design) -> Any:
    """Every linear layer: name, index, float weight and bias, operand's tensor and its scale, results' scale
    and offset."""
    spec, tensors = model.spec, design.tensors
    lsb, learned = design.residual.lsb, design.precision.learned_rounding
    for layer in range(spec.depth):
        block = f"blocks.{layer}"
        parts = [design.decode(f"{block}.{part}") for part in "qkv"]
        qkv = tuple(np.concatenate([part[i] for part in parts]) for i in (0, 1))
        weight, bias = model[f"{block}.attn.qkv.weight"], model.qkv_bias(layer)
        yield f"{block}.qkv", (), weight, bias, f"{block}.norm1", design.decode(f"{block}.norm1"), qkv
        weight, bias = model[f"{block}.attn.proj.weight"], model[f"{block}.attn.proj.bias"]
        operand = f"{block}.attention"
        yield f"{block}.proj", (), weight, bias, operand, design.decode(operand), (lsb, 0.0)
        norm, hidden = (design.decode(f"{block}.{part}") for part in ("norm2", "hidden"))
        moe = layer in spec.moe_layers
        experts: list[Any] = [(i,) for i in range(spec.moe.experts)] if moe and spec.moe else [()]
        for index in experts:
            source = f"{block}.{'moe' if moe else 'mlp'}"
            fc1, fc1_bias, fc2, fc2_bias = (
                model[f"{source}.{part}"][index]
                for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
            )
            given = f"{block}.experts.{index[0]}.input" if moe and learned else f"{block}.norm2"
            yield f"{block}.fc1", index, fc1, fc1_bias, given, norm, (GELU_INPUT.lsb, 0.0)
            own = tuple(part[index or (0,)] for part in hidden)
            seen = f"{block}.experts.{index[0]}.hidden" if moe else f"{block}.hidden"
            yield f"{block}.fc2", index, fc2, fc2_bias, seen, own, (lsb, 0.0)
        if moe:
            shifts = [design.scalar(f"{block}.norm2.{kind}") for kind in ("gate_shift", "shift")]
            finer = norm[0] * 2.0 ** (shifts[0] - shifts[1])
            for task in range(len(spec.tasks)):
                gate, gate_bias = model.gate(layer, task)
                score = SCORE.lsb * math.log(2)
                assert tensors[f"{block}.gate.weight"].shape[0] == len(spec.tasks)
                operands = (finer, norm[1])
                yield f"{block}.gate", (task,), gate, gate_bias, f"{block}.norm2", operands, (score, 0.0)


def test_every_layer_means_its_float_layer(
    micro: Model, readable: Design, statistics: dict[str, Statistic]
) -> None:
    """Balance, scales, zero points, log2(e) and 1/sqrt(head dim) undone, the float layer is left.

    On the mean of its calibrated inputs (of narrow ones after their rounding), exactly but for the rounding of the
    bias: bias correction sees to it.
    """
    width, nearest_weights = readable.precision.activation_width, not readable.precision.learned_rounding
    layers = 0
    for name, index, weight, bias, operand, (scale, offset), (unit, zero) in layers_of(micro, readable):
        integers = readable.tensors[f"{name}.weight"][index].astype(np.float64)
        whole_bias = readable.tensors[f"{name}.bias"][index]
        # One unit of a sum, in real units.
        step = factor_of(readable, name, index) * unit
        meant = integers * step[:, None] / scale
        error = np.abs(meant - weight)
        half = (step[:, None] / np.broadcast_to(scale, weight.shape)) * 0.5
        if nearest_weights:
            assert (error <= half * 1.01 + np.abs(weight) * 2.0**-15).all(), name
        # Learned ones stray, but on the whole the layer is there.
        assert np.sqrt((error**2).mean()) < 0.02 * np.abs(weight).max(), name
        seen = statistics[operand]
        layers += 1
        mean, rounded = (seen.mean - offset) / scale, (seen.samples - offset) / scale
        if not nearest_weights and width < 12 and "gate" not in name:
            # Zero points stand in the offset, of which they are a whole number.
            limits = (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
            mean = mean + (np.clip(np.floor(rounded + 0.5), *limits) - rounded).mean(axis=0)
        result = (integers @ mean + whole_bias) * step + zero
        exact = weight @ seen.mean + bias
        tolerance = step + 2.0**-15 * (
            np.abs(meant * scale) @ np.abs((seen.mean - offset) / scale) + np.abs(exact)
        )
        tolerance += 2.0**-15 * np.abs(whole_bias * step)
        assert (np.abs(result - exact) <= tolerance).all(), name
    assert layers > 4 * micro.spec.depth


def test_every_norm_means_its_float_norm(micro: Model, readable: Design) -> None:
    for layer in range(micro.spec.depth):
        for norm in ("norm1", "norm2"):
            name = f"blocks.{layer}.{norm}"
            scale, offset = readable.decode(name)
            shift = readable.scalar(f"{name}.shift")
            gamma, beta = readable.tensors[f"{name}.gamma"], readable.tensors[f"{name}.beta"]
            unit = scale * 2.0 ** -(shift - NORMALIZED.frac)
            assert_array_equal(np.abs(gamma * unit - micro[f"{name}.weight"]) <= 0.501 * unit, True)
            assert_allclose(beta * scale * 2.0**-shift + offset, micro[f"{name}.bias"], atol=1e-5)
            # An 18-bit port, used to the full.
            assert 1 << 15 <= np.abs(gamma).max() < 1 << 17


def test_patches_and_positions_mean_the_float_embedding(
    micro: Model, readable: Design, statistics: dict[str, Statistic]
) -> None:
    lsb = readable.residual.lsb
    weight = micro["patch_embed.weight"].reshape(micro.spec.dim, -1)
    step = factor_of(readable, "patch") * lsb
    assert (np.abs(readable.tensors["position"] * lsb - micro["pos_embed"]) <= 0.5 * lsb).all()
    error = np.abs(readable.tensors["patch.weight"] * step[:, None] * 256 - weight)
    # All but the clipped ones and what learned rounding moves; the coarsest grid is that of a multiplier, 2**-16.
    least = 0.8 if readable.precision.learned_rounding else 0.98
    assert (error <= 0.51 * 256 * step[:, None] + 2.0**-16 * np.abs(weight)).mean() > least
    # Pixels are centred, with half of the weights in the bias; on the mean of those calibrated nothing else is left.
    mean = statistics["pixels"].mean
    found = (readable.tensors["patch.weight"] @ (256 * mean) + readable.tensors["patch.bias"]) * step
    exact = micro["patch_embed.bias"] + 0.5 * weight.sum(axis=1) + weight @ mean
    assert_allclose(found, exact, atol=float(2 * step.max()), rtol=2.0**-15)


def test_balanced_network_is_the_float_network(micro: Model, images: Pixels) -> None:
    """With integers so wide that nothing else is left to see."""
    wide = {f"{part}_width": 18 for part in ("weight", "activation", "attention", "gate")}
    plain, balanced = (
        quantize(micro, images, Precision(name="wide", multipliers=True, balanced=balance, **wide))
        for balance in (False, True)
    )
    assert (plain.tensors["blocks.0.norm1.gamma"] != balanced.tensors["blocks.0.norm1.gamma"]).any()
    for design in (plain, balanced):
        assert edgemoe.compare(micro, design, images, 1).sqnr_db_same_routing > 80


def test_activations_wider_than_the_gate(micro: Model, images: Pixels) -> None:
    design = quantize(micro, images, Precision(name="wide", activation_width=18, gate_width=16))
    assert edgemoe.compare(micro, design, images, 1).sqnr_db_same_routing > 70


def test_a_gate_narrower_or_wider_than_weights(micro: Model, images: Pixels) -> None:
    for width in (14, 18):
        design = quantize(micro, images, Precision(name="gate", activation_width=14, gate_width=width))
        assert edgemoe.compare(micro, design, images, 1).sqnr_db_same_routing > 65


def test_learned_rounding_and_balance_help(micro: Model, images: Pixels) -> None:
    """Each alone is worth a few dB at 8 bits."""
    sqnr = {}
    for learned in (False, True):
        for balanced in (False, True):
            options = PRESETS["w8a8"].model_dump() | {"learned_rounding": learned, "balanced": balanced}
            design = quantize(micro, images, Precision.model_validate(options))
            sqnr[learned, balanced] = edgemoe.compare(micro, design, images).sqnr_db_same_routing
    assert sqnr[True, True] > max(sqnr[False, True], sqnr[True, False]) > sqnr[False, False]


def test_w16a16_of_the_zoo_is_close_to_float() -> None:
    model = init_model(find_spec("micro"))
    images = edgemoe.random_images(model, 8)
    design = quantize(model, images, PRESETS["w16a16"])
    for task in model.spec.tasks:
        assert edgemoe.compare(model, design, images, task).sqnr_db_same_routing >= 45


def test_residual_stream_holds_twice_what_calibration_saw(
    designs: dict[str, Design], statistics: dict[str, Statistic], micro: Model
) -> None:
    largest = max(
        statistics[f"blocks.{layer}.{name}"].largest
        for layer in range(micro.spec.depth)
        for name in ("attn_residual", "output")
    )
    for name in ("w16a16", "w8a8"):
        residual = designs[name].residual
        assert residual.max * residual.lsb >= 2 * largest > residual.max * residual.lsb / 2
    assert str(designs["iccad23"].residual) == "ap_fixed<32, 10>"


def test_epsilon_is_in_units_of_the_variance(micro: Model, images: Pixels) -> None:
    for epsilon in (1e-6, 1e-3, 0.1):
        spec = micro.spec.model_copy(update={"norm_eps": epsilon})
        design = quantize(Model(spec, micro.weights), images, PRESETS["w16a16"])
        assert design.scalar("epsilon") == round(epsilon * spec.dim**2 * 4**design.residual_frac)


# --- Unusual networks ---------------------------------------------------------------------------------------


def changed(model: Model, **changes: Any) -> Model:
    """A copy whose tensors of these names (`__` for a dot) are multiplied by a number or an array."""
    factors = {name.replace("__", "."): factor for name, factor in changes.items()}
    return Model(
        model.spec,
        {
            name: (tensor * np.asarray(factors.get(name, 1.0), np.float32)).astype(np.float32)
            for name, tensor in model.weights.items()
        },
    )


def no_values(dim: int) -> NDArray[np.float32]:
    return np.repeat(np.array([1, 1, 0], np.float32), dim)


DEAD: dict[str, dict[str, Any]] = {
    "V weights": {"blocks__0__attn__qkv__weight": no_values(24)[:, None]},
    "V": {
        "blocks__0__attn__qkv__weight": no_values(24)[:, None],
        "blocks__0__attn__qkv__bias": no_values(24),
    },
    "Q and K": {"blocks__2__attn__qkv__weight": 1 - no_values(24)[:, None], "blocks__2__attn__qkv__bias": 0},
    "projection": {"blocks__1__attn__proj__weight": 0},
    "gamma": {"blocks__0__norm1__weight": 0},
    "gamma of experts": {"blocks__1__norm2__weight": 0},
    "gamma and beta": {"blocks__0__norm1__weight": 0, "blocks__0__norm1__bias": 0},
    "gamma and beta of experts": {"blocks__1__norm2__weight": 0, "blocks__1__norm2__bias": 0},
    "one channel of gamma": {"blocks__1__norm1__weight": np.arange(24) != 7},
    "one expert": {
        "blocks__1__moe__fc1__weight": (np.arange(5) != 2)[:, None, None],
        "blocks__1__moe__fc1__bias": (np.arange(5) != 2)[:, None],
    },
    "one expert's output": {"blocks__1__moe__fc2__weight": (np.arange(5) != 2)[:, None, None]},
    "gates": {"blocks__1__moe__gate__weight": 0},
    "hidden": {"blocks__0__mlp__fc1__weight": 0, "blocks__0__mlp__fc1__bias": 0},
    "patches": {"patch_embed__weight": 0},
    "patches and positions": {"patch_embed__weight": 0, "patch_embed__bias": 0, "pos_embed": 0},
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dead", DEAD)
def test_dead_parts_are_quantised(micro: Model, images: Pixels, dead: str, preset: str) -> None:
    model = changed(micro, **DEAD[dead])
    design = quantize(model, images, PRESETS[preset])
    compared = edgemoe.compare(model, design, images[:3], 1)
    assert compared.sqnr_db_same_routing > {"w16a16": 70, "w8a8": 30, "w8a10": 30, "iccad23": 35}[preset]


@pytest.mark.parametrize("preset", PRESETS)
def test_all_zero_network_is_quantised_and_returns_zeros(micro: Model, images: Pixels, preset: str) -> None:
    model = Model(micro.spec, {name: np.zeros_like(tensor) for name, tensor in micro.weights.items()})
    design = quantize(model, images, PRESETS[preset])
    result = edgemoe.simulate(design, images[:2], 1)
    assert not result.integers.any()
    # All logits are equal: the lowest numbers win.
    assert all((routing.experts == [0, 1]).all() for routing in result.routing.values())


def scaled(model: Model, factor: float) -> Model:
    return changed(model, **dict.fromkeys(model.weights, factor))


@pytest.mark.parametrize(("preset", "least"), [("w16a16", [90, 90, 90, 50]), ("w8a8", [50, 50, 50, 45])])
@pytest.mark.parametrize(
    ("factor", "frac", "index"), [(1e-2, 27, 0), (1e-4, 33, 1), (1e-6, 36, 2), (1e-8, 36, 3)]
)
def test_small_weights_get_the_fraction_bits_they_need(
    micro: Model, images: Pixels, preset: str, least: list[int], factor: float, frac: int, index: int
) -> None:
    """The finest stream is the one whose epsilon, 1e-6 * 24**2 * 4**36, still has a place of 63 bits."""
    model = scaled(micro, factor)
    design = quantize(model, images, PRESETS[preset])
    assert design.residual_frac == frac
    run = edgemoe.simulate(design, images[:4], 0)
    assert run.integers.any()
    assert edgemoe.compare(model, design, images[:4], 0, simulation=run).sqnr_db_same_routing > least[index]
    for name, tensor in design.tensors.items():
        assert not name.endswith("shift") or tensor.max() <= MAX_SHIFT, name
    assert design.residual.min <= design.tensors["position"].min()
    assert design.tensors["position"].max() <= design.residual.max
    assert design.scalar("epsilon") == max(round(1e-6 * 24**2 * 4**frac), 16)


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_small_values_between_large_weights_keep_their_bits(
    micro: Model, images: Pixels, preset: str
) -> None:
    """A thousandth of a millionth out of one layer, times as much in the next."""
    half = np.repeat(np.array([1e-6, 1e6, 1e-6], np.float32), 24)
    model = changed(
        micro,
        blocks__0__attn__qkv__weight=half[:, None],
        blocks__0__attn__qkv__bias=half,
        blocks__0__attn__proj__weight=1e6,
        blocks__1__norm1__weight=1e-6,
        blocks__1__norm1__bias=1e-6,
        blocks__1__attn__qkv__weight=1e6,
    )
    least = edgemoe.compare(micro, quantize(micro, images, PRESETS[preset]), images, 0).sqnr_db_same_routing
    compared = edgemoe.compare(model, quantize(model, images, PRESETS[preset]), images, 0)
    # A million is no power of two: a scale that is may lose up to a bit of one tensor.
    assert compared.sqnr_db_same_routing > least - 2


def test_a_small_stream_between_ordinary_norms(micro: Model, images: Pixels) -> None:
    """LayerNorm leaves less than a unit of it, because of its epsilon: nothing to be scaled up."""
    stream = ("pos_embed", "patch_embed", "proj", "fc2")
    small = {name: 1e-10 for name in micro.weights if any(part in name for part in stream)}
    none = {name: 0.0 for name in micro.weights if re.search(r"norm\d\.bias", name)}
    model = changed(micro, **small, **none)
    design = quantize(model, images, PRESETS["w16a16"])
    assert design.residual_frac == 36
    assert edgemoe.compare(model, design, images, 0).sqnr_db_same_routing > 15


def test_dark_calibration_narrows_nothing(micro: Model, images: Pixels) -> None:
    """Ordinary weights beside small positions: what black images leave of them is not all there will be."""
    quiet = {name: 0.01 for name in micro.weights if "blocks" in name or name == "pos_embed"}
    model = changed(micro, **quiet, patch_embed__bias=0.0)
    assert quantize(model, np.zeros_like(images), PRESETS["w8a8"]).residual_frac == 24
    dim = changed(model, patch_embed__weight=0.001)
    design = quantize(dim, np.zeros_like(images), PRESETS["w8a8"])
    assert design.residual_frac > 24
    bright = edgemoe.simulate(design, np.full_like(images, 255), 0, trace=True).trace["embed"]
    assert np.abs(bright).max() < design.residual.max


def test_units_too_fine_for_any_shift_are_taken_back(micro: Model, images: Pixels) -> None:
    """Large weights whose queries nearly cancel: the sums cannot be shifted up to the units those would need."""
    model = changed(micro, blocks__0__norm1__weight=0.0, blocks__0__norm1__bias=0.0)
    model.weights["blocks.0.norm1.bias"][:2] = 1.0
    model.weights["blocks.0.attn.qkv.weight"][:24, :2] = [1.0, -1.0 + 2.0**-20]
    model.weights["blocks.0.attn.qkv.bias"][:24] = 0
    design = quantize(model, images, PRESETS["w16a16"])
    query, _ = design.decode("blocks.0.q")
    assert query[0] == 2.0**-24 * (math.sqrt(12) / math.log2(math.e))
    assert edgemoe.compare(model, design, images, 0).sqnr_db_same_routing > 70


def test_epsilon_has_63_bits(micro: Model, images: Pixels) -> None:
    """It stands in the weight image as a signed number."""

    def with_epsilon(norm_eps: float) -> Design:
        spec = micro.spec.model_copy(update={"norm_eps": norm_eps})
        return quantize(Model(spec, micro.weights), images, PRESETS["w16a16"])

    frac = with_epsilon(1e3).residual_frac
    first = 2.0**63 / (24**2 * 4.0**frac)
    assert with_epsilon(first * 0.999).scalar("epsilon") > 2**62
    with pytest.raises(OverflowRiskError, match="norm_eps = "):
        with_epsilon(first * 1.001)


HUGE = [
    ("blocks__0__attn__qkv__weight", 1e3, r"blocks\.0:? "),
    ("blocks__0__attn__qkv__weight", 1e12, r"blocks\.0:? "),
    ("blocks__2__mlp__fc1__weight", 1e6, r"blocks\.2\.fc1: a requantisation"),
    ("blocks__2__mlp__fc1__weight", 1e30, r"blocks\.2\.fc1: a requantisation"),
    ("blocks__3__moe__fc1__bias", 1e12, r"blocks\.3\.fc1: a requantisation"),
    ("blocks__1__moe__gate__weight", 1e12, r"blocks\.1\.gate: a requantisation"),
    ("blocks__2__norm1__weight", 1e20, r"blocks\.2:? "),
]


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
@pytest.mark.parametrize(("name", "factor", "message"), HUGE)
def test_huge_weights_are_refused_by_name(
    micro: Model, images: Pixels, name: str, factor: float, message: str, preset: str
) -> None:
    with pytest.raises(OverflowRiskError, match=message) as caught:
        quantize(changed(micro, **{name: factor}), images, PRESETS[preset])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("patch_embed__weight", "patch weight"),
        ("blocks__1__moe__fc2__weight", "linear weight"),
        ("blocks__1__attn__qkv__bias", "attention bias"),
        ("blocks__3__moe__fc2__bias", "linear bias"),
        ("blocks__0__norm1__weight", "norm"),
    ],
)
def test_huge_weights_do_not_fit_the_types_of_the_original(
    micro: Model, images: Pixels, name: str, kind: str
) -> None:
    """The message names the kind of parameter, because all of a kind share one type."""
    with pytest.raises(OverflowRiskError, match=rf"^{kind}: \S+ needs more than the 16 bits") as caught:
        quantize(changed(micro, **{name: 1e6}), images, PRESETS["iccad23"])
    assert caught.value.hint


def test_an_epsilon_beyond_every_variance_is_refused(micro: Model, images: Pixels) -> None:
    tiny = {name: tensor * np.float32(1e-4) for name, tensor in micro.weights.items()}
    spec = micro.spec.model_copy(update={"norm_eps": 1e9})
    with pytest.raises(OverflowRiskError, match="norm_eps = 1000000000"):
        quantize(Model(spec, tiny), images, PRESETS["w16a16"])


@pytest.mark.parametrize("preset", PRESETS)
def test_experts_never_reached_in_calibration(micro_with: MakeModel, preset: str) -> None:
    """They are calibrated by the tokens that came next to choosing them, and work for those that come later."""
    model = micro_with({"gate_bias": True, "layers": [1]}, depth=2)
    images = edgemoe.random_images(model, 6)
    weights = {name: tensor.copy() for name, tensor in model.weights.items()}
    weights["blocks.1.moe.gate.bias"][:, 3] = -60
    design = quantize(Model(model.spec, weights), images, PRESETS[preset])
    run = edgemoe.simulate(design, images, 0)
    assert run.routing[1].lengths[3] == 0
    if preset == "iccad23":
        return
    statistic = calibrate(Model(model.spec, weights), images, lambda done: None)["blocks.1.experts.3.hidden"]
    assert statistic.rows >= FEW_ROWS
    scale, offset = (part[3] for part in design.decode("blocks.1.hidden"))
    if preset != "w16a16":
        ends = float(statistic.low.min()), float(statistic.high.max())
        width = PRESETS[preset].activation_width
        assert (scale, -offset / scale) == pytest.approx(whole_range(*ends, width))
    else:
        assert scale == 2.0 ** -power_of_two(statistic.largest, 16)
    # The same integers, behind a gate that has come to like the expert.
    bias = design.tensors["blocks.1.gate.bias"].copy()
    bias[:, 3] = bias[:, 4] + abs(bias).max() // 2
    fond = replace(design, tensors=design.tensors | {"blocks.1.gate.bias": bias})
    run = edgemoe.simulate(fond, images, 0)
    assert run.routing[1].lengths[3] > 0
    same = edgemoe.compare(Model(model.spec, weights), fond, images, 0, simulation=run)
    assert np.isfinite(same.sqnr_db_same_routing)


@pytest.mark.parametrize("preset", PRESETS)
def test_one_calibration_image(micro: Model, images: Pixels, preset: str) -> None:
    design = quantize(micro, images[:1], PRESETS[preset])
    least = {"w16a16": 70, "w8a8": 15, "w8a10": 15, "iccad23": 45}[preset]
    assert edgemoe.compare(micro, design, images, 0).sqnr_db_same_routing > least


@pytest.mark.parametrize("preset", PRESETS)
def test_no_calibration_image(micro: Model, images: Pixels, preset: str) -> None:
    with pytest.raises(InputError, match="no calibration image"):
        quantize(micro, images[:0], PRESETS[preset])


# --- Limits of a Design -------------------------------------------------------------------------------------


def altered(design: Design, name: str, index: Any, value: int) -> Design:
    """The Design with one value of a tensor changed; it is checked again."""
    tensor = design.tensors[name].copy()
    tensor[index] = value
    return replace(design, tensors=design.tensors | {name: tensor})


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("preset", "name", "operand", "limit"),
    [
        # 48 bits of an accumulator, the sign among them; with a multiplier of 16, 62 bits.
        ("w16a16", "blocks.0.proj", 2**15, 2**47),
        ("w16a16", "blocks.1.gate", 2**15, 2**47),
        ("w16a16", "patch", 2**7, 2**47),
        ("w8a8", "blocks.0.proj", 2**7, 2**46),
        ("w8a8", "blocks.1.gate", 2**15, 2**46),
    ],
)
def test_accumulators_hold_what_they_hold(
    designs: dict[str, Design], preset: str, name: str, operand: int, limit: int, sign: int
) -> None:
    """The largest sum and bias of any image: just below the limit it fits, at the limit it does not."""
    design, row = designs[preset], (0,) * designs[preset].tensors[f"{name}.bias"].ndim
    weights = np.abs(design.tensors[f"{name}.weight"][row].astype(np.int64)).sum()
    room = limit - operand * int(weights)
    altered(design, f"{name}.bias", row, sign * (room - 1))
    bits = limit.bit_length() + (1 if preset == "w16a16" else 16)
    with pytest.raises(OverflowRiskError, match=rf"^{name}: .* may need {bits} bits"):
        altered(design, f"{name}.bias", row, sign * room)


@pytest.mark.parametrize("norm", ["blocks.0.norm1", "blocks.3.norm2"])
def test_gamma_has_18_bits(designs: dict[str, Design], norm: str) -> None:
    for sign in (1, -1):
        altered(designs["w8a8"], f"{norm}.gamma", 5, sign * (2**17 - 1))
        with pytest.raises(OverflowRiskError, match=rf"^{norm}\.gamma: 131072 needs more than 18 bits"):
            altered(designs["w8a8"], f"{norm}.gamma", 5, sign * 2**17)


def test_shifts_end_at_62(designs: dict[str, Design]) -> None:
    altered(designs["w16a16"], "blocks.2.fc1.shift", 3, 62)
    with pytest.raises(OverflowRiskError, match=r"^blocks\.2\.fc1\.shift: 63, expected at most 62"):
        altered(designs["w16a16"], "blocks.2.fc1.shift", 3, 63)


def test_attention_weighs_up_to_4095_tokens(designs: dict[str, Design]) -> None:
    """Times 2**25 and values of 16 bits: 53 bits, which a float64 holds."""
    spec = designs["w16a16"].spec

    def with_tokens(patches: int) -> None:
        size = spec.patch_size
        wider = spec.model_copy(update={"image_size": (size, patches * size)})
        replace(designs["w16a16"], spec=wider)

    with_tokens(4094)
    with pytest.raises(OverflowRiskError, match="attention over 4096 tokens may need 54 bits, there are 53"):
        with_tokens(4095)


# --- What comes with a Design -------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_reports_contain_every_weight_tensor(designs: dict[str, Design], preset: str) -> None:
    design = designs[preset]
    reported = {report.name: report for report in design.reports if report.kind == "weight"}
    expected = set()
    for name, tensor in design.tensors.items():
        if not name.endswith(".weight"):
            continue
        if preset == "iccad23":
            expected.add(name)
        elif tensor.ndim == 3:
            expected |= {f"{name.removesuffix('.weight')}.{i}" for i in range(len(tensor))}
        else:
            expected.add(name.removesuffix(".weight"))
    assert expected <= set(reported)
    assert expected == set(reported) or preset == "iccad23"
    assert len(design.reports) == len({(report.name, report.kind) for report in design.reports})
    for name in expected:
        report = reported[name]
        assert report.width == (16 if preset not in ("w8a8", "w8a10") or ".gate" in name else 8)
        assert report.low < 0 < report.high
        assert 0 <= report.clipped < 0.02
        assert report.sqnr_db > (30 if report.width == 8 else 50)
        assert report.scale > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_reports_contain_every_activation(designs: dict[str, Design], preset: str) -> None:
    reported = {report.name for report in designs[preset].reports if report.kind == "activation"}
    for layer in range(4):
        for name in ("norm1", "q", "k", "v", "attention", "norm2", "hidden"):
            assert f"blocks.{layer}.{name}" in reported
    assert preset == "iccad23" or "residual stream" in reported


@pytest.mark.parametrize("preset", PRESETS)
def test_progress_counts_runs_and_layers(micro: Model, images: Pixels, preset: str) -> None:
    seen: list[tuple[int, int]] = []
    quantize(micro, images, PRESETS[preset], progress=lambda done, total: seen.append((done, total)))
    total = 2 + 4  # a run a task, as all images fit one batch; and layers
    assert {count for _, count in seen} == {total}
    done = [count for count, _ in seen]
    assert done == ([1, 2, 6] if preset == "iccad23" else [1, 2, 3, 4, 5, 6])


def test_quantisation_repeats_itself(micro: Model, images: Pixels, designs: dict[str, Design]) -> None:
    for preset, design in designs.items():
        again = quantize(micro, images, PRESETS[preset])
        assert (again.design_id, again.weights_sha256) == (design.design_id, design.weights_sha256)


def test_design_id_is_that_of_the_results(micro: Model, images: Pixels, designs: dict[str, Design]) -> None:
    design = designs["w16a16"]
    names = {"tasks": ["a", "b"], "name": "other", "task_heads": {}, "norm_eps": 1e-5, "notes": "none"}
    renamed = replace(design, spec=design.spec.model_copy(update=names))
    label = replace(design, precision=design.precision.model_copy(update={"name": "mine"}))
    assert {renamed.design_id, label.design_id} == {design.design_id}

    ids = {design.design_id} | {designs[preset].design_id for preset in ("w8a8", "iccad23")}
    ids.add(quantize(changed(micro, pos_embed=2.0), images[:3], PRESETS["w16a16"]).design_id)
    ids.add(design.with_attention_rows(5).design_id)
    width = design.precision.gate_width - 1
    ids.add(replace(design, precision=design.precision.model_copy(update={"gate_width": width})).design_id)
    ids.add(replace(design, spec=design.spec.model_copy(update={"tasks": ["only"]})).design_id)
    assert len(ids) == 3 + 4


def test_hardware_id_is_that_of_what_is_synthesised(
    micro: Model, images: Pixels, designs: dict[str, Design], monkeypatch: pytest.MonkeyPatch
) -> None:
    design, hardware = designs["w16a16"], default_hardware(designs["w16a16"].network)
    one = hardware_id(design.network, hardware)
    other_weights = quantize(changed(micro, pos_embed=2.0), images[:3], PRESETS["w16a16"])
    assert other_weights.weights_sha256 != design.weights_sha256
    names = {"tasks": ["a", "b"], "name": "other", "task_heads": {}, "norm_eps": 1e-5, "notes": "none"}
    renamed = replace(design, spec=design.spec.model_copy(update=names))
    label = replace(design, precision=design.precision.model_copy(update={"name": "mine"}))
    assert {hardware_id(like.network, hardware) for like in (other_weights, renamed, label)} == {one}
    assert hardware_id(design.network, hardware.changed(clock_mhz=100)) == one

    ids = {one} | {hardware_id(designs[preset].network, hardware) for preset in ("w8a8", "iccad23")}
    for field in ("weight_width", "activation_width", "attention_width", "gate_width", "residual_width"):
        width = getattr(design.precision, field) - 1
        narrower = replace(design, precision=design.precision.model_copy(update={field: width}))
        ids.add(hardware_id(narrower.network, hardware))
    for field, value in (
        ("attention_rows", 5),
        ("lanes", 7),
        ("outputs", 31),
        ("token_tile", 3),
        ("axi_width", 32),
        ("weight_ports", 3),
        ("weight_rows", 300),
        ("router_lanes", 8),
        ("weight_memory", "lut"),
        ("operand_memory", "ultra"),
        ("residual_memory", "ultra"),
        ("head_memory", "lut"),
        ("gate_memory", "ultra"),
        ("score_memory", "block"),
        ("choice_memory", "lut"),
        ("table_memory", "lut"),
        ("max_batch", 3),
        ("family", "zynq-7000"),
    ):
        ids.add(hardware_id(design.network, hardware.changed(**{field: value})))
    spec = design.spec.model_copy(update={"tasks": ["only"]})
    ids.add(hardware_id(replace(design, spec=spec).network, hardware))
    assert len(ids) == 3 + 5 + 18 + 1

    for i, table in enumerate(tables.UNIT_TABLES):
        base = table.base.copy()
        base[-1] += 1
        with monkeypatch.context() as patch:
            patch.setattr(
                tables,
                "UNIT_TABLES",
                (*tables.UNIT_TABLES[:i], replace(table, base=base), *tables.UNIT_TABLES[i + 1 :]),
            )
            ids.add(hardware_id(design.network, hardware))
    for name, activation in ACTIVATIONS.items():
        spec = design.spec.model_copy(update={"activation": name})
        ids.add(hardware_id(replace(design, spec=spec).network, hardware))
        if activation.delta is not None:
            base = activation.delta.base.copy()
            base[-1] += 1
            other = replace(activation, delta=replace(activation.delta, base=base))
            with monkeypatch.context() as patch:
                patch.setitem(ACTIVATIONS, name, other)
                ids.add(hardware_id(replace(design, spec=spec).network, hardware))
    # The activation functions but GELU, which the first of all has, and a change of each table.
    assert len(ids) == 27 + len(tables.UNIT_TABLES) + 3 + 3


# --- Clipping, warnings, sensitivity ------------------------------------------------------------------------


def test_ranges_are_clipped_only_where_the_network_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the error of the final tokens on pictures that were held out, whatever the tensor's squared error says."""
    model = init_model(find_spec("micro"))
    images = edgemoe.random_images(model, 12)
    share = {8: 0.4, 4: 0.8, 16: 0.5}
    proposed: list[FloatArray] = []

    def propose(samples: FloatArray, low: float, high: float, width: int) -> float:
        proposed.append(samples)
        return share[width]

    monkeypatch.setattr(clipping, "least_error_clip", propose)
    few_bits = PRESETS["w8a8"].model_copy(update={"activation_width": 4})
    held = held_out(model, few_bits, len(images))
    assert_array_equal(np.nonzero(held)[0], [3, 7, 11])
    statistics = calibrate(model, images, lambda done: None, held=held)
    found = clips(model, PRESETS["w8a8"], images[held], statistics)
    assert not found  # a part of the range of eight bits is a loss
    assert clips(model, few_bits, images[held], statistics)  # and of four bits a gain
    assert not clips(model, PRESETS["w16a16"], images[held], statistics)
    assert not clips(model, few_bits, images[:0], statistics)
    # Proposals know nothing of the held-out pictures, and are judged on nothing else; each task has some of them.
    others = calibrate(model, images[~held], lambda done: None)
    monkeypatch.setattr(clipping, "HELD_OUT_TOKENS", 1)
    seen: list[tuple[int, Pixels]] = []
    run = reference.run

    def noted(model: Model, pixels: Pixels, task: int = 0, **options: Any) -> reference.ReferenceRun:
        seen.append((task, pixels))
        return run(model, pixels, task, **options)

    monkeypatch.setattr(reference, "run", noted)
    proposed.clear()
    clips(model, few_bits, images[held], statistics)
    for name in ("blocks.0.hidden", "blocks.1.experts.0.hidden"):
        fitted = statistics[name].fitted
        assert fitted is not None and fitted.extent == others[name].extent
        assert any(samples is fitted.samples for samples in proposed)
    assert {task for task, _ in seen} == {0, 1}
    for task, pixels in seen:
        assert_array_equal(pixels, images[held][task::2])


@pytest.mark.parametrize(("count", "number"), [(1, 0), (3, 0), (4, 1), (16, 4), (400, 57)])
def test_a_quarter_of_the_pictures_is_held_out_at_most(micro: Model, count: int, number: int) -> None:
    held = held_out(micro, PRESETS["w8a8"], count)
    assert held.sum() == number
    places = np.nonzero(held)[0]
    assert number < 2 or np.ptp(np.diff(places)) <= 1
    assert not held_out(micro, PRESETS["w16a16"], count).any()
    assert held_out(micro, NARROWED["w8a8-lean"], count).sum() == number


def test_few_pictures_clip_nothing(micro: Model, images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipping, "least_error_clip", lambda *given: 0.3)
    monkeypatch.setattr(clipping, "LEAST_GAIN", 100.0)
    design = quantize(micro, images[:3], PRESETS["w8a8"])
    assert not [text for text in design.warnings if "clipped" in text]


@pytest.mark.parametrize(
    ("errors", "routing", "gains"),
    [
        ((1.0, 0.8), (0, 0), True),
        ((1.0, 0.95), (0, 0), False),
        ((1.0, 0.8), (5, 30), False),
        ((1.0, 0.8), (5, 8), True),
        ((1.0, 0.95), (30, 5), True),
        ((1.0, 1.05), (30, 5), False),
    ],
)
def test_routing_decides_where_it_differs_beyond_chance(
    errors: tuple[float, float], routing: tuple[int, int], gains: bool
) -> None:
    """A clip of less error is refused if it loses choices, and taken at little gain if it wins them."""
    assert clipped_gains(*errors, Paired(*routing)) is gains


@pytest.mark.parametrize(
    ("right", "expected"), [((0.9, 0.9), 0), ((0.5, 0.9), 1), ((0.9, 0.5), 0), ((0.5, 0.7, 0.9), 2)]
)
def test_the_candidate_of_most_agreement(right: tuple[float, ...], expected: int) -> None:
    rng = np.random.default_rng(5)
    own = rng.permuted(np.tile(np.arange(8), (400, 1)), axis=1)[:, :2]
    candidates = [np.where(rng.random(400)[:, None] < share, own, (own + 4) % 8) for share in right]
    assert best(candidates, own) == expected
    assert_array_equal(agreeing(own[:, ::-1], own), True)


def test_scales_of_a_narrow_gate_are_chosen_by_routing(micro: Model) -> None:
    """One channel of large values that the router hardly reads: its range spoils what the others say."""
    gamma = micro.weights["blocks.1.norm2.weight"].copy()
    gamma[3] = 40 * gamma.mean()
    moved = {"blocks.1.norm2.weight": gamma}
    for name in ("blocks.1.moe.gate.weight", "blocks.1.moe.fc1.weight"):
        moved[name] = micro.weights[name].copy()
        moved[name][..., 3] = 0.0
    model = Model(micro.spec, micro.weights | moved)
    images = edgemoe.random_images(model, 16)
    few_bits = Precision(name="few", activation_width=8, gate_width=7, multipliers=True)
    with_choice, without = (quantize(model, images[:count], few_bits) for count in (16, 3))
    shift = "blocks.1.norm2.gate_shift"
    assert with_choice.tensors[shift] < without.tensors[shift]
    others = edgemoe.random_images(model, 24, seed=9)

    def agreement(design: Design) -> float:
        run, exact = edgemoe.simulate(design, others), reference.run(model, others)
        return float(agreeing(run.routing[1].experts, exact.experts[1]).mean())

    assert agreement(with_choice) > agreement(without) + 0.05
    # Of sixteen bits nothing is chosen.
    wide = [quantize(model, images[:count], PRESETS["w16a16"]).tensors[shift] for count in (16, 3)]
    assert wide[0] == wide[1]


def test_the_reference_starts_at_any_block(micro: Model, images: Pixels) -> None:
    streams: dict[str, FloatArray] = {}

    def tap(name: str, value: FloatArray) -> None:
        streams[name] = value

    whole = reference.run(micro, images[:2], 1, tap=tap)
    part = reference.run(micro, images[:2], 1, start=(2, streams["blocks.1.output"]))
    assert_array_equal(part.tokens, whole.tokens)
    assert list(part.experts) == [3]
    assert_array_equal(part.experts[3], whole.experts[3])


def test_a_clipped_range_is_told(micro: Model, images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizer, "clips", lambda *given: {"blocks.0.hidden": 0.5})
    design = quantize(micro, images, PRESETS["w8a8"])
    (told,) = (text for text in design.warnings if "clipped" in text)
    report = next(report for report in design.reports if report.name == "blocks.0.hidden")
    assert told.startswith("blocks.0.hidden: the range is clipped") and f"{report.beyond:.1%}" in told
    statistic = calibrate(micro, images, lambda done: None)["blocks.0.hidden"]
    low, high = statistic.extent
    assert (report.low, report.high) == (low, high)
    assert report.beyond == pytest.approx(high / 2 / (high / 2 - low), rel=0.02)
    monkeypatch.undo()
    assert not [text for text in quantize(micro, images, PRESETS["w16a16"]).warnings if "clipped" in text]


def test_routing_agreement_is_kept(micro: Model, images: Pixels, tmp_path: Path) -> None:
    design = quantize(micro, images, PRESETS["w8a8"])
    assert set(design.routing_agreement) == {"blocks.1.gate", "blocks.3.gate"}
    assert all(0.5 < share <= 1 for share in design.routing_agreement.values())
    design.save(tmp_path / "design")
    assert Design.load(tmp_path / "design").routing_agreement == design.routing_agreement


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_sensitivity_of_nothing_but_rounding(micro: Model, images: Pixels, preset: str) -> None:
    """Every tensor alone loses less than all together, and a tensor that was spoilt comes first."""
    design = quantize(micro, images, PRESETS[preset])
    losses = sensitivity(micro, design, images)
    every = edgemoe.compare(micro, design, images, 0).sqnr_db_same_routing
    tensors = [loss for loss in losses if loss.kind != "layer"]
    assert {loss.name for loss in losses if loss.kind == "layer"} == {f"blocks.{i}" for i in range(4)}
    weights = {name for name in design.tensors if name.endswith(".weight")}
    assert {loss.name for loss in tensors if loss.kind == "weight"} == weights
    assert [loss.noise for loss in tensors] == sorted((loss.noise for loss in tensors), reverse=True)
    # Another choice of experts is a loss of its own.
    assert all(loss.sqnr_db > every - 3 for loss in tensors if loss.equal_choices == 1)
    spoilt = design.tensors["blocks.2.fc2.weight"].copy()
    spoilt[3] = -spoilt[3]
    worst = sensitivity(
        micro, replace(design, tensors=design.tensors | {"blocks.2.fc2.weight": spoilt}), images
    )
    assert next(loss.name for loss in worst if loss.kind != "layer") == "blocks.2.fc2.weight"
    assert worst[0].name == "blocks.2"


def test_sensitivity_is_written_into_the_design(micro: Model, images: Pixels, tmp_path: Path) -> None:
    micro.save(tmp_path / "model")
    np.save(tmp_path / "images.npy", images[0])
    command = ["quantize", tmp_path / "model", "-o", tmp_path / "design", "--images", tmp_path / "images.npy"]
    assert main([*map(str, command), "--precision", "w8a8", "--sensitivity"]) == 0
    found = json.loads((tmp_path / "design/sensitivity.json").read_text())
    assert found["task"] == micro.spec.tasks[0]
    assert len(found["layers"]) == 4 and len(found["tensors"]) > 40
    assert found["tensors"][0].keys() == {"name", "kind", "sqnr_db", "noise", "equal_choices"}
    Design.load(tmp_path / "design")
    command[3] = tmp_path / "other"
    assert main([*map(str, command), "--precision", "iccad23", "--sensitivity"]) == 2
    assert not (tmp_path / "other").exists()
