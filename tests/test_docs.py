"""Keeps the pages of numbers honest: a table behind a `<!-- check: name -->` mark is what the code computes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from doc_tables import MARK, Rows, marked_tables, read_page
from pysim import accuracy, datapath, tables
from pysim import rounding as rounding_module
from pysim.activations import ACTIVATIONS
from pysim.arithmetic import REQUANTISE
from pysim.formats import Format, Overflow, Quantization, round_shift
from pysim.gates import GateKind
from pysim.iccad23_quantizer import ORIGINAL_FRAC
from pysim.kernels import iccad23
from pysim.kernels.attention import AttentionResult, attention, first_keys
from pysim.kernels.gelu import GELU_FRAC, gelu
from pysim.kernels.layernorm import normalize, variance_width
from pysim.kernels.linear import Requantise, accumulator_width
from pysim.kernels.moe import GATE_SCALE, run_experts
from pysim.kernels.router import Routing, route
from pysim.kernels.softmax import probabilities, single_pass
from pysim.kernels.units import exp2, reciprocal, rsqrt
from pysim.precision import PRESETS, Precision
from pysim.scaling import multiplier_and_shift

IntArray = NDArray[np.int64]
Check = Callable[[Rows], None]

PAGES = {name: read_page(f"{name}.md") for name in ("arithmetic", "quantisation", "original-arithmetic")}
PAGE = "\n".join(PAGES.values())
PROSE = " ".join(PAGE.split())
CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Check], Check]:
    def register(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return register


TABLES = marked_tables(PAGE)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def narrow(width: int, frac: int = 0) -> Format:
    return Format(width, frac, True, Quantization.AP_RND, Overflow.AP_SAT)


def one(value: int) -> IntArray:
    return np.array([value], np.int64)


def by(multiplier: int, shift: int) -> Requantise:
    return Requantise(one(multiplier), one(shift))


def test_every_mark_has_a_table_and_a_check() -> None:
    marks = re.findall(MARK, PAGE)
    assert len(set(marks)) == len(marks)
    assert set(marks) == set(TABLES) == set(CHECKS)
    assert all(TABLES.values())


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_links_lead_to_headings(page: str) -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= headings


@pytest.mark.parametrize("name", sorted(TABLES))
def test_table(name: str) -> None:
    CHECKS[name](TABLES[name])


# --- Formats ------------------------------------------------------------------------------------------------


@check("formats")
def formats(rows: Rows) -> None:
    for row in rows:
        assert Format.parse(row["Type"]) == getattr(datapath, row["Name"])


@check("constants")
def constants(rows: Rows) -> None:
    for row in rows:
        assert int(row["Value"]) == getattr(datapath, row["Constant"])


@check("rounding")
def rounding(rows: Rows) -> None:
    for row in rows:
        value = int(row["v"])
        assert float(row["v / 4"]) == value / 4
        assert int(row["(v + 2) >> 2"]) == (value + 2) >> 2 == round_shift(value, 2, Quantization.AP_RND)


@check("multiplier")
def multiplier(rows: Rows) -> None:
    factor, shift = multiplier_and_shift(np.array([0.175]), "example")
    assert (factor[0], shift[0]) == (45875, 18)
    for row in rows:
        value = int(row["v"])
        assert int(row["v × 45875 + 2^17"]) == value * 45875 + (1 << 17)
        assert int(row[">> 18"]) == (value * 45875 + (1 << 17)) >> 18
        assert int(row["saturated"]) == by(45875, 18)(np.array([[value]]), narrow(8))


@check("accumulators")
def accumulators(rows: Rows) -> None:
    for row in rows:
        operand, weight = narrow(int(row["Operand bits"])), int(row["Weight bits"])
        assert int(row["Accumulator bits"]) == accumulator_width(int(row["Inputs"]), operand, weight)


@check("residual")
def residual(rows: Rows) -> None:
    for row in rows:
        channels = int(row["Channels D"])
        assert int(row["Bits of V with a 24-bit stream"]) == variance_width(24, channels)
        assert row["Residual stream"] == f"{REQUANTISE.residual(PRESETS['w16a16'], 0, channels).width} bits"


# --- Tables and units ---------------------------------------------------------------------------------------


@check("tables")
def table_layouts(rows: Rows) -> None:
    assert [row["Table"] for row in rows] == [table.name for table in tables.TABLES]
    for row, table in zip(rows, tables.TABLES, strict=True):
        layout = (len(table.base), table.address_bits, table.step_bits, table.frac)
        assert tuple(int(row[key]) for key in ("Segments", "Address bits", "Offset bits", "frac")) == layout
        assert (row["Base"], row["Slope"]) == (str(table.base_format), str(table.slope_format))
        assert int(row["ROM bits"]) == layout[0] * (table.base_format.width + table.slope_format.width)


@check("errors")
def errors(rows: Rows) -> None:
    tabulated = [each.name for each in ACTIVATIONS.values() if each.delta is not None]
    assert [row["Unit"] for row in rows] == ["exp2", "reciprocal", "rsqrt", *tabulated]
    for row in rows:
        if row["Unit"] in tabulated:
            worst = accuracy.activation_worst_error(ACTIVATIONS[row["Unit"]])
        else:
            worst = getattr(accuracy, f"{row['Unit']}_worst_error")()
        assert row["Error"] == ("relative" if worst.relative else "absolute")
        assert int(row["Inputs tried"]) == worst.inputs
        assert row["Worst"] == f"{worst.error:.3e}"
        assert row["As a power of two"] == f"2^{worst.bits:.2f}"


@check("mantissas")
def mantissas(rows: Rows) -> None:
    """Step by step as the page says, and as the unit does it."""
    assert [row["Unit"] for row in rows] == ["reciprocal", "rsqrt"]
    for row in rows:
        square_root = row["Unit"] == "rsqrt"
        table = tables.RSQRT if square_root else tables.RECIPROCAL
        value = int(row["v"])
        position = value.bit_length() - 1
        index = (value >> (position - 18) if position >= 18 else value << (18 - position)) - (1 << 18)
        index += (1 << 18) * (square_root and position % 2)
        address, offset = index >> table.step_bits, index % (1 << table.step_bits)
        base, slope = int(table.base[address]), int(table.slope[address])
        exact = (base << table.step_bits) + slope * offset
        mantissa = (exact + (1 << (table.step_bits - 1))) >> table.step_bits
        exponent = position >> 1 if square_root else position
        steps = (position, index, address, offset, base, slope, mantissa, exponent)
        headings = ("p", "index", "address", "offset", "base", "slope", "M", "exponent")
        assert tuple(int(row[heading]) for heading in headings) == steps
        unit = rsqrt if square_root else reciprocal
        measured = unit(np.array([value], np.uint64))
        assert (measured[0][0], measured[1][0]) == (mantissa, exponent)


def test_largest_difference_with_an_exponential() -> None:
    assert exp2(np.array([0, 26 << 12, (26 << 12) + 1])).tolist() == [1 << 25, 1, 0]
    assert (
        "d = 26 still gives 1 (a tie, upwards); anything larger gives 0. The unit returns 2^25 = 1.0" in PROSE
    )


@check("layernorm")
def layernorm(rows: Rows) -> None:
    steps = {row["Step"]: numbers(row["Integers"]) for row in rows}
    x = np.array([[100, -50, 25, 7]])
    total, squares = int(x.sum()), int((x * x).sum())
    assert (steps["S1"], steps["S2"]) == ([total], [squares])
    spread = 4 * squares - total * total + 16
    mantissa, exponent = rsqrt(np.array([spread], np.uint64))
    assert (steps["V"], steps["M"], steps["e"]) == ([spread], [mantissa[0]], [exponent[0]])
    shift = int(exponent[0]) - 1
    by_hand = ((4 * x[0] - total) * mantissa[0] + (1 << (shift - 1))) >> shift
    assert steps["n"] == by_hand.tolist() == normalize(x, 16)[0].tolist()
    printed = ", ".join(f"{value:.5f}" for value in by_hand / 2**18)
    exact = ", ".join(f"{value:.5f}" for value in (x[0] - x.mean()) / np.sqrt(x.var() + 1))
    assert f"n / 2^18 is {printed}. The exact values are {exact}." in PROSE


# --- Softmax and attention ----------------------------------------------------------------------------------

REAL_SCORES = np.array([1.0, 2.5, -0.7, 2.0])


def example_scores() -> IntArray:
    return datapath.SCORE.quantize(REAL_SCORES * math.log2(math.e))


@check("softmax-steps")
def softmax_steps(rows: Rows) -> None:
    maximum, total = 0, 0
    scores = example_scores()
    assert [int(row["Score x"]) for row in rows] == scores.tolist()
    for step, (row, score) in enumerate(zip(rows, scores.tolist(), strict=True)):
        ceiling = -((-score) >> 12)
        shift = ceiling - maximum if step and ceiling > maximum else 0
        if step == 0:
            maximum = ceiling
        if shift:
            maximum, total = ceiling, (total + (1 << (shift - 1))) >> shift
        difference = (maximum << 12) - score
        exponential = int(exp2(one(difference))[0])
        total += exponential
        assert row["Shift of s"] == (str(shift) if shift else "-")
        shown = [int(row[key]) for key in ("Step", "c", "m after", "(m << 12) - x", "exp2", "s after")]
        assert shown == [step + 1, ceiling, maximum, difference, exponential, total]
    maxima, sums = single_pass(scores[None], one(0))
    assert (maxima[0], sums[0]) == (maximum, total)
    exact = np.exp(REAL_SCORES).sum() / 2.0**maximum
    assert f"s / 2^25 = {total / 2**25:.6f}; the exact sum is {exact:.6f}." in PROSE


@check("softmax-result")
def softmax_result(rows: Rows) -> None:
    scores = example_scores()[None]
    maxima, sums = single_pass(scores, one(0))
    exponentials, result = exp2((maxima << 12) - scores)[0], probabilities(scores, maxima, sums)[0]
    exact = np.exp(REAL_SCORES) / np.exp(REAL_SCORES).sum()
    for i, row in enumerate(rows):
        assert float(row["Score"]) == REAL_SCORES[i]
        assert (int(row["exp2((m << 12) - x)"]), int(row["P"])) == (exponentials[i], result[i])
        assert result[i] == (exponentials[i] * 92035 + (1 << 25)) >> 26
        assert (row["P / 65536"], row["Exact"]) == (f"{result[i] / 65536:.6f}", f"{exact[i]:.6f}")


@check("order")
def order_of_keys(rows: Rows) -> None:
    first = first_keys(6, 4)
    for number, row in enumerate(rows):
        assert [int(row[key]) for key in ("Row", "Block", "Offset")] == [number, number // 4, number % 4]
        assert [int(key) for key in list(row.values())[3:]] == [(first[number] + i) % 6 for i in range(6)]


def effect_of_block_size(attention_rows: int) -> AttentionResult:
    rng = np.random.default_rng(0)
    q, k, v = rng.integers(-(2**11), 2**11, (3, 4, 129, 64))
    return attention(
        q, k, 16 * v, attention_rows=attention_rows, score_shift=10, attention_shift=0, out=narrow(16)
    )


@check("block-size")
def block_size(rows: Rows) -> None:
    base = effect_of_block_size(1)
    assert f"spread by {datapath.SCORE.to_float(base.scores).std():.1f} units" in PROSE
    for row in rows:
        other = effect_of_block_size(int(row["P"]))
        sums, output = np.abs(other.sums - base.sums), np.abs(other.output - base.output)
        assert row["Sums that differ"] == f"{100 * (sums > 0).mean():.1f} %"
        assert int(row["Largest difference, in 2^-25"]) == sums.max()
        assert row["Outputs that differ"] == f"{100 * (output > 0).mean():.3f} %"
        assert int(row["Largest difference, in lsb"]) == output.max()


# --- GELU, router, experts ----------------------------------------------------------------------------------


@check("gelu")
def gelu_example(rows: Rows) -> None:
    for row in rows:
        x = int(datapath.GELU_INPUT.quantize(float(row["x"])))
        address, offset = abs(x) >> 8, abs(x) & 255
        base, slope = int(tables.GELU_DELTA.base[address]), int(tables.GELU_DELTA.slope[address])
        delta = (base << 8) + slope * offset
        exact = (max(x, 0) << 12) - delta
        assert gelu(one(x))[0] == exact
        narrowed = by(1, GELU_FRAC - 14)(np.array([[exact]]), narrow(16, 14))
        steps = [x, address, offset, base, slope, delta, exact, int(narrowed[0, 0])]
        assert [int(cell) for cell in list(row.values())[1:]] == steps
    exact_gelu = -0.8 * 0.5 * math.erfc(0.8 / math.sqrt(2))
    assert f"-2777 / 2^14 = {-2777 / 2**14:.5f}; the exact gelu(-0.8) is {exact_gelu:.5f}." in PROSE


GATES = {"all": GateKind.OVER_ALL, "the chosen": GateKind.OVER_SELECTED}


@check("router")
def router_example(rows: Rows) -> None:
    logits = datapath.SCORE.quantize(np.array([1.2, 0.3, 1.2, -0.5]) * math.log2(math.e))[None]
    assert f"(in `SCORE`: {', '.join(map(str, logits[0].tolist()))})" in PROSE
    assert [row["Softmax over"] for row in rows] == ["all", "the chosen"]
    for row in rows:
        routing = route(logits, 2, GATES[row["Softmax over"]])
        assert numbers(row["Chosen"]) == routing.experts[0].tolist()
        assert numbers(row["Scores"]) == routing.scores[0].tolist()
        assert row["As fractions"] == ", ".join(f"{score / 65536:.5f}" for score in routing.scores[0])


@check("experts")
def experts_example(rows: Rows) -> None:
    stream = narrow(24)
    numbered = {int(row["Expert"]): row for row in rows}
    x, half = 8388600, 32768
    for count in range(1, len(rows) + 1):
        chosen = list(numbered)[:count]
        row = numbered[chosen[-1]]
        routing = Routing(np.array([chosen[::-1]]), np.full((1, count), half), 8)
        result = run_experts(
            np.array([[x]]),
            np.zeros((1, 1), np.int64),
            routing,
            lambda number, tokens: np.array([[int(numbered[number]["o"])]]),
            stream,
        )
        assert int(row["x after"]) == result[0, 0]
        assert int(row["o × score, rounded"]) == GATE_SCALE(np.array([[int(row["o"]) * half]]), stream)


# --- Presets ------------------------------------------------------------------------------------------------


@check("presets")
def presets(rows: Rows) -> None:
    assert [row[""] for row in rows] == [name for name in Precision.model_fields if name != "name"]
    for row in rows:
        field = row[""]
        for name, precision in PRESETS.items():
            value = getattr(precision, field)
            shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
            assert row[name] == shown or (row[name] == "-" and precision.arithmetic == "iccad23")


@check("iccad23-types")
def iccad23_types(rows: Rows) -> None:
    assert {row["Parameters"]: int(row["Fraction bits"]) for row in rows} == ORIGINAL_FRAC
    for row in rows:
        assert Format.parse(row["Type"]) == Format(16, ORIGINAL_FRAC[row["Parameters"]])


@check("iccad23-scale")
def iccad23_scale(rows: Rows) -> None:
    for row in rows:
        expected = (int(row["Multiplier"]), int(row["Shift"]))
        assert iccad23.attention_scale(int(row["Head dim"])) == expected


def test_learned_rounding() -> None:
    """The loop of the page, on inputs of no special kind."""
    rng = np.random.default_rng(0)
    x, weight, scale = rng.normal(size=(50, 12)) @ rng.normal(size=(12, 12)), rng.normal(size=12), 0.02
    energy = x.T @ x
    energy += rounding_module.DAMPING * np.diag(energy).mean() * np.eye(12)
    assert f"E += {rounding_module.DAMPING} × mean(diag(E)) × I" in PROSE
    factor = np.linalg.cholesky(np.linalg.inv(energy)).T
    np.testing.assert_allclose(factor.T @ factor @ energy, np.eye(12), atol=1e-8)
    w, q = weight / scale, np.zeros(12)
    for k in range(12):
        q[k] = min(max(math.floor(w[k] + 0.5), -128), 127)
        w[k + 1 :] -= (w[k] - q[k]) * factor[k, k + 1 :] / factor[k, k]
    assert (q != np.floor(weight / scale + 0.5)).any()
    learned = rounding_module.round_weights(weight[None], np.array([scale]), 8, x.T @ x)
    assert learned[0].tolist() == q.tolist()


def test_worst_row_of_softmax() -> None:
    one = 1 << 12
    row = np.append([79, one - 54085], np.full(1199, one - 91340))[None]
    maxima, sums = single_pass(row, np.zeros(1, np.int64))
    exact = np.exp2(row / one - 1)
    error = np.abs(probabilities(row, maxima, sums) / 65536 - exact / exact.sum()).max()
    assert f"{error:.2e} or 2^{math.log2(error):.2f}." in PROSE


def test_iccad23_constants() -> None:
    assert f"{iccad23.LOG2_E} × 2^-{iccad23.LOG2_E_FRAC}" in PROSE
    assert f"{len(iccad23.EXP2_FINE.base)} segments with {iccad23.EXP2_FINE.frac} fraction bits" in PROSE
    assert f"{len(iccad23.GELU_TABLE)} entries" in PROSE
    assert Format.parse("ap_fixed<32, 10>") == iccad23.FEATURE
