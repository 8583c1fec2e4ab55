"""Layers for hls4ml (extra `hls4ml`): single-pass softmax, GELU, LayerNorm and mixture of experts, Vitis backend.

>>> from codegen.hls4ml_layers import register  # doctest: +SKIP
>>> register()  # doctest: +SKIP

Then the torch modules of `codegen.hls4ml_layers.modules` can stand in a model that hls4ml converts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from boards.family import FAMILIES
from codegen.context import table_storage
from codegen.render import unit_functions
from codegen.sources import Sources
from hls import TEMPLATES
from pysim import datapath, tables
from pysim.activations import ACTIVATIONS
from pysim.extras import require
from pysim.formats import Format
from pysim.kernels.gelu import GELU_FRAC

BACKEND = "Vitis"

SOFTMAX_TERMS_LOG2 = 17
"""Terms of one softmax: up to 2**16 of them, each at most 1."""

_OWN = Path(__file__).parent
_sources: list[tempfile.TemporaryDirectory[str]] = []


def register() -> None:
    """Make the layers known to hls4ml; calling it again does nothing.

    Raises:
        InputError: hls4ml or torch is missing.
    """
    if _sources:
        return
    require("layers for hls4ml", "hls4ml", "torch", extra="hls4ml")
    import hls4ml

    from codegen.hls4ml_layers.layers import LAYERS, MOE_WEIGHTS, parse_module

    backend = hls4ml.backends.get_backend(BACKEND)
    for module, (layer, *templates) in LAYERS.items():
        hls4ml.converters.register_pytorch_layer_handler(module.__name__, parse_module)
        hls4ml.model.layers.register_layer(layer.__name__, layer)
        for template in templates:
            backend.register_template(template)
    # hls4ml copies sources when it writes a project: they stay until Python ends.
    folder = tempfile.TemporaryDirectory(prefix="edgemoe-hls4ml-")
    _sources.append(folder)
    for path in render(Path(folder.name), moe_weights=MOE_WEIGHTS):
        backend.register_source(path)


def render(folder: Path, *, moe_weights: tuple[str, ...]) -> list[Path]:
    """Write the C++ headers: the accelerator's own function units and tables, and the layers around them."""
    sources = Sources(_OWN, TEMPLATES / "src")
    sources.environment.globals["unit"] = unit_functions()
    functions = (*tables.UNIT_TABLES, tables.GELU_DELTA)
    names = {
        **datapath.FORMATS,
        "mantissa_frac": datapath.MANTISSA_FRAC,
        # hls4ml does not know the part here: the widest slice's ports, which only decide where products are split.
        "device": FAMILIES["zynq-ultrascale+"],
        "shift_bits": datapath.MAX_SHIFT.bit_length(),
        "softmax_terms_log2": SOFTMAX_TERMS_LOG2,
        "gelu_frac": GELU_FRAC,
        "activation": ACTIVATIONS["gelu"],
        "tables": functions,
        "storage": {"tables": table_storage(functions)},
        "blackboxes": (),
        "moe_weights": moe_weights,
    }
    written = []
    for name in (
        "counts.h",
        "types.h",
        "tables.h",
        "tables.cpp",
        "arithmetic.h",
        "units.h",
        "units.cpp",
        "edgemoe_layers.h",
    ):
        path = folder / name
        path.write_text(sources.text(name, names), encoding="utf-8")
        written.append(path)
    return written


def convert(
    model: Any, shapes: list[tuple[int, ...]], inputs: list[Format], folder: str | Path, **options: Any
) -> Any:
    """Convert a torch model with these layers to an hls4ml model, ready to compile.

    Args:
        model: a torch module.
        shapes: of its inputs, without the batch.
        inputs: number formats of its inputs.
        folder: of the hls4ml project.
        options: further arguments of hls4ml's `convert_from_pytorch_model`, such as `io_type` or `part`.

    Raises:
        InputError: an input of a layer has another format than its module was made for.
    """
    import hls4ml

    register()
    shape: Any = [(None, *one) for one in shapes]
    # Tokens are rows already; hls4ml would turn them around as it does with the channels of images.
    config = hls4ml.utils.config_from_pytorch_model(
        model,
        shape if len(shape) > 1 else shape[0],
        granularity="name",
        backend=BACKEND,
        channels_last_conversion="off",
    )
    layers = [name for name in config["LayerName"] if name in _placeholders(model)]
    for name, fmt in zip(layers, inputs, strict=True):
        config["LayerName"][name]["Precision"] = {"result": f"fixed<{fmt.width},{fmt.int_bits}>"}
    return hls4ml.converters.convert_from_pytorch_model(
        model, output_dir=str(folder), backend=BACKEND, hls_config=config, **options
    )


def _placeholders(model: Any) -> list[str]:
    from hls4ml.utils.torch import CustomFXTracer

    return [node.name for node in CustomFXTracer().trace(model).nodes if node.op == "placeholder"]
