"""Every array that the generated C++ keeps on chip, and the shape of memory that the tool should choose for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from codegen.architecture import PRODUCT_SHIFT, RECORD_BYTES, Architecture, ceil_div, smallest
from codegen.context import IMPLEMENTATIONS, SMALL_TABLE, function_tables, storage
from codegen.hardware import MemoryKind
from pysim.arithmetic import ICCAD23
from pysim.datapath import (
    ACCUMULATOR_LIMIT,
    EXPONENTIAL,
    MANTISSA_FRAC,
    NORM_WEIGHT_WIDTH,
    PROBABILITY,
    SCORE,
)
from pysim.kernels.iccad23 import FEATURE
from pysim.tables import PiecewiseLinear

KINDS: Final[dict[str, MemoryKind]] = {name: kind for kind, name in IMPLEMENTATIONS.items()}
"""Kind of a memory, by the name that `bind_storage` has for it."""

LUTRAM_DEPTH: Final = 64
"""Words of a LUT used as memory; memories up to this depth are built of LUTs, unless the code says otherwise."""

ULTRA_WORDS: Final = 4096
"""Words of an ultra RAM, whose two ports each read or write one a cycle (UG573)."""

ULTRA_BITS: Final = 72
"""Bits of its words."""

BRAM18_SHAPES: Final = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Words and bits of half a BRAM36 with a port to read and a port to write (UG573)."""

WEIGHT_BURST: Final = 64
"""Beats of a burst of a weight port, as its pragma says."""
DEFAULT_BURST: Final = 16
"""Beats of a burst of the other ports: the tool's default."""
OUTSTANDING: Final = 16
"""Bursts that a port may have asked for: the tool's default too."""
WEIGHT_OUTSTANDING: Final = 8
"""The same of a weight port, as its pragma says: 512 beats under way, six times the latency of memory."""
STROBE_BITS: Final = 9
"""Bits that a byte takes in the buffer of a port that writes: its strobe with it."""


JOB_BITS: Final = 128
"""Bits of a job in the C++, as far as they vary: 66 to 131 in the networks of the zoo."""


@dataclass(frozen=True)
class Memory:
    """One array on chip.

    Attributes:
        name: what it holds.
        copies: how many of them, for example banks.
        depth: words of one copy.
        width: bits of a word.
        variable: its name in the C++; empty where the tool makes it.
        bound: `lutram`, `bram` or `uram`, where a pragma says what to build it of.
        field: the field of `Hardware` that decides so; empty where none does.
        two_readers: whether both ports read, so that a block RAM is at most half as wide.
    """

    name: str
    copies: int
    depth: int
    width: int
    variable: str = ""
    bound: str = ""
    two_readers: bool = False
    field: str = ""

    @property
    def kind(self) -> MemoryKind:
        """Kind of memory: because a pragma says so, or by its depth."""
        if self.bound:
            return KINDS[self.bound]
        return "lut" if self.depth <= LUTRAM_DEPTH else "block"

    @property
    def shape(self) -> tuple[int, int]:
        """Words and bits of the half blocks that hold it with the fewest of them, the widest such shape."""
        return min(self._shapes, key=self._blocks)

    @property
    def _shapes(self) -> tuple[tuple[int, int], ...]:
        return BRAM18_SHAPES[1:] if self.two_readers else BRAM18_SHAPES

    def _blocks(self, shape: tuple[int, int]) -> int:
        return ceil_div(self.depth, shape[0]) * ceil_div(self.width, shape[1])

    def cost(self, kind: MemoryKind) -> tuple[int, int, int]:
        """Halves of a 36 Kb block, ultra RAMs and LUTs that it takes if it is built so, over all copies.

        Block RAM takes the shape that needs fewest. Of LUTs, eight hold 64 words of seven bits with a port of their own
        for writing; a deeper memory has several, and a LUT a bit that chooses between two of them.
        """
        if kind == "ultra":
            each = ceil_div(self.depth, ULTRA_WORDS) * ceil_div(self.width, ULTRA_BITS)
            return 0, self.copies * each, 0
        if kind == "block":
            return self.copies * smallest(*map(self._blocks, self._shapes)), 0, 0
        deep = ceil_div(self.depth, LUTRAM_DEPTH)
        return 0, 0, self.copies * (deep * ceil_div(self.width * 8, 7) + (deep - 1) * self.width)

    @property
    def bram18(self) -> int:
        """Halves of a 36 Kb block, over all copies."""
        return self.cost(self.kind)[0]

    @property
    def uram(self) -> int:
        """Ultra RAMs, over all copies."""
        return self.cost(self.kind)[1]

    @property
    def luts(self) -> int:
        """LUTs, over all copies."""
        return self.cost(self.kind)[2]

    @property
    def built_as(self) -> str:
        """The shape that the tool should choose, for people."""
        if self.kind == "lut":
            return f"LUT memory, {self.luts:,} LUTs"
        banks = f"{self.copies} x " if self.copies > 1 else ""
        if self.kind == "ultra":
            return f"{banks}{self.uram // self.copies} ultra RAM of {ULTRA_WORDS} x {ULTRA_BITS}"
        words, bits = self.shape
        each = self.bram18 // self.copies
        return f"{banks}{each} BRAM18 of {words} x {bits}"


