"""Checkpoints of M3ViT, timm, torchvision and Hugging Face: what is read, folded, kept and refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file

from common.errors import InputError
from foreign import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    StateDict,
    as_torch,
    hugging_face_state,
    m3vit_state,
    saved,
    split_qkv,
    timm_state,
    torchvision_state,
    with_head,
)
from frontend.importing import import_model
from frontend.options import Options
from frontend.pixels import NONE, parse_normalization
from pysim import reference
from pysim.model import Model

MakeModel = Callable[..., Model]

PLAIN = Options(heads=2, image_size=(8, 16), normalization=NONE)
M3VIT = dataclasses.replace(PLAIN, top_k=2)


def assert_same_weights(model: Model, expected: Model) -> None:
    """Equal but for the class token, which is added to its position."""
    assert set(model.weights) == set(expected.weights)
    for name, tensor in expected.weights.items():
        if name == "pos_embed":
            assert_allclose(model.weights[name], tensor, atol=1e-6)
        else:
            assert_array_equal(model.weights[name], tensor, err_msg=name)


@pytest.fixture(scope="module")
def vit(micro_with: MakeModel) -> Model:
    return with_head(micro_with(moe=None, tasks=["classify"]), out_channels=10)


@pytest.fixture(scope="module")
def m3vit(micro_with: MakeModel) -> Model:
    return micro_with(task_heads={})


def fails(source: Path, options: Options, *parts: str, kind: str | None = None) -> None:
    with pytest.raises(InputError) as caught:
        import_model(source, options, kind)
    for part in parts:
        assert part in caught.value.message


# M3ViT


@pytest.mark.parametrize("prefix", ["module.", "", "_orig_mod.module."])
def test_m3vit(m3vit: Model, tmp_path: Path, prefix: str) -> None:
    path = saved(tmp_path / "m3vit.pth", m3vit_state(m3vit, prefix=prefix), epoch=3)
    imported = import_model(path, M3VIT)
    without_heads = {name: tensor for name, tensor in m3vit.weights.items() if not name.startswith("heads.")}
    assert_same_weights(imported.model, Model(imported.model.spec, without_heads))
    spec = imported.model.spec
    assert (spec.name, spec.tasks, spec.moe and spec.moe.gate) == (
        "m3vit",
        ["semseg", "depth"],
        "softmax-topk",
    )
    assert spec.moe == m3vit.spec.moe
    assert imported.decoders["semseg.conv_4.weight"].shape[0] == 2
    assert not any("num_batches" in name or "tam" in name for name in imported.decoders)
    assert any("tam_* (1)" in remark for remark in imported.remarks)


def test_m3vit_that_learned_its_noise_chooses_before_softmax(m3vit: Model, tmp_path: Path) -> None:
    imported = import_model(saved(tmp_path / "m.pth", m3vit_state(m3vit, noisy=True)), M3VIT)
    assert imported.model.spec.moe is not None
    assert imported.model.spec.moe.gate == "topk-softmax"


def test_m3vit_with_one_gate_for_all(micro_with: MakeModel, tmp_path: Path) -> None:
    model = micro_with(moe={"shared_gate": True})
    imported = import_model(saved(tmp_path / "m.pth", m3vit_state(model)), M3VIT).model
    assert_array_equal(
        imported.weights["blocks.1.moe.gate.weight"], model.weights["blocks.1.moe.gate.weight"]
    )
    assert imported.spec.moe == model.spec.moe


def test_task_conditioned_gates_become_biases(micro_with: MakeModel, tmp_path: Path) -> None:
    """Against the gate as M3ViT computes it: tokens and the task's feature, concatenated."""
    model = micro_with(moe={"shared_gate": True, "gate_bias": True})
    state = m3vit_state(model, prefix="")
    imported = import_model(saved(tmp_path / "m.pth", state), M3VIT).model
    assert imported.spec.moe == model.spec.moe
    named = as_torch(state)
    represent = {key.split("gate_task_represent.")[1]: t for key, t in named.items() if "represent" in key}
    tokens = torch.randn(5, model.spec.dim)
    for task in (0, 1):
        hot = torch.eye(2)[task]
        hidden = torch.nn.functional.gelu(represent["fc1.weight"] @ hot + represent["fc1.bias"])
        feature = represent["fc2.weight"] @ hidden + represent["fc2.bias"]
        feature = torch.nn.functional.layer_norm(
            feature, feature.shape, represent["norm.weight"], represent["norm.bias"], 1e-6
        )
        logits = torch.cat([tokens, feature.expand(5, -1)], 1) @ named["backbone.blocks.1.mlp.gate.w_gate"]
        weight, bias = imported.gate(1, task)
        assert_allclose(tokens.numpy() @ weight.T + bias, logits.numpy(), atol=1e-5)


