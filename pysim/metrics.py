"""Accuracy of a task's outputs against labels, with intervals.

Each metric counts a few numbers in every image; the figure of a data set, and that of any sample of its images, follows
from their sums. So results of parts of a data set are joined by putting their counts one after the other, and a
bootstrap needs no second look at an image.

Intervals hold 95 % of the probability: Wilson's for a share of images that were right (E. B. Wilson, J. Am. Stat.
Assoc. 22, 1927), and percentiles of 1,000 bootstrap samples of images (B. Efron, Ann. Statist. 7, 1979) for whatever is
no such share. The difference of two networks is bootstrapped on the same samples of images for both, whose errors
go together.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError

FloatArray = NDArray[np.float64]
Labels = NDArray[Any]

IGNORED = 255
"""Class of a mask that stands for no class, as PASCAL VOC has it."""

SAMPLES = 1000
"""Bootstrap samples."""
SEED = 2027
_SAMPLES_AT_ONCE = 50

NORMAL_95 = 1.959963984540054
"""Half of a 95 % interval in standard deviations of a normal distribution."""

TOLERANCE = 0.0075
"""Distance at which boundaries still meet, as a part of the diagonal: that of the Berkeley segmentation benchmark."""
FINE = 50.0
"""Diagonal in pixels from which on borders between classes are worth a figure: on a coarse grid all are near."""
THRESHOLDS = np.linspace(0.05, 0.95, 19)
"""Probabilities from which on a pixel counts as boundary; the best for the whole data set is taken."""


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Metric(ABC):
    """A figure of merit.

    Attributes:
        name: as JSON has it.
        title: for people, with the unit.
        interval: which kind of interval it has.
    """

    name: str
    title: str
    interval = "bootstrap"

    @abstractmethod
    def count(self, outputs: FloatArray, labels: Labels) -> FloatArray:
        """Numbers (images, ...) of images, from a head's outputs and their labels."""

    @abstractmethod
    def value(self, sums: FloatArray) -> FloatArray:
        """Figures (...) of sums (..., numbers) over images."""

    def figure(self, counts: FloatArray) -> Figure:
        """The figure of all images, with its interval."""
        value = float(self.value(counts.sum(axis=0)))
        low, high = _percentiles(np.concatenate(list(self.samples(counts))))
        return Figure(value, low, high)

    def samples(self, counts: FloatArray) -> Iterator[FloatArray]:
        """Figures of bootstrap samples of the images: the same samples for as many images."""
        drawn, flat = _drawn(len(counts)), counts.reshape(len(counts), -1)
        for start in range(0, SAMPLES, _SAMPLES_AT_ONCE):
            times = drawn[start : start + _SAMPLES_AT_ONCE].astype(np.float64)
            yield self.value((times @ flat).reshape(len(times), *counts.shape[1:]))

    def difference(self, before: FloatArray, after: FloatArray) -> Figure:
        """Figure of the same images by two networks, the second minus the first."""
        value = float(self.value(after.sum(axis=0)) - self.value(before.sum(axis=0)))
        pairs = zip(self.samples(before), self.samples(after), strict=True)
        low, high = _percentiles(np.concatenate([after - before for before, after in pairs]))
        return Figure(value, low, high)


@lru_cache(maxsize=1)
def _drawn(images: int) -> NDArray[np.uint16]:
    """Times (samples, images) that each image is drawn: kept for the next metric, as drawing takes the longest."""
    rng, evenly = np.random.default_rng(SEED), np.full(images, 1 / images)
    few = [min(_SAMPLES_AT_ONCE, SAMPLES - start) for start in range(0, SAMPLES, _SAMPLES_AT_ONCE)]
    return np.concatenate([rng.multinomial(images, evenly, size=size).astype(np.uint16) for size in few])


