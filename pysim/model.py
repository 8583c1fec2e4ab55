"""A Model: the shape of a network and its float32 weights, as a folder on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from pysim.arithmetic import Role, Source, Tensor
from pysim.files import Tensors, TensorSpec, read_tensors, write_folder
from pysim.folders import require_folder
from pysim.program import Attention, Embed, Experts, Gate, Linear, Norm, Operation, program, tensors
from pysim.spec import ModelSpec, read_spec


def tensor_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this shape holds: of the backbone, then of the task heads."""
    return {source.name: source.shape for source, _ in _sources(spec, program(spec))}


def _sources(spec: ModelSpec, operations: Iterable[Operation]) -> Iterator[tuple[Source, Role]]:
    """Every tensor of a model and what it is, in the order of the operations."""
    for tensor in tensors(operations).values():
        if tensor.source is not None and tensor.role is not None:
            yield tensor.source, tensor.role
    for task in spec.tasks:
        for part in spec.decoder(task).tensors(task, spec.dim, spec.head(task).out_channels):
            yield Source(part.name, tuple(size or 0 for size in part.shape)), Role(part.role)


@dataclass(frozen=True)
class Model:
    """A float network.

    Attributes:
        spec: its shape.
        weights: float32 arrays, named and shaped as `tensor_shapes` says; all finite.
    """

    spec: ModelSpec
    weights: Tensors = field(repr=False)

    def __post_init__(self) -> None:
        expected = tensor_shapes(self.spec)
        for name, shape in expected.items():
            if name not in self.weights:
                raise InputError(f"model {self.spec.name}: missing tensor {name}")
            tensor = self.weights[name]
            if tensor.shape != shape:
                raise InputError(
                    f"model {self.spec.name}: tensor {name}: shape {tensor.shape}, expected {shape}"
                )
            if not np.isfinite(tensor).all():
                count = int((~np.isfinite(tensor)).sum())
                raise InputError(
                    f"model {self.spec.name}: tensor {name}: {count} of {tensor.size} values are not finite",
                    hint="the checkpoint is damaged or its training diverged",
                )
        extra = sorted(set(self.weights) - set(expected))
        if extra:
            raise InputError(f"model {self.spec.name}: unexpected tensor {extra[0]}")

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """A tensor in float64, by name."""
        return self.weights[name].astype(np.float64)

    def value(self, tensor: Tensor) -> NDArray[np.float64]:
        """Values of which a parameter of a Design is made, in its shape, in float64; zeros where there are none."""
        if tensor.source is None:
            return np.zeros(tensor.shape)
        return self[tensor.source.name].reshape(tensor.shape)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.size for tensor in self.weights.values())

    @cached_property
    def sha256(self) -> str:
        """Hash of the shape and of all weights."""
        digest = hashlib.sha256(json.dumps(self.spec.to_toml(), sort_keys=True).encode())
        for name in sorted(self.weights):
            digest.update(f"{name}\n".encode())
            digest.update(np.ascontiguousarray(self.weights[name], "<f4").tobytes())
        return digest.hexdigest()

    def gate(self, layer: int, task: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight (experts, dim) and bias (experts,) of a layer's gate for one task, in float64."""
        weight = self[f"blocks.{layer}.moe.gate.weight"]
        shared = weight.shape[0] == 1
        bias_name = f"blocks.{layer}.moe.gate.bias"
        bias = self[bias_name][task] if bias_name in self.weights else np.zeros(weight.shape[1])
        return weight[0 if shared else task], bias

    def qkv_bias(self, layer: int) -> NDArray[np.float64]:
        """Bias (3 * dim,) of the query, key and value projections; zero where the model has none."""
        if self.spec.qkv_bias:
            return self[f"blocks.{layer}.attn.qkv.bias"]
        return np.zeros(3 * self.spec.dim)

    def save(self, folder: Path) -> None:
        """Write `model.toml` and `weights.safetensors` into a new folder."""
        write_folder(folder, self.spec.to_toml(), self.weights, stem="model")

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Read a Model folder."""
        require_folder(folder, "model")
        spec = read_spec(folder / "model.toml")
        expected = {
            name: TensorSpec(shape, np.dtype(np.float32)) for name, shape in tensor_shapes(spec).items()
        }
        return cls(spec, read_tensors(folder / "weights.safetensors", expected))


def init_model(spec: ModelSpec, seed: int = 0) -> Model:
    """A Model with seeded random weights whose activations have the size of a trained network's.

    Linear layers are drawn with the standard deviation 1/sqrt(inputs), which keeps the variance of a
    normalised token.
    """
    generator = np.random.default_rng(seed)
    weights: Tensors = {}
    for (name, shape), role in _sources(spec, sorted(program(spec), key=_drawn)):
        noise = generator.standard_normal(shape, dtype=np.float32)
        if role.is_bias:
            weights[name] = 0.05 * noise
        elif role is Role.GAMMA:
            weights[name] = 1 + 0.1 * noise
        elif role is Role.POSITION:
            weights[name] = 0.5 * noise
        else:
            fan_in = math.prod(shape[1:]) if role is Role.PATCH_WEIGHT else shape[-1]
            weights[name] = noise / np.float32(np.sqrt(fan_in))
    return Model(spec, weights)


def _drawn(op: Operation) -> tuple[int, int]:
    """Place of an operation in the order in which random weights are drawn: changing it changes every seed."""
    order = (Embed, Norm, Linear, Experts, Gate, Attention)
    return -1 if op.layer is None else op.layer, order.index(type(op))
