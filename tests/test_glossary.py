"""Every name in docs/glossary.md is a name in the sources; every abbreviation of the documentation is in it."""

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


EVERYDAY = {
    "AMD", "BMP", "BUILD", "CMYK", "CONTRIBUTING", "CPU", "CTRL", "GB", "GIF", "HEIC", "HP", "HTML",
    "ICCAD", "III", "ISCAS", "JPEG", "JSON", "KB", "MB", "MIT", "MT", "OUTPUT", "PATH", "PGM", "PNG", "PPM", "SD",
    "SIGHUP", "SIGINT", "SIGTERM", "SOURCE", "TIFF", "TOML", "ZU",
}  # fmt: skip
"""Needs no glossary, or is a name that the sentence explains: units, file formats, conferences, boards."""
NUMBERED = re.compile(r"[A-Z]+\d")
"""A variable or a part's name (S1, HP0, ZCU102)."""


def prose(page: str) -> str:
    """A page without code, formulas and addresses of links."""
    for left_out in (r"```.*?```", r"(?m)^    .*$", r"`[^`]*`", r"\$[^$]*\$"):
        page = re.sub(left_out, "", page, flags=re.DOTALL if left_out.startswith("```") else 0)
    return re.sub(r"\]\([^)]*\)", "]", page)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_abbreviations_are_explained(path: Path) -> None:
    used = set(re.findall(r"\b[A-Z][A-Z0-9]+(?=s?\b)", prose(path.read_text())))
    told = set(re.findall(r"\b[A-Z][A-Z0-9]+\b", (ROOT / "docs/glossary.md").read_text()))
    unknown = {word for word in used - told - EVERYDAY if not NUMBERED.match(word)}
    assert unknown == set(), "explain them in docs/glossary.md"
