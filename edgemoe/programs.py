"""Programs of an accelerator on the command line: compile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgemoe
from edgemoe.console import Console
from edgemoe.options import Json


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("compile")(compile_)


def compile_(
    ctx: typer.Context,
    design_dir: Annotated[Path, typer.Argument(metavar="DESIGN_DIR", help="Design folder.")],
    build_dir: Annotated[
        Path, typer.Option("--for", metavar="BUILD_DIR", help="Build of the accelerator that is to run it.")
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Program folder to make; must not exist yet."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL_DIR", help="Take the task heads of this float network along."),
    ] = None,
    json: Json = False,
) -> None:
    """Make weights and manifest of a Design for an accelerator that is built already."""
    from codegen.build import Build
    from codegen.compiling import compile_program
    from codegen.manifest import job_names
    from edgemoe.tables import table
    from pysim.files import require_new

    console: Console = ctx.obj
    require_new(output)
    design, build = edgemoe.load_design(design_dir), Build.load(build_dir)
    network = edgemoe.load_model(model) if model is not None else None
    with console.progress("packing the weights"):
        compiled, architecture = compile_program(design, build, output, network)
    needs, holds = architecture.needs.as_dict(), architecture.capacities.as_dict()
    rows = [(name, f"{needs[name]:,}", f"{holds[name]:,}") for name in holds]
    console.show(table("On this accelerator", ("capacity", "needed", "there"), rows))
    jobs = len(job_names(architecture))
    size = architecture.sections["end"] * architecture.beat_bytes
    console.show(
        f"{output}: {design.spec.name} for hardware {architecture.hardware_id}, {jobs} jobs, "
        f"{size:,} bytes of weights"
    )
    if compiled.attention_rows != design.attention_rows:
        console.warn(
            f"attention_rows = {compiled.attention_rows} in the accelerator, {design.attention_rows} in {design_dir}: "
            "integers differ in the order of the keys; `edgemoe.compile_program` returns the Design to compare with"
        )
    console.show(f'next: accelerator.load("{output}")')
    console.result(
        {
            "program": str(output),
            "design_id": compiled.design_id,
            "hardware_id": architecture.hardware_id,
            "program_id": architecture.program_id,
            "attention_rows": compiled.attention_rows,
            "jobs": jobs,
            "weights_bytes": size,
            "capacities": {name: {"needed": needs[name], "there": holds[name]} for name in holds},
        }
    )
