"""Sensitivity of a network to its quantisation: the loss that each tensor of a Design causes alone, and each layer.

One tensor after the other takes the values that the Design's integers stand for, weights or activations, while all
the rest of the network stays in float64. What is then lost of the final tokens is that tensor's doing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from common.errors import InputError
from common.reading import read_json
from pysim import reference
from pysim.arithmetic import Kind, arithmetic_of
from pysim.calibrate import hidden_name
from pysim.datapath import GELU_INPUT, PIXEL_FRAC, PIXEL_OFFSET, SCORE
from pysim.design import Design
from pysim.doubts import few_images
from pysim.files import validate
from pysim.formats import Format
from pysim.model import Model
from pysim.precision import Precision
from pysim.program import (
    Destination,
    Experts,
    Gate,
    Index,
    Linear,
    Norm,
    Value,
    of_type,
    products,
    values,
)
from pysim.reports import sqnr_db

FloatArray = NDArray[np.float64]
Narrow = Callable[[FloatArray], FloatArray]


FILE = "sensitivity.json"
"""File of a Design folder that holds the losses."""


@dataclass(frozen=True)
class Loss:
    """Loss of what is quantised alone.

    Attributes:
        name: of a tensor, or of a layer.
        kind: "weight", "activation" or "layer".
        sqnr_db: signal to noise of the final tokens.
        noise: energy of the error over that of the tokens: these add up, roughly.
        equal_choices: share of the choices of experts that stay; None without experts.
    """

    name: str
    kind: str
    sqnr_db: float
    noise: float
    equal_choices: float | None = None


class Sensitivity(BaseModel):
    """Losses as a Design folder has them, the largest first.

    Attributes:
        task: that they were measured on.
        layers: of each layer.
        tensors: of each tensor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    layers: list[Loss]
    tensors: list[Loss]


def read_sensitivity(design: Path) -> Sensitivity | None:
    """The losses in a Design folder; None where it was quantised without them.

    Raises:
        InputError: the file holds something else.
    """
    path = design / FILE
    return validate(Sensitivity, read_json(path), path) if path.is_file() else None


@dataclass(frozen=True)
class _Part:
    """A tensor that can be quantised alone: as a replacement of weights, or of values on their way."""

    name: str
    kind: str
    layer: int | None
    weights: dict[str, NDArray[np.float32]]
    taps: dict[str, Narrow]


def require_sensitivity(precision: Precision) -> None:
    """Refuse an arithmetic whose integers do not stand for the float network's values one by one."""
    if not arithmetic_of(precision).exact:
        raise InputError(
            f"the sensitivity of precision {precision.name!r} is not known",
            hint="it is for presets that round each value once, such as w8a8 and w16a16",
        )


def sensitivity(
    model: Model,
    design: Design,
    images: NDArray[np.uint8],
    task: int = 0,
    progress: Callable[[int, int], Any] | None = None,
) -> list[Loss]:
    """Loss of each layer, then of each tensor, the largest first.

    Args:
        model: the float network that the Design was made from.
        design: its quantisation, to one of the presets that round once.
        images: (images, channels, H, W) uint8, of which the first few are run.
        task: number of the task.
        progress: called with the runs done and in total.

    Raises:
        InputError: a Design of the original's truncating arithmetic.
    """
    require_sensitivity(design.precision)
    few = few_images(design, images)
    exact = reference.run(model, few, task)
    parts = [*_weights(model, design), *_activations(design)]
    layers = sorted({part.layer for part in parts if part.layer is not None})
    groups = [(f"blocks.{layer}", "layer", [p for p in parts if p.layer == layer]) for layer in layers]
    groups += [(part.name, part.kind, [part]) for part in parts]
    losses = []
    for done, (name, kind, members) in enumerate(groups):
        losses.append(_loss(name, kind, _run(model, few, task, members), exact))
        if progress:
            progress(done + 1, len(groups))
    return sorted(losses, key=lambda loss: (loss.kind != "layer", -loss.noise))


def losses_json(losses: Iterable[Loss], task: str) -> str:
    """Content of `FILE`: layers, then tensors, in the order given."""
    found = [{key: value for key, value in asdict(loss).items() if value is not None} for loss in losses]
    content = {
        "task": task,
        "layers": [loss for loss in found if loss["kind"] == "layer"],
        "tensors": [loss for loss in found if loss["kind"] != "layer"],
    }
    return json.dumps(content, indent=1) + "\n"


def _run(model: Model, images: NDArray[np.uint8], task: int, parts: list[_Part]) -> reference.ReferenceRun:
    taps: dict[str, Narrow] = {}
    weights = dict(model.weights)
    for part in parts:
        taps |= part.taps
        weights |= part.weights

    def tap(name: str, value: FloatArray) -> FloatArray | None:
        return taps[name](value) if name in taps else None

    return reference.run(Model(model.spec, weights), images, task, tap=tap)


