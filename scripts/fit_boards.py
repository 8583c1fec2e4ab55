"""Fit a network to every board, generate each, and prove that the C++ returns the simulator's integers.

    python scripts/fit_boards.py                                 every shipped board, m3vit-tiny in w8a8
    python scripts/fit_boards.py --board kv260 --network micro   one board, another network of the zoo
    python scripts/fit_boards.py --table                         write the table of docs/boards.md, and compile nothing

Weights are random: hardware does not depend on them. Each build is compiled with g++; the test bench runs every engine
and the whole network, and the host's driver runs on the emulated board. Exit code 1 where a value differs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

import edgemoe
from boards import board_names, load_board
from codegen.csim import run_csim
from codegen.fit import Fitted, fit
from common.errors import InputError
from edgemoe.accelerator import emulated_board
from edgemoe.host_check import check_host
from frontend.zoo import find_spec
from pysim.network import Network
from pysim.precision import NAMED

PAGE: Final = Path(__file__).parents[1] / "docs/boards.md"
MARK: Final = "<!-- check: fit -->"
TABLE: Final = (
    ("m3vit-tiny", "w8a8"),
    ("m3vit-tiny", "w8a8-lean"),
    ("m3vit-tiny", "w16a16"),
    ("vit-tiny", "w8a8"),
    ("deit-small", "w8a8"),
)
"""Columns of the table: networks and presets."""

app = typer.Typer(add_completion=False)


def fitted(network: str, preset: str, board: str) -> Fitted | None:
    """The fastest hardware, or None where nothing fits."""
    try:
        return fit(Network(find_spec(network), NAMED[preset]), load_board(board))
    except InputError:
        return None


def markdown() -> str:
    """The table of docs/boards.md: milliseconds of an image, and what is used up to its limit."""
    heads = [f"{network} `{preset}`" for network, preset in TABLE]
    lines = ["| Board | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for board in board_names():
        cells = [cell(fitted(network, preset, board)) for network, preset in TABLE]
        lines.append(f"| `{board}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(found: Fitted | None) -> str:
    if found is None:
        return "-"
    used = {
        name: used / there for name, (used, there) in found.performance.resources.items() if there and used
    }
    most = max(used, key=lambda name: used[name] / (0.75 if name in ("lut", "ff") else 0.9))
    return f"{found.performance.ms:.2f} ({most} {100 * used[most]:.0f} %)"


def verify(network: str, preset: str, board: str, folder: Path) -> tuple[Fitted, int, int]:
    """Values compared and mismatches of a fitted build, by the C simulation and the emulated board."""
    found = fitted(network, preset, board)
    if found is None:
        raise InputError(f"no hardware for {network} in {preset} fits {board}")
    model = edgemoe.init_model(network, seed=1)
    images = edgemoe.random_images(model, 2, seed=2)
    design = edgemoe.quantize(model, images, preset)
    build = edgemoe.generate(design, folder, board, images[:1], hardware=found.hardware)
    result = run_csim(build.hls)
    result += check_host(build, emulated_board(build.folder), images[:1])
    return found, result.values, result.failed


@app.command()
def main(
    network: Annotated[str, typer.Option(help="Name in the zoo.")] = "m3vit-tiny",
    precision: Annotated[str, typer.Option(help="Preset.")] = "w8a8",
    board: Annotated[list[str] | None, typer.Option(help="Board; all if not given.")] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Write the table of docs/boards.md instead.")
    ] = False,
) -> None:
    """Fit, generate, compile and compare."""
    console = Console()
    if table:
        cells = markdown()
        before, _, behind = PAGE.read_text().partition(MARK + "\n")
        rest = behind[behind.index("\n\n") + 1 :] if "\n\n" in behind else ""
        PAGE.write_text(f"{before}{MARK}\n{cells}{rest}")
        return
    rows = Table("board", "ms", "lanes x outputs x tile", "rows", "values", "mismatches")
    wrong = 0
    for name in board or board_names():
        with tempfile.TemporaryDirectory() as folder:
            try:
                found, values, mismatches = verify(network, precision, name, Path(folder) / "build")
            except InputError as error:
                rows.add_row(name, error.message)
                continue
        sizes, wrong = found.hardware, wrong + mismatches
        rows.add_row(
            name,
            f"{found.performance.ms:.2f}",
            f"{sizes.lanes} x {sizes.outputs} x {sizes.token_tile}",
            str(sizes.attention_rows),
            f"{values:,}",
            f"{mismatches:,}",
        )
        console.print(rows)
    raise typer.Exit(int(wrong > 0))


if __name__ == "__main__":
    app()
