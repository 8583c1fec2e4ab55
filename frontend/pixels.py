"""Image normalisation, folded into the patch embedding so that the network reads 8-bit pixels as p / 256."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError

FloatArray = NDArray[np.float64]

FULL_SCALE = 255.0
"""The pixel that image libraries map to 1."""
PIXEL_UNITS = 256.0
"""A pixel p stands for p / 256 in our networks."""


@dataclass(frozen=True)
class Normalization:
    """Normalisation of a network's input: (p / scale - mean) / std, channel by channel, for pixels p.

    Attributes:
        mean: one value a channel, or one for all.
        std: the same.
        scale: the pixel value that stands for 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = FULL_SCALE

    def fold(self, weight: FloatArray, bias: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Patch weight (dim, channels, p, p) and bias (dim,) for pixels that stand for p / 256.

        Raises:
            InputError: the normalisation is for another number of channels.
        """
        channels = weight.shape[1]
        if len(self.mean) not in (1, channels):
            raise InputError(
                f"normalisation of {len(self.mean)} channels, but the network's images have {channels}",
                hint="--normalize takes half, unit, none, or MEAN/STD such as 0.5/0.5",
            )
        mean, std = (np.broadcast_to(np.array(values), channels) for values in (self.mean, self.std))
        scaled = weight * (PIXEL_UNITS / self.scale / std)[:, None, None]
        return scaled, bias - np.einsum("dcij,c->d", weight, mean / std)


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NONE = Normalization((0.0,), (1.0,), PIXEL_UNITS)
NORMALIZATIONS = {
    "imagenet": IMAGENET,
    "half": Normalization((0.5,), (0.5,)),
    "unit": Normalization((0.0,), (1.0,)),
    "none": NONE,
}
"""Normalisations by name: ImageNet's mean and std; 0.5 and 0.5; p / 255 as it is; p / 256, nothing to fold."""


def parse_normalization(text: str) -> Normalization:
    """A name, or `MEAN/STD` with one value or one a channel, such as `0.48,0.46,0.41/0.23,0.22,0.22`."""
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    number = r"\d+(?:\.\d+)?"
    match = re.fullmatch(rf"({number}(?:,{number})*)/({number}(?:,{number})*)", text)
    if match is not None:
        mean, std = (tuple(float(value) for value in part.split(",")) for part in match.groups())
        if len(mean) == len(std):
            return checked(mean, std, FULL_SCALE, f"--normalize {text}")
    raise InputError(
        f"--normalize {text!r}: unknown",
        hint=f"one of {', '.join(NORMALIZATIONS)}, or MEAN/STD such as 0.5,0.5,0.5/0.25,0.25,0.25",
    )


def checked(mean: tuple[float, ...], std: tuple[float, ...], scale: float, what: str) -> Normalization:
    """A normalisation whose numbers make sense."""
    usable = all(math.isfinite(value) for value in (*mean, *std)) and all(
        value > 0 for value in (*std, scale)
    )
    if not usable or len(mean) != len(std) or not mean:
        raise InputError(f"{what}: mean {mean} and std {std}, expected finite values and positive deviations")
    return Normalization(mean, std, scale)


def fold_normalization(given: Normalization | None, channels: int, where: str) -> tuple[Normalization, str]:
    """The normalisation to fold, ImageNet's unless another one is given, and what to say about it.

    Raises:
        InputError: none was given, and ImageNet's does not fit.
    """
    if given is None and channels != len(IMAGENET.mean):
        raise InputError(
            f"{where}: {channels} channels: --normalize needed, as ImageNet's mean and std are for 3",
            hint="--normalize half, unit, none, or MEAN/STD such as 0.5/0.5",
        )
    chosen = given or IMAGENET
    shown = f"mean {_shown(chosen.mean)}, std {_shown(chosen.std)} of pixels / {chosen.scale:g}"
    return chosen, f"folded into the patch embedding: image normalisation ({shown})"


def _shown(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
