"""The demo: the shipped two-task network on real images, through the whole flow.

Each step takes the `Demo` and adds to it; a further step is a further function called by `run_demo`.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import edgemoe
from common.errors import CheckError
from edgemoe import tables
from edgemoe.console import Console
from edgemoe.hardware import estimate_json, show_verification, verification_json
from edgemoe.runs import TaskRun, run_task
from frontend import digits
from pysim.extras import require
from pysim.files import new_folder, require_new
from pysim.precision import PRESETS
from pysim.reference import apply_head

if TYPE_CHECKING:
    from codegen.csim import CsimResult
    from codegen.performance import Performance
    from pysim.design import Design
    from pysim.model import Model

MODEL = Path(digits.__file__).parent / "data" / "digits"

CALIBRATION_SCENES = 128

TARGET_LOSS = {"w16a16": 0.1, "w8a8": 1.0, "w8a10": 0.5}
"""Percentage points that a preset may lose on any task."""

SAVED_IMAGES = 16
PICTURED = 8
PICTURED_PRESET = "w8a8"

BUILT_PRESET = "w8a8"
BOARD = "zcu102"
VERIFIED_SCENES = 4
"""Held-out scenes that go through the compiled C++ in one batch."""


@dataclass
class Demo:
    """Findings of the demo so far.

    Attributes:
        model: the shipped network.
        scenes: the held-out scenes.
        calibration: (scenes, 1, H, W) training images.
        accuracy: percent right, per network ("float" or a preset) and task.
        predictions: class numbers, per network and task.
        designs: per preset.
        runs: per preset, one for each task.
        verification: what the compiled C++ of `BUILT_PRESET` was compared with; None if it ended abnormally.
        estimate: of the same hardware, one image at a time.
        checks: what was promised and missed.
    """

    model: Model
    scenes: digits.Scenes
    calibration: NDArray[np.uint8]
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    predictions: dict[str, dict[str, NDArray[np.int64]]] = field(default_factory=dict)
    designs: dict[str, Design] = field(default_factory=dict)
    runs: dict[str, list[TaskRun]] = field(default_factory=dict)
    verification: CsimResult | None = None
    estimate: Performance | None = None
    checks: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return self.model.spec.tasks

    def predict(self, network: str, task: str, tokens: NDArray[np.float64]) -> None:
        """Apply a task's head to final tokens and note how many labels it hits."""
        outputs = apply_head(self.model, task, tokens)
        assert outputs is not None, f"the shipped network has a head for {task}"
        chosen = outputs.argmax(-1)
        self.predictions.setdefault(network, {})[task] = chosen
        accuracy = 100 * float((chosen == self.scenes.labels[task]).mean())
        self.accuracy.setdefault(network, {})[task] = accuracy


def run_demo(console: Console, output: Path | None = None, *, scenes: int | None = None) -> None:
    """Run every step, print the results, and keep them in a folder if one is named.

    Args:
        console: where to print.
        output: folder for Model, Designs, HLS project, summary and picture.
        scenes: held-out scenes to simulate; all if not given.

    Raises:
        CheckError: a preset lost more accuracy than promised, or the compiled C++ differs from the simulator.
        InputError: the folder exists, or a package or g++ is missing.
    """
    if output is not None:
        require_new(output)
    _require_tools(drawing=output is not None)
    with tempfile.TemporaryDirectory() as temporary:
        _run(console, output, scenes, Path(temporary) / "build")


def _run(console: Console, output: Path | None, scenes: int | None, build: Path) -> None:
    start = time.perf_counter()
    demo = _load(scenes)
    _run_float(demo)
    for preset in PRESETS:
        _run_preset(demo, preset, console)
    _check_accuracy(demo)
    _show(demo, console)
    _verify(demo, build, console)
    _estimate(demo, build, console)
    console.result(summary(demo) | {"seconds": time.perf_counter() - start})
    if output is None:
        console.note(
            "nothing was saved: -o DIR keeps the Model, the Designs, the HLS project, images, "
            "a summary, a picture and a report"
        )
    else:
        _save(demo, output, build)
        console.show(
            f"saved {output}: {output / 'report.html'} shows it in a browser, {output / 'scenes.png'} the maps"
        )
    if demo.checks:
        raise CheckError(
            "; ".join(demo.checks), hint="the shipped network passes: what changed since it was trained?"
        )


def _require_tools(*, drawing: bool) -> None:
    """Look for all that the later steps need, before the first one starts."""
    from codegen.csim import find_compiler, header_folder
    from codegen.render import find_formatter

    require("the demo", "sklearn", "hls4ml", extra="demo")
    if drawing:
        require("saving the demo", "matplotlib", "plotly", extra="demo")
    find_formatter()
    header_folder()
    find_compiler()


