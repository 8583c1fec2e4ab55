"""Metrics against figures counted by hand and by scikit-learn, and intervals against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, jaccard_score, root_mean_squared_error, top_k_accuracy_score

from common.errors import InputError
from pysim.metrics import (
    IGNORED,
    BoundaryF,
    MeanIou,
    Metric,
    PixelAccuracy,
    Rmse,
    TopK,
    enlarge,
    metrics_for,
    wilson,
)

RNG = np.random.default_rng(11)


def value(metric: Metric, outputs: NDArray[np.float64], labels: NDArray[np.generic]) -> float:
    """The figure, which must not depend on how the images are divided."""
    counts = metric.count(outputs, labels)
    parts = [metric.count(outputs[part], labels[part]) for part in (slice(0, 2), slice(2, None))]
    np.testing.assert_array_equal(np.concatenate(parts), counts)
    found = metric.figure(counts)
    assert found.low <= found.value <= found.high
    return found.value


def one_hot(classes: NDArray[np.int64], channels: int) -> NDArray[np.float64]:
    return np.eye(channels)[classes]


def test_top_k() -> None:
    outputs, labels = RNG.normal(size=(40, 9)), RNG.integers(0, 9, 40)
    for k in (1, 5):
        expected = top_k_accuracy_score(labels, outputs, k=k, labels=np.arange(9))
        assert value(TopK(k), outputs, labels) == pytest.approx(100 * expected)
    tied = np.zeros((3, 9))
    assert value(TopK(1), tied, np.array([0, 1, 8])) == pytest.approx(100 / 3)
    assert value(TopK(5), tied, np.array([0, 4, 5])) == pytest.approx(200 / 3)


def test_pixels_and_iou() -> None:
    chosen, labels = RNG.integers(0, 4, (2, 6, 5, 7))
    labels[0, :2] = IGNORED
    labels[labels == 2] = 1  # a class that is chosen but never right
    outputs, valid = one_hot(chosen, 5), labels != IGNORED
    assert value(PixelAccuracy(), outputs, labels) == pytest.approx(
        100 * accuracy_score(labels[valid], chosen[valid])
    )
    # Of five classes, the last is nowhere and does not count.
    expected = jaccard_score(labels[valid], chosen[valid], average="macro", labels=range(4), zero_division=0)
    assert value(MeanIou(5), outputs, labels) == pytest.approx(100 * expected)


def test_rmse() -> None:
    outputs, labels = RNG.normal(size=(5, 4, 6, 1)), RNG.normal(size=(5, 4, 6))
    expected = root_mean_squared_error(labels.ravel(), outputs.ravel())
    assert value(Rmse(), outputs, labels) == pytest.approx(expected)
    labels[1] = np.nan
    labels[2, 0, 0] = outputs[2, 0, 0, 0] + 1000
    seen = np.isfinite(labels)
    expected = math.sqrt(np.square(outputs[..., 0] - labels)[seen].mean())
    assert value(Rmse(), outputs, labels) == pytest.approx(expected)
    assert value(Rmse(), np.ones((4, 1)), np.array([1.0, 3.0, 1.0, 1.0])) == 1.0


def test_boundaries_of_classes() -> None:
    labels = np.zeros((3, 60, 80), np.int64)
    labels[:, :, 40:] = 1
    near, far = np.roll(labels, 1, axis=2), np.roll(labels, 5, axis=2)
    near[:, :, 0], far[:, :, :5] = 0, 0
    assert value(BoundaryF(2), one_hot(labels, 2), labels) == 100.0
    assert value(BoundaryF(2), one_hot(near, 2), labels) == 100.0
    assert value(BoundaryF(2), one_hot(far, 2), labels) == 0.0
    # A second border that is not there: all that is labelled is found, half of what is found is right.
    double = labels.copy()
    double[:, :, 60:] = 0
    assert value(BoundaryF(2), one_hot(double, 2), labels) == pytest.approx(200 / 3)
    # Nothing counts where there is no label.
    labels[:, :, 50:] = IGNORED
    assert value(BoundaryF(2), one_hot(double, 2), labels) == 100.0


def test_boundaries_of_one_channel_take_the_best_threshold() -> None:
    labels = np.zeros((3, 20, 20), np.int64)
    labels[:, 10] = 1
    logits = np.full((3, 20, 20, 1), -9.0)
    logits[:, 10], logits[:, 3] = -1.0, -1.5
    # Between -1.5 and -1 lies a threshold; at a probability of a half nothing would be found.
    assert value(BoundaryF(1), logits, labels) == 100.0


def test_maps_are_enlarged_between_the_centres_of_their_cells() -> None:
    import torch

    small = RNG.normal(size=(3, 4, 2))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(small).permute(2, 0, 1)[None], size=(7, 12), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(enlarge(small, (7, 12)), expected[0].permute(1, 2, 0), atol=1e-12)
    assert enlarge(small, (3, 4)) is small


def test_wilson_interval() -> None:
    # Wilson's score interval of 8 of 10, as statistics packages print it.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(9000, 10000)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.9 * 0.1 / 10000), rel=1e-3)


def test_bootstrap_intervals_are_as_wide_as_theory_has_it() -> None:
    images, errors = 400, np.random.default_rng(5).normal(size=400)
    counts = np.stack([errors**2, np.ones(images)], axis=1)
    found = Rmse().figure(counts)
    # The mean square has the standard deviation sqrt(2 / n), the root half of that.
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.5 / images), rel=0.15)
    assert Rmse().figure(counts) == found, "seeded"


def test_differences_are_those_of_the_same_images() -> None:
    """Two networks that err on the same images differ by nothing, however wide the interval of either."""
    hits = (np.random.default_rng(6).random(300) < 0.5).astype(np.float64)
    counts = np.stack([hits, np.ones(300)], axis=1)
    same = TopK(1).difference(counts, counts)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    other = counts.copy()
    other[:30, 0] = 1 - other[:30, 0]
    figure, difference = TopK(1).figure(counts), TopK(1).difference(counts, other)
    assert difference.value == pytest.approx(100 * (other - counts)[:, 0].mean())
    assert difference.low < difference.value < difference.high
    assert difference.high - difference.low < figure.high - figure.low


def test_metrics_that_suit() -> None:
    def names(outputs: tuple[int, ...], labels: NDArray[np.generic]) -> list[str]:
        return [metric.name for metric in metrics_for("t", outputs, labels)]

    assert names((10,), np.arange(3)) == ["top1", "top5"]
    assert names((3,), np.arange(3)) == ["top1"]
    assert names((1,), np.ones(3)) == names((4, 4, 1), np.ones((3, 8, 8))) == ["rmse"]
    assert names((4, 4, 5), np.full((3, 8, 8), IGNORED)) == ["pixel_accuracy", "miou"]
    assert names((4, 4, 5), np.zeros((3, 64, 64), np.uint8)) == ["pixel_accuracy", "miou", "boundary_f"]
    assert names((4, 4, 1), np.zeros((3, 8, 8), np.uint8)) == ["boundary_f"]


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        ((10,), np.array([3, 10]), r"classes from 0 to 10, expected 0 to 9"),
        ((10,), np.array([-1]), r"classes from -1 to 0"),
        ((10,), np.array([IGNORED]), r"classes from 0 to 255"),
        ((4, 4, 5), np.full((1, 4, 4), 5), r"classes from 0 to 5, expected 0 to 4"),
        ((4, 4, 5), np.array([1]), r"shape \(\) for each image, expected shape \(rows, columns\)"),
        ((10,), np.zeros((2, 4, 4), int), r"shape \(4, 4\) for each image, expected shape \(\)"),
        ((4, 4, 5), np.zeros((1, 4, 4)), r"real values for a head of 5 channels"),
        ((10,), np.array(["cat"]), r"expected integers for classes"),
    ],
)
def test_labels_that_do_not_suit(outputs: tuple[int, ...], labels: NDArray[np.generic], message: str) -> None:
    with pytest.raises(InputError, match=message):
        metrics_for("t", outputs, labels)
