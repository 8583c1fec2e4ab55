"""README.md: its Python runs, on a smaller network; its estimates are those of today; its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgemoe
from doc_tables import marked_tables, read_page
from pysim.precision import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.compile
def test_python_of_the_readme(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert code.count('"m3vit-tiny"') == 2, "the model, and a comment"
    script = tmp_path / "readme.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + code.replace("m3vit-tiny", "micro")
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shape, _, verified, *_, emulated = done.stdout.splitlines()
    assert shape.startswith("(8, ") and verified.endswith(" 0")
    assert emulated.split() == ["True", "None"]


def ours(language: str) -> dict[str, str]:
    """Milliseconds of each preset in the table against the published systems."""
    pattern = rf"^\| edgemoe `(\w+)`, {re.escape(language)} \|[^|]*\| ([\d.]+) \|"
    return dict(re.findall(pattern, README, re.MULTILINE))


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_estimates_are_those_of_the_table_of_boards(preset: str) -> None:
    (row,) = (row for row in marked_tables(read_page("boards.md"))["fit"] if row["Board"] == "zcu102")
    assert row[f"m3vit-tiny `{preset}"].split()[0] == ours("C++")[preset]


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_counted_cycles_are_those_of_the_page_on_the_accelerator(preset: str) -> None:
    (counted,) = re.findall(
        rf"^\| `{preset}` \| photograph \| ([\d,]+) \|", read_page("rtl-accelerator.md"), re.MULTILINE
    )
    assert f"{int(counted.replace(',', '')) / 300e3:.2f}" == ours("SystemVerilog")[preset]


@pytest.mark.nightly
def test_estimates_for_larger_images(tmp_path: Path) -> None:
    zoo = (ROOT / "frontend/zoo/m3vit-tiny.toml").read_text()
    larger = tmp_path / "larger.toml"
    larger.write_text(zoo.replace("[128, 256]", "[224, 224]"))
    shown = re.findall(r"([\d.]+) ms \(`(\w+)`\)", README)
    assert len(shown) == 2
    for ms, preset in shown:
        assert f"{edgemoe.fit(larger, board='zcu102', precision=preset).performance.ms:.2f}" == ms


def test_links_lead_to_files() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)]
    local = [link for link in links if not link.startswith("http")]
    assert len(local) > 15
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_picture_is_small() -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert (ROOT / picture).stat().st_size < 100_000


@pytest.mark.nightly
def test_the_demo_prints_what_is_shown_of_it() -> None:
    command = [sys.executable, "-c", "import sys; from edgemoe.cli import main; sys.exit(main(['demo']))"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = [line.split() for line in done.stdout.splitlines()]
    for line in re.findall(r"^    (.* values compared.*|estimate for the .*)$", README, re.MULTILINE):
        assert line.split() in printed
    rows = {words[0]: words[1:-1] for words in printed if words and words[0] in PRESETS}
    (block,) = re.findall(r"\$ edgemoe demo -o demo\n(.*?)\n\n", read_page("command-line.md"), re.DOTALL)
    shown = {words[0]: words[1:-1] for line in block.splitlines() if (words := line.split())[0] in PRESETS}
    assert shown == {name: rows[name] for name in shown} and len(shown) > 3
    for name in shown:
        (row,) = re.findall(rf"^\| `{name}` \| (\d.*)$", README, re.MULTILINE)
        figures = [each for each in rows[name] if not each.startswith("(")]
        assert re.findall(r"\d+\.\d+", row) == figures
