"""Short runs of `scripts/fuzz.py`, and that each of its checks can fail."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from blank import blank
from codegen.architecture import Architecture
from codegen.build import Build
from codegen.render import render
from codegen.rtl.kernels.base import Kernel
from codegen.rtl.render import render as render_rtl
from common.errors import CheckError, EdgeMoeError
from emulation import FaultyKernel
from host.emulated import EmulatedKernel
from pysim.precision import PRESETS
from scripts import fuzz
from scripts.fuzzing import accelerators, calls, designs, files
from scripts.fuzzing.examples import seed_of
from scripts.fuzzing.outcome import Outcome

APP = typer.Typer()
APP.command()(fuzz.main)

SEED = 1
DESIGNS = (0, 2, 3, 4, 6, 7, 9)
ACCELERATORS = (2, 3, 4)
"""Those that are built soonest."""
SIMULATED = (0, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14)
"""Of the first cases, those that are not much like another: `make test-nightly` begins with all of them."""


# --- Designs ------------------------------------------------------------------------------------------------


@pytest.mark.rtl
@pytest.mark.compile
@pytest.mark.parametrize("number", DESIGNS)
def test_a_random_design_is_refused_or_compiles(number: int) -> None:
    outcome = designs.run(SEED, number)
    assert outcome.state in ("refused", "compiled"), outcome.detail


@pytest.mark.compile
@pytest.mark.parametrize("number", SIMULATED)
def test_a_random_design_is_refused_or_computes_what_the_simulator_computes(number: int) -> None:
    outcome = designs.run(SEED, number, csim=True)
    assert outcome.state in ("refused", "compiled"), outcome.detail


@pytest.mark.rtl
@pytest.mark.compile
@pytest.mark.parametrize("number", ACCELERATORS)
def test_a_random_accelerator_computes_what_the_simulator_computes(number: int) -> None:
    outcome = accelerators.run(SEED, number)
    assert outcome.state == "equal", outcome.detail


def drawn(number: int) -> designs.Drawn:
    return designs.draw(random.Random(f"{SEED}/{number}"))


def test_designs_differ_and_repeat() -> None:
    many = [drawn(number) for number in range(40)]
    assert many == [drawn(number) for number in range(40)]
    assert len({repr(each) for each in many}) == 40
    assert {each.precision.name for each in many} == {*PRESETS, "mixed"}
    assert {each.spec.moe is None for each in many} == {True, False}


def test_most_designs_can_be_built() -> None:
    def buildable(each: designs.Drawn) -> bool:
        try:
            blank(each.spec, each.precision, each.hardware)
        except EdgeMoeError:
            return False
        return True

    counts = Counter(buildable(drawn(number)) for number in range(100))
    assert 40 <= counts[True] < 100


@pytest.fixture(scope="module")
def small() -> designs.Drawn:
    """A design that compiles quickly."""
    smallest = min(
        (drawn(number) for number in range(60)),
        key=lambda d: d.hardware.lanes * d.hardware.outputs,
    )
    hardware = smallest.hardware.changed(axi_width=64, weight_rows=512, outputs=2)
    return replace(smallest, precision=PRESETS["w8a8"], hardware=hardware)


@pytest.mark.compile
def test_code_that_does_not_compile_is_a_failure(
    small: designs.Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = render

    def broken(architecture: Architecture, folder: Path, *rest: object) -> None:
        real(architecture, folder, *rest)  # type: ignore[arg-type]
        with (folder / "src/units.cpp").open("a") as file:
            file.write('template <int N> struct S { static_assert(N > 1, "too few"); };\nS<1> made;\n')

    monkeypatch.setattr(designs, "render", broken)
    outcome = designs.check(small)
    assert outcome.state == "failed"
    assert "units.cpp: " in outcome.detail and "too few" in outcome.detail


@pytest.mark.rtl
def test_rtl_that_verilator_refuses_is_a_failure(
    small: designs.Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = render_rtl

    def broken(architecture: Architecture, kernels: list[Kernel], folder: Path) -> list[Path]:
        written = real(architecture, kernels, folder)
        text = written[0].read_text()
        written[0].write_text(text.replace("endmodule", "wire [1:0] narrow = 3'd4;\nendmodule"))
        return written

    monkeypatch.setattr(designs, "render_rtl", broken)
    monkeypatch.setattr(designs, "check_syntax", lambda sources, includes: None)
    outcome = designs.check(small)
    assert outcome.state == "failed"
    assert "Verilator refuses it" in outcome.detail


@pytest.mark.parametrize("error", [CheckError("x"), EdgeMoeError(""), EdgeMoeError("y" * 1000)])
def test_unclear_refusals_are_failures(
    error: EdgeMoeError, small: designs.Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(designs, "blank", refuse)
    assert designs.check(small).state == "failed"


def test_an_exception_is_a_failure_with_its_design(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nothing")

    monkeypatch.setattr(designs, "check", fail)
    outcome = designs.run(SEED, 3)
    assert outcome.state == "failed"
    assert "ZeroDivisionError: nothing" in outcome.detail
    assert repr(drawn(3)) in outcome.detail


# --- Host calls ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(built: Build, library: Path) -> calls.Bench:
    return calls.Bench.of(built, library)


@pytest.mark.compile
def test_random_calls_return_what_the_simulator_does(bench: calls.Bench) -> None:
    outcome = calls.run(SEED, 0, bench=bench, examples=4)
    assert (outcome.state, outcome.count) == ("right", 4), outcome.detail


@pytest.mark.compile
def test_a_wrong_value_is_found(bench: calls.Bench) -> None:
    expected = {task: values.copy() for task, values in bench.expected.items()}
    expected["depth"][1, 2, 3] ^= 1
    outcome = calls.run(SEED, 0, bench=replace(bench, expected=expected), examples=20)
    assert outcome.state == "failed"
    assert "Mismatched elements: 1 " in outcome.detail
    assert "state.run" in outcome.detail, "the calls that led there"


@pytest.mark.compile
def test_a_call_that_must_fail_and_does_not_is_found(
    bench: calls.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that does not lie when it is told to: the call that must be refused succeeds."""
    monkeypatch.setattr(FaultyKernel, "execute", EmulatedKernel.execute)
    outcome = calls.run(SEED, 0, bench=bench, examples=20)
    assert outcome.state == "failed"


