"""The accelerator's AXI masters and its weight streamer in simulation, under latencies and stalls of all kinds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.architecture import Architecture
from codegen.hardware import Hardware
from codegen.rtl.library import write_library
from codegen.rtl.simulation import build, simulate
from codegen.schedule import Engine, Job, job_table
from codegen.weight_image import pack_weights, port_images
from designs import random_design
from pysim.precision import PRESETS
from test_record import specs

pytestmark = pytest.mark.rtl

BENCH = Path(__file__).parent / "rtl/ports_bench.sv"
HARDWARE = Hardware(lanes=8, outputs=16, attention_rows=4, axi_width=64, weight_ports=2)
PORTS = ("*",)
ADDRESSES = (0x3_0000_0000 + 8 * 37, 0x7000)
"""Bases of the ports' shares: each port's own alignment."""
OUTSTANDING = 4
RAM_BYTES = 1 << 16
RUNS = "runs"

Loads = list[tuple[Job, list[bytes]]]


@cache
def design() -> tuple[Architecture, tuple[Job, ...], np.ndarray[Any, np.dtype[np.uint8]]]:
    made = random_design(specs()["odd"], PRESETS["w8a8"], HARDWARE.attention_rows)
    architecture = Architecture(made.network, HARDWARE)
    return architecture, job_table(architecture), pack_weights(made, architecture)


def scenario(name: str, *, latency: int, stalls: bool, speculate: bool, **changes: Any) -> dict[str, Any]:
    plain = {"seed": 1, "task": 0, "masks": [0b101, 0b010], "decides_after": 40, "eager": 0.8}
    return {
        "name": name,
        "latency": latency,
        "stalls": stalls,
        "speculate": speculate,
        "router": int(Engine.ROUTER),
        **plain,
        **changes,
    }


STREAMS = [
    scenario("at once", latency=1, stalls=False, speculate=True, decides_after=1),
    scenario("task 1, stalls", latency=3, stalls=True, speculate=True, task=1),
    scenario("far away", latency=400, stalls=False, speculate=True),
    scenario("far away, stalls", latency=400, stalls=True, speculate=True, seed=5, decides_after=900),
    scenario("no expert has tokens", latency=80, stalls=False, speculate=True, masks=[0, 0]),
    scenario("slow consumer", latency=1, stalls=True, speculate=True, eager=0.1, masks=[0b111, 0b100]),
    scenario("not on the chance", latency=80, stalls=False, speculate=False, decides_after=300),
    scenario("not on the chance, stalls", latency=20, stalls=True, speculate=False, masks=[0b001, 0b110]),
]
ISSUES: list[dict[str, Any]] = [
    {"name": "quick engines", "seed": 1, "longest": 3, "lengths": [[3, 0, 7], [0, 0, 1]]},
    {"name": "slow engines", "seed": 2, "longest": 60, "lengths": [[0, 5, 5], [2, 2, 2]]},
    {"name": "no expert at all", "seed": 3, "longest": 20, "lengths": [[0, 0, 0], [0, 0, 0]]},
]
COPIES: list[dict[str, Any]] = [
    {"name": "free", "seed": 3, "stalls": False},
    {"name": "stalled", "seed": 4, "stalls": True},
]
STRETCHES = [
    (0, 1 << 15, 1),
    (4096 - 8, (1 << 15) + 4096 - 16, 2),
    (8, (1 << 15) + 8192 - 24, 200),
    (3000, 50000, 517),
]
"""Where from, where to, and how many beats of 8 bytes."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """Results of every scenario by name, and the memory that was copied in."""
    folder = tmp_path_factory.mktemp("ports")
    sources = [
        *write_library(folder, "edgemoe_weight_streamer", "edgemoe_axi_write", "edgemoe_scoreboard"),
        BENCH,
    ]
    built = build(sources, "ports_bench", ports=PORTS)
    _, jobs, image = design()
    records = np.frombuffer(b"".join(job.encode() for job in jobs), np.uint8).reshape(-1, Job.RECORD_BYTES)
    ram = np.random.default_rng(2).integers(0, 256, RAM_BYTES, np.uint8)
    port_0, port_1 = port_images(image, 2)
    np.savez(folder / "inputs.npz", records=records, ram=ram, port_0=port_0, port_1=port_1)
    issues = [{**case, "router": int(Engine.ROUTER)} for case in ISSUES]
    copies = [{**copied, "stretches": STRETCHES} for copied in COPIES]
    job = {"addresses": ADDRESSES, "outstanding": OUTSTANDING, "ram_bytes": RAM_BYTES}
    (folder / "job.json").write_text(
        json.dumps(job | {"streams": STREAMS, "issues": issues, "copies": copies})
    )
    simulate("ports_bench", "ports_cocotb", built, folder)
    results = json.loads((folder / "results.json").read_text())
    names = [each["name"] for each in (*STREAMS, *ISSUES, *COPIES)]
    with np.load(folder / "outputs.npz") as saved:
        return dict(zip(names, results, strict=True)), (ram, saved["ram"])


def running(case: dict[str, Any]) -> list[Job]:
    """Jobs that have beats and are not those of an idle expert."""
    found, masks, mask = [], iter(case["masks"]), 0
    for job in design()[1]:
        if job.engine is Engine.ROUTER:
            mask = next(masks)
        if (job.beats or job.settings_beats) and not (job.skips_if_empty and not mask >> job.index & 1):
            found.append(job)
    return found


def beats_of(job: Job, task: int) -> list[int]:
    first = job.first + task * job.task_beats
    words = design()[2][first : first + job.settings_beats + job.beats]
    return [int.from_bytes(word.tobytes(), "little") for word in words]


@pytest.mark.parametrize("case", STREAMS, ids=[case["name"] for case in STREAMS])
def test_running_jobs_get_their_beats_in_order(case: dict[str, Any], played: Any) -> None:
    result = played[0][case["name"]]
    wanted = running(case)
    loads = [Job.decode(record.to_bytes(Job.RECORD_BYTES, "little")) for record in result["loads"]]
    assert loads == wanted
    assert result["beats"] == [beat for job in wanted for beat in beats_of(job, case["task"])]
    needed = len(result["beats"])
    for asked in result["asked"]:
        assert asked == needed if not case["speculate"] else asked >= needed


def test_experts_are_fetched_before_the_router_has_decided(played: Any) -> None:
    """The same network, latency and stalls: what was fetched on the chance costs traffic, and saves time."""
    results = played[0]
    far, idle = results["far away"], results["no expert has tokens"]
    assert far["asked"][0] > len(far["beats"])
    assert idle["asked"][0] > len(idle["beats"])
    assert idle["cycles"] < far["cycles"]


@pytest.mark.parametrize("case", ISSUES, ids=[str(case["name"]) for case in ISSUES])
def test_jobs_start_once_what_they_wait_for_is_done(case: dict[str, Any], played: Any) -> None:
    """Jobs that are skipped never start; all others do, with the rows of their queue where it is that."""
    jobs, lengths, length, wanted = design()[1], iter(case["lengths"]), [0, 0, 0], {}
    for number, job in enumerate(jobs):
        if job.engine is Engine.ROUTER:
            length = next(lengths)
        if not (job.skips_if_empty and length[job.index] == 0):
            wanted[number] = job.rows or length[job.index]
    events = played[0][case["name"]]["events"]
    started = {event[0]: event[1] for event in events if len(event) == 2}
    assert started == wanted
    place = {(event[0], len(event)): when for when, event in enumerate(events)}
    for number in wanted:
        for earlier in range(number):
            waits = jobs[earlier].engine in (*jobs[number].waits_for, jobs[number].engine)
            if waits and earlier in wanted:
                assert place[earlier, 1] < place[number, 2], (earlier, number)


def test_engines_run_side_by_side(played: Any) -> None:
    """The first jobs wait for nothing: positions and pixels come in together."""
    events = played[0]["slow engines"]["events"]
    started = {event[0]: when for when, event in enumerate(events) if len(event) == 2}
    done = {event[0]: when for when, event in enumerate(events) if len(event) == 1}
    jobs = design()[1]
    positions, pixels = (
        next(number for number, job in enumerate(jobs) if job.engine is engine)
        for engine in (Engine.POSITIONS, Engine.PIXELS)
    )
    assert started[positions] < done[pixels] and started[pixels] < done[positions]


def test_memory_is_read_and_written_as_told(played: Any) -> None:
    results, (before, after) = played
    wanted = before.copy()
    for copied in COPIES:
        for (source, target, beats), words in zip(STRETCHES, results[copied["name"]]["read"], strict=True):
            data = b"".join(word.to_bytes(8, "little") for word in words)
            assert data == wanted[source : source + 8 * beats].tobytes()
            wanted[target : target + 8 * beats] = np.frombuffer(data, np.uint8)
    np.testing.assert_array_equal(after, wanted, strict=True)
