"""Tensors that were quantised alone, for a report: the loss of each, its range and bits, and its histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pysim.design import Design
from pysim.reports import TensorReport
from pysim.sensitivity import Loss, Sensitivity

BINS = 64
"""Bars of a histogram."""

HEADS = ("name", "kind", "SQNR, dB", "noise", "equal choices, %", "bits", "least", "most", "clipped, %")
"""Columns of `loss_row`; those of a layer end before its bits."""


def loss_entries(
    sensitivity: Sensitivity, design: Design, stages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each tensor with its range and histogram, the largest loss first.

    Args:
        sensitivity: the losses.
        design: that they were measured on.
        stages: traced tensors of the runs on images: their ranges and histograms.

    Returns:
        Objects of `name`, `kind`, `sqnr_db`, `bits`, `low`, `high`, `clipped` and `histogram`, each None where it is
        not known: an activation has a histogram where images were run on the task. A histogram has `low`, `high` (of
        its axis), `counts` and `unit`.
    """
    traced = {stage["name"]: stage for stage in stages if stage["task"] == sensitivity.task}
    return [_entry(loss, design, traced.get(loss.name)) for loss in sensitivity.tensors]


def _entry(loss: Loss, design: Design, stage: Mapping[str, Any] | None) -> dict[str, Any]:
    reports = [report for report in design.reports if _is_of(report, loss)]
    low, high = (
        (min(report.low for report in reports), max(report.high for report in reports))
        if reports
        else (stage["low"], stage["high"])
        if stage is not None
        else (None, None)
    )
    return {
        "name": loss.name,
        "kind": loss.kind,
        "sqnr_db": loss.sqnr_db,
        "bits": reports[0].width if reports else None,
        "low": low,
        "high": high,
        "clipped": max(report.clipped for report in reports) if reports else None,
        "histogram": _histogram(loss, design, stage),
    }


def _is_of(report: TensorReport, loss: Loss) -> bool:
    """Whether a report is about a tensor, or about the part of it that one expert or task has."""
    tensor = loss.name.removesuffix(".weight")
    part = report.name.removeprefix(f"{tensor}.")
    return report.kind == loss.kind and (report.name == tensor or (part != report.name and part.isdecimal()))


def _histogram(loss: Loss, design: Design, stage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if loss.kind == "weight" and loss.name in design.tensors:
        integers = design.tensors[loss.name]
        low, high = int(integers.min()), int(integers.max()) + 1
        # Whole numbers to a bar, or some bars would hold more of them than others.
        width = -(-(high - low) // BINS)
        counts, edges = np.histogram(integers, np.arange(low, high + width, width) - 0.5)
        return {
            "low": float(edges[0]),
            "high": float(edges[-1]),
            "counts": counts.tolist(),
            "unit": "integers",
        }
    if stage is not None:
        kept = {"low": stage["low"], "high": stage["high"], "counts": stage["histogram"]}
        return kept | {"unit": "real values, on the images of this page"}
    return None


def loss_row(loss: Loss, entry: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """A line of a table: of a layer, or with its entry of a tensor."""
    choices = "" if loss.equal_choices is None else f"{100 * loss.equal_choices:.2f}"
    row = (loss.name, loss.kind, f"{loss.sqnr_db:.1f}", f"{loss.noise:.2e}", choices)
    if entry is None:
        return row
    low, high, clipped = (entry[name] for name in ("low", "high", "clipped"))
    return (
        *row,
        "" if entry["bits"] is None else f"{entry['bits']}",
        "" if low is None else f"{low:.4g}",
        "" if high is None else f"{high:.4g}",
        "" if clipped is None else f"{100 * clipped:.3g}",
    )
