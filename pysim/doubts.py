"""Doubts about a Design that was made without an error: it is run beside the float network, on few images.

Fixed point has limits that no sum can leave (those are refused, `pysim.design`), and yet a network may come out as
noise: values too small for their formats, or the original's arithmetic, which wraps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysim import reference
from pysim.agreement import agreeing
from pysim.arithmetic import Kind
from pysim.clipping import held_out
from pysim.design import Design
from pysim.kernels.iccad23 import FEATURE
from pysim.model import Model
from pysim.program import Gate, of_type, values
from pysim.reports import TensorReport, sqnr_db
from pysim.simulator import Simulation, simulate

FloatArray = NDArray[np.float64]

LEAST_SQNR_DB = 20.0
"""Signal to noise of a residual stream that is still worth something: an error of a tenth."""

LEAST_AGREEMENT = 0.8
"""Share of the experts chosen in a layer that the float network ought to choose, too, in whatever order."""

CHECKED_TOKENS = 256
"""Tokens that the images that are run have at least; one image at least is run."""


@dataclass(frozen=True)
class Findings:
    """Results of a run of a Design beside the float network.

    Attributes:
        warnings: sentences on what is wrong with it, each with a layer and a figure; none for a sound one.
        agreement: by the name of each gate, the share of its choices that the float network makes, too.
    """

    warnings: tuple[str, ...]
    agreement: dict[str, float]


def examine(model: Model, design: Design, images: NDArray[np.uint8]) -> Findings:
    """Run a Design beside the float network.

    Args:
        model: the float network.
        design: made from it.
        images: (images, channels, H, W) uint8 calibration images, of which the first few are run, for the first task.
    """
    few = few_images(design, images)
    simulation = simulate(design, few, trace=True)
    stream = [value.name for value in values(design.program).values() if value.kind is Kind.STREAM]
    figures: dict[str, float] = {}

    def tap(name: str, exact: FloatArray) -> None:
        if name in stream:
            figures[name] = sqnr_db(exact, simulation.real[name] - exact)

    # With the simulation's experts, so that a choice between equals is no noise; it notes its own choices, too.
    forced = {layer: routing.experts for layer, routing in simulation.routing.items()}
    run = reference.run(model, few, experts=forced, tap=tap)
    agreement = {
        gate.name: float(agreeing(forced[gate.layer], run.experts[gate.layer]).mean())
        for gate in of_type(design.program, Gate)
        if gate.layer is not None
    }
    noisy = tuple(_noisy(design, simulation, figures, final=stream[-1]))
    # Noise sends tokens to other experts, too: that needs no sentence of its own.
    misrouted = () if noisy else _misrouted(agreement)
    doubts = (
        *_plain(images),
        *_empty(design.reports),
        *_clipped(design, model, len(images)),
        *noisy,
        *misrouted,
    )
    return Findings(doubts, agreement)


def few_images(design: Design, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first images that have CHECKED_TOKENS together, one at least."""
    return images[: max(1, CHECKED_TOKENS // design.spec.tokens)]


def _plain(images: NDArray[np.uint8]) -> Iterator[str]:
    """Calibration images that show nothing: ranges are measured on them, and are too narrow for others."""
    flat = images.reshape(len(images), images.shape[1], -1)
    if (flat == flat[..., :1]).all():
        black = " (black)" if not flat.any() else ""
        yield (
            f"all {len(images)} calibration images are of one colour{black}: ranges that are measured on them are too "
            "narrow for others"
        )
    elif len(images) > 1 and (flat == flat[:1]).all():
        yield f"the {len(images)} calibration images are all the same: ranges may be too narrow for others"


def _empty(reports: Sequence[TensorReport]) -> Iterator[str]:
    """Tensors whose values are too small for their integers."""
    empty = [report for report in reports if report.kind == "weight" and _vanished(report)]
    if not empty:
        return
    first = empty[0]
    others = f", and so do those of {len(empty) - 1} more tensors" if len(empty) > 1 else ""
    yield (
        f"{first.name}: all weights quantise to 0 (the largest is {max(-first.low, first.high):.2g}, "
        f"a unit is {first.scale:.2g}){others}"
    )


def _clipped(design: Design, model: Model, images: int) -> Iterator[str]:
    """Activations whose range does not hold what calibration saw of them."""
    held = int(held_out(model, design.precision, images).sum())
    judged = f"; of {images} calibration images, {held} that were held out gain by it" if held else ""
    for report in design.reports:
        if report.kind == "activation" and report.beyond:
            yield (
                f"{report.name}: the range is clipped: values from {report.low:.3g} to {report.high:.3g} leave it by "
                f"{report.beyond:.1%}, {report.clipped:.2%} of those sampled{judged}"
            )


def _vanished(report: TensorReport) -> bool:
    """Whether nothing is left: the error of the rounding is the whole of the values."""
    return max(-report.low, report.high) > 0 and abs(report.sqnr_db) < 1e-6


def _noisy(design: Design, simulation: Simulation, figures: dict[str, float], *, final: str) -> Iterator[str]:
    """The first stage of the residual stream that is mostly noise, by the signal to noise of each."""
    name = next((name for name, figure in figures.items() if figure < LEAST_SQNR_DB), None)
    if name is None:
        return
    wrapped = next((report.clipped for report in design.reports if report.name == name), 0.0)
    cause = ""
    if not simulation.trace[name].any():
        cause = "; all its values round to 0"
    elif wrapped:
        cause = f"; {wrapped:.2%} of its values are beyond {FEATURE.max * FEATURE.lsb:.0f} and wrap"
    yield (
        f"{name}: signal to noise of the residual stream is {figures[name]:.1f} dB, expected at least "
        f"{LEAST_SQNR_DB:.0f}{cause}; the final tokens have {figures[final]:.1f} dB"
    )


def _misrouted(shares: dict[str, float]) -> Iterator[str]:
    """The first layer whose tokens go to other experts, by the share of each that agrees."""
    name = next((name for name, share in shares.items() if share < LEAST_AGREEMENT), None)
    if name is not None:
        yield (
            f"{name}: {shares[name]:.1%} of the experts chosen are those of the float network, "
            f"expected at least {LEAST_AGREEMENT:.0%}; logits that are too close round to the same score"
        )
