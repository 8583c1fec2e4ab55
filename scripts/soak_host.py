"""Thousands of runs of the host's driver on an emulated board: all tasks, batches, streams, threads, and misuse.

    python scripts/soak_host.py [--network micro] [--precision w8a8] [--runs 10000] [--seconds 3600] [--seed 1]

Every result is compared with the simulator's. Memory (of the process, and blocks of Python's), buffers, threads and
open files are counted on the way; exits with 1 if a result differs, or if any of them grows. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import edgemoe
from codegen.csim import build_library
from common.errors import InputError
from host import Accelerator, AcceleratorError, Manifest, Result
from host.emulated import EmulatedBoard

Pixels = NDArray[np.uint8]

SAMPLES = 30
"""How often everything is counted in a soak, evenly spread; the first fifth is for warming up."""
WARM = SAMPLES // 5
LATER = 10.0
"""Seconds that the threads of calls which have ended may take to end too."""
THREADS = 3


class Sample(NamedTuple):
    """What there was of everything at one time."""

    rss: int
    blocks: int
    buffers: int
    threads: int
    files: int


class Limit(NamedTuple):
    """How much more of something there may be at the end than after the warm-up: fixed, and for each run."""

    what: str
    unit: int
    fixed: float
    per_run: float = 0.0


LIMITS = {
    "rss": Limit("MB of memory", 1 << 20, 4.0),
    # One lost object a run would be one block a run at least; the samples themselves take some.
    "blocks": Limit("blocks of Python's memory", 1, 400, 0.25),
    "buffers": Limit("buffers", 1, 0),
    "threads": Limit("threads", 1, 0),
    "files": Limit("open files", 1, 0),
}


@dataclass
class Report:
    """What a soak found."""

    wanted: int
    runs: int = 0
    values: int = 0
    seconds: float = 0.0
    actions: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    warm_runs: int = 0

    def grown(self, name: str) -> tuple[float, float]:
        """How much there was of something after the warm-up, and at the end: medians of a third of the samples."""
        warm = [getattr(sample, name) for sample in self.samples[min(WARM, len(self.samples) // 5) :]]
        third = max(1, len(warm) // 3)
        return statistics.median(warm[:third]), statistics.median(warm[-third:])

    def failures(self) -> list[str]:
        """Why the soak failed, in sentences; empty if it did not."""
        found = list(self.wrong)
        for name, limit in LIMITS.items():
            before, after = self.grown(name)
            allowed = limit.fixed + limit.per_run * (self.runs - self.warm_runs)
            if (after - before) / limit.unit > allowed:
                found.append(
                    f"{limit.what}: {before / limit.unit:,.1f} after the warm-up, {after / limit.unit:,.1f} at the end"
                )
        return found

    def text(self) -> str:
        """The summary, for people."""
        lines = [
            f"{self.runs:,} of {self.wanted:,} runs in {self.seconds:,.0f} s, {self.values:,} values compared: "
            + ", ".join(f"{count:,} {name}" for name, count in sorted(self.actions.items()))
        ]
        for name, limit in LIMITS.items():
            before, after = (value / limit.unit for value in self.grown(name))
            lines.append(f"{limit.what:28} {before:12,.1f} after the warm-up {after:12,.1f} at the end")
        return "\n".join([*lines, *(f"FAILED: {failure}" for failure in self.failures()[:10])])


class Soak:
    """One accelerator after the other on an emulated board, used and misused at random."""

    def __init__(self, build: Path, board: EmulatedBoard, images: Pixels, seed: int = 1) -> None:
        """Prepare what the results must be.

        Args:
            build: the build folder.
            board: an emulated board for it.
            images: (images, channels, H, W) uint8, at least 8.
            seed: of the choices.
        """
        design = edgemoe.load_design(build / "design")
        self._expected = [edgemoe.simulate(design, images, task).integers for task in design.spec.tasks]
        self._build, self._board, self._images = build, board, images
        self._tasks = design.spec.tasks
        self._random = random.Random(seed)
        self._accelerator: Accelerator | None = None
        self._actions: dict[str, Callable[[Accelerator], None]] = {
            "single images": self._run,
            "batches": self._batch,
            "streams": self._stream,
            "streams of several tasks": self._stream_of_tasks,
            "abandoned streams": self._abandon,
            "failing sources": self._failing_source,
            "bad arguments": self._misuse,
            "threads in line": self._threads,
            "closed and opened": self._reopen,
            "closed by a source": self._close_inside,
        }
        self._weights = [8, 8, 8, 4, 2, 2, 2, 2, 1, 1]

    def run(self, runs: int, seconds: float) -> Report:
        """Soak for so many runs (an image and task each), or so many seconds if those end first."""
        self._report = report = Report(runs)
        start = time.monotonic()
        threads = threading.active_count()
        names = list(self._actions)
        try:
            for (
                action
            ) in self._actions.values():  # What is loaded or kept at the first use of it is no growth.
                action(self._opened())
            report.samples.append(self._sample(threads))
            while report.runs < runs and not report.wrong and time.monotonic() - start < seconds:
                accelerator = self._opened()
                (name,) = self._random.choices(names, self._weights)
                report.actions[name] += 1
                self._actions[name](accelerator)
                # By runs or by time, whichever is nearer to its end.
                done = max(report.runs / runs, (time.monotonic() - start) / seconds)
                if done * SAMPLES > len(report.samples):
                    report.samples.append(self._sample(threads))
                    if len(report.samples) == WARM:
                        report.warm_runs = report.runs
        finally:
            if self._accelerator is not None:
                self._accelerator.close()
        self._accelerator = None
        left = len(self._board.memory.buffers)
        if left:
            report.wrong.append(f"{left} buffers are left at the end")
        report.seconds = time.monotonic() - start
        return report

    def _opened(self) -> Accelerator:
        if self._accelerator is None:
            self._accelerator = Accelerator(self._build, board=self._board)
        return self._accelerator

    def _sample(self, threads: int) -> Sample:
        # A call's thread ends a little after the call.
        deadline = time.monotonic() + LATER
        while threading.active_count() > threads and time.monotonic() < deadline:
            time.sleep(1e-3)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Sample(
            pages * resource.getpagesize(),
            sys.getallocatedblocks(),
            len(self._board.memory.buffers) if self._accelerator is not None else 0,
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        )

    def _choose(self, most: int) -> list[int]:
        return self._random.choices(range(len(self._images)), k=self._random.randint(1, most))

    def _task(self) -> int:
        return self._random.randrange(len(self._tasks))

    def _compare(self, what: str, results: Sequence[Result], images: Sequence[int], task: int) -> None:
        report = self._report
        if len(results) != len(images):
            report.wrong.append(f"{what}: {len(results)} results of {len(images)} images")
        for result, image in zip(results, images, strict=False):
            expected = self._expected[task][image]
            report.runs += 1
            report.values += expected.size
            differ = int((result.integers != expected).sum())
            if differ or result.task != self._tasks[task]:
                report.wrong.append(
                    f"{what}: image {image}, task {self._tasks[task]}: {differ} values of {expected.size} differ, "
                    f"task {result.task}"
                )

    def _refused(self, what: str, action: Callable[[], Any], kind: type[Exception]) -> None:
        try:
            action()
        except kind:
            return
        self._report.wrong.append(f"{what}: not refused")

    def _run(self, accelerator: Accelerator) -> None:
        (image,), task = self._choose(1), self._task()
        self._compare("run", [accelerator.run(self._images[image], self._tasks[task])], [image], task)

    def _batch(self, accelerator: Accelerator) -> None:
        images, task = self._choose(2 * accelerator.max_batch + 1), self._task()
        self._compare("run_batch", accelerator.run_batch(self._images[images], task), images, task)

    def _stream(self, accelerator: Accelerator) -> None:
        images, task = self._choose(6), self._task()
        self._compare("stream", list(accelerator.stream(iter(self._images[images]), task)), images, task)

    def _stream_of_tasks(self, accelerator: Accelerator) -> None:
        images = self._choose(4)
        results = list(accelerator.stream(self._images[images], self._tasks))
        for task in range(len(self._tasks)):
            self._compare("stream of tasks", results[task :: len(self._tasks)], images, task)

    def _abandon(self, accelerator: Accelerator) -> None:
        stream = accelerator.stream(self._images, 0)
        images = list(range(self._random.randint(1, 4)))
        self._compare("abandoned stream", [next(stream) for _ in images], images, 0)
        self._refused("busy", lambda: accelerator.run(self._images[0]), AcceleratorError)

    def _failing_source(self, accelerator: Accelerator) -> None:
        images = list(range(self._random.randint(0, 4)))

        def source() -> Iterator[Pixels]:
            yield from self._images[images]
            raise ZeroDivisionError

        results: list[Result] = []

        def take() -> None:
            results.extend(accelerator.stream(source(), 0))

        self._refused("failing source", take, ZeroDivisionError)
        # `extend` keeps what came before the error.
        self._compare("failing source", results, images, 0)

    def _misuse(self, accelerator: Accelerator) -> None:
        bad: Any = self._random.choice([None, self._images[0].astype(np.float32), self._images, "none.png"])
        self._refused("bad image", lambda: accelerator.run(bad), InputError)
        self._refused("bad image", lambda: accelerator.run_batch([self._images[0], bad]), InputError)
        self._refused("bad image", lambda: list(accelerator.stream([bad])), InputError)
        task: Any = self._random.choice(["none", -1, len(self._tasks), True])
        self._refused("bad task", lambda: accelerator.run(self._images[0], task), InputError)

    def _threads(self, accelerator: Accelerator) -> None:
        chosen = [(self._choose(4), self._task()) for _ in range(THREADS)]
        results: dict[int, list[Result]] = {}

        def work(number: int) -> None:
            images, task = chosen[number]
            results[number] = accelerator.run_batch(self._images[images], task, wait=True)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, (images, task) in enumerate(chosen):
            self._compare("thread", results.get(number, []), images, task)

    def _reopen(self, accelerator: Accelerator) -> None:
        accelerator.close()
        self._accelerator = None

    def _close_inside(self, accelerator: Accelerator) -> None:
        def source() -> Iterator[Pixels]:
            yield from self._images[:2]
            accelerator.close()
            yield self._images[2]

        self._refused("closed by a source", lambda: list(accelerator.stream(source())), AcceleratorError)
        if self._board.memory.buffers:
            self._report.wrong.append("closed by a source: buffers are left")
        self._accelerator = None


def main() -> int:
    """Run the soak and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="micro", help="name in the zoo, or a model.toml")
    parser.add_argument("--precision", default="w8a8")
    parser.add_argument("--batch", type=int, default=3, help="images that the accelerator takes at once")
    parser.add_argument("--runs", type=int, default=10_000, help="images and tasks to run")
    parser.add_argument("--seconds", type=float, default=3600.0, help="to stop after, whatever is left")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.runs < 1 or not 0 < options.seconds <= threading.TIMEOUT_MAX:
        parser.error("--runs and --seconds must be above 0")
    model = edgemoe.init_model(options.network, seed=options.seed)
    images = edgemoe.random_images(model, 12, seed=options.seed)
    design = edgemoe.quantize(model, images, options.precision)
    with tempfile.TemporaryDirectory() as temporary:
        build = edgemoe.generate(
            design, Path(temporary) / "build", "zcu102", batch=options.batch, model=model, must_fit=False
        )
        board = EmulatedBoard(Manifest.load(build.host), build_library(build.hls))
        report = Soak(build.folder, board, images, options.seed).run(options.runs, options.seconds)
    print(report.text())
    return 1 if report.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
