"""The `host` folder of a build: all that the board needs beside the bitstream, the driver included."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import common
from boards import Board
from codegen.architecture import Architecture
from codegen.hwh import write_emulated_hwh
from codegen.manifest import arguments_of, manifest
from codegen.weight_image import pack_weights, port_images
from common.contract import EMULATED_HWH, HEADS, MANIFEST, WEIGHTS
from common.errors import InputError
from pysim.design import Design
from pysim.model import Model
from pysim.spec import ModelSpec

LEFT_BEHIND = ("toml",)
"""Modules of `common` that the driver does not import: boards have no `tomllib`."""


def write_host(
    design: Design, architecture: Architecture, folder: Path, board: Board, model: Model | None = None
) -> None:
    """Write manifest, weights, task heads, the driver, and the description of the emulated board.

    Args:
        design: the Design whose weights go along, with the hardware's P.
        architecture: of its network, on the hardware of the build.
        folder: to make.
        board: the board.
        model: the float network, whose task heads go along; None leaves them out.
    """
    folder.mkdir()
    write_program(design, architecture, folder, {"board": board.name, "pynq_name": board.pynq_name}, model)
    hardware = architecture.hardware
    write_emulated_hwh(
        arguments_of(architecture), folder / EMULATED_HWH, board, hardware.clock_mhz, hardware.backend
    )
    _copy_driver(folder)


def write_program(
    design: Design,
    architecture: Architecture,
    folder: Path,
    board: Mapping[str, Any],
    model: Model | None = None,
) -> None:
    """Write manifest, weights and task heads into a folder: all that an accelerator needs to run another network.

    Args:
        design: the Design whose weights go along, with the hardware's P.
        architecture: of its network, on the hardware.
        folder: where to.
        board: its `board` and `pynq_name`, as the manifest has them.
        model: the float network, whose task heads go along; None leaves them out.
    """
    heads = None if model is None else _heads(design, model)
    if heads is not None:
        (folder / HEADS).write_bytes(heads)
    ports = port_images(pack_weights(design, architecture), architecture.hardware.weight_ports)
    digest = hashlib.sha256()
    with (folder / WEIGHTS).open("wb") as file:
        for port in ports:
            digest.update(port.tobytes())
            file.write(port.tobytes())
    content = manifest(
        design,
        architecture,
        board,
        (len(ports[0]), digest.hexdigest()),
        None if heads is None else hashlib.sha256(heads).hexdigest(),
        _classes(design, model),
    )
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def require_model_of(design: Design, model: Model) -> None:
    """Refuse a Model that a Design was not made from, as far as their shapes tell."""
    if _without_names(model.spec) != _without_names(design.spec):
        raise InputError(
            f"model {model.spec.name} has another shape, other tasks or other heads than the design "
            f"of {design.spec.name}",
            hint="give the Model folder that the design was quantised from",
        )


def _without_names(spec: ModelSpec) -> dict[str, Any]:
    """The fields of a network that decide what its tensors are."""
    return spec.model_dump(exclude={"name": True, "notes": True, "task_heads": {"__all__": {"classes"}}})


def _classes(design: Design, model: Model | None) -> dict[str, list[str]]:
    """Names of the classes of each task: those of the Model, which may have got them later than the Design."""
    specs = [design.spec] if model is None else [model.spec, design.spec]
    named = {task: [spec.head(task).classes for spec in specs] for task in design.spec.tasks}
    return {task: next(filter(None, found), []) for task, found in named.items()}


def _heads(design: Design, model: Model) -> bytes | None:
    """The tensors of all task heads as an `.npz`; None where no task has one."""
    require_model_of(design, model)
    tensors = {name: tensor for name, tensor in model.weights.items() if name.startswith("heads.")}
    if not tensors:
        return None
    file = io.BytesIO()
    np.savez(file, **tensors)  # type: ignore[arg-type]
    return file.getvalue()


def _copy_driver(folder: Path) -> None:
    for package in ("common", "host"):
        (folder / package).mkdir()
        # Neighbours of `common`, not an import: what generates needs nothing of what runs.
        for file in sorted((Path(common.__file__).parents[1] / package).glob("*.py")):
            if package != "common" or file.stem not in LEFT_BEHIND:
                shutil.copyfile(file, folder / package / file.name)
