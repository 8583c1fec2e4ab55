"""Checkpoints in today's names: transformers 5, BEiT, MAE, I-JEPA, DINO; shards with an index."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file

from common.errors import InputError
from foreign import StateDict, as_torch, hugging_face_state, random, saved, split_qkv, timm_state, with_head
from frontend.importing import import_model
from frontend.options import Imported, Options
from frontend.pixels import NONE
from pysim.model import Model

MakeModel = Callable[..., Model]

PLAIN = Options(heads=2, image_size=(8, 16), normalization=NONE, norm_eps=1e-6)
DIM = 24


@pytest.fixture(scope="module")
def vit(micro_with: MakeModel) -> Model:
    return with_head(micro_with(moe=None, tasks=["classify"], depth=2), 5)


def renamed(state: StateDict, *rules: tuple[str, str]) -> StateDict:
    """Names changed by regular expressions, one after the other."""
    result: StateDict = {}
    for key, tensor in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        result[key] = tensor
    return result


def release_5(state: StateDict) -> StateDict:
    """Hugging Face's older names as transformers 5 has them in its state dicts."""
    return renamed(
        state,
        (r"encoder\.layer\.", "layers."),
        (r"attention\.attention\.query", "attention.q_proj"),
        (r"attention\.attention\.key", "attention.k_proj"),
        (r"attention\.attention\.value", "attention.v_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
    )


def imported(path: Path, state: StateDict, **options: Any) -> Imported:
    return import_model(saved(path, state), dataclasses.replace(PLAIN, **options))


def fails(path: Path, *parts: str, options: Options = PLAIN) -> None:
    with pytest.raises(InputError) as caught:
        import_model(path, options)
    for part in parts:
        assert part in caught.value.message, caught.value.message


def assert_same(model: Model, expected: Model) -> None:
    assert model.spec.model_copy(update={"name": expected.spec.name}) == expected.spec
    assert model.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        if name == "pos_embed":
            assert_allclose(model[name], tensor, atol=1e-6)
        else:
            assert_array_equal(model[name], tensor, err_msg=name)


# transformers 5


@pytest.mark.parametrize("prefix", ["vit.", "", "module.vit.", "ijepa."])
def test_release_5(vit: Model, tmp_path: Path, prefix: str) -> None:
    wrapped = "module." if prefix.startswith("module") else ""
    state = renamed(
        release_5(hugging_face_state(vit)), (r"^vit\.", prefix), (r"^classifier", f"{wrapped}classifier")
    )
    assert_same(imported(tmp_path / "v.pth", state).model, vit)
    lost = f"{prefix}layers.1.attention.k_proj.weight"
    del state[lost]
    fails(saved(tmp_path / "v.pth", state), f"missing tensor {lost}")


def dinov2_state(model: Model, scales: StateDict, *, newer: bool) -> StateDict:
    attention = (
        ("q_proj", "k_proj", "v_proj") if newer else ("attention.query", "attention.key", "attention.value")
    )
    state = renamed(
        hugging_face_state(model),
        (r"^vit\.", "dinov2."),
        *(
            (rf"attention\.attention\.{old}", f"attention.{new}")
            for old, new in zip(("query", "key", "value"), attention, strict=True)
        ),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"(\d)\.output\.dense", r"\1.mlp.fc2"),
        *(((r"attention\.output\.dense", "attention.o_proj"),) if newer else ()),
    )
    return state | {f"dinov2.encoder.layer.{key}.lambda1": scale for key, scale in scales.items()}


