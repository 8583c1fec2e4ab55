"""The record of what was verified of a build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from codegen.build import Build
from codegen.csim import CsimResult
from codegen.verification import FILE, read_verification, record


@pytest.fixture
def build(built: Build, tmp_path: Path) -> Build:
    """A build of this test's own."""
    folder = tmp_path / "build"
    shutil.copytree(built.folder, folder, ignore=shutil.ignore_patterns("hls", "rtl", FILE))
    return Build.load(folder)


def test_checks_are_put_on_record_one_by_one(build: Build) -> None:
    assert read_verification(build).checks == {}
    path = record(build, "csim", CsimResult({"linear": (100, 0), "norm": (7, 2)}), "1.0")
    record(build, "host", CsimResult({"host": (5, 0)}), "1.0")
    assert path == build.folder / FILE
    checks = read_verification(build).checks
    assert list(checks) == ["csim", "host"]
    assert (checks["csim"].values, checks["csim"].mismatches, checks["host"].values) == (107, 2, 5)
    record(build, "csim", CsimResult({"linear": (100, 0)}), "1.1")
    assert read_verification(build).checks["csim"].mismatches == 0
    assert [each.name for each in build.folder.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize("change", ["{", '{"version": 2}', "other"])
def test_a_record_that_is_not_this_builds_counts_for_nothing(build: Build, change: str) -> None:
    path = record(build, "csim", CsimResult({"linear": (100, 0)}), "1.0")
    assert path is not None
    if change == "other":
        change = json.dumps(json.loads(path.read_text()) | {"hardware_id": "0"})
    path.write_text(change)
    assert read_verification(build).checks == {}
    record(build, "host", CsimResult({"host": (5, 0)}), "1.0")
    assert list(read_verification(build).checks) == ["host"]


def test_a_folder_that_cannot_be_written(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert record(build, "csim", CsimResult({"linear": (100, 0)}), "1.0") is None
