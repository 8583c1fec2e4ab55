"""C simulation: compile a generated HLS project with g++, run its test bench, and read what it compared."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codegen.children import in_worker, workers
from pysim.cache import cache_folder
from pysim.errors import CheckError, InputError
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
    # The open ap_int headers read their own members before they set them.
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
    "-DEDGEMOE_COUNT",
)
_SHOWN_LINES = 20
PARTIAL = "partial"
"""Name under which compilers write into the cache, in a folder of each run's own."""
_ENGINE = re.compile(r"engine (\S+): (\d+) values, (\d+) mismatches")
_COUNT = re.compile(r"count (\S+) (\S+) (\d+)")


@dataclass
class CsimResult:
    """What the test bench reported.

    Attributes:
        engines: per engine, values compared and mismatches.
        counts: per step of the test, iterations of each engine's pipelined loops.
        mismatches: the first differences, as the test bench printed them.
    """

    engines: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)

    def __add__(self, other: CsimResult) -> CsimResult:
        """Both results: their engines, which have different names, side by side."""
        return CsimResult(
            self.engines | other.engines, self.counts | other.counts, self.mismatches + other.mismatches
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
    result = _run(executable, project)
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
    sources: Sequence[Path], includes: Sequence[Path], compiled: Callable[[], None] = lambda: None
) -> list[Path]:
    """Objects of C++ files, from the cache where they are there: `build` without the linking.

    Args:
        sources: C++ files, which include nothing but the headers (`*.h`) in `includes` and system headers.
        includes: folders of headers.
        compiled: called after each file.

    Raises:
        InputError: no compiler, no headers, or code that does not compile.
    """
    compiler, headers = find_compiler(), header_folder()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    common = hashlib.sha256("\n".join([version, *FLAGS]).encode())
    own = [header for include in includes for header in sorted(include.glob("*.h"))]
    for header in [*own, *sorted(headers.rglob("*.h"))]:
        common.update(header.read_bytes())
    cache = cache_folder("csim")
    cache.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> Path:
        digest = common.copy()
        digest.update(source.name.encode() + source.read_bytes())
        target = cache / f"{digest.hexdigest()[:32]}.o"
        if not target.is_file():
            partial = partials / target.name
            places = [f"-I{include}" for include in includes]
            command = [compiler, *FLAGS, "-isystem", str(headers), *places, "-c", str(source)]
            _check([*command, "-o", str(partial)], f"{source}: does not compile")
            partial.replace(target)
        compiled()
        return target

    with scratch(cache / PARTIAL) as partials, workers() as pool:
        partials.mkdir()
        return list(pool.map(compile_one, sources))


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


def _run(executable: Path, project: Path) -> CsimResult:
    command = [str(executable), str(project / "tb/tb_data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = CsimResult()
    for line in done.stdout.splitlines():
        if engine := _ENGINE.fullmatch(line):
            values, mismatches = result.engines.get(engine[1], (0, 0))
            result.engines[engine[1]] = (values + int(engine[2]), mismatches + int(engine[3]))
        elif count := _COUNT.fullmatch(line):
            result.counts.setdefault(count[1], {})[count[2]] = int(count[3])
        elif line.startswith("mismatch"):
            result.mismatches.append(line.removeprefix("mismatch: "))
    if done.returncode not in (0, 1) or not result.engines or (done.returncode == 1) != (result.failed > 0):
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise CheckError(f"{project}: the test bench ended abnormally: {reason}")
    return result
