"""Settings of Hugging Face's transformers: `config.json` and `preprocessor_config.json`.

Fields are those of the releases 4 and 5 for the models that are plain ViTs; docs/models.md lists what becomes of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.fits import FILTERS, Fit
from frontend.class_names import told_names
from frontend.options import Options
from frontend.pixels import Normalization
from frontend.told import Check, Settings, Told, left_out, normalization_of, unknown_fit

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
"""Activation functions of a Model by their names in transformers' `ACT2FN`."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Facts about a kind of model of transformers that its tensors do not show.

    Attributes:
        pool: tokens that its classifier reads: see `Told.pool`.
        norm_eps: epsilon of its LayerNorms where the file does not say it.
    """

    pool: str | None
    norm_eps: float = 1e-12


FAMILIES: Mapping[str, Family] = {
    "vit": Family("token"),
    "deit": Family("token"),
    "vit_mae": Family("token"),
    "vit_msn": Family("token", 1e-6),
    "ijepa": Family("mean"),
    "beit": Family(None),
    "data2vec-vision": Family(None),
    "dinov2": Family("token-mean", 1e-6),
    "dinov2_with_registers": Family("token-mean", 1e-6),
}
"""Models of transformers that are plain ViTs, by `model_type`."""

_HEADS = (
    "Model",
    "Backbone",
    "ForImageClassification",
    "ForImageClassificationWithTeacher",
    "ForPreTraining",
)
_HEADS_OF_PRETRAINING = ("ForMaskedImageModeling",)

_FACTS = {
    "hidden_size": "dim",
    "num_hidden_layers": "depth",
    "intermediate_size": "mlp_dim",
    "num_channels": "in_channels",
    "qkv_bias": "qkv_bias",
    "num_register_tokens": "register tokens",
    "num_labels": "classes",
}
"""Settings that the tensors must confirm."""

_WITHOUT_INFLUENCE = (
    # Training.
    "attention_probs_dropout_prob",
    "auxiliary_channels",
    "auxiliary_concat_input",
    "auxiliary_loss_weight",
    "auxiliary_num_convs",
    "classifier_dropout",
    "drop_path_rate",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_range",
    "initializer_factor",
    "mask_ratio",
    "norm_pix_loss",
    "semantic_loss_ignore_index",
    "use_auxiliary_head",
    "use_mask_token",
    # First values of what the tensors hold.
    "layerscale_value",
    "layer_scale_init_value",
    # Parts beside the encoder and its classifier: pooler, decoders, feature maps.
    "add_fpn",
    "apply_layernorm",
    "decoder_hidden_size",
    "decoder_intermediate_size",
    "decoder_num_attention_heads",
    "decoder_num_hidden_layers",
    "encoder_stride",
    "out_features",
    "out_indices",
    "pool_scales",
    "pooler_act",
    "pooler_output_size",
    "reshape_hidden_states",
    "segmentation_indices",
    "semantic_out_indices",
    "stage_names",
    "vocab_size",
    # How the program runs, and what it returns.
    "attn_implementation",
    "chunk_size_feed_forward",
    "dtype",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "return_dict",
    "return_dict_in_generate",
    "tf_legacy_loss",
    "torch_dtype",
    "torchscript",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
    # Names and notes.
    "finetuning_task",
    "label2id",
    "license",
    "name_or_path",
    "problem_type",
    "task_specific_params",
    "tokenizer_class",
    "transformers_version",
    # Text models: every configuration may hold them.
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "tie_word_embeddings",
    "top_k",
    "top_p",
    "typical_p",
)
"""Settings that do not change what the encoder and its classifier compute."""

_FORBIDDEN = {
    "add_cross_attention": "attention to another network, which networks here do not have",
    "auto_map": "the network is code of its own in the folder, which is not run",
    "cross_attention_hidden_size": "attention to another network, which networks here do not have",
    "is_decoder": "attention to earlier tokens alone, which the accelerator does not have",
    "is_encoder_decoder": "two networks, of which a Model here is one",
    "per_layer_config": "blocks that differ, which networks here do not have",
    "pruned_heads": "attention heads were taken out, which the accelerator does not have",
    "quantization_config": "weights that were quantised already, expected floats",
    "tie_encoder_decoder": "two networks, of which a Model here is one",
    "use_relative_position_bias": "relative positions, which the accelerator does not have",
    "use_shared_relative_position_bias": "relative positions, which the accelerator does not have",
    "use_swiglu_ffn": "an MLP with gates, which the accelerator does not have",
}
"""Settings that ask for what no Model has, unless they are switched off."""


def read_hugging_face(
    folder: Path, config: Mapping[str, Any], images: Mapping[str, Any], options: Options
) -> Told:
    """Facts that the two files tell.

    Args:
        folder: the folder, for messages.
        config: content of `config.json`.
        images: content of `preprocessor_config.json`; empty where there is none.
        options: of the caller, which win.

    Raises:
        InputError: a setting that cannot be honoured, naming it.
    """
    settings = Settings(config, str(folder / CONFIG), options.ignore)
    private = [key for key in config if key.startswith("_")]  # transformers' own bookkeeping
    settings.skip((*_WITHOUT_INFLUENCE, *private))
    for key, why in _FORBIDDEN.items():
        settings.forbid(key, why)
    family = _family(settings)
    _check_architectures(settings)
    said: dict[str, Any] = {
        "heads": settings.whole("num_attention_heads"),
        "norm_eps": settings.number("layer_norm_eps"),
        "image_size": settings.sides("image_size"),
        "activation": _activation(settings, options),
    }
    checks = _checks(settings, said["heads"])
    position = settings.flag("use_absolute_position_embeddings")
    mean_pooling = settings.flag("use_mean_pooling")
    pool = family.pool if family is not None else None
    if mean_pooling is not None:
        pool = "mean" if mean_pooling else "token"
    asks = {}
    if not images and options.normalization is None:
        asks["normalization"] = f"{folder}: no {PREPROCESSOR} says how images are normalised"
    settings.finish()
    preparation = Settings(images, str(folder / PREPROCESSOR), options.ignore)
    if images:
        found = _read_images(preparation, options)
        if isinstance(found, str):
            asks["normalization"] = found
        else:
            said["normalization"] = found
        checks += _size_checks(preparation, options)
        preparation.finish()
    told = {name: value for name, value in said.items() if value and getattr(options, name) is None}
    fit = _fit(preparation)
    remarks = () if fit is not None else unknown_fit(preparation, _FIT)
    return Told(
        dataclasses.replace(options, **told),
        pool,
        family.norm_eps if family is not None else None,
        tuple(checks),
        asks,
        position,
        pictures=fit,
        remarks=(*left_out(settings, preparation), *remarks),
        classes=told_names(settings.get("id2label")),
    )


def _family(settings: Settings) -> Family | None:
    model_type = settings.text("model_type")
    if model_type is None:
        return None
    if model_type not in FAMILIES:
        raise settings.refuse(
            "model_type",
            f"one of {', '.join(FAMILIES)}",
            hint="where the network is a plain ViT all the same, name the file of weights instead of the folder",
        )
    return FAMILIES[model_type]


def _check_architectures(settings: Settings) -> None:
    names = settings.get("architectures")
    known = (*_HEADS, *_HEADS_OF_PRETRAINING)
    if names is None or (isinstance(names, list) and all(str(name).endswith(known) for name in names)):
        return
    raise settings.refuse(
        "architectures",
        f"a name that ends with one of {', '.join(known)}",
        hint="if its classifier is a linear layer on the class token or the mean: --ignore architectures",
    )


def _activation(settings: Settings, options: Options) -> str | None:
    name = settings.get("hidden_act")
    if name is None:
        return "gelu"  # of every model in FAMILIES
    if options.activation is None and (not isinstance(name, str) or name not in ACTIVATIONS):
        raise settings.refuse(
            "hidden_act",
            f"one of {', '.join(ACTIVATIONS)}",
            hint="the accelerator has no other activation functions",
        )
    return ACTIVATIONS.get(str(name))


def _checks(settings: Settings, heads: int | None) -> list[Check]:
    checks = settings.checks(_FACTS)
    dim, patch = settings.whole("hidden_size"), settings.sides("patch_size")
    if patch is not None:
        if patch[0] != patch[1]:
            raise settings.refuse("patch_size", "square patches")
        checks.append(Check(settings.called("patch_size"), patch[0], "patch_size"))
    ratio = settings.number("mlp_ratio")
    if ratio is not None and dim is not None:
        checks.append(Check(settings.called("mlp_ratio"), int(dim * ratio), "mlp_dim"))
    head_dim = settings.whole("head_dim")
    if head_dim is not None and dim is not None and heads is not None and head_dim * heads != dim:
        raise settings.refuse("head_dim", f"{dim} / {heads}, the channels of a head")
    labels = settings.get("id2label")
    if isinstance(labels, dict) and labels:
        checks.append(Check(f"{settings.called('id2label')}: number of labels", len(labels), "classes"))
    return checks


def _read_images(settings: Settings, options: Options) -> Normalization | str:
    """The normalisation, or why it must be asked for."""
    settings.skip(_IMAGES_WITHOUT_INFLUENCE)
    settings.skip(key for key in ("auto_map", "processor_class"))
    for key, why in _IMAGES_FORBIDDEN.items():
        settings.forbid(key, why)
    rescale, normalize = settings.flag("do_rescale", True), settings.flag("do_normalize")
    factor = settings.number("rescale_factor")
    scale = 1 / (factor or 1 / 255) if rescale else 1.0
    if options.normalization is not None:
        settings.skip(("image_mean", "image_std"))
        return options.normalization
    if normalize is False:
        settings.skip(("image_mean", "image_std"))
        if rescale:
            return Normalization((0.0,), (1.0,), scale)
        return f"{settings.where}: neither do_rescale nor do_normalize, so that another program prepares the images"
    return normalization_of(settings, "image_mean", "image_std", scale)


_IMAGES_WITHOUT_INFLUENCE = (
    "_processor_class",
    "_valid_processor_keys",
    "_valid_kwargs_names",
    "data_format",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "do_reduce_labels",
    "feature_extractor_type",
    "image_processor_type",
    "image_seq_length",
    "input_data_format",
    "model_input_names",
    "num_channels",
    "reduce_labels",
    "return_tensors",
    # How a picture of another size is made to fit: `--resize` does it here.
    "crop_pct",
    "default_to_square",
    "do_resize",
    "resample",
)

_IMAGES_FORBIDDEN = {
    "do_flip_channel_order": "channels in the order blue, green, red; networks here take red, green, blue",
    "do_grayscale": "colours are taken out of the images, which networks here do not do",
    "do_pad": "images are padded, which networks here do not do",
    "include_top": "a normalisation that is applied twice, which networks here do not have",
    "offset": "pixels are shifted after they are scaled; give the normalisation with --normalize",
    "do_offset": "pixels are shifted after they are scaled; give the normalisation with --normalize",
    "rescale_offset": "pixels are shifted after they are scaled; give the normalisation with --normalize",
}


def _size_checks(settings: Settings, options: Options) -> list[Check]:
    """The size that pictures are brought to must be the network's, unless the caller says it."""
    crops = settings.flag("do_center_crop", False)
    sizes = {key: _size(settings, key) for key in ("size", "crop_size")}
    if options.image_size is not None:
        return []
    key = "crop_size" if crops and sizes["crop_size"] is not None else "size"
    size = sizes[key]
    hint = "--image-size HxW takes the network at the size of its table of positions"
    return [] if size is None else [Check(settings.called(key), size, "image size", hint)]


