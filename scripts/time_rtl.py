"""Time the RTL kernels' cores: their slowest paths in a netlist of Yosys, and the flip-flops that their enables drive.

    python scripts/time_rtl.py
    python scripts/time_rtl.py --kernel linear --lanes 8 --outputs 8 --paths 20
    python scripts/time_rtl.py --record

The delays are rough (`codegen/rtl/netlist_timing.py`): they rank paths, no more. An engine's core is timed by itself,
with the clock enable that the accelerator gives it: none. So is a function unit; softmax is timed whole. Exit code 1
where a path is longer than 3.6 ns or an enable drives more than 2,000 flip-flops. `--record` writes the worst of each
into `tests/rtl_timing.json`, which the tests hold the RTL to.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from codegen.architecture import Architecture
from codegen.hardware import Hardware
from codegen.resources import Resources
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.base import Kernel
from codegen.rtl.netlist_timing import Timing
from codegen.rtl.render import render
from codegen.rtl.synthesis import CORES, find_yosys, timing_of
from common.errors import EdgeMoeError, InputError
from frontend.zoo import find_spec
from pysim.network import Network
from pysim.precision import preset

LONGEST_NS: Final = 3.6
MOST_ENABLED: Final = 2000
RECORD: Final = Path(__file__).parents[1] / "tests" / "rtl_timing.json"

console = Console(stderr=True)


def time_kernel(architecture: Architecture, kernel: Kernel, folder: Path) -> tuple[Timing, Resources]:
    """Timing and resources of a kernel's core, or of the kernel where it has none; works in a folder that it makes."""
    folder.mkdir()
    return timing_of(render(architecture, [kernel], folder), kernel.top, CORES.get(kernel.name))


def lines_of(name: str, timing: Timing, resources: Resources, paths: int) -> Iterator[str]:
    """What is printed of a kernel."""
    net, driven = timing.widest
    yield f"{name}: {timing.worst.ns:.2f} ns; {driven:,} flip-flops on {net}; {resources}"
    yield from (f"  {path.ns:.2f} ns  {path.text}" for path in timing.paths[:paths])


def too_much(timing: Timing) -> bool:
    """Whether a path is too long or an enable drives too much."""
    return timing.worst.ns > LONGEST_NS or timing.widest[1] > MOST_ENABLED


@dataclass(frozen=True)
class Worst:
    """Worst of a kernel on some hardware, as recorded.

    Attributes:
        model: zoo name.
        precision: preset.
        sizes: lanes, outputs, token tile, attention rows.
        kernel: its name.
        ns: of the slowest path.
        path: which that is.
        enabled: flip-flops that the widest enable drives.
    """

    model: str
    precision: str
    sizes: tuple[int, int, int, int]
    kernel: str
    ns: float
    path: str
    enabled: int

    @property
    def case(self) -> tuple[str, str, tuple[int, int, int, int], str]:
        """What it is the worst of."""
        return self.model, self.precision, self.sizes, self.kernel

    @property
    def architecture(self) -> Architecture:
        """The network on the hardware; paths do not depend on weights."""
        return architecture_of(self.model, self.precision, self.sizes)


def architecture_of(model: str, precision: str, sizes: tuple[int, int, int, int]) -> Architecture:
    """A network of the zoo on hardware of so many lanes, outputs, tokens and attention rows."""
    lanes, outputs, token_tile, attention_rows = sizes
    hardware = Hardware(lanes=lanes, outputs=outputs, token_tile=token_tile, attention_rows=attention_rows)
    return Architecture(Network(find_spec(model), preset(precision)), hardware)


def read_record() -> list[Worst]:
    """What is recorded."""
    return [Worst(**entry | {"sizes": tuple(entry["sizes"])}) for entry in json.loads(RECORD.read_text())]


def write_record(found: list[Worst]) -> None:
    """Record the worst of some kernels, and keep what is recorded of others."""
    known = {worst.case: worst for worst in (read_record() if RECORD.exists() else [])}
    known |= {worst.case: worst for worst in found}
    entries = [asdict(known[case]) for case in sorted(known)]
    RECORD.write_text(json.dumps(entries, indent=2) + "\n")


def main(
    model: Annotated[str, typer.Option(help="Zoo name or model.toml: the shape.")] = "m3vit-tiny",
    precision: Annotated[str, typer.Option(help="Preset.")] = "w8a8",
    kernel: Annotated[list[str] | None, typer.Option(help="Only this kernel; may be repeated.")] = None,
    lanes: Annotated[int, typer.Option(help="Lanes of a word.")] = 16,
    outputs: Annotated[int, typer.Option(help="Outputs at once.")] = 16,
    token_tile: Annotated[int, typer.Option(help="Tokens at once.")] = 2,
    attention_rows: Annotated[int, typer.Option(help="Query rows at once.")] = 2,
    paths: Annotated[int, typer.Option(help="Paths to print of each.")] = 5,
    record: Annotated[bool, typer.Option("--record", help="Write the worst of each kernel.")] = False,
) -> None:
    """Rank the slowest paths of the RTL kernels' cores."""
    timings: dict[str, Timing] = {}
    sizes = lanes, outputs, token_tile, attention_rows
    try:
        find_yosys()
        architecture = architecture_of(model, precision, sizes)
        kernels = kernels_of(architecture)
        if unknown := sorted(set(kernel or []) - set(kernels)):
            raise InputError(f"no kernel {unknown[0]}", hint=f"there are {', '.join(kernels)}")
        with tempfile.TemporaryDirectory(prefix="edgemoe-time-") as temporary:
            for name in kernel or kernels:
                with console.status(f"synthesising {name}"):
                    timings[name], resources = time_kernel(
                        architecture, kernels[name], Path(temporary) / name
                    )
                print(*lines_of(name, timings[name], resources, paths), sep="\n", flush=True)
    except (EdgeMoeError, ValueError) as error:
        console.print(f"error: {error}", markup=False, style="red", highlight=False)
        if hint := getattr(error, "hint", ""):
            console.print(f"hint: {hint}", markup=False, highlight=False)
        raise typer.Exit(2) from None
    slowest = max(timing.worst.ns for timing in timings.values())
    print(f"all: {1e3 / slowest:.0f} MHz by these delays")
    if record:
        write_record(
            [
                Worst(model, precision, sizes, name, timing.worst.ns, timing.worst.text, timing.widest[1])
                for name, timing in timings.items()
            ]
        )
    if any(map(too_much, timings.values())):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
