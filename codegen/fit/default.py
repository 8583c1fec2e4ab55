"""The hardware that a network gets on a board where none is asked for: the fastest that fits."""

from __future__ import annotations

import json
from typing import Final

from boards import Board
from codegen.fit.accelerator import RtlSearch
from codegen.fit.base import Fitted, Progress, Space
from codegen.fit.search import Search
from codegen.fit.space import Fixed, Limits, limits_of
from codegen.fit.times import Queues
from pysim.network import Network

_FOUND: Final[dict[str, Fitted]] = {}
"""Hardware that was found, by what it was searched for: `generate` after `estimate` does not search again."""


def space_of(
    network: Network,
    board: Board,
    *,
    clock_mhz: float | None = None,
    batch: int = 1,
    queues: Queues | None = None,
    fixed: Fixed | None = None,
) -> Space:
    """The space of a network's accelerators on a board, in the language that the field `backend` has."""
    kind = RtlSearch if (fixed or {}).get("backend") == "rtl" else Search
    return kind(network, board, clock_mhz=clock_mhz, batch=batch, queues=queues, fixed=fixed)


def fit(
    network: Network,
    board: Board,
    *,
    limits: Limits | None = None,
    clock_mhz: float | None = None,
    batch: int = 1,
    queues: Queues | None = None,
    fixed: Fixed | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """The fastest hardware that fits a board.

    Args:
        network: shape and precision.
        board: the board.
        limits: the most that it may take; what `limits_of` says where it is not given.
        clock_mhz: its clock; the board's default where it is not given.
        batch: images that go through together.
        queues: per MoE layer, the length of each expert's queue; even queues where they are not known.
        fixed: fields of `Hardware` that are given: only the others are chosen.
        progress: called with the widths of words that are done, and in total.

    Raises:
        InputError: nothing fits.
    """
    searched = space_of(network, board, clock_mhz=clock_mhz, batch=batch, queues=queues, fixed=fixed)
    return searched.fastest(limits or limits_of(board), progress)


def fitted(
    network: Network,
    board: Board,
    *,
    clock_mhz: float | None = None,
    batch: int = 1,
    fixed: Fixed | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """The fastest hardware that fits a board within the usual margins, of all with some given fields; found once.

    Raises:
        InputError: nothing fits.
    """
    asked = {
        "shape": network.spec.shape(),
        "precision": network.precision.model_dump(mode="json"),
        "board": board.model_dump(mode="json", exclude={"sources"}),
        "clock_mhz": clock_mhz,
        "batch": batch,
        "fixed": dict(fixed or {}),
    }
    key = json.dumps(asked, sort_keys=True)
    if key not in _FOUND:
        _FOUND[key] = fit(network, board, clock_mhz=clock_mhz, batch=batch, fixed=fixed, progress=progress)
    return _FOUND[key]
