"""The Vitis scripts and the reading of Vitis' reports. Vitis itself is not installed here: stand-ins take its place.

The scripts are rendered and run by a real Tcl interpreter whose tool commands are stubs; `run_vitis` meets a fake
`vitis_hls`; the reports are synthetic, in the structure that Vitis writes.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from codegen import reports, vitis
from codegen.csynth_report import Resource, find_csynth, parse_csynth
from codegen.vitis import STAGES, CosimReport, find_tool, parse_cosim, run_vitis
from common.errors import CheckError, EdgeMoeError, InputError
from hls import TEMPLATES

TOP = "edgemoe_top"
CONTEXT: dict[str, Any] = {
    "top": TOP,
    "part": "xczu9eg-ffvb1156-2-e",
    "clock_ns": 3.333,
    "clock_mhz": 300,
    "clock_uncertainty": "12.5%",
    "sources": ["src/linear.cpp", "src/top.cpp"],
    "testbench": "tb/testbench.cpp",
    "data_folder": "tb/tb_data",
    "version": "0.1",
    "vendor": "edgemoe",
    "hardware_id": "0123456789abcdef",
    "blackboxes": [],
    "flow_target": "vivado",
    "kernel_file": "vitis/edgemoe_top.xo",
}
OTHER = {"sources": ["src/other.cpp"], "blackboxes": [SimpleNamespace(unit="exp2")]}
"""Values that differ from those of the context, for names that are not texts."""

TCLSH = shutil.which("tclsh")

CSYNTH = """<?xml version="1.0" encoding="UTF-8"?>
<profile>
<ReportVersion><Version>2024.2</Version></ReportVersion>
<UserAssignments>
<unit>ns</unit>
<ProductFamily>zynquplus</ProductFamily>
<Part>xczu9eg-ffvb1156-2-e</Part>
<TopModelName>edgemoe_top</TopModelName>
<TargetClockPeriod>3.33</TargetClockPeriod>
<ClockUncertainty>0.42</ClockUncertainty>
<FlowTarget>vivado</FlowTarget>
</UserAssignments>
<PerformanceEstimates>
<PipelineType>no</PipelineType>
<SummaryOfTimingAnalysis>
<unit>ns</unit>
<EstimatedClockPeriod>2.871</EstimatedClockPeriod>
</SummaryOfTimingAnalysis>
<SummaryOfOverallLatency>
<unit>clock cycles</unit>
<Best-caseLatency>1021</Best-caseLatency>
<Average-caseLatency>undef</Average-caseLatency>
<Worst-caseLatency>700123</Worst-caseLatency>
<Interval-min>1022</Interval-min>
<Interval-max>700124</Interval-max>
</SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates>
<Resources>
<BRAM_18K>640</BRAM_18K>
<DSP>1100</DSP>
<FF>151000</FF>
<LUT>140250</LUT>
<URAM>0</URAM>
</Resources>
<AvailableResources>
<BRAM_18K>1824</BRAM_18K>
<DSP>2520</DSP>
<FF>548160</FF>
<LUT>274080</LUT>
<URAM>0</URAM>
</AvailableResources>
</AreaEstimates>
</profile>
"""

COSIM = """Report time       : Mon Jan 05 10:00:00 UTC 2026.
Solution          : solution.
Simulation tool   : xsim.

