"""Time the bit-accurate simulator against the float64 numpy reference, on a batch of images of an M3ViT-tiny.

Every preset and the reference run in turn, in one thread, round after round, so that a slow minute of the machine
hits all of them alike; what counts is the ratio of the medians of their processor time, which other programs disturb
less than the clock on the wall. Exit code 1 when a ratio, or the peak of resident memory, misses its target.

    python scripts/bench_pysim.py
    python scripts/bench_pysim.py --model my-model --image picture.npy --json
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from common.errors import EdgeMoeError
from frontend.zoo import find_spec
from pysim import reference
from pysim.images import load_image
from pysim.model import Model, init_model
from pysim.precision import PRESETS
from pysim.quantizer import quantize
from pysim.simulator import simulate
from pysim.threads import one_thread

ZOO_NAME: Final = "m3vit-tiny"
PEER: Final = "float64 numpy reference"
TARGETS: Final = {"w16a16": 1.0, "w8a8": 0.5, "iccad23": 8.0}
"""Times as slow as the peer that a preset may be, in batches of `BATCH`."""
BATCH: Final = 16
CALIBRATION_IMAGES: Final = 2
MEMORY_TARGET_MB: Final = 1000.0

console = Console(stderr=True)


@dataclass(frozen=True)
class Timing:
    """Seconds of one thread for a batch.

    Attributes:
        name: a preset, or the peer.
        median: median over the repeats.
        fastest: shortest of the repeats.
        slowest: longest of the repeats.
        ratio: median over the peer's median.
        target: the largest ratio allowed; None for the peer.
    """

    name: str
    median: float
    fastest: float
    slowest: float
    ratio: float
    target: float | None

    @property
    def met(self) -> bool:
        """Whether the ratio is within the target."""
        return self.target is None or self.ratio <= self.target


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, `repeats` times in turn, after one warm-up each in which numba compiles."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return seconds


def timings(seconds: dict[str, list[float]]) -> list[Timing]:
    """Medians and ratios, the peer first."""
    peer = statistics.median(seconds[PEER])
    return [
        Timing(
            name,
            statistics.median(values),
            min(values),
            max(values),
            statistics.median(values) / peer,
            TARGETS.get(name),
        )
        for name, values in seconds.items()
    ]


def benchmark(model: Model, images: NDArray[np.uint8], repeats: int) -> tuple[list[Timing], float]:
    """Time the peer and every preset on a batch; also the peak resident memory so far, in MB."""
    runs: dict[str, Callable[[], Any]] = {PEER: partial(reference.run, model, images)}
    for name in TARGETS:
        with console.status(f"quantising {name}"):
            design = quantize(model, images[:CALIBRATION_IMAGES], PRESETS[name])
        runs[name] = partial(simulate, design, images)
    with console.status(f"{repeats} rounds"):
        result = timings(measure(runs, repeats))
    return result, peak_memory_mb()


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, quantisation included."""
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def print_table(result: list[Timing], memory: float, model: Model, batch: int, repeats: int) -> None:
    """Print what people read."""
    spec = model.spec
    table = Table(
        title=f"{spec.name}: {spec.tokens} tokens of {spec.dim}, {spec.depth} layers, {batch} image(s); "
        f"median of {repeats}, one thread"
    )
    for heading in ("", "median ms", "range ms", "ratio", "target", "met"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for timing in result:
        median, low, high = (1e3 * value for value in (timing.median, timing.fastest, timing.slowest))
        target = "peer" if timing.target is None else f"{timing.target:g}"
        verdict = "" if timing.target is None else _verdict(timing.met)
        span = f"{low:.1f}-{high:.1f}"
        table.add_row(timing.name, f"{median:.1f}", span, f"{timing.ratio:.2f}", target, verdict)
    table.add_section()
    met = _verdict(memory <= MEMORY_TARGET_MB)
    table.add_row("peak resident memory", "", "", f"{memory:.0f} MB", f"{MEMORY_TARGET_MB:.0f} MB", met)
    Console().print(table)


def _verdict(met: bool) -> str:
    return "[green]yes[/green]" if met else "[red]no[/red]"


def as_json(result: list[Timing], memory: float, model: Model, batch: int, repeats: int) -> dict[str, Any]:
    """The result as one JSON object."""
    return {
        "model": model.spec.name,
        "tokens": model.spec.tokens,
        "images": batch,
        "repeats": repeats,
        "peer": PEER,
        "runs": {timing.name: asdict(timing) | {"met": timing.met} for timing in result},
        "peak_memory_mb": memory,
        "peak_memory_target_mb": MEMORY_TARGET_MB,
        "ok": all_met(result, memory),
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def all_met(result: list[Timing], memory: float) -> bool:
    """Whether nothing missed its target."""
    return memory <= MEMORY_TARGET_MB and all(timing.met for timing in result)


def main(
    model: Annotated[
        Path | None, typer.Option(help="Model folder; without one, a random m3vit-tiny.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help=".npy of uint8 (C, H, W), else random pixels.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of a batch.")] = BATCH,
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 7,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time the simulator against the float64 reference."""
    try:
        one_thread()
        network = Model.load(model) if model else init_model(find_spec(ZOO_NAME), seed=0)
        spec = network.spec
        shape = (images, spec.in_channels, *spec.image_size)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        if image is not None:
            pixels[:] = load_image(image, spec)
        result, memory = benchmark(network, pixels, repeats)
    except EdgeMoeError as error:
        console.print(f"[red]error:[/red] {error.message}" + (f" ({error.hint})" if error.hint else ""))
        raise typer.Exit(error.exit_code) from None
    if as_json_:
        print(json.dumps(as_json(result, memory, network, images, repeats), indent=2))
    else:
        print_table(result, memory, network, images, repeats)
    raise typer.Exit(0 if all_met(result, memory) else 1)


if __name__ == "__main__":
    typer.run(main)
