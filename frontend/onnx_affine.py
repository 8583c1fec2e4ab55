"""Linear layers in an ONNX graph, however they are written: found by what a part of the graph does to unit vectors.

A part that only multiplies with constants, adds constants and rearranges is an affine map of its tokens. Its weights
are what it makes of unit vectors without the constants that it adds, its bias what it makes of zeros: exactly the
numbers of the file, as products with 1 and sums with 0 do not round. Joined and split projections, any order of rows
and every way of writing a product come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from frontend.onnx_eval import Array, compute
from frontend.onnx_graph import Node
from frontend.onnx_match import LAYOUT, SELECTION, Matcher

FloatArray = NDArray[np.float32]


class NotAffineError(Exception):
    """A node that is no part of an affine map.

    Attributes:
        node: the node.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(str(node))
        self.node = node


class AffineMap:
    """The part of a graph between two tensors, which is an affine map.

    Attributes:
        factor: what all constant numbers that the map multiplies with come to; not in `slope` and `offset`, so that
            the scale of attention does not round its weights.
        biased: whether the map adds any constant.
    """

    def __init__(self, matcher: Matcher, base: str, target: str) -> None:
        """Look at the part from `base` to `target`.

        Raises:
            NotAffineError: a node that does more.
        """
        self._matcher, self._base, self._target = matcher, base, target
        self._path = matcher.between(base, target)
        self.factor, self.biased = 1.0, False
        self.shape: tuple[int, ...] = matcher.value(base).shape
        self._offset = self._run(np.zeros(self.shape, np.float32), homogeneous=False)

    def slope(self, value: Array) -> Array:
        """Result of the map for `value`, without the constants that it adds."""
        return self._run(value, homogeneous=True)

    def offset(self) -> Array:
        """Result of the map for zeros."""
        return self._offset

    def weights(
        self, tokens: int, channels: int, put: Callable[[Array], Array], get: Callable[[Array], Array]
    ) -> FloatArray:
        """The matrix (outputs, channels) that the map applies to each token, without the factor.

        Args:
            tokens: how many there are.
            channels: of a token.
            put: the map's input for (tokens, channels).
            get: (tokens, outputs) in the map's output.
        """
        columns = []
        for start in range(0, channels, tokens):
            count = min(tokens, channels - start)
            units = np.zeros((tokens, channels), np.float32)
            units[np.arange(count), start + np.arange(count)] = 1
            columns.append(get(self.slope(put(units)))[:count])
        return np.ascontiguousarray(np.concatenate(columns).T, np.float32)

    def _run(self, value: Array, *, homogeneous: bool) -> Array:
        values: dict[str, tuple[Array, float]] = {self._base: (value, 1.0)}
        for node in self._path:
            values |= self._step(node, values, homogeneous)
        array, self.factor = values[self._target]
        return array

    def _step(
        self, node: Node, values: Mapping[str, tuple[Array, float]], homogeneous: bool
    ) -> dict[str, tuple[Array, float]]:
        moving = [name for name in node.inputs if name in values]
        if any(name in self._matcher.tainted and name not in values for name in node.inputs if name):
            raise NotAffineError(node)  # something of the image that does not come through the base
        constants = {name: self._matcher.value(name) for name in node.inputs if name and name not in values}
        if node.op in ("Add", "Sub", "Concat"):
            return self._sum(node, values, constants, homogeneous)
        if len(moving) != 1 or node.inputs.count(moving[0]) != 1:
            raise NotAffineError(node)
        array, factor = values[moving[0]]
        place = node.inputs.index(moving[0])
        operands = [array if name in values else constants.get(name) for name in node.inputs]
        if node.op in LAYOUT | SELECTION:
            if place != 0:
                raise NotAffineError(node)
        elif node.op in ("Mul", "Div"):
            (other,) = constants.values()
            if node.op == "Div" and place != 0:
                raise NotAffineError(node)
            if other.size == 1 and other.ndim <= array.ndim:
                number = float(other.ravel()[0])
                if number == 0 or not np.isfinite(number):
                    raise NotAffineError(node)
                return {node.outputs[0]: (array, factor / number if node.op == "Div" else factor * number)}
        elif node.op in ("Gemm", "Conv"):
            if place == 2 or (node.op == "Conv" and place != 0):
                raise NotAffineError(node)
            if len(operands) > 2 and operands[2] is not None:
                self.biased = True
                operands[2] = None if homogeneous else operands[2] / np.float32(factor)
        elif node.op not in ("MatMul", "Einsum"):
            raise NotAffineError(node)
        results = compute(self._matcher.graph, node, operands)
        return {name: (result, factor) for name, result in zip(node.outputs, results, strict=False) if name}

    def _sum(
        self,
        node: Node,
        values: Mapping[str, tuple[Array, float]],
        constants: Mapping[str, Array],
        homogeneous: bool,
    ) -> dict[str, tuple[Array, float]]:
        """A sum, a difference or a concatenation: constants in it do not count in the homogeneous part."""
        factors = {values[name][1] for name in node.inputs if name in values}
        factor = factors.pop() if len(factors) == 1 else 1.0
        self.biased = self.biased or bool(constants)
        operands = []
        for name in node.inputs:
            if name in values:
                array, own = values[name]
                operands.append(array if own == factor else array * np.float32(own))
            elif homogeneous:
                operands.append(np.zeros_like(constants[name], np.float32))
            else:
                operands.append(constants[name] / np.float32(factor))
        return {node.outputs[0]: (compute(self._matcher.graph, node, operands)[0], factor)}
