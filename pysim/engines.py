"""The accelerator's engines for a Design: its integer parameters bound to the kernels.

`Engines` is what the simulator drives, operation by operation; each arithmetic has its own implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.pictures import patches
from pysim.arithmetic import ICCAD23, REQUANTISE, Arithmetic
from pysim.design import Design
from pysim.kernels import iccad23
from pysim.kernels.attention import attention, first_keys
from pysim.kernels.embed import pixel_operands
from pysim.kernels.gelu import activate_sums
from pysim.kernels.layernorm import layer_norm
from pysim.kernels.linear import Weights
from pysim.kernels.moe import run_experts
from pysim.kernels.router import Routing, route, top_k
from pysim.program import Attention, Embed, Experts, Gate, Index, Linear, Norm

IntArray = NDArray[np.signedinteger[Any]]
"""Integers, whatever type stores them: int32 holds every value of our own arithmetic, and takes half the memory."""


@dataclass(frozen=True)
class Hidden:
    """Values between the two layers of one expert, for tracing, and the tokens that they are of."""

    expert: int
    tokens: IntArray
    values: IntArray


class Engines(Protocol):
    """One arithmetic. Tokens of all images are joined on the first axis."""

    def pixels(self, op: Embed, images: NDArray[np.uint8]) -> IntArray:
        """Operands (images * patches, values) of the patch embedding of images (images, channels, H, W)."""

    def norm(self, op: Norm, x: IntArray) -> tuple[IntArray, IntArray]:
        """The operands of the linear engine, and those of the router."""

    def linear(self, op: Linear, x: IntArray, old: IntArray | None = None, index: Index = ()) -> IntArray:
        """Results (tokens, outputs) for operands (tokens, inputs), added to `old` where that is given."""

    def attention(
        self, op: Attention, q: IntArray, k: IntArray, v: IntArray, keep_scores: bool
    ) -> tuple[IntArray, IntArray]:
        """Output and scores (images * heads, tokens, ...) of queries, keys, values (images, heads, tokens, head_dim).

        Without `keep_scores`, the scores may have no columns.
        """

    def logits(self, op: Gate, task: int, x: IntArray) -> IntArray:
        """Gate logits (tokens, experts)."""

    def route(self, op: Gate, logits: IntArray) -> Routing:
        """Choices and scores."""

    def experts(
        self, op: Experts, routing: Routing, x: IntArray, stream: IntArray
    ) -> tuple[IntArray, list[Hidden]]:
        """Residual stream after the experts, and the hidden values of those that ran."""


class RequantiseEngines:
    """Exact sums, one rounding and one saturation for each value that is produced."""

    def __init__(self, design: Design) -> None:
        self.design = design

    def pixels(self, op: Embed, images: NDArray[np.uint8]) -> IntArray:
        """See `Engines`."""
        return pixel_operands(images, op.patch_size)

    def norm(self, op: Norm, x: IntArray) -> tuple[IntArray, IntArray]:
        """See `Engines`."""
        outs = [(self.design.scalar(op.shift), op.output.format)]
        if op.gate_output is not None:
            outs.append((self.design.scalar(op.gate_shift), op.gate_output.format))
        gamma, beta = self.design.integers(op.gamma), self.design.integers(op.beta)
        y = layer_norm(x, self.design.scalar(op.epsilon), gamma, beta, outs)
        return y[0], y[-1]

    def linear(self, op: Linear, x: IntArray, old: IntArray | None = None, index: Index = ()) -> IntArray:
        """See `Engines`."""
        weights, bias = self._weights(op, index), self.design.integers(op.bias, index)
        requantise, out = self.design.requantise(op.scaling, index), op.output.format
        result = np.empty((len(x), len(bias)), np.int32)
        if op.activation is None:
            for part, sums in weights.blocks(x):
                requantise(sums, out, 0 if old is None else old[part], bias, result[part])
            return result
        place, function = index or (0,), op.activation.function
        zero = int(self.design.integers(op.activation.zero, place))
        narrow = self.design.requantise(op.activation.scaling, place)
        for part, sums in weights.blocks(x):
            activate_sums(function, sums, bias, requantise, narrow, zero, out, result[part])
        return result

    def _weights(self, op: Linear | Gate, index: Index) -> Weights:
        weight, limits = self.design.tensors[op.weight.name], op.input.format
        largest = max(-limits.min, limits.max)
        key = ("weights", op.weight.name, index, largest)
        return self.design.once(key, lambda: Weights.of(weight[index], largest))

    def attention(
        self, op: Attention, q: IntArray, k: IntArray, v: IntArray, keep_scores: bool
    ) -> tuple[IntArray, IntArray]:
        """See `Engines`."""
        result = attention(
            q,
            k,
            v,
            attention_rows=self.design.attention_rows,
            score_shift=self.design.scalar(op.score_shift),
            attention_shift=self.design.scalar(op.attention_shift),
            out=op.output.format,
            keep_scores=keep_scores,
        )
        return result.output, result.scores

    def logits(self, op: Gate, task: int, x: IntArray) -> IntArray:
        """See `Engines`."""
        index = op.weight_index(task)
        bias = self.design.integers(op.bias, op.bias_index(task))
        requantise = self.design.requantise(op.scaling, index)
        return requantise(self._weights(op, index).products(x), op.logits.format, 0, bias)

    def route(self, op: Gate, logits: IntArray) -> Routing:
        """See `Engines`."""
        return route(logits, op.top_k, op.kind)

    def experts(
        self, op: Experts, routing: Routing, x: IntArray, stream: IntArray
    ) -> tuple[IntArray, list[Hidden]]:
        """See `Engines`."""
        traced: list[Hidden] = []
        run = _mlp(self, op, routing, traced)
        return run_experts(stream, x, routing, run, op.output.format), traced


class Iccad23Engines:
    """The original's arithmetic: 32-bit features, every product floored, sums that wrap."""

    def __init__(self, design: Design) -> None:
        self.design = design

    def pixels(self, op: Embed, images: NDArray[np.uint8]) -> IntArray:
        """See `Engines`."""
        cut = patches(images, op.patch_size)
        return cut.reshape(-1, cut.shape[-1]).astype(np.int64)

    def norm(self, op: Norm, x: IntArray) -> tuple[IntArray, IntArray]:
        """See `Engines`."""
        gamma, beta = (self.design.integers(tensor) for tensor in (op.gamma, op.beta))
        y = iccad23.layer_norm(x, gamma, beta, norm_frac=self.design.frac(op.gamma))
        return y, y

    def linear(self, op: Linear, x: IntArray, old: IntArray | None = None, index: Index = ()) -> IntArray:
        """See `Engines`."""
        result = self._sums(op, x, index, index)
        if op.activation is not None:
            result = iccad23.gelu(result)
        return result if old is None else iccad23.add(old, result)

    def _sums(self, op: Linear | Gate, x: IntArray, index: Index, bias_index: Index) -> IntArray:
        design = self.design
        shift = op.input.format.frac + design.frac(op.weight) - iccad23.FRAC
        # A weight type so coarse that nothing is truncated shifts the other way.
        key = ("aligned", op.weight.name, index, shift)
        weight = design.once(key, lambda: design.integers(op.weight, index) << max(-shift, 0))
        bias = design.integers(op.bias, bias_index) << (iccad23.FRAC - design.frac(op.bias))
        return iccad23.linear(x, weight, bias, shift=max(shift, 0))

    def attention(
        self, op: Attention, q: IntArray, k: IntArray, v: IntArray, keep_scores: bool
    ) -> tuple[IntArray, IntArray]:
        """See `Engines`."""
        q, k, v = (np.ascontiguousarray(each).reshape(-1, *each.shape[2:]) for each in (q, k, v))
        return iccad23.attention(q, k, v, first_keys(op.tokens, self.design.attention_rows))

    def logits(self, op: Gate, task: int, x: IntArray) -> IntArray:
        """See `Engines`."""
        return self._sums(op, x, op.weight_index(task), op.bias_index(task))

    def route(self, op: Gate, logits: IntArray) -> Routing:
        """See `Engines`."""
        chosen = top_k(logits, op.top_k)
        selected = np.take_along_axis(logits, chosen, axis=1)
        start = np.zeros(len(logits), np.int64)
        maxima, sums = iccad23.single_pass(op.kind.terms(logits, selected), start)
        scores = (iccad23.exponentials(selected, maxima) << iccad23.FRAC) // sums[:, None]
        return Routing(chosen, scores, op.experts)

    def experts(
        self, op: Experts, routing: Routing, x: IntArray, stream: IntArray
    ) -> tuple[IntArray, list[Hidden]]:
        """See `Engines`."""
        result, traced = stream.copy(), list[Hidden]()
        run = _mlp(self, op, routing, traced)
        for number in routing.active.tolist():
            queue, scores = routing.queue(number)
            weighted = iccad23.scale(run(number, x[queue]), scores[:, None])
            result[queue] = iccad23.add(result[queue], weighted)
        return result, traced


def _mlp(
    engines: Engines, op: Experts, routing: Routing, traced: list[Hidden]
) -> Callable[[int, IntArray], IntArray]:
    """Both layers of an expert, given its number and its tokens; leaves its hidden values in `traced`."""

    def run(number: int, tokens: IntArray) -> IntArray:
        hidden = engines.linear(op.fc1, tokens, index=(number,))
        traced.append(Hidden(number, routing.queue(number)[0], hidden))
        return engines.linear(op.fc2, hidden, index=(number,))

    return run


_ENGINES: dict[Arithmetic, Callable[[Design], Engines]] = {
    REQUANTISE: RequantiseEngines,
    ICCAD23: Iccad23Engines,
}


def engines_of(design: Design) -> Engines:
    """The engines of a Design's arithmetic."""
    return _ENGINES[design.arithmetic](design)
