"""The layers in hls4ml's terms: its intermediate layers, its two templates each, and the handlers of torch modules."""

from __future__ import annotations

from typing import Any

import numpy as np
from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
from hls4ml.model.layers import Layer
from hls4ml.model.types import FixedPrecisionType, IntegerPrecisionType

from codegen.hls4ml_layers.modules import (
    ExactLayerNorm,
    IntegerModule,
    MixtureOfExperts,
    SinglePassSoftmax,
    TableGelu,
)
from common.errors import InputError
from pysim.datapath import NORM_WEIGHT_WIDTH
from pysim.formats import Format

HEADER = "nnet_utils/edgemoe_layers.h"
BETA_BITS = 56

MOE_WEIGHTS = (
    "fc1_weight",
    "fc1_bias",
    "fc1_multiplier",
    "fc1_shift",
    "hidden_multiplier",
    "hidden_shift",
    "hidden_zero",
    "fc2_weight",
    "fc2_bias",
    "fc2_multiplier",
    "fc2_shift",
    "gate_weight",
    "gate_bias",
    "gate_multiplier",
    "gate_shift",
)
"""Arrays of a mixture of experts, in the order of the C++ structure that holds them."""


class EdgeMoeLayer(Layer):
    """Base of the layers: the torch module is kept, and the result has the shape of the first input."""

    def initialize(self) -> None:
        """Declare the result and the constant arrays."""
        variable = self.get_input_variable()
        self.add_output_variable(list(variable.shape), precision=precision_of(self.get_attr("module").result))
        for name, values, bits, signed in self.arrays():
            self.add_weights_variable(
                name=name,
                var_name=f"{name}{{index}}",
                precision=IntegerPrecisionType(bits, signed),
                data=values,
            )

    def arrays(self) -> list[tuple[str, Any, int, bool]]:
        """Name, integers, width and sign of each constant array."""
        return []


class EdgeMoeGelu(EdgeMoeLayer):
    """GELU."""


class EdgeMoeSoftmax(EdgeMoeLayer):
    """Single-pass softmax."""


class EdgeMoeLayerNorm(EdgeMoeLayer):
    """LayerNorm."""

    def arrays(self) -> list[tuple[str, Any, int, bool]]:
        """See `EdgeMoeLayer`."""
        module: ExactLayerNorm = self.get_attr("module")
        return [("gamma", module.gamma, NORM_WEIGHT_WIDTH, True), ("beta", module.beta, BETA_BITS, True)]


class EdgeMoeExperts(EdgeMoeLayer):
    """Mixture of experts."""

    def arrays(self) -> list[tuple[str, Any, int, bool]]:
        """See `EdgeMoeLayer`."""
        found = self.get_attr("module").parameters_by_name()
        return [(name, *found[name]) for name in MOE_WEIGHTS]


def precision_of(fmt: Format) -> FixedPrecisionType:
    """A number format in hls4ml's terms."""
    return FixedPrecisionType(fmt.width, fmt.int_bits, fmt.signed)


def check_input(node: Layer, name: str, fmt: Format) -> None:
    """Refuse an input of another format than the module was made for.

    Raises:
        InputError: naming the layer and both formats.
    """
    found = node.get_input_variable(name).type.precision
    width, integer, signed = found.width, getattr(found, "integer", found.width), found.signed
    if (width, integer, signed) != (fmt.width, fmt.int_bits, fmt.signed):
        raise InputError(
            f"layer {node.name}: input {name} is {found}, but the module was made for {fmt}",
            hint="set the result precision of the layer before it in the hls4ml configuration",
        )


class _Config(LayerConfigTemplate):
    """Constants of a layer as a C++ structure."""

    layer: type[Layer] = EdgeMoeLayer

    def __init__(self) -> None:
        super().__init__(self.layer)

    def format(self, node: Layer) -> str:
        """The structure, after the formats of the inputs were checked."""
        module: IntegerModule = node.get_attr("module")
        for name, fmt in zip(node.inputs, module.inputs, strict=True):
            check_input(node, name, fmt)
        shape = node.get_input_variable().shape
        lines = [
            f"static const unsigned rows = {int(np.prod(shape[:-1]))};",
            f"static const unsigned channels = {shape[-1]};",
            *self.constants(module),
            *(f"typedef {variable.type.name} {name}_t;" for name, variable in node.weights.items()),
        ]
        body = "\n".join(f"    {line}" for line in lines)
        return f"struct config{node.index} {{\n{body}\n}};\n"

    def constants(self, module: Any) -> list[str]:
        """Declarations beside the sizes and types."""
        return []


