"""Power of the board, from the sensors that PYNQ finds (`pynq.pmbus`), sampled while something runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

Sensors = Mapping[str, Callable[[], float]]
"""Watts of each rail, by its name."""

WHOLE = ("12V", "SOM", "power1", "TOTAL")
"""Rails that measure the supply of a whole board or module."""

PERIOD = 0.01
"""Seconds between two samples."""


def find_sensors() -> Sensors:
    """The power sensors of the board: none where PYNQ is not installed or finds none.

    Where a board measures its whole supply, that alone counts: the other rails are parts of it.
    """
    try:
        from pynq import get_rails
    except ImportError:
        return {}
    try:
        rails: Mapping[str, Any] = get_rails()
    except Exception:  # PYNQ raises whatever libsensors and the board's files make it raise.
        return {}
    found = {name: rail.power for name, rail in rails.items() if getattr(rail, "power", None) is not None}
    whole = {name: sensor for name, sensor in found.items() if name in WHOLE}
    return {name: _reader(sensor) for name, sensor in (whole or found).items()}


def _reader(sensor: Any) -> Callable[[], float]:
    return lambda: float(sensor.value)


class Meter:
    """Samples of the sensors while a block runs.

    Attributes:
        seconds: how long the block ran.
        watts: mean over the samples, all rails together; None without sensors or samples.
    """

    def __init__(self, sensors: Sensors) -> None:
        """Sample these sensors."""
        self._sensors = sensors
        self._samples: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="power", daemon=True)
        self.seconds = 0.0

    @property
    def watts(self) -> float | None:
        """Mean power."""
        return sum(self._samples) / len(self._samples) if self._samples else None

    def __enter__(self) -> Meter:
        self._start = time.perf_counter()
        if self._sensors:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self._done.set()
        if self._sensors:
            self._thread.join()

    def _sample(self) -> None:
        while True:
            with suppress(Exception):  # A sensor that does not answer now may do so the next time.
                self._samples.append(sum(read() for read in self._sensors.values()))
            if self._done.wait(PERIOD):
                return
