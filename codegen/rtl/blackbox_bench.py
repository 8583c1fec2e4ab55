"""The cocotb test that plays arguments on an RTL blackbox (ap_ctrl_chain) inside the simulator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly, RisingEdge

PERIOD_NS = 2
QUIET_CYCLES = 1000
"""A result that does not come within so many cycles never comes."""


@cocotb.test()
async def play(dut: Any) -> None:
    """Start as often as the blackbox lets us; in a second run with random stalls on either side."""
    folder = Path(os.environ["EDGEMOE_JOB"])
    job = np.load(folder / "inputs.npz", allow_pickle=False)
    argument = getattr(dut, str(job["argument"]))
    values = [int(value) for value in job["values"]]
    Clock(dut.ap_clk, PERIOD_NS, unit="ns").start()
    saved: dict[str, Any] = {}
    for name, generator in (("free", None), ("stalled", np.random.default_rng(int(job["seed"])))):
        dut.ap_rst.value = 1
        dut.ap_ce.value, dut.ap_start.value, dut.ap_continue.value = 1, 0, 1
        await ClockCycles(dut.ap_clk, 4)
        await FallingEdge(dut.ap_clk)
        dut.ap_rst.value = 0
        results: list[int] = []
        started: list[int] = []
        given: list[int] = []
        cycle = 0
        while len(results) < len(values) and cycle < QUIET_CYCLES + 8 * len(values):
            # Signals change at the falling edge, so that what is seen before the rising one is what counts.
            await FallingEdge(dut.ap_clk)
            stalls = (1, 1, 1) if generator is None else generator.integers(0, 4, 3).clip(0, 1)
            dut.ap_ce.value, dut.ap_continue.value = int(stalls[0]), int(stalls[1])
            dut.ap_start.value = int(len(started) < len(values) and bool(stalls[2]))
            argument.value = values[min(len(started), len(values) - 1)]
            await ReadOnly()
            if dut.ap_done.value == 1 and dut.ap_ce.value == 1 and dut.ap_continue.value == 1:
                results.append(int(dut.ap_return.value))
                given.append(cycle)
            if dut.ap_ready.value == 1:
                started.append(cycle)
            await RisingEdge(dut.ap_clk)
            cycle += 1
        saved[f"{name}.results"] = np.array(results, np.uint64)
        saved[f"{name}.started"], saved[f"{name}.given"] = np.array(started), np.array(given)
        await ClockCycles(dut.ap_clk, 2)
        saved[f"{name}.idle"] = np.array(int(dut.ap_idle.value))
    np.savez(folder / "outputs.npz", **saved)
