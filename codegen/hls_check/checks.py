"""All checks of a project that need no execution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codegen.hls_check.findings import Finding
from codegen.hls_check.flow import Flow
from codegen.hls_check.model import Program, load
from codegen.hls_check.pragma_rules import check_pragmas, unplaced
from codegen.hls_check.subset_rules import check_subset
from pysim.errors import InputError


def check_project(project: Path) -> list[Finding]:
    """Findings in a generated HLS project: its accelerator, and the kernels one by one.

    Args:
        project: the `hls` folder of a build.

    Raises:
        InputError: no HLS project, no libclang, no g++, or no ap_int headers.
    """
    sources = sorted(project.glob("src/*.cpp"))
    if not sources:
        raise InputError(f"{project}: not a generated HLS project", hint="`edgemoe generate` makes one")
    includes = [project / "src", project / "kernels"]
    programs = [load(sources, includes[:1])]
    programs += [load([kernel], includes) for kernel in sorted(project.glob("kernels/*.cpp"))]
    return check_programs(programs)


def check_sources(sources: Sequence[Path], includes: Sequence[Path]) -> list[Finding]:
    """Findings in C++ files that are synthesised together, and in the headers of `includes`."""
    return check_programs([load(sources, includes)])


def check_programs(programs: Sequence[Program]) -> list[Finding]:
    """Findings in programs that share headers."""
    found = set.intersection(*map(unplaced, programs))
    for program in programs:
        flow = Flow(program)
        found |= {*check_pragmas(program, flow), *check_subset(program, flow)}
    return sorted(found)
