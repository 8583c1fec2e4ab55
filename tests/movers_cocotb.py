"""The cocotb side of `test_rtl_movers.py`: calls, with everything but the modules under test played here."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from codegen.rtl.bench import pauses
from codegen.schedule import Engine, Job, Region

CORES = (Engine.LINEAR, Engine.NORM, Engine.ROUTER)
SETTLERS = (Engine.LINEAR, Engine.NORM, Engine.ATTENTION)
MOVERS = (Engine.POSITIONS, Engine.PIXELS, Engine.PATCH_QUEUE, Engine.GATHER, Engine.OUTPUT)
LIMIT = 60_000
"""Cycles that a call takes at most."""
QUIET = 600
"""Cycles after which a table that is refused has had its chance."""


class Play:
    """One call on the modules: what the test wants to know of it is in `found`."""

    def __init__(self, dut: Any, sizes: dict[str, int], arrays: Any, case: dict[str, Any]) -> None:
        self.dut, self.sizes, self.case = dut, sizes, case
        self.image = [int.from_bytes(beat.tobytes(), "little") for beat in arrays[case["image"]]]
        self.values = {
            name: arrays[f"{case['name']}.{name}"] for name in ("norm", "residual", "heads", "scores")
        }
        self.generator = np.random.default_rng(case["seed"])
        self.stalls = np.random.default_rng([case["seed"], 1]) if case["stalls"] else None
        self.found: dict[str, Any] = {"fetched": [], "issued": [], "loads": [], "settings": []}
        self.loads: deque[Job] = deque()
        self.jobs: deque[Job] = deque()
        self.linear_loads = self.linear_done = self.router = self.handed = 0
        self.lengths: list[int] = []

    def free(self, share: float = 0.6) -> bool:
        """Whether something goes on in this cycle."""
        return self.stalls is None or bool(self.stalls.random() < share)

    # ---- What surrounds the modules.

    async def stream(self) -> None:
        """The fetcher and the scoreboard take the jobs."""
        dut = self.dut
        while True:
            for name in ("fetch", "issue"):
                getattr(dut, f"{name}_ready").value = int(self.free())
            await RisingEdge(dut.ap_clk)
            for name, said, found in (("fetch", "fetched", self.loads), ("issue", "issued", self.jobs)):
                if getattr(dut, f"{name}_valid").value == 1 and getattr(dut, f"{name}_ready").value == 1:
                    record = int(getattr(dut, f"{name}_job").value).to_bytes(Job.RECORD_BYTES, "little")
                    self.found[said].append(record.hex())
                    found.append(Job.decode(record))

    async def load(self) -> None:
        """The streamer hands on the beats of the jobs that have any."""
        dut = self.dut
        while True:
            while not self.loads:
                await RisingEdge(dut.ap_clk)
            job = self.loads.popleft()
            beats = self.image[job.first : job.first + job.settings_beats + job.beats]
            if not beats:
                continue
            dut.load_job.value = int.from_bytes(job.encode(), "little")
            await self._hand(dut.load_valid, dut.load_ready)
            for number, beat in enumerate(beats):
                while not self.free():
                    await RisingEdge(dut.ap_clk)
                dut.in_beat.value = beat
                dut.in_last.value = int(number == len(beats) - 1)
                await self._hand(dut.in_valid, dut.in_ready)
            self.handed += 1

    async def _hand(self, valid: Any, ready: Any) -> None:
        valid.value = 1
        await RisingEdge(self.dut.ap_clk)
        while ready.value != 1:
            await RisingEdge(self.dut.ap_clk)
        valid.value = 0

    async def cores(self) -> None:
        """The cores take loads and beats; the linear one has two layers under way at most."""
        dut, taking = self.dut, [0, 0, 0]
        while True:
            beat_ready = load_ready = 0
            for core in range(len(CORES)):
                beat_ready |= int(self.free()) << core
                ahead = core == 0 and self.linear_loads - self.linear_done >= 2
                load_ready |= int(self.free() and not ahead) << core
            dut.core_beat_ready.value, dut.core_load_ready.value = beat_ready, load_ready
            await RisingEdge(dut.ap_clk)
            loads, beats = int(dut.core_load_valid.value), int(dut.core_beat_valid.value)
            assert bin(loads).count("1") <= 1 and bin(beats).count("1") <= 1
            for core, engine in enumerate(CORES):
                if loads & load_ready & 1 << core:
                    taking[core] = len(self.found["loads"])
                    names = ("load_words", "load_blocks", "load_groups", "load_record_beats")
                    self.found["loads"].append(
                        [int(engine), [int(getattr(dut, name).value) for name in names], []]
                    )
                    self.linear_loads += core == 0
                if beats & beat_ready & 1 << core:
                    self.found["loads"][taking[core]][2].append(f"{int(dut.beat.value):x}")

    # ---- What the engines do, job after job.

    async def run(self) -> None:
        """All jobs of the table, each when the one before is done."""
        while True:
            while not self.jobs:
                await RisingEdge(self.dut.ap_clk)
            job = self.jobs.popleft()
            idle = job.skips_if_empty and self.lengths[job.index] == 0
            rows = self.lengths[job.index] if job.skips_if_empty else job.rows * self.case["batch"]
            if job.engine in MOVERS and not idle:
                await self._move(job, rows)
            if job.engine in SETTLERS and job.layer is not None and not job.is_fill:
                await self._settle(job)
            if not idle:
                await self._compute(job, rows)
            self.linear_done += job.engine is Engine.LINEAR and not job.is_fill
            if job.engine is Engine.OUTPUT:
                return

    async def _move(self, job: Job, rows: int) -> None:
        """Start a mover, and look at what it did once it is done."""
        dut, place = self.dut, MOVERS.index(job.engine)
        dut.start_job.value, dut.start_rows.value = int.from_bytes(job.encode(), "little"), rows
        dut.start_valid.value = 1 << place
        await RisingEdge(dut.ap_clk)
        while not int(dut.start_ready.value) >> place & 1:
            await RisingEdge(dut.ap_clk)
        dut.start_valid.value = 0
        cycles = 0
        while int(dut.done.value) != 1 << place:
            assert int(dut.done.value) == 0
            await RisingEdge(dut.ap_clk)
            cycles += 1
        if job.engine is Engine.POSITIONS:
            self.found["epsilon"] = int(dut.epsilon.value)
            self.found["positions"] = await self._residual()
        elif job.engine is Engine.PIXELS:
            self.found["pixels"] = await self._tiles(rows, job.destination_word, job.out_words)
        elif job.engine is Engine.PATCH_QUEUE:
            self.found["patches"] = [token for token, _ in await self._queue(0, rows)]
        elif job.engine is Engine.GATHER:
            gathered = await self._tiles(rows, job.destination_word, job.out_words)
            self.found.setdefault("gathered", []).append([job.layer, job.index, cycles, gathered])

    async def _settle(self, job: Job) -> None:
        """The settings that an engine finds for a job."""
        dut, place = self.dut, SETTLERS.index(job.engine)
        dut.setting_job.value = int.from_bytes(job.encode(), "little")
        dut.setting_valid.value = 1 << place
        await RisingEdge(dut.ap_clk)
        while not int(dut.setting_ready.value) >> place & 1:
            await RisingEdge(dut.ap_clk)
        names = {
            Engine.LINEAR: ("linear_multiplier", "linear_shift", "linear_zero"),
            Engine.NORM: ("norm_shift", "norm_gate_shift"),
            Engine.ATTENTION: ("attention_score_shift", "attention_shift"),
        }[job.engine]
        found = [int(getattr(dut, name).value) for name in names]
        self.found["settings"].append([int(job.engine), job.layer, job.setting, found])
        dut.setting_taken.value = 1 << place
        await RisingEdge(dut.ap_clk)
        dut.setting_valid.value = dut.setting_taken.value = 0
        await RisingEdge(dut.ap_clk)
        assert int(dut.setting_ready.value) == 0

    async def _compute(self, job: Job, rows: int) -> None:
        """What a core would write to the memories, or read there."""
        dut, sizes = self.dut, self.sizes
        if job.to_router:
            bits = sizes["X_BITS"]
            await self._write(dut.operand_write, self.values["norm"][job.layer], job.destination_word, bits)
        elif job.engine is Engine.ROUTER:
            await self._route(job, rows)
        elif job.engine is Engine.LINEAR and job.destination is Region.HEADS:
            dut.mixed_words.value = job.mixed_words
            await self._write(dut.head_write, self.values["heads"][job.layer], 0, sizes["HEAD_BITS"])
        elif job.engine is Engine.LINEAR and job.weighted and job.layer is not None:
            values = self.values["residual"][job.layer]
            await self._write(dut.residual_write, values, 0, sizes["RESIDUAL_BITS"])
        elif job.engine is Engine.ATTENTION:
            self.found.setdefault("heads", []).append(await self._heads(job, rows))

    async def _write(self, enable: Any, values: Any, first: int, bits: int) -> None:
        """Write (tokens, words, lanes), words in any order and with gaps."""
        dut = self.dut
        tokens, words, _ = values.shape
        for place in self.generator.permutation(tokens * words):
            token, word = divmod(int(place), words)
            dut.token.value, dut.word.value = token, first + word
            dut.write_data.value = pack(values[token, word], bits)
            enable.value = 1
            await RisingEdge(dut.ap_clk)
            enable.value = 0
            if not self.free(0.9):
                await RisingEdge(dut.ap_clk)

    async def _route(self, job: Job, rows: int) -> None:
        """Tokens enter the queues that the test chose; then the lengths, and the entries."""
        dut, chosen = self.dut, self.case["chosen"][self.router]
        scores = self.values["scores"][self.router]
        dut.clear.value = 1
        await RisingEdge(dut.ap_clk)
        dut.clear.value = 0
        self.lengths = [0] * job.count
        entries = [(token, expert) for token in range(rows) for expert in chosen[token]]
        for number, (token, expert) in enumerate(entries):
            dut.token.value, dut.entry_expert.value = token, expert
            dut.entry_place.value, dut.entry_score.value = self.lengths[expert], int(scores[token, expert])
            dut.entry_valid.value = 1
            dut.router_done.value = int(number == len(entries) - 1)
            await RisingEdge(dut.ap_clk)
            dut.entry_valid.value = dut.router_done.value = 0
            self.lengths[expert] += 1
        await RisingEdge(dut.ap_clk)
        assert int(dut.decided.value) == self.router
        await ClockCycles(dut.ap_clk, 2)
        self.router += 1
        mask = (1 << 16) - 1
        lengths = [int(dut.lengths.value) >> 16 * expert & mask for expert in range(job.count)]
        queues = [await self._queue(expert, length) for expert, length in enumerate(lengths)]
        decision = [int(dut.decided.value), int(dut.active.value), lengths, queues]
        self.found.setdefault("routed", []).append(decision)

    # ---- Reading: a place a cycle, the word of each so many cycles later.

    async def _sweep(
        self, places: int, ask: Callable[[int], None], read: Callable[[], Any], latency: int
    ) -> list[Any]:
        """What is read, by place. The last place comes first: it was written last."""
        found: list[Any] = []
        for number in range(places + latency):
            if number < places:
                ask(places - 1 - number)
            elif number == places:
                self._rest_reading()
            await RisingEdge(self.dut.ap_clk)
            if number >= latency:
                found.append(read())
        return found[::-1]

    def _rest_reading(self) -> None:
        for name in ("residual_read", "tile_enable", "write_back_enable"):
            getattr(self.dut, name).value = 0

    async def _residual(self) -> list[list[int]]:
        """The residual stream of all tokens, word after word."""
        dut, sizes = self.dut, self.sizes
        words, tokens = sizes["TOKEN_WORDS"], self.case["batch"] * self.case["tokens"]

        def ask(first: int, number: int) -> None:
            dut.token.value, dut.word.value = divmod(first + number, words)
            dut.residual_read.value = 1

        def read() -> list[int]:
            assert dut.residual_valid.value == 1
            return unpack(dut.residual_data, sizes["LANES"], sizes["RESIDUAL_BITS"])

        # By stretches, so that it is also seen when nobody reads.
        latency = sizes["RESIDUAL_SETUP"] + sizes["LATENCY"]
        found: list[list[int]] = []
        while len(found) < tokens * words:
            places = min(7, tokens * words - len(found))
            first = tokens * words - len(found) - places
            found = await self._sweep(places, partial(ask, first), read, latency) + found
            await ClockCycles(dut.ap_clk, latency + 1)
            assert dut.residual_valid.value == 0
        return found

    async def _tiles(self, rows: int, first: int, words: int) -> list[list[int]]:
        """Words of so many rows of the operand memory, row after row, read a tile at once."""
        dut, sizes = self.dut, self.sizes
        tile, lanes = sizes["TOKEN_TILE"], sizes["LANES"]
        tiles = -(-rows // tile)

        def ask(number: int) -> None:
            dut.tile_enable.value = 1
            dut.tile_address.value = number // words * sizes["ROW_WORDS"] + first + number % words

        def read() -> list[int]:
            return unpack(dut.tile_data, tile * lanes, sizes["X_BITS"])

        await ClockCycles(dut.ap_clk, 4)
        found = np.array(await self._sweep(tiles * words, ask, read, sizes["LATENCY"]))
        by_row = found.reshape(tiles, words, tile, lanes).transpose(0, 2, 1, 3)
        return by_row.reshape(-1, lanes)[: rows * words].tolist()

    async def _queue(self, expert: int, length: int) -> list[list[int]]:
        """Tokens and scores of a queue."""
        dut = self.dut

        def ask(number: int) -> None:
            dut.write_back_enable.value = 1
            dut.entry_expert.value, dut.entry_place.value = expert, number

        def read() -> list[int]:
            return [int(dut.queue_token.value), int(dut.queue_score.value)]

        await RisingEdge(dut.ap_clk)
        return await self._sweep(length, ask, read, self.sizes["LATENCY"])

    async def _heads(self, job: Job, rows: int) -> list[list[list[int]]]:
        """Queries, keys and values, each read in another order."""
        dut, sizes = self.dut, self.sizes
        places = rows * job.mixed_words
        orders = [np.random.default_rng(number).permutation(places) for number in range(3)]
        names = ("q", "k", "v")

        def ask(number: int) -> None:
            for name, order in zip(names, orders, strict=True):
                token, word = divmod(int(order[number]), job.mixed_words)
                getattr(dut, f"{name}_address").value = token * sizes["MIXED_WORDS"] + word

        def read() -> list[list[int]]:
            return [unpack(getattr(dut, name), sizes["LANES"], sizes["HEAD_BITS"]) for name in names]

        await RisingEdge(dut.ap_clk)
        await RisingEdge(dut.ap_clk)
        words = np.array(await self._sweep(places, ask, read, sizes["LATENCY"]))
        found = np.empty_like(words)
        for number, order in enumerate(orders):
            found[order, number] = words[:, number]
        return found.transpose(1, 0, 2).tolist()


def pack(values: Sequence[int], bits: int) -> int:
    """Numbers side by side, the first in the lowest bits."""
    mask = (1 << bits) - 1
    return sum((int(value) & mask) << bits * place for place, value in enumerate(values))


def unpack(signal: Any, count: int, bits: int) -> list[int]:
    """Signed numbers out of a signal."""
    whole, half = int(signal.value), 1 << (bits - 1)
    return [((whole >> bits * place & 2 * half - 1) ^ half) - half for place in range(count)]


RESTING = """
    restart fetch_ready issue_ready load_valid in_valid core_beat_ready core_load_ready setting_valid setting_taken
    start_valid token word residual_write operand_write head_write residual_read tile_enable tile_address q_address
    k_address v_address clear entry_valid entry_expert entry_place router_done write_back_enable
