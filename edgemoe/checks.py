"""The HLS checks on the command line: verify --check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import CheckError
from edgemoe.console import Console

if TYPE_CHECKING:
    from codegen.build import Build
    from codegen.csim import CsimResult
    from codegen.hls_check import Finding
    from codegen.hls_check.execution import Execution


def verify_check(console: Console, build: Build) -> CsimResult:
    """Read a build's C++ as Vitis HLS would, then run its check build.

    Returns:
        What the test bench of the check build compared, in its first run.

    Raises:
        CheckError: anything was found.
    """
    from codegen.hls_check import check_project
    from codegen.hls_check.execution import execute

    _refuse(console, build, check_project(build.hls))
    with console.progress("compiling the check build"):
        execution = execute(build.hls)
    _show(console, execution)
    _refuse(console, build, execution.findings)
    return next(iter(execution.results.values()))


def _refuse(console: Console, build: Build, findings: list[Finding]) -> None:
    console.result({"findings": [vars(finding) for finding in findings]})
    for finding in findings:
        console.note(str(finding))
    if findings:
        count = "1 line" if len(findings) == 1 else f"{len(findings)} lines"
        raise CheckError(
            f"{build.folder}: Vitis HLS would not take {count} as meant",
            hint="docs/hls-checks.md says what each check looks for",
        )


def _show(console: Console, execution: Execution) -> None:
    from edgemoe.tables import table

    def told(distance: int | None) -> str:
        return "none" if distance is None else f"{distance:,}"

    rows = [
        (
            f"{about.text.file}:{about.text.line}",
            about.text.clauses["variable"],
            about.text.word("direction").upper(),
            told(about.declared),
            told(about.least) if about.runs else "not entered",
        )
        for about in execution.dependences
    ]
    columns = ("pragma", "memory", "dependence", "distance declared", "least seen")
    console.show(table("Dependences, in iterations", columns, rows, left=3))
    console.show(f"{len(execution.results)} runs of the test bench: {', '.join(execution.results)}")
    console.result(
        {
            "dependences": [
                {
                    "file": about.text.file,
                    "line": about.text.line,
                    "memory": about.text.clauses["variable"],
                    "declared": about.declared,
                    "least": about.least,
                    "runs": about.runs,
                }
                for about in execution.dependences
            ]
        }
    )
