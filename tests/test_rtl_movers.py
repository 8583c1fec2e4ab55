"""The accelerator's memories, job table, loader and movers in simulation, with what the weight image really holds.

The modules are wired as inside the accelerator, and play whole calls; the test bench computes nothing. Expected values
come from the tensors of a Design and from the packing that host and code generator share.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codegen.architecture import HEADER, Architecture, ceil_div
from codegen.hardware import Hardware
from codegen.rtl.library import write_library
from codegen.rtl.simulation import build, simulate
from codegen.schedule import Engine, Job, Region, job_table
from codegen.weight_image import image_layout, output_layout, pack_weights
from common.packing import pack_images, unpack_tokens
from common.pictures import patches
from designs import random_design
from pysim.datapath import PROBABILITY
from pysim.design import Design
from pysim.precision import PRESETS
from pysim.spec import ModelSpec
from test_record import specs

pytestmark = pytest.mark.rtl

BENCH = Path(__file__).parent / "rtl/movers_bench.sv"
MODULES = (
    "job_memory",
    "parameter_loader",
    "positions",
    "shared_memory",
    "output",
    "pixels",
    "patch_queue",
    "queue_memory",
    "gather",
    "operand_memory",
    "head_memory",
)
LATENCY, RAM_BYTES = 2, 1 << 16
OPERAND_READ = 3 + LATENCY + 1
PIXELS_AT, OUTPUT_AT = 1024, 40960

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Setup:
    """A Design on some hardware, and the images that its calls have."""

    name: str
    spec: ModelSpec
    precision: str
    hardware: Hardware
    residual_setup: int

    @cached_property
    def design(self) -> Design:
        return random_design(self.spec, PRESETS[self.precision], self.hardware.attention_rows, seed=4)

    @cached_property
    def architecture(self) -> Architecture:
        return Architecture(self.design.network, self.hardware)

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        return job_table(self.architecture)

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        return pack_weights(self.design, self.architecture)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        shape = (self.hardware.max_batch, *self.spec.image_shape)
        return np.random.default_rng(5).integers(0, 256, shape, np.uint8)

    @cached_property
    def sizes(self) -> dict[str, int]:
        a, precision = self.architecture, self.architecture.precision
        return {
            "BEAT_BITS": 8 * a.beat_bytes,
            "PORT_BITS": self.hardware.axi_width,
            "JOBS": len(self.jobs),
            "LATENCY": LATENCY,
            "RESIDUAL_SETUP": self.residual_setup,
            "LANES": a.lanes,
            "X_BITS": a.operand_width,
            "RESIDUAL_BITS": a.network.residual_width,
            "HEAD_BITS": precision.attention_width,
            "WIDEST": max(a.operand_width, a.network.residual_width, precision.attention_width),
            "SCORE_BITS": PROBABILITY.width,
            "MULTIPLIER_BITS": a.multiplier_bits,
            "TOKEN_TILE": self.hardware.token_tile,
            "TOKENS": a.batch_tokens,
            "TOKEN_WORDS": a.token_words,
            "MIXED_WORDS": a.mixed_words,
            "ROW_WORDS": a.regions["row"],
            "EXPERTS": a.experts,
            "EXPERT_BITS": a.experts.bit_length(),
            "SETTINGS": len(a.settings),
            "GATE_SHIFT": a.settings.index("gate_shift"),
            "GROUP_BITS": a.gate_groups.bit_length(),
            "ROUTER_LANES": a.router_lanes,
            "RECORD_BEATS": a.gate_record_beats,
            "POSITION_BEATS": a.position_word_beats,
            "PIXEL_OFFSET": a.pixel_offset,
        }

    def words(self, rows: NDArray[Any]) -> IntArray:
        """Rows of channels as words of lanes, padded with zeros: (rows, words, lanes)."""
        lanes = self.architecture.lanes
        padded = np.zeros((len(rows), ceil_div(rows.shape[1], lanes) * lanes), np.int64)
        padded[:, : rows.shape[1]] = rows
        return padded.reshape(len(rows), -1, lanes)


# A record is no whole number of beats; a tile is no power of two; a word of the result has four beats.
NARROW = Setup(
    "narrow",
    specs()["odd"],
    "w8a8",
    Hardware(lanes=8, outputs=16, token_tile=3, attention_rows=4, axi_width=64, weight_ports=3, max_batch=3),
    2,
)
# Three records in a beat; words fill but a part of one.
WIDE = Setup(
    "wide",
    specs()["odd"],
    "w16a16",
    Hardware(lanes=4, outputs=8, token_tile=4, attention_rows=4, axi_width=512, weight_ports=3, max_batch=3),
    1,
)


def refusals(image: NDArray[np.uint8], jobs: tuple[Job, ...]) -> dict[str, tuple[NDArray[np.uint8], str]]:
    """Damaged weight images, and the flag that each of them sets."""

    def damaged(place: int, value: int) -> NDArray[np.uint8]:
        changed = image.copy()
        changed.reshape(-1)[place] = value
        return changed

    last = (len(jobs) - 1) * Job.RECORD_BYTES
    return {
        "version": (damaged(last // 2 // Job.RECORD_BYTES * Job.RECORD_BYTES, 9), "bad_version"),
        "first version": (damaged(0, 0), "bad_version"),
        "no end": (damaged(last + 1, Engine.GATHER), "overflow"),
        "too long": (damaged(42, 1), "overflow"),
    }


def inputs_of(setup: Setup, generator: np.random.Generator) -> dict[str, IntArray]:
    """What the engines write in a call, by layer: (layers, tokens, words, lanes) each; scores by router."""
    a = setup.architecture

    def any_of(bits: int, words: int) -> IntArray:
        shape = (setup.spec.depth, a.batch_tokens, words, a.lanes)
        return generator.integers(-(1 << bits - 1), 1 << bits - 1, shape)

    return {
        "norm": any_of(a.operand_width, a.token_words),
        "residual": any_of(a.network.residual_width, a.token_words),
        "heads": any_of(a.precision.attention_width, 3 * a.mixed_words),
        "scores": generator.integers(0, (1 << PROBABILITY.frac) + 1, (2, a.batch_tokens, a.experts)),
    }


@dataclass(frozen=True)
class Played:
    """Calls of a setup: what went in, and what came out."""

    setup: Setup
    calls: list[dict[str, Any]]
    inputs: Mapping[str, Mapping[str, IntArray]]
    results: list[dict[str, Any]]
    ram: NDArray[np.uint8]


def play(setup: Setup, folder: Path) -> Played:
    generator = np.random.default_rng(6)
    sizes = "".join(f"  localparam int {name} = {value};\n" for name, value in setup.sizes.items())
    package = folder / "movers_sizes.sv"
    package.write_text(f"package movers_sizes;\n{sizes}endpackage\n")
    library = write_library(folder, *(f"edgemoe_{name}" for name in MODULES))
    built = build([package, *library, BENCH], "movers_bench", ports=("*",))
    spec, batch = setup.spec, setup.hardware.max_batch
    plain = {"tokens": spec.tokens, "pixels_at": PIXELS_AT, "refused": None, "image": "image", "hurry": None}
    calls: list[dict[str, Any]] = []
    for name, images, stalls in (("all images", batch, False), ("one image, stalls", 1, True)):
        # The last expert of the first router has no token; nor have all but one of the second.
        choices = ([0], [1], [0, 1])
        chosen = [[choices[int(number)] for number in generator.integers(0, 3, images * spec.tokens)]]
        chosen.append([[1]] * (images * spec.tokens))
        at = OUTPUT_AT if images > 1 else 0
        calls.append(
            {**plain, "name": name, "batch": images, "stalls": stalls, "chosen": chosen, "output_at": at}
        )
    damages = refusals(setup.image, setup.jobs)
    for name, (_, flag) in damages.items():
        calls.insert(1, {**calls[0], "name": name, "image": name, "refused": flag})
    # The one before the last call: its table has come in with its second load.
    calls[-2]["hurry"] = 2
    assert calls[-2]["name"] == "version"
    arrays: dict[str, Any] = {name: image for name, (image, _) in damages.items()}
    arrays["image"] = setup.image
    inputs = {call["name"]: inputs_of(setup, generator) for call in calls}
    for call, seed in zip(calls, range(len(calls)), strict=True):
        call["seed"] = seed
        arrays |= {f"{call['name']}.{name}": values for name, values in inputs[call["name"]].items()}
    ram = generator.integers(0, 256, RAM_BYTES, np.uint8)
    packed = pack_images(setup.pixels, image_layout(setup.architecture))
    assert PIXELS_AT + len(packed) <= OUTPUT_AT
    ram[PIXELS_AT : PIXELS_AT + len(packed)] = packed
    np.savez(folder / "inputs.npz", ram=ram, **arrays)
    (folder / "job.json").write_text(
        json.dumps({"sizes": setup.sizes, "ram_bytes": RAM_BYTES, "calls": calls})
    )
    simulate("movers_bench", "movers_cocotb", built, folder)
    with np.load(folder / "outputs.npz") as saved:
        return Played(setup, calls, inputs, json.loads((folder / "results.json").read_text()), saved["ram"])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(NARROW, id=NARROW.name),
        pytest.param(WIDE, id=WIDE.name, marks=pytest.mark.nightly),
    ],
)
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(request.param, tmp_path_factory.mktemp("movers"))


def whole(played: Played) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The calls that ran to their end, with their results."""
    pairs = zip(played.calls, played.results, strict=True)
    return [(call, result) for call, result in pairs if call["refused"] is None]


