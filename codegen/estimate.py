"""Cycles, traffic and bounds of a Design before synthesis.

Trip counts are exact: they equal what the generated C++ executes (the tests count it). On top of them come the
assumptions of `codegen/loops.py` about each loop, the latency of memory, and one beat a cycle from every port as long
as the board's memory keeps up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import assert_never

from boards import Board
from codegen.architecture import HEADER_BEATS, Architecture
from codegen.loops import (
    Loop,
    Run,
    copy_positions_trips,
    keys_trips,
    load_pixels_trips,
    loops_of,
    rounds_trips,
    router_runs,
    store_trips,
    words_trips,
)
from codegen.schedule import Engine, Job, followers, job_table, queue_lengths, rows_of, running

MEMORY_LATENCY = 80
"""Cycles from a request to its first beat; paid once a burst that nothing hides."""

Trips = dict[str, int]


@dataclass(frozen=True)
class Stage:
    """One step of the schedule.

    Attributes:
        name: for example `blocks.3.experts`.
        part: what it is in its block, such as `experts`.
        compute: iterations of the stage's pipelined compute loops.
        load: beats that its weights (and other data) take, hidden or not.
        cycles: expected cycles, with loads behind compute and the stated overheads.
        bound_by: "compute", "weights" or "overhead": what the cycles mostly wait for.
        trips: iterations per engine.
        runs: executions of loops, hidden or not.
    """

    name: str
    part: str
    compute: int
    load: int
    cycles: int
    bound_by: str
    trips: Trips
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class PartTotal:
    """All stages that are the same part of a block.

    Attributes:
        part: such as `experts`.
        stages: how many there are.
        compute: iterations of their pipelined compute loops.
        load: beats that their weights (and other data) take.
        cycles: of all of them.
        bound_by: what most of these cycles mostly wait for.
    """

    part: str
    stages: int
    compute: int
    load: int
    cycles: int
    bound_by: str


@dataclass(frozen=True)
class LoopTotal:
    """A loop over the whole schedule.

    Attributes:
        loop: the loop.
        entries: how often it is entered.
        iterations: of all executions.
        longest: iterations of its longest execution.
        cycles: of all executions, if none of them ran beside another loop or waited for memory.
    """

    loop: Loop
    entries: int
    iterations: int
    longest: int
    cycles: int


@dataclass(frozen=True)
class _Cost:
    """Cost of a job: runs of loops, hidden or not, beats that no loop loads, and the cycles of all that."""

    runs: Sequence[Run]
    cycles: int
    beats: int = 0


class Scheduler:
    """Cycles of the job table, stage by stage, for a batch of images.

    Args:
        architecture: of the design.
        batch: images.
        beats_per_cycle: what the board's memory delivers; more than one beat a cycle is not taken.
        loops: what is known of the loops, by label; what is assumed of them if not given.
        overlap: whether weights load while a group computes.
    """

    def __init__(
        self,
        architecture: Architecture,
        batch: int,
        beats_per_cycle: float = 1.0,
        *,
        loops: Mapping[str, Loop] | None = None,
        overlap: bool = True,
    ) -> None:
        self.architecture = architecture
        self.batch = batch
        self.beats_per_cycle = beats_per_cycle
        self.loops = loops_of(architecture) if loops is None else loops
        self.overlap = overlap

    def run(self, queues: Mapping[int, Sequence[int]] | None = None) -> list[Stage]:
        """Evaluate the whole table; `queues` gives each MoE layer's queue lengths (even ones where absent)."""
        lengths = queue_lengths(self.architecture, self.batch, queues)
        jobs = running(job_table(self.architecture), lengths)
        costs = [
            (job, self._cost(job, rows_of(job, self.batch, lengths), follower))
            for job, follower in zip(jobs, followers(jobs), strict=True)
        ]
        return [
            self._stage(name, part, [cost for _, cost in found])
            for (name, part), found in groupby(costs, key=lambda pair: (pair[0].stage, pair[0].part))
        ]

    def _beat_cycles(self, beats: int) -> int:
        """Cycles in which the memory delivers so many beats."""
        return round(beats / min(self.beats_per_cycle, 1.0))

    def _run_cycles(self, run: Run) -> int:
        """Cycles of a run that nothing hides."""
        waits = MEMORY_LATENCY * run.requests
        if run.loop.port != "weights":
            return run.cycles + waits
        # A beat every `ii` cycles, or as fast as the memory delivers them.
        asked = run.iterations * run.loop.ii
        return max(asked, self._beat_cycles(run.iterations)) + (run.cycles - asked) + waits

    def _stage(self, name: str, part: str, costs: Sequence[_Cost]) -> Stage:
        """A stage whose jobs follow one another."""
        runs = [run for cost in costs for run in cost.runs if run.iterations]
        cycles = sum(cost.cycles for cost in costs)
        trips: Trips = {}
        for run in runs:
            trips[run.loop.engine] = trips.get(run.loop.engine, 0) + run.iterations
        beats = sum(cost.beats for cost in costs)
        if beats:
            trips["load"] = trips.get("load", 0) + beats
        load = sum(run.iterations for run in runs if _moves(run)) + beats
        compute = sum(run.iterations for run in runs if not _moves(run))
        busy = max(compute, self._beat_cycles(load))
        bound = (
            "overhead"
            if cycles > 2 * busy
            else "compute"
            if compute >= self._beat_cycles(load)
            else "weights"
        )
        return Stage(name, part, compute, load, cycles, bound, trips, tuple(runs))

    def _cost(self, job: Job, rows: int, follower: Job | None) -> _Cost:
        """Cost of a job with so many rows, behind which the first group of another one loads."""
        architecture, loops = self.architecture, self.loops
        match job.engine:
            case Engine.LINEAR:
                return self._linear(job, rows, follower)
            case Engine.POSITIONS:
                # The header comes with the request of the table behind it.
                return self._in_turn(
                    Run(loops["LOAD_POSITIONS"], job.beats, requests=1),
                    Run(loops["COPY_POSITIONS"], copy_positions_trips(job, self.batch)),
                    beats=job.settings_beats,
                )
            case Engine.PIXELS:
                return self._in_turn(
                    Run(loops["LOAD_PIXELS"], load_pixels_trips(architecture, job, rows), requests=1)
                )
            case Engine.PATCH_QUEUE:
                return self._in_turn(Run(loops["PATCH_TOKENS"], rows))
            case Engine.NORM:
                # The settings of a layer and the parameters of its first norm are neighbours: one request.
                return self._in_turn(
                    Run(loops["LOAD_SETTINGS"], job.settings_beats),
                    Run(loops["LOAD_NORM"], job.beats, requests=1),
                    Run(loops["WORDS"], words_trips(architecture, job, rows)),
                )
            case Engine.ATTENTION:
                heads = self.batch * job.count
                return self._in_turn(Run(loops["CYCLES"], keys_trips(architecture, job), heads))
            case Engine.ROUTER:
                gate = Run(loops["LOAD_GATE"], job.beats, requests=1)
                return self._in_turn(gate, *router_runs(job, loops, rows))
            case Engine.GATHER:
                return self._in_turn(Run(loops["GATHER_WORDS"], rows * job.words))
            case Engine.OUTPUT:
                return self._in_turn(
                    Run(loops["STORE_WORD"], store_trips(architecture, job, rows), requests=1)
                )
            case _:
                assert_never(job.engine)

    def _in_turn(self, *runs: Run, beats: int = 0) -> _Cost:
        """Runs that follow one another, and beats beside them."""
        return _Cost(runs, sum(self._run_cycles(run) for run in runs if run.iterations) + beats, beats)

    def _linear(self, job: Job, rows: int, follower: Job | None) -> _Cost:
        """Groups, while each of which the next one loads; the last one loads the first group of whatever follows."""
        first, *others = job.groups
        loads = [self._load(job, blocks) for blocks in others]
        loads.append(self._load(follower, follower.group) if follower is not None else None)
        rounds = [
            Run(self.loops["ROUNDS"], rounds_trips(self.architecture, job, blocks, rows))
            for blocks in (first, *others)
        ]
        runs = [*rounds, *(load for load in loads if load is not None)]
        return _Cost(runs, sum(map(self._side_by_side, rounds, loads)))

    def _load(self, job: Job, blocks: int) -> Run | None:
        """The load of some blocks of a layer, if there are any."""
        return Run(self.loops["LOAD_GROUP"], blocks * job.block_beats, requests=1) if blocks else None

    def _side_by_side(self, compute: Run, load: Run | None) -> int:
        loading = self._run_cycles(load) if load is not None else 0
        return max(compute.cycles, loading) if self.overlap else compute.cycles + loading


