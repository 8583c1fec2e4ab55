"""Recognising the parts of a ViT in an ONNX graph: norms, linear layers, what lies between them.

A part is found by its operations and proved by its numbers: the graph is run once on a random image, and what a
part is taken for must give the values that the graph gives. Layout operations (reshapes, transpositions, slices)
are therefore only stepped over here; one that does not do what it should shows in the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from frontend.onnx_eval import (
    FLOAT_TYPES,
    GELUS,
    OPERATIONS,
    UNKNOWN_OPERATION,
    Array,
    Evaluator,
    image_dependent,
    layer_norm,
)
from frontend.onnx_graph import Graph, Node
from frontend.transformer import fold_scale
from pysim.activations import ACTIVATIONS

FloatArray = NDArray[np.float32]

LAYOUT = frozenset(
    (
        "Cast",
        "CastLike",
        "Dropout",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
"""Operations that only rearrange."""
SELECTION = frozenset(("Gather", "Slice", "Split"))
"""Operations that only pick a part."""
_ACTIVATION = LAYOUT | {"Add", "Div", "Erf", "Gelu", "Mul", "Pow", "Relu", "Sigmoid", "Tanh"}
"""Operations of an activation function: of its own, or such as x / 2 * (1 + erf(x / sqrt(2))) in any order."""
_TELLING = {"Erf": "gelu", "Tanh": "gelu_tanh", "Sigmoid": "quick_gelu", "Relu": "relu"}
"""Operations that only one activation function holds."""
LINEAR = frozenset(("MatMul", "Gemm"))

_COPIES = ("Cast", "CastLike", "Dropout", "Identity")
"""Operations that only copy, on floats."""
_TRUTHS = frozenset(
    (
        *(
            "And",
            "ArgMax",
            "ArgMin",
            "Equal",
            "Greater",
            "GreaterOrEqual",
            "IsInf",
            "IsNaN",
            "Less",
            "LessOrEqual",
        ),
        *("NonZero", "Not", "Or", "Shape", "Size", "Xor"),
    )
)
"""Operations whose results are no floats."""

_TWO = "Add Conv Div Equal Expand Gather GatherElements Gemm LayerNormalization MatMul Mod Mul Pow Reshape Sub TopK"
_THREE = "Attention Range ScatterElements Slice Where"
_OPERANDS = dict.fromkeys(_TWO.split(), 2) | dict.fromkeys(_THREE.split(), 3)
"""Inputs that an operation cannot do without, where they are more than one."""

TOLERANCE = 1e-4
"""Tolerance of values that must agree, relative to the largest: float32 sums in another order differ by far less."""
ROUNDING = 1e-6
"""Rounding of float32, after a few operations, relative to a value."""
SMALLEST = 1e-12
"""Largest value of tensors that count as zero."""
ACTIVATION_TOLERANCE = 1e-5
"""The same of activation functions, which add nothing up."""
COARSE_TOLERANCE = 12.0
"""The same in units of the precision of a half-precision file, whose constants (scales above all) are rounded."""


@dataclass(frozen=True)
class LinearLayer:
    """A product with constant weights and the sum with constant biases after it.

    Attributes:
        node: the product.
        weight: (outputs, inputs), or (experts, outputs, inputs).
        bias: (outputs,) or (experts, outputs); None where nothing is added.
        output: name of the result.
    """

    node: Node
    weight: FloatArray
    bias: FloatArray | None
    output: str

    def __call__(self, x: Array) -> Array:
        """The layer's result for (..., inputs)."""
        product = x @ self.weight.swapaxes(-1, -2)
        return (
            product
            if self.bias is None
            else product + (self.bias[..., None, :] if self.weight.ndim == 3 else self.bias)
        )

    def scaled(self, scale: FloatArray) -> LinearLayer:
        """The layer whose results are multiplied by (outputs,) factors."""
        weight, bias = fold_scale(scale, self.weight, self.bias_or_zero)
        return replace(self, weight=weight, bias=bias)

    @property
    def bias_or_zero(self) -> FloatArray:
        """The bias, zeros where there is none."""
        return np.zeros(self.weight.shape[:-1], np.float32) if self.bias is None else self.bias


@dataclass(frozen=True)
class Norm:
    """A LayerNorm: its parameters and the name of its result."""

    node: Node
    weight: FloatArray
    bias_or_zero: FloatArray
    epsilon: float
    output: str

    def __call__(self, x: Array) -> Array:
        """The norm of (..., channels)."""
        return layer_norm(x, self.weight, self.bias_or_zero, self.epsilon)


