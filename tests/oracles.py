"""What every kernel must return, in plain Python integers, straight from the formulas.

Nothing here shifts, masks or uses NumPy, so that no oracle can share a mistake with the code under test:
shifts are floor divisions, wrapping is `%`, sums are `sum`. Tables are data, and come from `pysim.tables`;
that their entries are the right ones is another matter, for which `exact_*` gives functions to 50 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache
from math import isqrt
from typing import Any

from pysim.datapath import (
    EXPONENTIAL,
    GELU_INPUT,
    MANTISSA_FRAC,
    NORMALIZED,
    PIXEL_OFFSET,
    PROBABILITY,
    SCORE,
)
from pysim.tables import (
    EXP2,
    GELU_DELTA,
    GELU_TANH_DELTA,
    QUICK_GELU_DELTA,
    RECIPROCAL,
    RSQRT,
    TABLES,
    PiecewiseLinear,
)

Row = list[int]
Matrix = list[list[int]]
Output = dict[str, Any]
"""Name to a list (of lists ...) of ints."""


def rounded(value: int, shift: int) -> int:
    """floor(value / 2**shift + 1/2): to nearest, ties upwards."""
    return int((2 * value + 2**shift) // 2 ** (shift + 1))


def saturated(value: int, width: int) -> int:
    return int(max(-(2 ** (width - 1)), min(2 ** (width - 1) - 1, value)))


def dot(a: Row, b: Row) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


def key_order(keys: int, first: int) -> Row:
    """first, first + 1, ..., keys - 1, 0, ..., first - 1."""
    return [*range(first, keys), *range(first)]


# --- The function units -------------------------------------------------------------------------------------


def interpolated(base: Row, slope: Row, segment: int, offset: int, steps: int) -> int:
    """The chord at `offset` of `steps` inside a segment, times `steps`: exact."""
    return base[segment] * steps + slope[segment] * offset


_ROWS = {table.name: (table.base.tolist(), table.slope.tolist()) for table in TABLES}


def looked_up(table: PiecewiseLinear, position: int) -> int:
    """Interpolated value at a position counted in steps from the start of the table."""
    segment, offset = divmod(position, 2**table.step_bits)
    return interpolated(*_ROWS[table.name], segment, offset, 2**table.step_bits)


def power_of_minus(difference: int) -> int:
    """2**-difference."""
    octaves, fraction = divmod(difference, 2**SCORE.frac)
    value = looked_up(EXP2, fraction)
    return rounded(value, EXP2.value_frac - EXPONENTIAL.frac + octaves)


def leading_position(value: int) -> int:
    """floor(log2(value))."""
    return len(bin(value)) - 3


def reciprocal_of(value: int) -> tuple[int, int]:
    """1/value = mantissa * 2**-(MANTISSA_FRAC + exponent)."""
    exponent = leading_position(value)
    # value / 2**exponent is in [1, 2); the table starts at 1 and spans 1.
    steps = len(RECIPROCAL.base) * 2**RECIPROCAL.step_bits
    position = value * steps // 2**exponent - steps
    return rounded(looked_up(RECIPROCAL, position), RECIPROCAL.value_frac - MANTISSA_FRAC), exponent


def rsqrt_of(value: int) -> tuple[int, int]:
    """1/sqrt(value) = mantissa * 2**-(MANTISSA_FRAC + exponent)."""
    leading = leading_position(value)
    half = len(RSQRT.base) // 2 * 2**RSQRT.step_bits
    # value = m * 4**exponent with m in [1, 4): the first half of the table is [1, 2), the second [2, 4).
    position = value * half // 2**leading - half + half * (leading % 2)
    return rounded(looked_up(RSQRT, position), RSQRT.value_frac - MANTISSA_FRAC), leading // 2


def gelu_of(x: int, table: PiecewiseLinear = GELU_DELTA) -> int:
    """relu(x) - delta(|x|), with the fraction bits of an interpolated delta."""
    end = len(table.base) * 2**table.step_bits
    delta = looked_up(table, abs(x)) if abs(x) < end else 0
    return int(max(x, 0) * 2 ** (table.value_frac - GELU_INPUT.frac) - delta)


# --- Kernels ------------------------------------------------------------------------------------------------


def requantised(values: Matrix, multiplier: Row, shift: Row, addend: Matrix | None, out_width: int) -> Matrix:
    return [
        [
            saturated(rounded(value * m, s) + (addend[t][c] if addend else 0), out_width)
            for c, (value, m, s) in enumerate(zip(row, multiplier, shift, strict=True))
        ]
        for t, row in enumerate(values)
    ]


def requantise(values: Matrix, multiplier: Row, shift: Row, addend: Matrix, out_width: int) -> Output:
    return {"y": requantised(values, multiplier, shift, addend, out_width)}


def sums_of(x: Matrix, weight: Matrix, bias: Row) -> Matrix:
    return [[dot(token, row) + b for row, b in zip(weight, bias, strict=True)] for token in x]


def linear(
    x: Matrix,
    weight: Matrix,
    bias: Row,
    multiplier: Row,
    shift: Row,
    addend: Matrix,
    out_width: int,
    **_widths: int,
) -> Output:
    sums = sums_of(x, weight, bias)
    return {"sums": sums, "y": requantised(sums, multiplier, shift, addend, out_width)}


def gelu(x: Row) -> Output:
    return {"y": [gelu_of(value) for value in x]}


def gelu_tanh(x: Row) -> Output:
    return {"y": [gelu_of(value, GELU_TANH_DELTA) for value in x]}


def quick_gelu(x: Row) -> Output:
    return {"y": [gelu_of(value, QUICK_GELU_DELTA) for value in x]}


def relu(x: Row) -> Output:
    """In the units of the others."""
    return {"y": [max(value, 0) * 2 ** (GELU_DELTA.value_frac - GELU_INPUT.frac) for value in x]}


def exp2(differences: Row) -> Output:
    return {"y": [power_of_minus(difference) for difference in differences]}


def reciprocal(values: Row) -> Output:
    pairs = [reciprocal_of(value) for value in values]
    return {"mantissa": [m for m, _ in pairs], "exponent": [e for _, e in pairs]}


def rsqrt(values: Row) -> Output:
    pairs = [rsqrt_of(value) for value in values]
    return {"mantissa": [m for m, _ in pairs], "exponent": [e for _, e in pairs]}


def below(m: int, score: int) -> int:
    """2**(score - m) of a score that is no larger than the whole number m."""
    return power_of_minus(m * 2**SCORE.frac - score)


def maximum_and_sum(scores: Row, first: int) -> tuple[int, int]:
    """The single pass over one row: a whole number, and a sum with the fraction bits of an exponential."""
    met = [scores[key] for key in key_order(len(scores), first)]
    m, s = whole_above(met[0]), 0
    for x in met:
        raised = max(m, whole_above(x))
        # A maximum that stays divides by 1, which rounds nothing.
        s = rounded(s, raised - m) + below(raised, x)
        m = raised
    return m, s


def whole_above(score: int) -> int:
    """The smallest whole number that is no smaller than a score."""
    whole, rest = divmod(score, 2**SCORE.frac)
    return whole + (1 if rest else 0)


def probability(score: int, m: int, s: int) -> int:
    """2**(score - m) / s, never more than 1."""
    mantissa, exponent = reciprocal_of(s)
    # exponential and sum have equal fraction bits, which cancel out of their ratio.
    ratio = rounded(below(m, score) * mantissa, MANTISSA_FRAC + exponent - PROBABILITY.frac)
    return int(min(ratio, 2**PROBABILITY.frac))


def softmax(scores: Matrix, first: Row) -> Output:
    passes = [maximum_and_sum(row, start) for row, start in zip(scores, first, strict=True)]
    return {
        "maxima": [m for m, _ in passes],
        "sums": [s for _, s in passes],
        "probabilities": [
            [probability(x, m, s) for x in row] for row, (m, s) in zip(scores, passes, strict=True)
        ],
    }


def attention(
    q: list[Matrix],
    k: list[Matrix],
    v: list[Matrix],
    attention_rows: int,
    score_shift: int,
    attention_shift: int,
    out_width: int,
    **_widths: int,
) -> Output:
    result: Output = {"scores": [], "maxima": [], "sums": [], "output": []}
    for queries, keys, values in zip(q, k, v, strict=True):
        left, right = max(-score_shift, 0), max(score_shift, 0)
        scores = [
            [saturated(rounded(dot(a, b) * 2**left, right), SCORE.width) for b in keys] for a in queries
        ]
        passes = [maximum_and_sum(row, i % attention_rows) for i, row in enumerate(scores)]
        output = []
        for row, (m, s) in zip(scores, passes, strict=True):
            e = [below(m, x) for x in row]
            mantissa, exponent = reciprocal_of(s)
            weighted = [dot(e, list(channel)) for channel in zip(*values, strict=True)]
            # s is 1 to 2 times 2**(exponent - EXPONENTIAL.frac), and more than a half.
            halvings = exponent - (EXPONENTIAL.frac - 1)
            scaled = [rounded(total, halvings) for total in weighted]
            shift = MANTISSA_FRAC + (EXPONENTIAL.frac - 1) + attention_shift
            output.append([saturated(rounded(value * mantissa, shift), out_width) for value in scaled])
        result["scores"].append(scores)
        result["maxima"].append([m for m, _ in passes])
        result["sums"].append([s for _, s in passes])
        result["output"].append(output)
    return result


def normalized_token(x: Row, epsilon: int) -> Row:
    channels, total = len(x), sum(x)
    spread = channels * dot(x, x) - total**2 + epsilon
    mantissa, exponent = rsqrt_of(spread)
    shift = MANTISSA_FRAC + exponent - NORMALIZED.frac
    return [saturated(rounded((channels * value - total) * mantissa, shift), NORMALIZED.width) for value in x]


def layernorm(
    x: Matrix, epsilon: int, gamma: Row, beta: Row, shift: int, out_width: int, **_widths: int
) -> Output:
    normalized = [normalized_token(token, epsilon) for token in x]
    y = [
        [saturated(rounded(n * g + b, shift), out_width) for n, g, b in zip(token, gamma, beta, strict=True)]
        for token in normalized
    ]
    return {"normalized": normalized, "y": y}


def best(logits: Row, k: int) -> Row:
    """k times the largest that is left; only a strictly larger one displaces a lower index."""
    chosen: Row = []
    for _ in range(k):
        winner = -1
        for expert, logit in enumerate(logits):
            if expert not in chosen and (winner < 0 or logit > logits[winner]):
                winner = expert
        chosen.append(winner)
    return chosen


def router(logits: Matrix, k: int, over_selected: int) -> Output:
    experts = [best(row, k) for row in logits]
    scores = []
    for row, chosen in zip(logits, experts, strict=True):
        selected = [row[expert] for expert in chosen]
        m, s = maximum_and_sum(selected if over_selected else row, 0)
        scores.append([probability(x, m, s) for x in selected])
    queues = [
        [
            (token, scores[token][chosen.index(expert)])
            for token, chosen in enumerate(experts)
            if expert in chosen
        ]
        for expert in range(len(logits[0]))
    ]
    return {
        "experts": experts,
        "scores": scores,
        "lengths": [len(queue) for queue in queues],
        "active": [expert for expert, queue in enumerate(queues) if queue],
        "queue_tokens": [token for queue in queues for token, _ in queue],
        "queue_scores": [score for queue in queues for _, score in queue],
    }


def moe(
    residual: Matrix,
    tokens: Matrix,
    experts: Matrix,
    scores: Matrix,
    weight: list[Matrix],
    bias: Matrix,
    shift: int,
    out_width: int,
    **_widths: int,
) -> Output:
    y = []
    for token, stream, chosen, gates in zip(tokens, residual, experts, scores, strict=True):
        # A token meets its experts by their number, not by their rank, and saturates at each.
        for expert, gate in sorted(zip(chosen, gates, strict=True)):
            sums = sums_of([token], weight[expert], bias[expert])[0]
            out = [saturated(rounded(total, shift), out_width) for total in sums]
            stream = [
                saturated(old + rounded(value * gate, PROBABILITY.frac), out_width)
                for old, value in zip(stream, out, strict=True)
            ]
        y.append(stream)
    return {"y": y}


def embed(
    images: list[list[Matrix]],
    patch_size: int,
    weight: Matrix,
    bias: Row,
    multiplier: Row,
    shift: Row,
    position: Matrix,
    out_width: int,
    **_widths: int,
) -> Output:
    side = range(patch_size)
    operands, stream = [], []
    for image in images:
        height, width = len(image[0]), len(image[0][0])
        corners = [(y, x) for y in range(0, height, patch_size) for x in range(0, width, patch_size)]
        patches = [
            [
                channel[top + row][left + column] - PIXEL_OFFSET
                for channel in image
                for row in side
                for column in side
            ]
            for top, left in corners
        ]
        sums = sums_of(patches, weight, bias)
        operands += patches
        stream += [position[0], *requantised(sums, multiplier, shift, position[1:], out_width)]
    return {"operands": operands, "y": stream}


# --- The original's arithmetic ------------------------------------------------------------------------------

FRAC = 22
ONE = 2**FRAC
LOWEST, HIGHEST = -(2**31), 2**31 - 1
EXP_FRAC = 30
EXP_SEGMENTS = 512


def wrapped(value: int) -> int:
    """Into 32 signed bits, modulo 2**32."""
    return (value - LOWEST) % 2**32 + LOWEST


def product(a: int, b: int) -> int:
    """Of features, floored."""
    return int(a * b // ONE)


@cache
def original_tables() -> tuple[Row, Row, int]:
    """GELU's delta at steps of 1/32; 2**-f at steps of 1/512; log2(e)."""
    with localcontext() as context:
        context.prec = 50
        delta = [nearest(exact_delta(Decimal(i) / 32), FRAC) for i in range(177)]
        powers = [nearest(exact_exp2(Decimal(i) / EXP_SEGMENTS), EXP_FRAC) for i in range(EXP_SEGMENTS + 1)]
        return delta, powers, nearest(1 / Decimal(2).ln(), EXP_FRAC)


