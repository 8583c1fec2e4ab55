"""Synthesise the RTL kernels of a Design with Yosys and set what they use beside the estimate.

    python scripts/synth_rtl.py
    python scripts/synth_rtl.py --precision w8a8 --kernel linear --outputs 16 --json
    python scripts/synth_rtl.py --model micro --precision w8a8 --kernel accelerator

For each kernel that holds an engine: the estimate of that engine, the same with what the kernel has instead or on top
(buffers, registers, streams; counted, not fitted), and what Yosys counts. The whole accelerator is the kernel
`accelerator`, which is left out where no kernel is named. Exit code 1 where a kernel is further than 25 % from what is
expected. Yosys comes with `pip install 'edgemoe[synth]'`; its first call takes minutes.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from codegen.architecture import Architecture
from codegen.context import TOP
from codegen.hardware import Hardware
from codegen.resources import Resources, engine_resources
from codegen.rtl.accelerator import accelerator_files
from codegen.rtl.accelerator_resources import accelerator_parts
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.base import Kernel
from codegen.rtl.render import render
from codegen.rtl.resources import ENGINES, kernel_parts
from codegen.rtl.synthesis import find_yosys, synthesise
from codegen.rtl.yosys_dialect import rewrite
from common.errors import EdgeMoeError, InputError
from frontend.zoo import find_spec
from pysim.network import Network
from pysim.precision import preset

TOLERANCE: Final = 0.25
COMPARED: Final = ("dsp", "bram36", "lut")
NEGLIGIBLE: Final = {"dsp": 2, "bram36": 2, "lut": 100}
"""Differences that do not count, however large a part they are."""

ACCELERATOR: Final = "accelerator"
"""Name under which the whole is asked for."""

console = Console(stderr=True)


@dataclass(frozen=True)
class Row:
    """One kernel.

    Attributes:
        kernel: its name.
        engine: the estimate of the engine that it holds; None where it is a part of others.
        parts: of what is expected of the kernel.
        yosys: what it uses.
    """

    kernel: str
    engine: Resources | None
    parts: dict[str, Resources]
    yosys: Resources

    @property
    def expected(self) -> Resources:
        return sum(self.parts.values(), Resources())

    @property
    def off(self) -> list[str]:
        """Resources that are further from what is expected than the tolerance."""
        if self.engine is None:
            return []
        found = []
        for name in COMPARED:
            wanted, used = getattr(self.expected, name), getattr(self.yosys, name)
            if abs(used - wanted) > max(TOLERANCE * used, NEGLIGIBLE[name]):
                found.append(name)
        return found


def architecture_of(model: str, precision: str, hardware: Hardware) -> Architecture:
    """A network of the zoo on some hardware: what it uses does not depend on weights."""
    return Architecture(Network(find_spec(model), preset(precision)), hardware)


def row_of(architecture: Architecture, kernel: Kernel, folder: Path) -> Row:
    """Synthesise one kernel."""
    folder.mkdir()
    yosys = synthesise(render(architecture, [kernel], folder), kernel.top)
    if kernel.name not in ENGINES:
        return Row(kernel.name, None, {}, yosys)
    engines = engine_resources(architecture)
    engine = sum((engines[name] for name in ENGINES[kernel.name]), Resources())
    return Row(kernel.name, engine, kernel_parts(architecture, kernel), yosys)


def whole_of(architecture: Architecture, folder: Path) -> Row:
    """Synthesise the accelerator, which is expected to take what the estimate says."""
    folder.mkdir()
    architecture = Architecture(architecture.network, architecture.hardware.changed(backend="rtl"))
    sources = accelerator_files(architecture, folder)
    rewrite(sources)
    parts = accelerator_parts(architecture)
    return Row(ACCELERATOR, sum(parts.values(), Resources()), parts, synthesise(sources, TOP))


def table_of(title: str, rows: list[Row]) -> Table:
    """Engine's estimate / expected of the kernel / Yosys, for each resource."""
    table = Table(title=title, caption="estimate of the engine / expected of the kernel / Yosys")
    table.add_column("kernel")
    for name in ("LUT", "FF", "DSP", "BRAM36"):
        table.add_column(name, justify="right")
    for row in rows:
        cells = []
        for name in ("lut", "ff", "dsp", "bram36"):
            used = f"{getattr(row.yosys, name):,g}"
            if row.engine is not None:
                before = (f"{getattr(resources, name):,g}" for resources in (row.engine, row.expected))
                used = " / ".join([*before, used])
            cells.append(f"[red]{used}[/]" if name in row.off else used)
        table.add_row(row.kernel, *cells)
    return table


def main(
    model: Annotated[str, typer.Option(help="Zoo name or model.toml: the shape.")] = "m3vit-tiny",
    precision: Annotated[list[str] | None, typer.Option(help="Preset; may be repeated.")] = None,
    kernel: Annotated[list[str] | None, typer.Option(help="Only this kernel; may be repeated.")] = None,
    lanes: Annotated[int, typer.Option(help="Lanes of a word.")] = 8,
    outputs: Annotated[int, typer.Option(help="Outputs at once.")] = 8,
    token_tile: Annotated[int, typer.Option(help="Tokens at once.")] = 2,
    attention_rows: Annotated[int, typer.Option(help="Query rows at once.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Synthesise the RTL kernels with Yosys and compare with the estimate."""
    results: dict[str, list[Row]] = {}
    try:
        find_yosys()
        hardware = Hardware(
            lanes=lanes, outputs=outputs, token_tile=token_tile, attention_rows=attention_rows
        )
        for name_of_preset in precision or ["w16a16", "w8a8"]:
            with console.status(f"{name_of_preset}: quantising {model}") as status:
                architecture = architecture_of(model, name_of_preset, hardware)
                kernels = kernels_of(architecture)
                if unknown := sorted(set(kernel or []) - {*kernels, ACCELERATOR}):
                    there = ", ".join([*kernels, ACCELERATOR])
                    raise InputError(f"no kernel {unknown[0]}", hint=f"there are {there}")
                with tempfile.TemporaryDirectory(prefix="edgemoe-synth-") as temporary:
                    results[name_of_preset] = []
                    for name in kernel or kernels:
                        status.update(f"{name_of_preset}: synthesising {name}")
                        own = Path(temporary) / name
                        whole = name == ACCELERATOR
                        row = (
                            whole_of(architecture, own) if whole else row_of(architecture, kernels[name], own)
                        )
                        results[name_of_preset].append(row)
                        console.print(f"{name_of_preset} {name}: {row.yosys}", highlight=False)
    except (EdgeMoeError, ValueError) as error:
        console.print(f"error: {error}", markup=False, style="red", highlight=False)
        if hint := getattr(error, "hint", ""):
            console.print(f"hint: {hint}", markup=False, highlight=False)
        raise typer.Exit(2) from None
    if as_json:
        shape = {"model": model, "hardware": hardware.model_dump()}
        rows = {
            p: [asdict(r) | {"expected": asdict(r.expected), "off": r.off} for r in found]
            for p, found in results.items()
        }
        print(json.dumps(shape | {"kernels": rows}))
    else:
        for title, rows_of in results.items():
            Console().print(table_of(f"{model}, {title}", rows_of))
    if any(row.off for found in results.values() for row in found):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
