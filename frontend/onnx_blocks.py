"""The parts of a transformer in an ONNX graph around attention: embedding, MLP, mixture of experts."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import InputError
from frontend.onnx_affine import AffineMap, NotAffineError
from frontend.onnx_attention import affine, layer_weights
from frontend.onnx_eval import Array
from frontend.onnx_experts import read_experts
from frontend.onnx_graph import Node
from frontend.onnx_match import LAYOUT, LINEAR, SELECTION, FloatArray, Matcher, Norm
from pysim.activations import ACTIVATIONS
from pysim.files import Tensors


@dataclass(frozen=True)
class Embedding:
    """Patch embedding and positions.

    Attributes:
        node: the convolution, or the product.
        weight: (dim, channels, patch, patch).
        bias: (dim,).
        position: (tokens, dim), prefix tokens, such as the class token, in the first rows.
        prefix: how many prefix tokens there are.
        output: name of the tokens.
        normalises: whether the graph scales or shifts the image first.
    """

    node: Node
    weight: FloatArray
    bias: FloatArray
    position: FloatArray
    prefix: int
    output: str
    normalises: bool


def read_embedding(matcher: Matcher, image: str, *, channels_last: bool) -> Embedding:
    """The embedding: from the image to the tokens of the first block.

    Args:
        matcher: the graph.
        image: name of the input.
        channels_last: images are (batch, height, width, channels), not (batch, channels, height, width).
    """
    node, patches_name, size = _patches(matcher, image, channels_last=channels_last)
    shape = matcher.value(image).shape
    images, channels = shape[0], shape[3 if channels_last else 1]
    height, width = shape[1:3] if channels_last else shape[2:]
    if height % size or width % size:
        raise matcher.mismatch(node, f"patches of {size}x{size} do not divide images of {height}x{width}")
    rows, columns = height // size, width // size
    amap = affine(matcher, image, patches_name, "an image that is only rearranged, scaled and shifted")
    maps = matcher.value(patches_name)
    dim = maps.shape[1] if node.op == "Conv" else maps.shape[-1]

    def put(pixels: Array) -> Array:
        cut = pixels.reshape(rows, columns, channels, size, size)
        whole = cut.transpose((0, 3, 1, 4, 2) if channels_last else (2, 0, 3, 1, 4))
        return np.broadcast_to(whole.reshape(shape[1:]), shape)

    def get(value: Array) -> Array:
        each = value.reshape(images, dim, -1).swapaxes(1, 2) if node.op == "Conv" else value
        return np.asarray(each.reshape(-1, dim)[: rows * columns])

    if maps.size != images * rows * columns * dim:
        raise matcher.mismatch(
            node, f"values of shape {maps.shape}, expected {dim} for each of {rows}x{columns} patches"
        )
    factor = np.float32(amap.factor)
    kernel = amap.weights(rows * columns, channels * size**2, put, get) * factor
    bias = np.asarray(get(amap.offset())[0] * factor, np.float32)
    x = _first_stream(matcher, node)
    for step in (path := matcher.between(patches_name, x)):
        added = step.op == "Add" and any(map(matcher.is_constant, step.inputs))
        moved = step.op in LAYOUT | SELECTION and all(map(matcher.is_constant, step.inputs[1:]))
        if not (added or moved or step.op == "Concat"):
            raise matcher.mismatch(step, "expected positions, a constant added to the tokens, or more tokens")
    tokens, count, last = matcher.value(x), rows * columns, path[-1] if path else node
    if tokens.ndim != 3 or tokens.shape[2] != dim or tokens.shape[1] < count:
        raise matcher.mismatch(
            last,
            f"values of shape {tokens.shape}, expected (images, tokens, channels) with {count} patches or more tokens "
            f"of {dim} channels",
        )
    if not matcher.leads_only_from(patches_name, x):
        raise matcher.mismatch(last, "tokens made of other parts of the image than patches")
    # All steps select and add: what they make of patches that are zero is the constant part of all tokens.
    position = matcher.value.given({patches_name: np.zeros_like(maps)})(x)[0]
    prefix, expected = tokens.shape[1] - count, np.zeros_like(tokens)
    for each, pixels in zip(expected, matcher.value(image), strict=True):
        whole = pixels.transpose(2, 0, 1) if channels_last else pixels
        cut = whole.reshape(channels, rows, size, columns, size).transpose(1, 3, 0, 2, 4)
        each[prefix:] = cut.reshape(count, -1) @ kernel.T
    around = np.broadcast_to(position, tokens.shape).copy()
    around[:, prefix:] += bias
    what = "constant tokens, then patches in rows, with positions"
    matcher.prove(last, tokens - around, expected, what, around=around)
    scaled = any(step.op in _ARITHMETIC for step in matcher.between(image, node.inputs[0]))
    weight = kernel.reshape(dim, channels, size, size)
    return Embedding(node, weight, bias, position, prefix, x, scaled)


_ARITHMETIC = ("Add", "Div", "Mul", "Sub")
"""Operations that normalise images within the graph."""


def _patches(matcher: Matcher, image: str, *, channels_last: bool) -> tuple[Node, str, int]:
    """The convolution, or the product, that makes patches; its result; and the height of a patch."""
    after = matcher.after(image)
    what = "the convolution, or the linear layer, that makes patches"
    node = next((node for node in after if node.op in ("Conv", *LINEAR)), None)
    if node is None:
        where = after[0] if after else None
        if where is None:
            raise InputError(f"{matcher.graph.source}: nothing reads the input {image!r}, expected {what}")
        raise matcher.mismatch(where, f"expected {what}")
    if not all(matcher.is_constant(name) for name in node.inputs[1:] if name):
        raise matcher.mismatch(node, f"expected {what}, with constant weights")
    if node.op == "Conv":
        weight = matcher.value(node.inputs[1])
        if weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
            raise matcher.mismatch(node, f"expected square patches, found weights of shape {weight.shape}")
        return node, node.outputs[0], weight.shape[2]
    layer = matcher.linear_at(node, node.inputs[0], what)
    channels = matcher.value(image).shape[3 if channels_last else 1]
    size = math.isqrt(layer.weight.shape[-1] // channels)
    if layer.weight.ndim != 2 or layer.weight.shape[1] != channels * size**2:
        raise matcher.mismatch(
            node,
            f"expected square patches of {channels} channels, found weights of shape {layer.weight.shape}",
        )
    return node, layer.output, size


def _first_stream(matcher: Matcher, convolution: Node) -> str:
    """The tokens that the first LayerNorm reads."""
    after = matcher.after(convolution.outputs[0])
    norm = next(filter(matcher.is_norm, after), None)
    if norm is None:
        node = after[0] if after else convolution
        raise matcher.mismatch(node, "expected the LayerNorm of a transformer block somewhere behind it")
    return norm.inputs[0]


def read_mlp(
    matcher: Matcher, norm: Norm, branch: Node, end: str, block: str, weights: Tensors, task: str | None
) -> dict[str, Any]:
    """MLP or experts from a norm to the operand `end` of the residual sum `branch`; returns their sizes."""
    region = matcher.between(norm.output, end)
    if any(node.op == "TopK" for node in region):
        return read_experts(matcher, norm, region, branch, end, block, weights, task)
    if not region or not matcher.leads_only_from(norm.output, end):
        raise matcher.mismatch(branch, "expected the sum of the tokens and of an MLP behind their norm")
    images, tokens, dim = matcher.value(norm.output).shape
    cuts = matcher.cuts(norm.output, end)
    heads = _affine_run(matcher, norm.output, cuts[1:])
    if not heads:
        raise matcher.mismatch(region[0], "expected the first linear layer of an MLP")
    hidden_name, first = heads[-1]
    if hidden_name == end:
        raise matcher.mismatch(
            region[-1], f"expected an activation function between two linear layers: {', '.join(ACTIVATIONS)}"
        )
    fc1 = layer_weights(first, tokens, dim, lambda rows: np.broadcast_to(rows, (images, tokens, dim)))
    hidden = len(fc1[1])

    rows = np.random.default_rng(4).standard_normal((images, tokens, dim))
    spread = float(np.std(rows @ fc1[0].T))
    rows = (rows * (min(1.5 / spread, 1e3) if spread > 0 else 1)).astype(np.float32)
    run = matcher.value.given({norm.output: rows})
    ends = _affine_ends(matcher, cuts[cuts.index(hidden_name) + 1 :], end)
    activation, activated = matcher.activation(hidden_name, ends, run)

    second = affine(matcher, activated, end, "the second linear layer of an MLP")
    shape = run(activated).shape
    fc2 = layer_weights(second, tokens, hidden, lambda rows: np.tile(rows, (images, 1)).reshape(shape))
    if len(fc2[1]) != dim:
        raise matcher.mismatch(branch, f"expected the second linear layer of an MLP to have {dim} results")
    function = ACTIVATIONS[activation].function
    expected = function(rows @ fc1[0].T.astype(np.float64) + fc1[1]) @ fc2[0].T.astype(np.float64)
    matcher.prove(
        branch, run(end) - fc2[1], expected, "the residual sum of an MLP", around=fc2[1], coarse=True
    )
    for name, layer in (("fc1", fc1), ("fc2", fc2)):
        weights[f"{block}.mlp.{name}.weight"], weights[f"{block}.mlp.{name}.bias"] = layer
    return {"hidden": hidden, "activation": activation}


def _affine_run(matcher: Matcher, base: str, targets: list[str]) -> list[tuple[str, AffineMap]]:
    """The tensors that affine maps of `base` lead to, up to the first that is none, with these maps."""
    found: list[tuple[str, AffineMap]] = []
    with suppress(NotAffineError):
        found.extend((target, AffineMap(matcher, base, target)) for target in targets)
    return found


def _affine_ends(matcher: Matcher, bases: list[str], end: str) -> list[str]:
    """The tensors that affine maps lead to `end` from, in order; the last of `bases` is `end`."""
    found: list[str] = []
    with suppress(NotAffineError):
        for base in reversed(bases):
            AffineMap(matcher, base, end)
            found.append(base)
    return found[::-1]
