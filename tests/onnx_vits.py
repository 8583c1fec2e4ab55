"""Small ViTs as ONNX graphs, node by node: every way of writing attention and patches, right and wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

DIM, HEADS, SIZE, HIDDEN, PATCH, CLASSES = 12, 3, 4, 20, 4, 5
HEIGHT, WIDTH = 8, 12
ROWS, COLUMNS = HEIGHT // PATCH, WIDTH // PATCH
TOKENS = ROWS * COLUMNS + 1
SCALE = SIZE**-0.5


class GraphVit:
    """A ViT with a class token, which is written node by node.

    Args:
        attention: name of a method `_attention_NAME`.
        patches: name of a method `_patches_NAME`.
        positions: name of a method `_positions_NAME`.
        mlp: name of a method `_mlp_NAME`.
        depth: blocks.
        seed: of the weights.
        scale: what scores are multiplied by.
        mask: added to the scores, where a style adds any.
        layer_scale: a factor for each channel ends each branch.
        registers: constant tokens behind the class token.
        decoder: convolutions that make an image of the tokens, in place of the classifier.
        opset: version of the operations.
        epsilon: of the norms.
        nine: power and axis of the variance, where norms are written in nine operations.
    """

    def __init__(
        self,
        attention: str = "fused",
        patches: str = "convolution",
        positions: str = "table",
        mlp: str = "gelu",
        *,
        depth: int = 1,
        seed: int = 0,
        scale: float = SCALE,
        mask: Array | None = None,
        layer_scale: bool = False,
        registers: int = 0,
        decoder: bool = False,
        opset: int = 20,
        epsilon: float = 1e-6,
        nine: tuple[float, int] | None = None,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.scale, self.mask, self.layer_scale, self.opset = scale, mask, layer_scale, opset
        self.epsilon, self.nine = epsilon, nine
        self.tokens = TOKENS + registers
        self.shape = [1, HEIGHT, WIDTH, 3] if patches.startswith("last") else [1, 3, HEIGHT, WIDTH]
        x = getattr(self, f"_patches_{patches}")()
        token = self.op("Expand", self.weight(1, 1, DIM), self.integers([1, 1, DIM]))
        x = self.op("Concat", token, x, axis=1)
        x = self.op("Add", x, getattr(self, f"_positions_{positions}")())
        if registers:
            first, rest = self.split(x, [1, TOKENS - 1], axis=1)
            x = self.op("Concat", first, self.weight(1, registers, DIM), rest, axis=1)
        for _ in range(depth):
            y = getattr(self, f"_attention_{attention}")(self.norm(x))
            x = self.op("Add", x, self.scaled(y))
            y = getattr(self, f"_mlp_{mlp}")(self.norm(x))
            x = self.op("Add", self.scaled(y), x)
        self.last = x
        y = self.norm(x)
        if decoder:
            y = self.op("Slice", y, *map(self.integers, ([1 + registers], [2**62], [1])))
            y = self.op(
                "Reshape", self.op("Transpose", y, perm=[0, 2, 1]), self.integers([1, DIM, ROWS, COLUMNS])
            )
            y = self.op("ConvTranspose", y, self.weight(DIM, 6, 2, 2), strides=[2, 2])
            y = self.op("Conv", self.op("Relu", y), self.weight(1, 6, 1, 1))
            self.output = self.op(
                "Sigmoid", self.op("Resize", y, "", self.floats([1, 1, 2, 2]), mode="linear")
            )
        else:
            y = self.op("Gather", y, self.integers(0), axis=1)
            self.output = self.op("Gemm", y, self.weight(CLASSES, DIM), self.weight(CLASSES), transB=1)

    # Pieces

    def op(self, op: str, *inputs: str, results: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self.nodes)}_{number}" for number in range(results)]
        self.nodes.append(
            helper.make_node(op, inputs, names, name=f"{op.lower()}{len(self.nodes)}", **attributes)
        )
        return names[0] if results == 1 else names

    def constant(self, value: Array) -> str:
        self.constants.append(numpy_helper.from_array(value, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def weight(self, *shape: int) -> str:
        return self.constant(self.rng.normal(0, 0.5, shape).astype(np.float32))

    def floats(self, values: Any) -> str:
        return self.constant(np.array(values, np.float32))

    def integers(self, values: Any) -> str:
        return self.constant(np.array(values, np.int64))

    def split(self, x: str, sizes: list[int], axis: int) -> Any:
        return self.op("Split", x, self.integers(sizes), axis=axis, results=len(sizes))

    def norm(self, x: str) -> str:
        """One operation, or nine with this power and this axis of the variance."""
        if self.nine is not None:
            power, axis = self.nine
            centred = self.op("Sub", x, self.op("ReduceMean", x, self.integers([-1])))
            squares = self.op("Pow", centred, self.floats(power))
            variance = self.op("ReduceMean", squares, self.integers([axis]))
            root = self.op("Sqrt", self.op("Add", variance, self.floats(self.epsilon)))
            scaled = self.op("Mul", self.op("Div", centred, root), self.weight(DIM))
            return self.op("Add", scaled, self.weight(DIM))
        return self.op("LayerNormalization", x, self.weight(DIM), self.weight(DIM), epsilon=self.epsilon)

    def linear(self, x: str, size: int, results: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(size, results)), self.weight(results))

    def scaled(self, x: str) -> str:
        return self.op("Mul", x, self.weight(DIM)) if self.layer_scale else x

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.integers(shape))

    # Patches

    def _patches_convolution(self, image: str = "image") -> str:
        maps = self.op(
            "Conv", image, self.weight(DIM, 3, PATCH, PATCH), self.weight(DIM), strides=[PATCH, PATCH]
        )
        return self.op("Transpose", self.reshape(maps, 1, DIM, -1), perm=[0, 2, 1])

    def _patches_last(self) -> str:
        return self._patches_convolution(self.op("Transpose", "image", perm=[0, 3, 1, 2]))

    def _patches_linear(self) -> str:
        cut = self.reshape("image", 1, 3, ROWS, PATCH, COLUMNS, PATCH)
        rows = self.op("Transpose", cut, perm=[0, 2, 4, 3, 5, 1])
        return self.linear(self.reshape(rows, 1, ROWS * COLUMNS, -1), 3 * PATCH**2, DIM)

    def _patches_last_linear(self) -> str:
        cut = self.reshape("image", 1, ROWS, PATCH, COLUMNS, PATCH, 3)
        rows = self.op("Transpose", cut, perm=[0, 1, 3, 5, 2, 4])
        flat = self.reshape(rows, ROWS * COLUMNS, -1)
        made = self.op("Gemm", flat, self.weight(3 * PATCH**2, DIM), self.weight(DIM))
        return self.op("Unsqueeze", made, self.integers([0]))

    def _patches_normalised(self) -> str:
        x = self.op("Sub", "image", self.floats(np.reshape([0.2, 0.3, 0.4], (1, 3, 1, 1))))
        return self._patches_convolution(
            self.op("Div", x, self.floats(np.reshape([0.5, 0.6, 0.7], (1, 3, 1, 1))))
        )

    def _patches_columns(self) -> str:
        """Wrong: patches in columns."""
        rows = self._patches_convolution()
        turned = self.op("Transpose", self.reshape(rows, 1, ROWS, COLUMNS, DIM), perm=[0, 2, 1, 3])
        return self.reshape(turned, 1, ROWS * COLUMNS, DIM)

    # Positions, all but the first of them computed from constants

    def _positions_table(self) -> str:
        return self.weight(1, TOKENS, DIM)

    def _resized(self, *given: str, **attributes: Any) -> str:
        table = self.op("Transpose", self.weight(1, 5, 4, DIM), perm=[0, 3, 1, 2])
        rows = self.op("Transpose", self.op("Resize", table, *given, **attributes), perm=[0, 2, 3, 1])
        return self.op("Concat", self.weight(1, 1, DIM), self.reshape(rows, 1, ROWS * COLUMNS, DIM), axis=1)

    def _positions_cubic(self) -> str:
        sizes = self.integers([1, DIM, ROWS, COLUMNS])
        return self._resized(
            "", "", sizes, mode="cubic", coordinate_transformation_mode="half_pixel", cubic_coeff_a=-0.75
        )

    def _positions_antialiased(self) -> str:
        sizes = self.integers([ROWS, COLUMNS])
        return self._resized("", "", sizes, mode="linear", axes=[2, 3], antialias=1)

    def _positions_scaled(self) -> str:
        scales = self.floats([1, 1, ROWS / 5, COLUMNS / 4])
        return self._resized(
            "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )

    def _positions_waves(self) -> str:
        """Sines and cosines, computed in the graph."""
        places = self.op("Cast", self.op("Range", *map(self.integers, (0, TOKENS, 1))), to=TensorProto.FLOAT)
        angle = self.op("Mul", self.op("Unsqueeze", places, self.integers([1])), self.weight(1, DIM // 2))
        waves = self.op("Concat", self.op("Sin", angle), self.op("Neg", self.op("Cos", angle)), axis=1)
        return self.op("Tile", self.op("Unsqueeze", waves, self.integers([0])), self.integers([1, 1, 1]))

    # Attention

    def _heads(self, x: str) -> list[str]:
        """Queries, keys and values, each (1, heads, tokens, size)."""
        joined = self.reshape(self.linear(x, DIM, 3 * DIM), 1, self.tokens, 3, HEADS, SIZE)
        parts = self.split(self.op("Transpose", joined, perm=[2, 0, 3, 1, 4]), [1, 1, 1], axis=0)
        return [self.op("Squeeze", part, self.integers([0])) for part in parts]

    def _turned(self, key: str) -> str:
        return self.op("Transpose", key, perm=[0, 1, 3, 2])

    def _projected(self, mixed: str) -> str:
        """The projection of (1, heads, tokens, size)."""
        return self._flat(self.op("Transpose", mixed, perm=[0, 2, 1, 3]))

    def _flat(self, mixed: str) -> str:
        return self.linear(self.reshape(mixed, 1, self.tokens, DIM), DIM, DIM)

    def _soft(self, scores: str, axis: int = -1) -> str:
        return self.op("Softmax", self.op("Mul", scores, self.floats(self.scale)), axis=axis)

    def _attended(self, q: str, k: str, v: str) -> str:
        return self._projected(self.op("MatMul", self._soft(self.op("MatMul", q, self._turned(k))), v))

    def _attention_fused(self, x: str) -> str:
        return self._attended(*self._heads(x))

    def _attention_other_order(self, x: str) -> str:
        v, q, k = self._heads(x)
        return self._attended(q, k, v)

    def _attention_interleaved(self, x: str) -> str:
        joined = self.reshape(self.linear(x, DIM, 3 * DIM), 1, self.tokens, HEADS, SIZE, 3)
        q, k, v = (
            self.op("Gather", self.op("Transpose", joined, perm=[0, 2, 1, 3, 4]), self.integers(part), axis=4)
            for part in range(3)
        )
        return self._attended(q, k, v)

    def _attention_split_adds(self, x: str) -> str:
        parts = self.split(self.op("MatMul", x, self.weight(DIM, 3 * DIM)), [DIM] * 3, axis=2)
        q, k, v = (
            self.op(
                "Transpose",
                self.reshape(self.op("Add", self.weight(DIM), part), 1, self.tokens, HEADS, SIZE),
                perm=[0, 2, 1, 3],
            )
            for part in parts
        )
        return self._attended(k, v, q)

    def _attention_gemm(self, x: str) -> str:
        """Projections on rows, as onnxsim fuses them; the batch is folded into the heads."""
        rows = self.reshape(x, self.tokens, DIM)
        made = [
            self.op("Gemm", rows, self.weight(DIM, DIM), self.weight(DIM), transB=1, alpha=0.5)
            for _ in range(3)
        ]
        q, k, v = (
            self.op("Transpose", self.reshape(each, self.tokens, HEADS, SIZE), perm=[1, 0, 2])
            for each in made
        )
        scores = self.op(
            "MatMul", self.op("Mul", q, self.floats(self.scale)), self.op("Transpose", k, perm=[0, 2, 1])
        )
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        return self._flat(self.op("Transpose", mixed, perm=[1, 0, 2]))

    def _attention_both_scaled(self, x: str) -> str:
        q, k, v = self._heads(x)
        root = self.op("Sqrt", self.floats(self.scale))
        q, k = self.op("Mul", q, root), self.op("Mul", root, self._turned(k))
        return self._projected(self.op("MatMul", self.op("Softmax", self.op("MatMul", q, k), axis=-1), v))

    def _attention_einsum(self, x: str) -> str:
        q, k, v = self._heads(x)
        soft = self._soft(self.op("Einsum", q, k, equation="bhnd,bhmd->bhnm"))
        return self._projected(self.op("Einsum", soft, v, equation="bhnm,bhmd->bhnd"))

    def _attention_einsum_tokens_first(self, x: str) -> str:
        q, k, v = (self.reshape(self.linear(x, DIM, DIM), 1, self.tokens, HEADS, SIZE) for _ in range(3))
        soft = self._soft(self.op("Einsum", q, k, equation="bqhd,bkhd->bhqk"))
        return self._flat(self.op("Einsum", soft, v, equation="bhqk,bkhd->bqhd"))

    def _attention_einsum_dots(self, x: str) -> str:
        q, k, v = (
            self.op("Einsum", x, self.weight(DIM, HEADS, SIZE), equation="bnd,dhe->bhne") for _ in range(3)
        )
        soft = self._soft(self.op("Einsum", q, k, equation="...id,...jd->...ij"))
        mixed = self.op("Einsum", soft, v, equation="...ij,...jd->...id")
        return self.op("Einsum", mixed, self.weight(HEADS, SIZE, DIM), equation="bhne,hed->bnd")

    def _attention_keys_first(self, x: str) -> str:
        """Scores with the keys in rows, and values in front of the weights."""
        q, k, v = self._heads(x)
        soft = self._soft(self.op("MatMul", k, self._turned(q)), axis=2)
        mixed = self.op("MatMul", self._turned(v), soft)
        return self._flat(self.op("Transpose", mixed, perm=[0, 3, 1, 2]))

    def _masked(self, x: str, add: Callable[[str], str]) -> str:
        q, k, v = self._heads(x)
        scores = self.op("Mul", self.op("MatMul", q, self._turned(k)), self.floats(self.scale))
        return self._projected(self.op("MatMul", self.op("Softmax", add(scores), axis=-1), v))

    def _attention_mask(self, x: str) -> str:
        mask = np.zeros((1, 1, self.tokens, self.tokens), np.float32) if self.mask is None else self.mask
        return self._masked(x, lambda scores: self.op("Add", scores, self.constant(mask)))

    def _attention_computed_mask(self, x: str) -> str:
        """As exporters write a mask of ones: (1 - ones) times the least number, made of the sizes."""

        def add(scores: str) -> str:
            size = self.op("Slice", self.op("Shape", scores), self.integers([3]), self.integers([4]))
            ones = self.op("ConstantOfShape", size, value=numpy_helper.from_array(np.ones(1, np.float32)))
            zeros = self.op("Neg", self.op("Sub", self.floats(1.0), ones))
            return self.op("Add", self.op("Mul", zeros, self.floats(-3.4e38)), scores)

        return self._masked(x, add)

    def _attention_where_mask(self, x: str) -> str:
        kept = self.constant(np.ones((1, 1, 1, self.tokens), bool) if self.mask is None else self.mask)
        return self._masked(x, lambda scores: self.op("Where", kept, scores, self.floats(-1e9)))

    def _attention_guard(self, x: str) -> str:
        """Torch's guard: zeros where the softmax is not a number."""
        q, k, v = self._heads(x)
        soft = self._soft(self.op("MatMul", q, self._turned(k)))
        soft = self.op("Where", self.op("IsNaN", soft), self.floats(0.0), soft)
        return self._projected(self.op("MatMul", soft, v))

    def _attention_wrong_guard(self, x: str) -> str:
        """Wrong: the guard tests other numbers, and puts in a one."""
        q, k, v = self._heads(x)
        soft = self._soft(self.op("MatMul", q, self._turned(k)))
        soft = self.op("Where", self.op("Equal", soft, self.floats(0.25)), self.floats(1.0), soft)
        return self._projected(self.op("MatMul", soft, v))

    def _attention_operation(self, x: str, **attributes: Any) -> str:
        q, k, v = self._heads(x)
        mask = () if self.mask is None else (self.constant(self.mask),)
        return self._projected(self.op("Attention", q, k, v, *mask, scale=self.scale, **attributes))

    def _attention_causal(self, x: str) -> str:
        return self._attention_operation(x, is_causal=1)

    def _attention_capped(self, x: str) -> str:
        return self._attention_operation(x, softcap=1.5)

    def _attention_flat_operation(self, x: str) -> str:
        q, k, v = (self.linear(x, DIM, DIM) for _ in range(3))
        mixed = self.op("Attention", q, k, v, q_num_heads=HEADS, kv_num_heads=HEADS)
        return self.linear(mixed, DIM, DIM)

    def _attention_shared_keys(self, x: str) -> str:
        q, k, v = self.linear(x, DIM, DIM), self.linear(x, DIM, SIZE), self.linear(x, DIM, SIZE)
        mixed = self.op("Attention", q, k, v, q_num_heads=HEADS, kv_num_heads=1)
        return self.linear(mixed, DIM, DIM)

    def _attention_moved_keys(self, x: str) -> str:
        """Wrong: keys of other tokens than their values."""
        q, k, v = self._heads(x)
        return self._attended(
            q, self.op("Gather", k, self.integers([1, 0, *range(2, self.tokens)]), axis=2), v
        )

    def _attention_moved_heads(self, x: str) -> str:
        """Values of another head: any head may have any values."""
        q, k, v = self._heads(x)
        return self._attended(q, k, self.op("Gather", v, self.integers([1, 2, 0]), axis=1))

    def _attention_rotary(self, x: str) -> str:
        """Wrong: queries and keys turned by their place."""
        q, k, v = self._heads(x)
        angle = np.arange(self.tokens)[:, None] * np.array([1.0, 0.1, 1.0, 0.1])

        def turned(each: str) -> str:
            first, second = self.split(each, [2, 2], axis=3)
            other = self.op("Concat", self.op("Mul", second, self.floats(-1.0)), first, axis=3)
            cosines = self.op("Mul", each, self.floats(np.cos(angle)))
            return self.op("Add", cosines, self.op("Mul", other, self.floats(np.sin(angle))))

        return self._attended(turned(q), turned(k), v)

    def _attention_normed(self, x: str) -> str:
        """Wrong: queries and keys are normed."""
        q, k, v = self._heads(x)
        q, k = (self.op("LayerNormalization", each, self.weight(SIZE), epsilon=1e-6) for each in (q, k))
        return self._attended(q, k, v)

    def _attention_gated(self, x: str) -> str:
        """Wrong: the result is multiplied by something of the tokens."""
        mixed = self._attention_fused(x)
        return self.op("Mul", mixed, self.op("Sigmoid", self.linear(x, DIM, DIM)))

    def _attention_short_cut(self, x: str) -> str:
        """Wrong: the tokens of the norm are added once more, behind the projection."""
        return self.op("Add", self._attention_fused(x), x)

    # MLPs

    def _mlp_gelu(self, x: str) -> str:
        return self.linear(self.op("Gelu", self.linear(x, DIM, HIDDEN)), HIDDEN, DIM)

    def _mlp_rows(self, x: str) -> str:
        """On rows of a matrix, by Gemm, with the scale of the result behind it."""
        hidden = self.op(
            "Gemm", self.reshape(x, self.tokens, DIM), self.weight(DIM, HIDDEN), self.weight(HIDDEN)
        )
        made = self.op("Gemm", self.op("Relu", hidden), self.weight(DIM, HIDDEN), transB=1)
        return self.op(
            "Div", self.reshape(self.op("Add", made, self.weight(DIM)), 1, self.tokens, DIM), self.floats(3)
        )

    def _mlp_moved_tokens(self, x: str) -> str:
        """Wrong: tokens in another order."""
        return self._mlp_gelu(self.op("Gather", x, self.integers([1, 0, *range(2, self.tokens)]), axis=1))

    def _mlp_positions(self, x: str) -> str:
        """Wrong: a bias for each token."""
        hidden = self.op("Add", self.linear(x, DIM, HIDDEN), self.weight(1, self.tokens, HIDDEN))
        return self.linear(self.op("Gelu", hidden), HIDDEN, DIM)

    def _mlp_gated(self, x: str) -> str:
        """Wrong: half of the channels gate the others."""
        gate, value = self.split(self.linear(x, DIM, 2 * HIDDEN), [HIDDEN, HIDDEN], axis=2)
        return self.linear(self.op("Mul", self.op("Gelu", gate), value), HIDDEN, DIM)

    def _mlp_double(self, x: str) -> str:
        """Wrong: twice the activation function's argument on one of two ways."""
        hidden = self.linear(x, DIM, HIDDEN)
        doubled = self.op("Mul", hidden, self.floats(2.0))
        return self.linear(self.op("Mul", hidden, self.op("Sigmoid", doubled)), HIDDEN, DIM)

    # Files

    def proto(self) -> onnx.ModelProto:
        outputs = [(self.output, None), (self.last, [1, self.tokens, DIM])]
        graph = helper.make_graph(
            self.nodes,
            "vit",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def save(self, path: Path) -> Path:
        path.write_bytes(self.proto().SerializeToString())
        return path


def halved(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in half precision behind a cast of its input, in front of casts of its outputs; casts stand last."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    graph = changed.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
            )
    outputs = {value.name: f"half_{value.name}" for value in graph.output}
    for node in graph.node:
        node.input[:] = ["half" if name == "image" else outputs.get(name, name) for name in node.input]
        node.output[:] = [outputs.get(name, name) for name in node.output]
    graph.node.append(helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16))
    for name, half in outputs.items():
        graph.node.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    return changed
