"""Settings of timm's folders: `config.json` with `architecture`, `pretrained_cfg` and `model_args`.

The first describes the function in timm that makes the network, the last its arguments; docs/models.md lists what
becomes of each field. The facts about architectures are those of timm 1.0 (`timm/models/vision_transformer.py`,
`deit.py`, `beit.py`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.fits import FILTERS, Fit
from common.printable import shown
from frontend.class_names import in_order, told_names
from frontend.options import Options
from frontend.pixels import Normalization
from frontend.told import Check, Settings, Told, left_out, normalization_of, unknown_fit
from pysim.activations import ACTIVATIONS

CONFIG = "config.json"

_PLAIN = re.compile(
    r"vit_(wee|little|tiny|small|mediumd?|betwixt|base|so150m2?|large|huge|giant|gigantic)_patch\d+"
    r"(_plus|_36x1|_sam)?(_reg\d)?(_gap)?_\d+(_in21k|_dino|_miil)?"
    r"|vit_(small|base|large)_patch14(_reg4)?_dinov2"
    r"|deit3?_(tiny|small|medium|base|large|huge)(_distilled)?_patch\d+_\d+"
    r"|beit(v2)?_(base|large)_patch16_\d+"
    r"|flexivit_(small|base|large)|vit_intern300m_patch14_448|eva_large_patch14_\d+|test_vit2?"
)
"""Architectures that are plain ViTs with GELU and an epsilon of 1e-6."""
_VARIED = re.compile(r"vit_\w+_patch\d+(_plus)?_(clip(_quickgelu)?|siglip_gap)_\d+")
"""Architectures that are plain ViTs, among which activation function and epsilon vary."""
_HEADS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12), "large": (1024, 16), "huge": (1280, 16)}
"""Channels and attention heads by the size that an architecture's name holds."""
_OTHER_HEADS = ("vit_base_patch16_gap_224",)
"""Architectures with another number of heads than their size's."""

_FACTS = {
    "embed_dim": "dim",
    "depth": "depth",
    "in_chans": "in_channels",
    "num_classes": "classes",
    "qkv_bias": "qkv_bias",
    "class_token": "class token",
    "reg_tokens": "register tokens",
}
"""Arguments that the tensors must confirm."""

_ARGUMENTS_WITHOUT_INFLUENCE = (
    # Training.
    "attn_drop_rate",
    "drop_path_rate",
    "drop_rate",
    "fix_init",
    "head_init_scale",
    "patch_drop_rate",
    "pos_drop_rate",
    "proj_drop_rate",
    "weight_init",
    # Tables of positions at other sizes; the network here has one size.
    "dynamic_img_size",
    "strict_img_size",
    # Where and how the program runs.
    "device",
    "dtype",
    "scriptable",
)

_ARGUMENTS_FORBIDDEN = {
    "attn_layer": ("attention of another kind", ("", "attn")),
    "block_fn": ("blocks of another kind", ()),
    "dynamic_img_pad": ("images are padded, which networks here do not do", (False,)),
    "embed_layer": ("a patch embedding of another kind", ()),
    "embed_norm_layer": ("a norm of the patches, which the accelerator does not have", ()),
    "mlp_layer": ("an MLP of another kind", ()),
    "pre_norm": ("a norm before the first block, which the accelerator does not have", (False,)),
    "attn_head_dim": ("heads of another size", ()),
    "qk_norm": ("norms of queries and keys, which the accelerator does not have", (False,)),
    "rel_pos_bias": ("relative positions, which the accelerator does not have", (False,)),
    "scale_attn_norm": ("a norm inside of attention, which the accelerator does not have", (False,)),
    "scale_mlp_norm": ("a norm inside of the MLP, which the accelerator does not have", (False,)),
    "scale_mlp": ("a norm inside of the MLP, which the accelerator does not have", (False,)),
    "swiglu_mlp": ("an MLP with gates, which the accelerator does not have", (False,)),
    "use_naflex": ("patches of any size, which the accelerator does not have", (False,)),
    "use_rel_pos_bias": ("relative positions, which the accelerator does not have", (False,)),
    "use_shared_rel_pos_bias": ("relative positions, which the accelerator does not have", (False,)),
}
"""Arguments that ask for what no Model has, and their values that do not."""

