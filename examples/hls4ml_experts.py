"""A mixture of experts, a GELU and a softmax of edgemoe inside hls4ml models for Vitis, checked bit by bit.

Quantises a network of the zoo, puts LayerNorm and experts of one of its layers into a torch model, converts that with
hls4ml, compiles it with g++, and compares `predict` with the simulator. Then the same with LayerNorm, GELU and softmax
made of ordinary torch parameters::

    pip install 'edgemoe[hls4ml]'
    python examples/hls4ml_experts.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgemoe
from codegen.hls4ml_layers import convert
from pysim.design import Design
from pysim.extras import MissingPackageError
from pysim.formats import Format

try:
    import torch
    from torch import Tensor, nn

    from codegen.hls4ml_layers.modules import (
        ExactLayerNorm,
        IntegerModule,
        MixtureOfExperts,
        SinglePassSoftmax,
        TableGelu,
    )
except (MissingPackageError, ModuleNotFoundError):
    print("error: this example needs hls4ml and torch", file=sys.stderr)
    print("hint: pip install 'edgemoe[hls4ml]'", file=sys.stderr)
    sys.exit(2)

LAYER, TASK, ROWS = 1, "depth", 9


class Experts(nn.Module):
    """The second norm of a layer, in the formats of the experts and of the gate, and the experts."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.norm = ExactLayerNorm.from_design(design, LAYER, 2)
        self.gate_norm = ExactLayerNorm.from_design(design, LAYER, 2, gate=True)
        self.moe = MixtureOfExperts(design, LAYER, TASK)

    def forward(self, x: Tensor) -> Tensor:
        """Map the residual stream (rows, dim) to what the experts add to it."""
        return self.moe(self.norm(x), self.gate_norm(x))


class Elementwise(nn.Module):
    """A LayerNorm of torch, GELU and softmax, in formats of your own."""

    def __init__(self, norm: nn.LayerNorm, source: Format, result: Format) -> None:
        super().__init__()
        self.norm = ExactLayerNorm.from_torch(norm, source, Format(16, 11))
        self.act = TableGelu(Format(16, 11), Format(18, 12))
        self.soft = SinglePassSoftmax(Format(18, 12), result)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, channels) to probabilities."""
        return self.soft(self.act(self.norm(x)))


def compare(
    model: nn.Module, last: IntegerModule, source: Format, integers: NDArray[np.int64], folder: Path
) -> None:
    """Convert, compile, predict, and count the values that differ from the simulator's."""
    converted = convert(model, [integers.shape[1:]], [source], folder, io_type="io_parallel")
    converted.compile()
    real = source.to_float(integers)
    predicted = (
        np.asarray(converted.predict(np.ascontiguousarray(real))).reshape(integers.shape) / last.result.lsb
    )
    expected = model(torch.from_numpy(real)).numpy() / last.result.lsb
    print(
        f"{type(model).__name__}: {predicted.size} values compared, {int((predicted != expected).sum())} mismatches"
    )


def main() -> None:
    """Run both."""
    model = edgemoe.init_model("micro", seed=1)
    design = edgemoe.quantize(model, edgemoe.random_images(model, 12), precision="w8a8")
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        stream = Format(design.residual.width, 0)
        limit = 1 << (stream.width - 4)
        x = generator.integers(-limit, limit, (16, ROWS, model.spec.dim))
        experts = Experts(design)
        compare(experts, experts.moe, stream, x, Path(temporary) / "experts")

        source = Format(20, 10)
        x = generator.integers(-(1 << 13), 1 << 13, (16, ROWS, model.spec.dim))
        elementwise = Elementwise(nn.LayerNorm(model.spec.dim), source, Format(17, 16, signed=False))
        compare(elementwise, elementwise.soft, source, x, Path(temporary) / "elementwise")


if __name__ == "__main__":
    main()
