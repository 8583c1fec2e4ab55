"""Command lines of the documentation, for tests that parse and run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"", "sh", "text"}
"""Of fenced blocks that may hold commands."""
TOOLS = {
    ".venv/bin/python", "cd", "dask", "docker", "edgemoe", "git", "make", "mike", "pip", "python", "python3", "scp",
    "source", "ssh", "vitis-run", "vitis_hls", "vivado", "v++",
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
