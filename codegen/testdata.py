"""Inputs and expected outputs of every engine and of the whole network, from the simulator, for the test bench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.weight_image import image_layout, pack_weights, port_images
from host.packing import pack_images
from pysim.datapath import GELU_INPUT, SCORE
from pysim.engines import Engines, engines_of
from pysim.kernels import iccad23
from pysim.kernels.gelu import gelu
from pysim.kernels.units import exp2, reciprocal, rsqrt
from pysim.simulator import simulate

IntArray = NDArray[np.int64]

ENGINE_TOKENS = 64
"""Tokens that the tests of single engines use at most; attention always takes a whole image."""

UNIT_SAMPLES = 4096


def tested_layers(architecture: Architecture) -> list[int]:
    """One layer of each kind: the first dense one and the first with experts."""
    layers = range(architecture.spec.depth)
    dense = [layer for layer in layers if layer not in architecture.spec.moe_layers][:1]
    return sorted(dense + sorted(architecture.spec.moe_layers)[:1])


def write_test_data(
    architecture: Architecture, folder: Path, images: NDArray[np.uint8], *, task: int, network: bool
) -> None:
    """Write the weight image, and the data of all tests, as raw little-endian files.

    Args:
        architecture: of the design under test.
        folder: an existing folder.
        images: (images, channels, H, W); the engines are tested on the first.
        task: task number.
        network: whether to test the whole network as well.
    """
    writer = _Writer(architecture, folder)
    for port, part in enumerate(
        port_images(pack_weights(architecture), architecture.design.parallelism.weight_ports)
    ):
        part.tofile(folder / f"weights_{port}.bin")
    pack_images(images, image_layout(architecture)).tofile(folder / "image.bin")
    writer.units()
    writer.engines(images[:1], task)
    batch = len(images) if network else 0
    if network:
        writer.save(
            "network", simulate(architecture.design, images, task).integers.reshape(-1, architecture.spec.dim)
        )
    writer.save("run", np.array([batch, task, writer.tokens]))


class _Writer:
    def __init__(self, architecture: Architecture, folder: Path) -> None:
        self.architecture, self.folder = architecture, folder
        self.tokens = min(architecture.spec.tokens, ENGINE_TOKENS)

    def save(self, name: str, values: NDArray[Any]) -> None:
        np.ascontiguousarray(values, "<i8").tofile(self.folder / f"{name}.bin")

    def units(self) -> None:
        """Function units on random inputs, and on the ends of their ranges."""
        generator = np.random.default_rng(0)
        if self.architecture.arithmetic == "iccad23":
            self._iccad23_units(generator)
            return
        differences = generator.integers(0, 32 << SCORE.frac, UNIT_SAMPLES)
        differences = np.concatenate([differences, [0, 1, (1 << SCORE.width) - 1]])
        activations = generator.normal(0, 2**GELU_INPUT.frac, UNIT_SAMPLES).astype(np.int64)
        activations = np.concatenate([activations, [GELU_INPUT.min, 0, GELU_INPUT.max]])
        exponents = generator.integers(0, 63, UNIT_SAMPLES)
        values = np.concatenate(
            [generator.integers(1, 2, UNIT_SAMPLES) << exponents, 2**62 - np.arange(2), [1, 2, 3]]
        )
        values[:UNIT_SAMPLES] += generator.integers(0, 1 << 62, UNIT_SAMPLES) & ((1 << exponents) - 1)
        self.save("exp2_in", differences)
        self.save("exp2_out", exp2(differences))
        self.save("gelu_in", activations)
        self.save("gelu_out", gelu(activations))
        self.save("mantissa_in", values)
        self.save("reciprocal_out", np.stack(reciprocal(values.astype(np.uint64)), axis=1))
        self.save("rsqrt_out", np.stack(rsqrt(values.astype(np.uint64)), axis=1))

    def _iccad23_units(self, generator: np.random.Generator) -> None:
        """The units of the original's arithmetic: features in, features out."""
        one, largest, limit = iccad23.ONE, iccad23.FEATURE.max, iccad23.GELU_LIMIT
        distances = np.concatenate(
            [generator.integers(0, 32 * one, UNIT_SAMPLES), [0, 1, largest, largest + 1]]
        )
        activations = generator.normal(0, 2 * one, UNIT_SAMPLES).astype(np.int64)
        ends = [0, limit - 1, limit, largest, 1 - limit, -limit, -largest - 1]
        activations = np.concatenate([activations, ends])
        features = generator.integers(0, largest, UNIT_SAMPLES) >> generator.integers(0, 31, UNIT_SAMPLES)
        features = np.concatenate([features, [-largest - 1, -1, 0, 1, 2, 3, 4, one, largest]])
        self.save("exp_in", distances)
        self.save("exp_out", iccad23.exponentials(-distances[None], np.zeros(1, np.int64)))
        self.save("gelu_in", activations)
        self.save("gelu_out", iccad23.gelu(activations))
        self.save("feature_in", features)
        self.save("reciprocal_out", iccad23.reciprocal(features))
        self.save("sqrt_out", iccad23.floor_sqrt(np.maximum(features, 1) << iccad23.FRAC))

    def engines(self, images: NDArray[np.uint8], task: int) -> None:
        """Every engine of one layer of each kind, fed with what the simulator feeds it."""
        design, spec = self.architecture.design, self.architecture.spec
        engines = engines_of(design)
        tested = tested_layers(self.architecture)
        x = engines.embed(images)
        self.save("embed_out", x)
        trace = simulate(design, images, task, trace=True).trace if tested[-1] > 0 else {}
        for layer in tested:
            self._layer(engines, layer, task, x if layer == 0 else trace[f"blocks.{layer - 1}.output"])
        assert spec.tokens == len(x)

    def _layer(self, engines: Engines, layer: int, task: int, x: IntArray) -> None:
        spec, few = self.architecture.spec, slice(0, self.tokens)
        prefix = f"layer{layer}_"

        def save(name: str, values: NDArray[Any]) -> None:
            self.save(prefix + name, values)

        save("x", x)
        y, _ = engines.norm(layer, 1, x)
        save("norm1", y)
        qkv = engines.qkv(layer, y)
        for name, part in zip("qkv", np.split(qkv, 3, axis=1), strict=True):
            save(name, part)
        heads = qkv.reshape(1, spec.tokens, 3, spec.heads, spec.head_dim).transpose(2, 0, 3, 1, 4)
        q, k, v = heads.reshape(3, spec.heads, spec.tokens, spec.head_dim)
        mixed = engines.attention(layer, q, k, v)[0].transpose(1, 0, 2).reshape(spec.tokens, spec.dim)
        save("mixed", mixed)
        after = engines.project(layer, mixed, x)[few]
        save("attn_residual", after)
        y, gate_input = engines.norm(layer, 2, after)
        save("norm2", y)
        if layer not in spec.moe_layers:
            out, hidden = engines.mlp(layer, y, after)
            save("hidden", hidden.values)
            save("output", out)
            return
        save("gate_input", gate_input)
        routing = engines.route(engines.logits(layer, task, gate_input))
        lengths = routing.lengths
        queues = [np.stack(routing.queue(expert), axis=1) for expert in range(routing.count)]
        save("queue_lengths", lengths)
        save("queues", np.concatenate(queues))
        save("output", engines.experts(layer, routing, y, after)[0])
