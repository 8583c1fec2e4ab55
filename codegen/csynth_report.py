"""Reports of Vitis HLS on a synthesis: the kernel, its modules and loops, its bursts and its memories.

The tool writes the same in two forms, into `syn/report` of a solution: `csynth.xml`, which has the figures of every
module (older tools: `MODULE_csynth.xml` for each), and `csynth.rpt`, a text whose table "Modules & Loops" has them too,
and which alone shows bursts and memories in full. Both are read; the XML is preferred where both say something.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from codegen.reports import (
    Range,
    nanoseconds,
    number_range,
    optional_text,
    read_report,
    read_xml,
    required_text,
    whole_number,
)
from common.errors import InputError

RESOURCES: Final = ("BRAM_18K", "DSP", "FF", "LUT", "URAM")

REPORT_FOLDERS: Final = (
    ".",
    "syn/report",
    "hls/syn/report",
    "solution/syn/report",
    "vitis/solution/syn/report",
    "vitis_config/hls/syn/report",
)
"""Folders in which reports may lie: their own, a solution's, a work folder's or a project's."""

MAX_NESTING: Final = 64
"""Loops in loops, or modules in modules, that are read."""

_LOOP_FIELDS: Final = {
    "Name",
    "Slack",
    "TripCount",
    "Latency",
    "AbsoluteTimeLatency",
    "IterationLatency",
    "PipelineII",
    "PipelineDepth",
    "PipelineType",
    "InstanceList",
}
"""Elements of a loop that are no loops inside it."""


@dataclass(frozen=True)
class Resource:
    """Use of one resource, and how much of it the part has."""

    used: int
    available: int


@dataclass(frozen=True)
class CsynthReport:
    """Synthesis report of the whole kernel. Times are in ns; cycles are None where it could not tell.

    Attributes:
        top: name of the kernel.
        part: part number that it was synthesised for.
        target_ns: period that was asked for.
        uncertainty_ns: what synthesis was told to keep free of it (0 where the report does not say).
        estimated_ns: estimated period.
        latency_best: least cycles of a call.
        latency_worst: most cycles of a call.
        interval: most cycles between the starts of two calls (the II of the kernel).
        resources: by name, as in `RESOURCES`.
    """

    top: str
    part: str
    target_ns: float
    uncertainty_ns: float
    estimated_ns: float
    latency_best: int | None
    latency_worst: int | None
    interval: int | None
    resources: Mapping[str, Resource]

    @property
    def meets_timing(self) -> bool:
        """Whether the estimated clock reaches the target."""
        return self.estimated_ns <= self.target_ns


@dataclass(frozen=True)
class LoopReport:
    """Synthesis report of a loop; None where it could not tell.

    Attributes:
        name: its label; of loops that were flattened, their labels joined by `_`.
        pipelined: whether it is.
        ii: cycles between the starts of two iterations.
        depth: cycles of an iteration.
        trips: iterations.
        latency: cycles of all iterations.
        calls: modules that are called in it.
        inner: loops in it.
    """

    name: str
    pipelined: bool
    ii: int | None
    depth: Range | None
    trips: Range | None
    latency: Range | None
    calls: tuple[str, ...] = ()
    inner: tuple[LoopReport, ...] = ()

    def walk(self, outer: tuple[LoopReport, ...] = ()) -> Iterator[tuple[LoopReport, tuple[LoopReport, ...]]]:
        """This loop and those in it, each with the loops round it."""
        yield self, outer
        for loop in self.inner:
            yield from loop.walk((*outer, self))


@dataclass(frozen=True)
class ModuleReport:
    """Synthesis report of a module: its cycles, its estimated period in ns, its outermost loops."""

    name: str
    latency: Range | None
    estimated_ns: float | None
    loops: tuple[LoopReport, ...]


@dataclass(frozen=True)
class Burst:
    """A burst that the tool inferred: `length` is a number of beats or `variable`."""

    port: str
    loop: str
    direction: str
    length: str
    location: str


@dataclass(frozen=True)
class MissedBurst:
    """Accesses of a port that the tool made no burst of, and its message about it, such as `214-230`."""

    port: str
    loop: str
    message: str
    problem: str
    location: str


@dataclass(frozen=True)
class Storage:
    """A memory: the array that it holds, halves of a BRAM36, and what it is built of."""

    variable: str
    bram18: int
    built_of: str


@dataclass(frozen=True)
class Synthesis:
    """All that the reports of a synthesis say.

    Attributes:
        folder: where they are.
        summary: of the kernel; None without XML.
        modules: by name.
        bursts: inferred ones; None without a text that has a section about them.
        missed: accesses without a burst.
        storage: memories; None without a text that has a section about them.
    """

    folder: Path
    summary: CsynthReport | None
    modules: Mapping[str, ModuleReport]
    bursts: tuple[Burst, ...] | None
    missed: tuple[MissedBurst, ...]
    storage: tuple[Storage, ...] | None

    def loops(self) -> Iterator[tuple[ModuleReport, LoopReport, tuple[LoopReport, ...]]]:
        """Every loop, with its module and the loops round it."""
        for module in self.modules.values():
            for outermost in module.loops:
                for loop, outer in outermost.walk():
                    yield module, loop, outer


