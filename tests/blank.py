"""Networks without weights, and the networks of Designs, on hardware."""

from __future__ import annotations

from typing import Any

from codegen.architecture import Architecture
from codegen.hardware import Hardware, default_hardware
from pysim.design import Design
from pysim.network import Network
from pysim.precision import Precision
from pysim.spec import ModelSpec


def blank(spec: ModelSpec, precision: Precision, hardware: Hardware) -> Architecture:
    """A network of any shape and widths on some hardware."""
    return Architecture(Network(spec, precision), hardware)


def on_hardware(network: Network | Design, **changes: Any) -> Architecture:
    """A network, or that of a Design, on the default hardware but for some sizes."""
    shape = network.network if isinstance(network, Design) else network
    return Architecture(shape, default_hardware(shape).changed(**changes))
