"""Signal to noise of a quantised vision network on photographs: on those it was calibrated with, and on others.

    python scripts/photo_accuracy.py MODEL                           16 crops for calibration, presets w8a8 and w8a10
    python scripts/photo_accuracy.py MODEL --precision mine.toml --crops 32 --json

MODEL is a Model folder of a network of RGB photographs, such as `edgemoe import` makes of a DINOv2. Figures are those
of the bit-accurate simulator against the float64 network. `test` are other crops of the pictures that calibration saw,
`unseen` are crops of pictures that it did not see: a quantisation that only fits its calibration shows in the second.

The photographs come with scikit-image (CC0 or public domain, by its docstrings) and scikit-learn (CC BY 2.0); none is
part of this repository.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from common.errors import EdgeMoeError
from pysim.compare import compare
from pysim.extras import require
from pysim.model import Model
from pysim.precision import find_precision
from pysim.quantizer import quantize
from pysim.simulator import simulate

Pixels = NDArray[np.uint8]

SEEN: Final = ("astronaut", "chelsea", "coffee", "rocket", "retina", "ihc", "china.jpg", "flower.jpg")
"""Pictures that calibration takes its crops from."""
UNSEEN: Final = ("motorcycle_left", "hubble_deep_field", "camera", "coins")
SMALLEST: Final = 0.5
"""Side of the smallest crop, as a share of the picture's shorter side."""

console = Console(stderr=True)


@dataclass(frozen=True)
class Result:
    """Figures of one precision.

    Attributes:
        precision: its name.
        test_db: signal to noise of the final tokens on other crops of the pictures of calibration.
        unseen_db: the same on crops of other pictures.
        seconds: what `quantize` took.
        warnings: those of the Design.
    """

    precision: str
    test_db: float
    unseen_db: float
    seconds: float
    warnings: tuple[str, ...]


def picture(name: str) -> Image.Image:
    """A photograph by the name of its file in scikit-image, or with a suffix in scikit-learn."""
    require("the photographs", "skimage", "sklearn", extra="photos")
    if "." in name:
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(name))
    import skimage

    (file,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
    with Image.open(file) as opened:
        return opened.convert("RGB")


def crops(names: Sequence[str], count: int, size: tuple[int, int], generator: np.random.Generator) -> Pixels:
    """(count, 3, H, W) pixels of random crops, from each picture in turn."""
    pictures = [picture(name) for name in names]
    made = []
    for i in range(count):
        whole = pictures[i % len(pictures)]
        side = int(min(whole.size) * generator.uniform(SMALLEST, 1))
        left, top = (int(generator.integers(0, extent - side + 1)) for extent in whole.size)
        cut = whole.resize(size[::-1], Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        made.append(np.asarray(cut).transpose(2, 0, 1))
    return np.stack(made)


def measure(model: Model, precision: str, calibration: Pixels, test: Pixels, unseen: Pixels) -> Result:
    """Quantise and compare with the float network."""
    start = time.perf_counter()
    with console.status(f"quantising {precision}"):
        design = quantize(model, calibration, find_precision(precision))
    seconds = time.perf_counter() - start
    on_test, on_unseen = (
        compare(model, design, images, 0, simulate(design, images)).sqnr_db for images in (test, unseen)
    )
    return Result(precision, on_test, on_unseen, seconds, design.warnings)


def print_table(results: Sequence[Result], title: str) -> None:
    """Print what people read."""
    table = Table(title=title)
    for heading in ("precision", "test dB", "unseen dB", "quantize s"):
        table.add_column(heading, justify="left" if heading == "precision" else "right")
    for result in results:
        figures = (f"{figure:.1f}" for figure in (result.test_db, result.unseen_db, result.seconds))
        table.add_row(result.precision, *figures)
    Console().print(table)
    for result in results:
        for warning in result.warnings:
            console.print(f"{result.precision}: {warning}")


def main(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder of a network of RGB images.")],
    precision: Annotated[list[str] | None, typer.Option(help="Preset or .toml file; any number.")] = None,
    count: Annotated[int, typer.Option("--crops", min=1, help="Calibration crops.")] = 16,
    held: Annotated[int, typer.Option("--held", min=1, help="Crops of either held-out kind.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the crops.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the signal to noise of a network on photographs."""
    try:
        model = Model.load(folder)
        generators = np.random.default_rng(seed).spawn(3)
        size = model.spec.image_size
        sets = [(SEEN, count), (SEEN, held), (UNSEEN, held)]
        calibration, test, unseen = (
            crops(names, number, size, generator)
            for (names, number), generator in zip(sets, generators, strict=True)
        )
        results = [measure(model, name, calibration, test, unseen) for name in precision or ["w8a8", "w8a10"]]
    except EdgeMoeError as error:
        console.print(f"[red]error:[/red] {error.message}" + (f" ({error.hint})" if error.hint else ""))
        raise typer.Exit(error.exit_code) from None
    if as_json:
        data: dict[str, Any] = {"model": model.spec.name, "crops": count, "held": held, "seed": seed}
        print(json.dumps(data | {"results": [asdict(result) for result in results]}, indent=2))
    else:
        print_table(results, f"{model.spec.name}, {count} calibration crops")


if __name__ == "__main__":
    typer.run(main)