def _load(scenes: int | None) -> Demo:
    held_out = digits.load_scenes("heldout")
    if scenes is not None:
        labels = {task: values[:scenes] for task, values in held_out.labels.items()}
        held_out = digits.Scenes(held_out.images[:scenes], labels)
    calibration = digits.load_scenes("train").images[:CALIBRATION_SCENES]
    return Demo(edgemoe.load_model(MODEL), held_out, calibration)


def _run_float(demo: Demo) -> None:
    for task in demo.tasks:
        demo.predict("float", task, edgemoe.reference(demo.model, demo.scenes.images, task).tokens)


def _run_preset(demo: Demo, preset: str, console: Console) -> None:
    with console.progress(f"{preset}: calibrating") as progress, warnings.catch_warnings():
        # They are the Design's, and shown below.
        warnings.simplefilter("ignore", edgemoe.QuantizationWarning)
        design = edgemoe.quantize(demo.model, demo.calibration, preset, progress=progress)
    for text in design.warnings:
        console.note(f"{preset}: {text}")
    demo.designs[preset], demo.runs[preset] = design, []
    for task in demo.tasks:
        with console.progress(f"{preset}: simulating {task}") as progress:
            run = run_task(
                design, demo.scenes.images, task, model=demo.model, stages=False, progress=progress
            )
        demo.runs[preset].append(run)
        demo.predict(preset, task, run.simulation.tokens)


def _check_accuracy(demo: Demo) -> None:
    for preset in demo.designs:
        allowed = TARGET_LOSS.get(preset, math.inf)
        for task in demo.tasks:
            loss = demo.accuracy["float"][task] - demo.accuracy[preset][task]
            if loss > allowed:
                demo.checks.append(
                    f"{preset} loses {loss:.2f} percentage points on {task}, promised {allowed}"
                )


def _show(demo: Demo, console: Console) -> None:
    tokens = demo.scenes.images.shape[0] * demo.model.spec.tokens
    console.show(f"{len(demo.scenes)} held-out scenes, {tokens:,} tokens, tasks {' and '.join(demo.tasks)}")
    floats = [f"{demo.accuracy['float'][task]:.2f}" for task in demo.tasks]
    rows = [["float64", *floats, *[""] * (1 + 3 * len(demo.tasks))]]
    for preset, runs in demo.runs.items():
        cells = [_accuracy_cell(demo, preset, task) for task in demo.tasks]
        for measure in (_own_sqnr, _same_sqnr, _agreement):
            cells += [measure(run) for run in runs]
        rows.append([preset, *cells, f"{sum(run.seconds for run in runs):.1f}"])
    columns = ["network"]
    for measure_name in ("acc. %", "SQNR", "same*", "routing %"):
        columns += [f"{task}\n{measure_name}" for task in demo.tasks]
    console.show(tables.table("Accuracy on held-out images, bit-accurate", [*columns, "seconds"], rows))
    console.show("SQNR in dB against float64; * with the float network made to take the same experts")
    console.show("routing %: choices of experts equal to the float network's\n")
    for run in next(iter(demo.runs.values())):
        console.show(tables.routing(run.task, run.usage))


def _accuracy_cell(demo: Demo, preset: str, task: str) -> str:
    own = demo.accuracy[preset][task]
    return f"{own:.2f} ({own - demo.accuracy['float'][task]:+.2f})"


def _own_sqnr(run: TaskRun) -> str:
    assert run.comparison is not None
    return tables.decibels(run.comparison.sqnr_db)


def _same_sqnr(run: TaskRun) -> str:
    assert run.comparison is not None
    return tables.decibels(run.comparison.sqnr_db_same_routing)


def _agreement(run: TaskRun) -> str:
    assert run.comparison is not None
    return f"{100 * run.comparison.equal_choices / run.comparison.choices:.2f}"


def _verify(demo: Demo, build: Path, console: Console) -> None:
    """Generate the C++ of a preset, compile it, and run its test bench on held-out scenes."""
    from codegen.build import Build
    from codegen.verification import record

    design, images = demo.designs[BUILT_PRESET], demo.scenes.images[:VERIFIED_SCENES]
    with console.progress(f"{BUILT_PRESET}: generating C++") as progress:
        edgemoe.generate(
            design, build, BOARD, images, batch=VERIFIED_SCENES, model=demo.model, progress=progress
        )
    with console.progress(f"{BUILT_PRESET}: compiling and running C++") as progress:
        try:
            demo.verification = edgemoe.verify(build, progress=progress)
        except CheckError as error:
            demo.checks.append(error.message)
            return
    record(Build.load(build), "csim", demo.verification, edgemoe.__version__)
    show_verification(console, demo.verification)
    if demo.verification.failed:
        demo.checks.append(
            f"{demo.verification.failed} of {demo.verification.values} values of the compiled C++ "
            "differ from the simulator's"
        )


