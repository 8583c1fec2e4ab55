"""`python3 -m host`: run images on the board, with nothing but this folder installed."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.decoded import decoded_json
from common.errors import EdgeMoeError, InputError
from common.outputs import Kind, csv_text, flat, kind_of
from common.pictures import each_picture, image_files
from common.printable import one_line
from common.process import run_program, system_error
from common.tasks import chosen_tasks as by_option
from common.video import Source, require_readable
from host.benchmark import as_lines, benchmark
from host.board import Board
from host.driver import Accelerator, locate
from host.emulated import EmulatedBoard
from host.manifest import Manifest
from host.result import Result


class Run(NamedTuple):
    """One image and task.

    Attributes:
        image: its file, for people; of a video with the number of the frame.
        pixels: (channels, H, W) uint8.
        result: what came out.
        seconds: from the image file to the result.
        emulated: whether there was no board.
    """

    image: str
    pixels: NDArray[np.uint8]
    result: Result
    seconds: float
    emulated: bool


def run_files(
    accelerator: Accelerator,
    images: Sequence[Source],
    tasks: Sequence[str],
    frames: int | None = None,
) -> Iterator[Run]:
    """Run every task on every image, one after the other.

    Args:
        accelerator: the accelerator.
        images: image files, videos, folders of images, and numbers of cameras.
        tasks: names of tasks.
        frames: of each video and camera at most.
    """
    manifest = accelerator.manifest
    sources = [
        each for source in images for each in ([source] if isinstance(source, int) else image_files([source]))
    ]
    found = each_picture(sources, manifest.images.shape, fit=manifest.fit, frames=frames)
    with closing(found):
        start = time.perf_counter()
        for name, pixels in found:
            for task in tasks:
                result = accelerator.run(pixels, task)
                yield Run(name, pixels, result, time.perf_counter() - start, accelerator.emulated)
                start = time.perf_counter()


def chosen_tasks(accelerator: Accelerator, task: str | None) -> list[str]:
    """The tasks that an option names: one, `all`, or the first if not given."""
    return by_option(accelerator.tasks, task)


def as_json(run: Run) -> dict[str, Any]:
    """A run under the key names that scripts rely on."""
    result = run.result
    decoded: dict[str, Any] = {}
    if result.output is not None:
        kind = "label" if result.output.ndim == 1 else "map"
        decoded[kind] = result.label if kind == "label" else result.map.tolist()
        decoded |= decoded_json(result.task, result.output, result.classes)
    return {
        "image": run.image,
        "task": result.task,
        "tokens_sha256": hashlib.sha256(result.integers.astype("<i8").tobytes()).hexdigest(),
        "cycles": result.cycles,
        "latency_ms": result.latency_ms,
        "seconds": run.seconds,
        **decoded,
    }


def as_text(run: Run) -> str:
    """A run in one line, for people."""
    result = run.result
    digest = as_json(run)["tokens_sha256"][:16]
    if result.cycles is None or result.latency_ms is None:
        clock = f"{run.seconds:.3f} s {'emulated' if run.emulated else 'with the host, no cycles counted'}"
    else:
        clock = f"{result.cycles:,} cycles, {result.latency_ms:.3f} ms"
    return one_line(f"{run.image}: {result.task}: {result}; {clock}; tokens {digest}")


def save_runs(path: Path, kind: Kind, runs: Sequence[Run], results: Mapping[str, Any]) -> None:
    """Write runs into a new file.

    Args:
        path: the file.
        kind: arrays, called `NUMBER.TASK.integers` and `NUMBER.TASK.output`; a line for each image and task; or the
            results as JSON.
        runs: all of them.
        results: what `summary` makes of them.
    """
    if kind == "json":
        with path.open("x", encoding="utf-8") as text:
            text.write(json.dumps(results, indent=2) + "\n")
    elif kind == "csv":
        with path.open("x", encoding="utf-8", newline="") as text:
            text.write(csv_text([as_row(run) for run in runs]))
    else:
        with path.open("xb") as file:
            np.savez(file, **_arrays(runs))  # type: ignore[arg-type]


def as_row(run: Run) -> dict[str, Any]:
    """A run as a line of a table."""
    output, result = run.result.output, run.result
    decoded = {} if output is None else flat(decoded_json(result.task, output, result.classes))
    kept = ("image", "task", "tokens_sha256", "cycles", "latency_ms", "seconds")
    return {name: value for name, value in as_json(run).items() if name in kept} | decoded


def _arrays(runs: Sequence[Run]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    numbers: dict[str, int] = {}
    for run in runs:
        number = numbers.setdefault(run.image, len(numbers))
        arrays[f"{number}.image"] = np.array(run.image)
        arrays[f"{number}.{run.result.task}.integers"] = run.result.integers
        if run.result.output is not None:
            arrays[f"{number}.{run.result.task}.output"] = run.result.output
    return arrays


def emulated_board(build: Path, library: Path) -> Board:
    """An emulated board for a build: behind PYNQ where it is installed, else the built-in one."""
    manifest = Manifest.load(locate(build)[0])
    if manifest.runtime == "xrt":
        return EmulatedBoard(manifest, library)
    try:
        from host.pynq_board import PynqBoard
        from host.pynq_device import EmulatedDevice
    except ImportError:
        return EmulatedBoard(manifest, library)
    device = EmulatedDevice(manifest, library)
    return PynqBoard(device.hwh.with_suffix(".bit"), manifest.kernel, device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: as those of `edgemoe`."""
    return run_program(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m host", description="Run images on the accelerator.")
    parser.add_argument(
        "build", type=Path, nargs="?", default=Path(), help="folder with manifest.json, or the .bit"
    )
    parser.add_argument(
        "--image",
        "--images",
        type=Path,
        action="append",
        default=[],
        help="image, video, or a folder of images; repeatable",
    )
    parser.add_argument("--camera", type=int, metavar="N", help="frames of this camera, 0 for the first")
    parser.add_argument("--frames", type=int, metavar="N", help="frames of each video and camera at most")
    parser.add_argument("--task", help="task, or `all`; the first if not given")
    parser.add_argument("--timeout", type=float, help="seconds that a call may take")
    parser.add_argument("--out", type=Path, help="save results in this .npz, .csv or .json")
    parser.add_argument(
        "--benchmark", type=int, metavar="N", help="measure latency, images a second and power with N runs"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--emulate", type=Path, metavar="LIBRARY", help="the kernel compiled for this computer"
    )
    options = parser.parse_args(arguments)
    try:
        try:
            _run(options)
        except BrokenPipeError:
            raise
        except OSError as refused:
            raise system_error(refused) from None
    except EdgeMoeError as error:
        if options.json:
            print(json.dumps({"error": error.message, "hint": error.hint}, indent=2))
        else:
            print(
                f"error: {error.message}",
                *([f"hint: {error.hint}"] if error.hint else []),
                sep="\n",
                file=sys.stderr,
            )
        return error.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    if options.out is not None and options.out.exists():
        raise InputError(
            f"{options.out}: exists already", hint="choose another output, or remove this one first"
        )
    kind = None if options.out is None else kind_of(options.out)
    images = sources(options.image, options.camera)
    board = None if options.emulate is None else emulated_board(options.build, options.emulate)
    runs = []
    with Accelerator(options.build, board=board, timeout=options.timeout) as accelerator:
        for run in run_files(accelerator, images, chosen_tasks(accelerator, options.task), options.frames):
            runs.append(run)
            if not options.json:
                print(as_text(run), flush=True)
        results = summary(accelerator, runs)
        if options.benchmark is not None:
            show = (lambda line: None) if options.json else print
            results |= measured(accelerator, runs, options.benchmark, show)
        if kind is not None:
            save_runs(options.out, kind, runs, results)
        if options.json:
            print(json.dumps(results, indent=2))


def sources(images: Sequence[Path], camera: int | None) -> list[Source]:
    """Sources of images that options name.

    Raises:
        InputError: none, or a video or camera that cannot be read here.
    """
    if camera is not None and camera < 0:
        raise InputError(f"--camera {camera}, expected 0 for the first camera, 1 for the second, ...")
    found: list[Source] = [*images, *([] if camera is None else [camera])]
    for source in found:
        require_readable(source)
    if not found:
        raise InputError(
            "neither --image nor --camera: nothing to run",
            hint="--image PATH takes a picture, a video or a folder of pictures; --camera 0 the first camera",
        )
    return found


def measured(
    accelerator: Accelerator, runs: Sequence[Run], count: int, show: Callable[[str], None]
) -> dict[str, Any]:
    """The benchmark of every task that was run, on the first image; shown line by line, and as JSON."""
    found = []
    for task in dict.fromkeys(run.result.task for run in runs):
        found.append(benchmark(accelerator, runs[0].pixels, task, count))
        for line in as_lines(found[-1]):
            show(line)
    return {"benchmark": [asdict(each) for each in found]}


def summary(accelerator: Accelerator, runs: Sequence[Run]) -> dict[str, Any]:
    """All runs under the key names that scripts rely on."""
    manifest = accelerator.manifest
    return {
        "design_id": manifest.design_id,
        "hardware_id": manifest.hardware_id,
        "board": manifest.board,
        "emulated": accelerator.emulated,
        "clock_mhz": accelerator.clock_mhz,
        "runs": [as_json(run) for run in runs],
    }
