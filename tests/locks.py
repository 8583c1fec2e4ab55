"""Work that several test processes need, done by one of them while the others wait and find it in the cache."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the lock of that name, which is this user's on this computer."""
    with (Path(tempfile.gettempdir()) / f"edgemoe-{os.getuid()}-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
