"""Folders of Hugging Face and timm: every setting is honoured, checked, known not to matter, asked for or refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file

from common.errors import InputError
from foreign import StateDict, hugging_face_state, timm_state, with_head
from frontend import hugging_face, timm_hub
from frontend.importing import import_model
from frontend.options import Options
from frontend.pixels import NONE, parse_normalization
from pysim import reference
from pysim.model import Model

MakeModel = Callable[..., Model]
Content = dict[str, Any]

CONFIG: Content = {
    "architectures": ["ViTForImageClassification"],
    "attention_probs_dropout_prob": 0.0,
    "encoder_stride": 16,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 24,
    "id2label": {str(label): f"LABEL_{label}" for label in range(5)},
    "image_size": [8, 16],
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "label2id": {f"LABEL_{label}": label for label in range(5)},
    "layer_norm_eps": 1e-12,
    "model_type": "vit",
    "num_attention_heads": 2,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 4,
    "pooler_act": "tanh",
    "pooler_output_size": None,
    "problem_type": None,
    "qkv_bias": True,
    "torch_dtype": "float32",
    "transformers_version": "4.57.1",
    "_name_or_path": "google/vit",
}
IMAGES: Content = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.6],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.25, 0.5],
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 8, "width": 16},
}
TIMM: Content = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 5,
    "num_features": 24,
    "global_pool": "token",
    "model_args": {"img_size": [8, 16], "num_heads": 2},
    "pretrained_cfg": {
        "tag": "augreg_in21k_ft_in1k",
        "custom_load": False,
        "input_size": [3, 8, 16],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.6],
        "std": [0.5, 0.25, 0.5],
        "num_classes": 5,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}
WITHOUT: Any = object()
"""Value of a key that is taken out."""


@pytest.fixture(scope="module")
def vit(micro_with: MakeModel) -> Model:
    return with_head(micro_with(moe=None, tasks=["classify"], depth=2, mlp_dim=48), 5)


@pytest.fixture
def hub(vit: Model, tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of Hugging Face, or of timm where `timm` changes its settings."""

    def write(
        config: Content | None = None,
        images: Content | None = None,
        *,
        timm: bool = False,
        state: StateDict | None = None,
    ) -> Path:
        folder = tmp_path / "hub"
        folder.mkdir(exist_ok=True)
        content = merged(TIMM if timm else CONFIG, config or {})
        (folder / "config.json").write_text(json.dumps(content))
        preprocessor = folder / "preprocessor_config.json"
        preprocessor.unlink(missing_ok=True)
        if not timm and images is not WITHOUT:
            preprocessor.write_text(json.dumps(merged(IMAGES, images or {})))
        if state is None:
            state = timm_state(vit) if timm else hugging_face_state(vit)
        save_file(state, folder / "model.safetensors")
        return folder

    return write


Hub = Callable[..., Path]


def merged(content: Content, changes: Content) -> Content:
    """Content with keys changed, added or taken out; objects key by key."""
    result = dict(content)
    for key, value in changes.items():
        if value is WITHOUT:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict) and key != "id2label":
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def refused(folder: Path, *parts: str, options: Options | None = None) -> None:
    with pytest.raises(InputError) as caught:
        import_model(folder, options)
    for part in parts:
        assert part in caught.value.message, caught.value.message


