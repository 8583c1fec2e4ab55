"""Kernels, and calls of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from codegen.rtl.streams import FIRST_REGISTER, Bytes, IntArray, Register, Stream, register_map

COMMON = ("register_slice", "delay", "valid_delay")
"""Modules that every kernel uses."""


@dataclass(frozen=True)
class Source:
    """One file to write.

    Attributes:
        file: its name, which is that of the module in it.
        source: under `hls/rtl`: a file to copy, or without `.j2` a template to render.
        names: what the template uses beside the names of the Design.
    """

    file: str
    source: str
    names: Mapping[str, Any] = field(default_factory=dict)


def common(*names: str) -> tuple[Source, ...]:
    """Files of modules under `common`, those that every kernel uses among them."""
    return tuple(
        Source(f"edgemoe_{name}.sv", f"common/{name}.sv") for name in dict.fromkeys((*COMMON, *names))
    )


def controlled(kernel: str, *names: str) -> tuple[Source, ...]:
    """Files that a kernel with registers has beside its own and the common ones."""
    control = Source(f"edgemoe_{kernel}_control.sv", "common/control.sv")
    return control, *common("axi_lite", "frame_guard", *names)


def engines(*names: str) -> tuple[Source, ...]:
    """Files of modules under `engines`."""
    return tuple(Source(f"edgemoe_{name}.sv", f"engines/{name}.sv") for name in names)


MEMORY = Source("edgemoe_memory.sv", "accelerator/memory.sv")
"""A memory with a write port and a read port."""


def address_bits(depth: int) -> int:
    """Bits of an address in a memory of so many words: at least 1, and no bit more than its last word needs."""
    return max((depth - 1).bit_length(), 1)


@dataclass(frozen=True)
class Kernel:
    """One kernel: a module with streams, and registers where it has arguments.

    Attributes:
        name: of the kernel; its module is `edgemoe_` and the name.
        title: what it does, in a few words.
        streams: its AXI4-Stream ports.
        sources: of the module and all that it is made of; its own comes first.
        registers: its arguments; a kernel without any runs by itself (`ap_ctrl_none`).
        sizes: arguments that a Design fixes, and their values: constants in a build, registers in `with_sizes`.
        has_flag: whether it has an output `malformed`, which frames of a wrong length set.
    """

    name: str
    title: str
    streams: tuple[Stream, ...]
    sources: tuple[Source, ...]
    registers: tuple[Register, ...] = ()
    sizes: Mapping[Register, int] = field(default_factory=dict)
    has_flag: bool = False

    @property
    def top(self) -> str:
        """Name of its module."""
        return f"edgemoe_{self.name}"

    @property
    def inputs(self) -> tuple[Stream, ...]:
        """Streams that it reads."""
        return tuple(stream for stream in self.streams if stream.direction == "in")

    @property
    def outputs(self) -> tuple[Stream, ...]:
        """Streams that it writes."""
        return tuple(stream for stream in self.streams if stream.direction == "out")

    def stream(self, name: str) -> Stream:
        """One of its streams."""
        return next(stream for stream in self.streams if stream.name == name)

    @property
    def register_map(self) -> dict[str, int]:
        """Byte offset of each register."""
        return register_map(self.registers)

    @property
    def status_address(self) -> int:
        """Byte offset of the status register, behind the arguments."""
        return FIRST_REGISTER + sum(4 * (register.words + 1) for register in self.registers)

    @property
    def address_bits(self) -> int:
        """Bits of a register's byte offset."""
        return (self.status_address + 3).bit_length()

    def with_sizes(self) -> Kernel:
        """The kernel with its sizes as further arguments, for other sizes up to the Design's."""
        return replace(self, registers=(*self.registers, *self.sizes), sizes={})


Values = dict[str, dict[str, IntArray]]
"""Numbers of every output stream, field by field: (beats, lanes)."""

LOOKED_AT = 10_000
"""Differences among which the first beat is looked for."""

Frames = list[Bytes]
"""Frames of one stream, each (beats, bytes); TLAST is on the last beat of each."""


@dataclass(frozen=True)
class Call:
    """One call of a kernel: what goes in, and how much comes out.

    Attributes:
        name: for messages.
        inputs: frames of each input stream.
        outputs: frames that each output stream will give.
        registers: arguments by name.
    """

    name: str
    inputs: Mapping[str, Frames]
    outputs: Mapping[str, int]
    registers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Result of a call.

    Attributes:
        outputs: frames of each output stream.
        cycles: from the first beat that was taken in to the last that was taken out, both included.
        malformed: the kernel's flag for frames of a wrong length.
    """

    outputs: Mapping[str, Frames]
    cycles: int
    malformed: bool

    def values(self, kernel: Kernel) -> Values:
        """Every number that came out, the frames of each stream joined."""
        return {
            stream.name: stream.unpack(np.concatenate(self.outputs[stream.name])) for stream in kernel.outputs
        }


@dataclass(frozen=True)
class Check:
    """A call, and what must come of it.

    Attributes:
        call: the call.
        expected: arrays by name.
        extract: the same arrays from the values of a result; it only moves values, and leaves out padding.
        cycles: that the call takes without stalls; None where no formula is given.
        layer: number of the layer that the call is of; None for one of no layer.
        stage: stage of the estimate that the call is part of; None for one of no layer.
    """

    call: Call
    expected: Mapping[str, IntArray]
    extract: Callable[[Values], Mapping[str, IntArray]]
    cycles: int | None = None
    layer: int | None = None
    stage: str | None = None

    @property
    def values(self) -> int:
        """Numbers that are compared."""
        return sum(array.size for array in self.expected.values())

    def mismatches(self, kernel: Kernel, result: Result) -> int:
        """Number of values that differ. A result of another shape differs in all."""
        found = self.extract(result.values(kernel))
        return sum(
            int((found[name] != wanted).sum()) if found[name].shape == wanted.shape else wanted.size
            for name, wanted in self.expected.items()
        )

    def difference(self, kernel: Kernel, result: Result) -> str:
        """The first beat with a value that differs, in words; empty if none does."""
        values = result.values(kernel)
        found = self.extract(values)
        numbers = {
            stream: {name: np.broadcast_to(np.arange(len(a))[:, None], a.shape) for name, a in fields.items()}
            for stream, fields in values.items()
        }
        beats, first = self.extract(numbers), None
        for name, wanted in self.expected.items():
            if found[name].shape != wanted.shape:
                return f"{self.call.name}: {name} has the shape {found[name].shape}, expected {wanted.shape}"
            for index in np.argwhere(found[name] != wanted)[:LOOKED_AT]:
                place = tuple(int(i) for i in index)
                beat = int(beats[name][place])
                if first is None or beat < first[0]:
                    first = (beat, name, place, int(found[name][place]), int(wanted[place]))
        if first is None:
            return ""
        beat, name, place, got, right = first
        return f"{self.call.name}: beat {beat}, {name}{list(place)} is {got}, expected {right}"
