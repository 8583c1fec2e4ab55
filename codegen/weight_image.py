"""Packing a Design's parameters into the beats that the kernel reads, in the order in which it reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import (
    NORM_RECORD_BYTES,
    PRODUCT_SHIFT,
    RECORD_BYTES,
    ROUTER_LANES,
    SHIFT_BITS,
    Architecture,
    ceil_div,
)
from host.packing import ImageLayout, OutputLayout
from pysim.datapath import MULTIPLIER_WIDTH, PIXEL_FRAC
from pysim.errors import OverflowRiskError
from pysim.kernels.iccad23 import FEATURE

Bytes = NDArray[np.uint8]

_ICCAD23_BIASES = {
    "patch": "linear_bias",
    "qkv": "attention_bias",
    "proj": "attention_bias",
    "fc1": "linear_bias",
    "fc2": "linear_bias",
}
"""Types of the original's biases, by layer. Those of the gates are features."""


def pack_weights(architecture: Architecture) -> Bytes:
    """The weight image: (beats, beat_bytes) bytes, little-endian.

    Raises:
        OverflowRiskError: a bias needs more bits than its record has.
    """
    return _Packer(architecture).pack()


def port_images(image: Bytes, ports: int) -> list[Bytes]:
    """Each weight port's share of every beat: (beats * bytes of a port) bytes."""
    return [np.ascontiguousarray(part).ravel() for part in np.split(image, ports, axis=1)]


def image_layout(architecture: Architecture) -> ImageLayout:
    """How images lie in memory."""
    return ImageLayout(
        architecture.spec.image_shape,
        architecture.spec.patch_size,
        architecture.lanes,
        architecture.patch_words,
        architecture.pixel_beats * architecture.port_bytes,
        architecture.pixel_offset,
    )


def output_layout(architecture: Architecture) -> OutputLayout:
    """How final tokens lie in memory."""
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
    lanes = architecture.lanes
    groups, words = ceil_div(len(weight), ROUTER_LANES), architecture.words(weight.shape[1])
    padded = np.zeros((groups * ROUTER_LANES, words * lanes), f"<i{architecture.gate_bytes}")
    padded[: len(weight), : weight.shape[1]] = weight
    by_group = padded.reshape(groups, ROUTER_LANES, words, lanes).transpose(0, 2, 1, 3)
    all_records = np.zeros((1, groups * ROUTER_LANES), np.uint64)
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


def head_channels(architecture: Architecture) -> NDArray[np.int64]:
    """Channel of each lane of the padded heads; -1 where a lane is padding."""
    spec = architecture.spec
    lanes = np.full((spec.heads, architecture.head_words * architecture.lanes), -1, np.int64)
    lanes[:, : spec.head_dim] = np.arange(spec.dim).reshape(spec.heads, spec.head_dim)
    return lanes.ravel()