@pytest.mark.parametrize("convolution", [False, True])
def test_linear_decoders_become_heads(m3vit: Model, tmp_path: Path, convolution: bool) -> None:
    state: dict[str, Any] = m3vit_state(m3vit, prefix="")
    dim = m3vit.spec.dim
    state = {key: tensor for key, tensor in state.items() if not key.startswith("decoders.depth.")}
    rng = np.random.default_rng(0)
    weight, bias, norm = rng.normal(size=(3, dim)), rng.normal(size=3), rng.normal(size=(2, dim))
    state["decoders.depth.head.weight"] = weight.reshape(3, dim, 1, 1) if convolution else weight
    state["decoders.depth.head.bias"] = bias
    if convolution:
        state |= {"decoders.depth.norm.weight": norm[0], "decoders.depth.norm.bias": norm[1]}
    imported = import_model(saved(tmp_path / "m.pth", state), M3VIT)
    head = imported.model.spec.head("depth")
    assert (head.kind, head.out_channels, head.norm) == ("token-linear", 3, convolution)
    assert_array_equal(imported.model.weights["heads.depth.weight"], weight.astype(np.float32))
    assert_array_equal(imported.model.weights["heads.depth.bias"], bias.astype(np.float32))
    if convolution:
        assert_array_equal(imported.model.weights["heads.depth.norm.bias"], norm[1].astype(np.float32))
    assert {key.split(".")[0] for key in imported.decoders} == {"semseg"}


def test_shards(m3vit: Model, tmp_path: Path) -> None:
    state, folder = m3vit_state(m3vit), tmp_path / "sharded"
    folder.mkdir()
    experts = {key for key in state if ".mlp.experts." in key}
    cuts = (slice(0, 2), slice(2, 4), slice(4, 5))
    for rank, cut in enumerate(cuts):
        shard = {
            key: t[cut] if key in experts else t for key, t in state.items() if key in experts or not rank
        }
        saved(folder / f"{rank}.pth", shard, epoch=1)
    whole = import_model(saved(tmp_path / "sharded.pth", state), M3VIT)
    joined = import_model(folder, M3VIT)
    assert joined.model.spec == whole.model.spec
    for name, tensor in whole.model.weights.items():
        assert_array_equal(joined.model.weights[name], tensor)
    (folder / "1.pth").rename(folder / "7.pth")
    fails(folder, M3VIT, "shards 0.pth, 2.pth, 7.pth")
    saved(folder / "1.pth", dict(list(state.items())[:3]))
    (folder / "7.pth").unlink()
    fails(folder, M3VIT, "1.pth", "missing tensors")


def test_tasks_take_m3vits_order(m3vit: Model, tmp_path: Path) -> None:
    state = m3vit_state(m3vit)
    path = tmp_path / "m.safetensors"  # sorts its tensors: depth comes first
    save_file(state, path)
    assert import_model(path, M3VIT).model.spec.tasks == ["semseg", "depth"]
    renamed = {key.replace("semseg", "beta").replace("depth", "alpha"): t for key, t in state.items()}
    save_file(renamed, path)
    fails(path, M3VIT, "--tasks needed", "alpha, beta")
    named = dataclasses.replace(M3VIT, tasks=("beta", "alpha"))
    assert import_model(path, named).model.spec.tasks == ["beta", "alpha"]
    fails(path, dataclasses.replace(M3VIT, tasks=("beta", "gamma")), "decoders.alpha")
    fails(path, dataclasses.replace(M3VIT, tasks=("beta", "alpha", "more")), "gates for 2 tasks")


# Plain ViTs


@pytest.mark.parametrize("layout", [timm_state, hugging_face_state, torchvision_state])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_vit(vit: Model, tmp_path: Path, layout: Callable[[Model], StateDict], suffix: str) -> None:
    path = tmp_path / f"vit{suffix}"
    if suffix == ".pth":
        saved(path, layout(vit))
    else:
        save_file(layout(vit), path)
    imported = import_model(path, dataclasses.replace(PLAIN, norm_eps=1e-6))
    assert_same_weights(imported.model, vit)
    expected = vit.spec.model_copy(update={"name": "vit"})
    assert imported.model.spec == expected


def test_split_qkv_and_wrappers(vit: Model, tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in split_qkv(timm_state(vit)).items()}
    assert_same_weights(import_model(saved(tmp_path / "v.pth", state, epoch=1), PLAIN).model, vit)


