"""What a plain install can do, and what it says where an extra is needed: the built wheel in an empty environment.

    python scripts/check_plain_install.py

Builds the source distribution from the files of this working tree and the wheel from that, checks both with twine,
installs the wheel without extras, and runs every command there. Ends with 1 and the first thing that is not as it
should be. Needs a package index for the dependencies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

IMAGES = """
import numpy, pathlib
pathlib.Path("images").mkdir()
for number, image in enumerate(numpy.random.default_rng(0).integers(0, 256, (8, 3, 8, 16), "uint8")):
    numpy.save(f"images/{number}.npy", image)
images = numpy.stack([numpy.load(f"images/{number}.npy") for number in range(8)])
numpy.savez("data.npz", images=images, labels=numpy.zeros((8, 2, 4), "uint8"))
pathlib.Path("net.onnx").touch(), pathlib.Path("net.pth").touch()
"""

WORKS = (
    ("", "Usage: edgemoe"),
    ("--version", "edgemoe"),
    ("boards", "zcu102"),
    ("zoo", "micro"),
    ("doctor", "edgemoe[torch]"),
    ("init micro -o model", "26,160 parameters"),
    ("quantize model -o design --images images --precision w8a8", "SQNR dB"),
    ("simulate design --image images --reference model --task all", "against float64"),
    ("evaluate design --data data.npz --reference model --workers 1", "mIoU %"),
    ("generate design -o build --model model", "C++ files"),
    ("estimate design", "cycles"),
)
"""Arguments of commands that need no extra, and what they print."""

REFUSED = (
    ("verify build --csim", "edgemoe[hls]"),
    ("verify build --host", "edgemoe[hls]"),
    ("verify build --rtl", "edgemoe[rtl]"),
    ("verify build --vitis", "Vitis is not installed"),
    ("run build --image images --emulate", "edgemoe[hls]"),
    ("run build --image images", "PYNQ cannot be imported"),
    ("export model -o new.onnx", "edgemoe[onnx]"),
    ("export model -o new.onnx --decoder depth", "edgemoe[onnx]"),
    ("import net.onnx -o new", "edgemoe[onnx]"),
    ("import net.pth -o new", "edgemoe[torch]"),
    ("evaluate design --data data.npz --reference model --scheduler tcp://127.0.0.1:1", "edgemoe[dask]"),
    ("report design -o new", "edgemoe[report]"),
    ("demo", "edgemoe[demo]"),
    ("demo -o new", "edgemoe[demo]"),
)
"""Arguments of commands that need something, and what names it."""

MODULES = {
    "frontend.network": "edgemoe[torch]",
    "frontend.fake_quant": "edgemoe[torch]",
    "frontend.decoder": "edgemoe[torch]",
    "codegen.hls4ml_layers.modules": "edgemoe[hls4ml]",
}
"""Modules of the Python interface that need something."""

CARRIED = ("share/doc/edgemoe/examples/multi_task.py", "share/doc/edgemoe/examples/multi_task.ipynb")
"""Files that are no modules."""


def main() -> int:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgemoe-plain-") as temporary:
        folder = Path(temporary)
        python = install(folder)
        print(f"installed after {time.perf_counter() - start:.0f} s", flush=True)
        problem = check(python, folder / "work")
    print(problem or f"plain install: all right, {time.perf_counter() - start:.0f} s")
    return 1 if problem else 0


def install(folder: Path) -> Path:
    """Build what a release consists of and install the wheel alone; the Python that has it."""
    source, built, environment = folder / "source", folder / "built", folder / "environment"
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(git, capture_output=True, check=True).stdout.decode().split("\0"):
        # A build in the tree itself would leave files behind, and take old ones along.
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "-o", built, source], check=True, stdout=subprocess.DEVNULL
    )
    (wheel,), (sources,) = built.glob("*.whl"), built.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel, sources], check=True)
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "-q", "--disable-pip-version-check", "install", wheel], check=True)
    return python


def check(python: Path, work: Path) -> str:
    """Run everything in a folder of its own; the first problem, or nothing."""
    work.mkdir()
    # No tool of this environment must help out.
    variables = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(work), "TMPDIR": str(work.parent)}
    variables |= {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *command], cwd=work, env=variables, capture_output=True, text=True, check=False
        )

    def edgemoe(arguments: str) -> subprocess.CompletedProcess[str]:
        return run(str(python.parent / "edgemoe"), *arguments.split())

    run("-c", IMAGES).check_returncode()
    for arguments, printed in WORKS:
        done = edgemoe(arguments)
        if done.returncode or printed not in done.stdout:
            return told(f"edgemoe {arguments}", done)
    for arguments, named in REFUSED:
        done = edgemoe(arguments)
        if done.returncode != 2 or named not in done.stderr or not is_one_error(done.stderr):
            return told(f"edgemoe {arguments}", done)
    for module, named in MODULES.items():
        done = run(
            "-c", f"try: import {module}\nexcept ImportError as error: print(error.message, error.hint)"
        )
        if named not in done.stdout:
            return told(f"import {module}", done)
    done = run(str(ROOT / "examples" / "hls4ml_experts.py"))
    if done.returncode != 2 or "edgemoe[hls4ml]" not in done.stderr or not is_one_error(done.stderr):
        return told("examples/hls4ml_experts.py", done)
    for name in CARRIED:
        if not (python.parents[1] / name).is_file():
            return f"the wheel did not install {name}"
    if (work / "new").exists() or (work / "new.onnx").exists():
        return "a command that was refused left an output"
    return ""


def is_one_error(text: str) -> bool:
    """One sentence, and one that says what to do."""
    lines = text.splitlines()
    return len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: ")


def told(what: str, done: subprocess.CompletedProcess[str]) -> str:
    """A run that is not as it should be."""
    tails: Sequence[str] = [text[-2000:] for text in (done.stdout, done.stderr)]
    return "\n".join([f"{what}: exit code {done.returncode}", *tails])


if __name__ == "__main__":
    sys.exit(main())
