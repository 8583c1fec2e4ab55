"""Temporary folders beside what they become, and the removal of those whose makers were killed.

A folder `.NAME.xxxxxxxx` holds a file `owner`, locked as long as its maker lives and naming the run of the kernel
(`boot_id`) that the lock is kept by. A lock that can be had, of this very run of the kernel, proves that the maker is
gone; on another computer with the same disk, or after a restart, nothing does.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Not on Windows: leftovers stay there.
    fcntl = None  # type: ignore[assignment]

_OWNER = "owner"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger("edgemoe")


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """A path of the name of `target` in a temporary folder beside it, on the same file system.

    The folder goes at the end of the block with whatever is left in it. Leftovers of earlier runs go before.

    Raises:
        OSError: the folder cannot be made.
    """
    remove_stale(target)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    lock = None
    try:
        lock = _own(folder)
        yield folder / target.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_stale(target: Path) -> None:
    """Remove the temporary folders of runs that were killed while they made `target`, as far as that can be proved."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"[a-z0-9_]{8}")
    try:
        with os.scandir(target.parent) as entries:
            found = sorted(entry.path for entry in entries if pattern.fullmatch(entry.name))
    except OSError:
        return
    for path in map(Path, found):
        with suppress(OSError):
            _remove_if_stale(path)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _own(folder: Path) -> int | None:
    """Lock a new folder for this process; None where that is not to be had."""
    boot = _boot_id()
    if fcntl is None or not boot:
        return None
    lock = os.open(folder / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, boot.encode())
    except OSError:
        os.close(lock)
        (folder / _OWNER).unlink()
        return None
    return lock


def _remove_if_stale(folder: Path) -> None:
    """Remove a folder if its maker is gone.

    Raises:
        OSError: it is somebody else's, has no owner that can be asked, or its maker lives.
    """
    status = folder.lstat()
    if fcntl is None or not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    lock = os.open(folder / _OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        boot = os.read(lock, 100).decode(errors="replace")
        # What its maker is just removing, or has not written yet, proves nothing.
        if not boot or not os.path.samestat(os.fstat(lock), (folder / _OWNER).lstat()):
            return
        if boot == _boot_id():
            shutil.rmtree(folder, ignore_errors=True)
            _log.info("removed %s, left by a run that was killed", folder)
        else:
            _log.info(
                "%s was left by a run on another computer or before a restart: remove it if nothing writes there",
                folder,
            )
    finally:
        os.close(lock)
