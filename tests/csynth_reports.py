"""Reports of Vitis HLS as the tool would write them for a Design that it synthesised just as the estimate assumes.

The structure is the tool's (2022.2 to 2023.1, from public reports): which elements there are, how loops that were
flattened are called, which modules pipelined loops become, how ranges and unknown numbers look. The numbers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from codegen.architecture import Architecture
from codegen.estimate import Scheduler, loop_totals
from codegen.loops import GROUP_OVERLAP, Loop

TOP = "edgemoe_top"


@dataclass
class Loops:
    """A loop of a report: figures as the tool prints them, `calls` the modules called in it."""

    name: str
    ii: str = ""
    depth: str = ""
    trips: str = ""
    latency: str = ""
    calls: Sequence[str] = ()
    inner: list[Loops] = field(default_factory=list)

    @property
    def pipelined(self) -> str:
        return "yes" if self.ii else "no"


@dataclass
class Module:
    """A module of a report."""

    name: str
    latency: str
    loops: list[Loops]
    estimated: str = "2.800"


@dataclass
class Reports:
    """What a synthesis of a Design says; change it before `write`."""

    modules: dict[str, Module]
    estimated: str = "2.871"
    part: str = "xczu9eg-ffvb1156-2-e"
    top: str = TOP
    bursts: list[tuple[str, ...]] = field(default_factory=list)
    missed: list[tuple[str, ...]] = field(default_factory=list)
    storage: list[tuple[str, ...]] = field(default_factory=list)

    def loop(self, label: str) -> Loops:
        """The loop whose innermost label this is."""
        return next(
            loop for module in self.modules.values() for loop in module.loops if loop.name.endswith(label)
        )

    def without(self, label: str) -> None:
        """Take a loop out."""
        for module in self.modules.values():
            module.loops = [loop for loop in module.loops if not loop.name.endswith(label)]

    def write(self, folder: Path, *, xml: bool = True, text: bool = True) -> Path:
        """Write `csynth.xml` and `csynth.rpt`."""
        folder.mkdir(parents=True, exist_ok=True)
        if xml:
            (folder / "csynth.xml").write_text(self.xml())
        if text:
            (folder / "csynth.rpt").write_text(self.text())
        return folder

    def xml(self) -> str:
        """`csynth.xml`."""
        return f"""<profile>
