"""Results as rich tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from pysim.printable import one_line

if TYPE_CHECKING:
    from edgemoe.evaluate import Stage
    from pysim.compare import LayerUsage
    from pysim.reports import TensorReport

_HEAT = ("dim", "blue", "cyan", "green", "yellow", "red")


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, left: int = 1
) -> Table:
    """A table whose first `left` columns hold names and whose others hold numbers."""
    result = Table(
        title=one_line(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index < left else "right", no_wrap=index >= left)
    for row in rows:
        # Names come out of files.
        result.add_row(*(one_line(cell) if isinstance(cell, str) else cell for cell in row))
    return result


def decibels(value: float) -> str:
    """A signal-to-noise ratio for people."""
    return "exact" if value >= 400 else f"{value:.1f}"


def tensors(reports: Sequence[TensorReport]) -> Table:
    """Every tensor of a quantisation report, worst first."""
    rows = [
        (
            r.name,
            r.kind,
            _format(r),
            f"{r.low:.4g}",
            f"{r.high:.4g}",
            _percent(r.clipped),
            decibels(r.sqnr_db),
        )
        for r in sorted(reports, key=lambda report: report.sqnr_db)
    ]
    columns = ("tensor", "kind", "format", "low", "high", "clipped %", "SQNR dB")
    return table("Quantised tensors, worst first", columns, rows, left=3)


def tensor_groups(reports: Sequence[TensorReport]) -> Table:
    """The report with the tensors of the same part of every layer (and expert) in one row, worst first."""
    groups: dict[tuple[str, str], list[TensorReport]] = {}
    for report in reports:
        groups.setdefault((_part(report.name), report.kind), []).append(report)
    rows = []
    for (part, kind), members in sorted(groups.items(), key=lambda item: min(r.sqnr_db for r in item[1])):
        worst = min(members, key=lambda report: report.sqnr_db)
        row = (
            part,
            kind,
            str(len(members)),
            f"{min(r.low for r in members):.4g}",
            f"{max(r.high for r in members):.4g}",
            _percent(max(r.clipped for r in members)),
            decibels(worst.sqnr_db),
            worst.name,
            _format(worst),
        )
        rows.append(row)
    columns = ("part", "kind", "tensors", "low", "high", "clipped %", "SQNR dB", "worst tensor", "its format")
    result = table("Quantised tensors by part, worst first", columns, rows, left=2)
    for column in result.columns[-2:]:
        column.justify = "left"
    return result


def _part(name: str) -> str:
    """The tensor's name without the numbers of its layer, expert or task."""
    return re.sub(r"^blocks\.\d+\.|\.\d+$", "", name)


def _format(report: TensorReport) -> str:
    if report.frac is None:
        return f"{report.width} bits x {report.scale:.3g}"
    return f"ap_fixed<{report.width}, {report.width - report.frac}>"


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.3f}"


def stages(rows: Sequence[Stage]) -> Table:
    """Traced tensors: their shape and range, and their errors where a reference was run."""
    compared = any(stage.error is not None for stage in rows)
    columns = ["stage", "shape", "low", "high"]
    if compared:
        columns += ["max error", "mean error", "SQNR dB"]
    cells = []
    for stage in rows:
        row = [stage.name, "x".join(map(str, stage.shape)), f"{stage.low:.4g}", f"{stage.high:.4g}"]
        if compared and stage.error is not None:
            error = stage.error
            row += [f"{error.max_error:.3g}", f"{error.mean_error:.3g}", decibels(error.sqnr_db)]
        cells.append(row)
    return table("Stages", columns, cells)


def routing(task: str, usage: Sequence[LayerUsage]) -> Table:
    """Tokens per expert of every MoE layer for one task; the busier an expert, the warmer its colour."""
    experts = len(usage[0].tokens)
    rows: list[list[str | Text]] = []
    for layer in usage:
        top = max(layer.tokens) or 1
        cells = [_heat(count, top) for count in layer.tokens]
        rows.append([str(layer.layer), *cells, ", ".join(map(str, layer.unused)) or "none"])
    columns = ["layer", *map(str, range(experts)), "unused"]
    return table(f"Tokens per expert, task {task}", columns, rows)


def _heat(count: int, top: int) -> Text:
    return Text(str(count), style=_HEAT[-(-count * (len(_HEAT) - 1) // top)])
