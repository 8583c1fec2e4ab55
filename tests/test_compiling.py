"""Compiling the kernels for the first time is announced, once, and no part of the time of a simulation."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from numba import njit

from edgemoe.runs import run_task
from pysim.design import Design
from pysim.kernels import compiling


def compiled(module: str) -> Any:
    """A new function of a module, which is compiled at its first call."""

    def double(x: int) -> int:
        return 2 * x

    double.__module__ = module
    return njit(double)


def test_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(compiling._compilation, "_announced", False)
    ours, other = compiled("pysim.kernels.example"), compiled("elsewhere")
    with caplog.at_level(logging.INFO, "edgemoe"):
        before = compiling._compilation.seconds
        other(1)
        assert compiling._compilation.seconds == before and caplog.messages == []
        wall, clock = time.perf_counter(), compiling.clock()
        ours(1)
        took = compiling._compilation.seconds - before
        assert 0 < took <= time.perf_counter() - wall
        assert compiling.clock() - clock <= time.perf_counter() - wall - took
        ours(2)
        ours(1.5)
    (message,) = caplog.messages
    assert message.startswith("compiling the simulator for this computer, once (kept in /")
    assert compiling._compilation.seconds > before + took, "another type is another compilation"


def test_simulations_are_timed_by_it(
    designs: dict[str, Design], images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 102.5])
    monkeypatch.setattr("edgemoe.runs.clock", lambda: next(times))
    assert run_task(designs["w8a8"], images[:1], "depth").seconds == 2.5


GELU = """
import logging
import numpy as np
logging.basicConfig(level=logging.INFO)
from pysim.kernels.gelu import gelu
print(gelu(np.array([0])))
"""


def test_what_is_in_the_cache_is_not_compiled(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", GELU], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout == "[0]\n"
        said.append(done.stderr.count("compiling the simulator for this computer, once"))
    assert said == [1, 0]
