"""The accelerator as Python sees it: images in, results out."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from host.board import Board, Buffer
from host.call import Caller
from host.errors import AcceleratorError
from host.manifest import FILE, Manifest
from host.packing import check_images, pack_images, unpack_tokens
from host.result import Result
from pysim.errors import InputError
from pysim.pictures import load_picture

if TYPE_CHECKING:
    Image = str | os.PathLike[str] | NDArray[np.uint8]
    """A picture file, or (channels, H, W) uint8."""


@dataclass(frozen=True)
class _Slot:
    """Memory of one call; there are two, so that one is filled while the kernel works on the other."""

    image: Buffer
    output: Buffer


@dataclass(frozen=True)
class _Job:
    """Images in a slot, ready to be started."""

    slot: _Slot
    images: int
    task: int


class Accelerator:
    """A generated accelerator, on a board or emulated.

    A context manager: leaving the block frees all buffers and gives the board back. One at a time on a board.

    >>> with Accelerator("edgemoe.bit") as accelerator:  # doctest: +SKIP
    ...     accelerator.run("photo.jpg", task="depth").map

    Attributes:
        manifest: what the build says of the hardware.
        clock_mhz: what the cycles are counted at.
        emulated: whether there is no board.
    """

    def __init__(
        self, build: str | os.PathLike[str], *, board: Board | None = None, timeout: float | None = None
    ) -> None:
        """Put the design on the board, check that it is the right one, and load its weights.

        Args:
            build: a build folder, its `host` folder, or a `.bit` with its `.hwh` and the files of `host` beside it.
            board: the board; by default the one that PYNQ finds.
            timeout: seconds that a call may take; the board's own default if not given.

        Raises:
            InputError: a file is missing, damaged or of another build.
            AcceleratorError: the board is taken, out of memory, does not answer, or holds another design.
        """
        manifest_file, bitfile = locate(Path(build))
        self.manifest = Manifest.load(manifest_file)
        weights, self._heads = self.manifest.read_weights(), self.manifest.read_heads()
        if board is None:
            from host.pynq_board import PynqBoard

            board = PynqBoard(bitfile, self.manifest.kernel)
        if timeout is not None and not timeout > 0:
            raise InputError(f"timeout = {timeout}, expected more than 0 seconds")
        self.emulated = board.emulated
        self._buffers: list[Buffer] = []
        self._active = ""
        with ExitStack() as stack:
            kernel = board.open()
            stack.callback(board.close)
            self.clock_mhz = kernel.clock_mhz or self.manifest.clock_mhz
            self._caller = Caller(board, kernel, self.manifest, board.timeout if timeout is None else timeout)
            self._caller.identify()
            self._fixed = self._load(board, stack, weights)
            self._slots = [self._slot(board, stack) for _ in range(2)]
            # Last in, first out: no buffer is freed under a running kernel.
            stack.callback(self._caller.settle)
            self._close = weakref.finalize(self, stack.pop_all().close)

    def run(self, image: Image, task: str | int = 0) -> Result:
        """Run one image.

        Args:
            image: a picture file, resized and converted like `edgemoe simulate --fit` does, or (channels, H, W) uint8.
            task: name or number of the task.

        Raises:
            InputError: an image of the wrong kind, or an unknown task.
            AcceleratorError: the accelerator is stuck; the board has been reset and can be used again.
        """
        number = self.manifest.task(task)
        with self._only("run"):
            job = self._pack(self._slots[0], self._prepare(image)[None], number)
            self._start(job)
            return self._results(job, self._caller.wait())[0]

    def run_batch(self, images: Sequence[Image] | NDArray[np.uint8], task: str | int = 0) -> list[Result]:
        """Run images, as many at once as the design holds on chip (`manifest.max_batch`).

        Args:
            images: (images, channels, H, W) uint8, or a sequence of what `run` takes.
            task: name or number of the task.
        """
        number, most = self.manifest.task(task), self.manifest.max_batch
        starts = range(0, len(images), most)
        chunks = (np.stack([self._prepare(i) for i in images[start : start + most]]) for start in starts)
        with self._only("run_batch"):
            batches = self._pipeline((chunk, number) for chunk in chunks)
            return [result for results in batches for result in results]

    def stream(self, images: Iterable[Image], task: str | int | Sequence[str | int] = 0) -> Iterator[Result]:
        """Run images one after the other as they come: the next one is prepared while the kernel works.

        Where the source of the images raises an exception, the results of all images before it come first.

        Args:
            images: what `run` takes, from any source; read one image ahead.
            task: name or number of the task; or several, of which every image has a result each, in that order.
        """
        # Not a generator itself, so that a wrong task is refused at once.
        tasks = [task] if isinstance(task, (str, int)) else task
        return self._stream(iter(images), [self.manifest.task(each) for each in tasks])

    def _stream(self, images: Iterator[Image], tasks: Sequence[int]) -> Iterator[Result]:
        with self._only("stream"):
            for results in self._pipeline(self._jobs(images, tasks)):
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
        return len(self._buffers)

    @property
    def argument_writes(self) -> int:
        """How often an argument of the kernel was written since the accelerator was opened."""
        return self._caller.registers.argument_writes

    def close(self) -> None:
        """Free all buffers and give the board back; a second time does nothing."""
        self._close()
        self._active = "closed"

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _allocate(self, board: Board, stack: ExitStack, nbytes: int) -> Buffer:
        buffer = board.allocate(nbytes)
        self._buffers.append(buffer)
        stack.callback(_free, buffer, self._buffers)
        return buffer

    def _load(self, board: Board, stack: ExitStack, weights: NDArray[np.uint8]) -> dict[str, int]:
        """Weights into memory, a buffer for every port; the pointers to them."""
        pointers = {}
        for port, words in enumerate(weights):
            buffer = self._allocate(board, stack, len(words))
            buffer.array[:] = words
            buffer.flush()
            pointers[f"weights_{port}"] = buffer.address
        return pointers

    def _slot(self, board: Board, stack: ExitStack) -> _Slot:
        images, output = self.manifest.images, self.manifest.output
        slot = _Slot(
            self._allocate(board, stack, self.manifest.max_batch * images.image_bytes),
            self._allocate(board, stack, self.manifest.max_batch * output.image_bytes),
        )
        # Nothing of it may be left in the cache, to be written back over the kernel's results later on.
        slot.output.array[:] = 0
        slot.output.flush()
        return slot

    def _prepare(self, image: Image) -> NDArray[np.uint8]:
        shape = self.manifest.images.shape
        pixels: Any = (
            load_picture(Path(image), shape, fit=True) if isinstance(image, (str, os.PathLike)) else image
        )
        check_images(pixels[None] if isinstance(pixels, np.ndarray) else pixels, shape)
        return np.asarray(pixels)

    def _pack(self, slot: _Slot, images: NDArray[np.uint8], task: int) -> _Job:
        pack_images(images, self.manifest.images, slot.image.array)
        slot.image.flush()
        return _Job(slot, len(images), task)

    def _start(self, job: _Job) -> None:
        slot = {"image": job.slot.image.address, "output": job.slot.output.address}
        self._caller.start(slot | self._fixed | {"batch": job.images, "task": job.task})

    def _results(self, job: _Job, cycles: int) -> list[Result]:
        job.slot.output.invalidate()
        manifest, layout = self.manifest, self.manifest.images
        tokens = unpack_tokens(job.slot.output.array, job.images, manifest.output)
        grid = (layout.shape[1] // layout.patch_size, layout.shape[2] // layout.patch_size)
        task = manifest.tasks[job.task]
        # What an emulated board counts says nothing of the hardware.
        counted = None if self.emulated else cycles
        ms = None if counted is None else counted / self.clock_mhz / 1e3
        return [
            Result(task.name, integers, counted, job.images, ms, manifest.frac, grid, task, self._heads)
            for integers in tokens
        ]

    def _pipeline(self, batches: Iterator[tuple[NDArray[np.uint8], int]]) -> Iterator[list[Result]]:
        """Results of batch after batch; while the kernel works on one, the next is packed and the last unpacked."""
        slots = cycle(self._slots)
        running: _Job | None = None
        failure: Exception | None = None
        try:
            while True:
                try:
                    batch = next(batches, None)
                    waiting = None if batch is None else self._pack(next(slots), *batch)
                except Exception as error:  # Of the images' source: what was started before it is not lost.
                    waiting, failure = None, error
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
                    self._require_open()
                if running is None:
                    break
        finally:
            # Whoever took the results has gone: the call that is still running belongs to nobody.
            self._caller.settle()
        if failure is not None:
            raise failure

    def _require_open(self) -> None:
        if self._active == "closed":
            raise AcceleratorError("the accelerator is closed", hint="open a new one")

    @contextmanager
    def _only(self, what: str) -> Iterator[None]:
        """One thing at a time."""
        self._require_open()
        if self._active:
            raise AcceleratorError(
                f"{what}: the accelerator is busy with {self._active}",
                hint="take all results of a stream, or close it, before the next call",
            )
        self._active = what
        try:
            yield
        finally:
            if self._active != "closed":
                self._active = ""


def _free(buffer: Buffer, buffers: list[Buffer]) -> None:
    buffers.remove(buffer)
    buffer.free()


def locate(build: Path) -> tuple[Path, Path]:
    """The manifest and the bitstream (which need not exist) that a path stands for.

    Raises:
        InputError: neither a build nor a bitstream.
    """
    if build.suffix in (".bit", ".hwh"):
        return build.parent / FILE, build.with_suffix(".bit")
    for folder in (build, build / "host"):
        if (folder / FILE).is_file():
            return folder / FILE, folder / "edgemoe.bit"
    raise InputError(
        f"{build}: no {FILE} here or in {build / 'host'}",
        hint="give a build folder, its host folder, or a .bit with the files of the host folder beside it",
    )