<ReportVersion><Version>2023.1</Version></ReportVersion>
<UserAssignments>
<unit>ns</unit><ProductFamily>zynquplus</ProductFamily><Part>{self.part}</Part>
<TopModelName>{self.top}</TopModelName>
<TargetClockPeriod>3.33</TargetClockPeriod><ClockUncertainty>0.42</ClockUncertainty>
<FlowTarget>vivado</FlowTarget>
</UserAssignments>
<PerformanceEstimates>
<PipelineType>no</PipelineType>
<SummaryOfTimingAnalysis><unit>ns</unit><EstimatedClockPeriod>{self.estimated}</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency>
<Best-caseLatency>1</Best-caseLatency><Average-caseLatency>undef</Average-caseLatency>
<Worst-caseLatency>900000</Worst-caseLatency><Interval-min>2</Interval-min><Interval-max>900001</Interval-max>
</SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates>
<Resources><BRAM_18K>600</BRAM_18K><DSP>2051</DSP><FF>210000</FF><LUT>150000</LUT><URAM>0</URAM></Resources>
<AvailableResources><BRAM_18K>1824</BRAM_18K><DSP>2520</DSP><FF>548160</FF><LUT>274080</LUT><URAM>0</URAM></AvailableResources>
</AreaEstimates>
<RTLDesignHierarchy><TopModule MAX_DEPTH="4"><ModuleName>{self.top}</ModuleName><InstancesList>
{self._instances()}
</InstancesList></TopModule></RTLDesignHierarchy>
<ModuleInformation>
{"".join(_xml_module(module) for module in self.modules.values())}</ModuleInformation>
</profile>
"""

    def _instances(self) -> str:
        return "\n".join(
            f"<Instance><InstName>{instance(name)}</InstName><ModuleName>{name}</ModuleName>"
            f"<IsCompInst>true</IsCompInst><ID>1</ID></Instance>"
            for name in self.modules
        )

    def text(self) -> str:
        """`csynth.rpt`."""
        rows = [row for module in self.modules.values() for row in _text_rows(module)]
        return "\n".join(
            [
                *_section(f"Synthesis Summary Report of '{self.top}'"),
                "+ General Information: ",
                "    * Version:        2023.1 (Build 3854077 on May  4 2023)",
                "",
                "+ Performance & Resource Estimates: ",
                "    ",
                "    PS: '+' for module; 'o' for loop; '*' for dataflow",
                *table([_HEADINGS[0], _HEADINGS[1]], rows, indent="    "),
                *_section("M_AXI Burst Information"),
                " Note: All burst requests might be further partitioned into multiple requests.",
                "",
                "* Inferred Burst Summary",
                *table([("HW Interface", "Loop", "Direction", "Length", "Width", "Location")], self.bursts),
                "",
                "* Inferred Bursts and Widening Missed",
                *table(
                    [("HW Interface", "Variable", "Loop", "Problem", "Resolution", "Location")], self.missed
                ),
                *_section("Bind Storage Report"),
                *table(
                    [("Name", "BRAM", "URAM", "Pragma", "Variable", "Storage", "Impl", "Latency")],
                    self.storage,
                ),
                "",
            ]
        )


_HEADINGS = (
    ("Modules", "Issue", "", "Latency", "Latency", "Iteration", "", "Trip", "", "", "", "", "", ""),
    (
        "& Loops",
        "Type",
        "Slack",
        "(cycles)",
        "(ns)",
        "Latency",
        "Interval",
        "Count",
        "Pipelined",
        "BRAM",
        "DSP",
        "FF",
        "LUT",
        "URAM",
    ),
)


def instance(module: str) -> str:
    """What the tool calls an instance of a module."""
    return f"grp_{module}_fu_{100 + len(module)}"


def table(headings: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """A table as the tool draws it."""
    widths = [max(len(row[column]) for row in (*headings, *rows)) for column in range(len(headings[0]))]
    rule = indent + "+" + "+".join("-" * (width + 2) for width in widths) + "+"

    def line(row: Sequence[str]) -> str:
        cells = [f"{row[0]:<{widths[0] + 2}}"]
        cells += [f"{cell:>{width}}  " for cell, width in zip(row[1:], widths[1:], strict=True)]
        return indent + "|" + "|".join(cells) + "|"

    return [rule, *(line(row) for row in headings), rule, *(line(row) for row in rows), rule]


def _section(title: str) -> list[str]:
    return ["", "=" * 64, f"== {title}", "=" * 64]


def _text_rows(module: Module) -> list[tuple[str, ...]]:
    def row(name: str, **cells: str) -> tuple[str, ...]:
        keys = ("", "slack", "latency", "", "depth", "ii", "trips", "pipelined", "", "", "", "", "")
        return (name, *(cells.get(key) or "-" for key in keys))

    def loop_rows(loop: Loops, level: int) -> list[tuple[str, ...]]:
        blanks = " " * level
        found = [
            row(
                f"{blanks}o {loop.name}",
                depth=loop.depth,
                ii=loop.ii,
                trips=loop.trips,
                latency=loop.latency,
                pipelined=loop.pipelined,
                slack="2.43",
            )
        ]
        found += [row(f"{blanks} + {name}", latency="-", pipelined="no") for name in loop.calls]
        for inner in loop.inner:
            found += loop_rows(inner, level + 1)
        return found

    rows = [row(f" + {module.name}", latency=module.latency, pipelined="no", slack="0.03")]
    for loop in module.loops:
        rows += loop_rows(loop, 2)
    return rows


def _number(tag: str, text: str) -> str:
    if not text:
        return ""
    if "~" in text and tag in ("TripCount", "IterationLatency"):
        low, high = (end.strip() for end in text.split("~"))
        return f"<{tag}><range><min>{low}</min><max>{high}</max></range></{tag}>"
    return f"<{tag}>{escape(text)}</{tag}>"


def _xml_loop(loop: Loops) -> str:
    calls = "".join(f"<Instance>{instance(name)}</Instance>" for name in loop.calls)
    figures = (
        _number("PipelineII", loop.ii) + _number("PipelineDepth", loop.depth)
        if loop.ii
        else _number("IterationLatency", loop.depth) + _number("PipelineDepth", loop.depth)
    )
    return (
        f"<{loop.name}><Name>{loop.name}</Name><Slack>2.43</Slack>{_number('TripCount', loop.trips)}"
        f"{_number('Latency', loop.latency)}<AbsoluteTimeLatency>1 us</AbsoluteTimeLatency>{figures}"
        f"<PipelineType>{loop.pipelined}</PipelineType><InstanceList>{calls}</InstanceList>"
        f"{''.join(_xml_loop(inner) for inner in loop.inner)}</{loop.name}>\n"
    )


def _xml_module(module: Module) -> str:
    best, worst = (end.strip() for end in (module.latency.split("~") * 2)[:2])
    names = "".join(f"<{loop.name}/>" for loop in module.loops)
    return (
        f"<Module><Name>{module.name}</Name><Loops>{names}</Loops><PerformanceEstimates>"
        "<SummaryOfTimingAnalysis><TargetClockPeriod>3.33</TargetClockPeriod>"
        "<ClockUncertainty>0.42</ClockUncertainty>"
        f"<EstimatedClockPeriod>{module.estimated}</EstimatedClockPeriod></SummaryOfTimingAnalysis>"
        f"<SummaryOfOverallLatency><Best-caseLatency>{best}</Best-caseLatency>"
        f"<Average-caseLatency>undef</Average-caseLatency><Worst-caseLatency>{worst}</Worst-caseLatency>"
        f"<PipelineInitiationInterval>{module.latency}</PipelineInitiationInterval>"
        "<PipelineType>no</PipelineType></SummaryOfOverallLatency><SummaryOfLoopLatency>\n"
        f"{''.join(_xml_loop(loop) for loop in module.loops)}</SummaryOfLoopLatency></PerformanceEstimates>"
        "<AreaEstimates><Resources><LUT>1</LUT></Resources></AreaEstimates></Module>\n"
    )


def _loop(loop: Loop, trips: int) -> Loops:
    latency = loop.cycles(trips) - 1
    return Loops("_".join([*loop.nest, loop.label]), str(loop.ii), str(loop.depth), str(trips), str(latency))


LOAD, COMPUTE = 4200, 17000
"""Cycles of a call of each function that is to run beside the other."""


def as_assumed(architecture: Architecture) -> Reports:
    """Reports of a synthesis that found every loop as the estimate assumes it."""
    modules: dict[str, Module] = {}
    for total in loop_totals(Scheduler(architecture, 1).run()):
        loop = total.loop
        # A pipelined loop becomes a module of its own, named after the function and the loop.
        name = f"{loop.function}_Pipeline_{'_'.join([*loop.nest, loop.label])}"
        reported = _loop(loop, total.longest)
        modules[name] = Module(name, str(total.longest + loop.depth + 2), [reported])
    overlap = GROUP_OVERLAP
    modules[overlap.load] = Module(overlap.load, f"3 ~ {LOAD}", [])
    modules[overlap.compute] = Module(overlap.compute, f"3 ~ {COMPUTE}", [])
    # Two calls of each in an iteration; a few states come on top.
    iteration = f"12 ~ {overlap.pairs * max(LOAD, COMPUTE) + 8}"
    carrier = Loops(overlap.loop, "", iteration, "1 ~ 2", "12 ~ 70000", (overlap.load, overlap.compute))
    modules[overlap.function] = Module(overlap.function, "12 ~ 70000", [carrier])
    modules[TOP] = Module(TOP, "1 ~ 900000", [])
    place = "/project/src/memory.cpp:138:3"
    return Reports(
        modules,
        bursts=[
            ("m_axi_gmem_image", "LOAD_PIXELS", "read", "variable", "128", place),
            ("m_axi_gmem_output", "STORE_WORD", "write", "variable", "128", place),
        ],
        missed=[
            (
                "m_axi_gmem_image",
                "image",
                "LOAD_PIXELS",
                "Could not widen since type i128 size is greater than or equal to the threshold of 0",
                "214-353",
                place,
            )
        ],
        storage=[
            (f"+ {TOP}", "600", "0", "", "", "", "", ""),
            ("  residual_U", "43", "-", "yes", "residual", "ram_s2p", "bram", "2"),
        ],
    )
