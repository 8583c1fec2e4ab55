"""The edges of a command line: its standard streams, and the signals that end it.

Both command lines run inside `run_program`, on a board too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

from common.errors import InputError

BAD_USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
SIGNAL_BASE = 128
"""Exit codes; a signal that ended the program is added to the last one, as shells do."""

_ENDING = {"SIGTERM": "terminated", "SIGHUP": "hung up"}
"""Signals after which everything is cleaned up as after Ctrl-C, and what is said then."""


def run_program(run: Callable[[], int]) -> int:
    """Run a command line with usable streams, and return its exit code.

    SIGTERM and SIGHUP reach `run` as KeyboardInterrupt. What is printed never fails for want of an encoding. Where
    stdout cannot be written, the exit code says so, whatever `run` returned.

    Args:
        run: does all the work and returns an exit code.
    """
    if not _open_streams():
        _complain("standard output is closed", "to throw results away: > /dev/null")
        return BAD_USAGE
    with _lenient(sys.stdout), _lenient(sys.stderr), _signals() as received:
        try:
            code = run()
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:
            code = BROKEN_PIPE
        if received:
            code = SIGNAL_BASE + received[0]
            _say(_ENDING[signal.Signals(received[0]).name])
        elif code == INTERRUPTED:
            _say("interrupted")
        return _flushed(code)


def system_error(error: OSError) -> InputError:
    """An error of the operating system as an error of ours."""
    where = f"{error.filename}: " if error.filename else ""
    return InputError(f"{where}{error.strerror or error}")


def _open_streams() -> bool:
    """Give closed standard streams /dev/null, lest the next file takes their number; False if stdout was closed."""
    descriptor = 0
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    stdout: TextIO | None = sys.stdout
    stderr: TextIO | None = sys.stderr
    if stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as long as the program
    return stdout is not None


@contextlib.contextmanager
def _lenient(stream: TextIO) -> Iterator[None]:
    """Characters that the stream's encoding lacks are spelled out instead of ending the program."""
    reconfigure = getattr(stream, "reconfigure", None)
    before = getattr(stream, "errors", None)
    if reconfigure is None or before != "strict":
        yield
        return
    reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            reconfigure(errors=before)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Turn signals into KeyboardInterrupt; those that came are listed."""
    received: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        # Cleaning up is not interrupted: whoever cannot wait sends SIGKILL.
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    handled: list[signal.Signals] = []
    try:
        for name in _ENDING:
            number = getattr(signal, name, None)
            # nohup, for one, has it ignored.
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, end)
                handled.append(number)
    except ValueError:  # Not the main thread, which alone can be interrupted.
        pass
    try:
        yield received
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)


def _flushed(code: int) -> int:
    """Write out what the streams hold; where that fails, nothing is tried again at the end of Python."""
    for stream in (sys.stdout, sys.stderr):
        if code == BROKEN_PIPE:
            _divert(stream)
            continue
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            _divert(stream)
            if getattr(error, "errno", None) == errno.EPIPE:
                code = BROKEN_PIPE
            elif code == 0:
                code = BAD_USAGE
                if stream is sys.stdout:
                    _complain(f"standard output: {getattr(error, 'strerror', None) or error}")
    return code


def _divert(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _complain(message: str, hint: str = "") -> None:
    _say("\n".join([f"error: {message}", *([f"hint: {hint}"] if hint else [])]))


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
