"""The Vitis side of a generated HLS project: finding the tool, running its stages, reading its reports.

The templates `hls/scripts/hls_config.cfg.j2` and `hls/scripts/run_hls.tcl.j2` land in `BUILD/hls/`, beside `src/` and
`tb/`. Whoever renders them supplies exactly these names:

- `top`: name of the top function, which is also the name of the IP.
- `part`: part number of the board.
- `clock_ns`: target period in nanoseconds; `clock_mhz`: the same as a frequency, for comments.
- `clock_uncertainty`: what synthesis keeps free of a period, such as `12.5%`.
- `sources`: C++ files relative to `BUILD/hls/`, such as `src/linear.cpp`.
- `testbench`: its C++ file, such as `tb/testbench.cpp`.
- `data_folder`: data of the test bench, such as `tb/tb_data`.
- `version`, `vendor`: of the IP's identity `vendor:hls:top:version`.
- `design_id`: identity of the design, for comments and the IP's description.

The values go into a configuration file and a Tcl script as they are: `part` is checked by `boards`, the rest
is made by this package.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pysim.errors import CheckError, InputError

STAGES: Final = ("csim", "csynth", "cosim", "export")
"""Stages of `run_hls.tcl`, in the order in which they run."""

TOOLS: Final = ("vitis-run", "vitis_hls", "v++")
"""Programs that can run a project, the preferred one first."""

RESOURCES: Final = ("BRAM_18K", "DSP", "FF", "LUT", "URAM")

SHOWN_LINES: Final = 15
"""Lines of the log that an error message repeats."""

MAX_REPORT_BYTES: Final = 32 << 20

_PREFIX: Final = "edgemoe: "
_SCRIPT: Final = "run_hls.tcl"
_CONFIG: Final = "hls_config.cfg"
_SOLUTION: Final = Path("vitis", "solution")
_CONFIG_WORK: Final = "vitis_config"


@dataclass(frozen=True)
class VitisTool:
    """A program that runs HLS projects."""

    name: str
    path: Path

    def command(self) -> list[str]:
        """Its arguments for a generated project, whose folder is the working directory."""
        arguments = {
            "vitis-run": ["--mode", "hls", "--tcl", _SCRIPT],
            "vitis_hls": ["-f", _SCRIPT],
            "v++": ["-c", "--mode", "hls", "--config", _CONFIG, "--work_dir", _CONFIG_WORK],
        }[self.name]
        return [str(self.path), *arguments]

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages that it can run: v++ alone only synthesises."""
        return ("csynth",) if self.name == "v++" else STAGES

    @property
    def solution(self) -> Path:
        """Where it leaves its results, relative to the project."""
        return Path(_CONFIG_WORK, "hls") if self.name == "v++" else _SOLUTION


@dataclass(frozen=True)
class Resource:
    """How many of one resource are used, and how many the part has."""

    used: int
    available: int


