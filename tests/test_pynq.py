"""PYNQ itself, in an environment of its own (`.venv-pynq`), drives the emulated board; its integers are pysim's."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
from codegen.build import Build
from codegen.host_files import LEFT_BEHIND

pytestmark = pytest.mark.compile

ROOT = Path(__file__).parents[1]
PYTHON = Path(os.environ.get("EDGEMOE_PYNQ_PYTHON", ROOT / ".venv-pynq" / "bin" / "python"))

Pixels = NDArray[np.uint8]


def run_there(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run PYNQ's Python, which must not see this checkout or this environment."""
    assert PYTHON.is_file(), f"{PYTHON} is missing: `make setup` makes it"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    command = [str(PYTHON), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def session(
    built: Build, library: Path, images: Pixels, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pynq")
    np.save(folder / "images.npy", images[:5])
    package = run_there("-c", "import pynqmetadata as p; print(p.__path__[0])", cwd=folder).stdout.strip()
    # A file that Vivado wrote, with a kernel of Vivado HLS in it; it comes with PYNQ's parser.
    real = Path(package) / "tests" / "hwhs" / "resizer.hwh"
    script = ROOT / "tests" / "pynq_session.py"
    done = run_there(script, built.host, library, "images.npy", "out.npz", real, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(folder / "out.npz") as archive:
        return {name: archive[name] for name in archive.files if name != "facts"} | json.loads(
            str(archive["facts"])
        )


def test_integers_are_the_simulators(session: dict[str, Any], built: Build, images: Pixels) -> None:
    design = edgemoe.load_design(built.folder / "design")
    expected = {task: edgemoe.simulate(design, images[:5], task).integers for task in design.spec.tasks}
    for task, tokens in expected.items():
        assert_array_equal(session[task], tokens)
    last = expected[design.spec.tasks[-1]]
    assert_array_equal(session["stream"], last)
    assert_array_equal(session["batch"], last)
    assert_array_equal(session["after"], last[:1])
    assert_array_equal(session["threads"], np.stack([last[0]] * 3))


def test_environment_is_the_boards(session: dict[str, Any]) -> None:
    assert session["numpy"].startswith("1.") and session["pynq"].startswith("4.")
    ours = {name for name in session["modules"] if name.split(".")[0] in ("codegen", "common", "pysim")}
    assert ours and all(name.startswith("common") for name in ours)
    assert not ours & {f"common.{name}" for name in LEFT_BEHIND}


def test_buffers(session: dict[str, Any]) -> None:
    assert session["buffers_open"] == 6 and session["buffers_closed"] == 0
    assert "contiguous memory are not to be had" in session["memory"]


def test_registers_as_pynq_sees_them(session: dict[str, Any]) -> None:
    assert session["idle"] == 1
    assert session["cycles"] == session["result_cycles"]
    assert session["registers"] == session["parsed"]
    assert session["address"][0] == session["address"][1]


def test_faults(session: dict[str, Any]) -> None:
    assert "in use by another Accelerator" in session["second"]
    assert "not done after 0.3 s" in session["stuck"]
    assert session["max_batch"] == 3
    assert "refused the call: it takes 0 to 3 images, not 99" in session["refused"]


def test_interrupts_are_waited_for_and_time_out(session: dict[str, Any]) -> None:
    assert session["interrupt"] == [True, True]


def test_a_file_that_vivado_wrote(session: dict[str, Any]) -> None:
    assert session["real"] == {
        "address": 0x43C00000,
        "registers": {
            "CTRL": 0x00,
            "GIER": 0x04,
            "IP_IER": 0x08,
            "IP_ISR": 0x0C,
            "src_rows": 0x10,
            "src_cols": 0x18,
            "dst_rows": 0x20,
            "dst_cols": 0x28,
        },
        "clock": 100.0,
    }


def test_its_own_command_line(built: Build, library: Path, folders: Path) -> None:
    picture = folders / "images" / "00.png"
    done = run_there(
        "-m", "host", ".", "--image", picture, "--task", "all", "--emulate", library, "--json", cwd=built.host
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(done.stdout)
    assert data["emulated"] and data["design_id"] == built.spec.design_id
    assert [run["task"] for run in data["runs"]] == ["semseg", "depth"]
    assert np.shape(data["runs"][0]["map"]) == (2, 4)
    done = run_there("-m", "host", ".", "--image", picture, cwd=built.host)
    assert done.returncode == 2
    assert "error: PYNQ finds no board" in done.stderr and "hint: " in done.stderr


@pytest.mark.parametrize("module", ["numpy"])
def test_nothing_else_is_imported(built: Build, module: str) -> None:
    """The driver with every module blocked but numpy and Python's own."""
    check = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.split('.')[0]\n"
        f"        if top not in sys.stdlib_module_names and top not in {{'common', 'host', '{module}'}}:\n"
        "            raise ImportError(f'{name} is blocked')\n"
        f"import {module}\n"
        "sys.meta_path.insert(0, Block())\n"
        "import host, host.cli, host.emulated, host.hwh, common.packing\n"
        "host.Manifest.load(__import__('pathlib').Path('.')).read_heads()\n"
        "print('fine')\n"
    )
    done = run_there("-c", check, cwd=built.host)
    assert done.stdout == "fine\n", done.stderr
