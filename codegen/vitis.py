"""The Vitis side of a generated HLS project: finding the tool and running its stages.

The templates `hls/scripts/hls_config.cfg.j2` and `hls/scripts/run_hls.tcl.j2` land in `BUILD/hls/`, beside `src/` and
`tb/`. Whoever renders them supplies exactly these names:

- `top`: name of the top function, which is also the name of the IP.
- `part`: part number of the board.
- `clock_ns`: target period in nanoseconds; `clock_mhz`: the same as a frequency, for comments.
- `clock_uncertainty`: what synthesis keeps free of a period, such as `27%`.
- `sources`: C++ files relative to `BUILD/hls/`, such as `src/linear.cpp`.
- `testbench`: its C++ file, such as `tb/testbench.cpp`.
- `data_folder`: data of the test bench, such as `tb/tb_data`.
- `flow_target`: `vivado`, for an IP, or `vitis`, for a kernel that `v++` links.
- `kernel_file`: the latter, such as `vitis/edgemoe_top.xo`.
- `version`, `vendor`: of the IP's identity `vendor:hls:top:version`.
- `hardware_id`: identity of the hardware, for comments and the IP's description.

The values go into a configuration file and a Tcl script as they are: `part` is checked by `boards`, the rest
is made by this package.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from codegen.csynth_report import CsynthReport, find_csynth, parse_csynth
from codegen.reports import UNKNOWN, read_report, whole_number
from common.errors import CheckError, InputError

STAGES: Final = ("csim", "csynth", "cosim", "export")
"""Stages of `run_hls.tcl`, in the order in which they run."""

TOOLS: Final = ("vitis-run", "vitis_hls", "v++")
"""Programs that can run a project, the preferred one first."""

SHOWN_LINES: Final = 15
"""Lines of the log that an error message repeats."""

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
        """Folder in which it leaves its results, relative to the project."""
        return Path(_CONFIG_WORK, "hls") if self.name == "v++" else _SOLUTION


@dataclass(frozen=True)
class CosimReport:
    """Report of co-simulation: whether the Verilog passed, and its cycles (None where it could not tell)."""

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


def parse_cosim(path: Path) -> CosimReport:
    """Read the Verilog row of a co-simulation report, `<top>_cosim.rpt`.

    Raises:
        InputError: not a report, or the Verilog was not simulated.
    """
    for line in read_report(path).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 5 and cells[0].lower() == "verilog" and cells[1].lower() != "na":
            low, average, high = (
                None if cell.lower() in UNKNOWN else whole_number(cell, "latency", path)
                for cell in cells[2:5]
            )
            return CosimReport(cells[1].lower() == "pass", low, average, high)
    raise InputError(f"{path}: no result for Verilog", hint="is it the report of a co-simulation that ran?")