@pytest.mark.parametrize("newer", [False, True], ids=["release 4", "release 5"])
def test_dinov2_with_its_classifier(micro_with: MakeModel, tmp_path: Path, newer: bool) -> None:
    """It reads the class token beside the mean of the patches; layer scale is folded."""
    model = with_head(micro_with(moe=None, tasks=["classify"], depth=2), 5, kind="cls-mean-linear")
    rng = np.random.default_rng(0)
    scales = {f"{layer}.layer_scale{number}": random(rng, DIM) for layer in (0, 1) for number in (1, 2)}
    state = dinov2_state(model, scales, newer=newer) | {"dinov2.embeddings.mask_token": random(rng, 1, DIM)}
    found = imported(tmp_path / "dino.pth", state)
    weights = dict(model.weights)
    for layer, (number, name) in (
        (layer, part) for layer in (0, 1) for part in ((1, "attn.proj"), (2, "mlp.fc2"))
    ):
        scale = scales[f"{layer}.layer_scale{number}"].astype(float)
        for part, factor in (("weight", scale[:, None]), ("bias", scale)):
            tensor = weights[f"blocks.{layer}.{name}.{part}"]
            weights[f"blocks.{layer}.{name}.{part}"] = (tensor * factor).astype(np.float32)
    assert_same(found.model, Model(model.spec, weights))
    assert "left out, as the encoder does not read it: mask token (1)" in found.remarks


# BEiT


def without_key_bias(model: Model) -> Model:
    weights = dict(model.weights)
    for layer in range(model.spec.depth):
        bias = weights[f"blocks.{layer}.attn.qkv.bias"].copy()
        bias[DIM : 2 * DIM] = 0
        weights[f"blocks.{layer}.attn.qkv.bias"] = bias
    return Model(model.spec, weights)


@pytest.mark.parametrize("layout", ["timm", "release 4", "release 5"])
def test_beit_without_relative_positions(micro_with: MakeModel, tmp_path: Path, layout: str) -> None:
    """Biases of queries and values alone, layer scale, and a norm behind the mean of the patches."""
    shape = micro_with(moe=None, tasks=["classify"], depth=2)
    model = without_key_bias(with_head(shape, 5, kind="mean-linear", norm=False, fc_norm=True))
    scale = np.full(DIM, 2, np.float32)
    if layout == "timm":
        state: StateDict = {}
        for key, tensor in timm_state(model).items():
            if key.endswith("attn.qkv.bias"):
                stem = key.removesuffix("qkv.bias")
                state |= {f"{stem}q_bias": tensor[:DIM], f"{stem}v_bias": tensor[2 * DIM :]}
            else:
                state[key] = tensor
        norms = {
            f"fc_norm.{part}": model.weights[f"heads.classify.fc_norm.{part}"] for part in ("weight", "bias")
        }
        scales = {f"blocks.{layer}.gamma_{number}": scale for layer in (0, 1) for number in (1, 2)}
    else:
        state = hugging_face_state(model)
        state = {key: tensor for key, tensor in state.items() if not key.endswith("key.bias")}
        state = renamed(state, (r"^vit\.", "beit."))
        norms = {
            f"beit.pooler.layernorm.{part}": model.weights[f"heads.classify.fc_norm.{part}"]
            for part in ("weight", "bias")
        }
        scales = {
            f"beit.encoder.layer.{layer}.lambda_{number}": scale for layer in (0, 1) for number in (1, 2)
        }
    state |= norms | scales
    found = imported(tmp_path / "beit.pth", release_5(state) if layout == "release 5" else state).model
    doubled = {
        name: tensor * 2 if re.search(r"blocks.*(attn\.proj|mlp\.fc2)", name) else tensor
        for name, tensor in model.weights.items()
    }
    assert_same(found, Model(model.spec, doubled))
    table = {"blocks.0.attn.relative_position_bias_table": np.zeros((3, 2), np.float32)}
    fails(
        saved(tmp_path / "relative.pth", timm_state(model) | table),
        "relative_position_bias_table: relative positions",
    )


# Encoders of pretrainings


@pytest.mark.parametrize("layout", ["timm", "Hugging Face"])
def test_mae(micro_with: MakeModel, tmp_path: Path, layout: str) -> None:
    model = micro_with(moe=None, tasks=["classify"], task_heads={}, depth=2)
    decoder = {
        "decoder_embed.weight": (8, DIM),
        "decoder_pos_embed": (1, 9, 8),
        "decoder_norm.bias": (8,),
        "decoder_pred.bias": (48,),
        "mask_token": (1, 1, 8),
    }
    state = timm_state(model) | {
        "norm.weight": np.ones(DIM, np.float32),
        "norm.bias": np.ones(DIM, np.float32),
    }
    parts = {key: np.ones(shape, np.float32) for key, shape in decoder.items()}
    if layout == "timm":
        state |= parts | {"decoder_blocks.0.attn.qkv.weight": np.ones((24, 8), np.float32)}
        remark = "mask token (1), decoder of the pretraining (5)"
    else:
        state = hugging_face_state(Model(model.spec, model.weights)) | {
            f"decoder.{key}": tensor for key, tensor in parts.items()
        }
        state["decoder.decoder_layers.0.attention.attention.query.weight"] = np.ones((8, 8), np.float32)
        remark = "decoder of the pretraining (6)"
    found = imported(tmp_path / "mae.pth", state)
    assert_same(found.model, model)
    assert f"left out, as the encoder does not read it: {remark}" in found.remarks


