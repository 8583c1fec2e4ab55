"""The network program: a multi-task mixture-of-experts ViT as a list of operations, for every backend the same.

`program(spec, precision)` gives the operations in the order in which they are computed. Values flow between them by
name, channels on the last axis:

    pixels ─Embed─▶ embed                                                the residual stream of an image's tokens
    each block:
      stream ─Norm─▶ norm1 ─Linear qkv─▶ q, k, v ─Attention─▶ attention ─Linear proj─▶ attn_residual    (+ stream)
      attn_residual ─Norm─▶ norm2 ─Linear fc1─▶ hidden ─Linear fc2─▶ output                      (+ attn_residual)
      or, in a block with experts:
      attn_residual ─Norm─▶ norm2, gate_input ─Gate─▶ logits, gate_scores
                            norm2, gate_scores ─Experts (fc1, fc2 of each)─▶ output              (+ attn_residual)

An operation names what it reads and writes (`Value`) and the tensors that hold its parameters (`Tensor`), with
sizes and widths. What calibration finds, fraction bits, shifts and scales, is data of a Design under these names.
Everything that walks the network does so over this list: the tables of tensors, the overflow check, the
quantisers, the simulator, the weight image, test data, counts of multiplications. Only the float64 reference
(`pysim.reference`) and the torch module (`frontend.network`) are written apart, as independent witnesses.

An operation that a backend does not know fails its type check: each ends its `match` with `assert_never`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from common.errors import InputError
from pysim.activations import ACTIVATIONS, Activation
from pysim.arithmetic import Kind, Role, Source, Tensor, arithmetic_of
from pysim.datapath import NORM_WEIGHT_WIDTH, POSITION_WIDTH, score_lift
from pysim.formats import Format
from pysim.gates import GateKind
from pysim.precision import PRESETS, Precision
from pysim.spec import ModelSpec, MoeSpec

Index = tuple[int, ...]
"""Place of one expert's (or gate's) parameters in a tensor that holds all of them; () where there is but one."""


@dataclass(frozen=True)
class Value:
    """Integers that flow from one operation to others.

    Attributes:
        layer: number of its block; None for what comes before all blocks.
        part: its name within the block, such as `attn_residual`.
        kind: what it is.
        rows: of one image: tokens, patches, or pairs of a head and a token.
        channels: of a row.
        groups: equal parts of the channels that hardware pads to whole words one by one: heads.
        format: width and range; the binary point where it is fixed.
        scales: how many pairs of a scale and an offset a Design holds to read it in real units, one for each
            channel or each expert; 0 where the format, or that of the residual stream, says it all.
    """

    layer: int | None
    part: str
    kind: Kind
    rows: int
    channels: int
    format: Format
    groups: int = 1
    scales: int = 0

    @property
    def name(self) -> str:
        """Name in a trace, such as `blocks.3.attn_residual`."""
        return name_of(self.layer, self.part)


def name_of(layer: int | None, part: str) -> str:
    """Name of what belongs to a block, or to none."""
    return part if layer is None else f"blocks.{layer}.{part}"


class Scaling(NamedTuple):
    """Tensors of a requantisation: an integer multiplier, where a design has them, and a right shift."""

    multiplier: Tensor | None
    shift: Tensor


class Destination(IntEnum):
    """Destination of a linear layer's results."""

    HEADS = 0
    """Queries, keys and values for attention."""
    HIDDEN = 1
    """Through the activation function, as operands of the next layer."""
    RESIDUAL = 2
    """Added to the residual stream."""
    EXPERT = 3
    """Weighted with the gate's score, then added to the residual stream."""

    @property
    def takes_old(self) -> bool:
        """Whether results are added to old values."""
        return self in (Destination.RESIDUAL, Destination.EXPERT)


