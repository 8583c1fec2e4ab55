"""Results of a synthesis, loop by loop, beside the assumptions of the estimate.

Four things fail a synthesis, because the estimate is void with them: a loop that starts its iterations less often
than assumed (or cannot be found), a clock that misses its target, loads that do not run beside the computation, and
a port without bursts. Everything else that differs is told, with the cycles that it makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from codegen.architecture import Architecture
from codegen.csynth_report import LoopReport, ModuleReport, Synthesis
from codegen.estimate import LoopTotal, Scheduler, loop_totals
from codegen.loops import GROUP_OVERLAP, REQUESTED_PORTS, Loop, Overlap, loops_of
from codegen.memories import Memory, memories
from codegen.reports import Range
from codegen.resources import estimate_resources

BUNDLES: Mapping[str, str] = {"image": "gmem_image", "output": "gmem_output", "weights": "gmem_weights"}
"""AXI bundle of each port, as the interface pragmas name it; the weight ports have a number behind it."""
SLOW_MODULES = 5
"""Modules whose estimated period is told."""
SHORT_BURST = 16
"""Beats below which an inferred burst is told."""


@dataclass(frozen=True)
class Finding:
    """Something that differs from what is assumed.

    Attributes:
        where: a loop, a port, a resource.
        text: what was found, and what was expected.
        failed: whether it voids the estimate.
    """

    where: str
    text: str
    failed: bool = False


@dataclass(frozen=True)
class LoopRow:
    """A loop of the estimate, and of the report.

    Attributes:
        total: what the schedule does with it.
        modules: where the report has it; nowhere if empty.
        found: the slowest of the loops that the report has under its label; None if it has none.
        apart: loops round it that were to be flattened into it and were not, the outermost first.
        cycles: by how many cycles an image (of a batch: all images) its figures alone change the estimate.
    """

    total: LoopTotal
    modules: tuple[str, ...]
    found: LoopReport | None
    apart: tuple[str, ...]
    cycles: int

    @property
    def ii(self) -> int | None:
        """The tool's initiation interval."""
        return self.found.ii if self.found else None

    @property
    def depth(self) -> int | None:
        """The tool's iteration latency."""
        return self.found.depth[1] if self.found and self.found.depth else None


@dataclass(frozen=True)
class SynthesisCheck:
    """A synthesis against the estimate.

    Attributes:
        rows: every loop that the schedule enters.
        findings: what differs; the failures first.
        assumed_cycles: of an image, as estimated.
        cycles: the same, with the tool's figures for the loops.
        resources: by name: estimated, used, available.
    """

    rows: list[LoopRow]
    findings: list[Finding]
    assumed_cycles: int
    cycles: int
    resources: dict[str, tuple[float, int, int]]

    @property
    def failures(self) -> list[Finding]:
        """Findings that void the estimate."""
        return [finding for finding in self.findings if finding.failed]


def check_synthesis(
    architecture: Architecture, synthesis: Synthesis, beats_per_cycle: float = 1.0, part: str | None = None
) -> SynthesisCheck:
    """Compare the reports of a synthesis with what the estimate assumes.

    Args:
        architecture: of the design that was synthesised.
        synthesis: the reports.
        beats_per_cycle: what the board's memory delivers.
        part: the part that it was to be synthesised for, if it is to be compared.
    """
    known = loops_of(architecture)
    totals = loop_totals(Scheduler(architecture, 1, beats_per_cycle).run())
    assumed = _cycles(architecture, beats_per_cycle, known)
    found = _match(synthesis, known)
    findings = [*_timing(synthesis, part)]
    rows = []
    measured = dict(known)
    for total in totals:
        row, loop = _row(total, found.get(total.loop.label, []), known)
        rows.append(
            replace(row, cycles=_cycles(architecture, beats_per_cycle, known | {loop.label: loop}) - assumed)
        )
        measured[loop.label] = loop
        findings += _loop_findings(rows[-1])
    carriers = [place.loop for place in found.get(GROUP_OVERLAP.loop, [])]
    overlaps, overlap_findings = _overlap(synthesis, GROUP_OVERLAP, carriers)
    findings += overlap_findings
    findings += _bursts(synthesis, architecture)
    findings += _storage(synthesis, architecture)
    return SynthesisCheck(
        rows,
        sorted(findings, key=lambda finding: not finding.failed),
        assumed,
        _cycles(architecture, beats_per_cycle, measured, overlap=overlaps),
        _resources(synthesis, architecture),
    )


def _cycles(
    architecture: Architecture, beats_per_cycle: float, loops: Mapping[str, Loop], *, overlap: bool = True
) -> int:
    stages = Scheduler(architecture, 1, beats_per_cycle, loops=loops, overlap=overlap).run()
    return sum(stage.cycles for stage in stages)


