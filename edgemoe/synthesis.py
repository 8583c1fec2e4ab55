"""A synthesis beside the estimate on the command line: verify --vitis, verify --reports."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import CheckError, InputError
from edgemoe.console import Console

if TYPE_CHECKING:
    from boards import Board
    from codegen.build import Build
    from codegen.csynth_check import LoopRow, SynthesisCheck

STAGES = ("csim", "csynth", "cosim")


def verify_synthesis(console: Console, build: Build, reports: Path | None) -> None:
    """Run Vitis HLS, or take the reports of somebody who did, and compare them with the estimate.

    Args:
        console: where results go.
        build: the build.
        reports: folder with the reports; Vitis runs if not given.

    Raises:
        InputError: no Vitis, or no reports.
        CheckError: a stage failed, or the synthesis voids the estimate.
    """
    from codegen.context import TOP
    from codegen.csynth_check import check_synthesis
    from codegen.csynth_report import read_synthesis
    from codegen.estimate import beats_per_cycle

    folder = _run(console, build.hls) if reports is None else reports
    board = _board(console, build)
    result = check_synthesis(
        build.architecture,
        read_synthesis(folder, TOP),
        1.0 if board is None else beats_per_cycle(build.architecture, board),
        None if board is None else board.part,
    )
    _show(console, result, build.architecture.hardware.clock_mhz)
    console.result({"synthesis": synthesis_json(result)})
    if result.failures:
        raise CheckError(
            f"the synthesis is not what the estimate assumes: {len(result.failures)} of its assumptions fail",
            hint="docs/hls.md, Your first run of Vitis: what to do about each",
        )


def _run(console: Console, project: Path) -> Path:
    """Run the stages; the folder with the reports."""
    from codegen.csynth_report import find_reports
    from codegen.vitis import run_vitis

    try:
        return project / run_vitis(project, STAGES, project / "vitis.log", console.note).tool.solution
    except CheckError:
        with contextlib.suppress(InputError):
            found = find_reports(project)
            console.note(f"loop by loop: edgemoe verify {project.parent} --reports {found}")
        raise


def _board(console: Console, build: Build) -> Board | None:
    from boards import BoardError, load_board

    try:
        return load_board(build.spec.board)
    except BoardError:
        console.note(f"board {build.spec.board} is not known: cycles as if its memory never made a port wait")
        return None


def synthesis_json(result: SynthesisCheck) -> dict[str, Any]:
    """A comparison under the key names that scripts rely on."""
    return {
        "loops": [
            {
                "label": row.total.loop.label,
                "modules": list(row.modules),
                "ii": row.ii,
                "assumed_ii": row.total.loop.ii,
                "depth": row.depth,
                "assumed_depth": row.total.loop.depth,
                "trips": list(row.found.trips) if row.found and row.found.trips else None,
                "scheduled_trips": row.total.longest,
                "cycles": row.cycles,
            }
            for row in result.rows
        ],
        "findings": [
            {"where": finding.where, "text": finding.text, "failed": finding.failed}
            for finding in result.findings
        ],
        "assumed_cycles": result.assumed_cycles,
        "cycles": result.cycles,
        "resources": {
            name: {"estimated": estimated, "used": used, "available": available}
            for name, (estimated, used, available) in result.resources.items()
        },
        "failed": len(result.failures),
    }


def _show(console: Console, result: SynthesisCheck, clock_mhz: float) -> None:
    from edgemoe.tables import table

    columns = ("loop", "module", "II", "assumed", "depth", "assumed", "trips", "scheduled", "cycles an image")
    console.show(table("Loops as synthesised", columns, (_cells(row) for row in result.rows), left=2))
    if result.resources:
        rows = [
            (name, f"{estimated:,.10g}", f"{used:,}", f"{available:,}")
            for name, (estimated, used, available) in result.resources.items()
        ]
        console.show(table("Resources", ("resource", "estimated", "used", "available"), rows))
    for finding in result.findings:
        console.show(f"{'FAILED' if finding.failed else 'differs'}  {finding.where}: {finding.text}")
    console.show(
        f"{result.assumed_cycles:,} cycles an image assumed, {result.cycles:,} with the tool's figures "
        f"({result.cycles / clock_mhz / 1e3:.2f} ms at {clock_mhz:g} MHz)"
    )


def _cells(row: LoopRow) -> tuple[str, ...]:
    loop, found = row.total.loop, row.found

    def cell(value: int | None) -> str:
        return "-" if value is None else f"{value:,}"

    trips = "-"
    if found is not None and found.trips is not None:
        low, high = found.trips
        trips = f"{low:,}" if low == high else f"{low:,} ~ {high:,}"
    return (
        loop.label,
        ", ".join(row.modules) or "-",
        cell(row.ii),
        str(loop.ii),
        cell(row.depth),
        str(loop.depth),
        trips,
        f"{row.total.longest:,}",
        f"{row.cycles:+,}" if row.cycles else "0",
    )
