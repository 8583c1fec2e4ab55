"""Facts of a report, collected from a Design or a build and from runs on images; the page computes nothing again."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boards import Board
from codegen import original
from codegen.architecture import Architecture
from codegen.estimate import Stage
from codegen.fit import MARGINS
from codegen.performance import Performance
from codegen.report.drawing import Column, columns
from codegen.report.losses import BINS, loss_entries
from codegen.report.results import Result, data_url, results
from codegen.verification import Verification
from pysim.compare import Comparison, StageError
from pysim.design import Design
from pysim.program import Attention, Value, of_type, values
from pysim.sensitivity import Sensitivity
from pysim.simulator import Simulation

PICTURES = 4
"""Images that are shown, of those that were run."""

RESOURCES = {
    "dsp": "DSP slices",
    "bram36": "block RAM (36 Kb)",
    "uram": "ultra RAM",
    "lut": "LUTs",
    "ff": "flip-flops",
}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Observation:
    """One task, run on images with a trace.

    Attributes:
        task: its name.
        simulation: the run.
        comparison: with the float network, where it was given.
        outputs: what the task's head makes of the images, patches in rows and columns; None without a head.
        classes: names of its classes, where they have any.
    """

    task: str
    simulation: Simulation
    comparison: Comparison | None
    outputs: NDArray[np.float64] | None = None
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class Rival:
    """A published accelerator of M3ViT-tiny.

    Attributes:
        name: of the accelerator.
        board: that it ran on.
        clock_mhz: its clock.
        precision: its bits, for people.
        ms: latency of one image.
        source: where these figures are from.
    """

    name: str
    board: str
    clock_mhz: float
    precision: str
    ms: float
    source: str


def rivals() -> list[Rival]:
    """The original, and the published accelerators of `rivals.toml`."""
    first = Rival(
        name="Edge-MoE",
        board="ZCU102",
        clock_mhz=original.CLOCK_MHZ,
        precision="16-bit weights, 32-bit features",
        ms=original.PUBLISHED_MS,
        source="Sarkar et al., ICCAD 2023, arXiv 2305.18691",
    )
    data = tomllib.loads((files(__package__) / "rivals.toml").read_text())
    return [first, *(Rival(**each) for each in data["rival"])]


@dataclass(frozen=True)
class Built:
    """Hardware that a Design was built on.

    Attributes:
        architecture: the network on the hardware.
        board: the board.
        performance: the estimate.
        verification: what was verified of the build.
    """

    architecture: Architecture
    board: Board
    performance: Performance
    verification: Verification


@dataclass(frozen=True)
class Facts:
    """Everything that a report shows.

    Attributes:
        title: of the page.
        version: of edgemoe.
        design: the quantised network.
        built: its hardware; None for a Design that no hardware was chosen for.
        observations: runs on images, one a task; none where no images were given.
        pixels: (images, channels, H, W) that were run.
        sensitivity: what each tensor costs alone; None where the Design does not say it.
    """

    title: str
    version: str
    design: Design
    built: Built | None = None
    observations: Sequence[Observation] = ()
    pixels: Pixels | None = None
    sensitivity: Sensitivity | None = None
    rivals: Sequence[Rival] = field(default_factory=rivals)

    @property
    def columns(self) -> list[Column]:
        """The network as a drawing."""
        return columns(self.design.network.program)

    @cached_property
    def pictures(self) -> list[str]:
        """The first images, as data URLs of PNGs."""
        return [] if self.pixels is None else [data_url(image) for image in self.pixels[:PICTURES]]

    @cached_property
    def results(self) -> list[Result]:
        """Outputs of the task heads for the first images."""
        if self.pixels is None:
            return []
        return [
            result
            for each in self.observations
            if each.outputs is not None
            for result in results(each.task, each.outputs[:PICTURES], self.pixels[:PICTURES], each.classes)
        ]

    @cached_property
    def stages(self) -> list[dict[str, Any]]:
        """Every traced tensor of every task: range, error, histogram."""
        return [row for each in self.observations for row in stage_rows(each, self.design)]

    @cached_property
    def losses(self) -> list[dict[str, Any]]:
        """Each tensor that was quantised alone: its loss, range and histogram."""
        return [] if self.sensitivity is None else loss_entries(self.sensitivity, self.design, self.stages)

    @property
    def routing(self) -> list[dict[str, Any]]:
        """Every layer with experts of every task: tokens of each expert, choices of each patch of the pictures."""
        spec = self.design.spec
        rows = []
        for each in self.observations:
            for layer, routing in sorted(each.simulation.routing.items()):
                chosen = routing.experts.reshape(-1, spec.tokens, routing.experts.shape[-1])
                rows.append(
                    {
                        "task": each.task,
                        "layer": layer,
                        "experts": routing.count,
                        "tokens": routing.lengths.tolist(),
                        "patches": chosen[:PICTURES, spec.prefix_tokens :].tolist(),
                    }
                )
        return rows

    @property
    def attention(self) -> list[dict[str, Any]]:
        """Every attention layer of every task: the share of a picture's looks that each patch gets, head by head."""
        layers = of_type(self.design.program, Attention)
        return [
            {
                "task": each.task,
                "layer": op.layer,
                "heads": self._looks(each.simulation.real[op.scores.name][:PICTURES]),
            }
            for each in self.observations
            for op in layers
        ]

    def _looks(self, scores: NDArray[np.float64]) -> list[list[list[int]]]:
        """Attention (images, heads, patches) of the first token or of all, in 255ths of a head's largest."""
        prefix = self.design.spec.prefix_tokens
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
        looks = (shares[:, :, 0] if prefix else shares.mean(axis=2))[..., prefix:]
        largest = np.maximum(looks.max(axis=-1, keepdims=True), 1e-30)
        found: list[list[list[int]]] = np.rint(255 * looks / largest).astype(int).tolist()
        return found

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """The stages of the schedule with their first cycles, and the share of the memory's beats that each takes."""
        return [] if self.built is None else timeline(self.built.performance.stages)

    @property
    def resources(self) -> list[dict[str, Any]]:
        """Every resource: used, there, and what `fit` allows itself."""
        if self.built is None:
            return []
        return [
            {
                "name": RESOURCES[name],
                "used": used,
                "available": available,
                "share": 100 * self.built.performance.share(name),
                "margin": MARGINS[name],
            }
            for name, (used, available) in self.built.performance.resources.items()
            if available or used
        ]

    @property
    def sections(self) -> list[tuple[str, int, int]]:
        """Sections of the weight image: name, first byte, bytes."""
        if self.built is None:
            return []
        architecture = self.built.architecture
        starts = list(architecture.sections.items())
        beat = architecture.beat_bytes
        return [
            (name, first * beat, (following - first) * beat)
            for (name, first), (_, following) in pairwise(starts)
        ]

    @property
    def payload(self) -> dict[str, Any]:
        """Data that the page's program draws, ready for JSON."""
        return {
            "grid": self.design.spec.grid,
            "pictures": self.pictures,
            "stages": self.stages,
            "routing": self.routing,
            "attention": self.attention,
            "timeline": self.timeline,
            "resources": self.resources,
            "losses": self.losses,
        }


