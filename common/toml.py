"""Reading TOML files, whoever wrote them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tomllib

from common.errors import InputError
from common.printable import one_line
from common.reading import MOST_BYTES, check_content, read_bytes

_MOST_PARTS = 16
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}[ \t]*+\.[ \t]*+){{{_MOST_PARTS}}}")
"""A key of too many parts, `a.b.c. ...`: the parser's time goes with the square of their number."""


def read_toml(path: Path, most: int = MOST_BYTES, *, hint: str | None = None) -> dict[str, Any]:
    """Parse a TOML file.

    Args:
        path: the file.
        most: bytes that it may have.
        hint: what to do where there is none; by default, where it belongs.

    Raises:
        InputError: unreadable, not a file, malformed, or beyond the limits of `common.reading.check_content`.
    """
    if hint is None:
        hint = f"{path.parent} should be a folder that holds {path.name}"
    data = read_bytes(path, most, hint=hint)
    try:
        text = data.decode("utf-8")
        if _LONG_KEY.search(text):
            raise ValueError(f"a key of more than {_MOST_PARTS} parts")
        content = tomllib.loads(text)
    except RecursionError:
        raise InputError(f"{one_line(path)}: not valid TOML: nested too deeply") from None
    except (ValueError, OverflowError) as error:  # Also Python's own limit on the digits of a number.
        raise InputError(f"{one_line(path)}: not valid TOML: {error}") from None
    check_content(path, content)
    return content
