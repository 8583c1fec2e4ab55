"""Fixtures for tests of whole networks: the micro model, images, a Design of every preset, folders."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import edgemoe
from boards import load_board
from codegen.build import Build
from codegen.hardware import Hardware
from emulation import Expected, FaultyKernel, faulty_board
from host import Accelerator
from host.emulated import EmulatedBoard
from locks import alone
from pysim.design import Design
from pysim.model import Model
from pysim.precision import PRESETS

Pixels = NDArray[np.uint8]

collect_ignore = ["pynq_session.py"]
"""A program for PYNQ's environment, which this one is not."""

NARROW = Hardware(
    lanes=8, outputs=16, token_tile=2, attention_rows=4, axi_width=64, weight_ports=2, max_batch=3
)
"""Words and beats that divide nothing in the micro network."""


COMPILED = {"library", "board", "accelerator"}
"""Fixtures whose tests need g++."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if COMPILED.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.compile)


MARKS = {"g++": {"compile", "rtl"}, "verilator": {"rtl"}}
"""Marks of which a test that starts a program needs one: `make test-fast` leaves such tests out."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Refuse compilers to tests that are not marked as needing them, where marked ones are left out."""
    if "not compile" not in item.config.option.markexpr:
        return (yield)
    start = subprocess.Popen.__init__

    def guarded(self: subprocess.Popen[Any], args: Any, *others: Any, **named: Any) -> None:
        program = Path(args if isinstance(args, str | Path) else args[0]).name
        needed = MARKS.get(program, set())
        if needed and not any(map(item.get_closest_marker, needed)):
            pytest.fail(f"{item.nodeid} starts {program}: mark it {' or '.join(sorted(needed))}")
        start(self, args, *others, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", guarded)
        return (yield)


@pytest.fixture(scope="session")
def micro() -> Model:
    return edgemoe.init_model("micro", seed=1)


@pytest.fixture(scope="session")
def images(micro: Model) -> Pixels:
    return edgemoe.random_images(micro, 12, seed=2)


@pytest.fixture(scope="session")
def designs(micro: Model, images: Pixels) -> dict[str, Design]:
    return {preset: edgemoe.quantize(micro, images, preset) for preset in PRESETS}


@pytest.fixture(scope="session")
def folders(
    tmp_path_factory: pytest.TempPathFactory, micro: Model, images: Pixels, designs: dict[str, Design]
) -> Path:
    """`model`, a Design folder per preset, and `images` with 12 PNG files: to read, not to change."""
    base = tmp_path_factory.mktemp("folders")
    micro.save(base / "model")
    for preset, design in designs.items():
        design.save(base / preset)
    (base / "images").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(base / "images" / f"{index:02}.png")
    return base


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, micro: Model, designs: dict[str, Design]) -> Build:
    """A build of the micro network with its task heads, for three images at once: to read, not to change."""
    from codegen.project import generate

    # Words and beats that divide nothing in the network; compiled for other tests too.
    folder = tmp_path_factory.mktemp("built") / "build"
    return generate(designs["w8a8"], folder, load_board("zcu111"), hardware=NARROW, model=micro)[0]


@pytest.fixture(scope="session")
def library(built: Build) -> Path:
    """The kernel of `built`, compiled for this computer."""
    from codegen.csim import build_library

    with alone("library"):
        return build_library(built.hls)


@pytest.fixture
def board(built: Build, library: Path) -> Iterator[EmulatedBoard]:
    """A board with the kernel of `built`, on which every test leaves no buffer."""
    emulated, kernel = faulty_board(built.host, library)
    yield emulated
    kernel.go.set()
    gc.collect()
    assert not emulated.memory.buffers, "buffers were not freed"


@pytest.fixture
def kernel(board: EmulatedBoard) -> FaultyKernel:
    assert isinstance(board.hardware, FaultyKernel)
    return board.hardware


@pytest.fixture
def accelerator(built: Build, board: EmulatedBoard) -> Iterator[Accelerator]:
    with Accelerator(built.folder, board=board, timeout=20) as opened:
        yield opened


@pytest.fixture(scope="session")
def expected(built: Build, images: Pixels) -> Expected:
    """The simulator's results of `built`."""
    design = edgemoe.load_design(built.folder / "design")
    return {task: edgemoe.simulate(design, images, task).integers for task in design.spec.tasks}


@pytest.fixture(scope="session")
def micro_with() -> Callable[..., Model]:
    """Makes a micro model of another shape: `moe=None`, or fields of the spec or of its `moe`."""

    def make(moe: dict[str, Any] | None = {}, **fields: Any) -> Model:  # noqa: B006
        from frontend.zoo import find_spec
        from pysim.model import init_model
        from pysim.spec import ModelSpec

        data = find_spec("micro").model_dump()
        data["moe"] = None if moe is None else data["moe"] | moe
        data |= fields
        data["task_heads"] = {
            name: head for name, head in data["task_heads"].items() if name in data["tasks"]
        }
        return init_model(ModelSpec.model_validate(data), seed=3)

    return make
