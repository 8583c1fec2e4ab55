"""Packing a Design's parameters into the beats that the kernel reads, in the order in which it reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import (
    JOBS,
    NORM_RECORD_BYTES,
    PRODUCT_SHIFT,
    RECORD_BYTES,
    SHIFT_BITS,
    Architecture,
    Section,
    ceil_div,
)
from codegen.schedule import job_table
from common.errors import OverflowRiskError
from common.packing import ImageLayout, OutputLayout
from pysim.arithmetic import ICCAD23, REQUANTISE, Arithmetic
from pysim.datapath import MULTIPLIER_WIDTH
from pysim.design import Design
from pysim.kernels.iccad23 import FEATURE
from pysim.program import (
    Activated,
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

Bytes = NDArray[np.uint8]


def pack_weights(design: Design, architecture: Architecture) -> Bytes:
    """The weight image of a Design: (beats, beat_bytes) bytes, little-endian.

    Args:
        design: the integers.
        architecture: of its network, on some hardware.

    Raises:
        OverflowRiskError: a bias needs more bits than its record has.
        InputError: a number of the job table is too large for its field.
    """
    return _PACKERS[design.arithmetic](design, architecture).pack()


def port_images(image: Bytes, ports: int) -> list[Bytes]:
    """Each weight port's share of every beat: (beats * bytes of a port) bytes."""
    return [np.ascontiguousarray(part).ravel() for part in np.split(image, ports, axis=1)]


def image_layout(architecture: Architecture) -> ImageLayout:
    """Layout of images in memory."""
    return ImageLayout(
        architecture.spec.image_shape,
        architecture.spec.patch_size,
        architecture.lanes,
        architecture.patch_words,
        architecture.pixel_beats * architecture.port_bytes,
        architecture.pixel_offset,
    )


def output_layout(architecture: Architecture) -> OutputLayout:
    """Layout of final tokens in memory."""
    return OutputLayout(
        architecture.spec.tokens,
        architecture.spec.dim,
        architecture.lanes,
        architecture.token_words,
        architecture.output_word_beats * architecture.port_bytes,
    )


def output_bytes(architecture: Architecture, images: int) -> int:
    """Size of the kernel's output for so many images."""
    return images * output_layout(architecture).image_bytes


def whole_beats(rows: NDArray[Any], beat_bytes: int) -> Bytes:
    """Rows of integers as bytes, every row padded to whole beats: (beats, beat_bytes)."""
    raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    missing = -raw.shape[1] % beat_bytes
    return np.pad(raw, ((0, 0), (0, missing))).reshape(-1, beat_bytes)


def pack_norm(architecture: Architecture, gamma: NDArray[Any], beta: NDArray[Any]) -> Bytes:
    """Beats of a norm's records: gamma and beta (channels,) by turns, word after word."""
    pairs = np.stack([gamma.astype(np.int64), beta.astype(np.int64)], axis=-1)
    assert pairs.itemsize * 2 == NORM_RECORD_BYTES
    return whole_beats(
        _whole_words(pairs.T, architecture.lanes).T.reshape(-1, 2 * architecture.lanes),
        architecture.beat_bytes,
    )


def pack_linear(architecture: Architecture, weight: NDArray[Any], records: NDArray[np.uint64]) -> Bytes:
    """Beats of a linear layer (outputs, inputs), block after block.

    A block has its records (outputs,), then the weights that each operand word meets, output by output.
    """
    lanes, outputs = architecture.lanes, architecture.outputs
    in_words, blocks = architecture.words(weight.shape[1]), ceil_div(len(weight), outputs)
    padded = np.zeros((blocks * outputs, in_words * lanes), f"<i{architecture.weight_bytes}")
    padded[: len(weight), : weight.shape[1]] = weight
    by_block = padded.reshape(blocks, outputs, in_words, lanes).transpose(0, 2, 1, 3)
    words = whole_beats(by_block.reshape(blocks * in_words, -1), architecture.beat_bytes)
    words = words.reshape(blocks, -1, architecture.beat_bytes)
    all_records = np.zeros(blocks * outputs, np.uint64)
    all_records[: len(records)] = records
    record_beats = whole_beats(all_records.reshape(blocks, outputs), architecture.beat_bytes)
    record_beats = record_beats.reshape(blocks, -1, architecture.beat_bytes)
    return np.concatenate([record_beats, words], axis=1).reshape(-1, architecture.beat_bytes)


