"""Settings of the quantiser, judged on calibration pictures alone: is there a better one, and does it matter?

    python scripts/quantiser_settings.py                     the shipped networks
    python scripts/quantiser_settings.py --photos MODEL      and a Model of RGB photographs, as photo_accuracy.py takes

The calibration set of each network (training images; of photographs, crops of the pictures that `photo_accuracy.py`
calibrates with) is divided: the network is quantised on one part and compared with the float network on the other,
bit by bit, with the same experts. Pictures of evaluations are not touched. Every setting is changed by itself, the
others being what the quantiser has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final
from unittest.mock import patch

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from common.errors import EdgeMoeError  # noqa: E402
from frontend import digits, fashion  # noqa: E402
from pysim import clipping, quantizer, rounding, statistic  # noqa: E402
from pysim.calibrate import calibrate  # noqa: E402
from pysim.compare import compare  # noqa: E402
from pysim.model import Model  # noqa: E402
from pysim.precision import find_precision  # noqa: E402
from pysim.simulator import simulate  # noqa: E402
from pysim.statistic import Statistic  # noqa: E402
from scripts.photo_accuracy import SEEN, crops  # noqa: E402

Pixels = NDArray[np.uint8]

SETTINGS: Final[dict[str, tuple[ModuleType, str, tuple[float, ...]]]] = {
    "damping": (rounding, "DAMPING", (0.01, 0.02, 0.05, 0.1, 0.2)),
    "towards values": (statistic, "TOWARDS_BOUNDS", (0.0, 0.25, 0.5, 0.75, 1.0)),
    "least gain": (clipping, "LEAST_GAIN", (0.0, 0.8, 0.9, 1.0)),
}
"""Module, name and values of each setting; a least gain of 0 clips nothing."""
DATA: Final = Path(digits.__file__).parent / "data"
PHOTO_CROPS: Final = 8

console = Console(stderr=True)


@dataclass(frozen=True)
class Fold:
    """A network with two parts of its calibration pictures.

    Attributes:
        name: of the network.
        model: the float network.
        fitted: (images, channels, H, W) pixels that it is quantised on.
        judged: others, that it is judged on.
    """

    name: str
    model: Model
    fitted: Pixels
    judged: Pixels


@dataclass(frozen=True)
class Result:
    """Figure of a setting.

    Attributes:
        setting: its name.
        value: of the setting.
        network: name of the network.
        fold: number of the fold.
        sqnr_db: mean signal to noise of all tasks' final tokens, with the same experts.
    """

    setting: str
    value: float
    network: str
    fold: int
    sqnr_db: float


def folds_of(name: str, model: Model, images: Pixels) -> list[Fold]:
    """Both halves of some pictures, each judged by the other."""
    halves = images[::2], images[1::2]
    return [Fold(name, model, halves[i], halves[1 - i]) for i in range(2)]


def shipped() -> list[Fold]:
    """Folds of the shipped networks: their first training images, as the demo and the evaluation calibrate with."""
    found = folds_of("digits", Model.load(DATA / "digits"), digits.load_scenes("train").images[:128])
    if fashion.FOLDER.is_dir():
        garments = fashion.load_garments("train").images[:256]
        found += folds_of("fashion", Model.load(DATA / "fashion"), garments)
    else:
        console.print(f"{fashion.FOLDER} is not there: without Fashion-MNIST")
    return found


def photographs(folder: Path) -> list[Fold]:
    """Folds of a network of photographs: crops of half of the pictures are judged by those of the other half."""
    model = Model.load(folder)
    generators = np.random.default_rng(1).spawn(2)
    halves = [
        crops(SEEN[i::2], PHOTO_CROPS, model.spec.image_size, generator)
        for i, generator in enumerate(generators)
    ]
    return [Fold(model.spec.name, model, halves[i], halves[1 - i][: PHOTO_CROPS // 2]) for i in range(2)]


def judge(fold: Fold, precision: str) -> float:
    """Signal to noise in dB of a Design that is made of one part, on the other."""
    design = quantizer.quantize(fold.model, fold.fitted, find_precision(precision))
    runs = ((task, simulate(design, fold.judged, task)) for task in fold.model.spec.tasks)
    return float(
        np.mean(
            [compare(fold.model, design, fold.judged, task, run).sqnr_db_same_routing for task, run in runs]
        )
    )


def once(function: Callable[..., dict[str, Statistic]]) -> Callable[..., dict[str, Statistic]]:
    """The same function, which returns what it found at first: calibration does not depend on the settings."""
    kept: list[dict[str, Statistic]] = []

    def again(*given: Any, **options: Any) -> dict[str, Statistic]:
        if not kept:
            kept.append(function(*given, **options))
        return dict(kept[0])

    return again


def measure(folds: list[Fold], precision: str, settings: list[str]) -> Iterator[Result]:
    """Figures of every setting on every fold."""
    number: dict[str, int] = {}
    for fold in folds:
        number[fold.name] = number.get(fold.name, -1) + 1
        with ExitStack() as stack:
            stack.enter_context(patch.object(quantizer, "calibrate", once(calibrate)))
            usual = judge(fold, precision)
            for name in settings:
                module, constant, values = SETTINGS[name]
                for value in values:
                    if value == getattr(module, constant):
                        figure = usual
                    else:
                        with patch.object(module, constant, value):
                            figure = judge(fold, precision)
                    yield Result(name, value, fold.name, number[fold.name], figure)


def print_tables(results: list[Result]) -> None:
    """Print a table for each setting: mean over folds by network, and over networks less that of the present value."""
    for name in dict.fromkeys(result.setting for result in results):
        module, constant, _ = SETTINGS[name]
        mine = [result for result in results if result.setting == name]
        networks = list(dict.fromkeys(result.network for result in mine))
        table = Table(title=f"{name} ({module.__name__}.{constant} = {getattr(module, constant)})")
        for heading in (name, *networks, "mean"):
            table.add_column(heading, justify="right")
        for value in dict.fromkeys(result.value for result in mine):
            of = partial(_mean, [result for result in mine if result.value == value])
            table.add_row(f"{value:g}", *(f"{of(network):.2f}" for network in networks), f"{of(None):.2f}")
        Console().print(table)


def _mean(results: list[Result], network: str | None) -> float:
    return float(np.mean([result.sqnr_db for result in results if network in (None, result.network)]))


def main(
    photos: Annotated[Path | None, typer.Option(metavar="MODEL", help="Model of RGB photographs.")] = None,
    precision: Annotated[str, typer.Option(help="Preset or .toml file.")] = "w8a8",
    setting: Annotated[list[str] | None, typer.Option(help="Setting to change; any number.")] = None,
    only_photos: Annotated[bool, typer.Option(help="Leave the shipped networks out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge settings of the quantiser on calibration pictures."""
    try:
        folds = [] if only_photos else shipped()
        folds += photographs(photos) if photos else []
        results = []
        for result in measure(folds, precision, setting or list(SETTINGS)):
            console.print(
                f"{result.network} {result.fold}: {result.setting} {result.value:g}: {result.sqnr_db:.2f} dB"
            )
            results.append(result)
    except EdgeMoeError as error:
        console.print(f"[red]error:[/red] {error.message}" + (f" ({error.hint})" if error.hint else ""))
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print(
            json.dumps({"precision": precision, "results": [asdict(result) for result in results]}, indent=2)
        )
    else:
        print_tables(results)


if __name__ == "__main__":
    typer.run(main)
