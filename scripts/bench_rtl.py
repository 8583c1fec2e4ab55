"""Count the cycles of whole images on the Verilated accelerator, with the memory of a board behind its ports.

    python scripts/bench_rtl.py [--network m3vit-tiny] [--precision w8a8] [--board zcu102] [--set stream_kib=1024]

Weights are random; the images are random pixels, and a photograph that scikit-learn carries. Prints milliseconds beside
published figures, the limit of the board's memory and that of the linear array, and the stages' cycles beside those of
the computed schedule. Every value of every stage is compared with the simulator's: exit code 1 if one differs.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import edgemoe
from boards import load_board
from codegen.architecture import Architecture, ceil_div
from codegen.context import TOP
from codegen.fit import fitted, settings
from codegen.hardware import parse_settings
from codegen.report.facts import rivals
from codegen.rtl.accelerator import accelerator_files
from codegen.rtl.accelerator_build import build_accelerator
from codegen.rtl.accelerator_check import LATENCY, board_memory
from codegen.rtl.accelerator_run import RtlAccelerator, Run
from codegen.rtl.timeline import stages_of, timeline
from codegen.schedule import Engine, rows_of
from common.errors import QuantizationWarning
from common.rtl_process import Memory, RtlProcess
from pysim.network import Network
from pysim.precision import preset
from pysim.spec import ModelSpec

RECORDED = Path(__file__).parents[1] / "tests/rtl_timing.json"


def photograph(spec: ModelSpec) -> NDArray[np.uint8]:
    """A picture of a flower, in the size of the network: (1, channels, H, W)."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    channels, height, width = spec.image_shape
    picture = Image.fromarray(load_sample_image("flower.jpg")).resize((width, height))
    pixels = np.asarray(picture).transpose(2, 0, 1)[None, :channels]
    return np.ascontiguousarray(pixels)


def linear_cycles(architecture: Architecture, run: Run) -> int:
    """Cycles in which the linear array multiplies, rounded up to whole tiles and blocks."""
    tile, queues = architecture.hardware.token_tile, run.queues
    return sum(
        ceil_div(rows_of(job.job, 1, queues), tile) * job.job.blocks * job.job.words
        for job in run.jobs
        if job.job.engine is Engine.LINEAR
    )


def share_of(architecture: Architecture, memory: Memory) -> float:
    """Beats of the weight ports that the memory delivers in a cycle."""
    assert memory.bytes_per_cycle is not None
    return memory.bytes_per_cycle / architecture.beat_bytes


def by_kind(architecture: Architecture, run: Run, memory: Memory) -> dict[str, tuple[int, int]]:
    """Cycles counted, and those of the computed schedule, of all stages of a kind."""
    jobs = timeline(architecture, 1, share_of(architecture, memory), run.queues, memory.latency)
    computed = {stage.name: stage.cycles for stage in stages_of(jobs)}
    found: dict[str, tuple[int, int]] = {}
    for name, cycles in run.stage_cycles().items():
        kind = name.rpartition(".")[2]
        before = found.get(kind, (0, 0))
        found[kind] = before[0] + cycles, before[1] + computed[name]
    return found


def rows(
    architecture: Architecture, runs: dict[str, Run], computed: dict[str, int], gb_s: float
) -> Iterator[tuple[str, ...]]:
    """A row of the table for each image."""
    mhz = architecture.hardware.clock_mhz

    def ms(cycles: float) -> str:
        return f"{cycles / mhz / 1e3:.3f}"

    for name, run in runs.items():
        active = [sum(length > 0 for length in queue) for queue in run.queues.values()]
        traffic = sum(run.traffic.values())
        yield (
            name,
            f"{run.cycles:,}",
            f"{computed[name]:,}",
            ms(run.cycles),
            f"{traffic / gb_s / 1e6:.3f}",
            ms(linear_cycles(architecture, run)),
            f"{traffic / 1e6:.1f}",
            ", ".join(map(str, active)) or "-",
        )


def supported_clock() -> tuple[float, str]:
    """MHz of the slowest path of any core that `time_rtl.py` has recorded, and whose it is."""
    worst = max(json.loads(RECORDED.read_text()), key=lambda entry: float(entry["ns"]))
    return 1e3 / worst["ns"], f"{worst['kernel']} takes {worst['ns']:.2f} ns"