def pack_gate(architecture: Architecture, weight: NDArray[Any], records: NDArray[np.uint64]) -> Bytes:
    """Beats of one task's gate (experts, channels): all records, then the weights, group by group of experts."""
    lanes, experts = architecture.lanes, architecture.router_lanes
    groups, words = ceil_div(len(weight), experts), architecture.words(weight.shape[1])
    padded = np.zeros((groups * experts, words * lanes), f"<i{architecture.gate_bytes}")
    padded[: len(weight), : weight.shape[1]] = weight
    by_group = padded.reshape(groups, experts, words, lanes).transpose(0, 2, 1, 3)
    all_records = np.zeros((1, groups * experts), np.uint64)
    all_records[0, : len(records)] = records
    return np.concatenate(
        [
            whole_beats(all_records, architecture.beat_bytes),
            whole_beats(by_group.reshape(groups * words, -1), architecture.beat_bytes),
        ]
    )


def pack_records(
    architecture: Architecture, bias: NDArray[np.int64], multiplier: NDArray[Any] | None, shift: NDArray[Any]
) -> NDArray[np.uint64]:
    """Records of output channels: bias, multiplier (where the design has them) and shift, 64 bits each."""
    bits = architecture.bias_bits
    packed = bias.view(np.uint64) & np.uint64((1 << bits) - 1)
    if multiplier is not None:
        packed |= multiplier.astype(np.uint64) << np.uint64(bits)
    packed |= shift.astype(np.uint64) << np.uint64(8 * RECORD_BYTES - SHIFT_BITS)
    assert bits + SHIFT_BITS + (0 if multiplier is None else MULTIPLIER_WIDTH) == 8 * RECORD_BYTES
    return packed


def lane_channels(architecture: Architecture, values: Sequence[Value]) -> NDArray[np.int64] | None:
    """Channel of each lane of values side by side, -1 where a lane pads a head; None where no head needs it."""
    if len(values) == 1 and values[0].groups == 1:
        return None
    parts, first = [], 0
    for value in values:
        channels = np.arange(first, first + value.channels).reshape(value.groups, -1)
        missing = -channels.shape[1] % architecture.lanes
        parts.append(np.pad(channels, ((0, 0), (0, missing)), constant_values=-1).ravel())
        first += value.channels
    return np.concatenate(parts)


def in_lanes(
    architecture: Architecture, values: Sequence[Value], array: NDArray[Any], axis: int = -1
) -> NDArray[Any]:
    """An array whose axis holds the channels of values, with every head padded to whole words."""
    channels = lane_channels(architecture, values)
    if channels is None:
        return array
    shape = [1] * array.ndim
    shape[axis] = -1
    return np.where(channels.reshape(shape) >= 0, array.take(channels, axis), array.dtype.type(0))


def _whole_words(values: NDArray[Any], lanes: int) -> NDArray[Any]:
    """Channels, on the last axis, padded to whole words."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % lanes)])


class _Packer(ABC):
    """Base of the packers of all arithmetics."""

    def __init__(self, design: Design, architecture: Architecture) -> None:
        self.design, self.architecture = design, architecture

    def pack(self) -> Bytes:
        parts = []
        for section in self.architecture.layout:
            beats = self._beats(section)
            assert len(beats) == section.beats, section.name
            parts.append(beats)
        return np.concatenate(parts)

    def _beats(self, section: Section) -> Bytes:
        architecture, op = self.architecture, section.op
        match op:
            case None:
                return whole_beats(self._plain(section)[None], architecture.beat_bytes)
            case Embed():
                position = self.design.tensors[op.position.name].astype(np.int32)
                words = _whole_words(position, architecture.lanes).reshape(-1, architecture.lanes)
                return whole_beats(words, architecture.beat_bytes)
            case Norm():
                return pack_norm(architecture, self.design.integers(op.gamma), self.beta(op))
            case Linear():
                return self._linear(op, section.index)
            case Gate():
                return np.concatenate([self._gate(op, task) for task in range(op.tasks)])
            case _:
                assert_never(op)

    def _plain(self, section: Section) -> NDArray[Any]:
        """Contents of a section of no operation."""
        if section.name == JOBS:
            return np.frombuffer(b"".join(job.encode() for job in job_table(self.architecture)), np.uint8)
        return self.header() if section.layer is None else self._settings(section.layer)

    def _settings(self, layer: int) -> NDArray[np.int32]:
        values = self.settings(blocks(self.architecture.program)[layer])
        return np.array([values[name] for name in self.architecture.settings], np.int32)

    def _linear(self, op: Linear, index: Index) -> Bytes:
        """All blocks of a layer, with every head padded to whole words."""
        weight = in_lanes(self.architecture, [op.input], self.design.tensors[op.weight.name][index])
        weight = in_lanes(self.architecture, op.results, weight, axis=0)
        records = in_lanes(self.architecture, op.results, self.records(op, index, index))
        return pack_linear(self.architecture, weight, records)

    def _gate(self, op: Gate, task: int) -> Bytes:
        index = op.weight_index(task)
        weight = self.design.tensors[op.weight.name][index]
        return pack_gate(self.architecture, weight, self.records(op, index, op.bias_index(task)))

    @abstractmethod
    def header(self) -> NDArray[np.int64]:
        """Header of the weight image, which all layers share."""

    @abstractmethod
    def settings(self, block: Program) -> Mapping[str, int]:
        """A layer's scalar settings by their names."""

    @abstractmethod
    def beta(self, op: Norm) -> NDArray[np.int64]:
        """Beta (channels,) of a norm as the kernel adds it."""

    @abstractmethod
    def records(self, op: Linear | Gate, index: Index, bias_index: Index) -> NDArray[np.uint64]:
        """Records (outputs,) of a layer."""


