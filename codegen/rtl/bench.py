"""The cocotb test that plays calls of one kernel, whichever it is, inside the simulator.

It knows a kernel only by the names in the job file: streams, registers, frames. So the same test drives our
own SystemVerilog and the Verilog that Vitis HLS writes. Nothing is compared here: what came out is saved, and
whoever wrote the job compares it. Only the rules of the protocol are checked on the spot.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge, SimTimeoutError, with_timeout
from cocotb.utils import get_sim_time
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

PERIOD_NS = 2
RESET_CYCLES = 4
CONTROL, START, AUTO_RESTART = 0x00, 0x01, 0x80


class ProtocolError(Exception):
    """The kernel broke a rule of AXI4-Stream, or hangs."""


class Bench:
    """A kernel with a source on each of its inputs and a sink on each of its outputs."""

    def __init__(self, dut: Any, job: dict[str, Any]) -> None:
        """Find the ports that the job names."""
        self.dut = dut
        self.job = job
        Clock(dut.ap_clk, PERIOD_NS, unit="ns").start()
        reset = {"reset": dut.ap_rst_n, "reset_active_level": False}
        self.sources = {name: self._stream(AxiStreamSource, name, reset) for name in job["inputs"]}
        self.sinks = {name: self._stream(AxiStreamSink, name, reset) for name in job["outputs"]}
        self.control = None
        if job["registers"]:
            self.control = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_control"), dut.ap_clk, **reset)
        for logger in [self.control.write_if.log, self.control.read_if.log] if self.control else []:
            logger.setLevel(logging.WARNING)

    def _stream(self, kind: Any, name: str, reset: dict[str, Any]) -> Any:
        logging.getLogger(f"cocotb.{self.dut._name}.{name}").setLevel(logging.WARNING)
        bus = AxiStreamBus.from_prefix(self.dut, name)
        # A beat is one number, however wide.
        return kind(bus, self.dut.ap_clk, byte_size=len(bus.tdata), **reset)

    async def reset(self) -> None:
        """A reset of a few cycles; frames under way are forgotten."""
        self.dut.ap_rst_n.value = 0
        await ClockCycles(self.dut.ap_clk, RESET_CYCLES)
        for end in (*self.sources.values(), *self.sinks.values()):
            end.clear()
            end.current_frame = None
        self.dut.ap_rst_n.value = 1
        await ClockCycles(self.dut.ap_clk, RESET_CYCLES)

    def stall(self, seed: int | None) -> None:
        """Let every source and sink pause at random; with None, none does."""
        for number, end in enumerate((*self.sources.values(), *self.sinks.values())):
            end.clear_pause_generator()
            end.pause = False
            if seed is not None:
                end.set_pause_generator(pauses(np.random.default_rng([seed, number])))

    async def start(self, calls: list[dict[str, Any]], arrays: Any) -> None:
        """Queue all frames at the inputs, write the arguments, and start; the calls follow each other."""
        for call in calls:
            for name, frames in call["inputs"].items():
                for frame in frames:
                    self.sources[name].send_nowait(AxiStreamFrame(_integers(arrays[frame])))
        if self.control is None:
            return
        for name, value in calls[0]["registers"].items():
            offset, words = self.job["registers"][name]
            for word in range(words):
                await self.control.write_dword(offset + 4 * word, (value >> (32 * word)) & 0xFFFFFFFF)
        await self.control.write_dword(CONTROL, START | (AUTO_RESTART if len(calls) > 1 else 0))

    async def finish(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Wait for what the calls give."""
        results = []
        for call in calls:
            outputs = {}
            for name, frames in call["outputs"].items():
                outputs[name] = [await self._frame(name, call["limit"]) for _ in range(frames)]
            ends = [frame.sim_time_end for frames in outputs.values() for frame in frames]
            results.append({"outputs": outputs, "end": max(ends)})
        return results

    async def _frame(self, name: str, limit: int) -> Any:
        try:
            return await with_timeout(self.sinks[name].recv(), PERIOD_NS * limit, "ns")
        except SimTimeoutError:
            waiting = {source: end.count() + end.active for source, end in self.sources.items()}
            message = f"no frame of {name} within {limit} cycles; frames that wait at the inputs: {waiting}"
            raise ProtocolError(message) from None


