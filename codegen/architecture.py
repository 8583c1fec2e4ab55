"""The hardware of a Design: sizes of its memories and the layout of its weight image.

Channels are handled in words of `linear_in` lanes. Everything that the generated C++, the weight image and
the estimate have in common is computed here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pysim.datapath import EXPONENTIAL, MULTIPLIER_WIDTH, PIXEL_OFFSET
from pysim.design import Design
from pysim.errors import InputError
from pysim.iccad23_quantizer import ORIGINAL_FRAC
from pysim.spec import ModelSpec

RECORD_BYTES = 8
"""Bias, multiplier and shift of one output channel."""
NORM_RECORD_BYTES = 16
"""gamma and beta of one channel."""
HEADER_BYTES = 8
"""What all layers share."""
SETTING_BYTES = 4
POSITION_BYTES = 4
OUTPUT_BYTES = 4
SHIFT_BITS = 8
SOFTMAX_CYCLES = 4
"""Cycles of the recurrence of the single-pass softmax: its sum is shifted (or multiplied), rounded and added to."""
NORM_LATENCY = {"requantise": 32, "iccad23": 96}
"""Cycles from the last channel of a token to its reciprocal standard deviation: by a table, or bit by bit."""
PRODUCT_SHIFT = ORIGINAL_FRAC["linear_weight"]
"""Right shift of the products of the iccad23 arithmetic, whose operands are aligned to it: no weight is finer."""
PACK_BITS = 18
"""Distance of two weights that share a DSP slice: the bits of its narrow port, and so of the lower sum."""
DSP_PORT_BITS = 27
"""Width of the wide port of a DSP48E2's multiplier (UG579)."""
MAX_CHAIN = 4
"""Most packed products that are summed before they are split: more would lengthen the cascade and save little."""
ROUTER_LANES = 4
"""Experts whose logits the router works on at once."""


