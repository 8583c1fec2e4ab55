"""Fake-quantised forward of the torch network: the formats and approximations of a Design, with gradients.

Every value that a Design narrows is narrowed here, by the Design's own scales, and stays in real units. Activation
function, LayerNorm, attention with its single-pass softmax, and router are the simulator's own. Their gradients are
those of the exact functions, and the gradient of rounding is taken for 1 inside the range of a format and 0
outside (the straight-through estimator, Bengio et al., arXiv 1308.3432).

What it leaves out, because a Design is made anew from the weights afterwards: weights are rounded to nearest instead
of for the least error of a layer.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from frontend.network import ACTIVATIONS, Block, ExpertLinear, Network
from pysim.datapath import GELU_INPUT, NORMALIZED, PIXEL_FRAC, PIXEL_OFFSET, PROBABILITY, SCORE
from pysim.design import Design
from pysim.extras import missing
from pysim.kernels.attention import attention
from pysim.kernels.gelu import GELU_FRAC, activate
from pysim.kernels.layernorm import normalize
from pysim.kernels.router import route
from pysim.program import (
    Attention,
    Embed,
    Gate,
    Index,
    Linear,
    Norm,
    Program,
    Value,
    blocks,
    linears,
    of_type,
)
from pysim.simulator import task_number

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
except ModuleNotFoundError as error:
    raise missing(error.name, "fake quantisation") from None

IntArray = NDArray[np.int64]

MEAN_SHARE = 0.1
"""Share of a batch in the running mean of a layer's inputs."""


class Grid(nn.Module):
    """A number format as a Design uses it: signed integers that stand for integer * scale + offset."""

    def __init__(
        self, width: int, scale: NDArray[np.float64] | float, offset: NDArray[np.float64] | float = 0.0
    ) -> None:
        super().__init__()
        self.low, self.high = -float(1 << (width - 1)), float((1 << (width - 1)) - 1)
        self.register_buffer("scale", torch.as_tensor(np.asarray(scale), dtype=torch.float32))
        self.register_buffer("offset", torch.as_tensor(np.asarray(offset), dtype=torch.float32))

    def integers(self, x: Tensor) -> Tensor:
        """Rounded half up and saturated, as float32 without gradient."""
        return torch.floor((x.detach() - self.offset) / self.scale + 0.5).clamp(self.low, self.high)

    def real(self, integers: IntArray | Tensor) -> Tensor:
        """The real numbers that integers stand for."""
        whole = torch.from_numpy(integers) if isinstance(integers, np.ndarray) else integers
        return whole.to(torch.float32) * self.scale + self.offset

    def forward(self, x: Tensor) -> Tensor:
        """The nearest value of the format, with the straight-through gradient."""
        low, high = (limit * self.scale + self.offset for limit in (self.low, self.high))
        inside = torch.minimum(torch.maximum(x, low), high)
        return straight_through(inside, self.real(self.integers(x)))


def straight_through(exact: Tensor, value: Tensor) -> Tensor:
    """`value`, with the gradient of `exact`."""
    return exact + (value - exact).detach()


def _numpy(integers: Tensor) -> IntArray:
    return integers.detach().to(torch.int64).numpy()


