"""Paths from register to register in a netlist that Yosys wrote for UltraScale+, and what enables drive.

The delays are rough, those of a -2 part before placing, +-30 %: they rank paths and show when one grows; whether a
design reaches a clock only Vivado can tell. Registers include memories and shift-register LUTs. Yosys leaves DSP slices
without their registers, so a product starts and ends at flip-flops here, which Vivado may take into the slice.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from common.errors import InputError

CLOCK_TO_OUT: Final = 0.08
SETUP: Final = 0.06
LUT: Final = 0.10
MUX: Final = 0.07
NET: Final = 0.20
NET_PER_DOUBLING: Final = 0.06
CARRY_IN: Final = 0.12
"""From a sum bit's inputs to the carry chain."""
CARRY_STEP: Final = 0.018
"""From one carry cell to the next."""
CARRY_OUT: Final = 0.07
"""From the carry chain to the bit of the sum."""
MEMORY_TO_OUT: Final = 1.00
"""Block RAM without its output register."""
ULTRA_TO_OUT: Final = 1.20
MEMORY_SETUP: Final = 0.30
LUT_MEMORY: Final = 0.15
LUT_MEMORY_TO_OUT: Final = 0.45
SHIFT_REGISTER_TO_OUT: Final = 0.40
PRODUCT: Final = 1.90
"""A DSP slice, from the factors to the product."""
ADDEND: Final = 1.00
"""A DSP slice, from the addend to the sum."""

CLOCKS: Final = frozenset(("C", "CLK", "CLKA", "CLKB", "WCLK", "CLKARDCLK", "CLKBWRCLK"))
ENABLES: Final = ("CE", "R", "S", "CLR", "PRE")
"""Ports by which one net holds or resets many flip-flops."""

_REGISTERS = re.compile(r"FD[RSCP]E|RAMB|URAM|SRL|LD[CP]E|RAM\d")
_LUT = re.compile(r"LUT\d|INV")
_NUMBER = re.compile(r"\[\d+\]")
_PLACE = re.compile(r"(\.\d+)+$")
_FRESH, _OPEN, _DONE = range(3)


class _Arrival(NamedTuple):
    """When a net is stable, and by which net and kind of cell it was the last to be."""

    time: float
    before: int
    kind: str


_CONSTANT = _Arrival(-math.inf, 0, "")


@dataclass(frozen=True)
class TimingPath:
    """The slowest path between two registers.

    Attributes:
        ns: from the clock to the end, with setup.
        source: name of the register that it begins at; of the port, where it comes from outside.
        target: name of the register or port that it ends at.
        cells: types of the cells that it passes, from the source's on.
    """

    ns: float
    source: str
    target: str
    cells: tuple[str, ...]

    @property
    def luts(self) -> int:
        """LUTs passed."""
        return sum(1 for cell in self.cells if _LUT.fullmatch(cell))

    @property
    def text(self) -> str:
        """The path in a line."""
        runs: list[list[Any]] = []
        for cell in self.cells:
            if runs and runs[-1][0] == cell:
                runs[-1][1] += 1
            else:
                runs.append([cell, 1])
        passed = " ".join(cell if count == 1 else f"{cell} x{count}" for cell, count in runs)
        return f"{self.source} -> {self.target} ({passed})"


@dataclass(frozen=True)
class Timing:
    """Timing of a module.

    Attributes:
        paths: the slowest path of every pair of registers, slowest first; bits of a register are one.
        enables: flip-flops (and shift registers) that a net enables, sets or resets, most first.
    """

    paths: tuple[TimingPath, ...]
    enables: tuple[tuple[str, int], ...]

    @property
    def worst(self) -> TimingPath:
        """The slowest path."""
        return self.paths[0]

    @property
    def widest(self) -> tuple[str, int]:
        """The enable that drives most."""
        return self.enables[0] if self.enables else ("", 0)


@dataclass
class _Cell:
    name: str
    kind: str
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]


@dataclass
class _Netlist:
    """A netlist: nets are numbers, constants are left out (as -1)."""

    cells: list[_Cell] = field(default_factory=list)
    drivers: dict[int, tuple[int, str, int]] = field(default_factory=dict)
    loads: Counter[int] = field(default_factory=Counter)
    names: dict[int, str] = field(default_factory=dict)
    inputs: dict[str, list[int]] = field(default_factory=dict)
    outputs: dict[str, list[int]] = field(default_factory=dict)


