"""Task heads, in float on the final tokens. Needs numpy only: the board decodes its results with this very code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Head(NamedTuple):
    """One task head: a LayerNorm where `norm` says so, then one linear layer."""

    kind: str
    """`token-linear` (on each patch token), `cls-linear` (on the class token), or `none`."""
    norm: bool
    norm_eps: float


def layer_norm(x: FloatArray, weight: FloatArray, bias: FloatArray, epsilon: float) -> FloatArray:
    """LayerNorm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * weight + bias


def run_head(
    head: Head, task: str, weights: Mapping[str, NDArray[Any]], tokens: FloatArray
) -> FloatArray | None:
    """A task head on final tokens in real units; None where the task has no head.

    Args:
        head: its kind and norm.
        task: its name, by which `weights` names the tensors: `heads.TASK.weight` and so on.
        weights: float tensors of at least this head.
        tokens: (images, tokens, dim), token 0 being the class token.

    Returns:
        (images, out_channels) for `cls-linear`; (images, patches, out_channels) for `token-linear`.
    """
    if head.kind == "none":
        return None

    def weight(name: str) -> FloatArray:
        return weights[f"heads.{task}.{name}"].astype(np.float64)

    x = tokens[:, 0] if head.kind == "cls-linear" else tokens[:, 1:]
    if head.norm:
        x = layer_norm(x, weight("norm.weight"), weight("norm.bias"), head.norm_eps)
    return np.asarray(x @ weight("weight").T + weight("bias"))
