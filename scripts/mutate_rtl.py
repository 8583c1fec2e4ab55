"""Break the RTL of a small Design on purpose, one place at a time, and see whether its test benches notice.

    python scripts/mutate_rtl.py --count 40
    python scripts/mutate_rtl.py --all-tables
    python scripts/mutate_rtl.py --kernel linear --count 10 --kind shift --seed 3

A mutant is the rendered RTL with one change: a bit of a table's entry, a shift one further, a delay one longer, a bit
of a literal. It is built anew, and the checks of every kernel that contains the file are played on it, smallest kernel
first, until one differs: in a value, in the number of cycles, by a flag, or because it hangs. What Verilator refuses is
counted apart. `--all-tables` tries every bit of every entry: a result of a function unit depends on one entry
alone, so that one run with a bit flipped in all entries tells for each of them whether it would be missed.

Everything happens in a temporary folder. Exit code 1 if a mutant survives.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from codegen.architecture import Architecture
from codegen.hardware import default_hardware
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.base import Check, Kernel
from codegen.rtl.render import render
from codegen.rtl.simulation import Scenario, build, play
from codegen.rtl.streams import IntArray
from codegen.rtl.vectors import checks
from common.errors import CheckError, EdgeMoeError, InputError
from frontend.zoo import find_spec
from pysim.kernels.units import reciprocal
from pysim.model import init_model
from pysim.precision import preset
from pysim.quantizer import quantize
from pysim.tables import EXP2, GELU_DELTA, RECIPROCAL, RSQRT, PiecewiseLinear

ORDER: Final = (
    "exp2",
    "reciprocal",
    "rsqrt",
    "gelu",
    "softmax",
    "layernorm",
    "router",
    "attention",
    "linear",
)
"""Kernels, those that build fastest first."""

NOT_PLAYED: Final = ("_control.sv", "_frame_guard.sv")
"""What these files do beside letting good frames through is the subject of other tests: registers, malformed frames."""

KINDS: Final = ("table", "shift", "delay", "literal")
TABLES: Final = {"exp2": EXP2, "gelu": GELU_DELTA, "reciprocal": RECIPROCAL, "rsqrt": RSQRT}
"""Kernels of one function unit, and its table."""

STALLS: Final = 7

_NO_LOGIC = re.compile(r"//[^\n]*|^`if\w+ (?:SYNTHESIS|FORMAL)$.*?^`endif$", re.MULTILINE | re.DOTALL)
"""Comments and checks."""
_ENTRY = re.compile(r"(?<=\{)(\d+)'d(\d+), (-?)(\d+)'sd(\d+)(?=\})")
_SHIFT = re.compile(r"(?:>>>|>>|<<) (?:[\w']+|\()")
_DELAY = re.compile(r"(?<=\.CYCLES\()(?=[^)])")
_LITERAL = re.compile(r"\b(\d+)'(s?)d(\d+)\b")

console = Console(stderr=True)


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        file: that is changed.
        line: its number.
        kind: one of `KINDS`.
        before: the text that goes.
        after: the text that comes in its place.
        start: where it is in the file.
        index: which of the file's places it is: the same place in the RTL of another Design.
    """

    file: str
    line: int
    kind: str
    before: str
    after: str
    start: int
    index: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.before!r} becomes {self.after!r}"

    def apply(self, text: str) -> str:
        """The text with the change."""
        return text[: self.start] + self.after + text[self.start + len(self.before) :]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: caught (and by what), refused, or survived."""

    mutant: Mutant
    state: str
    by: str = ""


@dataclass(frozen=True)
class TableResult:
    """Every bit of one table: how many were tried, and the (entry, bit) that no check notices."""

    tried: int
    survivors: list[tuple[int, int]]


# --- Where mutants come from --------------------------------------------------------------------------------


def sites(file: str, text: str, generator: np.random.Generator) -> Iterator[Mutant]:
    """One mutant for every place that can be changed; the generator chooses among the bits of a number."""
    code = _NO_LOGIC.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    is_table = "_rom_" in file

    def mutant(kind: str, found: re.Match[str], after: str) -> Mutant:
        return Mutant(file, code.count("\n", 0, found.start()) + 1, kind, found[0], after, found.start())

    if is_table:
        for found in _ENTRY.finditer(code):
            yield mutant("table", found, _flip_entry(found, generator))
        return
    for found in _SHIFT.finditer(code):
        operator, amount = found[0].split(" ", 1)
        # Of a bracket, what stands in it.
        further = "(1'b1 + " if amount == "(" else f"({amount} + 1'b1)"
        after = str(int(amount) ^ 1) if amount.isdigit() else further
        yield mutant("shift", found, f"{operator} {after}")
    for found in _DELAY.finditer(code):
        yield mutant("delay", found, "1 + ")
    for found in _LITERAL.finditer(code):
        width, sign, value = int(found[1]), found[2], int(found[3])
        yield mutant(
            "literal", found, f"{width}'{sign}d{value ^ (1 << int(generator.integers(width - bool(sign))))}"
        )


def _flip_entry(found: re.Match[str], generator: np.random.Generator) -> str:
    """An entry of a table, a bit of its base or of its slope flipped."""
    base_bits, base, slope_bits = int(found[1]), int(found[2]), int(found[4])
    slope = int(found[3] + found[5])
    bit = int(generator.integers(base_bits + slope_bits))
    if bit >= slope_bits:
        base ^= 1 << (bit - slope_bits)
    else:
        word = (slope & ((1 << slope_bits) - 1)) ^ (1 << bit)
        slope = word - (1 << slope_bits) if word >> (slope_bits - 1) else word
    sign = "-" if slope < 0 else ""
    return f"{base_bits}'d{base}, {sign}{slope_bits}'sd{abs(slope)}"


# --- Playing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A Design on which mutants are tried: small, so that it builds quickly.

    Attributes:
        renormalize: whether the router's softmax is over the chosen experts.
        hardware: sizes that differ from the default.
    """

    renormalize: bool
    hardware: dict[str, int]


