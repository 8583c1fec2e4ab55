"""The job table: what the engines do, in order, for a network on a hardware.

Every backend evaluates this list and nothing else knows the order of things: the generated C++ loops over it, the
estimate sums its cycles, and a sequencer in hardware reads it from memory, record by record (`Job.encode`).

The last job is the one that writes the output. Rows, and whatever grows with them, are those of one image; the batch
multiplies them when a job runs. A layer of an expert works on that expert's queue, whose length only the router knows:
its job is skipped where the queue is empty.

The linear engine takes its weights in groups of blocks, which take turns in the two halves of the weight buffer.
Every job has an even number of groups, of which the last may be smaller or empty: the first group of the next job is
in the first half then, whichever experts are skipped in between. While the last group of a job computes, the first
group of the next job of the linear engine loads, unless a router comes before it, which decides what that is. Where
nothing computes, a job without blocks stands in front of it (`Job.is_fill`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, ClassVar, TypedDict, assert_never

from codegen.architecture import HEADER, HEADER_BEATS, JOB_BYTES, Architecture, job_name, section_name
from codegen.latency import router_interval
from common.errors import InputError
from pysim.arithmetic import Kind
from pysim.program import (
    Attention,
    Destination,
    Embed,
    Experts,
    Gate,
    Index,
    Linear,
    Norm,
    Operation,
    blocks,
    name_of,
)

RECORD_VERSION = 2
"""Version of the record of a job: a sequencer refuses every other."""


class Engine(IntEnum):
    """An engine, which does its jobs one after the other, in the order of the table."""

    POSITIONS = 0
    """Reads the header, and the position table, with which the residual stream of every image starts."""
    PIXELS = 1
    """Reads the images, a row of pixels a patch."""
    PATCH_QUEUE = 2
    """Fills queue 0 with the tokens that the patches become."""
    LINEAR = 3
    NORM = 4
    """Reads the parameters of a LayerNorm, and a layer's settings where they lie before them, and normalises."""
    ATTENTION = 5
    ROUTER = 6
    """Reads the gate of a task, and fills the experts' queues."""
    GATHER = 7
    """Copies the tokens of a queue side by side."""
    OUTPUT = 8
    """Writes the residual stream."""


class Region(IntEnum):
    """Memory that a job reads or writes."""

    NONE = 0
    IMAGE = 1
    """Pixels in the board's memory."""
    OUTPUT = 2
    """Tokens in the board's memory."""
    STREAM = 3
    """The residual stream."""
    HEADS = 4
    """Queries, keys and values."""
    GATE_INPUT = 5
    """The router's copy of the normalised tokens."""
    QUEUES = 6
    NORM = 7
    """Region of the operand memory: normalised tokens."""
    MIXED = 8
    """Region of the operand memory: output of attention."""
    GATHERED = 9
    """Region of the operand memory: normalised tokens in the order of a queue."""
    HIDDEN = 10
    """Region of the operand memory: values between the layers of an MLP; pixels while patches are embedded."""


