"""The picture of README.md: what the integers of the digits network make of scenes that it has not seen.

    python scripts/draw_readme.py [--out docs/images/digits.png]

Of the preset `w8a8`, simulated bit by bit: the scene with the class that `digit` says, the map of `segment`, and for
each of the two tasks the expert that a patch chooses first in the last layer of experts.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

import edgemoe
from edgemoe.demo import MODEL
from frontend import digits
from pysim.reference import apply_head

SCENES = 8
SIDE = digits.PATCHES_PER_SIDE


def experts_of(run: Any, layer: int) -> NDArray[np.int64]:
    """(scenes, rows, columns): the first choice of each patch."""
    return run.routing[layer].experts[:, 0].reshape(SCENES, -1)[:, 1:].reshape(SCENES, SIDE, SIDE)


def main() -> None:
    """Simulate and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images/digits.png"), help="PNG file")
    options = parser.parse_args()
    model = edgemoe.load_model(MODEL)
    design = edgemoe.quantize(model, digits.load_scenes("train").images[:128], "w8a8")
    scenes = digits.load_scenes("heldout").images[:SCENES]
    runs = {task: edgemoe.simulate(design, scenes, task) for task in model.spec.tasks}
    outputs = {task: apply_head(model, task, run.tokens) for task, run in runs.items()}
    assert outputs["digit"] is not None and outputs["segment"] is not None
    labels, segments = outputs["digit"].argmax(axis=-1), outputs["segment"].argmax(axis=-1)
    layer = max(model.spec.moe_layers)
    grey, classes = {"cmap": "gray", "vmin": 0, "vmax": 255}, {"cmap": classes_map(), "vmin": 0, "vmax": 10}
    chosen = {"cmap": "Set2", "vmin": 0, "vmax": 7}
    rows: list[tuple[str, NDArray[Any], dict[str, Any]]] = [
        ("scene and digit", scenes[:, 0], grey),
        ("segment", segments.reshape(SCENES, SIDE, SIDE), classes),
        ("experts\nof digit", experts_of(runs["digit"], layer), chosen),
        ("experts\nof segment", experts_of(runs["segment"], layer), chosen),
    ]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots(len(rows), SCENES)
    for line, (title, pictures, look) in zip(axes, rows, strict=True):
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10)
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture, **look)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, label in zip(axes[0], labels, strict=True):
        axis.set_title(str(label), fontsize=11)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=90, metadata={"Software": None})
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


def classes_map() -> ListedColormap:
    """Black for the background, a colour for each digit."""
    from matplotlib import colormaps

    return ListedColormap([(0.0, 0.0, 0.0, 1.0), *colormaps["tab10"].colors])


if __name__ == "__main__":
    main()