def read_timing(file: Path, top: str, source: str, *, memory_ports: Collection[str] = ()) -> Timing:
    """Timing of a module in a netlist.

    Args:
        file: what Yosys's `write_json` wrote.
        top: name of the module in the file; it has no others in it.
        source: name that it has in its SystemVerilog, and its file.
        memory_ports: inputs that come from a block RAM without output register. All others come from a flip-flop.

    Raises:
        InputError: a file that is no netlist, has no such module, or has cells that are not known.
    """
    try:
        module = json.loads(file.read_text())["modules"][top]
        # Its name is that of its file, whatever parameters Yosys added to it.
        if Path(module["attributes"]["src"].split(":")[0]).stem != source:
            raise KeyError(f"it is one of {module['attributes']['src']}")
        netlist = _netlist(module)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: not a netlist of {source}: {error}",
            hint="the output of Yosys's `write_json` is expected",
        ) from None
    return _Analysis(netlist, frozenset(memory_ports)).timing()


def _bits(bits: list[Any]) -> list[int]:
    return [bit if isinstance(bit, int) else -1 for bit in bits]


def _netlist(module: Any) -> _Netlist:
    found = _Netlist()
    for name, port in module["ports"].items():
        (found.inputs if port["direction"] == "input" else found.outputs)[name] = _bits(port["bits"])
    for bits in found.outputs.values():
        found.loads.update(bits)
    for name, cell in module["cells"].items():
        if cell["type"] == "$scopeinfo":
            continue
        directions, connections = cell["port_directions"], cell["connections"]
        inputs = {p: _bits(bits) for p, bits in connections.items() if directions[p] == "input"}
        outputs = {p: _bits(bits) for p, bits in connections.items() if directions[p] != "input"}
        for port, bits in outputs.items():
            for place, bit in enumerate(bits):
                found.drivers[bit] = (len(found.cells), port, place)
        for bits in inputs.values():
            found.loads.update(bits)
        # Yosys numbers what it makes; the number of a cell says nothing.
        own = cell["type"] if cell.get("hide_name", 0) else _PLACE.sub("", name)
        found.cells.append(_Cell(own, cell["type"], inputs, outputs))
    hidden: dict[int, bool] = {}
    for name, net in module["netnames"].items():
        unnamed = bool(net.get("hide_name", 0))
        for place, bit in enumerate(_bits(net["bits"])):
            own = f"{name}[{place}]" if len(net["bits"]) > 1 else name
            # A name from the source rather than one of Yosys's; of several, the shortest.
            rank = (unnamed, len(own))
            if bit not in found.names or rank < (hidden[bit], len(found.names[bit])):
                found.names[bit], hidden[bit] = own, unnamed
    return found


