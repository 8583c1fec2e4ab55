"""Inputs and expected outputs of every engine and of the whole network, from the simulator, for the test bench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.weight_image import image_layout, pack_weights, port_images
from common.packing import pack_images
from pysim.activations import Activation
from pysim.arithmetic import ICCAD23, REQUANTISE, Kind
from pysim.datapath import GELU_INPUT, SCORE
from pysim.design import Design
from pysim.kernels import iccad23
from pysim.kernels.gelu import activate
from pysim.kernels.units import exp2, reciprocal, rsqrt
from pysim.program import Embed, Experts, Gate, Linear, Program, Value, blocks, of_type
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
    writer.save("run", np.array([batch, task, writer.tokens]))


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
        self.save("embed_out", machine[embed.output])
        for layer, block in blocks(operations).items():
            if layer in tested:
                self._layer(machine.fork(), layer, block)
            if layer == tested[-1]:
                return
            for op in block:
                machine.step(op)

    def _layer(self, machine: Machine, layer: int, block: Program) -> None:
        (stream,) = block[0].inputs
        self._save_value(machine, layer, stream, "x")
        for op in block:
            machine.step(op)
            if isinstance(op, Linear) and op.input.kind is Kind.MIXED:
                # From here on, tokens do not depend on each other.
                machine.values[op.output.name] = machine[op.output][: self.tokens]
            for value in op.outputs[-1:] if isinstance(op, Experts) else op.outputs:
                if value.kind not in _UNSAVED:
                    self._save_value(
                        machine, layer, value, "mixed" if value.kind is Kind.MIXED else value.part
                    )
            if isinstance(op, Gate):
                routing = machine.routing[layer]
                queues = [np.stack(routing.queue(expert), axis=1) for expert in range(routing.count)]
                self.save(f"layer{layer}_queue_lengths", routing.lengths)
                self.save(f"layer{layer}_queues", np.concatenate(queues))

    def _save_value(self, machine: Machine, layer: int, value: Value, name: str) -> None:
        self.save(f"layer{layer}_{name}", machine[value])


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