_PRETRAINED_WITHOUT_INFLUENCE = (
    # Where the weights came from, and how timm loads them.
    "architecture",
    "custom_load",
    "description",
    "file",
    "hf_hub_filename",
    "hf_hub_id",
    "license",
    "notes",
    "origin_url",
    "paper_ids",
    "paper_name",
    "source",
    "tag",
    "url",
    # Names of layers that timm replaces for other numbers of classes.
    "classifier",
    "first_conv",
    # Other sizes than the one that the network is taken at.
    "fixed_input_size",
    "min_input_size",
    "pool_size",
    "test_crop_pct",
    "test_input_size",
    "test_pool_size",
    # How a picture of another size is made to fit: `--resize` does it here.
    "crop_mode",
    "crop_pct",
    "interpolation",
)

_LABELS = ("label_names", "labels", "label_descriptions", "id2label")
"""Keys with names of classes."""

_TOP_WITHOUT_INFLUENCE = (
    # Of transformers, which wraps networks of timm.
    "_name_or_path",
    "architectures",
    "do_pooling",
    "dtype",
    "initializer_range",
    "label2id",
    "model_type",
    "problem_type",
    "torch_dtype",
    "transformers_version",
)

_POOLS = {"token": "token", "avg": "mean"}


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is one of timm: only its name the architecture."""
    return "architecture" in config


def read_timm(folder: Path, config: Mapping[str, Any], options: Options) -> Told:
    """Facts that `config.json` tells.

    Args:
        folder: the folder, for messages.
        config: the content of the file.
        options: of the caller, which win.

    Raises:
        InputError: a setting that cannot be honoured, naming it.
    """
    where = str(folder / CONFIG)
    if "pretrained_cfg" not in config:  # the older form has all on one level
        inner = {key: value for key, value in config.items() if key not in _OUTER}
        config = {key: value for key, value in config.items() if key in _OUTER} | {"pretrained_cfg": inner}
    top = Settings(config, where, options.ignore)
    top.skip(_TOP_WITHOUT_INFLUENCE)
    architecture = top.text("architecture") or ""
    pretrained = _inner(top, "pretrained_cfg", options)
    arguments = _inner(top, "model_args", options)
    checks = [*top.checks({"num_features": "dim"}), *_class_checks(top, pretrained, arguments)]
    for key in ("num_features", "num_classes"):
        top.get(key)
    arguments.skip(_ARGUMENTS_WITHOUT_INFLUENCE)
    for key, (why, allowed) in _ARGUMENTS_FORBIDDEN.items():
        arguments.forbid(key, why, allowed=allowed)
    checks += _argument_checks(arguments)
    pool = _pool(top, arguments, architecture)
    name = architecture.partition(".")[0]
    plain = _PLAIN.fullmatch(name) is not None
    if "architecture" in top and not plain and _VARIED.fullmatch(name) is None:
        raise top.refuse(
            "architecture",
            "one that is known here as a plain ViT",
            hint="where it is one all the same: --ignore architecture",
        )
    asks: dict[str, str] = {}
    said: dict[str, Any] = {
        "heads": arguments.whole("num_heads"),
        "activation": _activation(arguments, options),
        "norm_eps": _norm_eps(arguments, options),
        "image_size": _image_size(pretrained, arguments, checks, options),
    }
    unsaid = f"{where}: architecture is {shown(architecture)}, of which"
    if not architecture:
        unsaid = f"{where}: without an architecture"
    if said["activation"] is None:
        if plain:
            said["activation"] = "gelu"
        else:
            asks["activation"] = f"{unsaid} the activation function is not known here"
    if said["norm_eps"] is None:
        if plain:
            said["norm_eps"] = 1e-6
        else:
            asks["norm_eps"] = f"{unsaid} the epsilon of the LayerNorms is not known here"
    if options.normalization is None:
        found = normalization_of(pretrained, "mean", "std")
        if isinstance(found, Normalization):
            said["normalization"] = found
        else:
            asks["normalization"] = found
    pretrained.skip((*_PRETRAINED_WITHOUT_INFLUENCE, "mean", "std"))
    pretrained.forbid("label_offset", "classes are left out, which networks here do not do", allowed=(0,))
    position = _position(arguments)
    classes = _classes(pretrained, top)
    for settings in (arguments, pretrained, top):
        settings.finish()
    fit = _fit(pretrained)
    told = {name: value for name, value in said.items() if value and getattr(options, name) is None}
    remarks = () if fit is not None else unknown_fit(pretrained, ("crop_mode", "crop_pct", "interpolation"))
    return Told(
        dataclasses.replace(options, **told),
        pool,
        checks=tuple(checks),
        asks=asks,
        position=position,
        usual_heads=_usual_heads(architecture),
        pictures=fit,
        remarks=(*left_out(top, pretrained, arguments), *remarks),
        classes=classes,
    )


def _classes(pretrained: Settings, top: Settings) -> tuple[str, ...]:
    """Names of classes: descriptions of their labels where there are any, else the labels; what is outermost wins."""
    inner = {key: pretrained.get(key) for key in _LABELS[:-1]}
    said = {key: top.get(key) or value for key, value in inner.items()}
    names, descriptions = in_order(said["label_names"] or said["labels"]) or [], said["label_descriptions"]
    if isinstance(descriptions, dict):
        names = [descriptions.get(name, name) for name in names]
    return told_names(names) or told_names(top.get(_LABELS[-1]))


_OUTER = (
    "architecture",
    "num_features",
    "num_classes",
    "global_pool",
    "model_args",
    *_TOP_WITHOUT_INFLUENCE,
    *_LABELS,
)


def _fit(pretrained: Settings) -> Fit | None:
    """Way to make pictures fit, with timm's defaults; None where it is not one of the ways here."""
    method = {"center": "crop", "squash": "stretch"}.get(str(pretrained.get("crop_mode") or "center"))
    share, resample = pretrained.get("crop_pct") or 0.875, pretrained.get("interpolation") or "bicubic"
    usable = isinstance(share, float | int) and not isinstance(share, bool) and 0.01 < share <= 1
    if method is None or resample not in FILTERS or not usable:
        return None
    return Fit(method, float(share), str(resample))


