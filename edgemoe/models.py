"""The commands that bring networks in and out: `import` and `export`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.console import Console
from edgemoe.options import ClassNames, Heads, ImageSize, Json, Kind, TopK

if TYPE_CHECKING:
    from pysim.model import Model

NewFolder = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to make; must not exist yet.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("import")(import_)
    app.command("export")(export)


def import_(
    ctx: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A checkpoint, a folder of one, or an ONNX file.")
    ],
    output: NewFolder,
    kind: Kind = None,
    top_k: TopK = None,
    heads: Heads = None,
    image_size: ImageSize = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="Of the training images: imagenet, half, unit, none, or MEAN/STD; a folder may say it.",
        ),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Names of the tasks, in the order of their gates.")
    ] = None,
    norm_eps: Annotated[float | None, typer.Option(help="Epsilon of the LayerNorms.")] = None,
    activation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Activation function: gelu, gelu_tanh, quick_gelu, relu."),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Settings of SOURCE's files to leave out."),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Tensors of an ONNX graph to take for its outputs: a cut."),
    ] = None,
    fill_missing_experts: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="Fill missing expert weights with random ones.")
    ] = None,
    class_names: ClassNames = None,
    json: Json = False,
) -> None:
    """Make a Model from a checkpoint (M3ViT, Edge-MoE, timm, torchvision, Hugging Face) or an ONNX file."""
    from frontend.importing import import_model
    from frontend.options import Options, parse_image_size
    from frontend.pixels import parse_normalization
    from pysim.files import require_new

    console: Console = ctx.obj
    require_new(output)
    options = Options(
        top_k=top_k,
        heads=heads,
        image_size=None if image_size is None else parse_image_size(image_size),
        normalization=None if normalize is None else parse_normalization(normalize),
        tasks=_names(tasks),
        norm_eps=norm_eps,
        activation=activation,
        ignore=_names(ignore),
        outputs=_names(outputs),
        fill_missing_experts=fill_missing_experts,
        class_names=None if class_names is None else tuple(class_names),
    )
    with console.progress("importing"):
        imported = import_model(source, options, kind)
        imported.save(output)
    for remark in imported.remarks:
        console.note(remark)
    console.result({"remarks": list(imported.remarks)})
    show_model(console, imported.model, output)


def with_class_names(model: Model, options: Sequence[str]) -> Model:
    """A Model whose heads have the names of files: see `frontend.class_names`."""
    from frontend.class_names import with_class_names as named

    return dataclasses.replace(model, spec=named(model.spec, options)) if options else model


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(","))


def export(
    ctx: typer.Context,
    model_dir: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Model folder.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.onnx", help="File to make; must not exist yet.")
    ],
    decoder: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="Export the convolutional decoder of this task instead of the network."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write the float network, or a task's decoder, as an ONNX file."""
    from frontend.onnx_export import export_decoder, export_model
    from pysim.model import Model

    console: Console = ctx.obj
    model = Model.load(model_dir)
    with console.progress("exporting"):
        if decoder is None:
            described = export_model(model, output)
        else:
            described = export_decoder(model_dir, model, decoder, output)
    console.show(f"{output}: {described}")
    console.result({"onnx": str(output), "bytes": output.stat().st_size})


def show_model(console: Console, model: Model, output: Path) -> None:
    """Say what was written."""
    spec = model.spec
    if spec.notes:
        console.warn(spec.notes)
    console.show(f"{output}: {spec.name}, {model.parameters:,} parameters, tasks {', '.join(spec.tasks)}")
    console.result(
        {
            "model": str(output),
            "name": spec.name,
            "parameters": model.parameters,
            "tasks": spec.tasks,
            "notes": spec.notes,
        }
    )
