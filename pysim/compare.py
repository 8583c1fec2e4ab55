"""The simulation beside the float64 reference: errors per stage, and whether the same experts were chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from pysim import reference
from pysim.design import Design
from pysim.kernels.router import Routing
from pysim.model import Model
from pysim.program import Attention, of_type
from pysim.reports import decibels, sqnr_db
from pysim.simulator import Simulation, task_number

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class StageError:
    """Difference of one intermediate tensor from the reference, in real units."""

    name: str
    max_error: float
    mean_error: float
    sqnr_db: float


@dataclass(frozen=True)
class Comparison:
    """Final tokens against the float64 network.

    Attributes:
        sqnr_db: signal to noise of the tokens, each network choosing its own experts.
        sqnr_db_same_routing: the same with the float network made to take the simulation's choices.
        max_error: largest difference of a token value, own choices.
        mean_error: mean difference, own choices.
        equal_choices: choices of experts that both networks made alike, slot by slot.
        choices: all choices of experts.
        stages: per traced tensor, against the float network with the simulation's choices.
    """

    sqnr_db: float
    sqnr_db_same_routing: float
    max_error: float
    mean_error: float
    equal_choices: int
    choices: int
    stages: list[StageError]


class Totals(NamedTuple):
    """Sums over some images from which a `Comparison` follows, whose parts those of parts of the images are.

    Attributes:
        signal: energy of the float network's tokens, with its own choices.
        noise: energy of the difference from them.
        same_signal: energy of the float network's tokens, with the simulation's choices.
        same_noise: energy of the difference from these.
        largest: difference, own choices.
        absolute: sum of the differences' magnitudes.
        values: how many there are.
        equal: choices of experts that were made alike.
        choices: all of them.
    """

    signal: float
    noise: float
    same_signal: float
    same_noise: float
    largest: float
    absolute: float
    values: float
    equal: float
    choices: float

    def joined(self, other: Totals) -> Totals:
        """The totals of both."""
        added = Totals(*(one + another for one, another in zip(self, other, strict=True)))
        return added._replace(largest=max(self.largest, other.largest))

    def comparison(self, stages: list[StageError]) -> Comparison:
        """Comparison that they come to."""
        return Comparison(
            decibels(self.signal, self.noise),
            decibels(self.same_signal, self.same_noise),
            self.largest,
            self.absolute / self.values if self.values else 0.0,
            int(self.equal),
            int(self.choices),
            stages,
        )


def compare(
    model: Model, design: Design, images: NDArray[np.uint8], task: str | int, simulation: Simulation
) -> Comparison:
    """Run the float64 reference twice, with its own and with the simulation's routing, and compare.

    Args:
        model: the float network that the design was made from.
        design: the design that was simulated.
        images: the images that were simulated.
        task: the task that was simulated.
        simulation: its result; with a trace, every stage is compared.

    Raises:
        InputError: the model's shape is not the design's.
    """
    found, stages = totals(model, design, images, task, simulation)
    return found.comparison(stages)


def totals(
    model: Model, design: Design, images: NDArray[np.uint8], task: str | int, simulation: Simulation
) -> tuple[Totals, list[StageError]]:
    """Totals of a comparison, and its stages: see `compare`."""
    check_same_shape(model, design)
    number = task_number(design.spec, task)
    own = reference.run(model, images, number)
    stages: dict[str, StageError] = {}
    scores = {op.scores.name for op in of_type(design.program, Attention)}

    def tap(name: str, exact: FloatArray) -> None:
        if name in simulation.real:
            error = simulation.real[name] - exact
            if name in scores:
                # Softmax does not see what all scores of a query have in common, and centred keys change it.
                error = error - error.mean(axis=-1, keepdims=True)
            stages[name] = StageError(
                name, float(np.abs(error).max()), float(np.abs(error).mean()), sqnr_db(exact, error)
            )

    forced = {layer: routing.experts for layer, routing in simulation.routing.items()}
    same = reference.run(model, images, number, experts=forced, tap=tap)
    error, same_error = simulation.tokens - own.tokens, simulation.tokens - same.tokens
    found = Totals(
        _energy(own.tokens),
        _energy(error),
        _energy(same.tokens),
        _energy(same_error),
        float(np.abs(error).max(initial=0.0)),
        float(np.abs(error).sum()),
        error.size,
        sum(int((forced[layer] == chosen).sum()) for layer, chosen in own.experts.items()),
        sum(chosen.size for chosen in own.experts.values()),
    )
    return found, list(stages.values())


def _energy(values: FloatArray) -> float:
    return float((values * values).sum())


def check_same_shape(model: Model, design: Design) -> None:
    """Refuse a Model that a Design cannot have been made from."""
    ignored = {"notes", "task_heads", "name"}
    ours, theirs = (spec.model_dump(exclude=ignored) for spec in (design.spec, model.spec))
    for field, value in ours.items():
        if theirs[field] != value:
            raise InputError(
                f"the reference model has {field} = {theirs[field]}, the design {value}",
                hint="pass the Model folder that the Design was quantised from",
            )


@dataclass(frozen=True)
class LayerUsage:
    """Spread of the tokens of one MoE layer over its experts.

    Attributes:
        layer: number of the layer.
        tokens: per expert, tokens in its queue, summed over images.
    """

    layer: int
    tokens: list[int]

    @property
    def unused(self) -> list[int]:
        """Experts that no token chose: their weights need not be loaded."""
        return [expert for expert, count in enumerate(self.tokens) if count == 0]


def expert_usage(routing: dict[int, Routing]) -> list[LayerUsage]:
    """Routing statistics of every MoE layer."""
    return [LayerUsage(layer, choices.lengths.tolist()) for layer, choices in sorted(routing.items())]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison under the key names that scripts rely on."""
    return {
        "sqnr_db": comparison.sqnr_db,
        "sqnr_db_same_routing": comparison.sqnr_db_same_routing,
        "max_error": comparison.max_error,
        "mean_error": comparison.mean_error,
        "routing_agreement": {"equal": comparison.equal_choices, "total": comparison.choices},
        "stages": [vars(stage) for stage in comparison.stages],
    }
