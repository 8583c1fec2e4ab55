"""Speed of the accelerator as a program sees it: latency, images a second, time by part, energy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from host.driver import Accelerator
from host.power import Meter, Sensors, find_sensors

WARM_UP = 3
"""Runs that are not counted."""

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Benchmark:
    """Measurements of one task.

    Attributes:
        task: its name.
        images: how many were run in each measurement.
        emulated: whether there is no board: times are then those of this computer, and say nothing of the hardware.
        latency_ms: from an image in memory to its tokens, one at a time, by percentile; `mean` and `max` too.
        kernel_ms: of these, the kernel's own cycles, on average; None where they are not counted.
        decode_ms: what the task's head takes on the host besides; None without one.
        images_per_second: of a stream, in which the next image is prepared while the kernel works.
        batch: images of a call of the hardware's largest batch, and `batch_images_per_second` of such calls.
        batch_images_per_second: None where the hardware takes one image at a time.
        watts: mean power of the board during the stream; None without sensors.
        joules: energy an image during the stream; None likewise.
    """

    task: str
    images: int
    emulated: bool
    latency_ms: dict[str, float]
    kernel_ms: float | None
    decode_ms: float | None
    images_per_second: float
    batch: int
    batch_images_per_second: float | None
    watts: float | None
    joules: float | None


def benchmark(
    accelerator: Accelerator,
    image: NDArray[np.uint8],
    task: str,
    count: int,
    *,
    sensors: Sensors | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Benchmark:
    """Measure an accelerator.

    Args:
        accelerator: the accelerator.
        image: (channels, H, W) uint8, run over and over: the time does not depend on what it shows, but for the experts
            that its tokens choose.
        task: name of the task.
        count: images in each measurement.
        sensors: of the board's power; those that PYNQ finds where they are not given.
        clock: seconds.

    Raises:
        InputError: no image to run.
    """
    if count < 1:
        raise InputError(f"benchmark of {count} images, expected at least 1")
    for _ in range(min(WARM_UP, count)):
        accelerator.run(image, task)
    latencies, cycles, result = [], [], None
    for _ in range(count):
        start = clock()
        result = accelerator.run(image, task)
        latencies.append(1e3 * (clock() - start))
        cycles.append(result.latency_ms)
    counted = [each for each in cycles if each is not None]
    assert result is not None
    with Meter(find_sensors() if sensors is None else sensors) as meter:
        start = clock()
        for _ in accelerator.stream(repeat(image, count), task):
            pass
        streamed = clock() - start
    rate = count / streamed
    return Benchmark(
        task=task,
        images=count,
        emulated=accelerator.emulated,
        latency_ms=_percentiles(latencies),
        kernel_ms=float(np.mean(counted)) if counted else None,
        decode_ms=_decoding(result, clock),
        images_per_second=rate,
        batch=accelerator.max_batch,
        batch_images_per_second=_batched(accelerator, image, task, count, clock),
        watts=meter.watts,
        joules=None if meter.watts is None else meter.watts / rate,
    )


def _percentiles(values: list[float]) -> dict[str, float]:
    found = {f"p{percent}": float(np.percentile(values, percent)) for percent in PERCENTILES}
    return found | {"mean": float(np.mean(values)), "max": float(max(values))}


def _decoding(result: Any, clock: Callable[[], float]) -> float | None:
    start = clock()
    output = result.output
    return None if output is None else 1e3 * (clock() - start)


def _batched(
    accelerator: Accelerator, image: NDArray[np.uint8], task: str, count: int, clock: Callable[[], float]
) -> float | None:
    most = accelerator.max_batch
    if most == 1:
        return None
    images = np.broadcast_to(image, (most * -(-count // most), *image.shape))
    start = clock()
    accelerator.run_batch(images, task)
    return len(images) / (clock() - start)


def as_lines(measured: Benchmark) -> list[str]:
    """A benchmark for people, line by line."""
    latency = ", ".join(f"{name} {ms:.3f}" for name, ms in measured.latency_ms.items())
    lines = [
        f"{measured.task}: {measured.images:,} images one at a time, ms: {latency}",
        f"{measured.task}: {measured.images_per_second:,.1f} images a second in a stream",
    ]
    if measured.batch_images_per_second is not None:
        lines.append(
            f"{measured.task}: {measured.batch_images_per_second:,.1f} images a second in batches of {measured.batch}"
        )
    if measured.kernel_ms is not None:
        lines.append(f"{measured.task}: {measured.kernel_ms:.3f} ms of an image are the kernel's cycles")
    if measured.decode_ms is not None:
        lines.append(f"{measured.task}: {measured.decode_ms:.3f} ms more for the task's head")
    if measured.joules is not None and measured.watts is not None:
        lines.append(f"{measured.task}: {measured.watts:.2f} W, {1e3 * measured.joules:.2f} mJ an image")
    if measured.emulated:
        lines.append(f"{measured.task}: emulated: these are times of this computer, not of the hardware")
    return lines
