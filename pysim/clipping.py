"""Clipping of hidden values where it helps the whole network, and nowhere else.

The squared error of a tensor says what clipping gains on the tensor, not what the network loses with the few values
that are cut off: those may be the ones that all later layers depend on. So a clip is taken only if the final tokens of
the float network, with this one tensor narrowed, come out better with it than without on pictures that calibration did
not see: its own, mirrored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pysim import reference
from pysim.calibrate import hidden_name
from pysim.model import Model
from pysim.precision import Precision
from pysim.program import Experts, Linear, Program, program
from pysim.scaling import least_error_clip, whole_range
from pysim.statistic import Statistic

FloatArray = NDArray[np.float64]

HELD_OUT_TOKENS = 256
"""Tokens that the held-out pictures have at least; one picture at least is run."""

LEAST_GAIN = 0.9
"""Share of the error of whole ranges that is left, at most, where a range is clipped: less is chance."""


def clips(
    model: Model, precision: Precision, images: NDArray[np.uint8], statistics: dict[str, Statistic]
) -> dict[str, float]:
    """Share of the largest value that a range reaches to, by the names of the statistics whose range is clipped.

    Args:
        model: the float network.
        precision: with multipliers, whose ranges may be any; otherwise nothing is clipped.
        images: (images, channels, H, W) uint8 calibration images, of which the first few are run mirrored.
        statistics: of calibration.
    """
    if not precision.multipliers:
        return {}
    operations = program(model.spec, precision)
    held = images[: max(1, HELD_OUT_TOKENS // model.spec.tokens), :, :, ::-1]
    width, found = precision.activation_width, dict[str, float]()
    exact: FloatArray | None = None
    for names in _hidden(operations):
        chosen = {
            name: least_error_clip(statistics[name].samples, *statistics[name].extent, width)
            for name in names
            if name in statistics
        }
        if min(chosen.values(), default=1.0) == 1.0:
            continue
        if exact is None:
            exact = reference.run(model, held).tokens
        whole, clipped = (
            _error(
                model, held, exact, {name: (statistics[name], clip) for name, clip in taken.items()}, width
            )
            for taken in (dict.fromkeys(chosen, 1.0), chosen)
        )
        if clipped < LEAST_GAIN * whole:
            found |= {name: clip for name, clip in chosen.items() if clip < 1.0}
    return found


def _hidden(operations: Program) -> list[list[str]]:
    """Names of hidden values: of each MLP one, of each layer with experts those of all."""
    found = []
    for op in operations:
        if isinstance(op, Experts):
            found.append([hidden_name(op, expert) for expert in range(op.experts)])
        elif isinstance(op, Linear) and op.activation is not None:
            found.append([op.output.name])
    return found


def _error(
    model: Model,
    images: NDArray[np.uint8],
    exact: FloatArray,
    clipped: dict[str, tuple[Statistic, float]],
    width: int,
) -> float:
    """Energy of the error of the final tokens with some tensors narrowed."""

    def tap(name: str, value: FloatArray) -> FloatArray | None:
        if name not in clipped:
            return None
        statistic, clip = clipped[name]
        low, high = statistic.extent
        scale, zero = whole_range(low, clip * high, width)
        limit = 1 << (width - 1)
        integers = np.clip(np.floor(value / scale + 0.5) + zero, -limit, limit - 1)
        return np.asarray((integers - zero) * scale)

    return float(((reference.run(model, images, tap=tap).tokens - exact) ** 2).sum())
