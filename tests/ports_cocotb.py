"""The cocotb side of `test_rtl_ports.py`: plays what its job file asks for, and saves what came out."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from codegen.rtl.bench import pauses

PORT_BYTES = 8
PAGE = 4096
ENGINES = 9
LIMIT = 60_000
"""Cycles that a scenario takes at most."""


class Port:
    """A read port of a memory: bursts in order, each `latency` cycles after its address, with or without stalls."""

    def __init__(self, dut: Any, number: int, address: int, data: bytes, outstanding: int) -> None:
        prefix = f"m{number}_axi_"
        self.signals = {
            name: getattr(dut, prefix + name)
            for name in ("ARADDR", "ARLEN", "ARVALID", "ARREADY", "RDATA", "RLAST", "RVALID", "RREADY")
        }
        self.address, self.data, self.outstanding = address, data, outstanding
        self.reset(0, None)

    def reset(self, latency: int, stalls: np.random.Generator | None) -> None:
        """Forget everything, and behave like this from now on."""
        self.latency, self.stalls = latency, stalls
        self.beats: deque[tuple[int, int, bool]] = deque()
        self.offered = False
        self.asked = 0
        self.signals["ARREADY"].value = 0
        self.signals["RVALID"].value = 0

    def step(self, now: int) -> None:
        """What happens at a clock edge; `now` counts them."""
        signals = self.signals
        if self.offered and signals["RREADY"].value == 1:
            self.beats.popleft()
            self.offered = False
        if signals["ARVALID"].value == 1 and signals["ARREADY"].value == 1:
            self._take(int(signals["ARADDR"].value), int(signals["ARLEN"].value) + 1, now)
        signals["ARREADY"].value = int(not self._stalls())
        if not self.offered and self.beats and self.beats[0][0] <= now and not self._stalls():
            self.offered = True
            _, signals["RDATA"].value, signals["RLAST"].value = self.beats[0]
        signals["RVALID"].value = int(self.offered)

    def _stalls(self) -> bool:
        return self.stalls is not None and bool(self.stalls.random() < 0.3)

    def _take(self, address: int, beats: int, now: int) -> None:
        first = address - self.address
        last = address + PORT_BYTES * beats - 1
        assert address % PORT_BYTES == 0, f"address {address:#x} is not that of a beat"
        assert address // PAGE == last // PAGE, f"{beats} beats from {address:#x} on cross 4 KB"
        assert first >= 0 and first + PORT_BYTES * beats <= len(self.data), f"{address:#x} is out of range"
        for beat in range(beats):
            start = first + PORT_BYTES * beat
            word = int.from_bytes(self.data[start : start + PORT_BYTES], "little")
            self.beats.append((now + self.latency + beat, word, beat == beats - 1))
        self.asked += beats
        assert sum(last for _, _, last in self.beats) <= self.outstanding


async def reset(dut: Any) -> None:
    """A reset, with all inputs at rest."""
    for name in ("restart", "job_valid", "load_ready", "beat_ready", "decided", "active", "task_number"):
        getattr(dut, name).value = 0
    for name in ("issue_valid", "start_ready", "done", "lengths"):
        getattr(dut, name).value = 0
    for name in ("read_valid", "read_TREADY", "write_valid", "write_TVALID"):
        getattr(dut, name).value = 0
    dut.ap_rst_n.value = 0
    await ClockCycles(dut.ap_clk, 4)
    dut.ap_rst_n.value = 1
    await RisingEdge(dut.ap_clk)


async def stream(dut: Any, scenario: dict[str, Any], records: list[int], ports: list[Port]) -> dict[str, Any]:
    """Run the weight streamer over a job table; its loads, what was asked for, and the cycles that it took."""
    generator = np.random.default_rng(scenario["seed"])
    stalls = generator if scenario["stalls"] else None
    for port in ports:
        port.reset(scenario["latency"], stalls)
    await reset(dut)
    dut.task_number.value = scenario["task"]
    dut.speculate.value = int(scenario["speculate"])
    dut.restart.value = 1
    await RisingEdge(dut.ap_clk)
    dut.restart.value = 0
    masks = iter(scenario["masks"])
    jobs, decisions = deque(records), deque[int]()
    decided, offers, takes = 0, False, False
    loads: list[int] = []
    beats: list[int] = []
    lasts: list[bool] = []
    for now in range(LIMIT):
        await RisingEdge(dut.ap_clk)
        # What the edge took.
        if offers and dut.job_ready.value == 1:
            jobs.popleft()
            offers = False
        if takes and dut.load_valid.value == 1:
            loads.append(int(dut.load_job.value))
            lasts.append(False)
        if dut.beat_valid.value == 1 and dut.beat_ready.value == 1:
            assert not lasts[-1], "a beat behind the last one"
            beats.append(int(dut.beat_data.value))
            lasts[-1] = dut.beat_last.value == 1
            if lasts[-1] and loads[-1] & 0xFF00 == scenario["router"] << 8:
                decisions.append(now + scenario["decides_after"])
        for port in ports:
            port.step(now)
        # What is offered at the next one.
        if decisions and decisions[0] <= now:
            decisions.popleft()
            decided += 1
            dut.active.value = next(masks)
            dut.decided.value = decided
        offers = offers or (bool(jobs) and (stalls is None or bool(generator.random() < 0.5)))
        dut.job_valid.value = int(offers)
        if jobs:
            dut.job.value = jobs[0]
        takes = stalls is None or bool(generator.random() < 0.5)
        dut.load_ready.value = int(takes)
        dut.beat_ready.value = int(stalls is None or bool(generator.random() < scenario["eager"]))
        if not jobs and not decisions and dut.idle.value == 1 and now > scenario["latency"] + 200:
            break
    else:
        raise AssertionError(f"{scenario['name']}: not done within {LIMIT} cycles, {len(jobs)} jobs are left")
    assert all(lasts) and dut.failed.value == 0
    return {"loads": loads, "beats": beats, "asked": [port.asked for port in ports], "cycles": now}


async def copy(dut: Any, ram: Any, scenario: dict[str, Any]) -> dict[str, Any]:
    """Read stretches of a memory and write each to another place; what was read."""
    generator = np.random.default_rng(scenario["seed"])
    channels = [ram.read_if.ar_channel, ram.read_if.r_channel]
    channels += [ram.write_if.aw_channel, ram.write_if.w_channel, ram.write_if.b_channel]
    for number, channel in enumerate(channels):
        channel.clear_pause_generator()
        channel.pause = False
        if scenario["stalls"]:
            channel.set_pause_generator(pauses(np.random.default_rng([scenario["seed"], number])))
    await reset(dut)
    found = []
    for source, target, beats in scenario["stretches"]:
        words = await _read(dut, source, beats, generator)
        found.append(words)
        await _write(dut, target, words, generator)
    while not (dut.read_idle.value == 1 and dut.write_idle.value == 1):
        await RisingEdge(dut.ap_clk)
    assert dut.read_failed.value == 0 and dut.write_failed.value == 0
    return {"read": found}


async def _command(dut: Any, name: str, address: int, beats: int) -> None:
    valid, ready = getattr(dut, f"{name}_valid"), getattr(dut, f"{name}_ready")
    getattr(dut, f"{name}_address").value = address
    getattr(dut, f"{name}_beats").value = beats
    valid.value = 1
    await RisingEdge(dut.ap_clk)
    while ready.value != 1:
        await RisingEdge(dut.ap_clk)
    valid.value = 0


async def _read(dut: Any, address: int, beats: int, generator: np.random.Generator) -> list[int]:
    await _command(dut, "read", address, beats)
    words: list[int] = []
    while len(words) < beats:
        ready = bool(generator.random() < 0.7)
        dut.read_TREADY.value = int(ready)
        await RisingEdge(dut.ap_clk)
        if ready and dut.read_TVALID.value == 1:
            words.append(int(dut.read_TDATA.value))
    dut.read_TREADY.value = 0
    return words


async def _write(dut: Any, address: int, words: list[int], generator: np.random.Generator) -> None:
    await _command(dut, "write", address, len(words))
    for word in words:
        while generator.random() < 0.3:
            await RisingEdge(dut.ap_clk)
        dut.write_TVALID.value = 1
        dut.write_TDATA.value = word
        await RisingEdge(dut.ap_clk)
        while dut.write_TREADY.value != 1:
            await RisingEdge(dut.ap_clk)
        dut.write_TVALID.value = 0


async def issue(dut: Any, scenario: dict[str, Any], records: list[int]) -> dict[str, Any]:
    """Run a job table on engines that take any time; starts (job, rows) and ends (job,), in order."""
    generator = np.random.default_rng(scenario["seed"])
    await reset(dut)
    dut.restart.value = 1
    await RisingEdge(dut.ap_clk)
    dut.restart.value = 0
    lengths = iter(scenario["lengths"])
    jobs = deque(enumerate(records))
    running: dict[int, tuple[int, int]] = {}  # by engine: job, cycles that it still takes
    ready, offers, events = 0, False, []
    for _ in range(LIMIT):
        await RisingEdge(dut.ap_clk)
        if offers and dut.issue_ready.value == 1:
            jobs.popleft()
            offers = False
        started = int(dut.start_valid.value) & ready
        rows, numbers = int(dut.start_rows.value), int(dut.start_number.value)
        for engine in range(ENGINES):
            if started >> engine & 1:
                assert engine not in running
                number = numbers >> 16 * engine & 0xFFFF
                running[engine] = number, int(generator.integers(1, scenario["longest"]))
                events.append([number, rows >> 16 * engine & 0xFFFF])
        finished = 0
        for engine, (number, cycles) in list(running.items()):
            running[engine] = number, cycles - 1
            if cycles == 1:
                del running[engine]
                finished |= 1 << engine
                events.append([number])
                if engine == scenario["router"]:
                    dut.lengths.value = sum(n << 16 * i for i, n in enumerate(next(lengths)))
        dut.done.value = finished
        ready = int(generator.integers(0, 1 << ENGINES))
        dut.start_ready.value = ready
        offers = offers or (bool(jobs) and bool(generator.random() < 0.8))
        dut.issue_valid.value = int(offers)
        if jobs:
            dut.issue_number.value, dut.issue_job.value = jobs[0]
        if not jobs and not running and not finished and dut.issue_idle.value == 1:
            return {"events": events}
    raise AssertionError(f"{scenario['name']}: not done within {LIMIT} cycles, {len(jobs)} jobs are left")


def _integers(words: Any) -> Iterator[int]:
    return (int.from_bytes(word.tobytes(), "little") for word in words)


@cocotb.test()
async def play(dut: Any) -> None:
    """Play every scenario of the job."""
    folder = Path(os.environ["EDGEMOE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "inputs.npz", allow_pickle=False)
    Clock(dut.ap_clk, 2, unit="ns").start()
    dut.address_0.value, dut.address_1.value = job["addresses"]
    ports = [
        Port(dut, number, address, arrays[f"port_{number}"].tobytes(), job["outstanding"])
        for number, address in enumerate(job["addresses"])
    ]
    bus = AxiBus.from_prefix(dut, "m2_axi")
    ram = AxiRam(bus, dut.ap_clk, dut.ap_rst_n, reset_active_level=False, size=job["ram_bytes"])
    for interface in (ram.read_if, ram.write_if):
        interface.log.setLevel("WARNING")
    ram.write(0, arrays["ram"].tobytes())
    records = list(_integers(arrays["records"]))
    results = [await stream(dut, scenario, records, ports) for scenario in job["streams"]]
    results += [await issue(dut, scenario, records) for scenario in job["issues"]]
    results += [await copy(dut, ram, scenario) for scenario in job["copies"]]
    (folder / "results.json").write_text(json.dumps(results))
    np.savez(folder / "outputs.npz", ram=np.frombuffer(ram.read(0, job["ram_bytes"]), np.uint8))
