"""Command lines of the documentation, for tests that parse and run them.

    python tests/doc_commands.py

renews what `docs/command-line.md` shows of the output of those that run.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from edgemoe import cli
from edgemoe.demo import MODEL, SAVED_IMAGES
from frontend.digits import load_scenes

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"", "console", "sh", "text"}
"""Of fenced blocks that may hold commands."""
TOOLS = {
    "./edgemoe_host", ".venv/bin/python", "cd", "dask", "docker", "edgemoe", "g++", "git", "make", "mike", "pip",
    "python", "python3", "scp", "source", "ssh", "vitis-run", "vitis_hls", "vivado", "v++",
}  # fmt: skip
"""Programs that the documentation may call."""


class Command(NamedTuple):
    """A command line: where it stands, its words, and what is shown behind it."""

    where: str
    words: list[str]
    output: list[str]


def blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, and lines, of each block of code: fenced, or indented by four or more."""
    fence: str | None = None
    start, found = 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        opening = re.match(r"```(\w*)$", line)
        if fence is not None:
            if line == "```":
                if fence in LANGUAGES:
                    yield start, found
                fence, found = None, []
            else:
                found.append(line)
        elif opening:
            if found:
                yield start, found
            fence, start, found = opening[1], number + 1, []
        elif line.startswith("    ") or (found and not line):
            if not found:
                start = number
            found.append(line)
        elif found:
            yield start, found
            found = []
    if found:
        yield start, found


def words_of(line: str) -> Iterator[list[str]]:
    """Words of each command of a line, without comments, settings of the environment and redirections."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return
    command: list[str] = []
    for word in [*words, "&&"]:
        if word in ("&&", "|", ";", "2>&1"):
            if command:
                yield command
            command = []
        elif command or not re.match(r"[A-Z_]+=", word):
            command.append(word)


def commands(text: str, name: str) -> list[Command]:
    """All commands in the blocks of a document."""
    found: list[Command] = []
    for start, lines in blocks(text):
        prompts = any(re.match(r" *\$ ", line) for line in lines)
        current: Command | None = None
        for number, line in enumerate(lines, start):
            prompt = re.match(r" *[$#] (.*)", line) if prompts else re.match(r" *(.*)", line)
            called = list(words_of(prompt[1])) if prompt else []
            if called and called[0][0] in TOOLS:
                for words in called:
                    current = Command(f"{name}:{number}", words, [])
                    found.append(current)
            elif current is not None:
                current.output.append(line)
    return found


def spans(text: str) -> list[list[str]]:
    """Words of each `edgemoe ...` within a line of prose."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [words for span in re.findall(r"`(edgemoe [^`]+)`", prose) for words in words_of(span)]


# --- Those that are cheap run -------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "command-line.md"
RUN = ("init", "quantize", "simulate", "zoo", "boards", "generate", "estimate", "verify", "run")
LEFT_OUT = {
    "quantize tiny": "half a minute; the network is as large as M3ViT-tiny",
    "generate tiny-w8a8": "the same",
    "verify micro-build --check": "a minute of compiling; tests/test_hls_check_execution.py",
    "verify micro-build --rtl": "minutes of Verilator; tests/test_rtl_verify.py",
    "verify micro-build --host": "tests/test_host.py",
}
PASSING = re.compile(r"\d+(\.\d+)? s\b|\d+ lines\b|\b[0-9a-f]{16}\b")
"""Seconds, lengths of generated code, identities."""


def plain(line: str) -> str:
    """A line without what passes, and with single blanks."""
    return " ".join(PASSING.sub("", line).split())


class Printed(NamedTuple):
    """Lines that a command has printed."""

    lines: list[str]

    def nearest(self, shown: str) -> str:
        """The printed line that a page means: of those that begin with the same word, if there are any."""
        texts = {plain(line): line for line in self.lines if plain(line)}
        alike = [text for text in texts if text.split()[0] == plain(shown).split()[0]]
        return texts[difflib.get_close_matches(plain(shown), alike or list(texts), 1, 0)[0]]

    def stale(self, command: Command) -> list[tuple[str, str]]:
        """Lines that a page shows and that were not printed, each with the nearest that was."""
        now = {plain(line) for line in self.lines}
        shown = [line for line in command.output if plain(line) not in ("", "...")]
        return [(line, self.nearest(line)) for line in shown if plain(line) not in now]


def runs(command: Command) -> bool:
    """Whether a command is one of those that run."""
    line = " ".join(command.words[1:])
    return command.words[0] == "edgemoe" and command.words[1] in RUN and not line.startswith(tuple(LEFT_OUT))


def play(folder: Path) -> Iterator[tuple[Command, Printed]]:
    """Run the commands of the page in an empty folder, in order, on what `edgemoe demo` would have left there.

    Raises:
        AssertionError: a command fails.
    """
    with contextlib.chdir(folder):
        shutil.copytree(MODEL, "demo/model")
        Path("demo/images").mkdir()
        for number, scene in enumerate(load_scenes("heldout").images[:SAVED_IMAGES, 0]):
            Image.fromarray(scene).save(f"demo/images/{number:02}.png")
        Path("usual.toml").write_text("[hardware]\n")
        for command in filter(runs, commands(PAGE.read_text(), PAGE.name)):
            written = io.StringIO()
            with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
                code = cli.main(command.words[1:])
            assert code == 0, f"{command.where}: {written.getvalue()}"
            yield command, Printed(written.getvalue().splitlines())


def renew() -> None:
    """Write what is printed now into the page."""
    text = PAGE.read_text().splitlines()
    with tempfile.TemporaryDirectory() as folder:
        for command, printed in play(Path(folder)):
            start = int(command.where.partition(":")[2])
            for was, now in printed.stale(command):
                number = start + command.output.index(was)
                text[number] = f"    {now.rstrip()}"
                print(f"{PAGE.name}:{number + 1}: {text[number]}")
    PAGE.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    renew()
