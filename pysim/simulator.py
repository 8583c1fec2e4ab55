"""The whole network, bit for bit: images in, integer tokens out, with every intermediate tensor on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysim.design import Design
from pysim.engines import Engines, Hidden, engines_of
from pysim.errors import InputError
from pysim.kernels.router import Routing
from pysim.spec import ModelSpec

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BATCH_TOKENS = 4096
"""Images run together up to this many tokens; results do not depend on it."""


@dataclass(frozen=True)
class Simulation:
    """What the accelerator returns.

    Attributes:
        integers: (images, tokens, dim) int64 output of the last block, in the residual stream's format.
        tokens: the same in real units, float64.
        routing: per MoE layer, the choices for all tokens of all images.
        trace: per intermediate tensor, its integers (only where a trace was asked for).
        real: the traced tensors in real units, comparable with the float reference.
    """

    integers: IntArray
    tokens: FloatArray
    routing: dict[int, Routing]
    trace: dict[str, IntArray]
    real: dict[str, FloatArray]


def task_number(spec: ModelSpec, task: str | int) -> int:
    """Number of a task given by name or number."""
    tasks = spec.tasks
    if isinstance(task, int) and 0 <= task < len(tasks):
        return task
    if task in tasks:
        return tasks.index(str(task))
    raise InputError(f"task {task!r} is unknown", hint=f"the network's tasks are {', '.join(tasks)}")


def check_images(design: Design, images: NDArray[Any]) -> None:
    """Refuse images of another shape or type than the design takes."""
    spec = design.spec
    shape = (spec.in_channels, *spec.image_size)
    if images.dtype != np.uint8:
        raise InputError(f"images: dtype {images.dtype}, expected uint8", hint="pixels are 8-bit, 0 to 255")
    if images.ndim != 4 or images.shape[1:] != shape:
        raise InputError(f"images: shape {images.shape}, expected (images, {', '.join(map(str, shape))})")


def simulate(
    design: Design,
    images: NDArray[np.uint8],
    task: str | int = 0,
    *,
    trace: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> Simulation:
    """Run images through a Design, bit by bit as the accelerator does.

    Args:
        design: the quantised network.
        images: (images, channels, H, W) uint8.
        task: name or number of the task.
        trace: keep every intermediate tensor.
        progress: called with the layers done and in total, over all images.

    Raises:
        InputError: images of the wrong shape or type, or an unknown task.
    """
    number = task_number(design.spec, task)
    check_images(design, images)
    spec = design.spec
    batch = max(1, BATCH_TOKENS // spec.tokens)
    starts = range(0, len(images), batch)
    total, runs = len(starts) * spec.depth, []
    for done, start in enumerate(starts):
        run = _Run(design, number, trace)

        def layer_done(layer: int, base: int = done * spec.depth) -> None:
            if progress:
                progress(base + layer + 1, total)

        run.run(images[start : start + batch], layer_done)
        runs.append(run)

    integers = _join([run.output for run in runs], (0, spec.dim)).reshape(-1, spec.tokens, spec.dim)
    routing = {
        layer: Routing(
            _join([run.routing[layer].experts for run in runs], (0,)),
            _join([run.routing[layer].scores for run in runs], (0,)),
            runs[0].routing[layer].count,
        )
        for layer in (runs[0].routing if runs else {})
    }
    names = runs[0].trace if runs else {}
    return Simulation(
        integers,
        design.residual.to_float(integers),
        routing,
        {name: _join([run.trace[name] for run in runs], (0,)) for name in names},
        {name: _join([run.real[name] for run in runs], (0,)) for name in names},
    )


def _join(parts: list[NDArray[Any]], empty: tuple[int, ...]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(empty, np.int64)


class _Run:
    """One batch of images through the engines."""

    def __init__(self, design: Design, task: int, traced: bool) -> None:
        self.design, self.task, self.traced = design, task, traced
        self.engines: Engines = engines_of(design)
        self.trace: dict[str, IntArray] = {}
        self.real: dict[str, FloatArray] = {}
        self.routing: dict[int, Routing] = {}

    def run(self, images: NDArray[np.uint8], layer_done: Callable[[int], None]) -> None:
        spec, engines = self.design.spec, self.engines
        x = engines.embed(images)
        self._stream("embed", x)
        for layer in range(spec.depth):
            block = f"blocks.{layer}"
            y, _ = engines.norm(layer, 1, x)
            self._decoded(f"{block}.norm1", y)
            mixed = self._attention(layer, engines.qkv(layer, y), len(images))
            x = engines.project(layer, mixed, x)
            self._stream(f"{block}.attn_residual", x)
            y, gate_input = engines.norm(layer, 2, x)
            self._decoded(f"{block}.norm2", y)
            if layer in spec.moe_layers:
                x = self._experts(layer, gate_input, y, x)
            else:
                x, hidden = engines.mlp(layer, y, x)
                self._hidden(layer, [hidden])
            self._stream(f"{block}.output", x)
            layer_done(layer)
        self.output = x

    def _attention(self, layer: int, qkv: IntArray, images: int) -> IntArray:
        spec, block = self.design.spec, f"blocks.{layer}"
        for name, part in zip("qkv", np.split(qkv, 3, axis=1), strict=True):
            self._decoded(f"{block}.{name}", part)
        heads = qkv.reshape(images, spec.tokens, 3, spec.heads, spec.head_dim).transpose(2, 0, 3, 1, 4)
        q, k, v = heads.reshape(3, images * spec.heads, spec.tokens, spec.head_dim)
        mixed, scores = self.engines.attention(layer, q, k, v)
        by_head = (images, spec.heads, spec.tokens)
        self._keep(f"{block}.scores", scores.reshape(*by_head, spec.tokens), self.engines.real_scores)
        mixed = mixed.reshape(*by_head, spec.head_dim).transpose(0, 2, 1, 3).reshape(-1, spec.dim)
        self._decoded(f"{block}.attention", mixed)
        return mixed

    def _experts(self, layer: int, gate_input: IntArray, y: IntArray, x: IntArray) -> IntArray:
        block = f"blocks.{layer}"
        logits = self.engines.logits(layer, self.task, gate_input)
        self._keep(f"{block}.logits", logits, self.engines.real_logits)
        routing = self.engines.route(logits)
        self.routing[layer] = routing
        self._keep(f"{block}.gate_scores", routing.scores, self.engines.real_gate_scores)
        x, hidden = self.engines.experts(layer, routing, y, x)
        self._hidden(layer, hidden)
        return x

    def _keep(self, name: str, values: IntArray, to_real: Callable[[IntArray], FloatArray]) -> None:
        if self.traced:
            self.trace[name], self.real[name] = values, to_real(values)

    def _stream(self, name: str, x: IntArray) -> None:
        self._keep(name, x, self.design.residual.to_float)

    def _decoded(self, name: str, values: IntArray) -> None:
        if self.traced:
            scale, offset = self.design.decode(name)
            self._keep(name, values, lambda integers: integers * scale + offset)

    def _hidden(self, layer: int, parts: list[Hidden]) -> None:
        """Hidden values: (tokens, mlp_dim), or (tokens, top_k, hidden_dim) in the order of the choices."""
        if not self.traced:
            return
        name = f"blocks.{layer}.hidden"
        scale, offset = self.design.decode(name)
        if parts[0].expert is None:
            self._keep(name, parts[0].values, lambda integers: integers * scale + offset)
            return
        chosen = self.routing[layer].experts
        integers = np.zeros((*chosen.shape, parts[0].values.shape[1]), np.int64)
        for part in parts:
            tokens, slot = np.nonzero(chosen == part.expert)
            integers[tokens, slot] = part.values
        self._keep(name, integers, lambda values: values * scale[chosen, None] + offset[chosen, None])