def test_the_job_table_is_offered_twice(played: Played) -> None:
    setup = played.setup
    records = [job.encode().hex() for job in setup.jobs]
    for _, result in whole(played):
        assert result["issued"] == records
        own = len(result["fetched"]) - len(records)
        assert result["fetched"][own:] == records
        asked = [Job.decode(bytes.fromhex(record)) for record in result["fetched"][:own]]
        assert {job.engine for job in asked} == {Engine.OUTPUT}
        stretches = [(job.first, job.beats) for job in asked]
        first = ceil_div(Job.RECORD_BYTES, setup.architecture.beat_bytes)
        assert stretches == [(0, first), (first, setup.architecture.sections[HEADER] - first)]
        assert result["all_issued"] and not result["bad_version"] and not result["overflow"]


def test_a_damaged_table_is_refused_whole(played: Played) -> None:
    refused = [pair for pair in zip(played.calls, played.results, strict=True) if pair[0]["refused"]]
    assert len(refused) == 4
    for call, result in refused:
        flags = {name for name in ("bad_version", "overflow") if result[name]}
        assert flags == {call["refused"]}, call["name"]
        assert not result["issued"] and not result["all_issued"]
        assert len(result["fetched"]) <= 2


def test_cores_get_their_beats_and_sizes(played: Played) -> None:
    setup = played.setup
    architecture, wanted = setup.architecture, []
    for job in setup.jobs:
        if job.engine in (Engine.LINEAR, Engine.NORM, Engine.ROUTER) and job.beats:
            first = job.first + job.settings_beats
            beats = [int.from_bytes(beat.tobytes(), "little") for beat in setup.image[first:][: job.beats]]
            wanted.append((job, [f"{beat:x}" for beat in beats]))
    for _, result in whole(played):
        assert len(result["loads"]) == len(wanted)
        for (engine, (words, blocks, groups, records), beats), (job, own) in zip(
            result["loads"], wanted, strict=True
        ):
            assert engine == job.engine and words == job.words and beats == own
            if job.engine is Engine.LINEAR:
                assert blocks == job.blocks
            if job.engine is Engine.ROUTER:
                assert (groups, records) == (architecture.gate_groups, architecture.gate_record_beats)


