"""Random networks on random RTL accelerators: refused in a sentence, or equal to the simulator value for value.

An accelerator is larger than its first network, and runs a second one as well, one after the other without a reset.
"""

from __future__ import annotations

import random
import tempfile
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import edgemoe
from codegen.architecture import Architecture
from codegen.context import TOP
from codegen.fit.space import ROUTER_LANES
from codegen.hardware import Hardware
from codegen.rtl.accelerator import accelerator_files
from codegen.rtl.accelerator_build import build_accelerator
from codegen.rtl.accelerator_run import process_of
from common.errors import CheckError, EdgeMoeError
from common.rtl_process import Memory
from designs import random_design
from pysim.network import Network
from pysim.precision import PRESETS
from pysim.spec import ModelSpec
from scripts.fuzzing.designs import judged, needed_rows, random_spec
from scripts.fuzzing.outcome import Outcome

TOKENS: Final = (2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
MULTIPLIERS: Final = 96
"""Most that are drawn: an accelerator is compiled for each case."""
PRECISIONS: Final = [preset for preset in PRESETS.values() if preset.arithmetic == "requantise"]


@dataclass(frozen=True)
class Drawn:
    """What a case is about; `repr` of it is in the report of a failure."""

    specs: tuple[ModelSpec, ModelSpec]
    precision: Any
    hardware: Hardware
    memory: Memory


def draw(generator: random.Random) -> Drawn:
    """Two networks, an accelerator that holds both, and a memory with latency, bandwidth and stalls."""
    any_of = generator.choice
    precision, lanes = any_of(PRECISIONS), any_of((2, 3, 4, 4, 5, 8, 8, 16))
    first, second = (random_spec(generator, TOKENS) for _ in range(2))
    # The activation function is built in.
    second = second.model_copy(update={"activation": first.activation})
    outputs = lanes * any_of((1, 1, 2, 3))
    tile = any_of([size for size in (1, 2, 3, 4, 5) if size * lanes * outputs <= MULTIPLIERS] or [1])
    hardware = Hardware(
        lanes=lanes,
        outputs=outputs,
        token_tile=tile,
        attention_rows=any_of((1, 2, 3, 4, 5, 8)),
        axi_width=any_of((64, 64, 128, 256)),
        weight_ports=any_of((1, 1, 2, 3, 4)),
        weight_rows=max(needed_rows(spec, lanes) for spec in (first, second)) * any_of((1, 1, 2, 3)),
        max_batch=any_of((1, 1, 2, 3)),
        router_lanes=any_of(ROUTER_LANES),
        stream_kib=any_of((16, 16, 32, 64)),
        backend="rtl",
    )
    memory = Memory(
        latency=any_of((1, 2, 17, 80, 400)),
        bytes_per_cycle=any_of((None, None, 3.3, 20.0)),
        stalls=any_of((0, 1, 5, 12)),
        seed=generator.randrange(1000),
        outstanding=any_of((1, 4, 32)),
    )
    return Drawn((first, second), precision, hardware, memory)


def run(seed: int, number: int) -> Outcome:
    """Draw a case and run it; its outcome is "refused" or "equal", unless it failed."""
    drawn = draw(random.Random(f"accelerator {seed}/{number}"))
    try:
        outcome = check(drawn)
    except Exception as error:  # whatever it is, it is a finding
        outcome = Outcome("failed", "".join(traceback.format_exception(error)))
    return replace(outcome, detail=f"{outcome.detail}\n{drawn}") if outcome.state == "failed" else outcome


def check(drawn: Drawn) -> Outcome:
    """Build the accelerator, and run both networks on it: all tasks, single images and whole batches."""
    networks = [Network(spec, drawn.precision) for spec in drawn.specs]
    try:
        needs = [Architecture(network, drawn.hardware).capacities.as_dict() for network in networks]
        most = {name: max(need[name] for need in needs) for name in needs[0]}
        hardware = drawn.hardware.changed(**most)
        programs = [Architecture(network, hardware) for network in networks]
    except EdgeMoeError as error:
        return judged(error)
    values = cycles = 0
    with tempfile.TemporaryDirectory(prefix="edgemoe-fuzz-") as temporary:
        program = build_accelerator(accelerator_files(programs[0], Path(temporary)), TOP)
    accelerator = process_of(program, programs[0])
    try:
        accelerator.process.set_memory(drawn.memory)
        for number in (0, 1, 0):
            architecture = programs[number]
            rows = min(hardware.attention_rows, architecture.spec.tokens)
            design = random_design(architecture.spec, architecture.precision, rows, seed=number)
            accelerator.load(design, architecture, shift=number)
            for task in range(len(architecture.spec.tasks)):
                images = edgemoe.random_images(design, hardware.max_batch, seed=task)
                for batch in {1, hardware.max_batch}:
                    ran = accelerator.run(images[:batch], task)
                    if ran.mismatches:
                        return Outcome(
                            "failed", f"{ran.mismatches} of {ran.values} values differ: {ran.first}"
                        )
                    values, cycles = values + ran.values, cycles + ran.cycles
    except CheckError as error:
        return Outcome("failed", error.message)
    finally:
        accelerator.process.close()
    return Outcome("equal", f"{values} values equal, {cycles} cycles")
