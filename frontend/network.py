"""The float network as a `torch.nn.Module`: a multi-task ViT whose MoE layers gate by task.

Names and shapes of the parameters are those of a Model folder, so that a `state_dict` is its weights file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from common.errors import InputError
from common.heads import MEANS
from common.tasks import task_number
from pysim.extras import missing
from pysim.model import Model, tensor_shapes
from pysim.spec import ModelSpec, MoeSpec

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
except ModuleNotFoundError as error:
    raise missing(error.name, "the network as a torch module") from None

INITIAL_PREFIX_TOKEN = 0.5
"""Standard deviation of fresh prefix tokens, such as the class token; fresh patches have no position yet."""


def quick_gelu(x: Tensor) -> Tensor:
    """X times the sigmoid of 1.702 x."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": functional.relu,
}
"""Activation functions of the MLPs by their names in a `model.toml`."""


def exporting() -> bool:
    """True while either of torch's ONNX exporters runs the network."""
    return bool(torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting())


class Attention(nn.Module):
    """Multi-head self-attention; the rows of `qkv` are q, k and v, each head-major."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.qkv = nn.Linear(spec.dim, 3 * spec.dim, bias=spec.qkv_bias)
        self.proj = nn.Linear(spec.dim, spec.dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (images, tokens, dim) to the same shape."""
        images, count, dim = tokens.shape
        split = self.qkv(tokens).view(images, count, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.mix(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(images, count, dim))

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention itself, on (images, heads, tokens, head_dim)."""
        return functional.scaled_dot_product_attention(query, key, value)


class Mlp(nn.Module):
    """The MLP of a dense block."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.fc1 = nn.Linear(spec.dim, spec.mlp_dim)
        self.fc2 = nn.Linear(spec.mlp_dim, spec.dim)
        self.activation = ACTIVATIONS[spec.activation]

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., dim) to the same shape."""
        return self.fc2(self.activate(self.fc1(tokens)))

    def activate(self, hidden: Tensor) -> Tensor:
        """The activation function."""
        return self.activation(hidden)


class ExpertLinear(nn.Module):
    """One linear layer for each expert: `weight` is (experts, outputs, inputs)."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(experts, outputs))

    def forward(self, tokens: Tensor, expert: int) -> Tensor:
        """Map (n, inputs) to (n, outputs) with one expert's layer."""
        return functional.linear(tokens, self.weight[expert], self.bias[expert])

    def all_experts(self, tokens: Tensor) -> Tensor:
        """Map (n, inputs) or (experts, n, inputs) to (experts, n, outputs)."""
        return tokens @ self.weight.transpose(1, 2) + self.bias[:, None]


class Gate(nn.Module):
    """Logits of the experts: `weight` is (tasks or 1, experts, dim), `bias` (tasks, experts) where there is one."""

    def __init__(self, spec: ModelSpec, moe: MoeSpec) -> None:
        super().__init__()
        gates = 1 if moe.shared_gate else len(spec.tasks)
        self.weight = nn.Parameter(torch.randn(gates, moe.experts, spec.dim) * spec.dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(spec.tasks), moe.experts)) if moe.gate_bias else None

    def forward(self, tokens: Tensor, task: int | Tensor) -> Tensor:
        """Map (n, dim) to (n, experts)."""
        weight = self.weight[0] if self.weight.shape[0] == 1 else self.weight[task]
        logits = functional.linear(tokens, weight)
        if self.bias is None:
            return logits
        return logits + (self.bias[0] if self.bias.shape[0] == 1 else self.bias[task])


class Moe(nn.Module):
    """Experts behind a gate.

    Attributes:
        scores: of the last call, (images * tokens, experts): the weight of every chosen expert, else 0.
    """

    def __init__(self, spec: ModelSpec, moe: MoeSpec) -> None:
        super().__init__()
        self.top_k = moe.top_k
        self.activation = ACTIVATIONS[spec.activation]
        self.kind = moe.gate_kind
        self.fc1 = ExpertLinear(moe.experts, spec.dim, moe.hidden_dim)
        self.fc2 = ExpertLinear(moe.experts, moe.hidden_dim, spec.dim)
        self.gate = Gate(spec, moe)
        self.scores = torch.zeros(0, moe.experts)

    def forward(self, tokens: Tensor, task: int | Tensor) -> Tensor:
        """Map (images, tokens, dim) to the same shape with the gate of one task."""
        flat = tokens.flatten(0, 1)
        scores = self.weigh(self.gate(self.gate_input(flat), task))
        if exporting():
            # Which rows an expert gets depends on the data; a graph computes all rows and weighs them.
            outputs = self.fc2.all_experts(self.activate_all(self.fc1.all_experts(flat)))
            return (outputs * scores.transpose(0, 1)[:, :, None]).sum(0).view_as(tokens)
        self.scores = scores
        chosen, result = scores.detach() > 0, torch.zeros_like(flat)
        for expert in range(chosen.shape[1]):
            rows = chosen[:, expert].nonzero()[:, 0]
            hidden = self.activate(self.fc1(flat[rows], expert), expert)
            result = result.index_add(0, rows, self.fc2(hidden, expert) * scores[rows, expert, None])
        return result.view_as(tokens)

    def gate_input(self, tokens: Tensor) -> Tensor:
        """The tokens that the gate reads."""
        return tokens

    def weigh(self, logits: Tensor) -> Tensor:
        """Scores (n, experts) of logits (n, experts): 0 for all but the `top_k` largest, lowest index first."""
        if exporting():
            best = logits.topk(self.top_k).indices
        else:
            best = logits.argsort(dim=-1, descending=True, stable=True)[:, : self.top_k]
        over = (
            logits.gather(1, best).softmax(-1)
            if self.kind.over_selected
            else logits.softmax(-1).gather(1, best)
        )
        return torch.zeros_like(logits).scatter(1, best, over)

    def activate(self, hidden: Tensor, expert: int) -> Tensor:
        """The activation function of one expert's hidden values."""
        return self.activation(hidden)

    def activate_all(self, hidden: Tensor) -> Tensor:
        """The activation function of (experts, n, hidden)."""
        return self.activation(hidden)


