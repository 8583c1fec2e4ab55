"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pysim.spec import ModelSpec

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, the rest on stderr.")]
SourceName = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Zoo name, model.toml, Model folder or Design folder.")
]
Batch = Annotated[int, typer.Option(min=1, max=64, help="Images that share each weight.")]
BoardName = Annotated[
    str, typer.Option("--board", metavar="BOARD", help="Name of a board, or a .toml file that describes one.")
]
PrecisionName = Annotated[
    str | None,
    typer.Option(
        metavar="PRECISION", help="A preset (w16a16 if not given), or a .toml file; a Design has its own."
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
    typer.Option("--task", metavar="TASK", help="Task whose queues count; the first if not given."),
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
Fit = Annotated[bool, typer.Option("--fit", help="Resize and convert pictures that do not fit the network.")]


def tasks_of(spec: ModelSpec, task: str | None) -> list[str]:
    """Tasks that an option names: one, `all`, or the first where it is not given.

    Raises:
        InputError: no such task.
    """
    from pysim.simulator import task_number

    if task == "all" and task not in spec.tasks:
        return spec.tasks
    return [spec.tasks[0] if task is None else spec.tasks[task_number(spec, task)]]
