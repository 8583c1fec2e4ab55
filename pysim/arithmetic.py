"""The two arithmetics: which format each kind of value has, and how the parameters of a network are stored.

`Requantise` is ours: exact sums, and one rounding and one saturation for each value that is produced. `Iccad23` is
that of the original Edge-MoE (arXiv 2305.18691): one 32-bit type for all values, products that are floored one by
one, sums that wrap. What a network consists of is in `pysim.program` and the same for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pysim.activations import ACTIVATIONS
from pysim.datapath import PIXEL_FRAC, PROBABILITY, SCORE
from pysim.formats import Format, Overflow, Quantization
from pysim.kernels.iccad23 import FEATURE
from pysim.kernels.layernorm import variance_width
from pysim.precision import Precision


class Kind(Enum):
    """Kind of a value, whatever its layer: it says how its integers are read, and where hardware keeps them."""

    PIXEL = "pixel"
    """8-bit pixels of an image, patch by patch."""
    STREAM = "stream"
    """The residual stream."""
    NORMED = "normed"
    """Normalised tokens, the operands of a linear layer."""
    GATE_INPUT = "gate input"
    """The router's own copy of the normalised tokens."""
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    SCORE = "score"
    """Scores of every query with every key, before the softmax."""
    MIXED = "mixed"
    """Output of attention: values mixed by their weights, heads side by side."""
    LOGIT = "logit"
    """Scores of the experts, before the softmax."""
    PROBABILITY = "probability"
    """Weights of the chosen experts."""
    HIDDEN = "hidden"
    """Values between the two layers of an MLP."""


class Role(Enum):
    """Role of a parameter, whatever its layer: it says what type stores it."""

    PATCH_WEIGHT = "patch weight"
    LINEAR_WEIGHT = "linear weight"
    GATE_WEIGHT = "gate weight"
    ATTENTION_BIAS = "attention bias"
    """Bias of the projections around attention."""
    LINEAR_BIAS = "linear bias"
    """Bias of every other linear layer."""
    GATE_BIAS = "gate bias"
    GAMMA = "gamma"
    BETA = "beta"
    POSITION = "position"

    @property
    def is_bias(self) -> bool:
        """Whether it is added to a dot product or to a normalised value."""
        return self in (Role.ATTENTION_BIAS, Role.LINEAR_BIAS, Role.GATE_BIAS, Role.BETA)


class Source(NamedTuple):
    """The float tensor of a Model that a parameter is made from."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """One integer tensor of a Design.

    Attributes:
        name: in the file of a Design.
        shape: of the tensor.
        dtype: type that stores it.
        role: what it is; None for scales, which calibration finds.
        source: what it is made from; None for a scale, and for a bias that the Model has none of: zeros.
        frac: the tensor with its one number of fraction bits, where a type has a fixed binary point; None where
            shifts of its layer make up for the scale, or where it is in the units of the values that it is added to.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    role: Role | None = None
    source: Source | None = None
    frac: Tensor | None = None