_FIT = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct")
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Filters by pillow's numbers."""


def _fit(settings: Settings) -> Fit | None:
    """Way to make pictures fit; None where it is not said, or is not one of the ways here."""
    number, size, crop = (settings.get(key) for key in ("resample", "size", "crop_size"))
    known = isinstance(number, int) and 0 <= number < len(_RESAMPLE)
    if (
        settings.get("do_resize") is not True
        or not known
        or not isinstance(size, dict)
        or "crop_pct" in settings
    ):
        return None
    resample = _RESAMPLE[number]
    assert resample in FILTERS
    kept = _size(settings, "crop_size") if settings.get("do_center_crop") and crop is not None else None
    stretched = _size(settings, "size")
    if stretched is not None:
        share = 1.0 if kept is None else kept[0] / stretched[0]
        same = kept is None or kept[1] * stretched[0] == kept[0] * stretched[1]
        return Fit("stretch", share, resample) if same and 0.01 < share <= 1 else None
    side = size.get("shortest_edge")
    if set(size) != {"shortest_edge"} or not isinstance(side, int) or kept is None or kept[0] != kept[1]:
        return None
    return Fit("crop", kept[0] / side, resample) if 0.01 < kept[0] / side <= 1 else None


def _size(settings: Settings, key: str) -> tuple[int, int] | None:
    """Height and width that `size` or `crop_size` makes; None where it leaves them open."""
    value = settings.get(key)
    if isinstance(value, dict):
        if set(value) == {"height", "width"}:
            sides = [value["height"], value["width"]]
            if all(isinstance(side, int) and side > 0 for side in sides):
                return sides[0], sides[1]
        if set(value) <= {"shortest_edge", "longest_edge", "max_height", "max_width"} and value:
            return None
        raise settings.refuse(key, "height and width, or the shortest edge")
    return settings.sides(key)
