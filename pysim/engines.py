"""The accelerator's engines for a Design: its integer parameters bound to the kernels.

`Engines` is what the simulator drives, stage by stage; each arithmetic has its own implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pysim.datapath import GELU_INPUT, PIXEL_FRAC, PROBABILITY, SCORE
from pysim.design import ICCAD23_FRACS, Design
from pysim.kernels import iccad23
from pysim.kernels.attention import attention, first_keys
from pysim.kernels.embed import pixel_operands
from pysim.kernels.gelu import gelu
from pysim.kernels.layernorm import normalize
from pysim.kernels.linear import Requantise, accumulate
from pysim.kernels.moe import run_experts
from pysim.kernels.router import Routing, route, top_k
from pysim.pictures import patches

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Hidden:
    """MLP values between the two layers, for tracing: of one expert (None for a dense MLP) and its tokens."""

    expert: int | None
    tokens: IntArray
    values: IntArray


class Engines(Protocol):
    """One arithmetic. Tokens of all images are joined on the first axis."""

    def embed(self, images: NDArray[np.uint8]) -> IntArray:
        """Residual stream (tokens, dim) of images (images, channels, H, W)."""

    def norm(self, layer: int, which: int, x: IntArray) -> tuple[IntArray, IntArray]:
        """Norm 1 or 2 of a layer: the operands of the linear engine, and those of the router."""

    def qkv(self, layer: int, y: IntArray) -> IntArray:
        """Queries, keys and values (tokens, 3 * dim)."""

    def attention(self, layer: int, q: IntArray, k: IntArray, v: IntArray) -> tuple[IntArray, IntArray]:
        """Output and scores of (images * heads, tokens, head_dim) queries, keys and values."""

    def project(self, layer: int, mixed: IntArray, x: IntArray) -> IntArray:
        """Residual stream after the attention's projection."""

    def mlp(self, layer: int, y: IntArray, x: IntArray) -> tuple[IntArray, Hidden]:
        """Residual stream after a dense MLP."""

    def logits(self, layer: int, task: int, y: IntArray) -> IntArray:
        """Gate logits (tokens, experts)."""

    def route(self, logits: IntArray) -> Routing:
        """Choices and scores."""

    def experts(
        self, layer: int, routing: Routing, y: IntArray, x: IntArray
    ) -> tuple[IntArray, list[Hidden]]:
        """Residual stream after the experts."""

    def real_logits(self, logits: IntArray) -> NDArray[np.float64]:
        """Gate logits in real units (natural logarithm)."""

    def real_scores(self, scores: IntArray) -> NDArray[np.float64]:
        """Attention scores in real units (natural logarithm)."""

    def real_gate_scores(self, scores: IntArray) -> NDArray[np.float64]:
        """Gate scores in real units."""


def engines_of(design: Design) -> Engines:
    """The engines of a Design's arithmetic."""
    if design.precision.arithmetic == "iccad23":
        return Iccad23Engines(design)
    return RequantiseEngines(design)