@dataclass(frozen=True)
class Widths:
    """Bits of what the engines multiply and store, by arithmetic."""

    activation: int
    attention: int
    gate: int
    exponential: int
    product: int
    """Bits of an operand of the linear engine, as it enters a multiplier."""
    score: int
    maximum: int
    """Bits of a running maximum of scores."""
    softmax_sum: int
    weighted: int
    """Bits of a value of the attention engine, as far as it is summed."""
    divisor: int
    """Bits of the number by which a token's exponentials are divided."""
    probability: int

    @classmethod
    def of(cls, architecture: Architecture) -> Widths:
        """The widths of an architecture's arithmetic."""
        precision = architecture.precision
        if architecture.network.arithmetic is ICCAD23:
            feature = FEATURE.width
            return cls(
                activation=feature,
                attention=feature,
                gate=feature,
                exponential=feature,
                product=feature + PRODUCT_SHIFT,
                score=feature,
                maximum=feature,
                softmax_sum=feature,
                weighted=feature,
                divisor=feature,
                probability=feature,
            )
        return cls(
            activation=architecture.operand_width,
            attention=precision.attention_width,
            gate=precision.gate_width,
            exponential=EXPONENTIAL.width + 1,
            product=architecture.operand_width,
            score=SCORE.width,
            maximum=SCORE.width - SCORE.frac + 1,
            softmax_sum=architecture.softmax_sum_bits,
            weighted=EXPONENTIAL.width
            + precision.attention_width
            + (architecture.capacities.max_tokens - 1).bit_length()
            + 1,
            divisor=MANTISSA_FRAC + 1 + 6,
            probability=PROBABILITY.width,
        )


def table_memory(table: PiecewiseLinear, copies: int, bound: str = "") -> Memory:
    """A function's table, base and slope side by side in a word a segment; each reader has a copy."""
    return Memory(
        f"table {table.name}",
        copies,
        len(table.base),
        table.word_bits,
        table.name.upper(),
        bound,
        field="table_memory" if len(table.base) > SMALL_TABLE else "",
    )


def memories(architecture: Architecture) -> dict[str, list[Memory]]:
    """Every array of a Design's kernel, by the engine that it belongs to.

    What several engines read and write is under `activations`, the buffers of the AXI ports under `ports`.
    """
    return {name: held for name in _ARRAYS if (held := engine_memories(architecture, name))}


def engine_memories(architecture: Architecture, engine: str) -> list[Memory]:
    """Arrays of one engine; none of an engine that has none, or that the network lacks."""
    return _ARRAYS[engine](architecture) if engine in _ARRAYS else []


def _activations(architecture: Architecture) -> list[Memory]:
    lanes, most, bound = architecture.lanes, architecture.capacities, storage(architecture)
    attention = lanes * Widths.of(architecture).attention
    words = most.rows * most.max_token_words
    residual = lanes * architecture.network.residual_width
    heads = most.rows * most.max_mixed_words
    return [
        # LayerNorm reads two words a cycle.
        Memory(
            "residual stream",
            1,
            words,
            residual,
            "residual",
            bound.residual,
            two_readers=True,
            field="residual_memory",
        ),
        Memory(
            "queries, keys, values",
            3,
            heads,
            attention,
            "q, k, v",
            bound.heads,
            field="head_memory",
        ),
    ]


def _linear(architecture: Architecture) -> list[Memory]:
    lanes, hardware = architecture.lanes, architecture.hardware
    precision, widths, bound = architecture.precision, Widths.of(architecture), storage(architecture)
    weights = architecture.beat_bytes // architecture.weight_bytes
    record = ACCUMULATOR_LIMIT + 8 * RECORD_BYTES - architecture.bias_bits
    most = architecture.capacities
    rows = ceil_div(most.rows, hardware.token_tile) * most.max_row_words
    return [
        Memory(
            "weight halves",
            2 * architecture.word_beats,
            hardware.weight_rows,
            weights * precision.weight_width,
            "ping_weights, pong_weights",
            bound.weights,
            field="weight_memory",
        ),
        Memory(
            "record halves",
            2 * architecture.outputs,
            most.max_group,
            record,
            "ping_records, pong_records",
            "lutram",
        ),
        Memory(
            "operands",
            hardware.token_tile,
            rows,
            lanes * widths.activation,
            "operands",
            bound.operands,
            field="operand_memory",
        ),
    ]


