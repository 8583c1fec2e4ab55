"""Ways to make a picture of another size fit a network. Needs the standard library only."""

from __future__ import annotations

from typing import Final, NamedTuple

RESIZES: Final = ("crop", "stretch", "pad")
"""Ways to make a picture of another size fit: see `Fit`."""
FILTERS: Final = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Filters for resizing, by pillow's names."""


class Fit(NamedTuple):
    """Way to make pictures fit, with the same steps as torchvision's and timm's transforms.

    Attributes:
        method: `crop` keeps the proportions and the middle, and cuts off what is left over; `stretch` does not keep the
            proportions; `pad` keeps them and adds black borders.
        crop: share of the resized picture's sides that is kept, in the middle; 0.875 of 224 pixels resizes to 256.
        resample: filter, one of `FILTERS`.
    """

    method: str = "crop"
    crop: float = 1.0
    resample: str = "bilinear"

    def __str__(self) -> str:
        """The steps in words."""
        middle = f", the middle {self.crop:.4g} of it kept" if self.crop < 1 else ""
        what = {
            "crop": "resized and cut to the network's shape",
            "stretch": "stretched",
            "pad": "resized and padded",
        }
        return f"{what[self.method]} ({self.resample}{middle})"
