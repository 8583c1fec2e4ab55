"""`verify --rtl`: the SystemVerilog kernels of a build against the simulator, one layer of each kind."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.build import Build
from codegen.children import workers
from codegen.csim import CsimResult
from codegen.estimate import Scheduler
from codegen.rtl.blackbox import BLACKBOXES
from codegen.rtl.blackbox_files import run_blackbox
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.base import Check, Kernel, Result
from codegen.rtl.simulation import Scenario, build, play
from codegen.rtl.vectors import Checks, checks
from common.errors import CheckError, InputError
from common.reading import read_json

STALL_SEED = 1
BLACKBOX_VALUES = 4000
"""Arguments that a blackbox is played with: its unit has seen the whole table in the kernel of its own."""

Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class StageCycles:
    """Cycles of one call of a kernel.

    Attributes:
        kernel: its name.
        stage: for example `blocks.1.fc1.7`.
        part_of: stage of the estimate that it is part of, for example `blocks.1.experts`.
        values: numbers that were compared.
        measured: from the first beat in to the last beat out, without stalls.
        computed: what the formula says; None where there is none.
    """

    kernel: str
    stage: str
    part_of: str
    values: int
    measured: int
    computed: int | None


@dataclass
class RtlResult:
    """Values compared, and mismatches among them.

    Attributes:
        engines: per kernel, values and mismatches, with those under stalls and after a reset.
        stages: cycles of every call that ran without stalls.
        problems: the first difference of each kernel, and calls that took other cycles than computed.
        estimates: cycles of the HLS design's stages before synthesis, for comparison.
        cycles: numbers of cycles that were compared with what was computed, and those that differed.
    """

    engines: dict[str, tuple[int, int]]
    stages: list[StageCycles]
    problems: list[str]
    estimates: dict[str, int]
    cycles: tuple[int, int] = (0, 0)

    def count(self, right: bool, problem: str) -> None:
        """Count a number of cycles that was compared; if it is not right, it is a problem."""
        compared, wrong = self.cycles
        self.cycles = compared + 1, wrong + (not right)
        if not right:
            self.problems.append(problem)

    def as_csim(self) -> CsimResult:
        """The result in the form of the other verifications."""
        named = {f"rtl.{name}": counts for name, counts in (self.engines | {"cycles": self.cycles}).items()}
        return CsimResult(engines=named, mismatches=self.problems)


def verify_rtl(
    target: Build,
    image: NDArray[np.uint8],
    *,
    task: int = 0,
    rtl_folder: Path | None = None,
    progress: Progress | None = None,
) -> RtlResult:
    """Run every kernel of a build under Verilator and cocotb.

    Each runs one layer of each kind and, of its smallest call, once more with random stalls on every stream and
    once after a reset in the middle. A kernel whose values differ leaves a waveform beside the Verilog.

    Args:
        target: the build.
        image: (1, channels, H, W).
        task: whose gates choose the experts.
        rtl_folder: Verilog that Vitis HLS wrote for the kernels, a folder each; those without one are left out.
        progress: called with steps done and in total.

    Raises:
        InputError: no Verilator, no compiler, no RTL in the build, or code that Verilator refuses.
        CheckError: a kernel hangs or breaks a rule of the protocol.
    """
    architecture = target.architecture
    kernels = kernels_of(architecture)
    sources = {
        name: own_sources(target, kernel) if rtl_folder is None else vitis_sources(rtl_folder, kernel)
        for name, kernel in kernels.items()
    }
    sources = {name: files for name, files in sources.items() if files}
    if not sources:
        raise InputError(
            f"{rtl_folder}: no kernel's Verilog",
            hint="expected <kernel>/solution/syn/verilog/*.v, as run_kernels.tcl leaves it",
        )
    found = checks(target.design, architecture, image, task)
    steps, done = 2 * len(sources), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, steps)

    def build_one(name: str) -> Path:
        folder = build(sources[name], kernels[name].top, strict=rtl_folder is None)
        step()
        return folder

    with workers() as pool:
        folders = dict(zip(sources, pool.map(build_one, sources), strict=True))
    result = RtlResult({}, [], [], _estimates(architecture, found))
    for name, folder in folders.items():
        waves = target.rtl / f"failed-{name}.vcd" if rtl_folder is None else None
        _verify_kernel(kernels[name], sources[name], folder, found[name], result, waves)
        step()
    if rtl_folder is None:
        _verify_blackboxes(target, found, result)
    return result


def _verify_blackboxes(target: Build, found: Checks, result: RtlResult) -> None:
    """The blackboxes of the HLS project, on what the kernels of the same units are checked with."""
    folder = target.hls / "blackbox"
    for unit, box in BLACKBOXES.items():
        if not (folder / f"{box.function}.v").is_file():
            continue
        (check,) = found[unit]
        (frame,) = check.call.inputs["x"]
        values = np.ascontiguousarray(frame).view(box.taken.dtype).ravel()[:BLACKBOX_VALUES]
        run = run_blackbox(box, folder, values)
        compared = mismatches = 0
        for outputs in run.outputs:
            for name, given in outputs.items():
                right = check.expected[name][: len(values)]
                compared += len(right)
                mismatches += int((given != right).sum()) if given.shape == right.shape else len(right)
        result.engines[f"{unit}_blackbox"] = (compared, mismatches)
        stated = _stated(folder / f"{unit}.json")
        result.count(
            (run.latency, run.interval, run.idle) == ((stated["latency"],), (stated["II"],), True),
            f"{box.function}: latency {run.latency} and II {run.interval}, {unit}.json says {stated}",
        )


def _stated(file: Path) -> dict[str, int]:
    """Latency and interval that a blackbox's description promises Vitis HLS."""
    description = read_json(file)
    try:
        return {name: int(description["rtl_performance"][name]) for name in ("latency", "II")}
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{file}: no latency and II of a blackbox", hint="generate the build again"
        ) from None


