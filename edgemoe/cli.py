"""The `edgemoe` command line. Exit codes: 0 done, 1 a check failed, 2 bad input or usage, 130 interrupted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgemoe
from common.errors import EdgeMoeError, InputError
from common.process import BROKEN_PIPE, INTERRUPTED, run_program, system_error
from common.tasks import chosen_tasks
from edgemoe import board, completion, evaluating, hardware, helping, models, programs
from edgemoe.console import Console
from edgemoe.doctor import doctor
from edgemoe.options import (
    ClassNames,
    FitFlag,
    Frames,
    Images,
    Json,
    Out,
    Resize,
    Resume,
    Scheduler,
    TaskName,
    Workers,
    resizing,
)
from edgemoe.reporting import report
from pysim.extras import missing

if TYPE_CHECKING:
    from edgemoe.runs import TaskRun

_ASKING = {"-h", "--help", "--version"}
"""Arguments that are answered by text, with `--json` too, as is none at all."""

_OWN_PACKAGES = {"boards", "codegen", "edgemoe", "frontend", "hls", "host", "pysim"}

SHOWN_IMAGES = 16
"""Images whose results `simulate` prints for people."""

FEW_IMAGES = 8
"""Calibration on fewer images than this draws a warning."""

app = typer.Typer(
    name="edgemoe",
    help="Multi-task mixture-of-experts Vision Transformers on edge FPGAs, bit by bit.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NewFolder = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to make; must not exist yet.")
]
Rows = Annotated[
    int | None, typer.Option("--attention-rows", min=1, max=1024, help="P: query rows a pass over the keys.")
]


def _version(asked: bool) -> None:
    if asked:
        print(f"edgemoe {edgemoe.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _common(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command()
def init(
    ctx: typer.Context,
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A model.toml, or a name in the zoo.",
            autocompletion=completion.networks,
        ),
    ],
    output: NewFolder,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights.")] = 0,
    class_names: ClassNames = None,
    json: Json = False,
) -> None:
    """Make a Model with seeded random weights."""
    from pysim.files import require_new

    require_new(output)
    console: Console = ctx.obj
    with console.progress("making weights"):
        model = models.with_class_names(edgemoe.init_model(config, seed), class_names or ())
        model.save(output)
    models.show_model(console, model, output)


@app.command()
def quantize(
    ctx: typer.Context,
    model_dir: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Model folder.")],
    output: NewFolder,
    images: Annotated[
        list[Path],
        typer.Option(
            "--images",
            "--image",
            metavar="PATH",
            help="Calibration image, or a folder of them; repeatable.",
        ),
    ],
    precision: Annotated[
        str,
        typer.Option(
            metavar="PRECISION",
            help="w16a16, w8a8, w8a10, w8a8-lean, iccad23, or a .toml file.",
            autocompletion=completion.presets,
        ),
    ] = "w16a16",
    attention_rows: Rows = None,
    resize: Resize = None,
    fit: FitFlag = False,
    every: Annotated[bool, typer.Option("--all", help="Report every tensor instead of groups.")] = False,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Write sensitivity.json: the loss that each tensor causes alone."),
    ] = False,
    class_names: ClassNames = None,
    json: Json = False,
) -> None:
    """Calibrate on images and quantise a Model to a Design."""
    import warnings

    from edgemoe import tables
    from pysim.files import require_new
    from pysim.kernels.compiling import clock
    from pysim.precision import find_precision
    from pysim.sensitivity import FILE as LOSSES
    from pysim.sensitivity import losses_json, require_sensitivity

    console: Console = ctx.obj
    require_new(output)
    chosen = find_precision(precision)
    if sensitivity:
        require_sensitivity(chosen)
    model = models.with_class_names(edgemoe.load_model(model_dir), class_names or ())
    if model.spec.notes:
        console.warn(model.spec.notes)
    pixels = edgemoe.load_images(images, model, resize=resizing(resize, fit), say=console.note)
    if len(pixels) < FEW_IMAGES:
        console.warn(f"only {len(pixels)} calibration image(s): ranges may be too narrow for others")
    start = clock()
    with console.progress("calibrating") as progress, warnings.catch_warnings():
        # They are the Design's, and shown below.
        warnings.simplefilter("ignore", edgemoe.QuantizationWarning)
        design = edgemoe.quantize(model, pixels, precision, attention_rows=attention_rows, progress=progress)
    seconds = clock() - start
    texts: dict[str, str] = {}
    if sensitivity:
        with console.progress("quantising each tensor alone") as progress:
            losses = edgemoe.sensitivity(model, design, pixels, progress=progress)
        texts[LOSSES] = losses_json(losses, design.spec.tasks[0])
    design.save(output, texts)
    console.show((tables.tensors if every else tables.tensor_groups)(design.reports))
    if sensitivity:
        console.show(tables.losses(losses))
    if design.routing_agreement:
        least = min(design.routing_agreement, key=lambda gate: design.routing_agreement[gate])
        mean = sum(design.routing_agreement.values()) / len(design.routing_agreement)
        console.show(
            f"routing: {mean:.2%} of the experts chosen are the float network's, on the first images of calibration; "
            f"the least is {least} with {design.routing_agreement[least]:.2%}"
        )
    for text in design.warnings:
        console.warn(text)
    console.show(f"{output}: {precision}, design {design.design_id}, {len(pixels)} images, {seconds:.1f} s")
    console.result(
        {
            "design": str(output),
            "design_id": design.design_id,
            "weights_sha256": design.weights_sha256,
            "precision": precision,
            "images": len(pixels),
            "seconds": seconds,
            "routing_agreement": design.routing_agreement,
            "tensors": [report.model_dump() for report in design.reports],
        }
    )


@app.command()
def simulate(
    ctx: typer.Context,
    design_dir: Annotated[Path, typer.Argument(metavar="DESIGN_DIR", help="Design folder.")],
    image: Images,
    frames: Frames = None,
    task: TaskName = None,
    model_dir: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="MODEL_DIR", help="Decode results with the task heads of this float network."
        ),
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Keep and list every intermediate tensor.")] = False,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="MODEL_DIR", help="Compare with this float network, by stage; --model too."),
    ] = None,
    out: Out = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Save pictures, and of several a GIF and MP4; needs --model, or --reference to show float beside.",
        ),
    ] = None,
    queues_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Save the tokens of each expert, for estimate and fit."),
    ] = None,
    resize: Resize = None,
    fit: FitFlag = False,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    resume: Resume = None,
    json: Json = False,
) -> None:
    """Run images through a Design, bit by bit."""
    from codegen.queues import write_queues
    from common.outputs import kind_of
    from common.video import frame_rate, require_readable
    from edgemoe.chunks import Places
    from edgemoe.heads import Heads
    from edgemoe.runs import run_task, save_runs
    from edgemoe.saving import save_sheets, simulated_sheets
    from pysim.files import require_new
    from pysim.images import named_images

    places = Places(workers, scheduler, resume)
    if trace and places:
        raise InputError(
            "--trace with --workers, --scheduler or --resume",
            hint="a trace is kept in one process: leave one out",
        )

    console: Console = ctx.obj
    if save is not None and reference is None and model_dir is None:
        raise InputError(
            "--save without --model or --reference: a Design has no task heads",
            hint="--model MODEL_DIR: the Model has them; --reference MODEL_DIR shows the float network beside",
        )
    for path in (out, save, queues_out):
        if path is not None:
            require_new(path)
    kind = None if out is None else kind_of(out)
    if trace and kind in ("csv", "json"):
        raise InputError(
            f"--out {out} with --trace", hint="a trace is arrays: give a file that ends with .npz"
        )
    for path in image:
        require_readable(path)
    design = edgemoe.load_design(design_dir)
    if design.spec.notes:
        console.warn(design.spec.notes)
    model = edgemoe.load_model(reference) if reference is not None else None
    heads = Heads.of(design, model if model_dir is None else edgemoe.load_model(model_dir))
    tasks = chosen_tasks(design.spec.tasks, task)
    how = resizing(resize, fit)
    with console.progress("reading images"):
        names, pixels = named_images(image, design.spec, resize=how, say=console.note, frames=frames)
    runs = []
    for name in tasks:
        with console.progress(f"simulating {name}") as progress:
            run = run_task(
                design, pixels, name, model=model, trace=trace, progress=progress, places=places.of(name)
            )
            runs.append(run)
        heads.decode(name, run.simulation.tokens)
        _show_run(console, run, len(pixels))
        _show_outputs(console, heads.described(name), names)
    if heads.model is None and any(design.spec.head(name).kind != "none" for name in tasks):
        console.note(
            "these are tokens: --model MODEL_DIR says what the task heads make of them: classes, maps, values"
        )
    results = [run.as_json() | heads.as_json(run.task, names) for run in runs]
    if len(results) > 1:
        seconds = sum(run.seconds for run in runs)
        routing = [entry for result in results for entry in result["routing"]]
        console.result({"images": len(pixels), "seconds": seconds, "routing": routing, "runs": results})
    else:
        console.result({"images": len(pixels)} | results[0])
    if out is not None and kind is not None:
        save_runs(out, kind, runs, heads, names, console.collected, trace=trace)
        console.show(f"saved {out}")
    if save is not None and heads.model is not None:
        with console.progress("painting"):
            sheets = simulated_sheets(heads.model, pixels, runs, heads.outputs, beside=model is not None)
            saved = save_sheets(save, sheets, frame_rate(image), console.note)
        console.show(f"saved {save}: {saved}")
    if queues_out is not None:
        tokens = {run.task: {layer.layer: layer.tokens for layer in run.usage} for run in runs}
        write_queues(queues_out, design.spec, len(pixels), tokens)
        console.show(f"saved {queues_out}")


def _show_outputs(console: Console, lines: Sequence[str], names: Sequence[str]) -> None:
    """Print the results of the first images."""
    for name, line in list(zip(names, lines, strict=False))[:SHOWN_IMAGES]:
        console.show(f"{name}: {line}")
    if len(lines) > SHOWN_IMAGES:
        console.show(f"... and {len(lines) - SHOWN_IMAGES:,} more: --json, or --out FILE.csv, has all")


def _show_run(console: Console, run: TaskRun, images: int) -> None:
    from edgemoe import tables

    if run.stages:
        console.show(tables.stages(run.stages))
        if run.stage_images < images:
            console.show(f"stages: the first {run.stage_images} of {images} images; --trace takes all")
    if run.usage:
        console.show(tables.routing(run.task, run.usage))
    console.show(
        f"task {run.task}: {images} image(s) in {run.seconds:.2f} s, tokens {run.tokens_sha256[:16]}"
    )
    if run.comparison is not None:
        same = run.comparison
        console.show(
            f"against float64: SQNR {tables.decibels(same.sqnr_db)} dB "
            f"({tables.decibels(same.sqnr_db_same_routing)} dB with the same routing), "
            f"max error {same.max_error:.3g}, MAE {same.mean_error:.3g}, "
            f"routing {same.equal_choices} of {same.choices} choices equal"
        )


@app.command()
def demo(
    ctx: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Keep Model, Designs, HLS project and summary here."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Quantise and simulate the shipped digits network in every preset; generate C++ and verify it."""
    from edgemoe.demo import run_demo

    run_demo(ctx.obj, output)


