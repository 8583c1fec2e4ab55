"""Branch and bound for the hardware with the fewest cycles within limits.

Words and beats (lanes, ports, their width) make a frame. Within one, the cycles of the linear engine depend on outputs,
token tile and weight rows, those of attention on its rows, those of the router on its lanes; resources add up likewise.
So each engine's choices are looked at once, in arrays, and whole hardwares only where the sum of the engines' least
cycles beats the best that was found. Every resource, and some mixes of block RAM, ultra RAM and LUTs, which a memory
may trade for one another, bound what the other engines can still be. Nothing is left out unless such a bound says that
it is slower or does not fit; what is found, the estimate confirms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from boards import Board
from codegen.architecture import Architecture
from codegen.estimate import beats_per_cycle
from codegen.fit.base import NONE, Fitted, Progress, Space
from codegen.fit.costs import Costs, costs_of
from codegen.fit.space import (
    KINDS,
    MOST_LANES,
    MOST_WEIGHT_ROWS,
    NOT_SEARCHED,
    ROUTER_LANES,
    Fixed,
    Frame,
    Limits,
    buffers,
    engines,
    frames,
    sizes_of,
)
from codegen.fit.times import Layers, Queues, Times
from codegen.hardware import Hardware, MemoryKind
from codegen.loops import Loop, loops_of
from pysim.network import Network
from pysim.program import linears

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

MIXES: Final = (
    (1, 0, 1),
    (1, 1, 0),
    (0, 1, 1),
    (1, 1, 1),
    (2, 1, 1),
    (1, 2, 1),
    (1, 1, 2),
    (1, 0, 2),
    (1, 0, 4),
    (1, 1, 4),
    (4, 1, 1),
    (2, 0, 1),
)
"""Weights of block RAM, ultra RAM and LUTs in bounds, as shares of their limits."""

FEW: Final = 200
"""Linear engines of which a look at each is no more work than bounds of their resources."""

OTHERS: Final = ("activations", "write-back", "layernorm", "jobs", "ports", "addresses")
"""Engines other than the linear one, attention and the router."""


class Search(Space):
    """The space of a network's accelerators of C++ on a board."""

    def __init__(
        self,
        network: Network,
        board: Board,
        *,
        clock_mhz: float | None = None,
        batch: int = 1,
        queues: Queues | None = None,
        fixed: Fixed | None = None,
    ) -> None:
        super().__init__(network, board, clock_mhz=clock_mhz, batch=batch, queues=queues, fixed=fixed)
        self.taken = {name: value for name, value in self.fixed.items() if name in NOT_SEARCHED}
        rows = self.fixed.get("attention_rows")
        self.attention_rows: Integers = (
            np.arange(1, network.spec.tokens + 1) if rows is None else np.array([rows])
        )
        self.kinds = {
            name: (self.fixed[name],)
            if name in self.fixed
            else tuple(kind for kind in kinds if board.uram or kind != "ultra")
            for name, kinds in KINDS.items()
        }
        groups = groupby(frames(board, self.fixed), key=lambda frame: frame.lanes)
        widths = [_Width(self, list(group)) for _, group in groups]
        # Of very narrow words, no weight buffer holds a block of a very wide layer.
        most_rows = self.fixed.get("weight_rows", MOST_WEIGHT_ROWS)
        self.widths = [
            width for width in widths if width.least_rows <= most_rows and len(width.outputs_and_tiles[0])
        ]

    def run(self, limits: Limits, least_cycles: int = 0, progress: Progress | None = None) -> Fitted | None:
        """The fastest hardware within limits, or None: widths in the order of a bound, then frames within them."""
        state = _State(self, limits, least_cycles)
        order = sorted(self.widths, key=lambda width: width.bound)
        for done, width in enumerate(order):
            if progress is not None:
                progress(done, len(order))
            if width.bound >= state.best:
                break
            for bound, frame in width.by_bound:
                if bound >= state.best or state.is_least:
                    break
                width.opened(frame).look(state)
        if progress is not None:
            progress(len(order), len(order))
        return None if state.found is None else self.fitted(state.found)

    @cached_property
    def mixes(self) -> Reals:
        """(bounds, resources): weights of the resources, each alone and some together, as shares of the board's."""
        board = self.board
        room = np.maximum([board.dsp, 2 * board.bram36, board.uram, board.lut, board.ff], 1).astype(
            np.float64
        )
        alone = np.eye(len(room)) / room
        together = [np.array([0, *weights, 0]) / room for weights in MIXES]
        return np.array([*alone, *together])

    def sizes(self, frame: Frame, **arrays: int | Integers) -> Architecture:
        """The network on hardware of a frame."""
        given = {"clock_mhz": self.clock_mhz, **self.taken, **arrays}
        return sizes_of(self.network, self.board, frame, self.batch, **given)

    @cached_property
    def layers(self) -> Layers:
        """The network's linear layers."""
        # Of the widest words, so that every layer has room in the weight buffer.
        return Layers.of(self.sizes(Frame(MOST_LANES, 1, 64)), self.batch, self.queues)

    @property
    def router_lanes(self) -> tuple[int, ...]:
        """Widths of the router that are of any use."""
        if "router_lanes" in self.fixed:
            return (self.fixed["router_lanes"],)
        if not self.network.spec.moe_layers:
            return ROUTER_LANES[:1]
        assert self.network.spec.moe is not None
        experts = self.network.spec.moe.experts
        return tuple(lanes for lanes in ROUTER_LANES if lanes < 2 * experts) or ROUTER_LANES[:1]

    def times(self, sizes: Architecture) -> Times:
        """Cycles on such hardware."""
        return Times(sizes, self.layers, self.loops, self.batch, beats_per_cycle(sizes, self.board))

    @cached_property
    def loops(self) -> Mapping[str, Loop]:
        """Assumptions on each loop: the same on all hardware."""
        return loops_of(self.sizes(Frame(2, 1, 64)))

    def costs(self, sizes: Architecture, engines: Sequence[str], count: int) -> Costs:
        """Resources of some engines on such hardware."""
        return costs_of(sizes, engines, self.kinds, count)


