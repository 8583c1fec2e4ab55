"""Findings of a check: a line, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codegen.hls_check.pragma_text import PragmaText


@dataclass(frozen=True, order=True)
class Finding:
    """Something in the C++ that the synthesis tool refuses, ignores, or makes something else of.

    Attributes:
        file: name of the file.
        line: of it, from 1.
        rule: name of the check.
        message: what is wrong, and what to write instead.
    """

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} [{self.rule}]"


Findings = Iterator[Finding]


def at_pragma(text: PragmaText, rule: str, message: str) -> Finding:
    """The finding of a check on a pragma."""
    return Finding(text.file, text.line, rule, message)
