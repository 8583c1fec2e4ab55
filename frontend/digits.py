"""Demo data set: handwritten digits as small grey scenes with an image task and a dense task.

Source: the Optical Recognition of Handwritten Digits data set of the UCI Machine Learning Repository
(E. Alpaydin, C. Kaynak), in the copy of 1797 images (8x8, grey values 0..16) that scikit-learn ships.
scikit-learn is an optional dependency and is imported only when a split is loaded.

Every source image becomes a 32x32 ``uint8`` scene: the digit is enlarged three times, placed at a
drawn offset on a dark canvas, and covered with mild sensor noise.  A scene carries two labels of
different kinds:

* ``digit``: the class of the image, 0..9;
* ``segment``: one class for each of the 8x8 patches of 4x4 pixels, row-major: 0 is background and
  ``1 + d`` is stroke of digit ``d``.  It needs local ink (is this patch stroke?) and global
  recognition (stroke of which digit?) at the same time.

A network reads the pixel value ``p`` as ``p / 256``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from pysim.extras import require

Split = Literal["train", "heldout"]

IMAGE_SIZE: Final = 32
PATCH_SIZE: Final = 4
PATCHES_PER_SIDE: Final = IMAGE_SIZE // PATCH_SIZE
DIGIT_CLASSES: Final = 10
SEGMENT_CLASSES: Final = 1 + DIGIT_CLASSES

SOURCE_SIZE: Final = 8
SOURCE_LEVELS: Final = 16
DIGIT_SIZE: Final = 24
ZOOM: Final = DIGIT_SIZE / SOURCE_SIZE
MAX_OFFSET: Final = IMAGE_SIZE - DIGIT_SIZE

BACKGROUND: Final = 20.0
INK: Final = 200.0
NOISE_SIGMA: Final = 5.0
STROKE_THRESHOLD: Final = 0.35
"""A patch is stroke if the mean of its noise-free ink (0..1) is above this value."""

SPLIT_SEED: Final = 2023
"""Seed of the train / held-out split: a constant, so that no choice of scene seed can leak images."""

HELDOUT_PARTS: Final = 3
"""One source image in this many, class by class, is held out (599 of 1797)."""

DEFAULT_SEED: Final = 7

# Standard deviations of the training-time distortion at ``jitter=1``.
_ROTATION_SIGMA: Final = 0.10
_SHEAR_SIGMA: Final = 0.10
_STRETCH_SIGMA: Final = 0.07


@dataclass(frozen=True, eq=False)
class Scenes:
    """A set of labelled scenes.

    Attributes:
        images: ``uint8``, shape ``(n, 1, 32, 32)``; the network input is ``images / 256``.
        labels: ``"digit"`` is ``int64`` of shape ``(n,)``, values 0..9; ``"segment"`` is ``int64`` of
            shape ``(n, 64)``, values 0..10, patches in row-major order.
    """

    images: NDArray[np.uint8]
    labels: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Sources:
    """Source images of one split.

    Attributes:
        ink: ``float64``, shape ``(n, 8, 8)``, 0 (paper) to 1 (full stroke).
        digits: ``int64``, shape ``(n,)``, values 0..9.
    """

    ink: NDArray[np.float64]
    digits: NDArray[np.int64]


def load_scenes(split: Split, seed: int = DEFAULT_SEED, placements: int = 1) -> Scenes:
    """Load the scenes of one split.

    The split goes by source image and is the same for every ``seed``; the seed only decides where the
    digits are placed and the sensor noise.  Calibration images are simply scenes of ``"train"``.

    Args:
        split: ``"train"`` (1198 source images) or ``"heldout"`` (599 source images).
        seed: seed of placement and noise, not negative.
        placements: scenes per source image.  Scenes come in ``placements`` rounds over all sources,
            so a smaller value gives a prefix of a larger one.

    Raises:
        InputError: scikit-learn is missing, or an argument is out of range.
    """
    if placements < 1:
        raise InputError(f"placements must be at least 1, got {placements}")
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    sources = load_sources(split)
    # Streams differ between the splits, so that both do not draw the same offsets in the same order.
    rng = np.random.default_rng([seed, 0 if split == "train" else 1])
    rounds = [compose(sources, rng) for _ in range(placements)]
    return Scenes(
        images=np.concatenate([scenes.images for scenes in rounds]),
        labels={
            task: np.concatenate([scenes.labels[task] for scenes in rounds]) for task in rounds[0].labels
        },
    )


def load_sources(split: Split) -> Sources:
    """Load the 8x8 source images of one split, in data set order.

    Raises:
        InputError: scikit-learn is missing, or there is no such split.
    """
    if split not in ("train", "heldout"):
        raise InputError(f"unknown split {split!r}", hint="use 'train' or 'heldout'")
    require("the digits data set", "sklearn")
    from sklearn.datasets import load_digits

    values, targets = load_digits(return_X_y=True)
    digits = np.asarray(targets, dtype=np.int64)
    ink = np.asarray(values, dtype=np.float64).reshape(-1, SOURCE_SIZE, SOURCE_SIZE) / SOURCE_LEVELS
    held = _heldout_mask(digits)
    chosen = held if split == "heldout" else ~held
    return Sources(ink=ink[chosen], digits=digits[chosen])


def compose(sources: Sources, rng: np.random.Generator, *, jitter: float = 0.0) -> Scenes:
    """Make one scene of each source image.

    Args:
        sources: ``n`` source images.
        rng: draws placement, distortion and noise.
        jitter: strength of a random rotation, shear and stretch and of offsets between pixels, for
            training; 0 is the data set itself, with whole-pixel offsets and upright digits.
    """
    count = len(sources.digits)
    offsets = rng.integers(0, MAX_OFFSET + 1, size=(count, 2)).astype(np.float64)
    linear = np.broadcast_to(np.eye(2), (count, 2, 2))
    if jitter > 0.0:
        offsets += jitter * rng.uniform(-0.5, 0.5, size=(count, 2))
        linear = _distortions(count, rng, jitter)
    ink = _place(sources.ink, offsets, linear)
    noise = rng.normal(0.0, NOISE_SIGMA, size=ink.shape)
    grey = np.clip(np.rint(BACKGROUND + INK * ink + noise), 0, 255).astype(np.uint8)
    stroke = _patch_means(ink) > STROKE_THRESHOLD
    segment = np.where(stroke, 1 + sources.digits[:, None], 0)
    return Scenes(images=grey[:, None], labels={"digit": sources.digits.copy(), "segment": segment})


def _heldout_mask(digits: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Choose the held-out source images, the same share of every class: ``bool``, shape ``(n,)``."""
    rng = np.random.default_rng(SPLIT_SEED)
    held = np.zeros(len(digits), dtype=np.bool_)
    for digit in range(DIGIT_CLASSES):
        members = rng.permutation(np.flatnonzero(digits == digit))
        held[members[: round(len(members) / HELDOUT_PARTS)]] = True
    return held