def ceil_div(value: int, divisor: int) -> int:
    """Quotient rounded up."""
    return -(-value // divisor)


def stored_bytes(width: int) -> int:
    """Bytes that store a number of `width` bits: 1, 2 or 4, so that none straddles two beats."""
    return 1 << (ceil_div(width, 8) - 1).bit_length()


def attention_steps(tokens: int, rows_per_block: int) -> int:
    """Steps of an attention head, each with one key.

    Every block takes two turns through the keys, the second while the next block takes its first; then the rows
    of the last block leave.
    """
    return (ceil_div(tokens, rows_per_block) + 1) * tokens + (tokens - 1) % rows_per_block + 1


def norm_lag(token_words: int, latency: int) -> int:
    """Tokens that LayerNorm's results lag behind its input, if its statistics take `latency` cycles."""
    return 1 + ceil_div(latency, token_words)


@dataclass(frozen=True)
class LinearShape:
    """One kind of linear layer as the engine sees it: operand words in, blocks of `linear_out` channels out.

    The blocks are computed in groups, which take turns in the two halves of the weight buffer. Every layer has an even
    number of groups, so that the first one of the next layer always finds the first half free; the last groups may be
    smaller than the others, or empty.

    Attributes:
        in_words: operand words of a token.
        blocks: blocks of outputs.
        group: blocks in a group.
        pairs: pairs of groups.
        block_beats: beats of a block in the weight image: its records, then its weights.
    """

    in_words: int
    blocks: int
    group: int
    pairs: int
    block_beats: int

    @property
    def groups(self) -> list[int]:
        """Blocks of each group, empty ones included."""
        return [
            max(0, min(self.group, self.blocks - number * self.group)) for number in range(2 * self.pairs)
        ]

    @property
    def group_beats(self) -> int:
        """Beats of a full group."""
        return self.group * self.block_beats

    @property
    def beats(self) -> int:
        """Beats of the layer."""
        return self.blocks * self.block_beats


@dataclass(frozen=True)
class Architecture:
    """Sizes that follow from a Design."""

    design: Design

    def __post_init__(self) -> None:
        parallelism = self.design.parallelism
        if parallelism.linear_out % parallelism.linear_in:
            raise InputError(
                f"linear_out = {parallelism.linear_out} is not a multiple of linear_in = {parallelism.linear_in}",
                hint="the write-back works in words of linear_in channels",
            )
        if parallelism.axi_width < 8 * RECORD_BYTES:
            raise InputError(f"axi_width = {parallelism.axi_width}, expected at least {8 * RECORD_BYTES}")
        for name in self.job_names:
            self.linear(name)

    @property
    def spec(self) -> ModelSpec:
        """Shape of the network."""
        return self.design.spec

    @property
    def arithmetic(self) -> str:
        """What the engines compute with: requantise or iccad23."""
        return self.design.precision.arithmetic

    @property
    def lanes(self) -> int:
        """Channels in one word."""
        return self.design.parallelism.linear_in

    @property
    def outputs(self) -> int:
        """Channels in one block of outputs."""
        return self.design.parallelism.linear_out

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
        hidden = [self.spec.mlp_dim] if len(self.spec.moe_layers) < self.spec.depth else []
        hidden += [self.spec.moe.hidden_dim] if self.spec.moe and self.spec.moe_layers else []
        return self.words(max(hidden))

    @cached_property
    def regions(self) -> dict[str, int]:
        """First word of each region of a token's row in the operand memory, and the length of a row."""
        lengths = {
            "norm": self.token_words,
            "mixed": self.mixed_words,
            "queue": self.token_words,
            "hidden": max(self.hidden_words, self.patch_words),
        }
        starts, start = {}, 0
        for name, length in lengths.items():
            starts[name], start = start, start + length
        return starts | {"row": start}

    @property
    def max_tokens(self) -> int:
        """Tokens of a whole batch."""
        return self.spec.tokens * self.design.parallelism.max_batch

    @property
    def write_steps(self) -> int:
        """Words that the write-back of one tile takes."""
        return self.outputs // self.lanes * self.design.parallelism.token_tile

    @property
    def beat_bytes(self) -> int:
        """Bytes that all weight ports deliver together in one cycle."""
        return self.design.parallelism.weight_ports * self.design.parallelism.axi_width // 8

    @property
    def attention_step(self) -> int:
        """Cycles that the attention engine spends on one key."""
        return max(self.head_words, SOFTMAX_CYCLES)

    @property
    def norm_lag(self) -> int:
        """Tokens from one that gives its sums to the one that is normalised meanwhile.

        The statistics of a token are due with the first word of the token so much later, which comes
        `(norm_lag - 1) * token_words + 1` cycles after its own last word.
        """
        return norm_lag(self.token_words, NORM_LATENCY[self.arithmetic])

    @property
    def pixel_offset(self) -> int:
        """What the kernel takes off every pixel."""
        return 0 if self.arithmetic == "iccad23" else PIXEL_OFFSET

    @property
    def bias_bits(self) -> int:
        """Bits of a bias in a channel's record."""
        return 8 * RECORD_BYTES - SHIFT_BITS - (MULTIPLIER_WIDTH if self.design.precision.multipliers else 0)

    def linear(self, name: str) -> LinearShape:
        """Shape of a layer: patch, qkv, proj, fc1, fc2, expert_fc1 or expert_fc2."""
        spec, moe = self.spec, self.spec.moe
        expert_hidden = moe.hidden_dim if moe else spec.mlp_dim
        words_in, words_out = {
            "patch": (self.patch_words, self.token_words),
            "qkv": (self.token_words, 3 * self.mixed_words),
            "proj": (self.mixed_words, self.token_words),
            "fc1": (self.token_words, self.words(spec.mlp_dim)),
            "fc2": (self.words(spec.mlp_dim), self.token_words),
            "expert_fc1": (self.token_words, self.words(expert_hidden)),
            "expert_fc2": (self.words(expert_hidden), self.token_words),
        }[name]
        rows = self.design.parallelism.weight_rows
        if words_in > rows:
            raise InputError(
                f"weight_rows = {rows} do not hold one block of layer {name}, which has {words_in} operand words",
                hint="raise weight_rows or linear_in",
            )
        blocks = ceil_div(words_out * self.lanes, self.outputs)
        pairs = ceil_div(blocks, 2 * (rows // words_in))
        block_beats = self.record_beats + words_in * self.word_beats
        return LinearShape(words_in, blocks, ceil_div(blocks, 2 * pairs), pairs, block_beats)

    @property
    def job_names(self) -> tuple[str, ...]:
        """Kinds of linear layers."""
        return ("patch", "qkv", "proj", "fc1", "fc2", "expert_fc1", "expert_fc2")

    @property
    def word_beats(self) -> int:
        """Beats of the weights that one operand word meets: linear_in x linear_out."""
        return ceil_div(self.lanes * self.outputs * self.weight_bytes, self.beat_bytes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of one stored weight."""
        return stored_bytes(self.design.precision.weight_width)

    @property
    def gate_bytes(self) -> int:
        """Bytes of one stored gate weight."""
        return stored_bytes(self.design.precision.gate_width)

    @property
    def record_beats(self) -> int:
        """Beats of the records of one block of outputs."""
        return ceil_div(self.outputs * RECORD_BYTES, self.beat_bytes)

    @property
    def max_group(self) -> int:
        """Blocks that half of the weight buffer holds at most."""
        return max(self.linear(name).group for name in self.job_names)

    @property
    def packed(self) -> bool:
        """Whether two products share a DSP slice: both weights on its wide port, `PACK_BITS` apart."""
        precision = self.design.precision
        return (
            precision.weight_width + PACK_BITS + 1 <= DSP_PORT_BITS
            and precision.weight_width + precision.activation_width <= PACK_BITS
        )

    @property
    def packed_chain(self) -> int:
        """Packed products that are summed before they are split: the lower sum must stay below the upper one.

        A product of extremes has `2**(weight + activation - 2)`; the lower field holds less than `2**(PACK_BITS - 1)`.
        """
        precision = self.design.precision
        largest = 1 << (precision.weight_width + precision.activation_width - 2)
        return min(MAX_CHAIN, ((1 << (PACK_BITS - 1)) - 1) // largest)

    @property
    def experts(self) -> int:
        """Experts of an MoE layer; 1 where the network has none, so that arrays have a size."""
        return self.spec.moe.experts if self.spec.moe else 1

    @property
    def softmax_keys(self) -> int:
        """Scores of the longest row of a softmax: keys of an image, or experts."""
        return max(self.spec.tokens, self.experts)

    @property
    def softmax_sum_bits(self) -> int:
        """Of the sum of a row's exponentials, each at most 1."""
        return EXPONENTIAL.width + self.softmax_keys.bit_length()

    @property
    def gates(self) -> int:
        """Gates of an MoE layer: one a task, each with its own records."""
        return len(self.spec.tasks)

    @property
    def gate_groups(self) -> int:
        """Groups of `ROUTER_LANES` experts."""
        return ceil_div(self.experts, ROUTER_LANES)

    @property
    def gate_word_beats(self) -> int:
        """Beats of the gate weights that one word of a token meets for one group."""
        return ceil_div(self.lanes * ROUTER_LANES * self.gate_bytes, self.beat_bytes)

    @property
    def gate_record_beats(self) -> int:
        """Beats of the records of one gate."""
        return ceil_div(self.gate_groups * ROUTER_LANES * RECORD_BYTES, self.beat_bytes)

    @property
    def gate_beats(self) -> int:
        """Beats of one task's gate: its records, then its weights."""
        return self.gate_record_beats + self.gate_groups * self.token_words * self.gate_word_beats

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of a layer's scalar settings, in the order in which the weight image holds them."""
        if self.arithmetic == "iccad23":
            return ("align", "norm_shift")
        common = ("norm1_shift", "norm2_shift", "gate_shift", "score_shift", "attention_shift")
        hidden = ("hidden_multiplier", "hidden_shift", "hidden_zero")
        return common + tuple(f"{name}_{expert}" for expert in range(self.experts) for name in hidden)

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
        return self.design.parallelism.axi_width // 8

    @property
    def pixel_beats(self) -> int:
        """Beats of one word of pixels."""
        return ceil_div(self.lanes, self.port_bytes)

    @property
    def output_word_beats(self) -> int:
        """Beats of one word of the result: 32-bit integers."""
        return ceil_div(self.lanes * OUTPUT_BYTES, self.port_bytes)

    @cached_property
    def sections(self) -> dict[str, int]:
        """First beat of every section of the weight image, and `end`, its length."""
        sections: dict[str, int] = {}
        start = 0

        def add(name: str, beats: int) -> None:
            nonlocal start
            sections[name] = start
            start += beats

        add("header", 1)
        add("position", self.spec.tokens * self.token_words * self.position_word_beats)
        add("patch", self.linear("patch").beats)
        for layer in range(self.spec.depth):
            block = f"blocks.{layer}"
            add(f"{block}.settings", self.setting_beats)
            add(f"{block}.norm1", self.norm_beats)
            add(f"{block}.qkv", self.linear("qkv").beats)
            add(f"{block}.proj", self.linear("proj").beats)
            add(f"{block}.norm2", self.norm_beats)
            if layer not in self.spec.moe_layers:
                add(f"{block}.fc1", self.linear("fc1").beats)
                add(f"{block}.fc2", self.linear("fc2").beats)
                continue
            add(f"{block}.gates", self.gates * self.gate_beats)
            for expert in range(self.experts):
                add(f"{block}.fc1.{expert}", self.linear("expert_fc1").beats)
                add(f"{block}.fc2.{expert}", self.linear("expert_fc2").beats)
        return sections | {"end": start}
