"""Folders as hubs have them: files of weights, and of settings beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.printable import shown_key
from frontend.checkpoint import INDEX_SUFFIX, SAFETENSORS_SUFFIX, TORCH_SUFFIXES, listed
from frontend.hugging_face import CONFIG, PREPROCESSOR, read_hugging_face
from frontend.options import Options
from frontend.timm_hub import is_timm, read_timm
from frontend.told import Told, read_settings

ONNX_SUFFIX = ".onnx"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""Files of weights, in the order in which transformers and timm look for them."""


def read_folder(folder: Path, options: Options) -> tuple[Path, Told]:
    """The file of weights in a folder, or the index of several, and what the settings beside it say.

    Raises:
        InputError: no such file; a setting that cannot be honoured, naming it.
    """
    for name, kind in (("model.toml", "a Model folder already"), ("design.toml", "a Design folder")):
        if (folder / name).is_file():
            hint = "pass it to `edgemoe quantize` as it is" if name == "model.toml" else ""
            expected = "" if name == "model.toml" else ", expected a network in floats"
            raise InputError(f"{folder}: {kind}{expected}", hint=hint)
    weights = _find_weights(folder)
    config = read_settings(folder / CONFIG)
    images = read_settings(folder / PREPROCESSOR)
    _check_ignored(folder, (config, images), options)
    if is_timm(config):
        return weights, read_timm(folder, config, options)
    if not config and not images:
        return weights, Told(options)
    return weights, read_hugging_face(folder, config, images, options)


def _check_ignored(folder: Path, files: Iterable[Mapping[str, Any]], options: Options) -> None:
    """Refuse to leave out a setting that is nowhere: its name is misspelt."""
    keys = {
        key for file in files for value in (file, *file.values()) if isinstance(value, dict) for key in value
    }
    wrong = next((name for name in options.ignore or () if name not in keys), None)
    if wrong is not None:
        raise InputError(f"--ignore names {shown_key(wrong)}, which no file of settings in {folder} has")


def _find_weights(folder: Path) -> Path:
    names = [name for single in WEIGHTS for name in (single, f"{single}{INDEX_SUFFIX}")]
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is not None:
        return found
    there = sorted(path.name for path in folder.iterdir())
    shards = [name for name in there if "-of-" in name]
    if shards:
        raise InputError(
            f"{folder}: shards {listed(shards)} without {WEIGHTS[0]}{INDEX_SUFFIX}, which says what is in them",
            hint="copy all files of the folder",
        )
    suffixes = ", ".join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX, ONNX_SUFFIX))
    raise InputError(
        f"{folder}: no checkpoint in this folder, which holds {listed(there) or 'nothing'}",
        hint=f"expected shards 0.pth, 1.pth, ..., or {' or '.join(WEIGHTS[:2])}; or name one file ({suffixes})",
    )