VARIANTS: Final = (
    Variant(False, {"lanes": 4, "outputs": 8, "token_tile": 2, "attention_rows": 4, "weight_rows": 12}),
    Variant(True, {"lanes": 2, "outputs": 4, "token_tile": 3, "attention_rows": 5, "weight_rows": 24}),
)
"""Between them: heads of fewer words than a step has cycles, and of as many; softmax over all experts, and over the
chosen ones; weights in one group, and in many. A mutant survives if it does on all."""

EQUIVALENT: Final = {
    ("edgemoe_exp2_unit.v", "6'd27"): "a value that is shifted by 27 or more is nothing, however much more",
}
"""Changes upwards of a literal that no input can tell, by file and literal, and why."""


class Bench:
    """The kernels of a Design with their checks, rendered into a temporary folder."""

    def __init__(self, model: str, precision: str, variant: Variant, folder: Path) -> None:
        spec = find_spec(model)
        if spec.moe is not None:
            spec = spec.model_copy(
                update={"moe": spec.moe.model_copy(update={"renormalize": variant.renormalize})}
            )
        network = init_model(spec, seed=1)
        images = np.random.default_rng(2).integers(0, 256, (4, spec.in_channels, *spec.image_size), np.uint8)
        design = quantize(network, images, preset(precision))
        self.architecture = Architecture(
            design.network, default_hardware(design.network).changed(**variant.hardware)
        )
        self.kernels = kernels_of(self.architecture)
        self.checks = checks(design, self.architecture, images[:1], len(spec.tasks) - 1)
        self.folder = folder
        self.sources = {name: self._render(name, folder / "sound" / name) for name in self.kernels}

    def _render(self, name: str, folder: Path) -> list[Path]:
        folder.mkdir(parents=True)
        return render(self.architecture, [self.kernels[name]], folder)

    def containing(self, file: str) -> list[str]:
        """Kernels that a file is part of, the fastest to build first."""
        return [n for n in ORDER if n in self.kernels and any(s.name == file for s in self.sources[n])]

    def texts(self, kernels: Sequence[str]) -> dict[str, str]:
        """The files of kernels, each once. Files of one name differ between kernels in nothing that is changed."""
        return {s.name: s.read_text() for name in kernels for s in self.sources[name]}

    def difference(self, name: str, mutant: Mutant | None) -> str:
        """What a kernel's checks find, in words; empty if they find nothing.

        Raises:
            InputError: Verilator refuses the mutant.
        """
        kernel, folder = self.kernels[name], self.folder / "mutant"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for source in self.sources[name]:
            text = source.read_text()
            (folder / source.name).write_text(
                mutant.apply(text) if mutant and source.name == mutant.file else text
            )
        with self.built([folder / source.name for source in self.sources[name]], kernel) as built:
            return _played(kernel, built, self.checks[name])

    @contextmanager
    def built(self, sources: Sequence[Path], kernel: Kernel) -> Iterator[Path]:
        """A build that nothing keeps: not the user's cache either."""
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            yield build(sources, kernel.top, cache=Path(cache))

    def here(self, mutant: Mutant) -> Mutant:
        """The same place in the RTL of this Design."""
        (name, *_) = self.containing(mutant.file)
        text = next(s.read_text() for s in self.sources[name] if s.name == mutant.file)
        found = list(sites(mutant.file, text, np.random.default_rng(mutant.index)))
        return replace(found[mutant.index], index=mutant.index)

    def outcome(self, mutant: Mutant, kernels: Sequence[str]) -> Outcome:
        """Try one mutant."""
        for name in self.containing(mutant.file):
            if name not in kernels:
                continue
            try:
                found = self.difference(name, mutant)
            except InputError as error:
                return Outcome(mutant, "refused", str(error).partition("\n")[2][:200])
            if found:
                return Outcome(mutant, "caught", f"{name}: {found}")
        return Outcome(mutant, "survived")


