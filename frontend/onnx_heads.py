"""Task heads in an ONNX graph: norms and linear layers on some of the last tokens, or on a mean of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common.heads import HEAD_KINDS, LEAST_PREFIX, MEANS, Head, run_head
from frontend.onnx_graph import Node
from frontend.onnx_match import LAYOUT, LINEAR, SELECTION, LinearLayer, Matcher, Norm
from pysim.files import Tensors

_HEAD = (
    LAYOUT
    | SELECTION
    | LINEAR
    | {"Add", "Concat", "Div", "LayerNormalization", "Mul", "Pow", "ReduceMean", "ReduceSum", "Sqrt", "Sub"}
)
"""Operations that linear heads consist of."""
DECISIONS = ("ArgMax", "LogSoftmax", "Sigmoid", "Softmax")
"""Operations that make probabilities, or a class, of logits."""
_BILINEAR = ("Attention", "Einsum", "Gemm", "MatMul")
"""Operations that may multiply tokens by tokens."""


def foreign_part(matcher: Matcher, x: str, rows: str) -> Node | None:
    """The first operation between the last tokens and a result that no linear head has: that of a decoder.

    Raises:
        InputError: tokens are multiplied by tokens, as in attention: those are more blocks, and not a decoder.
    """
    path = matcher.between(x, rows)
    for node in path:
        if node.op in _BILINEAR and sum(name in matcher.tainted for name in node.inputs) > 1:
            raise matcher.mismatch(
                node,
                f"attention behind {x!r}, the last tokens of blocks that were recognised: "
                f"--outputs {x} imports the network up to there",
            )
    return next((node for node in path if node.op not in _HEAD), None)


class FoundHead(NamedTuple):
    """A head that was recognised.

    Attributes:
        head: which tokens it reads, and its norms.
        weights: its tensors, named as those of a Model for the task.
    """

    head: Head
    weights: Tensors


def read_head(matcher: Matcher, x: str, rows: str, output: str, task: str, prefix: int) -> FoundHead | None:
    """The head between the last tokens `x` and a result `rows`; None where the result is the norm of all tokens.

    Args:
        matcher: the graph.
        x: name of the last tokens.
        rows: name of the result.
        output: name of the graph's output, for messages.
        task: name of the task.
        prefix: how many prefix tokens there are.

    Raises:
        InputError: anything else, naming the first node that does not fit.
    """
    path = matcher.between(x, rows)
    products = [node for node in path if node.op in LINEAR]
    norms = _norms(matcher, path)
    if not products and len(norms) == 1 and norms[0].output == rows:
        return None
    if not 1 <= len(products) <= 2:
        node = products[2] if products else matcher.graph.producer[rows]
        raise matcher.mismatch(node, f"expected {output!r} to be one linear layer on the last tokens")
    layers = [matcher.linear_at(node, node.inputs[0], "a linear task head") for node in products]
    if len(layers) == 1 and layers[0].output != rows:
        raise matcher.mismatch(
            matcher.graph.producer[rows], f"expected {output!r} to be a linear layer's result"
        )
    if not matcher.leads_only_from(x, rows):
        raise matcher.mismatch(
            layers[0].node, f"expected {output!r} to be made of the last tokens, {x}, and of nothing else"
        )
    # Tokens that have nothing in common: the mean of some must not pass for the mean of others.
    random = np.random.default_rng(5).standard_normal(matcher.value(x).shape).astype(np.float32)
    found, tokens = matcher.value.given({x: random})(rows), random.astype(np.float64)
    for head, parts in _candidates(layers, norms, prefix):
        if any(layer.weight.shape[1] != head.width(tokens.shape[-1]) for layer in layers):
            continue
        tensors = (tensor for part in parts for tensor in (part.weight, part.bias_or_zero))
        names = (tensor.name for tensor in head.tensors(task, tokens.shape[-1], None))
        weights: Tensors = dict(zip(names, tensors, strict=True))
        result = run_head(head, task, weights, tokens)
        if result is not None and matcher.agree(found, result):
            return FoundHead(head, weights)
    if len(layers) == 2:
        raise matcher.mismatch(products[1], f"expected {output!r} to be one linear layer on the last tokens")
    raise matcher.mismatch(
        layers[0].node, "reads neither the class token alone nor all patch tokens, nor a mean of tokens"
    )


def _norms(matcher: Matcher, path: list[Node]) -> list[Norm]:
    """Every LayerNorm on the way, all with one epsilon."""
    found: list[Norm] = []
    with matcher.along(path):
        for node in path:
            if matcher.is_norm(node):
                found.append(matcher.norm(node.inputs[0], "the LayerNorm of a head"))
                if found[-1].epsilon != found[0].epsilon:
                    raise matcher.mismatch(
                        node, f"epsilon {found[-1].epsilon:g}, but {found[0].epsilon:g} in the norm before it"
                    )
    return found


def _candidates(
    layers: list[LinearLayer], norms: list[Norm], prefix: int
) -> Iterator[tuple[Head, list[LinearLayer | Norm]]]:
    """Heads that these layers and norms may be, each with its parts in the order of its tensors."""
    epsilon = norms[0].epsilon if norms else 0.0
    distilled = len(layers) == 2
    orders = [layers, layers[::-1]] if distilled else [layers]
    for kind in HEAD_KINDS:
        if kind == "none" or (kind == "distilled-linear") != distilled:
            continue
        for norm, fc_norm in ((len(norms) > 0, len(norms) > 1), (False, len(norms) == 1)):
            possible = norm + fc_norm == len(norms) and prefix >= LEAST_PREFIX.get(kind, 0)
            if possible and (kind in MEANS or not fc_norm):
                for ordered in orders:
                    yield Head(kind, norm, epsilon, fc_norm, prefix), [*norms, *ordered]