def _distortions(count: int, rng: np.random.Generator, jitter: float) -> NDArray[np.float64]:
    """Draw the linear part of random distortions: ``float64``, shape ``(n, 2, 2)``, near the identity."""
    angle = jitter * _ROTATION_SIGMA * rng.standard_normal(count)
    shear = jitter * _SHEAR_SIGMA * rng.standard_normal(count)
    stretch = np.exp(jitter * _STRETCH_SIGMA * rng.standard_normal((count, 2)))
    rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=-1)
    shape = np.stack([stretch[:, 0], np.zeros(count), shear, stretch[:, 1]], axis=-1)
    linear: NDArray[np.float64] = rotation.reshape(count, 2, 2) @ shape.reshape(count, 2, 2)
    return linear


def _place(
    ink: NDArray[np.float64], offsets: NDArray[np.float64], linear: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Enlarge source images bilinearly onto the canvas.

    Args:
        ink: ``(n, 8, 8)``, 0..1.
        offsets: ``(n, 2)``, row and column of the top left corner of the 24x24 digit.
        linear: ``(n, 2, 2)``, maps (row, column) distances on the canvas, measured from the centre of
            the digit, to distances in the enlarged source image.

    Returns:
        Ink on the canvas, 0..1, shape ``(n, 32, 32)``.
    """
    centres = np.arange(IMAGE_SIZE) + 0.5
    canvas = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    distance = canvas[None] - (offsets + DIGIT_SIZE / 2)[:, None]
    # One ring of paper around the source makes the clipped samples outside it blank; the source
    # pixel (0, 0), with centre (0.5, 0.5), is then at index (1, 1).
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    position = distance @ linear.transpose(0, 2, 1) / ZOOM + SOURCE_SIZE / 2 + 0.5
    position = np.clip(position, 0.0, SOURCE_SIZE + 1)
    low = np.minimum(position.astype(np.int64), SOURCE_SIZE)
    part = position - low
    image = np.arange(len(ink))[:, None]
    result = np.zeros(position.shape[:2])
    for row in (0, 1):
        for column in (0, 1):
            weight = np.abs(1 - row - part[..., 0]) * np.abs(1 - column - part[..., 1])
            result += weight * padded[image, low[..., 0] + row, low[..., 1] + column]
    return result.reshape(-1, IMAGE_SIZE, IMAGE_SIZE)


def _patch_means(ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average ``(n, 32, 32)`` over the patches: ``(n, 64)``, patches in row-major order."""
    blocks = ink.reshape(-1, PATCHES_PER_SIDE, PATCH_SIZE, PATCHES_PER_SIDE, PATCH_SIZE)
    means: NDArray[np.float64] = blocks.mean(axis=(2, 4)).reshape(-1, PATCHES_PER_SIDE**2)
    return means
