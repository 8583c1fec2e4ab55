"""The edges of the command lines: streams that are closed, full or of another encoding, and signals."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codegen.build import Build
from common.process import BROKEN_PIPE, _lenient

EDGEMOE = (sys.executable, "-c", "import sys; from edgemoe.cli import main; sys.exit(main())")
HOST = (sys.executable, "-m", "host")

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""Environment in which Python fails to write when a stream is flushed, at the latest when the program ends."""

PATIENCE = 60.0
"""Seconds after which something is taken never to happen."""


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.02)


# --- Streams ------------------------------------------------------------------------------------------------


def run(
    *arguments: object,
    closed: tuple[int, ...] = (),
    full: tuple[int, ...] = (),
    program: tuple[str, ...] = EDGEMOE,
    extra: dict[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run a command with standard streams that are closed or full; exit code, stdout and stderr."""

    def streams() -> None:
        for number in closed:
            os.close(number)
        for number in full:
            device = os.open("/dev/full", os.O_WRONLY)
            os.dup2(device, number)
            os.close(device)

    done = subprocess.run(
        [*program, *map(str, arguments)],
        capture_output=True,
        preexec_fn=streams,
        env=BUFFERED | (extra or {}),
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err and "Exception ignored" not in err, err
    return done.returncode, out, err


CLOSED = "error: standard output is closed\nhint: to throw results away: > /dev/null\n"


@pytest.mark.parametrize("command", [["zoo"], ["zoo", "--json"], ["--help"], ["--version"], ["paint"]])
def test_closed_stdout(command: list[str]) -> None:
    assert run(*command, closed=(1,)) == (2, "", CLOSED)


def test_closed_stdout_is_told_before_the_work(tmp_path: Path) -> None:
    assert run("init", "micro", "-o", tmp_path / "a", closed=(1,)) == (2, "", CLOSED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("closed", [(2,), (0, 2)])
def test_closed_stderr_loses_remarks_only(closed: tuple[int, ...], tmp_path: Path, folders: Path) -> None:
    image = folders / "images" / "00.png"
    quantize = ("quantize", folders / "model", "-o", tmp_path / "a", "--images", image)
    code, out, _ = run(*quantize, closed=closed)
    assert code == 0 and "SQNR dB" in out
    code, out, _ = run("init", "macro", "-o", tmp_path / "b", "--json", closed=closed)
    assert code == 2 and json.loads(out)["error"].startswith("macro: ")


def test_everything_closed(tmp_path: Path) -> None:
    assert run("zoo", closed=(0, 1, 2))[0] == 2
    # What is opened next must not take the place of stdout: it would be printed into.
    code, out, _ = run("init", "micro", "-o", tmp_path / "a", closed=(0, 2))
    assert code == 0 and "26,160 parameters" in out
    assert run("init", tmp_path / "a" / "model.toml", "-o", tmp_path / "b")[0] == 0


@pytest.mark.parametrize("extra", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", [["zoo"], ["zoo", "--json"], ["--help"], ["--version"]])
def test_full_stdout(command: list[str], extra: dict[str, str]) -> None:
    code, _, err = run(*command, full=(1,), extra=extra)
    assert code == 2 and err.count("No space left on device") == 1


def test_full_stderr_loses_remarks_only(tmp_path: Path) -> None:
    assert run("zoo", full=(2,))[0] == 0
    assert run("init", "macro", "-o", tmp_path / "a", full=(2,))[0] == 2
    assert run("zoo", full=(1, 2))[0] == 2


@pytest.mark.parametrize("extra", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("which", "command"),
    [
        ("stdout", ["zoo"]),
        ("stdout", ["zoo", "--json"]),
        ("stdout", ["--help"]),
        ("stderr", ["init", "macro", "-o", "a"]),
    ],
)
def test_closed_pipe(which: str, command: list[str], extra: dict[str, str]) -> None:
    with subprocess.Popen(
        [*EDGEMOE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=BUFFERED | extra
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        closed, other = (
            (process.stdout, process.stderr) if which == "stdout" else (process.stderr, process.stdout)
        )
        closed.close()
        said = other.read()
        assert said == b"" or (b"Zoo" in said and command[-1] == "--json"), said
        assert b"Exception ignored" not in said
        assert process.wait() == BROKEN_PIPE


@pytest.mark.parametrize("as_json", [False, True])
def test_ascii(as_json: bool, tmp_path: Path) -> None:
    output = tmp_path / "größe─漢"
    flag = ["--json"] if as_json else []
    code, out, err = run("init", "micro", "-o", output, *flag, extra={"PYTHONIOENCODING": "ascii"})
    assert (code, err == "") == (0, not as_json) and (output / "model.toml").is_file()
    assert r"gr\xf6\xdfe\u2500\u6f22" in out or json.loads(out)["model"] == str(output)
    code, _, err = run("init", "micro", "-o", output, extra={"PYTHONIOENCODING": "ascii:strict"})
    assert code == 2 and r"gr\xf6\xdfe\u2500\u6f22: exists already" in err


def test_tables_in_ascii() -> None:
    code, out, err = run("zoo", extra={"PYTHONIOENCODING": "ascii"})
    assert (code, err) == (0, "") and "m3vit-small-pascal" in out and out.isascii()


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    output = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff")
    code, out, _ = run("init", "micro", "-o", output)
    assert code == 0 and r"a\udcff: micro" in out


def test_the_host_is_as_patient(built: Build, library: Path, folders: Path, tmp_path: Path) -> None:
    picture = tmp_path / "größe.png"
    picture.write_bytes((folders / "images" / "00.png").read_bytes())
    common = (built.host, "--image", picture, "--emulate", library)
    code, out, _ = run(*common, program=HOST, extra={"PYTHONIOENCODING": "ascii"})
    assert code == 0 and r"gr\xf6\xdfe.png: semseg" in out
    assert run(*common, program=HOST, closed=(1,)) == (2, "", CLOSED)
    assert run(*common, program=HOST, full=(1,))[0] == 2
    assert run(*common, program=HOST, closed=(2,))[0] == 0


# --- Signals ------------------------------------------------------------------------------------------------

WAITS = """
import sys, time
from pathlib import Path
from edgemoe.cli import main
from pysim.model import Model

def wait(*arguments):
    print("writing", flush=True)
    time.sleep(600)

import pysim.files
pysim.files.save = wait
sys.exit(main())
"""


def heed_interrupts() -> None:
    """Undo what a shell does to commands in the background, which the tests may be: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def writing(folder: Path, ignored: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that stands still in the middle of writing `a` into a folder."""

    def prepare() -> None:
        heed_interrupts()
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)

    command = [sys.executable, "-c", WAITS, "init", "micro", "-o", str(folder / "a")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=prepare) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_signals_leave_nothing(number: int, code: int, said: str, tmp_path: Path) -> None:
    with writing(tmp_path) as process:
        assert [path.name[:3] for path in tmp_path.iterdir()] == [".a."]
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (code, f"{said}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    with writing(tmp_path, ignored=signal.SIGHUP) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 143


@pytest.fixture
def compiler(tmp_path: Path) -> Iterator[Path]:
    """A folder with a g++ that ends for headers only, and leaves its number and that of a child in `pids/`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "pids").mkdir()
    script = f"""#!/bin/sh
if [ "$1" = --version ]; then echo slow; exit; fi
for last; do :; done
case "$*" in *c++-header*) echo header > "$last"; exit;; esac
sleep 600 &
echo object > "$last"
echo $$ $! > {tmp_path}/pids/new.$$
mv {tmp_path}/pids/new.$$ {tmp_path}/pids/$$
wait
"""
    (folder / "g++").write_text(script)
    (folder / "g++").chmod(0o755)
    yield folder
    for number in pids(tmp_path):
        if running(number):
            os.kill(number, signal.SIGKILL)


def pids(folder: Path) -> list[int]:
    files = [path for path in (folder / "pids").iterdir() if path.name.isdigit()]
    return [int(number) for path in files for number in path.read_text().split()]


def running(number: int) -> bool:
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@contextmanager
def verify(built: Build, tmp_path: Path, compiler: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `verify --csim`; its compilers run."""
    path = f"{compiler}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [*EDGEMOE, "verify", str(built.folder), "--csim"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        preexec_fn=heed_interrupts,
    )
    with process:
        try:
            until(lambda: len(pids(tmp_path)) == 2 * min(os.cpu_count() or 1, 14))
            yield process
        finally:
            process.kill()


def left_by_compilers(folder: Path) -> list[Path]:
    """What is in the cache beside the headers that every compilation uses."""
    cache = folder / "cache/edgemoe/csim"
    return [path for path in cache.iterdir() if not path.name.startswith(("ap_int-", "headers-"))]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_compilers_end_with_the_program(number: int, built: Build, tmp_path: Path, compiler: Path) -> None:
    with verify(built, tmp_path, compiler) as process:
        assert all(map(running, pids(tmp_path)))
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    until(lambda: not any(map(running, pids(tmp_path))))
    assert left_by_compilers(tmp_path) == []


def test_half_compiled_objects_of_a_killed_run_are_removed(
    built: Build, tmp_path: Path, compiler: Path
) -> None:
    with verify(built, tmp_path, compiler) as process:
        process.kill()
    (left,) = left_by_compilers(tmp_path)
    assert [path.suffix for path in (left / "partial").iterdir()] == [".o"] * (len(pids(tmp_path)) // 2)
    # The compilers are on their own now, and the next run need not wait for them.
    first = set(pids(tmp_path))
    for number in first:
        os.kill(number, signal.SIGKILL)
    for file in (tmp_path / "pids").iterdir():
        file.unlink()
    with verify(built, tmp_path, compiler) as process:
        assert not left.exists()
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert err == f"removed {left}, left by a run that was killed\nterminated\n"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape", "replace"])
def test_streams_are_left_as_they_were(errors: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors)
    with _lenient(stream):
        # Who chose another way of spelling keeps it.
        assert stream.errors == ("backslashreplace" if errors == "strict" else errors)
    assert stream.errors == errors
