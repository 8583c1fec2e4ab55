"""Break the Python on purpose, one place at a time, and see whether the closest tests notice: cosmic-ray's mutants.

    pip install 'edgemoe[mutate]'
    python scripts/mutate_python.py --count 200 --log mutants.jsonl

A random sample of all mutants that cosmic-ray makes of `common`, `pysim`, `codegen` and `host`, so that each has its
share; annotations, which nothing executes, are left out. Each mutant is written into a copy of the repository, and the
test files that are closest to it run with `-x`. Results are appended to the log, one JSON object a line; a second run
goes on where the first one ended. Exit code 1 if a mutant survives.
"""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator, operator_names

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("common", "pysim", "codegen", "host")

CLOSEST: Final = {
    "common/": "test_hostile_files test_host",
    "common/heads.py": "test_host test_accelerator",
    "common/packing.py": "test_host",
    "common/pictures.py": "test_images",
    "common/process.py": "test_process",
    "common/toml.py": "test_hostile_files test_boards",
    "pysim/": "test_network_program test_record",
    "pysim/accuracy.py": "test_kernels",
    "pysim/activations.py": "test_activations",
    "pysim/balance.py": "test_quantizer",
    "pysim/calibrate.py": "test_quantizer",
    "pysim/compare.py": "test_simulator",
    "pysim/design.py": "test_files test_limits test_network_program",
    "pysim/doubts.py": "test_doubts",
    "pysim/files.py": "test_files",
    "pysim/formats.py": "test_formats",
    "pysim/gates.py": "test_simulator test_kernels",
    "pysim/iccad23_quantizer.py": "test_iccad23 test_quantizer",
    "pysim/images.py": "test_images",
    "pysim/kernels/": "test_kernels",
    "pysim/kernels/iccad23.py": "test_iccad23 test_kernels",
    "pysim/model.py": "test_files test_network_program",
    "pysim/network.py": "test_limits test_hardware",
    "pysim/precision.py": "test_files test_quantizer",
    "pysim/quantizer.py": "test_quantizer",
    "pysim/reference.py": "test_simulator test_network",
    "pysim/reports.py": "test_quantizer",
    "pysim/rounding.py": "test_quantizer",
    "pysim/scaling.py": "test_quantizer",
    "pysim/simulator.py": "test_simulator test_network_program",
    "pysim/spec.py": "test_files test_network_program",
    "pysim/tables.py": "test_kernels",
    "codegen/": "test_limits test_record test_synthesis test_loops test_estimate",
    "codegen/block_design.py": "test_block_design",
    "codegen/build.py": "test_csim",
    "codegen/context.py": "test_csim",
    "codegen/csim.py": "test_csim",
    "codegen/csynth": "test_csynth",
    "codegen/fit/": "test_fit",
    "codegen/hardware.py": "test_hardware test_quantizer",
    "codegen/hls4ml_layers/": "test_hls4ml",
    "codegen/hls_check/": "test_hls_check_rules test_hls_check_execution test_hls_check_designs",
    "codegen/host_files.py": "test_host",
    "codegen/hwh.py": "test_host",
    "codegen/manifest.py": "test_host",
    "codegen/performance.py": "test_estimate test_fit",
    "codegen/project.py": "test_csim",
    "codegen/queues.py": "test_fit test_cli",
    "codegen/render.py": "test_csim",
    "codegen/reports.py": "test_vitis",
    "codegen/rtl/": "test_rtl_verify",
    "codegen/rtl/hls_kernels.py": "test_limits test_hls_kernels",
    "codegen/rtl/kernels/": "test_rtl_sizes test_synthesis",
    "codegen/rtl/render.py": "test_rtl_sizes",
    "codegen/rtl/resources.py": "test_synthesis",
    "codegen/rtl/streams.py": "test_rtl_sizes",
    "codegen/rtl/synthesis.py": "test_synthesis",
    "codegen/schedule.py": "test_schedule test_loops",
    "codegen/testdata.py": "test_csim",
    "codegen/vitis.py": "test_vitis",
    "codegen/weight_image.py": "test_record test_host",
    "host/": "test_host test_accelerator test_turns",
    "host/__main__.py": "test_cli_board",
    "host/cli.py": "test_cli_board",
    "host/pynq": "test_pynq_board",
}
"""Test files of a module, the quickest first; of several prefixes of its path, the longest counts."""

COMPILED: Final = ("test_kernels", "-k", "not csim and not rtl and not compiled")
"""Of this file only what is quick: its backends are compiled from templates, which no mutant is in."""

