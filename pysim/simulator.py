"""The whole network, bit for bit: images in, integer tokens out, with every intermediate tensor on request."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.tasks import task_number as by_name_or_number
from pysim.arithmetic import Kind
from pysim.design import Design
from pysim.engines import Engines, engines_of
from pysim.engines import IntArray as Stored
from pysim.kernels.router import Routing
from pysim.program import Attention, Embed, Experts, Gate, Linear, Norm, Operation, Value
from pysim.spec import ModelSpec

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BATCH_TOKENS = 4096
"""Images run together up to this many tokens; results do not depend on it."""


@dataclass(frozen=True)
class Simulation:
    """Results of the simulated accelerator.

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
    return by_name_or_number(spec.tasks, task)


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


class Machine:
    """Some images on their way through a Design, operation by operation.

    Attributes:
        design: the quantised network.
        images: (images, channels, H, W) uint8.
        task: number of the task.
        values: integers of every value that is there, by its name, in the type that the engines store them in;
            tokens of all images are joined.
        routing: per MoE layer, the choices.
    """

    def __init__(self, design: Design, images: NDArray[np.uint8], task: int, *, hidden: bool = True) -> None:
        """Begin with the images; `hidden` keeps the values inside experts and attention, which nothing reads."""
        self.design, self.images, self.task, self.hidden = design, images, task, hidden
        self.engines: Engines = engines_of(design)
        self.values: dict[str, Stored] = {}
        self.routing: dict[int, Routing] = {}

    def __getitem__(self, value: Value) -> IntArray:
        """Integers of a value: (tokens, channels)."""
        return self.values[value.name].astype(np.int64, copy=False)

    def heads(self, value: Value) -> IntArray:
        """(images * heads, tokens, head_dim) of queries, keys, values or the output of attention."""
        by_head = self._heads(value)
        return by_head.reshape(-1, *by_head.shape[2:]).astype(np.int64, copy=False)

    def _heads(self, value: Value) -> Stored:
        """(images, heads, tokens, head_dim)."""
        by_token = self.values[value.name].reshape(len(self.images), value.rows, value.groups, -1)
        return by_token.transpose(0, 2, 1, 3)

    def fork(self) -> Machine:
        """A machine in the same state, to go another way."""
        other = copy.copy(self)
        other.values, other.routing = dict(self.values), dict(self.routing)
        return other

    def step(self, op: Operation) -> None:
        """Run one operation, whose inputs are there."""
        results = self._run(op)
        self.values |= {value.name: result for value, result in zip(op.outputs, results, strict=False)}

    def _run(self, op: Operation) -> Sequence[Stored]:
        engines, values = self.engines, self.values
        match op:
            case Embed():
                return [self._embed(op)]
            case Norm():
                return engines.norm(op, values[op.input.name])
            case Linear():
                old = None if op.added is None else values[op.added.name]
                result = engines.linear(op, values[op.input.name], old)
                return np.split(result, len(op.results), axis=1)
            case Attention():
                return self._attention(op)
            case Gate():
                logits = engines.logits(op, self.task, values[op.input.name])
                assert op.layer is not None
                routing = self.routing[op.layer] = engines.route(op, logits)
                return [logits, routing.scores]
            case Experts():
                return self._experts(op)
            case _:
                assert_never(op)

    def _embed(self, op: Embed) -> Stored:
        x = np.tile(self.design.integers(op.position), (len(self.images), 1, 1))
        rows = x[:, op.prefix :]
        pixels = self.engines.pixels(op, self.images)
        embedded = self.engines.linear(op.patch, pixels, rows.reshape(-1, op.output.channels))
        x[:, op.prefix :] = embedded.reshape(rows.shape)
        return x.reshape(-1, op.output.channels)

    def _attention(self, op: Attention) -> list[Stored]:
        q, k, v = (self._heads(value) for value in op.inputs)
        mixed, scores = self.engines.attention(op, q, k, v, keep_scores=self.hidden)
        by_head = (len(self.images), op.heads, op.tokens)
        mixed = mixed.reshape(*by_head, op.head_dim).transpose(0, 2, 1, 3)
        return [scores.reshape(*by_head, scores.shape[-1]), mixed.reshape(-1, op.output.channels)]

    def _experts(self, op: Experts) -> list[Stored]:
        assert op.layer is not None
        routing = self.routing[op.layer]
        x, parts = self.engines.experts(
            op, routing, self.values[op.fc1.input.name], self.values[op.stream.name]
        )
        hidden = np.zeros((*routing.experts.shape, op.hidden.channels if self.hidden else 0), np.int64)
        for part in parts if self.hidden else ():
            tokens, slot = np.nonzero(routing.experts == part.expert)
            hidden[tokens, slot] = part.values
        return [hidden, x]

    def real(self, value: Value) -> FloatArray:
        """A value in real units, by the scales that calibration found for it."""
        integers = self[value]
        if value.kind is Kind.STREAM:
            return self.design.residual.to_float(integers)
        if not value.scales:
            return self.design.arithmetic.real(value.kind, integers)
        scale, offset = self.design.decode(value.name)
        if integers.ndim == 3:  # of several experts: (tokens, top_k, channels)
            assert value.layer is not None
            chosen = self.routing[value.layer].experts
            scale, offset = scale[chosen, None], offset[chosen, None]
        return integers * scale + offset


class _Run:
    """One batch of images through the whole network."""

    def __init__(self, design: Design, task: int, traced: bool) -> None:
        self.design, self.task, self.traced = design, task, traced
        self.trace: dict[str, IntArray] = {}
        self.real: dict[str, FloatArray] = {}

    def run(self, images: NDArray[np.uint8], layer_done: Callable[[int], None]) -> None:
        operations, machine = self.design.program, Machine(self.design, images, self.task, hidden=self.traced)
        self.routing, output = machine.routing, operations[-1].outputs[-1]
        # How often each value is still read; what nothing reads any more is dropped.
        reads = Counter(value.name for op in operations for value in op.inputs) + Counter([output.name])
        for layer, block in groupby(operations, key=lambda op: op.layer):
            for op in block:
                machine.step(op)
                self._keep(machine, op)
                reads.subtract(value.name for value in op.inputs)
                for value in (*op.inputs, *op.outputs):
                    if not reads[value.name]:
                        machine.values.pop(value.name, None)
            if layer is not None:
                layer_done(layer)
        self.output = machine[output]

    def _keep(self, machine: Machine, op: Operation) -> None:
        # The router's copy of the normalised tokens is left out: a trace has them already.
        for value in op.outputs if self.traced else ():
            if value.kind is not Kind.GATE_INPUT:
                self.trace[value.name], self.real[value.name] = machine[value], machine.real(value)
