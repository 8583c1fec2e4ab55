"""Task heads, in float on the final tokens. Needs numpy only: the board decodes its results with this very code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

HeadKind = Literal[
    "token-linear",
    "cls-linear",
    "mean-linear",
    "mean-all-linear",
    "cls-mean-linear",
    "distilled-linear",
    "none",
]
HEAD_KINDS: Final[tuple[str, ...]] = get_args(HeadKind)
"""Tokens that a head reads:

- `token-linear`: each patch token.
- `cls-linear`: the class token, which is token 0.
- `mean-linear`: the mean of the patch tokens.
- `mean-all-linear`: the mean of all tokens.
- `cls-mean-linear`: the class token, and beside it the mean of the patch tokens: twice as many channels (DINOv2,
  arXiv 2304.07193).
- `distilled-linear`: the class token and the distillation token, tokens 0 and 1, with a linear layer each, whose
  results are averaged (DeiT, arXiv 2012.12877).
- `none`: there is no head.
"""
MEANS = ("mean-linear", "mean-all-linear")
"""Kinds that read a mean of tokens."""
LEAST_PREFIX: Final[Mapping[str, int]] = {"cls-linear": 1, "cls-mean-linear": 1, "distilled-linear": 2}
"""Prefix tokens that a kind reads, where it reads any."""


class HeadTensor(NamedTuple):
    """A tensor of a head.

    Attributes:
        name: of the tensor, such as `heads.depth.norm.weight`.
        shape: its shape; None stands for channels that are not known.
        role: `gamma` or `beta` of a norm, `linear weight` or `linear bias`.
    """

    name: str
    shape: tuple[int | None, ...]
    role: str


class Head(NamedTuple):
    """A task head: which tokens it reads, its LayerNorms, and then one linear layer (two, if distilled).

    Attributes:
        kind: one of `HEAD_KINDS`.
        norm: whether a LayerNorm comes before all else: the final norm of the network.
        norm_eps: epsilon of the head's LayerNorms.
        fc_norm: whether a LayerNorm comes between a mean and the linear layer.
        prefix_tokens: tokens in front of the patch tokens.
    """

    kind: str
    norm: bool
    norm_eps: float
    fc_norm: bool = False
    prefix_tokens: int = 1

    def width(self, dim: int) -> int:
        """Channels that the linear layer reads, of tokens with `dim` channels."""
        return 2 * dim if self.kind == "cls-mean-linear" else dim

    def tensors(self, task: str, dim: int, out_channels: int | None) -> Iterator[HeadTensor]:
        """The tensors of a task's head on tokens with `dim` channels; none for the kind `none`."""
        if self.kind == "none":
            return
        name = f"heads.{task}"
        for norm, there in (("norm", self.norm), ("fc_norm", self.fc_norm)):
            if there:
                yield HeadTensor(f"{name}.{norm}.weight", (dim,), "gamma")
                yield HeadTensor(f"{name}.{norm}.bias", (dim,), "beta")
        for layer in (name, f"{name}.dist") if self.kind == "distilled-linear" else (name,):
            yield HeadTensor(f"{layer}.weight", (out_channels, self.width(dim)), "linear weight")
            yield HeadTensor(f"{layer}.bias", (out_channels,), "linear bias")


def layer_norm(x: FloatArray, weight: FloatArray, bias: FloatArray, epsilon: float) -> FloatArray:
    """LayerNorm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * weight + bias


def on_grid(outputs: FloatArray, grid: tuple[int, int]) -> FloatArray:
    """Outputs of `run_head` with the patches of an image in rows and columns.

    Args:
        outputs: (images, patches, out_channels), or (images, out_channels), which stays as it is.
        grid: rows and columns of patches.

    Returns:
        (images, rows, columns, out_channels), or (images, out_channels).
    """
    return outputs.reshape(len(outputs), *grid, -1) if outputs.ndim == 3 else outputs


def run_head(
    head: Head, task: str, weights: Mapping[str, NDArray[Any]], tokens: FloatArray
) -> FloatArray | None:
    """A task head on final tokens in real units; None where the task has no head.

    Args:
        head: its kind and norms.
        task: its name, by which `weights` names the tensors: `heads.TASK.weight` and so on.
        weights: float tensors of at least this head.
        tokens: (images, tokens, dim), the prefix tokens first.

    Returns:
        (images, patches, out_channels) for `token-linear`; (images, out_channels) for other kinds.
    """
    if head.kind == "none":
        return None

    def weight(name: str) -> FloatArray:
        return weights[f"heads.{task}.{name}"].astype(np.float64)

    def normed(name: str, x: FloatArray) -> FloatArray:
        return layer_norm(x, weight(f"{name}.weight"), weight(f"{name}.bias"), head.norm_eps)

    def linear(x: FloatArray, layer: str = "") -> FloatArray:
        return np.asarray(x @ weight(f"{layer}weight").T + weight(f"{layer}bias"))

    x = normed("norm", tokens) if head.norm else tokens
    if head.kind == "distilled-linear":
        return (linear(x[:, 0]) + linear(x[:, 1], "dist.")) / 2
    if head.kind == "cls-linear":
        return linear(x[:, 0])
    if head.kind == "cls-mean-linear":
        return linear(np.concatenate([x[:, 0], x[:, head.prefix_tokens :].mean(axis=1)], axis=1))
    if head.kind != "mean-all-linear":
        x = x[:, head.prefix_tokens :]
    if head.kind == "token-linear":
        return linear(x)
    x = x.mean(axis=1)
    return linear(normed("fc_norm", x) if head.fc_norm else x)