# Loops


@dataclass(frozen=True)
class _Place:
    module: ModuleReport
    loop: LoopReport
    outer: tuple[LoopReport, ...]


def label_of(name: str, labels: Sequence[str]) -> str | None:
    """The label of a reported loop: of flattened loops that of the innermost, whose name comes last.

    The tool numbers copies of a loop (`LOAD_NORM1`, `LOAD_NORM_2`).
    """
    match = re.fullmatch(r"(.*?)(?:_?\d+)?", name)
    plain = match[1] if match else name
    ends = [label for label in labels if plain == label or plain.endswith(f"_{label}")]
    return max(ends, key=len, default=None)


def _match(synthesis: Synthesis, known: Mapping[str, Loop]) -> dict[str, list[_Place]]:
    """Loops of the report by label, those round others included."""
    labels = [*known, GROUP_OVERLAP.loop, *(outer for loop in known.values() for outer in loop.nest)]
    places: dict[str, list[_Place]] = {}
    for module, loop, outer in synthesis.loops():
        label = label_of(loop.name, labels)
        if label is not None:
            places.setdefault(label, []).append(_Place(module, loop, outer))
    return places


def _row(total: LoopTotal, places: Sequence[_Place], known: Mapping[str, Loop]) -> tuple[LoopRow, Loop]:
    """A row without its cycles, and the loop with the tool's figures."""
    assumed = total.loop
    if not places:
        return LoopRow(total, (), None, (), 0), assumed
    place = max(places, key=lambda place: (place.loop.ii or 1 << 30, place.loop.depth or (0, 0)))
    apart, entries = [], 1
    for outer in place.outer:
        label = label_of(outer.name, [*known, *assumed.nest])
        if label in assumed.nest:
            apart.append(label)
            entries *= outer.trips[1] if outer.trips else 1
    ii = place.loop.ii if place.loop.ii is not None else assumed.ii
    depth = place.loop.depth[1] if place.loop.depth is not None else assumed.depth
    if not place.loop.pipelined:
        # Iterations follow one another: each takes its whole depth.
        ii, depth = depth, 0
    modules = tuple(dict.fromkeys(place.module.name for place in places))
    return LoopRow(total, modules, place.loop, tuple(apart), 0), replace(
        assumed, ii=ii, depth=depth * entries
    )


def _loop_findings(row: LoopRow) -> Iterator[Finding]:
    assumed, found = row.total.loop, row.found
    if found is None:
        text = f"no such loop in the report, where {assumed.function} is expected to have it: it cannot be compared"
        yield Finding(assumed.label, text, row.total.longest > 1)
        return
    more = f", {row.cycles:+,} cycles an image"
    if not found.pipelined:
        yield Finding(assumed.label, f"not pipelined{more}", True)
    elif found.ii is None:
        yield Finding(assumed.label, "the report does not tell the II", True)
    elif found.ii > assumed.ii:
        yield Finding(assumed.label, f"II {found.ii}, assumed {assumed.ii}{more}", True)
    elif found.ii < assumed.ii:
        yield Finding(assumed.label, f"II {found.ii}, assumed {assumed.ii}{more}")
    if row.apart:
        text = (
            f"not flattened into {', '.join(row.apart)}: its depth is paid in each of their iterations{more}"
        )
        yield Finding(assumed.label, text, True)
    if found.pipelined and row.depth is not None and row.depth != assumed.depth:
        yield Finding(assumed.label, f"depth {row.depth}, assumed {assumed.depth}{more}")
    expected, same = row.total.longest, row.total.iterations == row.total.longest * row.total.entries
    if not row.apart and same and found.trips is not None and found.trips[0] == found.trips[1] != expected:
        yield Finding(assumed.label, f"{found.trips[1]:,} iterations, the schedule has {expected:,}")


# Loads beside computation


def _overlap(
    synthesis: Synthesis, overlap: Overlap, carriers: Sequence[LoopReport]
) -> tuple[bool, list[Finding]]:
    """Whether two functions run side by side: an iteration takes the longer of the two, not both."""

    def fail(text: str) -> tuple[bool, list[Finding]]:
        return False, [Finding(overlap.loop, text, True)]

    if not carriers:
        return fail(
            f"no loop {overlap.loop} in the report: whether loads run beside the computation is not shown"
        )
    load = _latency(synthesis, overlap.load)
    compute = _latency(synthesis, overlap.compute)
    iteration = max((loop.depth[1] for loop in carriers if loop.depth is not None), default=None)
    if load is None or compute is None or iteration is None:
        return fail(
            f"the report does not tell the cycles of {overlap.load}, {overlap.compute} or an iteration: "
            "whether loads run beside the computation is not shown"
        )
    beside, serial = overlap.pairs * max(load, compute), overlap.pairs * (load + compute)
    figures = (
        f"an iteration takes {iteration:,} cycles, {overlap.load} {load:,} and {overlap.compute} {compute:,} "
        f"({beside:,} side by side, {serial:,} one after the other)"
    )
    # Nearer to the one than to the other: a few states come on top.
    if iteration >= (beside + serial) / 2:
        return fail(f"{overlap.load} and {overlap.compute} do not run side by side: {figures}")
    return True, [Finding(overlap.loop, f"{overlap.load} and {overlap.compute} run side by side: {figures}")]


