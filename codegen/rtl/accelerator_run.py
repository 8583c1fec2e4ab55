"""Programs and images on a Verilated accelerator: what comes out, how long it takes, and what each job left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.context import TOP
from codegen.hwh import argument_offsets
from codegen.manifest import rtl_arguments
from codegen.rtl.stages import StageResult, Stages, places, stages
from codegen.rtl.timeline import Timed, stages_of
from codegen.schedule import Engine, Job, JobTable, job_table
from codegen.weight_image import image_layout, output_bytes, output_layout, pack_weights, port_images
from common.contract import START, STATUS_DONE
from common.errors import CheckError
from common.packing import pack_images, unpack_tokens
from common.rtl_process import JobEnd, RtlProcess
from pysim.design import Design

SCOPE: Final = f"{TOP}.accelerator"
"""Instance whose jobs and memories are watched."""

GLOBAL_ENABLE, ENABLE, STATUS = 0x4, 0x8, 0xC
"""Registers of the interrupt."""

FIRST_ADDRESS: Final = 0x8_7000_0000
"""Above 4 GiB: both words of a pointer count."""
PAGE: Final = 4096
MOST_CYCLES: Final = 1 << 40


@dataclass(frozen=True)
class JobRun:
    """One job as it ran.

    Attributes:
        number: its place in the table.
        job: the job.
        start: cycle in which it started.
        end: cycle in which it ended; both count from the start of the call.
    """

    number: int
    job: Job
    start: int
    end: int

    @property
    def timed(self) -> Timed:
        """The job as the computed schedule has it; what it waited for is not known."""
        return Timed(self.number, self.job, 0, self.start, self.end, 0)


@dataclass
class Run:
    """A call of the accelerator.

    Attributes:
        tokens: (images, tokens, dim) integers of the residual stream.
        cycles: what the register says: from the start to the last write.
        jobs: in the order in which they ended.
        stages: what was compared, by the names of values: the result (`output`), and the others where asked for.
        traffic: bytes that passed each port.
        queues: length of each expert's queue, by layer.
    """

    tokens: NDArray[np.int32]
    cycles: int
    jobs: list[JobRun]
    stages: dict[str, StageResult] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)
    queues: dict[int, list[int]] = field(default_factory=dict)

    @property
    def values(self) -> int:
        """Values compared."""
        return sum(stage.values for stage in self.stages.values())

    @property
    def mismatches(self) -> int:
        """Mismatches among them."""
        return sum(stage.mismatches for stage in self.stages.values())

    @property
    def first(self) -> str:
        """The first value that differs, in words; empty if none does."""
        return next((str(stage.first) for stage in self.stages.values() if stage.first), "")

    def stage_cycles(self) -> dict[str, int]:
        """Cycles of each stage, in the order of the table: from the end of the stage before to its own."""
        jobs = sorted(self.jobs, key=lambda run: run.number)
        return {stage.name: stage.cycles for stage in stages_of([run.timed for run in jobs])}


class RtlAccelerator:
    """A Verilated accelerator with a program in its memory.

    Attributes:
        process: the simulator.
        hardware: what the accelerator was made for.
        places: its memories.
        table: jobs of the program.
    """

    def __init__(self, process: RtlProcess, hardware: Architecture) -> None:
        """Take a process, whose buffers this one manages from now on."""
        self.process, self.hardware = process, hardware
        self.arguments = rtl_arguments(hardware)
        self._offsets = argument_offsets(self.arguments)
        self.places = places(hardware)
        self._begin()

    def _begin(self) -> None:
        self.process.write_register(GLOBAL_ENABLE, 1)
        self.process.write_register(ENABLE, 1)

    def load(self, design: Design, program: Architecture | None = None, *, shift: int = 0) -> None:
        """Put a program into memory.

        Args:
            design: a Design, with the hardware's rows of attention.
            program: its network on the accelerator's hardware; the accelerator's own if it is left out.
            shift: beats of its port by which every buffer begins behind a page.
        """
        self.design, self.program = design, program or self.hardware
        self.table: JobTable = job_table(self.program)
        self.process.forget_buffers()
        self._next, self._shift = FIRST_ADDRESS, shift * self.program.port_bytes
        most = self.hardware.capacities.max_batch
        self._addresses: dict[str, int] = {}
        for port, data in enumerate(
            port_images(pack_weights(design, self.program), self.program.hardware.weight_ports)
        ):
            address = self._allocate(f"weights_{port}", data.size)
            self.process.write(address, data)
        self._allocate("image", most * image_layout(self.program).image_bytes)
        self._allocate("output", output_bytes(self.program, most))
        for name, address in self._addresses.items():
            self.write(name, address)

    def _allocate(self, name: str, nbytes: int) -> int:
        address = self._next + self._shift
        self._addresses[name] = address
        self.process.add_buffer(address, nbytes, f"gmem_{name}")
        # A page stays free in between.
        self._next += -(-(self._shift + nbytes) // PAGE) * PAGE + PAGE
        return address

    def write(self, name: str, value: int) -> None:
        """Set an argument."""
        (argument,) = (argument for argument in self.arguments if argument.name == name)
        for word in range(argument.bits // 32):
            self.process.write_register(self._offsets[name] + 4 * word, value >> 32 * word)

    def read(self, name: str) -> int:
        """The value of an argument."""
        (argument,) = (argument for argument in self.arguments if argument.name == name)
        words = [
            self.process.read_register(self._offsets[name] + 4 * word) for word in range(argument.bits // 32)
        ]
        return sum(value << 32 * word for word, value in enumerate(words))

    def reset(self) -> None:
        """Pull the reset: memory keeps what it holds, and the registers get their values again."""
        self.process.reset()
        self._begin()
        for name, address in self._addresses.items():
            self.write(name, address)

    def flip(self, buffer: str, offset: int, bits: int) -> None:
        """Flip bits of a byte of a buffer (an argument's name), to see it found."""
        address = self._addresses[buffer] + offset
        self.process.write(address, self.process.read(address, 1) ^ np.uint8(bits))

    def call(self, batch: int, task: int) -> None:
        """Start with so many images and wait for the end.

        Raises:
            CheckError: the accelerator breaks a rule, or hangs; the message says which jobs did not end.
        """
        self.write("batch", batch)
        self.write("task", task)
        self.process.write_register(0, START)
        done, _ = self.process.run(MOST_CYCLES)
        assert done
        self.process.write_register(STATUS, 1)
        self.process.read_register(0)

    def run(self, images: NDArray[np.uint8], task: int = 0, *, compare: bool = True) -> Run:
        """Compute images.

        Args:
            images: (images, channels, H, W).
            task: number of the task.
            compare: whether what every job leaves in memory is compared with the simulator's values; the result
                always is.

        Raises:
            CheckError: the accelerator breaks a rule, hangs, or refuses the call.
        """
        process, program = self.process, self.program
        batch, layout = len(images), output_layout(program)
        wanted = stages(self.design, program, self.table, images, task, hardware=self.hardware)
        watched = _Watched(self, wanted, compare)
        process.write(self._addresses["image"], pack_images(images, image_layout(program)))
        before, (_, started) = process.traffic(), process.run(0)
        process.begin_call(keep=compare)
        try:
            self.call(batch, task)
        except CheckError as error:
            raise CheckError("\n".join([error.message, *watched.explain(process.jobs())])) from None
        status = self.read("status")
        if status != STATUS_DONE:
            raise CheckError(f"accelerator: status {status} after {batch} images of task {task}")
        result = process.read(self._addresses["output"], batch * layout.image_bytes)
        tokens = unpack_tokens(result, batch, layout)
        ended, after = process.jobs(), process.traffic()
        compared = watched.compare(ended)
        compared["output"] = StageResult("output", tokens.size, int((tokens != wanted.output).sum()))
        return Run(
            tokens,
            self.read("cycles"),
            watched.timeline(ended, started),
            compared,
            {name: value - before[name] for name, value in after.items()},
            wanted.queues,
        )


class _Watched:
    """The jobs of a call, and what is compared of them."""

    def __init__(self, accelerator: RtlAccelerator, wanted: Stages, compare: bool) -> None:
        self.table, self.wanted, self.places = accelerator.table, wanted, accelerator.places
        self._memories = wanted.memories if compare else []
        banks = [f"{SCOPE}.{bank}" for name in self._memories for bank in self.places[name].banks]
        process = accelerator.process
        self._depths = dict(zip(banks, process.watch(SCOPE, banks), strict=True))
        plans = wanted.plans(self.places) if compare else ()
        process.set_table(b"".join(job.encode() for job in self.table), plans)

    def compare(self, ended: list[JobEnd]) -> dict[str, StageResult]:
        """Values that the jobs left behind, compared; nothing where nothing was to be compared."""
        if not self._memories:
            return {}
        depths = {name: self._depths[f"{SCOPE}.{self.places[name].banks[0]}"] for name in self._memories}
        return self.wanted.compare(ended, self.places, depths)

    def timeline(self, ended: list[JobEnd], started: int) -> list[JobRun]:
        """The jobs in the order in which they ended."""
        runs = []
        for end in ended:
            assert end.job is not None and end.start is not None
            runs.append(JobRun(end.job, self.table[end.job], end.start - started, end.end - started))
        return runs

    def explain(self, ended: list[JobEnd]) -> Iterator[str]:
        """The state of a call that failed: the first value that was wrong by then, and what had not ended."""
        found = (stage.first for stage in self.compare(ended).values() if stage.first)
        yield f"first wrong value: {next(found, 'none so far')}"
        numbers = {end.job for end in ended}
        latest = max((end.job for end in ended if end.job is not None), default=-1)
        missing: dict[Engine, Job] = {}
        for number, job in enumerate(self.table):
            # An expert's may have been skipped.
            if number not in numbers and not (job.skips_if_empty and number < latest):
                missing.setdefault(job.engine, job)
        yield f"{len(ended)} jobs had ended; next of each engine:"
        for engine, job in sorted(missing.items()):
            waits = (
                f", which waits for {', '.join(other.name for other in job.waits_for)}"
                if job.waits_for
                else ""
            )
            yield f"  {engine.name}: {job.name}{waits}"


def process_of(program: Path, hardware: Architecture, *, seed: int = 1) -> RtlAccelerator:
    """An accelerator in a new process, which `process.close()` ends."""
    return RtlAccelerator(RtlProcess(program, seed=seed), hardware)