_FLAGS = ("skips_if_empty", "scattered", "weighted", "to_router", "over_selected")
_BYTES = ("version", "engine", "source", "destination", "flags", "half", "top_k")
_LAYOUT = {
    **dict.fromkeys(_BYTES, "B"),
    "padding": "x",
    **dict.fromkeys(("waits_for", "layer", "index", "count"), "H"),
    **dict.fromkeys(("rows", "channels"), "I"),
    **dict.fromkeys(("words", "out_words", "source_word", "destination_word"), "H"),
    **dict.fromkeys(("blocks", "group", "pairs", "settings_beats"), "H"),
    **dict.fromkeys(("first", "beats", "block_beats", "task_beats"), "I"),
    **dict.fromkeys(("setting", "first_token", "mixed_words", "pace"), "H"),
}
"""Fields of a record in their order, as `struct` spells their sizes."""
_RECORD = struct.Struct("<" + "".join(_LAYOUT.values()))
assert _RECORD.size == JOB_BYTES
_STORED = tuple(name for name, size in _LAYOUT.items() if "x" not in size)
_PLAIN = frozenset(_STORED) - {"version", "engine", "source", "destination", "flags", "waits_for", "layer"}
"""Fields that a record holds as they are."""
_NO_LAYER = (1 << 16) - 1
_MAKE_AGAIN = "make the weight image again: this release reads only its own"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One thing that one engine does.

    Attributes:
        engine: which engine.
        source: what its rows are read from.
        destination: what they are written to.
        waits_for: engines whose earlier jobs (in the table) must all be done before it starts; those of its own engine
            always are. A job that is skipped is done as soon as it might have started.
        layer: number of the block; None for what belongs to none.
        index: number of the expert whose queue and parameters it has, or of the first head.
        count: heads, or experts to choose from.
        top_k: experts that a token chooses.
        rows: rows of one image: tokens, or patches; 0 where they are those of a queue.
        first_token: token of an image that its first row belongs to.
        channels: of a row, or of a head, without what pads it to whole words.
        words: operand words of a row, or of a head.
        out_words: words of a row that it writes.
        mixed_words: words of a row of queries, keys or values, if it reads or writes them.
        source_word: first word of `source` in a row of the operand memory, if it lies there.
        destination_word: likewise of `destination`.
        blocks: blocks of outputs; groups of experts of a router.
        group: blocks of a group, the last one excepted.
        pairs: pairs of groups.
        half: half of the weight buffer that the first group is in.
        first: first beat of its parameters in the weight image, what lies before them (`settings_beats`) included.
        settings_beats: beats of a layer's settings, or of the header, before its own parameters.
        beats: beats of its own parameters.
        block_beats: beats of a block of outputs; of a router, beats of its records.
        task_beats: beats from one task's parameters to the next one's; 0 where tasks share them.
        setting: place of its first scalar setting among a layer's.
        pace: of attention, cycles of a step; of a router in RTL, cycles of a token; of a norm, tokens that its results
            lag behind.
        skips_if_empty: whether it is skipped where the queue of expert `index` is empty.
        scattered: whether row i belongs to token i of queue `index`, instead of being that of token i.
        weighted: whether results are multiplied by the gate's score, which the queue holds.
        to_router: whether normalised tokens go to the router, too.
        over_selected: whether a router's scores are a softmax over the chosen experts instead of over all.
        part: the part of a block whose stage it belongs to, such as `experts`; not in the record.
        name: what it is, such as `blocks.1.fc1.7`; not in the record.
        kind: of a linear layer: patch, qkv, proj, fc1, fc2, expert_fc1 or expert_fc2; not in the record.
    """

    engine: Engine
    source: Region = Region.NONE
    destination: Region = Region.NONE
    waits_for: tuple[Engine, ...] = ()
    layer: int | None = None
    index: int = 0
    count: int = 0
    top_k: int = 0
    rows: int = 0
    first_token: int = 0
    channels: int = 0
    words: int = 0
    out_words: int = 0
    mixed_words: int = 0
    source_word: int = 0
    destination_word: int = 0
    blocks: int = 0
    group: int = 0
    pairs: int = 0
    half: int = 0
    first: int = 0
    settings_beats: int = 0
    beats: int = 0
    block_beats: int = 0
    task_beats: int = 0
    setting: int = 0
    pace: int = 0
    skips_if_empty: bool = False
    scattered: bool = False
    weighted: bool = False
    to_router: bool = False
    over_selected: bool = False
    part: str = field(default="", compare=False)
    name: str = field(default="", compare=False)
    kind: str = field(default="", compare=False)

    RECORD_BYTES: ClassVar[int] = JOB_BYTES
    """Bytes of a record."""

    @property
    def stage(self) -> str:
        """Step of an estimate that it is part of, such as `blocks.1.experts`."""
        return name_of(self.layer, self.part)

    @property
    def groups(self) -> list[int]:
        """Blocks of each group, empty ones included."""
        return [
            max(0, min(self.group, self.blocks - number * self.group)) for number in range(2 * self.pairs)
        ]

    @property
    def results(self) -> Destination:
        """Destination of the results of the linear engine."""
        if self.destination is Region.STREAM:
            return Destination.EXPERT if self.weighted else Destination.RESIDUAL
        return Destination.HEADS if self.destination is Region.HEADS else Destination.HIDDEN

    @property
    def is_fill(self) -> bool:
        """Whether it computes nothing, and only loads the first group of the job that comes next."""
        return self.engine is Engine.LINEAR and not self.blocks

    @property
    def reads(self) -> frozenset[Region]:
        """Everything that it reads."""
        found = {self.source}
        if self.scattered or self.engine is Engine.GATHER:
            found.add(Region.QUEUES)
        if self.engine is Engine.LINEAR and self.destination is Region.STREAM:
            found.add(Region.STREAM)
        return frozenset(found - {Region.NONE})

    @property
    def writes(self) -> frozenset[Region]:
        """Everything that it writes."""
        copies = {Region.GATE_INPUT} if self.to_router else set()
        return frozenset({self.destination} | copies) - {Region.NONE}

    def encode(self) -> bytes:
        """The record of 64 bytes, little-endian, that a sequencer reads.

        | Bytes | Fields |
        | --- | --- |
        | 0-7 | version, engine, source, destination, flags, half, top_k, 0 |
        | 8-15 | waits_for (a bit for each engine), layer (65535: none), index, count; 16 bits each |
        | 16-23 | rows, channels; 32 bits each |
        | 24-39 | words, out_words, source_word, destination_word, blocks, group, pairs, settings_beats; 16 bits each |
        | 40-55 | first, beats, block_beats, task_beats; 32 bits each |
        | 56-63 | setting, first_token, mixed_words, pace; 16 bits each |

        Flags, from the lowest bit: skips_if_empty, scattered, weighted, to_router, over_selected.

        Raises:
            InputError: a number is too large for its field.
        """
        numbers = {name: getattr(self, name) for name in _PLAIN}
        numbers |= {"version": RECORD_VERSION, "engine": self.engine}
        numbers |= {"source": self.source, "destination": self.destination}
        numbers["flags"] = sum(getattr(self, name) << bit for bit, name in enumerate(_FLAGS))
        numbers["waits_for"] = sum(1 << engine for engine in self.waits_for)
        numbers["layer"] = _NO_LAYER if self.layer is None else self.layer
        for name in _STORED:
            most = (1 << 8 * struct.calcsize(_LAYOUT[name])) - 1
            if name == "layer" and self.layer is not None:
                most = _NO_LAYER - 1
            if not 0 <= numbers[name] <= most:
                raise InputError(
                    f"job {self.name or self.engine.name}: {name} = {numbers[name]}, its record holds 0 to {most}",
                    hint="choose a smaller network, or wider words (lanes, axi_width)",
                )
        return _RECORD.pack(*(numbers[name] for name in _STORED))

    @classmethod
    def decode(cls, record: bytes) -> Job:
        """The job of a record, without its names.

        Raises:
            InputError: not 64 bytes, another version, or a number that means nothing.
        """
        if len(record) != _RECORD.size:
            raise InputError(
                f"record of a job: {len(record)} bytes, expected {_RECORD.size}", hint=_MAKE_AGAIN
            )
        numbers = dict(zip(_STORED, _RECORD.unpack(record), strict=True))
        if numbers["version"] != RECORD_VERSION:
            raise InputError(
                f"record of a job: version {numbers['version']}, expected {RECORD_VERSION}", hint=_MAKE_AGAIN
            )
        named: dict[str, Any] = {name: numbers[name] for name in _PLAIN}
        named |= {name: bool(numbers["flags"] >> bit & 1) for bit, name in enumerate(_FLAGS)}
        named["waits_for"] = tuple(engine for engine in Engine if numbers["waits_for"] >> engine & 1)
        named["layer"] = None if numbers["layer"] == _NO_LAYER else numbers["layer"]
        try:
            named |= {"engine": Engine(numbers["engine"])}
            named |= {name: Region(numbers[name]) for name in ("source", "destination")}
        except ValueError as error:
            raise InputError(f"record of a job: {error}", hint=_MAKE_AGAIN) from None
        job = cls(**named)
        if job.encode() != record:
            raise InputError(f"record of a job: {record.hex()} sets bits that mean nothing", hint=_MAKE_AGAIN)
        return job


JobTable = tuple[Job, ...]

BEFORE_EMBED = ("positions", "image")
"""Stages that come before the one of the embedding."""


def stage_name(op: Operation) -> str:
    """Stage of an operation's jobs."""
    return name_of(op.layer, _part(op))


