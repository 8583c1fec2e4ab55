"""Timeline of the RTL accelerator: when each job starts and ends, without simulating any hardware.

Engines take what their pipelines take, exactly. Weights come as the memory delivers them, in the order of the table,
as far ahead as the streamer's buffer reaches; an engine waits for those that are not there yet.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, assert_never

from codegen.architecture import HEADER, Architecture, attention_steps, ceil_div
from codegen.estimate import MEMORY_LATENCY, Stage
from codegen.rtl.kernels.attention import START_LATENCY as HEAD_START
from codegen.rtl.kernels.attention import stage_cycles
from codegen.rtl.kernels.layernorm import NORMALISE_CYCLES
from codegen.rtl.kernels.linear import sum_cycles, write_cycles
from codegen.rtl.kernels.router import entered_cycles
from codegen.schedule import Engine, Job, JobTable, job_table, queue_lengths, rows_of
from codegen.weight_image import image_layout, output_layout

CHUNK: Final = 64
"""Beats of a request of the weight streamer."""

READ_LATENCY: Final = 2
"""Cycles of every memory of the accelerator."""
SHARED_SETUP: Final = 2
GATE_SETUP: Final = 1
QUEUED_JOBS: Final = 2
"""Jobs that wait before each engine."""

ISSUE_CYCLES: Final = 5
"""Cycles from a job of the table to the next one on its way to the engines."""
FETCH_CYCLES: Final = 9
"""The same on its way to the weight streamer, its beats aside."""
STREAM_CYCLES: Final = 12
"""Cycles from the memory's answer to an engine that waits for it, and from a request to the memory."""
TABLE_CYCLES: Final = 30
"""Cycles that reading the job table takes beside its beats and the memory's latency."""

LINEAR_CYCLES: Final = 8
NORM_CYCLES: Final = 7
ATTENTION_CYCLES: Final = 5
ROUTER_CYCLES: Final = 5
GATHER_CYCLES: Final = 9
MASTER_CYCLES: Final = 8
"""Cycles of a job beside its formula: until its settings are there, and until its last value is in memory."""
FILL_CYCLES: Final = 3


@dataclass(frozen=True)
class Timed:
    """A job that ran.

    Attributes:
        number: its place in the table.
        job: the job.
        rows: that it worked on.
        start: cycle in which it started, from the start of the call.
        end: cycle in which it ended.
        waited: cycles of them in which it waited for weights.
    """

    number: int
    job: Job
    rows: int
    start: int
    end: int
    waited: int


def stages_of(jobs: Sequence[Timed]) -> list[Stage]:
    """Steps of the schedule as an estimate has them, from what `timeline` gave.

    Cycles count from the end of the step before to its own end.
    """
    found, before = [], 0
    for (name, part), group in groupby(jobs, key=lambda timed: (timed.job.stage, timed.job.part)):
        alike = list(group)
        end = max(before, *(timed.end for timed in alike))
        busy = sum(timed.end - timed.start - timed.waited for timed in alike)
        trips: dict[str, int] = {}
        for timed in alike:
            engine = timed.job.engine.name.lower()
            trips[engine] = trips.get(engine, 0) + timed.end - timed.start - timed.waited
        load = sum(timed.job.beats + timed.job.settings_beats for timed in alike)
        waited = sum(timed.waited for timed in alike)
        bound = (
            "weights" if 2 * waited > end - before else "compute" if 2 * busy > end - before else "overhead"
        )
        found.append(Stage(name, part, busy, load, end - before, bound, trips, ()))
        before = end
    return found


def moved_bytes(architecture: Architecture, jobs: Sequence[Timed], batch: int) -> int:
    """Bytes that cross the memory ports in a call: job table, weights, images and results."""
    beats = architecture.sections[HEADER] + sum(timed.job.beats + timed.job.settings_beats for timed in jobs)
    image = image_layout(architecture).image_bytes + output_layout(architecture).image_bytes
    return beats * architecture.beat_bytes + batch * image


def timeline(
    architecture: Architecture,
    batch: int = 1,
    beats_per_cycle: float = 1.0,
    queues: Mapping[int, Sequence[int]] | None = None,
    latency: int = MEMORY_LATENCY,
) -> list[Timed]:
    """Jobs of a call that run, in the order of the table.

    Args:
        architecture: of the network on its hardware, whose backend is `rtl`.
        batch: images.
        beats_per_cycle: what the board's memory delivers to all weight ports; more than one beat a cycle is not taken.
        queues: length of each expert's queue by layer; even ones where they are not given.
        latency: cycles of the memory from a request to its first beat.
    """
    lengths = queue_lengths(architecture, batch, queues)
    return _Schedule(architecture, batch, beats_per_cycle, lengths, latency).run()


@dataclass(frozen=True)
class _Part:
    """Beats that an engine takes at once: a group of blocks, a norm's parameters, a gate.

    Attributes:
        number: of the job that they belong to.
        place: number of the group; 0 of what comes in one piece.
        beats: how many.
    """

    number: int
    place: int
    beats: int


