"""The check build, run: dependences measured, ports counted, writes delayed, and nothing uninitialised in a result."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codegen.csim import CsimResult, compile_sources, link, run_testbench
from codegen.hls_check.findings import Finding
from codegen.hls_check.flow import Flow
from codegen.hls_check.instrument import instrument
from codegen.hls_check.model import Loop, Program, load
from codegen.hls_check.pragma_text import PragmaText
from common.errors import InputError

_FLAGS = ("-DEDGEMOE_CHECK", "-w", "-O1")
_FIRST = ("checked_memory.h",)
_NEVER = -1

RUNS = {
    "first seed": {"EDGEMOE_SEED": "1"},
    "second seed": {"EDGEMOE_SEED": "2"},
    "delayed writes": {"EDGEMOE_SEED": "3", "EDGEMOE_DELAY": "1"},
}
"""Runs of the test bench: random bits in memories and variables, and writes that arrive as late as they may."""


@dataclass(frozen=True)
class Dependence:
    """Record of one pragma over an execution.

    Attributes:
        text: the pragma.
        declared: the distance that it declares; None where it declares that there is no dependence.
        least: the least distance that was seen; None if there was none.
        seen: how often.
        runs: how often its loop was entered.
    """

    text: PragmaText
    declared: int | None
    least: int | None
    seen: int
    runs: int

    def __str__(self) -> str:
        declared = "none" if self.declared is None else self.declared
        least = "none" if self.least is None else self.least
        variable, direction = self.text.clauses["variable"], self.text.word("direction").upper() or "any"
        entered = "" if self.runs else ", its loop was never entered"
        return f"{self.text.file}:{self.text.line}: {variable} {direction}: declared {declared}, seen {least}{entered}"


@dataclass
class Execution:
    """Results of the runs of a check build.

    Attributes:
        findings: what is wrong.
        dependences: all dependence pragmas.
        undeclared: (loop, memory, least distance) of reads after writes that no pragma speaks of.
        results: of the test bench, by run.
    """

    findings: list[Finding] = field(default_factory=list)
    dependences: list[Dependence] = field(default_factory=list)
    undeclared: list[tuple[str, str, int]] = field(default_factory=list)
    results: dict[str, CsimResult] = field(default_factory=dict)


def execute(project: Path, runs: Sequence[str] = tuple(RUNS)) -> Execution:
    """Compile a generated HLS project as a check build, and run its test bench.

    Args:
        project: the `hls` folder of a build.
        runs: names out of `RUNS`.

    Raises:
        InputError: no HLS project, a tool is missing, or the code does not compile.
        CheckError: the test bench ended abnormally.
    """
    sources, benches = sorted(project.glob("src/*.cpp")), sorted(project.glob("tb/*.cpp"))
    if not sources or not benches:
        raise InputError(f"{project}: not a generated HLS project", hint="`edgemoe generate` makes one")
    program = load(sources, [], [project / "src"], synthesis=False)
    if program.errors:
        file, line, message = program.errors[0]
        raise InputError(
            f"{project}: {file}:{line}: {message}", hint="check the project without running it first"
        )
    texts, loops = instrument(program, Flow(program))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path, text in texts.items():
            if path not in sources:
                (folder / path.name).write_text(text)
        # As one file: most of the time goes into types that all of them use.
        engines = folder / "engines.cpp"
        engines.write_text("".join(f'#line 1 "{path.name}"\n{texts[path]}\n' for path in sources))
        executable = link(compile_sources([engines, *benches], [folder], flags=_FLAGS, first=_FIRST), project)
    execution = Execution()
    for run in runs:
        execution.results[run] = run_testbench(executable, project, RUNS[run])
    _judge(execution, program, loops)
    return execution


def _judge(execution: Execution, program: Program, loops: list[Loop]) -> None:
    texts = {text.number: text for text in program.texts}
    measured: dict[int, list[int]] = {}
    crowds: dict[tuple[int, str], list[int]] = {}
    nearest: dict[tuple[str, str], int] = {}
    found = set()
    for run, result in execution.results.items():
        if result.failed:
            first = result.mismatches[0] if result.mismatches else ""
            message = f"{run}: {result.failed} of {result.values} values differ, the first: {first}"
            found.add(Finding("tb/testbench.cpp", 1, "changed-result", message))
        for note in result.notes:
            about, *words = note.split()
            if about == "dependence":
                number, *numbers = map(int, words)
                measured[number] = _merged(measured.get(number), numbers)
            elif about == "ports":
                key = (int(words[0]), words[1])
                crowds[key] = [
                    max(pair) for pair in zip(crowds.get(key, [0, 0, 0]), map(int, words[2:]), strict=True)
                ]
            elif about == "undeclared":
                place = (_name(loops[int(words[0])]), words[1])
                nearest[place] = min(nearest.get(place, int(words[2])), int(words[2]))
            elif about == "outside":
                message = f"{words[0]} is accessed outside of its bounds, {words[1]} times ({run})"
                found.add(Finding("src/types.h", 1, "index", message))
            elif about == "unnamed":
                text = texts[int(words[0])]
                message = (
                    f"`{text.clauses['variable']}` is no `Memory`: nothing proves what its dependence says"
                )
                found.add(Finding(text.file, text.line, "dependence-unproved", message))
    for (number, memory), (_, reads, writes) in crowds.items():
        loop = loops[number]
        message = f"{loop.name}: a bank of `{memory}` is read {reads} times and written {writes} times in an iteration"
        found.add(Finding(loop.function.file, loop.line, "bank-ports", message))
    execution.undeclared = [(loop, memory, least) for (loop, memory), least in sorted(nearest.items())]
    for text in program.texts:
        if text.name == "dependence":
            found |= _dependence(execution, text, measured.get(text.number))
    execution.findings = sorted(found)


def _dependence(execution: Execution, text: PragmaText, measured: list[int] | None) -> set[Finding]:
    if measured is None:
        execution.dependences.append(Dependence(text, None, None, 0, 0))
        return set()
    declared, runs, seen, least, broken = measured
    distance = None if declared == _NEVER else declared
    execution.dependences.append(Dependence(text, distance, least if seen else None, seen, runs))
    if not broken:
        return set()
    says = "none at all" if distance is None else f"{distance} at least"
    message = (
        f"`{text.clauses['variable']}`: a dependence of distance {least}, declared is {says} ({broken} times)"
    )
    return {Finding(text.file, text.line, "dependence-distance", message)}


def _merged(before: list[int] | None, now: list[int]) -> list[int]:
    if before is None:
        return now
    declared, runs, seen, least, broken = (list(pair) for pair in zip(before, now, strict=True))
    return [declared[0], sum(runs), sum(seen), min(least), sum(broken)]


def _name(loop: Loop) -> str:
    return f"{loop.function.file}:{loop.line} {loop.name}"