def _whole_words(values: NDArray[Any], lanes: int) -> NDArray[Any]:
    """Channels, on the last axis, padded to whole words."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % lanes)])


class _Packer:
    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.design = architecture.design
        self.image = np.zeros((architecture.sections["end"], architecture.beat_bytes), np.uint8)

    def pack(self) -> Bytes:
        architecture, spec = self.architecture, self.architecture.spec
        self._put("header", self._header())
        position = _whole_words(self.design.tensors["position"].astype(np.int32), architecture.lanes)
        self._put("position", position.reshape(-1, architecture.lanes))
        self._job("patch", "patch")
        for layer in range(spec.depth):
            self._layer(layer)
        return self.image

    def _frac(self, kind: str) -> int:
        """Fraction bits of a type of parameter, in the original's arithmetic."""
        return self.design.scalar(f"frac.{kind}")

    def _align(self, frac: int) -> int:
        """Left shift of operands that makes the right shift of their products `PRODUCT_SHIFT`.

        Args:
            frac: fraction bits of a product.
        """
        align = PRODUCT_SHIFT - (frac - FEATURE.frac)
        assert align >= 0
        return align

    def _header(self) -> NDArray[np.int64]:
        if self.architecture.arithmetic == "iccad23":
            return np.array([self._align(PIXEL_FRAC + self._frac("patch_weight"))], np.int64)
        return self.design.tensors["epsilon"].astype(np.int64)

    def _layer(self, layer: int) -> None:
        block = f"blocks.{layer}"
        self._put(f"{block}.settings", self._settings(layer))
        for norm in ("norm1", "norm2"):
            self._put_raw(f"{block}.{norm}", self._norm(f"{block}.{norm}"))
        heads = head_channels(self.architecture)
        qkv = np.concatenate([heads + i * self.spec.dim * (heads >= 0) for i in range(3)])
        self._job(f"{block}.qkv", "qkv", out_channels=qkv)
        self._job(f"{block}.proj", "proj", in_channels=heads)
        if layer not in self.spec.moe_layers:
            self._job(f"{block}.fc1", "fc1")
            self._job(f"{block}.fc2", "fc2")
            return
        gates = [self._gate(layer, task) for task in range(len(self.spec.tasks))]
        self._put_raw(f"{block}.gates", np.concatenate(gates))
        for expert in range(self.architecture.experts):
            for part in ("fc1", "fc2"):
                section = f"{block}.{part}.{expert}"
                self._put_raw(section, self._linear(f"{block}.{part}", f"expert_{part}", (expert,)))

    @property
    def spec(self) -> Any:
        return self.architecture.spec

    def _put(self, section: str, rows: NDArray[Any]) -> None:
        """Store rows (or one row) of integers, each padded to whole beats."""
        rows = rows if rows.ndim == 2 else rows[None]
        self._put_raw(section, whole_beats(rows, self.architecture.beat_bytes))

    def _put_raw(self, section: str, beats: Bytes) -> None:
        start = self.architecture.sections[section]
        self.image[start : start + len(beats)] = beats

    def _settings(self, layer: int) -> NDArray[np.int32]:
        tensors, block = self.design.tensors, f"blocks.{layer}"
        if self.architecture.arithmetic == "iccad23":
            values = {
                "align": self._align(FEATURE.frac + self._frac("linear_weight")),
                "norm_shift": self._frac("norm"),
            }
            return np.array([values[name] for name in self.architecture.settings], np.int32)

        def value(name: str) -> int:
            kind, _, tail = name.rpartition("_")
            if name.startswith("hidden_"):
                stored = tensors.get(f"{block}.{kind.replace('_', '.')}")
                if stored is None:
                    return 1
                expert = int(tail)
                return int(stored[expert]) if expert < len(stored) else 0
            if name == "gate_shift":
                return int(tensors.get(f"{block}.norm2.gate_shift", tensors[f"{block}.norm2.shift"])[0])
            if name in ("norm1_shift", "norm2_shift"):
                return int(tensors[f"{block}.{kind}.shift"][0])
            return int(tensors[f"{block}.{name}"][0])

        return np.array([value(name) for name in self.architecture.settings], np.int32)

    def _norm(self, name: str) -> Bytes:
        gamma, beta = (self.design.tensors[f"{name}.{part}"].astype(np.int64) for part in ("gamma", "beta"))
        if self.architecture.arithmetic == "iccad23":
            beta = beta << (FEATURE.frac - self._frac("norm"))
        return pack_norm(self.architecture, gamma, beta)

    def _job(self, name: str, shape: str, **channels: NDArray[np.int64]) -> None:
        self._put_raw(name, self._linear(name, shape, (), **channels))

    def _linear(
        self,
        name: str,
        shape: str,
        index: tuple[int, ...],
        in_channels: NDArray[np.int64] | None = None,
        out_channels: NDArray[np.int64] | None = None,
    ) -> Bytes:
        """All blocks of a layer, whose channels may be rearranged; -1 stands for one that is not there."""
        weight = self.design.tensors[f"{name}.weight"][index]
        if in_channels is not None:
            weight = np.where(in_channels >= 0, weight[:, in_channels], 0)
        records = self._records(name, index)
        if out_channels is not None:
            weight = np.where(out_channels[:, None] >= 0, weight[out_channels], 0)
            records = np.where(out_channels >= 0, records[out_channels], np.uint64(0))
        beats = pack_linear(self.architecture, weight, records)
        assert len(beats) == self.architecture.linear(shape).beats
        return beats

    def _records(
        self, name: str, index: tuple[int, ...], bias_index: tuple[int, ...] | None = None
    ) -> NDArray[np.uint64]:
        bias = self.design.tensors[f"{name}.bias"][index if bias_index is None else bias_index]
        bias = bias.astype(np.int64)
        if self.architecture.arithmetic == "iccad23":
            # The kernel keeps the low bits, as features do.
            kind = _ICCAD23_BIASES.get(name.rpartition(".")[2])
            return (bias << (FEATURE.frac - self._frac(kind) if kind else 0)).view(np.uint64)
        bits = self.architecture.bias_bits
        if max(-int(bias.min()), int(bias.max()) + 1) > 1 << (bits - 1):
            raise OverflowRiskError(
                f"{name}: a bias of {int(bias[np.abs(bias).argmax()])} needs more than the {bits} bits of its record",
                hint="choose the precision w16a16, or check the layer for an outlying bias",
            )
        multiplier = self.design.tensors.get(f"{name}.multiplier")
        shift = self.design.tensors[f"{name}.shift"][index]
        return pack_records(self.architecture, bias, None if multiplier is None else multiplier[index], shift)

    def _gate(self, layer: int, task: int) -> Bytes:
        name = f"blocks.{layer}.gate"
        weight = self.design.tensors[f"{name}.weight"]
        gate = 0 if len(weight) == 1 else task
        beats = pack_gate(self.architecture, weight[gate], self._records(name, (gate,), bias_index=(task,)))
        assert len(beats) == self.architecture.gate_beats
        return beats
