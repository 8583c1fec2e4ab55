"""The float64 reference: the network as its authors' papers define it, sharing no code with the kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

from common.heads import layer_norm, run_head
from pysim.model import Model

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Tap = Callable[[str, FloatArray], FloatArray | None]
"""Called with the name and the value of each intermediate tensor; what it returns, if anything, is used instead."""


@dataclass
class ReferenceRun:
    """Results of the float network.

    Attributes:
        tokens: (images, tokens, dim) output of the last block.
        experts: per MoE layer, (images * tokens, k) chosen experts, best first.
    """

    tokens: FloatArray
    experts: dict[int, IntArray] = field(default_factory=dict)


def gelu(x: FloatArray) -> FloatArray:
    """X * Phi(x), with the exact normal distribution."""
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def gelu_tanh(x: FloatArray) -> FloatArray:
    """GELU by its approximation with tanh (arXiv 1606.08415)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def quick_gelu(x: FloatArray) -> FloatArray:
    """X times the sigmoid of 1.702 x (ibidem)."""
    return x * expit(1.702 * x)


def relu(x: FloatArray) -> FloatArray:
    """X where it is positive, else 0."""
    return np.maximum(x, 0.0)


_ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "relu": relu}


def softmax(x: FloatArray) -> FloatArray:
    """Softmax over the last axis."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def run(
    model: Model,
    images: NDArray[np.uint8],
    task: int = 0,
    *,
    experts: Mapping[int, IntArray] | None = None,
    tap: Tap | None = None,
    start: tuple[int, FloatArray] | None = None,
) -> ReferenceRun:
    """Run the network in float64.

    Args:
        model: the network.
        images: (images, channels, H, W) pixels; p stands for p / 256.
        task: task number, which selects the gates.
        experts: per MoE layer, (images * tokens, k) experts to use instead of the gate's own choice.
        tap: sees every intermediate tensor, tokens of all images joined on the first axis, and may replace those
            that the network goes on with: all but scores, logits and gate scores.
        start: number of the first block to run, and the (images * tokens, dim) stream that enters it, instead of the
            embedding of the images.

    Returns:
        The final tokens and the routing of the blocks that were run.
    """
    return _Reference(model, task, experts, tap or (lambda name, value: None)).run(images, start)


class _Reference:
    def __init__(self, model: Model, task: int, forced: Mapping[int, IntArray] | None, tap: Tap) -> None:
        self.model, self.task, self.forced, self.given_tap = model, task, forced, tap
        self.experts: dict[int, IntArray] = {}

    def tap(self, name: str, value: FloatArray) -> FloatArray:
        """Show a tensor; the value to go on with."""
        other = self.given_tap(name, value)
        return value if other is None else other

    def run(self, images: NDArray[np.uint8], start: tuple[int, FloatArray] | None) -> ReferenceRun:
        spec = self.model.spec
        first, x = start or (0, self.tap("embed", self._embed(images)))
        for layer in range(first, spec.depth):
            block = f"blocks.{layer}"
            x = x + self._attention(self._norm(f"{block}.norm1", x), layer, len(images))
            x = self.tap(f"{block}.attn_residual", x)
            y = self._norm(f"{block}.norm2", x)
            x = x + (self._experts(y, layer) if layer in spec.moe_layers else self._mlp(y, layer))
            x = self.tap(f"{block}.output", x)
        return ReferenceRun(x.reshape(len(images), spec.tokens, spec.dim), self.experts)

    def _embed(self, images: NDArray[np.uint8]) -> FloatArray:
        spec, size = self.model.spec, self.model.spec.patch_size
        rows, columns = spec.grid
        cut = (images / 256.0).reshape(len(images), spec.in_channels, rows, size, columns, size)
        pixels = cut.transpose(0, 2, 4, 1, 3, 5)
        kernel = self.model["patch_embed.weight"].reshape(spec.dim, spec.patch_values)
        embedded = pixels.reshape(len(images), spec.patches, -1) @ kernel.T + self.model["patch_embed.bias"]
        x = np.repeat(self.model["pos_embed"][None], len(images), axis=0)
        x[:, spec.prefix_tokens :] += embedded
        return x.reshape(-1, spec.dim)

    def _norm(self, name: str, x: FloatArray) -> FloatArray:
        y = layer_norm(x, self.model[f"{name}.weight"], self.model[f"{name}.bias"], self.model.spec.norm_eps)
        return self.tap(name, y)

    def _linear(self, name: str, x: FloatArray) -> FloatArray:
        return x @ self.model[f"{name}.weight"].T + self.model[f"{name}.bias"]

    def _attention(self, y: FloatArray, layer: int, images: int) -> FloatArray:
        spec, block = self.model.spec, f"blocks.{layer}"
        qkv = y @ self.model[f"{block}.attn.qkv.weight"].T + self.model.qkv_bias(layer)
        parts = zip("qkv", np.split(qkv, 3, axis=1), strict=True)
        qkv = np.concatenate([self.tap(f"{block}.{name}", part) for name, part in parts], axis=1)
        q, k, v = qkv.reshape(images, spec.tokens, 3, spec.heads, spec.head_dim).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(spec.head_dim)
        self.tap(f"{block}.scores", scores)
        mixed = (softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(-1, spec.dim)
        mixed = self.tap(f"{block}.attention", mixed)
        return self._linear(f"{block}.attn.proj", mixed)

    def _mlp(self, y: FloatArray, layer: int) -> FloatArray:
        hidden = _ACTIVATIONS[self.model.spec.activation](self._linear(f"blocks.{layer}.mlp.fc1", y))
        hidden = self.tap(f"blocks.{layer}.hidden", hidden)
        return self._linear(f"blocks.{layer}.mlp.fc2", hidden)

    def _experts(self, y: FloatArray, layer: int) -> FloatArray:
        moe = self.model.spec.moe
        assert moe is not None
        weight, bias = self.model.gate(layer, self.task)
        logits = y @ weight.T + bias
        self.tap(f"blocks.{layer}.logits", logits)
        # A stable sort of the negated logits: the lowest index wins a tie.
        chosen = np.argsort(-logits, axis=1, kind="stable")[:, : moe.top_k]
        self.experts[layer] = chosen
        if self.forced is not None:
            chosen = self.forced[layer]
        if moe.gate_kind.over_selected:
            scores = softmax(np.take_along_axis(logits, chosen, axis=1))
        else:
            scores = np.take_along_axis(softmax(logits), chosen, axis=1)
        self.tap(f"blocks.{layer}.gate_scores", scores)
        names = [
            f"blocks.{layer}.moe.{part}" for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        ]
        activate = _ACTIVATIONS[self.model.spec.activation]
        fc1, fc1_bias, fc2, fc2_bias = (self.model.weights[name] for name in names)
        out = np.zeros_like(y)
        hidden_all = np.zeros((len(y), moe.top_k, moe.hidden_dim))
        for expert in range(moe.experts):
            tokens, slot = np.nonzero(chosen == expert)
            if len(tokens) == 0:
                continue
            hidden = activate(y[tokens] @ fc1[expert].T.astype(np.float64) + fc1_bias[expert])
            hidden = self.tap(f"blocks.{layer}.experts.{expert}.hidden", hidden)
            hidden_all[tokens, slot] = hidden
            output = hidden @ fc2[expert].T.astype(np.float64) + fc2_bias[expert]
            out[tokens] += output * scores[tokens, slot, None]
        self.tap(f"blocks.{layer}.hidden", hidden_all)
        return out


def apply_head(model: Model, task: str, tokens: NDArray[Any]) -> FloatArray | None:
    """A task head of a Model on final tokens (images, tokens, dim) in real units: see `common.heads.run_head`."""
    return run_head(model.spec.decoder(task), task, model.weights, tokens)