# --- Files --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(files.KINDS)))
def test_whole_files_are_read(number: int, tmp_path: Path) -> None:
    shutil.copytree(files.samples(), tmp_path / "files")
    assert files.read_one(files.KINDS[number], tmp_path / "files") == ""


@pytest.mark.compile
def test_damaged_files_are_read_or_refused() -> None:
    outcome = files.run(SEED, 0)
    assert outcome.state == "right", outcome.detail


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [
        ("x" * 30_000, "30001 characters"),
        ("Traceback (most recent call last):", "Traceback"),
        ("\x1b[2J", "control characters"),
    ],
)
def test_what_a_command_must_not_print(
    printed: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "main", lambda arguments: print(printed) or 2)
    with pytest.raises(AssertionError, match=complaint):
        files.command(["init"], tmp_path, tmp_path / "out")


@pytest.mark.parametrize("code", [0, 2, 3])
def test_what_a_command_must_not_leave(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(_: object) -> int:
        if code:
            (tmp_path / ".out.half").touch()
        return code

    monkeypatch.setattr(files, "main", main)
    with pytest.raises(AssertionError, match="exit code"):
        files.command(["init", str(tmp_path / "out")], tmp_path, tmp_path / "out")


def test_a_command_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST", 0.2)
    with pytest.raises(AssertionError, match="took more than"), files.bounded():
        while True:
            pass


@pytest.mark.compile
def test_memory_without_end_is_not_given() -> None:
    with pytest.raises(MemoryError), files.bounded():
        np.empty(2 * files.MEMORY, np.uint8)  # Other threads may give some back meanwhile.


# --- The command --------------------------------------------------------------------------------------------


def test_failures_are_printed_with_what_repeats_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def runner(*_: object, **__: object) -> Callable[[int, int], Outcome]:
        return lambda seed, number: Outcome(
            "failed" if number == 5 else "right", f"case {number} of {seed}", 3
        )

    monkeypatch.setattr(fuzz, "runner", runner)
    result = CliRunner().invoke(APP, ["host", "--seed", "9", "--first", "4", "--cases", "3"])
    assert result.exit_code == 1
    assert "FAILED host 5: case 5 of 9" in result.output
    assert "fuzz.py host --seed 9 --first 5 --cases 1" in result.output
    assert "host, seed 9: 3 failed, 6 right" in result.output


def test_time_ends_a_run() -> None:
    assert list(fuzz.numbers(3, None, 0)) == []
    assert list(fuzz.numbers(3, 2, None)) == [3, 4]
    assert next(fuzz.numbers(0, None, 1000)) == 0


def test_unknown_target() -> None:
    assert CliRunner().invoke(APP, ["nothing"]).exit_code == 2


def test_a_case_depends_on_its_seed_and_number_alone() -> None:
    seeds = {fuzz_seed for number in range(50) for fuzz_seed in [seed_of("host", SEED, number)]}
    assert len(seeds) == 50
    assert seed_of("host", 1, 2) != seed_of("files", 1, 2)
