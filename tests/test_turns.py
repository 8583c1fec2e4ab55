"""Threads and signal handlers at one accelerator: refused, in line, or closing it in the middle of a call."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codegen.build import Build
from emulation import Expected, FaultyKernel, check
from host import Accelerator, AcceleratorError, Result, driver
from host import call as host_call
from host.emulated import EmulatedBoard
from host.turns import Turns

pytestmark = pytest.mark.compile

Pixels = NDArray[np.uint8]

LONG = 30.0
"""Seconds after which a test that waits for a thread has failed."""


class Worker(threading.Thread):
    """A thread that keeps what its action returned or raised."""

    def __init__(self, action: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.action = action
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.action()
        except BaseException as error:
            self.error = error

    def end(self) -> Any:
        """What the action returned."""
        self.join(LONG)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def in_line(accelerator: Accelerator) -> int:
    return len(accelerator._turns._line)


class TestLine:
    def test_first_come_first_served(
        self,
        accelerator: Accelerator,
        images: Pixels,
        expected: Expected,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        order: list[int] = []

        def call(number: int) -> list[Result]:
            image, task = images[number], number % 2
            if number % 3 == 0:
                return [accelerator.run(image, task, wait=True)]
            if number % 3 == 1:
                return accelerator.run_batch([image], task, wait=LONG)
            return list(accelerator.stream([image], task, wait=True))

        prepare = accelerator._pack

        def pack(slot: Any, pixels: Pixels, task: int) -> Any:
            order.append(next(i for i, image in enumerate(images) if (image == pixels[0]).all()))
            return prepare(slot, pixels, task)

        monkeypatch.setattr(accelerator, "_pack", pack)
        stream = accelerator.stream(images[:2])
        first = next(stream)
        order.clear()
        workers = []
        for number in range(2, 10):
            workers.append(Worker(lambda number=number: call(number)))  # type: ignore[misc]
            until(lambda: in_line(accelerator) == len(workers))
        check([first, *stream], expected["semseg"][:2])
        for number, worker in enumerate(workers, 2):
            check(worker.end(), expected[accelerator.tasks[number % 2]][number : number + 1])
        assert order == list(range(2, 10))
        assert in_line(accelerator) == 0

    def test_default_is_to_be_refused(
        self, accelerator: Accelerator, images: Pixels, expected: Expected
    ) -> None:
        stream = accelerator.stream(images[:2])
        first = next(stream)
        with pytest.raises(AcceleratorError, match="run: the accelerator is busy with stream") as caught:
            Worker(lambda: accelerator.run(images[0])).end()
        assert "wait=True" in caught.value.hint
        check([first, *stream], expected["semseg"][:2])

    @pytest.mark.parametrize("wait", [0.05, True])
    def test_patience_ends(
        self, accelerator: Accelerator, images: Pixels, expected: Expected, wait: bool | float
    ) -> None:
        stream = accelerator.stream(images[:3])
        done = [next(stream)]
        accelerator._caller.timeout = 0.05
        for attempt in (
            lambda: accelerator.run(images[0], wait=wait),
            lambda: accelerator.run_batch(images[:1], wait=wait),
            lambda: list(accelerator.stream(images[:1], wait=wait)),
        ):
            with pytest.raises(AcceleratorError, match=r"after 0.05 s in line is still busy with stream"):
                Worker(attempt).end()
        accelerator._caller.timeout = LONG
        check(done + list(stream), expected["semseg"][:3])
        check([accelerator.run(images[0])], expected["semseg"][:1])

    def test_nobody_waits_for_himself(
        self, accelerator: Accelerator, images: Pixels, expected: Expected
    ) -> None:
        stream = accelerator.stream(images[:2])
        done = [next(stream)]
        with pytest.raises(AcceleratorError, match="run: the accelerator is busy with stream"):
            accelerator.run(images[0], wait=True)
        check(done + list(stream), expected["semseg"][:2])

        def source() -> Iterator[Pixels]:
            yield images[0]
            accelerator.run(images[0], wait=True)

        with pytest.raises(AcceleratorError, match="run: the accelerator is busy with stream"):
            list(accelerator.stream(source()))
        check([accelerator.run(images[0])], expected["semseg"][:1])

    def test_nobody_pushes_in(self) -> None:
        turns = Turns(lambda: None)
        turns._line.append(object())  # Its thread was told that the turn is free, and did not run since.
        with (
            pytest.raises(AcceleratorError, match="run: the accelerator is busy with calls in line"),
            turns.turn("run"),
        ):
            pass

    def test_a_stream_may_go_from_thread_to_thread(
        self, accelerator: Accelerator, images: Pixels, expected: Expected
    ) -> None:
        stream = accelerator.stream(images[:4])
        results = [Worker(lambda: next(stream)).end() for _ in range(4)]
        waiting = Worker(lambda: accelerator.run(images[4], wait=True))
        until(lambda: in_line(accelerator) == 1)
        assert Worker(lambda: next(stream, None)).end() is None
        check([*results, waiting.end()], expected["semseg"][:5])

    def test_a_thread_with_the_number_of_another_may_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Numbers are used again when threads end: what the first one left is not the second one's own."""
        same = SimpleNamespace(**(vars(threading) | {"get_ident": lambda: 7}))
        monkeypatch.setattr("host.turns.threading", same)
        turns, held = Turns(lambda: None), contextlib.ExitStack()

        def hold() -> None:
            held.enter_context(turns.turn("stream"))
            held.enter_context(turns.outside())

        def wait() -> None:
            with turns.turn("run", 0.01):
                pass

        Worker(hold).end()
        with pytest.raises(AcceleratorError, match=r"after 0.01 s in line is still busy with stream"):
            Worker(wait).end()
        held.close()
        wait()

    def test_many_threads(self, accelerator: Accelerator, images: Pixels, expected: Expected) -> None:
        def work(number: int) -> None:
            for turn in range(6):
                index, task = (number + turn) % len(images), accelerator.tasks[(number + turn) % 2]
                check([accelerator.run(images[index], task, wait=LONG)], expected[task][index : index + 1])
                check(accelerator.run_batch(images[:4], task, wait=LONG), expected[task][:4])

        for worker in [Worker(lambda number=number: work(number)) for number in range(6)]:  # type: ignore[misc]
            worker.end()


