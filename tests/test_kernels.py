"""Every backend against the oracle on the whole case table, bit for bit; then what pysim's kernels promise.

Tolerances appear only where integers meet float.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import cases
import oracles
import rtl_backend
from backends import BACKENDS, HARDWARE, compile_kernels, expected, integers, run_compiled
from cases import CASES, Case
from common.errors import InputError, OverflowRiskError
from pysim import accuracy, tables
from pysim.activations import ACTIVATIONS
from pysim.datapath import EXPONENTIAL, GELU_INPUT, NORMALIZED, PROBABILITY, SCORE
from pysim.formats import Format
from pysim.kernels import iccad23
from pysim.kernels.attention import AttentionResult, attention, first_keys
from pysim.kernels.gelu import activate, activate_sums
from pysim.kernels.layernorm import MIN_EPSILON, normalize, variance_width
from pysim.kernels.linear import Requantise, Weights, accumulate, accumulator_width
from pysim.kernels.softmax import probabilities, single_pass, softmax

IntArray = NDArray[np.int64]


WAVEFORMS = Path(__file__).parents[1] / "build/rtl-failures"
"""Of cases that fail in RTL: one of each."""


def check(backend: str, case: Case) -> None:
    actual, right = BACKENDS[backend].run(case), expected(case)
    assert actual.keys() == right.keys() or (actual and not BACKENDS[backend].whole)
    if backend == "rtl" and any(not np.array_equal(found, right[name]) for name, found in actual.items()):
        print(f"waveform in {rtl_backend.record(case, WAVEFORMS)}")
    for name, found in actual.items():
        np.testing.assert_array_equal(found, right[name], err_msg=f"{case.id}: {name}", strict=True)


RUNS = [(name, case) for name, backend in BACKENDS.items() for case in CASES if backend.has(case)]
NEEDS = {"pysim": (), "csim": (pytest.mark.compile,), "rtl": (pytest.mark.rtl,)}


@pytest.mark.parametrize(
    ("backend", "case"),
    [pytest.param(name, case, id=f"{name}-{case.id}", marks=NEEDS[name]) for name, case in RUNS],
)
def test_case(backend: str, case: Case) -> None:
    check(backend, case)


COMPILED_LACKS = """
    embed-*: pixels are sorted by the whole kernel alone
    linear-edges-16-by-16-by-16 linear-edges-8-by-8-by-8 linear-edges-8-by-16-by-16 linear-edges-4-by-4-by-8:
        only results as wide as the residual stream are added to something
    linear-*-18-by-18-by-24 linear-long-sums: stored weights have 8 or 16 bits
    attention-8-bit-results-of-16-bit-values attention-output-saturates-8-bit
    attention-rounding-of-the-alignment attention-rounding-of-the-alignment-of-equal-keys
    layernorm-wide-stream layernorm-shift-0 moe-narrow-stream: widths that none of the Designs has
    iccad23_attention-one-token iccad23_attention-head-dim-* iccad23_attention-scores-wrap-with-a-multiplier
    iccad23_attention-scores-equal: a head of other than 16 channels
"""
"""Cases that the compiled C++ does not express: patterns, and why."""

RTL_LACKS = """
    embed-* requantise-* moe-* iccad23_*: no kernels of their own; the original's arithmetic is in C++ only
    linear-edges-16-by-16-by-16 linear-edges-8-by-8-by-8 linear-edges-8-by-16-by-16 linear-edges-4-by-4-by-8:
        only results as wide as the residual stream are added to something
    linear-*-18-by-18-by-24: stored weights have 8 or 16 bits
    linear-long-sums: more words than the tests' kernels hold
    attention-8-bit-results-of-16-bit-values attention-output-saturates-8-bit
    attention-rounding-of-the-alignment attention-rounding-of-the-alignment-of-equal-keys
    layernorm-wide-stream layernorm-shift-0: widths that none of the Designs has
