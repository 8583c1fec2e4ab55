"""The network as a drawing: boxes with sizes and formats, one column for every kind of block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from pysim.program import Attention, Embed, Experts, Gate, Linear, Norm, Operation, Program, Value, blocks

BOX_WIDTH, BOX_HEIGHT = 250, 50
GAP = 22
MARGIN = 46
"""Room beside a column for the arrows of its residual connections."""


@dataclass(frozen=True)
class Box:
    """One operation of a column.

    Attributes:
        title: what it is.
        detail: its sizes.
        formats: of what it takes and gives.
        kind: class of the operation, in lower case, for its colour.
        y: of its upper edge.
    """

    title: str
    detail: str
    formats: str
    kind: str
    y: int


@dataclass(frozen=True)
class Skip:
    """A residual connection: from above a box to below another."""

    start: int
    end: int


@dataclass(frozen=True)
class Column:
    """A kind of block.

    Attributes:
        title: which blocks are of this kind.
        boxes: from top to bottom.
        skips: residual connections.
        height: of the drawing.
    """

    title: str
    boxes: tuple[Box, ...]
    skips: tuple[Skip, ...]
    height: int

    @property
    def width(self) -> int:
        """Width of the drawing."""
        return BOX_WIDTH + 2 * MARGIN


def columns(program: Program) -> list[Column]:
    """A column for the embedding and for every kind of block that the network has."""
    embed = [op for op in program if op.layer is None]
    kinds: dict[tuple[object, ...], list[int]] = {}
    by_layer = blocks(program)
    for layer, operations in by_layer.items():
        kinds.setdefault(tuple(_kind_of(op) for op in operations), []).append(layer)
    found = [_column("Embedding", embed)]
    for layers in kinds.values():
        title = f"{'Block' if len(layers) == 1 else 'Blocks'} {', '.join(map(str, layers))}"
        found.append(_column(title, by_layer[layers[0]]))
    return found


def _kind_of(op: Operation) -> tuple[object, ...]:
    return (op.part, *((value.part, value.rows, value.channels, value.format) for value in op.outputs))


def _column(title: str, operations: Sequence[Operation]) -> Column:
    boxes, skips, y = [], [], GAP
    begin = y
    for op in operations:
        if isinstance(op, Norm):
            begin = y - GAP // 2
        boxes.append(Box(_title(op), _detail(op), _formats(op), type(op).__name__.lower(), y))
        y += BOX_HEIGHT + GAP
        if _adds(op):
            skips.append(Skip(begin, y - GAP // 2))
    return Column(title, tuple(boxes), tuple(skips), y)


def _adds(op: Operation) -> bool:
    return isinstance(op, Experts) or (isinstance(op, Linear) and op.added is not None)


def _title(op: Operation) -> str:
    match op:
        case Embed():
            return f"patches of {op.patch_size}x{op.patch_size}, positions"
        case Norm():
            return f"LayerNorm ({op.part})"
        case Linear(activation=None):
            return f"linear ({op.part})"
        case Linear(activation=activation):
            assert activation is not None
            return f"linear ({op.part}), {activation.function.name}"
        case Attention():
            return f"attention, {op.heads} heads"
        case Gate():
            return f"router: {op.top_k} of {op.experts} experts"
        case Experts():
            return f"{op.experts} experts, {op.top_k} a token"
        case _:
            assert_never(op)


def _detail(op: Operation) -> str:
    match op:
        case Embed():
            return f"{op.patch.input.channels} to {op.output.channels}, {op.output.rows} tokens"
        case Norm():
            return f"{op.input.rows} tokens of {op.input.channels}"
        case Linear() | Gate():
            outputs, inputs = op.weight.shape[-2:]
            return f"{inputs} to {outputs}, {op.weight_width}-bit weights"
        case Attention():
            return f"{op.tokens} tokens, {op.head_dim} channels a head"
        case Experts():
            inner = op.hidden.channels
            return f"{op.fc1.input.channels} to {inner} to {op.output.channels}, {op.fc1.weight_width}-bit weights"
        case _:
            assert_never(op)


def _formats(op: Operation) -> str:
    taken, given = ({_bits(value) for value in values} for values in (op.inputs, op.outputs))
    return f"{' / '.join(sorted(taken))} in, {' / '.join(sorted(given))} out"


def _bits(value: Value) -> str:
    return f"{'' if value.format.signed else 'u'}int{value.format.width}"
