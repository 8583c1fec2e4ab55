"""C simulation: compile a generated HLS project with g++, run its test bench, and read what it compared."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hls
from codegen.children import in_worker, workers
from common.errors import CheckError, InputError
from pysim.cache import cache_folder
from pysim.extras import require
from pysim.scratch import scratch

FLAGS = (
    "-std=c++14",
    "-O2",
    # The same objects make the test bench and the emulated board's library.
    "-fPIC",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-DEDGEMOE_COUNT",
)
SIMULATION_HEADERS = Path(hls.__file__).parent / "sim"
"""Stand-ins for headers that Vitis HLS brings and the open packages lack."""
_SHOWN_LINES = 20
PARTIAL = "partial"
"""Name under which compilers write into the cache, in a folder of each run's own."""
_ENGINE = re.compile(r"engine (\S+): (\d+) values, (\d+) mismatches")
_COUNT = re.compile(r"count (\S+) (\S+) (\d+)")


@dataclass
class CsimResult:
    """Report of the test bench.

    Attributes:
        engines: per engine, values compared and mismatches.
        counts: per step of the test, iterations of each engine's pipelined loops.
        mismatches: the first differences, as the test bench printed them.
        notes: what a check build says at its end: see codegen/hls_check.
    """

    engines: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: CsimResult) -> CsimResult:
        """Both results: their engines, which have different names, side by side."""
        return CsimResult(
            self.engines | other.engines,
            self.counts | other.counts,
            self.mismatches + other.mismatches,
            self.notes + other.notes,
        )

    @property
    def values(self) -> int:
        """Values compared over all engines."""
        return sum(values for values, _ in self.engines.values())

    @property
    def failed(self) -> int:
        """Mismatches over all engines."""
        return sum(mismatches for _, mismatches in self.engines.values())


def header_folder() -> Path:
    """The open ap_int headers that the hls4ml package carries."""
    require("compiling the C++ (its ap_int headers come with hls4ml)", "hls4ml")
    spec = importlib.util.find_spec("hls4ml")
    folder = Path(spec.origin).parent / "templates/vivado/ap_types" if spec and spec.origin else None
    if folder is None or not (folder / "ap_int.h").is_file():
        raise InputError(
            "hls4ml is installed without the ap_int headers that it carries",
            hint="pip install --force-reinstall 'edgemoe[hls]'",
        )
    return folder


_CONSTRUCTOR = re.compile(
    r"INLINE ap_private\(\) \{\s*set_canary\(\);\s*clearUnusedBits\(\);\s*check_canary\(\);\s*\}"
)


def mended_headers(headers: Path) -> Path:
    """A folder in the cache with the one header that must come before the others.

    The default constructor of the open `ap_int` reads the number that it has not set, so that the compiler warns of
    every variable. Without that, it warns only of variables that are really read before they are set.
    """
    source = headers / "etc/ap_private.h"
    text, count = _CONSTRUCTOR.subn("INLINE ap_private() {}", source.read_text())
    if not count:
        raise InputError(
            f"{source}: the default constructor is not the one expected",
            hint="pip install 'edgemoe[hls]' brings a version of hls4ml that was tried",
        )
    cache = cache_folder("csim")
    folder = cache / f"headers-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    target = folder / "etc/ap_private.h"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch(cache / PARTIAL) as partial:
            partial.write_text(text)
            partial.replace(target)
    return folder


