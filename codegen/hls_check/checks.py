"""All checks of a project that need no execution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codegen.hls_check.findings import Finding
from codegen.hls_check.flow import Flow
from codegen.hls_check.model import load
from codegen.hls_check.pragma_rules import check_pragmas
from codegen.hls_check.subset_rules import check_subset
from common.errors import InputError


def check_project(project: Path) -> list[Finding]:
    """Findings in a generated HLS project: its accelerator and its kernels.

    Args:
        project: the `hls` folder of a build.

    Raises:
        InputError: no HLS project, no libclang, no g++, or no ap_int headers.
    """
    sources = sorted(project.glob("src/*.cpp"))
    if not sources:
        raise InputError(f"{project}: not a generated HLS project", hint="`edgemoe generate` makes one")
    tops = sorted(project.glob("kernels/*.cpp"))
    includes = [project / folder for folder in ("src", "kernels") if (project / folder).is_dir()]
    return check_sources(sources, tops, includes)


def check_sources(sources: Sequence[Path], tops: Sequence[Path], includes: Sequence[Path]) -> list[Finding]:
    """Findings in C++ files and in the headers of `includes`; `tops` use the other files, each by itself."""
    program = load(sources, tops, includes)
    flow = Flow(program)
    return sorted({*check_pragmas(program, flow), *check_subset(program, flow)})
