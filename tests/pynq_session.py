"""The driver on an emulated board behind PYNQ, in PYNQ's own environment: run by `test_pynq.py`, writes what it saw.

    python pynq_session.py HOST_FOLDER LIBRARY IMAGES.npy OUT.npz REAL_HWH

Uses nothing but what a board has: Python 3.10 or newer, numpy, PYNQ and the host folder of a build.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pynq

sys.path.insert(0, sys.argv[1])

import host as driver
from host.emulated import EmulatedKernel
from host.hwh import read_hwh
from host.pynq_board import PynqBoard, wait_for_interrupt
from host.pynq_device import EmulatedDevice


class Stuck(EmulatedKernel):
    """A kernel that does not end while `stuck` is set."""

    stuck: ClassVar[bool] = False

    def execute(self, arguments: dict[str, int]) -> dict[str, int] | None:
        return None if Stuck.stuck else super().execute(arguments)


class FakeInterrupt:
    """What PYNQ gives for a connected interrupt, rising after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def wait(self) -> None:
        import asyncio

        await asyncio.sleep(self.seconds)


def refused(action: Any) -> str:
    """Message of the AcceleratorError that an action must end with."""
    try:
        action()
    except driver.AcceleratorError as error:
        return str(error)
    raise AssertionError("nothing was raised")


def run_in_line(accelerator: Any, pixels: Any, task: str) -> Any:
    """Tokens of the first image, by one thread of several."""
    return accelerator.run(pixels[0], task, wait=True).integers


def main() -> None:
    folder, library, images, out, real_hwh = map(Path, sys.argv[1:])
    assert Path(driver.__file__).is_relative_to(folder), "the copy in the host folder is what a board runs"
    pixels = np.load(images)
    manifest = driver.Manifest.load(folder)
    device = EmulatedDevice(manifest, library, Stuck)
    facts: dict[str, Any] = {
        "python": sys.version_info[:2],
        "numpy": np.__version__,
        "pynq": pynq.__version__,
    }

    def board() -> PynqBoard:
        return PynqBoard(device.hwh.with_suffix(".bit"), manifest.kernel, device)

    tokens: dict[str, Any] = {}
    with driver.Accelerator(folder, board=board(), timeout=30) as accelerator:
        facts["buffers_open"] = len(device.memory.buffers)
        facts["second"] = refused(lambda: driver.Accelerator(folder, board=board()))
        for task in accelerator.tasks:
            tokens[task] = []
        for image in pixels:
            for task in accelerator.tasks:
                tokens[task].append(accelerator.run(image, task).integers)
        task = accelerator.tasks[-1]
        tokens["stream"] = [result.integers for result in accelerator.stream(pixels, task)]
        tokens["batch"] = [result.integers for result in accelerator.run_batch(pixels, task)]
        facts["max_batch"] = accelerator.max_batch
        # Threads have no event loop to wait for interrupts in: they poll.
        threads = [
            threading.Thread(target=lambda: tokens["threads"].append(run_in_line(accelerator, pixels, task)))
            for _ in range(3)
        ]
        tokens["threads"] = []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        accelerator._caller.start({"batch": 99})
        facts["refused"] = refused(accelerator._caller.wait)
        accelerator._board.compiled = False  # the driver's own reading of the counter, for comparison
        overlay = pynq.Overlay(str(device.hwh), download=False)
        ip = overlay.edgemoe_top_0
        facts["idle"] = int(ip.register_map.CTRL.AP_IDLE)
        facts["cycles"] = int(ip.register_map.cycles_1) | int(ip.register_map.cycles_2) << 32
        facts["result_cycles"] = accelerator.run(pixels[0]).cycles
        ip = pynq.Overlay(str(device.hwh), download=False).edgemoe_top_0
        facts["cycles"] = ip.read(accelerator._caller._kernel.registers["cycles_1"])
        facts["registers"] = {name: value["address_offset"] for name, value in ip._registers.items()}
        facts["parsed"] = dict(accelerator._caller._kernel.registers)
        facts["address"] = [
            overlay.ip_dict["edgemoe_top_0"]["phys_addr"],
            accelerator._caller._kernel.address,
        ]
        Stuck.stuck = True
        accelerator._caller.timeout = 0.3
        facts["stuck"] = refused(lambda: accelerator.run(pixels[0]))
        Stuck.stuck = False
        accelerator._caller.timeout = 30.0
        tokens["after"] = [accelerator.run(pixels[0], task).integers]
        device.memory.capacity = 0
        facts["memory"] = refused(lambda: accelerator._caller._board.allocate(1 << 20, "image"))
    facts["buffers_closed"] = len(device.memory.buffers)
    facts["interrupt"] = [
        wait_for_interrupt(FakeInterrupt(0.01), 5.0),
        wait_for_interrupt(FakeInterrupt(60), 0.05),
    ]
    real = read_hwh(real_hwh, "resize_accel")
    facts["real"] = {"address": real.address, "registers": dict(real.registers), "clock": real.clock_mhz}
    facts["modules"] = sorted(
        name for name in sys.modules if name.split(".")[0] in ("codegen", "common", "host", "pysim")
    )
    arrays = {name: np.stack(values) for name, values in tokens.items()}
    np.savez(out, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]


main()