def _inner(top: Settings, key: str, options: Options) -> Settings:
    value = top.get(key)
    if value is not None and not isinstance(value, dict):
        raise top.refuse(key, "an object")
    return Settings(value or {}, top.called(key), options.ignore)


def _class_checks(*places: Settings) -> list[Check]:
    """The number of classes where it is said, outermost first, as timm reads it; 0 stands for no classifier."""
    counts = [(place.called("num_classes"), place.whole("num_classes", least=0)) for place in places]
    where, count = next(((where, count) for where, count in counts if count is not None), ("", None))
    return [] if count is None else [Check(where, count, "classes"), Check(where, bool(count), "classifier")]


def _argument_checks(arguments: Settings) -> list[Check]:
    checks = arguments.checks({key: fact for key, fact in _FACTS.items() if key != "num_classes"})
    patch = arguments.sides("patch_size")
    if patch is not None:
        if patch[0] != patch[1]:
            raise arguments.refuse("patch_size", "square patches")
        checks.append(Check(arguments.called("patch_size"), patch[0], "patch_size"))
    ratio, dim = arguments.number("mlp_ratio"), arguments.whole("embed_dim")
    if ratio is not None and dim is not None:
        checks.append(Check(arguments.called("mlp_ratio"), int(dim * ratio), "mlp_dim"))
    scale = arguments.get("init_values")
    if "init_values" in arguments:
        checks.append(Check(arguments.called("init_values"), bool(scale), "layer scale"))
    for key, fact in (
        ("no_embed_class", "patches alone have positions"),
        ("final_norm", "final norm"),
        ("fc_norm", "norm behind the pooling"),
        ("proj_bias", "biases of projections"),
    ):
        if key in arguments:
            checks.append(Check(arguments.called(key), arguments.flag(key), fact))
        arguments.skip([key])
    return checks


