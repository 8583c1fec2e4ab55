"""One thing at a time: who has the accelerator, who waits for it in line, and what becomes of both when it is closed.

Whoever has it is *inside* while code of the driver runs for it. A stream is outside between two results: then its
buffers may be freed under it, and it finds out when it goes on. Whoever is inside frees them itself, on the way out.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

from common.errors import InputError
from host.errors import AcceleratorError


def seconds(value: Any, name: str) -> float:
    """A number of seconds that somebody handed over.

    Raises:
        InputError: it is not a number, or not above 0.
    """
    # A bool is an int to Python. NaN is not above 0 either, and a number of 400 digits is no float.
    try:
        if isinstance(value, Real) and not isinstance(value, bool) and float(value) > 0:
            return float(value)
    except OverflowError:
        pass
    raise InputError(
        f"{name} = {ascii(value)[:40]}, expected more than 0 seconds, as a number",
        hint=f"for example {name}=10",
    )


def _this_thread() -> weakref.ref[threading.Thread]:
    return weakref.ref(threading.current_thread())


class Turns:
    """Turns at an accelerator, first come, first served.

    Safe to use from several threads and from signal handlers.

    Attributes:
        closed: whether nobody gets a turn any more.
    """

    def __init__(self, release: Callable[[], Any]) -> None:
        """Nobody has it.

        Args:
            release: frees what the turns are for; called after `close`, when nobody is inside, perhaps repeatedly.
        """
        self.closed = False
        self._release = release
        # Reentrant, as a signal handler may come in the middle of it.
        self._changed = threading.Condition(threading.RLock())
        self._line: deque[object] = deque()
        self._holder: object = None
        self._what = ""
        self._inside = False
        # The thread that is inside, or was last: itself, as its number may go to another one after it.
        self._thread = _this_thread()

    @contextmanager
    def turn(self, what: str, patience: float = 0.0) -> Iterator[None]:
        """A turn, for as long as the block takes.

        Args:
            what: it is for, in messages to others.
            patience: seconds to wait in line; 0 to be refused where it is taken.

        Raises:
            AcceleratorError: it is taken, or closed.
        """
        ticket = object()
        try:
            self._enter(ticket, what, patience)
            yield
        finally:
            self._leave(ticket)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """A pause of the turn, for as long as the block takes."""
        with self._changed:
            self._inside = False
            self._changed.notify_all()
        self._release_if_due()
        try:
            yield
        finally:
            me = _this_thread()
            with self._changed:
                while self._inside and self._thread != me:
                    self._changed.wait()  # Somebody is releasing, which takes no time to speak of.
                self._inside, self._thread = True, me

    def require_open(self) -> None:
        """Refuse what is closed."""
        if self.closed:
            raise AcceleratorError("the accelerator is closed", hint="open a new one")

    def close(self, patience: float) -> None:
        """Give nobody a turn any more, and release as soon as nobody is inside.

        Returns at once where the caller is inside itself: a signal handler, the source of a stream.

        Args:
            patience: seconds to wait for another thread that is inside; it releases later where that is not enough.
        """
        deadline = time.monotonic() + patience
        me = _this_thread()
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            while self._inside:
                left = deadline - time.monotonic()
                if self._thread == me or left <= 0:
                    return
                self._changed.wait(left)
        self._release_if_due()

    def _enter(self, ticket: object, what: str, patience: float) -> None:
        me = _this_thread()
        deadline = time.monotonic() + patience
        with self._changed:
            self.require_open()
            # A thread that waited for itself would wait for ever.
            if (self._holder or self._line) and (not patience or (self._holder and self._thread == me)):
                raise self._busy(what, "is")
            self._line.append(ticket)
            while self._holder or self._line[0] is not ticket:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._busy(what, f"after {patience:g} s in line is still")
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
                self.require_open()
            # In an order in which `_leave` undoes whatever an exception of a signal handler leaves of it.
            self._holder, self._what = ticket, what
            self._line.popleft()
            self._thread, self._inside = me, True
        # From here on, who closes leaves the releasing to this thread; before that, it may have been done.
        self.require_open()

    def _busy(self, what: str, state: str) -> AcceleratorError:
        with_whom = self._what if self._holder else "calls in line"
        return AcceleratorError(
            f"{what}: the accelerator {state} busy with {with_whom}",
            hint="take all results of a stream, or close it, before the next call; other threads may wait in line: "
            "wait=True",
        )

    def _leave(self, ticket: object) -> None:
        with self._changed:
            if ticket in self._line:
                self._line.remove(ticket)
            if self._holder is ticket:
                self._inside, self._holder = False, None
            self._changed.notify_all()
        self._release_if_due()

    def _release_if_due(self) -> None:
        with self._changed:
            if not self.closed or self._inside:
                return
            self._inside, self._thread = True, _this_thread()
        try:
            self._release()
        finally:
            with self._changed:
                self._inside = False
                self._changed.notify_all()