class _RequantisePacker(_Packer):
    def header(self) -> NDArray[np.int64]:
        norm, *_ = of_type(self.architecture.program, Norm)
        return np.array([self.design.scalar(norm.epsilon)], np.int64)

    def settings(self, block: Program) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for op in block:
            match op:
                case Norm():
                    found[f"{op.part}_shift"] = self.design.scalar(op.shift)
                    # Where there is no router, its copy of the tokens is as good as any.
                    found["gate_shift"] = self.design.scalar(op.gate_shift or op.shift)
                case Attention():
                    # The hardware shifts all products left first, so that it need not tell the directions apart.
                    found["score_shift"] = self.design.scalar(op.score_shift) + op.score_lift
                    found["attention_shift"] = self.design.scalar(op.attention_shift)
        for linear in linears(block):
            if linear.activation is not None:
                found |= self._hidden(linear.activation)
        return found

    def _hidden(self, activation: Activated) -> Iterator[tuple[str, int]]:
        """Scales behind the activation function; 0 for experts that the layer does not have."""
        assert activation.scaling is not None
        multiplier, shift = activation.scaling
        named = {"multiplier": multiplier, "shift": shift, "zero": activation.zero}
        for name, tensor in named.items():
            for expert in range(self.architecture.experts):
                stored = [1] if tensor is None else self.design.integers(tensor).tolist()
                missing = 1 if tensor is None else 0
                yield f"hidden_{name}_{expert}", stored[expert] if expert < len(stored) else missing

    def beta(self, op: Norm) -> NDArray[np.int64]:
        return self.design.integers(op.beta)

    def records(self, op: Linear | Gate, index: Index, bias_index: Index) -> NDArray[np.uint64]:
        assert op.scaling is not None
        bits, bias = self.architecture.bias_bits, self.design.integers(op.bias, bias_index)
        if max(-int(bias.min()), int(bias.max()) + 1) > 1 << (bits - 1):
            raise OverflowRiskError(
                f"{op.name}: a bias of {int(bias[np.abs(bias).argmax()])} needs more than "
                f"the {bits} bits of its record",
                hint="choose the precision w16a16, or check the layer for an outlying bias",
            )
        multiplier, shift = op.scaling
        factors = None if multiplier is None else self.design.tensors[multiplier.name][index]
        return pack_records(self.architecture, bias, factors, self.design.tensors[shift.name][index])


class _Iccad23Packer(_Packer):
    """Operands are aligned so that the right shift of every product is `PRODUCT_SHIFT`."""

    def _align(self, op: Linear | Gate) -> int:
        """Left shift of the operands of a layer."""
        frac = op.input.format.frac + self.design.frac(op.weight)
        align = PRODUCT_SHIFT - (frac - FEATURE.frac)
        assert align >= 0
        return align

    def header(self) -> NDArray[np.int64]:
        (embed,) = of_type(self.architecture.program, Embed)
        return np.array([self._align(embed.patch)], np.int64)

    def settings(self, block: Program) -> Mapping[str, int]:
        # All linear layers of a block have weights of one type, and so have both norms.
        (layer, *_), (norm, *_) = linears(block), of_type(block, Norm)
        return {"align": self._align(layer), "norm_shift": self.design.frac(norm.gamma)}

    def beta(self, op: Norm) -> NDArray[np.int64]:
        return self.design.integers(op.beta) << (FEATURE.frac - self.design.frac(op.beta))

    def records(self, op: Linear | Gate, index: Index, bias_index: Index) -> NDArray[np.uint64]:
        bias = self.design.integers(op.bias, bias_index)
        # The kernel keeps the low bits, as features do.
        return (bias << (FEATURE.frac - self.design.frac(op.bias))).view(np.uint64)


_PACKERS: dict[Arithmetic, type[_Packer]] = {REQUANTISE: _RequantisePacker, ICCAD23: _Iccad23Packer}