def test_engines_find_the_settings_of_their_layer(played: Played) -> None:
    setup = played.setup
    architecture, design = setup.architecture, setup.design
    names = architecture.settings
    layers = []
    for layer in range(setup.spec.depth):
        first = architecture.sections[f"blocks.{layer}.settings"]
        stored = setup.image[first : first + architecture.setting_beats].reshape(-1).view("<i4")
        layers.append(dict(zip(names, stored[: len(names)].tolist(), strict=True)))
        assert layers[layer]["norm1_shift"] == design.tensors[f"blocks.{layer}.norm1.shift"]
    assert len({tuple(layer.values()) for layer in layers}) > 1
    epsilon = int(setup.image[architecture.sections[HEADER], :8].view("<i8")[0])
    multiplier, hidden = (1 << setup.sizes["MULTIPLIER_BITS"]) - 1, (1 << architecture.operand_width) - 1
    asking = [
        job
        for job in setup.jobs
        if job.engine in (Engine.LINEAR, Engine.NORM, Engine.ATTENTION) and job.layer is not None
    ]
    asking = [job for job in asking if not job.is_fill]
    for _, result in whole(played):
        assert result["epsilon"] == epsilon
        assert [found[:3] for found in result["settings"]] == [
            [job.engine, job.layer, job.setting] for job in asking
        ]
        for engine, layer, setting, values in result["settings"]:
            own = [layers[layer][name] for name in names[setting : setting + 3]]
            wanted = {
                Engine.NORM: [own[0], layers[layer]["gate_shift"]],
                Engine.ATTENTION: [own[0], own[1] & 0xFF],
                Engine.LINEAR: [own[0] & multiplier, own[1], own[-1] & hidden],
            }[Engine(engine)]
            assert values == wanted, (engine, layer, names[setting])