def test_no_head_and_no_qkv_bias(micro_with: MakeModel, tmp_path: Path) -> None:
    model = micro_with(moe=None, tasks=["classify"], qkv_bias=False)
    imported = import_model(saved(tmp_path / "v.pth", timm_state(model)), PLAIN)
    assert_same_weights(imported.model, model)
    assert not imported.model.spec.qkv_bias
    assert any("no classification head" in remark for remark in imported.remarks)


def test_square_image_is_guessed(micro_with: MakeModel, tmp_path: Path) -> None:
    model = micro_with(moe=None, tasks=["classify"], image_size=(12, 12))
    imported = import_model(
        saved(tmp_path / "v.pth", timm_state(model)), Options(heads=2, normalization=NONE)
    )
    assert imported.model.spec.image_size == (12, 12)


def test_hugging_face_folder(vit: Model, tmp_path: Path) -> None:
    folder = tmp_path / "google vit"
    folder.mkdir()
    save_file(hugging_face_state(vit), folder / "model.safetensors")
    config = {"num_attention_heads": 2, "image_size": [8, 16], "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(config))
    images = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    model = import_model(folder).model
    assert (model.spec.name, model.spec.heads, model.spec.norm_eps) == ("google-vit", 2, 1e-12)
    assert_allclose(
        model.weights["patch_embed.weight"], vit.weights["patch_embed.weight"] * (256 / 255 / 0.25), rtol=1e-6
    )
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "silu"}))
    fails(folder, Options(), "hidden_act is 'silu'")
    (folder / "config.json").write_text("[")
    fails(folder, Options(), "config.json", "not valid JSON")


@pytest.mark.parametrize("normalize", ["imagenet", "0.4,0.5,0.6/0.2,0.3,0.4", "half", "unit"])
def test_normalisation_is_folded(vit: Model, tmp_path: Path, normalize: str) -> None:
    """The network on pixels p / 256 equals the original on its own normalised input."""
    options = dataclasses.replace(PLAIN, normalization=parse_normalization(normalize))
    imported = import_model(saved(tmp_path / "v.pth", timm_state(vit)), options).model
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 16), dtype=np.uint8)
    mean, std = {
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "half": (np.full(3, 0.5), np.full(3, 0.5)),
        "unit": (np.zeros(3), np.ones(3)),
    }.get(normalize, (np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])))
    normal = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    embedded: dict[str, Any] = {}
    reference.run(imported, pixels, tap=lambda name, value: embedded.setdefault(name, value))
    weight = torch.from_numpy(vit.weights["patch_embed.weight"]).double()
    patches = (
        torch.nn.functional.conv2d(torch.from_numpy(normal), weight, stride=4).flatten(2).transpose(1, 2)
    )
    expected = patches.numpy() + vit["patch_embed.bias"] + vit["pos_embed"][1:]
    assert_allclose(embedded["embed"].reshape(2, 9, -1)[:, 1:], expected, atol=1e-5)


LAYER_SCALE = {
    "timm": ("blocks.{}.ls1.gamma", "blocks.{}.ls2.gamma"),
    "DeiT": ("blocks.{}.gamma_1", "blocks.{}.gamma_2"),
    "Hugging Face": ("encoder.layer.{}.layer_scale1.lambda1", "encoder.layer.{}.layer_scale2.lambda1"),
}


def dinov2_state(model: Model) -> StateDict:
    """DINOv2 of Hugging Face, with the names of its norms and MLPs, and with a token that only training reads."""
    renamed = {"layernorm_before": "norm1", "layernorm_after": "norm2", "intermediate.dense": "mlp.fc1"}
    state: StateDict = {"embeddings.mask_token": np.zeros((1, 24), np.float32)}
    for key, tensor in hugging_face_state(model).items():
        name = key.removeprefix("vit.")
        for theirs, ours in renamed.items():
            name = name.replace(theirs, ours)
        if ".attention." not in name:
            name = name.replace("output.dense", "mlp.fc2")
        state[name] = tensor
    return state


