"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.contract import BACKENDS
from common.errors import InputError
from common.fits import RESIZES
from edgemoe import completion

BackendName = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="|".join(BACKENDS),
        help="C++ for Vitis HLS, or SystemVerilog, which reads its network from memory; hls if not given.",
        autocompletion=completion.backends,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, the rest on stderr.")]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize",
        metavar="|".join(RESIZES),
        autocompletion=completion.resizes,
        help="Make pictures of another size or other colours fit; refused without.",
    ),
]
FitFlag = Annotated[bool, typer.Option("--fit", hidden=True, help="The same as --resize crop.")]
SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Zoo name, model.toml, Model, Design, or a checkpoint or ONNX file.",
        autocompletion=completion.networks,
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="What SOURCE is: m3vit, edge-moe, vit or onnx; guessed if not given.",
        autocompletion=completion.kinds,
    ),
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Experts a token.")]
Heads = Annotated[int | None, typer.Option(min=1, help="Attention heads.")]
ImageSize = Annotated[
    str | None, typer.Option("--image-size", metavar="HxW", help="Height and width in pixels.")
]
Batch = Annotated[int, typer.Option(min=1, max=64, help="Images that share each weight.")]
BoardName = Annotated[
    str,
    typer.Option(
        "--board",
        metavar="BOARD",
        help="Name of a board, or a .toml file that describes one.",
        autocompletion=completion.boards,
    ),
]
PrecisionName = Annotated[
    str | None,
    typer.Option(
        metavar="PRECISION",
        help="A preset (w16a16 if not given), or a .toml file; a Design has its own.",
        autocompletion=completion.presets,
    ),
]
Clock = Annotated[
    float | None,
    typer.Option("--clock", min=1, max=1000, metavar="MHZ", help="Clock; the board's default if not given."),
]
QueuesFile = Annotated[
    Path | None,
    typer.Option(
        "--queues", metavar="FILE", help="Tokens of each expert, as `simulate --queues-out` writes them."
    ),
]
QueuesTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Task whose queues count; the first if not given.",
        autocompletion=completion.tasks,
    ),
]
Images = Annotated[
    list[Path],
    typer.Option(
        "--image",
        "--images",
        metavar="PATH",
        help="Image, video, or folder of images; repeatable.",
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000, metavar="N", help="Frames of each video at most; all if not given."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Save results: .npz arrays, .csv a line for each image and task, .json as --json prints.",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Task, or `all`; the first if not given.",
        autocompletion=completion.tasks_or_all,
    ),
]
ClassNames = Annotated[
    list[str] | None,
    typer.Option(
        "--class-names",
        metavar="[TASK=]FILE",
        help="Names of a task's classes: one a line, or JSON; repeatable.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        max=1024,
        metavar="N",
        help="Processes of one thread each; 0 is this one, with all its threads.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run on this Dask cluster instead, such as tcp://10.0.0.1:8786."),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Keep what is done here: after an interruption, the same command goes on."
    ),
]


def resizing(resize: str | None, fit: bool) -> str | None:
    """The way in which pictures are made to fit, by both options.

    Raises:
        InputError: an unknown way, or options that contradict each other.
    """
    if resize is not None and resize not in RESIZES:
        raise InputError(f"--resize {resize}: unknown", hint=f"one of {', '.join(RESIZES)}")
    if fit and resize not in (None, "crop"):
        raise InputError(f"--fit is --resize crop, but --resize {resize} is given too")
    return "crop" if fit else resize
