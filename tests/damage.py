"""Damage to files: bytes, tensors, nodes of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut, repeated, removed or blanked."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if len(data) < 2:
            break
        # Headers and directories are at the ends; most of a file is weights.
        where = int(
            rng.choice(
                [
                    rng.integers(len(data)),
                    rng.integers(min(len(data), 2000)),
                    -rng.integers(1, min(len(data), 2000)),
                ]
            )
        )
        where %= len(data)
        length = int(rng.integers(1, 40))
        match rng.integers(6):
            case 0:
                data[where] ^= 1 << int(rng.integers(8))
            case 1:
                data[where] = int(rng.integers(256))
            case 2:
                del data[where:]
            case 3:
                data[where:where] = data[where : where + length]
            case 4:
                del data[where : where + length]
            case _:
                data[where : where + length] = bytes(len(data[where : where + length]))
    return bytes(data)


def tampered(state: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Some tensors renamed, removed, doubled, of other shapes, types or values."""
    state = dict(state)
    for _ in range(rng.integers(1, 4)):
        key = str(rng.choice(list(state)))
        tensor = state[key]
        match rng.integers(9):
            case 0:
                del state[key]
            case 1:
                state[f"{key}.more"] = tensor
            case 2:
                state[key.replace("1", "7", 1)] = state.pop(key)
            case 3:
                state[key] = tensor.reshape(-1)
            case 4:
                state[key] = tensor[:0] if tensor.ndim else tensor
            case 5:
                state[key] = np.repeat(tensor, 2, axis=0) if tensor.ndim else tensor
            case 6:
                state[key] = tensor.astype(rng.choice(["float64", "int64", "float16", "bool"]))
            case 7:
                changed = tensor.astype(np.float32)
                changed.flat[: 1 + tensor.size // 2] = rng.choice([np.nan, np.inf, 3e38])
                state[key] = changed
            case _:
                state[key] = tensor.T.copy()
    return state


def rewired(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Some nodes removed, doubled, exchanged, fed otherwise, with other attributes; initialisers of other shapes."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    graph = changed.graph
    for _ in range(rng.integers(1, 3)):
        node = graph.node[int(rng.integers(len(graph.node)))]
        other = graph.node[int(rng.integers(len(graph.node)))]
        tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
        match rng.integers(10):
            case 0:
                graph.node.remove(node)
                continue
            case 1:
                node.op_type = str(
                    rng.choice(
                        ["Relu", "Loop", "If", "Gelu", "Add", "Mul", "Expand", "Softmax", other.op_type]
                    )
                )
            case 2 if node.input:
                node.input[int(rng.integers(len(node.input)))] = other.output[0]
            case 3 if node.input:
                node.input[0], node.input[-1] = node.input[-1], node.input[0]
            case 4 if node.attribute:
                attribute = node.attribute[int(rng.integers(len(node.attribute)))]
                attribute.i, attribute.f = int(rng.integers(-3, 1 << 40)), float(rng.normal())
                del attribute.ints[:]
                attribute.ints.extend(rng.integers(-2, 5, 3).tolist())
            case 5:
                del tensor.dims[:]
                tensor.dims.extend(rng.integers(-1, 1 << 30, 2).tolist())
            case 6:
                tensor.data_type = int(rng.integers(0, 30))
            case 7:
                array = onnx.numpy_helper.to_array(tensor).copy()
                array.flat[: 1 + array.size // 3] = array.dtype.type(rng.choice([0, 1, 100, 1 << 30]))
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
            case 8:
                del node.input[:1]
            case _:
                tensor.data_location = onnx.TensorProto.EXTERNAL
                tensor.external_data.add(
                    key="location", value=str(rng.choice(["../x", "/etc/hostname", "x", ""]))
                )
    return changed


def bent(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """One thing in a graph changed so that it still runs, but may compute something else."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    graph = changed.graph
    node = graph.node[int(rng.integers(len(graph.node)))]
    tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
    array = onnx.numpy_helper.to_array(tensor).copy()
    match rng.integers(6):
        case 0 if node.attribute:
            attribute = node.attribute[int(rng.integers(len(node.attribute)))]
            if attribute.type == onnx.AttributeProto.INTS:
                attribute.ints[:] = rng.permutation(list(attribute.ints)).tolist()
            elif attribute.type == onnx.AttributeProto.INT:
                attribute.i += int(rng.choice([-1, 1]))
            elif attribute.type == onnx.AttributeProto.FLOAT:
                attribute.f *= float(rng.choice([0.5, 2, 1.01]))
        case 1 if array.dtype.kind == "i" and array.size > 1:
            array.flat[:] = rng.permutation(array.ravel())
        case 1 | 2 if array.dtype.kind == "f":
            array.flat[int(rng.integers(array.size))] += array.dtype.type(rng.choice([0.01, 1.0, -3.0]))
        case 3 if len(node.input) > 1:
            node.input[0], node.input[1] = node.input[1], node.input[0]
        case 4:
            others = {"MatMul": "MatMul", "Add": "Sub", "Mul": "Div", "Softmax": "Sigmoid", "Gelu": "Relu"}
            if node.op_type in others:
                node.op_type = others[node.op_type]
                if node.op_type == "Sigmoid":
                    del node.attribute[:]
        case _:
            same = [each for each in graph.node if len(each.output) == 1 and each.op_type == node.op_type]
            other = same[int(rng.integers(len(same)))] if same else node
            if node.input and other.output[0] != node.output[0]:
                node.input[0] = other.input[0]
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return changed
