"""The documentation site: built with every warning as an error, complete, and with nothing loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgemoe

ROOT = Path(__file__).parents[1]

LOADS = re.compile(
    r'<(?:script|img|iframe)[^>]* src="(https?:)?//|<link[^>]* href="https?:[^"]*"[^>]* rel="stylesheet"'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_document_is_a_page(site: Path) -> None:
    documents = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    pages = {path.parent.relative_to(site) for path in site.rglob("index.html")}
    assert {Path() if str(document) == "index" else document for document in documents} == pages


@pytest.mark.slow
def test_the_reference_has_every_verb(site: Path) -> None:
    page = (site / "api" / "edgemoe" / "index.html").read_text()
    verbs = {name for name in edgemoe.__all__ if name[0].islower()}
    assert verbs <= set(re.findall(r'id="edgemoe\.(\w+)"', page))
    # Doctests are code, not quotations.
    assert "<blockquote>" not in page


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loading = [path.name for path in site.rglob("*.html") if LOADS.search(path.read_text())]
    assert loading == []