def test_ijepa_and_dino(micro_with: MakeModel, tmp_path: Path) -> None:
    """Of two networks the one that follows the other is taken; projections of the pretraining are left out."""
    model = micro_with(moe=None, tasks=["classify"], task_heads={}, depth=2, prefix_tokens=0)
    follower = timm_state(micro_with(moe=None, tasks=["classify"], task_heads={}, depth=2))
    follower |= {key: tensor for key, tensor in model.weights.items() if key.startswith("blocks.")}
    follower["pos_embed"] = model.weights["pos_embed"][None]
    del follower["cls_token"]
    other = {key: tensor + 1 for key, tensor in follower.items()}
    path = tmp_path / "jepa.pth"
    inner = {
        name: as_torch({f"module.{key}": t for key, t in s.items()})
        for name, s in (("encoder", other), ("target_encoder", follower))
    }
    torch.save(inner | {"opt": {}, "epoch": 300}, path)
    found = import_model(path, PLAIN)
    assert_array_equal(found.model["blocks.1.attn.qkv.weight"], model["blocks.1.attn.qkv.weight"])
    assert found.model.spec.prefix_tokens == 0
    assert "of several networks in the file, target_encoder is taken" in found.remarks
    projection = {"head.mlp.0.weight": (4, DIM), "head.last_layer.weight_v": (9, 4)}
    teacher = {f"backbone.{key}": tensor for key, tensor in follower.items()}
    teacher |= {key: np.ones(shape, np.float32) for key, shape in projection.items()}
    torch.save({"student": as_torch(other), "teacher": as_torch(teacher), "args": None}, path)
    found = import_model(path, PLAIN)
    assert_array_equal(found.model["blocks.1.attn.qkv.weight"], model["blocks.1.attn.qkv.weight"])
    assert "left out, as the encoder does not read it: projection of the pretraining (2)" in found.remarks


# Shards


def shards(folder: Path, state: StateDict, suffix: str) -> dict[str, str]:
    """Writes a folder of three shards with an index; returns what the index says."""
    folder.mkdir(exist_ok=True)
    name = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    stem = name.rpartition(".")[0]
    places: dict[str, str] = {}
    for number in range(3):
        part = dict(list(state.items())[number::3])
        file = f"{stem}-{number + 1:05}-of-00003.{suffix}"
        places |= dict.fromkeys(part, file)
        if suffix == "safetensors":
            save_file(part, folder / file)
        else:
            saved(folder / file, part)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_with_an_index(vit: Model, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "net"
    shards(folder, hugging_face_state(vit), suffix)
    assert_same(import_model(folder, PLAIN).model, vit)
    index = next(folder.glob("*.index.json"))
    assert_same(import_model(index, PLAIN).model, vit)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_that_do_not_fit(vit: Model, tmp_path: Path, suffix: str) -> None:
    folder, state = tmp_path / "net", hugging_face_state(vit)
    places = shards(folder, state, suffix)
    index = next(folder.glob("*.index.json"))
    first, second = list(places)[:2]
    for changed, says in (
        (
            places | {first: "../model.safetensors"},
            "weight_map names the file '../model.safetensors', expected one",
        ),
        (places | {first: str(index)}, "weight_map names the file"),
        (places | {first: 3}, "weight_map names the file 3"),
        (places | {first: f"absent.{suffix}"}, f"absent.{suffix}: no such file"),
        (places | {"more": places[first]}, "missing tensor, by"),
        (
            {key: place for key, place in places.items() if key != second},
            f"unexpected tensor, by {index.name}: {second}",
        ),
        ({}, "no weight_map"),
        ([1], "no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": changed}))
        fails(folder, says)
    index.unlink()
    fails(folder, "without model.safetensors.index.json, which says what is in them")


