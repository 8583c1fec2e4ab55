"""The documentation site: complete, versioned, with every warning as an error and nothing loaded from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edgemoe
from scripts import site_hooks

ROOT = Path(__file__).parents[1]

LOADS = re.compile(
    r'<(?:script|img|iframe)[^>]* src="(https?:)?//|<link[^>]* href="https?:[^"]*"[^>]* rel="stylesheet"'
)
MIKE = "import sys; from mike.driver import main; sys.exit(main())"


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The branch of a new repository to which `mike` has deployed the site as version 0.2, the latest."""
    folder = tmp_path_factory.mktemp("versions")
    names = {
        f"GIT_{role}_{key}": "docs@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for key in ("NAME", "EMAIL")
    }
    scripts = Path(sys.executable).parent
    environment = os.environ | names
    environment |= {
        "NO_MKDOCS_2_WARNING": "1",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "SITE_DIR": str(folder / "site"),
    }

    def run(*command: str) -> None:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    run("git", "init", "-q", "-b", "main")
    run("git", "commit", "-q", "--allow-empty", "-m", "Empty")
    deploy = ("deploy", "-F", str(ROOT / "mkdocs.yml"), "-b", "pages", "0.2", "latest")
    run(sys.executable, "-c", MIKE, *deploy)
    run("git", "checkout", "-q", "pages")
    return folder


@pytest.fixture(scope="module")
def site(versions: Path) -> Path:
    return versions / "0.2"


@pytest.mark.slow
def test_every_document_is_a_page(site: Path) -> None:
    sources = [path for suffix in ("md", "ipynb") for path in (ROOT / "docs").rglob(f"*.{suffix}")]
    documents = {path.relative_to(ROOT / "docs").with_suffix("") for path in sources}
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


@pytest.mark.slow
def test_formulas_are_drawn(site: Path) -> None:
    page = (site / "arithmetic" / "index.html").read_text()
    assert page.count("<math ") > 10
    assert [path for path in site.rglob("*.html") if "arithmatex" in path.read_text()] == []


@pytest.mark.slow
def test_search_finds_tutorials_and_the_reference(site: Path) -> None:
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    places = {entry["location"].partition("#")[0] for entry in found}
    assert {"tutorials/laptop/", "api/edgemoe/", "arithmetic/", "verified/"} <= places


def test_reports_are_named_where_they_were_built(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(docs_dir=str(tmp_path / "docs"))
    page: Any = None

    def shown() -> str:
        return site_hooks.on_page_markdown("See:\n\n<!-- reports -->", page, config, page)

    assert shown() == f"See:\n\n{site_hooks.NO_REPORTS}"
    (tmp_path / "build" / "reports").mkdir(parents=True)
    (tmp_path / "build" / "reports" / "digits.html").touch()
    assert shown() == f"See:\n\n- [{site_hooks.TITLES['digits']}](reports/digits.html)"


@pytest.mark.nightly
def test_a_report_is_built(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/build_reports.py", "--out", str(tmp_path), "digits"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert 1e6 < (tmp_path / "digits.html").stat().st_size < 6e6


@pytest.mark.slow
def test_versions(versions: Path) -> None:
    (listed,) = json.loads((versions / "versions.json").read_text())
    assert (listed["version"], listed["aliases"]) == ("0.2", ["latest"])
    assert (versions / "latest" / "index.html").is_file()
    # The menu of versions is drawn by the theme, from what the page says of itself.
    assert '"provider": "mike"' in (versions / "0.2" / "index.html").read_text()
