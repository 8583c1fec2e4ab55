"""Cycles, traffic and bounds of a Design before synthesis.

Trip counts are exact: they equal what the generated C++ executes (the tests count it). On top of them come the
assumptions of `codegen/loops.py` about each loop, the latency of memory, and one beat a cycle from every port as long
as the board's memory keeps up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codegen.architecture import Architecture
from codegen.loops import (
    Loop,
    Run,
    copy_positions_trips,
    keys_trips,
    load_gate_trips,
    load_group_trips,
    load_pixels_trips,
    load_positions_trips,
    loops_of,
    rounds_trips,
    router_runs,
    store_trips,
    words_trips,
)

MEMORY_LATENCY = 80
"""Cycles from a request to its first beat; paid once a burst that nothing hides."""
HEADER_BEATS = 1

Trips = dict[str, int]


@dataclass(frozen=True)
class Stage:
    """One step of the schedule.

    Attributes:
        name: for example `blocks.3.experts`.
        compute: iterations of the stage's pipelined compute loops.
        load: beats that its weights (and other data) take, hidden or not.
        cycles: expected cycles, with loads behind compute and the stated overheads.
        bound_by: "compute", "weights" or "overhead": what the cycles mostly wait for.
        trips: iterations per engine.
        runs: executions of loops, hidden or not.
    """

    name: str
    compute: int
    load: int
    cycles: int
    bound_by: str
    trips: Trips
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Group:
    """Blocks of outputs that are computed together, and the load that runs meanwhile, if there is one."""

    compute: Run
    prefetch: Run | None


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


def even_queues(architecture: Architecture, tokens: int) -> list[int]:
    """Queue lengths when every expert gets the same share: what an estimate assumes of routing it cannot know."""
    moe = architecture.spec.moe
    assert moe is not None
    total, experts = tokens * moe.top_k, moe.experts
    return [total // experts + (expert < total % experts) for expert in range(experts)]


class Scheduler:
    """The kernel's schedule, stage by stage, for a batch of images.

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
        self.tokens = batch * architecture.spec.tokens
        self.beats_per_cycle = beats_per_cycle
        self.loops = loops_of(architecture) if loops is None else loops
        self.overlap = overlap
        self.stages: list[Stage] = []

    def run(self, queues: Mapping[int, Sequence[int]] | None = None) -> list[Stage]:
        """Schedule the whole network; `queues` gives each MoE layer's queue lengths (even ones where absent)."""
        spec = self.architecture.spec
        self._embed()
        for layer in range(spec.depth):
            block = f"blocks.{layer}"
            self._norm(f"{block}.norm1", self.architecture.setting_beats)
            self._linear(f"{block}.qkv", "qkv", following="proj")
            self._attention(f"{block}.attention")
            moe = layer in spec.moe_layers
            self._linear(f"{block}.proj", "proj", following=None if moe else "fc1")
            self._norm(f"{block}.norm2", 0)
            after = "qkv" if layer + 1 < spec.depth else None
            if moe:
                lengths = (queues or {}).get(layer, even_queues(self.architecture, self.tokens))
                self._router(f"{block}.router")
                self._experts(f"{block}.experts", lengths, after)
            else:
                self._linear(f"{block}.fc1", "fc1", following="fc2")
                self._linear(f"{block}.fc2", "fc2", following=after)
        self._output()
        return self.stages

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

    def _add(self, name: str, runs: Sequence[Run], cycles: int | None = None, header: int = 0) -> None:
        """Add a stage whose runs follow one another, unless its cycles are given."""
        runs = [run for run in runs if run.iterations]
        if cycles is None:
            cycles = sum(self._run_cycles(run) for run in runs)
        trips: Trips = {}
        for run in runs:
            trips[run.loop.engine] = trips.get(run.loop.engine, 0) + run.iterations
        if header:
            trips["load"] = trips.get("load", 0) + header
            cycles += header
        load = sum(run.iterations for run in runs if _moves(run)) + header
        compute = sum(run.iterations for run in runs if not _moves(run))
        busy = max(compute, self._beat_cycles(load))
        bound = (
            "overhead"
            if cycles > 2 * busy
            else "compute"
            if compute >= self._beat_cycles(load)
            else "weights"
        )
        self.stages.append(Stage(name, compute, load, cycles, bound, trips, tuple(runs)))

    def _groups(self, shape: str, tokens: int, following: str | None) -> list[Group]:
        """The groups of a layer; the last one loads the first group of whatever follows."""
        layer, rounds = self.architecture.linear(shape), self.loops["ROUNDS"]
        prefetch = [self._load_group(shape, blocks) for blocks in layer.groups[1:]] + [self._first(following)]
        return [
            Group(Run(rounds, rounds_trips(self.architecture, shape, blocks, tokens)), load)
            for blocks, load in zip(layer.groups, prefetch, strict=True)
        ]

    def _load_group(self, shape: str, blocks: int) -> Run | None:
        trips = load_group_trips(self.architecture, shape, blocks)
        return Run(self.loops["LOAD_GROUP"], trips, requests=1) if trips else None

    def _first(self, shape: str | None) -> Run | None:
        """The load of the first group of a layer."""
        return self._load_group(shape, self.architecture.linear(shape).group) if shape else None

    def _group_cycles(self, group: Group) -> int:
        load = self._run_cycles(group.prefetch) if group.prefetch else 0
        return max(group.compute.cycles, load) if self.overlap else group.compute.cycles + load

    def _run_groups(self, name: str, groups: list[Group], before: Sequence[Run | None] = ()) -> None:
        """Add a stage of groups; what runs before them, nothing hides."""
        first = [run for run in before if run is not None]
        cycles = sum(self._run_cycles(run) for run in first) + sum(
            self._group_cycles(group) for group in groups
        )
        loads = [group.prefetch for group in groups if group.prefetch is not None]
        self._add(name, [*first, *(group.compute for group in groups), *loads], cycles)

    def _linear(self, name: str, shape: str, *, following: str | None) -> None:
        self._run_groups(name, self._groups(shape, self.tokens, following))

    def _embed(self) -> None:
        architecture, loops = self.architecture, self.loops
        # The header comes with the request of the table behind it.
        positions = Run(loops["LOAD_POSITIONS"], load_positions_trips(architecture), requests=1)
        copies = Run(loops["COPY_POSITIONS"], copy_positions_trips(architecture, self.batch))
        self._add("positions", [positions, copies], header=HEADER_BEATS)
        pixels = load_pixels_trips(architecture, self.batch)
        self._add("image", [Run(loops["LOAD_PIXELS"], pixels, requests=1)])
        patches = self.batch * architecture.spec.patches
        self._run_groups(
            "embed",
            self._groups("patch", patches, "qkv"),
            [self._first("patch"), Run(loops["PATCH_TOKENS"], patches)],
        )

    def _norm(self, name: str, settings: int) -> None:
        architecture, loops = self.architecture, self.loops
        # The settings of a layer and the parameters of its first norm are neighbours: one request.
        self._add(
            name,
            [
                Run(loops["LOAD_SETTINGS"], settings),
                Run(loops["LOAD_NORM"], architecture.norm_beats, requests=1),
                Run(loops["WORDS"], words_trips(architecture, self.tokens)),
            ],
        )

    def _attention(self, name: str) -> None:
        architecture, loops = self.architecture, self.loops
        heads = self.batch * architecture.spec.heads
        self._add(name, [Run(loops["CYCLES"], keys_trips(architecture), heads)])

    def _router(self, name: str) -> None:
        gate = Run(self.loops["LOAD_GATE"], load_gate_trips(self.architecture), requests=1)
        self._add(name, [gate, *router_runs(self.architecture, self.loops, self.tokens)])

    def _experts(self, name: str, lengths: Sequence[int], after: str | None) -> None:
        active = [length for length in lengths if length]
        words = self.architecture.token_words
        groups: list[Group] = []
        before: list[Run | None] = [self._first("expert_fc1")]
        for number, length in enumerate(active):
            following = "expert_fc1" if number + 1 < len(active) else after
            groups += self._groups("expert_fc1", length, "expert_fc2")
            groups += self._groups("expert_fc2", length, following)
            before.append(Run(self.loops["GATHER_WORDS"], length * words))
        self._run_groups(name, groups, before)

    def _output(self) -> None:
        self._add(
            "output", [Run(self.loops["STORE_WORD"], store_trips(self.architecture, self.tokens), requests=1)]
        )


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