def find_csynth(folder: Path, top: str) -> Path:
    """The XML report of the top function, in a solution's folder.

    Raises:
        InputError: there is none.
    """
    reports = folder / "syn" / "report"
    for name in ("csynth.xml", f"{top}_csynth.xml"):
        if (reports / name).is_file():
            return reports / name
    raise InputError(f"{reports}: neither csynth.xml nor {top}_csynth.xml", hint="run the stage csynth")


def find_reports(folder: Path) -> Path:
    """The folder with the reports of a synthesis, at or below a folder that somebody named.

    Raises:
        InputError: there are none.
    """
    for place in REPORT_FOLDERS:
        found = folder / place
        if (
            (found / "csynth.xml").is_file()
            or (found / "csynth.rpt").is_file()
            or any(found.glob("*_csynth.xml"))
        ):
            return found
    raise InputError(
        f"{folder}: no report of a synthesis: neither csynth.xml nor csynth.rpt nor *_csynth.xml",
        hint="give syn/report of a solution: what the stage csynth of run_hls.tcl leaves in vitis/solution",
    )


def read_synthesis(folder: Path, top: str) -> Synthesis:
    """Read every report of a synthesis.

    Args:
        folder: with the reports, or a solution or project that has them below it.
        top: name of the kernel.

    Raises:
        InputError: no reports, unreadable ones, or those of another kernel.
    """
    folder = find_reports(folder)
    summary: CsynthReport | None = None
    modules: dict[str, ModuleReport] = {}
    for path in (folder / "csynth.xml", folder / f"{top}_csynth.xml"):
        if path.is_file():
            summary = summary or parse_csynth(path)
            modules = modules or _xml_modules(read_xml(path), path)
    if not modules:
        for path in sorted(folder.glob("*_csynth.xml")):
            modules |= {module.name: module for module in [_own_module(read_xml(path), path)]}
    bursts: tuple[Burst, ...] | None = None
    missed: tuple[MissedBurst, ...] = ()
    storage: tuple[Storage, ...] | None = None
    text = folder / "csynth.rpt"
    if text.is_file():
        sections = _sections(read_report(text))
        modules = modules or _table_modules(sections, text)
        bursts, missed = _bursts(sections)
        storage = _storage(sections, text)
    if summary is not None and summary.top != top:
        raise InputError(
            f"{folder}: reports of {summary.top}, expected {top}",
            hint="give the reports of this build's kernel",
        )
    if not modules:
        raise InputError(
            f"{folder}: the reports name no module", hint="is it the report of a synthesis that finished?"
        )
    return Synthesis(folder, summary, modules, bursts, missed, storage)


def parse_csynth(path: Path) -> CsynthReport:
    """Read the XML report of synthesis.

    Raises:
        InputError: not a report, or one without the clock or the resources.
    """
    root = read_xml(path)
    assigned = "UserAssignments/"
    overall = "PerformanceEstimates/SummaryOfOverallLatency/"
    estimated = "PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod"

    def period(name: str) -> float:
        return nanoseconds(required_text(root, name, path), name, path)

    def cycles(name: str) -> int | None:
        found = number_range(optional_text(root, name), name, path)
        return None if found is None else found[1]

    uncertainty = assigned + "ClockUncertainty"
    return CsynthReport(
        top=required_text(root, assigned + "TopModelName", path),
        part=required_text(root, assigned + "Part", path),
        target_ns=period(assigned + "TargetClockPeriod"),
        uncertainty_ns=0.0 if optional_text(root, uncertainty) is None else period(uncertainty),
        estimated_ns=period(estimated),
        latency_best=cycles(overall + "Best-caseLatency"),
        latency_worst=cycles(overall + "Worst-caseLatency"),
        interval=cycles(overall + "Interval-max"),
        resources={name: _resource(root, name, path) for name in RESOURCES},
    )


def _resource(root: ElementTree.Element, name: str, path: Path) -> Resource:
    def number(parent: str) -> int:
        # Reports before 2020.1 spell it DSP48E; parts without UltraRAM may leave URAM out.
        names = [name, "DSP48E"] if name == "DSP" else [name]
        for spelled in names:
            text = optional_text(root, f"AreaEstimates/{parent}/{spelled}")
            if text is not None:
                return whole_number(text, f"{parent}/{spelled}", path)
        if name == "URAM":
            return 0
        raise InputError(f"{path}: no AreaEstimates/{parent}/{name}")

    return Resource(number("Resources"), number("AvailableResources"))


