"""The job table: records, what waits for what, and what every job reads was written before."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterator
from enum import IntEnum
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blank import blank
from codegen.architecture import HEADER, JOBS, Architecture, job_count
from codegen.hardware import Hardware
from codegen.schedule import RECORD_VERSION, Engine, Job, Region, followers, job_table, running
from codegen.weight_image import pack_weights
from common.errors import InputError
from designs import random_design
from frontend.zoo import find_spec, zoo_names
from hls import TEMPLATES
from pysim.precision import PRESETS
from pysim.spec import ModelSpec
from test_record import specs

NARROW = Hardware(lanes=8, outputs=16, attention_rows=4, axi_width=64, weight_ports=2, weight_rows=1024)
SHAPES = {name: find_spec(name) for name in zoo_names()} | specs()
BYTE, SHORT, LONG = ((1 << bits) - 1 for bits in (8, 16, 32))


def table(spec: ModelSpec, preset: str = "w8a8", hardware: Hardware = NARROW) -> tuple[Job, ...]:
    return job_table(blank(spec, PRESETS[preset], hardware))


def with_fields(job: Job, fields: dict[str, Any]) -> Job:
    return dataclasses.replace(job, **fields)


@pytest.fixture(scope="module")
def micro() -> Architecture:
    return blank(SHAPES["micro"], PRESETS["w8a8"], NARROW)


PACKAGE = (TEMPLATES / "rtl/accelerator/job_pkg.sv").read_text()


@pytest.mark.parametrize(("enum", "prefix"), [(Engine, ""), (Region, "REGION_")])
def test_the_package_numbers_engines_and_regions_as_records_do(enum: type[IntEnum], prefix: str) -> None:
    for member in enum:
        assert f" {prefix}{member.name} = 8'd{member.value}" in PACKAGE
    type_name = enum.__name__.lower() + "_t"
    body = re.search(r"enum logic \[7:0\] \{([^}]*)\} " + type_name, PACKAGE)
    assert body is not None and body[1].count("=") == len(enum)


def test_the_package_has_the_fields_of_a_record_at_their_places() -> None:
    """A job with one field set at a time, cut into the bits that the structure gives each field."""
    body = re.search(r"struct packed \{([^}]*)\} job_t;", PACKAGE)
    flags = re.search(r"struct packed \{([^}]*)\} job_flags_t;", PACKAGE)
    assert body is not None and flags is not None
    places, place = {}, 0
    for kind, high, name in reversed(re.findall(r"(\w+) (?:\[(\d+):0\] )?(\w+);", body[1])):
        places[name] = place, int(high) + 1 if kind == "logic" else 8
        place += places[name][1]
    assert place == 8 * Job.RECORD_BYTES

    def bits(name: str, **fields: Any) -> int:
        record = int.from_bytes(Job(engine=Engine.POSITIONS, **fields).encode(), "little")
        first, width = places[name]
        return record >> first & ((1 << width) - 1)

    renamed = {"group": "group_blocks"}
    numbers = [name for group in WIDTHS.values() for name in group]
    for name in numbers:
        assert bits(renamed.get(name, name), **{name: 201}) == 201, name
    assert bits("waits_for", waits_for=(Engine.OUTPUT,)) == 1 << Engine.OUTPUT
    assert bits("layer", layer=77) == 77
    assert bits("source", source=Region.MIXED) == Region.MIXED
    assert bits("destination", destination=Region.MIXED) == Region.MIXED
    assert bits("version") == RECORD_VERSION
    assert f"JOB_VERSION = 8'd{RECORD_VERSION};" in PACKAGE
    for bit, name in enumerate(reversed(re.findall(r"logic (\w+);", flags[1]))):
        assert bits("flags", **{name: True}) == 1 << bit, name


# --- Records ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_records_of_every_shape(shape: str, preset: str) -> None:
    for job in table(SHAPES[shape], preset):
        record = job.encode()
        assert len(record) == Job.RECORD_BYTES == 64
        assert Job.decode(record) == job, job.name


FIELDS = {each.name: each for each in dataclasses.fields(Job) if each.compare}
WIDTHS = {
    BYTE: ("top_k", "half"),
    SHORT: ("index", "count", "words", "out_words", "mixed_words", "source_word", "destination_word"),
    SHORT - 1: ("blocks", "group", "pairs", "settings_beats", "setting", "first_token", "pace"),
    LONG: ("rows", "channels", "first", "beats", "block_beats", "task_beats"),
}
NUMBERS = {name: st.integers(0, most) for most, names in WIDTHS.items() for name in names}
FLAGS = {name: st.booleans() for name, each in FIELDS.items() if each.default is False}
ANY_JOB = st.builds(
    Job,
    engine=st.sampled_from(Engine),
    source=st.sampled_from(Region),
    destination=st.sampled_from(Region),
    waits_for=st.sets(st.sampled_from(Engine)).map(lambda engines: tuple(sorted(engines))),
    layer=st.none() | st.integers(0, SHORT - 1),
    **NUMBERS,
    **FLAGS,
)


@given(ANY_JOB)
def test_records_of_random_jobs(job: Job) -> None:
    assert len(FIELDS) == 5 + len(NUMBERS) + len(FLAGS)
    assert Job.decode(job.encode()) == job


def test_every_number_has_a_place_of_its_own() -> None:
    """Each field that counts when jobs are compared changes bits of the record that no other one changes."""
    plain = Job(engine=Engine.POSITIONS)
    largest: dict[str, Any] = {
        "engine": Engine.OUTPUT,
        "source": Region.HIDDEN,
        "destination": Region.HIDDEN,
        "waits_for": tuple(Engine),
        "layer": 0,
    }
    taken = 0
    for name, each in FIELDS.items():
        value = largest.get(name, True if each.default is False else BYTE)
        changed = with_fields(plain, {name: value}).encode()
        bits = int.from_bytes(changed, "little") ^ int.from_bytes(plain.encode(), "little")
        assert bits and not bits & taken, name
        taken |= bits


def test_a_record_as_bytes() -> None:
    """The layout that a sequencer is built for: it does not change without another version."""
    job = Job(
        engine=Engine.LINEAR,
        source=Region.GATHERED,
        destination=Region.HIDDEN,
        waits_for=(Engine.NORM, Engine.GATHER),
        layer=3,
        index=7,
        rows=0x11223344,
        words=0x5566,
        blocks=9,
        half=1,
        first=0xAABBCCDD,
        task_beats=2,
        setting=0x0102,
        first_token=5,
        mixed_words=0x0607,
        pace=0x0809,
        skips_if_empty=True,
        weighted=True,
    )
    assert job.encode().hex(" ", 8) == " ".join(
        (
            "0203090a05010000",
            "9000030007000000",
            "4433221100000000",
            "6655000000000000",
            "0900000000000000",
            "ddccbbaa00000000",
            "0000000002000000",
            "0201050007060908",
        )
    )


@pytest.mark.parametrize(
    ("name", "value"), [("words", 1 << 16), ("rows", 1 << 32), ("top_k", 256), ("first", -1)]
)
def test_what_does_not_fit_is_refused(name: str, value: int) -> None:
    job = with_fields(Job(engine=Engine.NORM, name="blocks.0.norm1"), {name: value})
    with pytest.raises(InputError, match=rf"blocks\.0\.norm1: {name} = {value}, its record holds 0 to"):
        job.encode()


def test_the_layer_that_means_none_is_refused() -> None:
    with pytest.raises(InputError, match="layer = 65535"):
        Job(engine=Engine.NORM, layer=SHORT).encode()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 1, "version 1, expected 2"),
        (1, len(Engine), "not a valid Engine"),
        (2, len(Region), "not a valid Region"),
        (3, 255, "not a valid Region"),
        (4, 1 << 5, "mean nothing"),
        (7, 1, "mean nothing"),
        (9, 1 << 7, "mean nothing"),
    ],
)
def test_damaged_records_are_refused(place: int, value: int, message: str) -> None:
    record = bytearray(Job(engine=Engine.NORM).encode())
    record[place] = value
    with pytest.raises(InputError, match=message):
        Job.decode(bytes(record))


@pytest.mark.parametrize("length", [0, 63, 65])
def test_records_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(InputError, match=f"{length} bytes, expected 64"):
        Job.decode(bytes([1]) * length)


# --- What is in the table -----------------------------------------------------------------------------------


def test_jobs_of_a_network() -> None:
    spec = SHAPES["odd"]
    assert [job.name for job in table(spec)] == [
        *("positions", "image", "fill", "patch queue", "patch"),
        *_names(0, experts=3),
        *_names(1, experts=0),
        *_names(2, experts=3),
        "output",
    ]


def _names(layer: int, experts: int) -> Iterator[str]:
    parts = ["norm1", "qkv", "attention", "proj", "norm2"]
    parts += ["router", "fill"] if experts else ["fc1", "fc2"]
    parts += [f"{part}.{expert}" for expert in range(experts) for part in ("gather", "fc1", "fc2")]
    return (f"blocks.{layer}.{part}" for part in parts)


@pytest.mark.parametrize("shape", SHAPES)
def test_jobs_read_all_sections_once(shape: str) -> None:
    """Every beat behind the job table is read once, in order, but for the gates of the other tasks."""
    architecture = blank(SHAPES[shape], PRESETS["w16a16"], NARROW)
    place, jobs = architecture.sections[HEADER], job_table(architecture)
    assert len(jobs) == job_count(architecture.program)
    for job in jobs:
        if not job.beats:
            continue
        assert job.first == place, job.name
        tasks = architecture.gates if job.task_beats else 1
        place += job.settings_beats + job.beats + (tasks - 1) * job.task_beats
    assert place == architecture.sections["end"]


@pytest.mark.parametrize(("ports", "width"), [(1, 64), (2, 128), (5, 128), (4, 512)])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_weight_image_begins_with_the_job_table(preset: str, ports: int, width: int) -> None:
    """Record after record from its first byte on, whether a beat holds a part of a record or several."""
    hardware = NARROW.changed(weight_ports=ports, axi_width=width)
    design = random_design(SHAPES["micro"], PRESETS[preset], NARROW.attention_rows)
    architecture = Architecture(design.network, hardware)
    assert architecture.sections[JOBS] == 0
    section = pack_weights(design, architecture)[: architecture.sections[HEADER]].tobytes()
    jobs = job_table(architecture)
    records = [section[64 * number : 64 * number + 64] for number in range(len(jobs))]
    assert tuple(map(Job.decode, records)) == jobs
    assert jobs[-1].engine is Engine.OUTPUT
    rest = section[64 * len(jobs) :]
    assert not any(rest) and len(rest) < architecture.beat_bytes


@pytest.mark.parametrize("shape", SHAPES)
def test_groups(shape: str) -> None:
    """Halves alternate: a job begins with the first one, whichever jobs run before it."""
    for job in table(SHAPES[shape]):
        assert job.half == 0
        if job.engine is not Engine.LINEAR:
            assert not job.groups
            continue
        assert len(job.groups) == 2 * job.pairs >= 2
        assert sum(job.groups) == job.blocks
        assert job.beats == job.blocks * job.block_beats
        assert job.is_fill or job.groups[0] == max(job.groups) > 0


def test_settings_of_jobs(micro: Architecture) -> None:
    names = micro.settings
    for job in job_table(micro):
        if job.engine is Engine.NORM:
            part = "norm2" if job.to_router or not job.settings_beats else "norm1"
            assert names[job.setting] == f"{part}_shift"
            assert not job.to_router or names[job.setting + 1] == "gate_shift"
        elif job.engine is Engine.ATTENTION:
            assert names[job.setting : job.setting + 2] == ("score_shift", "attention_shift")
        elif job.destination is Region.HIDDEN and job.engine is Engine.LINEAR:
            wanted = tuple(f"hidden_{part}_{job.index}" for part in ("multiplier", "shift", "zero"))
            assert names[job.setting : job.setting + 3] == wanted


# --- What waits for what ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["micro", "odd"])
def test_no_job_overtakes_what_it_depends_on(shape: str, seed: int) -> None:
    """Engines take their jobs in order, at any speed: no two jobs at once of which one writes what the other uses."""
    chance = random.Random(seed)
    jobs = table(SHAPES[shape])
    waiting: dict[Engine, list[int]] = {}
    for number, job in enumerate(jobs):
        waiting.setdefault(job.engine, []).append(number)
    started: set[int] = set()
    ended: set[int] = set()
    while len(ended) < len(jobs):
        ready = [
            numbers[0]
            for engine, numbers in waiting.items()
            if numbers
            and all(other in ended for other in range(numbers[0]) if jobs[other].engine is engine)
            and all(
                other in ended
                for other in range(numbers[0])
                if jobs[other].engine in jobs[numbers[0]].waits_for
            )
        ]
        under_way = sorted(started - ended)
        choices = [*((number, True) for number in ready), *((number, False) for number in under_way)]
        assert choices, "nothing can start and nothing is under way"
        number, starts = chance.choice(choices)
        if not starts:
            ended.add(number)
            continue
        job = jobs[number]
        for other in range(number):
            conflict = job.writes & (jobs[other].reads | jobs[other].writes) or job.reads & jobs[other].writes
            assert other in ended or not conflict, (job.name, jobs[other].name)
        for other in started:
            assert other < number or not job.writes & (jobs[other].reads | jobs[other].writes)
            assert other < number or not job.reads & jobs[other].writes
        started.add(number)
        waiting[job.engine].pop(0)


def test_waits_of_a_layer_with_experts(micro: Architecture) -> None:
    waits = {job.name: job.waits_for for job in job_table(micro)}
    assert waits["patch"] == (Engine.POSITIONS, Engine.PIXELS, Engine.PATCH_QUEUE)
    assert waits["blocks.1.norm1"] == (Engine.LINEAR,)
    assert waits["blocks.1.attention"] == (Engine.LINEAR,)
    assert waits["blocks.1.proj"] == (Engine.ATTENTION,)
    assert waits["blocks.1.router"] == (Engine.NORM,)
    assert waits["blocks.1.gather.0"] == (Engine.ROUTER,)
    assert waits["blocks.1.gather.1"] == (Engine.LINEAR,)
    assert waits["blocks.1.fc1.1"] == (Engine.GATHER,)
    assert waits["blocks.1.fc2.1"] == ()
    assert waits["output"] == (Engine.LINEAR,)


# --- What runs, and what loads behind it --------------------------------------------------------------------


def test_followers(micro: Architecture) -> None:
    jobs = job_table(micro)
    experts, layers = micro.experts, sorted(micro.spec.moe_layers)
    queues = {layer: [1 + expert % 2 for expert in range(experts)] for layer in layers}
    queues[layers[0]] = [0] * (experts - 2) + [3, 0]
    ran = running(jobs, queues)
    left_out = [job for job in jobs if job not in ran]
    assert {(job.layer, job.index) for job in left_out} == {
        (layers[0], expert) for expert in range(experts) if expert != experts - 2
    }
    behind = dict(zip((job.name for job in ran), followers(ran), strict=True))
    names = {name: job.name if job else None for name, job in behind.items()}
    block, last = f"blocks.{layers[0]}", experts - 2
    assert names["fill"] == "patch"
    assert names["patch"] == "blocks.0.qkv"
    assert names["blocks.0.qkv"] == "blocks.0.proj"
    assert names[f"{block}.proj"] is None, "the router has not decided yet"
    assert names[f"{block}.fill"] == f"{block}.fc1.{last}"
    assert names[f"{block}.fc1.{last}"] == f"{block}.fc2.{last}"
    assert names[f"{block}.fc2.{last}"] == f"blocks.{layers[0] + 1}.qkv"
    assert list(names.values())[-2:] == [None, None]


@pytest.mark.parametrize("preset", PRESETS)
def test_rows_grow_with_the_batch_only_when_a_job_runs(preset: str) -> None:
    one, four = (table(SHAPES["micro"], preset, NARROW.changed(max_batch=batch)) for batch in (1, 4))
    assert one == four


def test_stages_follow_each_other(micro: Architecture) -> None:
    stages = [job.stage for job in job_table(micro)]
    changes = [after for before, after in pairwise(stages) if before != after]
    assert len(changes) == len(set(changes))
