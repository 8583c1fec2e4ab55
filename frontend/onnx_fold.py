"""Constant parts of an ONNX graph: operations that no ViT runs on its images, but that positions and masks are made by.

They are computed by the reference of the `onnx` package, one node at a time. Only operations whose results are no
larger than their inputs tell are among them: a damaged file must not fill the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frontend.onnx_graph import Node

Array = NDArray[Any]

MOST_VALUES = 1 << 28
"""Values of one tensor: far more than any supported network has, and still small enough for a desktop."""
MOST_RESIZED = 1 << 15
"""Pairs of an old and a new place along one axis of a resized tensor: position tables have a few hundred at most."""


def sized(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a tensor, if it may be that large.

    Raises:
        ValueError: negative sizes, or more than `MOST_VALUES` values.
    """
    checked = tuple(int(size) for size in shape)
    if any(size < 0 for size in checked) or math.prod(checked) > MOST_VALUES:
        raise ValueError(f"a tensor of shape {checked}")
    return checked


_ELEMENTWISE = frozenset(
    (
        "Abs",
        "Acos",
        "And",
        "Asin",
        "Atan",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "Ceil",
        "Clip",
        "Cos",
        "Exp",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "IsInf",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Mean",
        "Min",
        "Neg",
        "Not",
        "Or",
        "Round",
        "Sign",
        "Sin",
        "Sum",
        "Tan",
        "Trilu",
        "Xor",
    )
)
"""Operations whose result has the shape that their inputs broadcast to."""
_SHRINKING = frozenset(
    (
        "ArgMax",
        "ArgMin",
        "CumSum",
        "DepthToSpace",
        "EyeLike",
        "GatherND",
        "NonZero",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
        "ScatterND",
        "Size",
        "SpaceToDepth",
    )
)
"""Operations whose result is no larger than an input, or than a few times that."""


def _tile(_node: Node, x: Array, repeats: Array) -> tuple[int, ...]:
    return tuple(size * int(times) for size, times in zip(x.shape, repeats.tolist(), strict=True))


def _pad(node: Node, x: Array, pads: Array | None = None, *_rest: Array | None) -> tuple[int, ...]:
    given = node.attributes.get("pads") if pads is None else pads.tolist()
    if given is None or len(given) != 2 * x.ndim:
        raise ValueError("pads for some axes only")
    before, after = given[: x.ndim], given[x.ndim :]
    return tuple(size + first + last for size, first, last in zip(x.shape, before, after, strict=True))


def _one_hot(_node: Node, indices: Array, depth: Array, _values: Array) -> tuple[int, ...]:
    return (*indices.shape, int(depth.ravel()[0]))


_GROWING: dict[str, Callable[..., tuple[int, ...]]] = {"OneHot": _one_hot, "Pad": _pad, "Tile": _tile}
"""Operations that may grow, with the shapes of their results."""

FOLDED = _ELEMENTWISE | _SHRINKING | _GROWING.keys() | {"Resize"}
"""Every operation that a constant part may hold besides `frontend.onnx_eval.OPERATIONS`."""


def fold(node: Node, inputs: Sequence[Array | None], opset: int) -> tuple[Array, ...]:
    """Results of one of `FOLDED` on constants.

    Args:
        node: the operation.
        inputs: its operands; floats are float32, integers and truth values int64. None where one is left out.
        opset: the version of ONNX's operations that the node is of.

    Raises:
        ValueError: operands that do not fit, or a result that would be too large.
    """
    given = [value for value in inputs if value is not None]
    if node.op == "Resize":
        return (_resize(node, *inputs),)
    if node.op in _ELEMENTWISE:
        sized(np.broadcast_shapes(*(value.shape for value in given)))
    elif node.op in _GROWING:
        sized(_GROWING[node.op](node, *inputs))
    feeds = {f"x{number}": value for number, value in enumerate(inputs) if value is not None}
    names = ["" if value is None else f"x{number}" for number, value in enumerate(inputs)]
    results = run_reference(node.op, names, feeds, node.attributes, opset, len(node.outputs))
    return tuple(
        np.asarray(value, np.float32 if np.asarray(value).dtype.kind == "f" else np.int64)
        for value in results
    )


def run_reference(
    op: str, names: Sequence[str], feeds: dict[str, Array], attributes: Any, opset: int, results: int
) -> list[Array]:
    """Results of one operation by ONNX's own reference."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    outputs = [f"y{number}" for number in range(results)]
    node = helper.make_node(op, names, outputs, **attributes)
    kind = helper.np_dtype_to_tensor_dtype
    given = [
        helper.make_tensor_value_info(name, kind(value.dtype), value.shape) for name, value in feeds.items()
    ]
    made = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "fold", given, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    found: list[Array] = ReferenceEvaluator(model).run(None, feeds)
    return found


def _resize(
    node: Node,
    x: Array | None = None,
    _roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
) -> Array:
    """A resized tensor. Each axis is a linear map of its own: the reference for all axes at once takes minutes."""
    get = node.attributes.get
    if x is None or get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise ValueError("a resize that crops")
    if get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError("a resize that keeps the aspect ratio")
    wanted = sizes if sizes is not None and sizes.size else scales
    axes = get("axes", range(x.ndim))
    if wanted is None or wanted.size != len(axes):
        raise ValueError("a resize without sizes or scales for its axes")
    by_size = wanted is sizes
    for axis, size in zip(axes, wanted.tolist(), strict=True):
        if size != (x.shape[axis] if by_size else 1):
            matrix = _resizing(node, x.shape[axis], size, by_size=by_size)
            sized((*x.shape[:axis], len(matrix), *x.shape[axis + 1 :]))
            x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return x.astype(np.float32)


def _resizing(node: Node, count: int, size: float, *, by_size: bool) -> Array:
    """The matrix (new places, old places) of a resize along one axis."""
    if not 0 < (size if by_size else size * count) * count <= MOST_RESIZED:
        raise ValueError(f"a resize of {count} places to {size:g}")
    attributes = {key: value for key, value in node.attributes.items() if key != "axes"}
    names = ["x", "", "", "size"] if by_size else ["x", "", "size"]
    how = np.array([size], np.int64 if by_size else np.float32)
    rows = (
        run_reference("Resize", names, {"x": row, "size": how}, attributes, 19, 1)[0]
        for row in np.eye(count, dtype=np.float32)
    )
    return np.stack(list(rows), 1)