def _percentiles(values: FloatArray) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def wilson(hits: float, total: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, from 0 to 1; all of that for a share of nothing."""
    if total == 0:
        return 0.0, 1.0
    share, square = hits / total, NORMAL_95**2 / total
    centre = (share + square / 2) / (1 + square)
    half = NORMAL_95 / (1 + square) * math.sqrt(share * (1 - share) / total + square / total / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


class TopK(Metric):
    """Share of images whose class is among the `k` largest outputs; the lowest class wins a tie."""

    interval = "wilson"

    def __init__(self, k: int) -> None:
        self.k, self.name, self.title = k, f"top{k}", f"top-{k} %"

    def count(self, outputs: FloatArray, labels: Labels) -> FloatArray:
        """(images, 2): hit or not, and one: see `Metric`."""
        best = np.argsort(-outputs, axis=1, kind="stable")[:, : self.k]
        hits = (best == labels[:, None]).any(axis=1)
        return np.stack([hits, np.ones(len(hits))], axis=1).astype(np.float64)

    def value(self, sums: FloatArray) -> FloatArray:
        """See `Metric`."""
        return 100 * _ratio(sums[..., 0], sums[..., 1])

    def figure(self, counts: FloatArray) -> Figure:
        """See `Metric`."""
        hits, total = map(float, counts.sum(axis=0))
        low, high = wilson(hits, total)
        return Figure(float(self.value(np.array([hits, total]))), 100 * low, 100 * high)


class PixelAccuracy(Metric):
    """Share of labelled pixels (or patches) that have their class."""

    name, title = "pixel_accuracy", "pixels %"

    def count(self, outputs: FloatArray, labels: Labels) -> FloatArray:
        """(images, 2): right and labelled pixels: see `Metric`."""
        rows = []
        for chosen, label in _class_maps(outputs, labels):
            valid = label != IGNORED
            rows.append((((chosen == label) & valid).sum(), valid.sum()))
        return _table(rows, 2)

    def value(self, sums: FloatArray) -> FloatArray:
        """See `Metric`."""
        return 100 * _ratio(sums[..., 0], sums[..., 1])


class MeanIou(Metric):
    """Mean over the classes of intersection over union, in pixels of the whole data set.

    Classes that are neither labelled nor chosen anywhere do not count.
    """

    name, title = "miou", "mIoU %"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def count(self, outputs: FloatArray, labels: Labels) -> FloatArray:
        """(images, 3, classes): pixels of both, chosen, and labelled: see `Metric`."""
        rows = []
        for chosen, label in _class_maps(outputs, labels):
            valid = label != IGNORED
            both = label[valid & (chosen == label)]
            parts = (both, chosen[valid], label[valid])
            rows.append([np.bincount(part.astype(np.int64), minlength=self.classes) for part in parts])
        return _table(rows, 3, self.classes)

    def value(self, sums: FloatArray) -> FloatArray:
        """See `Metric`."""
        both, chosen, labelled = (sums[..., part, :] for part in range(3))
        union = chosen + labelled - both
        return 100 * _ratio(_ratio(both, union).sum(axis=-1), (union > 0).sum(axis=-1))


class Rmse(Metric):
    """Root of the mean squared error, in units of the labels; NaN stands for no label."""

    name, title = "rmse", "RMSE"

    def count(self, outputs: FloatArray, labels: Labels) -> FloatArray:
        """(images, 2): sum of squares, and labelled values: see `Metric`."""
        rows = []
        for output, label in zip(outputs, labels, strict=True):
            found = enlarge(output, label.shape)[..., 0] if label.ndim else output[..., 0]
            valid = np.isfinite(label)
            rows.append(((np.square(found - label)[valid]).sum(), valid.sum()))
        return _table(rows, 2)

    def value(self, sums: FloatArray) -> FloatArray:
        """See `Metric`."""
        return np.sqrt(_ratio(sums[..., 0], sums[..., 1]))


class BoundaryF(Metric):
    """F-measure of boundaries: harmonic mean of precision and recall over the whole data set.

    A boundary pixel is matched where the other map has one within `TOLERANCE` of the diagonal, one pixel at least
    (F. Perazzi et al., CVPR 2016); pixels are not assigned one to one. Outputs of one channel are logits of a boundary,
    at the threshold that is best for the whole data set; of several, the borders between the classes count.
    """

    name, title = "boundary_f", "boundary F %"

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def count(self, outputs: FloatArray, labels: Labels) -> FloatArray:
        """(images, thresholds or 1, 4): matched and all pixels found, matched and all pixels labelled: see `Metric`."""
        if self.channels > 1:
            rows = []
            for chosen, label in _class_maps(outputs, labels):
                valid = label != IGNORED
                rows.append([_matches(_borders(chosen, valid), _borders(label, valid), valid)])
            return _table(rows, 1, 4)
        logits = np.log(THRESHOLDS / (1 - THRESHOLDS))
        rows = []
        for output, label in zip(outputs, labels, strict=True):
            found = enlarge(output, label.shape)[..., 0]
            valid = label != IGNORED
            rows.append([_matches(found >= logit, (label != 0) & valid, valid) for logit in logits])
        return _table(rows, len(logits), 4)

    def value(self, sums: FloatArray) -> FloatArray:
        """See `Metric`."""
        precision, recall = _ratio(sums[..., 0], sums[..., 1]), _ratio(sums[..., 2], sums[..., 3])
        return 100 * _ratio(2 * precision * recall, precision + recall).max(axis=-1)


def _table(rows: list[Any], *shape: int) -> FloatArray:
    return np.array(rows, np.float64).reshape(len(rows), *shape)


def _ratio(part: FloatArray, whole: NDArray[Any]) -> FloatArray:
    """Quotients, and 0 of nothing."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) != 0)


def _class_maps(outputs: FloatArray, labels: Labels) -> Iterator[tuple[NDArray[np.int64], Labels]]:
    """Chosen classes and labels of each image, at the size of the labels; the lowest class wins a tie."""
    for output, label in zip(outputs, labels, strict=True):
        yield enlarge(output, label.shape).argmax(axis=-1), label


def enlarge(output: FloatArray, size: tuple[int, ...]) -> FloatArray:
    """A map (rows, columns, channels) at another size, bilinear between the centres of its cells."""
    if output.shape[:2] == size:
        return output
    down, across = (_stretch(have, want) for have, want in zip(output.shape[:2], size, strict=True))
    return np.einsum("yr,rcn,xc->yxn", down, output, across, optimize=True)


def _stretch(have: int, want: int) -> FloatArray:
    """Weights (want, have) of linear interpolation from cells to cells that cover the same length."""
    centres = np.clip((np.arange(want) + 0.5) * have / want - 0.5, 0, have - 1)
    return np.maximum(0.0, 1 - np.abs(centres[:, None] - np.arange(have)))


def _borders(classes: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose neighbour on the right or below is of another class, and both have a label."""
    result = np.zeros(classes.shape, np.bool_)
    result[:, :-1] |= (classes[:, :-1] != classes[:, 1:]) & valid[:, 1:]
    result[:-1] |= (classes[:-1] != classes[1:]) & valid[1:]
    return result & valid


def _matches(
    found: NDArray[np.bool_], labelled: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> tuple[int, int, int, int]:
    found, labelled = found & valid, labelled & valid
    near = max(1.0, TOLERANCE * math.hypot(*found.shape))
    return (
        int((found & _within(labelled, near)).sum()),
        int(found.sum()),
        int((labelled & _within(found, near)).sum()),
        int(labelled.sum()),
    )


def _within(pixels: NDArray[np.bool_], distance: float) -> NDArray[np.bool_]:
    """Pixels that lie within a distance of some of `pixels`."""
    from scipy.ndimage import distance_transform_edt

    if not pixels.any():
        return np.zeros_like(pixels)
    return np.asarray(distance_transform_edt(~pixels) <= distance)


def metrics_for(task: str, outputs: tuple[int, ...], labels: Labels) -> list[Metric]:
    """The metrics that suit a task's outputs and labels.

    Args:
        task: its name, for messages.
        outputs: shape of the outputs of one image: (channels,), or (rows, columns, channels).
        labels: labels of any number of images: classes (images,) or (images, rows, columns) as integers, or real
            values as floats.

    Raises:
        InputError: outputs and labels do not go together.
    """
    channels, dense = outputs[-1], len(outputs) == 3
    shown = f"task {task}: labels {labels.dtype} of shape {labels.shape[1:]} for each image"
    if labels.ndim - 1 != (2 if dense else 0):
        wanted = "(rows, columns)" if dense else "()"
        raise InputError(f"{shown}, expected shape {wanted}", hint=f"the head's outputs are {outputs}")
    if labels.dtype.kind == "f":
        if channels != 1:
            raise InputError(
                f"{shown}: real values for a head of {channels} channels", hint="classes are integers"
            )
        return [Rmse()]
    if labels.dtype.kind not in "iub":
        raise InputError(f"{shown}, expected integers for classes or floats for values")
    if dense and channels == 1:
        return [BoundaryF(1)]
    _check_classes(shown, labels, channels, dense)
    if dense:
        fine = math.hypot(*labels.shape[1:]) >= FINE
        return [PixelAccuracy(), MeanIou(channels), *([BoundaryF(channels)] if fine else [])]
    return [TopK(1), TopK(5)] if channels > 5 else [TopK(1)]


def _check_classes(shown: str, labels: Labels, channels: int, dense: bool) -> None:
    real = labels[labels != IGNORED] if dense else labels
    low, high = int(real.min(initial=0)), int(real.max(initial=0))
    if low < 0 or high >= channels:
        raise InputError(
            f"{shown}: classes from {low} to {high}, expected 0 to {channels - 1}",
            hint=f"{IGNORED} marks pixels without a class" if dense else "",
        )
