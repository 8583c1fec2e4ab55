"""State dicts of other projects, made of our Models: the layouts that the importers must understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysim.model import Model, init_model
from pysim.spec import ModelSpec

FloatArray = NDArray[np.float32]
StateDict = dict[str, FloatArray]

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
FEATURES = 7
"""Channels of the feature of a task, in task-conditioned gates."""
DECODER_CHANNELS = 6


def random(rng: np.random.Generator, *shape: int) -> FloatArray:
    return rng.normal(0, 0.3, shape).astype(np.float32)


def with_head(model: Model, out_channels: int, **head: Any) -> Model:
    """The shape of a Model of one task with a classifier, and other weights."""
    return with_heads(
        model, {model.spec.tasks[0]: {"kind": "cls-linear", "out_channels": out_channels} | head}
    )


def with_heads(model: Model, heads: dict[str, Any]) -> Model:
    """The shape of a Model with these task heads, and other weights."""
    data = model.spec.model_dump() | {"task_heads": heads}
    return init_model(ModelSpec.model_validate(data), seed=4)


def timm_state(model: Model) -> StateDict:
    """timm and DeiT: everything but experts and heads has our names already."""
    weights, dim = model.weights, model.spec.dim
    cls_token = random(np.random.default_rng(1), dim)
    position = weights["pos_embed"].copy()
    position[0] -= cls_token
    state = {
        name: tensor for name, tensor in weights.items() if name.startswith("blocks.") and ".moe." not in name
    }
    state |= {
        "cls_token": cls_token[None, None],
        "pos_embed": position[None],
        "patch_embed.proj.weight": weights["patch_embed.weight"],
        "patch_embed.proj.bias": weights["patch_embed.bias"],
    }
    for task in model.spec.task_heads:
        if f"heads.{task}.norm.weight" in weights:
            state |= {f"norm.{part}": weights[f"heads.{task}.norm.{part}"] for part in ("weight", "bias")}
        state |= {f"head.{part}": weights[f"heads.{task}.{part}"] for part in ("weight", "bias")}
    return state


def split_qkv(state: StateDict, names: str = "blocks.{}.attn.{}_proj") -> StateDict:
    """Queries, keys and values apart."""
    result: StateDict = {}
    for key, tensor in state.items():
        if ".attn.qkv." not in key:
            result[key] = tensor
            continue
        layer, part = key.split(".")[1], key.split(".")[-1]
        for name, rows in zip("qkv", np.split(tensor, 3), strict=True):
            result[f"{names.format(layer, name)}.{part}"] = rows
    return result


def hugging_face_state(model: Model) -> StateDict:
    long_names = {"q": "query", "k": "key", "v": "value"}
    state: StateDict = {}
    for key, tensor in split_qkv(timm_state(model), "blocks.{}.attn.{}").items():
        parts = key.split(".")
        if parts[0] == "blocks":
            stem, part = ".".join(parts[2:-1]), parts[-1]
            names = {f"attn.{short}": f"attention.attention.{name}" for short, name in long_names.items()} | {
                "norm1": "layernorm_before",
                "norm2": "layernorm_after",
                "attn.proj": "attention.output.dense",
                "mlp.fc1": "intermediate.dense",
                "mlp.fc2": "output.dense",
            }
            state[f"vit.encoder.layer.{parts[1]}.{names[stem]}.{part}"] = tensor
            continue
        outer = {
            "cls_token": "vit.embeddings.cls_token",
            "pos_embed": "vit.embeddings.position_embeddings",
            "patch_embed.proj.weight": "vit.embeddings.patch_embeddings.projection.weight",
            "patch_embed.proj.bias": "vit.embeddings.patch_embeddings.projection.bias",
            "norm.weight": "vit.layernorm.weight",
            "norm.bias": "vit.layernorm.bias",
            "head.weight": "classifier.weight",
            "head.bias": "classifier.bias",
        }
        state[outer[key]] = tensor
    return state


def torchvision_state(model: Model) -> StateDict:
    outer = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj.weight": "conv_proj.weight",
        "patch_embed.proj.bias": "conv_proj.bias",
        "norm.weight": "encoder.ln.weight",
        "norm.bias": "encoder.ln.bias",
        "head.weight": "heads.head.weight",
        "head.bias": "heads.head.bias",
    }
    inner = {
        "norm1": "ln_1.",
        "norm2": "ln_2.",
        "attn.qkv": "self_attention.in_proj_",
        "attn.proj": "self_attention.out_proj.",
        "mlp.fc1": "mlp.0.",
        "mlp.fc2": "mlp.3.",
    }
    state: StateDict = {}
    for key, tensor in timm_state(model).items():
        parts = key.split(".")
        if parts[0] == "blocks":
            name = inner[".".join(parts[2:-1])] + parts[-1]
            state[f"encoder.layers.encoder_layer_{parts[1]}.{name}"] = tensor
        else:
            state[outer[key]] = tensor
    return state


def m3vit_state(model: Model, *, prefix: str = "module.", noisy: bool = False, seed: int = 0) -> StateDict:
    """M3ViT's names; a Model with biases on its gates gets one task-conditioned gate."""
    spec, weights, rng = model.spec, model.weights, np.random.default_rng(seed)
    assert spec.moe is not None
    state = {
        f"{prefix}backbone.{key}": tensor for key, tensor in timm_state(model).items() if ".head" not in key
    }
    state = {
        key: tensor
        for key, tensor in state.items()
        if not key.startswith((f"{prefix}backbone.norm", f"{prefix}backbone.head"))
    }
    for layer in sorted(spec.moe_layers):
        ours, theirs = f"blocks.{layer}.moe", f"{prefix}backbone.blocks.{layer}.mlp"
        for part in ("weight", "bias"):
            state[f"{theirs}.experts.htoh4.{part}"] = weights[f"{ours}.fc1.{part}"]
            state[f"{theirs}.experts.h4toh.{part}"] = weights[f"{ours}.fc2.{part}"]
        gates = weights[f"{ours}.gate.weight"]
        names = (
            [f"{theirs}.gate"]
            if spec.moe.shared_gate
            else [f"{theirs}.gate.{task}" for task in range(len(gates))]
        )
        for name, gate in zip(names, gates, strict=True):
            more = random(rng, FEATURES, spec.moe.experts) if spec.moe.gate_bias else gate.T[:0]
            state[f"{name}.w_gate"] = np.concatenate([gate.T, more])
            if noisy:
                state[f"{name}.w_noise"] = random(rng, *gate.T.shape)
    if spec.moe.gate_bias:
        shapes: dict[str, tuple[int, ...]] = {
            "fc1.weight": (FEATURES, len(spec.tasks)),
            "fc2.weight": (FEATURES, FEATURES),
        }
        shapes |= {name: (FEATURES,) for name in ("fc1.bias", "fc2.bias", "norm.weight", "norm.bias")}
        state |= {
            f"{prefix}backbone.gate_task_represent.{name}": random(rng, *shape)
            for name, shape in shapes.items()
        }
    for task in spec.tasks:
        decoder = decoder_state(spec.dim, 2 + spec.tasks.index(task), seed)
        state |= {f"{prefix}decoders.{task}.{name}": tensor for name, tensor in decoder.items()}
    state[f"{prefix}tam_model0.layers0.0.weight"] = random(rng, 3, 3)
    return state


