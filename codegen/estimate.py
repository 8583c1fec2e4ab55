"""Cycles, traffic and bounds of a Design before synthesis.

Trip counts are exact: they equal what the generated C++ executes (the tests count it). On top of them come
stated assumptions: the depth of a pipeline, the latency of memory, and one beat a cycle from every port as long
as the board's memory keeps up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codegen.architecture import Architecture, attention_steps, ceil_div

PIPELINE_DEPTH = 30
"""Cycles between the first and the last stage of a pipelined loop; paid once a loop."""
MEMORY_LATENCY = 80
"""Cycles from a read request to its first beat; paid once a burst that nothing hides."""

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
    """

    name: str
    compute: int
    load: int
    cycles: int
    bound_by: str
    trips: Trips


@dataclass(frozen=True)
class Group:
    """Blocks of outputs that are computed together, and the beats that load meanwhile."""

    compute: int
    prefetch: int


def group_trips(architecture: Architecture, name: str, blocks: int, tokens: int) -> int:
    """Iterations of the linear engine for a group of blocks of a layer; an empty group takes none."""
    if not blocks:
        return 0
    tiles = ceil_div(tokens, architecture.design.parallelism.token_tile)
    return (blocks * tiles + 1) * max(architecture.linear(name).in_words, architecture.write_steps)


def attention_trips(architecture: Architecture) -> int:
    """Iterations of the attention engine for one image: all heads."""
    tokens, rows = architecture.spec.tokens, architecture.design.parallelism.attention_rows
    steps = attention_steps(tokens, rows)
    return architecture.spec.heads * steps * architecture.attention_step


def norm_trips(architecture: Architecture, tokens: int) -> int:
    """Iterations of the LayerNorm engine."""
    return (tokens + architecture.norm_lag) * architecture.token_words


def router_trips(architecture: Architecture, tokens: int) -> int:
    """Iterations of the router: logits, choice, softmax, reciprocals and queues."""
    moe = architecture.spec.moe
    assert moe is not None
    logits = architecture.gate_groups * tokens * architecture.token_words
    selected = moe.top_k * tokens if moe.normalize_over_selected else 0
    return logits + moe.experts * tokens + selected + tokens + moe.experts + tokens * moe.top_k + moe.experts


