"""Arguments of the wrong type, and tasks by name or number: a sentence names the argument, its value and what fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
from common.errors import InputError
from common.tasks import chosen_tasks, task_number
from edgemoe import cli
from frontend.network import Network
from pysim.design import Design
from pysim.model import Model

Pixels = NDArray[np.uint8]


facade: Any = edgemoe
"""Without types, as in a notebook."""


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda m, d, i: facade.quantize(m, "ph"),
            "images is 'ph', expected an array (images, channels, H, W)",
        ),
        (lambda m, d, i: facade.quantize(d, i), "model is a Design, expected a Model"),
        (lambda m, d, i: facade.quantize("micro", i), "model is 'micro', expected a Model"),
        (
            lambda m, d, i: facade.quantize(m, i, attention_rows=True),
            "attention_rows = True, expected a whole number",
        ),
        (
            lambda m, d, i: facade.quantize(m, i, attention_rows=0),
            "attention_rows = 0, expected a whole number from 1",
        ),
        (lambda m, d, i: facade.simulate(m, i), "design is a Model, expected a Design"),
        (lambda m, d, i: facade.simulate(d, [1]), "images is a list, expected an array"),
        (lambda m, d, i: facade.reference(d, i), "model is a Design, expected a Model"),
        (lambda m, d, i: facade.reference(m, None), "images is None, expected an array"),
        (lambda m, d, i: facade.compare(d, m, i), "model is a Design, expected a Model"),
        (lambda m, d, i: facade.compare(m, m, i), "design is a Model, expected a Design"),
        (lambda m, d, i: facade.estimate(3), "source is 3, expected a Model"),
        (lambda m, d, i: facade.estimate(m, batch=0), "batch = 0, expected a whole number from 1 to 64"),
        (lambda m, d, i: facade.fit(m, batch=1.5), "batch = 1.5, expected a whole number from 1 to 64"),
        (lambda m, d, i: facade.generate(m, "x"), "design is a Model, expected a Design"),
        (lambda m, d, i: facade.generate(d, "x", model=d), "model is a Design, expected a Model"),
        (lambda m, d, i: facade.generate(d, "x", images="ph"), "images is 'ph', expected an array"),
        (lambda m, d, i: facade.generate(d, "x", batch="2"), "batch = '2', expected a whole number"),
        (lambda m, d, i: facade.default_hardware(m), "design is a Model, expected a Design"),
        (lambda m, d, i: facade.random_images("micro", 1), "model is 'micro', expected a Model or a Design"),
        (lambda m, d, i: facade.random_images(m, -1), "count = -1, expected a whole number from 1"),
        (
            lambda m, d, i: facade.load_images("ph", "micro"),
            "model is 'micro', expected a Model or a Design",
        ),
        (lambda m, d, i: facade.export_onnx(d, "x.onnx"), "model is a Design, expected a Model"),
    ],
)
def test_wrong_types(
    micro: Model, designs: dict[str, Design], images: Pixels, call: Callable[..., Any], says: str
) -> None:
    with pytest.raises(InputError) as raised:
        call(micro, designs["w8a8"], images)
    assert says in raised.value.message


# Tasks


@pytest.mark.parametrize("number", [1, np.int64(1), np.uint8(1), "depth"])
def test_a_task_is_a_name_or_a_number(
    micro: Model, designs: dict[str, Design], images: Pixels, number: Any
) -> None:
    expected = edgemoe.simulate(designs["w8a8"], images[:1], "depth").integers
    assert_array_equal(edgemoe.simulate(designs["w8a8"], images[:1], number).integers, expected)
    assert_array_equal(
        edgemoe.reference(micro, images[:1], number).tokens, edgemoe.reference(micro, images[:1], 1).tokens
    )
    network, pixels = Network.from_model(micro), torch.from_numpy(images[:1]).float() / 256
    with torch.no_grad():
        assert torch.equal(network(pixels, number), network(pixels, 1))


@pytest.mark.parametrize("task", [True, np.True_, 2, -1, 1.0, "flow", None, "1"])
def test_anything_else_is_no_task(
    micro: Model, designs: dict[str, Design], images: Pixels, task: Any
) -> None:
    for call in (
        lambda: edgemoe.simulate(designs["w8a8"], images[:1], task),
        lambda: edgemoe.reference(micro, images[:1], task),
        lambda: Network.from_model(micro)(torch.zeros(1, 3, 8, 16), task),
        lambda: task_number(["semseg", "depth"], task),
    ):
        with pytest.raises(InputError, match="is unknown") as raised:
            call()
        assert raised.value.hint == "the network's tasks are semseg, depth"


def test_tasks_of_a_command_line() -> None:
    names = ["depth", "all", "3", "edge"]
    assert chosen_tasks(names, None) == ["depth"]
    assert chosen_tasks(names, "edge") == ["edge"]
    assert chosen_tasks(names, "1") == ["all"] and chosen_tasks(names, "3") == ["3"]
    assert chosen_tasks(["a", "b"], "all") == ["a", "b"]
    with pytest.raises(InputError, match="one of the tasks has this name") as raised:
        chosen_tasks(names, "all")
    assert raised.value.hint == "--task 1 is that one by its number"
    for wrong in ("4", "-1", "flow", "9" * 99):
        with pytest.raises(InputError, match="is unknown"):
            chosen_tasks(names, wrong)


def test_task_numbers_on_the_command_line(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for task in ("depth", "1"):
        arguments = [
            "simulate",
            str(folders / "w8a8"),
            "--image",
            str(folders / "images/00.png"),
            "--task",
            task,
        ]
        assert cli.main(arguments) == 0
        found.append(capsys.readouterr().out.split("tokens ")[-1])
    assert found[0] == found[1]


# Calibration images that show nothing


def test_images_of_one_colour_are_warned_about(micro: Model, images: Pixels) -> None:
    black = np.zeros_like(images[:3])
    grey = black + np.arange(1, 4, dtype=np.uint8)[:, None, None, None]
    for shown, says in (
        (black, "all 3 calibration images are of one colour (black): "),
        (grey, "all 3 calibration images are of one colour: "),
        (np.repeat(images[:1], 3, axis=0), "the 3 calibration images are all the same: "),
    ):
        with pytest.warns(edgemoe.QuantizationWarning) as caught:
            design = edgemoe.quantize(micro, shown, "w8a8")
        assert any(says in str(warning.message) for warning in caught)
        assert any(says in text for text in design.warnings)
    mixed = np.concatenate([black, images[:2]])
    assert not any("calibration images" in text for text in edgemoe.quantize(micro, mixed, "w8a8").warnings)