def _pool(top: Settings, arguments: Settings, architecture: str) -> str | None:
    said = {
        place.called("global_pool"): place.text("global_pool")
        for place in (top, arguments)
        if "global_pool" in place
    }
    if len(set(said.values())) > 1:
        first, second = said.items()
        raise InputError(f"{first[0]} is {shown(first[1])}, but {second[0]} is {shown(second[1])}")
    prefix = arguments.flag("pool_include_prefix", False)
    if not said:
        return None
    where, pool = said.popitem()
    if pool == "":  # no pooling: nothing to classify
        return None
    if pool not in _POOLS:
        raise InputError(
            f"{where} is {shown(pool)}, expected one of {', '.join(_POOLS)}",
            hint="heads here read the class token or a mean of tokens",
        )
    return "mean-all" if pool == "avg" and prefix else _POOLS[pool]


def _usual_heads(architecture: str) -> tuple[int, int] | None:
    """Channels and heads that the size in an architecture's name stands for."""
    size = re.match(rf"(?:vit|deit3?|flexivit|beit(?:v2)?)_({'|'.join(_HEADS)})(_|$)", architecture)
    return None if size is None or architecture.startswith(_OTHER_HEADS) else _HEADS[size[1]]


def _activation(arguments: Settings, options: Options) -> str | None:
    name = arguments.get("act_layer")
    if name is not None and options.activation is None and name not in ACTIVATIONS:
        raise arguments.refuse(
            "act_layer",
            f"one of {', '.join(ACTIVATIONS)}",
            hint="the accelerator has no other activation functions",
        )
    return str(name) if name in ACTIVATIONS else None


def _norm_eps(arguments: Settings, options: Options) -> float | None:
    name = arguments.get("norm_layer")
    if name is None:
        return None
    if name != "layernorm":
        raise arguments.refuse("norm_layer", "layernorm", hint="the accelerator has no other norms")
    return 1e-6


def _image_size(
    pretrained: Settings, arguments: Settings, checks: list[Check], options: Options
) -> tuple[int, int] | None:
    size = pretrained.get("input_size")
    built = arguments.sides("img_size")
    if size is None:
        return built
    if (
        not isinstance(size, list)
        or len(size) != 3
        or not all(isinstance(side, int) and side > 0 for side in size)
    ):
        raise pretrained.refuse("input_size", "channels, height and width")
    checks.append(Check(pretrained.called("input_size"), size[0], "in_channels"))
    taken = (size[1], size[2])
    if built is not None and built != taken and options.image_size is None:
        raise InputError(
            f"{pretrained.called('input_size')} is {shown(size)}, but {arguments.called('img_size')} is {shown(built)}",
            hint=f"--image-size {built[0]}x{built[1]} takes the network at the size of its table of positions",
        )
    return taken


def _position(arguments: Settings) -> bool | None:
    absolute = arguments.flag("use_abs_pos_emb") if "use_abs_pos_emb" in arguments else None
    arguments.skip(["use_abs_pos_emb"])
    if absolute is not None:
        return absolute
    kind = arguments.text("pos_embed")
    if kind is None:
        return None
    if kind not in ("learn", "none", ""):
        raise arguments.refuse("pos_embed", "learn or none")
    return kind == "learn"