class _Analysis:
    def __init__(self, netlist: _Netlist, memory_ports: frozenset[str]):
        self.netlist = netlist
        self.arrivals: dict[int, _Arrival] = {-1: _CONSTANT}
        for port, bits in netlist.inputs.items():
            kind = "memory port" if port in memory_ports else "port"
            start = MEMORY_TO_OUT if port in memory_ports else CLOCK_TO_OUT
            for bit in bits:
                self.arrivals[bit] = _Arrival(start, 0, kind)

    def timing(self) -> Timing:
        worst: dict[tuple[str, str], tuple[float, int, str]] = {}
        for bit, setup, target in self._ends():
            arrival = self._arrive(bit)
            if arrival.time == -math.inf:
                continue
            ns = arrival.time + self._net(bit) + setup
            key = (self._name(self._origin(bit)), target)
            if key not in worst or ns > worst[key][0]:
                worst[key] = (ns, bit, target)
        paths = [
            TimingPath(round(ns, 3), source, target, tuple(self._kinds(bit)))
            for (source, target), (ns, bit, _) in worst.items()
        ]
        paths.sort(key=lambda path: (-path.ns, path.source, path.target))
        return Timing(tuple(paths), tuple(self._enables()))

    def _net(self, bit: int) -> float:
        return NET + NET_PER_DOUBLING * math.log2(1 + self.netlist.loads[bit])

    def _name(self, bit: int) -> str:
        """Name of a register by a net that it drives: of the net in the source, or of the cell."""
        name = self.netlist.names.get(bit, "$")
        driver = self.netlist.drivers.get(bit)
        if name.startswith("$") and driver is not None:
            name = self.netlist.cells[driver[0]].name
        return _NUMBER.sub("", name)

    def _ends(self) -> Iterator[tuple[int, float, str]]:
        """Nets that a register takes at the clock: net, setup, name of the register."""
        for cell in self.netlist.cells:
            if not _REGISTERS.match(cell.kind):
                continue
            setup = MEMORY_SETUP if cell.kind.startswith(("RAMB", "URAM")) else SETUP
            out = next((bit for bits in cell.outputs.values() for bit in bits if bit >= 0), -1)
            target = self._name(out)
            for port, bits in cell.inputs.items():
                # A shift register's address is not clocked, nor is that of a LUT memory's read port.
                if port in CLOCKS or (cell.kind.startswith("SRL") and port.startswith("A")):
                    continue
                for bit in bits:
                    yield bit, setup, f"{target} {port}" if port in ENABLES else target
        for port, bits in self.netlist.outputs.items():
            for bit in bits:
                yield bit, SETUP, f"port {port}"

    def _arrive(self, wanted: int) -> _Arrival:
        arrivals, state = self.arrivals, defaultdict[int, int](int)
        stack = [wanted]
        while stack:
            bit = stack[-1]
            if bit in arrivals:
                stack.pop()
                continue
            if bit not in self.netlist.drivers:
                arrivals[bit] = _CONSTANT
                continue
            cell, port, place = self.netlist.drivers[bit]
            arcs = list(self._arcs(self.netlist.cells[cell], port, place))
            missing = [source for source, _, _ in arcs if source not in arrivals]
            if missing and state[bit] == _FRESH:
                state[bit] = _OPEN
                stack += missing
                continue
            if missing:
                raise InputError(f"{self._name(bit)}: a loop without a register")
            arrivals[bit] = self._latest(self.netlist.cells[cell], arcs)
            stack.pop()
        return arrivals[wanted]

    def _latest(self, cell: _Cell, arcs: list[tuple[int, float, bool]]) -> _Arrival:
        best = _CONSTANT
        if _REGISTERS.match(cell.kind):
            start = self._start(cell.kind)
            best = _Arrival(start, 0, cell.kind)
        for source, delay, direct in arcs:
            arrival = self.arrivals[source]
            time = arrival.time + delay + (0.0 if direct else self._net(source))
            if time > best.time:
                best = _Arrival(time, source, cell.kind)
        return best

    @staticmethod
    def _start(kind: str) -> float:
        if kind.startswith("RAMB"):
            return MEMORY_TO_OUT
        if kind.startswith("URAM"):
            return ULTRA_TO_OUT
        if kind.startswith("SRL"):
            return SHIFT_REGISTER_TO_OUT
        return LUT_MEMORY_TO_OUT if kind.startswith("RAM") else CLOCK_TO_OUT

    def _arcs(self, cell: _Cell, port: str, place: int) -> Iterator[tuple[int, float, bool]]:
        """Ways through a cell to one of its outputs: from which net, how long, whether beside it without a net."""
        kind = cell.kind
        if _LUT.fullmatch(kind):
            yield from ((bit, LUT, False) for bits in cell.inputs.values() for bit in bits)
        elif kind.startswith("MUXF"):
            for name, bits in cell.inputs.items():
                yield from ((bit, MUX, name != "S" and self._beside(bit)) for bit in bits)
        elif kind.startswith("CARRY"):
            out = CARRY_OUT if port == "O" else 0.0
            for name in ("S", "DI"):
                for i, bit in enumerate(cell.inputs.get(name, ())[: place + 1]):
                    yield bit, CARRY_IN + (out if i < place else 0.0), self._beside(bit)
            for name in ("CI", "CYINIT"):
                for bit in cell.inputs.get(name, ()):
                    yield bit, CARRY_STEP + out, self._beside(bit)
        elif kind.startswith("DSP48E2"):
            for name, delay in (("A", PRODUCT), ("B", PRODUCT), ("D", PRODUCT), ("C", ADDEND)):
                yield from ((bit, delay, False) for bit in cell.inputs.get(name, ()))
        elif kind.startswith("RAM") and not kind.startswith("RAMB"):
            for name, bits in cell.inputs.items():
                if name.startswith(("ADDR", "DPRA")) or re.fullmatch(r"A\d*", name):
                    yield from ((bit, LUT_MEMORY, False) for bit in bits)
        elif not _REGISTERS.match(kind) and kind not in ("VCC", "GND"):
            raise InputError(
                f"cell {kind}: its delay is not known", hint="add it to codegen/rtl/netlist_timing.py"
            )

    def _beside(self, bit: int) -> bool:
        """Whether what drives a net sits in the same slice: carry to carry, or a LUT with little else to drive."""
        driver = self.netlist.drivers.get(bit)
        if driver is None:
            return False
        kind = self.netlist.cells[driver[0]].kind
        return kind.startswith(("CARRY", "MUXF")) or (kind.startswith("LUT") and self.netlist.loads[bit] <= 2)

    def _origin(self, bit: int) -> int:
        while before := self.arrivals[bit].before:
            bit = before
        return bit

    def _kinds(self, bit: int) -> list[str]:
        kinds = []
        while bit:
            kinds.append(self.arrivals[bit].kind)
            bit = self.arrivals[bit].before
        return kinds[::-1]

    def _enables(self) -> list[tuple[str, int]]:
        driven: Counter[int] = Counter()
        for cell in self.netlist.cells:
            if cell.kind.startswith(("FD", "SRL")):
                driven.update(bit for port in ENABLES for bit in cell.inputs.get(port, ()) if bit >= 0)
        return [(self.netlist.names.get(bit, "?"), count) for bit, count in driven.most_common()]
