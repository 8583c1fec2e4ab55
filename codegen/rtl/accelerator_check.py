"""`verify --rtl`: the whole accelerator of a build on images and all tasks, every stage against the simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boards import Board, load_board
from codegen.architecture import Architecture
from codegen.build import Build
from codegen.context import TOP
from codegen.rtl.accelerator_build import build_accelerator
from codegen.rtl.accelerator_run import RtlAccelerator, Run
from codegen.rtl.project import ACCELERATOR
from codegen.rtl.timeline import stages_of, timeline
from common.errors import InputError
from common.rtl_process import Memory, RtlProcess

LATENCY = 80
"""Cycles from a request to its first beat, in the memory of a board."""

STALLED = Memory(latency=23, stalls=5)
"""Memory of the run with random stalls."""

Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class StageTime:
    """Cycles of a stage in the first run.

    Attributes:
        stage: its name, such as `blocks.1.experts`.
        values: numbers that were compared, of all runs.
        cycles: from the end of the stage before to its own end.
        estimate: the same of the schedule as it was computed, with the same queues.
    """

    stage: str
    values: int
    cycles: int
    estimate: int | None


@dataclass
class AcceleratorResult:
    """Values compared, and cycles counted.

    Attributes:
        values: how many.
        mismatches: how many of them differed.
        problems: the first value that differs of each run, in words.
        runs: calls.
        cycles: of the first call, as its register says.
        estimate: of the same call, from its schedule as it was computed.
        stages: of the first call.
    """

    values: int = 0
    mismatches: int = 0
    problems: list[str] = field(default_factory=list)
    runs: int = 0
    cycles: int = 0
    estimate: int = 0
    stages: list[StageTime] = field(default_factory=list)


def accelerator_sources(target: Build) -> list[Path]:
    """Files of a build's accelerator.

    Raises:
        InputError: there are none.
    """
    top = target.rtl / ACCELERATOR / f"{TOP}.sv"
    if not top.is_file():
        raise InputError(f"{top}: no such file", hint="generate the build again")
    return sorted([*top.parent.glob("*.sv"), *top.parent.glob("*.v")])


def board_memory(architecture: Architecture, board: Board) -> Memory:
    """The memory of a board behind the accelerator's ports."""
    clock_mhz = architecture.hardware.clock_mhz
    return Memory(LATENCY, board.read_gb_s(clock_mhz) * 1e3 / clock_mhz)


def verify_accelerator(
    target: Build, images: NDArray[np.uint8], *, progress: Progress | None = None
) -> AcceleratorResult:
    """Run the accelerator of a build under Verilator: all images for every task, and once more with random stalls.

    All calls follow each other on one accelerator, without a reset.

    Args:
        target: the build.
        images: (images, channels, H, W).
        progress: called with steps done and in total.

    Raises:
        InputError: no Verilator, no compiler, no accelerator in the build, or code that Verilator refuses.
        CheckError: the accelerator hangs, or breaks a rule of AXI or of its own.
    """
    architecture = target.architecture
    memory = board_memory(architecture, load_board(target.spec.board))
    tasks = range(len(target.design.spec.tasks))
    most = architecture.capacities.max_batch
    calls = [(images[first : first + most], task) for task in tasks for first in range(0, len(images), most)]
    total = len(calls) + 2
    program = build_accelerator(accelerator_sources(target), TOP)
    if progress:
        progress(1, total)
    result = AcceleratorResult()
    with RtlProcess(program) as process:
        accelerator = RtlAccelerator(process, architecture)
        accelerator.load(target.design)
        process.set_memory(memory)
        for number, (pixels, task) in enumerate(calls):
            run = accelerator.run(pixels, task)
            if not number:
                _time(result, architecture, memory, run, len(pixels))
            _count(result, run, f"call {number}, task {task}")
            if progress:
                progress(number + 2, total)
        process.set_memory(STALLED)
        _count(result, accelerator.run(images[:1], tasks[-1]), "with random stalls")
        if progress:
            progress(total, total)
    return result


def _count(result: AcceleratorResult, run: Run, name: str) -> None:
    result.runs += 1
    result.values += run.values
    result.mismatches += run.mismatches
    if run.mismatches:
        result.problems.append(f"{TOP}, {name}: {run.first or 'the result differs, but no stage'}")


def _time(
    result: AcceleratorResult, architecture: Architecture, memory: Memory, run: Run, batch: int
) -> None:
    assert memory.bytes_per_cycle is not None
    share = memory.bytes_per_cycle / architecture.beat_bytes
    expected = timeline(architecture, batch, share, run.queues, LATENCY)
    estimates = {stage.name: stage.cycles for stage in stages_of(expected)}
    result.cycles, result.estimate = run.cycles, sum(estimates.values())
    values: dict[str, int] = {}
    for compared in run.stages.values():
        values[compared.stage] = values.get(compared.stage, 0) + compared.values
    result.stages = [
        StageTime(name, values.get(name, 0), cycles, estimates.get(name))
        for name, cycles in run.stage_cycles().items()
    ]
