"""A Design without a network: shapes and widths, all weights zero."""

from __future__ import annotations

import numpy as np

from pysim.design import Design, Parallelism, decode_tensors, design_tensors
from pysim.precision import Precision
from pysim.spec import ModelSpec


def blank_design(spec: ModelSpec, precision: Precision, parallelism: Parallelism) -> Design:
    """What hardware is generated from, quicker to make than a Design of weights: hardware does not depend on those."""
    shapes = design_tensors(spec, precision) | decode_tensors(spec)
    tensors = {name: np.zeros(entry.shape, entry.dtype) for name, entry in shapes.items()}
    return Design(spec, precision, parallelism, 0, tensors)
