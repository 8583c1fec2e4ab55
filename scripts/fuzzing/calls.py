"""Random sequences of calls on an emulated board: results are the simulator's, whatever failed before."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
from codegen.build import Build
from codegen.csim import build_library
from common.errors import InputError
from emulation import faulty_board
from host import Accelerator, AcceleratorError, Result
from scripts.fuzzing.examples import outcome_of, seed_of, settings_for
from scripts.fuzzing.outcome import Outcome

Pixels = NDArray[np.uint8]

EXAMPLES: Final = 10
"""Sequences a case."""
STEPS: Final = 25
"""Calls a sequence, at most."""
IMAGES: Final = 5
SHORT: Final = 0.1
"""Seconds that a call may take on a kernel that never ends."""
LONG: Final = 120.0

indices = st.integers(0, IMAGES - 1)
counts = st.integers(0, IMAGES)


@dataclass(frozen=True)
class Bench:
    """A build, its compiled kernel, and what it must return.

    Attributes:
        build: the build.
        library: its kernel, compiled for this computer.
        images: (images, channels, H, W).
        expected: by task, (images, tokens, dim).
    """

    build: Build
    library: Path
    images: Pixels
    expected: dict[str, NDArray[np.int64]]

    @classmethod
    def of(cls, build: Build, library: Path) -> Bench:
        """Simulate what the build must return."""
        design = edgemoe.load_design(build.folder / "design")
        images = edgemoe.random_images(design, IMAGES, seed=7)
        expected = {task: edgemoe.simulate(design, images, task).integers for task in design.spec.tasks}
        return cls(build, library, images, expected)


_folders: list[tempfile.TemporaryDirectory[str]] = []


@cache
def micro_bench() -> Bench:
    """The micro network, for three images at once."""
    _folders.append(tempfile.TemporaryDirectory(prefix="edgemoe-fuzz-"))
    model = edgemoe.init_model("micro", seed=1)
    design = edgemoe.quantize(model, edgemoe.random_images(model, 4), "w8a8")
    narrow = {"lanes": 8, "outputs": 16, "token_tile": 2, "attention_rows": 4, "max_batch": 3}
    build = edgemoe.generate(
        design,
        Path(_folders[-1].name) / "build",
        hardware=edgemoe.default_hardware(design).changed(**narrow),
        must_fit=False,
        model=model,
    )
    return Bench.of(build, build_library(build.hls))


@contextmanager
def refused(kind: type[Exception], words: str = "") -> Iterator[None]:
    """A call that must fail, with these words in its message."""
    try:
        yield
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"no {kind.__name__}")


class Calls(RuleBasedStateMachine):
    """An accelerator and its user, who does everything in any order."""

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self.board, self.kernel = faulty_board(self.bench.build.host, self.bench.library)
        self.accelerator: Accelerator | None = None

    @property
    def open(self) -> Accelerator:
        """The accelerator, where there is one."""
        assert self.accelerator is not None
        return self.accelerator

    def check(self, results: list[Result], task: int, images: list[int]) -> None:
        """Results of images, in their order."""
        assert len(results) == len(images)
        name = self.open.tasks[task]
        for result, index in zip(results, images, strict=True):
            assert result.task == name
            assert_array_equal(result.integers, self.bench.expected[name][index])

    # --- Calls that work ---

    @initialize()
    def begin(self) -> None:
        self.accelerator = Accelerator(self.bench.build.folder, board=self.board, timeout=LONG)
        self.buffers = len(self.board.memory.buffers)

    @precondition(lambda self: self.accelerator is None)
    @rule()
    def open_again(self) -> None:
        self.begin()

    @precondition(lambda self: self.accelerator is not None)
    @rule(image=indices, task=st.integers(0, 1))
    def run(self, image: int, task: int) -> None:
        self.check([self.open.run(self.bench.images[image], task)], task, [image])

    @precondition(lambda self: self.accelerator is not None)
    @rule(images=st.lists(indices, max_size=IMAGES), task=st.integers(0, 1))
    def run_batch(self, images: list[int], task: int) -> None:
        results = self.open.run_batch([self.bench.images[index] for index in images], self.open.tasks[task])
        self.check(results, task, images)

    @precondition(lambda self: self.accelerator is not None)
    @rule(count=counts, tasks=st.lists(st.integers(0, 1), min_size=1, max_size=3))
    def stream(self, count: int, tasks: list[int]) -> None:
        results = list(self.open.stream(self.bench.images[:count], tasks))
        for place, task in enumerate(tasks):
            self.check(results[place :: len(tasks)], task, list(range(count)))

    # --- Calls that are left in their middle ---

    @precondition(lambda self: self.accelerator is not None)
    @rule(taken=counts, end=st.sampled_from(("close", "drop", "run")))
    def stream_and_leave(self, taken: int, end: str) -> None:
        stream = self.open.stream(self.bench.images)
        results = [next(stream) for _ in range(taken)]
        self.check(results, 0, list(range(taken)))
        if end == "run" and 0 < taken < IMAGES:
            with refused(AcceleratorError, "busy with stream"):
                self.open.run(self.bench.images[0])
            self.check(list(stream), 0, list(range(taken, IMAGES)))
        elif end == "close":
            stream.close()  # type: ignore[attr-defined]
        del stream
        gc.collect()

    @precondition(lambda self: self.accelerator is not None)
    @rule(good=counts)
    def source_that_fails(self, good: int) -> None:
        def source() -> Iterator[Pixels]:
            yield from self.bench.images[:good]
            raise LookupError("no more pictures")

        results = []
        with refused(LookupError):
            for result in self.open.stream(source(), 1):
                results.append(result)
        self.check(results, 1, list(range(good)))

    # --- Calls that are refused ---

    @precondition(lambda self: self.accelerator is not None)
    @rule(
        image=st.sampled_from((None, 3, "nowhere.png", np.zeros((1, 2, 3), np.uint8), np.zeros((3, 8, 16)))),
        call=st.sampled_from(("run", "run_batch", "stream")),
    )
    def wrong_image(self, image: Any, call: str) -> None:
        calls = self.kernel.calls
        given = image if call == "run" else [image]
        with refused(InputError):
            list(getattr(self.open, call)(given))
        assert self.kernel.calls == calls

    @precondition(lambda self: self.accelerator is not None)
    @rule(task=st.sampled_from(("", "nonsense", -1, 2, 1 << 70)))
    def wrong_task(self, task: str | int) -> None:
        with refused(InputError, "task"):
            self.open.run(self.bench.images[0], task)

    @precondition(lambda self: self.accelerator is not None)
    @rule()
    def second_user(self) -> None:
        with refused(AcceleratorError, "in use"):
            Accelerator(self.bench.build.folder, board=self.board)

    # --- Hardware that fails ---

    @precondition(lambda self: self.accelerator is not None)
    @rule(mode=st.sampled_from(("nothing", "done")), call=st.sampled_from(("run", "run_batch")))
    def kernel_that_lies(self, mode: str, call: str) -> None:
        self.kernel.mode = mode
        image = self.bench.images[0]
        with refused(AcceleratorError):
            getattr(self.open, call)(image if call == "run" else [image])
        self.kernel.mode = ""

    @precondition(lambda self: self.accelerator is None)
    @rule()
    def kernel_that_never_ends(self) -> None:
        with Accelerator(self.bench.build.folder, board=self.board, timeout=LONG) as accelerator:
            self.kernel.mode = "never"
            accelerator._caller.timeout = SHORT
            with refused(AcceleratorError, "not done after"):
                accelerator.run(self.bench.images[0])
            self.kernel.mode = ""

    @precondition(lambda self: self.accelerator is None)
    @rule()
    def another_design(self) -> None:
        self.kernel.mode = "id"
        with refused(AcceleratorError, "the accelerator on the board is hardware"):
            Accelerator(self.bench.build.folder, board=self.board, timeout=LONG)
        self.kernel.mode = ""

    # --- The end ---

    @precondition(lambda self: self.accelerator is not None)
    @rule(how=st.sampled_from(("close", "twice", "drop")))
    def close(self, how: str) -> None:
        assert len(self.board.memory.buffers) == self.buffers
        if how != "drop":
            self.open.close()
        if how == "twice":
            self.open.close()
            with refused(AcceleratorError, "closed"):
                self.open.run(self.bench.images[0])
        self.accelerator = None
        gc.collect()
        assert not self.board.memory.buffers

    def teardown(self) -> None:
        """Nothing is left on the board."""
        if self.accelerator is not None:
            self.close("close")
        assert not self.board.memory.buffers


def run(
    seed: int, number: int, *, shrink: bool = False, bench: Bench | None = None, examples: int = EXAMPLES
) -> Outcome:
    """Sequences of calls; the outcome is "right", unless it failed."""
    machine = type("Calls", (Calls,), {"bench": bench or micro_bench()})
    seeded(seed_of("host", seed, number))(machine)
    chosen = settings_for(examples, shrink=shrink, steps=STEPS)
    return outcome_of(lambda: run_state_machine_as_test(machine, settings=chosen), examples)
