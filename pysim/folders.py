"""Kinds of folders: a Model, a Design, a build; and what to do with one of another kind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from common.errors import InputError

Kind = Literal["model", "design", "build"]

_NAMES = {"model": "a Model", "design": "a Design", "build": "a build", "host": "the host folder of a build"}
_FILES = {"model": "model.toml", "design": "design.toml", "build": "build.toml", "host": "manifest.json"}
_MAKERS = {"model": "init", "design": "quantize", "build": "generate"}

_LOOKED_AT = 50
"""Entries of a folder that are looked at for what was meant."""


def require_folder(folder: Path, wanted: Kind) -> None:
    """Refuse a path that is no folder, or a folder of another kind.

    A folder of no known kind passes: its reader says which file is missing.

    Raises:
        InputError: with what to give instead, or how to make it.
    """
    expected = f"expected {_NAMES[wanted]} folder" if wanted != "build" else "expected a build folder"
    if not folder.exists():
        raise InputError(
            f"{folder}: no such folder", hint=f"{expected}: `edgemoe {_MAKERS[wanted]}` makes one"
        )
    if not folder.is_dir():
        known = folder.name in _FILES.values()
        raise InputError(
            f"{folder}: a file, {expected}",
            hint=f"give the folder that holds it: {folder.parent}" if known else "",
        )
    refuse_other(folder, wanted)


def refuse_other(folder: Path, wanted: Kind, *, also_host: bool = False) -> None:
    """Refuse a folder that is plainly something else than wanted; anything else passes.

    Args:
        folder: what was given.
        wanted: what it should be.
        also_host: let the host folder of a build pass.

    Raises:
        InputError: with what to give instead, or how to make it.
    """
    if not folder.is_dir() or (folder / _FILES[wanted]).exists():
        return
    kind = next((kind for kind, file in _FILES.items() if (folder / file).exists()), None)
    if kind == "host" and also_host:
        return
    if kind is not None:
        raise InputError(
            f"{folder}: this is {_NAMES[kind]}, expected {_NAMES[wanted]}", hint=_advice(folder, kind, wanted)
        )
    inside = _inside(folder, _FILES[wanted])
    if inside:
        raise InputError(f"{folder}: not {_NAMES[wanted]}", hint=f"did you mean {' or '.join(inside)}?")


def _advice(folder: Path, kind: str, wanted: Kind) -> str:
    build = folder if kind == "build" else folder.parent
    if kind == "host" and wanted != "model" and not (build / _FILES["build"]).exists():
        return "it was copied without the C++ and the Design: give the whole build folder"
    quantise = f"edgemoe quantize {folder} -o DESIGN --images PATH"
    advice = {
        ("model", "design"): f"quantise it: {quantise}",
        ("model", "build"): f"quantise it and generate a build: {quantise}; edgemoe generate DESIGN -o BUILD",
        ("design", "build"): f"generate a build of it: edgemoe generate {folder} -o BUILD",
        ("design", "model"): "give the Model folder that it was quantised from",
        ("build", "design"): f"its Design is {build / 'design'}",
        ("build", "model"): "give the Model folder that its Design was quantised from",
        ("host", "build"): f"give the build folder: {build}",
        ("host", "design"): f"the Design of the build is {build / 'design'}",
        ("host", "model"): "give the Model folder that its Design was quantised from",
    }
    return advice[kind, wanted]


def _inside(folder: Path, file: str) -> list[str]:
    """The first few folders below, one or two levels deep, that hold a file of this name."""
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir())[:_LOOKED_AT]
        deeper = [path for each in below for path in sorted(each.iterdir())[:_LOOKED_AT] if path.is_dir()]
        return [str(path) for path in (*below, *deeper) if (path / file).exists()][:3]
    except OSError:
        return []