CPU_SECONDS: Final = 120
"""That a process of the tests may take."""
SECONDS: Final = 1800
"""That they may take together, on the busiest computer."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Mutant:
    """A change that cosmic-ray can make.

    Attributes:
        module: path of the file, from the root on.
        operator: of cosmic-ray.
        occurrence: which of the places that the operator finds in the file.
        line: of the place.
    """

    module: str
    operator: str
    occurrence: int
    line: int

    @property
    def tests(self) -> list[str]:
        """Test files to run, and which of their tests."""
        prefix = max((prefix for prefix in CLOSEST if self.module.startswith(prefix)), key=len)
        names = CLOSEST[prefix].split()
        file, *chosen = COMPILED
        return [f"tests/{name}.py" for name in names] + (chosen if file in names else [])


def mutants_of(module: Path) -> Iterator[Mutant]:
    """Every mutant of a file but those of annotations."""
    text = module.read_text()
    annotated, nodes = set(_annotated(ast.parse(text))), list(ast_nodes(get_ast(text)))
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, column) in enumerate(places):
            if not any(start <= (line, column) < end for start, end in annotated):
                yield Mutant(module.relative_to(ROOT).as_posix(), name, occurrence, line)


Span = tuple[tuple[int, int], tuple[int, int]]


def _annotated(tree: ast.AST) -> Iterator[Span]:
    for node in ast.walk(tree):
        for found in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(found, ast.expr):
                yield (
                    (found.lineno, found.col_offset),
                    (found.end_lineno or found.lineno, found.end_col_offset or 0),
                )


def sample(count: int, seed: int) -> list[Mutant]:
    """So many of all mutants, the same ones for the same seed."""
    modules = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    everything = [mutant for module in modules for mutant in mutants_of(module)]
    return random.Random(seed).sample(everything, min(count, len(everything)))


# --- Running --------------------------------------------------------------------------------------------------


def copied(folder: Path) -> Path:
    """The files that git knows, in a new folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return folder


def tested(tests: Sequence[str], folder: Path) -> tuple[str, str]:
    """What test files find in a copy: "killed", "survived" or "timeout", and the last lines that they print."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))

    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=limit, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "timeout", ""
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "timeout", ""
    return "survived" if process.returncode == 0 else "killed", "\n".join(output.splitlines()[-4:])


def cpu() -> float:
    """Seconds that the tests have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@app.command()
def main(
    count: Annotated[int, typer.Option(min=1, help="Mutants.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 1,
    log: Annotated[Path, typer.Option(help="Where results are appended.")] = Path("mutants.jsonl"),
    cpu_minutes: Annotated[float, typer.Option(min=0, help="No mutant begins after so much.")] = 1e9,
    report: Annotated[bool, typer.Option("--report", help="Only sum up the log.")] = False,
) -> None:
    """Mutate the Python and report what the closest tests miss."""
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    known = {(d["module"], d["operator"], d["occurrence"]) for d in done}
    with tempfile.TemporaryDirectory(prefix="edgemoe-mutants-") as temporary, log.open("a") as file:
        folder = copied(Path(temporary)) if not report else ROOT
        for mutant in [] if report else sample(count, seed):
            if (mutant.module, mutant.operator, mutant.occurrence) in known:
                continue
            if cpu() > 60 * cpu_minutes:
                break
            start, began = time.monotonic(), cpu()
            with use_mutation(
                folder / mutant.module, get_operator(mutant.operator)(), mutant.occurrence
            ) as codes:
                state, said = tested(mutant.tests, folder)
            entry = asdict(mutant) | {"state": state, "said": said, "change": _difference(*codes)}
            entry |= {"cpu": round(cpu() - began, 1), "seconds": round(time.monotonic() - start, 1)}
            file.write(json.dumps(entry) + "\n")
            file.flush()
            done.append(entry)
    summary(done)
    if any(entry["state"] == "survived" for entry in done):
        raise typer.Exit(1)


def _difference(before: str, after: str | None) -> list[str]:
    """Lines that a mutant changes, before and after."""
    pairs = zip(before.splitlines(), (after or "").splitlines(), strict=False)
    return next(([old.strip(), new.strip()] for old, new in pairs if old != new), [])


def summary(done: Sequence[dict[str, Any]]) -> None:
    """Counts by package, and every survivor."""
    for package in PACKAGES:
        states = Counter(entry["state"] for entry in done if entry["module"].startswith(f"{package}/"))
        print(
            f"{package}: "
            + ", ".join(f"{states[state]} {state}" for state in ("killed", "survived", "timeout"))
        )
    for entry in done:
        if entry["state"] == "survived":
            change = " -> ".join(entry["change"])
            print(f"survived: {entry['module']}:{entry['line']}: {entry['operator']}: {change}")


if __name__ == "__main__":
    app()
