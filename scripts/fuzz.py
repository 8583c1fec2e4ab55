"""Feed the package what nobody would write, and see that it refuses or works.

    python scripts/fuzz.py designs --cases 100
    python scripts/fuzz.py designs --csim --cases 10
    python scripts/fuzz.py files --seconds 600
    python scripts/fuzz.py host --seed 7 --first 12 --cases 1
    python scripts/fuzz.py accelerators --cases 50

designs: random networks, presets and hardware. Each is refused in a sentence, or g++ and Verilator accept all that
is generated for it; with `--csim`, its test bench runs and finds no value that differs.
files: damaged and hostile files of every kind that the package reads. Never a traceback, a half-written output, a
message without end, or a command without end.
host: random sequences of calls on an emulated board. Results are the simulator's, whatever failed before.
accelerators: random networks on random RTL accelerators, behind memories of all kinds. Refused, or every value of every
stage is the simulator's.

A case depends on the seed and on its number alone. Each failure is printed with the command that repeats it. Exit code
1 if there is one.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # stand-ins and helpers of the tests serve here too

from scripts.fuzzing.outcome import Outcome  # noqa: E402

TARGETS = ("designs", "files", "host", "accelerators")

console = Console(stderr=True)


def runner(target: str, *, csim: bool = False, shrink: bool = False) -> Callable[[int, int], Outcome]:
    """What runs a case of a target, given the seed and its number. Imports what the target needs, and no more."""
    if target == "designs":
        from scripts.fuzzing import designs

        return lambda seed, number: designs.run(seed, number, csim=csim)
    if target == "files":
        from scripts.fuzzing import files

        return lambda seed, number: files.run(seed, number, shrink=shrink)
    if target == "accelerators":
        from scripts.fuzzing import accelerators

        return accelerators.run
    from scripts.fuzzing import calls

    return lambda seed, number: calls.run(seed, number, shrink=shrink)


def numbers(first: int, cases: int | None, seconds: float | None) -> Iterator[int]:
    """Numbers of cases, until there were so many or so many seconds are over."""
    end = time.monotonic() + seconds if seconds is not None else None
    number = first
    while (cases is None or number < first + cases) and (end is None or time.monotonic() < end):
        yield number
        number += 1


def main(
    target: Annotated[str, typer.Argument(help=f"One of {', '.join(TARGETS)}.")],
    seed: Annotated[int, typer.Option(min=0, help="Of all cases.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Number of the first case.")] = 0,
    cases: Annotated[int | None, typer.Option(min=1, help="Cases; 100 if no time is given.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="No case begins later.")] = None,
    csim: Annotated[bool, typer.Option("--csim", help="designs: run the test benches.")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="files, host: look for the shortest failure; takes minutes.")
    ] = False,
) -> None:
    """Run cases of a target."""
    if target not in TARGETS:
        raise typer.BadParameter(f"{target!r} is none of {', '.join(TARGETS)}")
    if cases is None and seconds is None:
        cases = 100
    run = runner(target, csim=csim, shrink=shrink)
    states: Counter[str] = Counter()
    start = time.monotonic()
    for number in numbers(first, cases, seconds):
        outcome = run(seed, number)
        states[outcome.state] += outcome.count
        failed = outcome.state == "failed"
        style = "red" if failed else None
        console.print(
            f"{number}: {outcome.state}: {outcome.detail}", style=style, markup=False, highlight=False
        )
        if failed:
            options = [
                "--seed",
                str(seed),
                "--first",
                str(number),
                "--cases",
                "1",
                *(["--csim"] if csim else []),
            ]
            print(
                f"FAILED {target} {number}: {outcome.detail}\n  "
                + shlex.join(["python", __file__, target, *options])
            )
    found = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"{target}, seed {seed}: {found}, {time.monotonic() - start:.0f} s")
    if states["failed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
