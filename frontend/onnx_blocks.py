"""The parts of a transformer in an ONNX graph: embedding, attention, MLP, mixture of experts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from frontend.onnx_eval import softmax
from frontend.onnx_experts import read_experts
from frontend.onnx_graph import Node
from frontend.onnx_match import LAYOUT, LINEAR, SELECTION, FloatArray, LinearLayer, Matcher, Norm
from pysim.files import Tensors


@dataclass(frozen=True)
class Embedding:
    """Patch embedding and positions.

    Attributes:
        node: the convolution.
        weight: (dim, channels, patch, patch).
        bias: (dim,).
        position: (tokens, dim), prefix tokens, such as the class token, in the first rows.
        prefix: how many prefix tokens there are.
        output: name of the tokens.
    """

    node: Node
    weight: FloatArray
    bias: FloatArray
    position: FloatArray
    prefix: int
    output: str


def read_embedding(matcher: Matcher, image: str) -> Embedding:
    """The embedding: from the image to the tokens of the first block."""
    node = matcher.next(
        matcher.forward(image, ("Identity", "Cast")), "Conv", what="the convolution that makes patches"
    )
    weight_name, *rest = node.inputs[1:]
    if not all(matcher.is_constant(name) for name in (weight_name, *rest)):
        raise matcher.mismatch(node, "expected a convolution with constant weights")
    weight = matcher.value(weight_name)
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        raise matcher.mismatch(node, f"expected square patches, found weights of shape {weight.shape}")
    bias = matcher.value(rest[0]) if rest and rest[0] else np.zeros(len(weight), np.float32)
    x = _first_stream(matcher, node)
    for step in (path := matcher.between(node.outputs[0], x)):
        added = step.op == "Add" and any(map(matcher.is_constant, step.inputs))
        moved = step.op in LAYOUT | SELECTION and all(map(matcher.is_constant, step.inputs[1:]))
        if not (added or moved or step.op == "Concat"):
            raise matcher.mismatch(step, "expected positions, a constant added to the tokens, or more tokens")
    maps, last = matcher.value(node.outputs[0]), path[-1] if path else node
    patches = maps.reshape(len(maps), len(weight), -1).swapaxes(1, 2)
    tokens = matcher.value(x)
    if tokens.ndim != 3 or tokens.shape[2] != len(weight) or tokens.shape[1] < patches.shape[1]:
        raise matcher.mismatch(
            last, f"values of shape {tokens.shape}, expected {patches.shape[1]} patches or more tokens"
        )
    # All steps select and add: what they make of patches that are zero is the constant part of all tokens.
    position = matcher.value.given({node.outputs[0]: np.zeros_like(maps)}, x)[0]
    prefix, expected = tokens.shape[1] - patches.shape[1], np.zeros_like(tokens)
    expected[:, prefix:] = patches
    matcher.prove(last, tokens, expected + position, "constant tokens, then patches in rows, with positions")
    return Embedding(node, weight, bias, position, prefix, x)


def _first_stream(matcher: Matcher, convolution: Node) -> str:
    """The tokens that the first LayerNorm reads."""
    after = matcher.after(convolution.outputs[0])
    norm = next(filter(matcher.is_norm, after), None)
    if norm is None:
        node = after[0] if after else convolution
        raise matcher.mismatch(node, "expected the LayerNorm of a transformer block somewhere behind it")
    return norm.inputs[0]


def read_attention(matcher: Matcher, norm: Norm, branch: Node, block: str, weights: Tensors) -> int:
    """Attention from a norm to the residual sum `branch`; returns the number of heads."""
    end = _branch_end(branch, matcher, norm)
    region = matcher.between(norm.output, end)
    soft = [node for node in region if node.op == "Softmax"]
    if len(soft) != 1:
        node = soft[1] if soft else (region[0] if region else branch)
        raise matcher.mismatch(node, "expected attention, which has one softmax")
    scores_name = matcher.backward(
        soft[0].inputs[0], lambda node: matcher.is_layout(node) or matcher.is_scaling(node)
    )
    scores = matcher.graph.producer[scores_name]
    if scores.op != "MatMul":
        raise matcher.mismatch(scores, "expected the product of queries and keys in front of the softmax")
    mixed = matcher.next(
        matcher.forward(soft[0].outputs[0]), "MatMul", what="the product of attention weights and values"
    )
    operands = (scores.inputs[0], scores.inputs[1], mixed.inputs[1])
    layers = [_projection(matcher, name, norm) for name in operands]
    query = matcher.value(operands[0])
    y = matcher.value(norm.output)
    tokens, dim = y.shape[1:]
    if query.ndim < 3 or query.shape[-2] != tokens or dim % query.shape[-1]:
        raise matcher.mismatch(
            scores, f"queries of shape {query.shape}, expected (images, heads, {tokens}, head_dim)"
        )
    heads = dim // query.shape[-1]
    weight, bias = _joined(matcher, layers, dim)
    weights[f"{block}.attn.qkv.weight"] = weight
    if bias is not None:
        weights[f"{block}.attn.qkv.bias"] = bias

    qkv = y @ weight.T + (0 if bias is None else bias)
    q, k, v = qkv.reshape(len(y), tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    expected = softmax(q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(q.shape[-1])))
    matcher.prove(
        soft[0],
        matcher.value(soft[0].outputs[0]),
        expected,
        "softmax(q k / sqrt(head_dim)) of heads in order",
    )
    output = (expected @ v).swapaxes(1, 2).reshape(y.shape)
    projection = matcher.linear(mixed.outputs[0], "the projection of attention")
    _shaped(matcher, projection, (dim, dim))
    projection = _with_layer_scale(matcher, end, projection)
    weights[f"{block}.attn.proj.weight"] = projection.weight
    weights[f"{block}.attn.proj.bias"] = projection.bias_or_zero
    matcher.prove(branch, matcher.value(end), projection(output), "the residual sum of projected attention")
    return heads


def _branch_end(branch: Node, matcher: Matcher, norm: Norm) -> str:
    """The operand of a residual sum that is not the stream: the one behind the norm."""
    for name in branch.inputs:
        if matcher.between(norm.output, name):
            return name
    raise matcher.mismatch(branch, "expected a residual sum of a block that starts with its norm")


def _with_layer_scale(matcher: Matcher, end: str, layer: LinearLayer) -> LinearLayer:
    """The layer that ends a branch, times the layer scale behind it, if there is one."""
    node = matcher.graph.producer.get(matcher.backward(end, matcher.is_layout))
    if node is None or node.op != "Mul":
        return layer
    images = [name for name in node.inputs if name in matcher.tainted]
    other = matcher.constant_operand(node, of=images[0]) if len(images) == 1 else None
    scale = None if other is None else matcher.value(other)
    if scale is None or scale.size not in (1, len(layer.weight)):
        raise matcher.mismatch(node, "expected a layer scale, a constant factor for each channel")
    return layer.scaled(np.broadcast_to(scale.astype(np.float32).ravel(), len(layer.weight)))


def _projection(matcher: Matcher, name: str, norm: Norm) -> LinearLayer:
    """The linear layer that queries, keys or values come from, through layout and scaling."""
    before = matcher.backward(name, lambda node: matcher.is_layout(node) or matcher.is_scaling(node))
    node = matcher.graph.producer.get(before)
    if node is not None and node.op == "Add":
        products = [given for given in node.inputs if given in matcher.tainted]
        node = matcher.graph.producer.get(products[0]) if len(products) == 1 else node
    if node is None or node.op not in LINEAR:
        where = node or norm.node
        raise matcher.mismatch(where, "expected the linear layer of queries, keys and values")
    layer = matcher.linear_at(node, node.inputs[0], "the linear layer of queries, keys and values")
    if layer.output != before or matcher.backward(node.inputs[0], matcher.is_layout) != norm.output:
        raise matcher.mismatch(node, "expected a linear layer right behind the norm")
    return layer


def _joined(matcher: Matcher, layers: list[LinearLayer], dim: int) -> tuple[FloatArray, FloatArray | None]:
    """Weight (3 * dim, dim) and bias of queries, keys and values, from one layer or from three."""
    query, key, value = layers
    if query.node is key.node is value.node:
        _shaped(matcher, query, (3 * dim, dim))
        return query.weight, query.bias
    for layer in layers:
        _shaped(matcher, layer, (dim, dim))
    biases = (
        None
        if all(layer.bias is None for layer in layers)
        else np.concatenate([layer.bias_or_zero for layer in layers])
    )
    return np.concatenate([layer.weight for layer in layers]), biases


def _shaped(matcher: Matcher, layer: LinearLayer, shape: tuple[int, ...]) -> None:
    if layer.weight.shape != shape:
        raise matcher.mismatch(layer.node, f"weights of shape {layer.weight.shape}, expected {shape}")


def read_mlp(
    matcher: Matcher, norm: Norm, branch: Node, block: str, weights: Tensors, task: str | None
) -> dict[str, Any]:
    """MLP or experts from a norm to the residual sum `branch`; returns their sizes."""
    end = _branch_end(branch, matcher, norm)
    region = matcher.between(norm.output, end)
    if any(node.op == "TopK" for node in region):
        return read_experts(matcher, norm, region, branch, end, block, weights, task)
    dim = len(norm.weight)
    first = matcher.linear(norm.output, "the first linear layer of an MLP")
    products = [node for node in region if node.op in LINEAR and node.index > first.node.index]
    if not products:
        raise matcher.mismatch(region[-1], "expected the second linear layer of an MLP")
    activation = matcher.activation(first, products[0])
    second = matcher.linear_at(products[0], products[0].inputs[0], "the second linear layer of an MLP")
    hidden = len(first.weight)
    _shaped(matcher, first, (hidden, dim))
    _shaped(matcher, second, (dim, hidden))
    second = _with_layer_scale(matcher, end, second)
    for name, layer in (("fc1", first), ("fc2", second)):
        weights[f"{block}.mlp.{name}.weight"] = layer.weight
        weights[f"{block}.mlp.{name}.bias"] = layer.bias_or_zero
    activated = matcher.value(second.node.inputs[0])
    matcher.prove(second.node, matcher.value(end), second(activated), "the second linear layer of an MLP")
    return {"hidden": hidden, "activation": activation}
