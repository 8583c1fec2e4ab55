"""A Design: shape, precision, attention rows and integer parameters. All that computes is derived from it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.errors import InputError
from common.printable import shown
from common.toml import read_toml
from pysim.arithmetic import ICCAD23, Arithmetic, Tensor, arithmetic_of
from pysim.files import Tensors, TensorSpec, read_tensors, validate, write_folder
from pysim.folders import require_folder
from pysim.formats import Format
from pysim.kernels.linear import Requantise
from pysim.network import Network
from pysim.overflow import check_accumulators
from pysim.precision import Precision
from pysim.program import Index, Program, Scaling, program, tensors, values
from pysim.reports import TensorReport
from pysim.spec import ModelSpec

Made = TypeVar("Made")

VERSION = 2
"""Version of the Design folder's format."""

MOST_BYTES = 8 << 20
"""Limit of a `design.toml`: room for the reports of 40,000 tensors."""

AttentionRows = Annotated[int, Field(ge=1, le=1024, strict=True)]
"""P: query rows that share one pass over the keys."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


MOST_ATTENTION_ROWS = 20
"""Query rows at once, by default: what a ZCU102 has multipliers for beside the linear engine."""


ORIGINAL_ATTENTION_ROWS = 4
"""Query rows at once in the original, beside its 16 x 16 multiply-accumulates."""


def default_attention_rows(spec: ModelSpec, precision: Precision) -> int:
    """Query rows at once (P) that suit a ZCU102: spread evenly over the fewest blocks, or those of the original."""
    if arithmetic_of(precision) is ICCAD23:
        return ORIGINAL_ATTENTION_ROWS
    blocks = -(-spec.tokens // MOST_ATTENTION_ROWS)
    return -(-spec.tokens // blocks)


class DesignSpec(_Strict):
    """Everything in `design.toml`."""

    version: Literal[2]
    design_id: str
    weights_sha256: str
    residual_frac: Annotated[int, Field(ge=-64, le=64, strict=True)]
    model: ModelSpec
    precision: Precision
    attention_rows: AttentionRows
    reports: list[TensorReport] = []
    warnings: list[str] = []


class _DesignFile(_Strict):
    design: DesignSpec


def design_tensors(spec: ModelSpec, precision: Precision) -> dict[str, TensorSpec]:
    """Name, shape and dtype of every integer tensor of a Design."""
    found = tensors(program(spec, precision))
    return {name: TensorSpec(tensor.shape, tensor.dtype) for name, tensor in found.items()}


DECODE = "decode."
"""Prefix of the float64 pairs that say what traced integers mean; no hardware reads them."""


def decode_tensors(spec: ModelSpec) -> dict[str, TensorSpec]:
    """Name, shape and dtype of the decoding pairs: real = integer * scale + offset, channel by channel."""
    return {
        f"{DECODE}{name}.{part}": TensorSpec((value.scales,), np.dtype(np.float64))
        for name, value in values(program(spec)).items()
        if value.scales
        for part in ("scale", "offset")
    }


def _weights_sha256(tensors: Tensors, residual_frac: int) -> str:
    digest = hashlib.sha256(f"residual_frac {residual_frac}\n".encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Design:
    """One network, quantised.

    Attributes:
        spec: shape of the network.
        precision: widths and options.
        attention_rows: P, the query rows that share one pass over the keys; it decides the order of the keys.
        residual_frac: fraction bits of the residual stream.
        tensors: integers, named and typed as `design_tensors` says, and the `decode_tensors`.
        reports: what quantisation did, tensor by tensor.
        warnings: what is doubtful about the result, each with a layer and a figure.
    """

    spec: ModelSpec
    precision: Precision
    attention_rows: int
    residual_frac: int
    tensors: Tensors = field(repr=False)
    reports: tuple[TensorReport, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.arithmetic.exact:
            check_accumulators(self.program, self.tensors)

    def with_attention_rows(self, rows: int) -> Design:
        """The same network with another P."""
        return self if rows == self.attention_rows else self._with("attention_rows", rows)

    def with_warnings(self, warnings: tuple[str, ...]) -> Design:
        """The same Design with what is doubtful about it."""
        return self._with("warnings", warnings)

    def _with(self, field: str, value: Any) -> Design:
        """A copy that shares the weights, which were checked."""
        other = copy.copy(self)
        object.__setattr__(other, field, value)
        return other

    @cached_property
    def network(self) -> Network:
        """Shape and precision: what hardware is made for."""
        return Network(self.spec, self.precision)

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic: how values are computed and stored."""
        return self.network.arithmetic

    @property
    def residual(self) -> Format:
        """Format of the residual stream."""
        return self.arithmetic.residual(self.precision, self.residual_frac, self.spec.dim)

    @property
    def program(self) -> Program:
        """The operations of the network, which name its tensors."""
        return self.network.program

    def scalar(self, tensor: Tensor | str | None) -> int:
        """The one value of a tensor of one element, which the Design's arithmetic must have."""
        assert tensor is not None
        return int(self.tensors[tensor if isinstance(tensor, str) else tensor.name][0])

    def integers(self, tensor: Tensor | None, index: Index = ()) -> NDArray[np.int64]:
        """A tensor that the Design's arithmetic must have, or the part of it at `index`, as int64."""
        assert tensor is not None
        return self.tensors[tensor.name][index].astype(np.int64, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what was computed from them is computed again by another process."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _kept(self) -> dict[tuple[Any, ...], Any]:
        return {}

    def once(self, key: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        """Something that `make` makes of the parameters: at the first call with a key, and kept for all others."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def frac(self, tensor: Tensor) -> int:
        """Fraction bits of a parameter: those of its type or, where it has none, of the residual stream."""
        return self.residual_frac if tensor.frac is None else self.scalar(tensor.frac)

    def decode(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale and offset per channel of a traced tensor."""
        return self.tensors[f"{DECODE}{name}.scale"], self.tensors[f"{DECODE}{name}.offset"]

    def requantise(self, scaling: Scaling | None, index: Index = ()) -> Requantise:
        """Multiplier and shift, picked by `index` where there are several (experts, gates)."""
        assert scaling is not None
        shift = np.atleast_1d(self.tensors[scaling.shift.name][index]).astype(np.int64)
        if scaling.multiplier is None:
            return Requantise(np.ones(1, np.int64), shift)
        multiplier = self.tensors[scaling.multiplier.name][index]
        return Requantise(np.atleast_1d(multiplier).astype(np.int64), shift)

    @property
    def design_id(self) -> str:
        """16 hexadecimal digits over everything that decides a result: shape, precision, P and weights."""
        return self._design_id(self.weights_sha256)

    def _design_id(self, weights_sha256: str) -> str:
        content = {
            "version": VERSION,
            "model": self.spec.shape(),
            "precision": self.precision.model_dump(exclude={"name"}, mode="json"),
            "attention_rows": self.attention_rows,
            "weights_sha256": weights_sha256,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def weights_sha256(self) -> str:
        """Hash of every tensor and of what they mean: tells weights changed after quantisation."""
        return _weights_sha256(self.tensors, self.residual_frac)

    def save(self, folder: Path) -> None:
        """Write `design.toml` and `weights.safetensors` into a new folder."""
        weights_sha256 = self.weights_sha256
        content = DesignSpec(
            version=VERSION,
            design_id=self._design_id(weights_sha256),
            weights_sha256=weights_sha256,
            residual_frac=self.residual_frac,
            model=self.spec,
            precision=self.precision,
            attention_rows=self.attention_rows,
            reports=list(self.reports),
            warnings=list(self.warnings),
        ).model_dump(mode="json", exclude_none=True)
        content["model"] = self.spec.to_toml()["model"]
        write_folder(folder, {"design": content}, self.tensors, stem="design")

    @classmethod
    def load(cls, folder: Path) -> Design:
        """Read a Design folder; changed weights or a changed shape are refused."""
        require_folder(folder, "design")
        path = folder / "design.toml"
        data = read_toml(path, MOST_BYTES)
        version = data.get("design", {}).get("version") if isinstance(data.get("design"), dict) else None
        if version is not None and version != VERSION:
            raise InputError(
                f"{path}: version {shown(version)}, expected {VERSION}",
                hint="`edgemoe quantize` the model again: this release reads only Designs of its own version",
            )
        content = validate(_DesignFile, data, path).design
        expected = design_tensors(content.model, content.precision) | decode_tensors(content.model)
        tensors = read_tensors(folder / "weights.safetensors", expected)
        # Before anything is computed from the weights: damaged ones are told as such.
        found = _weights_sha256(tensors, content.residual_frac)
        if found != content.weights_sha256:
            raise _changed(folder / "weights.safetensors", "weights_sha256", found, content.weights_sha256)
        design = cls(
            content.model,
            content.precision,
            content.attention_rows,
            content.residual_frac,
            tensors,
            tuple(content.reports),
            tuple(content.warnings),
        )
        identity = design._design_id(found)
        if identity != content.design_id:
            raise _changed(path, "design_id", identity, content.design_id)
        return design


def _changed(path: Path, field: str, found: str, stated: str) -> InputError:
    return InputError(
        f"{path}: {field} is {found}, but design.toml says {stated}",
        hint="the folder was changed after `edgemoe quantize` wrote it: quantize again",
    )
