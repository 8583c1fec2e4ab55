"""The records of the loops: the generated C++ has exactly these, and the estimate is the sum of their runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from blank import on_hardware
from boards import load_board
from codegen.architecture import HEADER_BEATS
from codegen.estimate import MEMORY_LATENCY, Scheduler, Stage, loop_totals, total_trips
from codegen.loops import GROUP_OVERLAP, Loop, Run, loops_of
from codegen.render import render
from codegen.schedule import job_table
from pysim.design import Design

LABEL = re.compile(r"^\s*([A-Z_]+):\s*$")
FUNCTION = re.compile(r"^(?:[\w:<>*&]+ )+[*&]?(\w+)\(")


@dataclasses.dataclass
class Found:
    """A labelled loop of the C++: where it is, the labels round it, whether a pragma pipelines it."""

    label: str
    function: str
    outer: tuple[str, ...]
    pipelined: bool = False
    variable: bool = False


def loops_in(text: str) -> list[Found]:
    """Every labelled loop of a formatted C++ file."""
    found: list[Found] = []
    open_loops: list[tuple[int, Found]] = []
    function, waiting = "", ""
    for line in text.splitlines():
        if match := FUNCTION.match(line):
            function = match[1]
        if match := LABEL.match(line):
            waiting = match[1]
            continue
        indent = len(line) - len(line.lstrip())
        if waiting and line.lstrip().startswith("for ("):
            while open_loops and open_loops[-1][0] >= indent:
                open_loops.pop()
            loop = Found(waiting, function, tuple(outer.label for _, outer in open_loops))
            found.append(loop)
            open_loops.append((indent, loop))
            waiting = ""
        elif line.strip() == "}" and open_loops and open_loops[-1][0] == indent:
            open_loops.pop()
        elif open_loops and line.startswith("#pragma HLS pipeline"):
            open_loops[-1][1].pipelined = True
        elif open_loops and line.startswith("#pragma HLS loop_tripcount"):
            open_loops[-1][1].variable = True
    return found


def stages_of(design: Design, **options: object) -> list[Stage]:
    return Scheduler(on_hardware(design), 1, 0.9, **options).run()  # type: ignore[arg-type]


def cycles(stages: list[Stage]) -> int:
    return sum(stage.cycles for stage in stages)


@pytest.mark.parametrize("preset", ["w8a8", "iccad23"])
def test_the_code_has_exactly_these_loops(preset: str, designs: dict[str, Design], tmp_path: Path) -> None:
    architecture = on_hardware(designs[preset])
    files = render(architecture, tmp_path, load_board("zcu111"))
    sources = [file for file in files if file.parent.name == "src" and file.suffix == ".cpp"]
    found = {loop.label: loop for file in sources for loop in loops_in(file.read_text())}
    pipelined = {label: loop for label, loop in found.items() if loop.pipelined}
    known = loops_of(architecture)
    # Compiled in either way: the softmax over the chosen experts, which this network does not have.
    assert set(pipelined) - {"SELECTED_TOKENS"} == set(known)
    for label, loop in known.items():
        there = pipelined[label]
        assert loop.function == there.function, label
        # Whatever surrounds it beyond the nest does not flatten: an inner loop has a bound that a call decides.
        outer = there.outer[len(there.outer) - len(loop.nest) :]
        assert loop.nest == outer, label
        assert not any(found[name].variable for name in (*outer[1:], label) if outer), label
        for name in there.outer[: len(there.outer) - len(loop.nest)]:
            assert any(found[inner].variable for inner in (*outer, label)), (label, name)
    jobs = re.findall(r"^    \{.*// (.+)$", (tmp_path / "src/jobs.h").read_text(), re.MULTILINE)
    assert jobs == [job.name for job in job_table(architecture)]
    groups = found[GROUP_OVERLAP.loop]
    assert (groups.function, groups.pipelined) == (GROUP_OVERLAP.function, False)


@pytest.mark.parametrize("preset", ["w8a8", "w16a16", "iccad23"])
def test_runs_sum_to_the_trips_and_the_cycles(preset: str, designs: dict[str, Design]) -> None:
    stages = stages_of(designs[preset])
    engines: dict[str, int] = {"load": HEADER_BEATS}
    for total in loop_totals(stages):
        engines[total.loop.engine] = engines.get(total.loop.engine, 0) + total.iterations
        assert total.cycles == total.iterations * total.loop.ii + total.entries * total.loop.depth
        assert total.longest * total.entries >= total.iterations
    assert engines == total_trips(stages)
    # A stage in which nothing runs side by side and nothing is loaded is the sum of its loops.
    attention = next(stage for stage in stages if stage.name.endswith("attention"))
    assert attention.cycles == sum(run.cycles for run in attention.runs)


def test_side_by_side_is_the_longer_of_the_two(designs: dict[str, Design]) -> None:
    beside, serial = stages_of(designs["w8a8"]), stages_of(designs["w8a8"], overlap=False)
    for name in ("blocks.0.qkv", "blocks.0.fc1"):
        stage = next(stage for stage in beside if stage.name == name)
        computes = [run.cycles for run in stage.runs if run.loop.label == "ROUNDS"]
        loads = [
            round(run.trips / 0.9) + run.loop.depth + MEMORY_LATENCY
            for run in stage.runs
            if run.loop.label == "LOAD_GROUP"
        ]
        assert len(computes) == len(loads) == 2
        assert stage.cycles == sum(max(pair) for pair in zip(computes, loads, strict=True))
        after = next(stage for stage in serial if stage.name == name)
        assert after.cycles == sum(computes) + sum(loads)
    assert cycles(serial) > cycles(beside)


def test_what_is_known_of_a_loop_changes_the_cycles(designs: dict[str, Design]) -> None:
    design = designs["w8a8"]
    loops = loops_of(on_hardware(design))
    before = {total.loop.label: total for total in loop_totals(stages_of(design))}
    keys = before["CYCLES"]
    slower = loops | {"CYCLES": dataclasses.replace(keys.loop, ii=2, depth=keys.loop.depth + 7)}
    grown = cycles(stages_of(design, loops=slower)) - cycles(stages_of(design))
    assert grown == keys.iterations + 7 * keys.entries
    # A port that takes a beat every other cycle is slower than the memory, which gives 0.9 a cycle.
    beats = before["LOAD_NORM"].iterations // before["LOAD_NORM"].entries
    wide = loops | {"LOAD_NORM": dataclasses.replace(loops["LOAD_NORM"], ii=2)}
    grown = cycles(stages_of(design, loops=wide)) - cycles(stages_of(design))
    assert grown == before["LOAD_NORM"].entries * (2 * beats - round(beats / 0.9))


def test_loops_that_do_not_flatten_pay_their_depth_each_time(designs: dict[str, Design]) -> None:
    architecture = on_hardware(designs["w8a8"])
    totals = {total.loop.label: total for total in loop_totals(stages_of(designs["w8a8"]))}
    layers = len(architecture.spec.moe_layers)
    assert totals["CHOOSE_TOKENS"].entries == layers * architecture.experts
    assert totals["GATE_WORDS"].entries == layers * architecture.gate_groups
    assert totals["CYCLES"].entries == architecture.spec.depth * architecture.spec.heads


def test_a_request_for_each_burst(designs: dict[str, Design]) -> None:
    stages = stages_of(designs["w8a8"])
    header = next(stage for stage in stages if stage.name == "positions")
    # The header and the table behind it come with one request.
    assert sum(run.requests for run in header.runs) == 1
    assert header.load == HEADER_BEATS + sum(run.iterations for run in header.runs)
    for stage in stages:
        requests = sum(run.requests for run in stage.runs)
        loads = sum(run.loop.label == "LOAD_GROUP" for run in stage.runs)
        if stage.name.endswith(("norm1", "norm2")):
            # Settings and parameters of the first norm are neighbours.
            assert requests == 1
        elif stage.name.endswith("router"):
            assert requests == 1
        elif stage.name.endswith("attention"):
            assert requests == 0
        elif stage.name.endswith(("qkv", "proj", "fc1", "fc2", "experts", "embed")):
            assert requests == loads


def test_cycles_of_a_loop() -> None:
    loop = Loop("A", "f", "linear", 10, ii=3)
    assert (loop.cycles(0), loop.cycles(1), loop.cycles(100)) == (0, 13, 310)
    assert (Run(loop, 100, 4).iterations, Run(loop, 100, 4).cycles) == (400, 1240)
