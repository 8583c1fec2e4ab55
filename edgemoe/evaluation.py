"""Accuracy of a Design on labelled images, beside that of the float network it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.heads import on_grid
from edgemoe.chunks import CHUNK_TOKENS, Arrays, Places, join, run_chunks
from edgemoe.labelled import Labelled
from pysim import reference
from pysim.compare import check_same_shape
from pysim.design import Design
from pysim.metrics import Figure, Metric, metrics_for
from pysim.model import Model
from pysim.reference import apply_head
from pysim.simulator import simulate, task_number

if TYPE_CHECKING:
    from frontend.decoder import Decoder

NETWORKS = ("float", "integer")


@dataclass(frozen=True)
class Job:
    """Networks of which the accuracy is asked for.

    Attributes:
        design: the quantised network.
        model: the float network, whose head decodes the tokens of both.
        task: name of the task.
        decoder: what decodes them where the task has no linear head.
        float_too: whether the float network runs, too.
    """

    design: Design
    model: Model
    task: str
    decoder: Decoder | None
    float_too: bool

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the outputs of one image: (channels,), or (rows, columns, channels)."""
        spec = self.model.spec
        return self.outputs(np.zeros((1, spec.tokens, spec.dim))).shape[1:]

    def outputs(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs of images, from their final tokens in real units."""
        spec = self.model.spec
        if self.decoder is not None:
            import torch

            with torch.inference_mode():
                maps = self.decoder(torch.from_numpy(tokens).float()).numpy()
            return np.moveaxis(maps, 1, -1).astype(np.float64)
        found = apply_head(self.model, self.task, tokens)
        if found is None:
            raise InputError(
                f"task {self.task} has no head to decode its tokens with",
                hint="heads, and decoders, come from the Model folder",
            )
        return on_grid(found, spec.grid)

    def tokens(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        """Final tokens of images, by network."""
        found = {"integer": simulate(self.design, images, self.task).tokens}
        if self.float_too:
            number = task_number(self.model.spec, self.task)
            found["float"] = reference.run(self.model, images, number).tokens
        return found


class Part(NamedTuple):
    """Some images and their labels."""

    images: NDArray[np.uint8]
    labels: NDArray[Any]


def count(job: Job, part: Part) -> Arrays:
    """Counts of every metric on some images, by network and metric: a pure function, wherever it runs."""
    metrics = metrics_for(job.task, job.output_shape, part.labels)
    return {
        f"{network}.{metric.name}": metric.count(outputs, part.labels)
        for network, tokens in job.tokens(part.images).items()
        for outputs in [job.outputs(tokens)]
        for metric in metrics
    }


@dataclass(frozen=True)
class Score:
    """One metric of a task.

    Attributes:
        metric: which.
        figures: by network (`float` where it ran, `integer`), with 95 % intervals.
        difference: integer minus float on the same images; None without the float network.
    """

    metric: Metric
    figures: dict[str, Figure]
    difference: Figure | None


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a Design on labelled images.

    Attributes:
        task: name of the task.
        images: how many.
        scores: of every metric that suits the task.
    """

    task: str
    images: int
    scores: tuple[Score, ...]

    def __getitem__(self, metric: str) -> Score:
        """Score of a metric by its name, such as `top1`."""
        return next(score for score in self.scores if score.metric.name == metric)

    def as_json(self) -> dict[str, Any]:
        """The evaluation under the key names that scripts rely on."""
        metrics = {
            score.metric.name: {
                **{network: vars(figure) for network, figure in score.figures.items()},
                **({} if score.difference is None else {"difference": vars(score.difference)}),
                "interval": score.metric.interval,
            }
            for score in self.scores
        }
        return {"task": self.task, "images": self.images, "metrics": metrics}


def evaluate(
    job: Job,
    data: Labelled,
    places: Places,
    *,
    chunk: int | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Evaluation:
    """Run all images, in chunks, and sum up.

    Args:
        job: networks and task.
        data: labelled images of the task.
        places: where to run, and where to keep finished chunks.
        chunk: images of a chunk.
        progress: called with images done and in total.

    Raises:
        InputError: no images; labels that do not suit the task's head; or what `run_chunks` refuses.
    """
    check_same_shape(job.model, job.design)
    if data.count == 0:
        raise InputError("no images to evaluate on")
    metrics = metrics_for(job.task, job.output_shape, data.labels(slice(0, 1)))
    size = chunk or max(1, CHUNK_TOKENS // job.design.spec.tokens)
    starts = range(0, data.count, size)

    def part(start: int) -> Part:
        where = slice(start, start + size)
        return Part(data.images(where), data.labels(where))

    def done(chunks: int) -> None:
        if progress:
            progress(min(chunks * size, data.count), data.count)

    identity = {
        "evaluate": 1,
        "design_id": job.design.design_id,
        "model": job.model.sha256,
        "task": job.task,
        "float": job.float_too,
        "decoder": job.decoder is not None,
        "data": data.identity,
        "chunk": size,
    }
    parts = run_chunks(count, job, [partial(part, start) for start in starts], places, identity, done)
    counts = join(parts)
    return Evaluation(job.task, data.count, tuple(_score(metric, counts) for metric in metrics))


def _score(metric: Metric, counts: Arrays) -> Score:
    own = {name: counts[f"{name}.{metric.name}"] for name in NETWORKS if f"{name}.{metric.name}" in counts}
    difference = metric.difference(own["float"], own["integer"]) if "float" in own else None
    return Score(metric, {name: metric.figure(each) for name, each in own.items()}, difference)
