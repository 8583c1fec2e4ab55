"""The layers for hls4ml: the compiled `predict` of a converted model gives the simulator's integers."""

from __future__ import annotations

import runpy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from torch import Tensor, nn

from codegen.hls4ml_layers import convert
from codegen.hls4ml_layers.modules import ExactLayerNorm, MixtureOfExperts, SinglePassSoftmax, TableGelu
from common.errors import InputError, QuantizationWarning
from pysim.design import Design
from pysim.engines import RequantiseEngines
from pysim.formats import Format
from pysim.kernels.gelu import gelu
from pysim.kernels.linear import Requantise
from pysim.kernels.softmax import softmax
from pysim.precision import PRESETS
from pysim.program import Experts, Gate, Norm, blocks, of_type

pytestmark = pytest.mark.compile

IntArray = NDArray[np.int64]

SOURCE, NORMED, ACTIVATED, CHANCES = Format(20, 10), Format(16, 11), Format(18, 12), Format(17, 16, False)
ROWS, CHANNELS = 6, 24
LAYER, TASK = 1, "depth"


class Elementwise(nn.Module):
    """LayerNorm, GELU and softmax in a row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = nn.LayerNorm(CHANNELS)
        with torch.no_grad():
            norm.weight += torch.randn(CHANNELS)
            norm.bias += torch.randn(CHANNELS)
        self.float_norm = [norm]  # in a list, where hls4ml does not look for layers
        self.norm = ExactLayerNorm.from_torch(norm, SOURCE, NORMED)
        self.act = TableGelu(NORMED, ACTIVATED)
        self.soft = SinglePassSoftmax(ACTIVATED, CHANCES)

    def forward(self, x: Tensor) -> Tensor:
        return self.soft(self.act(self.norm(x)))


class MoeBlock(nn.Module):
    """Norm 2 of a Design's layer, once for the experts and once for the gate, and the experts."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.norm = ExactLayerNorm.from_design(design, LAYER, 2)
        self.gate_norm = ExactLayerNorm.from_design(design, LAYER, 2, gate=True)
        self.moe = MixtureOfExperts(design, LAYER, TASK)

    def forward(self, x: Tensor) -> Tensor:
        return self.moe(self.norm(x), self.gate_norm(x))


def predict(
    model: nn.Module, source: Format, integers: IntArray, result: Format, folder: Path, io: str
) -> IntArray:
    """Integers of the compiled hls4ml model for integers (images, rows, channels)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = convert(model, [integers.shape[1:]], [source], folder, io_type=io)
        converted.compile()
    real = converted.predict(np.ascontiguousarray(source.to_float(integers)))
    found = np.asarray(real).reshape(integers.shape) / result.lsb
    assert_array_equal(found, np.rint(found))
    return found.astype(np.int64)


@pytest.mark.parametrize("io", ["io_parallel", "io_stream"])
def test_norm_gelu_softmax(tmp_path: Path, io: str) -> None:
    model, rng = Elementwise(), np.random.default_rng(0)
    x = rng.integers(-(1 << 13), 1 << 13, (40, ROWS, CHANNELS))
    x[0, 0], x[0, 1], x[0, 2, ::2] = SOURCE.min, 0, SOURCE.max  # one value, nothing, both ends
    x[0, 2, 1::2] = SOURCE.min
    found = predict(model, SOURCE, x, CHANCES, tmp_path / "project", io)
    flat = x.reshape(-1, CHANNELS)
    expected = model.soft.integers(model.act.integers(model.norm.integers(flat)))
    assert_array_equal(found.reshape(-1, CHANNELS), expected)
    # The last step once more, from the simulator's kernels alone.
    normed = model.norm.integers(flat)
    activated = Requantise(np.ones(1, np.int64), np.array([26 - 12]))(gelu(normed << 3), ACTIVATED)
    scores = Requantise(np.array([model.soft.multiplier]), np.array([model.soft.shift]))(
        activated, Format(24, 12)
    )
    assert_array_equal(expected, softmax(scores, np.zeros(len(scores), np.int64)))
    # And all of it is what its name says.
    real = torch.from_numpy(SOURCE.to_float(flat)).float()
    with torch.no_grad():
        exact = nn.functional.gelu(model.float_norm[0](real)).softmax(-1)
    assert_allclose(CHANCES.to_float(expected), exact.numpy(), atol=2e-3)


@pytest.mark.parametrize(
    ("precision", "io"), [("w8a8", "io_parallel"), ("w8a8", "io_stream"), ("w16a16", "io_parallel")]
)
def test_mixture_of_experts(designs: dict[str, Design], tmp_path: Path, precision: str, io: str) -> None:
    design = designs[precision]
    model, engines = MoeBlock(design), RequantiseEngines(design)
    width = design.residual.width
    rng = np.random.default_rng(1)
    x = rng.integers(-(1 << (width - 4)), 1 << (width - 4), (8, ROWS, CHANNELS))
    x[0, 0], x[0, 1] = 0, np.where(np.arange(CHANNELS) % 2, (1 << (width - 1)) - 1, -(1 << (width - 1)))
    found = predict(model, Format(width, 0), x, Format(width, 0), tmp_path / "project", io)

    flat = x.reshape(-1, CHANNELS)
    block = blocks(design.program)[LAYER]
    (_, norm), (gate,), (experts,) = of_type(block, Norm), of_type(block, Gate), of_type(block, Experts)
    tokens, gate_tokens = engines.norm(norm, flat)
    routing = engines.route(gate, engines.logits(gate, design.spec.tasks.index(TASK), gate_tokens))
    expected = engines.experts(experts, routing, tokens, np.zeros_like(flat))[0]
    assert np.abs(expected).max() > 0 and len(routing.active) > 1
    assert_array_equal(found.reshape(-1, CHANNELS), expected)


def test_modules_on_real_numbers() -> None:
    """In torch, the modules give the integers' values."""
    module = TableGelu(Format(16, 8), Format(16, 10))
    x = torch.tensor([[[0.5, -1.0, 300.0]]])
    expected = module.result.to_float(module.integers(np.array([[128, -256, 32767]])))
    assert_array_equal(module(x).numpy(), expected[None].astype(np.float32))


