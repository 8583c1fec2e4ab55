"""The tutorials run, and their saved outputs are those of today."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from scripts import run_tutorials

ROOT = Path(__file__).parents[1]
COMPILED = {"board", "fpga"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.compile if name in COMPILED else pytest.mark.slow)
        for name in sorted(run_tutorials.tutorials())
    ],
)
def test_outputs_are_those_of_today(name: str) -> None:
    command = [sys.executable, "scripts/run_tutorials.py", "--check", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_four_for_four_users() -> None:
    assert set(run_tutorials.tutorials()) == {"laptop", "fpga", "board", "researcher"}


@pytest.mark.parametrize("path", run_tutorials.tutorials().values(), ids=lambda path: path.stem)
def test_outputs_are_saved_and_show_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in cells) > len(cells) / 2
    text = path.read_text()
    assert not [word for word in ("/tmp/", "/home/", "/root/", str(ROOT)) if word in text]


def picture(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), colour).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def notebook_of(output: Any, *tags: str) -> Any:
    cell = new_code_cell("1", outputs=[output], metadata={"tags": list(tags)})
    return new_notebook(cells=[cell])


STREAMS = [
    ("98.50 %", "98.33 %", True),
    ("done in 1.5 s", "done in 12 s", False),
    ("design 0123456789abcdef", "design fedcba9876543210", False),
]


@pytest.mark.parametrize(("saved", "found", "differ"), STREAMS)
def test_what_counts_as_a_difference(saved: str, found: str, differ: bool) -> None:
    one, other = (new_output("stream", name="stdout", text=text) for text in (saved, found))
    assert bool(run_tutorials.differences(notebook_of(one), notebook_of(other))) == differ
    assert run_tutorials.differences(notebook_of(one, "varies"), notebook_of(other, "varies")) == []


def test_pictures_are_compared_by_their_pixels() -> None:
    red, other, blue = (
        notebook_of(new_output("display_data", {"image/png": picture(colour)}))
        for colour in ("red", "#ff0000", "blue")
    )
    assert run_tutorials.differences(red, other) == []
    assert len(run_tutorials.differences(red, blue)) == 1


@pytest.mark.slow
def test_no_bar_moves_where_no_terminal_is() -> None:
    """A notebook sets FORCE_COLOR."""
    program = (
        "from edgemoe.console import Console\nwith Console(False).progress('at work') as move: move(1, 2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"FORCE_COLOR": "1", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "at work" not in done.stderr