def main(
    network: Annotated[str, typer.Option(help="Name in the zoo.")] = "m3vit-tiny",
    precision: Annotated[str, typer.Option(help="Preset.")] = "w8a8",
    board: Annotated[str, typer.Option(help="Board whose memory stands behind the ports.")] = "zcu102",
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Key of the hardware.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights and pixels.")] = 1,
) -> None:
    """Count and compare, on the fastest accelerator that fits the board."""
    console, model = Console(width=120), edgemoe.init_model(network, seed=seed)
    fixed = {"backend": "rtl", **parse_settings(change or [])}
    found = fitted(Network(model.spec, preset(precision)), load_board(board), fixed=fixed)
    hardware = found.hardware
    used_of = ", ".join(
        f"{name} {used:g} of {there}" for name, (used, there) in found.performance.resources.items()
    )
    console.print(f"{settings(hardware)}\n{used_of}")
    images = {
        "random pixels": edgemoe.random_images(model, 1, seed=seed),
        "photograph": photograph(model.spec),
    }
    with warnings.catch_warnings():
        # Random weights clip what they clip.
        warnings.simplefilter("ignore", QuantizationWarning)
        design = edgemoe.quantize(model, np.concatenate(list(images.values())), precision)
    design = design.with_attention_rows(hardware.attention_rows)
    architecture = Architecture(design.network, hardware)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        program = build_accelerator(accelerator_files(architecture, Path(folder)), TOP)
    console.print(f"built in {time.perf_counter() - start:.0f} s (0 where it was there already)")
    runs: dict[str, Run] = {}
    memory, used = board_memory(architecture, load_board(board)), resource.getrusage(resource.RUSAGE_CHILDREN)
    with RtlProcess(program) as process:
        accelerator = RtlAccelerator(process, architecture)
        accelerator.load(design)
        process.set_memory(memory)
        for name, pixels in images.items():
            runs[name] = accelerator.run(pixels)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used.ru_utime
    console.print(f"simulated {len(runs)} images in {seconds:.1f} s of one core")
    stages = {name: by_kind(architecture, run, memory) for name, run in runs.items()}
    computed = {name: sum(pair[1] for pair in kinds.values()) for name, kinds in stages.items()}
    columns = (
        "image",
        "cycles",
        "computed",
        "ms",
        "memory's limit",
        "array's limit",
        "MB moved",
        "active experts",
    )
    mhz, gb_s = hardware.clock_mhz, load_board(board).read_gb_s(hardware.clock_mhz)
    table = Table(*columns, title=f"{network} {precision}, {mhz:g} MHz, {gb_s:g} GB/s, latency {LATENCY}")
    for row in rows(architecture, runs, computed, gb_s):
        table.add_row(*row)
    console.print(table)
    even = stages_of(timeline(architecture, 1, share_of(architecture, memory), None, memory.latency))
    cycles = sum(stage.cycles for stage in even)
    console.print(f"with even queues, computed: {cycles:,} cycles, {cycles / mhz / 1e3:.3f} ms")
    slower, path = supported_clock()
    times = ", ".join(f"{name} {run.cycles / slower / 1e3:.3f} ms" for name, run in runs.items())
    console.print(f"at {slower:.0f} MHz, for which {path} by the rough delays of time_rtl.py: {times}")
    name, kinds = next(reversed(stages.items()))
    table = Table("stages", "cycles", "computed", "difference", title=f"{name}, all layers together")
    for kind, (counted, expected) in kinds.items():
        table.add_row(kind, f"{counted:,}", f"{expected:,}", f"{100 * (expected / counted - 1):+.1f} %")
    console.print(table)
    published = ", ".join(f"{each.name} {each.ms:g} ({each.board})" for each in rivals())
    console.print(f"published for M3ViT-tiny, ms: {published}")
    values, wrong = (sum(getattr(run, name) for run in runs.values()) for name in ("values", "mismatches"))
    console.print(f"{values:,} values compared, {wrong:,} mismatches")
    for run in runs.values():
        if run.mismatches:
            console.print(run.first)
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
