"""AXI4-Streams and registers of a kernel: what the templates, the test benches and the cycle counts agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import stored_bytes

IntArray = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Field:
    """A number, or several lanes of it, inside a beat: each in 1, 2, 4 or 8 bytes, sign-extended.

    Attributes:
        name: of the number.
        bits: its width.
        signed: whether it is in two's complement.
        lanes: numbers side by side.
    """

    name: str
    bits: int
    signed: bool = True
    lanes: int = 1

    @property
    def stored(self) -> int:
        """Bits that a lane takes in the beat."""
        return 8 * stored_bytes(self.bits)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the lanes as they lie in memory."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.stored // 8}")


@dataclass(frozen=True)
class Stream:
    """One AXI4-Stream port.

    Attributes:
        name: prefix of its signals.
        direction: seen from the kernel.
        fields: what a beat holds, from its lowest bit on.
    """

    name: str
    direction: Literal["in", "out"]
    fields: tuple[Field, ...]

    @property
    def width(self) -> int:
        """Bits of TDATA."""
        return sum(field.stored * field.lanes for field in self.fields)

    @cached_property
    def starts(self) -> dict[str, int]:
        """First bit of each field."""
        starts, start = {}, 0
        for field in self.fields:
            starts[field.name] = start
            start += field.stored * field.lanes
        return starts

    def field(self, name: str) -> Field:
        """One of its fields."""
        return next(field for field in self.fields if field.name == name)

    def offset(self, name: str, lane: int = 0) -> int:
        """First bit of one lane of a field."""
        return self.starts[name] + lane * self.field(name).stored

    def pack(self, **values: NDArray[Any]) -> Bytes:
        """Beats (beats, bytes) of arrays (beats, lanes), one for each field."""
        parts = []
        for field in self.fields:
            array = np.asarray(values[field.name]).reshape(-1, field.lanes)
            parts.append(np.ascontiguousarray(array.astype(field.dtype)).view(np.uint8))
        return np.concatenate(parts, axis=1)

    def unpack(self, beats: Bytes) -> dict[str, IntArray]:
        """Arrays (beats, lanes) of each field."""
        values = {}
        for field in self.fields:
            start = self.starts[field.name] // 8
            part = beats[:, start : start + field.stored // 8 * field.lanes]
            values[field.name] = np.ascontiguousarray(part).view(field.dtype).astype(np.int64)
        return values


@dataclass(frozen=True)
class Register:
    """A scalar that the host writes before a kernel starts.

    Attributes:
        name: of the argument.
        bits: that the kernel uses.
        signed: whether it is in two's complement.
    """

    name: str
    bits: int
    signed: bool = False

    @property
    def words(self) -> int:
        """32-bit words of the argument."""
        return -(-self.bits // 32)


FIRST_REGISTER = 0x10
"""Offset at which Vitis HLS puts the first argument, behind control, interrupt enables and interrupt status."""


def register_map(registers: Sequence[Register]) -> dict[str, int]:
    """Byte offset of each register: as Vitis HLS lays arguments out, each followed by a word for its handshake."""
    offsets, offset = {}, FIRST_REGISTER
    for register in registers:
        offsets[register.name] = offset
        offset += 4 * (register.words + 1)
    return offsets