@dataclass(frozen=True, kw_only=True)
class _Operation:
    """Base of all operations.

    Attributes:
        layer: number of its block; None for what comes before all blocks.
        part: its name within the block, such as `qkv`.
    """

    layer: int | None
    part: str

    @property
    def name(self) -> str:
        """Name in messages and of the sections of a weight image, such as `blocks.3.qkv`."""
        return name_of(self.layer, self.part)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Values that it reads."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[Value, ...]:
        """Values that it writes."""
        raise NotImplementedError

    @property
    def tensors(self) -> Iterator[Tensor]:
        """Parameters and scales: every tensor among its attributes."""
        return _tensors(getattr(self, attribute.name) for attribute in fields(self))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return 0


def _tensors(items: Iterable[object]) -> Iterator[Tensor]:
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, _Operation):
            yield from item.tensors
        elif isinstance(item, tuple):
            yield from _tensors(item)


@dataclass(frozen=True, kw_only=True)
class Product(_Operation):
    """Dot products of each row with rows of weights, and a bias: what `Linear` and `Gate` have in common.

    Attributes:
        input: operands.
        weight: (..., outputs, inputs); the leading axis, if any, counts experts or gates.
        bias: (..., outputs), in units of the sums.
        scaling: from sums to results; None where the arithmetic fixes it.
        weight_width: bits of a weight.
    """

    input: Value
    weight: Tensor
    bias: Tensor
    scaling: Scaling | None
    weight_width: int

    @property
    def macs(self) -> int:
        """See `_Operation`: of one expert for every row, where there are several."""
        outputs, inputs = self.weight.shape[-2:]
        return self.input.rows * outputs * inputs


class Activated(NamedTuple):
    """Activation behind the first layer of an MLP: the function, and a requantisation.

    Attributes:
        function: the activation function.
        scaling: from the function's result to the operands of the next layer; one for each expert. None where the
            arithmetic fixes it.
        zero: (experts or 1,) what is added at last, for ranges that are not symmetric; None likewise.
    """

    function: Activation
    scaling: Scaling | None
    zero: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Linear(Product):
    """A linear layer, or the same layer of every expert.

    Attributes:
        results: values that its outputs are split into.
        destination: what becomes of them.
        added: value that they are added to, if any.
        activation: the activation function that they go through, if any.
        experts: how many experts have such a layer each; None where it is one for all tokens.
    """

    results: tuple[Value, ...]
    destination: Destination
    added: Value | None = None
    activation: Activated | None = None
    experts: int | None = None

    @property
    def inputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.input,) if self.added is None else (self.input, self.added)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return self.results

    @property
    def output(self) -> Value:
        """The first of its results, which has the format of all."""
        return self.results[0]

    @property
    def indices(self) -> list[Index]:
        """Places of the layer's parameters: one for each expert, or the one and only."""
        return [()] if self.experts is None else [(expert,) for expert in range(self.experts)]


@dataclass(frozen=True, kw_only=True)
class Embed(_Operation):
    """Patch embedding: every patch through one linear layer, and the position table added.

    Attributes:
        patch: the linear layer of the patches.
        position: (tokens, dim); rows of tokens that stand before the patches, such as the class token, hold these
            tokens' values too.
        prefix: how many tokens stand before the patches.
        patch_size: rows and columns of a patch.
        output: the residual stream.
    """

    patch: Linear
    position: Tensor
    prefix: int
    patch_size: int
    output: Value

    @property
    def inputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.patch.input,)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.output,)

    @property
    def macs(self) -> int:
        """See `_Operation`."""
        return self.patch.macs


@dataclass(frozen=True, kw_only=True)
class Norm(_Operation):
    """LayerNorm of every token, as operands of the next linear layer and, at will, of the router.

    Attributes:
        input: the residual stream.
        output: normalised tokens.
        gate_output: the router's own copy of them; None where no router follows.
        gamma: (dim,).
        beta: (dim,).
        epsilon: (1,), the same for all norms; None where the arithmetic fixes it.
        shift: (1,), from n * gamma + beta to `output`; None where the arithmetic fixes it.
        gate_shift: (1,), the same to `gate_output`.
    """

    input: Value
    output: Value
    gate_output: Value | None
    gamma: Tensor
    beta: Tensor
    epsilon: Tensor | None
    shift: Tensor | None
    gate_shift: Tensor | None

    @property
    def inputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.input,)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.output,) if self.gate_output is None else (self.output, self.gate_output)