class FakeLinear(nn.Module):
    """A linear layer with weights on a Design's grid.

    Rounded weights shift the mean of a result; a Design makes up for it by the mean of the calibrated inputs, and
    this layer by that of the inputs it has seen: a running mean over batches in training, which stands still otherwise.

    Attributes:
        weights: the grid of the weights, one scale for each of them.
        mean: (inputs,) running mean of the centred inputs.
    """

    mean: Tensor
    seen: Tensor

    def __init__(self, design: Design, op: Linear | Gate, into: Grid, out: Grid, index: Index = ()) -> None:
        super().__init__()
        requantise = design.requantise(op.scaling, index)
        factor = requantise.multiplier * np.exp2(-requantise.shift.astype(np.float64))
        # One unit of the sum is worth factor * out.scale, and one unit of an input into.scale.
        unit = factor * out.scale.double().numpy()
        step = np.atleast_1d(unit)[:, None] / np.atleast_1d(into.scale.double().numpy())
        self.weights = Grid(op.weight_width, step)
        self.register_buffer("offset", into.offset)
        self.register_buffer("mean", torch.zeros(op.weight.shape[-1]))
        self.register_buffer("seen", torch.tensor(False))

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer on inputs that are on their grid already."""
        quantised, centred = self.weights(weight), x - self.offset
        self._note_mean(centred.detach().flatten(0, -2))
        # A Design centres its inputs, and makes up for it with the exact weights.
        moved = (weight * self.offset).sum(-1) + ((weight - quantised) * self.mean).sum(-1)
        result = functional.linear(centred, quantised) + moved
        return result if bias is None else result + bias

    def _note_mean(self, centred: Tensor) -> None:
        if len(centred) and (self.training or not self.seen):
            mean = centred.mean(0)
            self.mean = torch.lerp(self.mean, mean, MEAN_SHARE) if self.seen else mean
            self.seen = torch.tensor(True)


class FakeBlock(nn.Module):
    """One transformer block; parameters stay those of the float network."""

    def __init__(self, design: Design, operations: Program, stream: Grid) -> None:
        super().__init__()
        self.design, self.stream = design, stream
        norm1, self.norm2 = of_type(operations, Norm)
        (self.attention,) = of_type(operations, Attention)
        qkv, proj, fc1, fc2 = linears(operations)
        self.epsilon = design.scalar(norm1.epsilon)
        self.parts = nn.ModuleList(self._grid(value) for value in qkv.results)
        self.norms = nn.ModuleList(self._grid(norm.output) for norm in (norm1, self.norm2))
        self.mixed = self._grid(self.attention.output)
        scales = np.concatenate([design.decode(value.name)[0] for value in qkv.results])
        joined = Grid(qkv.output.format.width, scales)
        self.qkv = FakeLinear(design, qkv, self.norms[0], joined)
        self.proj = FakeLinear(design, proj, self.mixed, stream)
        self.gelu_input = Grid(GELU_INPUT.width, GELU_INPUT.lsb)
        scale, offset = design.decode(fc2.input.name)
        width = fc2.input.format.width
        self.hidden = nn.ModuleList(
            Grid(width, scale[expert], offset[expert]) for expert in range(len(scale))
        )
        self.fc1 = nn.ModuleList(
            FakeLinear(design, fc1, self.norms[1], self.gelu_input, index) for index in fc1.indices
        )
        self.fc2 = nn.ModuleList(
            FakeLinear(design, fc2, hidden, stream, index)
            for hidden, index in zip(self.hidden, fc2.indices, strict=True)
        )
        assert fc1.activation is not None
        self.activation = fc1.activation.function
        gates = of_type(operations, Gate)
        self.has_experts = bool(gates)
        for gate in gates:
            self._add_gate(gate)

    def _grid(self, value: Value) -> Grid:
        return Grid(value.format.width, *self.design.decode(value.name))

    def _add_gate(self, gate: Gate) -> None:
        design, norm = self.design, self.norm2
        finer = 2.0 ** (design.scalar(norm.gate_shift) - design.scalar(norm.shift))
        scale, offset = design.decode(norm.output.name)
        self.gate_input = Grid(gate.input.format.width, scale * finer, offset)
        self.logits = Grid(SCORE.width, SCORE.lsb * math.log(2))
        self.gates = nn.ModuleList(
            FakeLinear(design, gate, self.gate_input, self.logits, (place,))
            for place in range(gate.weight.shape[0])
        )

    def forward(self, x: Tensor, block: Block, task: int) -> Tensor:
        """Map (images, tokens, dim) on the grid of the residual stream to the same."""
        y = self.norms[0](self._norm(x, block.norm1))
        x = self.stream(x + self._attention(y, block))
        wide = self._norm(x, block.norm2)
        y = self.norms[1](wide)
        if self.has_experts:
            return self._experts(x.flatten(0, 1), wide.flatten(0, 1), y.flatten(0, 1), block, task).view_as(x)
        mlp = block.mlp
        return self.stream(x + self._mlp(y, 0, (mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias)))

    def _norm(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """A LayerNorm, before its result is narrowed."""
        whole = _numpy(self.stream.integers(x)).reshape(-1, x.shape[-1])
        normalized = torch.from_numpy(NORMALIZED.to_float(normalize(whole, self.epsilon)))
        value = normalized.to(torch.float32).view_as(x) * norm.weight + norm.bias
        return straight_through(norm(x), value)

    def _attention(self, y: Tensor, block: Block) -> Tensor:
        images, tokens, dim = y.shape
        heads = block.attn.heads
        projected = self.qkv(y, block.attn.qkv.weight, block.attn.qkv.bias).split(dim, dim=-1)
        grids = list(self.parts)
        by_head = (images, tokens, heads, dim // heads)
        q, k, v = (
            grid(part).view(by_head).transpose(1, 2) for grid, part in zip(grids, projected, strict=True)
        )
        exact = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(y.shape)
        design, op = self.design, self.attention
        whole = [
            _numpy(grid.integers(part).view(by_head).transpose(1, 2).flatten(0, 1))
            for grid, part in zip(grids, projected, strict=True)
        ]
        result = attention(
            *whole,
            attention_rows=design.attention_rows,
            score_shift=design.scalar(op.score_shift),
            attention_shift=design.scalar(op.attention_shift),
            out=op.output.format,
        )
        mixed = (
            torch.from_numpy(result.output).view(images, heads, tokens, -1).transpose(1, 2).reshape(y.shape)
        )
        value = straight_through(self.mixed(exact), self.mixed.real(mixed))
        return self.proj(value, block.attn.proj.weight, block.attn.proj.bias)

    def _mlp(self, y: Tensor, place: int, parameters: tuple[Tensor, ...]) -> Tensor:
        fc1, fc1_bias, fc2, fc2_bias = parameters
        before = self.gelu_input(self.fc1[place](y, fc1, fc1_bias))
        activated = activate(self.activation, _numpy(self.gelu_input.integers(before)))
        value = torch.from_numpy(activated).to(torch.float32) * 2.0**-GELU_FRAC
        hidden = self.hidden[place](straight_through(ACTIVATIONS[self.activation.name](before), value))
        return self.fc2[place](hidden, fc2, fc2_bias)

    def _experts(self, x: Tensor, wide: Tensor, y: Tensor, block: Block, task: int) -> Tensor:
        moe = block.moe
        place = 0 if len(self.gates) == 1 else task
        bias = None if moe.gate.bias is None else moe.gate.bias[task]
        logits = self.logits(self.gates[place](self.gate_input(wide), moe.gate.weight[place], bias))
        routing = route(_numpy(self.logits.integers(logits)), moe.top_k, moe.kind)
        best = torch.from_numpy(routing.experts)
        chosen_first = moe.kind.over_selected
        scores = (logits.gather(1, best) if chosen_first else logits).softmax(-1)
        scores = scores if chosen_first else scores.gather(1, best)
        scores = straight_through(
            scores, torch.from_numpy(routing.scores).to(torch.float32) * PROBABILITY.lsb
        )
        moe.scores = torch.zeros_like(logits).scatter(1, best, scores)
        layers: tuple[ExpertLinear, ExpertLinear] = (moe.fc1, moe.fc2)
        for expert in routing.active.tolist():
            rows, slot = (best == expert).nonzero(as_tuple=True)
            weights = tuple(tensor[expert] for layer in layers for tensor in (layer.weight, layer.bias))
            change = self.stream(self._mlp(y[rows], expert, weights))
            x = x.index_add(0, rows, change * scores[rows, slot, None])
        return self.stream(x)


class FakeQuantized(nn.Module):
    """A network that computes as a Design does, to fine-tune its weights for it.

    The parameters are those of `network`, which a training loop goes on using: heads, `moes()`, `to_model()`.
    """

    def __init__(self, network: Network, design: Design) -> None:
        """Take the formats of a Design.

        Args:
            network: the float network, whose parameters are used.
            design: its quantisation, to one of the presets that round once.

        Raises:
            InputError: a Design of another network's shape, or of the original's truncating arithmetic.
        """
        super().__init__()
        if not design.arithmetic.exact:
            raise InputError(
                f"fine-tuning for precision {design.precision.name!r} is not supported",
                hint="it is for presets that round each value once, such as w8a8 and w16a16",
            )
        if design.spec != network.spec:
            raise InputError(f"the Design is of another network than {network.spec.name}")
        self.network, self.design = network, design
        residual = design.residual
        self.stream = Grid(residual.width, residual.lsb)
        pixels = Grid(PIXEL_FRAC, 2.0**-PIXEL_FRAC, PIXEL_OFFSET * 2.0**-PIXEL_FRAC)
        (embed,) = of_type(design.program, Embed)
        self.patch = FakeLinear(design, embed.patch, pixels, self.stream)
        self.blocks = nn.ModuleList(
            FakeBlock(design, block, self.stream) for block in blocks(design.program).values()
        )

    def forward(self, images: Tensor, task: str | int = 0) -> Tensor:
        """Tokens after the last block, on the grid of the residual stream.

        Args:
            images: float32 (images, channels, H, W), pixels / 256.
            task: name or number of the task.
        """
        network, spec = self.network, self.design.spec
        number = task_number(spec, task)
        patches = functional.unfold(images, spec.patch_size, stride=spec.patch_size).transpose(1, 2)
        embedded = self.patch(patches, network.patch_embed.weight.flatten(1), network.patch_embed.bias)
        position = self.stream(network.pos_embed)
        prefix, patched = position.tensor_split([spec.prefix_tokens])
        x = torch.cat([prefix.expand(len(images), -1, -1), self.stream(embedded + patched)], dim=1)
        for fake, block in zip(self.blocks, network.blocks, strict=True):
            x = fake(x, block, number)
        return x

    def predict(self, images: Tensor, task: str) -> Tensor:
        """Logits of a task's head, which runs in float, on the tokens of the task."""
        return self.network.heads[task](self(images, task))
