"""A network on a Hardware: sizes of its memories and the layout of its weight image.

Channels are handled in words of `lanes` lanes. Everything that the generated C++, the weight image and
the estimate have in common is computed here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import accumulate, groupby
from typing import Final, assert_never

import numpy as np

from codegen.hardware import Hardware, hardware_id
from common.capacities import Capacities
from common.errors import InputError
from pysim.arithmetic import ICCAD23, REQUANTISE, Arithmetic, Kind
from pysim.datapath import EXPONENTIAL, MULTIPLIER_WIDTH, score_lift
from pysim.iccad23_quantizer import ORIGINAL_FRAC
from pysim.network import Network
from pysim.precision import Precision
from pysim.program import (
    Attention,
    Embed,
    Experts,
    Gate,
    Index,
    Linear,
    Norm,
    Operation,
    Program,
    Value,
    linears,
    name_of,
    of_type,
)
from pysim.spec import ModelSpec

RECORD_BYTES = 8
"""Bias, multiplier and shift of one output channel."""
NORM_RECORD_BYTES = 16
"""gamma and beta of one channel."""
HEADER_BYTES = 8
"""Bytes of the header of the weight image, which all layers share."""
HEADER_BEATS = 1
SETTING_BYTES = 4
POSITION_BYTES = 4
OUTPUT_BYTES = 4
JOB_BYTES = 64
"""Record of a job in the first section of the weight image."""
SHIFT_BITS = 8
SOFTMAX_CYCLES = 4
"""Cycles of the recurrence of the single-pass softmax: its sum is shifted (or multiplied), rounded and added to."""
NORM_LATENCY: Final[Mapping[Arithmetic, int]] = {REQUANTISE: 32, ICCAD23: 96}
"""Cycles from the last channel of a token to its reciprocal standard deviation: by a table, or bit by bit."""
PRODUCT_SHIFT = ORIGINAL_FRAC["linear_weight"]
"""Right shift of the products of the iccad23 arithmetic, whose operands are aligned to it: no weight is finer."""
PACK_BITS = 18
"""Distance of two weights that share a DSP slice: the bits of its narrow port, and so of the lower sum."""
MAX_CHAIN = 4
"""Most packed products that are summed before they are split: more would lengthen the cascade and save little."""
INDEX_BITS = 16
"""Bits of the RTL kernels' numbers of tokens, experts and ranks."""
COUNT_LIMIT = 1 << 31
"""The generated C++ counts with `int`: nothing may have as many words or beats."""


