"""The fastest RTL accelerator that fits a board: linear engines by their least time, and the rest round them.

Unlike the C++ one it is a program's, not a network's: its time comes from the timeline of its job table, which is exact
but not a formula. So the search looks at linear engines in the order of a bound of their time, gives attention as many
query rows as there is room for, and then tries other sizes of the buffers, one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from codegen.architecture import RECORD_BYTES, Architecture, attention_steps, ceil_div
from codegen.estimate import beats_per_cycle
from codegen.fit.base import Fitted, Progress, Space
from codegen.fit.space import KINDS, MOST_TOKEN_TILE, ROUTER_LANES, Frame, Limits, frames
from codegen.hardware import Hardware, hardware_on
from codegen.performance import on_board
from codegen.resources import Resources
from codegen.rtl.accelerator_resources import accelerator_memories, accelerator_resources
from codegen.rtl.timeline import timeline
from codegen.schedule import Engine, job_table, queue_lengths, rows_of
from common.errors import InputError

LANES: Final = (4, 6, 8, 12, 16, 24, 32)
MOST_BLOCKS: Final = 16
STREAM_KIB: Final = (16, 32, 64, 128, 256, 512, 1024, 2048)
ROW_BLOCKS: Final = (1, 2, 3, 4, 6, 8)
"""Blocks of the widest layer that half of the weight buffer may hold."""
STREAM_KINDS: Final = ("block", "ultra")
BOUNDED: Final = (Engine.LINEAR, Engine.ATTENTION, Engine.POSITIONS, Engine.PIXELS, Engine.PATCH_QUEUE)
"""Engines whose time a bound has a formula for, or that work side by side as a call begins."""
BEYOND: Final = 4
"""Engines that are looked at beyond the first whose bound does not beat the best time."""


@dataclass(frozen=True)
class Found:
    """A hardware that fits, and its cycles."""

    hardware: Hardware
    cycles: int


class RtlSearch(Space):
    """The space of a network's RTL accelerators on a board."""

    @cached_property
    def used(self) -> dict[Hardware, Resources]:
        """Resources of all hardware that was looked at: searches within other limits look at much the same."""
        return {}

    @cached_property
    def cycles(self) -> dict[Hardware, int]:
        """Cycles of hardware whose timeline was computed."""
        return {}

    def run(self, limits: Limits, least_cycles: int = 0, progress: Progress | None = None) -> Fitted | None:
        """The fastest hardware within limits, or None: engines in the order of a bound, then other buffers."""
        best: Found | None = None
        for done, layers in enumerate(self._widths):
            if progress is not None:
                progress(done, len(self._widths))
            if best is None or best.cycles > least_cycles:
                best = self._engines(layers, limits, best, least_cycles)
        if progress is not None:
            progress(len(self._widths), len(self._widths))
        if best is not None and best.cycles > least_cycles:
            best = self._refined(best, limits)
        return None if best is None else self.fitted(best.hardware)

    # --- Linear engines

    @cached_property
    def _widths(self) -> list[_Layers]:
        """Widths of words with the widest ports that the board has."""
        found = []
        for lanes in [self.fixed["lanes"]] if "lanes" in self.fixed else LANES:
            ports = max(
                frames(self.board, {**self.fixed, "lanes": lanes}),
                key=lambda f: (f.weight_ports * f.axi_width, f.axi_width),
            )
            try:
                found.append(_Layers.of(self, ports))
            except InputError:
                # No weight buffer of ours holds a block of so narrow words.
                continue
        return found

    def _engines(
        self, layers: _Layers, limits: Limits, best: Found | None, least_cycles: int
    ) -> Found | None:
        """The fastest of one width of words, if it beats what was found so far; one of `least_cycles` is enough."""
        beyond = 0
        for bound, outputs, tile in layers.by_bound(limits.dsp):
            if best is not None and bound >= best.cycles:
                beyond += 1
                if beyond > BEYOND:
                    break
            hardware = self._with_rows(layers, outputs, tile, limits)
            if hardware is None:
                continue
            if best is not None and layers.bound(outputs, tile, hardware.attention_rows) >= best.cycles:
                continue
            cycles = self._cycles(hardware)
            if best is None or cycles < best.cycles:
                best = Found(hardware, cycles)
            if best.cycles <= least_cycles:
                break
        return best

    def _with_rows(self, layers: _Layers, outputs: int, tile: int, limits: Limits) -> Hardware | None:
        """Such an engine with as many query rows of attention as there is room for."""
        base = layers.base.changed(outputs=outputs, token_tile=tile)
        if "attention_rows" in self.fixed:
            return self._placed(base, limits)
        tokens = self.network.spec.tokens
        one, two = (self._resources(base.changed(attention_rows=rows)) for rows in (1, 2))
        # Nearly all resources grow with each row by the same.
        room = [
            (getattr(limits, name) - getattr(one, name)) / max(getattr(two, name) - getattr(one, name), 1)
            for name in ("dsp", "lut", "ff")
        ]
        most = min(tokens, int(min(room)) + 2)
        while most >= 1:
            # Fewer rows may take as many steps.
            rows = min(range(1, most + 1), key=lambda rows: (attention_steps(tokens, rows), rows))
            placed = self._placed(base.changed(attention_rows=rows), limits)
            if placed is not None or min(room) < 0:
                return placed
            most = rows - 1
        return None

    # --- What fits, and how fast it is

    def _placed(self, hardware: Hardware, limits: Limits) -> Hardware | None:
        """Hardware within limits, with some memories of LUTs or ultra RAM where block RAM is short."""
        used = self._resources(hardware)
        if used.dsp > limits.dsp or used.lut > limits.lut or used.ff > limits.ff:
            return None
        changes: dict[str, str] = {}
        halves, uram, luts = (
            round(2 * (used.bram36 - limits.bram36)),
            limits.uram - used.uram,
            limits.lut - used.lut,
        )
        if halves > 0:
            groups = accelerator_memories(self._sized(hardware)).values()
            held = [memory for group in groups for memory in group if memory.bram18 and memory.field]
            for memory in sorted(held, key=lambda memory: memory.cost("lut")[2] / memory.bram18):
                kinds = STREAM_KINDS if memory.field == "stream_memory" else KINDS[memory.field]
                if halves <= 0 or memory.field in self.fixed:
                    continue
                _, ultra, _ = memory.cost("ultra")
                _, _, lut = memory.cost("lut")
                if "ultra" in kinds and ultra <= uram:
                    changes[memory.field], uram = "ultra", uram - ultra
                elif "lut" in kinds and lut <= luts:
                    changes[memory.field], luts = "lut", luts - lut
                else:
                    continue
                halves -= memory.bram18
        if halves > 0 or used.uram > limits.uram:
            return None
        return hardware.changed(**changes) if changes else hardware

    def _sized(self, hardware: Hardware) -> Architecture:
        """The network on hardware that is known to be sound."""
        own = hardware_on(self.board, hardware).changed(max_batch=max(hardware.max_batch, self.batch))
        return Architecture(self.network, own, checked=False)

    def _resources(self, hardware: Hardware) -> Resources:
        if hardware not in self.used:
            self.used[hardware] = accelerator_resources(self._sized(hardware))
        return self.used[hardware]

    def _cycles(self, hardware: Hardware) -> int:
        """Cycles of a call."""
        if hardware not in self.cycles:
            architecture = self._sized(hardware)
            jobs = timeline(architecture, self.batch, beats_per_cycle(architecture, self.board), self.queues)
            self.cycles[hardware] = max(timed.end for timed in jobs)
        return self.cycles[hardware]

    # --- The sizes of the rest

    def _refined(self, found: Found, limits: Limits) -> Found:
        """Hardware with other buffers and routers, as long as one of them makes it faster."""
        while True:
            better = min(
                (
                    Found(placed, self._cycles(placed))
                    for changed in self._changes(found.hardware)
                    if (placed := self._placed(changed, limits)) is not None
                ),
                key=lambda other: other.cycles,
                default=found,
            )
            if better.cycles >= found.cycles:
                return found
            found = better

    def _changes(self, hardware: Hardware) -> Iterator[Hardware]:
        widest = self._widest(hardware)
        choices: dict[str, list[int]] = {
            "stream_kib": [size for size in STREAM_KIB if size != hardware.stream_kib],
            "weight_rows": [widest * blocks for blocks in ROW_BLOCKS],
            "router_lanes": list(ROUTER_LANES),
            "attention_rows": [hardware.attention_rows - 1, hardware.attention_rows + 1],
            "token_tile": [hardware.token_tile - 1, hardware.token_tile + 1],
        }
        for name, values in choices.items():
            for value in values:
                if name not in self.fixed and value >= 1 and value != getattr(hardware, name):
                    yield hardware.changed(**{name: value})

    def _widest(self, hardware: Hardware) -> int:
        """Operand words of the widest layer."""
        (layers,) = (layers for layers in self._widths if layers.base.lanes == hardware.lanes)
        return layers.widest