class _State:
    """State of a search: what it has found so far, and its bounds."""

    def __init__(self, search: Search, limits: Limits, least_cycles: int) -> None:
        self.search, self.limits, self.least = search, limits.array, least_cycles
        self.best = NONE
        self.found: Hardware | None = None
        # Rounding must not make a bound too tight.
        self.room: Reals = search.mixes @ self.limits + 1e-9

    @property
    def is_least(self) -> bool:
        """Whether nothing can be faster."""
        return self.found is not None and self.best <= self.least


class _Width:
    """Frames with words of one width: attention, and the router's resources, are the same in all."""

    def __init__(self, search: Search, frames: list[Frame]) -> None:
        self.search, self.frames = search, frames
        self.widest = max(frames, key=lambda frame: (frame.weight_ports * frame.axi_width, frame.axi_width))
        self.lanes = self.widest.lanes
        self._opened: dict[Frame, _Frame] = {}
        self._rows: dict[int, Integers] = {}
        self._routers: dict[Frame, list[int]] = {}

    @cached_property
    def outputs_and_tiles(self) -> tuple[Integers, Integers]:
        """Every linear engine."""
        return engines(self.lanes, self.search.sizes(self.widest).packed, self.search.fixed)

    @cached_property
    def least_rows(self) -> int:
        """Weight rows that one block of every layer needs."""
        sizes = self.search.sizes(self.widest)
        return max(sizes.value_words(op.input) for op in linears(self.search.network.program))

    @cached_property
    def attention(self) -> tuple[Integers, Costs]:
        """Cycles and costs of attention, by its rows."""
        rows = self.search.attention_rows
        sizes = self.search.sizes(self.widest, attention_rows=rows)
        return self.search.times(sizes).attention(rows), self.search.costs(sizes, ["attention"], len(rows))

    @cached_property
    def router(self) -> Costs:
        """Costs of the router, by its lanes."""
        found = []
        for lanes in self.search.router_lanes:
            sizes = self.search.sizes(self.widest, router_lanes=lanes)
            found.append(self.search.costs(sizes, ["router"], 1))
        return Costs.joined(found)

    @cached_property
    def attention_costs(self) -> Reals:
        """(rows, bounds): the least that attention takes."""
        return self.attention[1].least(self.search.mixes)

    @cached_property
    def router_costs(self) -> Reals:
        """(lanes, bounds): the least that the router takes."""
        return self.router.least(self.search.mixes)

    def opened(self, frame: Frame) -> _Frame:
        """A frame with its arrays, which are kept."""
        if frame not in self._opened:
            self._opened[frame] = _Frame(self, frame)
        return self._opened[frame]

    def routers(self, frame: Frame) -> list[int]:
        """Cycles of all routers in a frame, by their lanes."""
        search = self.search
        if frame not in self._routers:
            self._routers[frame] = [
                search.times(search.sizes(frame, router_lanes=lanes)).router()
                for lanes in search.router_lanes
            ]
        return self._routers[frame]

    def rows(self, outputs: int) -> Integers:
        """Weight rows at which some layer gets other groups, whatever the ports."""
        if "weight_rows" in self.search.fixed:
            return np.array([self.search.fixed["weight_rows"]], np.int64)
        if outputs not in self._rows:
            sizes = self.search.sizes(self.widest, outputs=outputs)
            shapes = [sizes.shape(op) for op in self.search.layers.kinds.values()]
            found = [buffers(int(shape.blocks), int(shape.in_words)) for shape in shapes]
            rows = np.unique(np.concatenate([*found, [self.least_rows]]))
            self._rows[outputs] = rows[(rows >= self.least_rows) & (rows <= MOST_WEIGHT_ROWS)]
        return self._rows[outputs]

    @cached_property
    def by_bound(self) -> list[tuple[int, Frame]]:
        """Frames with cycles that none of their hardware beats, the most promising first."""
        search, (outputs, tiles) = self.search, self.outputs_and_tiles
        rounds = search.times(search.sizes(self.widest, outputs=outputs, token_tile=tiles)).rounds()
        attention = int(self.attention[0].min())
        found = []
        for frame in self.frames:
            loads = search.times(search.sizes(frame, outputs=outputs)).loads()
            linear = int(Times.bound(rounds, loads).min())
            fixed = search.times(search.sizes(frame)).fixed()
            found.append((linear + attention + fixed + min(self.routers(frame)), frame))
        return sorted(found, key=lambda found: found[0])

    @property
    def bound(self) -> int:
        """Cycles that no hardware with such words beats."""
        return self.by_bound[0][0]


