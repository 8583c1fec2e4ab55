"""A Design: shape, precision, parallelism and integer parameters. Every artefact is derived from it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pysim import datapath, tables
from pysim.datapath import (
    ACCUMULATOR_LIMIT,
    EXPONENTIAL,
    MAX_SHIFT,
    MULTIPLIER_WIDTH,
    NORM_WEIGHT_WIDTH,
    PIXEL_OFFSET,
)
from pysim.errors import InputError, OverflowRiskError
from pysim.files import Tensors, TensorSpec, read_tensors, validate, write_folder
from pysim.folders import require_folder
from pysim.formats import Format
from pysim.kernels import iccad23
from pysim.kernels.linear import Requantise
from pysim.precision import Precision
from pysim.printable import shown
from pysim.reports import TensorReport
from pysim.spec import ModelSpec
from pysim.toml import read_toml

FLOAT64_INTEGER_BITS = 53
"""The simulator multiplies integers in float64, exactly while sums stay under this many bits."""

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
    clock_mhz: Annotated[float, Field(gt=0, le=1000)] = 300.0


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
    if precision.arithmetic == "iccad23":
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


class _DesignFile(_Strict):
    design: DesignSpec


def _int_dtype(width: int) -> np.dtype[Any]:
    return np.dtype(Format(width, 0).dtype)


def design_tensors(spec: ModelSpec, precision: Precision) -> dict[str, TensorSpec]:
    """Name, shape and dtype of every integer tensor of a Design."""
    make = _iccad23_tensors if precision.arithmetic == "iccad23" else _requantise_tensors
    return {name: TensorSpec(shape, np.dtype(dtype)) for name, shape, dtype in make(spec, precision)}


_Entry = tuple[str, tuple[int, ...], Any]


def _requantise_tensors(spec: ModelSpec, precision: Precision) -> Iterator[_Entry]:
    def linear(name: str, shape: tuple[int, ...], width: int) -> Iterator[_Entry]:
        yield f"{name}.weight", shape, _int_dtype(width)
        yield f"{name}.bias", shape[:-1], np.int64
        yield from scaling(name, shape[:-1])

    def scaling(name: str, shape: tuple[int, ...]) -> Iterator[_Entry]:
        if precision.multipliers:
            yield f"{name}.multiplier", shape, np.uint16
        yield f"{name}.shift", shape, np.uint8

    dim, width = spec.dim, precision.weight_width
    yield from linear("patch", (dim, spec.patch_values), width)
    yield "position", (spec.tokens, dim), np.int32
    yield "epsilon", (1,), np.int64
    for layer in range(spec.depth):
        block = f"blocks.{layer}"
        for norm in ("norm1", "norm2"):
            yield f"{block}.{norm}.gamma", (dim,), np.int32
            yield f"{block}.{norm}.beta", (dim,), np.int64
            yield f"{block}.{norm}.shift", (1,), np.uint8
        yield from linear(f"{block}.qkv", (3 * dim, dim), width)
        yield f"{block}.score_shift", (1,), np.uint8
        yield f"{block}.attention_shift", (1,), np.int8
        yield from linear(f"{block}.proj", (dim, dim), width)
        if spec.moe is None or layer not in spec.moe_layers:
            experts: tuple[int, ...] = ()
            hidden = spec.mlp_dim
        else:
            moe = spec.moe
            experts, hidden = (moe.experts,), moe.hidden_dim
            gates = 1 if moe.shared_gate else len(spec.tasks)
            yield f"{block}.norm2.gate_shift", (1,), np.uint8
            yield f"{block}.gate.weight", (gates, moe.experts, dim), _int_dtype(precision.gate_width)
            yield f"{block}.gate.bias", (len(spec.tasks), moe.experts), np.int64
            yield from scaling(f"{block}.gate", (gates, moe.experts))
        yield from linear(f"{block}.fc1", (*experts, hidden, dim), width)
        yield from scaling(f"{block}.hidden", experts or (1,))
        yield f"{block}.hidden.zero", experts or (1,), np.int32
        yield from linear(f"{block}.fc2", (*experts, dim, hidden), width)


ICCAD23_FRACS = ("patch_weight", "linear_weight", "attention_bias", "linear_bias", "norm")
"""Parameter types of the original whose binary points a Design of its arithmetic carries."""


def _iccad23_tensors(spec: ModelSpec, precision: Precision) -> Iterator[_Entry]:
    def linear(name: str, shape: tuple[int, ...]) -> Iterator[_Entry]:
        yield f"{name}.weight", shape, np.int16
        yield f"{name}.bias", shape[:-1], np.int16

    for kind in ICCAD23_FRACS:
        yield f"frac.{kind}", (1,), np.int32
    dim = spec.dim
    yield from linear("patch", (dim, spec.patch_values))
    yield "position", (spec.tokens, dim), np.int32
    for layer in range(spec.depth):
        block = f"blocks.{layer}"
        for norm in ("norm1", "norm2"):
            yield f"{block}.{norm}.gamma", (dim,), np.int16
            yield f"{block}.{norm}.beta", (dim,), np.int16
        yield from linear(f"{block}.qkv", (3 * dim, dim))
        yield from linear(f"{block}.proj", (dim, dim))
        experts: tuple[int, ...] = ()
        hidden = spec.mlp_dim
        if spec.moe is not None and layer in spec.moe_layers:
            experts, hidden = (spec.moe.experts,), spec.moe.hidden_dim
            gates = 1 if spec.moe.shared_gate else len(spec.tasks)
            yield f"{block}.gate.weight", (gates, *experts, dim), np.int16
            yield f"{block}.gate.bias", (len(spec.tasks), *experts), np.int32
        yield from linear(f"{block}.fc1", (*experts, hidden, dim))
        yield from linear(f"{block}.fc2", (*experts, dim, hidden))


DECODE = "decode."
"""Prefix of the float64 pairs that say what traced integers mean; no hardware reads them."""


def decode_tensors(spec: ModelSpec) -> dict[str, TensorSpec]:
    """Name, shape and dtype of the decoding pairs: real = integer * scale + offset, channel by channel."""
    widths: dict[str, int] = {}
    for layer in range(spec.depth):
        block = f"blocks.{layer}"
        widths |= {f"{block}.{name}": spec.dim for name in ("norm1", "norm2", "q", "k", "v", "attention")}
        experts = spec.moe.experts if spec.moe is not None and layer in spec.moe_layers else 1
        widths[f"{block}.hidden"] = experts
    return {
        f"{DECODE}{name}.{part}": TensorSpec((width,), np.dtype(np.float64))
        for name, width in widths.items()
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
class Linear:
    """Integer parameters of one linear layer (one expert's, where there are several)."""

    weight: NDArray[Any]
    bias: NDArray[np.int64]
    requantise: Requantise


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
    """

    spec: ModelSpec
    precision: Precision
    parallelism: Parallelism
    residual_frac: int
    tensors: Tensors
    reports: tuple[TensorReport, ...] = ()

    def __post_init__(self) -> None:
        if self.precision.arithmetic == "requantise":
            check_accumulators(self)

    def with_parallelism(self, **changes: int | float) -> Design:
        """The same network on more or less hardware. The weights, which were checked, are shared."""
        other = copy.copy(self)
        object.__setattr__(other, "parallelism", self.parallelism.model_copy(update=changes))
        return other

    @property
    def residual(self) -> Format:
        """Format of the residual stream."""
        return self.precision.residual(self.residual_frac, self.spec.dim)

    def scalar(self, name: str) -> int:
        """The one value of a tensor of one element."""
        return int(self.tensors[name][0])

    def decode(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale and offset per channel of a traced tensor."""
        return self.tensors[f"{DECODE}{name}.scale"], self.tensors[f"{DECODE}{name}.offset"]

    def requantise(self, name: str, index: tuple[int, ...] = ()) -> Requantise:
        """Multiplier and shift of a layer, picked by `index` where there are several (experts, gates)."""
        shift = np.atleast_1d(self.tensors[f"{name}.shift"][index]).astype(np.int64)
        multiplier = self.tensors.get(f"{name}.multiplier")
        if multiplier is None:
            return Requantise(np.ones(1, np.int64), shift)
        return Requantise(np.atleast_1d(multiplier[index]).astype(np.int64), shift)

    def requantise_by(self, name: str) -> Requantise:
        """A plain right shift, by the one value of a tensor."""
        return Requantise(np.ones(1, np.int64), self.tensors[name].astype(np.int64))

    def linear(self, name: str, index: tuple[int, ...] = ()) -> Linear:
        """Parameters of a linear layer, picked by `index` where there are several."""
        weight, bias = self.tensors[f"{name}.weight"][index], self.tensors[f"{name}.bias"][index]
        return Linear(weight, bias.astype(np.int64), self.requantise(name, index))

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
        )
        if design.design_id != content.design_id:
            raise _changed(path, "design_id", design.design_id, content.design_id)
        return design