def _moves(run: Run) -> bool:
    """Whether a run moves data between memory and chip (or copies them) instead of computing."""
    return run.loop.engine in ("load", "output") or run.loop.port == "image"


def total_trips(stages: Sequence[Stage]) -> Trips:
    """Iterations per engine over the whole schedule."""
    totals: Trips = {}
    for stage in stages:
        for engine, count in stage.trips.items():
            totals[engine] = totals.get(engine, 0) + count
    return totals


def part_totals(stages: Sequence[Stage]) -> list[PartTotal]:
    """Stages that are the same part of a block together, in the order in which the schedule comes to them first."""
    parts: dict[str, list[Stage]] = {}
    for stage in stages:
        parts.setdefault(stage.part, []).append(stage)
    found = []
    for part, alike in parts.items():
        bounds: Counter[str] = Counter()
        for stage in alike:
            bounds[stage.bound_by] += stage.cycles
        found.append(
            PartTotal(
                part,
                len(alike),
                sum(stage.compute for stage in alike),
                sum(stage.load for stage in alike),
                sum(stage.cycles for stage in alike),
                max(bounds, key=lambda bound: bounds[bound]),
            )
        )
    return found


def loop_totals(stages: Sequence[Stage]) -> list[LoopTotal]:
    """Every loop that the schedule enters, in the order in which it comes to them first."""
    totals: dict[str, LoopTotal] = {}
    for run in (run for stage in stages for run in stage.runs):
        before = totals.get(run.loop.label, LoopTotal(run.loop, 0, 0, 0, 0))
        totals[run.loop.label] = LoopTotal(
            run.loop,
            before.entries + run.entries,
            before.iterations + run.iterations,
            max(before.longest, run.trips),
            before.cycles + run.cycles,
        )
    return list(totals.values())


def dram_bytes(architecture: Architecture, stages: Sequence[Stage]) -> int:
    """Bytes that cross the memory ports: weights, image and result."""
    moved = {"weights": HEADER_BEATS, "image": 0, "output": 0}
    for run in (run for stage in stages for run in stage.runs if run.loop.port):
        moved[run.loop.port] += run.iterations
    return (
        moved["weights"] * architecture.beat_bytes
        + (moved["image"] + moved["output"]) * architecture.port_bytes
    )


def beats_per_cycle(architecture: Architecture, board: Board) -> float:
    """Beats of the weight ports that the board's memory delivers in a cycle of the design's clock."""
    clock_mhz = architecture.hardware.clock_mhz
    return board.read_gb_s(clock_mhz) * 1e3 / (architecture.beat_bytes * clock_mhz)
