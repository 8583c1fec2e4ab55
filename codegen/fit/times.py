"""Cycles of many hardwares at once: what `codegen.estimate` counts for one, in closed form over arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import HEADER_BEATS, Architecture, attention_steps, ceil_div, job_name
from codegen.estimate import MEMORY_LATENCY
from codegen.loops import Loop
from codegen.schedule import Engine, followers, job_table, queue_lengths, rows_of, running
from pysim.program import Linear, linears

Integers = NDArray[np.int64]
Queues = Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Layers:
    """The linear layers of a schedule, those alike together.

    Attributes:
        kinds: a layer of each kind.
        counts: how often a kind works on so many rows before another kind loads; None where nothing is known to load.
        unhidden: how often the first group of a kind loads while nothing computes.
        gathered: how many tokens are gathered at once, and how often.
    """

    kinds: Mapping[str, Linear]
    counts: Mapping[tuple[str, int, str | None], int]
    unhidden: Mapping[str, int]
    gathered: Mapping[int, int]

    @classmethod
    def of(cls, sizes: Architecture, batch: int, queues: Queues | None = None) -> Layers:
        """The layers of a network for a batch; even queues where they are not known."""
        counts: Counter[tuple[str, int, str | None]] = Counter()
        unhidden: Counter[str] = Counter()
        gathered: Counter[int] = Counter()
        lengths = queue_lengths(sizes, batch, queues)
        jobs = running(job_table(sizes), lengths)
        for job, follower in zip(jobs, followers(jobs), strict=True):
            rows = rows_of(job, batch, lengths)
            if job.engine is Engine.GATHER:
                gathered[rows] += 1
            elif job.is_fill and follower is not None:
                unhidden[follower.kind] += 1
            elif job.kind:
                counts[job.kind, rows, follower.kind if follower is not None else None] += 1
        kinds = {job_name(op): op for op in linears(sizes.program)}
        return cls(kinds, counts, unhidden, gathered)

    @property
    def is_expert(self) -> frozenset[str]:
        """Kinds that experts have."""
        return frozenset(kind for kind, op in self.kinds.items() if op.experts is not None)


class Times:
    """Cycles on hardware of one frame, whose other sizes may be arrays.

    Args:
        sizes: the network on it.
        layers: its linear layers.
        loops: what is assumed of each loop.
        batch: images.
        beats_per_cycle: what the board's memory delivers.
    """

    def __init__(
        self,
        sizes: Architecture,
        layers: Layers,
        loops: Mapping[str, Loop],
        batch: int,
        beats_per_cycle: float,
    ) -> None:
        self.sizes, self.layers, self.loops, self.batch = sizes, layers, loops, batch
        self.rate = min(beats_per_cycle, 1.0)

    def _beats(self, beats: Integers | int) -> Integers:
        """Cycles in which the memory delivers so many beats."""
        return np.maximum(beats, np.round(np.asarray(beats) / self.rate).astype(np.int64))

    def _load(self, loop: str, beats: Integers | int) -> Integers:
        """Cycles of a burst that nothing hides; 0 beats take no time."""
        taken = self._beats(beats) + self.loops[loop].depth + MEMORY_LATENCY
        return np.where(np.asarray(beats) > 0, taken, 0)

    def _trips(self, loop: str, trips: int) -> int:
        return self.loops[loop].cycles(trips)

    def fixed(self) -> int:
        """Cycles of all but the linear engine, attention and the router: of scalars only."""
        sizes, spec, batch = self.sizes, self.sizes.spec, self.batch
        tokens, words, patches = batch * spec.tokens, sizes.token_words, batch * spec.patches
        positions = spec.tokens * words * sizes.position_word_beats
        total = HEADER_BEATS + int(self._load("LOAD_POSITIONS", positions))
        total += self._trips("COPY_POSITIONS", (batch - 1) * spec.tokens * words)
        total += self._trips("LOAD_PIXELS", patches * sizes.patch_words * sizes.pixel_beats) + MEMORY_LATENCY
        total += self._trips("PATCH_TOKENS", patches)
        settings = int(self._beats(sizes.setting_beats)) + self.loops["LOAD_SETTINGS"].depth
        norm = int(self._load("LOAD_NORM", sizes.norm_beats))
        norm += self._trips("WORDS", (tokens + sizes.norm_lag) * words)
        total += spec.depth * (settings + 2 * norm)
        for length, count in self.layers.gathered.items():
            total += count * self._trips("GATHER_WORDS", length * words)
        return total + self._trips("STORE_WORD", tokens * words * sizes.output_word_beats) + MEMORY_LATENCY

    def attention(self, rows: Integers) -> Integers:
        """All layers' attention, with so many query rows at once."""
        spec = self.sizes.spec
        steps = np.array([attention_steps(spec.tokens, int(each)) for each in rows], np.int64)
        cycles = steps * self.sizes.attention_step + self.loops["CYCLES"].depth
        return spec.depth * self.batch * spec.heads * cycles

    def router(self) -> int:
        """All routers: of scalars only."""
        sizes, spec = self.sizes, self.sizes.spec
        if spec.moe is None or not spec.moe_layers:
            return 0
        tokens, words = self.batch * spec.tokens, sizes.token_words
        moe, total = spec.moe, int(self._load("LOAD_GATE", sizes.gate_beats))
        total += sizes.gate_groups * self._trips("GATE_WORDS", tokens * words)
        total += moe.experts * self._trips("CHOOSE_TOKENS", tokens)
        if sizes.over_selected:
            total += moe.top_k * self._trips("SELECTED_TOKENS", tokens)
        total += self._trips("FIND_DIVISORS", tokens) + self._trips("FILL_RANKS", tokens * moe.top_k)
        return len(spec.moe_layers) * (total + self._trips("FIND_ACTIVE", moe.experts))

    def linear(self) -> Integers:
        """All linear layers, with the loads that hide behind them and those that do not."""
        sizes, layers = self.sizes, self.layers
        shapes = {kind: sizes.shape(op) for kind, op in layers.kinds.items()}
        first = {kind: self._load("LOAD_GROUP", shape.group_beats) for kind, shape in shapes.items()}
        total = sum((count * first[kind] for kind, count in layers.unhidden.items()), np.int64(0))
        for kind, shape in shapes.items():
            steps, group = np.maximum(shape.in_words, sizes.write_steps), np.asarray(shape.group)
            rest, full = shape.blocks % group, shape.blocks // group
            # Groups that are neither full nor empty are at most one, the last but for the empty ones.
            empty = full + (rest > 0) < 2 * np.asarray(shape.pairs)
            load, rest_load = first[kind], self._load("LOAD_GROUP", rest * shape.block_beats)
            alike = [
                (rows, after, count) for (name, rows, after), count in layers.counts.items() if name == kind
            ]
            for length in {rows for rows, _, _ in alike}:
                tiles = ceil_div(length, sizes.hardware.token_tile)
                depth = self.loops["ROUNDS"].depth
                whole = (group * tiles + 1) * steps + depth
                part = np.where(rest > 0, (rest * tiles + 1) * steps + depth, 0)
                among = (full - 1) * np.maximum(whole, load)
                for rows, after, count in alike:
                    if rows != length:
                        continue
                    behind = first[after] if after is not None else np.int64(0)
                    last = np.where(empty, 0, behind)
                    ends = np.where(
                        rest > 0,
                        np.maximum(whole, rest_load) + np.maximum(part, last),
                        np.maximum(whole, last),
                    )
                    total = total + count * (among + ends + np.where(empty, behind, 0))
        return np.asarray(total, np.int64)

    def rounds(self) -> tuple[Integers, Integers]:
        """Least cycles of all rounds, whatever the weight buffer: of layers of all tokens, and of experts."""
        expert = self.layers.is_expert
        found = {True: np.zeros(1, np.int64), False: np.zeros(1, np.int64)}
        for kind, op in self.layers.kinds.items():
            shape = self.sizes.shape(op)
            steps = np.maximum(shape.in_words, self.sizes.write_steps)
            for (name, rows, _), count in self.layers.counts.items():
                if name == kind:
                    tiles = ceil_div(rows, self.sizes.hardware.token_tile)
                    cycles = (shape.blocks * tiles + 1) * steps + self.loops["ROUNDS"].depth
                    found[kind in expert] = found[kind in expert] + count * cycles
        return found[False], found[True]

    def loads(self) -> tuple[Integers, Integers]:
        """Least cycles of all loads of groups, one for each layer: of layers of all tokens, and of experts."""
        expert = self.layers.is_expert
        found = {True: np.zeros(1, np.int64), False: np.zeros(1, np.int64)}
        for kind, op in self.layers.kinds.items():
            shape = self.sizes.shape(op)
            # Rounding may save half a cycle of each group.
            cycles = np.floor(shape.beats / self.rate - shape.blocks / 2).astype(np.int64)
            cycles = cycles + self.loops["LOAD_GROUP"].depth + MEMORY_LATENCY
            count = sum(count for (name, _, _), count in self.layers.counts.items() if name == kind)
            found[kind in expert] = found[kind in expert] + count * cycles
        return found[False], found[True]

    @staticmethod
    def bound(rounds: tuple[Integers, Integers], loads: tuple[Integers, Integers]) -> Integers:
        """Least cycles of linear layers: their rounds or their loads, and experts hide nobody else's loads."""
        return np.maximum(rounds[0] + np.maximum(rounds[1], loads[1]), loads[0] + loads[1])

    def least_linear(self) -> Integers:
        """A bound of `linear` for any depth of the weight buffer."""
        return self.bound(self.rounds(), self.loads())
