"""Reading files that may be anything: what is no regular file is never opened, and what is too large is not read.

Needs nothing but the standard library: the board reads its files with it too.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from common.errors import InputError
from common.printable import one_line, shown, shown_key

MOST_BYTES = 1 << 20
"""Limit of a configuration file: those that `edgemoe` writes have kilobytes."""

DEEPEST = 64
MOST_KEYS = 50_000
LONGEST_KEY = 1000
MOST_BITS = 128
"""Limits of what a configuration holds: levels, keys of one table, characters of a key, bits of a number."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_file(path: Path, *, missing: str = "no such file", hint: str = "") -> os.stat_result:
    """Refuse a path that is no regular file, and return what the file system knows of one that is.

    Asked before it is opened: opening a named pipe waits for ever, and a device has no end.

    Args:
        path: the file; symbolic links are followed.
        missing: what the message says where there is none.
        hint: what to do then.

    Raises:
        InputError: there is none, it cannot be reached, or it is something else.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{one_line(path)}: {missing}", hint=hint) from None
    except OSError as error:
        raise InputError(f"{one_line(path)}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # A NUL in the path.
        raise InputError(f"{one_line(path)}: cannot be read: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "no file")
        raise InputError(f"{one_line(path)}: cannot be read: it is {kind}, expected a file")
    return status


_PIECE = 1 << 24
"""Bytes that are read at once."""


def read_bytes(path: Path, most: int = MOST_BYTES, *, missing: str = "no such file", hint: str = "") -> bytes:
    """The contents of a regular file of at most `most` bytes.

    Raises:
        InputError: no such file, not a regular one, too large, or unreadable.
    """
    size = require_file(path, missing=missing, hint=hint).st_size
    try:
        with path.open("rb") as file:
            # Of files of the kernel the size is told as 0, and others may grow. Room is taken for what is there alone.
            pieces, left = [], most + 1 if size <= most else 0
            while left and (piece := file.read(min(left, _PIECE))):
                pieces.append(piece)
                left -= len(piece)
            data = b"".join(pieces)
    except OSError as error:
        raise InputError(f"{one_line(path)}: cannot be read: {error.strerror or error}") from None
    if max(size, len(data)) > most:
        raise InputError(f"{one_line(path)}: larger than {most:,} bytes, which no such file is")
    return data


def read_json(path: Path, most: int = MOST_BYTES, *, missing_hint: str = "", hint: str = "") -> Any:
    """Parse a JSON file.

    Args:
        path: the file.
        most: bytes that it may have.
        missing_hint: what to do where there is none.
        hint: what to do where it is damaged.

    Raises:
        InputError: unreadable, not JSON (NaN and infinity are not), or beyond the limits of `check_content`.
    """
    data = read_bytes(path, most, hint=missing_hint)
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise InputError(f"{one_line(path)}: not valid JSON: nested too deeply", hint=hint) from None
    except ValueError as error:  # Python's own limit on the digits of a number too.
        raise InputError(f"{one_line(path)}: not valid JSON: {error}", hint=hint) from None
    check_content(path, content)
    return content


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def check_content(path: Path, content: Any) -> None:
    """Refuse tables, keys and numbers so large that whatever handles them next takes long or fails.

    Raises:
        InputError: naming the file, the key and the limit.
    """
    waiting: list[tuple[Any, str, int]] = [(content, "", 0)]
    while waiting:
        value, key, depth = waiting.pop()
        problem = ""
        if isinstance(value, (dict, list)) and depth > DEEPEST:
            problem = f"nested more than {DEEPEST} levels deep"
        elif isinstance(value, dict):
            if len(value) > MOST_KEYS:
                problem = f"{len(value):,} keys in one table, expected at most {MOST_KEYS:,}"
            elif (longest := max(map(len, value), default=0)) > LONGEST_KEY:
                problem = f"a key of {longest:,} characters, expected at most {LONGEST_KEY:,}"
            waiting += [(item, name, depth + 1) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(item, key, depth + 1) for item in value if not isinstance(item, (str, float))]
        elif isinstance(value, int) and value.bit_length() > MOST_BITS:
            problem = f"{shown(value)}, expected at most {MOST_BITS} bits"
        if problem:
            where = f"{shown_key(key)}: " if key else ""
            raise InputError(f"{one_line(path)}: {where}{problem}")
