"""Attention in an ONNX graph: one operation or many, written in any of the ways that exporters have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from frontend.onnx_affine import AffineMap, NotAffineError
from frontend.onnx_eval import Array, einsum_labels, softmax
from frontend.onnx_graph import Node
from frontend.onnx_match import TOLERANCE, FloatArray, Matcher, Norm
from pysim.files import Tensors

PRODUCTS = ("MatMul", "Einsum")
"""Operations that multiply queries by keys, and attention weights by values."""
_SPREAD = 2.0
"""Variance of a query's scores that attention is proved with: every key counts, and none alone."""
_ATTEMPTS = 8
"""Times that tokens are made larger or smaller to get there."""


@dataclass(frozen=True)
class SplitHeads:
    """Place of values in a tensor with an axis of heads.

    Attributes:
        shape: of the tensor.
        heads: axes of images and heads, in this order.
        token: axis of tokens.
        channel: axis of a head's channels.
    """

    shape: tuple[int, ...]
    heads: tuple[int, ...]
    token: int
    channel: int

    def read(self, x: Array) -> Array:
        """The tensor as (images * heads, tokens, channels)."""
        moved = x.transpose(*self.heads, self.token, self.channel)
        return moved.reshape(-1, *moved.shape[-2:])

    def write(self, x: Array) -> Array:
        """The tensor from (images * heads, tokens, channels)."""
        order = (*self.heads, self.token, self.channel)
        return x.reshape([self.shape[axis] for axis in order]).transpose(np.argsort(order))