class _Schedule:
    """The state of a call."""

    def __init__(
        self,
        architecture: Architecture,
        batch: int,
        rate: float,
        lengths: Mapping[int, Sequence[int]],
        latency: int,
    ) -> None:
        self.architecture, self.batch, self.lengths = architecture, batch, lengths
        self.table: JobTable = job_table(architecture)
        ports = architecture.hardware.weight_ports
        self.latency, self.rate = latency, min(rate, 1.0)
        # All ports share what the memory delivers.
        self.shared_rate = min(rate * ports / (ports + 1), 1.0)
        # The job table is read before anything else: its first beats, then the others.
        beats = architecture.sections[HEADER]
        self.begin = TABLE_CYCLES + 2 * latency + round(beats / self.rate) + ceil_div(beats, CHUNK)
        self.stream = _Stream(architecture.hardware.stream_beats, self.rate, latency, self.begin)
        self.parts = deque(self._all_parts())
        self.taken: dict[tuple[int, int], int] = {}
        """Cycle in which the last beat of a part was taken, by job and number in it."""
        self.halves = [0, 0]
        """Cycle in which each half of the weight buffer is free, the next one first."""
        self.norms: deque[int] = deque([0, 0])
        self.gate = 0
        self.started: dict[int, int] = {}
        self.decided: dict[int | None, int] = {}

    def run(self) -> list[Timed]:
        free: dict[Engine, int] = {}
        last: dict[Engine, int] = {}
        starts: dict[Engine, deque[int]] = {engine: deque(maxlen=QUEUED_JOBS) for engine in Engine}
        issued, found = self.begin, []
        for number, job in enumerate(self.table):
            held = starts[job.engine]
            room = held[0] if len(held) == QUEUED_JOBS else 0
            issued = max(issued + ISSUE_CYCLES, room)
            start = max(
                [issued + 1, free.get(job.engine, 0) + 1, *(last.get(e, 0) + 1 for e in job.waits_for)]
            )
            rows = rows_of(job, self.batch, self.lengths)
            held.append(start)
            if job.skips_if_empty and not rows:
                last[job.engine] = max(last.get(job.engine, 0), start)
                continue
            self.started[number] = start
            end, waited = self._end(number, job, rows, start)
            free[job.engine] = last[job.engine] = end
            if job.engine is Engine.ROUTER:
                self.decided[job.layer] = end
            found.append(Timed(number, job, rows, start, end, waited))
        return found

    # --- Engines

    def _end(self, number: int, job: Job, rows: int, start: int) -> tuple[int, int]:
        """Cycle in which a job ends, and how many of its cycles it waited for weights."""
        architecture = self.architecture
        match job.engine:
            case Engine.LINEAR:
                return self._linear(number, job, rows, start)
            case Engine.POSITIONS:
                here = self._take(number)
                end = max(here, start + job.rows * job.out_words * self.batch) + MASTER_CYCLES
                return end, max(0, here - start)
            case Engine.PIXELS:
                beats = rows * job.out_words * architecture.pixel_beats
                cycles = round(beats / self.shared_rate)
                self.stream.share(start, start + self.latency + cycles, self.shared_rate)
                return start + self.latency + cycles + MASTER_CYCLES, 0
            case Engine.PATCH_QUEUE:
                return start + rows, 0
            case Engine.NORM:
                cycles = (rows + job.pace) * job.words + NORMALISE_CYCLES + NORM_CYCLES
                here = self._take(number)
                waited = max(0, here - start - NORM_CYCLES)
                self.norms.append(start + waited + cycles)
                self.norms.popleft()
                return start + waited + cycles, waited
            case Engine.ATTENTION:
                return start + self._attention(job), 0
            case Engine.ROUTER:
                here = self._take(number)
                waited = max(0, here - start - 1)
                reads = GATE_SETUP + READ_LATENCY - 1
                cycles = entered_cycles(
                    architecture, rows, job.channels, job.blocks, job.count, job.top_k, job.over_selected
                )
                self.gate = start + waited + cycles + reads + ROUTER_CYCLES
                return self.gate, waited
            case Engine.GATHER:
                return start + rows * job.words + GATHER_CYCLES, 0
            case Engine.OUTPUT:
                beats = rows * job.words * architecture.output_word_beats
                return start + beats + self.latency + MASTER_CYCLES, 0
            case _:
                assert_never(job.engine)

    def _attention(self, job: Job) -> int:
        architecture = self.architecture
        steps = attention_steps(job.rows, architecture.hardware.attention_rows)
        out = stage_cycles(architecture.lanes)["out_cycles"] + READ_LATENCY - 1
        head = (steps - 1) * job.pace + job.words + out
        return self.batch * (job.count * (head + HEAD_START) + 1) + ATTENTION_CYCLES - 1

    def _linear(self, number: int, job: Job, rows: int, start: int) -> tuple[int, int]:
        if job.is_fill:
            return start + FILL_CYCLES, 0
        architecture, hardware = self.architecture, self.architecture.hardware
        rounds = max(job.words, architecture.write_steps)
        tiles = ceil_div(rows, hardware.token_tile)
        early = max(sum_cycles(architecture.lanes), 2 * READ_LATENCY + SHARED_SETUP)
        ready, waited = start + LINEAR_CYCLES - 2, 0
        groups = self._groups(job)
        for place, blocks in enumerate(groups):
            here = self._take(number, place) + 1
            waited += max(0, here - ready)
            ends = max(ready, here) + (blocks * tiles + 1) * rounds
            self.halves.append(ends + sum_cycles(architecture.lanes) + 1)
            self.halves.pop(0)
            ready = ends
        parts = hardware.outputs // architecture.lanes
        last = (rows - 1) % hardware.token_tile * parts + (job.out_words - 1) % parts
        return ready - rounds + last + early + write_cycles(architecture) + 2, waited

    def _groups(self, job: Job) -> list[int]:
        """Blocks of each group, as the weight buffer cuts a layer; none of a job that only fills."""
        if job.is_fill:
            return []
        architecture = self.architecture
        rows = architecture.hardware.weight_rows
        most = min(rows // job.words, architecture.capacities.max_group)
        return [min(most, job.blocks - first) for first in range(0, job.blocks, most)]

    # --- Weights

    def _all_parts(self) -> Iterator[_Part]:
        for number, job in enumerate(self.table):
            if job.engine is Engine.LINEAR:
                for place, blocks in enumerate(self._groups(job)):
                    yield _Part(number, place, blocks * job.block_beats)
            elif job.beats + job.settings_beats:
                yield _Part(number, 0, job.settings_beats + job.beats)

    def _take(self, number: int, place: int = 0) -> int:
        """Cycle in which the last beat of a job's part is taken: that of its group `place`."""
        while (number, place) not in self.taken:
            part = self.parts.popleft()
            job = self.table[part.number]
            if job.skips_if_empty and not rows_of(job, self.batch, self.lengths):
                self.stream.drop(part.beats, self.decided[job.layer])
                continue
            self.taken[part.number, part.place] = self.stream.take(part.beats, self._free(part, job))
        return self.taken[number, place]

    def _free(self, part: _Part, job: Job) -> int:
        """Cycle from which on an engine has a place for a part; nobody takes an expert's before it is known to run."""
        match job.engine:
            case Engine.LINEAR:
                return max(self.halves[0], self.decided[job.layer] if job.skips_if_empty else 0)
            case Engine.NORM:
                return self.norms[0]
            case Engine.ROUTER:
                return self.gate
            case _:
                return self.started.get(part.number, self.begin)


class _Stream:
    """Beats from the memory through the streamer's buffer, in order."""

    def __init__(self, depth: int, rate: float, latency: int, begin: int) -> None:
        self.depth, self.rate, self.latency = depth, rate, latency
        self.asked, self.delivered, self.last = begin, float(begin), begin
        self.count = 0
        """Beats that have been asked for, all in all."""
        self.marks: list[tuple[int, int]] = []
        """Beats that had been taken, by cycle."""
        self.shared = (0, 0, rate)

    def share(self, start: int, end: int, rate: float) -> None:
        """Another port takes its part from `start` to `end`."""
        self.shared = start, end, rate

    def take(self, beats: int, free: int) -> int:
        """Take beats from the cycle `free` on; returns the cycle of the last."""
        self.asked += FETCH_CYCLES
        begun = max(self.last, free)
        left, end = beats, begun
        while left:
            chunk = min(left, CHUNK - self.count % CHUNK)
            arrived = self._arrive(chunk)
            end = max(end + chunk, round(arrived) + STREAM_CYCLES)
            self.count += chunk
            left -= chunk
            self.marks.append((self.count, end))
        self.last = end
        return end

    def drop(self, beats: int, decided: int) -> None:
        """Let beats go of an expert that the router left out, as far as they had been asked for by then."""
        while beats and self.asked < decided:
            chunk = min(beats, CHUNK - self.count % CHUNK)
            arrived = round(self._arrive(chunk))
            self.count += chunk
            beats -= chunk
            self.marks.append((self.count, max(arrived, decided)))

    def _arrive(self, chunk: int) -> float:
        """Cycle in which the last of the next beats arrives."""
        self.asked = max(self.asked + 1, self._room(self.count + chunk - self.depth))
        start, end, shared_rate = self.shared
        rate = shared_rate if start <= self.delivered < end else self.rate
        self.delivered = max(self.delivered, float(self.asked + self.latency)) + chunk / rate
        return self.delivered

    def _room(self, taken: int) -> int:
        """Cycle in which so many beats have been taken."""
        if taken <= 0:
            return 0
        place = bisect_right(self.marks, (taken - 1, 1 << 62))
        return self.marks[min(place, len(self.marks) - 1)][1]
