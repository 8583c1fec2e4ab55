"""Tables of the documentation behind a mark `<!-- check: name -->`, for tests that compare them with the code."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
MARK = r"<!-- check: (.*?) -->"

Rows = list[dict[str, str]]


def read_page(name: str) -> str:
    """The text of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    """Cells of a row."""
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


def marked_tables(page: str) -> dict[str, Rows]:
    """Name of each mark, and the rows of the table right behind it, by heading."""
    found: dict[str, Rows] = {}
    for name, body in re.findall(rf"{MARK}\n((?:\|.*\n)+)", page):
        heading, _, *rows = body.strip("\n").split("\n")
        found[name] = [dict(zip(cells(heading), cells(row), strict=True)) for row in rows]
    return found
