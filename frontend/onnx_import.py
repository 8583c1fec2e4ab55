"""Importer of ONNX graphs: ViTs, and mixtures of experts as this package's torch network exports them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError
from frontend.onnx_attention import read_attention
from frontend.onnx_blocks import read_embedding, read_mlp
from frontend.onnx_eval import Array
from frontend.onnx_export import IMAGE, METADATA, TASK, TOKENS, output_of
from frontend.onnx_graph import Graph, GraphInput, Node, read_graph
from frontend.onnx_heads import DECISIONS, foreign_part, read_head
from frontend.onnx_match import Matcher, Norm
from frontend.options import Imported, Options, model_name
from frontend.pixels import NONE, fold_normalization
from frontend.vit import TASK as PLAIN_TASK
from pysim.files import Tensors, validate
from pysim.model import Model, tensor_shapes
from pysim.spec import ModelSpec

LONGEST_SIDE = 1 << 13
"""Pixels: an image that a damaged file claims must not fill the memory."""


def import_onnx(path: Path, options: Options) -> Imported:
    """Read the network of an ONNX file.

    Args:
        path: the file.
        options: image_size where the graph leaves it open; names of the tasks; the images' normalisation; outputs
            where the graph is to be cut.

    Raises:
        InputError: unreadable file; a graph that is no such network, naming the first node that does not fit and why.
    """
    # Numbers of a graph that is no such network may overflow: the comparisons that follow refuse it.
    with np.errstate(all="ignore"):
        graph = read_graph(path)
        importer = _Importer(graph.cut(options.outputs or graph.outputs), options)
        try:
            return importer.read()
        # Shapes that no network has, found while they were compared.
        except (ArithmeticError, LookupError, ValueError) as error:
            detail = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise InputError(
                f"{path}: {importer.place} does not fit together: {detail}",
                hint="the graph is damaged, or not one that torch.onnx.export makes of a ViT",
            ) from None


class _Importer:
    def __init__(self, graph: Graph, options: Options) -> None:
        self.graph, self.options = graph, options
        image, task = self._inputs()
        self.channels_last = _is_channels_last(graph, image)
        self.shape = self._image_shape(image)
        pixels = np.random.default_rng(0).standard_normal(self.shape, dtype=np.float32)
        feeds: dict[str, Array] = {image.name: pixels}
        if task is not None:
            feeds[task.name] = np.zeros(tuple(size or 1 for size in task.shape), np.int64)
        self.matcher = Matcher(graph, feeds, image.name)
        self.image, self.task = image.name, task.name if task is not None else None
        self.weights: Tensors = {}
        self.remarks: list[str] = []
        self.epsilons: dict[float, Node] = {}
        self.place = "the embedding"

    def _inputs(self) -> tuple[GraphInput, GraphInput | None]:
        images = [given for given in self.graph.inputs if given.is_float]
        others = [given for given in self.graph.inputs if not given.is_float]
        if len(images) != 1 or len(others) > 1:
            shown = ", ".join(given.name for given in self.graph.inputs) or "none"
            raise InputError(
                f"{self.graph.source}: inputs {shown}, expected one float image and at most one task number",
                hint=f"torch.onnx.export(model, (images,)), or edgemoe export, whose inputs are {IMAGE} and {TASK}",
            )
        return images[0], others[0] if others else None

    def _image_shape(self, image: GraphInput) -> tuple[int, int, int, int]:
        """The shape of the input in the run: what the graph leaves open is filled in."""
        source = f"{self.graph.source}: input {image.name}"
        if len(image.shape) != 4:
            raise InputError(
                f"{source}: shape {image.shape}, expected (batch, channels, height, width), "
                "or (batch, height, width, channels)"
            )
        batch, channels, height, width = (image.shape[axis] for axis in self._axes)
        given = self.options.image_size
        if given is not None:
            if (height or given[0], width or given[1]) != given:
                raise InputError(
                    f"{source}: images of {height}x{width}, but --image-size says {given[0]}x{given[1]}"
                )
            height, width = given
        if height is None or width is None:
            raise InputError(
                f"{source}: --image-size needed: the graph leaves it open",
                hint="--image-size HxW, such as 224x224",
            )
        shape = (batch or 1, channels or 3, height, width)
        if max(shape) > LONGEST_SIDE:
            raise InputError(f"{source}: shape {shape}, expected no more than {LONGEST_SIDE} on any axis")
        self.image_size = height, width
        given_shape = sorted(zip(self._axes, shape, strict=True))
        return given_shape[0][1], given_shape[1][1], given_shape[2][1], given_shape[3][1]

    @property
    def _axes(self) -> tuple[int, int, int, int]:
        """Axes of the input: batch, channels, height, width."""
        return (0, 3, 1, 2) if self.channels_last else (0, 1, 2, 3)

    def read(self) -> Imported:
        matcher = self.matcher
        embedding = read_embedding(matcher, self.image, channels_last=self.channels_last)
        x, dim = embedding.output, embedding.weight.shape[0]
        layers: list[dict[str, Any]] = []
        matcher.value.keep(x)
        while (branch := self._residual(x)) is not None:
            block = self.place = f"blocks.{len(layers)}"
            end = self._branch_end(branch, x)
            norm = self._norm(x, end, f"{block}.norm1", "the LayerNorm in front of attention")
            heads = read_attention(matcher, norm, branch, end, block, self.weights)
            x = branch.outputs[0]
            matcher.value.keep(x)
            second = self._residual(x)
            if second is None:
                raise self._ended(x, "the residual sum of an MLP")
            end = self._branch_end(second, x)
            norm = self._norm(x, end, f"{block}.norm2", "the LayerNorm in front of an MLP")
            layers.append(
                read_mlp(matcher, norm, second, end, block, self.weights, self.task) | {"heads": heads}
            )
            x = matcher.recognised = second.outputs[0]
            matcher.value.keep(x)
        if not layers:
            expected = "a transformer block: a LayerNorm, attention and a residual sum, and no norm before it"
            raise self._ended(x, expected)
        return self._finish(embedding, layers, x, dim)

    def _ended(self, x: str, expected: str) -> InputError:
        readers = self.matcher.readers(x)
        if readers:
            return self.matcher.mismatch(readers[0], f"expected {expected}")
        return InputError(f"{self.graph.source}: the graph ends at {x!r}, expected {expected}")

    def _residual(self, x: str) -> Node | None:
        """The first sum of the stream and a branch that starts from it; decoders may have others."""
        sums = (
            node
            for node in self.matcher.readers(x)
            if node.op == "Add" and all(name in self.matcher.tainted for name in node.inputs)
        )
        return min(sums, key=lambda node: node.index, default=None)

    def _branch_end(self, branch: Node, x: str) -> str:
        """The operand of a residual sum that is not the stream."""
        for name in branch.inputs:
            if name != x:
                return name
        raise self.matcher.mismatch(
            branch, "expected the sum of the tokens and of a branch, not of the tokens twice"
        )

    def _norm(self, x: str, end: str, name: str, what: str) -> Norm:
        with self.matcher.along(self.matcher.between(x, end)):
            norm = self.matcher.norm(x, what)
        self.weights[f"{name}.weight"], self.weights[f"{name}.bias"] = norm.weight, norm.bias_or_zero
        self._note_epsilon(norm)
        return norm

    def _note_epsilon(self, norm: Norm) -> None:
        self.epsilons.setdefault(norm.epsilon, norm.node)
        if len(self.epsilons) > 1:
            first = next(iter(self.epsilons))
            raise self.matcher.mismatch(
                norm.node, f"epsilon {norm.epsilon:g}, but {first:g} in the norms before it"
            )

    def _finish(self, embedding: Any, layers: list[dict[str, Any]], x: str, dim: int) -> Imported:
        self.place, self.prefix = "a task head", embedding.prefix
        outputs = self._read_heads(x)
        spec = self._spec(layers, outputs, dim, embedding.weight.shape)
        own = self._own_spec(spec)
        if own is not None and self.options.normalization is None:
            normalization = NONE
        elif embedding.normalises and self.options.normalization is None:
            raise InputError(
                f"{self.graph.source}: the graph itself scales or shifts the image in front of {embedding.node}: "
                "--normalize needed, as it does not say which pixels it starts from",
                hint="--normalize unit where it takes pixels / 255, 0/0.00392157 where it takes pixels from 0 to 255",
            )
        else:
            normalization, shown = fold_normalization(
                self.options.normalization,
                embedding.weight.shape[1],
                f"{self.graph.source}: {embedding.node}",
            )
            self.remarks.append(shown)
        weight, bias = normalization.fold(
            embedding.weight.astype(np.float64), embedding.bias.astype(np.float64)
        )
        self.weights["patch_embed.weight"] = weight.astype(np.float32)
        self.weights["patch_embed.bias"] = bias.astype(np.float32)
        self.weights["pos_embed"] = embedding.position
        if spec.qkv_bias:
            for layer in range(spec.depth):
                self.weights.setdefault(f"blocks.{layer}.attn.qkv.bias", np.zeros(3 * dim, np.float32))
        weights = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in self.weights.items()}
        return Imported(Model(own or spec, weights), remarks=tuple(self.remarks))

    def _read_heads(self, x: str) -> dict[str, dict[str, Any]]:
        """Task heads by the names of their outputs, with their weights kept."""
        heads: dict[str, dict[str, Any]] = {}
        for output in self.graph.outputs:
            if output not in self.matcher.tainted:
                raise InputError(f"{self.graph.source}: output {output!r} does not depend on the image")
            rows = self._behind_decision(x, self.matcher.backward(output, self.matcher.is_layout), output)
            if rows != x and not self._is_decoder(x, rows, output):
                head, name = self._read_head(x, rows, output), self._task_name(output)
                if head is not None and name in heads:
                    raise InputError(f"{self.graph.source}: two outputs for one task, {name!r}")
                heads |= {name: head} if head is not None else {}
        return heads

    def _behind_decision(self, x: str, rows: str, output: str) -> str:
        """The logits in front of a softmax, or the like, that ends a graph; all else as it is."""
        node = self.matcher.graph.producer.get(rows)
        if node is None or node.op not in DECISIONS or not self.matcher.between(x, node.inputs[0]):
            return rows
        logits = self.matcher.backward(node.inputs[0], self.matcher.is_layout)
        if logits == x or foreign_part(self.matcher, x, logits) is not None:
            return rows
        self.remarks.append(f"output {output}: {node} left out, the head ends with what it reads")
        return logits

    def _is_decoder(self, x: str, rows: str, output: str) -> bool:
        """True, and said, for a result that more than a linear head makes of the last tokens."""
        if not self.matcher.between(x, rows):
            self.remarks.append(
                f"output {output} left out: it does not read the tokens of the last block, {x}"
            )
            return True
        node = foreign_part(self.matcher, x, rows)
        if node is None:
            return False
        if self.options.outputs is not None:
            raise self.matcher.mismatch(node, f"expected {output!r} to be tokens, or a linear head on them")
        self.remarks.append(
            f"output {output} left out: no linear head, but a decoder ({node} and what follows); the network ends with "
            f"the tokens of the last block, {x}"
        )
        return True

    def _read_head(self, x: str, rows: str, output: str) -> dict[str, Any] | None:
        """Norms, if any, and a linear layer between the last tokens and a result; None for a norm alone."""
        found = read_head(self.matcher, x, rows, output, self._task_name(output), self.prefix)
        if found is None:
            self.remarks.append(f"output {output}: the final norm is left to whoever reads the tokens")
            return None
        self.weights |= found.weights
        head = found.head
        own = (head.norm or head.fc_norm) and head.norm_eps not in self.epsilons
        return {
            "kind": head.kind,
            "out_channels": len(self.weights[f"heads.{self._task_name(output)}.weight"]),
            "norm": head.norm,
            "norm_eps": head.norm_eps if own else None,
            "fc_norm": head.fc_norm,
        }

    def _task_name(self, output: str) -> str:
        if self.options.tasks is not None and len(self.graph.outputs) == len(self.options.tasks) == 1:
            return self.options.tasks[0]
        if len(self.graph.outputs) == 1:
            return PLAIN_TASK
        reserved = {output_of(name): name for name in (IMAGE, TASK, TOKENS)}
        name = reserved.get(output, output)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:64] or PLAIN_TASK

    def _spec(
        self, layers: list[dict[str, Any]], heads: dict[str, Any], dim: int, patch: tuple[int, ...]
    ) -> ModelSpec:
        moe_layers = [number for number, layer in enumerate(layers) if "experts" in layer]
        dense = [layer["hidden"] for layer in layers if "experts" not in layer]
        self._check_alike(layers, dense, moe_layers)
        first = layers[moe_layers[0]] if moe_layers else None
        tasks = self._tasks(list(heads), None if first is None else first["gate_tasks"])
        moe = None
        if first is not None:
            moe = {name: first[name] for name in ("experts", "hidden_dim", "top_k", "gate", "gate_bias")}
            moe["shared_gate"] = first["gates"] == 1 and len(tasks) > 1
            moe["layers"] = "odd" if moe_layers == list(range(1, len(layers), 2)) else moe_layers
        if any(f"heads.{task}.weight" in self.weights and task not in tasks for task in heads):
            raise InputError(
                f"{self.graph.source}: outputs {', '.join(heads)}, but the tasks are {', '.join(tasks)}"
            )
        return validate(
            ModelSpec,
            {
                "name": model_name(self.graph.source),
                "image_size": self.image_size,
                "in_channels": patch[1],
                "patch_size": patch[2],
                "prefix_tokens": self.prefix,
                "dim": dim,
                "depth": len(layers),
                "heads": layers[0]["heads"],
                "activation": layers[0]["activation"],
                "mlp_dim": dense[0] if dense else layers[0]["hidden_dim"],
                "qkv_bias": any(
                    f"blocks.{layer}.attn.qkv.bias" in self.weights for layer in range(len(layers))
                ),
                "norm_eps": next(iter(self.epsilons)),
                "tasks": tasks,
                "moe": moe,
                "task_heads": heads,
            },
            self.graph.source,
        )

    def _check_alike(self, layers: list[dict[str, Any]], dense: list[int], moe_layers: list[int]) -> None:
        """Refuse layers of different sizes or activation functions, which one accelerator does not run."""
        kinds = [{layer[name] for layer in layers} for name in ("heads", "activation")] + [set(dense)]
        described = ("experts", "hidden_dim", "top_k", "gate", "gate_bias", "gates")
        kinds.append({tuple(layers[number][key] for key in described) for number in moe_layers})
        for kind in kinds:
            if len(kind) > 1:
                raise InputError(f"{self.graph.source}: layers that differ: {sorted(kind, key=str)}")

    def _tasks(self, heads: list[str], gates: int | None) -> list[str]:
        if self.options.tasks is not None:
            tasks = list(self.options.tasks)
        elif gates is None or gates == len(heads):
            tasks = heads or [PLAIN_TASK]
        elif gates == 1 and len(heads) > 1:
            tasks = heads
        else:
            tasks = [f"task{number}" for number in range(gates)]
        if gates not in (None, 1) and len(tasks) != gates:
            raise InputError(
                f"{self.graph.source}: gates for {gates} tasks, but {len(tasks)} are named: {', '.join(tasks)}",
                hint="name every task with --tasks, in the order of their gates",
            )
        return tasks

    def _own_spec(self, spec: ModelSpec) -> ModelSpec | None:
        """The shape that `edgemoe export` noted, if the graph still is that network."""
        text = self.graph.metadata.get(METADATA)
        if text is None:
            return None
        try:
            own = ModelSpec.model_validate(json.loads(text))
        except (ValueError, RecursionError):
            own = None
        same = (
            own is not None and tensor_shapes(own) == tensor_shapes(spec) and _numbers(own) == _numbers(spec)
        )
        if not same:
            self.remarks.append(f"metadata {METADATA!r} does not fit the graph and was ignored")
        return own if same else None


def _is_channels_last(graph: Graph, image: GraphInput) -> bool:
    """Whether the channels are the last axis of the images: the convolution, or their number, tells."""
    if len(image.shape) != 4:
        return False
    convolution = next((node for node in graph.nodes if node.op == "Conv" and len(node.inputs) > 1), None)
    weight = None if convolution is None else graph.constants.get(convolution.inputs[1])
    likely = range(1, 5) if weight is None or weight.ndim != 4 else (weight.shape[1],)
    return image.shape[3] in likely and image.shape[1] not in (*likely, None)


def _numbers(spec: ModelSpec) -> tuple[Any, ...]:
    """Numbers that shapes do not show but results depend on."""
    moe = spec.moe
    gate = None if moe is None else (moe.top_k, moe.gate_kind, sorted(spec.moe_layers))
    heads = [spec.decoder(task) for task in spec.tasks]
    sizes = spec.image_size, spec.patch_size, spec.prefix_tokens, spec.heads
    return *sizes, spec.norm_eps, spec.activation, gate, heads
