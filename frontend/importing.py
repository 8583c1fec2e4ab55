"""Any supported source to a Model: what it is, and which importer reads it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from common.errors import InputError
from frontend.checkpoint import is_shard_folder, read_state
from frontend.class_names import with_class_names
from frontend.edge_moe import SUFFIX as EDGE_MOE_SUFFIX
from frontend.edge_moe import Geometry, import_edge_moe
from frontend.hub_folder import ONNX_SUFFIX, read_folder
from frontend.m3vit import import_m3vit
from frontend.options import Imported, Options, model_name
from frontend.pixels import NONE
from frontend.vit import import_vit
from pysim.spec import ModelSpec

KINDS = ("m3vit", "edge-moe", "vit", "onnx")
_M3VIT_MARKS = (".mlp.experts.", "decoders.", "gate_task_represent.")
_APPLIES = {
    "top_k": ("m3vit", "edge-moe"),
    "heads": ("m3vit", "edge-moe", "vit"),
    "normalization": ("m3vit", "vit", "onnx"),
    "tasks": ("m3vit", "vit", "onnx"),
    "norm_eps": ("m3vit", "edge-moe", "vit"),
    "activation": ("m3vit", "vit"),
    "ignore": ("vit",),
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
    imported = _import(source, options, kind)
    if options.class_names:
        spec = with_class_names(imported.model.spec, options.class_names)
        imported = dataclasses.replace(imported, model=dataclasses.replace(imported.model, spec=spec))
    return imported


def _import(source: Path, options: Options, kind: str | None) -> Imported:
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
    told = None
    name = model_name(str(source))
    if source.is_dir() and not is_shard_folder(source):
        source, told = read_folder(source, options)
    elif options.ignore:
        raise InputError(f"--ignore names settings of a folder's files, but {source} has none")
    state = read_state(source)
    if kind is None:
        kind = "m3vit" if any(mark in f".{key}" for key in state.entries for mark in _M3VIT_MARKS) else "vit"
    _check_options(options, kind)
    if kind == "m3vit":
        return import_m3vit(state, options)
    imported = import_vit(state, options, told)
    spec = imported.model.spec.model_copy(update={"name": name})
    return dataclasses.replace(imported, model=dataclasses.replace(imported.model, spec=spec))


def import_spec(source: Path, options: Options | None = None, kind: str | None = None) -> ModelSpec:
    """Shape of a network from elsewhere: how its images were normalised, and experts that are missing, do not matter.

    Args:
        source: as that of `import_model`; `options` and `kind` likewise.
        options: what the source cannot tell of the shape.
        kind: one of `KINDS`.

    Raises:
        InputError: as `import_model`.
    """
    options = options or Options()
    if kind == "edge-moe" or (kind is None and _is_edge_moe(source)):
        options = dataclasses.replace(options, fill_missing_experts=0)
    else:
        options = dataclasses.replace(options, normalization=NONE)
    return import_model(source, options, kind).model.spec


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
