"""Help of the command line in a terminal of 80 columns, and what a shell completes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from codegen.build import Build
from edgemoe import cli, completion
from edgemoe.helping import COMMANDS, FOLDER, LONGEST
from pysim.precision import NAMED

ROOT = Path(__file__).parents[1]
WIDTH = 80
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(cli.app)
    return dict(group.commands)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def anchors(page: Path) -> set[str]:
    """Names of the headings of a page, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_command_is_explained(commands: dict[str, Any], narrow: None, capsys: Captured) -> None:
    assert list(commands) == list(COMMANDS)
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, found in COMMANDS.items():
        assert len(found.line) <= LONGEST
        assert any(line.split() == [name, *found.line.split()] for line in lines), name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, commands: dict[str, Any], narrow: None, capsys: Captured) -> None:
    found = COMMANDS[name]
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= WIDTH
    assert f"\n  Documentation: {FOLDER}/{found.page}\n" in text
    page, _, heading = found.page.partition("#")
    assert (ROOT / FOLDER / page).is_file()
    assert not heading or heading in anchors(ROOT / FOLDER / page)
    assert found.examples
    for example in found.examples:
        assert f"\n    edgemoe {example}\n" in text
        first, *arguments = shlex.split(example)
        assert first == name
        with commands[name].make_context(name, arguments):
            pass


def test_pages_of_the_command_line_describe_every_command() -> None:
    headings = anchors(ROOT / FOLDER / "command-line.md")
    assert set(COMMANDS) <= headings


def test_json_in_front(capsys: Captured) -> None:
    assert cli.main(["zoo", "--json"]) == 0
    expected = capsys.readouterr().out
    assert cli.main(["--json", "zoo"]) == 0
    assert capsys.readouterr().out == expected


class TestCompletion:
    @pytest.fixture
    def complete(self, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> Any:
        """Words that bash would be offered, of a command line whose last word is incomplete."""

        def offered(*words: object) -> list[str]:
            monkeypatch.setenv("_EDGEMOE_COMPLETE", "complete_bash")
            monkeypatch.setenv("COMP_WORDS", shlex.join(["edgemoe", *map(str, words)]))
            monkeypatch.setenv("COMP_CWORD", str(len(words)))
            assert cli.main([]) == 0
            return capsys.readouterr().out.split()

        return offered

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (("qu",), {"quantize"}),
            (
                ("quantize", "model", "--precision", "w8a8"),
                {name for name in NAMED if name.startswith("w8a8")},
            ),
            (("fit", "deit", "--board", "kv"), {"kv260"}),
            (("generate", "d", "--board", "zcu1"), {"zcu102", "zcu104", "zcu111"}),
            (("init", "m3vit-t"), {"m3vit-tiny"}),
            (("estimate", "m3vit-t"), {"m3vit-tiny"}),
            (("simulate", "d", "--resize", "c"), {"crop"}),
            (("fit", "d", "--backend", "r"), {"rtl"}),
            (("import", "d", "--kind", "m"), {"m3vit"}),
            (("generate", "d", "--set", "lan"), {"lanes="}),
            (("simulate", "nowhere", "--task", ""), set()),
            (("simulate", "d", "--queues-o"), {"--queues-out"}),
        ],
    )
    def test_words(self, complete: Any, words: tuple[str, ...], expected: set[str]) -> None:
        assert set(complete(*words)) == expected

    def test_tasks_of_a_folder(self, complete: Any, folders: Path, built: Build, tmp_path: Path) -> None:
        for command, folder in (
            ("simulate", folders / "w8a8"),
            ("run", built.folder),
            ("estimate", folders / "model"),
        ):
            assert complete(command, folder, "--task", "d") == ["depth"]
        assert complete("evaluate", folders / "w8a8", "--task", "") == ["semseg", "depth", "all"]
        (tmp_path / "design.toml").write_text("[design\n")
        assert complete("simulate", tmp_path, "--task", "") == []

    def test_quotes_that_are_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "edgemoe simulate 'my folder")
        assert completion.tasks("") == []

    def test_in_a_shell(self, tmp_path: Path) -> None:
        bash = shutil.which("bash")
        if bash is None:
            pytest.skip("there is no bash")
        program = tmp_path / "edgemoe"
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path[:0] = [{str(ROOT)!r}]\n"
            "from edgemoe.cli import main\nsys.exit(main())\n"
        )
        program.chmod(0o755)
        script = (
            'eval "$(_EDGEMOE_COMPLETE=source_bash "$0")"\n'
            "complete -p edgemoe\n"
            'COMP_WORDS=(edgemoe fit m3vit-tiny --board kv); COMP_CWORD=4; _edgemoe_completion "$0"\n'
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run([bash, "-c", script, program], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["complete -o default -F _edgemoe_completion edgemoe", "kv260"]
