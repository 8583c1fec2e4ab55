"""What a release says of itself is the same everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import edgemoe

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [edgemoe.__version__]
    assert f"\n## [{edgemoe.__version__}] - " in (ROOT / "CHANGELOG.md").read_text()


def test_users_are_not_bound_to_one_version() -> None:
    pinned = {extra: [each for each in needs if "==" in each] for extra, needs in EXTRAS.items()}
    assert {extra for extra, needs in pinned.items() if needs} == {"test"}


def test_users_find_every_extra() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    listed = set(
        re.findall(r"^\| `(\w+)` \|", page.partition("### Installing")[2].partition("\n## ")[0], re.MULTILINE)
    )
    assert listed == set(EXTRAS) - {"dev", "docs", "formal", "release", "synth", "test", "train"}
