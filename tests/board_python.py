"""Import, with the Python that runs this file, all that a build carries to a board: numpy and Pillow are enough.

    python3.10 tests/board_python.py

Boards have Python 3.10, which the rest of the package is too new for. That the code does what it should there is
for `tests/test_pynq.py`, which runs it under PYNQ.
"""

from __future__ import annotations

import ast
import importlib
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_HERE = ("__main__", "pynq_device")
"""Runs the command line; needs PYNQ itself, which builds for minutes."""


def carried() -> dict[str, list[Path]]:
    """Files by package, as `codegen/host_files.py` copies them; that module itself needs more than boards have."""
    tree = ast.parse((ROOT / "codegen/host_files.py").read_text())
    (left_behind,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LEFT_BEHIND"
    ]
    return {
        package: [
            file
            for file in sorted((ROOT / package).glob("*.py"))
            if package == "host" or file.stem not in left_behind
        ]
        for package in ("common", "host")
    }


def main() -> None:
    """Import every module from a folder that holds nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        modules = []
        for package, files in carried().items():
            (Path(folder) / package).mkdir()
            for file in files:
                shutil.copyfile(file, Path(folder) / package / file.name)
                if file.stem not in NOT_HERE:
                    modules.append(f"{package}.{file.stem}".removesuffix(".__init__"))
        sys.path[0] = folder
        for module in modules:
            found = importlib.import_module(module).__file__
            assert found is not None and found.startswith(folder), f"{module} comes from {found}"
    print(f"Python {sys.version.split()[0]}: {len(modules)} modules")


if __name__ == "__main__":
    main()