def stage_rows(observation: Observation, design: Design) -> list[dict[str, Any]]:
    """The traced tensors of one task, in order."""
    comparison = observation.comparison
    errors = {error.name: error for error in comparison.stages} if comparison is not None else {}
    traced = observation.simulation.real
    return [
        {"task": observation.task} | _stage_row(value, traced[name], errors.get(name))
        for name, value in values(design.program).items()
        if name in traced
    ]


def _stage_row(value: Value, real: NDArray[np.float64], error: StageError | None) -> dict[str, Any]:
    low, high = (float(real.min()), float(real.max())) if real.size else (0.0, 0.0)
    counts, _ = np.histogram(real, BINS, (low, high if high > low else low + 1))
    return {
        "name": value.name,
        "layer": value.layer,
        "part": value.part,
        "low": low,
        "high": high,
        "sqnr_db": error.sqnr_db if error is not None else None,
        "max_error": error.max_error if error is not None else None,
        "histogram": counts.tolist(),
    }


def timeline(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Stages one after the other: first cycle, cycles, and what they wait for."""
    rows, start = [], 0
    for stage in stages:
        rows.append(
            {
                "name": stage.name,
                "part": stage.part,
                "start": start,
                "cycles": stage.cycles,
                "load": stage.load,
                "bound_by": stage.bound_by,
            }
        )
        start += stage.cycles
    return rows