def pauses(generator: np.random.Generator) -> Iterator[bool]:
    """Runs of stalled and of free cycles, of random lengths."""
    while True:
        yield from itertools.repeat(True, int(generator.integers(0, 4)))
        yield from itertools.repeat(False, int(generator.integers(1, 6)))


def _integers(beats: Any) -> list[int]:
    return [int.from_bytes(beat.tobytes(), "little") for beat in beats]


async def _first_beat(dut: Any, names: list[str]) -> int:
    """Time of the clock edge at which the first beat goes in anywhere."""
    ports = [(getattr(dut, f"{name}_TVALID"), getattr(dut, f"{name}_TREADY")) for name in names]
    while True:
        await RisingEdge(dut.ap_clk)
        if any(valid.value == 1 and ready.value == 1 for valid, ready in ports):
            return int(get_sim_time())


async def _keep_rules(dut: Any, names: list[str]) -> None:
    """A beat that was offered stays until it is taken (AXI4-Stream, section 2.2.1)."""
    offered: dict[str, tuple[Any, Any]] = {}
    while True:
        await RisingEdge(dut.ap_clk)
        await ReadOnly()
        if dut.ap_rst_n.value == 0:
            offered.clear()
            continue
        for name in names:
            beat = (getattr(dut, f"{name}_TDATA").value, getattr(dut, f"{name}_TLAST").value)
            valid, ready = getattr(dut, f"{name}_TVALID").value, getattr(dut, f"{name}_TREADY").value
            if name in offered and (valid == 0 or beat != offered[name]):
                raise ProtocolError(f"{name}: a beat changed or vanished before it was taken")
            if valid == 1 and ready == 0:
                offered[name] = beat
            else:
                offered.pop(name, None)


@cocotb.test()
async def play(dut: Any) -> None:
    """Play every scenario of the job; each begins with a reset."""
    folder = Path(os.environ["EDGEMOE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "inputs.npz", allow_pickle=False)
    bench = Bench(dut, job)
    saved: dict[str, Any] = {}
    for number, scenario in enumerate(job["scenarios"]):
        cocotb.log.info("scenario %s", scenario["name"])
        bench.stall(None)
        await bench.reset()
        rules = None
        if scenario["stalls"] is not None:
            bench.stall(scenario["stalls"])
            rules = cocotb.start_soon(_keep_rules(dut, job["outputs"]))
        if scenario["reset_after"] is not None:
            await bench.start(scenario["calls"], arrays)
            await ClockCycles(dut.ap_clk, scenario["reset_after"])
            await bench.reset()
        watch = cocotb.start_soon(_first_beat(dut, job["inputs"]))
        try:
            await bench.start(scenario["calls"], arrays)
            results = await bench.finish(scenario["calls"])
        except ProtocolError as error:
            saved["failure"] = np.array(f"{scenario['name']}: {error}")
            break
        first = await watch
        if rules is not None:
            rules.cancel()
        period = get_sim_time_period()
        for index, result in enumerate(results):
            saved[f"{number}.{index}.cycles"] = np.array((result["end"] - first) // period + 1)
            for name, frames in result["outputs"].items():
                width = len(getattr(dut, f"{name}_TDATA")) // 8
                for position, frame in enumerate(frames):
                    data = b"".join(beat.to_bytes(width, "little") for beat in frame.tdata)
                    saved[f"{number}.{index}.{name}.{position}"] = np.frombuffer(data, np.uint8).reshape(
                        -1, width
                    )
        if job["has_flag"]:
            saved[f"{number}.malformed"] = np.array(int(dut.malformed.value))
    np.savez(folder / "outputs.npz", **saved)


def get_sim_time_period() -> int:
    """A clock cycle in the simulator's own steps."""
    return round(get_sim_time() / get_sim_time("ns") * PERIOD_NS)
