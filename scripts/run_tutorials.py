"""Run the notebooks of `docs/tutorials` and save their outputs, or check that the saved ones are those of today.

    python scripts/run_tutorials.py [--check] [NAME ...]

Each runs in a new folder with the files that lie beside it. With `--check` nothing is written: the exit code is 1 if an
output differs; seconds, lines of code, identities, and whatever cells with the tag `varies` print, are not compared.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
PASSING = re.compile(r"\d+(\.\d+)? s\b|\d+ lines\b|\b[0-9a-f]{16}\b")
"""Seconds, lengths of generated code, identities: right in a print, but no news where they differ."""
COLOURS = re.compile(r"\x1b\[[\d;]*m")
VARIES = "varies"
CELL_SECONDS = 600


def tutorials() -> dict[str, Path]:
    """Notebooks by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def run(path: Path) -> Any:
    """The notebook with the outputs of a run."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tutorial"
        shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.ipynb"))
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            resources=resources,
            record_timing=False,
            coalesce_streams=True,
        )
        # `edgemoe` is the command beside this Python.
        path_of_commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        client.execute(env=os.environ | {"PATH": path_of_commands})
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                lines = COLOURS.sub("", output.text).split("\n")
                output.text = "\n".join(line.rstrip() for line in lines)
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
    return notebook


def shown(output: dict[str, Any]) -> tuple[str, str | bytes]:
    """An output as far as it is compared: its kind, and its text without what passes, or its pixels."""
    if output["output_type"] == "stream":
        return output["name"], PASSING.sub("...", output["text"])
    data = output.get("data", {})
    if "image/png" in data:
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
            return "image", np.asarray(picture).tobytes()
    return output["output_type"], PASSING.sub("...", data.get("text/plain", ""))


def differences(saved: Any, found: Any) -> list[str]:
    """What a reader would see otherwise, cell by cell."""
    told = []
    for number, (before, after) in enumerate(zip(saved.cells, found.cells, strict=True)):
        if before.cell_type != "code" or VARIES in before.metadata.get("tags", []):
            continue
        was, now = ([shown(output) for output in cell.outputs] for cell in (before, after))
        if was != now:
            told.append(f"cell {number}:\n{before.source}\nsaved: {brief(was)}\nfound: {brief(now)}")
    return told


def brief(outputs: list[tuple[str, str | bytes]]) -> str:
    """Outputs to be printed, pictures by their size."""
    return "".join(
        f"\n[{kind}] " + (content if isinstance(content, str) else f"{len(content)} bytes of pixels")
        for kind, content in outputs
    )


def main() -> int:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = tutorials()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all if not given")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no tutorial {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = False
    for name in options.names or known:
        path = known[name]
        saved = nbformat.read(path, as_version=4)
        found = run(path)
        if not options.check:
            nbformat.write(found, path)
            print(f"{name}: saved")
        elif told := differences(saved, found):
            failed = True
            print(f"{name}: python scripts/run_tutorials.py {name} would save other outputs", *told, sep="\n")
        else:
            print(f"{name}: as saved")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