def _changed(path: Path, field: str, found: str, stated: str) -> InputError:
    return InputError(
        f"{path}: {field} is {found}, but design.toml says {stated}",
        hint="the folder was changed after `edgemoe quantize` wrote it: quantize again",
    )


def check_accumulators(design: Design) -> None:
    """Refuse a Design in which any sum could leave its accumulator, whatever the image.

    Raises:
        OverflowRiskError: naming the layer, the bits it may need and the bits there are.
    """
    spec, precision = design.spec, design.precision
    weighted_bits = (spec.tokens << EXPONENTIAL.frac).bit_length() + precision.attention_width
    if weighted_bits > FLOAT64_INTEGER_BITS:
        raise OverflowRiskError(
            f"attention over {spec.tokens} tokens may need {weighted_bits} bits, there are {FLOAT64_INTEGER_BITS}",
            hint="use smaller images or a narrower attention_width",
        )
    activation = -precision.activation.min
    _check_linear(design, "patch", PIXEL_OFFSET)
    for layer in range(spec.depth):
        block = f"blocks.{layer}"
        for name in ("qkv", "proj", "fc1", "fc2"):
            _check_linear(design, f"{block}.{name}", activation)
        if layer in spec.moe_layers:
            _check_linear(design, f"{block}.gate", -precision.gate_input.min)
        for norm in ("norm1", "norm2"):
            gamma = int(np.abs(design.tensors[f"{block}.{norm}.gamma"]).max(initial=0))
            if gamma >= 1 << (NORM_WEIGHT_WIDTH - 1):
                raise OverflowRiskError(
                    f"{block}.{norm}.gamma: {gamma} needs more than {NORM_WEIGHT_WIDTH} bits"
                )


