"""A Design without a network: shapes and widths, all weights zero; and Designs on hardware."""

from __future__ import annotations

from typing import Any

import numpy as np

from codegen.architecture import Architecture
from codegen.hardware import Hardware, default_hardware
from pysim.design import Design, decode_tensors, design_tensors
from pysim.precision import Precision
from pysim.spec import ModelSpec


def blank(spec: ModelSpec, precision: Precision, hardware: Hardware) -> Architecture:
    """What is generated, quicker to make than from a Design of weights: hardware does not depend on those."""
    shapes = design_tensors(spec, precision) | decode_tensors(spec)
    tensors = {name: np.zeros(entry.shape, entry.dtype) for name, entry in shapes.items()}
    return Architecture(Design(spec, precision, hardware.attention_rows, 0, tensors), hardware)


def on_hardware(design: Design, **changes: Any) -> Architecture:
    """A Design on the default hardware but for some sizes."""
    return Architecture(design, default_hardware(design).changed(**changes))
