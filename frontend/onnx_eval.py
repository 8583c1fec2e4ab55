"""The ONNX operations that ViTs consist of, in numpy: constants folded, and every value of one run at hand.

Importing a graph means running it once: sizes that the graph computes become plain numbers, and every step that
was recognised can be compared with what the graph really does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

from common.errors import InputError
from frontend.onnx_fold import FOLDED, fold, sized
from frontend.onnx_graph import Graph, Node
from pysim.activations import ACTIVATIONS

Array = NDArray[Any]

UNKNOWN_OPERATION = "no operation of a ViT that the accelerator could run"
"""The complaint about a node whose operation is none of `OPERATIONS`."""

FLOAT_TYPES = (1, 10, 11, 16)
"""float32, float16, float64 and bfloat16 in ONNX's numbering: all are float32 here."""


class Evaluator:
    """One run of a graph, value by value as they are asked for."""

    def __init__(self, graph: Graph, feeds: dict[str, Array]) -> None:
        self.graph = graph
        self.feeds = feeds
        self._values: dict[str, Array] = {}

    def __call__(self, name: str) -> Array:
        """Value of a tensor."""
        for node in sorted(self._needed(name), key=lambda node: node.index):
            self._run(node)
        return self._get(name)

    def given(self, feeds: dict[str, Array]) -> Evaluator:
        """Another run, in which some tensors have these values."""
        return Evaluator(self.graph, self.feeds | feeds)

    def forget(self) -> None:
        """Drop all values but those that were kept: a whole run would not fit into memory."""
        self._values.clear()

    def keep(self, name: str) -> Array:
        """Value of a tensor, which from now on is an input of everything after it; all others are dropped."""
        self.feeds[name] = self(name)
        self.forget()
        return self.feeds[name]

    def _get(self, name: str) -> Array:
        for values in (self.feeds, self.graph.constants, self._values):
            if name in values:
                return values[name]
        raise InputError(f"{self.graph.source}: tensor {name!r} has no value")

    def _known(self, name: str) -> bool:
        return not name or name in self.feeds or name in self.graph.constants or name in self._values

    def _needed(self, name: str) -> list[Node]:
        needed: dict[int, Node] = {}
        waiting = [name]
        while waiting:
            tensor = waiting.pop()
            if self._known(tensor):
                continue
            node = self.graph.producer.get(tensor)
            if node is not None and node.index not in needed:
                needed[node.index] = node
                waiting.extend(node.inputs)
        return list(needed.values())

    def _run(self, node: Node) -> None:
        if node.op not in OPERATIONS and node.op not in FOLDED:
            raise InputError(f"{self.graph.source}: {node}: {UNKNOWN_OPERATION}")
        results = compute(self.graph, node, [self._get(name) if name else None for name in node.inputs])
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                self._values[name] = value.astype(np.float32) if value.dtype == np.float64 else value


def compute(graph: Graph, node: Node, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """Results of a node of a graph.

    Raises:
        InputError: operands that do not fit.
    """
    try:
        if node.op not in OPERATIONS:
            return fold(node, inputs, graph.opset)
        results = OPERATIONS[node.op](node, *inputs)
    except InputError:
        raise
    except Exception as error:  # operands that do not fit fail in as many ways as there are operations
        detail = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(f"{graph.source}: {node} cannot be computed: {detail}") from None
    return results if isinstance(results, tuple) else (results,)


def image_dependent(graph: Graph, source: str) -> set[str]:
    """Tensors whose values, not only sizes, depend on `source`."""
    tainted = {source}
    for node in graph.nodes:
        if node.op != "Shape" and tainted.intersection(node.inputs):
            tainted.update(name for name in node.outputs if name)
    return tainted


def _elementwise(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def run(_node: Node, a: Array, b: Array) -> Array:
        sized(np.broadcast_shapes(a.shape, b.shape))
        with np.errstate(all="ignore"):
            return function(a, b)

    return run


def _unary(function: Callable[[Array], Array]) -> Callable[..., Array]:
    def run(_node: Node, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(x))

    return run


def _divide(a: Array, b: Array) -> Array:
    return a // b if a.dtype.kind == "i" else a / b


def _matmul(_node: Node, a: Array, b: Array) -> Array:
    if a.ndim > 1 and b.ndim > 1:
        sized((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))
    return np.asarray(np.matmul(a, b))


def _gemm(node: Node, a: Array, b: Array, c: Array | None = None) -> Array:
    get = node.attributes.get
    product = (
        (a.T if get("transA", 0) else a) @ (b.T if get("transB", 0) else b) * np.float32(get("alpha", 1.0))
    )
    return np.asarray(product if c is None else product + c * np.float32(get("beta", 1.0)))


def _conv(node: Node, x: Array, weight: Array, bias: Array | None = None) -> Array:
    get = node.attributes.get
    size = weight.shape[2:]
    plain = not any(get("pads", (0,))) and set(get("dilations", (1,))) == {1} and get("group", 1) == 1
    padded = get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if x.ndim != 4 or len(size) != 2 or tuple(get("strides", (1, 1))) != size or not plain or padded:
        raise ValueError("not the convolution of a patch embedding, whose strides equal its kernel")
    count, channels, height, width = x.shape
    rows, columns = height // size[0], width // size[1]
    cut = x[:, :, : rows * size[0], : columns * size[1]].reshape(
        count, channels, rows, size[0], columns, size[1]
    )
    result = np.einsum("ncrhkw,dchw->ndrk", cut, weight, optimize=True)
    return np.asarray(result if bias is None else result + bias[:, None, None])


def softmax(x: Array, axis: int = -1) -> Array:
    """Softmax."""
    exponentials = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=axis, keepdims=True))


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """LayerNorm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + np.float32(epsilon)) * weight + bias)


def _layer_normalization(node: Node, x: Array, weight: Array, bias: Array | None = None) -> Array:
    if node.attributes.get("axis", -1) not in (-1, x.ndim - 1):
        raise ValueError("a norm over more than the channels")
    return layer_norm(
        x, weight, np.zeros(1, np.float32) if bias is None else bias, node.attributes.get("epsilon", 1e-5)
    )


GELUS = {"none": "gelu", "tanh": "gelu_tanh"}
"""Activation functions of a Model by the attribute `approximate` of ONNX's Gelu."""


