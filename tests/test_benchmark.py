"""The benchmark of the host, and the power sensors that it reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
from codegen.build import Build
from common.errors import InputError
from edgemoe.cli import main
from host import Accelerator, Result
from host.benchmark import PERCENTILES, WARM_UP, Benchmark, as_lines, benchmark
from host.power import Meter, find_sensors


class Clock:
    """A clock that a call takes `step` seconds by."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_every_part_is_measured(
    accelerator: Accelerator, built: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = edgemoe.random_images(built.design, 1)[0]
    runs: list[str] = []
    run = accelerator.run

    def noted(pixels: NDArray[np.uint8], task: str) -> Result:
        runs.append(task)
        return run(pixels, task)

    monkeypatch.setattr(accelerator, "run", noted)
    found = benchmark(accelerator, image, "depth", 5, sensors={"rail": lambda: 3.0}, clock=Clock(0.25))
    assert runs == ["depth"] * (WARM_UP + 5)
    assert set(found.latency_ms) == {*(f"p{percent}" for percent in PERCENTILES), "mean", "max"}
    # Each measurement lies between two looks at the clock.
    assert set(found.latency_ms.values()) == {250.0}
    assert (found.images_per_second, found.decode_ms) == (5 / 0.25, 250.0)
    assert found.batch == accelerator.max_batch == 3 and found.batch_images_per_second == 6 / 0.25
    assert (found.watts, found.joules) == (3.0, 3.0 / 20)
    # An emulated board counts no cycles.
    assert found.emulated and found.kernel_ms is None
    with pytest.raises(InputError, match="benchmark of 0 images"):
        benchmark(accelerator, image, "depth", 0)


def test_the_kernels_share_on_a_board() -> None:
    found = Benchmark("depth", 9, False, {"p50": 2.5, "max": 3.0}, 2.25, None, 400.0, 1, None, 8.0, 0.02)
    assert as_lines(found) == [
        "depth: 9 images one at a time, ms: p50 2.500, max 3.000",
        "depth: 400.0 images a second in a stream",
        "depth: 2.250 ms of an image are the kernel's cycles",
        "depth: 8.00 W, 20.00 mJ an image",
    ]


def test_sensors_of_pynq(monkeypatch: pytest.MonkeyPatch) -> None:
    pynq = ModuleType("pynq")
    monkeypatch.setitem(sys.modules, "pynq", None)
    assert find_sensors() == {}
    monkeypatch.setitem(sys.modules, "pynq", pynq)
    rails = {
        "INT": SimpleNamespace(power=SimpleNamespace(value=1.5)),
        "AUX": SimpleNamespace(power=SimpleNamespace(value=0.25)),
        "FAN": SimpleNamespace(power=None),
    }
    pynq.get_rails = lambda: rails  # type: ignore[attr-defined]
    assert {name: read() for name, read in find_sensors().items()} == {"INT": 1.5, "AUX": 0.25}
    rails["12V"] = SimpleNamespace(power=SimpleNamespace(value=9.0))
    # The rails are parts of the board's supply: counted once.
    assert list(find_sensors()) == ["12V"]

    def broken() -> None:
        raise RuntimeError("no libsensors")

    pynq.get_rails = broken  # type: ignore[attr-defined]
    assert find_sensors() == {}


def test_a_meter_takes_the_mean_and_bears_a_sensor_that_fails() -> None:
    values = iter([2.0, 4.0])
    with Meter({"rail": lambda: next(values)}) as meter:
        while len(meter._samples) < 2:
            pass
    assert meter.watts == 3.0 and meter.seconds > 0
    with Meter({}) as nothing:
        pass
    assert nothing.watts is None


@pytest.mark.compile
def test_on_the_command_line(
    built: Build, library: Path, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(folders / "images" / "00.png")
    command = ["run", str(built.folder), "--image", image, "--task", "all", "--emulate", "--benchmark", "4"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["benchmark"]
    assert [each["task"] for each in found] == ["semseg", "depth"]
    assert all(each["images"] == 4 and each["images_per_second"] > 0 for each in found)
    assert np.all([each["latency_ms"]["p50"] <= each["latency_ms"]["max"] for each in found])
    assert main(command) == 0
    assert "emulated: these are times of this computer" in capsys.readouterr().out
