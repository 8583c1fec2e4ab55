"""The estimate of a network on a board: cycles, traffic, resources, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from boards import Board
from codegen.architecture import Architecture
from codegen.estimate import LoopTotal, Scheduler, Stage, beats_per_cycle, dram_bytes, loop_totals
from codegen.hardware import Hardware, default_hardware, hardware_on
from codegen.memories import Memory, memories
from codegen.resources import Resources, estimate_resources
from codegen.rtl.accelerator_resources import accelerator_memories, accelerator_resources
from codegen.rtl.timeline import moved_bytes, stages_of, timeline
from pysim.network import Network


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

    @property
    def short(self) -> str:
        """Resources of which the board has too little, for people; empty if it fits."""
        return ", ".join(
            f"{name} {used:g} of {available}"
            for name, (used, available) in self.resources.items()
            if used > available
        )

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
    rate = beats_per_cycle(architecture, board)
    if architecture.hardware.backend == "rtl":
        jobs = timeline(architecture, batch, rate, queues)
        stages, moved = stages_of(jobs), moved_bytes(architecture, jobs, batch)
        resources, held = accelerator_resources(architecture), accelerator_memories(architecture)
    else:
        stages = Scheduler(architecture, batch, rate).run(queues)
        moved = dram_bytes(architecture, stages)
        resources, held = estimate_resources(architecture), memories(architecture)
    cycles = sum(stage.cycles for stage in stages)
    traffic = moved // batch
    seconds = cycles / clock / batch
    return Performance(
        stages,
        cycles,
        seconds * 1e3,
        batch,
        traffic,
        (traffic / seconds / 1e9, bandwidth),
        _against(resources, board),
        loop_totals(stages),
        held,
    )


def _against(resources: Resources, board: Board) -> dict[str, tuple[float, int]]:
    return {
        name: (getattr(resources, name), board.available(name))
        for name in ("dsp", "bram36", "uram", "lut", "ff")
    }
