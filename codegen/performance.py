"""The estimate of a network on a board: cycles, traffic, resources, and whether it fits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from boards import Board
from codegen.architecture import Architecture
from codegen.estimate import LoopTotal, Scheduler, Stage, dram_bytes, loop_totals
from codegen.hardware import Hardware, default_hardware, hardware_on
from codegen.memories import Memory, memories
from codegen.resources import Resources, estimate_resources
from common.errors import InputError
from pysim.network import Network

SMALLER = {
    "lanes": (4, 8, 16),
    "outputs": (4, 8, 16, 32),
    "token_tile": (1, 2, 4),
    "attention_rows": (1, 2, 4, 8, 12, 16),
}
WEIGHT_ROWS = (128, 512, 2048)
"""Narrower words need more rows for the same layer."""


@dataclass(frozen=True)
class Performance:
    """An estimate.

    Attributes:
        stages: cycles of every stage, for the whole batch.
        cycles: of the whole batch.
        ms: milliseconds an image at the design's clock.
        batch: images.
        dram_bytes: bytes an image that cross the memory ports.
        dram_gb_s: bandwidth that this takes, and that the board has.
        resources: per resource, how much is used and how much there is.
        loops: every pipelined loop, with what is assumed of it.
        memories: every array on chip, by engine.
    """

    stages: list[Stage]
    cycles: int
    ms: float
    batch: int
    dram_bytes: int
    dram_gb_s: tuple[float, float]
    resources: dict[str, tuple[float, int]]
    loops: list[LoopTotal]
    memories: dict[str, list[Memory]]

    @property
    def fits(self) -> bool:
        """Whether the board has as much of everything as the design uses."""
        return all(used <= available for used, available in self.resources.values())

    def share(self, resource: str) -> float:
        """Share of a resource that is used; of one that the board lacks, 0 if none is needed."""
        used, available = self.resources[resource]
        return used / available if available else float(used > 0)


def on_board(
    network: Network, board: Board, hardware: Hardware | None = None, batch: int = 1
) -> Architecture:
    """A network on a board, with memory for a batch.

    Args:
        network: shape and precision.
        board: the board, whose DSP slices the hardware gets.
        hardware: how much hardware; the default where it is not given.
        batch: images that at least fit on chip together.

    Raises:
        InputError: hardware that the templates cannot build, or a clock that the board cannot have.
    """
    chosen = default_hardware(network, board) if hardware is None else hardware_on(board, hardware)
    return Architecture(network, chosen.changed(max_batch=max(chosen.max_batch, batch)))


def beats_per_cycle(architecture: Architecture, board: Board) -> float:
    """Beats of the weight ports that the board's memory delivers in a cycle of the design's clock."""
    clock_mhz = architecture.hardware.clock_mhz
    return board.read_gb_s(clock_mhz) * 1e3 / (architecture.beat_bytes * clock_mhz)


def estimate(
    network: Network,
    board: Board,
    batch: int = 1,
    queues: Mapping[int, Sequence[int]] | None = None,
    hardware: Hardware | None = None,
) -> Performance:
    """Estimate a network on a board.

    Args:
        network: shape and precision.
        board: the board.
        batch: images that go through together.
        queues: per MoE layer, the length of each expert's queue; even queues where they are not known.
        hardware: how much hardware; the default where it is not given.

    Raises:
        InputError: hardware that the templates cannot build, or a clock that the board cannot have.
    """
    return evaluate(on_board(network, board, hardware, batch), board, batch, queues)


def evaluate(
    architecture: Architecture,
    board: Board,
    batch: int = 1,
    queues: Mapping[int, Sequence[int]] | None = None,
) -> Performance:
    """The estimate of what `on_board` gave, as `estimate` describes it."""
    clock = architecture.hardware.clock_mhz * 1e6
    bandwidth = board.read_gb_s(architecture.hardware.clock_mhz)
    stages = Scheduler(architecture, batch, beats_per_cycle(architecture, board)).run(queues)
    cycles = sum(stage.cycles for stage in stages)
    traffic = dram_bytes(architecture, stages) // batch
    seconds = cycles / clock / batch
    return Performance(
        stages,
        cycles,
        seconds * 1e3,
        batch,
        traffic,
        (traffic / seconds / 1e9, bandwidth),
        _against(estimate_resources(architecture), board),
        loop_totals(stages),
        memories(architecture),
    )


def _against(resources: Resources, board: Board) -> dict[str, tuple[float, int]]:
    return {
        "dsp": (resources.dsp, board.dsp),
        "bram36": (resources.bram36, board.bram36),
        "uram": (resources.uram, board.uram),
        "lut": (resources.lut, board.lut),
        "ff": (resources.ff, board.ff),
    }


def require_fit(architecture: Architecture, board: Board) -> Performance:
    """The estimate, or an error that names what is short and the nearest hardware that fits."""
    performance = evaluate(architecture, board)
    if performance.fits:
        return performance
    short = ", ".join(
        f"{name} {used:g} of {available}"
        for name, (used, available) in performance.resources.items()
        if used > available
    )
    nearest = nearest_fit(architecture, board)
    hint = "no smaller hardware fits: choose a narrower precision or a larger board"
    if nearest is not None:
        settings = " ".join(
            f"--set {name}={getattr(nearest.hardware, name)}" for name in (*SMALLER, "weight_rows")
        )
        hint = f"the fastest that fits takes {evaluate(nearest, board).ms:.2f} ms an image: {settings}"
    raise InputError(f"the design does not fit {board.name}: {short}", hint=hint)


def nearest_fit(architecture: Architecture, board: Board) -> Architecture | None:
    """The network on the fastest that fits of a coarse grid of smaller hardware, or None."""
    fitting = [candidate for candidate in _smaller(architecture) if _has_room(candidate, board)]
    return min(fitting, key=lambda candidate: evaluate(candidate, board).cycles, default=None)


def _has_room(architecture: Architecture, board: Board) -> bool:
    used = _against(estimate_resources(architecture), board)
    return all(need <= available for need, available in used.values())


def _smaller(architecture: Architecture) -> Iterator[Architecture]:
    given = architecture.hardware
    choices = [
        sorted({value for value in values if value <= getattr(given, name)} | {getattr(given, name)})
        for name, values in SMALLER.items()
    ]
    for *values, rows in itertools.product(*choices, WEIGHT_ROWS):
        changes = dict(zip(SMALLER, values, strict=True))
        with suppress(InputError):  # What cannot be built does not fit.
            yield Architecture(architecture.network, given.changed(**changes, weight_rows=rows))
