"""Importer of M3ViT checkpoints (Fan, Sarkar et al., NeurIPS 2022, arXiv 2210.14793).

Gates come in three kinds. One a task: `gate.<t>.w_gate`. One for all: `gate.w_gate` with as many rows as a token has
channels. One for all that also reads a feature of the task, G rows more: the feature is the output of a small MLP on
the task's one-hot vector, so its product with those rows is a constant for each task, a bias on the logits.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.heads import layer_norm
from frontend.checkpoint import State, prefix_of
from frontend.options import Imported, Options, model_name
from frontend.transformer import TransformerReader
from pysim.files import Tensors, validate
from pysim.model import Model
from pysim.reference import gelu
from pysim.spec import ModelSpec

TASK_ORDER = ("semseg", "human_parts", "sal", "normals", "edge", "depth")
"""M3ViT numbers the tasks that a configuration names in this order."""

NORM_EPS = 1e-6
BACKBONE = "backbone."
DECODERS = "decoders."

TRAINING_ONLY = {
    "tam_*": r"(^|\.)tam_",
    "the gates' noise": r"\.gate\.(\d+\.)?(w_noise|w_gate_aux|w_noise_aux)$",
    "counters of batch norms": r"\.num_batches_tracked$",
}
"""Parameters that inference never reads, by what they are."""

REASONS = {
    r"\.gate\.(\d+\.)?head\.": "a classifier on the gate's logits, which only semantic regularisation reads",
}

_EXPERTS = re.compile(r"blocks\.(\d+)\.mlp\.experts\.")


def import_m3vit(state: State, options: Options) -> Imported:
    """Read an M3ViT checkpoint.

    Args:
        state: its tensors.
        options: top_k, heads and image_size are needed.

    Raises:
        InputError: missing, extra, misshapen or non-finite tensors, naming them; options that are needed.
    """
    prefix = prefix_of(state, "patch_embed.proj.weight")
    if prefix is None:
        raise InputError(
            f"{state.source}: missing tensor patch_embed.proj.weight", hint="is this an M3ViT checkpoint?"
        )
    # Decoders and auxiliary predictions stand beside the backbone, under the wrapper's own prefix.
    root = prefix.removesuffix(BACKBONE)

    def shorten(key: str) -> str:
        return key.removeprefix(prefix) if key.startswith(prefix) else key.removeprefix(root)

    state = state.renamed(shorten, lambda key: prefix + key)
    skipped = {
        kind: state.waive(key for key in state.entries if re.search(pattern, key))
        for kind, pattern in TRAINING_ONLY.items()
    }
    return _M3vit(state, options, skipped).read()


class _M3vit:
    def __init__(self, state: State, options: Options, skipped: dict[str, list[str]]) -> None:
        self.state, self.options = state, options
        numbers = {int(match[1]) for key in state.entries if (match := _EXPERTS.match(key))}
        self.moe_layers = sorted(numbers)
        self._ask()
        self.reader = TransformerReader(state, options)
        left_out = [f"{kind} ({len(keys)})" for kind, keys in skipped.items() if keys]
        self.remarks = [f"left out, as only training reads them: {', '.join(left_out)}"] if left_out else []
        self.learned_noise = any(key.endswith(".w_noise") for keys in skipped.values() for key in keys)

    def _ask(self) -> None:
        """Ask for everything that the file does not say, at once."""
        needed = {"--heads": self.options.heads, "--image-size": self.options.image_size}
        if self.moe_layers:
            needed["--top-k"] = self.options.top_k
        missing = [option for option, value in needed.items() if value is None]
        if missing:
            raise InputError(
                f"{self.state.source}: {', '.join(missing)} needed: the file does not say",
                hint="of M3ViT's networks, tiny has 3 heads and images of 128x256, small and base 12 heads; "
                "configurations say top-k 2, the published command 4",
            )

    def read(self) -> Imported:
        state, reader = self.state, self.reader
        image_size = reader.image_size(guess_square=False)
        dense = [layer for layer in range(reader.depth) if layer not in self.moe_layers]
        mlp_dim = state.shape(f"blocks.{dense[0]}.mlp.fc1.weight", 2)[0] if dense else self._expert_shape()[1]
        self.remarks.append(reader.read_embedding())
        tasks, moe = self._moe() if self.moe_layers else (self._task_names(None), None)
        for layer in range(reader.depth):
            reader.read_attention(layer)
            if layer in self.moe_layers:
                self._read_experts(layer)
            else:
                reader.read_mlp(layer, mlp_dim)
        heads = {task: head for task in tasks if (head := self._linear_head(task)) is not None}
        decoders = self._decoders(tasks)
        state.finish(REASONS)
        spec = validate(
            ModelSpec,
            {
                "name": model_name(state.source),
                "image_size": image_size,
                **reader.geometry,
                "mlp_dim": mlp_dim,
                "norm_eps": self.options.norm_eps or NORM_EPS,
                "tasks": tasks,
                "moe": moe,
                "task_heads": heads,
            },
            state.source,
        )
        return Imported(Model(spec, reader.weights), decoders, tuple(self.remarks))

    def _expert_shape(self) -> tuple[int, ...]:
        """Experts, hidden channels and channels of the first layer with experts."""
        return self.state.shape(f"blocks.{self.moe_layers[0]}.mlp.experts.htoh4.weight", 3)

    def _read_experts(self, layer: int) -> None:
        experts, hidden, dim = self._expert_shape()
        source = f"blocks.{layer}.mlp.experts"
        self.reader.read_linear(f"blocks.{layer}.moe.fc1", f"{source}.htoh4", (experts, hidden, dim))
        self.reader.read_linear(f"blocks.{layer}.moe.fc2", f"{source}.h4toh", (experts, dim, hidden))

    def _moe(self) -> tuple[list[str], dict[str, object]]:
        """Names of the tasks and the mixture of experts, with the gates read."""
        experts, hidden, _ = self._expert_shape()
        first = f"blocks.{self.moe_layers[0]}.mlp.gate"
        separate = [
            int(match[1])
            for key in self.state.entries
            if (match := re.match(rf"{re.escape(first)}\.(\d{{1,3}})\.", key))
        ]
        shared, conditioned = not separate, False
        if separate:
            tasks = self._task_names(1 + max(separate))
            self._separate_gates(len(tasks), experts)
        else:
            rows = self.state.shape(f"{first}.w_gate", 2)[0]
            conditioned = rows != self.reader.dim
            count = self.state.shape("gate_task_represent.fc1.weight", 2)[1] if conditioned else None
            tasks = self._task_names(count)
            self._shared_gate(tasks, experts, conditioned=conditioned)
        odd = self.moe_layers == list(range(1, self.reader.depth, 2))
        return tasks, {
            "layers": "odd" if odd else self.moe_layers,
            "experts": experts,
            "hidden_dim": hidden,
            "top_k": self.options.top_k,
            # The gate that chooses before its softmax learns its noise; the other one's is a constant.
            "gate": "topk-softmax" if self.learned_noise else "softmax-topk",
            "shared_gate": shared,
            "gate_bias": conditioned,
        }

    def _task_names(self, count: int | None) -> list[str]:
        """Names of the tasks in the order of their numbers; `count` is how many the gates are for, if they say."""
        decoders = list(
            dict.fromkeys(key.split(".")[1] for key in self.state.entries if key.startswith(DECODERS))
        )
        if self.options.tasks is not None:
            tasks = list(self.options.tasks)
            unknown = [task for task in decoders if task not in tasks]
            if unknown:
                raise InputError(
                    f"{self.state.source}: decoders.{unknown[0]} is none of the tasks {', '.join(tasks)}",
                    hint="name every task of the checkpoint with --tasks, in the order of their gates",
                )
        elif decoders and set(decoders) <= set(TASK_ORDER):
            tasks = [task for task in TASK_ORDER if task in decoders]
        elif len(decoders) <= 1 and count in (None, 1):
            tasks = decoders or ["task0"]
        elif decoders:
            raise InputError(
                f"{self.state.source}: tasks {', '.join(decoders)}: --tasks needed, as their order is not known",
                hint="--tasks semseg,depth: every task, in the order of their gates",
            )
        else:
            tasks = [f"task{number}" for number in range(count or 1)]
            self.remarks.append(f"tasks are named {', '.join(tasks)}, as the checkpoint has no decoders")
        if count is not None and len(tasks) != count:
            raise InputError(
                f"{self.state.source}: gates for {count} tasks, but {len(tasks)} are named: {', '.join(tasks)}",
                hint="name every task of the checkpoint with --tasks, in the order of their gates",
            )
        return tasks

    def _separate_gates(self, tasks: int, experts: int) -> None:
        for layer in self.moe_layers:
            gates = [
                self.state.take(f"blocks.{layer}.mlp.gate.{task}.w_gate", (self.reader.dim, experts)).T
                for task in range(tasks)
            ]
            self.reader.weights[f"blocks.{layer}.moe.gate.weight"] = np.stack(gates)

    def _shared_gate(self, tasks: list[str], experts: int, *, conditioned: bool) -> None:
        features = self._task_features(len(tasks)) if conditioned else np.zeros((len(tasks), 0))
        dim = self.reader.dim
        for layer in self.moe_layers:
            gate = self.state.take(f"blocks.{layer}.mlp.gate.w_gate", (dim + features.shape[1], experts))
            name = f"blocks.{layer}.moe.gate"
            self.reader.weights[f"{name}.weight"] = np.ascontiguousarray(gate[:dim].T)[None]
            if conditioned:
                bias = features @ gate[dim:].astype(np.float64)
                self.reader.weights[f"{name}.bias"] = bias.astype(np.float32)
        if conditioned:
            self.remarks.append(
                f"folded into the gates: the task's feature, a bias on the logits of {len(tasks)} tasks"
            )

    def _task_features(self, tasks: int) -> NDArray[np.float64]:
        """(tasks, G) output of the MLP on every task's one-hot vector, LayerNorm included."""
        where = "gate_task_represent"
        width = self.state.shape(f"{where}.fc1.weight", 2)[0]
        fc1, fc1_bias, fc2, fc2_bias, gamma, beta = (
            self.state.take(f"{where}.{name}", shape).astype(np.float64)
            for name, shape in (
                ("fc1.weight", (width, tasks)),
                ("fc1.bias", (width,)),
                ("fc2.weight", (width, width)),
                ("fc2.bias", (width,)),
                ("norm.weight", (width,)),
                ("norm.bias", (width,)),
            )
        )
        hidden = gelu(np.eye(tasks) @ fc1.T + fc1_bias)
        return layer_norm(hidden @ fc2.T + fc2_bias, gamma, beta, NORM_EPS)

    def _linear_head(self, task: str) -> dict[str, object] | None:
        """The decoder of a task as a task head, where it is one linear layer (or 1x1 convolution) on each token."""
        prefix = f"{DECODERS}{task}."
        own = {key.removeprefix(prefix) for key in self.state.left() if key.startswith(prefix)}
        norm = {"norm.weight", "norm.bias"}
        layers = {name.rpartition(".")[0] for name in own - norm}
        layer = next(iter(layers), "")
        if (
            len(layers) != 1
            or own - norm != {f"{layer}.weight", f"{layer}.bias"}
            or own & norm not in (norm, set())
        ):
            return None
        shape = self.state.entries[f"{prefix}{layer}.weight"].shape
        if shape[1:] not in ((self.reader.dim,), (self.reader.dim, 1, 1)):
            return None
        weights, name = self.reader.weights, f"heads.{task}"
        weights[f"{name}.weight"] = self.state.take(f"{prefix}{layer}.weight", shape).reshape(shape[:2])
        weights[f"{name}.bias"] = self.state.take(f"{prefix}{layer}.bias", shape[:1])
        if own & norm:
            self.reader.read_linear(f"{name}.norm", f"{prefix}norm", (self.reader.dim,))
        self.remarks.append(f"decoder of {task}: a linear layer on each patch token, a head of the model")
        return {"kind": "token-linear", "out_channels": shape[0], "norm": bool(own & norm)}

    def _decoders(self, tasks: list[str]) -> Tensors:
        """Tensors of the task decoders, by names without `decoders.`."""
        decoders: Tensors = {}
        for key in [key for key in self.state.left() if key.startswith(DECODERS)]:
            shape = self.state.entries[key].shape
            decoders[key.removeprefix(DECODERS)] = self.state.take(key, shape)
        if decoders:
            kept = [task for task in tasks if any(key.startswith(f"{task}.") for key in decoders)]
            self.remarks.append(f"decoders of {', '.join(kept)} kept in decoders.safetensors")
        return decoders
