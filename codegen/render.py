"""Rendering the HLS project of a Design from the sources under `hls/`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from boards import Board
from codegen.architecture import Architecture
from codegen.context import Context, ScriptContext
from codegen.schedule import JobTable, job_table
from codegen.sources import Sources, file_name, is_template
from codegen.testdata import JobTest, job_tests
from codegen.weight_image import image_layout, output_bytes
from common.capacities import CAPACITIES
from common.contract import REPORT_BYTES
from common.errors import InputError
from hls import TEMPLATES
from pysim.program import Value

COUNTERS = ("load", "image", "linear", "norm", "attention", "router", "gather", "output")
"""Engines whose trip counts are counted."""

PROJECT_FOLDERS = ("src", "tb", "scripts")
"""Folders of sources that make up the HLS project."""

BLACKBOX_FILES = ("blackbox.h", "blackbox.cpp")
"""Files that a project with blackboxes has in `src` beside the others."""

STYLE = "{BasedOnStyle: Google, ColumnLimit: 110}"
"""Style of the C++, for clang-format; `.clang-format` says the same to editors."""


class ReplacedUnit(Protocol):
    """A function unit that the engines call as an RTL blackbox: `codegen.rtl.blackbox.Blackbox`, for the templates."""

    @property
    def unit(self) -> str:
        """Name of the unit."""


def project_sources(architecture: Architecture) -> Sources:
    """Sources of the HLS project."""
    sources = Sources(TEMPLATES)
    env = sources.environment
    ports = architecture.hardware.weight_ports

    def declared(prefix: str = "") -> str:
        return ", ".join(f"{prefix}WeightPort weights_{port}" for port in range(ports))

    env.filters["prefix"] = lambda value, prefix: prefix + value
    env.filters["stored"] = _stored
    env.filters["quoted"] = lambda value: f'"{value}"'
    env.globals["weight_ports_declared"] = declared
    env.globals["weight_ports_data"] = lambda: ", ".join(
        f"weights_{port}_words.data()" for port in range(ports)
    )
    env.globals["capacities_declared"] = lambda: ", ".join(f"int *{name}" for name in CAPACITIES[1:])
    env.globals["weight_ports_passed"] = lambda: ", ".join(f"weights_{port}" for port in range(ports))
    return sources


def _stored(value: Value) -> str:
    """A value of the simulator as the test bench names it."""
    return f'{{"{value.name}", {value.kind.name}, {value.channels}}}'


@dataclass(frozen=True)
class ProjectContext:
    """Objects that the templates of the HLS project know beside those of all templates.

    Attributes:
        counters: engines whose trip counts are counted.
        jobs: the job table.
        job_tests: jobs that the test bench runs one by one.
        capacities: those that have a register but `max_batch`, by name.
        image_depth: beats of the images of a batch.
        output_depth: beats of its result, and at least those of what a kernel of XRT says of a call.
        report_bits: bits of that.
        blackboxes: function units that the engines call as RTL blackboxes.
    """

    counters: tuple[str, ...]
    jobs: JobTable
    job_tests: list[JobTest]
    capacities: dict[str, int]
    image_depth: int
    output_depth: int
    report_bits: int
    blackboxes: Sequence[ReplacedUnit]

    @classmethod
    def of(cls, architecture: Architecture, blackboxes: Sequence[ReplacedUnit]) -> ProjectContext:
        """The context of a network on its hardware."""
        batch, port_bytes = architecture.hardware.max_batch, architecture.port_bytes
        return cls(
            COUNTERS,
            job_table(architecture),
            job_tests(architecture),
            {name: architecture.capacities.as_dict()[name] for name in CAPACITIES[1:]},
            batch * image_layout(architecture).image_bytes // port_bytes,
            max(output_bytes(architecture, batch), REPORT_BYTES) // port_bytes,
            8 * REPORT_BYTES,
            blackboxes,
        )


def _sources(arithmetic: str) -> dict[Path, Path]:
    """Source of every file; those in an arithmetic's folder, if any, replace those of that name in `src` or `tb`."""
    found = {
        # The tool scripts stand beside the folders whose files they name.
        Path("" if folder == "scripts" else folder) / file_name(source): source
        for folder in PROJECT_FOLDERS
        for source in (TEMPLATES / folder).iterdir()
    }
    own = TEMPLATES / arithmetic
    for folder, place in (("src", own), ("tb", own / "tb")):
        replacing = [path for path in place.iterdir() if path.is_file()] if place.is_dir() else []
        found |= {Path(folder) / file_name(source): source for source in replacing}
    return found


def unit_functions(replaced: Iterable[str] = ()) -> Callable[[str], str]:
    """Function that the engines call for a function unit: the unit, or the blackbox in its place."""
    names = frozenset(replaced)
    return lambda name: f"{name}_{'rtl' if name in names else 'unit'}"


def render(
    architecture: Architecture, folder: Path, board: Board, blackboxes: Sequence[ReplacedUnit] = ()
) -> list[Path]:
    """Write every file into `folder`: sources copied, templates rendered and formatted; returns the files.

    Args:
        architecture: of the design.
        folder: of the project.
        board: the board.
        blackboxes: function units that the engines call as RTL blackboxes.
    """
    sources = project_sources(architecture)
    sources.environment.globals["unit"] = unit_functions(box.unit for box in blackboxes)
    contexts = (
        Context.of(architecture),
        ProjectContext.of(architecture, blackboxes),
        ScriptContext.of(architecture, board, source_files()),
    )
    files = _sources(architecture.arithmetic)
    if blackboxes:
        files |= {Path("src") / name: TEMPLATES / f"blackbox/{name}.j2" for name in BLACKBOX_FILES}
    rendered = []
    for file, source in files.items():
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        place = source.relative_to(TEMPLATES).parent / file.name
        target.write_text(sources.text(place.as_posix(), *contexts))
        if is_template(source) and target.suffix in (".cpp", ".h"):
            rendered.append(target)
    format_cpp(rendered)
    return sorted(folder / file for file in files)


def source_files() -> tuple[str, ...]:
    """The engines' C++ files, as seen from the folder of the HLS project."""
    names = (file_name(path) for path in (TEMPLATES / "src").iterdir())
    return tuple(sorted(f"src/{name}" for name in names if name.endswith(".cpp")))


def format_cpp(files: Sequence[Path]) -> None:
    """Run clang-format."""
    subprocess.run(
        [find_formatter(), "-i", f"--style={STYLE}", *map(str, files)], check=True, capture_output=True
    )


def find_formatter() -> str:
    """Path of clang-format, which is installed with edgemoe, beside Python.

    Without it nothing is generated: the text, and with it the cache of compiled files, would differ from machine to
    machine.

    Raises:
        InputError: it is missing.
    """
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    tool = shutil.which("clang-format", path=os.pathsep.join(places))
    if tool is None:
        raise InputError("clang-format was not found", hint="pip install clang-format")
    return tool
