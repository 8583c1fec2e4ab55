"""The simulation of whole accelerators, on a small one that copies: memory model, registers, watching of jobs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.rtl.accelerator_build import build_accelerator
from codegen.rtl.kernels.base import Kernel
from codegen.rtl.library import write_library
from codegen.rtl.render import AXI_LITE_SIGNALS, rtl_sources
from codegen.rtl.streams import Register
from codegen.schedule import Engine, Job
from common.contract import DONE, IDLE, START
from common.errors import CheckError, InputError
from common.rtl_process import Depth, JobEnd, Memory, Plan, RtlProcess

pytestmark = pytest.mark.rtl

TOP = "copier_top"
SOURCE, TOP_SOURCE = (Path(__file__).parent / "rtl" / name for name in ("copier.sv", "copier_top.sv"))
REGISTERS = (
    *(Register(name, 64) for name in ("image", "keys", "result")),
    Register("beats", 16),
    Register("fault", 8),
)
COPIER = Kernel("copier", "copies", (), (), REGISTERS)
PORTS = {"image": "gmem_image", "keys": "gmem_weights_0", "result": "gmem_output"}
WORD = {"image": 16, "keys": 4, "result": 16}
ADDRESSES = {"image": 0x8_7000_0000, "keys": 0x8_7010_0000, "result": 0x8_7020_0000}
ROOM = 1 << 16
GIER, IER, ISR = 0x4, 0x8, 0xC
FAULTS = (
    "misaligned",
    "size",
    "burst",
    "range",
    "crosses",
    "taken back",
    "last",
    "hangs",
    "assertion",
    "job",
)
VALUE, UNSET = 11, 12
TABLE = b"".join(Job(engine=engine, layer=0).encode() for engine in (Engine.POSITIONS, Engine.PIXELS))


def write_sources(folder: Path) -> list[Path]:
    files = write_library(
        folder,
        "edgemoe_job_pkg",
        "edgemoe_memory",
        "edgemoe_axi_lite",
        "edgemoe_axi_read",
        "edgemoe_axi_write",
    )
    control = folder / "edgemoe_copier_control.sv"
    control.write_text(
        rtl_sources().text("common/control.sv", {"kernel": COPIER, "axi_lite_signals": AXI_LITE_SIGNALS})
    )
    return [*files, control, SOURCE, TOP_SOURCE]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_accelerator(write_sources(tmp_path_factory.mktemp("copier")), TOP)


@pytest.fixture(scope="module")
def process(program: Path) -> Iterator[RtlProcess]:
    with RtlProcess(program) as started:
        yield started


@pytest.fixture
def copier(process: RtlProcess) -> Copier:
    process.renew()
    return Copier(process)


class Copier:
    """The accelerator and its buffers."""

    def __init__(self, process: RtlProcess) -> None:
        self.process = process
        for name, address in ADDRESSES.items():
            process.add_buffer(address, ROOM, PORTS[name])
        process.write_register(GIER, 1)
        process.write_register(IER, 1)

    def set(self, **values: int) -> None:
        offsets = COPIER.register_map
        for register in REGISTERS:
            if register.name in values:
                for word in range(register.words):
                    self.process.write_register(
                        offsets[register.name] + 4 * word, values[register.name] >> 32 * word
                    )

    def copy(self, beats: int, *, seed: int = 0, **shifts: int) -> tuple[Any, Any, int]:
        """What was written, what should have been, and cycles; buffers begin so many bytes behind their starts."""
        generator = np.random.default_rng(seed)
        data = {
            name: generator.integers(0, 256, (beats, WORD[name]), np.uint8, endpoint=False)
            for name in ("image", "keys")
        }
        places = {name: address + shifts.get(name, 0) for name, address in ADDRESSES.items()}
        for name, values in data.items():
            self.process.write(places[name], values)
        self.process.write(ADDRESSES["result"], np.full(ROOM, 0x77, np.uint8))
        self.set(**places, beats=beats)
        self.process.begin_call(keep=True)
        _, before = self.process.run(0)
        self.process.write_register(0, START)
        done, after = self.process.run(1_000_000)
        assert done
        self.process.write_register(ISR, 1)
        assert self.process.read_register(0) & (DONE | IDLE) == DONE | IDLE
        result = self.process.read(places["result"], beats * 16).reshape(beats, 16)
        # Nothing beside it was touched.
        assert (self.process.read(ADDRESSES["result"], places["result"] - ADDRESSES["result"]) == 0x77).all()
        end = places["result"] + beats * 16
        assert (self.process.read(end, ADDRESSES["result"] + ROOM - end) == 0x77).all()
        return result, data["image"] ^ np.tile(data["keys"], 4), after - before


@pytest.mark.parametrize("latency", [1, 80, 400])
@pytest.mark.parametrize("stalls", [0, 5])
@pytest.mark.parametrize("bytes_per_cycle", [None, 3.7])
def test_copies_through_any_memory(
    copier: Copier, latency: int, stalls: int, bytes_per_cycle: float | None
) -> None:
    copier.process.set_memory(Memory(latency, bytes_per_cycle, stalls, seed=latency))
    for beats, shifts in ((1, {}), (700, {"image": 16 * 37, "keys": 4 * 1001, "result": 16 * 250})):
        result, expected, _ = copier.copy(beats, seed=beats, **shifts)
        np.testing.assert_array_equal(result, expected)


def test_latency_and_bandwidth_cost_what_they_say(copier: Copier) -> None:
    beats = 600

    def cycles(memory: Memory) -> int:
        copier.process.set_memory(memory)
        return copier.copy(beats)[2]

    near, far = cycles(Memory(1)), cycles(Memory(101))
    # The first beat and the last response are late; eight bursts of 64 beats under way hide what lies between.
    assert far - near == 2 * 100
    halved = cycles(Memory(1, bytes_per_cycle=10))
    # Reading takes 20 bytes a beat, at 10 a cycle.
    assert halved - near == pytest.approx(beats, abs=20)
    assert cycles(Memory(1, bytes_per_cycle=10_000)) == near


def test_bandwidth_is_shared_in_turns(copier: Copier) -> None:
    copier.process.set_memory(Memory(1, bytes_per_cycle=5))
    before = copier.process.traffic()
    copier.copy(500)
    after = copier.process.traffic()
    assert {name: after[name] - before[name] for name in after} == {
        "gmem_image": 8000,
        "gmem_weights_0": 2000,
        "gmem_output": 8000,
    }


def test_stalls_are_random_and_repeatable(copier: Copier) -> None:
    def cycles(seed: int) -> int:
        copier.process.set_memory(Memory(stalls=7, seed=seed))
        return copier.copy(300)[2]

    runs = [cycles(seed) for seed in (1, 2, 3, 1)]
    assert runs[0] == runs[3] and len(set(runs)) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("misaligned", r"gmem_image: read of 1024 bytes at 0x870000004 is not aligned to its 16 bytes, cycle \d+"),
        ("size", r"gmem_image: .* has beats of 4 bytes \(size 2\), expected 16, cycle"),
        ("burst", r"gmem_image: .* has burst type 2, expected 1"),
        ("range", r"gmem_image: .* 0x870100000 lies outside of its buffers \(0x870000000 to 0x87000ffff\), cycle"),
        ("crosses", r"gmem_image: read of 1024 bytes at 0x870000c10 crosses a boundary of 4 KB, cycle \d+"),
        ("taken back", r"gmem_image: took back a read address before it was taken, cycle \d+"),
        ("last", r"gmem_output: WLAST with \d+ beats of its burst to come, cycle \d+"),
        ("hangs", r"nothing has happened for 3000 cycles, cycle \d+; gmem_image: 5 reads under way"),
        ("assertion", r"an assertion failed: .*copier\.sv:\d+"),
        ("job", r"engine 0 ended a job that the table does not have behind its job 0: 00"),
    ],
)  # fmt: skip
def test_a_broken_rule_ends_the_run(copier: Copier, fault: str, message: str) -> None:
    copier.process.watch(f"{TOP}.accelerator")
    copier.process.set_table(TABLE)
    copier.process.set_patience(3000)
    copier.process.set_memory(Memory(3, stalls=4 if fault == "taken back" else 0))
    copier.copy(256)
    copier.set(fault=FAULTS.index(fault) + 1)
    with pytest.raises(CheckError, match=message):
        copier.copy(300 if fault == "hangs" else 256)
    # The process goes on.
    copier.process.renew()
    result, expected, _ = Copier(copier.process).copy(20)
    np.testing.assert_array_equal(result, expected)


def test_writes_are_judged_too(copier: Copier) -> None:
    with pytest.raises(CheckError, match=r"gmem_output: write of 1024 bytes at .* outside of its buffers"):
        copier.copy(200, result=ROOM - 1024)


def test_what_no_reset_sets_is_random(process: RtlProcess) -> None:
    def result(seed: int) -> bytes:
        process.renew(seed)
        copier = Copier(process)
        copier.set(fault=UNSET)
        return bytes(copier.copy(20)[0].tobytes())

    assert result(1) == result(1) != result(2)


class TestJobs:
    PLANS = (Plan(0, [0], first=0, stride=1, words=1), Plan(1, [0], first=3, stride=2, words=2, rows=4))

    def jobs(self, copier: Copier, beats: int) -> tuple[list[JobEnd], Any]:
        (depth,) = copier.process.watch(f"{TOP}.accelerator", [f"{TOP}.accelerator.store"])
        assert depth == Depth(1024, 16)
        copier.process.set_table(TABLE, self.PLANS)
        _, expected, _ = copier.copy(beats)
        return copier.process.jobs(), expected

    def test_ends_starts_and_contents(self, copier: Copier) -> None:
        jobs, expected = self.jobs(copier, 77)
        assert [(job.job, job.engine, job.rows) for job in jobs] == [(0, 0, 77), (1, 1, 77)]
        first, second = jobs
        assert first.start is not None and second.start is not None
        assert first.start < first.end < second.start < second.end
        np.testing.assert_array_equal(first.contents.reshape(77, 16), expected)
        rows = [expected[row : row + 2] for row in (3, 5, 7, 9)]
        np.testing.assert_array_equal(second.contents.reshape(4, 2, 16), np.stack(rows))
        assert copier.process.jobs() == []

    def test_a_wrong_value_is_in_the_contents(self, copier: Copier) -> None:
        copier.set(fault=VALUE)
        jobs, expected = self.jobs(copier, 77)
        assert np.argwhere(jobs[0].contents.reshape(77, 16) != expected).tolist() == [[5, 0]]

    def test_calls_begin_with_the_first_job(self, copier: Copier) -> None:
        self.jobs(copier, 9)
        copier.copy(9)
        assert [job.job for job in copier.process.jobs()] == [0, 1]
        with pytest.raises(CheckError, match="engine 0 ended a job"):
            copier.process.write_register(0, START)
            copier.process.run(10_000)

    @pytest.mark.parametrize(("scope", "memory"), [("accelerator", "store"), ("control", "store")])
    def test_unknown_places_are_refused(self, copier: Copier, scope: str, memory: str) -> None:
        with pytest.raises(CheckError, match="that simulation sees"):
            copier.process.watch(f"{TOP}.{scope}", [f"{TOP}.{memory}"])

    def test_rows_beyond_the_memory_are_refused(self, copier: Copier) -> None:
        copier.process.watch(f"{TOP}.accelerator", [f"{TOP}.accelerator.store"])
        copier.process.set_table(TABLE, [Plan(0, [0], first=1020, stride=1, words=1)])
        with pytest.raises(
            CheckError, match=r"row 4 of a job would lie at word 1024 of .*store, which has 1024"
        ):
            copier.copy(9)


def test_a_build_is_cached_and_refusals_are_shown(program: Path, tmp_path: Path) -> None:
    assert build_accelerator(write_sources(tmp_path), TOP) == program
    wrong = tmp_path / SOURCE.name
    shutil.copy(SOURCE, wrong)
    wrong.write_text(wrong.read_text().replace("assign ap_idle = state", "assign ap_idle = nothing"))
    files = [file for file in write_sources(tmp_path) if file != SOURCE]
    with pytest.raises(InputError, match="nothing"):
        build_accelerator([*files, wrong], TOP)


def test_a_program_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be started"):
        RtlProcess(tmp_path / "none")
    with pytest.raises(CheckError, match="its simulator ended with 1"):
        RtlProcess(Path(shutil.which("false") or ""))


@pytest.mark.nightly
def test_waveforms(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    program = build_accelerator(write_sources(tmp_path / "sources"), TOP, waves=True)
    assert {file.name for file in program.parent.iterdir()} == {program.name, "build.log"}
    waveform = tmp_path / "a name with spaces.vcd"
    with RtlProcess(program) as process:
        copier = Copier(process)
        process.record(waveform)
        copier.copy(20)
        process.record(None)
        size = waveform.stat().st_size
        copier.copy(20)
    text = waveform.read_text()
    assert waveform.stat().st_size == size and "event_done" in text and "gmem_image_ARADDR" in text


def test_a_build_without_waveforms_says_so(copier: Copier, tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="this build records no waveforms"):
        copier.process.record(tmp_path / "a.vcd")
