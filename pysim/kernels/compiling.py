"""The first compilation of the kernels: announced, and kept out of measured times."""

from __future__ import annotations

import logging
import time

from numba import config
from numba.core import event

_KERNELS = __name__.rpartition(".")[0]


def clock() -> float:
    """Seconds of a clock that stands still while kernels are compiled: for differences, as `time.perf_counter`."""
    return time.perf_counter() - _compilation.seconds


def watch() -> None:
    """Begin to watch; called once."""
    event.register("numba:compile", _compilation)


class _Compilation(event.Listener):
    """Adds up the time in which numba compiles kernels; reading them from the cache does not count.

    numba compiles in one thread at a time, and the functions that a function calls inside its own time.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth, self._since = 0, 0.0
        self._announced = False

    def on_start(self, event: event.Event) -> None:
        """Note the time of the outermost function."""
        if not _ours(event):
            return
        if not self._announced:
            self._announced = True
            logging.getLogger("edgemoe").info(
                "compiling the simulator for this computer, once (kept in %s)", config.CACHE_DIR
            )
        if self._depth == 0:
            self._since = time.perf_counter()
        self._depth += 1

    def on_end(self, event: event.Event) -> None:
        """Add what it took."""
        if not _ours(event):
            return
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._since


def _ours(event: event.Event) -> bool:
    function = event.data["dispatcher"].py_func
    return str(function.__module__).startswith(_KERNELS)


_compilation = _Compilation()
