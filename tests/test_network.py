"""The network in torch: the same results as the float64 reference, the same weights after a round trip, and its
fake-quantised forward against the simulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import edgemoe
from common.errors import InputError
from frontend.fake_quant import FakeQuantized, Grid
from frontend.network import Network
from frontend.onnx_export import export_model, has_task_input
from frontend.zoo import find_spec, zoo_names
from pysim import reference
from pysim.design import Design
from pysim.model import Model, init_model
from pysim.precision import PRESETS
from pysim.quantizer import quantize
from pysim.simulator import simulate

pytestmark = pytest.mark.slow

MakeModel = Callable[..., Model]


def fed(images: Any) -> torch.Tensor:
    return torch.from_numpy(images).float() / 256


def decibels(found: Any, exact: Any) -> float:
    return float(10 * np.log10((exact**2).mean() / ((found - exact) ** 2).mean()))


@pytest.mark.parametrize("name", zoo_names())
def test_reference_torch_and_onnxruntime_agree(name: str, tmp_path: Path) -> None:
    """Every shape of the zoo, on small images; all blocks of one of them, the first ones of the others."""
    spec = find_spec(name)
    size, depth = (2 * spec.patch_size, 3 * spec.patch_size), spec.depth if name == "m3vit-tiny" else 2
    model = init_model(spec.model_copy(update={"image_size": size, "depth": depth}), seed=1)
    images = edgemoe.random_images(model, 1, seed=3)
    network = Network.from_model(model)
    path = tmp_path / "net.onnx"
    export_model(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options)
    for number in sorted({0, len(spec.tasks) - 1}):
        task, expected = spec.tasks[number], reference.run(model, images, number).tokens
        head: Any = reference.apply_head(model, task, expected)
        with torch.no_grad():
            tokens = network(fed(images), task)
            assert_allclose(tokens.numpy(), expected, atol=2e-5)
            if head is not None:
                assert_allclose(network.predict(fed(images), task).numpy(), head, atol=2e-5)
        feeds = {"image": fed(images).numpy()} | ({"task": np.array(number)} if has_task_input(model) else {})
        names = ["tokens"] + ([task] if head is not None else [])
        for found, wanted in zip(session.run(names, feeds), (expected, head), strict=False):
            assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"moe": None, "tasks": ["depth"], "qkv_bias": False},
        {"moe": {"shared_gate": True, "gate_bias": True, "layers": [0, 2], "gate": "topk-softmax"}},
        {
            "moe": {"layers": "all", "top_k": 1},
            "task_heads": {"depth": {"kind": "token-linear", "out_channels": 2, "norm": False}},
        },
    ],
)
def test_round_trip_through_torch(micro_with: MakeModel, tmp_path: Path, changes: dict[str, Any]) -> None:
    model = micro_with(**changes)
    model.save(tmp_path / "model")
    back = Network.from_model(Model.load(tmp_path / "model")).to_model()
    assert back.spec == model.spec
    assert set(back.weights) == set(model.weights)
    for name, tensor in model.weights.items():
        assert_array_equal(back.weights[name], tensor)
    images = edgemoe.random_images(model, 2)
    for task in range(len(model.spec.tasks)):
        with torch.no_grad():
            tokens = Network.from_model(model)(fed(images), task).numpy()
        assert_allclose(tokens, reference.run(model, images, task).tokens, atol=1e-5)


def test_ties_go_to_the_lowest_expert(micro_with: MakeModel) -> None:
    model = micro_with(moe={"experts": 6, "top_k": 2})
    weights = dict(model.weights)
    for layer in (1, 3):
        gate = weights[f"blocks.{layer}.moe.gate.weight"].copy()
        gate[:, 3:] = gate[:, :3]
        weights[f"blocks.{layer}.moe.gate.weight"] = gate
    tied = Model(model.spec, weights)
    images = edgemoe.random_images(tied, 4)
    with torch.no_grad():
        tokens = Network.from_model(tied)(fed(images), 0).numpy()
    assert_allclose(tokens, reference.run(tied, images, 0).tokens, atol=1e-5)


def test_gradients_reach_every_parameter(micro: Model) -> None:
    network = Network.from_model(micro).train()
    images = fed(edgemoe.random_images(micro, 6))
    sum(network.predict(images, task).square().mean() for task in micro.spec.tasks).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_unknown_task_and_weights_that_are_not_finite(micro: Model) -> None:
    network = Network.from_model(micro)
    with pytest.raises(InputError, match="task 'flow' is unknown"):
        network(fed(edgemoe.random_images(micro, 1)), "flow")
    with pytest.raises(InputError, match="task 'flow' has no linear head"):
        network.predict(fed(edgemoe.random_images(micro, 1)), "flow")
    with torch.no_grad():
        network.pos_embed[0, 0] = torch.nan
    with pytest.raises(InputError, match="pos_embed: 1 of 216 values are not finite"):
        network.to_model()


# Fake quantisation


@pytest.fixture(scope="module")
def plain(micro_with: MakeModel) -> Model:
    """Without experts: no choice that a last bit could turn."""
    return micro_with(moe=None)


@pytest.mark.parametrize(("preset", "least"), [("w16a16", 76.0), ("w8a8", 45.0)])
def test_fake_quantised_forward_is_the_simulator(plain: Model, preset: str, least: float) -> None:
    """But for the rounding of weights for the least error, and for last bits that float32 turns."""
    images = edgemoe.random_images(plain, 16, seed=4)
    precision = PRESETS[preset].model_copy(update={"learned_rounding": False})
    design = quantize(plain, images, precision)
    network = Network.from_model(plain)
    with torch.no_grad():
        tokens = FakeQuantized(network, design)(fed(images)).numpy()
    simulated, exact = simulate(design, images).tokens, reference.run(plain, images).tokens
    assert decibels(tokens, simulated) > least
    if preset == "w8a8":  # it has the simulator's errors, not only errors as small
        assert decibels(tokens, simulated) > decibels(simulated, exact) + 3


@pytest.mark.parametrize("changes", [{}, {"shared_gate": True, "gate_bias": True, "gate": "topk-softmax"}])
def test_fake_quantised_experts(micro_with: MakeModel, changes: dict[str, Any]) -> None:
    model = micro_with(moe=changes)
    images = edgemoe.random_images(model, 8, seed=4)
    design = quantize(model, images, PRESETS["w16a16"])
    for task in (0, 1):
        with torch.no_grad():
            tokens = FakeQuantized(Network.from_model(model), design)(fed(images), task).numpy()
        simulated = simulate(design, images, task).tokens
        # A token whose experts differ is far off; almost none is.
        distance = np.abs(tokens - simulated).max(axis=-1)
        assert (distance < 0.01).mean() > 0.95


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_fake_quantised_weights_are_the_designs(micro: Model, images: Any, preset: str) -> None:
    precision = PRESETS[preset].model_copy(update={"learned_rounding": False})
    design = quantize(micro, images, precision)
    network = Network.from_model(micro)
    fake = FakeQuantized(network, design)
    pairs = [
        (fake.patch, network.patch_embed.weight.flatten(1), design.tensors["patch.weight"]),
        (fake.blocks[0].qkv, network.blocks[0].attn.qkv.weight, design.tensors["blocks.0.qkv.weight"]),
        (fake.blocks[0].fc1[0], network.blocks[0].mlp.fc1.weight, design.tensors["blocks.0.fc1.weight"]),
        (fake.blocks[1].proj, network.blocks[1].attn.proj.weight, design.tensors["blocks.1.proj.weight"]),
        (
            fake.blocks[1].fc2[3],
            network.blocks[1].moe.fc2.weight[3],
            design.tensors["blocks.1.fc2.weight"][3],
        ),
        (
            fake.blocks[3].gates[1],
            network.blocks[3].moe.gate.weight[1],
            design.tensors["blocks.3.gate.weight"][1],
        ),
    ]
    for layer, weight, expected in pairs:
        found = layer.weights.integers(weight).numpy()
        # Scales are read back from 16-bit multipliers: of wide weights, some go the other way.
        assert (found != expected).mean() < (0.1 if expected.dtype == np.int16 else 2e-3)
        assert np.abs(found - expected).max() <= 1


def test_grid_and_its_gradient() -> None:
    grid = Grid(4, 0.5, 0.25)
    x = torch.tensor([0.0, 0.49, 0.5, 10.0, -10.0], requires_grad=True)
    y = grid(x)
    assert y.tolist() == [0.25, 0.25, 0.75, 3.75, -3.75]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_fine_tuning_lowers_the_loss(micro: Model, images: Any, designs: dict[str, Design]) -> None:
    network = Network.from_model(micro).train()
    fake = FakeQuantized(network, designs["w8a8"])
    target = torch.randn(len(images), micro.spec.patches, 7, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = (fake.predict(fed(images), "semseg") - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert np.isfinite(network.to_model().weights["blocks.1.moe.gate.weight"]).all()


def test_fake_quantisation_needs_a_fitting_design(
    micro: Model, plain: Model, designs: dict[str, Design]
) -> None:
    with pytest.raises(InputError, match="precision 'iccad23' is not supported"):
        FakeQuantized(Network.from_model(micro), designs["iccad23"])
    with pytest.raises(InputError, match="another network"):
        FakeQuantized(Network.from_model(plain), designs["w8a8"])
