"""Clipping of hidden values where it helps the whole network, and nowhere else.

The squared error of a tensor says what clipping gains on the tensor, not what the network loses with the few values
that are cut off: those may be the ones that all later layers depend on. So a clip is only proposed by it, from some of
the calibration pictures, and judged on the others: by the final tokens of the float network with this one tensor
narrowed, and by the experts that it would send them to. Where there are too few pictures to hold some out, nothing is
clipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pysim import reference
from pysim.agreement import Paired, agreeing
from pysim.calibrate import hidden_name
from pysim.model import Model
from pysim.precision import Precision
from pysim.program import Experts, Linear, Program, program
from pysim.scaling import CLIP_BELOW_WIDTH, HIDDEN_CLIP_BELOW_WIDTH, least_error_clip, whole_range
from pysim.statistic import Statistic

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]

HELD_OUT_TOKENS = 512
"""Tokens that the held-out pictures have together, at least, where there are pictures enough."""

HELD_OUT_SHARE = 4
"""Number of calibration pictures of which at most one is held out."""

LEAST_GAIN = 0.9
"""Share of the error of whole ranges that is left, at most, where a range is clipped: less is chance."""


def held_out(model: Model, precision: Precision, count: int) -> NDArray[np.bool_]:
    """(count,) which of so many calibration pictures are held out: none of fewer than HELD_OUT_SHARE.

    They are spread evenly over all; one a task, if there are enough, and as many as have HELD_OUT_TOKENS. There are
    none either where operands are so wide that nothing is judged on them.
    """
    spec, held = model.spec, np.zeros(count, bool)
    clipped = precision.multipliers and precision.activation_width < HIDDEN_CLIP_BELOW_WIDTH
    if not clipped and not judges_gates(precision):
        return held
    wanted = max(-(-HELD_OUT_TOKENS // spec.tokens), len(spec.tasks))
    number = min(wanted, count // HELD_OUT_SHARE)
    if number:
        held[(np.arange(1, number + 1) * count) // number - 1] = True
    return held


def judges_gates(precision: Precision) -> bool:
    """Whether the router's operands are so narrow that their scales are chosen by routing."""
    return precision.gate_width < CLIP_BELOW_WIDTH


def clips(
    model: Model, precision: Precision, held: Pixels, statistics: dict[str, Statistic]
) -> dict[str, float]:
    """Share of the largest value that a range reaches to, by the names of the statistics whose range is clipped.

    Args:
        model: the float network.
        precision: with multipliers, whose ranges may be any; otherwise nothing is clipped.
        held: (images, channels, H, W) uint8 calibration images that were held out; none, and nothing is clipped.
        statistics: of calibration, with those of hidden values apart from the held-out images (`Statistic.fitted`).
    """
    if not precision.multipliers or not len(held):
        return {}
    width, found = precision.activation_width, dict[str, float]()
    judge: _Judge | None = None
    for layer, names in _hidden(program(model.spec, precision)):
        chosen = {name: _proposed(statistics.get(name), width) for name in names}
        if min(chosen.values(), default=1.0) == 1.0:
            continue
        judge = judge or _Judge(model, held, width)
        # Ranges, too, are those that are known without the held-out images.
        ranges = {name: statistics[name].fitted or statistics[name] for name in names if name in statistics}
        if judge.gains(layer, ranges, {name: chosen[name] for name in ranges}):
            found |= {name: clip for name, clip in chosen.items() if clip < 1.0}
    return found


def clipped_gains(whole: float, clipped: float, routing: Paired) -> bool:
    """Whether a clipped range is better than the whole one, by the error of the network's output and its routing.

    The error has to be less. Where the routing differs beyond chance, it decides; where not, the error has to be less
    beyond chance, too.
    """
    if clipped >= whole or routing.worse:
        return False
    return routing.better or clipped < LEAST_GAIN * whole


def _proposed(statistic: Statistic | None, width: int) -> float:
    """The clip of least squared error on pictures that are not held out; 1 where there were no values."""
    fitted = statistic.fitted if statistic else None
    return least_error_clip(fitted.samples, *fitted.extent, width) if fitted else 1.0


def _hidden(operations: Program) -> list[tuple[int, list[str]]]:
    """Layer and names of hidden values: of each MLP one, of each layer with experts those of all."""
    found = []
    for op in operations:
        if isinstance(op, Experts):
            assert op.layer is not None
            found.append((op.layer, [hidden_name(op, expert) for expert in range(op.experts)]))
        elif isinstance(op, Linear) and op.activation is not None and op.layer is not None:
            found.append((op.layer, [op.output.name]))
    return found


@dataclass
class _Exact:
    """Run of the float network on the held-out images of one task.

    Attributes:
        task: its number.
        images: (images, channels, H, W) pixels.
        streams: (images * tokens, channels) that enters each block.
        run: its results.
    """

    task: int
    images: Pixels
    streams: list[FloatArray] = field(default_factory=list)
    run: reference.ReferenceRun = field(init=False)


class _Judge:
    """Comparison of clipped ranges with whole ones on held-out images, which the tasks share."""

    def __init__(self, model: Model, held: Pixels, width: int) -> None:
        self.model, self.width = model, width
        tasks = len(model.spec.tasks)
        parts = [held[task::tasks] if len(held) >= tasks else held for task in range(tasks)]
        self.exact = [self._run(task, images) for task, images in enumerate(parts)]

    def _run(self, task: int, images: Pixels) -> _Exact:
        exact = _Exact(task, images)

        def tap(name: str, value: FloatArray) -> None:
            if name == "embed" or name.endswith(".output"):
                exact.streams.append(value)

        exact.run = reference.run(self.model, images, task, tap=tap)
        return exact

    def gains(self, layer: int, ranges: dict[str, Statistic], clips: dict[str, float]) -> bool:
        """Whether the network gains by clipped hidden values of a layer, beside whole ones."""
        errors, routing = np.zeros(2), Paired()
        for exact in self.exact:
            whole, clipped = (
                self._narrowed(exact, layer, ranges, taken) for taken in (dict.fromkeys(ranges, 1.0), clips)
            )
            energy = max(float((exact.run.tokens**2).sum()), 1e-300)
            errors += [
                float(((run.tokens - exact.run.tokens) ** 2).sum()) / energy for run in (whole, clipped)
            ]
            for later in clipped.experts:
                own = exact.run.experts[later]
                routing = routing.add(*(agreeing(run.experts[later], own) for run in (whole, clipped)))
        return clipped_gains(float(errors[0]), float(errors[1]), routing)

    def _narrowed(
        self, exact: _Exact, layer: int, ranges: dict[str, Statistic], clips: dict[str, float]
    ) -> reference.ReferenceRun:
        """The float network from one layer on, whose hidden values are narrowed."""

        def tap(name: str, value: FloatArray) -> FloatArray | None:
            if name not in ranges:
                return None
            low, high = ranges[name].extent
            scale, zero = whole_range(low, clips[name] * high, self.width)
            limit = 1 << (self.width - 1)
            integers = np.clip(np.floor(value / scale + 0.5) + zero, -limit, limit - 1)
            return np.asarray((integers - zero) * scale)

        # With the float network's experts: one token that is sent elsewhere outweighs all rounding. Runs note their
        # own choices all the same.
        return reference.run(
            self.model,
            exact.images,
            exact.task,
            experts=exact.run.experts,
            tap=tap,
            start=(layer, exact.streams[layer]),
        )
