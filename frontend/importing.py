"""Any supported source to a Model: what it is, and which importer reads it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.printable import shown
from common.reading import read_json
from frontend.checkpoint import SAFETENSORS_SUFFIX, TORCH_SUFFIXES, is_shard_folder, listed, read_state
from frontend.edge_moe import SUFFIX as EDGE_MOE_SUFFIX
from frontend.edge_moe import Geometry, import_edge_moe
from frontend.m3vit import import_m3vit
from frontend.options import Imported, Options, model_name
from frontend.pixels import checked
from frontend.vit import import_vit

KINDS = ("m3vit", "edge-moe", "vit", "onnx")
ONNX_SUFFIX = ".onnx"
MOST_CONFIG_BYTES = 16 << 20
"""Limit of a configuration of Hugging Face: some name every class of a data set."""

_HF_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
"""Activation functions of a Model by their names in Hugging Face's `ACT2FN`."""
_HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_M3VIT_MARKS = (".mlp.experts.", "decoders.", "gate_task_represent.")
_APPLIES = {
    "top_k": ("m3vit", "edge-moe"),
    "heads": ("m3vit", "edge-moe", "vit"),
    "normalization": ("m3vit", "vit", "onnx"),
    "tasks": ("m3vit", "vit", "onnx"),
    "norm_eps": ("m3vit", "edge-moe", "vit"),
    "activation": ("m3vit", "vit"),
    "outputs": ("onnx",),
    "fill_missing_experts": ("edge-moe",),
}


def import_model(source: Path, options: Options | None = None, kind: str | None = None) -> Imported:
    """Read a network from elsewhere.

    Args:
        source: a checkpoint, a folder of one, or an ONNX file.
        options: what the source cannot tell.
        kind: one of `KINDS`; guessed from the source where it is not given.

    Raises:
        InputError: unreadable or unknown source, a network that does not fit, options that are missing or do not apply.
    """
    options = options or Options()
    if kind is not None and kind not in KINDS:
        raise InputError(f"--kind {kind}: unknown", hint=f"this release imports {', '.join(KINDS)}")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if kind == "edge-moe" or (kind is None and _is_edge_moe(source)):
        _check_options(options, "edge-moe")
        return _from_edge_moe(source, options)
    if kind == "onnx" or (kind is None and source.suffix == ONNX_SUFFIX):
        from frontend.onnx_import import import_onnx

        _check_options(options, "onnx")
        return import_onnx(source, options)
    source, options, name = _hugging_face_folder(source, options)
    state = read_state(source)
    if kind is None:
        kind = "m3vit" if any(mark in f".{key}" for key in state.entries for mark in _M3VIT_MARKS) else "vit"
    _check_options(options, kind)
    imported = import_m3vit(state, options) if kind == "m3vit" else import_vit(state, options)
    if name is None:
        return imported
    spec = imported.model.spec.model_copy(update={"name": name})
    return dataclasses.replace(imported, model=dataclasses.replace(imported.model, spec=spec))


def _is_edge_moe(source: Path) -> bool:
    return source.is_dir() and any(source.glob(f"*{EDGE_MOE_SUFFIX}"))


def _check_options(options: Options, kind: str) -> None:
    """Refuse an option that the source answers by itself: silence would pass for obedience."""
    for name, kinds in _APPLIES.items():
        if getattr(options, name) is not None and kind not in kinds:
            flag = "normalize" if name == "normalization" else name.replace("_", "-")
            raise InputError(
                f"--{flag} does not apply to --kind {kind}", hint=f"it is for {', '.join(kinds)}"
            )


def _from_edge_moe(source: Path, options: Options) -> Imported:
    given = {
        name: value
        for name in ("heads", "top_k", "image_size", "norm_eps")
        if (value := getattr(options, name)) is not None
    }
    geometry = dataclasses.replace(Geometry(), **given)
    return Imported(import_edge_moe(source, geometry, fill_missing_experts=options.fill_missing_experts))


def _hugging_face_folder(source: Path, options: Options) -> tuple[Path, Options, str | None]:
    """The weights in a folder, what the configurations beside them say, and the folder's name.

    Other sources stay as they are.
    """
    if not source.is_dir() or is_shard_folder(source):
        return source, options, None
    if (source / "model.toml").is_file():
        raise InputError(f"{source}: a Model folder already", hint="pass it to `edgemoe quantize` as it is")
    if (source / "design.toml").is_file():
        raise InputError(f"{source}: a Design folder, expected a network in floats")
    weights = next((source / name for name in _HF_WEIGHTS if (source / name).is_file()), None)
    if weights is None:
        found = listed(sorted(path.name for path in source.iterdir())) or "nothing"
        suffixes = ", ".join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX, ONNX_SUFFIX))
        raise InputError(
            f"{source}: no checkpoint in this folder, which holds {found}",
            hint=f"expected shards 0.pth, 1.pth, ..., or {' or '.join(_HF_WEIGHTS)}; or name one file ({suffixes})",
        )
    config, images = _read_json(source / "config.json"), _read_json(source / "preprocessor_config.json")
    said: dict[str, Any] = {
        "heads": _whole(config.get("num_attention_heads")),
        "norm_eps": _positive(config.get("layer_norm_eps")),
    }
    size = config.get("image_size")
    if isinstance(size, list) and len(size) == 2 and all(_whole(side) for side in size):
        said["image_size"] = (size[0], size[1])
    elif _whole(size):
        said["image_size"] = (size, size)
    mean, std = images.get("image_mean"), images.get("image_std")
    if isinstance(mean, list) and isinstance(std, list) and images.get("do_normalize", True):
        if not all(isinstance(value, (int, float)) for value in (*mean, *std)):
            raise InputError(
                f"{source / 'preprocessor_config.json'}: image_mean and image_std: expected numbers"
            )
        scale = 1 / (_positive(images.get("rescale_factor")) or 1 / 255)
        where = f"{source / 'preprocessor_config.json'}: image_mean, image_std"
        said["normalization"] = checked(tuple(mean), tuple(std), scale, where)
    activation = config.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _HF_ACTIVATIONS:
        raise InputError(
            f"{source / 'config.json'}: hidden_act is {shown(activation)}, expected one of "
            f"{', '.join(_HF_ACTIVATIONS)}",
            hint="the accelerator has no other activation functions",
        )
    said["activation"] = _HF_ACTIVATIONS[activation]
    told = {name: value for name, value in said.items() if value and getattr(options, name) is None}
    return weights, dataclasses.replace(options, **told), model_name(str(source))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    data = read_json(path, MOST_CONFIG_BYTES)
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}, expected an object")
    return data


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _positive(value: Any) -> float | None:
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        else None
    )
