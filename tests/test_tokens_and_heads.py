"""Any number of prefix tokens, and every kind of task head: specification, reference, torch, simulator, ONNX, host."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import edgemoe
from boards import load_board
from codegen.architecture import Architecture
from codegen.hardware import default_hardware
from codegen.host_files import write_host
from common.errors import InputError
from common.heads import HEAD_KINDS, LEAST_PREFIX, MEANS
from foreign import StateDict, hugging_face_state, saved, timm_state, with_heads
from frontend.fake_quant import FakeQuantized
from frontend.importing import import_model
from frontend.network import Network
from frontend.onnx_export import export_model
from frontend.options import Options
from frontend.pixels import NONE
from host.manifest import Manifest
from host.result import Result
from pysim import reference
from pysim.design import Design
from pysim.model import Model
from pysim.precision import PRESETS
from pysim.program import Embed, of_type
from pysim.quantizer import quantize
from pysim.reports import sqnr_db
from pysim.simulator import simulate
from pysim.spec import ModelSpec

MakeModel = Callable[..., Model]

ODD = {"moe": None, "tasks": ["a"], "image_size": (12, 20), "dim": 21, "heads": 3, "mlp_dim": 33, "depth": 2}
PREFIXES = (0, 2, 5)
LINEAR_KINDS = [kind for kind in HEAD_KINDS if kind != "none"]


def odd(micro_with: MakeModel, prefix: int, **head: Any) -> Model:
    model = micro_with(**ODD, prefix_tokens=prefix)
    return with_heads(model, {"a": {"out_channels": 4} | head}) if head else model


@pytest.fixture(scope="module", params=PREFIXES)
def model(request: pytest.FixtureRequest, micro_with: MakeModel) -> Model:
    return odd(micro_with, request.param)


def fed(images: Any) -> torch.Tensor:
    return torch.from_numpy((images / 256).astype(np.float32))


# Specification


def test_older_files_and_identities_have_one_class_token(micro: Model, tmp_path: Path) -> None:
    micro.save(tmp_path / "model")
    file = tmp_path / "model/model.toml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(("prefix_tokens", "fc_norm"))))
    assert len(file.read_text().splitlines()) < len(lines)
    assert Model.load(tmp_path / "model").spec == micro.spec
    assert micro.spec.prefix_tokens == 1 and "prefix_tokens" not in micro.spec.shape()
    assert micro.spec.model_copy(update={"prefix_tokens": 2}).shape() != micro.spec.shape()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prefix_tokens": -1}, "greater than or equal to 0"),
        (
            {"prefix_tokens": 0, "task_heads": {"a": {"kind": "cls-linear", "out_channels": 2}}},
            "1 prefix token,",
        ),
        ({"task_heads": {"a": {"kind": "distilled-linear", "out_channels": 2}}}, "2 prefix tokens, but"),
        (
            {"task_heads": {"a": {"kind": "cls-linear", "out_channels": 2, "fc_norm": True}}},
            "fc_norm is a norm",
        ),
        (
            {"task_heads": {"a": {"kind": "cls-linear", "out_channels": 2, "norm": False, "norm_eps": 1e-3}}},
            "norm_eps = 0.001 is given, but",
        ),
    ],
)
def test_heads_without_their_tokens(micro_with: MakeModel, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModelSpec.model_validate(micro_with(**ODD).spec.model_dump() | changes)


# Simulator, torch, fake quantisation


def test_simulator_follows_the_reference(model: Model) -> None:
    images = edgemoe.random_images(model, 3, seed=4)
    design = quantize(model, images, PRESETS["w16a16"])
    run, exact = simulate(design, images, trace=True), reference.run(model, images).tokens
    prefix = model.spec.prefix_tokens
    assert run.tokens.shape == exact.shape == (3, prefix + 15, 21)
    assert sqnr_db(exact, run.tokens - exact) > 60
    (embed,) = of_type(design.program, Embed)
    embedded = run.trace["embed"].reshape(3, -1, 21)
    for image in embedded:
        assert_array_equal(image[:prefix], design.integers(embed.position)[:prefix])
    assert len(np.unique(embedded[:, prefix:], axis=0)) == 3, "patches of every image"


def test_torch_network_and_fake_quantisation(model: Model) -> None:
    images = edgemoe.random_images(model, 4, seed=4)
    precision = PRESETS["w16a16"].model_copy(update={"learned_rounding": False})
    design, network = quantize(model, images, precision), Network.from_model(model)
    with torch.no_grad():
        tokens, fake = network(fed(images)).numpy(), FakeQuantized(network, design)(fed(images)).numpy()
    assert_allclose(tokens, reference.run(model, images).tokens, atol=1e-5)
    simulated = simulate(design, images).tokens
    assert sqnr_db(simulated, fake - simulated) > 70


# Heads, and ONNX there and back


@pytest.fixture(
    scope="module", params=[(kind, norm) for kind in LINEAR_KINDS for norm in (False, True)], ids=str
)
def headed(request: pytest.FixtureRequest, micro_with: MakeModel) -> Model:
    """A head of every kind; means have their norm behind them, the others in front."""
    kind, norm = request.param
    norms: dict[str, Any] = {"norm": norm and kind not in MEANS, "fc_norm": norm and kind in MEANS}
    return odd(micro_with, 3, kind=kind, **norms, **({"norm_eps": 1e-3} if norm else {}))


def expected_head(model: Model, tokens: Any) -> Any:
    """The head of `headed`, written out."""
    spec, weights = (
        model.spec.head("a"),
        {name: tensor.astype(float) for name, tensor in model.weights.items()},
    )

    def normed(x: Any, norm: str) -> Any:
        deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-3)
        scaled = (x - x.mean(axis=-1, keepdims=True)) / deviation
        return scaled * weights[f"heads.a.{norm}.weight"] + weights[f"heads.a.{norm}.bias"]

    def linear(x: Any, name: str = "heads.a") -> Any:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = normed(tokens, "norm") if spec.norm else tokens
    if spec.kind == "distilled-linear":
        return 0.5 * linear(x[:, 0]) + 0.5 * linear(x[:, 1], "heads.a.dist")
    read = {
        "cls-linear": x[:, 0],
        "token-linear": x[:, 3:],
        "mean-linear": x[:, 3:].mean(1),
        "mean-all-linear": x.mean(1),
        "cls-mean-linear": np.concatenate([x[:, 0], x[:, 3:].mean(1)], 1),
    }[spec.kind]
    return linear(normed(read, "fc_norm") if spec.fc_norm else read)


def test_heads_of_reference_and_torch(headed: Model) -> None:
    images = edgemoe.random_images(headed, 2, seed=4)
    tokens = reference.run(headed, images).tokens
    expected = expected_head(headed, tokens)
    assert expected.shape == ((2, 15, 4) if headed.spec.head("a").kind == "token-linear" else (2, 4))
    found: Any = reference.apply_head(headed, "a", tokens)
    assert_allclose(found, expected, atol=1e-12)
    with torch.no_grad():
        assert_allclose(Network.from_model(headed).predict(fed(images), "a").numpy(), expected, atol=1e-5)


def test_onnx_round_trip_of_heads(headed: Model, tmp_path: Path) -> None:
    check_round_trip(headed, tmp_path)


@pytest.mark.parametrize("prefix", [0, 5])
def test_onnx_round_trip_of_tokens(micro_with: MakeModel, tmp_path: Path, prefix: int) -> None:
    check_round_trip(odd(micro_with, prefix, kind="mean-linear"), tmp_path)


def check_round_trip(model: Model, folder: Path) -> None:
    """With what `edgemoe export` notes about the network, and from the graph alone."""
    import onnx

    path = folder / "net.onnx"
    export_model(model, path)
    assert import_model(path).model.spec == model.spec
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {})
    onnx.save(graph, path)
    found = import_model(path, Options(normalization=NONE, tasks=("a",))).model
    assert found.spec == model.spec.model_copy(update={"name": "net"})
    assert found.weights.keys() == model.weights.keys()
    for name, tensor in model.weights.items():
        assert_array_equal(found.weights[name], tensor, err_msg=name)


# Checkpoints


def imported(state: StateDict, folder: Path, **options: Any) -> Model:
    given: dict[str, Any] = {"heads": 3, "image_size": (12, 20), "normalization": NONE}
    given |= {"tasks": ("a",), "norm_eps": 1e-6}
    return import_model(saved(folder / "net.pth", state), Options(**given | options)).model


def split_prefix(state: StateDict, *names: str, rows: int | None = None) -> StateDict:
    """Prefix tokens apart; `rows` of them are in the position table, with values of their own."""
    position: Any = state["pos_embed"]
    count = len(names)
    tokens = position[:, :count] + state["cls_token"] * (np.arange(count) == 0)[:, None]
    own = np.linspace(-1, 1, position[:, :rows].size, dtype=np.float32).reshape(position[:, :rows].shape)
    tokens[:, : own.shape[1]] -= own
    state = state | {"pos_embed": np.concatenate([own, position[:, count:]], axis=1)}
    del state["cls_token"]
    for name in dict.fromkeys(names):
        places = [place for place, given in enumerate(names) if given == name]
        state[name] = tokens[:, places[0] : places[-1] + 1]
    return state


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (("cls_token", "dist_token"), 2),
        (("cls_token", *["reg_token"] * 4), 0),
        (("cls_token", *["reg_token"] * 4), 1),
        (("cls_token", *["reg_token"] * 4), 5),
        (("cls_token", "dist_token", *["reg_token"] * 3), 2),
    ],
)
def test_prefix_tokens_of_checkpoints(
    micro_with: MakeModel, tmp_path: Path, names: tuple[str, ...], rows: int
) -> None:
    model = odd(micro_with, len(names), kind="cls-linear")
    found = imported(split_prefix(timm_state(model), *names, rows=rows), tmp_path)
    assert found.spec.model_copy(update={"name": model.spec.name}) == model.spec
    assert_allclose(found.weights["pos_embed"], model.weights["pos_embed"], atol=1e-6)


def test_square_images_tell_what_has_a_position(micro_with: MakeModel, tmp_path: Path) -> None:
    """Nine patches and five prefix tokens, of which none, the first or all have a row in the position table."""
    model = micro_with(**ODD | {"image_size": (12, 12)}, prefix_tokens=5)
    for rows in (0, 1, 5):
        state = split_prefix(timm_state(model), "cls_token", *["reg_token"] * 4, rows=rows)
        assert imported(state, tmp_path, image_size=None).spec.image_size == (12, 12)


def test_no_class_token(micro_with: MakeModel, tmp_path: Path) -> None:
    model = odd(micro_with, 0, kind="mean-linear")
    state = timm_state(model)
    state["pos_embed"] = model.weights["pos_embed"][None]
    del state["cls_token"]
    found = imported(state, tmp_path)
    assert found.spec.task_heads == model.spec.task_heads and found.spec.prefix_tokens == 0
    assert_array_equal(found.weights["pos_embed"], model.weights["pos_embed"])


def test_norm_of_the_mean(micro_with: MakeModel, tmp_path: Path) -> None:
    model = odd(micro_with, 1, kind="mean-linear", norm=False, fc_norm=True)
    state = timm_state(model)
    state |= {f"fc_norm.{part}": model.weights[f"heads.a.fc_norm.{part}"] for part in ("weight", "bias")}
    found = imported(state, tmp_path)
    assert found.spec.task_heads == model.spec.task_heads
    assert_array_equal(found.weights["heads.a.fc_norm.bias"], model.weights["heads.a.fc_norm.bias"])


@pytest.mark.parametrize("layout", ["timm", "hugging face"])
def test_distilled(micro_with: MakeModel, tmp_path: Path, layout: str) -> None:
    model = odd(micro_with, 2, kind="distilled-linear")
    if layout == "timm":
        state = split_prefix(timm_state(model), "cls_token", "dist_token", rows=2)
        state |= {f"head_dist.{part}": model.weights[f"heads.a.dist.{part}"] for part in ("weight", "bias")}
    else:
        theirs = split_prefix(timm_state(model), "cls_token", "dist_token", rows=2)
        dist = theirs.pop("dist_token")
        state = {
            key.replace("vit.", "deit.").replace("classifier", "cls_classifier"): tensor
            for key, tensor in hugging_face_state(model).items()
        }
        state |= {
            "deit.embeddings.cls_token": theirs["cls_token"],
            "deit.embeddings.position_embeddings": theirs["pos_embed"],
            "deit.embeddings.distillation_token": dist,
        }
        state |= {
            f"distillation_classifier.{part}": model.weights[f"heads.a.dist.{part}"]
            for part in ("weight", "bias")
        }
    found = imported(state, tmp_path)
    assert found.spec.model_copy(update={"name": model.spec.name}) == model.spec
    assert found.weights.keys() == model.weights.keys()
    assert_array_equal(found.weights["heads.a.dist.weight"], model.weights["heads.a.dist.weight"])
    assert_allclose(found.weights["pos_embed"], model.weights["pos_embed"], atol=1e-6)


# Host


@pytest.mark.parametrize(
    ("kind", "prefix"), [("mean-linear", 0), ("distilled-linear", 2), ("token-linear", 5)]
)
def test_manifest_and_results_on_the_host(
    micro_with: MakeModel, tmp_path: Path, kind: str, prefix: int
) -> None:
    model = odd(micro_with, prefix, kind=kind, norm=kind != "mean-linear", fc_norm=kind == "mean-linear")
    images = edgemoe.random_images(model, 2, seed=4)
    design: Design = quantize(model, images, PRESETS["w8a8"])
    architecture = Architecture(design.network, default_hardware(design.network))
    write_host(design, architecture, tmp_path / "host", load_board("zcu102"), model)
    manifest = Manifest.load(tmp_path / "host")
    (task,), run = manifest.tasks, simulate(design, images[:1])
    assert task.head == model.spec.decoder("a")
    integers = run.integers[0].astype(np.int32)
    result = Result("a", integers, None, 1, None, manifest.frac, (3, 5), task, manifest.read_heads())
    expected = reference.apply_head(model, "a", run.tokens)
    assert expected is not None and result.output is not None
    if kind == "token-linear":
        assert_array_equal(result.output, expected[0].reshape(3, 5, 4))
        with pytest.raises(InputError, match="token-linear, not cls-linear"):
            assert result.label
    else:
        assert_array_equal(result.output, expected[0])
        assert result.label == expected[0].argmax()
    path = tmp_path / "host/manifest.json"
    content = json.loads(path.read_text())
    least = LEAST_PREFIX.get(kind, 0)
    for wrong, says in ((prefix + 1, "do not fit"), (least - 1, "prefix_tokens is")):
        content["tasks"][0]["prefix_tokens"] = wrong
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=says):
            Manifest.load(tmp_path / "host")
