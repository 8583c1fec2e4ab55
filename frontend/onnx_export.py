"""The float network and its decoders as ONNX files, through torch's exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import InputError
from pysim.extras import require
from pysim.files import new_file, require_new
from pysim.model import Model

OPSET = 20
"""The first with a GELU of its own."""

METADATA = "edgemoe"
"""Key of the model's shape, as JSON, in the metadata of exported files."""
IMAGE, TASK, TOKENS = "image", "task", "tokens"

LARGEST = 1 << 31
"""Bytes of one protocol buffer, which is all that a single ONNX file can hold."""


def export_model(model: Model, path: Path) -> str:
    """Write the network to a new ONNX file.

    Inputs are `image`, float32 (batch, channels, H, W), pixels / 256, and, where gates differ by task, `task`, an
    int64 scalar. Outputs are `tokens` (batch, tokens, dim) and the result of every linear task head, by task.

    Returns:
        What was written, for people.
    """
    torch = _require_torch()
    from frontend.network import Network

    require_new(path)
    network, spec = Network.from_model(model), model.spec
    if 4 * model.parameters >= LARGEST:
        raise InputError(
            f"{path}: {4 * model.parameters:,} bytes of weights, more than one ONNX file holds (2 GB)"
        )
    heads = [task for task in spec.tasks if task in network.heads]

    class Graph(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Any, task: Any = 0) -> Any:
            tokens = self.network(image, task)
            return (tokens, *(self.network.heads[name](tokens) for name in heads))

    # Two images, as the exporter takes a size of one for a constant.
    example: tuple[Any, ...] = (torch.zeros(2, spec.in_channels, *spec.image_size),)
    by_task = has_task_input(model)
    if by_task:
        example = (*example, torch.tensor(0))
    inputs = [IMAGE, TASK][: len(example)]
    names = [output_of(task) for task in heads]
    _export(Graph().eval(), example, path, inputs, [TOKENS, *names], {METADATA: spec.model_dump_json()})
    shown = f"inputs {', '.join(inputs)}; outputs {', '.join([TOKENS, *names])}"
    return f"{spec.name}, {model.parameters:,} parameters, opset {OPSET}; {shown}"


def export_decoder(folder: Path, model: Model, task: str, path: Path) -> str:
    """Write the convolutional decoder of a task to a new ONNX file: `tokens` in, `task`'s name out."""
    torch = _require_torch()
    from frontend.decoder import load_decoder

    require_new(path)
    spec = model.spec
    decoder = load_decoder(folder, spec, task)
    example = (torch.zeros(2, spec.tokens, spec.dim),)
    _export(decoder, example, path, [TOKENS], [task], {})
    height, width = spec.image_size
    return f"decoder of {task}: input {TOKENS}, output {task} of {height}x{width}, opset {OPSET}"


def output_of(task: str) -> str:
    """Name of the output of a task's head: the task's, unless the graph has another use for it."""
    return f"head_{task}" if task in (IMAGE, TASK, TOKENS) else task


def has_task_input(model: Model) -> bool:
    """True where the network's result depends on the task."""
    moe = model.spec.moe
    return moe is not None and len(model.spec.tasks) > 1 and (not moe.shared_gate or moe.gate_bias)


def _require_torch() -> Any:
    require("ONNX export", "onnx", "onnxscript", "torch", extra="onnx")
    import torch

    return torch


def _export(
    module: Any,
    example: tuple[Any, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    metadata: dict[str, str],
) -> None:
    import onnx
    import torch

    batch = {0: torch.export.Dim("batch", min=1)}
    shapes = tuple(batch if argument.ndim else None for argument in example)
    with _quiet():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    proto = program.model_proto
    proto.producer_name = METADATA
    onnx.helper.set_model_props(proto, metadata)
    with new_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about libraries that are not installed; its errors are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