class Arithmetic(ABC):
    """Arithmetic of a design: how values are computed, narrowed and stored.

    Attributes:
        name: as a `design.toml` has it.
        exact: whether sums must fit their accumulators; otherwise they wrap by definition.
        activations: names of the activation functions that it has.
        most_experts: experts whose exponentials it can sum for a token; None where any number is as good.
    """

    name: str
    exact: bool
    activations: frozenset[str]
    most_experts: int | None = None

    @abstractmethod
    def residual(self, precision: Precision, frac: int, dim: int) -> Format:
        """Format of the residual stream of tokens with `dim` channels."""

    @abstractmethod
    def formats(self, precision: Precision, dim: int) -> Mapping[Kind, Format]:
        """Format of every kind of value; its binary point where that is fixed, and 0 where it is calibrated."""

    @abstractmethod
    def parameter(
        self, name: str, shape: tuple[int, ...], role: Role, width: int, source: Source | None
    ) -> Tensor:
        """Format of a parameter of `width` bits; biases are as wide as sums."""

    @abstractmethod
    def scale(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor | None:
        """Format of a multiplier, a shift or another scale; None where the arithmetic has no such thing."""

    @abstractmethod
    def real(self, kind: Kind, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores, logits or probabilities in real units: natural logarithms, or weights."""


class Requantise(Arithmetic):
    """Exact sums, one rounding and one saturation for each value that is produced; scales are data."""

    name = "requantise"
    exact = True
    activations = frozenset(ACTIVATIONS)

    def residual(self, precision: Precision, frac: int, dim: int) -> Format:
        """See `Arithmetic`: narrowed for models so wide that LayerNorm's sums would leave 64 bits."""
        width = precision.residual_width
        while variance_width(width, dim) > 64:
            width -= 1
        return _saturating(width, frac)

    def formats(self, precision: Precision, dim: int) -> Mapping[Kind, Format]:
        """See `Arithmetic`."""
        operand, heads = _saturating(precision.activation_width), _saturating(precision.attention_width)
        return {
            Kind.PIXEL: Format(PIXEL_FRAC, 0),
            Kind.STREAM: self.residual(precision, 0, dim),
            Kind.NORMED: operand,
            Kind.GATE_INPUT: _saturating(precision.gate_width),
            Kind.QUERY: heads,
            Kind.KEY: heads,
            Kind.VALUE: heads,
            Kind.SCORE: SCORE,
            Kind.MIXED: operand,
            Kind.LOGIT: SCORE,
            Kind.PROBABILITY: PROBABILITY,
            Kind.HIDDEN: operand,
        }

    def parameter(
        self, name: str, shape: tuple[int, ...], role: Role, width: int, source: Source | None
    ) -> Tensor:
        """See `Arithmetic`."""
        return Tensor(
            name, shape, np.dtype(np.int64 if role.is_bias else Format(width, 0).dtype), role, source
        )

    def scale(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor | None:
        """See `Arithmetic`."""
        return Tensor(name, shape, np.dtype(dtype))

    def real(self, kind: Kind, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `Arithmetic`: scores and logits are in units of log2."""
        if kind is Kind.PROBABILITY:
            return PROBABILITY.to_float(integers)
        return SCORE.to_float(integers) * np.log(2)


class Iccad23(Arithmetic):
    """The original's: 32-bit features, every product floored, sums that wrap; 16-bit parameters."""

    name = "iccad23"
    exact = False
    activations = frozenset(("gelu",))
    # Each exponential is at most 1, and their sum is a feature.
    most_experts = (1 << (FEATURE.width - 1 - FEATURE.frac)) - 1

    PARAMETERS: ClassVar[Mapping[Role, str]] = {
        Role.PATCH_WEIGHT: "patch_weight",
        Role.LINEAR_WEIGHT: "linear_weight",
        Role.GATE_WEIGHT: "linear_weight",
        Role.ATTENTION_BIAS: "attention_bias",
        Role.LINEAR_BIAS: "linear_bias",
        Role.GAMMA: "norm",
        Role.BETA: "norm",
    }
    """The 16-bit type of each parameter, by its name in a Design; others are features."""

    def residual(self, precision: Precision, frac: int, dim: int) -> Format:
        """See `Arithmetic`."""
        return Format(precision.residual_width, frac)

    def formats(self, precision: Precision, dim: int) -> Mapping[Kind, Format]:
        """See `Arithmetic`."""
        return dict.fromkeys(Kind, FEATURE) | {Kind.PIXEL: Format(PIXEL_FRAC, PIXEL_FRAC, False)}

    def parameter(
        self, name: str, shape: tuple[int, ...], role: Role, width: int, source: Source | None
    ) -> Tensor:
        """See `Arithmetic`."""
        kind = self.PARAMETERS.get(role)
        if kind is None:
            return Tensor(name, shape, np.dtype(np.int32), role, source)
        frac = Tensor(f"frac.{kind}", (1,), np.dtype(np.int32))
        return Tensor(name, shape, np.dtype(np.int16), role, source, frac)

    def scale(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor | None:
        """See `Arithmetic`."""
        return None

    def real(self, kind: Kind, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `Arithmetic`."""
        return FEATURE.to_float(integers)


def _saturating(width: int, frac: int = 0) -> Format:
    return Format(width, frac, True, Quantization.AP_RND, Overflow.AP_SAT)


REQUANTISE, ICCAD23 = Requantise(), Iccad23()

ARITHMETICS: Mapping[str, Arithmetic] = {each.name: each for each in (REQUANTISE, ICCAD23)}
"""Every arithmetic by its name."""


def arithmetic_of(precision: Precision) -> Arithmetic:
    """The arithmetic that a precision names."""
    return ARITHMETICS[precision.arithmetic]
