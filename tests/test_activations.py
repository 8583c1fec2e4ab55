"""Every activation function from its registry row to hardware; the integers of the units are in the table of cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file

import edgemoe
from codegen.architecture import Architecture
from codegen.resources import dsp_by_engine
from codegen.rtl.blackbox import chosen
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.linear import write_cycles
from codegen.rtl.render import render
from codegen.rtl.simulation import Scenario, build, play
from codegen.rtl.vectors import checks
from common.errors import InputError
from conftest import NARROW
from designs import random_design
from foreign import hugging_face_state, saved, timm_state
from frontend.fake_quant import FakeQuantized
from frontend.importing import import_model
from frontend.network import ACTIVATIONS as TORCH
from frontend.network import Network
from frontend.onnx_export import export_model
from frontend.options import Options
from frontend.pixels import NONE
from pysim import reference
from pysim.activations import ACTIVATIONS
from pysim.model import Model
from pysim.precision import PRESETS
from pysim.program import program
from pysim.quantizer import quantize
from pysim.reports import sqnr_db
from pysim.simulator import simulate
from pysim.spec import ModelSpec

MakeModel = Callable[..., Model]


@pytest.fixture(scope="module", params=ACTIVATIONS)
def model(request: pytest.FixtureRequest, micro_with: MakeModel) -> Model:
    """One layer with experts and one without."""
    return micro_with(depth=2, activation=request.param)


def fed(images: Any) -> torch.Tensor:
    return torch.from_numpy((images / 256).astype(np.float32))


def test_registry_reference_and_torch_mean_the_same() -> None:
    """Three witnesses, written apart."""
    x = np.linspace(-12, 12, 4001)
    assert TORCH.keys() == reference._ACTIVATIONS.keys() == ACTIVATIONS.keys()
    for name, activation in ACTIVATIONS.items():
        exact = activation.function(x)
        assert_allclose(reference._ACTIVATIONS[name](x), exact, atol=1e-14)
        assert_allclose(TORCH[name](torch.from_numpy(x)).numpy(), exact, atol=1e-14)
        # What makes one table enough for both signs.
        assert_allclose(exact - activation.function(-x), x, atol=1e-14)
        if activation.delta is not None:
            positive = np.arange(0, 8, 1 / 64)
            rest = positive - activation.function(positive)
            assert_allclose(np.ldexp(activation.delta.base, -activation.delta.frac), rest, atol=2.0**-19)


def test_other_names_are_refused(micro: Model) -> None:
    with pytest.raises(
        ValueError, match=r"activation 'silu' is unknown: one of gelu, gelu_tanh, quick_gelu, relu"
    ):
        ModelSpec.model_validate(micro.spec.model_dump() | {"activation": "silu"})
    assert micro.spec.activation == "gelu" and "activation" not in micro.spec.shape()


def test_simulator_torch_and_fake_quantisation_follow_the_reference(model: Model) -> None:
    images = edgemoe.random_images(model, 4, seed=4)
    precision = PRESETS["w16a16"].model_copy(update={"learned_rounding": False})
    design, network = quantize(model, images, precision), Network.from_model(model)
    routing = simulate(design, images).routing
    forced = {layer: choices.experts for layer, choices in routing.items()}
    exact = reference.run(model, images, experts=forced).tokens
    simulated = simulate(design, images).tokens
    assert sqnr_db(exact, simulated - exact) > 60
    with torch.no_grad():
        tokens, fake = network(fed(images)).numpy(), FakeQuantized(network, design)(fed(images)).numpy()
    assert_allclose(tokens, reference.run(model, images).tokens, atol=1e-5)
    assert sqnr_db(simulated, fake - simulated) > 55


def test_functions_are_told_apart(micro_with: MakeModel) -> None:
    """GELU and its approximation by tanh differ in the last bits only: a table for another would show."""
    tokens = []
    for name in ACTIVATIONS:
        design = random_design(micro_with(depth=1, moe=None, activation=name).spec, PRESETS["w16a16"])
        tokens.append(simulate(design, edgemoe.random_images(design, 1)).integers)
    for i, first in enumerate(tokens):
        for second in tokens[:i]:
            assert (first != second).any()


def test_onnx_round_trip(model: Model, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "net.onnx"
    export_model(model, path)
    assert import_model(path).model.spec == model.spec
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {})
    onnx.save(graph, path)
    found = import_model(path, Options(normalization=NONE, tasks=tuple(model.spec.tasks))).model
    assert found.spec.activation == model.spec.activation
    assert_array_equal(found.weights["blocks.1.moe.fc1.weight"], model.weights["blocks.1.moe.fc1.weight"])


# Checkpoints


def test_option_and_configuration(micro_with: MakeModel, tmp_path: Path) -> None:
    vit = micro_with(moe=None, tasks=["classify"], task_heads={})
    options = Options(heads=2, image_size=(8, 16), normalization=NONE, activation="quick_gelu")
    assert (
        import_model(saved(tmp_path / "v.pth", timm_state(vit)), options).model.spec.activation
        == "quick_gelu"
    )
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(hugging_face_state(vit), folder / "model.safetensors")
    config = {"num_attention_heads": 2, "image_size": [8, 16]}
    said = Options(normalization=NONE)
    theirs = {
        "gelu_new": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "quick_gelu": "quick_gelu",
        "relu": "relu",
    }
    for name, ours in theirs.items():
        (folder / "config.json").write_text(json.dumps(config | {"hidden_act": name}))
        assert import_model(folder, said).model.spec.activation == ours
    for other in ("silu", ["gelu"]):
        (folder / "config.json").write_text(json.dumps(config | {"hidden_act": other}))
        with pytest.raises(InputError, match=r"hidden_act is .*, expected one of gelu, "):
            import_model(folder, said)


# Where a function does not exist


def test_the_originals_arithmetic_has_gelu_alone(model: Model) -> None:
    if model.spec.activation == "gelu":
        assert program(model.spec, PRESETS["iccad23"])
        return
    with pytest.raises(
        InputError, match=f"iccad23 has no activation function {model.spec.activation}, only gelu"
    ):
        quantize(model, edgemoe.random_images(model, 2), PRESETS["iccad23"])


def architecture_of(model: Model) -> Architecture:
    return Architecture(random_design(model.spec, PRESETS["w8a8"]).network, NARROW)


def test_relu_has_no_table_and_no_blackbox(micro_with: MakeModel) -> None:
    relu, quick = (
        architecture_of(micro_with(depth=1, moe=None, activation=name)) for name in ("relu", "quick_gelu")
    )
    files = [source.file for source in kernels_of(relu)["linear"].sources]
    assert "edgemoe_relu_unit.v" in files and not any("rom" in file for file in files)
    assert write_cycles(quick) - write_cycles(relu) == 4
    saved_slices = dsp_by_engine(quick)["write-back"] - dsp_by_engine(relu)["write-back"]
    assert saved_slices == NARROW.lanes
    with pytest.raises(InputError, match="the network's activation function is relu"):
        chosen(relu, ["gelu"])
    (box,) = chosen(quick, ["gelu"])
    assert [source.file for source in box.sources] == [
        "edgemoe_gelu_unit.v",
        "edgemoe_rom_quick_gelu_delta.v",
    ]


@pytest.mark.rtl
def test_linear_kernel_with_relu(micro_with: MakeModel, tmp_path: Path) -> None:
    """The shorter way of its results: values and cycles."""
    design = random_design(micro_with(depth=1, moe=None, activation="relu").spec, PRESETS["w8a8"])
    architecture = Architecture(design.network, NARROW)
    mine = checks(design, architecture, edgemoe.random_images(design, 1), task=0)["linear"]
    kernel = kernels_of(architecture)["linear"]
    compiled = build(render(architecture, [kernel], tmp_path), kernel.top)
    scenarios = [Scenario(check.call.name, [check.call]) for check in mine]
    assert len(mine) >= 4
    for check, (result,) in zip(mine, play(kernel, compiled, scenarios), strict=True):
        assert check.difference(kernel, result) == ""
        assert result.cycles == check.cycles