@pytest.mark.parametrize("layout", LAYER_SCALE)
def test_layer_scale_is_folded(micro_with: MakeModel, tmp_path: Path, layout: str) -> None:
    """Each product is rounded once; every other tensor stays."""
    model = micro_with(moe=None, tasks=["a"], task_heads={})
    state = dinov2_state(model) if layout == "Hugging Face" else timm_state(model)
    rng, expected = np.random.default_rng(0), dict(model.weights)
    for layer in range(model.spec.depth):
        for key, name in zip(LAYER_SCALE[layout], ("attn.proj", "mlp.fc2"), strict=True):
            scale = state[key.format(layer)] = rng.normal(0, 0.1, 24).astype(np.float32)
            for part, factor in (("weight", scale[:, None]), ("bias", scale)):
                exact = model.weights[f"blocks.{layer}.{name}.{part}"].astype(float) * factor
                expected[f"blocks.{layer}.{name}.{part}"] = exact.astype(np.float32)
    options = dataclasses.replace(PLAIN, tasks=("a",))
    imported = import_model(saved(tmp_path / "net.pth", state), options)
    assert_same_weights(imported.model, Model(model.spec, expected))
    assert any("layer scale" in remark for remark in imported.remarks)
    missing = LAYER_SCALE[layout][1].format(2)
    del state[missing]
    fails(saved(tmp_path / "some.pth", state), options, f"missing tensor {missing}")


# Number types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_floats_are_converted(vit: Model, tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    from safetensors.torch import save_file as save_torch

    narrow = {key: tensor.to(dtype) for key, tensor in as_torch(timm_state(vit)).items()}
    path = tmp_path / f"vit{suffix}"
    (torch.save if suffix == ".pth" else save_torch)(narrow, path)
    model = import_model(path, PLAIN).model
    expected = narrow["blocks.1.mlp.fc1.weight"].float().numpy()
    assert_array_equal(model.weights["blocks.1.mlp.fc1.weight"], expected)