"""
"""Cases that the SystemVerilog kernels do not express: patterns, and why."""


def lacking(stated: str) -> set[str]:
    patterns = [word.rstrip(":;") for word in stated.split() if word.count("-") or "_*" in word]
    return {case.id for case in CASES if any(fnmatchcase(case.id, pattern) for pattern in patterns)}


def test_backends_lack_no_more_than_is_stated() -> None:
    assert set(BACKENDS) == {"pysim", "csim", "rtl"}
    assert BACKENDS["pysim"].kernels == set(oracles.ORACLES)
    assert BACKENDS["csim"].kernels == set(oracles.ORACLES) - {"embed"}
    assert all(BACKENDS["pysim"].has(case) for case in CASES)
    for backend, stated in (("csim", COMPILED_LACKS), ("rtl", RTL_LACKS)):
        assert {case.id for case in CASES if not BACKENDS[backend].has(case)} == lacking(stated)
        assert {case.kernel for name, case in RUNS if name == backend} == BACKENDS[backend].kernels


@pytest.mark.compile
@pytest.mark.parametrize(
    ("hardware", "kernel", "right", "wrong"),
    [
        ("16-bit", "exp2", "whole + FRAC - EXPONENTIAL_FRAC", "whole + FRAC - EXPONENTIAL_FRAC + 1"),
        ("iccad23", "iccad23_gelu", ">> GELU_DELTA_STEP_BITS);", ">> (GELU_DELTA_STEP_BITS + 1));"),
    ],
    ids=["exp2", "iccad23_gelu"],
)
def test_changed_shift_of_a_compiled_unit_is_found(
    hardware: str, kernel: str, right: str, wrong: str, tmp_path: Path
) -> None:
    sources = HARDWARE[hardware].render(tmp_path)
    units = next(source for source in sources if source.name == "units.cpp")
    text = units.read_text()
    assert text.count(right) == 1
    units.write_text(text.replace(right, wrong))
    some = [case for case in CASES if case.kernel == kernel]
    outputs = run_compiled(compile_kernels(sources), some)
    assert any((output["y"] != expected(case)["y"]).any() for case, output in zip(some, outputs, strict=True))


def test_table_covers_every_kernel_once_by_each_name() -> None:
    assert {case.kernel for case in CASES} == set(oracles.ORACLES)
    assert len({case.id for case in CASES}) == len(CASES)


def test_inputs_are_plain_integers() -> None:
    plain = (np.dtype(np.int64), np.dtype(np.uint64))
    for case in CASES:
        for value in case.inputs.values():
            assert isinstance(value, int) or value.dtype in plain, case.id


# --- Random small shapes ------------------------------------------------------------------------------------

FILLS = (cases.uniform, cases.edges, cases.lowest, cases.highest, cases.ends, cases.zeros)
fills = st.sampled_from(FILLS)
sizes = st.integers(1, 12)
widths = st.sampled_from([4, 8, 12, 16, 18])
seeds = st.integers(0, 2**32).map(str)
random_shapes = settings(max_examples=60, deadline=None, derandomize=True)


@random_shapes
@given(seeds, st.tuples(sizes, sizes), fills, st.integers(2, 62), fills, fills, st.integers(1, 32))
def test_requantise_of_random_shapes(
    name: str, shape: tuple[int, int], values: Any, width: int, shift: Any, addend: Any, out: int
) -> None:
    # A product and its half must stay within int64, as they do in a Design: 62 bits in all.
    case = cases.requantise(name, shape, values, width=width, shift=shift, addend=addend, out=out)
    check("pysim", case)


@random_shapes
@given(
    seeds,
    st.tuples(sizes, sizes, sizes),
    st.tuples(widths, widths, st.integers(2, 32)),
    fills,
    fills,
    fills,
    st.booleans(),
)
def test_linear_of_random_shapes(
    name: str,
    shape: tuple[int, int, int],
    bits: tuple[int, int, int],
    x: Any,
    weight: Any,
    addend: Any,
    multipliers: bool,
) -> None:
    case = cases.linear(name, shape, bits=bits, x=x, weight=weight, addend=addend, multipliers=multipliers)
    check("pysim", case)


scores = st.one_of(
    fills,
    st.sampled_from([4, 300, 4096, 40000]).map(lambda reach: cases.within(-reach, reach)),
    st.tuples(st.integers(-70, 0), st.integers(0, 70), st.lists(st.integers(-2, 2), max_size=3)).map(
        lambda ends: cases.octaves(ends[0], ends[1], *ends[2])
    ),
    st.integers(-20000, 20000).map(lambda step: cases.ramp(0, step)),
)


@random_shapes
@given(seeds, sizes, st.integers(1, 40), scores, sizes)
def test_softmax_of_random_shapes(name: str, rows: int, keys: int, fill: Any, block: int) -> None:
    check("pysim", cases.softmax(name, rows, keys, fill, block=block))


@random_shapes
@given(
    seeds,
    st.tuples(st.integers(1, 3), sizes, sizes),
    sizes,
    st.tuples(widths, widths),
    fills,
    fills,
    fills,
    st.integers(-17, 14),
)
def test_attention_of_random_shapes(
    name: str,
    shape: tuple[int, int, int],
    block: int,
    bits: tuple[int, int],
    q: Any,
    k: Any,
    v: Any,
    attention_shift: int,
) -> None:
    check(
        "pysim",
        cases.attention(name, shape, block, bits=bits, q=q, k=k, v=v, attention_shift=attention_shift),
    )


@random_shapes
@given(
    seeds,
    st.tuples(sizes, st.integers(1, 70)),
    st.integers(2, 26),
    st.one_of(fills, st.integers(-9999, 9999).map(lambda value: cases.spike(value, value + 1))),
    st.integers(4, 40).map(lambda bits: 1 << bits),
    fills,
)
def test_layernorm_of_random_shapes(
    name: str, shape: tuple[int, int], width: int, x: Any, epsilon: int, gamma: Any
) -> None:
    check("pysim", cases.layernorm(name, shape, x, width=width, epsilon=epsilon, gamma=gamma))


@random_shapes
@given(seeds, sizes, sizes, st.data(), scores, st.booleans())
def test_router_of_random_shapes(
    name: str, tokens: int, experts: int, data: st.DataObject, logits: Any, selected: bool
) -> None:
    k = data.draw(st.integers(1, experts))
    check("pysim", cases.router(name, tokens, experts, k, logits, selected=selected))


@random_shapes
@given(seeds, st.tuples(sizes, sizes, sizes), st.data(), fills, fills, fills)
def test_moe_of_random_shapes(
    name: str, shape: tuple[int, int, int], data: st.DataObject, residual: Any, weight: Any, gates: Any
) -> None:
    k = data.draw(st.integers(1, shape[2]))
    check("pysim", cases.moe(name, shape, k, residual=residual, weight=weight, scores=gates))


features = st.one_of(
    fills, st.sampled_from([5, cases.ONE, 30 * cases.ONE]).map(lambda reach: cases.within(-reach, reach))
)


@random_shapes
@given(seeds, st.tuples(sizes, sizes, sizes), features, fills, fills, st.integers(0, 20))
def test_iccad23_linear_of_random_shapes(
    name: str, shape: tuple[int, int, int], x: Any, weight: Any, bias: Any, shift: int
) -> None:
    check("pysim", cases.iccad23_linear(name, shape, x=x, weight=weight, bias=bias, shift=shift))


@random_shapes
@given(seeds, st.tuples(st.integers(1, 3), sizes, st.integers(1, 20)), sizes, features, features, features)
def test_iccad23_attention_of_random_shapes(
    name: str, shape: tuple[int, int, int], block: int, q: Any, k: Any, v: Any
) -> None:
    check("pysim", cases.iccad23_attention(name, shape, block, q=q, k=k, v=v))


@random_shapes
@given(seeds, st.tuples(sizes, st.integers(1, 70)), features, fills)
def test_iccad23_layernorm_of_random_shapes(name: str, shape: tuple[int, int], x: Any, norm: Any) -> None:
    check("pysim", cases.iccad23_layernorm(name, shape, x, norm=norm))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 2**64 - 1) | st.integers(0, 63).map(lambda n: 2**n), min_size=1, max_size=20))
def test_reciprocals_of_any_integers(values: list[int]) -> None:
    for kernel in ("reciprocal", "rsqrt"):
        check("pysim", cases.mantissa(kernel, "random", values))


# --- Tables and units against the functions -----------------------------------------------------------------


def octave(count: int, bits: int, scale: int = 1) -> list[Decimal]:
    """1, 1 + 2**-bits, ..., 2, times a scale."""
    return [scale * (1 + Decimal(i) / 2**bits) for i in range(count)]


DELTA_POINTS = [Decimal(i) / 64 for i in range(513)]
POINTS: dict[str, tuple[Callable[[Decimal], Decimal], list[list[Decimal]]]] = {
    "exp2": (oracles.exact_exp2, [[Decimal(i) / 128 for i in range(129)]]),
    "reciprocal": (lambda x: 1 / x, [octave(257, 8)]),
    "rsqrt": (lambda x: 1 / x.sqrt(), [octave(129, 7), octave(129, 7, 2)]),
    "gelu_delta": (oracles.exact_delta, [DELTA_POINTS]),
    "gelu_tanh_delta": (oracles.exact_tanh_delta, [DELTA_POINTS]),
    "quick_gelu_delta": (oracles.exact_quick_delta, [DELTA_POINTS]),
}


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_every_table_entry_is_the_rounded_function(table: tables.PiecewiseLinear) -> None:
    function, octaves = POINTS[table.name]
    with localcontext() as context:
        context.prec = 50
        samples = [[oracles.nearest(function(x), table.frac) for x in points] for points in octaves]
    bases = [value for row in samples for value in row[:-1]]
    slopes = [after - before for row in samples for before, after in itertools.pairwise(row)]
    assert table.base.tolist() == bases
    assert table.slope.tolist() == slopes
    for values, fmt in ((bases, table.base_format), (slopes, table.slope_format)):
        assert fmt.contains(values)
        narrower = max(fmt.width - 1, 1)
        assert fmt.width == 1 or not Format(narrower, fmt.frac, fmt.signed).contains(values)


def test_tables_of_the_original() -> None:
    delta, powers, log2_e = oracles.original_tables()
    assert iccad23.GELU_TABLE.tolist() == delta
    assert iccad23.EXP2_FINE.base.tolist() == powers[:-1]
    assert iccad23.EXP2_FINE.slope.tolist() == [b - a for a, b in itertools.pairwise(powers)]
    assert log2_e == iccad23.LOG2_E


def test_known_table_values() -> None:
    """Literals from tables of functions, so that oracle and table cannot be wrong together."""
    # 2**22 * 2**-0.5 = 2965820.8; 2**17 / 1.5 = 87381.3; 2**17 / sqrt(2) = 92681.9, / sqrt(3) = 75674.3
    assert tables.EXP2.base[[0, 64]].tolist() == [4194304, 2965821]
    assert tables.RECIPROCAL.base[128] == 87381
    assert tables.RSQRT.base[[0, 128, 192]].tolist() == [131072, 92682, 75674]
    # 1 - Phi(1) = 0.158655254, 2 * (1 - Phi(2)) = 0.045500264, times 2**18
    assert tables.GELU_DELTA.base[[0, 64, 128]].tolist() == [0, 41591, 11928]
    # tanh(0.8412) = 0.68638..., 1 - 0.841192 = 0.158808; 1 - sigmoid(1.702) = 0.154203, times 2**18
    assert tables.GELU_TANH_DELTA.base[64] == 41631
    assert tables.QUICK_GELU_DELTA.base[64] == 40424


TABULATED = [each for each in ACTIVATIONS.values() if each.delta is not None]


def test_relu_is_exact() -> None:
    assert accuracy.activation_worst_error(ACTIVATIONS["relu"]).error == 0


@pytest.mark.parametrize(
    ("worst", "bound"),
    [
        *((partial(accuracy.activation_worst_error, each), 2.0**-15) for each in TABULATED),
        (accuracy.exp2_worst_error, 2.0**-18),
        (accuracy.reciprocal_worst_error, 2.0**-15),
        (accuracy.rsqrt_worst_error, 2.0**-15),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_worst_error_of_unit(worst: Callable[[], accuracy.WorstError], bound: float) -> None:
    measured = worst()
    # Not even a rounding of the result is free, so an error of next to nothing is a broken measurement.
    assert bound / 16 < measured.error <= bound


def test_exp_of_the_original_is_within_its_tolerance() -> None:
    x = np.concatenate([-np.arange(1 << 18), -np.arange(0, 1 << 31, 4093), [-(1 << 31)]])[None]
    exact = np.exp(x / 2.0**22)
    error = np.abs(iccad23.exponentials(x, np.zeros(1, np.int64)) / 2.0**22 - exact)
    assert error.max() <= 2.0**-20


# --- Softmax and attention ----------------------------------------------------------------------------------


HALF_UNIT = (EXPONENTIAL.frac + 1) << SCORE.frac
"""The largest difference with an exponential: half a unit, which rounds up to a whole one."""


def score_rows() -> list[tuple[str, IntArray]]:
    rng = np.random.default_rng(7)
    one = 1 << SCORE.frac
    rows: list[tuple[str, IntArray]] = []
    for keys in (1, 2, 5, 129, 1201):
        for reach in (1, 300, 4096, 16384, 65536, 1 << 23):
            rows.append((f"random {keys} {reach}", rng.integers(-reach, reach, (8, keys))))
        for step in (1, 7, 41, 300, 3000):
            line = np.clip(step * (np.arange(keys) - keys // 2), SCORE.min, SCORE.max)
            rows.append((f"ascending {keys} {step}", line[None]))
            rows.append((f"descending {keys} {step}", line[None, ::-1]))
        rows.append((f"ascending {keys} by an octave", (one * (np.arange(keys) % 2000 - 1000))[None]))
        for score in (0, 1, one - 1, one, one + 1, -1, -one, 1 - one):
            rows.append((f"equal {keys} {score}", np.full((1, keys), score)))
        rows.append((f"ends {keys}", np.resize(np.array([SCORE.min, SCORE.max]), (1, keys))))
        for beside in (-1, 0, 1):
            whole = rng.integers(-9, 9, (4, keys)) * one + beside
            rows.append((f"beside whole numbers {keys} {beside}", whole))
        # Every exponential but one is small, and is rounded up (or down) as far as it can be.
        for name, lower in (
            ("tiny", 0),
            ("vanishing", 1),
            ("small", one),
            ("small, off a tie", -13 * one - 77),
        ):
            others = np.full(keys - 1, one - HALF_UNIT - lower)
            rows.append((f"{name} before {keys}", np.append(others, one)[None]))
            rows.append((f"{name} after {keys}", np.append(one, others)[None]))
        # The best key last, after everything has been rescaled again and again.
        rows.append((f"late {keys}", np.append(np.arange(keys - 1) * 5, 4 * keys + 20000)[None]))
    # Every exponential but one is rounded from half a unit to a whole one: beside the least sum there is, that
    # of 1201 keys is too large by 2**-14.8 of itself.
    for keys in (129, 577, 901, 1201):
        for top in (1, 680, one):
            rows.append(
                (f"half units {keys} {top}", np.append(top, np.full(keys - 1, one - HALF_UNIT))[None])
            )
    # The worst kind of row known: exponentials just below a tie, each of which loses half a unit, where the
    # reciprocal is too large as well. A score some 13 octaves down keeps the best probability from the limit
    # of 1. Measured: 5.66e-05 or 2**-14.11, in "losing 6.5 79" (the others 5.63e-05 and 5.58e-05).
    for units, top, near in ((6.5, 79, 54085), (0.5, 82, 50209), (4.5, 82, 14 * one)):
        below_tie = math.floor((EXPONENTIAL.frac - math.log2(units)) * one) + 1
        row = np.append([top, one - near], np.full(1199, one - below_tie))
        rows.append((f"losing {units} {top}", row[None]))
    return rows


ROWS = score_rows()


def softmax_error(scores: IntArray) -> float:
    """Largest error of a probability, whichever key a row meets first: 0, 1 or the last."""
    exact = np.exp2((scores - scores.max(axis=1, keepdims=True)) / 2.0**SCORE.frac)
    exact /= exact.sum(axis=1, keepdims=True)
    worst = 0.0
    for first in {0, 1 % scores.shape[1], scores.shape[1] - 1}:
        p = PROBABILITY.to_float(softmax(scores, np.full(len(scores), first)))
        assert p.min() >= 0 and p.max() <= 1
        worst = max(worst, float(np.abs(p - exact).max()))
    return worst


@pytest.mark.parametrize(
    "scores", [rows for _, rows in ROWS], ids=[name.replace(" ", "-") for name, _ in ROWS]
)
def test_softmax_is_close_to_float(scores: IntArray) -> None:
    # Half a unit a key relative to a sum of a half, the reciprocal, and one rounding: 2**-14.03 for 1201 keys.
    assert softmax_error(scores) <= 2.0**-14


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 300), st.sampled_from([1, 1000, 20000, 400000]), st.integers(0, 2**32), st.data())
def test_single_pass_over_a_permutation(keys: int, reach: int, seed: int, data: st.DataObject) -> None:
    """The order of the keys moves nothing but roundings: half a unit for each time the maximum moves."""
    rng = np.random.default_rng(seed)
    row = rng.integers(-reach, reach, (1, keys))
    first = np.array([data.draw(st.integers(0, keys - 1))])
    (m1,), (s1,) = single_pass(row, np.zeros(1, np.int64))
    (m2,), (s2,) = single_pass(rng.permuted(row, axis=1), first)
    assert m1 == m2 == -(-row.max() >> SCORE.frac)
    exact = np.exp2(row / 2.0**SCORE.frac - m1).sum() * 2.0**EXPONENTIAL.frac
    assert 1 << (EXPONENTIAL.frac - 1) < min(s1, s2)
    # Each move's half unit is halved at least by the next: less than one in all. Of an exponential, half a
    # unit is its rounding, and the rest the table's: 2**-17 of it.
    bound = 1 + keys / 2 + exact * 2.0**-17
    assert abs(s1 - exact) <= bound
    assert abs(s2 - exact) <= bound


def whole_part(scores: IntArray) -> IntArray:
    return single_pass(scores[:, None], np.zeros(len(scores), np.int64))[0]


def test_maximum_is_the_ceiling() -> None:
    one = 1 << SCORE.frac
    scores = np.array([0, 1, -1, one, one + 1, one - 1, -one, 1 - one, -1 - one, SCORE.max, SCORE.min])
    assert whole_part(scores).tolist() == [0, 1, 0, 1, 2, 1, -1, 0, -1, 2048, -2048]


def test_sum_is_a_half_to_a_whole_of_the_number_of_keys() -> None:
    """Least for scores just above a whole number, largest on it."""
    for keys in (1, 2, 129):
        for score, each in ((0, 1 << EXPONENTIAL.frac), (1, None)):
            ((total,),) = single_pass(np.full((1, keys), score), np.zeros(1, np.int64))[1:]
            assert total == keys * (each or int(total) // keys)
            assert keys << (EXPONENTIAL.frac - 1) < total <= keys << EXPONENTIAL.frac


def test_a_moving_maximum_shifts_the_sum_and_rounds_it() -> None:
    one, unit = 1 << SCORE.frac, 1 << EXPONENTIAL.frac
    zero = np.zeros(1, np.int64)
    for jump in range(1, 80):
        # 1 + 2**-25 from -25 and 0, then shifted: (2**25 + 1) / 2**jump to nearest, ties up.
        row = np.array([[0, -EXPONENTIAL.frac * one, jump * one]])
        (m,), (s,) = single_pass(row, zero)
        assert (m, s) == (jump, unit + (2 * (unit + 1) + 2**jump) // 2 ** (jump + 1))


def test_order_of_keys_is_rotation() -> None:
    """Starting at key f equals starting at 0 with the row rotated by f: nothing else depends on the index."""
    row = np.random.default_rng(3).integers(-9000, 9000, 37)
    for first in range(37):
        rotated = single_pass(np.roll(row, -first)[None], np.zeros(1, np.int64))
        np.testing.assert_array_equal(single_pass(row[None], np.array([first])), rotated)


def run_attention(attention_rows: int) -> AttentionResult:
    rng = np.random.default_rng(11)
    q, k, v = rng.integers(-(1 << 15), 1 << 15, (3, 2, 67, 16))
    return attention(
        q, k, v, attention_rows=attention_rows, score_shift=16, attention_shift=0, out=integers(16)
    )


@pytest.mark.parametrize("attention_rows", [2, 3, 8, 16, 64, 67, 1000])
def test_block_size_influences_only_rounding(attention_rows: int) -> None:
    one, other = run_attention(1), run_attention(attention_rows)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.maxima, other.maxima)
    assert (one.sums != other.sums).any()
    # A key met before the maximum moves is rounded finer than one met after: half a unit of 2**-25 a key.
    assert np.abs(one.sums - other.sums).max() <= 67 / 2 + 1
    assert np.abs(one.output - other.output).max() <= 1


def test_attention_is_close_to_float() -> None:
    result = run_attention(8)
    weights = np.exp2(result.scores / 2.0**SCORE.frac - result.maxima[..., None])
    weights /= weights.sum(axis=-1, keepdims=True)
    v = np.random.default_rng(11).integers(-(1 << 15), 1 << 15, (3, 2, 67, 16))[2]
    # The reciprocal's and two exponentials' relative errors of values up to 2**15, and one rounding.
    assert np.abs(result.output - weights @ v).max() <= 2.0**15 * (2.0**-15.9 + 2 * 2.0**-17) + 0.5
    assert np.abs(PROBABILITY.to_float(result.probabilities()) - weights).max() <= 2.0**-14


def test_attention_probabilities_are_those_of_the_softmax() -> None:
    result = run_attention(8)
    flat = result.scores.reshape(-1, 67)
    alone = softmax(flat, np.tile(np.arange(67) % 8, 2))
    np.testing.assert_array_equal(result.probabilities(), alone.reshape(result.scores.shape))
    again = probabilities(flat, result.maxima.ravel(), result.sums.ravel())
    np.testing.assert_array_equal(alone, again)


def test_heads_do_not_mix() -> None:
    """Each row of the first axis is an image's head of its own."""
    rng = np.random.default_rng(5)
    q, k, v = rng.integers(-99, 99, (3, 4, 9, 8))
    options: dict[str, Any] = {
        "attention_rows": 4,
        "score_shift": 0,
        "attention_shift": 0,
        "out": integers(16),
    }
    together = attention(q, k, v, **options).output
    alone = [attention(q[i : i + 1], k[i : i + 1], v[i : i + 1], **options).output for i in range(4)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


# --- LayerNorm, accumulators --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 13, 192, 510])
@pytest.mark.parametrize("reach", [1, 40, 5000, 1 << 23])
def test_layernorm_is_close_to_float(channels: int, reach: int) -> None:
    x = np.random.default_rng(channels).integers(-reach, reach, (20, channels))
    x[0] = np.resize([-reach, reach - 1], channels)
    x[1] = 0
    epsilon = 16
    spread = [channels * sum(v * v for v in row) - sum(row) ** 2 + epsilon for row in x.tolist()]
    centred = channels * x - x.sum(axis=1, keepdims=True)
    exact = centred / np.sqrt(np.array(spread, np.float64))[:, None]
    exact = np.clip(exact, NORMALIZED.min * NORMALIZED.lsb, NORMALIZED.max * NORMALIZED.lsb)
    error = np.abs(NORMALIZED.to_float(normalize(x, epsilon)) - exact)
    # The root's relative error, and half a unit for the one rounding.
    assert (error <= np.abs(exact) * 2.0**-15 + NORMALIZED.lsb).all()


@pytest.mark.parametrize("epsilon", [MIN_EPSILON - 1, 1, 0, -5])
def test_layernorm_refuses_an_epsilon_too_small_for_its_shift(epsilon: int) -> None:
    with pytest.raises(InputError, match=f"epsilon = {epsilon} units, expected at least 16"):
        normalize(np.zeros((1, 4), np.int64), epsilon)
    assert normalize(np.zeros((1, 4), np.int64), MIN_EPSILON).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(("width", "channels"), [(24, 192), (24, 511), (8, 3), (27, 31), (32, 1)])
def test_variance_width_holds_every_token(width: int, channels: int) -> None:
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    for lows in range(channels + 1):
        row = [low] * lows + [high] * (channels - lows)
        spread = channels * sum(v * v for v in row) - sum(row) ** 2
        assert spread.bit_length() <= variance_width(width, channels) <= 64


@pytest.mark.parametrize(("inputs", "x_width", "weight_width"), [(1, 8, 8), (192, 16, 16), (3072, 18, 18)])
def test_accumulator_width_holds_every_sum(inputs: int, x_width: int, weight_width: int) -> None:
    largest = inputs * 2 ** (x_width - 1) * 2 ** (weight_width - 1)
    assert (2 * largest).bit_length() + 1 <= accumulator_width(inputs, integers(x_width), weight_width)


@pytest.mark.parametrize("weight", [1 << 31, -(1 << 31)])
@pytest.mark.parametrize("x", [1 << 30, -(1 << 30)])
def test_accumulate_refuses_what_64_bits_cannot_hold(x: int, weight: int) -> None:
    # Two terms of 2**61: either sign of either operand counts, and the smallest sum that is too large.
    operands = np.array([[x, x]]), np.array([[weight, weight], [0, 0]])
    with pytest.raises(OverflowRiskError, match=r"2 terms may reach 2\*\*63, expected under 2\*\*62"):
        accumulate(*operands)
    assert accumulate(operands[0] // 2, operands[1]).tolist() == [[x * weight, 0]]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("bits", "below", "beyond"),
    [(24, np.float32, np.float64), (53, np.float64, np.int64)],
)
def test_sums_are_exact_on_both_sides_of_a_float_type(
    bits: int, below: type[np.generic], beyond: type[np.generic], sign: int
) -> None:
    """The largest odd sum that is trusted to a type, and the next two, of which it could not hold the second."""
    for more, dtype in ((-1, below), (0, beyond), (1, beyond)):
        weight = sign * np.array([[(1 << bits) + more]])
        assert Weights.of(weight, 1).matrix.dtype == dtype
        assert accumulate(np.ones((1, 1), np.int64), weight).tolist() == weight.tolist()


def test_weights_of_float32_are_those_whose_sums_fit_whatever_their_number() -> None:
    """What counts is the sum of magnitudes of a row: ten-bit operands of 768 ordinary weights stay in float32."""
    weight = np.random.default_rng(0).integers(-40, 41, (16, 768)).astype(np.int8)
    x = np.random.default_rng(1).choice([-512, 511], (5, 768))
    weights = Weights.of(weight, 512)
    assert weights.matrix.dtype == np.float32
    assert 768 * 40 * 512 < 1 << 24 < 768 * 127 * 512
    np.testing.assert_array_equal(weights.products(x), x @ weight.T.astype(np.int64))
    assert Weights.of(np.full((1, 768), 127, np.int8), 512).matrix.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_sums_are_activated_as_by_three_steps(name: str, dtype: type[np.generic]) -> None:
    rng = np.random.default_rng(3)
    sums = rng.integers(-(1 << 22), 1 << 22, (7, 33)).astype(dtype)
    bias = rng.integers(-(1 << 20), 1 << 20, 33)
    before = Requantise(rng.integers(1, 1 << 16, 33), rng.integers(10, 20, 33))
    after = Requantise(np.array([50000]), np.array([30]))
    activation, out, zero = ACTIVATIONS[name], integers(20), -100
    found = np.zeros(sums.shape, np.int32)
    activate_sums(activation, sums, bias, before, after, zero, out, found)
    inner = before(sums.astype(np.int64) + bias, GELU_INPUT)
    assert {GELU_INPUT.min, GELU_INPUT.max} <= set(inner.ravel().tolist())
    np.testing.assert_array_equal(found, after(activate(activation, inner), out, zero))
    assert {-100, out.max} < set(found.ravel().tolist())


def test_attention_without_its_scores_is_the_same() -> None:
    q, k, v = np.random.default_rng(4).integers(-3000, 3000, (3, 5, 37, 8))
    with_scores, without = (
        attention(
            q,
            k,
            v,
            attention_rows=4,
            score_shift=8,
            attention_shift=0,
            out=integers(16),
            keep_scores=keep,
        )
        for keep in (True, False)
    )
    assert without.scores.size == 0
    for name in ("output", "maxima", "sums"):
        np.testing.assert_array_equal(getattr(with_scores, name), getattr(without, name))
    # What a row sums up is what the single pass, key by key, makes of its scores.
    first = np.tile(first_keys(37, 4), 5)
    maxima, sums = single_pass(with_scores.scores.reshape(-1, 37), first)
    np.testing.assert_array_equal(without.maxima.ravel(), maxima)
    np.testing.assert_array_equal(without.sums.ravel(), sums)


def test_accumulate_of_nothing() -> None:
    assert accumulate(np.zeros((0, 3), np.int64), np.ones((2, 3), np.int64)).shape == (0, 2)
    bias = np.array([5, -6])
    np.testing.assert_array_equal(
        accumulate(np.zeros((1, 0), np.int64), np.ones((2, 0), np.int64), bias), [[5, -6]]
    )