class TestClosing:
    """`close` in the middle of a call: no waiting for what nobody ends, nothing freed under it, nothing left."""

    @pytest.fixture
    def opened(self, built: Build, board: EmulatedBoard) -> Accelerator:
        """Not closed by the test's end: that is what the tests are about."""
        return Accelerator(built.folder, board=board, timeout=5)

    def gone(self, opened: Accelerator, board: EmulatedBoard, built: Build, images: Pixels) -> None:
        """All is given back, and the board can be used again."""
        assert opened.buffers == 0 and not board.memory.buffers
        with pytest.raises(AcceleratorError, match="is closed"):
            opened.run(images[0])
        opened.close()
        with Accelerator(built.folder, board=board, timeout=5) as again:
            assert again.run(images[0]).integers.any()

    def at_once(self, opened: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
        """Close, and fail if that waits for anybody."""

        def waits(timeout: float) -> None:
            raise AssertionError("close waits for its own caller")

        with monkeypatch.context() as patched:
            patched.setattr(opened._turns._changed, "wait", waits)
            opened.close()

    def test_by_the_source_of_a_stream(
        self,
        opened: Accelerator,
        built: Build,
        board: EmulatedBoard,
        images: Pixels,
        expected: Expected,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def source() -> Iterator[Pixels]:
            yield from images[:2]
            self.at_once(opened, monkeypatch)
            assert opened.buffers, "the call that is running has its buffers still"
            yield images[2]

        done = []
        with pytest.raises(AcceleratorError, match="the accelerator is closed"):
            for result in opened.stream(source()):
                done.append(result)
        check(done, expected["semseg"][: len(done)])
        assert len(done) == 1
        self.gone(opened, board, built, images)

    def test_by_a_source_that_ends_or_raises(
        self, opened: Accelerator, built: Build, board: EmulatedBoard, images: Pixels
    ) -> None:
        def source() -> Iterator[Pixels]:
            yield images[0]
            opened.close()
            raise RuntimeError("the camera fell off")

        with pytest.raises(RuntimeError, match="camera"):
            list(opened.stream(source()))
        self.gone(opened, board, built, images)
        opened = Accelerator(built.folder, board=board, timeout=5)

        def ends() -> Iterator[Pixels]:
            yield images[0]
            opened.close()

        with pytest.raises(AcceleratorError, match="is closed"):
            list(opened.stream(ends()))
        self.gone(opened, board, built, images)

    def test_by_a_batch(
        self, opened: Accelerator, built: Build, board: EmulatedBoard, images: Pixels
    ) -> None:
        class Images(Sequence[Pixels]):
            def __len__(self) -> int:
                return 7

            def __getitem__(self, index: Any) -> Any:
                if index.start == 3:
                    opened.close()
                return images[index]

        with pytest.raises(AcceleratorError, match="is closed"):
            opened.run_batch(Images())
        self.gone(opened, board, built, images)

    @pytest.mark.parametrize("mode", ["never", "hold"])
    @pytest.mark.parametrize("call", ["run", "stream"])
    def test_by_a_signal_handler(
        self,
        opened: Accelerator,
        built: Build,
        board: EmulatedBoard,
        kernel: FaultyKernel,
        images: Pixels,
        monkeypatch: pytest.MonkeyPatch,
        mode: str,
        call: str,
    ) -> None:
        monkeypatch.setattr(host_call, "GRACE", 0.3)

        closed: list[bool] = []

        def close(*_: object) -> None:
            closed.append(True)
            self.at_once(opened, monkeypatch)
            assert opened.buffers, "freed in the middle of a call"

        wait, settle = board.wait, opened._caller.settle

        def signalled(seconds: float) -> None:
            """Sleep until the interrupt; a signal comes in the middle of it."""
            if not closed:
                signal.raise_signal(signal.SIGALRM)
            wait(seconds)

        def ending() -> None:
            """Let the call end, which does so in time if it is only held."""
            if closed:
                kernel.go.set()
            settle()

        monkeypatch.setattr(board, "wait", signalled)
        monkeypatch.setattr(opened._caller, "settle", ending)
        before = signal.signal(signal.SIGALRM, close)
        try:
            kernel.mode = mode
            with pytest.raises(AcceleratorError, match="the accelerator is closed: its call was given up"):
                if call == "run":
                    opened.run(images[0])
                else:
                    list(opened.stream(images))
        finally:
            signal.signal(signal.SIGALRM, before)
        kernel.mode = ""
        self.gone(opened, board, built, images)

    def test_by_another_thread(
        self,
        opened: Accelerator,
        built: Build,
        board: EmulatedBoard,
        kernel: FaultyKernel,
        images: Pixels,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(host_call, "GRACE", 0.2)
        kernel.mode = "never"
        running = Worker(lambda: opened.run(images[0]))
        until(lambda: opened._caller.running)
        waiting = Worker(lambda: opened.run(images[0], wait=True))
        until(lambda: in_line(opened) == 1)
        opened.close()
        kernel.mode = ""
        self.gone(opened, board, built, images)
        for worker in (running, waiting):
            with pytest.raises(AcceleratorError, match="is closed"):
                worker.end()

    def test_while_another_thread_is_in_its_source(
        self,
        opened: Accelerator,
        built: Build,
        board: EmulatedBoard,
        images: Pixels,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The other thread cannot be made to leave: it gives all back when its source returns."""
        monkeypatch.setattr(driver, "CLOSE_PATIENCE", 0.05)
        reading, go_on = threading.Event(), threading.Event()

        def source() -> Iterator[Pixels]:
            yield images[0]
            reading.set()
            assert go_on.wait(LONG)
            yield images[1]

        worker = Worker(lambda: list(opened.stream(source())))
        assert reading.wait(LONG)
        opened.close()
        assert opened.buffers, "freed in the middle of a call"
        go_on.set()
        with pytest.raises(AcceleratorError, match="is closed"):
            worker.end()
        self.gone(opened, board, built, images)

    def test_between_two_results(
        self, opened: Accelerator, built: Build, board: EmulatedBoard, images: Pixels, expected: Expected
    ) -> None:
        """Nobody is inside then: all is given back at once, and the stream finds out."""
        stream = opened.stream(images)
        check([next(stream)], expected["semseg"][:1])
        Worker(opened.close).end()
        self.gone(opened, board, built, images)
        with pytest.raises(AcceleratorError, match="is closed"):
            next(stream)

    def test_by_two_threads_at_once(
        self, built: Build, board: EmulatedBoard, images: Pixels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever returns from `close` finds everything given back, even where the other one does it."""
        released = []
        free = board.close

        def slowly() -> None:
            time.sleep(0.1)
            free()
            released.append(True)

        monkeypatch.setattr(board, "close", slowly)
        opened = Accelerator(built.folder, board=board, timeout=5)
        next(opened.stream(images))

        def close() -> bool:
            opened.close()
            return bool(released)

        assert all(worker.end() for worker in [Worker(close) for _ in range(4)])
        self.gone(opened, board, built, images)