def first_patches(model: Model, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The patch embedding alone, positions taken off."""
    found: dict[str, Any] = {}
    reference.run(model, pixels, tap=lambda name, value: found.setdefault(name, value))
    tokens = found["embed"].reshape(len(pixels), -1, model.spec.dim)
    return np.asarray(tokens[:, 1:] - model["pos_embed"][1:])


def expected_patches(vit: Model, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The original's patch embedding of the values that its own preprocessing makes."""
    count, size = len(values), vit.spec.patch_size
    cut = values.reshape(count, 3, 2, size, 4, size).transpose(0, 2, 4, 1, 3, 5).reshape(count, 8, -1)
    return np.asarray(cut @ vit["patch_embed.weight"].reshape(vit.spec.dim, -1).T + vit["patch_embed.bias"])


# How pixels become values


@pytest.mark.parametrize(
    ("images", "values"),
    [
        ({}, lambda p: (p / 255 - [0.5, 0.4, 0.6]) / [0.5, 0.25, 0.5]),
        (
            {"do_normalize": WITHOUT, "do_rescale": WITHOUT},
            lambda p: (p / 255 - [0.5, 0.4, 0.6]) / [0.5, 0.25, 0.5],
        ),
        ({"image_mean": 0.5, "image_std": 0.25}, lambda p: (p / 255 - 0.5) / 0.25),
        ({"image_mean": [0.5], "image_std": [0.5, 0.25, 1]}, lambda p: (p / 255 - 0.5) / [0.5, 0.25, 1]),
        ({"do_normalize": False}, lambda p: p / 255),
        ({"do_normalize": False, "image_mean": "?", "image_std": WITHOUT}, lambda p: p / 255),
        ({"do_normalize": False, "rescale_factor": 1 / 256}, lambda p: p / 256),
        ({"rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1}, lambda p: p / 127.5 - 1),
        ({"do_rescale": False, "image_mean": 127.5, "image_std": [127.5]}, lambda p: (p - 127.5) / 127.5),
        ({"do_rescale": False, "image_mean": [0, 10, 20], "image_std": 60}, lambda p: (p - [0, 10, 20]) / 60),
    ],
)
def test_normalisation_of_hugging_face(vit: Model, hub: Hub, images: Content, values: Any) -> None:
    """The embedding of pixels equals the original's of what its preprocessor makes of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 16), dtype=np.uint8)
    theirs = values(pixels.transpose(0, 2, 3, 1).astype(float)).transpose(0, 3, 1, 2)
    found = first_patches(import_model(hub(images=images)).model, pixels)
    assert_allclose(found, expected_patches(vit, theirs), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("cfg", "mean", "std"),
    [
        ({}, [0.5, 0.4, 0.6], [0.5, 0.25, 0.5]),
        ({"mean": [0.5], "std": 0.25}, 0.5, 0.25),
        ({"mean": [0, 0, 0], "std": [1, 1, 1]}, 0, 1),
    ],
)
def test_normalisation_of_timm(vit: Model, hub: Hub, cfg: Content, mean: Any, std: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 16), dtype=np.uint8)
    theirs = ((pixels.transpose(0, 2, 3, 1) / 255 - mean) / std).transpose(0, 3, 1, 2)
    found = first_patches(import_model(hub({"pretrained_cfg": cfg}, timm=True)).model, pixels)
    assert_allclose(found, expected_patches(vit, theirs), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (WITHOUT, "no preprocessor_config.json says how images are normalised"),
        ({"image_mean": WITHOUT}, "no image_mean, which the normalisation needs"),
        ({"image_mean": None}, "no image_mean, which the normalisation needs"),
        ({"image_std": WITHOUT, "do_normalize": WITHOUT}, "no image_std, which the normalisation needs"),
        ({"image_mean": 127.5}, "image_mean and image_std are 127.5 and"),
        ({"image_mean": [0.5, -0.1, 0.5]}, "do not fit pixels from 0 to 1"),
        ({"do_rescale": False}, "do not fit pixels from 0 to 255"),
        ({"do_rescale": False, "do_normalize": False}, "neither do_rescale nor do_normalize"),
    ],
)
def test_normalisation_that_no_rule_covers_is_asked_for(vit: Model, hub: Hub, images: Any, says: str) -> None:
    folder = hub(images=images)
    refused(folder, says, "--normalize needed")
    model = import_model(folder, Options(normalization=NONE)).model
    assert_array_equal(model["patch_embed.weight"], vit["patch_embed.weight"])


def test_normalisation_of_timm_is_asked_for(hub: Hub) -> None:
    for cfg, says in (
        ({"mean": WITHOUT}, "no mean, which the normalisation needs: --normalize needed"),
        ({"std": None}, "no std, which the normalisation needs: --normalize needed"),
        ({"mean": [123.7, 116.3, 103.5]}, "pretrained_cfg: mean and std are [123.7, 116.3, 103.5] and"),
    ):
        folder = hub({"pretrained_cfg": cfg}, timm=True)
        refused(folder, says)
        assert import_model(folder, Options(normalization=NONE)).model.spec.heads == 2


def test_options_win_over_a_folder(vit: Model, hub: Hub) -> None:
    given = Options(
        heads=3,
        norm_eps=1e-5,
        activation="relu",
        normalization=parse_normalization("unit"),
        tasks=("animal",),
    )
    for timm in (False, True):
        folder = hub({"hidden_act": "silu"} if not timm else {"model_args": {"act_layer": "silu"}}, timm=timm)
        spec = (model := import_model(folder, given).model).spec
        assert (spec.heads, spec.norm_eps, spec.activation, spec.tasks) == (3, 1e-5, "relu", ["animal"])
        assert_allclose(model["patch_embed.weight"], vit["patch_embed.weight"] * (256 / 255), rtol=1e-6)


# What the network computes


@pytest.mark.parametrize(("theirs", "ours"), hugging_face.ACTIVATIONS.items())
def test_activations_of_hugging_face(hub: Hub, theirs: str, ours: str) -> None:
    assert import_model(hub({"hidden_act": theirs})).model.spec.activation == ours


def test_epsilons_of_hugging_face(hub: Hub) -> None:
    for model_type, epsilon in (("vit", 1e-12), ("vit_msn", 1e-6), (None, 1e-12)):
        folder = hub({"model_type": model_type, "layer_norm_eps": WITHOUT})
        assert import_model(folder).model.spec.norm_eps == epsilon
    assert import_model(hub({"layer_norm_eps": 1e-5})).model.spec.norm_eps == 1e-5


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu", "relu"])
def test_activations_of_timm(hub: Hub, activation: str) -> None:
    spec = import_model(hub({"model_args": {"act_layer": activation}}, timm=True)).model.spec
    assert (spec.activation, spec.norm_eps) == (activation, 1e-6)


def test_an_architecture_of_timm_may_hide_what_must_be_asked_for(hub: Hub) -> None:
    """SigLIP's differ in their activation function, CLIP's in their epsilon; others may in both."""
    for name in ("vit_base_patch16_siglip_gap_224", "vit_base_patch32_clip_quickgelu_224"):
        folder = hub({"architecture": name, "global_pool": "avg"}, timm=True)
        refused(folder, f"architecture is '{name}'", "--activation needed")
        refused(folder, "--norm-eps needed", options=Options(activation="gelu"))
        spec = import_model(folder, Options(activation="gelu_tanh", norm_eps=1e-5)).model.spec
        assert (spec.activation, spec.norm_eps) == ("gelu_tanh", 1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_rpn_224",
        "vit_small_patch16_rope_ape_224",
        "vit_base_patch16_18x2_224",
        "resmlp_12_224",
    ],
)
def test_architectures_of_timm_that_are_no_plain_vits(hub: Hub, name: str) -> None:
    """The tensors of some are named as those of a plain ViT, though norms stand elsewhere or positions rotate."""
    folder = hub({"architecture": name}, timm=True)
    refused(folder, f"architecture is '{name}', expected one that is known here as a plain ViT")
    given = Options(ignore=("architecture",))
    refused(folder, "without an architecture", "--activation needed", options=given)
    given = dataclasses.replace(given, activation="gelu", norm_eps=1e-5)
    assert import_model(folder, given).model.spec.norm_eps == 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_base_patch16_224.augreg_in21k",
        "vit_small_patch14_reg4_dinov2",
        "vit_medium_patch16_reg4_gap_256",
        "deit3_base_patch16_384",
        "deit_tiny_distilled_patch16_224",
        "beitv2_base_patch16_224",
        "flexivit_small",
    ],
)
def test_architectures_of_timm_that_are_plain_vits(hub: Hub, name: str) -> None:
    spec = import_model(hub({"architecture": name}, timm=True)).model.spec
    assert (spec.activation, spec.norm_eps) == ("gelu", 1e-6)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, "cls-linear"),
        ({"global_pool": "avg"}, "mean-linear"),
        ({"global_pool": "avg", "model_args": {"pool_include_prefix": True}}, "mean-all-linear"),
        ({"global_pool": WITHOUT, "model_args": {"global_pool": "avg"}}, "mean-linear"),
        ({"global_pool": WITHOUT}, "cls-linear"),
    ],
)
def test_pools_of_timm(vit: Model, hub: Hub, config: Content, kind: str) -> None:
    model = import_model(hub(config, timm=True)).model
    assert model.spec.head("classify").kind == kind
    assert_array_equal(model["heads.classify.norm.weight"], vit["heads.classify.norm.weight"])


def test_norm_behind_the_pooling_of_timm(vit: Model, hub: Hub) -> None:
    """On the class token it is the final norm; on a mean it is another one."""
    state = {
        key.replace("norm.", "fc_norm.", 1) if key.startswith("norm.") else key: t
        for key, t in timm_state(vit).items()
    }
    for pool, norms in (("token", (True, False)), ("avg", (False, True))):
        folder = hub({"global_pool": pool, "model_args": {"fc_norm": True}}, timm=True, state=state)
        head = (model := import_model(folder).model).spec.head("classify")
        assert (head.norm, head.fc_norm) == norms
        name = "norm" if head.norm else "fc_norm"
        assert_array_equal(model[f"heads.classify.{name}.bias"], vit["heads.classify.norm.bias"])


def test_older_form_of_timm_has_one_level(vit: Model, hub: Hub) -> None:
    flat = {key: WITHOUT for key in TIMM} | TIMM["pretrained_cfg"]
    config = flat | {"architecture": "vit_tiny_patch16_224", "num_features": 24, "labels": list("abcde")}
    model = import_model(hub(config, timm=True), Options(heads=2)).model
    assert_allclose(
        model["patch_embed.weight"][:, 1], vit["patch_embed.weight"][:, 1] * 256 / 255 / 0.25, rtol=1e-6
    )


def test_heads_of_timm_by_the_size_in_its_name(micro_with: MakeModel, hub: Hub) -> None:
    tiny = micro_with(moe=None, tasks=["a"], task_heads={}, dim=192, heads=3, depth=1, mlp_dim=8)
    config = {"num_classes": 0, "num_features": 192, "model_args": {"num_heads": WITHOUT}}
    state = timm_state(tiny)
    assert import_model(hub(config, timm=True, state=state)).model.spec.heads == 3
    refused(hub(config | {"architecture": "vit_base_patch16_224"}, timm=True, state=state), "--heads needed")
    refused(
        hub(config | {"architecture": "vit_base_patch16_gap_224"}, timm=True, state=state), "--heads needed"
    )


def test_no_biases_and_no_positions(vit: Model, hub: Hub) -> None:
    """What the settings say is not there counts as zero."""
    state = timm_state(vit)
    for key in list(state):
        if key == "pos_embed" or key.endswith(("attn.proj.bias", "fc1.bias", "fc2.bias")):
            del state[key]
    arguments = {"proj_bias": False, "pos_embed": "none"}
    model = import_model(hub({"model_args": arguments}, timm=True, state=state)).model
    assert not model["blocks.1.attn.proj.bias"].any() and not model["pos_embed"][1:].any()
    assert_array_equal(model["pos_embed"][0], state["cls_token"][0, 0])
    refused(
        hub({"model_args": {"pos_embed": "none"}}, timm=True, state=state),
        "missing tensor blocks.0.attn.proj.bias",
    )
    refused(
        hub({"model_args": {"proj_bias": False}}, timm=True, state=state),
        "no table of positions (tensor pos_embed)",
    )
    refused(
        hub({"model_args": {"pos_embed": "none"}}, timm=True),
        "tensor pos_embed: the configuration says that there are no positions",
    )


# What is refused


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"hidden_size": 768}, "hidden_size is 768, but by the tensors it is 24"),
        ({"num_hidden_layers": 12}, "num_hidden_layers is 12, but by the tensors it is 2"),
        ({"intermediate_size": 96}, "intermediate_size is 96, but by the tensors it is 48"),
        ({"num_channels": 1}, "num_channels is 1, but by the tensors it is 3"),
        ({"patch_size": 16}, "patch_size is 16, but by the tensors it is 4"),
        ({"patch_size": [4, 8]}, "patch_size is [4, 8], expected square patches"),
        ({"qkv_bias": False}, "qkv_bias is False, but by the tensors it is True"),
        ({"mlp_ratio": 4}, "mlp_ratio is 96, but by the tensors it is 48"),
        ({"num_register_tokens": 4}, "num_register_tokens is 4, but by the tensors it is 0"),
        (
            {"id2label": {"0": "cat", "1": "dog"}},
            "id2label: number of labels is 2, but by the tensors it is 5",
        ),
        ({"num_labels": 2}, "num_labels is 2, but by the tensors it is 5"),
        ({"image_size": 224}, "8 patches, but 224x224 pixels make 3136"),
        ({"head_dim": 16}, "head_dim is 16, expected 24 / 2"),
        ({"hidden_act": "silu"}, "hidden_act is 'silu', expected one of gelu"),
        ({"hidden_act": {"gelu": 1}}, "hidden_act is {'gelu': 1}, expected one of gelu"),
        ({"model_type": "clip_vision_model"}, "model_type is 'clip_vision_model', expected one of vit"),
        ({"model_type": 3}, "model_type is 3, expected a text"),
        ({"architectures": ["ViTForRegression"]}, "architectures is ['ViTForRegression']"),
        ({"num_attention_heads": True}, "num_attention_heads is True, expected a whole number"),
        ({"num_attention_heads": WITHOUT}, "--heads needed"),
        ({"layer_norm_eps": -1}, "layer_norm_eps is -1, expected a positive number"),
        ({"image_size": [8, "16"]}, "image_size is [8, '16'], expected a whole number, or a list"),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn is True: an MLP with gates"),
        ({"use_relative_position_bias": True}, "use_relative_position_bias is True: relative positions"),
        ({"use_mean_pooling": "yes"}, "use_mean_pooling is 'yes', expected true or false"),
        (
            {"quantization_config": {"bits": 8}},
            "quantization_config is {'bits': 8}: weights that were quantised",
        ),
        (
            {"auto_map": {"AutoModel": "x.Y"}},
            "auto_map is {'AutoModel': 'x.Y'}: the network is code of its own",
        ),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': [1]}: attention heads were taken out"),
        ({"is_decoder": True}, "is_decoder is True: attention to earlier tokens alone"),
        ({"scale_scores": 0.5, "b": 1}, "scale_scores is 0.5: a setting that is not known here"),
        ({"final_scale": False}, "final_scale is False: a setting that is not known here"),
    ],
)
def test_settings_of_hugging_face_that_do_not_fit(hub: Hub, config: Content, says: str) -> None:
    refused(hub(config), "config.json: " if "needed" not in says and "patches" not in says else "", says)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ({"do_normalize": None}, "do_normalize is None, expected true or false"),
        ({"do_rescale": 1}, "do_rescale is 1, expected true or false"),
        ({"rescale_factor": 0}, "rescale_factor is 0, expected a positive number"),
        ({"image_mean": "0.5"}, "image_mean is '0.5', expected a number, or a list"),
        ({"image_std": []}, "image_std is [], expected a number, or a list"),
        ({"image_std": [0.5, 0.5]}, "image_mean has 3 values, but image_std has 2"),
        ({"image_std": [0.5, 0, 0.5]}, "do not fit pixels"),
        (
            {"do_flip_channel_order": True},
            "do_flip_channel_order is True: channels in the order blue, green, red",
        ),
        ({"do_pad": True}, "do_pad is True: images are padded"),
        ({"do_grayscale": True}, "do_grayscale is True: colours"),
        ({"rescale_offset": True}, "rescale_offset is True: pixels are shifted"),
        ({"size": {"height": 224, "width": 224}}, "size is (224, 224), but by the tensors it is (8, 16)"),
        ({"size": 32}, "size is (32, 32), but by the tensors it is (8, 16)"),
        ({"do_center_crop": True, "crop_size": 8}, "crop_size is (8, 8), but by the tensors it is (8, 16)"),
        (
            {"size": {"height": WITHOUT}},
            "size is {'width': 16}, expected height and width, or the shortest edge",
        ),
        ({"whiten": True}, "whiten is True: a setting that is not known here"),
    ],
)
def test_preprocessing_that_does_not_fit(hub: Hub, images: Content, says: str) -> None:
    refused(hub(images=images), says)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_features": 192}, "num_features is 192, but by the tensors it is 24"),
        ({"num_classes": 1000}, "num_classes is 1000, but by the tensors it is 5"),
        ({"num_classes": WITHOUT, "pretrained_cfg": {"num_classes": 9}}, "pretrained_cfg: num_classes is 9"),
        ({"global_pool": "map"}, "global_pool is 'map', expected one of token, avg"),
        ({"global_pool": "avgmax"}, "global_pool is 'avgmax', expected one of token, avg"),
        ({"model_args": {"global_pool": "avg"}}, "global_pool is 'token', but"),
        ({"model_args": {"embed_dim": 192}}, "embed_dim is 192, but by the tensors it is 24"),
        ({"model_args": {"depth": 12}}, "depth is 12, but by the tensors it is 2"),
        ({"model_args": {"patch_size": 16}}, "patch_size is 16, but by the tensors it is 4"),
        ({"model_args": {"in_chans": 1}}, "in_chans is 1, but by the tensors it is 3"),
        ({"model_args": {"mlp_ratio": 4.0, "embed_dim": 24}}, "mlp_ratio is 96, but by the tensors it is 48"),
        ({"model_args": {"qkv_bias": False}}, "qkv_bias is False, but by the tensors it is True"),
        ({"model_args": {"class_token": False}}, "class_token is False, but by the tensors it is True"),
        ({"model_args": {"reg_tokens": 4}}, "reg_tokens is 4, but by the tensors it is 0"),
        (
            {"model_args": {"init_values": 1e-5}},
            "init_values is True, but by the tensors it is False (layer scale)",
        ),
        ({"model_args": {"no_embed_class": True}}, "no_embed_class is True, but by the tensors it is False"),
        ({"model_args": {"final_norm": False}}, "final_norm is False, but by the tensors it is True"),
        ({"model_args": {"fc_norm": True}}, "fc_norm is True, but by the tensors it is False"),
        ({"model_args": {"img_size": 224}}, "input_size is [3, 8, 16], but"),
        ({"model_args": {"qk_norm": True}}, "qk_norm is True: norms of queries and keys"),
        ({"model_args": {"pre_norm": True}}, "pre_norm is True: a norm before the first block"),
        ({"model_args": {"act_layer": "silu"}}, "act_layer is 'silu', expected one of gelu"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer is 'rmsnorm', expected layernorm"),
        ({"model_args": {"attn_layer": "diff"}}, "attn_layer is 'diff': attention of another kind"),
        ({"model_args": {"mlp_layer": "swiglu"}}, "mlp_layer is 'swiglu': an MLP of another kind"),
        ({"model_args": {"dynamic_img_pad": True}}, "dynamic_img_pad is True: images are padded"),
        ({"model_args": {"pos_embed": "rope"}}, "pos_embed is 'rope', expected learn or none"),
        ({"model_args": {"softcap": 50.0}}, "model_args: softcap is 50.0: a setting that is not known here"),
        ({"model_args": [1]}, "model_args is [1], expected an object"),
        (
            {"pretrained_cfg": {"input_size": [1, 8, 16]}},
            "input_size is 1, but by the tensors it is 3 (in_channels)",
        ),
        (
            {"pretrained_cfg": {"input_size": [3, 8]}},
            "input_size is [3, 8], expected channels, height and width",
        ),
        ({"pretrained_cfg": {"label_offset": 1}}, "label_offset is 1: classes are left out"),
        ({"pretrained_cfg": {"scale": 2}}, "pretrained_cfg: scale is 2: a setting that is not known here"),
        ({"extra": 1}, "config.json: extra is 1: a setting that is not known here"),
    ],
)
def test_settings_of_timm_that_do_not_fit(hub: Hub, config: Content, says: str) -> None:
    refused(hub(config, timm=True), "config.json: ", says)


def test_unknown_settings_can_be_left_out(hub: Hub) -> None:
    folder = hub({"scale_scores": 0.5, "seen": None}, {"whiten": True})
    imported = import_model(folder, Options(ignore=("scale_scores", "whiten")))
    assert any("settings scale_scores, whiten" in remark for remark in imported.remarks)
    folder = hub({"model_args": {"softcap": 1.0}, "pretrained_cfg": {"scale": 2}}, timm=True)
    assert any(
        "softcap" in remark for remark in import_model(folder, Options(ignore=("softcap", "scale"))).remarks
    )
    refused(
        folder,
        "--ignore names softcup, which no file of settings",
        options=Options(ignore=("softcap", "scale", "softcup")),
    )
    refused(folder / "model.safetensors", "--ignore names settings", options=Options(ignore=("scale",)))


def test_the_size_that_pictures_get_may_be_another_where_the_callers_choice_is_clear(hub: Hub) -> None:
    folder = hub(images={"size": 224, "do_center_crop": True, "crop_size": 224})
    assert import_model(folder, Options(image_size=(8, 16))).model.spec.image_size == (8, 16)


# How pictures are made to fit


@pytest.mark.parametrize(
    ("images", "fit"),
    [
        ({}, ("stretch", 1.0, "bilinear")),
        (
            {
                "resample": 3,
                "size": {"height": 10, "width": 20},
                "do_center_crop": True,
                "crop_size": {"height": 8, "width": 16},
            },
            ("stretch", 0.8, "bicubic"),
        ),
        ({"do_resize": False}, None),
        ({"resample": 9}, None),
        ({"resample": WITHOUT}, None),
        (
            {
                "size": {"height": 20, "width": 20},
                "do_center_crop": True,
                "crop_size": {"height": 8, "width": 16},
            },
            None,
        ),
        ({"size": {"height": WITHOUT, "width": WITHOUT, "longest_edge": 16}}, None),
    ],
)
def test_pictures_of_hugging_face(hub: Hub, images: Content, fit: tuple[str, float, str] | None) -> None:
    imported = import_model(hub(images=images))
    pictures = imported.model.spec.pictures
    assert (None if pictures is None else tuple(pictures.fit)) == fit
    assert any("in a way that --resize does not know" in remark for remark in imported.remarks) == (
        fit is None
    )


def test_pictures_of_square_networks(micro_with: MakeModel, hub: Hub) -> None:
    """The shorter side is resized and the middle cut out, as for DINOv2 and CLIP."""
    square = micro_with(moe=None, tasks=["a"], task_heads={}, depth=1, image_size=(28, 28))
    state = hugging_face_state(square)
    config = {"image_size": 28, "num_hidden_layers": 1, "id2label": WITHOUT, "intermediate_size": WITHOUT}
    size = {"height": WITHOUT, "width": WITHOUT, "shortest_edge": 32}
    images = {"size": size, "do_center_crop": True, "crop_size": {"height": 28, "width": 28}, "resample": 3}
    pictures = import_model(hub(config, images, state=state)).model.spec.pictures
    assert pictures is not None and tuple(pictures.fit) == ("crop", 0.875, "bicubic")


@pytest.mark.parametrize(
    ("cfg", "fit"),
    [
        ({}, ("crop", 0.9, "bicubic")),
        ({"crop_pct": WITHOUT, "interpolation": WITHOUT, "crop_mode": WITHOUT}, ("crop", 0.875, "bicubic")),
        ({"crop_mode": "squash", "crop_pct": 1, "interpolation": "lanczos"}, ("stretch", 1.0, "lanczos")),
        ({"crop_mode": "border"}, None),
        ({"interpolation": "random"}, None),
        ({"crop_pct": 1.1}, None),
    ],
)
def test_pictures_of_timm(hub: Hub, cfg: Content, fit: tuple[str, float, str] | None) -> None:
    imported = import_model(hub({"pretrained_cfg": cfg}, timm=True))
    pictures = imported.model.spec.pictures
    assert (None if pictures is None else tuple(pictures.fit)) == fit
    assert any("in a way that --resize does not know" in remark for remark in imported.remarks) == (
        fit is None
    )


# Every public field


NAMES = ["tench, Tinca", "goldfish", "shark", "ray", "cock"]
SYNSETS = [f"n{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("timm", "config", "names"),
    [
        (False, {}, []),
        (False, {"id2label": {str(label): name for label, name in enumerate(NAMES)}}, NAMES),
        (True, {}, []),
        (True, {"label_names": NAMES}, NAMES),
        (True, {"pretrained_cfg": {"labels": NAMES}}, NAMES),
        (True, {"label_names": NAMES, "pretrained_cfg": {"label_names": SYNSETS}}, NAMES),
        (
            True,
            {
                "label_names": SYNSETS,
                "label_descriptions": dict(zip(SYNSETS, NAMES, strict=True)) | {"n9": "cat"},
            },
            NAMES,
        ),
        (
            True,
            {"label_names": SYNSETS, "label_descriptions": {"n1": "goldfish"}},
            ["n0", "goldfish", "n2", "n3", "n4"],
        ),
        (True, {"id2label": {str(label): name for label, name in enumerate(NAMES)}}, NAMES),
        (True, {"label_names": NAMES[:3]}, []),
    ],
)
def test_names_of_classes(hub: Hub, timm: bool, config: Content, names: list[str]) -> None:
    imported = import_model(hub(config, timm=timm))
    assert imported.model.spec.head("classify").classes == names
    left_out = "left out: 3 names of classes, of which the classifier has 5"
    assert (left_out in imported.remarks) == (config == {"label_names": NAMES[:3]})


def test_every_field_of_transformers_has_an_answer(hub: Hub) -> None:
    """Fields of the configurations of `FAMILIES` and of their base class, release 5.24, as they are saved."""
    every: Content = dict.fromkeys(hugging_face._WITHOUT_INFLUENCE, 1) | dict.fromkeys(
        hugging_face._FORBIDDEN, False
    )
    every |= {
        "num_labels": 5,
        "mlp_ratio": 2,
        "num_register_tokens": 0,
        "use_absolute_position_embeddings": True,
    }
    every |= {"use_mean_pooling": False, "head_dim": 12}
    images: Content = dict.fromkeys(hugging_face._IMAGES_WITHOUT_INFLUENCE, 1)
    images |= dict.fromkeys(hugging_face._IMAGES_FORBIDDEN, False) | {
        "do_center_crop": False,
        "crop_size": {"shortest_edge": 9},
    }
    assert import_model(hub(every, images)).model.spec.head("classify").kind == "cls-linear"


def test_every_field_of_timm_has_an_answer(hub: Hub) -> None:
    """Fields of PretrainedCfg and arguments of VisionTransformer, timm 1.0.31."""
    arguments: Content = dict.fromkeys(timm_hub._ARGUMENTS_WITHOUT_INFLUENCE, 0) | {
        key: allowed[0] if allowed else None for key, (_, allowed) in timm_hub._ARGUMENTS_FORBIDDEN.items()
    }
    arguments |= {
        "patch_size": 4,
        "in_chans": 3,
        "num_classes": 5,
        "global_pool": "token",
        "embed_dim": 24,
        "depth": 2,
    }
    arguments |= {
        "mlp_ratio": 2.0,
        "qkv_bias": True,
        "proj_bias": True,
        "init_values": None,
        "class_token": True,
    }
    arguments |= {
        "pos_embed": "learn",
        "no_embed_class": False,
        "reg_tokens": 0,
        "final_norm": True,
        "fc_norm": False,
    }
    arguments |= {"pool_include_prefix": False, "norm_layer": "layernorm", "act_layer": "gelu"}
    cfg: Content = dict.fromkeys(timm_hub._PRETRAINED_WITHOUT_INFLUENCE, "x") | {"label_offset": 0}
    top = dict.fromkeys(timm_hub._TOP_WITHOUT_INFLUENCE, "x")
    config = top | {"model_args": arguments, "pretrained_cfg": cfg}
    assert import_model(hub(config, timm=True)).model.spec.norm_eps == 1e-6


def test_the_documents_name_every_field() -> None:
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    every = {
        *hugging_face._WITHOUT_INFLUENCE,
        *hugging_face._FORBIDDEN,
        *hugging_face._FACTS,
        *hugging_face._IMAGES_WITHOUT_INFLUENCE,
        *hugging_face._IMAGES_FORBIDDEN,
        *timm_hub._ARGUMENTS_WITHOUT_INFLUENCE,
        *timm_hub._ARGUMENTS_FORBIDDEN,
        *timm_hub._FACTS,
        *timm_hub._PRETRAINED_WITHOUT_INFLUENCE,
        *timm_hub._TOP_WITHOUT_INFLUENCE,
    }
    assert sorted(key for key in every if f"`{key}`" not in text) == []


# The folder itself


def test_a_folder_without_settings_is_as_its_file(vit: Model, hub: Hub) -> None:
    folder = hub()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).unlink()
    options = Options(heads=2, image_size=(8, 16))
    refused(folder, "--normalize needed: the file does not say", options=options)
    imported = import_model(folder, dataclasses.replace(options, normalization=NONE))
    assert imported.model.spec.name == "hub"
    assert any(
        "assumed, as tensors do not say it: activation gelu, norm_eps 1e-12" in r for r in imported.remarks
    )


VALUES: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    2,
    1e30,
    0.5,
    "x",
    "",
    [],
    {},
    [1, 2],
    [0.5] * 3,
    {"a": 1},
    1 << 100,
    [[1]],
]
"""Values that settings are replaced by."""


def mutated(content: Content, rng: np.random.Generator) -> Content:
    """Some settings replaced, taken out or renamed, on any level."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.integers(1, 3)):
        place, key = content, str(rng.choice(list(content)))
        while isinstance(place[key], dict) and place[key] and rng.integers(3):
            place = place[key]
            key = str(rng.choice(list(place)))
        match rng.integers(4):
            case 0:
                del place[key]
            case 1:
                place[f"{key}_"] = place.pop(key)
            case _:
                place[key] = VALUES[int(rng.integers(len(VALUES)))]
    return content


@pytest.mark.parametrize("timm", [False, True])
def test_damaged_settings_are_read_or_refused(hub: Hub, timm: bool) -> None:
    """Nothing but our errors comes out, and each names a file."""
    folder, rng, refusals = hub(timm=timm), np.random.default_rng(9), []
    for number in range(150):
        name = "preprocessor_config.json" if not timm and number % 2 else "config.json"
        content = TIMM if timm else IMAGES if number % 2 else CONFIG
        whole = (folder / name).read_text()
        (folder / name).write_text(json.dumps(mutated(content, rng)))
        try:
            import_model(folder)
        except InputError as error:
            assert str(folder) in error.message
            refusals.append(error.message)
        (folder / name).write_text(whole)
    assert 30 < len(refusals) < 150 and len(set(refusals)) > 20
