"""Tables in narrow terminals: every name and number is there, and no line is wider than the terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console as RichConsole

from edgemoe import cli, console, tables
from edgemoe.tables import FoldedTable

EDGEMOE = (sys.executable, "-c", "import sys; from edgemoe.cli import main; sys.exit(main())")
WIDTHS = (60, 80, 100)


def words(text: str) -> set[str]:
    return set(text.replace("─", " ").split())


def in_terminal(width: int, *arguments: str) -> str:
    """What a command prints into a pseudo-terminal of this many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [*EDGEMOE, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"TERM": "xterm"},
    ) as process:
        os.close(theirs)
        read = b""
        try:
            while part := os.read(ours, 1 << 16):
                read += part
        except OSError:  # The other end was closed.
            pass
    os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", ["boards", "zoo"])
def test_in_a_terminal(command: str, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main([command]) == 0
    whole = capsys.readouterr().out
    text = in_terminal(width, command)
    assert words(whole) == words(text)
    assert max(map(cell_len, text.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_of_every_command(
    width: int,
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = str(folders / "images")
    commands = [
        ["estimate", str(folders / "w8a8")],
        ["quantize", str(folders / "model"), "--images", images, "-o", "OUT"],
        ["quantize", str(folders / "model"), "--images", images, "-o", "OUT", "--all"],
        ["simulate", str(folders / "w8a8"), "--image", images, "--reference", str(folders / "model")],
    ]
    for number, command in enumerate(commands):
        printed = []
        for columns in (10_000, width):
            monkeypatch.setattr(console, "_PLAIN_WIDTH", columns)
            output = str(tmp_path / f"{number}-{columns}")
            capsys.readouterr()
            assert cli.main([output if argument == "OUT" else argument for argument in command]) == 0
            out = capsys.readouterr().out
            # What follows the tables: sentences, which the terminal breaks, with the time in them.
            printed.append([line for line in out.splitlines() if line.startswith(" ")])
        assert words("\n".join(printed[0])) == words("\n".join(printed[1]))
        assert max(map(cell_len, printed[1])) <= width


def drawn(table: FoldedTable, width: int) -> list[str]:
    stream = io.StringIO()
    RichConsole(file=stream, width=width, soft_wrap=True, markup=False, highlight=False).print(table)
    return [line for line in stream.getvalue().splitlines() if line.strip()]


def many(columns: int) -> FoldedTable:
    rows = [(f"layer{row}", *(str(1000 * row + column) for column in range(columns))) for row in range(3)]
    return tables.table("Many", ("layer", *(f"e{column}" for column in range(columns))), rows)


def test_parts_repeat_the_names() -> None:
    lines = drawn(many(64), 80)
    headings = [line.split() for line in lines if line.lstrip().startswith("layer ")]
    assert len(headings) > 3
    assert [name for heading in headings for name in heading[1:]] == [f"e{column}" for column in range(64)]
    rows = [line.split() for line in lines if line.lstrip().startswith("layer2")]
    assert [value for row in rows for value in row[1:]] == [str(2000 + column) for column in range(64)]
    assert len(rows) == len(headings)


@pytest.mark.parametrize("width", [5, 12, 20, 30, 40, 59])
def test_very_narrow_terminals_fold_and_drop_nothing(width: int) -> None:
    rows = [("m3vit-small-pascal", "semseg, human_parts, sal, normals"), ("漢字", "深度")]
    table = tables.table("T", ("a long heading", "text"), rows, left=2)
    narrow, wide = (Counter("".join(drawn(table, columns)).replace("─", "")) for columns in (width, 1000))
    if width >= 20:
        assert narrow - Counter(" " * narrow[" "]) == wide - Counter(" " * wide[" "])
        assert max(map(cell_len, drawn(table, width))) <= width