def _estimates(architecture: Architecture, found: Checks) -> dict[str, int]:
    """Estimate of every stage, for the queues that the image really makes."""
    queues = {}
    for check in found.get("router", []):
        lengths = np.zeros(architecture.experts, np.int64)
        lengths[check.expected["active"]] = check.expected["lengths"]
        assert check.layer is not None
        queues[check.layer] = lengths.tolist()
    return {stage.name: stage.cycles for stage in Scheduler(architecture, batch=1).run(queues)}


def own_sources(target: Build, kernel: Kernel) -> list[Path]:
    """The kernel's files in a build.

    Raises:
        InputError: one is missing.
    """
    files = [target.rtl / source.file for source in kernel.sources]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: no such file", hint="generate the build again")
    return files


def vitis_sources(folder: Path, kernel: Kernel) -> list[Path]:
    """Verilog of a kernel that Vitis HLS wrote; none where it did not.

    Raises:
        InputError: the folder is there, but not the module.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder", hint="give the folder that holds a folder for each kernel"
        )
    for place in (folder / kernel.name / "solution/syn/verilog", folder / kernel.name):
        files = sorted([*place.glob("*.v"), *place.glob("*.sv")])
        if files:
            declared = re.compile(rf"^\s*module\s+{kernel.top}\b", re.MULTILINE)
            if not any(declared.search(file.read_text(errors="replace")) for file in files):
                raise InputError(f"{place}: no module {kernel.top}", hint="its top function has that name")
            return files
    return []


def _data_files(sources: Sequence[Path]) -> list[Path]:
    """Contents of ROMs, which Vitis HLS writes beside its Verilog; that reads them as `./<name>.dat`."""
    return sorted(file for folder in {source.parent for source in sources} for file in folder.glob("*.dat"))


def _verify_kernel(
    kernel: Kernel,
    sources: Sequence[Path],
    folder: Path,
    mine: Sequence[Check],
    result: RtlResult,
    waves: Path | None,
) -> None:
    smallest = min(mine, key=lambda check: check.values)
    scenarios = [Scenario(check.call.name, [check.call]) for check in mine]
    scenarios += [
        Scenario(f"{smallest.call.name}, stalled", [smallest.call], stalls=STALL_SEED),
        Scenario(
            f"{smallest.call.name}, after a reset", [smallest.call], reset_after=(smallest.cycles or 40) // 2
        ),
    ]
    played = play(kernel, folder, scenarios, data=_data_files(sources))
    values = mismatches = 0
    first: tuple[Scenario, str] | None = None
    for check, scenario, (outcome,) in zip([*mine, smallest, smallest], scenarios, played, strict=True):
        wrong = check.mismatches(kernel, outcome)
        values += check.values
        mismatches += wrong
        if wrong and first is None:
            first = (scenario, check.difference(kernel, outcome))
    result.engines[kernel.name] = (values, mismatches)
    if first is not None:
        left = "" if waves is None else f"; waveform in {_record(kernel, sources, first[0], waves)}"
        result.problems.append(f"{kernel.top}, {first[0].name}: {first[1]}{left}")
    for check, (outcome,) in zip(mine, played, strict=False):
        result.stages.append(_cycles(kernel, check, outcome))
        if waves is not None and check.cycles is not None:
            result.count(
                outcome.cycles == check.cycles,
                f"{kernel.top}, {check.call.name}: {outcome.cycles} cycles, computed {check.cycles}",
            )


def _cycles(kernel: Kernel, check: Check, outcome: Result) -> StageCycles:
    name = check.call.name
    return StageCycles(kernel.name, name, check.stage or name, check.values, outcome.cycles, check.cycles)


def _record(kernel: Kernel, sources: Sequence[Path], scenario: Scenario, waves: Path) -> Path:
    """Play a scenario once more, on a build that records waveforms."""
    with tempfile.TemporaryDirectory(dir=waves.parent) as folder:
        partial = Path(folder) / waves.name
        with suppress(CheckError):  # it hangs here as it did before: the waveform shows how
            play(kernel, build(sources, kernel.top, waves=True), [scenario], waves=partial)
        if partial.is_file():
            partial.replace(waves)
    return waves