"""


async def rest(dut: Any) -> None:
    """All inputs at rest."""
    for name in RESTING.split():
        getattr(dut, name).value = 0
    await RisingEdge(dut.ap_clk)


async def call(dut: Any, job: dict[str, Any], arrays: Any, case: dict[str, Any]) -> dict[str, Any]:
    """Play a call: all of a table, or a table that is refused."""
    play = Play(dut, job["sizes"], arrays, case)
    dut.image_address.value, dut.output_address.value = case["pixels_at"], case["output_at"]
    dut.restart.value = 1
    await RisingEdge(dut.ap_clk)
    dut.restart.value = 0
    tasks = [cocotb.start_soon(part()) for part in (play.stream, play.load, play.cores)]
    main = cocotb.start_soon(play.run())
    for _ in range(LIMIT if case["refused"] is None else QUIET):
        # The next call may follow on the last beat of a table that is refused.
        if main.done() or play.handed == case["hurry"]:
            break
        await RisingEdge(dut.ap_clk)
    assert main.done() == (case["refused"] is None), f"{case['name']}: jobs are left: {list(play.jobs)[:3]}"
    if main.done():
        main.result()
    for task in (*tasks, main):
        task.cancel()
    flags = {
        name: int(getattr(dut, name).value) for name in ("bad_version", "overflow", "all_issued", "failed")
    }
    await rest(dut)
    return play.found | flags


@cocotb.test()
async def play(dut: Any) -> None:
    """Play every call of the job, without a reset between them."""
    folder = Path(os.environ["EDGEMOE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "inputs.npz", allow_pickle=False)
    dut.ap_rst_n.value = 0
    Clock(dut.ap_clk, 2, unit="ns").start()
    bus = AxiBus.from_prefix(dut, "m_axi")
    ram = AxiRam(bus, dut.ap_clk, dut.ap_rst_n, reset_active_level=False, size=job["ram_bytes"])
    for interface in (ram.read_if, ram.write_if):
        interface.log.setLevel("WARNING")
    ram.write(0, arrays["ram"].tobytes())
    await rest(dut)
    await ClockCycles(dut.ap_clk, 4)
    dut.ap_rst_n.value = 1
    results = []
    channels = [ram.read_if.ar_channel, ram.read_if.r_channel]
    channels += [ram.write_if.aw_channel, ram.write_if.w_channel, ram.write_if.b_channel]
    for case in job["calls"]:
        for number, channel in enumerate(channels):
            channel.clear_pause_generator()
            channel.pause = False
            if case["stalls"]:
                channel.set_pause_generator(pauses(np.random.default_rng([case["seed"], number])))
        results.append(await call(dut, job, arrays, case))
    (folder / "results.json").write_text(json.dumps(results))
    np.savez(folder / "outputs.npz", ram=np.frombuffer(ram.read(0, job["ram_bytes"]), np.uint8))
