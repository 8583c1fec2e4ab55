"""A Model: the shape of a network and its float32 weights, as a folder on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pysim.errors import InputError
from pysim.files import Tensors, TensorSpec, read_tensors, write_folder
from pysim.folders import require_folder
from pysim.spec import ModelSpec, read_spec


def tensor_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this shape holds."""
    dim = spec.dim
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.weight": (dim, spec.in_channels, spec.patch_size, spec.patch_size),
        "patch_embed.bias": (dim,),
        "pos_embed": (spec.tokens, dim),
    }
    for layer in range(spec.depth):
        block = f"blocks.{layer}"
        shapes |= _norm(f"{block}.norm1", dim) | _norm(f"{block}.norm2", dim)
        shapes[f"{block}.attn.qkv.weight"] = (3 * dim, dim)
        if spec.qkv_bias:
            shapes[f"{block}.attn.qkv.bias"] = (3 * dim,)
        shapes |= _linear(f"{block}.attn.proj", (dim, dim))
        if spec.moe is None or layer not in spec.moe_layers:
            shapes |= _linear(f"{block}.mlp.fc1", (spec.mlp_dim, dim))
            shapes |= _linear(f"{block}.mlp.fc2", (dim, spec.mlp_dim))
            continue
        experts, hidden = spec.moe.experts, spec.moe.hidden_dim
        shapes |= _linear(f"{block}.moe.fc1", (experts, hidden, dim))
        shapes |= _linear(f"{block}.moe.fc2", (experts, dim, hidden))
        gates = 1 if spec.moe.shared_gate else len(spec.tasks)
        shapes[f"{block}.moe.gate.weight"] = (gates, experts, dim)
        if spec.moe.gate_bias:
            shapes[f"{block}.moe.gate.bias"] = (len(spec.tasks), experts)
    for task in spec.tasks:
        head = spec.head(task)
        if head.kind == "none" or head.out_channels is None:
            continue
        if head.norm:
            shapes |= _norm(f"heads.{task}.norm", dim)
        shapes |= _linear(f"heads.{task}", (head.out_channels, dim))
    return shapes


def _norm(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _linear(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:-1]}


@dataclass(frozen=True)
class Model:
    """A float network.

    Attributes:
        spec: its shape.
        weights: float32 arrays, named and shaped as `tensor_shapes` says; all finite.
    """

    spec: ModelSpec
    weights: Tensors

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

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.size for tensor in self.weights.values())

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
    for name, shape in tensor_shapes(spec).items():
        noise = generator.standard_normal(shape, dtype=np.float32)
        if name.endswith(".bias"):
            weights[name] = 0.05 * noise
        elif ".norm" in name:
            weights[name] = 1 + 0.1 * noise
        elif name == "pos_embed":
            weights[name] = 0.5 * noise
        else:
            fan_in = int(np.prod(shape[1:])) if name.startswith("patch_embed") else shape[-1]
            weights[name] = noise / np.float32(np.sqrt(fan_in))
    return Model(spec, weights)
