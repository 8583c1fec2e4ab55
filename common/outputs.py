"""Results in files of the kind that their suffix names. Needs the standard library only: boards write theirs so too."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from common.errors import InputError
from common.printable import one_line

Kind = Literal["npz", "csv", "json"]

KINDS: Final[tuple[Kind, ...]] = ("npz", "csv", "json")


def kind_of(path: Path) -> Kind:
    """Kind of a file of results by its suffix; arrays where it has none.

    Raises:
        InputError: another suffix.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if not suffix:
        return "npz"
    for kind in KINDS:
        if suffix == kind:
            return kind
    raise InputError(
        f"--out {one_line(path)}: no results are written as .{one_line(suffix)}",
        hint=".npz holds arrays, .csv one line for each image and task, .json what --json prints",
    )


def flat(decoded: Mapping[str, Any]) -> dict[str, Any]:
    """Decoded output of one image (`common.decoded.decoded_json`) for a line of a table: its first class, or values."""
    top = decoded.get("top")
    if top is None:
        return dict(decoded)
    return {"class": top[0]["class"], "name": top[0]["name"], "share": top[0]["share"]}


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV (RFC 4180) with the names of all their columns first; what a row lacks is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