def decoder_state(dim: int, classes: int, seed: int) -> StateDict:
    rng, width = np.random.default_rng(seed), DECODER_CHANNELS
    state: dict[str, Any] = {"norm.weight": 1 + random(rng, dim), "norm.bias": random(rng, dim)}
    for index in range(4):
        state[f"conv_{index}.weight"] = random(rng, width, dim if index == 0 else width, 3, 3)
        state[f"conv_{index}.bias"] = random(rng, width)
        norm = f"syncbn_fc_{index}"
        state |= {f"{norm}.{part}": random(rng, width) for part in ("weight", "bias", "running_mean")}
        state[f"{norm}.running_var"] = np.abs(random(rng, width)) + 0.5
        state[f"{norm}.num_batches_tracked"] = np.array(100)
    return state | {"conv_4.weight": random(rng, classes, width, 1, 1), "conv_4.bias": random(rng, classes)}


def saved(path: Path, state: StateDict, **wrapper: Any) -> Path:
    """Write a PyTorch checkpoint: bare, or as `state_dict` beside what else training keeps."""
    import torch

    torch.save(wrapper | {"state_dict": as_torch(state)} if wrapper else as_torch(state), path)
    return path


def as_torch(state: StateDict) -> dict[str, Any]:
    import torch

    return {key: torch.from_numpy(np.array(tensor)) for key, tensor in state.items()}