def _write_back(architecture: Architecture) -> list[Memory]:
    delta = architecture.network.activation.delta
    if delta is None:
        return []
    bound = storage(architecture).tables[delta.name]
    (table,) = (table for table in function_tables(architecture) if table.name == delta.name)
    return [table_memory(table, architecture.lanes, bound)]


def _attention(architecture: Architecture) -> list[Memory]:
    lanes, most = architecture.lanes, architecture.capacities
    tokens, words = most.max_tokens, most.max_head_words
    widths = Widths.of(architecture)
    slots = smallest(architecture.hardware.attention_rows, tokens)
    return [
        Memory(
            "attention scores",
            slots,
            tokens,
            widths.score,
            "scores",
            storage(architecture).scores,
            field="score_memory",
        ),
        Memory("query rows", slots, words, lanes * widths.attention, "query", "lutram"),
        Memory("weighted values", slots, words, lanes * widths.weighted, "weighted", "lutram"),
    ]


def _layernorm(architecture: Architecture) -> list[Memory]:
    parameters = architecture.lanes * (NORM_WEIGHT_WIDTH + ACCUMULATOR_LIMIT)
    total = architecture.network.residual_width + architecture.spec.dim.bit_length()
    statistics = (
        2 * FEATURE.width if architecture.network.arithmetic is ICCAD23 else total + MANTISSA_FRAC + 1 + 6
    )
    return [
        Memory("norm parameters", 1, architecture.capacities.max_token_words, parameters, "norm", "lutram"),
        Memory("norm statistics", 1, architecture.norm_lag + 1, statistics, "statistics", "lutram"),
    ]


def _jobs(architecture: Architecture) -> list[Memory]:
    """The job table, of whose numbers the tool keeps the bits that any job needs."""
    return [
        Memory("job table", 1, architecture.capacities.max_jobs, JOB_BITS, "JOBS", storage(architecture).jobs)
    ]


def _router(architecture: Architecture) -> list[Memory]:
    lanes, tokens, experts = architecture.lanes, architecture.batch_tokens, architecture.experts
    words, moe = architecture.token_words, architecture.spec.moe
    if moe is None or not architecture.spec.moe_layers:
        return []
    precision, widths = architecture.precision, Widths.of(architecture)
    groups, choices = architecture.gate_groups, storage(architecture).choices
    return [
        Memory(
            "router's tokens",
            1,
            tokens * words,
            lanes * widths.gate,
            "gate_input",
            storage(architecture).gate_input,
            field="gate_memory",
        ),
        Memory(
            "gate weights",
            1,
            groups * words,
            architecture.router_lanes * lanes * precision.gate_width,
            "gate_weights",
        ),
        Memory(
            "logits",
            architecture.router_lanes,
            groups * tokens,
            widths.score,
            "logits",
            choices,
            field="choice_memory",
        ),
        Memory(
            "best experts",
            1,
            tokens,
            moe.top_k * (widths.score + (experts - 1).bit_length()),
            "best",
            choices,
            field="choice_memory",
        ),
        Memory(
            "softmax of a token",
            1,
            tokens,
            widths.maximum + widths.softmax_sum,
            "pass",
            choices,
            field="choice_memory",
        ),
        Memory(
            "divisor of a token",
            1,
            tokens,
            widths.divisor,
            "divisor",
            choices,
            field="choice_memory",
        ),
        Memory("queues: tokens", 1, experts * tokens, tokens.bit_length(), "queues.token"),
        Memory("queues: scores", 1, experts * tokens, widths.probability, "queues.score"),
    ]


def _ports(architecture: Architecture) -> list[Memory]:
    hardware = architecture.hardware
    ports, width, short = hardware.weight_ports, hardware.axi_width, OUTSTANDING * DEFAULT_BURST
    return [
        Memory("weight ports", ports, WEIGHT_OUTSTANDING * WEIGHT_BURST, width),
        Memory("image port", 1, short, width),
        Memory("output port", 1, short, width // 8 * STROBE_BITS),
    ]


_ARRAYS: Final[Mapping[str, Callable[[Architecture], list[Memory]]]] = {
    "activations": _activations,
    "linear": _linear,
    "write-back": _write_back,
    "attention": _attention,
    "layernorm": _layernorm,
    "jobs": _jobs,
    "ports": _ports,
    "router": _router,
}
"""Arrays of each engine."""
