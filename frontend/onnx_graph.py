"""Safe reading of ONNX files: nodes in order, constants as arrays, external data from beside the file only."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.reading import require_file
from pysim.extras import require

Array = NDArray[Any]

_FLOATS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Relative precision of each float type."""
_DOMAINS = ("", "ai.onnx")
"""Names of ONNX's own domain."""
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        index: its place among the nodes of its graph.
        op: type of the operation.
        name: what messages call it.
        inputs: names of tensors; "" where an optional one is left out.
        outputs: the same.
        attributes: by name.
    """

    index: int
    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"node {self.name} ({self.op})"


@dataclass(frozen=True)
class GraphInput:
    """A tensor that the graph is fed: unknown axes are None."""

    name: str
    is_float: bool
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Graph:
    """An ONNX file, read.

    Attributes:
        source: what messages call it.
        nodes: each after those that it reads, otherwise in the file's order.
        constants: initialisers; floats are float32, integers int64.
        inputs: what must be fed.
        outputs: names of the results.
        metadata: of the file, by key.
        precision: relative precision of the coarsest float type among the initialisers.
        opset: version of ONNX's operations.
        producer: node that makes a tensor.
        consumers: nodes that read a tensor.
    """

    source: str
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str]
    precision: float = 2.0**-24
    opset: int = 20
    producer: dict[str, Node] = field(default_factory=dict)
    consumers: dict[str, list[Node]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {"", *self.constants, *(given.name for given in self.inputs)}
        for node in self.nodes:
            for name in node.inputs:
                if name not in known:
                    raise InputError(f"{self.source}: {node}: input {name!r} is not made by any node")
                self.consumers.setdefault(name, []).append(node)
            for name in node.outputs:
                if name and name in known:
                    raise InputError(f"{self.source}: {node}: output {name!r} exists already")
                known.add(name)
                self.producer[name] = node
        for name in self.outputs:
            if name not in known:
                raise InputError(f"{self.source}: output {name!r} is not made by any node")

    def cut(self, outputs: Sequence[str]) -> Graph:
        """The part of the graph that makes these tensors, which become its outputs.

        Args:
            outputs: names of tensors; of nodes, for their first results.

        Raises:
            InputError: a name that the graph does not have.
        """
        results = {node.name: node.outputs[0] for node in self.nodes if node.outputs}
        made = self.producer.keys() | {given.name for given in self.inputs}
        for name in outputs:
            if name not in made and name not in results:
                raise InputError(
                    f"{self.source}: --outputs {name}: no tensor or node of this name",
                    hint=f"the graph's outputs are {', '.join(self.outputs)}; Netron shows the names of all others",
                )
        return self._pruned(tuple(name if name in made else results[name] for name in outputs))

    def renamed(self, names: Mapping[str, str]) -> Graph:
        """The graph in which nodes read the tensors that `names` gives in place of others."""
        nodes = (
            replace(node, inputs=tuple(names.get(name, name) for name in node.inputs)) for node in self.nodes
        )
        changed = replace(self, nodes=tuple(nodes), producer={}, consumers={})
        return changed._pruned(self.outputs)

    def _pruned(self, names: tuple[str, ...]) -> Graph:
        needed: set[int] = set()
        waiting = list(names)
        while waiting:
            node = self.producer.get(waiting.pop())
            if node is not None and node.index not in needed:
                needed.add(node.index)
                waiting.extend(node.inputs)
        kept = (node for node in self.nodes if node.index in needed)
        nodes = tuple(replace(node, index=index) for index, node in enumerate(kept))
        return replace(self, nodes=nodes, outputs=names, producer={}, consumers={})


def read_graph(path: Path) -> Graph:
    """Read an ONNX file.

    Raises:
        InputError: unreadable file; external data that is missing, too short or outside the file's folder; operations
            of other domains; tensors of types that no float network has.
    """
    require(f"{path}: reading ONNX", "onnx")
    import onnx

    require_file(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
        if model.functions:
            from onnx.inliner import inline_local_functions

            model = inline_local_functions(model)
        return _read_model(path, model)
    except InputError:
        raise
    except Exception as error:  # what a damaged file makes of a protocol buffer can fail anywhere
        detail = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: not a readable ONNX file: {detail}") from None


def _read_model(path: Path, model: Any) -> Graph:
    import onnx

    graph = model.graph
    if not graph.node:
        raise InputError(f"{path}: not a readable ONNX file: no nodes in it")
    constants = {tensor.name: _read_tensor(path, tensor) for tensor in graph.initializer}
    versions = [entry.version for entry in model.opset_import if entry.domain in _DOMAINS]
    opset = max(versions, default=20)
    nodes = _in_order(
        [_read_node(path, index, proto, opset) for index, proto in enumerate(graph.node)], str(path)
    )
    inputs = tuple(_read_input(value) for value in graph.input if value.name not in constants)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    types = {onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name for tensor in graph.initializer}
    precision = max((_FLOATS[name] for name in types if name in _FLOATS), default=_FLOATS["float32"])
    outputs = tuple(value.name for value in graph.output)
    return Graph(str(path), nodes, constants, inputs, outputs, metadata, precision, opset)


def _in_order(nodes: Iterable[Node], source: str) -> tuple[Node, ...]:
    """Nodes so that each comes after those that it reads, otherwise in the order given: tools insert some anywhere."""
    by_index = {node.index: node for node in nodes}
    makers = {name: node.index for node in by_index.values() for name in node.outputs if name}
    waits = {
        index: {makers[name] for name in node.inputs if name in makers} for index, node in by_index.items()
    }
    readers: dict[int, list[int]] = {}
    for index, others in waits.items():
        for other in others:
            readers.setdefault(other, []).append(index)
    ready = [index for index, others in waits.items() if not others]
    heapq.heapify(ready)
    ordered: list[Node] = []
    while ready:
        done = heapq.heappop(ready)
        ordered.append(replace(by_index[done], index=len(ordered)))
        for reader in readers.get(done, ()):
            waits[reader].remove(done)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(ordered) < len(by_index):
        stuck = next(by_index[index] for index, others in sorted(waits.items()) if others)
        raise InputError(f"{source}: {stuck} reads its own result, directly or through others")
    return tuple(ordered)


def _read_node(path: Path, index: int, proto: Any, opset: int) -> Node:
    import onnx

    name = proto.name or next(iter(proto.output), f"number {index}")
    if proto.domain not in _DOMAINS:
        raise InputError(
            f"{path}: node {name} ({proto.domain}.{proto.op_type}): an operation of its own domain",
            hint="export with torch.onnx.export, which uses standard operations only",
        )
    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise InputError(
                f"{path}: node {name} ({proto.op_type}): a graph inside a graph: no ViT needs one"
            )
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == onnx.AttributeProto.TENSOR:
            value = _read_tensor(path, value, f"{attribute.name} of node {name}")
        attributes[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if proto.op_type == "Softmax" and opset < 13:
        attributes.setdefault("axis", 1)
    return Node(index, proto.op_type, name, tuple(proto.input), tuple(proto.output), attributes)


def _read_input(value: Any) -> GraphInput:
    import onnx

    kind = value.type.tensor_type
    floats = (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.BFLOAT16,
    )
    shape = tuple(
        dimension.dim_value if dimension.HasField("dim_value") and dimension.dim_value > 0 else None
        for dimension in kind.shape.dim
    )
    return GraphInput(value.name, kind.elem_type in floats, shape)


def _read_tensor(path: Path, tensor: Any, place: str = "") -> Array:
    """The values of a tensor; `place` says where one without a name is."""
    import onnx

    where = f"{path}: tensor {tensor.name or place or 'without a name'}"
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        raise InputError(f"{where}: unknown type {tensor.data_type}") from None
    if dtype.name not in (*_FLOATS, *_INTEGERS):
        raise InputError(f"{where}: type {dtype}, expected floats of 16, 32 or 64 bits, or integers")
    shape = tuple(int(size) for size in tensor.dims)
    if any(size < 0 for size in shape):
        raise InputError(f"{where}: shape {shape}, expected no negative size")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        array = _read_external(path, where, tensor, dtype, shape)
    else:
        array = onnx.numpy_helper.to_array(tensor)
    if array.shape != shape:
        raise InputError(f"{where}: {array.size} values, expected shape {shape}")
    if dtype.name in _INTEGERS:
        return array.astype(np.int64)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        count = array.size - int(np.isfinite(array).sum())
        raise InputError(f"{where}: {count} of {array.size} values are not finite in float32")
    return array


def _read_external(
    path: Path, where: str, tensor: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Array:
    """A tensor whose values are in a file beside the ONNX file, and nowhere else."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    folder = path.parent.resolve()
    file = (folder / location).resolve() if location and "\0" not in location else folder
    if Path(location).is_absolute() or not file.is_relative_to(folder) or file == folder:
        raise InputError(
            f"{where}: external data in {location!r}, outside the folder of the ONNX file",
            hint="external data must lie beside or below the ONNX file",
        )
    if not file.is_file():
        raise InputError(
            f"{where}: external data missing: {file}", hint=f"copy {location} beside {path.name}"
        )
    offset, length = (said.get(key, "0") for key in ("offset", "length"))
    needed = math.prod(shape) * dtype.itemsize
    if not offset.isdecimal() or not length.isdecimal() or (int(length) or needed) != needed:
        raise InputError(f"{where}: external data of {length} bytes at {offset}, expected {needed} bytes")
    if int(offset) + needed > file.stat().st_size:
        raise InputError(
            f"{where}: external data ends at byte {int(offset) + needed}, but {file} has {file.stat().st_size}",
            hint="the file may be truncated: copy it again",
        )
    with file.open("rb") as stream:
        stream.seek(int(offset))
        content = stream.read(needed)
    return np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape)
