"""Every name in docs/glossary.md is a name in the sources."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = ("boards", "codegen", "common", "edgemoe", "frontend", "host", "pysim")
HARDWARE = ("*.h", "*.cpp", "*.sv", "*.j2")


@cache
def words(hardware: bool) -> frozenset[str]:
    """Identifiers of the hardware's sources, or of the Python code."""
    if hardware:
        paths = [path for pattern in HARDWARE for path in (ROOT / "hls").rglob(pattern)]
    else:
        paths = [path for package in PYTHON for path in (ROOT / package).rglob("*.py")]
    return frozenset(word for path in paths for word in re.findall(r"[A-Za-z_]\w*", path.read_text()))


def names() -> list[tuple[bool, str]]:
    """Whether it is one of the hardware, and the name, of every cell with a name."""
    found = []
    for line in (ROOT / "docs/glossary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for column, cell in enumerate(cells[1:-1] if line.startswith("|") else ()):
            found += [(column == 1, name) for name in re.findall(r"`(\w+)`", cell)]
    return found


def test_there_are_names_of_both_kinds() -> None:
    assert len([name for hardware, name in names() if hardware]) > 8
    assert len([name for hardware, name in names() if not hardware]) > 25


@pytest.mark.parametrize(("hardware", "name"), names())
def test_names_are_in_the_sources(hardware: bool, name: str) -> None:
    assert name in words(hardware), f"docs/glossary.md speaks of {name}"