def find_compiler() -> str:
    """Path of g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise InputError("g++ was not found", hint="install a C++ compiler, for example: apt-get install g++")
    return compiler


def run_csim(project: Path, progress: Callable[[int, int], Any] | None = None) -> CsimResult:
    """Compile and run the test bench of a generated project.

    Args:
        project: the `hls` folder of a build.
        progress: called with files compiled and in total (the run counts as the last one).

    Raises:
        InputError: no compiler, no headers, an incomplete project, or code that does not compile.
        CheckError: the test bench ended abnormally.
    """
    sources = sorted([*project.glob("src/*.cpp"), *project.glob("tb/*.cpp")])
    if not sources or not (project / "tb/tb_data/run.bin").is_file():
        raise InputError(f"{project}: not a generated HLS project", hint="`edgemoe generate` makes one")
    compiled = _counter(progress, len(sources) + 1)
    executable = build(sources, project / "src", compiled)
    result = run_testbench(executable, project)
    compiled()
    return result


def build(sources: Sequence[Path], include: Path, compiled: Callable[[], None] = lambda: None) -> Path:
    """Compile and link in parallel; objects are cached under a hash of everything that goes into them.

    Args:
        sources: C++ files, which include nothing but the headers (`*.h`) in `include` and system headers.
        include: folder of the generated headers.
        compiled: called after each file.

    Returns:
        The executable, in the cache.

    Raises:
        InputError: no compiler, no headers, or code that does not compile.
    """
    return link(compile_sources(sources, [include], compiled), include)


def build_library(project: Path, progress: Callable[[int, int], Any] | None = None) -> Path:
    """Compile the kernel of a generated project for this computer, as a shared library: what the emulated board runs.

    Args:
        project: the `hls` folder of a build.
        progress: called with files compiled and in total (linking counts as the last one).

    Raises:
        InputError: no compiler, no headers, an incomplete project, or code that does not compile.
    """
    sources = sorted(project.glob("src/*.cpp"))
    if not sources:
        raise InputError(f"{project}: not a generated HLS project", hint="`edgemoe generate` makes one")
    compiled = _counter(progress, len(sources) + 1)
    library = _link(compile_sources(sources, [project / "src"], compiled), ".so", ("-shared",), project)
    compiled()
    return library


def _counter(progress: Callable[[int, int], Any] | None, steps: int) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, steps)

    return count


def compile_sources(
    sources: Sequence[Path],
    includes: Sequence[Path],
    compiled: Callable[[], None] = lambda: None,
    flags: Sequence[str] = (),
    first: Sequence[str] = (),
) -> list[Path]:
    """Objects of C++ files, from the cache where they are there: `build` without the linking.

    Args:
        sources: C++ files, which include nothing but the headers (`*.h`) in `includes` and system headers.
        includes: folders of headers.
        compiled: called after each file.
        flags: of the compiler, beside those that all C++ is compiled with.
        first: headers of `hls/sim` that every file includes before its own.

    Raises:
        InputError: no compiler, no headers, or code that does not compile.
    """
    compiler, headers = find_compiler(), header_folder()
    system = [
        argument for folder in (mended_headers(headers), headers) for argument in ("-isystem", str(folder))
    ]
    base = [compiler, *FLAGS, *flags, *system]
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    common = hashlib.sha256("\n".join([version, *FLAGS, *flags]).encode())
    for header in sorted(headers.rglob("*.h")):
        common.update(header.read_bytes())
    cache = cache_folder("csim")
    cache.mkdir(parents=True, exist_ok=True)
    precompiled = cache / f"ap_int-{common.hexdigest()[:16]}" / "ap_int.h"
    own = [header for include in includes for header in sorted(include.glob("*.h"))]
    common.update("\n".join(first).encode())
    for header in [*own, *sorted(SIMULATION_HEADERS.glob("*.h"))]:
        common.update(header.read_bytes())

    def target_of(source: Path) -> Path:
        digest = common.copy()
        digest.update(source.name.encode() + source.read_bytes())
        return cache / f"{digest.hexdigest()[:32]}.o"

    def compile_one(source: Path, target: Path) -> Path:
        if not target.is_file():
            partial = partials / target.name
            places = [f"-I{include}" for include in (*includes, SIMULATION_HEADERS)]
            # What is precompiled comes before all others, or the compiler does not take it.
            included = [part for name in (str(precompiled), *first) for part in ("-include", name)]
            command = [*base, *places, *included, "-c", str(source), "-o", str(partial)]
            _check(command, f"{source}: does not compile")
            partial.replace(target)
        compiled()
        return target

    targets = [target_of(source) for source in sources]
    with scratch(cache / PARTIAL) as partials, workers() as pool:
        partials.mkdir()
        if not all(target.is_file() for target in targets):
            pool.submit(_precompile, base, precompiled, partials).result()
        return list(pool.map(compile_one, sources, targets))


def _precompile(command: Sequence[str], target: Path, partials: Path) -> None:
    """Compile `ap_int.h`, which every file includes and which takes half of its time, once for all projects."""
    if target.is_file():
        return
    partial = partials / target.parent.name
    partial.mkdir()
    header = partial / target.name
    header.write_text("#include <ap_int.h>\n")
    built = [*command, "-x", "c++-header", str(header), "-o", f"{header}.gch"]
    _check(built, f"{target}: does not compile")
    # Another run may have been faster.
    with suppress(OSError):
        partial.rename(target.parent)


def link(objects: Sequence[Path], name: object) -> Path:
    """An executable, in the cache; `name` is for the message if the objects do not link.

    Raises:
        InputError: no compiler, or something is missing or there twice.
    """
    return _link(objects, ".exe", (), name)


def _link(objects: Sequence[Path], suffix: str, options: Sequence[str], what: object) -> Path:
    name = hashlib.sha256("".join(map(str, objects)).encode()).hexdigest()[:32]
    target = cache_folder("csim") / f"{name}{suffix}"
    if not target.is_file():
        with scratch(target.parent / PARTIAL) as partial:
            command = [find_compiler(), *options, *map(str, objects), "-o", str(partial)]
            in_worker(_check, command, f"{what}: does not link")
            partial.replace(target)
    return target


def _check(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{failure}:\n" + "\n".join(done.stderr.splitlines()[:_SHOWN_LINES]))


def run_testbench(executable: Path, project: Path, settings: Mapping[str, str] | None = None) -> CsimResult:
    """Run a compiled test bench on the data of a project, with environment variables in `settings`.

    Raises:
        CheckError: the test bench ended abnormally.
    """
    command = [str(executable), str(project / "tb/tb_data")]
    environment = {**os.environ, **(settings or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    result = CsimResult()
    for line in done.stdout.splitlines():
        if engine := _ENGINE.fullmatch(line):
            values, mismatches = result.engines.get(engine[1], (0, 0))
            result.engines[engine[1]] = (values + int(engine[2]), mismatches + int(engine[3]))
        elif count := _COUNT.fullmatch(line):
            result.counts.setdefault(count[1], {})[count[2]] = int(count[3])
        elif line.startswith("mismatch"):
            result.mismatches.append(line.removeprefix("mismatch: "))
        elif line.startswith("check "):
            result.notes.append(line.removeprefix("check "))
    if done.returncode not in (0, 1) or not result.engines or (done.returncode == 1) != (result.failed > 0):
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise CheckError(f"{project}: the test bench ended abnormally: {reason}")
    return result