def _loss(name: str, kind: str, run: reference.ReferenceRun, exact: reference.ReferenceRun) -> Loss:
    error = run.tokens - exact.tokens
    noise = float((error**2).sum()) / max(float((exact.tokens**2).sum()), 1e-300)
    same = [chosen == exact.experts[layer] for layer, chosen in run.experts.items()]
    equal = float(np.mean(np.concatenate([each.ravel() for each in same]))) if same else None
    return Loss(name, kind, sqnr_db(exact.tokens, error), noise, equal)


# --- Activations --------------------------------------------------------------------------------------------


def _activations(design: Design) -> Iterator[_Part]:
    experts = {op.hidden.name: op for op in of_type(design.program, Experts)}
    for value in values(design.program).values():
        if value.kind is Kind.STREAM:
            narrow = _narrow(value.format, np.float64(design.residual.lsb), np.float64(0))
            yield _Part(value.name, "activation", value.layer, {}, {value.name: narrow})
        elif value.name in experts:
            scale, offset = design.decode(value.name)
            op = experts[value.name]
            taps = {
                hidden_name(op, expert): _narrow(value.format, scale[expert], offset[expert])
                for expert in range(op.experts)
            }
            yield _Part(value.name, "activation", value.layer, {}, taps)
        elif value.scales:
            narrow = _narrow(value.format, *design.decode(value.name))
            yield _Part(value.name, "activation", value.layer, {}, {value.name: narrow})


def _narrow(fmt: Format, scale: FloatArray | np.float64, offset: FloatArray | np.float64) -> Narrow:
    """The nearest values that integers stand for."""

    def narrow(value: FloatArray) -> FloatArray:
        integers = np.clip(np.floor((value - offset) / scale + 0.5), fmt.min, fmt.max)
        return np.asarray(integers * scale + offset)

    return narrow


# --- Weights ------------------------------------------------------------------------------------------------


def _weights(model: Model, design: Design) -> Iterator[_Part]:
    """The weights of every linear layer and gate as integers, with the bias that goes with them."""
    norms = {norm.gate_output.name: norm for norm in of_type(design.program, Norm) if norm.gate_output}
    for op in products(design.program):
        assert op.weight.source is not None
        weight, bias = model.value(op.weight).copy(), model.value(op.bias).copy()
        if isinstance(op, Gate):
            for task in range(op.tasks):
                index, place = op.weight_index(task), op.bias_index(task)
                into = _gate_input(design, norms[op.input.name])
                weight[index], bias[place] = _real(design, op, into, index, place)
        else:
            for index in op.indices:
                weight[index], bias[index] = _real(
                    design, op, _operand(design, op.input, index), index, index
                )
        replaced = {op.weight.source.name: weight.reshape(op.weight.source.shape)}
        if op.bias.source is not None:
            replaced[op.bias.source.name] = bias.reshape(op.bias.source.shape)
        named = {name: tensor.astype(np.float32) for name, tensor in replaced.items()}
        yield _Part(op.weight.name, "weight", op.layer, named, {})


Grid = tuple[FloatArray, FloatArray]
"""Scale and offset of integers: of each channel, or of all."""


def _operand(design: Design, value: Value, index: Index) -> Grid:
    if value.kind is Kind.PIXEL:
        return np.asarray(2.0**-PIXEL_FRAC), np.asarray(PIXEL_OFFSET * 2.0**-PIXEL_FRAC)
    scale, offset = design.decode(value.name)
    if value.kind is Kind.HIDDEN:
        place = index[0] if index else 0
        return scale[place], offset[place]
    return scale, offset


def _gate_input(design: Design, norm: Norm) -> Grid:
    scale, offset = design.decode(norm.output.name)
    return scale * 2.0 ** (design.scalar(norm.gate_shift) - design.scalar(norm.shift)), offset


def _results(design: Design, op: Linear | Gate) -> Grid:
    if isinstance(op, Gate):
        return np.asarray(SCORE.lsb * np.log(2)), np.zeros(1)
    if op.destination is Destination.HEADS:
        pairs = [design.decode(value.name) for value in op.results]
        return np.concatenate([scale for scale, _ in pairs]), np.concatenate([offset for _, offset in pairs])
    lsb = GELU_INPUT.lsb if op.activation is not None else design.residual.lsb
    return np.asarray(lsb), np.zeros(1)


def _real(design: Design, op: Linear | Gate, into: Grid, index: Index, place: Index) -> Grid:
    """Weight and bias in real units that a layer's integers stand for."""
    requantise = design.requantise(op.scaling, index)
    unit, zero = _results(design, op)
    step = requantise.multiplier * np.exp2(-requantise.shift.astype(np.float64)) * unit
    scale, offset = into
    weight = design.integers(op.weight, index) * step[:, None] / scale
    bias = design.integers(op.bias, place) * step + zero - weight @ np.broadcast_to(offset, weight.shape[1:])
    return weight, bias