@dataclass(frozen=True, kw_only=True)
class Attention(_Operation):
    """Softmax of the scaled scores of queries with keys, times the values, head by head.

    Attributes:
        query: (tokens, dim), head-major; `key` and `value` likewise.
        scores: (heads * tokens, tokens).
        output: (tokens, dim), head-major.
        heads: heads.
        score_shift: (1,), right, from products of queries and keys to scores, -`score_lift` at least; None where the
            arithmetic fixes it.
        attention_shift: (1,), from the units of the values to those of the output; None likewise.
    """

    query: Value
    key: Value
    value: Value
    scores: Value
    output: Value
    heads: int
    score_shift: Tensor | None
    attention_shift: Tensor | None

    @property
    def tokens(self) -> int:
        """Tokens of an image: rows of queries and of keys."""
        return self.query.rows

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.query.channels // self.heads

    @property
    def score_lift(self) -> int:
        """Most bits that products of queries and keys are shifted left, to become scores."""
        return score_lift(self.query.format.width)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.query, self.key, self.value)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.scores, self.output)

    @property
    def macs(self) -> int:
        """See `_Operation`."""
        return 2 * self.tokens**2 * self.query.channels


@dataclass(frozen=True, kw_only=True)
class Gate(Product):
    """Logits of the experts, the choice of `top_k` for every token, and their softmax weights.

    Attributes:
        logits: (tokens, experts).
        scores: (tokens, top_k).
        experts: experts to choose from.
        top_k: experts for a token.
        kind: how the weights are made of the logits.
    """

    logits: Value
    scores: Value
    experts: int
    top_k: int
    kind: GateKind

    @property
    def inputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.input,)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.logits, self.scores)

    @property
    def tasks(self) -> int:
        """Tasks, each with a bias of its own."""
        return self.bias.shape[0]

    def weight_index(self, task: int) -> Index:
        """Place of a task's weights, and of what scales their sums: tasks may share them."""
        return (task if self.weight.shape[0] > 1 else 0,)

    @staticmethod
    def bias_index(task: int) -> Index:
        """Place of a task's bias."""
        return (task,)


@dataclass(frozen=True, kw_only=True)
class Experts(_Operation):
    """The chosen experts' MLPs, each on the tokens that chose it, weighted and added to the residual stream.

    Attributes:
        fc1: the first layer of every expert.
        fc2: the second layer of every expert.
        scores: (tokens, top_k) weights of the chosen experts.
        experts: experts.
        top_k: experts for a token.
    """

    fc1: Linear
    fc2: Linear
    scores: Value
    experts: int
    top_k: int

    @property
    def hidden(self) -> Value:
        """Values between the two layers, (tokens, top_k, hidden_dim) in a trace."""
        return self.fc1.output

    @property
    def output(self) -> Value:
        """The residual stream."""
        return self.fc2.output

    @property
    def stream(self) -> Value:
        """The residual stream that the results are added to."""
        assert self.fc2.added is not None
        return self.fc2.added

    @property
    def inputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.fc1.input, self.scores, self.stream)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """See `_Operation`."""
        return (self.hidden, self.output)

    @property
    def macs(self) -> int:
        """See `_Operation`."""
        return self.top_k * (self.fc1.macs + self.fc2.macs)


Operation = Embed | Norm | Linear | Attention | Gate | Experts
AnOperation = TypeVar("AnOperation", bound=Operation)
Program = tuple[Operation, ...]


# --- What folds over a program share ------------------------------------------------------------------------


def of_type(operations: Iterable[Operation], kind: type[AnOperation]) -> tuple[AnOperation, ...]:
    """The operations of one type."""
    return tuple(op for op in operations if isinstance(op, kind))