def _part(op: Operation) -> str:
    return "router" if isinstance(op, Gate) else op.part


def job_table(architecture: Architecture) -> JobTable:
    """Every job of a network on its hardware, for one call, in order."""
    maker = _Maker(architecture)
    jobs = [job for op in architecture.program for job in maker.jobs(op)]
    return tuple(_with_waits([*jobs, maker.output()]))


def queue_lengths(
    architecture: Architecture, batch: int, queues: Mapping[int, Sequence[int]] | None = None
) -> dict[int, Sequence[int]]:
    """Length of each expert's queue by layer; where it is not known, every expert gets the same share."""
    moe, found = architecture.spec.moe, dict(queues or {})
    for layer in architecture.spec.moe_layers:
        assert moe is not None
        total = batch * architecture.spec.tokens * moe.top_k
        even = [total // moe.experts + (expert < total % moe.experts) for expert in range(moe.experts)]
        found.setdefault(layer, even)
    return found


def rows_of(job: Job, batch: int, queues: Mapping[int, Sequence[int]]) -> int:
    """Rows of a job over all images, with such queues."""
    if not job.skips_if_empty:
        return batch * job.rows
    assert job.layer is not None
    return queues[job.layer][job.index]


def running(jobs: Iterable[Job], queues: Mapping[int, Sequence[int]]) -> list[Job]:
    """The jobs that are not skipped; `queues` has the length of each expert's queue, by layer."""
    return [
        job
        for job in jobs
        if not job.skips_if_empty or (job.layer is not None and queues[job.layer][job.index])
    ]


def followers(jobs: Sequence[Job]) -> list[Job | None]:
    """The linear job whose first group loads behind each job that runs, if that is known by then."""
    found: list[Job | None] = []
    following = None
    for job in reversed(jobs):
        found.append(following)
        if job.engine is Engine.LINEAR:
            following = job
        elif job.engine is Engine.ROUTER:
            following = None
    return found[::-1]


# --- From operations to jobs --------------------------------------------------------------------------------


_REGIONS = {
    Kind.PIXEL: Region.HIDDEN,
    Kind.STREAM: Region.STREAM,
    Kind.NORMED: Region.NORM,
    Kind.GATE_INPUT: Region.GATE_INPUT,
    Kind.QUERY: Region.HEADS,
    Kind.KEY: Region.HEADS,
    Kind.VALUE: Region.HEADS,
    Kind.MIXED: Region.MIXED,
    Kind.HIDDEN: Region.HIDDEN,
}
"""Regions by the kind of value that lies there."""


class _Places(TypedDict):
    source: Region
    destination: Region
    source_word: int
    destination_word: int


class _Maker:
    """Jobs of operations."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture, self.sections, self.shapes = (
            architecture,
            architecture.sections,
            architecture.shapes,
        )
        starts = architecture.regions
        self.first_words = {
            Region.NORM: starts["norm"],
            Region.MIXED: starts["mixed"],
            Region.GATHERED: starts["gathered"],
            Region.HIDDEN: starts["hidden"],
        }
        # The settings of a block lie before the parameters of its first operation.
        self.leading = {ops[0].name for ops in blocks(architecture.program).values()}
        self.settings = {name: place for place, name in enumerate(architecture.settings)}

    def jobs(self, op: Operation) -> Iterator[Job]:
        match op:
            case Embed():
                yield from self._embed(op)
            case Norm():
                yield self._norm(op)
            case Linear():
                yield self._linear(op, op.part)
            case Attention():
                yield self._attention(op)
            case Gate():
                yield self._router(op)
            case Experts():
                yield from self._experts(op)
            case _:
                assert_never(op)

    def output(self) -> Job:
        """The job behind all operations."""
        spec, words = self.architecture.spec, self.architecture.token_words
        places = self._places(Region.STREAM, Region.OUTPUT)
        return Job(
            engine=Engine.OUTPUT,
            part="output",
            name="output",
            rows=spec.tokens,
            channels=spec.dim,
            words=words,
            out_words=words,
            **places,
        )

    def _places(self, source: Region, destination: Region) -> _Places:
        return {
            "source": source,
            "destination": destination,
            "source_word": self.first_words.get(source, 0),
            "destination_word": self.first_words.get(destination, 0),
        }

    def _setting(self, *names: str) -> int:
        """Place of the first of some settings that the arithmetic has; 0 if it has none of them."""
        return next((self.settings[name] for name in names if name in self.settings), 0)

    def _embed(self, op: Embed) -> Iterator[Job]:
        architecture, tokens, patches = self.architecture, op.output.rows, op.patch.input.rows
        words = architecture.token_words
        yield Job(
            engine=Engine.POSITIONS,
            part="positions",
            name="positions",
            rows=tokens,
            channels=op.output.channels,
            out_words=words,
            first=self.sections[HEADER],
            settings_beats=HEADER_BEATS,
            beats=tokens * words * architecture.position_word_beats,
            **self._places(Region.NONE, Region.STREAM),
        )
        yield Job(
            engine=Engine.PIXELS,
            part="image",
            name="image",
            rows=patches,
            channels=op.patch.input.channels,
            out_words=architecture.patch_words,
            **self._places(Region.IMAGE, Region.HIDDEN),
        )
        yield self._fill(op, Region.NONE)
        yield Job(
            engine=Engine.PATCH_QUEUE,
            part=op.part,
            name="patch queue",
            rows=patches,
            first_token=op.prefix,
            **self._places(Region.NONE, Region.QUEUES),
        )
        yield self._linear(op.patch, op.part, scattered=True)

    def _norm(self, op: Norm) -> Job:
        architecture, words = self.architecture, self.architecture.token_words
        leads = op.name in self.leading
        return Job(
            engine=Engine.NORM,
            layer=op.layer,
            part=op.part,
            name=op.name,
            rows=op.input.rows,
            channels=op.input.channels,
            words=words,
            out_words=words,
            first=self.sections[name_of(op.layer, "settings") if leads else op.name],
            settings_beats=architecture.setting_beats if leads else 0,
            beats=architecture.norm_beats,
            setting=self._setting(f"{op.part}_shift", "norm_shift"),
            pace=architecture.norm_lag,
            to_router=op.gate_output is not None,
            **self._places(Region.STREAM, Region.NORM),
        )

    def _attention(self, op: Attention) -> Job:
        head_words = self.architecture.head_words
        return Job(
            engine=Engine.ATTENTION,
            layer=op.layer,
            part=op.part,
            name=op.name,
            count=op.heads,
            rows=op.tokens,
            channels=op.head_dim,
            words=head_words,
            out_words=head_words,
            mixed_words=self.architecture.mixed_words,
            setting=self._setting("score_shift"),
            pace=self.architecture.attention_step,
            **self._places(Region.HEADS, Region.MIXED),
        )

    def _router(self, op: Gate) -> Job:
        architecture = self.architecture
        name = stage_name(op)
        return Job(
            engine=Engine.ROUTER,
            layer=op.layer,
            part=_part(op),
            name=name,
            count=op.experts,
            top_k=op.top_k,
            rows=op.input.rows,
            channels=op.input.channels,
            words=architecture.token_words,
            blocks=architecture.gate_groups,
            first=self.sections[op.name],
            beats=architecture.gate_beats,
            block_beats=architecture.gate_record_beats,
            task_beats=architecture.gate_beats,
            setting=self._setting("hidden_multiplier_0", "align"),
            pace=router_interval(
                architecture.token_words,
                architecture.gate_groups,
                architecture.router_lanes,
                op.top_k,
                op.kind.over_selected,
            ),
            over_selected=op.kind.over_selected,
            **self._places(Region.GATE_INPUT, Region.QUEUES),
        )

    def _experts(self, op: Experts) -> Iterator[Job]:
        words = self.architecture.token_words
        yield self._fill(op, Region.QUEUES)
        for index in op.fc1.indices:
            (expert,) = index
            yield Job(
                engine=Engine.GATHER,
                layer=op.layer,
                index=expert,
                part=op.part,
                name=f"{name_of(op.layer, 'gather')}.{expert}",
                channels=op.fc1.input.channels,
                words=words,
                out_words=words,
                skips_if_empty=True,
                **self._places(Region.NORM, Region.GATHERED),
            )
            yield self._linear(op.fc1, op.part, index)
            yield self._linear(op.fc2, op.part, index, scattered=True)

    def _fill(self, op: Embed | Experts, source: Region) -> Job:
        """The first group of a layer loads, before which nothing computes."""
        return Job(
            engine=Engine.LINEAR,
            layer=op.layer,
            part=op.part,
            name=name_of(op.layer, "fill"),
            pairs=1,
            **self._places(source, Region.NONE),
        )

    def _linear(self, op: Linear, part: str, index: Index = (), *, scattered: bool = False) -> Job:
        """A layer for all rows, or that of one expert for the rows of its queue."""
        kind, expert = job_name(op), index[0] if index else 0
        shape, name, of_expert = self.shapes[kind], section_name(op, index), op.experts is not None
        source = _REGIONS[op.input.kind]
        if of_expert and source is Region.NORM:
            source = Region.GATHERED
        return Job(
            engine=Engine.LINEAR,
            layer=op.layer,
            index=expert,
            part=part,
            name=name,
            kind=kind,
            rows=0 if of_expert else op.input.rows,
            channels=op.input.channels,
            words=shape.in_words,
            out_words=shape.out_words,
            mixed_words=self.architecture.mixed_words if op.destination is Destination.HEADS else 0,
            blocks=shape.blocks,
            group=shape.group,
            pairs=shape.pairs,
            first=self.sections[name],
            beats=shape.beats,
            block_beats=shape.block_beats,
            setting=self._setting(f"hidden_multiplier_{expert}", "align"),
            skips_if_empty=of_expert,
            scattered=scattered,
            weighted=op.destination is Destination.EXPERT,
            **self._places(source, _REGIONS[op.output.kind]),
        )


# --- What waits for what ------------------------------------------------------------------------------------


def _with_waits(jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs, each with the engines whose earlier jobs it must not overtake.

    It must not start before whatever wrote what it reads, nor write what others still read. An engine is left out if
    its jobs are known to be done because others were waited for.
    """
    # For each job, the last job of each engine that is done when it starts.
    done: list[dict[Engine, int]] = []
    last_of: dict[Engine, int] = {}
    # Who read (False) or wrote (True) a region since it was written last.
    touched: dict[Region, list[tuple[int, bool]]] = {}
    for number, job in enumerate(jobs):
        known = dict(done[last_of[job.engine]]) if job.engine in last_of else {}
        if job.engine in last_of:
            known[job.engine] = last_of[job.engine]
        uses = [(region, True) for region in job.writes] + [(region, False) for region in job.reads]
        earlier = {
            other for region, writes in uses for other, wrote in touched.get(region, ()) if writes or wrote
        }
        waits = set()
        for other in sorted(earlier, reverse=True):
            engine = jobs[other].engine
            if known.get(engine, -1) < other:
                waits.add(engine)
                for each, last in (done[last_of[engine]] | {engine: last_of[engine]}).items():
                    known[each] = max(known.get(each, -1), last)
        for region in job.reads:
            touched.setdefault(region, []).append((number, False))
        for region in job.writes:
            touched[region] = [(number, True)]
        done.append(known)
        last_of[job.engine] = number
        yield replace(job, waits_for=tuple(sorted(waits))) if waits else job
