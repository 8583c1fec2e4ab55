"""The accelerator as Python sees it: images in, results out."""

from __future__ import annotations

import os
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.contract import MANIFEST, WAIT_FOR_ROUTER, XCLBIN
from common.errors import InputError
from common.packing import check_images, pack_images, unpack_tokens
from common.pictures import load_picture
from host.board import Board
from host.call import Caller
from host.errors import AcceleratorError
from host.manifest import Manifest
from host.program import Files, Program, Slot, require_program
from host.result import Result
from host.turns import Turns, seconds

if TYPE_CHECKING:
    Image = str | os.PathLike[str] | NDArray[np.uint8]
    """A picture file, or (channels, H, W) uint8."""

CLOSE_PATIENCE = 5.0
"""Seconds that `close` waits for another thread to leave the accelerator."""


@dataclass(frozen=True)
class _Job:
    """Images in a slot, ready to be started."""

    slot: Slot
    images: int
    task: int


class Accelerator:
    """A generated accelerator, on a board or emulated.

    A context manager: leaving the block frees all buffers and gives the board back. One at a time on a board.

    One call at a time: where the accelerator is busy, others are refused, or wait in line with `wait`. That may be
    True, for as long as a call may take (`timeout`), or a number of seconds. First come, first served.

    Examples:
        >>> with Accelerator("edgemoe.bit") as accelerator:  # doctest: +SKIP
        ...     accelerator.run("photo.jpg", task="depth").map

    Attributes:
        max_batch: images that the hardware takes in one call at most.
        capacities: sizes of the largest network that the hardware takes; None on a card, which does not tell them.
        clock_mhz: what the cycles are counted at.
        emulated: whether there is no board.
        wait_for_router: whether an RTL accelerator fetches the weights of experts only once their router has decided:
            less traffic, more time. It may be changed between calls; one of C++ always waits.
    """

    wait_for_router: bool = False

    def __init__(
        self, build: str | os.PathLike[str], *, board: Board | None = None, timeout: float | None = None
    ) -> None:
        """Put the design on the board, check that it is the right one, and load its weights.

        Args:
            build: a build folder, its `host` folder, or a `.bit` with its `.hwh` and the files of `host` beside it.
            board: the board; by default the one that PYNQ finds.
            timeout: seconds that a call may take; the board's own default if not given.

        Raises:
            InputError: a file is missing, damaged or of another build, or the timeout is no number above 0.
            AcceleratorError: the board is taken, out of memory, does not answer, or holds other hardware.
        """
        given = None if timeout is None else seconds(timeout, "timeout")
        manifest_file, bitfile = locate(Path(build))
        manifest = Manifest.load(manifest_file)
        files = Files(manifest)
        if board is None:
            board = _real_board(bitfile, manifest)
        self._board, self.emulated = board, board.emulated
        # The program that is loaded is the only one, but for the moment in which another takes its place.
        self._programs: list[Program] = []
        with ExitStack() as stack:
            kernel = board.open()
            stack.callback(board.close)
            self.clock_mhz = kernel.clock_mhz or manifest.clock_mhz
            self._caller = Caller(board, kernel, manifest, board.timeout if given is None else given)
            self.max_batch, self.capacities = self._caller.identify()
            stack.callback(_free, self._programs)
            self._programs.append(Program(board, files, self.max_batch))
            # Last in, first out: no buffer is freed under a running kernel.
            stack.callback(self._caller.settle)
            self._turns = Turns(weakref.finalize(self, stack.pop_all().close))

    def load(self, program: str | os.PathLike[str], *, wait: bool | float = False) -> None:
        """Run another network from now on: other weights, and on an RTL accelerator other jobs.

        It takes the time of copying the weights. Until the new ones are in memory, the old program keeps its own: if
        anything goes wrong, nothing has changed.

        Args:
            program: what `edgemoe compile` made, or another build folder or its `host` folder.
            wait: in line where the accelerator is busy: True, or for so many seconds.

        Raises:
            InputError: a file is missing or damaged, or the accelerator cannot run it; the message names every reason.
            AcceleratorError: the accelerator is busy or closed, or has no memory for a second program.
        """
        patience, manifest = self._patience(wait), Manifest.load(locate(Path(program))[0])
        require_program(self.manifest, manifest, self.capacities, compiled=self._board.compiled)
        files = Files(manifest)
        with self._turns.turn("load", patience):
            self._programs.append(Program(self._board, files, self.max_batch))
            self._programs.pop(0).free()

    @property
    def _program(self) -> Program:
        return self._programs[0]

    @property
    def manifest(self) -> Manifest:
        """The manifest of the program that is loaded."""
        return self._program.manifest

    def run(self, image: Image, task: str | int = 0, *, wait: bool | float = False) -> Result:
        """Run one image.

        Args:
            image: a picture file, converted and made to fit in the network's own way, or (channels, H, W) uint8.
            task: name or number of the task.
            wait: in line where the accelerator is busy: True, or for so many seconds.

        Raises:
            InputError: an image of the wrong kind, or an unknown task.
            AcceleratorError: the accelerator is busy, or stuck; then the board has been reset and can be used again.
        """
        number, patience, pixels = self.manifest.task(task), self._patience(wait), self._prepare(image)
        with self._turns.turn("run", patience):
            job = self._pack(self._program.slots[0], pixels[None], number)
            self._start(job)
            return self._results(job, self._caller.wait())[0]

    def run_batch(
        self,
        images: Sequence[Image] | NDArray[np.uint8],
        task: str | int = 0,
        *,
        wait: bool | float = False,
    ) -> list[Result]:
        """Run images, as many at once as the design holds on chip (`max_batch`).

        Args:
            images: (images, channels, H, W) uint8, or a sequence of what `run` takes.
            task: name or number of the task.
            wait: in line where the accelerator is busy: True, or for so many seconds.
        """
        number, most, patience = self.manifest.task(task), self.max_batch, self._patience(wait)
        starts = range(0, len(images), most)
        chunks = (np.stack([self._prepare(i) for i in images[start : start + most]]) for start in starts)
        with (
            self._turns.turn("run_batch", patience),
            closing(self._pipeline((chunk, number) for chunk in chunks)) as batches,
        ):
            return [result for results in batches for result in results]

    def stream(
        self,
        images: Iterable[Image],
        task: str | int | Sequence[str | int] = 0,
        *,
        wait: bool | float = False,
    ) -> Iterator[Result]:
        """Run images one after the other as they come: the next one is prepared while the kernel works.

        Where the source of the images raises an exception, the results of all images before it come first.

        Args:
            images: what `run` takes, from any source; read one image ahead.
            task: name or number of the task; or several, of which every image has a result each, in that order.
            wait: in line where the accelerator is busy at the first result: True, or for so many seconds.
        """
        # Not a generator itself, so that a wrong task is refused at once.
        tasks = task if isinstance(task, Sequence) and not isinstance(task, str) else [task]
        numbers = [self.manifest.task(each) for each in tasks]
        if not numbers:
            raise InputError("task: an empty list, expected at least one task")
        return self._stream(iter(images), numbers, self._patience(wait))

    def _stream(self, images: Iterator[Image], tasks: Sequence[int], patience: float) -> Iterator[Result]:
        with (
            self._turns.turn("stream", patience),
            closing(self._pipeline(self._jobs(images, tasks))) as batches,
        ):
            for results in batches:
                with self._turns.outside():
                    yield results[0]

    def _jobs(self, images: Iterator[Image], tasks: Sequence[int]) -> Iterator[tuple[NDArray[np.uint8], int]]:
        for image in images:
            pixels = self._prepare(image)[None]
            for task in tasks:
                yield pixels, task

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of their numbers."""
        return tuple(task.name for task in self.manifest.tasks)

    @property
    def buffers(self) -> int:
        """Buffers that are allocated on the board."""
        return sum(len(program.buffers) for program in self._programs)

    @property
    def argument_writes(self) -> int:
        """Number of times that an argument of the kernel was written since the accelerator was opened."""
        return self._caller.registers.argument_writes

    def close(self) -> None:
        """Free all buffers and give the board back; a second time does nothing.

        A call that another thread makes is given up, and ends with an error there. Called in the middle of a call, by a
        signal handler or by the source of a stream's images, this returns at once: that call gives all back as it ends.
        """
        self._caller.cancel()
        self._turns.close(CLOSE_PATIENCE)

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _prepare(self, image: Image) -> NDArray[np.uint8]:
        shape = self.manifest.images.shape
        pixels: Any = (
            load_picture(Path(image), shape, fit=self.manifest.fit)
            if isinstance(image, (str, os.PathLike))
            else image
        )
        check_images(pixels[None] if isinstance(pixels, np.ndarray) else pixels, shape)
        return np.asarray(pixels)

    def _pack(self, slot: Slot, images: NDArray[np.uint8], task: int) -> _Job:
        pack_images(images, self.manifest.images, slot.image.array)
        slot.image.flush()
        return _Job(slot, len(images), task)

    def _start(self, job: _Job) -> None:
        slot = {"image": job.slot.image.address, "output": job.slot.output.address}
        waits = {WAIT_FOR_ROUTER: int(self.wait_for_router)} if self.manifest.backend == "rtl" else {}
        numbers = {"batch": job.images, "task": job.task, **waits}
        self._caller.start(slot | self._program.pointers | numbers)

    def _results(self, job: _Job, cycles: int | None) -> list[Result]:
        job.slot.output.invalidate()
        manifest, layout, heads = self.manifest, self.manifest.images, self._program.heads
        tokens = unpack_tokens(job.slot.output.array, job.images, manifest.output)
        grid = (layout.shape[1] // layout.patch_size, layout.shape[2] // layout.patch_size)
        task = manifest.tasks[job.task]
        # What C++ on this computer counts says nothing of the hardware.
        counted = None if self._board.compiled else cycles
        ms = None if counted is None else counted / self.clock_mhz / 1e3
        return [
            Result(task.name, integers, counted, job.images, ms, manifest.frac, grid, task, heads)
            for integers in tokens
        ]

    def _patience(self, wait: bool | float) -> float:
        """Seconds that a call may wait in line."""
        if isinstance(wait, bool):
            return self._caller.timeout if wait else 0.0
        return seconds(wait, "wait")

    def _pipeline(
        self, batches: Iterator[tuple[NDArray[np.uint8], int]]
    ) -> Generator[list[Result], None, None]:
        """Results of batch after batch; while the kernel works on one, the next is packed and the last unpacked."""
        slots = cycle(self._program.slots)
        running: _Job | None = None
        failure: Exception | None = None
        try:
            while True:
                try:
                    batch = next(batches, None)
                    waiting = None if batch is None else self._pack(next(slots), *batch)
                except Exception as error:  # Of the images' source: what was started before it is not lost.
                    waiting, failure = None, error
                if self._turns.closed and failure is not None:
                    raise failure
                self._turns.require_open()
                done, cycles = running, self._caller.wait() if running else 0
                running = None
                if waiting is not None:
                    try:
                        self._start(waiting)
                        running = waiting
                    except AcceleratorError as error:
                        failure = error
                if done is not None:
                    yield self._results(done, cycles)
                    self._turns.require_open()
                if running is None:
                    break
        finally:
            # Whoever took the results has gone: the call that is still running belongs to nobody.
            self._caller.settle()
        if failure is not None:
            raise failure


def _real_board(bitfile: Path, manifest: Manifest) -> Board:
    """The board or card of this computer, behind the program that runs kernels on it."""
    if manifest.runtime == "xrt":
        from host.xrt_board import XrtBoard

        return XrtBoard(bitfile if bitfile.suffix == ".xclbin" else bitfile.with_name(XCLBIN), manifest)
    from host.pynq_board import PynqBoard

    return PynqBoard(bitfile, manifest.kernel)


def _free(programs: list[Program]) -> None:
    for program in programs:
        program.free()


def locate(build: Path) -> tuple[Path, Path]:
    """The manifest and the bitstream (which need not exist) that a path stands for.

    Raises:
        InputError: neither a build nor a bitstream.
    """
    if build.suffix in (".bit", ".hwh"):
        return build.parent / MANIFEST, build.with_suffix(".bit")
    if build.suffix == ".xclbin":
        return build.parent / MANIFEST, build
    for folder in (build, build / "host"):
        if (folder / MANIFEST).is_file():
            return folder / MANIFEST, folder / "edgemoe.bit"
    raise InputError(
        f"{build}: no {MANIFEST} here or in {build / 'host'}",
        hint="give a build folder, its host folder, or a .bit with the files of the host folder beside it",
    )
