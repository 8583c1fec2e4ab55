"""Leftovers of killed runs are removed only where nobody can own them any more; compiled code without a cache."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codegen.csim import PARTIAL
from common.errors import InputError
from pysim import scratch as module
from pysim.files import new_file, new_folder
from pysim.scratch import scratch

MAKES = """
import sys, time
from pathlib import Path
from pysim.files import new_folder

with new_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def maker(target: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that is making `target`, and its temporary folder."""
    with subprocess.Popen(
        [sys.executable, "-c", MAKES, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        before = {path.name for path in target.parent.iterdir()}
        (name,) = (name for name in before if name.startswith(f".{target.name}.") and name not in SEEN)
        SEEN.add(name)
        try:
            yield process, target.parent / name
        finally:
            process.kill()


SEEN: set[str] = set()


def test_what_a_killed_run_left_is_named_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "out[1]"
    with maker(target) as (process, left):
        process.kill()
    assert (left / target.name / "file").is_file()
    with caplog.at_level(logging.INFO, "edgemoe"), new_folder(target) as folder:
        assert not left.exists()
        (folder / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert (target / "file").read_text() == "whole"
    assert caplog.messages == [f"removed {left}, left by a run that was killed"]


def test_what_a_living_run_makes_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "out"
    with maker(target) as (_, left), caplog.at_level(logging.INFO, "edgemoe"):
        with new_file(target) as temporary:
            temporary.write_text("other")
        assert (left / target.name / "file").is_file()
    assert caplog.messages == []


def test_what_another_computer_or_an_earlier_start_left_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "out"
    with maker(target) as (process, left):
        process.kill()
    (left / "owner").write_text("another boot")
    with caplog.at_level(logging.INFO, "edgemoe"), new_folder(target):
        pass
    assert (left / target.name / "file").is_file()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{left} was left by a run on another computer or before a restart")


@pytest.mark.parametrize(
    "how", ["no owner", "empty owner", "owner is a link", "folder is a link", "other name"]
)
def test_what_proves_nothing_stays(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / (".out.abcdefgh" if how != "other name" else ".out.abcdefgh.")
    boot = module._BOOT_ID.read_text().strip()
    real = tmp_path / "real"
    real.mkdir()
    (real / "precious").write_text("precious")
    if how == "folder is a link":
        (real / "owner").write_text(boot)
        folder.symlink_to(real)
    else:
        folder.mkdir()
        (folder / "precious").write_text("precious")
        if how == "owner is a link":
            (real / "owner").write_text(boot)
            (folder / "owner").symlink_to(real / "owner")
        elif how == "empty owner":
            (folder / "owner").touch()
        elif how == "other name":
            (folder / "owner").write_text(boot)
    with caplog.at_level(logging.INFO, "edgemoe"), new_folder(tmp_path / "out"):
        pass
    assert caplog.messages == []
    assert (folder / "precious").is_file() and (real / "precious").is_file()
    # The same folder with an owner that is gone is removed: nothing else kept it.
    shutil.rmtree(folder, ignore_errors=True)
    folder.unlink(missing_ok=True)
    stale = tmp_path / ".other.abcdefgh"
    stale.mkdir()
    (stale / "owner").write_text(boot)
    with new_folder(tmp_path / "other"):
        pass
    assert not stale.exists()


def test_where_locks_are_not_to_be_had_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with new_folder(tmp_path / "out") as folder:
        assert [path.name for path in folder.parent.iterdir()] == ["out"]
        inner = folder.parent
        with new_folder(tmp_path / "out2"):
            assert inner.exists()


def test_results_have_ordinary_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "file").touch()
        with new_file(tmp_path / "file") as file:
            file.touch()
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a: cannot be written: No space"), new_folder(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "b") as file:
        file.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), scratch(tmp_path / "c") as path:
        path.write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


# --- No cache -----------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


def python(code: str, *arguments: object, path: Path = ROOT, **environment: str) -> tuple[str, str]:
    """Run a program whose home cannot be written; what it printed."""
    variables = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=path,
        env=variables | {"HOME": "/proc/none", "PYTHONPATH": str(path)} | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


SAID = "no cache (/proc/none/.cache/edgemoe: No such file or directory): what is compiled is kept for this run only"

GELU = """
import logging
logging.basicConfig(level=logging.INFO)
import numpy as np, pysim.kernels.gelu as module
print(module.__file__)
print(module.gelu(np.array([0, 4096])).tolist())
"""


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A copy of the simulator beside which numba can keep nothing, as in an installation that is read-only."""
    shutil.copytree(ROOT / "pysim", tmp_path / "pysim", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pysim/kernels/__pycache__").touch()
    return tmp_path


@pytest.mark.parametrize("variable", [{}, {"XDG_CACHE_HOME": "/proc/x"}, {"NUMBA_CACHE_DIR": "/proc/x"}])
def test_kernels_without_a_cache(variable: dict[str, str], read_only: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    out, err = python(GELU, path=read_only, TMPDIR=str(temporary), **variable)
    file, result = out.splitlines()
    assert file == str(read_only / "pysim/kernels/gelu.py")
    assert json.loads(result)[0] == 0
    reason = "/proc/x/edgemoe" if "XDG_CACHE_HOME" in variable else "/proc/none/.cache/edgemoe"
    assert err.count("no cache") == 1 and f"no cache ({reason}: No such file or directory)" in err
    assert "set XDG_CACHE_HOME to a folder that can be written" in err
    assert "compiling the simulator for this computer, for this run" in err
    assert list(temporary.iterdir()) == [], "what was compiled for one run goes with it"


def test_without_any_folder_the_error_says_what_to_set(read_only: Path) -> None:
    code = """
import tempfile
tempfile.tempdir = "/proc/none"
from common.errors import InputError
try:
    import pysim.kernels
except InputError as error:
    print(error.message, error.hint, sep="|")
"""
    out, _ = python(code, path=read_only)
    message, hint = out.strip().split("|")
    assert message.startswith(
        "no folder for compiled code can be written: /proc/none/.cache/edgemoe: No such"
    )
    assert hint == "set XDG_CACHE_HOME to a folder that can be written"


def test_a_full_disk_keeps_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pysim import cache

    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **named: Full())
    assert cache.unwritable(tmp_path) == "No space left on device"


def test_objects_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text('extern "C" int f() { return 1; }\n')
    code = """
import sys
from pathlib import Path
from codegen.csim import compile_sources
for _ in range(2):
    (compiled,) = compile_sources([Path(sys.argv[1])], [])
    print(compiled.is_file(), compiled)
"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    out, err = python(code, tmp_path / "a.cpp", TMPDIR=str(temporary))
    first, second = out.splitlines()
    assert first == second and first.startswith(f"True {temporary}")
    assert err.count("no cache") == 1
    assert list(temporary.iterdir()) == []


def test_the_command_line_says_so_once(folders: Path) -> None:
    code = "import sys; from edgemoe.cli import main; sys.exit(main())"
    out, err = python(code, "estimate", folders / "w8a8", "--json")
    (warning,) = json.loads(out)["warnings"]
    assert warning.startswith(SAID)
    assert err.splitlines()[0] == f"warning: {warning}" and err.count("no cache") == 1


def test_the_cache_names_no_half_object() -> None:
    assert not PARTIAL.endswith((".o", ".so", ".exe"))
