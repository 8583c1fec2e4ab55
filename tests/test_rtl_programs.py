"""One accelerator runs network after network, without a reset in between: every value of every stage."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
from codegen.architecture import Architecture
from codegen.context import TOP
from codegen.hardware import Hardware
from codegen.rtl.accelerator import accelerator_files
from codegen.rtl.accelerator_build import build_accelerator
from codegen.rtl.accelerator_run import RtlAccelerator
from common.errors import InputError
from common.rtl_process import Memory, RtlProcess
from designs import random_design
from frontend.digits import load_scenes
from pysim.design import Design
from pysim.network import Network
from pysim.precision import NAMED
from pysim.spec import ModelSpec
from scripts.fuzzing.designs import draw
from test_record import DIGITS, specs

pytestmark = pytest.mark.rtl

HARDWARE = Hardware(
    lanes=4,
    outputs=8,
    token_tile=3,
    attention_rows=5,
    axi_width=64,
    weight_ports=2,
    weight_rows=64,
    stream_kib=8,
    max_batch=2,
    max_tokens=65,
    max_token_words=12,
    max_head_words=12,
    max_mixed_words=14,
    max_row_words=60,
    max_experts=17,
    max_top_k=9,
    max_tasks=3,
    max_jobs=200,
    max_group=16,
    backend="rtl",
)
"""Sizes that divide nothing, and capacities for what follows."""

PRECISION = "w8a8"
SHAPES = 20
MORE_SHAPES = 50
_MANY_WORDS = {"max_token_words": 24, "max_mixed_words": 28, "max_row_words": 120}
OTHERS: list[tuple[str, dict[str, int]]] = [
    ("w16a16", {}),
    ("w8a8-lean", {"lanes": 2, "outputs": 6, "token_tile": 4, "weight_ports": 3, "attention_rows": 1}),
    ("w8a8", {"lanes": 8, "outputs": 8, "token_tile": 1, "axi_width": 128, "weight_ports": 1}),
    ("w16a16", {"lanes": 16, "outputs": 32, "token_tile": 2, "axi_width": 256, "attention_rows": 19}),
    (
        "w8a8",
        {"lanes": 1, "outputs": 2, "token_tile": 7, "weight_ports": 5, "router_lanes": 8, **_MANY_WORDS},
    ),
]
"""Precisions and sizes of accelerators that run many networks each."""
MEMORIES = (
    Memory(1),
    Memory(80, stalls=4),
    Memory(400, bytes_per_cycle=9.7, stalls=9),
    Memory(33, outstanding=1),
)


def fitting(spec: ModelSpec, precision: str, hardware: Hardware = HARDWARE) -> Architecture | None:
    """A network on the hardware; None where it is too large."""
    try:
        return Architecture(Network(spec, NAMED[precision]), hardware)
    except InputError:
        return None


@cache
def random_specs(precision: str, hardware: Hardware, count: int) -> list[ModelSpec]:
    """Networks that fit, of random shapes."""
    generator, found = random.Random(f"{precision} {hardware}"), list[ModelSpec]()
    while len(found) < count:
        spec = draw(generator, small=True).spec.model_copy(update={"activation": "gelu"})
        if fitting(spec, precision, hardware) is not None:
            found.append(spec)
    return found


def accelerator_for(precision: str, hardware: Hardware, folder: Path) -> RtlAccelerator:
    """An accelerator in a process of its own, made for a network that has little of anything."""
    made_for = fitting(specs()["micro"], precision, hardware)
    assert made_for is not None
    folder.mkdir()
    program = build_accelerator(accelerator_files(made_for, folder), TOP)
    return RtlAccelerator(RtlProcess(program), made_for)


@pytest.fixture(scope="module")
def accelerator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtlAccelerator]:
    made = accelerator_for(PRECISION, HARDWARE, tmp_path_factory.mktemp("programs") / "rtl")
    yield made
    made.process.close()


@cache
def digits() -> Design:
    """The network of the demo."""
    model, pictures = edgemoe.load_model(DIGITS), load_scenes("train").images[:4]
    return edgemoe.quantize(model, pictures, PRECISION, attention_rows=HARDWARE.attention_rows)


def run_all(accelerator: RtlAccelerator, design: Design, images: NDArray[np.uint8], memory: Memory) -> int:
    """Run images of a Design for every task; the number of values compared."""
    program = fitting(design.spec, design.precision.name, accelerator.hardware.hardware)
    assert program is not None
    accelerator.load(design, program, shift=memory.latency % 7)
    accelerator.process.set_memory(memory)
    values = 0
    for task in range(len(design.spec.tasks)):
        run = accelerator.run(images, task)
        assert run.first == "" and run.mismatches == 0
        values += run.values
    return values


def run_random(accelerator: RtlAccelerator, spec: ModelSpec, number: int) -> int:
    rows = accelerator.hardware.hardware.attention_rows
    design = random_design(spec, NAMED[accelerator.hardware.precision.name], rows, number)
    images = edgemoe.random_images(design, 1 + number % 2, seed=number)
    return run_all(accelerator, design, images, MEMORIES[number % len(MEMORIES)])


def test_networks_one_after_the_other(accelerator: RtlAccelerator) -> None:
    pictures = load_scenes("heldout").images[:2]
    plain = specs()["micro"].model_copy(update={"moe": None, "depth": 1})
    deep = specs()["odd"].model_copy(update={"depth": 6})
    hardware_ids = set()
    for turn in range(2):
        assert run_all(accelerator, digits(), pictures, MEMORIES[turn]) > 100_000
        for number, spec in enumerate((specs()["odd"], plain, deep)):
            run_random(accelerator, spec, number + turn)
            hardware_ids.add(accelerator.program.hardware_id)
        assert accelerator.read("hardware_id") == int(accelerator.hardware.hardware_id, 16)
    assert hardware_ids == {accelerator.hardware.hardware_id}


@pytest.mark.parametrize("number", range(SHAPES))
def test_random_shapes(accelerator: RtlAccelerator, number: int) -> None:
    run_random(accelerator, random_specs(PRECISION, HARDWARE, SHAPES)[number], number)


@pytest.mark.nightly
@pytest.mark.parametrize(("precision", "sizes"), OTHERS)
def test_many_random_shapes(precision: str, sizes: dict[str, int], tmp_path: Path) -> None:
    hardware = HARDWARE.changed(**sizes)
    accelerator = accelerator_for(precision, hardware, tmp_path / "rtl")
    for number, spec in enumerate(random_specs(precision, hardware, MORE_SHAPES)):
        run_random(accelerator, spec, number)
    accelerator.process.close()


@pytest.mark.nightly
def test_twenty_pictures_for_all_tasks(accelerator: RtlAccelerator) -> None:
    pictures = load_scenes("heldout").images
    for first, memory in zip(range(0, 20, HARDWARE.max_batch), 3 * MEMORIES, strict=False):
        run_all(accelerator, digits(), pictures[first : first + HARDWARE.max_batch], memory)