@dataclass(frozen=True)
class CsynthReport:
    """What synthesis reports of the whole kernel. Times are in ns; cycles are None where it could not tell.

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
class CosimReport:
    """What co-simulation reports of the Verilog: whether it passed, and its cycles (None where it could not tell)."""

    passed: bool
    latency_min: int | None
    latency_average: int | None
    latency_max: int | None


@dataclass(frozen=True)
class VitisResult:
    """A run of which every stage passed."""

    tool: VitisTool
    stages: tuple[str, ...]
    log: Path
    csynth: CsynthReport | None
    cosim: CosimReport | None


def find_tool() -> VitisTool | None:
    """The first of `TOOLS` on the PATH."""
    for name in TOOLS:
        path = shutil.which(name)
        if path is not None:
            return VitisTool(name, Path(path))
    return None


def run_vitis(
    project: Path,
    stages: Sequence[str] = STAGES,
    log: Path | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    top: str = "edgemoe_top",
) -> VitisResult:
    """Run stages of a generated project and read their reports.

    Args:
        project: the folder with `run_hls.tcl`.
        stages: some of `STAGES`, in any order.
        log: where the tool's output goes; `vitis.log` in the project by default.
        progress: called with each line that the script prints for people.
        top: name of the kernel.

    Raises:
        InputError: no tool, no project, or a stage that does not exist.
        CheckError: a stage failed; the message ends with the last lines of the log.
    """
    ordered = _ordered(stages)
    tool = find_tool()
    if tool is None:
        raise InputError(
            f"Vitis is not installed: none of {', '.join(TOOLS)} is on the PATH",
            hint="install Vitis (2020.2 or later) and put it on the PATH: source <Vitis>/settings64.sh",
        )
    missing = [stage for stage in ordered if stage not in tool.stages]
    if missing:
        raise InputError(
            f"{tool.name} alone cannot run {', '.join(missing)}",
            hint=f"put vitis-run or vitis_hls on the PATH, or ask for {', '.join(tool.stages)} only",
        )
    for name in (_SCRIPT, _CONFIG):
        if not (project / name).is_file():
            raise InputError(f"{project}: no {name}", hint="give the hls folder that edgemoe generate wrote")
    log = project / "vitis.log" if log is None else log
    done, failure, tail = _execute(tool, project, ordered, log, progress)
    if failure:
        raise CheckError("\n".join([f"{tool.name}: {failure}", *tail]), hint=f"the whole output is in {log}")
    if tool.name != "v++":
        unfinished = [stage for stage in ordered if stage not in done]
        if unfinished:
            raise CheckError(
                "\n".join(
                    [f"{tool.name} ended without a failure, but {unfinished[0]} never finished", *tail]
                ),
                hint=f"the whole output is in {log}",
            )
    solution = project / tool.solution
    csynth = parse_csynth(find_csynth(solution, top)) if "csynth" in ordered else None
    if csynth is not None and not csynth.meets_timing:
        raise CheckError(
            f"the estimated clock of {csynth.estimated_ns:g} ns misses the target of {csynth.target_ns:g} ns",
            hint="lower the design's clock_mhz; the report shows the critical loop",
        )
    cosim = parse_cosim(solution / "sim" / "report" / f"{top}_cosim.rpt") if "cosim" in ordered else None
    if cosim is not None and not cosim.passed:
        raise CheckError("co-simulation failed: the Verilog differs from the C++", hint=f"see {log}")
    return VitisResult(tool, ordered, log, csynth, cosim)


def _ordered(stages: Sequence[str]) -> tuple[str, ...]:
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown or not stages:
        raise InputError(
            f"no stage {unknown[0]!r}" if unknown else "no stage was asked for",
            hint=f"stages are {', '.join(STAGES)}",
        )
    return tuple(stage for stage in STAGES if stage in stages)


def _execute(
    tool: VitisTool,
    project: Path,
    stages: Sequence[str],
    log: Path,
    progress: Callable[[str], None] | None,
) -> tuple[set[str], str, list[str]]:
    """Stages that finished, what failed (empty if nothing), and the last lines of the log."""
    environment = os.environ | {"EDGEMOE_STAGES": ",".join(stages)}
    done: set[str] = set()
    failure = ""
    tail: deque[str] = deque(maxlen=SHOWN_LINES)
    try:
        output = log.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{log}: cannot be written: {error.strerror or error}") from None
    with output:
        try:
            process = subprocess.Popen(
                tool.command(),
                cwd=project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(f"{tool.path}: cannot be started: {error.strerror or error}") from None
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.write(line)
                text = line.rstrip()
                tail.append(text)
                if not text.startswith(_PREFIX):
                    continue
                said = text.removeprefix(_PREFIX)
                if said.startswith("FAILED: "):
                    failure = failure or said.removeprefix("FAILED: ")
                elif said.removesuffix(" done") in stages:
                    done.add(said.removesuffix(" done"))
                if progress is not None:
                    progress(said)
            code = process.wait()
        except BaseException:
            # Interrupted: the tool's own children (compiler, simulator) must not go on alone.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        finally:
            process.stdout.close()
    if code != 0 and not failure:
        running = next((stage for stage in stages if stage not in done), "the script")
        failure = f"{running} ended with exit code {code}"
    return done, failure, list(tail)


def find_csynth(solution: Path, top: str) -> Path:
    """The synthesis report of a solution's top function.

    Raises:
        InputError: there is none.
    """
    folder = solution / "syn" / "report"
    for name in ("csynth.xml", f"{top}_csynth.xml"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: neither csynth.xml nor {top}_csynth.xml", hint="run the stage csynth")


def parse_csynth(path: Path) -> CsynthReport:
    """Read the XML report of synthesis.

    Raises:
        InputError: not a report, or one without the clock or the resources.
    """
    root = _read_xml(path)
    if root.tag != "profile":
        raise InputError(f"{path}: not a synthesis report: its root is {_shown(root.tag)}, expected profile")
    assigned = "UserAssignments/"
    overall = "PerformanceEstimates/SummaryOfOverallLatency/"
    return CsynthReport(
        top=_text(root, assigned + "TopModelName", path),
        part=_text(root, assigned + "Part", path),
        target_ns=_period(root, assigned + "TargetClockPeriod", path),
        uncertainty_ns=_period(root, assigned + "ClockUncertainty", path, default=0.0),
        estimated_ns=_period(root, "PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod", path),
        latency_best=_cycles(root, overall + "Best-caseLatency", path),
        latency_worst=_cycles(root, overall + "Worst-caseLatency", path),
        interval=_cycles(root, overall + "Interval-max", path),
        resources={name: _resource(root, name, path) for name in RESOURCES},
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_REPORT_BYTES:
        raise InputError(f"{path}: larger than {MAX_REPORT_BYTES} bytes, which no report is")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def _read_xml(path: Path) -> ElementTree.Element:
    text = _read(path)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path}: declares a document type, which no report does")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not XML: {error}") from None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def _optional(root: ElementTree.Element, name: str) -> str | None:
    element = root.find(name)
    return None if element is None else (element.text or "").strip()


def _text(root: ElementTree.Element, name: str, path: Path) -> str:
    text = _optional(root, name)
    if not text:
        raise InputError(f"{path}: no {name}", hint="is it the report of a synthesis that finished?")
    return text


def _period(root: ElementTree.Element, name: str, path: Path, default: float | None = None) -> float:
    if default is not None and _optional(root, name) is None:
        return default
    text = _text(root, name, path)
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text):
        raise InputError(f"{path}: {name} is {_shown(text)}, expected a number of ns")
    return float(text)


def _cycles(root: ElementTree.Element, name: str, path: Path) -> int | None:
    """Cycles, or None for what Vitis writes where it cannot tell (`undef`, `?`, `-`)."""
    text = _optional(root, name)
    if text in (None, "", "undef", "?", "-", "NA"):
        return None
    assert text is not None
    return _count(text, name, path)


def _count(text: str, name: str, path: Path) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InputError(f"{path}: {name} is {_shown(text)}, expected a whole number")
    return int(text)


def _resource(root: ElementTree.Element, name: str, path: Path) -> Resource:
    def number(parent: str) -> int:
        # Reports before 2020.1 spell it DSP48E; parts without UltraRAM may leave URAM out.
        names = [name, "DSP48E"] if name == "DSP" else [name]
        for spelled in names:
            text = _optional(root, f"AreaEstimates/{parent}/{spelled}")
            if text is not None:
                return _count(text, f"{parent}/{spelled}", path)
        if name == "URAM":
            return 0
        raise InputError(f"{path}: no AreaEstimates/{parent}/{name}")

    return Resource(number("Resources"), number("AvailableResources"))


def parse_cosim(path: Path) -> CosimReport:
    """Read the Verilog row of a co-simulation report, `<top>_cosim.rpt`.

    Raises:
        InputError: not a report, or the Verilog was not simulated.
    """
    for line in _read(path).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 5 and cells[0].lower() == "verilog" and cells[1].lower() != "na":
            low, average, high = (
                None if cell.upper() in ("NA", "", "-", "X") else _count(cell, "latency", path)
                for cell in cells[2:5]
            )
            return CosimReport(cells[1].lower() == "pass", low, average, high)
    raise InputError(f"{path}: no result for Verilog", hint="is it the report of a co-simulation that ran?")
