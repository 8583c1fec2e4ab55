"""What an extra brings is asked for in one sentence where it is missing; the empty environment itself is CI's."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from codegen.build import Build
from common import pictures
from common.errors import InputError
from common.fits import Fit
from edgemoe.cli import main
from pysim.extras import EXTRA_OF, MissingPackageError, has, missing, require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_extras_exist() -> None:
    assert set(EXTRA_OF.values()) <= set(PROJECT["optional-dependencies"])
    core = " ".join(PROJECT["dependencies"])
    assert "jinja2" in core and "clang-format" in core, "generate needs no extra"


def test_require() -> None:
    require("nothing", "numpy", "json")
    with pytest.raises(MissingPackageError) as caught:
        require("juggling", "numpy", "jugglery")
    assert caught.value.message == "juggling needs jugglery, which is not installed"
    assert caught.value.hint.startswith("install edgemoe again") and caught.value.exit_code == 2
    error = missing("sklearn.datasets", "counting", otherwise="fingers")
    assert error.message == "counting needs scikit-learn, which is not installed"
    assert error.hint == "pip install 'edgemoe[demo]', or fingers"
    assert isinstance(error, ImportError) and isinstance(error, InputError)


def test_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has("numpy") and not has("jugglery") and not has("jugglery.balls")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not has("torch")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package of any extra can be imported."""
    for package in EXTRA_OF:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.usefixtures("without")
def test_every_command_names_its_extra(
    built: Build, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("net.onnx", "net.pth"):
        (tmp_path / name).touch()
    out, image = ("-o", tmp_path / "new"), ("--image", folders / "images")
    commands: list[tuple[str, tuple[object, ...]]] = [
        ("hls", ("verify", built.folder, "--csim")),
        ("hls", ("verify", built.folder, "--host")),
        ("rtl", ("verify", built.folder, "--rtl")),
        ("hls", ("run", built.folder, *image, "--emulate")),
        ("onnx", ("export", folders / "model", *out)),
        ("onnx", ("export", folders / "model", *out, "--decoder", "depth")),
        ("onnx", ("import", tmp_path / "net.onnx", *out)),
        ("torch", ("import", tmp_path / "net.pth", *out)),
        ("dask", ("simulate", folders / "w8a8", *image, "--scheduler", "tcp://127.0.0.1:1")),
        ("demo", ("demo",)),
        ("demo", ("demo", *out)),
    ]
    for extra, command in commands:
        capsys.readouterr()
        assert main([*map(str, command), "--json"]) == 2
        data = json.loads(capsys.readouterr().out)
        assert "which is not installed" in data["error"], command
        assert f"pip install 'edgemoe[{extra}]'" in data["hint"], command
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("frontend.network", "torch"),
        ("frontend.fake_quant", "torch"),
        ("frontend.decoder", "torch"),
        ("codegen.hls4ml_layers.modules", "hls4ml"),
    ],
)
def test_modules_name_their_extra(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith(("frontend.", "codegen.hls4ml_layers")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError) as caught:
        __import__(module)
    assert isinstance(caught.value, MissingPackageError)
    assert caught.value.hint == f"pip install 'edgemoe[{extra}]'"


def test_any_other_package_that_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], folders: Path
) -> None:
    code = "import sys; sys.modules['jinja2'] = None; from edgemoe.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "generate", str(folders / "w8a8"), "-o", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: `edgemoe generate` needs jinja2, which is not installed",
        "hint: install edgemoe again: pip install --force-reinstall edgemoe",
    ]


def test_a_board_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"a\.png: reading pictures needs pillow") as caught:
        pictures.load_picture(tmp_path / "a.png", (3, 8, 16), fit=Fit())
    assert "pip install pillow" in caught.value.hint
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 16), np.uint8))
    assert pictures.load_picture(tmp_path / "a.npy", (3, 8, 16)).shape == (3, 8, 16)
