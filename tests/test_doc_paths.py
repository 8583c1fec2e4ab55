"""Files that the documents name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = "boards|codegen|common|docs|edgemoe|examples|frontend|hls|host|pysim|scripts|tests"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# `hls/src` is a folder of a build, too, where templates have lost their suffix.
RENDERED = {"hls/src/blackbox.cpp": "hls/blackbox/blackbox.cpp.j2"}


def named(text: str) -> set[str]:
    """Paths within backticks or behind `python`, but for patterns and placeholders such as `boards/NAME.toml`."""
    found = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`|python3? ((?:scripts|tests)/\w+\.py)", text)
    return {quoted or run for quoted, run in found if not re.search(r"\b[A-Z]{3,}\b", quoted)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_exist(document: Path) -> None:
    missing = {path for path in named(document.read_text()) if not (ROOT / RENDERED.get(path, path)).exists()}
    assert missing == set()


def test_paths_are_found() -> None:
    text = "`codegen/fit/` runs `python scripts/fuzz.py host`; `boards/NAME.toml`, `hls/*.h` and `lanes` are none"
    assert named(text) == {"codegen/fit/", "scripts/fuzz.py"}