def _played(kernel: Kernel, built: Path, all_checks: Sequence[Check]) -> str:
    """The first thing that is wrong, without stalls and with random ones."""
    for stalls in (None, STALLS):
        try:
            results = play(kernel, built, [Scenario(c.call.name, [c.call], stalls) for c in all_checks])
        except CheckError as error:
            return str(error)
        for check, (result,) in zip(all_checks, results, strict=True):
            if result.malformed:
                return f"{check.call.name}: says that a frame is malformed"
            if found := check.difference(kernel, result):
                return found
            if stalls is None and check.cycles not in (None, result.cycles):
                return f"{check.call.name}: {result.cycles} cycles, expected {check.cycles}"
    return ""


# --- Every bit of a table -------------------------------------------------------------------------------------


def entries(name: str, values: NDArray[np.int64]) -> IntArray:
    """Which entry of its table a function unit reads for each input; -1 where none."""
    table = TABLES[name]
    if name == "exp2":
        return (values & ((1 << (table.address_bits + table.step_bits)) - 1)) >> table.step_bits
    if name == "gelu":
        index = np.abs(values) >> table.step_bits
        return np.where(index < len(table.base), index, -1)
    unsigned = values.astype(np.uint64)
    positions = reciprocal(unsigned)[1]
    aligned = unsigned << (63 - positions).astype(np.uint64)
    below = table.address_bits - (name == "rsqrt")
    address = (aligned << np.uint64(1) >> np.uint64(64 - below)).astype(np.int64)
    return address + ((positions & 1) << below) if name == "rsqrt" else address


def switchable(text: str, table: PiecewiseLinear, switch: Path) -> str:
    """A table's file in which a bit of all entries is flipped: the one whose number a file names at run time."""
    width = table.base_format.width + table.slope_format.width
    select = f"""
  integer file, found, number;
  reg [{width - 1}:0] flip;
  initial begin
    file = $fopen("{switch}", "r");
    found = $fscanf(file, "%d", number);
    flip = found == 1 ? {{{{{width - 1}{{1'b0}}}}, 1'b1}} << number : {{{width}{{1'b0}}}};
    $fclose(file);
  end

  always @"""
    changed, count = re.subn(r"(\{base, slope\} <= \{[^}]*\});", r"\1 ^ flip;", text)
    if count != len(table.base):
        raise InputError(f"{count} entries found in {table.name}, expected {len(table.base)}")
    return changed.replace("\n  always @", select, 1)