@dataclass(frozen=True)
class _Layers:
    """The network's layers in words of some lanes.

    Attributes:
        base: hardware with these words and ports.
        layers: rows, operand words and result words of every linear job, and whether it is an expert's.
        heads: heads of all layers and images, and cycles of a step of attention.
        tokens: of an image.
        row_dsp: DSP slices of a query row of attention.
        others: cycles of everything that is neither linear nor attention.
        gathers: cycles of them in which tokens are gathered for experts.
        beat_bytes: bytes of a beat of weights.
        weight_bytes: bytes of a weight.
        widest: operand words of the widest layer.
        packed: whether two products share a DSP slice.
        outputs: outputs that the linear engine may have.
        tiles: token tiles that it may have, ascending.
    """

    base: Hardware
    layers: tuple[tuple[int, int, int, bool], ...]
    heads: tuple[tuple[int, int], ...]
    tokens: int
    row_dsp: int
    others: int
    gathers: int
    beat_bytes: int
    weight_bytes: int
    widest: int
    packed: bool
    outputs: tuple[int, ...]
    tiles: tuple[int, ...]

    @classmethod
    def of(cls, search: RtlSearch, frame: Frame) -> _Layers:
        lanes = frame.lanes
        chosen: dict[str, Any] = {
            "lanes": lanes,
            "outputs": lanes,
            "token_tile": 1,
            "attention_rows": 1,
            "weight_ports": frame.weight_ports,
            "axi_width": frame.axi_width,
            "weight_rows": 8192,
            "clock_mhz": search.clock_mhz,
            "backend": "rtl",
        }
        base = Hardware().changed(**{**chosen, **search.fixed})

        def architecture_of(hardware: Hardware) -> Architecture:
            return on_board(search.network, search.board, hardware, search.batch)

        architecture = architecture_of(base)
        table, lengths = job_table(architecture), queue_lengths(architecture, search.batch, search.queues)
        jobs = [job for job in table if job.engine is Engine.LINEAR and not job.is_fill]
        widest = max(job.words for job in jobs)
        if "weight_rows" not in search.fixed:
            base = base.changed(weight_rows=2 * widest)
        spans: Counter[Engine] = Counter()
        for timed in timeline(architecture, search.batch, 1.0, search.queues):
            spans[timed.job.engine] += timed.end - timed.start
        tokens, fixed = search.network.spec.tokens, search.fixed
        outputs = [fixed["outputs"]] if "outputs" in fixed else range(lanes, (MOST_BLOCKS + 1) * lanes, lanes)
        tiles = [fixed["token_tile"]] if "token_tile" in fixed else range(1, MOST_TOKEN_TILE + 1)
        return cls(
            base,
            tuple(
                (rows_of(job, search.batch, lengths), job.words, job.out_words, job.skips_if_empty)
                for job in jobs
            ),
            tuple((search.batch * job.count, job.pace) for job in table if job.engine is Engine.ATTENTION),
            tokens,
            accelerator_resources(architecture_of(base.changed(attention_rows=2))).dsp
            - accelerator_resources(architecture_of(base.changed(attention_rows=1))).dsp,
            sum(spans[engine] for engine in Engine if engine not in BOUNDED),
            spans[Engine.GATHER],
            architecture.beat_bytes,
            architecture.weight_bytes,
            widest,
            architecture.packed,
            tuple(count for count in outputs if not (count % lanes or (architecture.packed and count % 2))),
            tuple(tiles),
        )

    def by_bound(self, dsp: int) -> list[tuple[int, int, int]]:
        """Least cycles, outputs and token tile of each engine that so many DSP slices hold, the fastest first."""
        lanes, found = self.base.lanes, []
        for outputs in self.outputs:
            for tile in self.tiles:
                products = lanes * outputs * tile
                if (products // 2 if self.packed else products) > dsp:
                    break
                rows = min(self.tokens, (dsp - (products // 2 if self.packed else products)) // self.row_dsp)
                if rows:
                    found.append((self.bound(outputs, tile, rows), outputs, tile))
        return sorted(found)

    def bound(self, outputs: int, tile: int, rows: int) -> int:
        """Cycles with so many query rows of attention if no weights were waited for, but for those of experts.

        What an expert's layers need cannot be there before the router has decided: they take their beats at least.
        """
        lanes, cycles, of_experts, beats = self.base.lanes, self.others, 0, 0
        steps = outputs // lanes * tile
        record_beats = ceil_div(outputs * RECORD_BYTES, self.beat_bytes)
        word_beats = ceil_div(lanes * outputs * self.weight_bytes, self.beat_bytes)
        for count, words, out_words, is_expert in self.layers:
            if count:
                blocks = ceil_div(out_words * lanes, outputs)
                products = (blocks * ceil_div(count, tile) + 1) * max(words, steps)
                cycles += products
                if is_expert:
                    of_experts += products
                    beats += blocks * (record_beats + words * word_beats)
        least = min(attention_steps(self.tokens, fewer) for fewer in range(1, rows + 1))
        waiting = max(0, beats - of_experts - self.gathers)
        return cycles + waiting + sum(heads * least * pace for heads, pace in self.heads)
