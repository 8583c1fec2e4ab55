"""The multi-task example, script and notebook, on the emulated board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codegen.build import Build

EXAMPLES = Path(__file__).parents[1] / "examples"


def python(*arguments: object, cwd: Path, code: int = 0) -> str:
    environment = os.environ | {"PYTHONPATH": f"{EXAMPLES}{os.pathsep}{EXAMPLES.parent}"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.compile
def test_out_of_the_box(tmp_path: Path) -> None:
    out = python(EXAMPLES / "multi_task.py", "--limit", 3, "--out", "results", cwd=tmp_path)
    assert "3 frames, 2 tasks (digit, segment)" in out and "frames/s" in out
    names = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert names == [*(f"frame-000{number}.png" for number in range(3)), "frames.gif"]
    with Image.open(tmp_path / "results/frames.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 3
        width, height = animation.size
    # Input, class and map side by side.
    assert width == 3 * 256 and height > 256
    pixels = np.asarray(Image.open(tmp_path / "results/frame-0000.png").convert("RGB"))
    panels = np.split(pixels, 3, axis=1)
    assert all(len(np.unique(panel.reshape(-1, 3), axis=0)) > 1 for panel in panels)


@pytest.mark.compile
def test_notebook(tmp_path: Path) -> None:
    notebook = json.loads((EXAMPLES / "multi_task.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    script = tmp_path / "cells.py"
    script.write_text("\n".join("".join(cell["source"]) for cell in cells))
    python(script, cwd=tmp_path)
    assert len(list((tmp_path / "multi-task").glob("frame-*.png"))) == 12


class TestFrames:
    @pytest.mark.compile
    def test_animation_and_folder(self, built: Build, folders: Path, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "green", "blue")]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        for source, count in ((tmp_path / "a.gif", 3), (folders / "images", 12)):
            arguments = ("--frames", source, "--emulate", "--task", "depth", "--out", f"{count}")
            out = python(EXAMPLES / "multi_task.py", built.folder, *arguments, cwd=tmp_path)
            assert f"{count} frames, 1 tasks (depth)" in out
            assert len(list((tmp_path / f"{count}").glob("*.png"))) == count

    @pytest.mark.compile
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ((), "no frames"),
            (("--frames", "nowhere"), "no such|not a readable"),
            (("--frames", "video.mp4"), "OpenCV"),
            (("--frames", "text.png"), "not a readable image"),
        ],
    )
    def test_bad_input(self, built: Build, tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
        import re

        (tmp_path / "text.png").write_text("no picture")
        out = python(EXAMPLES / "multi_task.py", built.folder, "--emulate", *arguments, cwd=tmp_path, code=2)
        assert re.search(rf"error: .*({reason})", out)
        assert {path.name for path in tmp_path.iterdir()} == {"text.png"}