@dataclass(frozen=True)
class FlatHeads:
    """Place of values in a tensor (images, tokens, heads * channels).

    Attributes:
        shape: of the tensor.
        heads: how many lie side by side.
    """

    shape: tuple[int, ...]
    heads: int

    def read(self, x: Array) -> Array:
        """The tensor as (images * heads, tokens, channels)."""
        moved = x.reshape(*self.shape[:2], self.heads, -1).swapaxes(1, 2)
        return moved.reshape(-1, *moved.shape[-2:])

    def write(self, x: Array) -> Array:
        """The tensor from (images * heads, tokens, channels)."""
        images, tokens, channels = self.shape
        moved = x.reshape(images, self.heads, tokens, channels // self.heads).swapaxes(1, 2)
        return moved.reshape(self.shape)


Heads = SplitHeads | FlatHeads


@dataclass(frozen=True)
class _Parts:
    """Parts of attention.

    Attributes:
        node: the softmax, or the operation Attention, for messages.
        operands: names of queries, keys and values.
        axes: of each of them.
        mixed: name of the result.
        mixed_axes: its axes.
        scale: that the graph multiplies the scores by, behind the product.
    """

    node: Node
    operands: tuple[str, str, str]
    axes: tuple[Heads, Heads, Heads]
    mixed: str
    mixed_axes: Heads
    scale: float


def read_attention(matcher: Matcher, norm: Norm, branch: Node, end: str, block: str, weights: Tensors) -> int:
    """Attention from a norm to the operand `end` of the residual sum `branch`; returns the number of heads."""
    region = matcher.between(norm.output, end)
    if not region or not matcher.leads_only_from(norm.output, end):
        raise matcher.mismatch(branch, "expected the sum of the tokens and of attention behind their norm")
    parts = _parts(matcher, region, branch)
    images, _, dim = matcher.value(norm.output).shape
    maps = [_projection(matcher, norm, name, parts.node) for name in parts.operands]
    found = [_weights(matcher, amap, axes, parts.node) for amap, axes in zip(maps, parts.axes, strict=True)]
    heads, size = len(found[0].weight) // images, found[0].weight.shape[1]
    # Fewer heads of keys and values than of queries: each serves several.
    found = [each.repeated(heads * images) for each in found]
    if any(each.weight.shape[:2] != (heads * images, size) for each in found) or heads * size != dim:
        shown = ", ".join(f"{len(each.weight) // images} of {each.weight.shape[1]}" for each in found)
        raise matcher.mismatch(
            parts.node,
            f"heads of queries, keys and values: {shown} channels; expected heads of equal size that add up to {dim}",
        )
    scale = parts.scale * maps[0].factor * maps[1].factor
    factors = (1.0, 1.0, maps[2].factor)
    qkv = [
        (
            each.weight[:heads].reshape(dim, dim) * np.float32(factor),
            each.bias[:heads].ravel() * np.float32(factor),
        )
        for each, factor in zip(found, factors, strict=True)
    ]
    projection = _output(matcher, parts, heads, images, end)
    _prove(matcher, norm, parts, branch, end, qkv, projection, heads, scale)
    expected_scale = 1 / math.sqrt(size)
    if abs(scale / expected_scale - 1) > max(TOLERANCE, 2 * matcher.graph.precision):
        raise matcher.mismatch(
            parts.node,
            f"computes something else than softmax(q k / sqrt(head_dim)): scores are multiplied by {scale:.6g}, "
            f"expected {expected_scale:.6g} for heads of {size} channels",
        )
    weights[f"{block}.attn.qkv.weight"] = np.concatenate([weight for weight, _ in qkv])
    if any(amap.biased for amap in maps):
        weights[f"{block}.attn.qkv.bias"] = np.concatenate([bias for _, bias in qkv])
    weights[f"{block}.attn.proj.weight"], weights[f"{block}.attn.proj.bias"] = projection
    return heads


@dataclass(frozen=True)
class _HeadWeights:
    """Weights (heads, channels, dim) and biases (heads, channels) of queries, keys or values."""

    weight: FloatArray
    bias: FloatArray

    def repeated(self, heads: int) -> _HeadWeights:
        """The same for more heads, where their number is a multiple."""
        times = max(1, heads // len(self.weight))
        return _HeadWeights(np.repeat(self.weight, times, 0), np.repeat(self.bias, times, 0))


def _parts(matcher: Matcher, region: list[Node], branch: Node) -> _Parts:
    fused = [node for node in region if node.op == "Attention"]
    soft = [node for node in region if node.op == "Softmax"]
    if len(fused) + len(soft) != 1:
        node = (fused + soft)[1] if fused or soft else (region[0] if region else branch)
        unknown = next((node for node in region if node.op not in _KNOWN), node)
        raise matcher.mismatch(
            unknown if not fused and not soft else node, "expected attention, which has one softmax"
        )
    return _fused(matcher, fused[0]) if fused else _unfused(matcher, soft[0])


_KNOWN = frozenset(
    (
        *(
            "Add",
            "Cast",
            "Concat",
            "Div",
            "Einsum",
            "Gather",
            "Gemm",
            "MatMul",
            "Mul",
            "Reshape",
            "Slice",
            "Split",
        ),
        *("Squeeze", "Sub", "Transpose", "Unsqueeze"),
    )
)
"""Operations around attention that no message needs to name."""


def _fused(matcher: Matcher, node: Node) -> _Parts:
    """The parts of the operation Attention."""
    get = node.attributes.get
    for name, unwanted in (
        ("is_causal", "a causal mask: each token sees only those before it"),
        ("softcap", "a soft cap of the scores"),
    ):
        if get(name, 0):
            raise matcher.mismatch(node, f"attention with {unwanted}, which the accelerator has not")
    if any(name for name in (*node.inputs[4:], *node.outputs[1:])):
        raise matcher.mismatch(
            node, "attention with a cache or a second result, expected queries, keys and values"
        )
    if len(node.inputs) > 3 and node.inputs[3]:
        _refuse_mask(matcher, node, node.inputs[3])
    names = node.inputs[0], node.inputs[1], node.inputs[2]
    counts = (get("q_num_heads"), get("kv_num_heads"), get("kv_num_heads"))
    mixed = node.outputs[0]
    axes = [_flat_or_split(matcher, node, name, count) for name, count in zip(names, counts, strict=True)]
    channels = axes[0].read(matcher.value(names[0])).shape[-1]
    return _Parts(
        node,
        names,
        (axes[0], axes[1], axes[2]),
        mixed,
        _flat_or_split(matcher, node, mixed, counts[0]),
        float(get("scale", 1 / math.sqrt(channels))),
    )


def _flat_or_split(matcher: Matcher, node: Node, name: str, heads: int | None) -> Heads:
    """Axes of an operand or of the result of Attention, whose heads are an axis or lie side by side."""
    shape = matcher.value(name).shape
    if len(shape) == 4:
        return SplitHeads(shape, (0, 1), 2, 3)
    if len(shape) != 3 or not heads or shape[2] % heads:
        raise matcher.mismatch(
            node, f"attention on values of shape {shape}, without a number of heads that fits"
        )
    return FlatHeads(shape, heads)


def _refuse_mask(matcher: Matcher, node: Node, mask: str) -> None:
    """Refuse a mask that masks something."""
    what = "a mask or relative positions, which the accelerator has not"
    if mask in matcher.tainted:
        raise matcher.mismatch(node, f"scores to which something of the image is added: {what}")
    values = matcher.value(mask)
    if (values == 0).any() if values.dtype.kind == "i" else values.any():
        raise matcher.mismatch(node, f"scores to which constants other than zero are added: {what}")


def _unfused(matcher: Matcher, soft: Node) -> _Parts:
    """The parts of attention around a softmax."""
    name, scale = soft.inputs[0], 1.0
    while True:
        node = matcher.graph.producer.get(name)
        if node is None:
            raise matcher.mismatch(soft, "expected the product of queries and keys in front of the softmax")
        if node.op in PRODUCTS:
            break
        image = [given for given in node.inputs if given in matcher.tainted]
        if len(image) != 1:
            raise matcher.mismatch(node, "expected the product of queries and keys in front of the softmax")
        if matcher.is_scaling(node) and (node.op == "Mul" or node.inputs[0] == image[0]):
            other = float(matcher.value(matcher.constant_operand(node, of=image[0]) or "").ravel()[0])
            scale = scale * other if node.op == "Mul" else scale / other
        elif node.op == "Add" or (node.op == "Sub" and node.inputs[0] == image[0]):
            _refuse_mask(matcher, node, node.inputs[1 - node.inputs.index(image[0])])
        elif node.op == "Where" and node.inputs[0] != image[0]:
            kept = matcher.value(node.inputs[0]) != 0
            if not (kept if node.inputs[1] == image[0] else ~kept).all():
                raise matcher.mismatch(node, "scores some of which are masked, which the accelerator has not")
        elif not matcher.is_layout(node):
            raise matcher.mismatch(node, "expected the product of queries and keys in front of the softmax")
        name = image[0]
    scores = node
    mixed = matcher.next(
        matcher.forward(_behind_guard(matcher, soft)),
        *PRODUCTS,
        what="the product of attention weights and values",
    )
    value = _other(matcher, mixed, soft)
    labels, mixing = _labels(matcher, scores), _labels(matcher, mixed)
    place = mixed.inputs.index(value)
    # The softmax runs over the keys, which may be the first operand.
    over = labels[2][soft.attributes.get("axis", -1)] if len(labels[2]) == matcher.value(name).ndim else ""
    first = 1 if over in labels[0] and over not in labels[1] and over else 0
    query, key = scores.inputs[first], scores.inputs[1 - first]
    operands = (
        _axes(matcher, scores, query, labels[first], labels[1 - first], labels[2]),
        _axes(matcher, scores, key, labels[1 - first], labels[first], labels[2]),
        _axes(matcher, mixed, value, mixing[place], mixing[1 - place], mixing[2], contracted_token=True),
    )
    # Channels of the result are those of the values, its tokens those of the queries.
    shared = set(mixing[0]) & set(mixing[1]) & set(mixing[2])
    out = mixing[2]
    channel = [axis for axis, label in enumerate(out) if label not in mixing[1 - place]]
    token = [axis for axis, label in enumerate(out) if label not in mixing[place]]
    heads = tuple(axis for axis, label in enumerate(out) if label in shared)
    if len(channel) != 1 or len(token) != 1 or len(heads) != len(out) - 2:
        raise matcher.mismatch(mixed, "expected a product over one axis for every head")
    result = SplitHeads(matcher.value(mixed.outputs[0]).shape, heads, token[0], channel[0])
    return _Parts(soft, (query, key, value), operands, mixed.outputs[0], result, scale)


def _behind_guard(matcher: Matcher, soft: Node) -> str:
    """The result of a softmax, behind the exporter's guard that puts zeros where it is not a number.

    A softmax of scores that are numbers is one; without a mask, the guard does nothing.
    """
    name = soft.outputs[0]
    readers = matcher.readers(name)
    tests = [node for node in readers if node.op == "IsNaN"]
    if len(tests) == 1 and len(readers) == 2:
        chosen = next(node for node in readers if node is not tests[0])
        if (
            chosen.op == "Where"
            and chosen.inputs[0] == tests[0].outputs[0]
            and chosen.inputs[2] == name
            and matcher.is_constant(chosen.inputs[1])
        ):
            return chosen.outputs[0]
    return name


def _other(matcher: Matcher, mixed: Node, soft: Node) -> str:
    """The operand of a product that does not come from the softmax."""
    others = [
        name
        for name in mixed.inputs
        if not matcher.between(soft.outputs[0], name) and name != soft.outputs[0]
    ]
    if len(others) != 1 or others[0] not in matcher.tainted:
        raise matcher.mismatch(mixed, "expected the product of attention weights and values")
    return others[0]


def _labels(matcher: Matcher, node: Node) -> list[str]:
    """Labels of the axes of the two operands of a product and of its result."""
    ranks = [matcher.value(name).ndim for name in node.inputs]
    if len(ranks) != 2 or min(ranks) < 2:
        raise matcher.mismatch(node, "expected a product of two operands for every head")
    if node.op == "Einsum":
        return einsum_labels(node, ranks)
    batch = "ABCDEFGH"[: max(ranks) - 2]
    left, right = (batch[len(batch) - (rank - 2) :] for rank in ranks)
    return [f"{left}ij", f"{right}jk", f"{batch}ik"]


def _axes(
    matcher: Matcher,
    node: Node,
    name: str,
    own: str,
    other: str,
    result: str,
    *,
    contracted_token: bool = False,
) -> SplitHeads:
    """Axes of an operand of a product: heads are in all three, and of the two others one is contracted."""
    shape = matcher.value(name).shape
    contracted = [label for label in own if label in other and label not in result]
    kept = [label for label in own if label not in other and label in result]
    heads = tuple(axis for axis, label in enumerate(own) if label in other and label in result)
    if len(contracted) != 1 or len(kept) != 1 or len(set(own)) != len(own) or len(heads) != len(own) - 2:
        raise matcher.mismatch(node, "expected a product over one axis for every head")
    token, channel = (contracted[0], kept[0]) if contracted_token else (kept[0], contracted[0])
    return SplitHeads(shape, heads, own.index(token), own.index(channel))


def _projection(matcher: Matcher, norm: Norm, name: str, node: Node) -> AffineMap:
    """The linear layer that queries, keys or values come from."""
    if not matcher.between(norm.output, name):
        raise matcher.mismatch(node, f"expected {name!r} to come from the norm in front of attention")
    try:
        return AffineMap(matcher, norm.output, name)
    except NotAffineError as error:
        raise matcher.mismatch(
            error.node,
            "expected only linear layers between the norm and queries, keys and values "
            "(no norms of queries and keys, no rotary positions)",
        ) from None


def _weights(matcher: Matcher, amap: AffineMap, axes: Heads, node: Node) -> _HeadWeights:
    """Weights and biases by head, if they are the same for all tokens."""
    images, tokens, dim = amap.shape

    def put(rows: Array) -> Array:
        return np.broadcast_to(rows, (images, *rows.shape))

    offsets = axes.read(amap.offset())
    heads, count, size = offsets.shape
    one = np.random.default_rng(2).standard_normal(dim).astype(np.float32)
    everywhere = axes.read(amap.slope(np.broadcast_to(one, amap.shape)))
    if count != tokens or not (
        matcher.agree(everywhere, np.broadcast_to(everywhere[:, :1], everywhere.shape))
        and matcher.agree(offsets, np.broadcast_to(offsets[:, :1], offsets.shape))
    ):
        raise matcher.mismatch(
            node,
            "queries, keys and values that depend on the place of a token (rotary positions, or tokens left out), "
            "which the accelerator has not",
        )

    def get(value: Array) -> Array:
        return axes.read(value).swapaxes(0, 1).reshape(tokens, -1)

    weight = amap.weights(tokens, dim, put, get)
    return _HeadWeights(weight.reshape(heads, size, dim), offsets[:, 0].astype(np.float32))


def _output(
    matcher: Matcher, parts: _Parts, heads: int, images: int, end: str
) -> tuple[FloatArray, FloatArray]:
    """Weight and bias of the projection behind attention, layer scale included."""
    amap = affine(matcher, parts.mixed, end, "the projection of attention")
    axes = parts.mixed_axes
    mixed = axes.read(np.zeros(amap.shape, np.float32))
    tokens, size = mixed.shape[1:]

    def put(rows: Array) -> Array:
        return axes.write(np.tile(rows.reshape(tokens, heads, size).swapaxes(0, 1), (images, 1, 1)))

    return layer_weights(amap, tokens, heads * size, put)


def affine(matcher: Matcher, base: str, end: str, what: str) -> AffineMap:
    """The affine map between two tensors, or the error that names what is in its way."""
    try:
        return AffineMap(matcher, base, end)
    except NotAffineError as error:
        raise matcher.mismatch(error.node, f"expected {what}, a product with constant weights") from None


def layer_weights(
    amap: AffineMap, tokens: int, channels: int, put: Callable[[Array], Array]
) -> tuple[FloatArray, FloatArray]:
    """Weight (outputs, channels) and bias (outputs,) of a linear layer, whose result has rows for tokens."""
    bias = amap.offset()
    size = bias.shape[-1]

    def get(value: Array) -> Array:
        return value.reshape(-1, size)[:tokens]

    factor = np.float32(amap.factor)
    weight = amap.weights(tokens, channels, put, get)
    return weight * factor, np.asarray(bias.reshape(-1, size)[0] * factor, np.float32)


def _prove(
    matcher: Matcher,
    norm: Norm,
    parts: _Parts,
    branch: Node,
    end: str,
    qkv: list[tuple[Array, Array]],
    projection: tuple[FloatArray, FloatArray],
    heads: int,
    scale: float,
) -> None:
    """Refuse a branch that computes something else than attention with these weights, on random tokens."""
    shape = matcher.value(norm.output).shape
    rows = np.random.default_rng(3).standard_normal(shape)

    def parts_of(y: Array) -> tuple[Array, Array]:
        """Scores and values."""
        q, k, v = (
            (y @ weight.T.astype(np.float64) + bias).reshape(*shape[:2], heads, -1).swapaxes(1, 2)
            for weight, bias in qkv
        )
        return q @ k.swapaxes(-1, -2) * scale, v

    # Scores near zero would hide what is done to them: they grow with the tokens, or with their square.
    for _ in range(_ATTEMPTS):
        spread = float(parts_of(rows)[0].var(axis=-1).mean())
        if spread == 0 or 0.5 < spread / _SPREAD < 2:
            break
        rows *= min(max((_SPREAD / spread) ** 0.25, 1e-3), 1e3)
    rows = rows.astype(np.float32)
    scores, values = parts_of(rows.astype(np.float64))
    mixed = (softmax(scores) @ values).swapaxes(1, 2).reshape(shape)
    expected = mixed @ projection[0].T.astype(np.float64)
    found = matcher.value.given({norm.output: rows})(end).astype(np.float64)
    what = "the residual sum of projected attention: softmax(q k / sqrt(head_dim)) v of heads"
    matcher.prove(branch, found - projection[1], expected, what, around=projection[1])
