"""Contents of a report, read and run: the work behind `edgemoe.report`, without a command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgemoe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from codegen.report import Built, Facts, Observation
    from pysim.design import Design
    from pysim.model import Model

    Pixels = NDArray[np.uint8]


def read_source(source: Path) -> tuple[Design, Built | None]:
    """A Design, and its hardware if the source is a build."""
    from boards import load_board
    from codegen.build import Build
    from codegen.performance import evaluate
    from codegen.report import Built
    from codegen.verification import read_verification

    if not (source / "build.toml").is_file():
        return edgemoe.load_design(source), None
    build = Build.load(source)
    board = load_board(build.spec.board)
    performance = evaluate(build.architecture, board)
    return build.design, Built(build.architecture, board, performance, read_verification(build))


def collect(
    source: Path,
    design: Design,
    built: Built | None,
    pixels: Pixels | None,
    model: Model | None,
    tasks: Sequence[str] | None,
    progress: Callable[[int, int], Any] | None = None,
) -> Facts:
    """Everything that a report shows: runs the images, task by task.

    Args:
        source: folder of the Design or the build.
        design: what `read_source` found.
        built: what `read_source` found.
        pixels: (images, channels, H, W) uint8; None for a report without runs.
        model: the float network to compare with.
        tasks: names of tasks; all where there are none.
        progress: called with tasks done and in total.
    """
    from codegen.report import Facts, Observation
    from pysim.sensitivity import read_sensitivity

    names = tasks or design.spec.tasks
    decode, classes = _heads(source, design, built, model)
    observed: list[Observation] = []
    for done, name in enumerate(names if pixels is not None else ()):
        assert pixels is not None
        if progress:
            progress(done, len(names))
        simulation = edgemoe.simulate(design, pixels, name, trace=True)
        comparison = None
        if model is not None:
            comparison = edgemoe.compare(model, design, pixels, name, simulation=simulation)
        outputs = decode(name, simulation.tokens)
        observed.append(Observation(name, simulation, comparison, outputs, classes.get(name, ())))
    return Facts(
        title=f"{design.spec.name} in {design.precision.name}"
        + (f" on {built.board.title}" if built else ""),
        version=edgemoe.__version__,
        design=design,
        built=built,
        observations=observed,
        pixels=pixels,
        sensitivity=read_sensitivity(source / "design" if built else source),
    )


Decode = Callable[[str, "NDArray[np.float64]"], "NDArray[np.float64] | None"]


def _heads(
    source: Path, design: Design, built: Built | None, model: Model | None
) -> tuple[Decode, Mapping[str, Sequence[str]]]:
    """The task heads of the float network or, without it, those of a build's host; and names of their classes."""
    from common.heads import on_grid, run_head
    from edgemoe.heads import Heads, decoded

    if model is not None:
        return lambda task, tokens: decoded(model, task, tokens), Heads.of(design, model).classes
    if built is None:
        return lambda task, tokens: None, {}
    from codegen.build import Build
    from host.manifest import Manifest

    manifest = Manifest.load(Build.load(source).host)
    tensors = manifest.read_heads()

    def decode(task: str, tokens: NDArray[np.float64]) -> NDArray[np.float64] | None:
        head = manifest.tasks[manifest.task(task)].head
        found = run_head(head, task, tensors, tokens) if tensors else None
        return None if found is None else on_grid(found, design.spec.grid)

    return decode, {task.name: task.classes for task in manifest.tasks}


def write(facts: Facts, output: Path) -> int:
    """Write the page into a new file, and return its bytes."""
    from codegen.report import render_page
    from pysim.files import new_file

    page = render_page(facts).encode()
    with new_file(output) as temporary:
        temporary.write_bytes(page)
    return len(page)