def test_wrong_formats_are_refused(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = TableGelu(Format(16, 8), Format(16, 10))
            self.soft = SinglePassSoftmax(Format(16, 9))

        def forward(self, x: Tensor) -> Tensor:
            return self.soft(self.act(x))

    says = r"layer soft: input act is fixed<16,6.*made for ap_fixed<16, 7"
    with warnings.catch_warnings(), pytest.raises(InputError, match=says):
        warnings.simplefilter("ignore")
        convert(Mixed(), [(3, 4)], [Format(16, 8)], tmp_path / "project")


def with_relu(design: Design) -> Design:
    return replace(design, spec=design.spec.model_copy(update={"activation": "relu"}))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda designs: MixtureOfExperts(designs["iccad23"], LAYER), "has no layer for hls4ml"),
        (lambda designs: MixtureOfExperts(designs["w8a8"], 0), "layer 0 has no experts"),
        (lambda designs: MixtureOfExperts(with_relu(designs["w8a8"]), LAYER), "activation relu: no layer"),
        (lambda designs: MixtureOfExperts(designs["w8a8"], LAYER, "flow"), "task 'flow' is unknown"),
        (lambda designs: SinglePassSoftmax(Format(16, 8), scale=-1.0), "scale = -1.0"),
        (
            lambda designs: ExactLayerNorm.from_torch(nn.LayerNorm(64), Format(30, 0), Format(8, 4)),
            "leave 64 bits",
        ),
    ],
)
def test_bad_arguments(designs: dict[str, Design], make: Any, says: str) -> None:
    assert set(designs) == set(PRESETS)
    with pytest.raises(InputError, match=says):
        make(designs)


def test_scores_beyond_the_softmax_units_range_are_warned_about() -> None:
    """Its scores end at 2048, in units of log2."""
    with pytest.warns(
        QuantizationWarning, match=r"reach 2955 in units of log2, and count as 2048 from there on"
    ):
        SinglePassSoftmax(Format(16, 4))
    SinglePassSoftmax(Format(16, 5))
    SinglePassSoftmax(Format(16, 4), scale=0.5)


def test_the_example_finds_no_mismatch(capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).parents[1] / "examples" / "hls4ml_experts.py"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(script), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if "compared" in line]
    assert lines == [
        "Experts: 3456 values compared, 0 mismatches",
        "Elementwise: 3456 values compared, 0 mismatches",
    ]