def feature_exp(x: int) -> int:
    """exp(x) of a feature x <= 0, floored to a feature."""
    _, powers, log2_e = original_tables()
    octaves, fraction = divmod(-x * log2_e // 2**EXP_FRAC, ONE)
    steps = ONE // EXP_SEGMENTS
    segment, offset = divmod(fraction, steps)
    value = powers[segment] * steps + (powers[segment + 1] - powers[segment]) * offset
    return int(value * ONE // (2**EXP_FRAC * steps * 2**octaves))


def feature_reciprocal(value: int) -> int:
    return int(min(ONE * ONE // max(value, 1), HIGHEST))


def feature_quotient(a: int, b: int) -> int:
    """a / b of features above zero: an ordinary division of their type, which keeps the low 32 bits."""
    return wrapped(a * ONE // b)


def iccad23_linear(x: Matrix, weight: Matrix, bias: Row, shift: int) -> Output:
    def output(token: Row, row: Row, total: int) -> int:
        for value, w in zip(token, row, strict=True):
            total = wrapped(total + value * w // 2**shift)
        return total

    return {
        "y": [[output(token, row, wrapped(b)) for row, b in zip(weight, bias, strict=True)] for token in x]
    }


def iccad23_gelu(x: Row) -> Output:
    delta, _, _ = original_tables()
    step = ONE // 32

    def value(a: int) -> int:
        if 2 * a >= 11 * ONE:
            return 0
        i, rest = divmod(a, step)
        t = rest * ONE // step
        return int(delta[i] + t * (delta[i + 1] - delta[i]) // ONE)

    return {"y": [max(v, 0) - value(abs(v)) for v in x]}


def original_pass(scores: Row, first: int) -> tuple[int, int]:
    m, s = LOWEST, 0
    for key in key_order(len(scores), first):
        x = scores[key]
        e = feature_exp(max(-abs(x - m), LOWEST))
        if x > m:
            m, s = x, wrapped(product(s, e) + ONE)
        else:
            s = wrapped(s + e)
    return m, s


def iccad23_softmax(scores: Matrix, first: Row) -> Output:
    passes = [original_pass(row, start) for row, start in zip(scores, first, strict=True)]
    return {
        "maxima": [m for m, _ in passes],
        "sums": [s for _, s in passes],
        "reciprocals": [feature_reciprocal(s) for _, s in passes],
        "exponentials": [
            [feature_exp(max(x - m, LOWEST)) for x in row] for row, (m, _) in zip(scores, passes, strict=True)
        ],
    }


def original_score(q: Row, k: Row) -> int:
    """Blocks of 8 dimensions, each summed, wrapped and scaled by 1 / sqrt(head_dim)."""
    root = isqrt(len(q))
    pure_shift = root * root == len(q) and root & (root - 1) == 0
    with localcontext() as context:
        context.prec = 50
        scale = nearest(1 / Decimal(len(q)).sqrt(), FRAC)
    total = 0
    for start in range(0, len(q), 8):
        pairs = zip(q[start : start + 8], k[start : start + 8], strict=True)
        block = wrapped(sum(product(a, b) for a, b in pairs))
        total += block // root if pure_shift else product(block, scale)
    return wrapped(total)


def iccad23_attention(q: list[Matrix], k: list[Matrix], v: list[Matrix], attention_rows: int) -> Output:
    result: Output = {"scores": [], "output": []}
    for queries, keys, values in zip(q, k, v, strict=True):
        scores = [[original_score(a, b) for b in keys] for a in queries]
        output = []
        for i, row in enumerate(scores):
            m, s = original_pass(row, i % attention_rows)
            inverse = feature_reciprocal(s)
            p = [product(feature_exp(max(x - m, LOWEST)), inverse) for x in row]
            channels = zip(*values, strict=True)
            output.append([wrapped(sum(map(product, channel, p))) for channel in channels])
        result["scores"].append(scores)
        result["output"].append(output)
    return result


def iccad23_layernorm(x: Matrix, gamma: Row, beta: Row, norm_frac: int) -> Output:
    def token(row: Row) -> Row:
        c = ONE // len(row)
        t = [product(value, c) for value in row]
        mean = wrapped(sum(t))
        msq = wrapped(sum(map(product, row, t)))
        var = wrapped(msq - product(mean, mean) + 4)
        # A variance that is not positive has no root: the kernel takes the smallest feature instead.
        inverse = feature_quotient(ONE, isqrt(max(var, 1) * ONE))
        y = [wrapped(product(wrapped(value - mean), inverse)) for value in row]
        y = [wrapped(value * g // 2**norm_frac) for value, g in zip(y, gamma, strict=True)]
        return [wrapped(value + b * 2 ** (FRAC - norm_frac)) for value, b in zip(y, beta, strict=True)]

    return {"y": [token(row) for row in x]}


def iccad23_scale(residual: Matrix, y: Matrix, score: Matrix) -> Output:
    scaled = [[wrapped(product(value, gate)) for value in row] for row, (gate,) in zip(y, score, strict=True)]
    return {
        "scaled": scaled,
        "y": [
            [wrapped(a + b) for a, b in zip(old, new, strict=True)]
            for old, new in zip(residual, scaled, strict=True)
        ],
    }


ORACLES: dict[str, Callable[..., Output]] = {
    function.__name__: function
    for function in (
        requantise,
        linear,
        gelu,
        gelu_tanh,
        quick_gelu,
        relu,
        exp2,
        reciprocal,
        rsqrt,
        softmax,
        attention,
        layernorm,
        router,
        moe,
        embed,
        iccad23_linear,
        iccad23_gelu,
        iccad23_softmax,
        iccad23_attention,
        iccad23_layernorm,
        iccad23_scale,
    )
}


# --- Functions to 50 digits, for the tables -----------------------------------------------------------------


def nearest(value: Decimal, frac: int) -> int:
    """The integer nearest to value * 2**frac."""
    return int((value * 2**frac).to_integral_value())


def exact_exp2(x: Decimal) -> Decimal:
    """2**-x."""
    return (-x * Decimal(2).ln()).exp()


def exact_delta(a: Decimal) -> Decimal:
    """a * (1 - Phi(a)) for a >= 0.

    Phi(a) = 1/2 + phi(a) * (a + a**3 / 3 + a**5 / (3 * 5) + ...): every term is positive, so nothing cancels
    but in the last step, where 50 digits leave more than 30.
    """
    if a == 0:
        return Decimal(0)
    term, total, n = a, Decimal(0), 1
    while total + term != total:
        total += term
        n += 2
        term = term * a * a / n
    density = (-a * a / 2).exp() / (2 * _pi()).sqrt()
    return a * (Decimal("0.5") - density * total)


def exact_tanh_delta(a: Decimal) -> Decimal:
    """a * (1 - (1 + tanh(u)) / 2) with u = sqrt(2 / pi) * (a + 0.044715 a**3)."""
    u = (2 / _pi()).sqrt() * (a + Decimal("0.044715") * a**3)
    return a / (1 + (2 * u).exp())


def exact_quick_delta(a: Decimal) -> Decimal:
    """a * (1 - sigmoid(1.702 a))."""
    return a / (1 + (Decimal("1.702") * a).exp())


def _pi() -> Decimal:
    """Machin: pi/4 = 4 arctan(1/5) - arctan(1/239)."""

    def arctan_of_inverse(n: int) -> Decimal:
        return sum(
            (Decimal((-1) ** i) / ((2 * i + 1) * Decimal(n) ** (2 * i + 1)) for i in range(80)), Decimal(0)
        )

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
