"""`edgemoe doctor`: what it finds, and what it says of what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemoe import doctor
from edgemoe.cli import main
from pysim.extras import EXTRA_OF, installed_as


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def add(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_versions_of_programs(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.version_of_program("tool") is None
    add(programs, "tool", 'echo "Tool of 2024, v3.14.1 (build 7)" >&2; exit 1')
    assert doctor.version_of_program("absent", "tool") == "3.14.1"
    add(programs, "tool", 'echo "$1"')
    assert doctor.version_of_program("tool", argument="-v=1.2") == "1.2"
    assert doctor.version_of_program("tool", argument="none") == doctor.UNKNOWN
    (programs / "tool").write_text("neither a script nor a program")
    assert doctor.version_of_program("tool") == doctor.UNKNOWN
    add(programs, "tool", "while :; do :; done")
    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    assert doctor.version_of_program("tool") == doctor.UNKNOWN


def test_versions_of_packages() -> None:
    assert doctor.version_of_package("numpy") is not None
    assert doctor.version_of_package("json") == doctor.UNKNOWN
    assert doctor.version_of_package("no_such_package") is None


def test_capabilities_name_parts() -> None:
    named = {name for capability in doctor.CAPABILITIES for name in capability.needs}
    assert named == {part.name for part in doctor.PARTS}
    # What comes along with another package of its extra is not listed on its own, nor what only developers need.
    packages = {installed_as(name) for name in EXTRA_OF} - {"cocotb_tools", "pyslang"}
    assert packages <= named


@pytest.mark.compile  # It starts a program of that name.
def test_what_is_missing_and_how_to_get_it(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(programs, "g++", "echo 12.2.0")
    add(programs, "vitis_hls", "echo Vitis HLS v2024.2")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["parts"]["g++"], found["parts"]["Vitis HLS"]) == ("12.2.0", "2024.2")
    assert (found["parts"]["Vivado"], found["parts"]["perl"]) == (None, None)
    states = {entry["name"]: entry for entry in found["capabilities"]}
    assert states["verify --vitis"] == {"name": "verify --vitis", "works": True, "missing": [], "hint": ""}
    rtl = states["verify --rtl"]
    assert not rtl["works"] and rtl["missing"] == ["make", "perl"]
    assert rtl["hint"] == "apt-get install make; apt-get install perl"


def test_it_is_a_table_for_people(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "not installed" in out and "needs g++" in out
    assert "to get g++: install a C++ compiler, for example: apt-get install g++\n" in out
    assert "to get numpy" not in out


def test_it_fits_a_narrow_terminal() -> None:
    """No state is folded into fragments: names leave room for the longest part."""
    longest = max(len(capability.name) for capability in doctor.CAPABILITIES)
    assert longest + len("needs cocotbext-axi,") + 5 <= 80