def _check_linear(design: Design, name: str, largest_operand: int) -> None:
    weight, bias = design.tensors[f"{name}.weight"], design.tensors[f"{name}.bias"]
    sums = np.abs(weight.astype(np.int64)).sum(axis=-1).astype(object) * largest_operand
    # In Python integers, as -2**63 has no absolute value in int64.
    largest = int((sums + np.abs(bias.astype(object))).max())
    if largest.bit_length() + 1 > ACCUMULATOR_LIMIT:
        raise OverflowRiskError(
            f"{name}: a dot product of {weight.shape[-1]} terms may need {largest.bit_length() + 1} bits, "
            f"the accumulator has {ACCUMULATOR_LIMIT}",
            hint="choose narrower operands, or check the layer for outlying biases",
        )
    multiplier_bits = MULTIPLIER_WIDTH if design.precision.multipliers else 0
    if largest.bit_length() + multiplier_bits > MAX_SHIFT:
        raise OverflowRiskError(
            f"{name}: requantising may need {largest.bit_length() + multiplier_bits} bits, there are {MAX_SHIFT}"
        )
    shift = int(design.tensors[f"{name}.shift"].max())
    if shift > MAX_SHIFT:
        raise OverflowRiskError(f"{name}.shift: {shift}, expected at most {MAX_SHIFT}")
