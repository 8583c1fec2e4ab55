"""Command lines of the documentation: their programs take them, and the cheap ones print what the page shows."""

from __future__ import annotations

import difflib
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import typer
from PIL import Image

from doc_commands import DOCUMENTS, ROOT, Command, blocks, commands, spans
from edgemoe import cli
from edgemoe.demo import MODEL, SAVED_IMAGES
from frontend.digits import load_scenes

FOUND = [command for path in DOCUMENTS for command in commands(path.read_text(), path.name)]
CLI = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
SCRIPTS = {
    "host": ROOT / "host" / "cli.py",
    **{f"{path.parent.name}/{path.name}": path for path in ROOT.glob("[se][cx]*/*.py")},
}
"""Python programs by how they are called."""


def of(*programs: str) -> list[pytest.ParameterSet]:
    """Commands of some programs, as parameters."""
    return [pytest.param(each, id=each.where) for each in FOUND if each.words[0] in programs]


@pytest.mark.parametrize("command", of("edgemoe"))
def test_edgemoe_takes_it(command: Command) -> None:
    name, *arguments = command.words[1:]
    if "..." in arguments:
        assert set(options(arguments)) <= options_of(name)
    else:
        CLI[name].make_context(name, arguments)


def options(words: list[str]) -> list[str]:
    """Words that are options."""
    return [word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)]


def options_of(name: str) -> set[str]:
    """Options of a command of edgemoe."""
    return {"-h", "--help"} | {option for each in CLI[name].params for option in each.opts}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_edgemoe_takes_what_prose_speaks_of(path: Path) -> None:
    for _, name, *arguments in spans(path.read_text()):
        if name == "COMMAND":
            continue
        assert name in CLI, f"{path.name}: edgemoe {name}"
        assert set(options(arguments)) <= options_of(name), f"{path.name}: edgemoe {name} {arguments}"


@pytest.mark.parametrize("command", of("python", "python3", ".venv/bin/python"))
def test_scripts_take_it(command: Command) -> None:
    words = command.words[1:]
    name = words[1] if words[0] == "-m" else words[0]
    if name == "pytest":
        assert (ROOT / words[2]).is_file()
        return
    source = SCRIPTS[name].read_text()
    unknown = [option for option in options(words) if option != "-m" and not has_option(source, option)]
    assert unknown == []


def has_option(source: str, option: str) -> bool:
    """Whether the source of a program adds it with argparse, or has a parameter of that name for typer."""
    return f'"{option}"' in source or f" {option.lstrip('-').replace('-', '_')}: Annotated[" in source


@pytest.mark.parametrize("command", of("make"))
def test_make_has_the_target(command: Command) -> None:
    assert re.search(rf"^{command.words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_pip_finds_the_extras() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [path.read_text() for path in DOCUMENTS]
    named = {
        extra
        for text in texts
        for part in re.findall(r"edgemoe\[([a-z0-9,]+)\]'", text)
        for extra in part.split(",")
    }
    assert named <= set(known)
    assert len(named) > 5


def test_commands_are_found() -> None:
    text = """One:

    $ edgemoe zoo && cd x   # all
    Zoo

Two:

```sh
A=1 make docs
```

    edgemoe boards

```python
make()
```
"""
    assert [block for _, block in blocks(text)][1:] == [["A=1 make docs"], ["    edgemoe boards", ""]]
    assert [(each.where, each.words, each.output) for each in commands(text, "page")] == [
        ("page:3", ["edgemoe", "zoo"], []),
        ("page:3", ["cd", "x"], ["    Zoo", ""]),
        ("page:9", ["make", "docs"], []),
        ("page:12", ["edgemoe", "boards"], [""]),
    ]
    assert len(of("edgemoe")) > 40


# --- Those that are cheap run -------------------------------------------------------------------------------

RUN = ("init", "quantize", "simulate", "zoo", "boards", "generate", "estimate", "verify", "run")
LEFT_OUT = {
    "quantize tiny": "half a minute; the network is as large as M3ViT-tiny",
    "generate tiny-w8a8": "the same",
    "verify micro-build --check": "a minute of compiling; tests/test_hls_check_execution.py",
    "verify micro-build --rtl": "minutes of Verilator; tests/test_rtl_verify.py",
    "verify micro-build --host": "tests/test_host.py",
}
PASSING = re.compile(r"\d+(\.\d+)? s\b|\d+ lines\b|\b[0-9a-f]{16}\b")


def lines(text: str) -> list[str]:
    """Lines without blanks at either end and in a row, seconds and identities."""
    return [shown for line in text.splitlines() if (shown := " ".join(PASSING.sub("", line).split()))]


@pytest.mark.compile
def test_the_command_line_page_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order, as they go on from each other; what stands behind `...` is left out of the page."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODEL, "demo/model")
    Path("demo/images").mkdir()
    for number, scene in enumerate(load_scenes("heldout").images[:SAVED_IMAGES, 0]):
        Image.fromarray(scene).save(f"demo/images/{number:02}.png")
    (tmp_path / "usual.toml").write_text("[hardware]\n")
    ran, wrong = [], []
    for command in FOUND:
        name, *arguments = command.words[1:] or [""]
        line = " ".join(command.words[1:])
        known = (
            not command.where.startswith("command-line.md:")
            or command.words[0] != "edgemoe"
            or name not in RUN
        )
        if known or any(line.startswith(start) for start in LEFT_OUT):
            continue
        assert cli.main([name, *arguments]) == 0, (line, capsys.readouterr().err)
        captured = capsys.readouterr()
        printed = lines(captured.out + captured.err)
        shown = [each for each in lines("\n".join(command.output)) if each != "..."]
        for each in set(shown) - set(printed):
            nearest = difflib.get_close_matches(each, printed, 1, 0)
            wrong.append(f"{command.where}: {each}\n    is now {' '.join(nearest)}")
        ran.append(name)
    assert wrong == [], "\n".join(wrong)
    assert set(ran) == set(RUN)