class Matcher:
    """A graph together with a run of it, and the questions that recognition asks.

    Attributes:
        graph: the graph.
        value: values of tensors in the run.
        tainted: tensors that depend on the image.
        recognised: the tokens behind the blocks that were recognised so far; None in front of the first block.
    """

    def __init__(self, graph: Graph, feeds: dict[str, Array], image: str) -> None:
        self.graph = graph = without_copies(graph, image)
        self.value = Evaluator(graph, feeds)
        self.tainted = image_dependent(graph, image)
        self.recognised: str | None = None
        self._path: set[int] | None = None
        for node in graph.nodes:
            if node.op not in OPERATIONS:
                continue  # a decoder's, perhaps; refused where the network's own part needs it
            fewest = _OPERANDS.get(node.op, 0 if node.op == "Constant" else 1)
            if (
                len(node.inputs) < fewest
                or not all(node.inputs[:fewest])
                or not node.outputs
                or not node.outputs[0]
            ):
                raise self.mismatch(node, f"expected {fewest} inputs and a result")

    def mismatch(self, node: Node, why: str) -> InputError:
        """The error that names the first node which does not fit."""
        if node.op not in OPERATIONS:
            why = f"{UNKNOWN_OPERATION}; {why}"
        hint = (
            "docs/models.md says which graphs are recognised; import the state_dict instead, if there is one"
        )
        if self.recognised is not None and self.recognised not in self.graph.outputs:
            hint += f"; --outputs {self.recognised} cuts the graph behind the blocks that were recognised"
        return InputError(f"{self.graph.source}: {node}: {why}", hint=hint)

    def leads_only_from(self, base: str, target: str) -> bool:
        """True where `target` depends on the image through `base` alone."""
        waiting, seen = [target], {base}
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.tainted:
                continue
            seen.add(name)
            node = self.graph.producer.get(name)
            if node is None:
                return False
            waiting.extend(node.inputs)
        return True

    def cuts(self, base: str, target: str) -> list[str]:
        """Tensors that every way from `base` to `target` leads through, in order, both of them among them."""
        path = self.between(base, target)
        last = {name: node.index for node in path for name in node.inputs}
        cuts, made, open_until = [base], {base}, last.get(base, -1)
        for node in path:
            (*others, name) = [name for name in node.outputs if name in last or name == target] or [""]
            if not others and open_until <= node.index:
                cuts.append(name)
            made.update(node.outputs)
            open_until = max([open_until, *(last.get(name, -1) for name in node.outputs)])
        return cuts

    def readers(self, name: str) -> list[Node]:
        """Nodes that read the values of a tensor, not only its shape."""
        readers = [node for node in self.graph.consumers.get(name, []) if node.op != "Shape"]
        return readers if self._path is None else [node for node in readers if node.index in self._path]

    @contextmanager
    def along(self, path: Iterable[Node]) -> Iterator[None]:
        """Within the block, only these nodes count as readers: of several branches, one is followed."""
        self._path = {node.index for node in path}
        try:
            yield
        finally:
            self._path = None

    def is_constant(self, name: str) -> bool:
        """True for a tensor that does not depend on the image."""
        return name not in self.tainted

    def constant_operand(self, node: Node, *, of: str) -> str | None:
        """The constant one of the two operands of a node, the other one of which is the tensor `of`."""
        others = [name for name in node.inputs[:2] if name != of]
        return others[0] if len(others) == 1 and self.is_constant(others[0]) else None

    def scalar_operand(self, node: Node, *, of: str) -> bool:
        """True where the other operand is one constant number."""
        other = self.constant_operand(node, of=of)
        return other is not None and self.value(other).size == 1

    def forward(self, name: str, ops: Iterable[str] = LAYOUT) -> str:
        """The tensor after all of these operations that follow in a chain."""
        allowed = set(ops)
        while True:
            readers = self.readers(name)
            if len(readers) != 1 or readers[0].op not in allowed or name not in readers[0].inputs[:1]:
                return name
            name = readers[0].outputs[0]

    def backward(self, name: str, accept: Callable[[Node], bool]) -> str:
        """The tensor before all operations in a chain that are accepted."""
        while (node := self.graph.producer.get(name)) is not None and accept(node):
            name = next(given for given in node.inputs if given in self.tainted)
        return name

    def is_layout(self, node: Node) -> bool:
        """True for operations that rearrange or pick values of the image."""
        return node.op in LAYOUT | SELECTION and node.inputs[0] in self.tainted

    def is_scaling(self, node: Node) -> bool:
        """True for a product with, or a quotient by, one constant number."""
        image = [name for name in node.inputs if name in self.tainted]
        return node.op in ("Mul", "Div") and len(image) == 1 and self.scalar_operand(node, of=image[0])

    def next(self, name: str, *ops: str, what: str) -> Node:
        """The one reader of a tensor that is of these types."""
        readers = self.readers(name)
        found = [node for node in readers if node.op in ops]
        if len(found) == 1:
            return found[0]
        if not readers:
            raise InputError(f"{self.graph.source}: tensor {name!r} ends the graph, expected {what} after it")
        raise self.mismatch(readers[0], f"expected {what}")

    def linear(self, name: str, what: str) -> LinearLayer:
        """The linear layer that reads a tensor, maybe rearranged."""
        name = self.forward(name)
        return self.linear_at(self.next(name, *LINEAR, what=what), name, what)

    def linear_at(self, node: Node, name: str, what: str) -> LinearLayer:
        """The linear layer of a product of `name`."""
        other = self.constant_operand(node, of=name)
        if other is None or node.inputs[0] != name:
            raise self.mismatch(node, f"expected {what}, a product with constant weights")
        weight, bias = self.value(other), None
        output = node.outputs[0]
        if node.op == "Gemm":
            get = node.attributes.get
            if get("transA", 0) or get("alpha", 1.0) != 1.0 or get("beta", 1.0) != 1.0:
                raise self.mismatch(node, f"expected {what}, a plain product and sum")
            weight = weight if get("transB", 0) else weight.swapaxes(-1, -2)
            if len(node.inputs) > 2 and node.inputs[2]:
                bias = self.value(node.inputs[2])
        else:
            weight = weight.swapaxes(-1, -2)
        if weight.ndim not in (2, 3):
            raise self.mismatch(node, f"expected {what}, weights of 2 axes and not {weight.ndim}")
        readers = self.readers(output)
        if bias is None and len(readers) == 1 and readers[0].op == "Add":
            added = self.constant_operand(readers[0], of=output)
            if added is not None and self.value(added).size == weight[..., 0].size:
                bias, output = self.value(added), readers[0].outputs[0]
        shaped = None if bias is None else np.asarray(bias, np.float32).reshape(weight.shape[:-1])
        return LinearLayer(node, np.asarray(weight, np.float32), shaped, output)

    def norm(self, x: str, what: str) -> Norm:
        """The LayerNorm that reads a tensor: one operation, or what older exporters make of it."""
        fused = [node for node in self.readers(x) if node.op == "LayerNormalization"]
        if fused:
            node = fused[0]
            parameters = [name for name in node.inputs[1:] if name]
            if not all(self.is_constant(name) for name in parameters):
                raise self.mismatch(node, f"expected {what} with constant parameters")
            weight = self.value(parameters[0])
            bias = self.value(parameters[1]) if len(parameters) > 1 else np.zeros_like(weight)
            found = Norm(node, weight, bias, _epsilon(node.attributes.get("epsilon", 1e-5)), node.outputs[0])
        else:
            found = self._decomposed_norm(x, what)
        channels = self.value(x).shape[-1]
        if found.weight.shape != (channels,) or found.bias_or_zero.shape != (channels,):
            raise self.mismatch(found.node, f"expected {what} with parameters for {channels} channels")
        # Rows of all sizes: those as small as the root of epsilon show epsilon, large ones all else.
        shape = self.value(x).shape
        sizes = np.resize([1.0, math.sqrt(found.epsilon), 30.0], (*shape[:-1], 1))
        rows = np.random.default_rng(1).standard_normal(shape) * sizes
        rows = rows.astype(np.float32)
        self.prove(found.node, self.value.given({x: rows})(found.output), found(rows), what)
        return found

    def is_norm(self, node: Node) -> bool:
        """True for a LayerNorm, or the first of the operations that older exporters make of it."""
        if node.op != "ReduceMean":
            return node.op == "LayerNormalization"
        return any(reader.op == "Sub" for reader in self.readers(node.outputs[0]))

    def _decomposed_norm(self, x: str, what: str) -> Norm:
        mean = self.next(x, "ReduceMean", what=what)
        centred = self.next(mean.outputs[0], "Sub", what=what).outputs[0]
        square = self.next(centred, "Pow", "Mul", what=what)
        variance = self.next(square.outputs[0], "ReduceMean", what=what)
        shifted = self.next(variance.outputs[0], "Add", what=what)
        root = self.next(shifted.outputs[0], "Sqrt", what=what)
        quotient = self.next(root.outputs[0], "Div", what=what)
        scaled = self.next(quotient.outputs[0], "Mul", what=what)
        moved = self.next(scaled.outputs[0], "Add", what=what)
        constants = [
            self.constant_operand(node, of=before.outputs[0])
            for before, node in ((variance, shifted), (quotient, scaled), (scaled, moved))
        ]
        if any(name is None for name in constants):
            raise self.mismatch(mean, f"expected {what} with constant parameters")
        epsilon, weight, bias = (self.value(name) for name in constants if name is not None)
        if epsilon.size != 1:
            raise self.mismatch(shifted, f"expected the epsilon of {what}")
        return Norm(mean, weight, bias, _epsilon(epsilon.ravel()[0]), moved.outputs[0])

    def after(self, first: str) -> list[Node]:
        """Nodes that depend on a tensor, in order."""
        after, nodes = {first}, []
        for node in self.graph.nodes:
            if node.op != "Shape" and after.intersection(node.inputs):
                after.update(node.outputs)
                nodes.append(node)
        return nodes

    def between(self, first: str, last: str) -> list[Node]:
        """Nodes on a path from one tensor to another, in order."""
        wanted, kept = {last}, []
        for node in reversed(self.after(first)):
            if wanted.intersection(node.outputs):
                wanted.update(node.inputs)
                kept.append(node)
        return kept[::-1]

    def agree(
        self,
        found: Array,
        expected: Array,
        tolerance: float = TOLERANCE,
        *,
        coarse: bool = False,
        noise: float = 0.0,
    ) -> bool:
        """True where two results are the same but for rounding; axes of one image's rows may be joined.

        Args:
            found: of the graph.
            expected: of what the graph was taken for.
            tolerance: relative to the largest value.
            coarse: constants of the graph, rounded to its float type, had a part in it.
            noise: that the values have in any case.
        """
        if found.size != expected.size or found.shape[-1] != expected.shape[-1]:
            return False
        found, expected = found.reshape(expected.shape), np.asarray(expected)
        tolerance = max(tolerance, COARSE_TOLERANCE * self.graph.precision) if coarse else tolerance
        # Relative to the values alone: fresh networks have branches, and attention weights, far below 1.
        limit = noise + tolerance * max(SMALLEST, float(np.abs(expected).max(initial=0.0)))
        return bool(np.isfinite(found).all() and np.abs(found - expected).max(initial=0.0) <= limit)

    def activation(self, given: str, ends: list[str], run: Evaluator) -> tuple[str, str]:
        """The activation function that starts at one tensor and ends at one of others.

        Args:
            given: what it reads.
            ends: what it may give.
            run: values to compare.

        Returns:
            Its name in a Model, and its result.
        """
        nodes = self.between(given, ends[0])
        for node in nodes:
            if node.op in SELECTION:
                raise self.mismatch(node, "picks channels: a gated MLP, which the accelerator has not")
            if node.op not in _ACTIVATION:
                raise self.mismatch(
                    node, "expected an activation function between the two linear layers of an MLP"
                )
        # GELU and its approximations differ by less than other parts may: the operations tell, and a closer look.
        told = {_TELLING[node.op] for node in nodes if node.op in _TELLING}
        told |= {
            GELUS.get(node.attributes.get("approximate", "none"), "") for node in nodes if node.op == "Gelu"
        }
        if len(told) != 1 or "" in told:
            raise self.mismatch(
                nodes[0],
                f"expected an activation function between two linear layers: {', '.join(ACTIVATIONS)}",
            )
        (name,) = told
        x = run(given)
        expected = ACTIVATIONS[name].function(x.astype(np.float64))
        for end in ends:
            if any(node.op not in _ACTIVATION for node in self.between(given, end)):
                break
            if self.agree(run(end), expected, ACTIVATION_TOLERANCE, coarse=True):
                return name, end
        raise self.mismatch(nodes[0], f"computes something else than {ACTIVATIONS[name].title}")

    def prove(
        self,
        node: Node,
        found: Array,
        expected: Array,
        what: str,
        *,
        around: Array | None = None,
        coarse: bool = False,
    ) -> None:
        """Refuse a part that the graph computes otherwise.

        Args:
            node: where the part is, for the message.
            found: of the graph.
            expected: of what the graph was taken for.
            what: the part.
            around: values that were subtracted from both, whose rounding is left in `found`.
            coarse: constants of the graph, rounded to its float type, had a part in it.
        """
        noise = 0.0 if around is None else ROUNDING * float(np.abs(around).max(initial=0.0))
        if not self.agree(found, expected, coarse=coarse, noise=noise):
            raise self.mismatch(node, f"computes something else than {what}")


def without_copies(graph: Graph, image: str) -> Graph:
    """The graph without nodes that only copy values of the image, as casts between float types do here."""
    floats, copies = {image}, dict[str, str]()
    for node in graph.nodes:
        if node.op in _TRUTHS or not floats.intersection(node.inputs):
            continue
        to_float = node.op != "Cast" or node.attributes.get("to") in FLOAT_TYPES
        trained = node.op == "Dropout" and len(node.inputs) > 2 and node.inputs[2]
        if to_float and node.outputs:
            floats.update(node.outputs[:1] if node.op == "TopK" else node.outputs)
            if node.op in _COPIES and node.inputs[0] in floats and not trained:
                copies[node.outputs[0]] = copies.get(node.inputs[0], node.inputs[0])
    return graph.renamed(copies)


def _epsilon(value: float) -> float:
    """An epsilon that float32 has made 9.99999997e-07 of, as it was meant."""
    return float(f"{float(value):.6g}")