def linears(operations: Iterable[Operation]) -> Iterator[Linear]:
    """Every linear layer, those of the embedding and of experts among them."""
    for op in operations:
        match op:
            case Linear():
                yield op
            case Embed():
                yield op.patch
            case Experts():
                yield op.fc1
                yield op.fc2


def products(operations: Iterable[Operation]) -> Iterator[Linear | Gate]:
    """Every operation with weights: linear layers and gates."""
    for op in operations:
        if isinstance(op, Gate):
            yield op
        else:
            yield from linears((op,))


def tensors(operations: Iterable[Operation]) -> dict[str, Tensor]:
    """Every tensor of a Design by its name, in the order of the operations."""
    found: dict[str, Tensor] = {}
    for op in operations:
        for tensor in op.tensors:
            found |= {each.name: each for each in (tensor, tensor.frac) if each is not None}
    return found


def values(operations: Iterable[Operation]) -> dict[str, Value]:
    """Every value that an operation writes, by its name, in the order in which they are computed."""
    return {value.name: value for op in operations for value in op.outputs}


def blocks(operations: Iterable[Operation]) -> dict[int, Program]:
    """The operations of every block by its number."""
    grouped = groupby(operations, key=lambda op: op.layer)
    return {layer: tuple(ops) for layer, ops in grouped if layer is not None}


def macs(operations: Iterable[Operation]) -> int:
    """Multiply-accumulates for one image and one task."""
    return sum(op.macs for op in operations)


# --- The network --------------------------------------------------------------------------------------------


def program(spec: ModelSpec, precision: Precision = PRESETS["w16a16"]) -> Program:
    """The network of that shape.

    Args:
        spec: shape of the network.
        precision: widths and arithmetic; names, sizes and sources depend on the shape alone.

    Raises:
        InputError: an activation function that the arithmetic does not have.
    """
    known = arithmetic_of(precision).activations
    if spec.activation not in known:
        raise InputError(
            f"precision {precision.name} has no activation function {spec.activation}, only {', '.join(sorted(known))}",
            hint="choose w16a16 or w8a8, which have them all",
        )
    embed = _Builder(spec, precision, None).embed()
    operations: list[Operation] = [embed]
    stream = embed.output
    for layer in range(spec.depth):
        block = _Builder(spec, precision, layer)
        operations += block.attention(stream)
        stream = operations[-1].outputs[-1]
        moe = spec.moe if layer in spec.moe_layers else None
        operations += block.mlp(stream) if moe is None else block.experts(stream, moe)
        stream = operations[-1].outputs[-1]
    return tuple(operations)


