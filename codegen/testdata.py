"""Inputs and expected outputs of every engine and of the whole network, from the simulator, for the test bench."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.schedule import BEFORE_EMBED, Job, job_table, stage_name
from codegen.weight_image import image_layout, pack_weights, port_images
from common.packing import pack_images
from pysim.activations import Activation
from pysim.arithmetic import ICCAD23, REQUANTISE, Kind
from pysim.datapath import GELU_INPUT, SCORE
from pysim.design import Design
from pysim.kernels import iccad23
from pysim.kernels.gelu import activate
from pysim.kernels.units import exp2, reciprocal, rsqrt
from pysim.program import (
    Attention,
    Destination,
    Embed,
    Experts,
    Gate,
    Linear,
    Norm,
    Operation,
    Program,
    Value,
    blocks,
    of_type,
)
from pysim.simulator import Machine, simulate

ENGINE_TOKENS = 64
"""Tokens that the tests of single engines use at most; attention always takes a whole image."""

UNIT_SAMPLES = 4096

_UNSAVED = (Kind.SCORE, Kind.LOGIT, Kind.PROBABILITY)
"""Values that never leave an engine: the test bench does not see them."""


def tested_layers(architecture: Architecture) -> list[int]:
    """One layer of each kind: the first dense one and the first with experts."""
    layers = range(architecture.spec.depth)
    dense = [layer for layer in layers if layer not in architecture.spec.moe_layers][:1]
    return sorted(dense + sorted(architecture.spec.moe_layers)[:1])


def _ends_whole_images(op: Operation) -> bool:
    """Whether tokens do not depend on each other any more from here on, so that a part of them is enough."""
    return isinstance(op, Linear) and op.input.kind is Kind.MIXED


def _saved(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(value for value in values if value.kind not in _UNSAVED)


@dataclass(frozen=True)
class JobTest:
    """A job that the test bench runs alone.

    Attributes:
        number: its place in the table.
        job: the job.
        engine: under which its comparisons are counted.
        rows: rows of the image that it works on; those of an expert's job are its queue's.
        compared: rows of its outputs that are compared.
        inputs: values that it is given.
        outputs: values that it has to give.
    """

    number: int
    job: Job
    engine: str
    rows: int
    compared: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def job_tests(architecture: Architecture) -> list[JobTest]:
    """Every job of the embedding, and of one layer of each kind, in the order of the table."""
    stages: dict[str, list[tuple[int, Job]]] = {}
    for number, job in enumerate(job_table(architecture)):
        stages.setdefault(job.stage, []).append((number, job))
    tested, tokens = tested_layers(architecture), min(architecture.spec.tokens, ENGINE_TOKENS)
    (embed,) = of_type(architecture.program, Embed)
    before = [(number, job) for stage in BEFORE_EMBED for number, job in stages[stage]]
    found = list(_tests(embed, [*before, *stages[stage_name(embed)]], architecture.spec.tokens))
    for layer, block in blocks(architecture.program).items():
        whole = True
        for op in block if layer in tested else ():
            rows = architecture.spec.tokens if whole and not isinstance(op, Linear) else tokens
            found += _tests(op, stages[stage_name(op)], rows)
            whole = whole and not _ends_whole_images(op)
    return found


def _tests(op: Operation, jobs: Sequence[tuple[int, Job]], rows: int) -> Iterator[JobTest]:
    """Tests of an operation: its first job is given the inputs, and the last one has to give the outputs."""
    engine, last = _engine(op), len(jobs) - 1
    inputs = () if isinstance(op, Embed) else _saved(op.inputs)
    outputs = _saved(op.outputs[-1:] if isinstance(op, Experts) else op.outputs)
    for place, (number, job) in enumerate(jobs):
        given, gives = inputs if place == 0 else (), outputs if place == last else ()
        # Patches are fewer than the tokens that they become a part of.
        yield JobTest(number, job, engine, min(rows, job.rows), rows, given, gives)


def _engine(op: Operation) -> str:
    """Engine under which the values of an operation are counted."""
    match op:
        case Embed():
            return "embed"
        case Norm():
            return "layernorm"
        case Linear():
            return _LINEAR[op.destination]
        case Attention():
            return "attention"
        case Gate():
            return "router"
        case Experts():
            return "experts"
        case _:
            assert_never(op)


_LINEAR = {
    Destination.HEADS: "linear_heads",
    Destination.HIDDEN: "linear_hidden",
    Destination.RESIDUAL: "linear_residual",
    Destination.EXPERT: "linear_expert",
}


def write_test_data(
    design: Design,
    architecture: Architecture,
    folder: Path,
    images: NDArray[np.uint8],
    *,
    task: int,
    network: bool,
) -> None:
    """Write the weight image, and the data of all tests, as raw little-endian files.

    Args:
        design: the Design under test; with the hardware's P.
        architecture: of its network, on the hardware under test.
        folder: an existing folder.
        images: (images, channels, H, W); the engines are tested on the first.
        task: task number.
        network: whether to test the whole network as well.
    """
    design = design.with_attention_rows(architecture.hardware.attention_rows)
    writer = _Writer(design, architecture, folder)
    beats = pack_weights(design, architecture)
    for port, part in enumerate(port_images(beats, architecture.hardware.weight_ports)):
        part.tofile(folder / f"weights_{port}.bin")
    pack_images(images, image_layout(architecture)).tofile(folder / "image.bin")
    writer.units()
    writer.engines(images[:1], task)
    batch = len(images) if network else 0
    if network:
        writer.save("network", simulate(design, images, task).integers.reshape(-1, design.spec.dim))
    writer.save("run", np.array([batch, task]))


class _Writer:
    def __init__(self, design: Design, architecture: Architecture, folder: Path) -> None:
        self.design, self.architecture, self.folder = design, architecture, folder
        self.tokens = min(architecture.spec.tokens, ENGINE_TOKENS)

    def save(self, name: str, values: NDArray[Any]) -> None:
        np.ascontiguousarray(values, "<i8").tofile(self.folder / f"{name}.bin")

    def units(self) -> None:
        """Function units on random inputs, and on the ends of their ranges."""
        arrays = _UNITS[self.design.arithmetic](
            np.random.default_rng(0), self.architecture.network.activation
        )
        for name, values in arrays.items():
            self.save(name, values)

    def engines(self, images: NDArray[np.uint8], task: int) -> None:
        """Every engine of one layer of each kind, fed with what the simulator feeds it."""
        operations, tested = self.architecture.program, tested_layers(self.architecture)
        machine, (embed,) = Machine(self.design, images, task), of_type(operations, Embed)
        machine.step(embed)
        self._save_values(machine, embed.outputs)
        for layer, block in blocks(operations).items():
            if layer in tested:
                self._layer(machine.fork(), block)
            if layer == tested[-1]:
                return
            for op in block:
                machine.step(op)

    def _layer(self, machine: Machine, block: Program) -> None:
        self._save_values(machine, block[0].inputs)
        for op in block:
            machine.step(op)
            if _ends_whole_images(op):
                for value in op.outputs:
                    machine.values[value.name] = machine[value][: self.tokens]
            self._save_values(machine, op.outputs[-1:] if isinstance(op, Experts) else op.outputs)
            if isinstance(op, Gate):
                assert op.layer is not None
                routing, name = machine.routing[op.layer], stage_name(op)
                queues = [np.stack(routing.queue(expert), axis=1) for expert in range(routing.count)]
                self.save(f"{name}.lengths", routing.lengths)
                self.save(f"{name}.queues", np.concatenate(queues))

    def _save_values(self, machine: Machine, values: Iterable[Value]) -> None:
        for value in _saved(values):
            self.save(value.name, machine[value])


Arrays = dict[str, NDArray[Any]]


def _units(generator: np.random.Generator, activation: Activation) -> Arrays:
    differences = generator.integers(0, 32 << SCORE.frac, UNIT_SAMPLES)
    differences = np.concatenate([differences, [0, 1, (1 << SCORE.width) - 1]])
    activations = generator.normal(0, 2**GELU_INPUT.frac, UNIT_SAMPLES).astype(np.int64)
    activations = np.concatenate([activations, [GELU_INPUT.min, 0, GELU_INPUT.max]])
    exponents = generator.integers(0, 63, UNIT_SAMPLES)
    values = np.concatenate(
        [generator.integers(1, 2, UNIT_SAMPLES) << exponents, 2**62 - np.arange(2), [1, 2, 3]]
    )
    values[:UNIT_SAMPLES] += generator.integers(0, 1 << 62, UNIT_SAMPLES) & ((1 << exponents) - 1)
    return {
        "exp2_in": differences,
        "exp2_out": exp2(differences),
        "activation_in": activations,
        "activation_out": activate(activation, activations),
        "mantissa_in": values,
        "reciprocal_out": np.stack(reciprocal(values.astype(np.uint64)), axis=1),
        "rsqrt_out": np.stack(rsqrt(values.astype(np.uint64)), axis=1),
    }


def _iccad23_units(generator: np.random.Generator, _activation: Activation) -> Arrays:
    """The units of the original's arithmetic: features in, features out."""
    one, largest, limit = iccad23.ONE, iccad23.FEATURE.max, iccad23.GELU_LIMIT
    distances = np.concatenate([generator.integers(0, 32 * one, UNIT_SAMPLES), [0, 1, largest, largest + 1]])
    activations = generator.normal(0, 2 * one, UNIT_SAMPLES).astype(np.int64)
    ends = [0, limit - 1, limit, largest, 1 - limit, -limit, -largest - 1]
    activations = np.concatenate([activations, ends])
    features = generator.integers(0, largest, UNIT_SAMPLES) >> generator.integers(0, 31, UNIT_SAMPLES)
    features = np.concatenate([features, [-largest - 1, -1, 0, 1, 2, 3, 4, one, largest]])
    return {
        "exp_in": distances,
        "exp_out": iccad23.exponentials(-distances[None], np.zeros(1, np.int64)),
        "activation_in": activations,
        "activation_out": iccad23.gelu(activations),
        "feature_in": features,
        "reciprocal_out": iccad23.reciprocal(features),
        "sqrt_out": iccad23.floor_sqrt(np.maximum(features, 1) << iccad23.FRAC),
    }


_UNITS = {REQUANTISE: _units, ICCAD23: _iccad23_units}