def even_queues(architecture: Architecture, tokens: int) -> list[int]:
    """Queue lengths when every expert gets the same share: what an estimate assumes of routing it cannot know."""
    moe = architecture.spec.moe
    assert moe is not None
    total, experts = tokens * moe.top_k, moe.experts
    return [total // experts + (expert < total % experts) for expert in range(experts)]


class Scheduler:
    """The kernel's schedule, stage by stage, for a batch of images."""

    def __init__(self, architecture: Architecture, batch: int, beats_per_cycle: float = 1.0) -> None:
        self.architecture = architecture
        self.batch = batch
        self.tokens = batch * architecture.spec.tokens
        self.beats_per_cycle = beats_per_cycle
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

    def _load_cycles(self, beats: int) -> int:
        return round(beats / min(self.beats_per_cycle, 1.0))

    def _add(self, name: str, trips: Trips, cycles: int, compute: int, load: int) -> None:
        busy = max(compute, self._load_cycles(load))
        bound = (
            "overhead"
            if cycles > 2 * busy
            else "compute"
            if compute >= self._load_cycles(load)
            else "weights"
        )
        self.stages.append(Stage(name, compute, load, cycles, bound, {k: v for k, v in trips.items() if v}))

    def _groups(self, shape: str, tokens: int, following: str | None) -> list[Group]:
        """The groups of a layer; the last one loads the first group of whatever follows."""
        layer = self.architecture.linear(shape)
        sizes = layer.groups
        prefetch = [layer.block_beats * blocks for blocks in sizes[1:]] + [self._first(following)]
        return [
            Group(group_trips(self.architecture, shape, blocks, tokens), beats)
            for blocks, beats in zip(sizes, prefetch, strict=True)
        ]

    def _cycles(self, groups: list[Group]) -> int:
        return sum(
            PIPELINE_DEPTH
            + max(group.compute, self._load_cycles(group.prefetch) + MEMORY_LATENCY * (group.prefetch > 0))
            for group in groups
        )

    def _first(self, shape: str | None) -> int:
        """Beats of the first group of a layer."""
        return self.architecture.linear(shape).group_beats if shape else 0

    def _run_groups(
        self, name: str, groups: list[Group], *, unhidden: int = 0, extra: Trips | None = None
    ) -> None:
        compute, load = sum(group.compute for group in groups), sum(group.prefetch for group in groups)
        other = sum((extra or {}).values())
        cycles = self._cycles(groups) + other
        if unhidden:
            cycles += self._load_cycles(unhidden) + MEMORY_LATENCY
        self._add(
            name,
            {"linear": compute, "load": load + unhidden} | (extra or {}),
            cycles,
            compute + other,
            load + unhidden,
        )

    def _linear(self, name: str, shape: str, *, following: str | None) -> None:
        self._run_groups(name, self._groups(shape, self.tokens, following))

    def _embed(self) -> None:
        architecture, spec = self.architecture, self.architecture.spec
        positions = (
            spec.tokens * architecture.token_words * (architecture.position_word_beats + self.batch - 1)
        )
        header = 1
        self._add(
            "positions", {"load": header + positions}, positions + MEMORY_LATENCY, 0, header + positions
        )
        patches = self.batch * spec.patches
        pixels = patches * architecture.patch_words * architecture.pixel_beats
        self._add("image", {"image": pixels}, pixels + MEMORY_LATENCY + PIPELINE_DEPTH, 0, pixels)
        self._run_groups(
            "embed",
            self._groups("patch", patches, "qkv"),
            unhidden=self._first("patch"),
            extra={"image": patches},
        )

    def _norm(self, name: str, settings: int) -> None:
        trips, beats = norm_trips(self.architecture, self.tokens), self.architecture.norm_beats + settings
        cycles = trips + PIPELINE_DEPTH + self._load_cycles(beats) + MEMORY_LATENCY
        self._add(name, {"norm": trips, "load": beats}, cycles, trips, beats)

    def _attention(self, name: str) -> None:
        trips = self.batch * attention_trips(self.architecture)
        overhead = 2 * PIPELINE_DEPTH * self.architecture.spec.heads * self.batch
        self._add(name, {"attention": trips}, trips + overhead, trips, 0)

    def _router(self, name: str) -> None:
        trips, beats = router_trips(self.architecture, self.tokens), self.architecture.gate_beats
        cycles = trips + 7 * PIPELINE_DEPTH + self._load_cycles(beats) + MEMORY_LATENCY
        self._add(name, {"router": trips, "load": beats}, cycles, trips, beats)

    def _experts(self, name: str, lengths: Sequence[int], after: str | None) -> None:
        active = [length for length in lengths if length]
        groups: list[Group] = []
        for number, length in enumerate(active):
            following = "expert_fc1" if number + 1 < len(active) else after
            groups += self._groups("expert_fc1", length, "expert_fc2")
            groups += self._groups("expert_fc2", length, following)
        gathered = sum(active) * self.architecture.token_words
        self._run_groups(name, groups, unhidden=self._first("expert_fc1"), extra={"gather": gathered})

    def _output(self) -> None:
        beats = self.tokens * self.architecture.token_words * self.architecture.output_word_beats
        self._add("output", {"output": beats}, beats + MEMORY_LATENCY + PIPELINE_DEPTH, 0, beats)


def total_trips(stages: Sequence[Stage]) -> Trips:
    """Iterations per engine over the whole schedule."""
    totals: Trips = {}
    for stage in stages:
        for engine, count in stage.trips.items():
            totals[engine] = totals.get(engine, 0) + count
    return totals


def dram_bytes(architecture: Architecture, stages: Sequence[Stage], batch: int) -> int:
    """Bytes that cross the memory ports: weights, image and result."""
    loaded = sum(stage.trips.get("load", 0) for stage in stages)
    # Copies of the position table to further images happen on chip.
    loaded -= architecture.spec.tokens * architecture.token_words * (batch - 1)
    narrow = sum(stage.trips.get("image", 0) + stage.trips.get("output", 0) for stage in stages)
    narrow -= batch * architecture.spec.patches
    return loaded * architecture.beat_bytes + narrow * architecture.port_bytes