def test_every_image_starts_as_the_position_table(played: Played) -> None:
    setup = played.setup
    table = setup.words(setup.design.tensors["position"]).reshape(-1, setup.architecture.lanes)
    for call, result in whole(played):
        np.testing.assert_array_equal(result["positions"], np.tile(table, (call["batch"], 1)))


def test_pixels_become_operands(played: Played) -> None:
    setup = played.setup
    for call, result in whole(played):
        rows = patches(setup.pixels[: call["batch"]], setup.spec.patch_size)
        rows = rows.reshape(-1, setup.spec.patch_values).astype(np.int64) - setup.architecture.pixel_offset
        wanted = setup.words(rows).reshape(-1, setup.architecture.lanes)
        np.testing.assert_array_equal(result["pixels"], wanted)


def test_patches_are_queued_as_their_tokens(played: Played) -> None:
    spec = played.setup.spec
    for call, result in whole(played):
        tokens = np.arange(call["batch"] * spec.tokens).reshape(-1, spec.tokens)
        assert result["patches"] == tokens[:, spec.tokens - spec.patches :].ravel().tolist()


def test_queues_hold_what_the_router_chose(played: Played) -> None:
    experts = played.setup.architecture.experts
    for call, result in whole(played):
        for number, (decided, active, lengths, queues) in enumerate(result["routed"]):
            chosen, scores = call["chosen"][number], played.inputs[call["name"]]["scores"][number]
            entered = [
                [
                    [token, int(scores[token, expert])]
                    for token in range(len(chosen))
                    if expert in chosen[token]
                ]
                for expert in range(experts)
            ]
            assert queues == entered and lengths == [len(queue) for queue in entered]
            assert decided == number + 1
            assert active == sum(1 << expert for expert in range(experts) if entered[expert])
        assert len(result["routed"]) == 2


def test_tokens_of_a_queue_are_gathered_side_by_side(played: Played) -> None:
    """A word a cycle, and the way of one: from the queue, from the operands, to them."""
    setup = played.setup
    words, moe_layers = setup.architecture.token_words, sorted(setup.spec.moe_layers)
    for call, result in whole(played):
        norm = played.inputs[call["name"]]["norm"]
        assert {layer for layer, *_ in result["gathered"]} == set(moe_layers)
        assert any(
            len(gathered) < call["batch"] * setup.spec.tokens * words for *_, gathered in result["gathered"]
        )
        for layer, expert, cycles, gathered in result["gathered"]:
            chosen = call["chosen"][moe_layers.index(layer)]
            tokens = [token for token in range(len(chosen)) if expert in chosen[token]]
            np.testing.assert_array_equal(gathered, norm[layer][tokens].reshape(-1, setup.architecture.lanes))
            assert cycles == len(gathered) + LATENCY + OPERAND_READ + 1


def test_queries_keys_and_values_part(played: Played) -> None:
    setup = played.setup
    for call, result in whole(played):
        rows = call["batch"] * setup.spec.tokens
        heads = played.inputs[call["name"]]["heads"][:, :rows]
        parts = np.stack(np.split(heads, 3, axis=2), axis=1)
        wanted = parts.reshape(setup.spec.depth, 3, -1, setup.architecture.lanes)
        np.testing.assert_array_equal(result["heads"], wanted)


def test_the_result_is_what_the_host_unpacks(played: Played) -> None:
    """What a call wrote last to the residual stream, as 32-bit numbers; and not a byte elsewhere."""
    setup, layout = played.setup, output_layout(played.setup.architecture)
    last = max(
        job.layer
        for job in setup.jobs
        if job.weighted and job.destination is Region.STREAM and job.layer is not None
    )
    for call, result in whole(played):
        count = call["batch"] * setup.spec.tokens
        written = played.inputs[call["name"]]["residual"][last][:count]
        channels = written.reshape(call["batch"], setup.spec.tokens, -1)[:, :, : setup.spec.dim]
        found = unpack_tokens(played.ram[call["output_at"] :], call["batch"], layout)
        np.testing.assert_array_equal(found, channels)
        assert not result["failed"]
