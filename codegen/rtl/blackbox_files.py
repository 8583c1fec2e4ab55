"""The files of RTL blackboxes: writing them, and playing arguments on their Verilog."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.rtl.blackbox import Blackbox
from codegen.rtl.kernels.base import Source
from codegen.rtl.render import rtl_contexts, rtl_sources
from codegen.rtl.simulation import build, simulate
from codegen.rtl.streams import IntArray


def write_blackboxes(architecture: Architecture, boxes: Sequence[Blackbox], folder: Path) -> None:
    """Write the Verilog of blackboxes, and a JSON file for each, into a new folder (none where there are none)."""
    if not boxes:
        return
    folder.mkdir(parents=True)
    sources, contexts = rtl_sources(), rtl_contexts(architecture)
    for box in boxes:
        own = Source(f"{box.function}.v", "blackbox/blackbox.v", {"box": box})
        for source in (own, *box.sources):
            (folder / source.file).write_text(sources.text(source.source, *contexts, source.names))
        (folder / f"{box.unit}.json").write_text(json.dumps(box.description(), indent=2) + "\n")


@dataclass(frozen=True)
class BlackboxRun:
    """Results of a cocotb run of a blackbox.

    Attributes:
        outputs: by name, for each argument: in a free run, then in one with stalls.
        latency: cycles from every argument to its result in the free run; all of them, if they differ.
        interval: cycles between arguments that it took in the free run; all of them, if they differ.
        idle: whether it said that it was idle after both runs.
    """

    outputs: tuple[dict[str, IntArray], dict[str, IntArray]]
    latency: tuple[int, ...]
    interval: tuple[int, ...]
    idle: bool


def run_blackbox(box: Blackbox, folder: Path, values: NDArray[Any]) -> BlackboxRun:
    """Play arguments on the Verilog of a blackbox in `folder`, without and with random stalls.

    Raises:
        InputError: no Verilator, no compiler, or code that Verilator refuses.
        CheckError: the simulation ended abnormally.
    """
    files = [folder / f"{box.function}.v", *(folder / source.file for source in box.sources)]
    compiled = build(files, box.function, ports=("ap_*", box.argument))
    with tempfile.TemporaryDirectory(prefix="edgemoe-rtl-") as temporary:
        job = Path(temporary)
        raw = values.astype(np.int64 if values.dtype.kind == "i" else np.uint64).view(np.uint64)
        mask = np.uint64((1 << box.argument_bits) - 1)
        np.savez(job / "inputs.npz", values=raw & mask, argument=np.array(box.argument), seed=np.array(1))
        simulate(box.function, "codegen.rtl.blackbox_bench", compiled, job)
        with np.load(job / "outputs.npz", allow_pickle=False) as saved:
            outputs = _unpacked(box, saved["free.results"]), _unpacked(box, saved["stalled.results"])
            started, given = saved["free.started"], saved["free.given"]
            idle = bool(saved["free.idle"]) and bool(saved["stalled.idle"])
    latency = np.unique(given[: len(started)] - started[: len(given)])
    return BlackboxRun(outputs, tuple(latency.tolist()), tuple(np.unique(np.diff(started)).tolist()), idle)


def _unpacked(box: Blackbox, results: NDArray[np.uint64]) -> dict[str, IntArray]:
    outputs, first = {}, 0
    for output in box.outputs:
        bits = (results >> np.uint64(first)) & np.uint64((1 << output.bits) - 1)
        value = bits.astype(np.int64)
        sign = np.int64(1) << (output.bits - 1)
        outputs[output.name] = (value ^ sign) - sign if output.signed else value
        first += output.bits
    return outputs