@app.command()
def zoo(ctx: typer.Context, json: Json = False) -> None:
    """List the shapes that `init` knows by name."""
    from edgemoe.tables import table
    from frontend.zoo import describe, find_spec, zoo_names

    console: Console = ctx.obj
    rows, entries = [], []
    for name in zoo_names():
        spec, size = find_spec(name), describe(find_spec(name))
        experts = f"{spec.moe.experts}, top {spec.moe.top_k}" if spec.moe is not None else "none"
        height, width = spec.image_size
        numbers = (str(size.tokens), f"{size.parameters / 1e6:.2f}", f"{size.macs / 1e9:.4g}")
        rows.append((name, f"{height}x{width}", experts, ", ".join(spec.tasks), *numbers))
        entries.append({"name": name, "tasks": spec.tasks, **vars(size)})
    columns = ("name", "image", "experts", "tasks", "tokens", "M params", "GMAC/image")
    console.show(table("Zoo", columns, rows, left=4))
    console.result({"zoo": entries})


models.register(app)
evaluating.register(app)
hardware.register(app)
programs.register(app)
board.register(app)
app.command()(report)
app.command()(doctor)
helping.explain(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return run_program(lambda: _main(given))


def _main(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except SystemExit as ended:
        # Typer ends so after what a shell asked for; and typer and rich where whoever read the output has gone.
        return BROKEN_PIPE if ended.code else 0


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--json"] and len(arguments) > 1:
        arguments = [*arguments[1:], "--json"]
    # Looked for here, because errors in the other arguments go out as JSON too.
    console = Console("--json" in arguments)
    try:
        with console.remarks():
            code = app(arguments, prog_name="edgemoe", standalone_mode=False, obj=console)
        if code == INTERRUPTED:
            return INTERRUPTED
        if arguments and not _ASKING & set(arguments):
            console.finish()
        return 0
    except EdgeMoeError as error:
        return _failed(console, error)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "edgemoe"
        return _failed(
            console, InputError(error.format_message(), hint=f"`{command} --help` says what it takes")
        )
    except typer.Abort:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN_PACKAGES:
            raise
        return _failed(console, missing(error.name, f"`edgemoe {arguments[0]}`"))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _failed(console, system_error(error))
    except MemoryError:
        return _failed(
            console, InputError("not enough memory", hint="run fewer images or --frames, or without --trace")
        )


def _failed(console: Console, error: EdgeMoeError) -> int:
    # A full disk under stdout is one of the errors reported here: it must not hide itself.
    with contextlib.suppress(OSError):
        console.finish(error)
    return error.exit_code
