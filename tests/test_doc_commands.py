"""Command lines of the documentation: their programs take them, and the cheap ones print what the page shows."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import typer

import edgemoe
from doc_commands import DOCUMENTS, ROOT, RUN, Command, blocks, commands, play, spans
from edgemoe import cli

FOUND = [command for path in DOCUMENTS for command in commands(path.read_text(), path.name)]
ROOT_COMMAND = typer.main.get_command(cli.app)
CLI = ROOT_COMMAND.commands  # type: ignore[attr-defined]
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
        if name.startswith("-"):
            assert name in {option for each in ROOT_COMMAND.params for option in each.opts}
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


PYTHON = [
    (path.name, code)
    for path in DOCUMENTS
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.S)
]


@pytest.mark.parametrize(("name", "code"), PYTHON, ids=[name for name, _ in PYTHON])
def test_python_names_what_there_is(name: str, code: str) -> None:
    """README.md's runs: `tests/test_readme.py`."""
    tree = ast.parse(code)
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names]
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    verbs = set(re.findall(r"\bedgemoe\.(\w+)\(", code))
    assert verbs <= set(edgemoe.__all__)


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


@pytest.mark.compile
def test_the_command_line_page_shows_what_is_printed(tmp_path: Path) -> None:
    """In order, as they go on from each other; what stands behind `...` is left out of the page."""
    ran, wrong = set(), []
    for command, printed in play(tmp_path):
        ran.add(command.words[1])
        wrong += [f"{command.where}: {was}\n    is now {now}" for was, now in printed.stale(command)]
    assert wrong == [], "\n".join([*wrong, "python tests/doc_commands.py renews the page"])
    assert ran == set(RUN)
