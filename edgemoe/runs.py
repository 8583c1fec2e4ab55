"""Runs of a Design on images, task by task, beside the float network: what `simulate` reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import edgemoe
from common.outputs import Kind, csv_text, flat
from edgemoe.chunks import CHUNK_TOKENS, HERE, Arrays, Places, join, run_chunks
from edgemoe.heads import Heads
from pysim.compare import (
    Comparison,
    LayerUsage,
    StageError,
    Totals,
    as_json,
    expert_usage,
    totals,
)
from pysim.kernels.compiling import clock
from pysim.kernels.router import Routing
from pysim.simulator import Simulation

if TYPE_CHECKING:
    from pysim.design import Design
    from pysim.model import Model

Pixels = NDArray[np.uint8]

TRACE_BYTES = 1 << 30
"""Size of a trace that bounds the images on which stages are compared without `--trace`, one at least."""


@dataclass(frozen=True)
class Stage:
    """One traced tensor: its shape, its range in real units, and its error where a reference was run."""

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    error: StageError | None

    def as_json(self) -> dict[str, Any]:
        """The stage under the key names that scripts rely on."""
        data: dict[str, Any] = {
            "name": self.name,
            "shape": list(self.shape),
            "low": self.low,
            "high": self.high,
        }
        return data | (vars(self.error) if self.error is not None else {})


@dataclass(frozen=True)
class TaskRun:
    """One task on all images.

    Attributes:
        task: its name.
        simulation: the result.
        seconds: time of the simulation alone, without compiling its kernels.
        comparison: errors against the float network, where one was given.
        stages: traced tensors.
        stage_images: how many images `stages` covers.
    """

    task: str
    simulation: Simulation
    seconds: float
    comparison: Comparison | None
    stages: list[Stage]
    stage_images: int

    @property
    def usage(self) -> list[LayerUsage]:
        """Tokens per expert of every MoE layer."""
        return expert_usage(self.simulation.routing)

    @property
    def tokens_sha256(self) -> str:
        """Hash of the output integers as little-endian int64: equal hashes mean equal bits."""
        return tokens_sha256(self.simulation.integers)

    def as_json(self) -> dict[str, Any]:
        """The run under the key names that scripts rely on."""
        data = {"task": self.task, "seconds": self.seconds, "tokens_sha256": self.tokens_sha256}
        if self.comparison is not None:
            data |= as_json(self.comparison)
        routing = [
            {"layer": layer.layer, "task": self.task, "tokens": layer.tokens, "unused": layer.unused}
            for layer in self.usage
        ]
        stages = {"stages": [stage.as_json() for stage in self.stages], "stage_images": self.stage_images}
        return data | stages | {"routing": routing}

    def arrays(self, trace: bool) -> dict[str, NDArray[Any]]:
        """The run as named arrays: output, choices of experts, and the integers of the trace if asked for."""
        simulation = self.simulation
        named: dict[str, NDArray[Any]] = {"integers": simulation.integers, "tokens": simulation.tokens}
        for layer, routing in simulation.routing.items():
            named |= {f"experts.{layer}": routing.experts, f"scores.{layer}": routing.scores}
        if trace:
            named |= {f"trace.{name}": integers for name, integers in simulation.trace.items()}
        return named


def run_task(
    design: Design,
    images: Pixels,
    task: str,
    *,
    model: Model | None = None,
    trace: bool = False,
    stages: bool = True,
    progress: Callable[[int, int], None] | None = None,
    places: Places = HERE,
) -> TaskRun:
    """Simulate one task, and compare with the float network if there is one.

    Args:
        design: the quantised network.
        images: (images, channels, H, W).
        task: name of the task.
        model: the float network that the design was made from.
        trace: keep every intermediate tensor of every image.
        stages: compare stage by stage too; without a trace on as many images as memory allows.
        progress: called with layers, or images, done and in total.
        places: where images are run, in chunks, unless in this process alone; without a trace.
    """
    staged_images = len(images) if trace else min(len(images), max(1, TRACE_BYTES // _trace_bytes(design)))
    by_stage = stages and model is not None
    traced = not places and (trace or (by_stage and staged_images == len(images)))
    start, comparison = clock(), None
    if places:
        simulation, comparison = _run_in_chunks(Work(design, task, model), images, places, progress)
    else:
        simulation = edgemoe.simulate(design, images, task, trace=traced, progress=progress)
    seconds = clock() - start
    if model is not None and comparison is None:
        comparison = edgemoe.compare(model, design, images, task, simulation=simulation)
    staged, errors = simulation, comparison.stages if comparison else []
    if model is not None and by_stage and not traced:
        some = images[:staged_images]
        staged = edgemoe.simulate(design, some, task, trace=True)
        errors = edgemoe.compare(model, design, some, task, simulation=staged).stages
    covered = staged_images if staged.trace else 0
    return TaskRun(task, simulation, seconds, comparison, _stages(staged, errors), covered)


def tokens_sha256(integers: NDArray[np.int64]) -> str:
    """Hash of integers as little-endian int64."""
    return hashlib.sha256(integers.astype("<i8").tobytes()).hexdigest()


class Work(NamedTuple):
    """A Design to run on a task, and the float network to compare it with, if any."""

    design: Design
    task: str
    model: Model | None


def simulate_chunk(work: Work, images: Pixels) -> Arrays:
    """Output and choices of some images, and the totals of a comparison: a pure function, wherever it runs."""
    simulation = edgemoe.simulate(work.design, images, work.task)
    named: Arrays = {"integers": simulation.integers}
    for layer, routing in simulation.routing.items():
        named |= {f"experts.{layer}": routing.experts, f"scores.{layer}": routing.scores}
    if work.model is not None:
        found, _ = totals(work.model, work.design, images, work.task, simulation)
        named["totals"] = np.array([found], np.float64)
    return named


def _run_in_chunks(
    work: Work, images: Pixels, places: Places, progress: Callable[[int, int], None] | None
) -> tuple[Simulation, Comparison | None]:
    design, spec = work.design, work.design.spec
    size = max(1, CHUNK_TOKENS // spec.tokens)
    starts = range(0, len(images), size)

    def done(chunks: int) -> None:
        if progress:
            progress(min(chunks * size, len(images)), len(images))

    identity = {
        "simulate": 1,
        "design_id": design.design_id,
        "model": work.model.sha256 if work.model is not None else None,
        "task": work.task,
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "chunk": size,
    }
    chunks = [partial(images.__getitem__, slice(start, start + size)) for start in starts]
    joined = join(run_chunks(simulate_chunk, work, chunks, places, identity, done))
    experts = spec.moe.experts if spec.moe is not None else 0
    routing = {
        layer: Routing(joined[f"experts.{layer}"], joined[f"scores.{layer}"], experts)
        for layer in sorted(spec.moe_layers)
    }
    integers = joined["integers"]
    simulation = Simulation(integers, design.residual.to_float(integers), routing, {}, {})
    if work.model is None:
        return simulation, None
    sums = [Totals(*row) for row in joined["totals"].tolist()]
    return simulation, reduce(Totals.joined, sums).comparison([])


def _trace_bytes(design: Design) -> int:
    """Size of the trace of one image, integers and reals: attention scores and a dozen tensors of tokens."""
    spec = design.spec
    return 16 * spec.depth * spec.tokens * (spec.heads * spec.tokens + 9 * spec.dim + spec.mlp_dim)


def _stages(simulation: Simulation, errors: list[StageError]) -> list[Stage]:
    by_name = {error.name: error for error in errors}
    return [
        Stage(name, real.shape, float(real.min(initial=0.0)), float(real.max(initial=0.0)), by_name.get(name))
        for name, real in simulation.real.items()
    ]


def save_runs(
    path: Path,
    kind: Kind,
    runs: Sequence[TaskRun],
    heads: Heads,
    names: Sequence[str],
    whole: Mapping[str, Any],
    *,
    trace: bool,
) -> None:
    """Write runs into a new file.

    Args:
        path: the file.
        kind: arrays, whose names start with the task's where there are several; a line for each image and task; or
            the results as JSON.
        runs: one a task.
        heads: what was decoded.
        names: of the images.
        whole: the results as JSON has them.
        trace: write the integers of the trace, too.
    """
    from pysim.files import new_file

    with new_file(path) as temporary:
        if kind == "json":
            temporary.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n")
        elif kind == "csv":
            temporary.write_bytes(csv_text(_rows(runs, heads, names)).encode())
        else:
            arrays = {
                f"{run.task}.{name}" if len(runs) > 1 else name: array
                for run in runs
                for name, array in _arrays(run, heads, trace).items()
            }
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]


def _arrays(run: TaskRun, heads: Heads, trace: bool) -> dict[str, NDArray[Any]]:
    arrays = run.arrays(trace)
    return arrays | ({"output": heads.outputs[run.task]} if run.task in heads.outputs else {})


def _rows(runs: Sequence[TaskRun], heads: Heads, names: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each image and task."""
    rows = []
    for run in runs:
        outputs = heads.as_json(run.task, names).get("outputs", [{}] * len(names))
        for name, integers, output in zip(names, run.simulation.integers, outputs, strict=True):
            row = {"image": name, "task": run.task, "tokens_sha256": tokens_sha256(integers)}
            rows.append(row | flat(output))
    return rows