def _gelu(node: Node, x: Array) -> Array:
    function = ACTIVATIONS[GELUS[node.attributes.get("approximate", "none")]].function
    return function(x.astype(np.float64)).astype(x.dtype)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _einsum(node: Node, *operands: Array) -> Array:
    equation = einsum_labels(node, [operand.ndim for operand in operands])
    sizes = {
        label: size
        for labels, operand in zip(equation[:-1], operands, strict=True)
        for label, size in zip(labels, operand.shape, strict=True)
    }
    sized([sizes[label] for label in equation[-1]])
    return np.asarray(np.einsum(f"{','.join(equation[:-1])}->{equation[-1]}", *operands, optimize=True))


def einsum_labels(node: Node, ranks: Sequence[int]) -> list[str]:
    """Labels of the axes of each operand of an Einsum, and of its result; those that `...` stands for are capitals.

    Raises:
        ValueError: an equation that does not fit its operands, or none with an arrow.
    """
    left, arrow, right = node.attributes["equation"].replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(ranks) or not right.replace(".", "").islower() or not left.islower():
        raise ValueError("an equation that names its result by small letters was expected")
    hidden = max(rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True))
    batch = "ABCDEFGH"[: hidden if "..." in left else 0]
    named = [
        term.replace("...", batch[len(batch) - (rank - len(term.replace("...", ""))) :] if batch else "")
        for term, rank in zip(terms, ranks, strict=True)
    ]
    if [len(term) for term in named] != list(ranks):
        raise ValueError(f"the equation {left}->{right} does not fit operands of {list(ranks)} axes")
    return [*named, right.replace("...", batch)]


def in_heads(x: Array, heads: int | None) -> Array:
    """Queries, keys or values of the operation Attention as (images, heads, tokens, channels of a head)."""
    if x.ndim == 4:
        return x
    if x.ndim != 3 or not heads:
        raise ValueError("attention on operands of 3 axes, without a number of heads")
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _attention(
    node: Node, q: Array, k: Array, v: Array, mask: Array | None = None, *cache: Array | None
) -> tuple[Array, ...]:
    get = node.attributes.get
    if get("is_causal", 0) or get("softcap", 0.0) or any(part is not None for part in cache):
        raise ValueError("attention that is causal, has a soft cap or a cache")
    flat, kept = q.ndim == 3, get("kv_num_heads")
    q, k, v = in_heads(q, get("q_num_heads")), in_heads(k, kept), in_heads(v, kept)
    k, v = (np.repeat(part, q.shape[1] // part.shape[1], axis=1) for part in (k, v))
    scores = q @ k.swapaxes(-1, -2) * np.float32(get("scale", 1 / math.sqrt(q.shape[-1])))
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype.kind == "i" else scores + mask
    mixed = softmax(scores) @ v
    return (mixed.swapaxes(1, 2).reshape(len(mixed), mixed.shape[2], -1) if flat else mixed,)


def _axes(node: Node, given: Array | None) -> tuple[int, ...] | None:
    axes = node.attributes.get("axes") if given is None else given.ravel().tolist()
    return None if axes is None else tuple(int(axis) for axis in axes)


def _reduce(function: Callable[..., Array]) -> Callable[..., Array]:
    def run(node: Node, x: Array, axes: Array | None = None) -> Array:
        return np.asarray(
            function(x, axis=_axes(node, axes), keepdims=bool(node.attributes.get("keepdims", 1)))
        )

    return run


def _reshape(node: Node, x: Array, shape: Array) -> Array:
    wanted = shape.ravel().tolist()
    if not node.attributes.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(node: Node, x: Array) -> Array:
    axis = node.attributes.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, _axes(node, axes))


def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, _axes(node, axes) or ())


