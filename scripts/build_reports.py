"""The reports that the documentation site shows: of the digits network and of M3ViT-tiny.

    python scripts/build_reports.py [--out build/reports] [NAME ...]

Leaves `NAME.html`, where it is not there already. `digits` takes a minute or two, `m3vit-tiny` about as long.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import edgemoe
from edgemoe.demo import MODEL
from frontend import digits
from pysim.model import Model

BOARD, PRECISION = "zcu102", "w8a8"
SHOWN = 4
"""Images that a report runs, from the held-out scenes of the digits data."""


def shipped() -> Model:
    """The trained network."""
    return edgemoe.load_model(MODEL)


def random_weights() -> Model:
    """M3ViT-tiny in its published shape, with seeded random weights: nobody publishes trained ones."""
    return edgemoe.init_model("m3vit-tiny")


NETWORKS: dict[str, Callable[[], Model]] = {"digits": shipped, "m3vit-tiny": random_weights}


def scenes(model: Model, split: Literal["train", "heldout"], count: int, folder: Path) -> NDArray[np.uint8]:
    """The first scenes of the digits data, made to fit a network."""
    folder.mkdir()
    for number, scene in enumerate(digits.load_scenes(split).images[:count, 0]):
        Image.fromarray(scene).save(folder / f"{number:03}.png")
    return edgemoe.load_images(folder, model, resize="crop")


def build(name: str, path: Path) -> None:
    """Quantise a network, generate and verify its accelerator, and write the report."""
    model = NETWORKS[name]()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        calibration = scenes(model, "train", 32, work / "calibration")
        shown = scenes(model, "heldout", SHOWN, work / "shown")
        design = edgemoe.quantize(model, calibration, PRECISION)
        edgemoe.generate(design, work / "build", BOARD, shown[:1], model=model)
        edgemoe.verify(work / "build")
        edgemoe.report(work / "build", path, shown, model=model)


def main() -> int:
    """Build what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; all if not given"
    )
    parser.add_argument("--out", type=Path, default=Path("build/reports"), help="folder (build/reports)")
    options = parser.parse_args()
    unknown = set(options.names) - set(NETWORKS)
    if unknown:
        parser.error(f"no report {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or NETWORKS:
        path = options.out / f"{name}.html"
        if path.exists():
            print(f"{path} is there")
        else:
            build(name, path)
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