def _latency(synthesis: Synthesis, function: str) -> int | None:
    """Most cycles of a function's module; of its copies (`f_1`, `f_true_s`) the slowest."""
    pattern = re.compile(rf"{re.escape(function)}(_\d+|_\w*_s|_s)?")
    latencies: list[Range | None] = [
        module.latency for module in synthesis.modules.values() if pattern.fullmatch(module.name)
    ]
    known = [latency[1] for latency in latencies if latency is not None]
    return max(known) if known and len(known) == len(latencies) else None


# Clock, bursts, memories, resources


def _timing(synthesis: Synthesis, part: str | None) -> Iterator[Finding]:
    summary = synthesis.summary
    if summary is None:
        yield Finding("clock", "no csynth.xml: the estimated clock is not known", True)
        return
    target, margin = summary.target_ns, summary.target_ns - summary.uncertainty_ns
    if not summary.meets_timing:
        yield Finding("clock", f"estimated {summary.estimated_ns:g} ns, target {target:g} ns", True)
    slow = [
        module
        for module in synthesis.modules.values()
        if module.estimated_ns is not None and module.estimated_ns > margin
    ]
    for module in sorted(slow, key=lambda module: -(module.estimated_ns or 0))[:SLOW_MODULES]:
        text = f"estimated {module.estimated_ns:g} ns, of {margin:.2f} ns before the margin for placing and routing"
        yield Finding(module.name, text)
    if part is not None and summary.part != part:
        yield Finding("part", f"synthesised for {summary.part}, the build is for {part}")


def _bursts(synthesis: Synthesis, architecture: Architecture) -> Iterator[Finding]:
    if synthesis.bursts is None:
        yield Finding("bursts", "no csynth.rpt with a section on M_AXI bursts: they cannot be compared", True)
        return
    for miss in synthesis.missed:
        if miss.port.startswith("gmem"):
            where = f" in {miss.loop}" if miss.loop else ""
            text = f"no burst{where}: {miss.problem} ({miss.message}) at {miss.location}"
            yield Finding(miss.port, text, True)
    moved = {loop.port for loop in loops_of(architecture).values() if loop.port}
    for port in sorted(moved - set(REQUESTED_PORTS)):
        bundle = BUNDLES[port]
        bursts = [burst for burst in synthesis.bursts if burst.port == bundle]
        if not bursts:
            yield Finding(bundle, "no burst was inferred", True)
        for burst in bursts:
            if burst.length.isdecimal() and int(burst.length) < SHORT_BURST:
                text = f"bursts of {burst.length} beats only in {burst.loop}: each waits for the memory"
                yield Finding(bundle, text)


def _storage(synthesis: Synthesis, architecture: Architecture) -> Iterator[Finding]:
    if synthesis.storage is None:
        return
    for memory in (memory for held in memories(architecture).values() for memory in held if memory.variable):
        used = _blocks(synthesis, memory)
        if used is not None and used != memory.bram18:
            text = f"{used} BRAM18, estimated {memory.bram18} ({memory.built_as})"
            yield Finding(memory.variable, text)


def _blocks(synthesis: Synthesis, memory: Memory) -> int | None:
    """Half blocks of a memory's arrays, whose banks are numbered (`scores_3`); None where no name fits."""
    names = "|".join(re.escape(name.replace(".", "_")) for name in memory.variable.split(", "))
    pattern = re.compile(rf"(?:{names})(?:_\w+)?")
    fitting = [row for row in synthesis.storage or () if pattern.fullmatch(row.variable)]
    return sum(row.bram18 for row in fitting) if fitting else None


def _resources(synthesis: Synthesis, architecture: Architecture) -> dict[str, tuple[float, int, int]]:
    if synthesis.summary is None:
        return {}
    estimated = estimate_resources(architecture)
    expected = {
        "BRAM_18K": 2 * estimated.bram36,
        "DSP": estimated.dsp,
        "FF": estimated.ff,
        "LUT": estimated.lut,
        "URAM": estimated.uram,
    }
    return {
        name: (expected[name], used.used, used.available)
        for name, used in synthesis.summary.resources.items()
    }
