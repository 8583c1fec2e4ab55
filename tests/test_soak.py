"""`scripts/soak_host.py`: a short soak is clean, and each kind of growth or difference is found."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codegen.build import Build
from host import Accelerator, Manifest, Result
from host.emulated import EmulatedBoard, EmulatedMemory
from scripts import soak_host
from scripts.soak_host import LIMITS, SAMPLES, Report, Sample, Soak

pytestmark = pytest.mark.compile

Pixels = NDArray[np.uint8]


@pytest.fixture
def plain(built: Build, library: Path) -> EmulatedBoard:
    """A board that keeps no record of what it is told, which would grow."""
    return EmulatedBoard(Manifest.load(built.host), library)


@pytest.fixture
def soak(built: Build, plain: EmulatedBoard, images: Pixels) -> Soak:
    return Soak(built.folder, plain, images)


def test_short_soak(soak: Soak) -> None:
    report = soak.run(200, 120)
    assert report.failures() == []
    assert 200 <= report.runs < 220
    assert report.values == report.runs * 9 * 24
    assert len(report.actions) >= 5
    assert {sample.buffers for sample in report.samples} <= {0, 6}


def test_time_is_bounded(soak: Soak) -> None:
    report = soak.run(10**9, 0.5)
    assert 0 < report.runs < 10**9 and report.failures() == []
    assert "of 1,000,000,000 runs" in report.text()


def test_wrong_results_are_found(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Accelerator._results

    def wrong(self: Accelerator, job: Any, cycles: int) -> list[Result]:
        results = real(self, job, cycles)
        results[-1].integers[3, 2] += 1
        return results

    monkeypatch.setattr(Accelerator, "_results", wrong)
    report = soak.run(200, 120)
    assert any("1 values of 216 differ" in failure for failure in report.failures())
    assert "FAILED: " in report.text()


def test_lost_buffers_are_found(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmulatedMemory, "free", lambda self, buffer: None)
    report = soak.run(60, 120)
    assert any("buffers" in failure for failure in report.failures())


def test_kept_memory_is_found(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    real = Accelerator._results

    def keeping(self: Accelerator, job: Any, cycles: int) -> list[Result]:
        # Mapped, not allocated: the heap of a long test process has room that was paid for before.
        pages = mmap.mmap(-1, 300_000)
        pages.write(b"\1" * 300_000)
        kept.append(pages)
        return real(self, job, cycles)

    monkeypatch.setattr(Accelerator, "_results", keeping)
    report = soak.run(100, 120)
    assert any("MB of memory" in failure for failure in report.failures()), report.text()


@pytest.mark.parametrize(
    ("name", "step", "found"),
    [(name, 0, False) for name in LIMITS]
    + [
        ("rss", 5 << 20, True),
        ("blocks", 20, False),
        ("blocks", 500, True),
        ("buffers", 1, True),
        ("threads", 1, True),
        ("files", 1, True),
    ],
)
def test_growth(name: str, step: int, found: bool) -> None:
    """A step at every sixth sample."""
    report = Report(1000, runs=1000, warm_runs=200)
    for number in range(SAMPLES):
        flat = Sample(200 << 20, 500_000, 8, 1, 6)
        report.samples.append(flat._replace(**{name: getattr(flat, name) + number // 6 * step}))
    failures = report.failures()
    assert bool(failures) == found
    assert all(failure.startswith(LIMITS[name].what) for failure in failures)


def test_growth_while_warming_up_does_not_count() -> None:
    report = Report(1000, runs=1000, warm_runs=200)
    report.samples = [Sample(min(n, soak_host.WARM) << 24, 0, 0, 0, 0) for n in range(SAMPLES)]
    assert report.failures() == []