# XML


def _xml_modules(root: ElementTree.Element, path: Path) -> dict[str, ModuleReport]:
    """Modules of a report that has all of them."""
    called = {
        (optional_text(instance, "InstName") or ""): (optional_text(instance, "ModuleName") or "")
        for instance in root.iter("Instance")
        if instance.find("ModuleName") is not None
    }
    modules = [
        _module(element, required_text(element, "Name", path), called, path)
        for element in root.findall("ModuleInformation/Module")
    ]
    return {module.name: module for module in modules}


def _own_module(root: ElementTree.Element, path: Path) -> ModuleReport:
    """The module of a report that has one only."""
    return _module(root, required_text(root, "UserAssignments/TopModelName", path), {}, path)


def _module(element: ElementTree.Element, name: str, called: Mapping[str, str], path: Path) -> ModuleReport:
    estimates = "PerformanceEstimates/"
    overall = estimates + "SummaryOfOverallLatency/"
    best, worst = (
        number_range(optional_text(element, overall + key), key, path)
        for key in ("Best-caseLatency", "Worst-caseLatency")
    )
    period = optional_text(element, estimates + "SummaryOfTimingAnalysis/EstimatedClockPeriod")
    loops = element.find(estimates + "SummaryOfLoopLatency")
    return ModuleReport(
        name,
        None if best is None or worst is None else (best[0], worst[1]),
        None if not period else nanoseconds(period, "EstimatedClockPeriod", path),
        () if loops is None else tuple(_xml_loop(loop, called, path) for loop in loops),
    )


def _xml_loop(
    element: ElementTree.Element, called: Mapping[str, str], path: Path, level: int = 1
) -> LoopReport:
    _check_nesting(level, path)

    def value(name: str) -> Range | None:
        ends = [element.find(f"{name}/range/{end}") for end in ("min", "max")]
        if ends[0] is not None and ends[1] is not None:
            return number_range(f"{ends[0].text or ''}~{ends[1].text or ''}", name, path)
        return number_range(optional_text(element, name), name, path)

    ii = value("PipelineII")
    pipelined = ii is not None or (optional_text(element, "PipelineType") or "").lower() == "yes"
    instances = [(instance.text or "").strip() for instance in element.findall("InstanceList/Instance")]
    return LoopReport(
        optional_text(element, "Name") or element.tag,
        pipelined,
        None if ii is None else ii[1],
        value("IterationLatency") or value("PipelineDepth"),
        value("TripCount"),
        value("Latency"),
        tuple(called.get(name, _function_of(name)) for name in instances),
        tuple(
            _xml_loop(inner, called, path, level + 1) for inner in element if inner.tag not in _LOOP_FIELDS
        ),
    )


def _check_nesting(level: int, path: Path) -> None:
    if level > MAX_NESTING:
        raise InputError(f"{path}: more than {MAX_NESTING} levels of loops or modules, which no report has")


def _function_of(instance: str) -> str:
    """The module of an instance such as `grp_load_group_fu_120`."""
    match = re.fullmatch(r"(?:grp_)?(.+?)_fu_\d+", instance)
    return match[1] if match else instance


# Text


@dataclass(frozen=True)
class _Table:
    """A table of a text report: rows as cells by heading; the first cell keeps its leading blanks."""

    title: str
    rows: list[dict[str, str]]


def _sections(text: str) -> dict[str, list[_Table]]:
    """Tables of every section, whose title stands after `== ` between two lines of `=`."""
    sections: dict[str, list[_Table]] = {}
    section, title = "", ""
    lines: list[str] = []

    def finish() -> None:
        if lines:
            sections.setdefault(section, []).append(_Table(title, _rows(lines)))
            lines.clear()

    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(("|", "+-")):
            lines.append(stripped)
            continue
        finish()
        if stripped.startswith("== "):
            section, title = stripped[3:].strip(), ""
            sections.setdefault(section, [])
        elif stripped.startswith(("* ", "+ ")):
            title = stripped[2:].strip(" :")
    finish()
    return sections


