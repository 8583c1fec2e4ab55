"""The fastest hardware for a board on the command line: fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import InputError
from edgemoe.arguments import known_backend
from edgemoe.console import Console
from edgemoe.options import (
    BackendName,
    Batch,
    BoardName,
    Clock,
    Heads,
    ImageSize,
    Json,
    Kind,
    PrecisionName,
    QueuesFile,
    QueuesTask,
    SourceName,
    TopK,
)

if TYPE_CHECKING:
    from codegen.fit import Advice, Fitted, Limits

Margins = Annotated[
    list[str] | None,
    typer.Option(
        "--margin",
        metavar="NAME=PERCENT",
        help="Percent of dsp, bram36, uram, lut or ff that may be used, as lut=85; repeatable.",
    ),
]

TRADED = ("dsp", "bram36", "uram", "lut")
"""Resources that the table of alternatives shows."""


def read_margins(margins: Sequence[str] | None) -> dict[str, float]:
    """Percentages by resource.

    Raises:
        InputError: not `name=percent`, or a resource twice.
    """
    found: dict[str, float] = {}
    for margin in margins or ():
        name, equals, text = (part.strip() for part in margin.partition("="))
        try:
            percent = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"--margin {margin}: expected NAME=PERCENT", hint="such as lut=85")
        if name in found:
            raise InputError(f"--margin {margin}: {name} is given twice", hint="give each resource once")
        found[name] = percent
    return found


def fit(
    ctx: typer.Context,
    source: SourceName,
    board: BoardName = "zcu102",
    precision: PrecisionName = None,
    kind: Kind = None,
    heads: Heads = None,
    top_k: TopK = None,
    image_size: ImageSize = None,
    backend: BackendName = None,
    margins: Margins = None,
    clock: Clock = None,
    batch: Batch = 1,
    queues: QueuesFile = None,
    task: QueuesTask = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="hardware.toml to write.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the fastest hardware that fits a board, from the shape of a network alone."""
    from boards import load_board
    from codegen.fit import advise, limits_of, space_of
    from codegen.hardware import check_clock
    from codegen.queues import read_queues
    from edgemoe.sources import Untold, read_source
    from pysim.files import new_file, require_new

    console: Console = ctx.obj
    if output is not None:
        require_new(output)
    target, (network, _) = (
        load_board(board),
        read_source(source, precision, Untold(kind, top_k, heads, image_size)),
    )
    if clock is not None:
        check_clock(target, clock)
    limits = limits_of(target, read_margins(margins))
    lengths = None if queues is None else read_queues(queues, network.spec, task, batch)
    fixed = known_backend(backend)
    search = space_of(network, target, clock_mhz=clock, batch=batch, queues=lengths, fixed=fixed)
    with console.progress("searching") as progress:
        best = search.fastest(limits, progress)
    with console.progress("what more and less would give") as progress:
        advice = advise(search, limits, best, progress)
    if output is not None:
        with new_file(output) as temporary:
            best.hardware.save(temporary)
    _show(console, best, limits, advice)
    if output is not None:
        console.show(f"{output}: for --hardware of generate and estimate")
    console.result(
        fit_json(best, limits, advice)
        | {"board": target.name, "network": network.spec.name, "precision": network.precision.name}
    )


def _show(console: Console, best: Fitted, limits: Limits, advice: Advice) -> None:
    from codegen.hardware import settable
    from edgemoe.tables import table

    performance = best.performance
    sizes = [(name, str(value)) for name, value in best.hardware.model_dump().items() if name in settable()]
    console.show(table("Fastest hardware", ("key", "value"), sizes, left=2))
    rows = [
        (
            name,
            f"{used:,.10g}",
            f"{getattr(limits, name):,.10g}",
            f"{there:,}",
            "none" if advice.gains[name] >= performance.ms else f"{performance.ms - advice.gains[name]:.3f}",
        )
        for name, (used, there) in performance.resources.items()
    ]
    columns = ("resource", "used", "limit", "on the board", "ms saved by a tenth more")
    console.show(table("What limits it", columns, rows))
    trades: list[tuple[str, ...]] = [
        (
            f"{each.performance.ms:.3f}",
            *(f"{each.performance.resources[name][0]:,.10g}" for name in TRADED),
            settings_text(_differences(best.hardware.model_dump(), each.hardware.model_dump())) or "-",
        )
        for each in advice.pareto
    ]
    heads = ("ms", "DSP", "BRAM36", "URAM", "LUT", "other settings")
    console.show(table("Time against DSP slices, memory and LUTs", heads, trades, left=0, texts=1))
    limiting = ", ".join(advice.limited_by) or "no resource: the schedule"
    console.show(
        f"{performance.ms:.3f} ms an image, {performance.cycles:,} cycles at {best.hardware.clock_mhz:g} MHz; "
        f"limited by {limiting}; {100 * advice.stage_share:.0f} % of it is {advice.stage}, "
        f"bound by {advice.stage_bound}"
    )


def _differences(best: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in other.items() if value != best[name]}


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as `--set` takes them."""
    return " ".join(f"{name}={value}" for name, value in settings.items())


def fit_json(best: Fitted, limits: Limits, advice: Advice) -> dict[str, Any]:
    """The fastest hardware under the key names that scripts rely on."""
    performance = best.performance
    return {
        "ms": performance.ms,
        "cycles": performance.cycles,
        "hardware": best.hardware.model_dump(),
        "resources": {
            name: {"used": used, "limit": getattr(limits, name), "available": there}
            for name, (used, there) in performance.resources.items()
        },
        "limited_by": list(advice.limited_by),
        "ms_with_a_tenth_more": dict(advice.gains),
        "stage": {"name": advice.stage, "share": advice.stage_share, "bound_by": advice.stage_bound},
        "pareto": [
            {
                "ms": each.performance.ms,
                "cycles": each.performance.cycles,
                "hardware": each.hardware.model_dump(),
                "resources": {name: used for name, (used, _) in each.performance.resources.items()},
            }
            for each in advice.pareto
        ],
    }
