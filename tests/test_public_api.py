"""What users may rely on: the names of `edgemoe`, and types of every package."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edgemoe

ROOT = Path(__file__).parents[1]
PUBLIC = """
    Accelerator CheckError EdgeMoeError InputError QuantizationWarning
    compare compile_program default_hardware estimate evaluate export_onnx fit generate import_model init_model
    load_design load_images load_model quantize random_images reference report sensitivity simulate verify
"""


def test_no_public_name_is_lost_or_added_unawares() -> None:
    """A change here is a change of the interface: it goes into the changelog."""
    assert sorted(edgemoe.__all__) == PUBLIC.split()
    assert all(getattr(edgemoe, name).__doc__ for name in edgemoe.__all__)


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="module 'edgemoe' has no attribute 'quantise'"):
        edgemoe.quantise  # noqa: B018


def test_packages_are_typed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name for name in setuptools["packages"]["find"]["include"] if "." not in name}
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == packages
    assert {path.parent.name for path in ROOT.glob("*/py.typed")} == packages
    assert setuptools["package-data"]["*"] == ["py.typed"]


def test_library_imports_no_command_line(folders: Path) -> None:
    code = (
        "import sys, edgemoe\n"
        "design = edgemoe.load_design(sys.argv[1])\n"
        "edgemoe.estimate(design, 'zcu102')\n"
        "edgemoe.simulate(design, edgemoe.random_images(design, 1))\n"
        "assert not {'typer', 'click', 'rich'} & set(sys.modules), 'the command line came along'\n"
    )
    command = [sys.executable, "-c", code, str(folders / "w8a8")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_models_and_designs_print_their_shape_only() -> None:
    model = edgemoe.init_model("micro")
    design = edgemoe.quantize(model, edgemoe.random_images(model, 2))
    assert "ModelSpec" in repr(model) and len(repr(model)) < 1500
    assert "Precision" in repr(design) and len(repr(design)) < 2500
