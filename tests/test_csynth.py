"""Reading the reports of a synthesis, and comparing them with the estimate: on reports in the tool's format.

Vitis itself is not installed here: `csynth_reports` writes what it would, from public examples of its format.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blank import on_hardware
from codegen.architecture import Architecture
from codegen.build import Build
from codegen.csynth_check import Finding, SynthesisCheck, check_synthesis, label_of
from codegen.csynth_report import find_reports, read_synthesis
from codegen.estimate import Scheduler, loop_totals
from codegen.loops import GROUP_OVERLAP, loops_of
from common.errors import EdgeMoeError, InputError
from csynth_reports import COMPUTE, LOAD, TOP, Loops, Module, Reports, as_assumed, table
from edgemoe.cli import main
from pysim.design import Design

BEATS = 0.9


@pytest.fixture(scope="module")
def architecture(designs: dict[str, Design]) -> Architecture:
    return on_hardware(designs["w8a8"])


@pytest.fixture
def reports(architecture: Architecture) -> Reports:
    return as_assumed(architecture)


Checked = Callable[..., SynthesisCheck]


@pytest.fixture
def checked(architecture: Architecture, tmp_path: Path) -> Checked:
    def check(reports: Reports, *, xml: bool = True, text: bool = True) -> SynthesisCheck:
        folder = reports.write(tmp_path / "syn/report", xml=xml, text=text)
        return check_synthesis(architecture, read_synthesis(folder, TOP), BEATS, reports.part)

    return check


def cycles(architecture: Architecture) -> int:
    return sum(stage.cycles for stage in Scheduler(architecture, 1, BEATS).run())


def only(result: SynthesisCheck) -> Finding:
    assert len(result.failures) == 1, result.findings
    return result.failures[0]


class TestCheck:
    @pytest.mark.parametrize(("xml", "text"), [(True, True), (False, True)])
    def test_as_assumed(
        self, reports: Reports, checked: Checked, architecture: Architecture, xml: bool, text: bool
    ) -> None:
        result = checked(reports, xml=xml, text=text)
        # Without XML nobody knows the clock.
        assert [finding.where for finding in result.failures] == ([] if xml else ["clock"])
        assert result.cycles == result.assumed_cycles == cycles(architecture)
        assert [row.total.loop.label for row in result.rows] == [
            total.loop.label for total in loop_totals(Scheduler(architecture, 1).run())
        ]
        for row in result.rows:
            assert (row.ii, row.depth, row.cycles) == (row.total.loop.ii, row.total.loop.depth, 0)
            assert len(row.modules) == 1
        if xml:
            assert result.resources["DSP"][1:] == (2051, 2520)
            # All that is told: that loads run beside computation, and a memory of another size than this network has.
            told = [finding.where for finding in result.findings]
            assert told == [GROUP_OVERLAP.loop, "residual"]
            assert "side by side" in result.findings[0].text

    @pytest.mark.parametrize("label", ["ROUNDS", "CYCLES", "LOAD_GROUP", "CHOOSE_TOKENS", "STORE_WORD"])
    def test_ii_above_the_assumed(
        self, label: str, reports: Reports, checked: Checked, architecture: Architecture
    ) -> None:
        reports.loop(label).ii = "3"
        result = checked(reports)
        failure = only(result)
        assert failure.where == label
        assert "II 3, assumed 1" in failure.text
        row = next(row for row in result.rows if row.total.loop.label == label)
        assert row.cycles > 0
        assert result.cycles == result.assumed_cycles + row.cycles
        if label == "CYCLES":
            assert row.cycles == 2 * row.total.iterations
            assert f"{row.cycles:+,} cycles an image" in failure.text

    def test_depth_is_told(self, reports: Reports, checked: Checked) -> None:
        reports.loop("CYCLES").depth = "61"
        result = checked(reports)
        assert not result.failures
        row = next(row for row in result.rows if row.total.loop.label == "CYCLES")
        assert row.depth == 61
        assert row.cycles == (61 - row.total.loop.depth) * row.total.entries
        told = next(finding for finding in result.findings if finding.where == "CYCLES")
        assert told.text.startswith(f"depth 61, assumed {row.total.loop.depth}, ")

    def test_not_pipelined(self, reports: Reports, checked: Checked) -> None:
        loop = reports.loop("GATHER_WORDS")
        loop.ii, loop.depth = "", "4"
        result = checked(reports)
        assert only(result).where == "GATHER_WORDS"
        row = next(row for row in result.rows if row.total.loop.label == "GATHER_WORDS")
        # Four cycles an iteration instead of one, and no pipeline to fill.
        assumed = row.total.iterations + row.total.entries * row.total.loop.depth
        assert row.cycles == 4 * row.total.iterations - assumed

    def test_not_flattened(self, reports: Reports, checked: Checked) -> None:
        inner = reports.loop("CYCLES")
        name = next(name for name, module in reports.modules.items() if inner in module.loops)
        steps = 30
        inner.name, inner.trips = "CYCLES", "4"
        reports.modules[name].loops = [Loops("KEYS", "", "50", str(steps), "1500", inner=[inner])]
        result = checked(reports)
        failure = only(result)
        assert failure.where == "CYCLES"
        assert "not flattened into KEYS" in failure.text
        row = next(row for row in result.rows if row.total.loop.label == "CYCLES")
        assert row.cycles == (steps - 1) * row.total.loop.depth * row.total.entries

    def test_the_slowest_copy_counts(self, reports: Reports, checked: Checked) -> None:
        loop = reports.loop("LOAD_NORM")
        copy = Loops("LOAD_NORM2", "2", loop.depth, loop.trips, loop.latency)
        reports.modules["other"] = Module("load_norm_Pipeline_LOAD_NORM2", "99", [copy])
        result = checked(reports)
        failure = only(result)
        assert (failure.where, failure.text[:5]) == ("LOAD_NORM", "II 2,")
        row = next(row for row in result.rows if row.total.loop.label == "LOAD_NORM")
        assert row.modules == ("load_norm_Pipeline_LOAD_NORM", "load_norm_Pipeline_LOAD_NORM2")

    def test_missing_loop(self, reports: Reports, checked: Checked) -> None:
        reports.without("ROUNDS")
        result = checked(reports)
        failure = only(result)
        assert failure.where == "ROUNDS"
        assert "no such loop in the report, where linear_group is expected to have it" in failure.text

    def test_other_trip_count_is_told(self, reports: Reports, checked: Checked) -> None:
        reports.loop("LOAD_GATE").trips = "7"
        result = checked(reports)
        assert not result.failures
        told = next(finding for finding in result.findings if finding.where == "LOAD_GATE")
        assert told.text.startswith("7 iterations, the schedule has ")

    @pytest.mark.parametrize("figure", ["?", "undef", "-"])
    def test_unknown_numbers(self, figure: str, reports: Reports, checked: Checked) -> None:
        loop = reports.loop("ROUNDS")
        loop.trips = loop.latency = figure
        assert not checked(reports).failures

    def test_serial_groups(self, reports: Reports, checked: Checked, architecture: Architecture) -> None:
        pairs = GROUP_OVERLAP.pairs
        reports.loop(GROUP_OVERLAP.loop).depth = f"12 ~ {pairs * (LOAD + COMPUTE) + 8}"
        result = checked(reports)
        failure = only(result)
        assert failure.where == GROUP_OVERLAP.loop
        assert "load_group and linear_group do not run side by side" in failure.text
        assert f"load_group {LOAD:,} and linear_group {COMPUTE:,}" in failure.text
        serial = sum(stage.cycles for stage in Scheduler(architecture, 1, BEATS, overlap=False).run())
        assert result.cycles == serial > result.assumed_cycles

    @pytest.mark.parametrize(("share", "fails"), [(0.0, False), (0.4, False), (0.6, True), (1.0, True)])
    def test_nearer_to_one_after_the_other(
        self, share: float, fails: bool, reports: Reports, checked: Checked
    ) -> None:
        pairs = GROUP_OVERLAP.pairs
        beside, serial = pairs * max(LOAD, COMPUTE), pairs * (LOAD + COMPUTE)
        reports.loop(GROUP_OVERLAP.loop).depth = str(round(beside + share * (serial - beside)))
        assert bool(checked(reports).failures) == fails

    @pytest.mark.parametrize("of", ["loop", "load", "compute"])
    def test_overlap_that_is_not_shown(self, of: str, reports: Reports, checked: Checked) -> None:
        if of == "loop":
            reports.loop(GROUP_OVERLAP.loop).depth = "?"
        else:
            reports.modules[getattr(GROUP_OVERLAP, of)].latency = "?"
        assert "is not shown" in only(checked(reports)).text

    def test_no_loop_round_the_groups(self, reports: Reports, checked: Checked) -> None:
        reports.without(GROUP_OVERLAP.loop)
        assert only(checked(reports)).text.startswith(f"no loop {GROUP_OVERLAP.loop} in the report")

    def test_copies_of_a_function(self, reports: Reports, checked: Checked) -> None:
        module = reports.modules.pop(GROUP_OVERLAP.compute)
        for name in (f"{GROUP_OVERLAP.compute}_1", f"{GROUP_OVERLAP.compute}_true_s"):
            reports.modules[name] = Module(name, module.latency, [])
        assert not checked(reports).failures

    def test_clock(self, reports: Reports, checked: Checked) -> None:
        reports.estimated = "3.4"
        failure = only(checked(reports))
        assert (failure.where, failure.text) == ("clock", "estimated 3.4 ns, target 3.33 ns")

    def test_modules_that_use_the_margin(self, reports: Reports, checked: Checked) -> None:
        reports.estimated = "3.2"
        reports.modules["linear"].estimated = "3.2"
        result = checked(reports)
        assert not result.failures
        told = next(finding for finding in result.findings if finding.where == "linear")
        assert "estimated 3.2 ns, of 2.91 ns" in told.text

    def test_part(self, reports: Reports, architecture: Architecture, tmp_path: Path) -> None:
        synthesis = read_synthesis(reports.write(tmp_path), TOP)
        told = check_synthesis(architecture, synthesis, BEATS, "xczu7ev").findings
        assert "synthesised for xczu9eg-ffvb1156-2-e, the build is for xczu7ev" in [f.text for f in told]

    @pytest.mark.parametrize("port", ["gmem_weights_0", "gmem_image"])
    def test_missed_burst(self, port: str, reports: Reports, checked: Checked) -> None:
        place = "/project/src/memory.cpp:30:5"
        reports.missed.append(
            (f"m_axi_{port}", "weights_0", "LOAD_GROUP", "Stride is incompatible", "214-230", place)
        )
        failure = only(checked(reports))
        assert failure.where == port
        assert failure.text == f"no burst in LOAD_GROUP: Stride is incompatible (214-230) at {place}"

    def test_no_burst_on_a_port(self, reports: Reports, checked: Checked) -> None:
        reports.bursts.pop()
        failure = only(checked(reports))
        assert (failure.where, failure.text) == ("gmem_output", "no burst was inferred")

    def test_short_bursts_are_told(self, reports: Reports, checked: Checked) -> None:
        reports.bursts[1] = ("m_axi_gmem_output", "STORE_WORD", "write", "4", "128", "x.cpp:1:1")
        result = checked(reports)
        assert not result.failures
        told = next(finding for finding in result.findings if finding.where == "gmem_output")
        assert told.text.startswith("bursts of 4 beats only in STORE_WORD")

    def test_no_text(self, reports: Reports, checked: Checked) -> None:
        failure = only(checked(reports, text=False))
        assert failure.where == "bursts"

    def test_memory_by_memory(self, reports: Reports, checked: Checked) -> None:
        rows: list[tuple[str, ...]] = [
            (f"  ping_weights_{bank}_U", "15", "-", "yes", f"ping_weights_{bank}", "ram_s2p", "bram", "2")
            for bank in range(8)
        ]
        reports.storage = rows
        told = [finding for finding in checked(reports).findings if finding.where.startswith("ping")]
        assert len(told) == 1
        assert told[0].text.startswith("120 BRAM18, estimated ")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ROUNDS", "ROUNDS"),
        ("TOKENS_WORDS", "WORDS"),
        ("GATE_TOKENS_GATE_WORDS", "GATE_WORDS"),
        ("GATHER_TOKENS_GATHER_WORDS1", "GATHER_WORDS"),
        ("LOAD_NORM_2", "LOAD_NORM"),
        ("GATHER_TOKENS_GATHER_WORDS", "GATHER_WORDS"),
        ("GATHER_TOKENS", "GATHER_TOKENS"),
        ("VITIS_LOOP_12_1", None),
        ("SOUNDS", None),
    ],
)
def test_label_of_a_reported_loop(name: str, label: str | None, architecture: Architecture) -> None:
    known = loops_of(architecture)
    assert label_of(name, [*known, *(outer for loop in known.values() for outer in loop.nest)]) == label


# As older tools write it: a file for each module, loops inside loops as elements inside elements, no names.
OWN = """<profile>
<ReportVersion><Version>2020.1</Version></ReportVersion>
<UserAssignments><Part>xczu9eg</Part><TopModelName>{name}</TopModelName>
<TargetClockPeriod>3.33</TargetClockPeriod><ClockUncertainty>0.42</ClockUncertainty></UserAssignments>
<PerformanceEstimates>
<SummaryOfTimingAnalysis><EstimatedClockPeriod>2.5</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency><Best-caseLatency>40</Best-caseLatency><Worst-caseLatency>90</Worst-caseLatency>
</SummaryOfOverallLatency>
<SummaryOfLoopLatency>
<OUTER><TripCount>4</TripCount><Latency><range><min>40</min><max>88</max></range></Latency>
<IterationLatency><range><min>10</min><max>22</max></range></IterationLatency>
<InstanceList><Instance>grp_load_group_fu_12</Instance></InstanceList>
<INNER><TripCount><range><min>1</min><max>16</max></range></TripCount><Latency>19</Latency>
<PipelineII>1</PipelineII><PipelineDepth>4</PipelineDepth></INNER>
</OUTER>
</SummaryOfLoopLatency>
</PerformanceEstimates>
</profile>
"""


class TestReports:
    def test_a_file_for_each_module(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / f"{name}_csynth.xml").write_text(OWN.format(name=name))
        found = read_synthesis(tmp_path, TOP)
        assert sorted(found.modules) == ["a", "b"]
        assert (found.summary, found.bursts, found.storage) == (None, None, None)
        module = found.modules["a"]
        assert (module.latency, module.estimated_ns) == ((40, 90), 2.5)
        (outer,) = module.loops
        assert (outer.name, outer.pipelined, outer.ii, outer.depth) == ("OUTER", False, None, (10, 22))
        assert (outer.trips, outer.latency, outer.calls) == ((4, 4), (40, 88), ("load_group",))
        (inner,) = outer.inner
        assert (inner.name, inner.pipelined, inner.ii, inner.depth) == ("INNER", True, 1, (4, 4))
        assert inner.trips == (1, 16)
        assert [(loop.name, [o.name for o in around]) for _, loop, around in found.loops()][:2] == [
            ("OUTER", []),
            ("INNER", ["OUTER"]),
        ]

    def test_both_forms_say_the_same(self, reports: Reports, tmp_path: Path) -> None:
        xml = read_synthesis(reports.write(tmp_path / "xml", text=False), TOP)
        text = read_synthesis(reports.write(tmp_path / "text", xml=False), TOP)
        for name, module in xml.modules.items():
            assert module.loops == text.modules[name].loops
            assert module.latency == text.modules[name].latency
        assert [burst.port for burst in text.bursts or ()] == ["gmem_image", "gmem_output"]
        assert text.missed == ()
        assert [row.variable for row in text.storage or ()] == ["residual"]

    def test_newer_burst_tables(self, reports: Reports, tmp_path: Path) -> None:
        folder = reports.write(tmp_path)
        text = (folder / "csynth.rpt").read_text()
        headings: tuple[str, ...] = ("HW Interface", "Variable", "Access Location", "Direction")
        headings += ("Burst Status", "Length", "Loop", "Loop Location", "Resolution", "Problem")
        at, loop = "a.cpp:24:14", ("A", "a.cpp:23:20")
        rows = [
            ("m_axi_gmem_a", "a", at, "read", "Fail", "", *loop, "214-230", "Stride is incompatible"),
            ("m_axi_gmem_a", "a", at, "read", "Widen Fail", "", *loop, "214-353", "Could not widen"),
            ("m_axi_gmem_b,gmem_c", "b", at, "read", "Inferred", "16", *loop, "", ""),
        ]
        newer = "\n".join(
            ["* All M_AXI Variable Accesses", *table([headings], rows), "", "== Bind Op Report", ""]
        )
        (folder / "csynth.rpt").write_text(text.replace("== Bind Storage", newer + "== Bind Storage"))
        found = read_synthesis(folder, TOP)
        assert [(miss.port, miss.message, miss.location) for miss in found.missed] == [
            ("gmem_a", "214-230", "a.cpp:23:20")
        ]
        assert len(found.bursts or ()) == 2

    @pytest.mark.parametrize(
        "place",
        [".", "syn/report", "vitis/solution/syn/report", "vitis_config/hls/syn/report", "hls/syn/report"],
    )
    def test_where_reports_are(self, place: str, reports: Reports, tmp_path: Path) -> None:
        folder = reports.write(tmp_path / place)
        assert find_reports(tmp_path).resolve() == folder.resolve()

    def test_no_reports(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no report of a synthesis") as caught:
            find_reports(tmp_path / "nowhere")
        assert "syn/report" in caught.value.hint

    def test_reports_of_another_kernel(self, reports: Reports, tmp_path: Path) -> None:
        reports.top = "somebody_elses"
        with pytest.raises(InputError, match="reports of somebody_elses, expected edgemoe_top"):
            read_synthesis(reports.write(tmp_path), TOP)

    def test_nothing_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "csynth.rpt").write_text("")
        with pytest.raises(InputError, match="name no module"):
            read_synthesis(tmp_path, TOP)

    @pytest.mark.parametrize("form", ["xml", "text"])
    def test_endless_nesting(self, form: str, tmp_path: Path) -> None:
        if form == "xml":
            deep = "<A>" * 5000 + "</A>" * 5000
            text = OWN.format(name="a").replace("<OUTER>", f"<OUTER>{deep}", 1)
            (tmp_path / "a_csynth.xml").write_text(text)
        else:
            rows = "\n".join(f"|{' ' * level}+ m{level}|no|" for level in range(5000))
            text = f"+-\n|Modules|Pipelined|\n|& Loops||\n+-\n{rows}\n+-\n"
            (tmp_path / "csynth.rpt").write_text(f"== Synthesis Summary Report of 'a'\n{text}")
        with pytest.raises(InputError, match="levels"):
            read_synthesis(tmp_path, TOP)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_mutations_raise_our_errors_only(
        self, reports: Reports, architecture: Architecture, tmp_path: Path, data: st.DataObject
    ) -> None:
        # What an example left behind that ended in the middle of its draws.
        shutil.rmtree(tmp_path / "mutated", ignore_errors=True)
        folder = reports.write(tmp_path / "mutated", xml=data.draw(st.booleans()))
        path = data.draw(st.sampled_from(sorted(folder.iterdir())))
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(raw) - 1))
            until = data.draw(st.integers(at, min(len(raw), at + 30)))
            raw[at:until] = data.draw(st.binary(max_size=8))
        path.write_bytes(raw)
        try:
            check_synthesis(architecture, read_synthesis(folder, TOP), BEATS, "part")
        except EdgeMoeError as error:
            assert str(folder) in error.message


class TestCommand:
    @pytest.fixture
    def written(self, built: Build, tmp_path: Path) -> Reports:
        return as_assumed(built.architecture)

    def run(self, built: Build, written: Reports, tmp_path: Path, *options: str) -> int:
        written.write(tmp_path / "given/syn/report")
        return main(["verify", str(built.folder), "--reports", str(tmp_path / "given"), *options])

    def test_agrees(
        self, built: Build, written: Reports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(built, written, tmp_path) == 0
        shown = capsys.readouterr().out
        assert "Loops as synthesised" in shown and "ROUNDS" in shown
        assert "FAILED" not in shown

    def test_differs(
        self, built: Build, written: Reports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        written.loop("ROUNDS").ii = "2"
        written.loop("CYCLES").depth = "50"
        assert self.run(built, written, tmp_path) == 1
        captured = capsys.readouterr()
        lines = " ".join(captured.out.split())
        assert "FAILED ROUNDS: II 2, assumed 1" in lines
        assert "differs CYCLES: depth 50, assumed 40" in lines
        assert "1 of its assumptions fail" in captured.err

    def test_json(
        self, built: Build, written: Reports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        written.loop("ROUNDS").ii = "2"
        assert self.run(built, written, tmp_path, "--json") == 1
        found = json.loads(capsys.readouterr().out)["synthesis"]
        rows = {row["label"]: row for row in found["loops"]}
        assert (rows["ROUNDS"]["ii"], rows["ROUNDS"]["assumed_ii"]) == (2, 1)
        assert found["cycles"] == found["assumed_cycles"] + rows["ROUNDS"]["cycles"]
        assert found["failed"] == 1
        assert [row["where"] for row in found["findings"] if row["failed"]] == ["ROUNDS"]

    def test_no_reports(self, built: Build, tmp_path: Path) -> None:
        assert main(["verify", str(built.folder), "--reports", str(tmp_path / "none")]) == 2

    @pytest.mark.parametrize("slow", [False, True])
    def test_run_of_the_tool(
        self,
        slow: bool,
        built: Build,
        written: Reports,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The tool's own reports are compared, and what is left of a run that failed is pointed to."""
        folder = tmp_path / "build"
        shutil.copytree(built.folder, folder)
        if slow:
            written.estimated = "4.0"
        written.write(tmp_path / "made")
        tool = tmp_path / "bin/vitis_hls"
        tool.parent.mkdir()
        tool.write_text(
            f"#!{sys.executable}\nimport pathlib, shutil\n"
            f"shutil.copytree({str(tmp_path / 'made')!r}, 'vitis/solution/syn/report')\n"
            "sim = pathlib.Path('vitis/solution/sim/report')\nsim.mkdir(parents=True)\n"
            "(sim / 'edgemoe_top_cosim.rpt').write_text('|   Verilog|  Pass|  1|  2|  3|\\n')\n"
            "for stage in ('csim', 'csynth', 'cosim'):\n    print(f'edgemoe: {stage} done')\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tool.parent))
        assert main(["verify", str(folder), "--vitis"]) == (1 if slow else 0)
        captured = capsys.readouterr()
        if slow:
            assert f"edgemoe verify {folder} --reports" in captured.err.replace("\n", "")
        else:
            assert "Loops as synthesised" in captured.out