def _slice(
    _node: Node, x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    count = len(starts)
    along = range(count) if axes is None else axes.tolist()
    strides = [1] * count if steps is None else steps.tolist()
    index: list[slice] = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), strides, strict=True):
        if step < 1:
            raise ValueError("a slice that runs backwards")
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _split(node: Node, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    axis, parts = node.attributes.get("axis", 0), len(node.outputs)
    given = node.attributes.get("split") if sizes is None else sizes.tolist()
    if given is None:
        return tuple(np.array_split(x, parts, axis))
    if sum(given) != x.shape[axis] or len(given) != parts or min(given) < 0:
        raise ValueError(f"parts of {given} of an axis of {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(given)[:-1], axis))


def _gather(node: Node, x: Array, indices: Array) -> Array:
    return np.take(x, indices, axis=node.attributes.get("axis", 0))


def _concat(node: Node, *parts: Array) -> Array:
    return np.concatenate(parts, node.attributes["axis"])


def _expand(_node: Node, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, sized(np.broadcast_shapes(x.shape, tuple(shape.tolist()))))


def _shape(node: Node, x: Array) -> Array:
    return np.array(x.shape, np.int64)[node.attributes.get("start", 0) : node.attributes.get("end")]


def _constant(node: Node) -> Array:
    get = node.attributes.get
    if "value" in node.attributes:
        return np.asarray(get("value"))
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if name in node.attributes:
            return np.array(get(name), dtype)
    return np.array(get("value_int", get("value_ints", 0)), np.int64)


def _constant_of_shape(node: Node, shape: Array) -> Array:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(sized(shape.tolist()), value.ravel()[0], value.dtype)


def _range(_node: Node, start: Array, limit: Array, delta: Array) -> Array:
    sized([max(0, math.ceil((int(limit) - int(start)) / int(delta)))])
    return np.arange(int(start), int(limit), int(delta), dtype=np.int64)


def _cast(node: Node, x: Array) -> Array:
    return x.astype(np.float32 if node.attributes["to"] in FLOAT_TYPES else np.int64)


def _top_k(node: Node, x: Array, k: Array) -> tuple[Array, Array]:
    if node.attributes.get("axis", -1) not in (-1, x.ndim - 1) or not node.attributes.get("largest", 1):
        raise ValueError("not the largest of the last axis")
    best = np.argsort(-x, axis=-1, kind="stable")[..., : int(k.ravel()[0])]
    return np.take_along_axis(x, best, -1), best


def _scatter(node: Node, x: Array, indices: Array, updates: Array) -> Array:
    if node.attributes.get("reduction", "none") != "none":
        raise ValueError("a scatter that adds")
    result = x.copy()
    np.put_along_axis(result, indices, updates, node.attributes.get("axis", 0))
    return result


def _gather_elements(node: Node, x: Array, indices: Array) -> Array:
    return np.take_along_axis(x, indices, node.attributes.get("axis", 0))


def _softmax(node: Node, x: Array) -> Array:
    return softmax(x, node.attributes.get("axis", -1))


def _transpose(node: Node, x: Array) -> Array:
    return np.transpose(x, node.attributes.get("perm"))


def _identity(_node: Node, x: Array, *_rest: Array) -> Array:
    return x


def _where(_node: Node, condition: Array, a: Array, b: Array) -> Array:
    sized(np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition, a, b)


def _equal(a: Array, b: Array) -> Array:
    return np.asarray(a == b, np.int64)


def _is_nan(_node: Node, x: Array) -> Array:
    return np.isnan(x).astype(np.int64)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": _elementwise(np.add),
    "Attention": _attention,
    "Cast": _cast,
    "CastLike": _identity,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": _elementwise(_divide),
    "Dropout": _identity,
    "Einsum": _einsum,
    "Equal": _elementwise(_equal),
    "Erf": _unary(erf),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Identity": _identity,
    "IsNaN": _is_nan,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "Mod": _elementwise(np.mod),
    "Mul": _elementwise(np.multiply),
    "Pow": _elementwise(np.power),
    "Range": _range,
    "Reciprocal": _unary(np.reciprocal),
    "ReduceMean": _reduce(np.mean),
    "ReduceSum": _reduce(np.sum),
    "Relu": _unary(_relu),
    "Reshape": _reshape,
    "ScatterElements": _scatter,
    "Shape": _shape,
    "Sigmoid": _unary(expit),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tanh": _unary(np.tanh),
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""Every operation that a supported graph may run on the image."""