def _estimate(demo: Demo, build: Path, console: Console) -> None:
    """Say what the generated hardware would cost."""
    from codegen.build import HARDWARE_FILE

    demo.estimate = edgemoe.estimate(
        edgemoe.load_design(build / "design"), BOARD, hardware=build / HARDWARE_FILE
    )
    shares = ", ".join(
        f"{name} {100 * demo.estimate.share(resource):.1f} %"
        for name, resource in {"DSP": "dsp", "BRAM": "bram36", "LUT": "lut"}.items()
    )
    from boards import load_board

    console.show(
        f"estimate for the {load_board(BOARD).title}, before synthesis: {BUILT_PRESET} takes "
        f"{demo.estimate.cycles:,} cycles, {demo.estimate.ms:.3f} ms an image; {shares}"
    )


def summary(demo: Demo) -> dict[str, Any]:
    """The results under the key names that scripts rely on."""
    presets = {}
    for preset, runs in demo.runs.items():
        tasks = {}
        for run in runs:
            data = run.as_json()
            tasks[run.task] = {"accuracy": demo.accuracy[preset][run.task]} | {
                key: value for key, value in data.items() if key not in ("task", "stages", "stage_images")
            }
        presets[preset] = {"design_id": demo.designs[preset].design_id, "tasks": tasks}
    results = {"scenes": len(demo.scenes), "float": {"accuracy": demo.accuracy["float"]}, "presets": presets}
    if demo.verification is not None:
        results["verify"] = verification_json(demo.verification)
    if demo.estimate is not None:
        results["estimate"] = estimate_json(demo.estimate) | {"board": BOARD, "original": None}
    return results


def _save(demo: Demo, output: Path, build: Path) -> None:
    savers: dict[str, Callable[[Path], object]] = {
        "model": demo.model.save,
        **{f"designs/{preset}": design.save for preset, design in demo.designs.items()},
        "build": lambda path: shutil.copytree(build, path),
        "summary.json": lambda path: _write_summary(demo, path),
        "images": lambda path: _write_images(demo, path),
        "scenes.png": lambda path: _draw(demo, path),
        "report.html": lambda path: edgemoe.report(
            path.parent / "build", path, demo.scenes.images[:PICTURED], model=demo.model
        ),
    }
    with new_folder(output) as folder:
        for name, save in savers.items():
            save(folder / name)


def _write_summary(demo: Demo, path: Path) -> None:
    path.write_text(json.dumps(summary(demo), indent=2) + "\n")


def _write_images(demo: Demo, folder: Path) -> None:
    """A few scenes as pictures, to try the other commands on."""
    from PIL import Image

    folder.mkdir()
    for index, image in enumerate(demo.scenes.images[:SAVED_IMAGES, 0]):
        Image.fromarray(image).save(folder / f"{index:02}.png")


def _draw(demo: Demo, path: Path) -> None:
    """A few scenes with their segment maps: labels, the float network's and a preset's."""
    from matplotlib.figure import Figure

    count = min(PICTURED, len(demo.scenes))
    side = digits.PATCHES_PER_SIDE
    maps: list[tuple[str, NDArray[Any]]] = [
        ("scene", demo.scenes.images[:count, 0]),
        ("label", demo.scenes.labels["segment"][:count].reshape(-1, side, side)),
        *(
            (network, demo.predictions[network]["segment"][:count].reshape(-1, side, side))
            for network in ("float", PICTURED_PRESET)
        ),
    ]
    figure = Figure(figsize=(1.3 * count, 1.4 * len(maps)), layout="tight")
    axes = figure.subplots(len(maps), count, squeeze=False)
    for (name, pictures), row in zip(maps, axes, strict=True):
        for index, (picture, axis) in enumerate(zip(pictures, row, strict=True)):
            if name == "scene":
                axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
            else:
                axis.imshow(picture, cmap="tab20", vmin=0, vmax=19)
                network = "float" if name == "label" else name
                digit = demo.scenes.labels if name == "label" else demo.predictions[network]
                axis.set_title(f"{digit['digit'][index]}", fontsize=8)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    figure.savefig(path, dpi=100)