class _Frame:
    """A frame, and what it takes whatever the limits."""

    def __init__(self, width: _Width, frame: Frame) -> None:
        search = width.search
        self.width, self.search, self.frame = width, search, frame
        self.fixed = search.times(search.sizes(frame)).fixed()
        # More rows of attention always take fewer cycles, and more of everything else.
        self.attention_times, _ = width.attention
        self.router_times: Integers = np.array(width.routers(frame), np.int64)
        outputs, tiles = width.outputs_and_tiles
        # Every linear engine, with the least weight buffer.
        self._least = self._linear(outputs, tiles, width.least_rows)
        self.least_times: Integers = search.times(self._least).least_linear() + self.fixed

    # Costs are computed where the times leave anything to look at.

    @cached_property
    def others(self) -> Costs:
        """Costs of the engines that no choice within the frame changes."""
        return self.search.costs(self.search.sizes(self.frame), OTHERS, 1)

    @cached_property
    def least_others(self) -> Reals:
        """(bounds,): the least that those take."""
        return self.others.least(self.search.mixes)[0]

    @cached_property
    def least_costs(self) -> Reals:
        """(linear engines, bounds): the least that they take with the least weight buffer."""
        outputs, _ = self.width.outputs_and_tiles
        return self.search.costs(self._least, ["linear"], len(outputs)).least(self.search.mixes)

    def _rows_within(self, room: Reals, router: int) -> Integers:
        """Number of choices of rows that have room beside one router, in each of some rooms (hardwares, bounds)."""
        columns = range(room.shape[1])
        left = room - self.width.router_costs[router]
        attention = self.width.attention_costs
        found = [np.searchsorted(attention[:, column], left[:, column], side="right") for column in columns]
        return np.minimum.reduce(found)

    def _least_others(self, room: Reals) -> Integers:
        """Least cycles of attention and router in each of some rooms (hardwares, bounds)."""
        least = np.full(len(room), NONE)
        for router, cycles in enumerate(self.router_times):
            rows = self._rows_within(room, router)
            taken = np.where(rows > 0, self.attention_times[rows - 1] + cycles, NONE)
            least = np.minimum(least, taken)
        return least

    def _linear(self, outputs: Integers, tiles: Integers, rows: Integers | int) -> Architecture:
        return self.search.sizes(self.frame, outputs=outputs, token_tile=tiles, weight_rows=rows)

    def look(self, state: _State) -> None:
        """Look at every hardware of the frame that may be faster than the best."""
        bounds = self.least_times + self.router_times.min() + self.attention_times.min()
        near = np.flatnonzero(bounds < state.best)
        if not len(near):
            return
        if len(near) > FEW:
            left = state.room - self.least_others
            bounds[near] = self.least_times[near] + self._least_others(left - self.least_costs[near])
        keep = bounds < state.best
        outputs, tiles = (array[keep] for array in self.width.outputs_and_tiles)
        if not len(outputs):
            return
        choices = {int(each): self.width.rows(int(each)) for each in np.unique(outputs)}
        counts = [len(choices[int(each)]) for each in outputs]
        rows = np.concatenate([choices[int(each)] for each in outputs])
        outputs, tiles = np.repeat(outputs, counts), np.repeat(tiles, counts)
        times = self.search.times(self._linear(outputs, tiles, rows)).linear() + self.fixed
        near = np.flatnonzero(times + self.router_times.min() + self.attention_times.min() < state.best)
        if not len(near):
            return
        outputs, tiles, rows, times = outputs[near], tiles[near], rows[near], times[near]
        costs = self.search.costs(self._linear(outputs, tiles, rows), ["linear"], len(rows))
        least, left = costs.least(self.search.mixes), state.room - self.least_others
        bounds = times + self._least_others(left - least)
        for engine in np.argsort(bounds, kind="stable"):
            if bounds[engine] >= state.best or state.is_least:
                return
            room = left - least[engine]
            self._try(state, int(engine), int(times[engine]), room, costs, (outputs, tiles, rows))

    def _try(
        self,
        state: _State,
        engine: int,
        time: int,
        room: Reals,
        costs: Costs,
        arrays: tuple[Integers, Integers, Integers],
    ) -> None:
        """Find the fastest attention and router beside one linear engine for which there is room."""
        within = [
            (int(self.attention_times[row] + cycles), row, router)
            for router, cycles in enumerate(self.router_times)
            for row in range(int(self._rows_within(room[None], router)[0]))
        ]
        for others, row, router in sorted(within):
            if others + time >= state.best:
                return
            parts = [
                (self.others, 0),
                (costs, engine),
                (self.width.attention[1], row),
                (self.width.router, router),
            ]
            outputs, tiles, rows = (int(array[engine]) for array in arrays)
            kinds = _kinds(parts, state.limits)
            if kinds is None:
                continue
            state.best = others + time
            state.found = Hardware(
                lanes=self.frame.lanes,
                outputs=outputs,
                token_tile=tiles,
                attention_rows=int(self.search.attention_rows[row]),
                axi_width=self.frame.axi_width,
                weight_ports=self.frame.weight_ports,
                weight_rows=rows,
                router_lanes=self.search.router_lanes[router],
                max_batch=self.search.batch,
                clock_mhz=self.search.clock_mhz,
                family=self.search.board.family,
                **{name: kind[0] for name, kind in self.search.kinds.items()} | kinds | self.search.taken,
            )
            return


def _kinds(parts: Sequence[tuple[Costs, int]], limits: Integers) -> dict[str, MemoryKind] | None:
    """Kind of each memory with which all fit and take the least shares of the limits; None if none does."""
    total = sum(part.base[place] for part, place in parts)
    names: list[str] = []
    choices: list[tuple[MemoryKind, ...]] = []
    sums = np.asarray(total)[None]
    for part, place in parts:
        for name, (kinds, uses) in part.kinds.items():
            names.append(name)
            choices.append(kinds)
            sums = (sums[:, None] + uses[place][None]).reshape(-1, len(limits))
    fits = np.flatnonzero((sums <= limits).all(axis=1))
    if not len(fits):
        return None
    shares = (sums[fits] / np.maximum(limits, 1)).sum(axis=1)
    places = np.unravel_index(int(fits[shares.argmin()]), [len(kinds) for kinds in choices])
    return {name: kinds[int(place)] for name, kinds, place in zip(names, choices, places, strict=True)}
