"""The space that is searched: sizes of the hardware, and what a board has room for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from boards import Board
from codegen.architecture import RECORD_BYTES, Architecture
from codegen.hardware import Hardware, MemoryKind
from common.capacities import CAPACITIES
from common.errors import InputError
from pysim.network import Network

Integers = NDArray[np.int64]

MARGINS: Final[Mapping[str, float]] = {"dsp": 90, "bram36": 90, "uram": 90, "lut": 75, "ff": 75}
"""Percent of each resource that a design may take and still be placed and routed, as a rule."""

RESOURCES: Final = ("dsp", "bram18", "uram", "lut", "ff")
"""Order of the resources in arrays; block RAM counts in halves of a 36 Kb block."""

MOST_LANES: Final = 64
MOST_BLOCKS: Final = 64
"""Most `outputs`, in multiples of `lanes`."""
MOST_OUTPUTS: Final = 1024
MOST_TOKEN_TILE: Final = 32
MOST_WEIGHT_ROWS: Final = 8192
MOST_PORTS: Final = 16
ROUTER_LANES: Final = (2, 4, 8, 16, 32)

KINDS: Final[Mapping[str, tuple[MemoryKind, ...]]] = {
    "weight_memory": ("block", "lut", "ultra"),
    "operand_memory": ("block", "lut", "ultra"),
    "residual_memory": ("block", "ultra"),
    "head_memory": ("block", "lut", "ultra"),
    "gate_memory": ("block", "lut", "ultra"),
    "score_memory": ("lut", "block", "ultra"),
    "choice_memory": ("block", "lut"),
    "table_memory": ("block", "lut"),
}
"""Kinds that each memory may have, by the field of `Hardware`."""


@dataclass(frozen=True)
class Limits:
    """The most that a design may take of a device.

    Attributes:
        dsp: DSP slices.
        bram36: 36 Kb blocks.
        uram: 288 Kb blocks.
        lut: look-up tables.
        ff: flip-flops.
    """

    dsp: int
    bram36: float
    uram: int
    lut: int
    ff: int

    @property
    def array(self) -> Integers:
        """Limits in the order of `RESOURCES`."""
        return np.array([self.dsp, int(2 * self.bram36), self.uram, self.lut, self.ff], np.int64)

    def but(self, **changes: float) -> Limits:
        """Limits with others of some resources."""
        return replace(self, **changes)  # type: ignore[arg-type]


def limits_of(board: Board, margins: Mapping[str, float] | None = None) -> Limits:
    """Limits of what a design may take of a board.

    Args:
        board: the board; what its shell takes is taken off.
        margins: percent of what is there, where others are wanted than `MARGINS`.

    Raises:
        InputError: no such resource, or a percentage that is not within 1 and 100.
    """
    for name, percent in (margins or {}).items():
        if name not in MARGINS:
            raise InputError(f"margin {name!r}: no such resource", hint=f"there are {', '.join(MARGINS)}")
        if not 1 <= percent <= 100:
            raise InputError(f"margin {name} = {percent:g}, expected 1 to 100 (percent)")
    shares = {**MARGINS, **(margins or {})}

    def most(name: str) -> int:
        return int(board.available(name) * shares[name] / 100)

    blocks = int(2 * board.available("bram36") * shares["bram36"] / 100) / 2
    return Limits(most("dsp"), blocks, most("uram"), most("lut"), most("ff"))


@dataclass(frozen=True)
class Frame:
    """Sizes that decide about words and beats; the others vary within them.

    Attributes:
        lanes: channels of a word.
        weight_ports: ports for weights.
        axi_width: bits of a port.
    """

    lanes: int
    weight_ports: int
    axi_width: int


Fixed = Mapping[str, Any]
"""Fields of `Hardware` that have a given value in all that is searched."""

OF_RTL: Final = ("backend", "stream_kib", "stream_memory", *CAPACITIES[1:])
"""Fields that only an RTL accelerator has."""

NOT_SEARCHED: Final = ("backend", "stream_kib", "stream_memory", *CAPACITIES[1:])
"""Fields that a search takes as they are given, and has none of its own for."""


def frames(board: Board, fixed: Fixed) -> Iterator[Frame]:
    """Every frame that suits a board: no more ports than it has, and none wider."""
    widths = [width for width in (64, 128, 256, 512) if width <= max(board.port_width, 8 * RECORD_BYTES)]
    choices = {
        "lanes": range(2, MOST_LANES + 1),
        "weight_ports": range(1, min(board.ports, MOST_PORTS) + 1),
        "axi_width": widths,
    }
    for values in product(*([fixed[name]] if name in fixed else each for name, each in choices.items())):
        yield Frame(*values)


_DEFAULTS: Final = Hardware().model_dump() | {"weight_rows": MOST_WEIGHT_ROWS}


def sizes_of(
    network: Network, board: Board, frame: Frame, batch: int, **arrays: int | float | Integers
) -> Architecture:
    """A network on hardware of a frame, of which some sizes are arrays: it is not checked."""
    fields = {**_DEFAULTS, **vars(frame), **arrays}
    fields |= {"family": board.family, "max_batch": batch}
    return Architecture(network, Hardware.model_construct(**fields), checked=False)


def engines(lanes: int, packed: bool, fixed: Fixed) -> tuple[Integers, Integers]:
    """Outputs and token tiles of the linear engine: every pair of them."""
    most = max(1, min(MOST_BLOCKS, MOST_OUTPUTS // lanes))
    outputs = lanes * np.arange(1, most + 1, dtype=np.int64)
    if "outputs" in fixed:
        outputs = np.array([fixed["outputs"]], np.int64)
        outputs = outputs[outputs % lanes == 0]
    if packed:
        # Two outputs share a DSP slice.
        outputs = outputs[outputs % 2 == 0]
    tiles = np.arange(1, MOST_TOKEN_TILE + 1, dtype=np.int64)
    if "token_tile" in fixed:
        tiles = np.array([fixed["token_tile"]], np.int64)
    pairs = np.meshgrid(outputs, tiles, indexing="ij")
    return pairs[0].ravel(), pairs[1].ravel()


def buffers(blocks: int, words: int) -> Integers:
    """Weight rows at which a layer with so many blocks of so many operand words gets other groups."""
    pairs = np.arange(1, -(-blocks // 2) + 1, dtype=np.int64)
    return words * np.unique(-(-blocks // (2 * pairs)))