# What stands in the way


@pytest.mark.parametrize(
    ("key", "shape", "says"),
    [
        ("blocks.0.mlp.fc1.weight", (80, DIM), "blocks.0.mlp.fc1.weight: twice as many results"),
        ("blocks.0.attn.norm.weight", (DIM,), "a norm inside of attention or the MLP"),
        ("rope.freqs", (2, 3), "rope.freqs: rotary positions"),
        ("blocks.1.attn.qkv.lora_A.weight", (2, DIM), "lora_A.weight: adapters beside the weights"),
        ("text_projection", (DIM, DIM), "text_projection: a network for text"),
        ("blocks.0.mlp.up_proj.weight", (9, DIM), "up_proj.weight: an MLP with gates"),
        ("blocks.0.attns.0.qkv.weight", (9, DIM), "several attentions or MLPs side by side"),
        ("decode_head.conv.weight", (9, DIM), "decode_head.conv.weight: a decoder of feature maps"),
        ("neck.0.weight", (9, DIM), "neck.0.weight: a decoder of feature maps"),
        ("blocks.0.attn.qkv.qweight", (9,), "qweight: weights that were quantised already"),
        ("prompt", (1, 3, DIM), "unexpected tensor: prompt"),
    ],
)
def test_the_cause_is_named_before_what_it_changes(
    vit: Model, tmp_path: Path, key: str, shape: tuple[int, ...], says: str
) -> None:
    """Shapes are compared and patches counted only where all names are known."""
    state = (
        timm_state(vit) | {"pos_embed": np.zeros((1, 77, DIM), np.float32)}
        if "fc1" not in key
        else timm_state(vit)
    )
    state = state | {key: np.zeros(shape, np.float32)}
    fails(saved(tmp_path / "net.pth", state), says)


def test_unknown_layouts_say_why_where_their_names_do(vit: Model, tmp_path: Path) -> None:
    clip = {"vision_model.pre_layrnorm.weight": np.zeros(DIM, np.float32), "x": np.zeros(1, np.float32)}
    fails(saved(tmp_path / "clip.pth", clip), "pre_layrnorm.weight: a norm before the first block")
    table = {key: tensor for key, tensor in timm_state(vit).items() if key != "pos_embed"}
    fails(saved(tmp_path / "none.pth", table), "no table of positions (tensor pos_embed)")
    split = split_qkv(timm_state(vit), "blocks.{}.attention.{}")
    fails(saved(tmp_path / "split.pth", split), "unexpected tensors: blocks.0.attention.q.weight")


def test_pointers_of_git_lfs(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pth"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        fails(tmp_path / name, f"{name}: a pointer of Git LFS")
    fails(tmp_path, "model.safetensors: a pointer of Git LFS")


def test_normalisation_is_asked_for_but_of_torchvision(vit: Model, tmp_path: Path) -> None:
    from foreign import torchvision_state

    options = dataclasses.replace(PLAIN, normalization=None)
    for layout in (timm_state, hugging_face_state):
        fails(
            saved(tmp_path / "v.pth", layout(vit)),
            "--normalize needed: the file does not say",
            options=options,
        )
    model = import_model(saved(tmp_path / "v.pth", torchvision_state(vit)), options).model
    expected = vit["patch_embed.weight"] * (256 / 255 / np.array([0.229, 0.224, 0.225]))[:, None, None]
    assert_allclose(model["patch_embed.weight"], expected, rtol=1e-6)


def test_what_is_assumed_is_said(vit: Model, tmp_path: Path) -> None:
    path = saved(tmp_path / "v.pth", timm_state(vit))
    remarks = import_model(path, dataclasses.replace(PLAIN, norm_eps=None)).remarks
    assert "assumed, as tensors do not say it: activation gelu, norm_eps 1e-06" in remarks
    remarks = import_model(path, dataclasses.replace(PLAIN, activation="relu")).remarks
    assert not any("assumed" in remark for remark in remarks)
