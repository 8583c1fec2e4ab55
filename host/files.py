"""Reading the files of a build: regular ones, no longer than they should be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pysim.errors import InputError


def read_file(path: Path, most: int, *, hint: str) -> bytes:
    """The content of a regular file.

    Args:
        path: the file; a link to one will do.
        most: bytes that it holds at most; a larger one is not read.
        hint: where a good one comes from.

    Raises:
        InputError: no such file, a folder, a device or a pipe (which could be read for ever), too large, or unreadable.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: not a regular file", hint=hint)
            if status.st_size > most:
                raise InputError(f"{path}: {status.st_size} bytes, expected at most {most}", hint=hint)
            return file.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint=hint) from None
    except (OSError, ValueError) as error:  # A ValueError: a name with a zero in it.
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _open(path: str, flags: int) -> int:
    # A pipe that nobody writes to would keep a plain open waiting.
    return os.open(path, flags | os.O_NONBLOCK)