class Block(nn.Module):
    """A pre-norm transformer block, with a dense MLP (`mlp`) or experts (`moe`)."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.dim, eps=spec.norm_eps)
        self.attn = Attention(spec)
        self.norm2 = nn.LayerNorm(spec.dim, eps=spec.norm_eps)
        self.has_experts = spec.moe is not None and layer in spec.moe_layers
        if spec.moe is not None and self.has_experts:
            self.moe = Moe(spec, spec.moe)
        else:
            self.mlp = Mlp(spec)

    def forward(self, tokens: Tensor, task: int | Tensor) -> Tensor:
        """Map (images, tokens, dim) to the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        normed = self.norm2(tokens)
        return tokens + (self.moe(normed, task) if self.has_experts else self.mlp(normed))


class Head(nn.Linear):
    """A task head: a LayerNorm of its own, if any, then a linear layer on the tokens that its kind names."""

    def __init__(self, spec: ModelSpec, task: str) -> None:
        head, channels = spec.decoder(task), spec.head(task).out_channels
        assert channels is not None
        super().__init__(head.width(spec.dim), channels)
        self.kind, self.prefix = head.kind, head.prefix_tokens
        self.norm = nn.LayerNorm(spec.dim, eps=head.norm_eps) if head.norm else None
        self.fc_norm = nn.LayerNorm(spec.dim, eps=head.norm_eps) if head.fc_norm else None
        self.dist = nn.Linear(spec.dim, channels) if head.kind == "distilled-linear" else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (images, tokens, dim) to (images, patches, channels), or to (images, channels) of the whole image."""
        x = tokens if self.norm is None else self.norm(tokens)
        if self.dist is not None:
            return (super().forward(x[:, 0]) + self.dist(x[:, 1])) / 2
        if self.kind == "cls-linear":
            x = x[:, 0]
        elif self.kind == "cls-mean-linear":
            x = torch.cat([x[:, 0], x[:, self.prefix :].mean(1)], 1)
        elif self.kind != "mean-all-linear":
            x = x[:, self.prefix :]
        if self.kind in MEANS:
            x = x.mean(1)
        return super().forward(x if self.fc_norm is None else self.fc_norm(x))


class Network(nn.Module):
    """The network of a `ModelSpec` in float32, freshly initialised.

    Attributes:
        spec: its shape.
        heads: the task heads by task; tasks without a head are missing.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = nn.Conv2d(spec.in_channels, spec.dim, spec.patch_size, stride=spec.patch_size)
        prefix = INITIAL_PREFIX_TOKEN * torch.randn(spec.prefix_tokens, spec.dim)
        self.pos_embed = nn.Parameter(torch.cat([prefix, torch.zeros(spec.patches, spec.dim)]))
        self.blocks = nn.ModuleList(Block(spec, layer) for layer in range(spec.depth))
        self.heads = nn.ModuleDict(
            {task: Head(spec, task) for task in spec.tasks if spec.head(task).kind != "none"}
        )

    @classmethod
    def from_model(cls, model: Model) -> Network:
        """The network with a Model's weights."""
        network = cls(model.spec)
        network.load_state_dict(
            {name: torch.from_numpy(np.array(tensor)) for name, tensor in model.weights.items()}
        )
        return network.eval()

    def to_model(self) -> Model:
        """A Model with these weights, in float32.

        Raises:
            InputError: weights that are not finite.
        """
        state = self.state_dict()
        return Model(
            self.spec, {name: state[name].float().cpu().numpy().copy() for name in tensor_shapes(self.spec)}
        )

    def forward(self, images: Tensor, task: str | int | Tensor = 0) -> Tensor:
        """Tokens after the last block.

        Args:
            images: float32 (images, channels, H, W), pixels / 256.
            task: name or number of the task, whose gates are used.

        Returns:
            (images, tokens, dim).
        """
        if not isinstance(task, Tensor):
            task = task_number(self.spec.tasks, task)
        tokens = (
            self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed[self.spec.prefix_tokens :]
        )
        if self.spec.prefix_tokens:
            prefix = self.pos_embed[: self.spec.prefix_tokens].expand(images.shape[0], -1, -1)
            tokens = torch.cat([prefix, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens, task)
        return tokens

    def predict(self, images: Tensor, task: str) -> Tensor:
        """Logits of a task's head on the tokens that the task's gates lead to."""
        if task not in self.heads:
            raise InputError(
                f"task {task!r} has no linear head", hint=f"heads: {', '.join(self.heads) or 'none'}"
            )
        return self.heads[task](self(images, task))

    def moes(self) -> Iterator[tuple[int, Moe]]:
        """The mixture-of-experts layers, by block number."""
        for layer, block in enumerate(self.blocks):
            if block.has_experts:
                yield layer, block.moe
