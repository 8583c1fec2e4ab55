"""The implementations that run the case table; adding one is one entry of `BACKENDS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import Case
from oracles import ORACLES
from pysim.formats import Format
from pysim.kernels import iccad23
from pysim.kernels.attention import attention, first_keys
from pysim.kernels.embed import pixel_operands
from pysim.kernels.gelu import gelu
from pysim.kernels.layernorm import normalize
from pysim.kernels.linear import Requantise, accumulate
from pysim.kernels.moe import run_experts
from pysim.kernels.router import Routing, route
from pysim.kernels.softmax import probabilities, single_pass
from pysim.kernels.units import exp2, reciprocal, rsqrt

IntArray = NDArray[Any]
Output = dict[str, IntArray]
Backend = Callable[[Case], Output]


def expected(case: Case) -> Output:
    """What the oracle says."""
    inputs = {
        name: value if isinstance(value, int) else value.tolist() for name, value in case.inputs.items()
    }
    return {name: np.array(value, np.int64) for name, value in ORACLES[case.kernel](**inputs).items()}


def integers(width: int) -> Format:
    """Signed integers of that width: of a format, a kernel needs no more than the limits."""
    return Format(width, 0)


def shift_by(shift: int) -> Requantise:
    return Requantise(np.ones(1, np.int64), np.full(1, shift))


def _requantise(
    values: IntArray, multiplier: IntArray, shift: IntArray, addend: IntArray, out_width: int
) -> Output:
    return {"y": Requantise(multiplier, shift)(values, integers(out_width), addend)}


def _linear(
    x: IntArray,
    weight: IntArray,
    bias: IntArray,
    multiplier: IntArray,
    shift: IntArray,
    addend: IntArray,
    out_width: int,
    weight_width: int,
    **_widths: int,
) -> Output:
    # A Design stores weights in the narrowest type.
    sums = accumulate(x, weight.astype(integers(weight_width).dtype), bias)
    return {"sums": sums, "y": Requantise(multiplier, shift)(sums, integers(out_width), addend)}


def _mantissa(unit: Callable[[IntArray], tuple[IntArray, IntArray]]) -> Callable[..., Output]:
    def run(values: IntArray) -> Output:
        mantissas, exponents = unit(values)
        return {"mantissa": mantissas, "exponent": exponents}

    return run


def _softmax(scores: IntArray, first: IntArray) -> Output:
    maxima, sums = single_pass(scores, first)
    return {"maxima": maxima, "sums": sums, "probabilities": probabilities(scores, maxima, sums)}


def _attention(
    q: IntArray,
    k: IntArray,
    v: IntArray,
    rows_per_block: int,
    score_shift: int,
    out_shift: int,
    out_width: int,
    **_widths: int,
) -> Output:
    result = attention(
        q,
        k,
        v,
        rows_per_block=rows_per_block,
        score_shift=score_shift,
        out_shift=out_shift,
        out=integers(out_width),
    )
    return {"scores": result.scores, "maxima": result.maxima, "sums": result.sums, "output": result.output}


def _layernorm(
    x: IntArray, epsilon: int, gamma: IntArray, beta: IntArray, shift: int, out_width: int, **_widths: int
) -> Output:
    normalized = normalize(x, epsilon)
    y = shift_by(shift)(normalized * gamma + beta, integers(out_width))
    return {"normalized": normalized, "y": y}


def _router(logits: IntArray, k: int, normalize_over_selected: int) -> Output:
    routing = route(logits, k, normalize_over_selected=bool(normalize_over_selected))
    queues = [routing.queue(expert) for expert in range(routing.count)]
    return {
        "experts": routing.experts,
        "scores": routing.scores,
        "lengths": routing.lengths,
        "active": routing.active,
        "queue_tokens": np.concatenate([tokens for tokens, _ in queues]),
        "queue_scores": np.concatenate([scores for _, scores in queues]),
    }


def _moe(
    residual: IntArray,
    tokens: IntArray,
    experts: IntArray,
    scores: IntArray,
    weight: IntArray,
    bias: IntArray,
    shift: int,
    out_width: int,
    **_widths: int,
) -> Output:
    out = integers(out_width)

    def expert(number: int, x: IntArray) -> IntArray:
        return shift_by(shift)(accumulate(x, weight[number], bias[number]), out)

    return {"y": run_experts(residual, tokens, Routing(experts, scores, len(weight)), expert, out)}


def _embed(
    images: IntArray,
    patch_size: int,
    weight: IntArray,
    bias: IntArray,
    multiplier: IntArray,
    shift: IntArray,
    position: IntArray,
    out_width: int,
    **_widths: int,
) -> Output:
    operands = pixel_operands(images.astype(np.uint8), patch_size)
    stream = np.tile(position, (len(images), 1, 1))
    patch_rows = stream[:, 1:].reshape(len(operands), -1)
    requantise = Requantise(multiplier, shift)
    patch_rows = requantise(accumulate(operands, weight, bias), integers(out_width), patch_rows)
    stream[:, 1:] = patch_rows.reshape(len(images), -1, len(weight))
    return {"operands": operands, "y": stream.reshape(-1, len(weight))}


def _iccad23_softmax(scores: IntArray, first: IntArray) -> Output:
    maxima, sums = iccad23.single_pass(scores, first)
    return {
        "maxima": maxima,
        "sums": sums,
        "reciprocals": iccad23.reciprocal(sums),
        "exponentials": iccad23.exponentials(scores, maxima),
    }


def _iccad23_attention(q: IntArray, k: IntArray, v: IntArray, rows_per_block: int) -> Output:
    output, scores = iccad23.attention(q, k, v, first_keys(q.shape[1], rows_per_block))
    return {"scores": scores, "output": output}


def _iccad23_scale(residual: IntArray, y: IntArray, score: IntArray) -> Output:
    scaled = iccad23.scale(y, score)
    return {"scaled": scaled, "y": iccad23.add(residual, scaled)}


PYSIM: dict[str, Callable[..., Output]] = {
    "requantise": _requantise,
    "linear": _linear,
    "gelu": lambda x: {"y": gelu(x)},
    "exp2": lambda differences: {"y": exp2(differences)},
    "reciprocal": _mantissa(reciprocal),
    "rsqrt": _mantissa(rsqrt),
    "softmax": _softmax,
    "attention": _attention,
    "layernorm": _layernorm,
    "router": _router,
    "moe": _moe,
    "embed": _embed,
    "iccad23_linear": lambda x, weight, bias, shift: {"y": iccad23.linear(x, weight, bias, shift=shift)},
    "iccad23_gelu": lambda x: {"y": iccad23.gelu(x)},
    "iccad23_softmax": _iccad23_softmax,
    "iccad23_attention": _iccad23_attention,
    "iccad23_layernorm": lambda x, gamma, beta, norm_frac: {
        "y": iccad23.layer_norm(x, gamma, beta, norm_frac=norm_frac)
    },
    "iccad23_scale": _iccad23_scale,
}

BACKENDS: dict[str, Backend] = {"pysim": lambda case: PYSIM[case.kernel](**case.inputs)}
