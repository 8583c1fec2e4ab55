"""`verify --host`: image packing, registers, memory, the generated kernel and decoding against the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.build import Build
from codegen.csim import CsimResult
from host.board import Board
from host.driver import Accelerator
from host.result import Result
from pysim.design import Design
from pysim.simulator import Simulation, simulate

STREAMED = 8
"""Images that go through the double-buffered stream, and through batches, as well."""

SHOWN = 5


def check_host(
    build: Build,
    board: Board,
    images: NDArray[np.uint8],
    progress: Callable[[int, int], Any] | None = None,
) -> CsimResult:
    """Run every image for every task, the task switched at every call; compare integers for equality.

    Args:
        build: the build.
        board: an emulated board for it.
        images: (images, channels, H, W) uint8.
        progress: called with the calls done and in total.
    """
    check = _Check(build.design, images, progress)
    with Accelerator(build.folder, board=board) as accelerator:
        check.switching(accelerator)
        few = images[:STREAMED]
        for number, task in enumerate(accelerator.tasks):
            expected = check.expected[number]
            check.results(f"host.stream.{task}", list(accelerator.stream(iter(few), task)), expected)
            check.results(f"host.batch.{task}", accelerator.run_batch(few, task), expected)
    return check.result


class _Check:
    def __init__(
        self, design: Design, images: NDArray[np.uint8], progress: Callable[[int, int], Any] | None
    ) -> None:
        self.images, self.result = images, CsimResult()
        self.tasks = range(len(design.spec.tasks))
        self.expected: list[Simulation] = []
        self._done, self._total = 0, len(self.tasks) * (1 + len(images))
        self._progress = progress
        for task in self.tasks:
            self.expected.append(simulate(design, images, task))
            self._step()

    def _step(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total)

    def switching(self, accelerator: Accelerator) -> None:
        """Image by image, every task: no two calls in a row have the same task."""
        for index, image in enumerate(self.images):
            for task in self.tasks:
                before = accelerator.argument_writes
                result = accelerator.run(image, task)
                if index or task:
                    # Another task is one register, the same task none.
                    switched = int(len(self.tasks) > 1)
                    self._compare("host.switches", [accelerator.argument_writes - before], [switched])
                expected = self.expected[task]
                name = f"host.tokens.{result.task}"
                self._compare(name, result.integers, expected.integers[index])
                self._compare(f"host.real.{result.task}", result.tokens, expected.tokens[index])
                self._step()

    def results(self, name: str, results: list[Result], expected: Simulation) -> None:
        """Results of several images."""
        got = np.stack([result.integers for result in results])
        self._compare(name, got, expected.integers[: len(results)])

    def _compare(self, name: str, got: Any, expected: Any) -> None:
        got, expected = np.asarray(got).ravel(), np.asarray(expected).ravel()
        values, mismatches = self.result.engines.get(name, (0, 0))
        wrong = np.flatnonzero(got != expected)
        self.result.engines[name] = (values + len(expected), mismatches + len(wrong))
        for index in wrong[: max(0, SHOWN - mismatches)]:
            self.result.mismatches.append(f"{name}[{index}]: got {got[index]}, expected {expected[index]}")