class _Builder:
    """Makes the operations of a block, or of what comes before all blocks."""

    def __init__(self, spec: ModelSpec, precision: Precision, layer: int | None) -> None:
        self.spec, self.precision, self.layer = spec, precision, layer
        self.arithmetic = arithmetic_of(precision)
        self.formats = self.arithmetic.formats(precision, spec.dim)

    def name(self, part: str) -> str:
        return name_of(self.layer, part)

    def value(
        self, part: str, kind: Kind, channels: int, *, rows: int = 0, groups: int = 1, scales: int = 0
    ) -> Value:
        rows, fmt = rows or self.spec.tokens, self.formats[kind]
        return Value(self.layer, part, kind, rows, channels, fmt, groups, scales)

    def stream(self, part: str) -> Value:
        return self.value(part, Kind.STREAM, self.spec.dim)

    def scale(self, part: str, dtype: DTypeLike, shape: tuple[int, ...] = (1,)) -> Tensor | None:
        return self.arithmetic.scale(self.name(part), shape, dtype)

    def scaling(self, part: str, shape: tuple[int, ...]) -> Scaling | None:
        shift = self.scale(f"{part}.shift", np.uint8, shape)
        if shift is None:
            return None
        with_multipliers = self.precision.multipliers
        return Scaling(
            self.scale(f"{part}.multiplier", np.uint16, shape) if with_multipliers else None, shift
        )

    def parameter(
        self, part: str, role: Role, width: int, shape: tuple[int, ...], source: Source | None
    ) -> Tensor:
        return self.arithmetic.parameter(self.name(part), shape, role, width, source)

    def embed(self) -> Embed:
        spec = self.spec
        output, shape = self.stream("embed"), (spec.tokens, spec.dim)
        patch = self.linear(
            "patch",
            self.value("pixels", Kind.PIXEL, spec.patch_values, rows=spec.patches),
            (output,),
            Destination.RESIDUAL,
            Source("patch_embed.weight", (spec.dim, spec.in_channels, spec.patch_size, spec.patch_size)),
            Source("patch_embed.bias", (spec.dim,)),
            added=self.stream("position"),
            roles=(Role.PATCH_WEIGHT, Role.LINEAR_BIAS),
        )
        return Embed(
            layer=None,
            part="embed",
            patch=patch,
            position=self.parameter(
                "position", Role.POSITION, POSITION_WIDTH, shape, Source("pos_embed", shape)
            ),
            prefix=spec.prefix_tokens,
            patch_size=spec.patch_size,
            output=output,
        )

    def attention(self, stream: Value) -> tuple[Norm, Linear, Attention, Linear]:
        spec, dim, heads = self.spec, self.spec.dim, self.spec.heads
        norm = self.norm("norm1", stream)
        kinds = {"q": Kind.QUERY, "k": Kind.KEY, "v": Kind.VALUE, "attention": Kind.MIXED}
        q, k, v, mixed = (
            self.value(part, kind, dim, groups=heads, scales=dim) for part, kind in kinds.items()
        )
        roles = (Role.LINEAR_WEIGHT, Role.ATTENTION_BIAS)
        qkv = self.linear(
            "qkv",
            norm.output,
            (q, k, v),
            Destination.HEADS,
            Source(self.name("attn.qkv.weight"), (3 * dim, dim)),
            Source(self.name("attn.qkv.bias"), (3 * dim,)) if spec.qkv_bias else None,
            roles=roles,
        )
        attention = Attention(
            layer=self.layer,
            part="attention",
            query=q,
            key=k,
            value=v,
            scores=self.value("scores", Kind.SCORE, spec.tokens, rows=heads * spec.tokens),
            output=mixed,
            heads=heads,
            score_shift=self.scale("score_shift", np.int8),
            attention_shift=self.scale("attention_shift", np.int8),
        )
        proj = self.linear(
            "proj",
            mixed,
            (self.stream("attn_residual"),),
            Destination.RESIDUAL,
            Source(self.name("attn.proj.weight"), (dim, dim)),
            Source(self.name("attn.proj.bias"), (dim,)),
            added=stream,
            roles=roles,
        )
        return norm, qkv, attention, proj

    def mlp(self, stream: Value) -> tuple[Norm, Linear, Linear]:
        norm = self.norm("norm2", stream)
        return norm, *self.layers("mlp", norm.output, stream, self.spec.mlp_dim, None)

    def experts(self, stream: Value, moe: MoeSpec) -> tuple[Norm, Gate, Experts]:
        gate_input = self.value("gate_input", Kind.GATE_INPUT, self.spec.dim)
        norm = self.norm("norm2", stream, gate_input)
        gate = self.gate(gate_input, moe)
        fc1, fc2 = self.layers("moe", norm.output, stream, moe.hidden_dim, moe.experts)
        experts = Experts(
            layer=self.layer,
            part="experts",
            fc1=fc1,
            fc2=fc2,
            scores=gate.scores,
            experts=moe.experts,
            top_k=moe.top_k,
        )
        return norm, gate, experts

    def norm(self, part: str, stream: Value, gate_input: Value | None = None) -> Norm:
        shape = (self.spec.dim,)

        def parameter(tensor: str, role: Role, source: str) -> Tensor:
            made_from = Source(self.name(f"{part}.{source}"), shape)
            return self.parameter(f"{part}.{tensor}", role, NORM_WEIGHT_WIDTH, shape, made_from)

        return Norm(
            layer=self.layer,
            part=part,
            input=stream,
            output=self.value(part, Kind.NORMED, self.spec.dim, scales=self.spec.dim),
            gate_output=gate_input,
            gamma=parameter("gamma", Role.GAMMA, "weight"),
            beta=parameter("beta", Role.BETA, "bias"),
            epsilon=self.arithmetic.scale("epsilon", (1,), np.int64),
            shift=self.scale(f"{part}.shift", np.uint8),
            gate_shift=None if gate_input is None else self.scale(f"{part}.gate_shift", np.uint8),
        )

    def layers(
        self, source: str, operand: Value, stream: Value, hidden_dim: int, experts: int | None
    ) -> tuple[Linear, Linear]:
        """Both layers of an MLP, or of all experts', whose names in a Model begin with `source`."""
        dim, each = self.spec.dim, () if experts is None else (experts,)
        hidden = self.value("hidden", Kind.HIDDEN, hidden_dim, scales=experts or 1)
        fc1 = self.linear(
            "fc1",
            operand,
            (hidden,),
            Destination.HIDDEN,
            Source(self.name(f"{source}.fc1.weight"), (*each, hidden_dim, dim)),
            Source(self.name(f"{source}.fc1.bias"), (*each, hidden_dim)),
            experts=experts,
        )
        fc2 = self.linear(
            "fc2",
            hidden,
            (self.stream("output"),),
            Destination.RESIDUAL if experts is None else Destination.EXPERT,
            Source(self.name(f"{source}.fc2.weight"), (*each, dim, hidden_dim)),
            Source(self.name(f"{source}.fc2.bias"), (*each, dim)),
            added=stream,
            experts=experts,
        )
        return fc1, fc2

    def linear(
        self,
        part: str,
        operand: Value,
        results: tuple[Value, ...],
        destination: Destination,
        weight: Source,
        bias: Source | None,
        *,
        added: Value | None = None,
        experts: int | None = None,
        roles: tuple[Role, Role] = (Role.LINEAR_WEIGHT, Role.LINEAR_BIAS),
    ) -> Linear:
        width, each = self.precision.weight_width, () if experts is None else (experts,)
        outputs = (*each, sum(value.channels for value in results))
        activation = None
        if destination is Destination.HIDDEN:
            scales = each or (1,)
            activation = Activated(
                ACTIVATIONS[self.spec.activation],
                self.scaling("hidden", scales),
                self.scale("hidden.zero", np.int32, scales),
            )
        return Linear(
            layer=self.layer,
            part=part,
            input=operand,
            results=results,
            destination=destination,
            added=added,
            weight=self.parameter(f"{part}.weight", roles[0], width, (*outputs, operand.channels), weight),
            bias=self.parameter(f"{part}.bias", roles[1], width, outputs, bias),
            scaling=self.scaling(part, outputs),
            weight_width=width,
            activation=activation,
            experts=experts,
        )

    def gate(self, gate_input: Value, moe: MoeSpec) -> Gate:
        tasks, width = len(self.spec.tasks), self.precision.gate_width
        shape, biases = (1 if moe.shared_gate else tasks, moe.experts, self.spec.dim), (tasks, moe.experts)
        weight = Source(self.name("moe.gate.weight"), shape)
        bias = Source(self.name("moe.gate.bias"), biases) if moe.gate_bias else None
        return Gate(
            layer=self.layer,
            part="gate",
            input=gate_input,
            weight=self.parameter("gate.weight", Role.GATE_WEIGHT, width, shape, weight),
            bias=self.parameter("gate.bias", Role.GATE_BIAS, width, biases, bias),
            scaling=self.scaling("gate", shape[:-1]),
            weight_width=width,
            logits=self.value("logits", Kind.LOGIT, moe.experts),
            scores=self.value("gate_scores", Kind.PROBABILITY, moe.top_k),
            experts=moe.experts,
            top_k=moe.top_k,
            kind=moe.gate_kind,
        )
