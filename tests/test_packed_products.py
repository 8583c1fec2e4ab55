"""Two products on a DSP slice, summed in chains before they are split: exact for all extremes of every width."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from blank import on_hardware
from boards import load_board
from codegen import csim
from codegen.architecture import Architecture
from codegen.render import render
from common.errors import InputError
from pysim.design import Design

pytestmark = pytest.mark.compile

SOURCE = Path(__file__).parent / "packed_products.cpp"


def packed(designs: dict[str, Design], activation_width: int, lanes: int) -> Architecture:
    design = designs["w8a8"]
    precision = design.precision.model_copy(update={"activation_width": activation_width})
    return on_hardware(replace(design, precision=precision), lanes=lanes, outputs=2 * lanes)


def run(architecture: Architecture, folder: Path, edits: Sequence[tuple[str, str]] = ()) -> str:
    render(architecture, folder, load_board("zcu111"))
    header = folder / "src/linear_arithmetic.h"
    for edit in edits:
        text = header.read_text()
        assert edit[0] in text
        header.write_text(text.replace(*edit))
    shutil.copy(SOURCE, folder / "src")
    sources = [folder / "src" / name for name in (SOURCE.name, "units.cpp", "tables.cpp")]
    return subprocess.run(
        [csim.build(sources, folder / "src")], capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.parametrize(
    ("activation_width", "lanes", "chain"), [(8, 8, 4), (8, 3, 4), (9, 8, 3), (10, 8, 1)]
)
def test_extremes(
    designs: dict[str, Design], tmp_path: Path, activation_width: int, lanes: int, chain: int
) -> None:
    architecture = packed(designs, activation_width, lanes)
    assert architecture.packed_chain == chain
    assert run(architecture, tmp_path) == f"4064 words, chains of {chain}\n"


def test_a_longer_chain_is_found(designs: dict[str, Design], tmp_path: Path) -> None:
    architecture = packed(designs, 10, 8)
    longer = ("constexpr int CHAIN = 1;", "constexpr int CHAIN = 2;")
    with pytest.raises(InputError, match="the lower sum must stay below the upper one"):
        run(architecture, tmp_path, [longer])


def test_extremes_find_a_longer_chain(designs: dict[str, Design], tmp_path: Path) -> None:
    """Without the refusal, the same chain gives wrong sums."""
    longer = ("constexpr int CHAIN = 1;", "constexpr int CHAIN = 2;")
    unasserted = ("< 1 << (PACK_BITS - 1)", "> 0")
    assert "expected" in run(packed(designs, 10, 8), tmp_path, [longer, unasserted])
