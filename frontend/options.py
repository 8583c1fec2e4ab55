"""Options of importers, and their results."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import InputError
from frontend.pixels import Normalization
from pysim.files import Tensors, write_folder
from pysim.model import Model

DECODERS = "decoders"
"""Stem of the file beside `model.toml` that holds convolutional decoders."""


@dataclass(frozen=True)
class Options:
    """Facts that a source cannot tell about itself; None where they were not said.

    Attributes:
        top_k: experts a token.
        heads: attention heads.
        image_size: height and width in pixels.
        normalization: of the images that the network was trained on.
        tasks: names of the tasks, in the order of their gates.
        norm_eps: epsilon of the LayerNorms.
        activation: name of the activation function of the MLPs.
        ignore: settings of the source's folder to leave out, by their names.
        outputs: names of the tensors of a graph that count as its outputs (ONNX only).
        fill_missing_experts: seed of random weights for experts that are missing (Edge-MoE's folder only).
        class_names: files with the names of classes, `[TASK=]FILE` each: see `frontend.class_names`.
    """

    top_k: int | None = None
    heads: int | None = None
    image_size: tuple[int, int] | None = None
    normalization: Normalization | None = None
    tasks: tuple[str, ...] | None = None
    norm_eps: float | None = None
    activation: str | None = None
    ignore: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    fill_missing_experts: int | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Imported:
    """A network from elsewhere.

    Attributes:
        model: the backbone with its linear task heads.
        decoders: tensors of convolutional decoders, `<task>.<layer>.<parameter>`, which run on the tokens.
        remarks: what was folded, assumed or left out, for people.
    """

    model: Model
    decoders: Tensors = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Write a new Model folder, with `decoders.safetensors` where there are any."""
        others = {DECODERS: self.decoders} if self.decoders else {}
        write_folder(folder, self.model.spec.to_toml(), self.model.weights, stem="model", others=others)


def model_name(source: str) -> str:
    """A name that `model.toml` takes, made of the source's."""
    path = Path(source).absolute()
    stem = path.name if path.is_dir() else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:64] or "imported"


def parse_image_size(text: str) -> tuple[int, int]:
    """Height and width from `HxW`."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if match is None:
        raise InputError(f"--image-size {text!r}: expected HxW, such as 128x256")
    return int(match[1]), int(match[2])