def ceil_div(value: int, divisor: int) -> int:
    """Quotient rounded up; of arrays, element by element."""
    return -(-value // divisor)


def smallest(*values: int) -> int:
    """The smallest of some numbers; of arrays, element by element."""
    if any(isinstance(value, np.ndarray) for value in values):
        return reduce(np.minimum, values)
    return min(values)


def largest(*values: int) -> int:
    """The largest of some numbers; of arrays, element by element."""
    if any(isinstance(value, np.ndarray) for value in values):
        return reduce(np.maximum, values)
    return max(values)


def stored_bytes(width: int) -> int:
    """Bytes that store a number of `width` bits: 1, 2 or 4, so that none straddles two beats."""
    return 1 << (ceil_div(width, 8) - 1).bit_length()


def attention_steps(tokens: int, attention_rows: int) -> int:
    """Steps of an attention head, each with one key.

    Every block takes two turns through the keys, the second while the next block takes its first; then the rows
    of the last block leave.
    """
    return (ceil_div(tokens, attention_rows) + 1) * tokens + (tokens - 1) % attention_rows + 1


def norm_lag(token_words: int, latency: int) -> int:
    """Tokens that LayerNorm's results lag behind its input, if its statistics take `latency` cycles."""
    return 1 + ceil_div(latency, token_words)


@dataclass(frozen=True)
class LinearShape:
    """One kind of linear layer as the engine sees it: operand words in, blocks of `outputs` channels out.

    The blocks are computed in groups, which take turns in the two halves of the weight buffer. Every layer has an even
    number of groups, so that the first one of the next layer always finds the first half free; the last groups may be
    smaller than the others, or empty.

    Attributes:
        in_words: operand words of a token.
        blocks: blocks of outputs.
        group: blocks in a group.
        pairs: pairs of groups.
        block_beats: beats of a block in the weight image: its records, then its weights.
        out_words: words of its results for a token.
    """

    in_words: int
    blocks: int
    group: int
    pairs: int
    block_beats: int
    out_words: int

    @property
    def group_beats(self) -> int:
        """Beats of a full group."""
        return self.group * self.block_beats

    @property
    def beats(self) -> int:
        """Beats of the layer."""
        return self.blocks * self.block_beats


@dataclass(frozen=True)
class Section:
    """A part of the weight image.

    Attributes:
        name: such as `blocks.3.fc1.7`.
        beats: its length.
        op: the operation whose parameters it holds; None for the job table, the header and a layer's settings.
        index: which expert's they are.
        layer: the layer whose settings it holds.
    """

    name: str
    beats: int
    op: Embed | Norm | Linear | Gate | None = None
    index: Index = ()
    layer: int | None = None


JOBS, HEADER = "jobs", "header"
"""Names of the sections that all layers share."""


def section_name(op: Linear, index: Index = ()) -> str:
    """Name of the section of a linear layer, or of one expert's."""
    return ".".join([op.name, *map(str, index)])


def job_name(op: Linear) -> str:
    """Kind of a linear layer: patch, qkv, proj, fc1, fc2, expert_fc1 or expert_fc2."""
    return op.part if op.experts is None else f"expert_{op.part}"


def job_count(program: Program) -> int:
    """Number of jobs of a network, on any hardware: those of its operations, and one that writes the output."""
    return sum(map(_job_count, program)) + 1


def _job_count(op: Operation) -> int:
    match op:
        case Embed():
            return 5
        case Norm() | Linear() | Attention() | Gate():
            return 1
        case Experts():
            return 1 + 3 * op.experts
        case _:
            assert_never(op)


def _requantise_settings(experts: int) -> tuple[str, ...]:
    common = ("norm1_shift", "norm2_shift", "gate_shift", "score_shift", "attention_shift")
    hidden = ("hidden_multiplier", "hidden_shift", "hidden_zero")
    return common + tuple(f"{name}_{expert}" for expert in range(experts) for name in hidden)


def _iccad23_settings(experts: int) -> tuple[str, ...]:
    return ("align", "norm_shift")


_SETTINGS: dict[Arithmetic, Callable[[int], tuple[str, ...]]] = {
    REQUANTISE: _requantise_settings,
    ICCAD23: _iccad23_settings,
}


def setting_names(arithmetic: Arithmetic, experts: int) -> tuple[str, ...]:
    """Names of a layer's scalar settings, in the order in which the weight image holds them."""
    return _SETTINGS[arithmetic](experts)


@dataclass(frozen=True)
class Architecture:
    """Sizes that follow from a network's shape and precision, and a Hardware; weights have no part in them.

    Attributes:
        network: shape and precision.
        hardware: how much of it there is.
        checked: whether hardware that cannot be built is refused. Without that, some sizes of the hardware may be
            arrays: sizes that follow from them, their memories and their resources are arrays as well. The search
            for the fastest hardware looks at many at once in this way.
    """

    network: Network
    hardware: Hardware
    checked: bool = field(default=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.checked:
            self._check_hardware()
            self._check_sizes()
            self._check_capacities()

    def _check_hardware(self) -> None:
        """Refuse hardware that the templates cannot build: each rule is a `static_assert` of theirs."""
        lanes, outputs, axi_width = self.lanes, self.outputs, self.hardware.axi_width
        if outputs % lanes:
            raise InputError(
                f"outputs = {outputs} is not a multiple of lanes = {lanes}",
                hint=f"the write-back works in words of lanes channels: choose outputs = {lanes} or "
                f"{lanes * ceil_div(outputs, lanes)}, or lanes that divide outputs",
            )
        if self.packed and outputs % 2:
            precision = self.precision
            raise InputError(
                f"outputs = {outputs} is odd: two outputs share a DSP slice where weights have "
                f"{precision.weight_width} bits and operands {self.operand_width}",
                hint=f"choose an even value for outputs, such as {2 * lanes}, or an even one for lanes",
            )
        if axi_width < 8 * RECORD_BYTES:
            raise InputError(
                f"axi_width = {axi_width}, expected at least {8 * RECORD_BYTES}",
                hint="the record of an output channel must not straddle two ports",
            )
        self.shapes  # noqa: B018 - too few weight rows are refused

    def _check_sizes(self) -> None:
        """Refuse a network that the numbers in the generated code cannot count."""
        most = (1 << INDEX_BITS) - 1
        most_experts = self.network.arithmetic.most_experts
        why = "the sum of a token's exponentials would wrap"
        if most_experts is None:
            most_experts, why = most, f"the router numbers them in {INDEX_BITS} bits"
            if self.batch_tokens > most:
                raise InputError(
                    f"{self.batch_tokens} tokens ({self.spec.tokens} an image, max_batch = "
                    f"{self.hardware.max_batch}), expected at most {most}",
                    hint="choose smaller images, larger patches or a smaller max_batch",
                )
        if self.experts > most_experts:
            raise InputError(
                f"moe.experts = {self.experts}, expected at most {most_experts}: {why}",
                hint="choose fewer experts",
            )
        for what, count in self._counts.items():
            if count >= COUNT_LIMIT:
                raise InputError(
                    f"the {what} would have {count} words, expected fewer than {COUNT_LIMIT}",
                    hint="choose a smaller network, a smaller max_batch or wider words (lanes, axi_width)",
                )

    def _check_capacities(self) -> None:
        """Refuse a network that the given capacities do not hold, and capacities of what has none."""
        hardware, given = self.hardware, self.hardware.given_capacities
        if hardware.backend == "rtl":
            if self.network.arithmetic is ICCAD23:
                raise InputError(
                    f"precision {self.precision.name}: the RTL accelerator has the arithmetic requantise, not iccad23",
                    hint="choose another precision, or --backend hls",
                )
            if hardware.device.xrt:
                raise InputError(
                    f"backend = rtl: not for boards of the family {hardware.family}, whose kernels XRT runs",
                    hint="choose --backend hls, or a board with a processor",
                )
            self.capacities.require(self.needs, self.spec.name)
            if self.capacities.rows >= 1 << INDEX_BITS:
                raise InputError(
                    f"max_tokens = {self.capacities.max_tokens} with max_batch = {hardware.max_batch}: "
                    f"{self.capacities.rows} tokens, expected fewer than {1 << INDEX_BITS}",
                    hint="choose a smaller max_tokens or max_batch",
                )
            return
        given.pop("max_batch", None)
        if given:
            raise InputError(
                f"{', '.join(given)}: capacities of an RTL accelerator, but backend = hls, which has the sizes of "
                "its network synthesised in",
                hint="choose --backend rtl, or leave them out",
            )

    @property
    def _counts(self) -> dict[str, int]:
        """Words, or beats, of the largest memories and of what lies in the board's memory."""
        tile = self.hardware.token_tile
        return {
            "weight image": self.sections["end"],
            "operand memory": ceil_div(self.batch_tokens, tile) * tile * self.regions["row"],
            "memory of queries": self.batch_tokens * self.mixed_words,
            "batch of images": self.batch_tokens * self.patch_words * self.pixel_beats,
            "result": self.batch_tokens * self.token_words * self.output_word_beats,
        }

    @cached_property
    def needs(self) -> Capacities:
        """Needs of the network: the least capacities that hold it."""
        moe = self.spec.moe if self.spec.moe_layers else None
        return Capacities(
            max_batch=self.hardware.max_batch,
            max_tokens=self.spec.tokens,
            max_token_words=self.token_words,
            max_head_words=self.head_words,
            max_mixed_words=self.mixed_words,
            max_row_words=self.regions["row"],
            max_experts=moe.experts if moe else 0,
            max_top_k=moe.top_k if moe else 0,
            max_tasks=len(self.spec.tasks),
            max_jobs=job_count(self.program),
            max_group=self.max_group,
        )

    @cached_property
    def capacities(self) -> Capacities:
        """The accelerator's capacities: those that the hardware gives, otherwise what the network needs."""
        return Capacities(**(self.needs.as_dict() | self.hardware.given_capacities))

    @property
    def built_hardware(self) -> Hardware:
        """The hardware as it is built, for this network or another: an RTL accelerator's has all its capacities."""
        rtl = self.hardware.backend == "rtl"
        return self.hardware.with_capacities(self.capacities) if rtl else self.hardware

    @property
    def hardware_id(self) -> str:
        """Identity of what is synthesised: the kernel reports it."""
        return hardware_id(self.network, self.built_hardware)

    @property
    def program_id(self) -> str:
        """Identity of what is done with any weights of the network: the hardware, and the network's shape."""
        shape = json.dumps(self.spec.shape(), sort_keys=True)
        return hashlib.sha256(f"{self.hardware_id} {shape}".encode()).hexdigest()[:16]

    @property
    def spec(self) -> ModelSpec:
        """Shape of the network."""
        return self.network.spec

    @property
    def precision(self) -> Precision:
        """Widths and options of the network."""
        return self.network.precision

    @property
    def arithmetic(self) -> str:
        """Name of the arithmetic of the engines: requantise or iccad23."""
        return self.precision.arithmetic

    @property
    def program(self) -> Program:
        """Operations of the network."""
        return self.network.program

    @property
    def lanes(self) -> int:
        """Channels in one word."""
        return self.hardware.lanes

    @property
    def outputs(self) -> int:
        """Channels in one block of outputs."""
        return self.hardware.outputs

    def words(self, channels: int) -> int:
        """Words that hold so many channels."""
        return ceil_div(channels, self.lanes)

    @property
    def token_words(self) -> int:
        """Words of one token of the residual stream."""
        return self.words(self.spec.dim)

    @property
    def head_words(self) -> int:
        """Words of one attention head: heads are padded to whole words."""
        return self.words(self.spec.head_dim)

    @property
    def mixed_words(self) -> int:
        """Words of one token of queries, keys, values or attention output."""
        return self.spec.heads * self.head_words

    @property
    def patch_words(self) -> int:
        """Words of one patch of pixels."""
        return self.words(self.spec.patch_values)

    @property
    def hidden_words(self) -> int:
        """Words of one token of the widest MLP or expert."""
        found = self.network.values.values()
        return max(self.value_words(value) for value in found if value.kind is Kind.HIDDEN)

    @cached_property
    def regions(self) -> dict[str, int]:
        """First word of each region of a token's row in the operand memory, and the length of a row.

        Pixels, attention's output and hidden values follow each other: what one layer reads, the next one no
        longer needs. They share a region.
        """
        norm, gathered = self.token_words, self.token_words if self.spec.moe_layers else 0
        shared = max(self.hidden_words, self.patch_words, self.mixed_words)
        starts = {"norm": 0, "gathered": norm, "hidden": norm + gathered, "mixed": norm + gathered}
        return starts | {"row": norm + gathered + shared}

    @property
    def batch_tokens(self) -> int:
        """Tokens of a whole batch."""
        return self.spec.tokens * self.hardware.max_batch

    @property
    def write_steps(self) -> int:
        """Words that the write-back of one tile takes."""
        return self.outputs // self.lanes * self.hardware.token_tile

    @property
    def beat_bytes(self) -> int:
        """Bytes that all weight ports deliver together in one cycle."""
        return self.hardware.weight_ports * self.hardware.axi_width // 8

    @property
    def score_lift(self) -> int:
        """Bits that products of queries and keys are shifted left first, whichever way they go then."""
        return score_lift(self.precision.attention_width)

    @property
    def attention_step(self) -> int:
        """Cycles that the attention engine spends on one key."""
        return max(self.head_words, SOFTMAX_CYCLES)

    @property
    def attention_steps(self) -> int:
        """Steps of an attention head."""
        return attention_steps(self.spec.tokens, self.hardware.attention_rows)

    @property
    def norm_lag(self) -> int:
        """Tokens from one that gives its sums to the one that is normalised meanwhile.

        The statistics of a token are due with the first word of the token so much later, which comes
        `(norm_lag - 1) * token_words + 1` cycles after its own last word.
        """
        return norm_lag(self.token_words, NORM_LATENCY[self.network.arithmetic])

    @property
    def pixel_offset(self) -> int:
        """Number that the kernel subtracts from every pixel."""
        (embed,) = of_type(self.program, Embed)
        return -embed.patch.input.format.min

    @property
    def bias_bits(self) -> int:
        """Bits of a bias in a channel's record."""
        return 8 * RECORD_BYTES - SHIFT_BITS - (MULTIPLIER_WIDTH if self.precision.multipliers else 0)

    @property
    def multiplier_bits(self) -> int:
        """Bits of an integer multiplier; 1 where the precision has none, and all are 1."""
        return MULTIPLIER_WIDTH if self.precision.multipliers else 1

    def value_words(self, value: Value) -> int:
        """Words of a row of a value; heads are padded one by one."""
        return value.groups * self.words(value.channels // value.groups)

    def shape(self, op: Linear) -> LinearShape:
        """Shape of a linear layer.

        Raises:
            InputError: half of the weight buffer does not hold a block of it.
        """
        rows, in_words = self.hardware.weight_rows, self.value_words(op.input)
        if self.checked and in_words > rows:
            raise InputError(
                f"weight_rows = {rows} do not hold one block of layer {job_name(op)}, "
                f"which has {in_words} operand words",
                hint="raise weight_rows or lanes",
            )
        out_words = sum(self.value_words(value) for value in op.results)
        blocks, most = ceil_div(out_words * self.lanes, self.outputs), rows // in_words
        if self.hardware.max_group is not None:
            most = smallest(most, self.hardware.max_group)
        pairs = ceil_div(blocks, 2 * most)
        block_beats = self.record_beats + in_words * self.word_beats
        return LinearShape(in_words, blocks, ceil_div(blocks, 2 * pairs), pairs, block_beats, out_words)

    @cached_property
    def shapes(self) -> dict[str, LinearShape]:
        """Shape of each kind of linear layer that the network has: of those that `job_name` gives."""
        kinds = {job_name(op): op for op in linears(self.program)}
        return {kind: self.shape(op) for kind, op in kinds.items()}

    @property
    def word_beats(self) -> int:
        """Beats of the weights that one operand word meets: lanes x outputs."""
        return ceil_div(self.lanes * self.outputs * self.weight_bytes, self.beat_bytes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of one stored weight."""
        return stored_bytes(self.precision.weight_width)

    @property
    def gate_bytes(self) -> int:
        """Bytes of one stored gate weight."""
        return stored_bytes(self.precision.gate_width)

    @property
    def record_beats(self) -> int:
        """Beats of the records of one block of outputs."""
        return ceil_div(self.outputs * RECORD_BYTES, self.beat_bytes)

    @property
    def max_group(self) -> int:
        """Blocks that half of the weight buffer holds at most."""
        return largest(*(shape.group for shape in self.shapes.values()))

    @property
    def max_blocks(self) -> int:
        """Blocks of a layer at most."""
        return max(shape.blocks for shape in self.shapes.values())

    @property
    def max_pairs(self) -> int:
        """Pairs of groups of a layer at most."""
        return max(shape.pairs for shape in self.shapes.values())

    @cached_property
    def operand_width(self) -> int:
        """Bits of an operand of the linear engine, which takes the pixels too: activations may have fewer."""
        (embed,) = of_type(self.program, Embed)
        return max(self.precision.activation_width, embed.patch.input.format.width)

    @property
    def packed(self) -> bool:
        """Whether two products share a DSP slice: both weights on its wide port, `PACK_BITS` apart."""
        precision = self.precision
        return (
            precision.weight_width + PACK_BITS + 1 <= self.hardware.device.wide_port
            and precision.weight_width + self.operand_width <= PACK_BITS
        )

    @property
    def sum_bits(self) -> int:
        """Bits of a sum of products of any linear layer, without its bias."""
        terms = max(op.weight.shape[-1] for op in linears(self.program))
        if self.hardware.backend == "rtl":
            # Of the longest row that it holds, whatever this network's is.
            terms = self.capacities.max_row_words * self.lanes
        return self.operand_width + self.precision.weight_width + (terms - 1).bit_length()

    @property
    def packed_chain(self) -> int:
        """Packed products that are summed before they are split: the lower sum must stay below the upper one.

        A product of extremes has `2**(weight + activation - 2)`; the lower field holds less than `2**(PACK_BITS - 1)`.
        """
        largest = 1 << (self.precision.weight_width + self.operand_width - 2)
        return min(MAX_CHAIN, ((1 << (PACK_BITS - 1)) - 1) // largest)

    @property
    def experts(self) -> int:
        """Experts of an MoE layer; 1 where the network has none, so that arrays have a size."""
        return self.spec.moe.experts if self.spec.moe else 1

    @property
    def top_k(self) -> int:
        """Experts that a token chooses; 1 where the network has none."""
        return self.spec.moe.top_k if self.spec.moe else 1

    @property
    def over_selected(self) -> bool:
        """Whether a token's gate scores are a softmax over the chosen experts instead of over all."""
        return self.spec.moe is not None and self.spec.moe.gate_kind.over_selected

    @property
    def softmax_keys(self) -> int:
        """Scores of the longest row of a softmax: keys of an image, or experts."""
        return max(self.capacities.max_tokens, self.capacities.max_experts)

    @property
    def softmax_sum_bits(self) -> int:
        """Bits of the sum of a row's exponentials, each at most 1."""
        return EXPONENTIAL.width + self.softmax_keys.bit_length()

    @property
    def gates(self) -> int:
        """Gates of an MoE layer: one a task, each with its own records."""
        return len(self.spec.tasks)

    @property
    def router_lanes(self) -> int:
        """Experts whose logits the router computes at once."""
        return self.hardware.router_lanes

    @property
    def gate_groups(self) -> int:
        """Groups of `router_lanes` experts."""
        return ceil_div(self.experts, self.router_lanes)

    @property
    def gate_word_beats(self) -> int:
        """Beats of the gate weights that one word of a token meets for one group."""
        return ceil_div(self.lanes * self.router_lanes * self.gate_bytes, self.beat_bytes)

    @property
    def gate_record_beats(self) -> int:
        """Beats of the records of one gate."""
        return ceil_div(self.gate_groups * self.router_lanes * RECORD_BYTES, self.beat_bytes)

    @property
    def gate_beats(self) -> int:
        """Beats of one task's gate: its records, then its weights."""
        return self.gate_record_beats + self.gate_groups * self.token_words * self.gate_word_beats

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of a layer's scalar settings, in the order in which the weight image holds them."""
        return setting_names(self.network.arithmetic, self.experts)

    @property
    def setting_beats(self) -> int:
        """Beats of a layer's settings."""
        return ceil_div(len(self.settings) * SETTING_BYTES, self.beat_bytes)

    @property
    def norm_word_beats(self) -> int:
        """Beats of the norm records of one word of channels."""
        return ceil_div(self.lanes * NORM_RECORD_BYTES, self.beat_bytes)

    @property
    def norm_beats(self) -> int:
        """Beats of a norm's records."""
        return self.token_words * self.norm_word_beats

    @property
    def position_word_beats(self) -> int:
        """Beats of one word of the position table."""
        return ceil_div(self.lanes * POSITION_BYTES, self.beat_bytes)

    @property
    def port_bytes(self) -> int:
        """Bytes of one beat of one memory port."""
        return self.hardware.axi_width // 8

    @property
    def pixel_beats(self) -> int:
        """Beats of one word of pixels."""
        return ceil_div(self.lanes, self.port_bytes)

    @property
    def output_word_beats(self) -> int:
        """Beats of one word of the result: 32-bit integers."""
        return ceil_div(self.lanes * OUTPUT_BYTES, self.port_bytes)

    @cached_property
    def layout(self) -> tuple[Section, ...]:
        """Sections of the weight image, in the order in which the kernel reads them.

        The job table comes first: the RTL accelerator reads it, the C++ has it as a constant.
        """
        return tuple(self._layout())

    def _layout(self) -> Iterator[Section]:
        yield Section(JOBS, ceil_div(job_count(self.program) * JOB_BYTES, self.beat_bytes))
        yield Section(HEADER, HEADER_BEATS)
        for layer, block in groupby(self.program, key=lambda op: op.layer):
            if layer is not None:
                yield Section(name_of(layer, "settings"), self.setting_beats, layer=layer)
            for op in block:
                match op:
                    case Embed():
                        position_beats = self.spec.tokens * self.token_words * self.position_word_beats
                        yield Section(op.position.name, position_beats, op)
                        yield self._section(op.patch)
                    case Norm():
                        yield Section(op.name, self.norm_beats, op)
                    case Linear():
                        yield self._section(op)
                    case Gate():
                        yield Section(op.name, op.tasks * self.gate_beats, op)
                    case Experts():
                        for index in op.fc1.indices:
                            yield self._section(op.fc1, index)
                            yield self._section(op.fc2, index)
                    case Attention():
                        pass  # it has settings only
                    case _:
                        assert_never(op)

    def _section(self, op: Linear, index: Index = ()) -> Section:
        return Section(section_name(op, index), self.shape(op).beats, op, index)

    @cached_property
    def sections(self) -> dict[str, int]:
        """First beat of every section of the weight image, and `end`, its length."""
        starts = accumulate((section.beats for section in self.layout), initial=0)
        return dict(zip([*(section.name for section in self.layout), "end"], starts, strict=True))
