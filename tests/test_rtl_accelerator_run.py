"""Whole images on the whole accelerator: every value of every stage, and what is said of the first that differs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
import host
from boards import load_board
from codegen.architecture import Architecture
from codegen.build import Build
from codegen.context import TOP
from codegen.hardware import Hardware
from codegen.project import generate
from codegen.rtl.accelerator_build import build_accelerator
from codegen.rtl.accelerator_check import accelerator_sources, board_memory
from codegen.rtl.accelerator_run import RtlAccelerator
from codegen.rtl.stages import Place, Stages, places, stages
from codegen.rtl.timeline import timeline
from codegen.schedule import Engine, job_table
from common.errors import CheckError
from common.rtl_process import Depth, JobEnd, Memory, RtlProcess
from edgemoe.accelerator import emulated_board
from edgemoe.cli import main
from host.emulated import EmulatedBoard
from host.errors import AcceleratorError
from pysim.design import Design
from pysim.model import Model
from pysim.simulator import simulate

Pixels = NDArray[np.uint8]

# That of `test_rtl_verify.py`, so that both are built once.
HARDWARE = Hardware(lanes=4, outputs=8, token_tile=2, attention_rows=3, max_batch=2)


@pytest.fixture(scope="module")
def design(designs: dict[str, Design]) -> Design:
    return designs["w8a8"].with_attention_rows(HARDWARE.attention_rows)


@pytest.fixture(scope="module")
def architecture(design: Design) -> Architecture:
    return Architecture(design.network, HARDWARE)


def pack(place: Place, numbers: NDArray[np.int64], word_bytes: int) -> Pixels:
    """Words (..., bytes) of numbers (..., lanes)."""
    parts = [(numbers[..., lane, None] >> np.arange(width)) & 1 for lane, width in enumerate(place.bits)]
    bits = np.concatenate(parts, axis=-1)
    padded = np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, 8 * word_bytes - bits.shape[-1])])
    return np.packbits(padded.astype(np.uint8), axis=-1, bitorder="little")


@pytest.mark.parametrize(
    ("bits", "signed"), [((24,) * 5, True), ((17, 6), False), ((8,) * 16, True), ((63, 1), True)]
)
def test_words_are_taken_apart(bits: tuple[int, ...], signed: bool) -> None:
    place, generator = Place((), 1, bits, signed), np.random.default_rng(0)
    lows = [-(1 << (width - 1)) if signed else 0 for width in bits]
    highs = [low + (1 << width) for low, width in zip(lows, bits, strict=True)]
    lanes = [generator.integers(low, high, (3, 4)) for low, high in zip(lows, highs, strict=True)]
    lanes[0][0, :2] = lows[0], highs[0] - 1
    numbers = np.stack(lanes, axis=-1)
    word_bytes = 4 * -(-sum(bits) // 32)
    np.testing.assert_array_equal(place.unpack(pack(place, numbers, word_bytes)), numbers)


@pytest.fixture(scope="module")
def wanted(design: Design, architecture: Architecture, images: Pixels) -> Stages:
    return stages(design, architecture, job_table(architecture), images[:2], 1)


class TestStages:
    """What is compared, without any simulator of RTL."""

    def ended(self, wanted: Stages, architecture: Architecture) -> tuple[list[JobEnd], dict[str, Depth]]:
        """What an accelerator without a fault would have left."""
        found = places(architecture)
        depths = {name: Depth(1 << 16, 4 * -(-sum(place.bits) // 32)) for name, place in found.items()}
        contents: dict[int, list[Pixels]] = {}
        for expected in wanted.expected:
            place = found[expected.memory]
            rows, channels = expected.values.shape
            padded = np.full((rows, expected.groups, expected.words * len(place.bits) // expected.groups), 1)
            padded[:, :, : channels // expected.groups] = expected.values.reshape(rows, expected.groups, -1)
            words = padded.reshape(rows, expected.words, -1)
            packed = pack(place, words, depths[expected.memory].word_bytes)
            contents.setdefault(expected.job, []).append(packed.ravel())
        ends = [
            JobEnd(job, int(wanted.table[job].engine), 10 * job, 10 * job + 9, 0, np.concatenate(parts))
            for job, parts in contents.items()
        ]
        return ends, depths

    def test_every_job_that_computes_is_compared(self, wanted: Stages) -> None:
        jobs = {expected.job for expected in wanted.expected}
        idle = {
            number
            for number, job in enumerate(wanted.table)
            if job.is_fill
            or job.engine is Engine.OUTPUT
            or (job.skips_if_empty and job.layer is not None and not wanted.queues[job.layer][job.index])
        }
        assert jobs == set(range(len(wanted.table))) - idle
        names = [expected.name for expected in wanted.expected]
        assert len(set(names)) == len(names)
        assert {
            "pixels",
            "embed",
            "blocks.0.q",
            "blocks.1.norm2",
            "blocks.1.gate_input",
            "blocks.1.output",
        } <= set(names)

    def test_equal_values_are_equal(self, wanted: Stages, architecture: Architecture) -> None:
        ends, depths = self.ended(wanted, architecture)
        results = wanted.compare(ends, places(architecture), depths)
        assert sum(result.mismatches for result in results.values()) == 0
        assert sum(result.values for result in results.values()) == sum(
            e.values.size for e in wanted.expected
        )

    def test_the_first_wrong_value_is_named(self, wanted: Stages, architecture: Architecture) -> None:
        ends, depths = self.ended(wanted, architecture)
        number = next(n for n, job in enumerate(wanted.table) if job.name == "blocks.0.proj")
        expected = next(expected for expected in wanted.expected if expected.job == number)
        # A row of the second image, its second channel: three bytes into its word.
        end = next(end for end in ends if end.job == number)
        row, tokens = len(expected.values) - 2, len(expected.values) // 2
        at = row * expected.words * depths["residual"].word_bytes + 3
        end.contents[at] ^= 1
        results = wanted.compare(ends, places(architecture), depths)
        assert {name: result.mismatches for name, result in results.items() if result.mismatches} == {
            expected.name: 1
        }
        right = int(expected.values[row, 1])
        assert str(results[expected.name].first) == (
            f"blocks.0.attn_residual (blocks.0.proj): image 1, token {tokens - 2}, channel 1 is {right ^ 1}, "
            f"expected {right}, cycle {end.end}"
        )

    def test_a_job_that_is_missing_differs_in_all(self, wanted: Stages, architecture: Architecture) -> None:
        ends, depths = self.ended(wanted, architecture)
        missing = ends.pop()
        results = wanted.compare(ends, places(architecture), depths)
        (wrong,) = (result for result in results.values() if result.mismatches)
        assert wrong.mismatches == wrong.values > 0 and wrong.first is None
        assert wanted.table[missing.job or 0].stage == wrong.stage


@pytest.fixture(scope="module")
def build(design: Design, images: Pixels, micro: Model, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("accelerator") / "build"
    return generate(design, folder, load_board("zcu102"), images[:1], hardware=HARDWARE, model=micro)[0]


@pytest.fixture(scope="module")
def process(build: Build) -> Iterator[RtlProcess]:
    with RtlProcess(build_accelerator(accelerator_sources(build), TOP)) as process:
        yield process


@pytest.mark.rtl
class TestAccelerator:
    @pytest.fixture
    def accelerator(self, process: RtlProcess, architecture: Architecture, design: Design) -> RtlAccelerator:
        process.renew()
        accelerator = RtlAccelerator(process, architecture)
        accelerator.load(design)
        return accelerator

    @pytest.mark.parametrize(
        "memory",
        [
            Memory(1),
            Memory(400, stalls=9, seed=2),
            Memory(17, bytes_per_cycle=5.3, stalls=3, seed=3),
            Memory(90, bytes_per_cycle=40, outstanding=2),
        ],
        ids=str,
    )
    def test_every_value_through_any_memory(
        self, accelerator: RtlAccelerator, memory: Memory, images: Pixels
    ) -> None:
        accelerator.process.set_memory(memory)
        for first, (batch, task) in enumerate(((2, 0), (1, 1), (2, 1))):
            run = accelerator.run(images[first : first + batch], task)
            assert run.first == ""
            assert run.mismatches == 0 and run.values > 5000 * batch
            assert run.tokens.shape[0] == batch

    def test_buffers_begin_anywhere(
        self, accelerator: RtlAccelerator, design: Design, images: Pixels
    ) -> None:
        accelerator.load(design, shift=37)
        assert accelerator.run(images[:2]).mismatches == 0

    def test_state_that_no_reset_sets_changes_nothing(
        self, process: RtlProcess, architecture: Architecture, design: Design, images: Pixels
    ) -> None:
        cycles = []
        for seed in (5, 6):
            process.renew(seed)
            accelerator = RtlAccelerator(process, architecture)
            accelerator.load(design)
            run = accelerator.run(images[:1])
            assert run.mismatches == 0
            cycles.append(run.cycles)
        assert cycles[0] == cycles[1]

    def test_a_reset_in_the_middle_of_a_call(self, accelerator: RtlAccelerator, images: Pixels) -> None:
        accelerator.run(images[:1])
        accelerator.write("batch", 1)
        accelerator.process.watch("")
        accelerator.process.write_register(0, 1)
        accelerator.process.run(1234)
        accelerator.reset()
        run = accelerator.run(images[1:2], 1)
        assert run.mismatches == 0

    def test_a_wrong_weight_is_found_where_it_is_used(
        self, accelerator: RtlAccelerator, images: Pixels
    ) -> None:
        # The first weight of a layer, behind the records of its first block.
        layer, program = "blocks.0.fc1", accelerator.program
        beat = program.sections[layer] + program.record_beats
        accelerator.flip("weights_0", beat * program.port_bytes, 1 << 6)
        run = accelerator.run(images[:1])
        wrong = [name for name, stage in run.stages.items() if stage.mismatches]
        assert wrong[0] == "blocks.0.hidden" and "output" in wrong
        assert run.first.startswith("blocks.0.hidden (blocks.0.fc1): image 0, token ")
        assert "channel 0 is" in run.first

    def test_who_pays_for_traffic_waits_for_the_router(
        self, accelerator: RtlAccelerator, images: Pixels
    ) -> None:
        """Weights of experts that nobody chose are not fetched then."""
        accelerator.process.set_memory(Memory(60))
        ahead = accelerator.run(images[:1])
        accelerator.write("wait_for_router", 1)
        waits = accelerator.run(images[:1])
        accelerator.write("wait_for_router", 0)
        assert waits.mismatches == 0 and waits.cycles > ahead.cycles
        fetched = {name: sum(run.traffic.values()) for name, run in (("ahead", ahead), ("waits", waits))}
        idle = any(not length for queue in ahead.queues.values() for length in queue)
        assert fetched["waits"] < fetched["ahead"] if idle else fetched["waits"] == fetched["ahead"]

    @pytest.mark.parametrize("latency", [12, 200])
    def test_the_computed_timeline_is_the_counted_one(
        self, accelerator: RtlAccelerator, images: Pixels, latency: int
    ) -> None:
        """Engines without weights to wait for take what is computed, exactly; a whole call, nearly."""
        accelerator.process.set_memory(Memory(latency))
        exact = (Engine.NORM, Engine.ATTENTION, Engine.ROUTER, Engine.GATHER, Engine.PATCH_QUEUE)
        for batch, task in ((1, 0), (2, 1)):
            run = accelerator.run(images[:batch], task)
            computed = timeline(accelerator.program, batch, 1000.0, run.queues, latency)
            counted = {job.number: job for job in run.jobs}
            assert {timed.number for timed in computed} == counted.keys()
            spans = [
                (timed.end - timed.start, counted[timed.number].end - counted[timed.number].start)
                for timed in computed
                if timed.job.engine in exact
            ]
            assert len(spans) > 15 and all(mine == theirs for mine, theirs in spans)
            assert max(timed.end for timed in computed) == pytest.approx(run.cycles, rel=0.02)

    def test_jobs_have_times(self, accelerator: RtlAccelerator, images: Pixels) -> None:
        run = accelerator.run(images[:1])
        assert {job.number for job in run.jobs} == {
            number
            for number, job in enumerate(accelerator.table)
            if not (job.skips_if_empty and not run.queues[job.layer or 0][job.index])
        }
        assert all(0 < job.start < job.end for job in run.jobs)
        assert run.jobs[-1].job.engine is Engine.OUTPUT and run.jobs[-1].end < run.cycles + 50
        assert sum(run.stage_cycles().values()) < 2 * run.cycles

    def test_what_hangs_is_explained(self, accelerator: RtlAccelerator, images: Pixels) -> None:
        accelerator.process.set_patience(2000)
        accelerator.process.set_memory(Memory(latency=5000))
        with pytest.raises(CheckError, match="nothing has happened for 2000 cycles") as caught:
            accelerator.run(images[:1])
        assert "0 jobs had ended; next of each engine:\n  POSITIONS: positions" in str(caught.value)

    def test_refused_calls_touch_nothing(self, accelerator: RtlAccelerator) -> None:
        before = accelerator.process.traffic()
        for batch, task, status in ((3, 0, 1), (1, 9, 2), (0, 0, 0)):
            accelerator.call(batch, task)
            assert accelerator.read("status") == status
        assert accelerator.read("hardware_id") == int(accelerator.hardware.hardware_id, 16)
        assert accelerator.process.traffic() == before


@pytest.mark.rtl
class TestEmulatedBoard:
    """The host's driver, with the accelerator's own registers under it."""

    @pytest.fixture
    def driver(self, build: Build) -> Iterator[host.Accelerator]:
        with edgemoe.Accelerator(build.folder, emulate=True, backend="rtl") as driver:
            yield driver

    def test_all_ways_to_run(self, driver: host.Accelerator, design: Design, images: Pixels) -> None:
        few = images[:3]
        for number, task in enumerate(driver.tasks):
            expected = simulate(design, few, number).integers
            results = [
                driver.run(few[0], task),
                *driver.run_batch(few, task),
                *driver.stream(iter(few), task),
            ]
            for result, right in zip(results, [expected[0], *expected, *expected], strict=True):
                np.testing.assert_array_equal(result.integers, right)
        assert [result.images for result in driver.run_batch(few)] == [2, 2, 1]

    def test_cycles_are_those_of_the_hardware(
        self, driver: host.Accelerator, build: Build, process: RtlProcess, images: Pixels
    ) -> None:
        result = driver.run(images[0], 1)
        process.renew()
        process.set_memory(board_memory(build.architecture, load_board("zcu102")))
        accelerator = RtlAccelerator(process, build.architecture)
        accelerator.load(build.design)
        # The pages that buffers begin on have no part in them.
        assert result.cycles == accelerator.run(images[:1], 1, compare=False).cycles
        assert result.latency_ms == pytest.approx(result.cycles / build.architecture.hardware.clock_mhz / 1e3)

    def test_a_pointer_into_nowhere_ends_the_call(self, build: Build, images: Pixels) -> None:
        board = emulated_board(build.folder, backend="rtl")
        assert isinstance(board, EmulatedBoard)
        with host.Accelerator(build.folder, board=board) as driver:
            driver.run(images[0])
            driver._program.slots[0].image.free()
            with pytest.raises(AcceleratorError, match=r"gmem_image: read of .* outside of its buffers"):
                driver.run(images[0])

    def test_command_line(self, build: Build, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
        image = str(folders / "images/03.png")
        command = ["run", str(build.folder), "--image", image, "--emulate", "--backend", "rtl", "--json"]
        assert main(command) == 0
        (run,) = json.loads(capsys.readouterr().out)["runs"]
        assert 1000 < run["cycles"] < 100_000
        assert run["latency_ms"] == pytest.approx(run["cycles"] / 300e3, rel=1e-3)
