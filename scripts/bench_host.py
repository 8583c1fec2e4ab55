"""What the host adds to an image: preparing, packing, copying and decoding, against the emulated run.

    python scripts/bench_host.py [--network m3vit-tiny] [--precision w8a8] [--images 8] [--repeats 50]

Prints each part's median time an image, their sum, and its share of an emulated run of the same network in the same
process; exits with 1 if the sum is not under 1 ms or the share not under 10 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgemoe
from host import Result
from host.driver import Accelerator

MAX_MS = 1.0
MAX_SHARE = 0.10


def median_ms(action: Callable[[], Any], repeats: int) -> float:
    """Median of so many calls, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def measure(accelerator: Accelerator, image: np.ndarray[Any, Any], repeats: int) -> dict[str, float]:
    """Milliseconds an image of every part of the host's work, the kernel left out."""
    slot = accelerator._program.slots[0]
    task = accelerator.manifest.task(accelerator.tasks[0])
    accelerator.run(image, task)
    job = accelerator._pack(slot, accelerator._prepare(image)[None], task)
    registers = accelerator._caller.registers

    def switch() -> None:
        registers.set("task", 1)
        registers.set("task", 0)
        registers.control()
        registers.take_valid("hardware_id")
        registers.take_valid("status")
        registers.get("hardware_id")
        registers.get("status")
        registers.get("cycles")

    def decode(result: Result) -> None:
        vars(result).pop("tokens", None)
        vars(result).pop("output", None)
        assert result.output is not None

    result = accelerator._results(job, 1)[0]
    return {
        "check, pack and flush": median_ms(
            lambda: accelerator._pack(slot, accelerator._prepare(image)[None], task), repeats
        ),
        "registers": median_ms(switch, repeats),
        "invalidate and unpack": median_ms(lambda: accelerator._results(job, 1), repeats),
        "decode with the task head": median_ms(lambda: decode(result), repeats),
    }


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="m3vit-tiny", help="name in the zoo, or a model.toml")
    parser.add_argument("--precision", default="w8a8")
    parser.add_argument("--images", type=int, default=8, help="images of the emulated run")
    parser.add_argument("--repeats", type=int, default=50, help="repetitions of each part")
    options = parser.parse_args()
    model = edgemoe.init_model(options.network, seed=1)
    images = edgemoe.random_images(model, options.images)
    design = edgemoe.quantize(model, images[:2], options.precision)
    with tempfile.TemporaryDirectory() as temporary:
        build = Path(temporary) / "build"
        edgemoe.generate(design, build, "zcu102", images[:1], model=model, must_fit=False)
        with edgemoe.Accelerator(build, emulate=True) as accelerator:
            parts = measure(accelerator, images[0], options.repeats)
            start = time.perf_counter()
            for result in accelerator.stream(images):
                assert result.output is not None
            run = 1e3 * (time.perf_counter() - start) / len(images)
    host = sum(parts.values())
    share = host / run
    for name, ms in parts.items():
        print(f"{name:28} {ms:8.3f} ms")
    print(f"{'host, without the kernel':28} {host:8.3f} ms an image (under {MAX_MS:g} ms)")
    shown = f"{100 * share:.2f} % (under {100 * MAX_SHARE:g} %)"
    print(f"{'emulated run':28} {run:8.3f} ms an image: the host's share is {shown}")
    return 0 if host < MAX_MS and share < MAX_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