+----------+----------+-----------------------------------------------+
|          |          |             Latency(Clock Cycles)             |
+   RTL    +  Status  +-----------------------------------------------+
|          |          |      min      |      avg      |      max      |
+----------+----------+-----------------------------------------------+
|      VHDL|        NA|             NA|             NA|             NA|
|   Verilog|      Pass|         700001|         700010|         700020|
+----------+----------+-----------------------------------------------+
"""


def rendered(name: str, **changes: Any) -> str:
    env = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return env.get_template(f"scripts/{name}.j2").render(CONTEXT | changes)


def write_project(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    for name in ("run_hls.tcl", "hls_config.cfg"):
        (folder / name).write_text(rendered(name, **changes) + "\n")
    return folder


class TestTemplates:
    @pytest.mark.parametrize("name", ["run_hls.tcl", "hls_config.cfg"])
    @pytest.mark.parametrize("flow_target", ["vivado", "vitis"])
    @pytest.mark.parametrize("missing", CONTEXT)
    def test_the_contract_names_what_is_used(self, name: str, flow_target: str, missing: str) -> None:
        env = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined)
        template = env.get_template(f"scripts/{name}.j2")
        context = CONTEXT | {"flow_target": flow_target}
        without = {key: value for key, value in context.items() if key != missing}
        if template.render(context | {missing: OTHER.get(missing, "other")}) != template.render(context):
            with pytest.raises(UndefinedError, match=missing):
                template.render(without)
        else:
            template.render(without)

    def test_config(self) -> None:
        text = rendered("hls_config.cfg")
        pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")]

        def values(key: str) -> list[str]:
            return [value for name, value in pairs if name == key]

        assert text.index("part=") < text.index("[hls]") < text.index("clock=")
        assert values("part") == ["xczu9eg-ffvb1156-2-e"]
        assert values("clock") == ["3.333ns"]
        assert values("clock_uncertainty") == ["12.5%"]
        assert values("flow_target") == ["vivado"]
        assert values("syn.top") == [TOP] == values("package.ip.name")
        assert values("syn.file") == CONTEXT["sources"]
        assert values("syn.file_cflags") == [f"{source},-std=c++14 -Isrc" for source in CONTEXT["sources"]]
        assert values("tb.file") == ["tb/testbench.cpp", "tb/tb_data"]
        assert values("csim.argv") == values("cosim.argv") == ["tb_data"]
        assert values("package.output.format") == ["ip_catalog"]
        vlnv = [values(f"package.ip.{part}")[0] for part in ("vendor", "library", "name", "version")]
        assert vlnv == ["edgemoe", "hls", TOP, "0.1"]
        assert not [line for line in text.splitlines() if line and line[0] not in "#[" and "=" not in line]
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read_string("[top]\n" + text)
        assert parser.sections() == ["top", "hls"]

    def test_script_is_complete_tcl(self, tmp_path: Path) -> None:
        text = rendered("run_hls.tcl")
        for command in (
            "csim_design",
            "csynth_design",
            "cosim_design",
            "export_design",
            "open_project -reset",
        ):
            assert command in text
        if TCLSH is None:
            code = re.sub(r"(?m)^\s*#.*$", "", text)
            assert code.count("{") == code.count("}")
            assert code.count("[") == code.count("]")
            return
        path = tmp_path / "run_hls.tcl"
        path.write_text(text)
        check = f"puts [info complete [read [open {{{path}}}]]]"
        run = subprocess.run([TCLSH], input=check, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "1"


STUBS = """
proc record {args} { puts "call: $args" }
foreach name {set_top add_files set_part create_clock set_clock_uncertainty \\
  config_compile config_unroll config_interface} {
  proc $name {args} [format {record %s {*}$args} $name]
}
proc open_project {args} { record open_project {*}$args }
proc open_solution {args} { record open_solution {*}$args }
proc wanted {stage} {
  record $stage
  if {[info exists ::env(FAKE_FAIL)] && $::env(FAKE_FAIL) eq $stage} { error "$stage went wrong" }
}
proc put {path text} {
  file mkdir [file dirname $path]
  set channel [open $path w]
  puts -nonewline $channel $text
  close $channel
}
proc csim_design {args} { wanted csim }
proc csynth_design {args} {
  wanted csynth
  if {[info exists ::env(FAKE_CSYNTH)]} { put vitis/solution/syn/report/csynth.xml $::env(FAKE_CSYNTH) }
}
proc cosim_design {args} {
  wanted cosim
  put vitis/solution/sim/report/edgemoe_top_cosim.rpt $::env(FAKE_COSIM)
}
proc export_design {args} {
  wanted export
  record export_design {*}$args
  if {[info exists ::env(FAKE_NO_IP)]} { return }
  if {[lindex $args 1] eq "xo"} { put [lindex $args 3] x } else { put vitis/solution/impl/ip/component.xml x }
}
source $::env(FAKE_SCRIPT)
"""


class TestScript:
    """The rendered Tcl, run by tclsh with stubs for the tool's commands (nothing to run where there is no tclsh)."""

    def run(
        self, folder: Path, *arguments: str, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        project = folder if folder.exists() else write_project(folder)
        stubs = project / "stubs.tcl"
        stubs.write_text(STUBS)
        defaults: dict[str, str | None] = {
            "FAKE_SCRIPT": str(project / "run_hls.tcl"),
            "FAKE_CSYNTH": CSYNTH,
            "FAKE_COSIM": COSIM,
        }
        given_environment = os.environ | defaults | environment
        used = {name: value for name, value in given_environment.items() if value is not None}
        command = [TCLSH or sys.executable, str(stubs), *arguments]
        return subprocess.run(command, env=used, capture_output=True, text=True, timeout=60, check=False)

    @staticmethod
    def stages(run: subprocess.CompletedProcess[str]) -> list[str]:
        return re.findall(r"^call: (csim|csynth|cosim|export)$", run.stdout, re.MULTILINE)

    @pytest.fixture(autouse=True)
    def _needs_tcl(self) -> None:
        if TCLSH is None:
            pytest.xfail("no tclsh: only the balance of brackets was checked")

    def test_all_stages(self, tmp_path: Path) -> None:
        run = self.run(tmp_path / "hls")
        assert run.returncode == 0, run.stdout + run.stderr
        assert self.stages(run) == list(STAGES)
        for stage in STAGES:
            assert f"edgemoe: {stage} done\n" in run.stdout
        assert "open_project -reset vitis" in run.stdout
        flags = f"-std=c++14 -I{tmp_path.resolve()}/hls/src"
        assert f"call: add_files src/linear.cpp -cflags {{{flags}}}" in run.stdout
        assert "call: create_clock -period 3.333 -name default" in run.stdout
        assert "call: set_clock_uncertainty 12.5%" in run.stdout
        assert f"{tmp_path.resolve()}/hls/vitis/solution/syn/report" in run.stdout

    @pytest.mark.parametrize(
        ("environment", "arguments", "expected"),
        [
            ("csynth", (), ["csynth"]),
            ("csynth,csim", (), ["csim", "csynth"]),
            ("csim", ("-f", "run_hls.tcl", "stages=csynth,export"), ["csynth", "export"]),
            ("", (), list(STAGES)),
            (None, ("something",), list(STAGES)),
        ],
    )
    def test_chosen_stages(
        self, tmp_path: Path, environment: str | None, arguments: tuple[str, ...], expected: list[str]
    ) -> None:
        run = self.run(tmp_path / "hls", *arguments, EDGEMOE_STAGES=environment)
        assert run.returncode == 0, run.stdout + run.stderr
        assert self.stages(run) == expected

    @pytest.mark.parametrize("bad", ["synth", "csim;exit", "[exit 0]", "$env(HOME)", "csim,{", "*"])
    def test_bad_stage(self, tmp_path: Path, bad: str) -> None:
        run = self.run(tmp_path / "hls", EDGEMOE_STAGES=bad)
        assert run.returncode == 1
        assert "edgemoe: FAILED: no stage" in run.stdout
        assert self.stages(run) == []

    @pytest.mark.parametrize("stage", STAGES)
    def test_failing_stage(self, tmp_path: Path, stage: str) -> None:
        run = self.run(tmp_path / "hls", FAKE_FAIL=stage)
        assert run.returncode == 1
        assert f"edgemoe: FAILED: {stage}: {stage} went wrong" in run.stdout
        assert self.stages(run) == list(STAGES[: STAGES.index(stage) + 1])
        assert f"{stage} done" not in run.stdout

    def test_clock_that_misses(self, tmp_path: Path) -> None:
        run = self.run(tmp_path / "hls", FAKE_CSYNTH=CSYNTH.replace("2.871", "3.331"))
        assert run.returncode == 1
        assert "3.331 ns misses the target of 3.33 ns" in run.stdout
        assert self.stages(run) == ["csim", "csynth"]

    def test_clock_that_uses_the_margin(self, tmp_path: Path) -> None:
        run = self.run(tmp_path / "hls", FAKE_CSYNTH=CSYNTH.replace("2.871", "3.1"))
        assert run.returncode == 0
        assert "WARNING: of the margin of 0.42 ns" in run.stdout

    @pytest.mark.parametrize("report", [None, "", "<profile/>", CSYNTH.replace("2.871", "fast")])
    def test_no_clock(self, tmp_path: Path, report: str | None) -> None:
        run = self.run(tmp_path / "hls", FAKE_CSYNTH=report)
        assert run.returncode == 1
        assert "edgemoe: FAILED: " in run.stdout

    def test_failed_cosim_and_missing_ip(self, tmp_path: Path) -> None:
        run = self.run(tmp_path / "a", FAKE_COSIM=COSIM.replace("Pass", "Fail"))
        assert run.returncode == 1
        assert "FAILED: cosim" in run.stdout
        run = self.run(tmp_path / "b", FAKE_NO_IP="1")
        assert run.returncode == 1
        assert "FAILED: export" in run.stdout

    def test_kernel_of_a_card(self, tmp_path: Path) -> None:
        folder = write_project(tmp_path / "hls", flow_target="vitis")
        run = self.run(folder)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "call: open_solution -reset solution -flow_target vitis" in run.stdout
        kernel = folder / "vitis/edgemoe_top.xo"
        assert f"call: export_design -format xo -output {kernel.resolve()}\n" in run.stdout
        assert kernel.is_file()
        kernel.unlink()
        run = self.run(folder, EDGEMOE_STAGES="export", FAKE_NO_IP="1")
        assert run.returncode == 1
        assert "FAILED: " in run.stdout

    def test_later_stage_goes_on_from_the_synthesis(self, tmp_path: Path) -> None:
        run = self.run(tmp_path / "hls", EDGEMOE_STAGES="cosim")
        assert run.returncode == 1
        assert "need the result of csynth" in run.stdout
        assert self.run(tmp_path / "hls", EDGEMOE_STAGES="csynth").returncode == 0
        run = self.run(tmp_path / "hls", EDGEMOE_STAGES="cosim,export")
        assert run.returncode == 0
        assert "-reset" not in run.stdout

    def test_path_with_a_space(self, tmp_path: Path) -> None:
        run = self.run(tmp_path / "my project")
        assert run.returncode == 1
        assert "FAILED: the tool splits" in run.stdout


FAKE = """#!{python}
import os, pathlib, sys, time
print("****** not Vitis HLS ******")
pathlib.Path("arguments").write_text(" ".join(sys.argv[1:]))
reports = pathlib.Path("{solution}/syn/report")
for stage in os.environ["EDGEMOE_STAGES"].split(","):
    print(f"edgemoe: {{stage}} started", flush=True)
    if stage == os.environ.get("FAKE_FAIL"):
        print("ERROR: [SIM 211-100] something broke")
        print(f"edgemoe: FAILED: {{stage}}: something broke")
        sys.exit(1)
    if stage == os.environ.get("FAKE_CRASH"):
        print("a core was dumped")
        sys.exit(139)
    if stage == os.environ.get("FAKE_QUIT"):
        sys.exit(0)
    if stage == os.environ.get("FAKE_HANG"):
        pathlib.Path("pid").write_text(str(os.getpid()))
        time.sleep(60)
    if stage == "csynth" and "FAKE_CSYNTH" in os.environ:
        reports.mkdir(parents=True, exist_ok=True)
        (reports / "csynth.xml").write_text(os.environ["FAKE_CSYNTH"])
    if stage == "cosim":
        folder = pathlib.Path("{solution}/sim/report")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "edgemoe_top_cosim.rpt").write_text(os.environ["FAKE_COSIM"])
    print(f"edgemoe: {{stage}} done", flush=True)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "hls")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, with no tool in it yet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("FAKE_CSYNTH", CSYNTH)
    monkeypatch.setenv("FAKE_COSIM", COSIM)
    return folder


def install(folder: Path, name: str = "vitis_hls") -> Path:
    path = folder / name
    solution = "vitis_config/hls" if name == "v++" else "vitis/solution"
    path.write_text(FAKE.format(python=sys.executable, solution=solution))
    path.chmod(0o755)
    return path


class TestRun:
    def test_absent(self, tools: Path, project: Path) -> None:
        assert find_tool() is None
        with pytest.raises(
            InputError, match="none of vitis-run, vitis_hls, v\\+\\+ is on the PATH"
        ) as caught:
            run_vitis(project)
        assert "settings64.sh" in caught.value.hint
        assert not (project / "vitis.log").exists()

    def test_the_first_of_several(self, tools: Path) -> None:
        for name in reversed(vitis.TOOLS):
            path = install(tools, name)
            tool = find_tool()
            assert tool is not None
            assert (tool.name, tool.path) == (name, path)

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [("vitis_hls", "-f run_hls.tcl"), ("vitis-run", "--mode hls --tcl run_hls.tcl")],
    )
    def test_success(self, tools: Path, project: Path, name: str, arguments: str) -> None:
        install(tools, name)
        lines: list[str] = []
        result = run_vitis(project, progress=lines.append)
        assert (project / "arguments").read_text() == arguments
        assert result.stages == STAGES
        assert result.csynth is not None and result.csynth.meets_timing
        assert result.cosim == CosimReport(True, 700001, 700010, 700020)
        assert [line for line in lines if line.endswith(" done")] == [f"{stage} done" for stage in STAGES]
        assert "not Vitis HLS" in result.log.read_text()

    def test_some_stages_and_another_log(self, tools: Path, project: Path, tmp_path: Path) -> None:
        install(tools)
        result = run_vitis(project, ["export", "csynth"], tmp_path / "other.log")
        assert result.stages == ("csynth", "export")
        assert result.cosim is None
        assert "csim" not in (tmp_path / "other.log").read_text()

    def test_config_flow(self, tools: Path, project: Path) -> None:
        install(tools, "v++")
        result = run_vitis(project, ["csynth"])
        assert result.csynth is not None
        assert (project / "arguments").read_text().startswith("-c --mode hls --config hls_config.cfg")
        with pytest.raises(InputError, match=r"v\+\+ alone cannot run csim"):
            run_vitis(project, ["csim"])

    @pytest.mark.parametrize("stage", STAGES)
    def test_failing_stage(
        self, tools: Path, project: Path, monkeypatch: pytest.MonkeyPatch, stage: str
    ) -> None:
        install(tools)
        monkeypatch.setenv("FAKE_FAIL", stage)
        with pytest.raises(CheckError, match=f"{stage}: something broke") as caught:
            run_vitis(project)
        assert "ERROR: [SIM 211-100] something broke" in caught.value.message
        assert "vitis.log" in caught.value.hint

    def test_crash(self, tools: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(tools)
        monkeypatch.setenv("FAKE_CRASH", "cosim")
        with pytest.raises(CheckError, match="cosim ended with exit code 139") as caught:
            run_vitis(project)
        assert "a core was dumped" in caught.value.message

    def test_exit_code_0_is_not_enough(
        self, tools: Path, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tools)
        monkeypatch.setenv("FAKE_QUIT", "export")
        with pytest.raises(CheckError, match="export never finished"):
            run_vitis(project)

    def test_timing(self, tools: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(tools)
        monkeypatch.setenv("FAKE_CSYNTH", CSYNTH.replace("2.871", "4.0"))
        with pytest.raises(CheckError, match=r"4 ns misses the target of 3\.33 ns"):
            run_vitis(project)

    def test_no_timing(self, tools: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(tools)
        monkeypatch.setenv("FAKE_CSYNTH", CSYNTH.replace("EstimatedClockPeriod", "Other"))
        with pytest.raises(InputError, match=r"no .*EstimatedClockPeriod"):
            run_vitis(project)
        monkeypatch.delenv("FAKE_CSYNTH")
        shutil.rmtree(project / "vitis")
        with pytest.raises(InputError, match=r"neither csynth\.xml nor edgemoe_top_csynth\.xml"):
            run_vitis(project)

    def test_failed_cosim(self, tools: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(tools)
        monkeypatch.setenv("FAKE_COSIM", COSIM.replace("Pass", "Fail"))
        with pytest.raises(CheckError, match="co-simulation failed"):
            run_vitis(project)

    @pytest.mark.parametrize("stages", [[], ["synth"], ["csim", ""]])
    def test_bad_stages(self, project: Path, stages: list[str]) -> None:
        with pytest.raises(InputError, match="stage"):
            run_vitis(project, stages)

    def test_no_project(self, tools: Path, tmp_path: Path) -> None:
        install(tools)
        with pytest.raises(InputError, match=r"no run_hls\.tcl"):
            run_vitis(tmp_path)

    def test_unusable_tool_and_log(self, tools: Path, project: Path, tmp_path: Path) -> None:
        install(tools).write_text("#!/no/such/interpreter\n")
        with pytest.raises(InputError, match="cannot be started"):
            run_vitis(project)
        with pytest.raises(InputError, match="cannot be written"):
            run_vitis(project, log=tmp_path)

    def test_an_interrupt_ends_the_tool(
        self, tools: Path, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tools)
        monkeypatch.setenv("FAKE_HANG", "cosim")

        def progress(line: str) -> None:
            if line == "cosim started":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_vitis(project, progress=progress)
        # The tool may have been ended before it wrote its number, or while it did.
        pid = (project / "pid").read_text() if (project / "pid").exists() else ""
        if pid:
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid), 0)


class TestReports:
    def test_csynth(self, tmp_path: Path) -> None:
        path = tmp_path / "csynth.xml"
        path.write_text(CSYNTH)
        report = parse_csynth(path)
        assert (report.top, report.part) == (TOP, "xczu9eg-ffvb1156-2-e")
        assert (report.target_ns, report.uncertainty_ns, report.estimated_ns) == (3.33, 0.42, 2.871)
        assert (report.latency_best, report.latency_worst, report.interval) == (1021, 700123, 700124)
        assert report.resources == {
            "BRAM_18K": Resource(640, 1824),
            "DSP": Resource(1100, 2520),
            "FF": Resource(151000, 548160),
            "LUT": Resource(140250, 274080),
            "URAM": Resource(0, 0),
        }

    def test_what_a_report_may_leave_open(self, tmp_path: Path) -> None:
        text = CSYNTH.replace("<URAM>0</URAM>\n", "").replace("DSP>", "DSP48E>")
        text = (
            re.sub("<ClockUncertainty>.*\n", "", text).replace(">700123<", ">undef<").replace(">1021<", ">?<")
        )
        path = tmp_path / "csynth.xml"
        path.write_text(text)
        report = parse_csynth(path)
        assert (report.latency_best, report.latency_worst, report.uncertainty_ns) == (None, None, 0)
        assert report.resources["DSP"] == Resource(1100, 2520)
        assert report.resources["URAM"] == Resource(0, 0)

    def test_found_under_both_names(self, tmp_path: Path) -> None:
        folder = tmp_path / "syn" / "report"
        folder.mkdir(parents=True)
        with pytest.raises(InputError, match="neither"):
            find_csynth(tmp_path, TOP)
        (folder / f"{TOP}_csynth.xml").touch()
        assert find_csynth(tmp_path, TOP).name == f"{TOP}_csynth.xml"
        (folder / "csynth.xml").touch()
        assert find_csynth(tmp_path, TOP).name == "csynth.xml"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not XML"),
            ("<profile>", "not XML"),
            ("<html/>", "expected profile"),
            ("<profile/>", "no UserAssignments/TopModelName"),
            ('<!DOCTYPE a [<!ENTITY b "b">]><profile>&b;</profile>', "document type"),
            (CSYNTH.replace("3.33<", "-1<"), "expected a number of ns"),
            (CSYNTH.replace("3.33<", "nan<"), "expected a number of ns"),
            (CSYNTH.replace("<LUT>140250", "<LUT>1.5"), "expected a whole number"),
            (CSYNTH.replace("LUT>", "LUTS>"), "no AreaEstimates/Resources/LUT"),
            (CSYNTH.replace("700124", "9" * 5000), "expected a whole number"),
            (CSYNTH.replace("UTF-8", "no-such-encoding"), None),
        ],
    )
    def test_malformed(self, tmp_path: Path, text: str, message: str | None) -> None:
        path = tmp_path / "csynth.xml"
        path.write_text(text)
        if message is None:
            parse_csynth(path)  # The text is UTF-8, whatever it says of itself.
            return
        with pytest.raises(InputError, match=message):
            parse_csynth(path)

    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(InputError, match="cannot be read"):
            parse_csynth(tmp_path / "nothing.xml")
        path = tmp_path / "csynth.xml"
        path.write_bytes(CSYNTH.encode("utf-16"))
        with pytest.raises(InputError, match="not UTF-8"):
            parse_csynth(path)
        path.write_text(CSYNTH)
        monkeypatch.setattr(reports, "MAX_REPORT_BYTES", 100)
        with pytest.raises(InputError, match="larger than"):
            parse_csynth(path)

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_mutations_raise_our_errors_only(self, tmp_path: Path, data: st.DataObject) -> None:
        source, parse = data.draw(st.sampled_from([(CSYNTH, parse_csynth), (COSIM, parse_cosim)]))
        raw = bytearray(source.encode())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(raw) - 1))
            until = data.draw(st.integers(at, min(len(raw), at + 30)))
            raw[at:until] = data.draw(st.binary(max_size=8))
            if not raw:
                break
        path = tmp_path / "report"
        path.write_bytes(raw)
        try:
            parse(path)
        except EdgeMoeError as error:
            assert str(path) in error.message

    def test_cosim(self, tmp_path: Path) -> None:
        path = tmp_path / "report"
        path.write_text(COSIM)
        assert parse_cosim(path) == CosimReport(True, 700001, 700010, 700020)
        path.write_text(COSIM.replace("700001", "    NA"))
        assert parse_cosim(path).latency_min is None
        path.write_text(COSIM.replace("Pass", "Fail"))
        assert not parse_cosim(path).passed
        for text in ("", COSIM.replace("Verilog", "VHDL"), COSIM.replace("    Pass", "      NA")):
            path.write_text(text)
            with pytest.raises(InputError, match="no result for Verilog"):
                parse_cosim(path)