def test_safetensors_need_no_torch(vit: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(timm_state(vit), tmp_path / "vit.safetensors")
    saved(tmp_path / "vit.pth", timm_state(vit))
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert_same_weights(import_model(tmp_path / "vit.safetensors", PLAIN).model, vit)
    fails(tmp_path / "vit.pth", PLAIN, "needs torch")


# Bad input


class Danger:
    """Pickles to a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_objects_are_never_unpickled(vit: Model, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    for legacy in (False, True):
        path = tmp_path / "danger.pth"
        content = {"state_dict": as_torch(timm_state(vit)), "args": Danger(trace)}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        fails(path, PLAIN, "danger.pth: not only tensors", "unpickle")
        assert not trace.exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
        fails(tmp_path / "script.pt", PLAIN, "script.pt")


def test_unreadable_files(vit: Model, tmp_path: Path) -> None:
    whole = saved(tmp_path / "v.pth", timm_state(vit)).read_bytes()
    for name, content in {"cut.pth": whole[:-300], "text.pth": b"hello", "empty.pt": b""}.items():
        (tmp_path / name).write_bytes(content)
        fails(tmp_path / name, PLAIN, f"{name}: not a readable PyTorch checkpoint")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10" * 40)
    fails(tmp_path / "cut.safetensors", PLAIN, "not a readable safetensors file")
    fails(tmp_path / "absent.pth", PLAIN, "no such file")
    (tmp_path / "folder").mkdir()
    fails(tmp_path / "folder", PLAIN, "no checkpoint in this folder, which holds nothing")
    (tmp_path / "folder" / "model.toml").touch()
    fails(tmp_path / "folder", PLAIN, "a Model folder already")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    fails(tmp_path / "list.pth", PLAIN, "holds a list")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "none.pth")
    fails(tmp_path / "none.pth", PLAIN, "no tensors", "epoch, lr")
    torch.save({"a.patch_embed.proj.weight": torch.zeros(1), "x": 3}, tmp_path / "mixed.pth")
    fails(tmp_path / "mixed.pth", PLAIN, "x: a int, expected a tensor")


def changed(state: StateDict, **changes: Any) -> StateDict:
    result = dict(state)
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del result[key]
        else:
            result[key] = value
    return result


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("blocks.2.attn.proj.bias", None, "missing tensor blocks.2.attn.proj.bias"),
        (
            "blocks.1.norm1.weight",
            np.zeros(5, np.float32),
            "blocks.1.norm1.weight: shape (5,), expected (24,)",
        ),
        ("blocks.3.mlp.fc1.weight", np.zeros((9, 24), np.float32), "blocks.3.mlp.fc1.weight: shape (9, 24)"),
        ("pos_embed", np.zeros((1, 12, 24), np.float32), "pos_embed: 11 patches, but 8x16 pixels make 8"),
        ("patch_embed.proj.weight", np.zeros((24, 3, 4, 2), np.float32), "patches of 4 x 2"),
        ("patch_embed.proj.weight", None, "unknown layout"),
        ("blocks.0.norm2.bias", np.full(24, np.nan, np.float32), "blocks.0.norm2.bias: 24 of 24 values"),
        ("blocks.0.norm2.bias", np.zeros(24, np.int64), "blocks.0.norm2.bias: type"),
        ("extra.weight", np.zeros(3, np.float32), "unexpected tensor: extra.weight"),
        ("dist_token", np.zeros((1, 2, 24), np.float32), "pos_embed: 6 patches, but 8x16 pixels make 8"),
        ("head_dist.weight", np.zeros((10, 24), np.float32), "missing tensor head_dist.bias"),
        ("blocks.0.ls1.gamma", np.zeros(23, np.float32), "blocks.0.ls1.gamma: shape (23,), expected (24,)"),
        (
            "blocks.0.attn.q_norm.weight",
            np.zeros(12, np.float32),
            "blocks.0.attn.q_norm.weight: norms of queries",
        ),
        ("reg_token", np.zeros((1, 4, 23), np.float32), "reg_token: shape (1, 4, 23), expected (1, 4, 24)"),
        ("fc_norm.weight", np.zeros(24, np.float32), "missing tensor fc_norm.bias"),
        ("attn_pool.q.weight", np.zeros(24, np.float32), "attn_pool.q.weight: a head on tokens pooled"),
        ("blocks.9.norm1.weight", np.zeros(24, np.float32), "missing tensor blocks.4.norm1.weight"),
        ("other.patch_embed.proj.weight", np.zeros(3, np.float32), "several networks in one file"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bad_tensors(vit: Model, tmp_path: Path, key: str, value: Any, says: str, suffix: str) -> None:
    state, path = changed(timm_state(vit), **{key: value}), tmp_path / f"bad{suffix}"
    if suffix == ".pth":
        saved(path, state)
    else:
        save_file(state, path)
    fails(path, PLAIN, f"{path}: ", says)


def test_messages_name_the_keys_of_the_file(vit: Model, tmp_path: Path) -> None:
    key = "vit.encoder.layer.2.attention.attention.key.weight"
    path = saved(tmp_path / "hf.pth", changed(hugging_face_state(vit), **{key: None}))
    fails(path, PLAIN, f"missing tensor {key}")
    path = saved(tmp_path / "hf.pth", changed(hugging_face_state(vit), **{"classifier.bias": None}))
    fails(path, PLAIN, "missing tensor classifier.bias")
    double = timm_state(vit) | {"module.blocks.0.norm1.weight": np.zeros(24, np.float32)}
    fails(saved(tmp_path / "two.pth", double), PLAIN, "unexpected tensor: module.blocks.0.norm1.weight")


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (["top_k"], "--top-k needed"),
        (["heads"], "--heads needed"),
        (["image_size"], "--image-size needed"),
        (["heads", "top_k", "image_size"], "--heads, --image-size, --top-k needed"),
    ],
)
def test_m3vit_asks_for_what_the_file_does_not_say(
    m3vit: Model, tmp_path: Path, missing: list[str], says: str
) -> None:
    path = saved(tmp_path / "m.pth", m3vit_state(m3vit))
    fails(path, dataclasses.replace(M3VIT, **dict.fromkeys(missing)), says)


def test_options_that_do_not_fit(vit: Model, m3vit: Model, tmp_path: Path) -> None:
    path = saved(tmp_path / "v.pth", timm_state(vit))
    fails(path, dataclasses.replace(PLAIN, heads=None), "--heads needed")
    fails(path, M3VIT, "--top-k does not apply to --kind vit")
    fails(path, dataclasses.replace(PLAIN, heads=7), "dim = 24 is not a multiple of heads = 7")
    fails(path, dataclasses.replace(PLAIN, tasks=("a", "b")), "--tasks names 2 tasks")
    fails(path, PLAIN, "--kind pickle: unknown", kind="pickle")
    grey = dataclasses.replace(PLAIN, normalization=parse_normalization("0.1,0.1/0.2,0.2"))
    fails(path, grey, "normalisation of 2 channels")
    moe = saved(tmp_path / "m.pth", m3vit_state(m3vit))
    fails(moe, dataclasses.replace(M3VIT, top_k=6), "top_k = 6 is more than experts = 5")
    fails(moe, PLAIN, "blocks.1.mlp.experts.htoh4.weight: experts, which --kind m3vit reads", kind="vit")
    for text in ("imagenot", "0.5", "0.5/0", "0.5,0.5/0.5", "nan/1"):
        with pytest.raises(InputError, match="--normalize"):
            parse_normalization(text)


def test_one_channel_needs_a_normalisation(micro_with: MakeModel, tmp_path: Path) -> None:
    model = micro_with(moe=None, tasks=["classify"], in_channels=1)
    path = saved(tmp_path / "v.pth", timm_state(model))
    fails(path, dataclasses.replace(PLAIN, normalization=None), "--normalize needed")
    assert_same_weights(import_model(path, PLAIN).model, model)
