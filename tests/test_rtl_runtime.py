"""What all of Verilator's builds have in common is compiled once, and again only where something of it changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.rtl.runtime import compile_once, object_cache

COMPILER = """
import pathlib, sys
if sys.argv[1:] != ["--version"]:
    source = pathlib.Path(sys.argv[-1])
    with open("runs", "a") as runs:
        runs.write("x")
    if "error" in source.read_text():
        sys.exit(3)
    pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).write_text(" ".join(sys.argv[1:]))
"""

Compile = Callable[..., tuple[int, int]]


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    folder = tmp_path / "the include"
    folder.mkdir()
    (folder / "verilated.h").write_text("one")
    for name in ("verilated.cpp", "verilated_vpi.cpp"):
        (folder / name).write_text("int one;")
    return folder


@pytest.fixture
def compiled(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Compiles a file in a folder of its own; returns the exit code and how often the compiler ran."""
    program = tmp_path / "compiler"
    program.write_text(f"#!{sys.executable}\n{COMPILER}")
    program.chmod(0o755)
    builds = tmp_path / "builds"

    def run(source: Path, *options: str) -> tuple[int, int]:
        folder = builds / str(len(list(builds.glob("*"))))
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        command = [str(program), *options, "-c", "-o", "result.o", str(source)]
        code = compile_once(tmp_path / "cache", runtime, command)
        if not code:
            assert Path("result.o").read_text() == " ".join(command[1:])
        return code, Path("runs").stat().st_size if Path("runs").is_file() else 0

    return run


def test_second_build_copies(runtime: Path, compiled: Compile) -> None:
    assert compiled(runtime / "verilated.cpp", "-O2") == (0, 1)
    assert compiled(runtime / "verilated.cpp", "-O2") == (0, 0)


def test_whatever_goes_into_an_object_tells_it_apart(
    runtime: Path, compiled: Compile, tmp_path: Path
) -> None:
    def check(source: str, *options: str) -> None:
        assert compiled(runtime / source, *options) == (0, 1)
        assert compiled(runtime / source, *options) == (0, 0)

    check("verilated.cpp")
    check("verilated.cpp", "-O2")
    check("verilated_vpi.cpp")
    for file in ("verilated.h", "verilated.cpp"):
        (runtime / file).write_text("two")
        check("verilated.cpp")
    compiler = tmp_path / "compiler"
    compiler.write_text(compiler.read_text() + "else:\n    print('version 2')\n")
    check("verilated.cpp")


def test_files_of_the_design_are_always_compiled(compiled: Compile, tmp_path: Path) -> None:
    source = tmp_path / "Vtop.cpp"
    source.write_text("int top;")
    assert compiled(source) == compiled(source) == (0, 1)


def test_what_does_not_compile_is_not_kept(runtime: Path, compiled: Compile) -> None:
    (runtime / "verilated.cpp").write_text("error")
    assert compiled(runtime / "verilated.cpp") == compiled(runtime / "verilated.cpp") == (3, 1)


@pytest.mark.rtl
def test_make_starts_the_compiler_through_it(runtime: Path, tmp_path: Path) -> None:
    """Whatever is in the names of folders."""
    (tmp_path / "Makefile").write_text(
        f"result.o:\n\t$(OBJCACHE) '{sys.executable}' -c 'import pathlib, sys;"
        f" pathlib.Path(sys.argv[-2]).touch()' -o $@ '{runtime / 'verilated.cpp'}'\n"
    )
    cache = tmp_path / "a cache of $HOME's"
    environment = {"PATH": "/usr/bin:/bin", "OBJCACHE": object_cache(cache, runtime)}
    subprocess.run(["make", "-C", str(tmp_path)], env=environment, check=True, capture_output=True)
    assert len(list(cache.glob("*.o"))) == 1 and (tmp_path / "result.o").is_file()
