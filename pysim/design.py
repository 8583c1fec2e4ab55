"""A Design: shape, precision, parallelism and integer parameters. Every artefact is derived from it."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pysim import datapath, tables
from pysim.arithmetic import ICCAD23, Arithmetic, Tensor, arithmetic_of
from pysim.errors import InputError
from pysim.files import Tensors, TensorSpec, read_tensors, validate, write_folder
from pysim.folders import require_folder
from pysim.formats import Format
from pysim.kernels import iccad23
from pysim.kernels.linear import Requantise
from pysim.overflow import check_accumulators
from pysim.precision import Precision
from pysim.printable import shown
from pysim.program import Index, Program, Scaling, program, tensors, values
from pysim.reports import TensorReport
from pysim.spec import ModelSpec
from pysim.toml import read_toml

VERSION = 1
"""Version of the Design folder's format."""

MOST_BYTES = 8 << 20
"""Of a `design.toml`: room for the reports of 40,000 tensors."""

Power = Annotated[int, Field(ge=1, le=1024, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parallelism(_Strict):
    """How much hardware a design spends. Only `attention_rows` has any influence on the results."""

    linear_in: Power = 16
    """Inputs that one output of the linear engine takes a cycle."""
    linear_out: Power = 16
    """Outputs that the linear engine works on at once."""
    token_tile: Power = 4
    """Tokens that share a weight while it is in the linear engine."""
    attention_rows: Power = 16
    """P: query rows that share one pass over the keys."""
    axi_width: Literal[32, 64, 128, 256, 512] = 128
    """Bits of a memory port."""
    weight_ports: Annotated[int, Field(ge=1, le=16, strict=True)] = 4
    """Memory ports that load weights side by side."""
    weight_rows: Annotated[int, Field(ge=1, le=8192, strict=True)] = 512
    """Depth of each half of the weight buffer, in words of `linear_in` x `linear_out` weights."""
    max_batch: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    """Images that share each weight while it is on chip."""
    clock_mhz: Annotated[float, Field(ge=1, le=1000)] = 300.0


MOST_ATTENTION_ROWS = 20
"""Query rows at once, by default: what a ZCU102 has multipliers for beside the linear engine."""


ORIGINAL_ATTENTION_ROWS = 4
"""Query rows at once in the original, beside its 16 x 16 multiply-accumulates."""


def default_parallelism(
    spec: ModelSpec, precision: Precision, attention_rows: int | None = None
) -> Parallelism:
    """Parallelism that suits a ZCU102.

    Narrow weights share DSP slices in pairs, which pays for twice the outputs; query rows are spread evenly over
    the fewest blocks. The original's arithmetic, whose products take several slices each, gets the original's size.
    """
    if arithmetic_of(precision) is ICCAD23:
        rows = ORIGINAL_ATTENTION_ROWS if attention_rows is None else attention_rows
        return Parallelism(linear_out=16, token_tile=1, attention_rows=rows)
    narrow = precision.weight_width <= 8 and precision.activation_width <= 8
    blocks = -(-spec.tokens // MOST_ATTENTION_ROWS)
    rows = -(-spec.tokens // blocks) if attention_rows is None else attention_rows
    return Parallelism(linear_out=32 if narrow else 16, attention_rows=rows)


class DesignSpec(_Strict):
    """Everything in `design.toml`."""

    version: Literal[1]
    design_id: str
    weights_sha256: str
    residual_frac: Annotated[int, Field(ge=-64, le=64, strict=True)]
    model: ModelSpec
    precision: Precision
    parallelism: Parallelism
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
        parallelism: how much hardware.
        residual_frac: fraction bits of the residual stream.
        tensors: integers, named and typed as `design_tensors` says, and the `decode_tensors`.
        reports: what quantisation did, tensor by tensor.
        warnings: what is doubtful about the result, each with a layer and a figure.
    """

    spec: ModelSpec
    precision: Precision
    parallelism: Parallelism
    residual_frac: int
    tensors: Tensors
    reports: tuple[TensorReport, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.arithmetic.exact:
            check_accumulators(self.program, self.tensors)

    def with_parallelism(self, **changes: int | float) -> Design:
        """The same network on more or less hardware."""
        return self._with("parallelism", self.parallelism.model_copy(update=changes))

    def with_warnings(self, warnings: tuple[str, ...]) -> Design:
        """The same Design with what is doubtful about it."""
        return self._with("warnings", warnings)

    def _with(self, field: str, value: Any) -> Design:
        """A copy that shares the weights, which were checked."""
        other = copy.copy(self)
        object.__setattr__(other, field, value)
        return other

    @property
    def arithmetic(self) -> Arithmetic:
        """How values are computed and stored."""
        return arithmetic_of(self.precision)

    @property
    def residual(self) -> Format:
        """Format of the residual stream."""
        return self.arithmetic.residual(self.precision, self.residual_frac, self.spec.dim)

    @cached_property
    def program(self) -> Program:
        """The operations of the network, which name its tensors."""
        return program(self.spec, self.precision)

    def scalar(self, tensor: Tensor | str | None) -> int:
        """The one value of a tensor of one element, which the Design's arithmetic must have."""
        assert tensor is not None
        return int(self.tensors[tensor if isinstance(tensor, str) else tensor.name][0])

    def integers(self, tensor: Tensor | None, index: Index = ()) -> NDArray[np.int64]:
        """A tensor that the Design's arithmetic must have, or the part of it at `index`, as int64."""
        assert tensor is not None
        return self.tensors[tensor.name][index].astype(np.int64)

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
        """16 hexadecimal digits over everything that hardware is built from; weights are not part of it."""
        model = self.spec.model_dump(
            include={"image_size", "in_channels", "patch_size", "dim", "depth", "heads", "mlp_dim", "moe"},
            mode="json",
        )
        baked = {
            "version": VERSION,
            "model": model | {"tasks": len(self.spec.tasks)},
            "precision": self.precision.model_dump(exclude={"name"}, mode="json"),
            "parallelism": self.parallelism.model_dump(exclude={"clock_mhz"}, mode="json"),
            "formats": {name: str(fmt) for name, fmt in datapath.FORMATS.items()},
            "tables": [
                (t.name, t.base.tolist(), t.slope.tolist(), t.frac, t.step_bits)
                for t in (*tables.TABLES, *iccad23.TABLES)
            ],
            "gelu_table": iccad23.GELU_TABLE.tolist(),
        }
        return hashlib.sha256(json.dumps(baked, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def weights_sha256(self) -> str:
        """Hash of every tensor and of what they mean: tells weights changed after quantisation."""
        return _weights_sha256(self.tensors, self.residual_frac)

    def save(self, folder: Path) -> None:
        """Write `design.toml` and `weights.safetensors` into a new folder."""
        content = DesignSpec(
            version=VERSION,
            design_id=self.design_id,
            weights_sha256=self.weights_sha256,
            residual_frac=self.residual_frac,
            model=self.spec,
            precision=self.precision,
            parallelism=self.parallelism,
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
                hint="quantize the model again with this release",
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
            content.parallelism,
            content.residual_frac,
            tensors,
            tuple(content.reports),
            tuple(content.warnings),
        )
        if design.design_id != content.design_id:
            raise _changed(path, "design_id", design.design_id, content.design_id)
        return design


def _changed(path: Path, field: str, found: str, stated: str) -> InputError:
    return InputError(
        f"{path}: {field} is {found}, but design.toml says {stated}",
        hint="the folder was changed after `edgemoe quantize` wrote it: quantize again",
    )
