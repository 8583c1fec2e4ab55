"""Values that every job of the accelerator has to leave in its memories, and the first that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.schedule import BEFORE_EMBED, Engine, JobTable, Region, stage_name
from common.rtl_process import Depth, JobEnd, Plan
from pysim.datapath import PROBABILITY
from pysim.design import Design
from pysim.kernels.router import Routing
from pysim.program import Attention, Embed, Experts, Gate, Linear, Norm, Operation, Value
from pysim.simulator import Machine

IntArray = NDArray[np.int64]

OPERANDS = (Region.NORM, Region.MIXED, Region.GATHERED, Region.HIDDEN)
"""Regions of the operand memory."""


@dataclass(frozen=True)
class Place:
    """A memory of the accelerator: rows of words, and numbers in a word.

    Attributes:
        banks: instance paths of its banks below the accelerator; row r lies in bank `r % len(banks)`.
        stride: words from a row to the next one of its bank.
        bits: of each number in a word, from the lowest on.
        signed: whether they are in two's complement.
    """

    banks: tuple[str, ...]
    stride: int
    bits: tuple[int, ...]
    signed: bool = True

    def unpack(self, words: NDArray[np.uint8]) -> IntArray:
        """Numbers (..., lanes) of words (..., bytes)."""
        bits = np.unpackbits(words, axis=-1, bitorder="little")
        numbers, start = [], 0
        for width in self.bits:
            weights = 1 << np.arange(width, dtype=np.int64)
            if self.signed:
                weights[-1] *= -1
            numbers.append(bits[..., start : start + width] @ weights)
            start += width
        return np.stack(numbers, axis=-1)


Places = Mapping[str, Place]
"""Memories by their names: operands, residual, q, k, v, gate_input, queues."""


def places(hardware: Architecture) -> dict[str, Place]:
    """Memories of the accelerator that is made for an Architecture; programs may use less of each row."""
    most, lanes, tile = hardware.capacities, hardware.lanes, hardware.hardware.token_tile
    precision, residual = hardware.precision, hardware.network.residual_width
    banks = tuple(f"operand_memory.g_bank[{bank}].memory" for bank in range(tile))
    entry = (PROBABILITY.width, _place_bits(hardware))
    found = {
        "operands": Place(banks, most.max_row_words, (hardware.operand_width,) * lanes),
        "residual": Place(("residual_memory.memory",), most.max_token_words, (residual,) * lanes),
        "queues": Place(("queue_memory.memory",), 1, entry, signed=False),
    }
    for matrix, name in enumerate("qkv"):
        path = f"head_memory.g_matrix[{matrix}].memory"
        found[name] = Place((path,), most.max_mixed_words, (precision.attention_width,) * lanes)
    if most.max_experts > 1:
        path, bits = "g_router.gate_memory.memory", (precision.gate_width,) * lanes
        found["gate_input"] = Place((path,), most.max_token_words, bits)
    return found


def _place_bits(hardware: Architecture) -> int:
    return max((hardware.capacities.rows - 1).bit_length(), 1)


@dataclass(frozen=True)
class Expected:
    """Values that a job leaves in one memory.

    Attributes:
        job: number of the job.
        name: of the values in messages, such as `blocks.3.norm2`.
        memory: which memory they lie in.
        first: word of the first row.
        words: of a row.
        values: (rows, channels).
        groups: equal parts of the channels that are padded to whole words one by one.
        tokens: (rows,) number of the token that each row belongs to, all images together.
        per_image: tokens, or patches, of an image.
    """

    job: int
    name: str
    memory: str
    first: int
    words: int
    values: IntArray
    groups: int
    tokens: IntArray
    per_image: int


@dataclass(frozen=True)
class Difference:
    """The first value of a job that differs.

    Attributes:
        stage: name of the values.
        job: name of the job that should have written it.
        image: number of the image.
        token: token, or patch, of the image; of a queue, the place.
        channel: channel.
        expected: what the simulator has.
        got: what the memory held.
        cycle: in which the job ended.
    """

    stage: str
    job: str
    image: int
    token: int
    channel: int
    expected: int
    got: int
    cycle: int

    def __str__(self) -> str:
        where = f"image {self.image}, token {self.token}, channel {self.channel}"
        return (
            f"{self.stage} ({self.job}): {where} is {self.got}, expected {self.expected}, cycle {self.cycle}"
        )


@dataclass
class StageResult:
    """Values that were compared.

    Attributes:
        stage: step of an estimate that left them.
        values: how many.
        mismatches: how many of them differed.
        first: the first that did.
    """

    stage: str
    values: int = 0
    mismatches: int = 0
    first: Difference | None = None


@dataclass
class Stages:
    """Values that a call of the accelerator has to leave in its memories.

    Attributes:
        table: jobs of the program.
        expected: in the order of the table.
        output: (images, tokens, dim) the result.
        queues: length of each expert's queue, by layer.
    """

    table: JobTable
    expected: list[Expected]
    output: IntArray
    queues: dict[int, list[int]]

    @property
    def memories(self) -> list[str]:
        """Names of the memories that are looked at, in the order of the numbers in `plans`."""
        return sorted({expected.memory for expected in self.expected})

    def plans(self, found: Places) -> list[Plan]:
        """Places in the memories that are read when their job ends; banks are numbered through, memory by memory."""
        numbers, start = {}, 0
        for name in self.memories:
            numbers[name] = range(start, start + len(found[name].banks))
            start += len(found[name].banks)
        return [
            Plan(
                expected.job,
                numbers[expected.memory],
                expected.first,
                found[expected.memory].stride,
                expected.words,
                len(expected.values),
            )
            for expected in self.expected
        ]

    def compare(
        self, ended: Sequence[JobEnd], found: Places, depths: Mapping[str, Depth]
    ) -> dict[str, StageResult]:
        """Compare the contents of memories with the simulator's, stage by stage, in the order of the jobs.

        Args:
            ended: jobs, with what was read by `plans`; all values of one that is missing differ.
            found: the memories.
            depths: size of a bank of each memory.
        """
        of_job: dict[int, list[Expected]] = {}
        for expected in self.expected:
            of_job.setdefault(expected.job, []).append(expected)
        results: dict[str, StageResult] = {}
        contents = {end.job: end for end in ended}
        for number, wanted in of_job.items():
            end, at = contents.get(number), 0
            for expected in wanted:
                result = results.setdefault(expected.name, StageResult(self.table[number].stage))
                result.values += expected.values.size
                if end is None:
                    result.mismatches += expected.values.size
                    continue
                size = len(expected.values) * expected.words * depths[expected.memory].word_bytes
                words = end.contents[at : at + size].reshape(len(expected.values), expected.words, -1)
                at += size
                self._compare(expected, found[expected.memory].unpack(words), end.end, result)
        return results

    def _compare(self, expected: Expected, numbers: IntArray, cycle: int, result: StageResult) -> None:
        rows, channels = expected.values.shape
        grouped = numbers.reshape(rows, expected.groups, -1)[:, :, : channels // expected.groups]
        got = grouped.reshape(rows, channels)
        wrong = got != expected.values
        if not wrong.any():
            return
        result.mismatches += int(wrong.sum())
        if result.first is None:
            row, channel = (int(place) for place in np.argwhere(wrong)[0])
            image, token = divmod(int(expected.tokens[row]), expected.per_image)
            result.first = Difference(
                expected.name,
                self.table[expected.job].name,
                image,
                token,
                channel,
                int(expected.values[row, channel]),
                int(got[row, channel]),
                cycle,
            )


def stages(
    design: Design,
    program: Architecture,
    table: JobTable,
    images: NDArray[np.uint8],
    task: int,
    *,
    hardware: Architecture | None = None,
) -> Stages:
    """Run the simulator, and say what each job has to leave behind.

    Args:
        design: the Design.
        program: its network on the hardware, as in the weight image.
        table: its job table.
        images: (images, channels, H, W).
        task: number of the task.
        hardware: what the accelerator was made for; `program` if it is left out.
    """
    maker = _Maker(design, program, hardware or program, table, images, task)
    found = sorted(maker.all(), key=lambda expected: expected.job)
    machine = maker.machine
    output = machine[program.program[-1].outputs[-1]].reshape(len(images), program.spec.tokens, -1)
    queues = {layer: routing.lengths.tolist() for layer, routing in machine.routing.items()}
    return Stages(table, found, output, queues)


class _One(Routing):
    """The choices of a layer as far as they concern one expert; those of the others are the expert `count`."""

    @property
    def active(self) -> IntArray:
        """The expert, if it has any token."""
        found = super().active
        return found[found < self.count]


class _Maker:
    """Expected values of the jobs of each operation."""

    def __init__(
        self,
        design: Design,
        program: Architecture,
        hardware: Architecture,
        table: JobTable,
        images: NDArray[np.uint8],
        task: int,
    ) -> None:
        self.program, self.hardware, self.table = program, hardware, table
        self.machine = Machine(design, images, task)
        self.images = images

    def all(self) -> Iterator[Expected]:
        """All of them, operation by operation."""
        jobs: dict[str, list[int]] = {}
        for number, job in enumerate(self.table):
            if not job.is_fill:
                jobs.setdefault(job.stage, []).append(number)
        for op in self.program.program:
            mine = jobs[stage_name(op)]
            match op:
                case Embed():
                    before = [number for stage in BEFORE_EMBED for number in jobs[stage]]
                    yield from self._embed(op, [*before, *mine])
                case Gate():
                    self.machine.step(op)
                    yield from self._queues(op, mine[0])
                case Experts():
                    yield from self._experts(op, mine)
                case Norm() | Linear() | Attention():
                    self.machine.step(op)
                    yield from self._plain(op, mine[0])

    def _expected(
        self, number: int, name: str, memory: str, values: IntArray, per_image: int, groups: int = 1
    ) -> Expected:
        """Values of rows that follow each other."""
        job = self.table[number]
        words = groups * self.program.words(values.shape[1] // groups)
        first = job.destination_word if memory == "operands" else 0
        tokens = np.arange(len(values))
        return Expected(number, name, memory, first, words, values, groups, tokens, per_image)

    def _value(self, number: int, value: Value, memory: str) -> Expected:
        values = self.machine[value]
        return self._expected(number, value.name, memory, values, value.rows, value.groups)

    def _plain(self, op: Operation, number: int) -> Iterator[Expected]:
        destination = self.table[number].destination
        if destination is Region.HEADS:
            for value, memory in zip(op.outputs, "qkv", strict=True):
                yield self._value(number, value, memory)
            return
        memory = "operands" if destination in OPERANDS else "residual"
        if isinstance(op, Norm):
            yield self._value(number, op.output, memory)
            if op.gate_output is not None:
                yield self._value(number, op.gate_output, "gate_input")
            return
        yield self._value(number, op.outputs[-1], memory)

    def _embed(self, op: Embed, jobs: Sequence[int]) -> Iterator[Expected]:
        machine, patches = self.machine, op.patch.input.rows
        machine.step(op)
        for number in jobs:
            job = self.table[number]
            match job.engine:
                case Engine.POSITIONS:
                    table = machine.design.integers(op.position).astype(np.int64)
                    values = np.tile(table, (len(self.images), 1))
                    yield self._expected(number, "positions", "residual", values, op.output.rows)
                case Engine.PIXELS:
                    pixels = machine.engines.pixels(op, self.images).astype(np.int64)
                    yield self._expected(number, "pixels", "operands", pixels, patches)
                case Engine.PATCH_QUEUE:
                    rows = np.arange(len(self.images) * op.output.rows).reshape(len(self.images), -1)
                    tokens = rows[:, op.prefix :].reshape(-1)
                    yield self._queue(number, "patch queue", 0, tokens, np.zeros_like(tokens))
                case _:
                    yield self._value(number, op.output, "residual")

    def _queue(self, number: int, name: str, expert: int, tokens: IntArray, scores: IntArray) -> Expected:
        # A word has the score below the token.
        values = np.stack([scores, tokens], axis=1).astype(np.int64)
        first = expert << _place_bits(self.hardware)
        places = np.arange(len(tokens))
        return Expected(number, name, "queues", first, 1, values, 1, places, max(len(places), 1))

    def _queues(self, op: Gate, number: int) -> Iterator[Expected]:
        assert op.layer is not None
        routing = self.machine.routing[op.layer]
        for expert in routing.active.tolist():
            yield self._queue(number, f"{stage_name(op)}.queue.{expert}", expert, *routing.queue(expert))

    def _experts(self, op: Experts, jobs: Sequence[int]) -> Iterator[Expected]:
        assert op.layer is not None
        machine, fc1 = self.machine, op.fc1
        routing, normed, stream = machine.routing[op.layer], machine[fc1.input], machine[op.stream]
        of_expert: dict[int, list[int]] = {}
        for number in jobs:
            of_expert.setdefault(self.table[number].index, []).append(number)
        for expert in routing.active.tolist():
            gather, first, second = of_expert[expert]
            tokens, _ = routing.queue(expert)
            own = _One(
                np.where(routing.experts == expert, expert, routing.count), routing.scores, routing.count
            )
            result, (hidden,) = machine.engines.experts(op, own, normed, stream)
            stream = result.astype(np.int64)
            rows = (
                (gather, f"{fc1.input.name}.gathered", normed[tokens]),
                (first, op.hidden.name, hidden.values),
            )
            for number, name, values in rows:
                plain = self._expected(
                    number, f"{name}.{expert}", "operands", values.astype(np.int64), fc1.input.rows
                )
                yield Expected(**{**vars(plain), "tokens": tokens})
            last = expert == routing.active[-1]
            name = op.output.name if last else f"{op.output.name}.{expert}"
            yield self._expected(second, name, "residual", stream, op.output.rows)
        machine.values[op.output.name] = stream
