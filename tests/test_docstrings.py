"""Docstrings begin with a noun: they are read alone, in a hover or on a page of the API."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("boards", "codegen", "common", "edgemoe", "frontend", "hls", "host", "pysim")
# What continues the name beside it, or is a question, says nothing where the name is out of sight.
NO_NOUN = re.compile(
    r"(Of|From|What|Where|Which|Who|How|To|In|With|Without|For|By|At|On|As|Since|Until|That|And|Not)\b"
)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of attributes and constants included."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", ())
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(ast.Constant(str(text))):
                    yield statement.lineno, text.strip()


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_begin_with_a_noun(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in docstrings(path.read_text())
        if NO_NOUN.match(text)
    ]
    assert found == []


def test_others_are_found() -> None:
    source = 'WIDTH = 8\n"""Of a port."""\ndef f():\n    """What it says."""\nclass A:\n    """A class."""\n'
    found = {text for _, text in docstrings(source) if NO_NOUN.match(text)}
    assert found == {"Of a port.", "What it says."}