class RequantiseEngines:
    """Exact sums, one rounding and one saturation for each value that is produced."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.residual = design.residual
        self.activation = design.precision.activation

    def _linear(self, name: str, x: IntArray, index: tuple[int, ...] = ()) -> tuple[IntArray, Requantise]:
        parameters = self.design.linear(name, index)
        return accumulate(x, parameters.weight, parameters.bias), parameters.requantise

    def embed(self, images: NDArray[np.uint8]) -> IntArray:
        """See `Engines`."""
        spec = self.design.spec
        position = self.design.tensors["position"].astype(np.int64)
        x = np.tile(position, (len(images), 1, 1))
        sums, requantise = self._linear("patch", pixel_operands(images, spec.patch_size))
        embedded = requantise(sums, self.residual, x[:, 1:].reshape(-1, spec.dim))
        x[:, 1:] = embedded.reshape(len(images), spec.patches, spec.dim)
        return x.reshape(-1, spec.dim)

    def norm(self, layer: int, which: int, x: IntArray) -> tuple[IntArray, IntArray]:
        """See `Engines`."""
        tensors, name = self.design.tensors, f"blocks.{layer}.norm{which}"
        normalized = normalize(x, self.design.scalar("epsilon"))
        wide = normalized * tensors[f"{name}.gamma"] + tensors[f"{name}.beta"]
        y = self.design.requantise_by(f"{name}.shift")(wide, self.activation)
        if f"{name}.gate_shift" not in tensors:
            return y, y
        to_gate = self.design.requantise_by(f"{name}.gate_shift")
        return y, to_gate(wide, self.design.precision.gate_input)

    def qkv(self, layer: int, y: IntArray) -> IntArray:
        """See `Engines`."""
        sums, requantise = self._linear(f"blocks.{layer}.qkv", y)
        return requantise(sums, self.design.precision.attention)

    def attention(self, layer: int, q: IntArray, k: IntArray, v: IntArray) -> tuple[IntArray, IntArray]:
        """See `Engines`."""
        result = attention(
            q,
            k,
            v,
            rows_per_block=self.design.parallelism.attention_rows,
            score_shift=self.design.scalar(f"blocks.{layer}.score_shift"),
            out_shift=self.design.scalar(f"blocks.{layer}.attention_shift"),
            out=self.activation,
        )
        return result.output, result.scores

    def project(self, layer: int, mixed: IntArray, x: IntArray) -> IntArray:
        """See `Engines`."""
        sums, requantise = self._linear(f"blocks.{layer}.proj", mixed)
        return requantise(sums, self.residual, x)

    def _hidden(self, layer: int, y: IntArray, index: tuple[int, ...]) -> IntArray:
        name = f"blocks.{layer}.hidden"
        sums, requantise = self._linear(f"blocks.{layer}.fc1", y, index)
        activated = gelu(requantise(sums, GELU_INPUT))
        zero = int(self.design.tensors[f"{name}.zero"][index or (0,)])
        return self.design.requantise(name, index)(activated, self.activation, zero)

    def mlp(self, layer: int, y: IntArray, x: IntArray) -> tuple[IntArray, Hidden]:
        """See `Engines`."""
        hidden = self._hidden(layer, y, ())
        sums, requantise = self._linear(f"blocks.{layer}.fc2", hidden)
        return requantise(sums, self.residual, x), Hidden(None, np.arange(len(x)), hidden)

    def logits(self, layer: int, task: int, y: IntArray) -> IntArray:
        """See `Engines`."""
        weight = self.design.tensors[f"blocks.{layer}.gate.weight"]
        gate = 0 if len(weight) == 1 else task
        bias = self.design.tensors[f"blocks.{layer}.gate.bias"][task]
        requantise = self.design.requantise(f"blocks.{layer}.gate", (gate,))
        return requantise(accumulate(y, weight[gate], bias), SCORE)

    def route(self, logits: IntArray) -> Routing:
        """See `Engines`."""
        moe = self.design.spec.moe
        assert moe is not None
        return route(logits, moe.top_k, normalize_over_selected=moe.normalize_over_selected)

    def experts(
        self, layer: int, routing: Routing, y: IntArray, x: IntArray
    ) -> tuple[IntArray, list[Hidden]]:
        """See `Engines`."""
        traced: list[Hidden] = []

        def expert(number: int, tokens: IntArray) -> IntArray:
            hidden = self._hidden(layer, tokens, (number,))
            traced.append(Hidden(number, routing.queue(number)[0], hidden))
            sums, requantise = self._linear(f"blocks.{layer}.fc2", hidden, (number,))
            return requantise(sums, self.residual)

        return run_experts(x, y, routing, expert, self.residual), traced

    def real_logits(self, logits: IntArray) -> NDArray[np.float64]:
        """See `Engines`."""
        return SCORE.to_float(logits) * np.log(2)

    def real_scores(self, scores: IntArray) -> NDArray[np.float64]:
        """See `Engines`."""
        return SCORE.to_float(scores) * np.log(2)

    def real_gate_scores(self, scores: IntArray) -> NDArray[np.float64]:
        """See `Engines`."""
        return PROBABILITY.to_float(scores)


class Iccad23Engines:
    """The original's arithmetic: 32-bit features, every product floored, sums that wrap."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.fracs = {kind: design.scalar(f"frac.{kind}") for kind in ICCAD23_FRACS}

    def _linear(self, name: str, x: IntArray, bias_kind: str, index: tuple[int, ...] = ()) -> IntArray:
        weight = self.design.tensors[f"{name}.weight"][index]
        bias = self.design.tensors[f"{name}.bias"][index].astype(np.int64)
        aligned = bias << (iccad23.FRAC - self.fracs[bias_kind])
        return iccad23.linear(x, weight, aligned, shift=self.fracs["linear_weight"])

    def embed(self, images: NDArray[np.uint8]) -> IntArray:
        """See `Engines`."""
        spec, tensors = self.design.spec, self.design.tensors
        x = np.tile(tensors["position"].astype(np.int64), (len(images), 1, 1))
        pixels = patches(images, spec.patch_size).reshape(-1, spec.patch_values).astype(np.int64)
        bias = tensors["patch.bias"].astype(np.int64) << (iccad23.FRAC - self.fracs["linear_bias"])
        # A weight type so coarse that nothing is truncated shifts the other way.
        shift = PIXEL_FRAC + self.fracs["patch_weight"] - iccad23.FRAC
        weight = tensors["patch.weight"].astype(np.int64) << max(-shift, 0)
        embedded = iccad23.linear(pixels, weight, bias, shift=max(shift, 0))
        x[:, 1:] = iccad23.add(x[:, 1:], embedded.reshape(len(images), spec.patches, spec.dim))
        return x.reshape(-1, spec.dim)

    def norm(self, layer: int, which: int, x: IntArray) -> tuple[IntArray, IntArray]:
        """See `Engines`."""
        name = f"blocks.{layer}.norm{which}"
        gamma, beta = (self.design.tensors[f"{name}.{part}"].astype(np.int64) for part in ("gamma", "beta"))
        y = iccad23.layer_norm(x, gamma, beta, norm_frac=self.fracs["norm"])
        return y, y

    def qkv(self, layer: int, y: IntArray) -> IntArray:
        """See `Engines`."""
        return self._linear(f"blocks.{layer}.qkv", y, "attention_bias")

    def attention(self, layer: int, q: IntArray, k: IntArray, v: IntArray) -> tuple[IntArray, IntArray]:
        """See `Engines`."""
        return iccad23.attention(q, k, v, first_keys(q.shape[1], self.design.parallelism.attention_rows))

    def project(self, layer: int, mixed: IntArray, x: IntArray) -> IntArray:
        """See `Engines`."""
        return iccad23.add(x, self._linear(f"blocks.{layer}.proj", mixed, "attention_bias"))

    def _mlp(self, layer: int, y: IntArray, index: tuple[int, ...]) -> tuple[IntArray, IntArray]:
        hidden = iccad23.gelu(self._linear(f"blocks.{layer}.fc1", y, "linear_bias", index))
        return self._linear(f"blocks.{layer}.fc2", hidden, "linear_bias", index), hidden

    def mlp(self, layer: int, y: IntArray, x: IntArray) -> tuple[IntArray, Hidden]:
        """See `Engines`."""
        out, hidden = self._mlp(layer, y, ())
        return iccad23.add(x, out), Hidden(None, np.arange(len(x)), hidden)

    def logits(self, layer: int, task: int, y: IntArray) -> IntArray:
        """See `Engines`."""
        weight = self.design.tensors[f"blocks.{layer}.gate.weight"]
        bias = self.design.tensors[f"blocks.{layer}.gate.bias"][task].astype(np.int64)
        return iccad23.linear(
            y, weight[0 if len(weight) == 1 else task], bias, shift=self.fracs["linear_weight"]
        )

    def route(self, logits: IntArray) -> Routing:
        """See `Engines`."""
        moe = self.design.spec.moe
        assert moe is not None
        chosen = top_k(logits, moe.top_k)
        selected = np.take_along_axis(logits, chosen, axis=1)
        start = np.zeros(len(logits), np.int64)
        over = selected if moe.normalize_over_selected else logits
        maxima, sums = iccad23.single_pass(over, start)
        scores = (iccad23.exponentials(selected, maxima) << iccad23.FRAC) // sums[:, None]
        return Routing(chosen, scores, moe.experts)

    def experts(
        self, layer: int, routing: Routing, y: IntArray, x: IntArray
    ) -> tuple[IntArray, list[Hidden]]:
        """See `Engines`."""
        result, traced = x.copy(), []
        for number in routing.active:
            queue, scores = routing.queue(int(number))
            out, hidden = self._mlp(layer, y[queue], (int(number),))
            traced.append(Hidden(int(number), queue, hidden))
            result[queue] = iccad23.add(result[queue], iccad23.scale(out, scores[:, None]))
        return result, traced

    def real_logits(self, logits: IntArray) -> NDArray[np.float64]:
        """See `Engines`."""
        return iccad23.FEATURE.to_float(logits)

    real_scores = real_logits
    real_gate_scores = real_logits
