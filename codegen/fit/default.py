"""The hardware that a network gets on a board where none is asked for: the fastest that fits."""

from __future__ import annotations

import json
from typing import Final

from boards import Board
from codegen.fit.search import Fitted, Progress, fit
from codegen.fit.space import Fixed
from pysim.network import Network

_FOUND: Final[dict[str, Fitted]] = {}
"""Hardware that was found, by what it was searched for: `generate` after `estimate` does not search again."""


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