def table_survivors(bench: Bench, name: str, bits: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """For each bit of a table's word, the (entry, bit) that the kernel's check would miss."""
    kernel, table, (check,) = bench.kernels[name], TABLES[name], bench.checks[name]
    folder, switch = bench.folder / f"table_{name}", bench.folder / f"bit_{name}"
    folder.mkdir(exist_ok=True)
    for source in bench.sources[name]:
        text = source.read_text()
        rom = source.name == f"edgemoe_rom_{table.name}.v"
        (folder / source.name).write_text(switchable(text, table, switch) if rom else text)
    (given,) = kernel.stream("x").unpack(check.call.inputs["x"][0]).values()
    read = entries(name, given.ravel())
    scenario = [Scenario("table", [check.call])]
    with bench.built([folder / source.name for source in bench.sources[name]], kernel) as built:
        switch.write_text("none")
        ((sound,),) = play(kernel, built, scenario)
        if found := check.difference(kernel, sound):
            raise CheckError(f"{name}: differs with no bit flipped: {found}")
        for bit in bits:
            switch.write_text(str(bit))
            ((result,),) = play(kernel, built, scenario)
            values = check.extract(result.values(kernel))
            wrong = np.zeros(len(read), bool)
            for field, wanted in check.expected.items():
                wrong |= values[field] != wanted.ravel()
            if (wrong & (read < 0)).any():
                raise CheckError(f"{name}: bit {bit} of the table changes a result that does not read it")
            caught = set(read[wrong].tolist())
            yield [(entry, bit) for entry in range(len(table.base)) if entry not in caught]


def word_bits(table: PiecewiseLinear) -> int:
    """Bits of an entry."""
    return table.base_format.width + table.slope_format.width


# --- Command --------------------------------------------------------------------------------------------------


def sample(bench: Bench, kernels: Sequence[str], kinds: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Mutants, chosen at random; each kind gets the same share as long as it has any."""
    generator = np.random.default_rng(seed)
    found: dict[str, list[Mutant]] = {kind: [] for kind in kinds}
    for file, text in sorted(bench.texts(kernels).items()):
        if not file.endswith(NOT_PLAYED):
            for index, mutant in enumerate(sites(file, text, generator)):
                if mutant.kind in found and not _equivalent(mutant):
                    found[mutant.kind].append(replace(mutant, index=index))
    shuffled = [[some[i] for i in generator.permutation(len(some))] for some in found.values()]
    chosen: list[Mutant] = []
    while len(chosen) < count and any(shuffled):
        for some in shuffled:
            if some and len(chosen) < count:
                chosen.append(some.pop())
    return chosen


def _equivalent(mutant: Mutant) -> bool:
    if (mutant.file, mutant.before) not in EQUIVALENT:
        return False
    before, after = (int(text.rpartition("d")[2]) for text in (mutant.before, mutant.after))
    return after > before


def tried(benches: Sequence[Bench], mutant: Mutant, kernels: Sequence[str]) -> Outcome:
    """What becomes of a mutant on one Design after the other, until one catches it."""
    outcome = Outcome(mutant, "survived")
    for number, bench in enumerate(benches):
        outcome = bench.outcome(bench.here(mutant) if number else mutant, kernels)
        if outcome.state != "survived":
            break
    return outcome


def main(
    model: Annotated[str, typer.Option(help="Zoo name or model.toml of a small network.")] = "micro",
    precision: Annotated[str, typer.Option(help="Preset.")] = "w8a8",
    kernel: Annotated[
        list[str] | None, typer.Option(help="Only files of this kernel; may be repeated.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(KINDS)}; may be repeated.")
    ] = None,
    count: Annotated[int, typer.Option(min=0, help="Mutants to build and play.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 1,
    all_tables: Annotated[bool, typer.Option(help="Also try every bit of every table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Mutate the RTL and report what the test benches miss."""
    outcomes: list[Outcome] = []
    tables: dict[str, TableResult] = {}
    try:
        if wrong := sorted(set(kind or []) - set(KINDS)):
            raise InputError(f"no kind {wrong[0]}", hint=f"there are {', '.join(KINDS)}")
        with (
            tempfile.TemporaryDirectory(prefix="edgemoe-mutants-") as temporary,
            Progress(console=console) as bar,
        ):
            benches = [
                Bench(model, precision, variant, Path(temporary) / str(number))
                for number, variant in enumerate(VARIANTS)
            ]
            bench = benches[0]
            kernels = [name for name in ORDER if name in bench.kernels and name in (kernel or ORDER)]
            if unknown := sorted(set(kernel or []) - set(kernels)):
                raise InputError(f"no kernel {unknown[0]}", hint=f"there are {', '.join(bench.kernels)}")
            for name in [n for n in kernels if n in TABLES and all_tables]:
                bits = range(word_bits(TABLES[name]))
                missed: list[tuple[int, int]] = []
                for found in bar.track(
                    table_survivors(bench, name, bits), total=len(bits), description=f"table of {name}"
                ):
                    missed += found
                tables[name] = TableResult(len(TABLES[name].base) * len(bits), missed)
            chosen = sample(bench, kernels, kind or KINDS, count, seed)
            for mutant in bar.track(chosen, description="mutants"):
                outcome = tried(benches, mutant, kernels)
                outcomes.append(outcome)
                console.print(f"{outcome.state}: {mutant}", markup=False, highlight=False)
    except EdgeMoeError as error:
        console.print(f"error: {error}", markup=False, style="red", highlight=False)
        if error.hint:
            console.print(f"hint: {error.hint}", markup=False, highlight=False)
        raise typer.Exit(2) from None
    states = Counter(outcome.state for outcome in outcomes)
    survivors = [str(outcome.mutant) for outcome in outcomes if outcome.state == "survived"]
    if as_json:
        print(
            json.dumps(
                {
                    "tables": {name: asdict(result) for name, result in tables.items()},
                    "caught": states["caught"],
                    "refused": states["refused"],
                    "survived": survivors,
                    "mutants": [asdict(outcome) for outcome in outcomes],
                }
            )
        )
    else:
        for title, result in tables.items():
            print(f"table of {title}: {result.tried - len(result.survivors)} of {result.tried} bits caught")
            for entry, bit in result.survivors:
                print(f"  survived: entry {entry}, bit {bit}")
        played = states["caught"] + states["survived"]
        print(
            f"mutants: {states['caught']} of {played} caught; {states['refused']} more refused by Verilator"
        )
        for survivor in survivors:
            print(f"  survived: {survivor}")
    if survivors or any(result.survivors for result in tables.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
