"""Results as rich tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from common.printable import one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from edgemoe.runs import Stage
    from pysim.compare import LayerUsage
    from pysim.reports import TensorReport
    from pysim.sensitivity import Loss

_HEAT = ("dim", "blue", "cyan", "green", "yellow", "red")


Cell = str | Text

SHOWN_LOSSES = 8
"""Layers in the table of losses, and half as many as its tensors: sensitivity.json has all."""

_BETWEEN, _EDGES = 3, 2
"""Columns of the terminal between two columns of a table, and on its edges."""

_NARROWEST, _BESIDE = 4, 8
"""Width that a folded column has at least, and that names leave to the columns beside them."""


class FoldedTable:
    """A table that keeps every name and number however narrow the terminal is.

    What does not fit side by side comes in further parts below, each of which starts with the names again; a name or a
    text that is too long for a part of its own is folded.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        left: Sequence[bool],
        keys: int,
    ) -> None:
        """Keep what `table` takes; `left` says of each column whether it holds text."""
        # Names come out of files.
        self._title, self._columns, self._left, self._keys = one_line(title), columns, left, keys
        filled = ([*row, *[""] * (len(columns) - len(row))] for row in rows)
        self._rows = [[one_line(cell) if isinstance(cell, str) else cell for cell in row] for row in filled]
        self._widths = [
            max(map(cell_len, (*column.split("\n"), *(str(row[index]) for row in self._rows))), default=1)
            for index, column in enumerate(columns)
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title and parts, for rich."""
        yield Text(self._title, style="bold")
        for widths in self._parts(options.max_width):
            yield self._part(widths)

    def _parts(self, width: int) -> Iterator[dict[int, int]]:
        """Columns of each part, with their widths."""
        room = width - _EDGES
        # With very long names, some of the room is for the column beside them.
        most = max((room - _BESIDE) // self._keys - _BETWEEN, _NARROWEST)
        keys = {index: min(self._widths[index], most) for index in range(self._keys)}
        room -= sum(keys.values()) + _BETWEEN * (self._keys - 1)
        part, free = dict(keys), room
        for index in range(self._keys, len(self._columns)):
            needed = min(self._widths[index], max(room - _BETWEEN, _NARROWEST))
            if needed + _BETWEEN > free and len(part) > self._keys:
                yield part
                part, free = dict(keys), room
            part[index] = needed
            free -= needed + _BETWEEN
        yield part

    def _part(self, widths: Mapping[int, int]) -> Table:
        result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, width in widths.items():
            justify: Literal["left", "right"] = "left" if self._left[index] else "right"
            result.add_column(self._columns[index], justify=justify, width=width, overflow="fold")
        for row in self._rows:
            result.add_row(*(row[index] for index in widths))
        return result


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    left: int = 1,
    keys: int = 1,
    texts: int = 0,
) -> FoldedTable:
    """A table of names and numbers.

    Args:
        title: printed above it.
        columns: headings.
        rows: cells; what a row lacks at its end stays empty.
        left: columns at the start that hold names or texts, the others hold numbers.
        keys: columns at the start that say what a row is about: every part of a table that is folded repeats them.
        texts: columns at the end that hold texts again.
    """
    numbers = len(columns) - left - texts
    return FoldedTable(title, columns, rows, [True] * left + [False] * numbers + [True] * texts, keys)


def decibels(value: float) -> str:
    """A signal-to-noise ratio for people."""
    return "exact" if value >= 400 else f"{value:.1f}"


def tensors(reports: Sequence[TensorReport]) -> FoldedTable:
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


def losses(found: Sequence[Loss]) -> FoldedTable:
    """The layers that cost most alone, and the tensors."""
    kinds = [[loss for loss in found if (loss.kind == "layer") == layer] for layer in (True, False)]
    rows = []
    for loss in (*kinds[0][:SHOWN_LOSSES], *kinds[1][: 2 * SHOWN_LOSSES]):
        routing = "" if loss.equal_choices is None else _percent(loss.equal_choices)
        rows.append((loss.name, loss.kind, decibels(loss.sqnr_db), routing))
    columns = ("quantised alone", "kind", "SQNR dB", "routing %")
    return table("Loss of the final tokens, the largest first", columns, rows, left=2)


def tensor_groups(reports: Sequence[TensorReport]) -> FoldedTable:
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
    return table("Quantised tensors by part, worst first", columns, rows, left=2, keys=2, texts=2)


def _part(name: str) -> str:
    """The tensor's name without the numbers of its layer, expert or task."""
    return re.sub(r"^blocks\.\d+\.|\.\d+$", "", name)


def _format(report: TensorReport) -> str:
    if report.frac is None:
        return f"{report.width} bits x {report.scale:.3g}"
    return f"ap_fixed<{report.width}, {report.width - report.frac}>"


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.3f}"


def stages(rows: Sequence[Stage]) -> FoldedTable:
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


def routing(task: str, usage: Sequence[LayerUsage]) -> FoldedTable:
    """Tokens per expert of every MoE layer for one task; the busier an expert, the warmer its colour."""
    experts = len(usage[0].tokens)
    rows: list[list[Cell]] = []
    for layer in usage:
        top = max(layer.tokens) or 1
        cells = [_heat(count, top) for count in layer.tokens]
        rows.append([str(layer.layer), *cells, ", ".join(map(str, layer.unused)) or "none"])
    columns = ["layer", *map(str, range(experts)), "unused"]
    return table(f"Tokens per expert, task {task}", columns, rows)


def _heat(count: int, top: int) -> Text:
    return Text(str(count), style=_HEAT[-(-count * (len(_HEAT) - 1) // top)])
