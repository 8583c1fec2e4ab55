"""Text from files and arguments made fit to print: no control characters, no endless lines.

What a file holds may be hostile, and a terminal obeys what it prints. Needs nothing: the board prints with it too.
"""

from __future__ import annotations

import re
import reprlib

MOST = 4000
"""Characters of a message; what a compiler or a list of problems says beyond it helps nobody."""

SHOWN = 60
"""Characters of a value that a message repeats."""

_HUGE_BITS = 128
"""Numbers with more bits are described rather than repeated."""


def printable(text: str, most: int | None = None) -> str:
    r"""Text with its control characters spelled out (`\x1b`), but for ends of lines and tabs.

    Args:
        text: any text; lone surrogates, as in the names of files that are not UTF-8, count as control characters.
        most: characters from which on the text is cut, with a remark of how much is missing; None never cuts.
    """
    if most is not None and len(text) > most:
        text = f"{text[:most]}... ({len(text) - most:,} more characters)"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)


def one_line(text: object) -> str:
    """The text of a name or a path, ends of lines spelled out too."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


def shown_key(key: object) -> str:
    """A key of a file: as it is where it is plain, else as Python writes it."""
    text = str(key)
    return text if re.fullmatch(r"[\w-]{1,64}", text) else shown(text)


def shown(value: object) -> str:
    """A value as Python writes it, in at most about `SHOWN` characters whatever it is."""
    return _REPR.repr(value)


class _Repr(reprlib.Repr):
    """Python's own shortened `repr`; the one for numbers fails on thousands of digits, or takes for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = SHOWN
        self.maxlist = self.maxtuple = self.maxdict = 6
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        """A number, or how long it is."""
        bits = x.bit_length()
        return f"a number of {bits:,} bits" if bits > _HUGE_BITS else str(x)


_REPR = _Repr()
