"""Network as hardware sees it: its shape and the widths of its numbers, without any weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pysim.activations import ACTIVATIONS, Activation
from pysim.arithmetic import Arithmetic, arithmetic_of
from pysim.precision import Precision
from pysim.program import Program, Value, program, values
from pysim.spec import ModelSpec


@dataclass(frozen=True)
class Network:
    """A network before it has integers: all that sizes, cycles and resources depend on.

    Attributes:
        spec: shape of the network.
        precision: widths and options.
    """

    spec: ModelSpec
    precision: Precision

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic: how values are computed and stored."""
        return arithmetic_of(self.precision)

    @property
    def activation(self) -> Activation:
        """The activation function of the MLPs."""
        return ACTIVATIONS[self.spec.activation]

    @cached_property
    def program(self) -> Program:
        """The operations of the network."""
        return program(self.spec, self.precision)

    @cached_property
    def values(self) -> dict[str, Value]:
        """Every value of the program, by its name."""
        return values(self.program)

    @cached_property
    def residual_width(self) -> int:
        """Bits of the residual stream, whose binary point calibration finds."""
        return self.arithmetic.residual(self.precision, 0, self.spec.dim).width