def _rows(lines: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a table, whose headings are the lines between its first two rules."""
    headings: list[str] = []
    rows: list[dict[str, str]] = []
    rules = 0
    for line in lines:
        if not line.startswith("|"):
            rules += 1
            continue
        cells = line.removeprefix("|").removesuffix("|").split("|")
        if rules == 1:
            parts = [cell.strip() for cell in cells]
            headings = (
                [" ".join(pair).strip() for pair in zip(headings, parts, strict=True)]
                if len(headings) == len(parts)
                else parts
            )
        elif len(cells) == len(headings):
            first, *others = cells
            values = [first.rstrip(), *(cell.strip() for cell in others)]
            rows.append(dict(zip(headings, values, strict=True)))
    return rows


def _find(sections: Mapping[str, list[_Table]], start: str) -> list[_Table] | None:
    return next((tables for name, tables in sections.items() if name.startswith(start)), None)


@dataclass
class _Node:
    """A row of "Modules & Loops" and the rows below it."""

    name: str
    is_loop: bool
    cells: Mapping[str, str]
    below: list[_Node]


def _table_modules(sections: Mapping[str, list[_Table]], path: Path) -> dict[str, ModuleReport]:
    """Modules of the table "Modules & Loops", in which a blank more is a level deeper."""
    tables = _find(sections, "Synthesis Summary Report") or []
    rows = next((table.rows for table in tables if any("Modules & Loops" in row for row in table.rows)), [])
    roots: list[_Node] = []
    levels: list[tuple[int, _Node]] = []
    for row in rows:
        cell = row["Modules & Loops"]
        match = re.fullmatch(r"( *)([+o]) *(\S+?)\*?", cell)
        if match is None:
            continue
        node = _Node(match[3], match[2] == "o", row, [])
        while levels and levels[-1][0] >= len(match[1]):
            levels.pop()
        (levels[-1][1].below if levels else roots).append(node)
        levels.append((len(match[1]), node))
        _check_nesting(len(levels), path)
    modules: dict[str, ModuleReport] = {}
    _collect(roots, modules, path)
    return modules


def _collect(nodes: Sequence[_Node], modules: dict[str, ModuleReport], path: Path) -> None:
    for node in nodes:
        if not node.is_loop:
            name = _function_of(node.name)
            loops = tuple(_table_loop(below, path) for below in node.below if below.is_loop)
            latency = number_range(node.cells.get("Latency (cycles)"), "Latency (cycles)", path)
            modules.setdefault(name, ModuleReport(name, latency, None, loops))
        _collect(node.below, modules, path)


def _table_loop(node: _Node, path: Path) -> LoopReport:
    def value(heading: str) -> Range | None:
        return number_range(node.cells.get(heading), heading, path)

    ii = value("Interval")
    pipelined = node.cells.get("Pipelined", "").lower() == "yes"
    return LoopReport(
        node.name,
        pipelined,
        ii[1] if ii is not None and pipelined else None,
        value("Iteration Latency"),
        value("Trip Count"),
        value("Latency (cycles)"),
        tuple(_function_of(below.name) for below in node.below if not below.is_loop),
        tuple(_table_loop(below, path) for below in node.below if below.is_loop),
    )


def _bursts(
    sections: Mapping[str, list[_Table]],
) -> tuple[tuple[Burst, ...] | None, tuple[MissedBurst, ...]]:
    tables = _find(sections, "M_AXI Burst Information")
    if tables is None:
        return None, ()
    bursts: list[Burst] = []
    missed: list[MissedBurst] = []
    for row in (row for table in tables for row in table.rows):
        for port in _ports(row.get("HW Interface", "")):
            location = row.get("Location") or row.get("Loop Location", "")
            if "Problem" not in row and "Length" in row:
                direction, length = row.get("Direction", ""), row["Length"]
                bursts.append(Burst(port, row.get("Loop", ""), direction, length, location))
            elif "Problem" in row and _is_miss(row):
                message = row.get("Resolution", "")
                missed.append(MissedBurst(port, row.get("Loop", ""), message, row["Problem"], location))
    # Newer tools show an access that became no burst in two tables.
    return tuple(dict.fromkeys(bursts)), _distinct(missed)


def _is_miss(row: Mapping[str, str]) -> bool:
    """Whether a row is about a burst, not about words that could have been wider."""
    status = row.get("Burst Status")
    if status is not None:
        return status.lower() == "fail"
    return "widen" not in row["Problem"].lower()


def _distinct(missed: Sequence[MissedBurst]) -> tuple[MissedBurst, ...]:
    kept = {replace(miss, location=""): miss for miss in reversed(missed)}
    return tuple(reversed(kept.values()))


def _ports(cell: str) -> list[str]:
    """Bundles of a cell such as `m_axi_gmem0,gmem1`."""
    return list(
        dict.fromkeys(name.strip().removeprefix("m_axi_") for name in cell.split(",") if name.strip())
    )


def _storage(sections: Mapping[str, list[_Table]], path: Path) -> tuple[Storage, ...] | None:
    tables = _find(sections, "Bind Storage Report")
    if tables is None:
        return None
    found = []
    for row in (row for table in tables for row in table.rows):
        blocks = number_range(row.get("BRAM"), "BRAM", path)
        if row.get("Variable"):
            built = f"{row.get('Storage', '')} {row.get('Impl', '')}".strip()
            found.append(Storage(row["Variable"], blocks[1] if blocks else 0, built))
    return tuple(found)