class GeluConfig(_Config):
    """Constants of a GELU."""

    layer = EdgeMoeGelu


class SoftmaxConfig(_Config):
    """Constants of a softmax."""

    layer = EdgeMoeSoftmax

    def constants(self, module: SinglePassSoftmax) -> list[str]:
        """See `_Config`."""
        return [
            f"static constexpr long long multiplier = {module.multiplier};",
            f"static constexpr int shift = {module.shift};",
        ]


class NormConfig(_Config):
    """Constants of a LayerNorm."""

    layer = EdgeMoeLayerNorm

    def constants(self, module: ExactLayerNorm) -> list[str]:
        """See `_Config`."""
        return [
            f"static constexpr int gamma_frac = {module.gamma_frac};",
            f"static constexpr unsigned long long epsilon = {module.epsilon}ULL;",
        ]


class ExpertsConfig(_Config):
    """Constants of a mixture of experts."""

    layer = EdgeMoeExperts

    def constants(self, module: MixtureOfExperts) -> list[str]:
        """See `_Config`."""
        moe = module.moe
        return [
            f"static const unsigned experts = {moe.experts};",
            f"static const unsigned hidden = {moe.hidden_dim};",
            f"static const unsigned top_k = {moe.top_k};",
            f"static constexpr bool over_selected = {str(moe.gate_kind.over_selected).lower()};",
        ]


class _Call(FunctionCallTemplate):
    """The call of a layer's function."""

    layer: type[Layer] = EdgeMoeLayer
    function = ""

    def __init__(self) -> None:
        super().__init__(self.layer, include_header=[HEADER])

    def format(self, node: Layer) -> str:
        """The call with all variables and types."""
        variables = [*(node.get_input_variable(name) for name in node.inputs), node.get_output_variable()]
        types = [variable.type.name for variable in variables]
        arguments = [variable.name for variable in variables] + self.weights(node)
        return f"edgemoe::{self.function}<{', '.join(types)}, config{node.index}>({', '.join(arguments)});"

    def weights(self, node: Layer) -> list[str]:
        """Names of the constant arrays in the call."""
        return [variable.name for variable in node.weights.values()]


class GeluCall(_Call):
    """Call of a GELU."""

    layer, function = EdgeMoeGelu, "gelu"


class SoftmaxCall(_Call):
    """Call of a softmax."""

    layer, function = EdgeMoeSoftmax, "softmax"


class NormCall(_Call):
    """Call of a LayerNorm."""

    layer, function = EdgeMoeLayerNorm, "layer_norm"


class ExpertsCall(_Call):
    """Call of a mixture of experts."""

    layer, function = EdgeMoeExperts, "experts"

    def weights(self, node: Layer) -> list[str]:
        """See `_Call`."""
        return [f"{{{', '.join(super().weights(node))}}}"]


LAYERS: dict[type[IntegerModule], tuple[type[Layer], type[_Config], type[_Call]]] = {
    TableGelu: (EdgeMoeGelu, GeluConfig, GeluCall),
    SinglePassSoftmax: (EdgeMoeSoftmax, SoftmaxConfig, SoftmaxCall),
    ExactLayerNorm: (EdgeMoeLayerNorm, NormConfig, NormCall),
    MixtureOfExperts: (EdgeMoeExperts, ExpertsConfig, ExpertsCall),
}
"""The hls4ml layer and its templates by the torch module that becomes it."""


def parse_module(
    operation: str,
    layer_name: str,
    input_names: list[str],
    input_shapes: list[list[int | None]],
    node: Any,
    module: IntegerModule,
    reader: Any,
    config: Any,
) -> tuple[dict[str, Any], list[int | None]]:
    """Handler of all four modules: hls4ml's description of the layer, and the shape of its result."""
    layer_class = LAYERS[type(module)][0].__name__
    description = {"class_name": layer_class, "name": layer_name, "inputs": input_names, "module": module}
    return description, list(input_shapes[0])
