"""Folder of compiled code, kept between runs, or for one run where nothing can be kept."""

from __future__ import annotations

import atexit
import logging
import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from common.errors import InputError
from pysim.scratch import scratch

_PROBE_BYTES = 1 << 16

_TEMPORARY = "edgemoe-cache"

HINT = "set XDG_CACHE_HOME to a folder that can be written"


def cache_folder(name: str) -> Path:
    """The user's cache folder for one kind of compiled code; it need not exist yet.

    Where it cannot be written, a temporary folder that goes when the program ends; a warning says so, once.

    Raises:
        InputError: no temporary folder can be written either.
    """
    return _usable(os.environ.get("XDG_CACHE_HOME", "")) / name


@cache
def _usable(root: str) -> Path:
    try:
        wanted = Path(root) / "edgemoe" if root else Path.home() / ".cache" / "edgemoe"
    except RuntimeError:  # A user without a home.
        return _temporary("there is no home folder")
    reason = unwritable(wanted)
    return _temporary(f"{wanted}: {reason}") if reason else wanted


def is_temporary(folder: str) -> bool:
    """Whether a folder is part of what `cache_folder` gives for one run."""
    return any(part.startswith(f".{_TEMPORARY}.") for part in Path(folder).parts)


def unwritable(folder: Path) -> str:
    """Why nothing can be kept in a folder, which is made where it is missing; empty if all is well."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # A full disk still takes an empty file.
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _temporary(reason: str) -> Path:
    folder = _temporary_folder(reason)
    logging.getLogger("edgemoe").warning(
        "no cache (%s): what is compiled is kept for this run only; to keep it, %s", reason, HINT
    )
    return folder


@cache
def _temporary_folder(reason: str) -> Path:
    stack = ExitStack()
    try:
        folder = stack.enter_context(scratch(Path(tempfile.gettempdir(), _TEMPORARY)))
        folder.mkdir()
    except OSError as error:
        raise InputError(
            f"no folder for compiled code can be written: {reason}; temporary folder: {error.strerror or error}",
            hint=HINT,
        ) from None
    atexit.register(stack.close)
    return folder
