"""Threads that run programs, and ending these programs with all that they have started.

A compiler is a family of processes: the driver, what it starts, and for Verilator make above them. Signals reach
one process alone, so all of them are found and ended.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, ParamSpec

Arguments = ParamSpec("Arguments")

PATIENCE = 2.0
"""Seconds in which programs may remove their temporary files, before they are killed."""


class Process(NamedTuple):
    """A process; its start tells it from a later one of the same number."""

    number: int
    start: str


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads that run programs; whatever ends the block early ends the programs first."""
    before = descendants()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_children(before)
            raise


def in_worker(run: Callable[Arguments, None], *given: Arguments.args, **named: Arguments.kwargs) -> None:
    """Call a function that runs programs, so that they end with whatever ends the call."""
    with workers() as pool:
        pool.submit(run, *given, **named).result()


def descendants() -> set[Process]:
    """Running processes that this one started, directly or through others; none where there is no /proc."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end meanwhile. Its name, in parentheses, may hold anything.
        with suppress(OSError, ValueError, IndexError):
            state, parent, *rest = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if state != "Z":
                parents[int(folder.name)] = (int(parent), rest[17])
    found: set[Process] = set()
    ours = {os.getpid()}
    while True:
        more = {number for number, (parent, _) in parents.items() if parent in ours} - ours
        if not more:
            return found
        found |= {Process(number, parents[number][1]) for number in more}
        ours |= more


def end_children(kept: Set[Process]) -> None:
    """End all descendants: asked first, killed after `PATIENCE`.

    Args:
        kept: those that are left alone.
    """
    ours: set[Process] = set()
    # What is stopped starts nothing more: after some rounds all are known.
    while new := descendants() - kept - ours:
        _send(new, signal.SIGSTOP)
        ours |= new
    _send(ours, signal.SIGTERM)
    _send(ours, signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE
    while (left := descendants() & ours) and time.monotonic() < deadline:
        time.sleep(0.01)
    _send(left, signal.SIGKILL)


def _send(processes: set[Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(OSError):
            os.kill(process.number, number)
