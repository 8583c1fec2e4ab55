"""Commands about hardware: generate, verify, estimate, boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgemoe
from common.errors import CheckError, InputError
from edgemoe import completion
from edgemoe.arguments import known_backend
from edgemoe.board import verify_host
from edgemoe.checks import verify_check
from edgemoe.console import Console
from edgemoe.fitting import fit
from edgemoe.kernels import verify_rtl
from edgemoe.options import (
    BackendName,
    Batch,
    BoardName,
    Clock,
    FitFlag,
    Heads,
    ImageSize,
    Json,
    Kind,
    PrecisionName,
    QueuesFile,
    QueuesTask,
    Resize,
    SourceName,
    TopK,
    resizing,
)
from edgemoe.synthesis import verify_synthesis

if TYPE_CHECKING:
    from boards import Board
    from codegen.csim import CsimResult
    from codegen.hardware import Hardware
    from codegen.performance import Performance
    from edgemoe.sources import Source
    from pysim.spec import ModelSpec

HOST_IMAGES = 4
"""Images that `verify --host` runs unless told otherwise."""

HardwareFile = Annotated[
    Path | None,
    typer.Option(
        "--hardware", metavar="FILE", help="A hardware.toml; keys that it does not name have their defaults."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One key of the hardware, as lanes=8; repeatable.",
        autocompletion=completion.settings,
    ),
]
DesignFolder = Annotated[Path, typer.Argument(metavar="DESIGN_DIR", help="Design folder.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (generate, verify, fit, estimate, boards):
        app.command()(command)


@dataclass(frozen=True)
class Wish:
    """Options of a command line about the hardware.

    Attributes:
        file: a `hardware.toml`, if one is given.
        settings: `key=value`s.
        clock_mhz: clock, if it is given.
        batch: images on chip together.
        made_of: the field `backend` of the hardware, if it is given.
    """

    file: Path | None
    settings: Sequence[str]
    clock_mhz: float | None = None
    batch: int = 1
    made_of: Mapping[str, str] = field(default_factory=dict)


def chosen_hardware(
    console: Console, source: Source, board: Board, wish: Wish, *, must_fit: bool = True
) -> Hardware:
    """The fastest hardware that fits of those with the given settings, or that of a file with the settings instead.

    Args:
        console: where one line says what was chosen.
        source: the network.
        board: the board.
        wish: what the command line says.
        must_fit: whether it is an error if nothing fits; without it, the hardware that suits a ZCU102 is taken.

    Raises:
        InputError: no such key, a value out of its range, or nothing fits.
    """
    from codegen.fit import fitted
    from codegen.hardware import Hardware, check_clock, default_hardware, parse_settings

    network, design = source
    rows = None if design is None else design.attention_rows
    hardware = default_hardware(network, board, rows)
    settings = [*wish.settings]
    if wish.clock_mhz is not None:
        settings.append(f"clock_mhz={wish.clock_mhz:g}")
    if wish.file is not None:
        return Hardware.load(wish.file, hardware).with_settings(settings).changed(**wish.made_of)
    # Mistakes are told before anything is searched for.
    hardware, fixed = hardware.with_settings(settings).changed(**wish.made_of), parse_settings(settings)
    clock_mhz, batch = fixed.pop("clock_mhz", None), max(wish.batch, fixed.pop("max_batch", 1))
    check_clock(board, hardware.clock_mhz)
    try:
        with console.progress("searching for the fastest hardware that fits") as progress:
            found = fitted(
                network,
                board,
                clock_mhz=clock_mhz,
                batch=batch,
                fixed={**fixed, **wish.made_of},
                progress=progress,
            )
    except InputError as error:
        if must_fit and not fixed:
            raise
        if not must_fit:
            console.warn(f"{error.message}; what is not set suits a zcu102")
        return hardware
    hardware = found.hardware
    console.note(
        f"hardware: the fastest that fits {board.name}, {hardware.lanes} x {hardware.outputs} x "
        f"{hardware.token_tile} products and {hardware.attention_rows} query rows at once, "
        f"{found.performance.ms:.3f} ms an image (`edgemoe fit` tells more)"
    )
    return hardware


def generate(
    ctx: typer.Context,
    design_dir: DesignFolder,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Build folder to make; must not exist yet.")
    ],
    board: BoardName = "zcu102",
    backend: BackendName = None,
    hardware: HardwareFile = None,
    settings: Settings = None,
    image: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Image for the test bench; random if not given.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Images on chip together.")] = 1,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Generate, to verify it, even what the board has no room for.")
    ] = False,
    resize: Resize = None,
    fit: FitFlag = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL_DIR", help="Take the task heads of this float network along."),
    ] = None,
    blackbox: Annotated[
        list[str] | None,
        typer.Option(
            metavar="UNIT", help="Function unit to place as RTL: exp2, gelu, reciprocal, rsqrt; repeatable."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Generate the hardware of a Design: HLS project, test bench, scripts, and files for the board."""
    from boards import load_board
    from codegen.build import ACCELERATOR
    from edgemoe.sources import Source
    from pysim.files import require_new
    from pysim.sensitivity import read_sensitivity

    console: Console = ctx.obj
    require_new(output)
    design, losses = edgemoe.load_design(design_dir), read_sensitivity(design_dir)
    wish = Wish(hardware, settings or (), batch=batch, made_of=known_backend(backend))
    chosen = chosen_hardware(
        console, Source(design.network, design), load_board(board), wish, must_fit=not any_size
    )
    how = resizing(resize, fit)
    images = edgemoe.load_images(image, design, resize=how, say=console.note) if image else None
    network = edgemoe.load_model(model) if model is not None else None
    with console.progress("generating") as progress:
        build = edgemoe.generate(
            design,
            output,
            board,
            images,
            hardware=chosen,
            batch=batch,
            must_fit=not any_size,
            model=network,
            blackboxes=blackbox or (),
            sensitivity=losses,
            progress=progress,
        )
    sources = sorted(
        path.relative_to(output) for path in build.hls.rglob("*") if path.suffix in (".cpp", ".h")
    )
    lines = sum(len((output / path).read_text().splitlines()) for path in sources)
    scope = "every engine and the whole network" if build.spec.network_tested else "every engine"
    console.show(
        f"{output}: {len(sources)} C++ files, {lines} lines, for {build.spec.board}; test bench for {scope}"
    )
    if chosen.attention_rows != design.attention_rows:
        console.warn(
            f"attention_rows = {chosen.attention_rows}, but {design_dir} has {design.attention_rows}: "
            f"integers differ in the order of the keys; simulate {output / 'design'} to compare"
        )
    if not build.spec.fits:
        console.warn(f"this build does not fit {build.spec.board}: it is good for verification only")
    if build.architecture.hardware.device.xrt:
        console.note(
            f"{build.spec.board} is a card that XRT runs: {output / 'vitis' / 'link.cfg'} is for v++ --link"
        )
    if build.architecture.hardware.backend == "rtl":
        console.show(
            f"{output / ACCELERATOR}: {len(build.accelerator)} files of SystemVerilog, hardware "
            f"{build.spec.hardware_id}, for networks of other shapes too (`edgemoe compile`)"
        )
    console.show(f"next: edgemoe verify {output} --csim --rtl --host")
    console.result(
        {
            "build": str(output),
            "board": build.spec.board,
            "design_id": build.spec.design_id,
            "hardware_id": build.spec.hardware_id,
            "hardware": build.architecture.hardware.model_dump(),
            "files": [str(path) for path in sources],
            "accelerator": [str(path.relative_to(output)) for path in build.accelerator],
            "lines": lines,
            "fits": build.spec.fits,
        }
    )


def verify(
    ctx: typer.Context,
    build_dir: Annotated[Path, typer.Argument(metavar="BUILD_DIR", help="Build folder.")],
    csim: Annotated[
        bool, typer.Option("--csim", help="Compile the C++ with g++ and run its test bench.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check the C++ for what g++ cannot see: pragmas, dependences, memories."
        ),
    ] = False,
    vitis: Annotated[
        bool,
        typer.Option("--vitis", help="Run csim, csynth and cosim in Vitis HLS; compare with the estimate."),
    ] = False,
    reports: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Compare the reports of a synthesis that was run elsewhere, without Vitis."
        ),
    ] = None,
    rtl: Annotated[
        bool, typer.Option("--rtl", help="Simulate the SystemVerilog kernels with Verilator and cocotb.")
    ] = False,
    rtl_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="For --rtl, the kernels' Verilog that Vitis HLS wrote instead of ours."
        ),
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Run the host's driver on an emulated board.")] = False,
    images: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="Random images for --host.")
    ] = HOST_IMAGES,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Images for --host instead (--rtl takes the first)."),
    ] = None,
    json: Json = False,
) -> None:
    """Prove that a build returns the simulator's integers."""
    from codegen.build import Build
    from codegen.csim import CsimResult
    from codegen.verification import record

    console: Console = ctx.obj
    build = Build.load(build_dir)
    result = CsimResult()
    synthesis = vitis or reports is not None
    if synthesis:
        verify_synthesis(console, build, reports)

    def compared(name: str, part: CsimResult) -> None:
        nonlocal result
        result += part
        if record(build, name, part, edgemoe.__version__) is None:
            console.note(f"{build_dir}: cannot be written: the report will not know of this check")

    if check:
        compared("check", verify_check(console, build))
    if csim or not (check or synthesis or rtl or rtl_dir or host):
        with console.progress("compiling") as progress:
            compared("csim", edgemoe.verify(build_dir, progress=progress))
    if rtl or rtl_dir:
        compared("rtl", verify_rtl(console, build, rtl_dir, list(image) if image else []))
    if host:
        compared("host", verify_host(console, build, list(image) if image else images))
    if not result.engines:
        return
    show_verification(console, result)
    console.result(verification_json(result))
    if result.failed:
        raise CheckError(
            f"{build_dir}: {result.failed} of {result.values} values differ from the simulator's",
            hint="the generated code or the test data was changed: generate the build again",
        )


def show_verification(console: Console, result: CsimResult) -> None:
    """Print what a test bench compared, and the first differences."""
    from edgemoe.tables import table

    rows = [(name, f"{values:,}", f"{mismatches:,}") for name, (values, mismatches) in result.engines.items()]
    console.show(table("Against the simulator", ("engine", "values", "mismatches"), rows))
    console.show(f"{result.values:,} values compared, {result.failed:,} mismatches")
    for line in result.mismatches:
        console.note(line)


def verification_json(result: CsimResult) -> dict[str, Any]:
    """Result of a test bench, under the key names that scripts rely on."""
    return {
        "values": result.values,
        "mismatches": result.failed,
        "engines": {
            name: {"values": values, "mismatches": mismatches}
            for name, (values, mismatches) in result.engines.items()
        },
    }


def estimate(
    ctx: typer.Context,
    source: SourceName,
    board: BoardName = "zcu102",
    precision: PrecisionName = None,
    kind: Kind = None,
    heads: Heads = None,
    top_k: TopK = None,
    image_size: ImageSize = None,
    backend: BackendName = None,
    hardware: HardwareFile = None,
    settings: Settings = None,
    clock: Clock = None,
    batch: Batch = 1,
    queues: QueuesFile = None,
    task: QueuesTask = None,
    details: Annotated[
        bool, typer.Option("--details", help="Every loop with what is assumed of it, and every memory.")
    ] = False,
    json: Json = False,
) -> None:
    """Estimate cycles, traffic and resources of a network on a board, quantised or not."""
    from boards import load_board
    from codegen.performance import estimate as run
    from codegen.queues import read_queues
    from edgemoe.sources import Untold, read_source

    console: Console = ctx.obj
    target, found = load_board(board), read_source(source, precision, Untold(kind, top_k, heads, image_size))
    network = found.network
    lengths = None if queues is None else read_queues(queues, network.spec, task, batch)
    wish = Wish(hardware, settings or (), clock, batch, known_backend(backend))
    chosen = chosen_hardware(console, found, target, wish, must_fit=False)
    performance = run(network, target, batch, lengths, chosen)
    if not performance.fits:
        console.warn(
            f"this hardware does not fit {target.name} ({performance.short}): `edgemoe generate` would refuse it"
        )
    _show_estimate(console, performance, target)
    if details:
        _show_details(console, performance)
    reference = _original(network.spec)
    if reference is not None:
        faster = (
            f"; this design: {reference['published_ms'] / performance.ms:.1f} times faster than published"
        )
        console.show(
            f"the original on this network: {reference['cycles']:,} cycles at best = {reference['ms']:.2f} ms, "
            f"{reference['narrow_ports_ms']:.1f} ms with its 128-bit ports, "
            f"published {reference['published_ms']:.2f} ms{faster if performance.fits else ''}"
        )
    console.result(
        estimate_json(performance)
        | {"board": target.name, "hardware": chosen.model_dump(), "original": reference}
    )


def estimate_json(performance: Performance) -> dict[str, Any]:
    """An estimate under the key names that scripts rely on."""
    needed, available = performance.dram_gb_s
    return {
        "cycles": performance.cycles,
        "ms": performance.ms,
        "batch": performance.batch,
        "stages": [
            {"name": s.name, "cycles": s.cycles, "bound_by": s.bound_by, "compute": s.compute, "load": s.load}
            for s in performance.stages
        ],
        "dram_bytes": performance.dram_bytes,
        "dram_gb_s": {"needed": needed, "available": available},
        "resources": {
            name: {"used": used, "available": there, "share": performance.share(name)}
            for name, (used, there) in performance.resources.items()
        },
        "loops": [
            {
                "label": total.loop.label,
                "function": total.loop.function,
                "ii": total.loop.ii,
                "depth": total.loop.depth,
                "entries": total.entries,
                "trips": total.iterations,
                "cycles": total.cycles,
            }
            for total in performance.loops
        ],
        "memories": [
            {
                "name": memory.name,
                "variable": memory.variable,
                "engine": engine,
                "copies": memory.copies,
                "depth": memory.depth,
                "width": memory.width,
                "kind": memory.kind,
                "bram36": memory.bram18 / 2,
                "uram": memory.uram,
                "lut": memory.luts,
            }
            for engine, held in performance.memories.items()
            for memory in held
        ],
        "fits": performance.fits,
    }


def _original(spec: ModelSpec) -> dict[str, float] | None:
    from codegen import original

    if not original.describes(spec):
        return None
    return {
        "cycles": original.TOTAL_CYCLES,
        "ms": original.ideal_ms(),
        "narrow_ports_ms": original.NARROW_PORTS_MS,
        "published_ms": original.PUBLISHED_MS,
        "dram_bytes": original.DRAM_BYTES,
    }


def _show_estimate(console: Console, performance: Performance, board: Board) -> None:
    from codegen.estimate import part_totals
    from edgemoe.tables import table

    rows = [
        (
            total.part,
            total.bound_by,
            str(total.stages),
            f"{total.compute:,}",
            f"{total.load:,}",
            f"{total.cycles:,}",
            f"{100 * total.cycles / performance.cycles:.1f}",
        )
        for total in part_totals(performance.stages)
    ]
    columns = ("stage", "bound by", "stages", "compute trips", "beats loaded", "cycles", "% of cycles")
    console.show(table(f"Estimate for {board.title}, batch {performance.batch}", columns, rows, left=2))
    resources = [
        (name, f"{used:,.10g}", f"{available:,}", f"{100 * performance.share(name):.1f}")
        for name, (used, available) in performance.resources.items()
    ]
    console.show(table("Resources", ("resource", "used", "available", "% used"), resources))
    needed, available = performance.dram_gb_s
    console.show(
        f"{performance.cycles:,} cycles, {performance.ms:.2f} ms an image; "
        f"{performance.dram_bytes / 1e6:.1f} MB of DRAM traffic an image, {needed:.1f} of {available:.1f} GB/s"
    )


def _show_details(console: Console, performance: Performance) -> None:
    from edgemoe.tables import table

    loops = [
        (
            total.loop.label,
            total.loop.function,
            str(total.loop.ii),
            str(total.loop.depth),
            f"{total.entries:,}",
            f"{total.iterations:,}",
            f"{total.cycles:,}",
        )
        for total in performance.loops
    ]
    columns = ("loop", "function", "II", "depth", "entries", "trips", "cycles")
    console.show(table("Loops, as if none ran beside another", columns, loops, left=2))
    held: list[tuple[str, ...]] = [
        (
            memory.name,
            memory.variable or "-",
            memory.built_as,
            str(memory.copies),
            f"{memory.depth:,}",
            f"{memory.width:,}",
            f"{memory.bram18 / 2:,.10g}",
            f"{memory.uram:,}",
            f"{memory.luts:,}",
        )
        for memories in performance.memories.values()
        for memory in memories
    ]
    heads = ("memory", "variable", "built as", "banks", "words", "bits", "BRAM36", "URAM", "LUT")
    console.show(table("Memories", heads, held, left=3))


def boards(ctx: typer.Context, json: Json = False) -> None:
    """List the boards that `--board` knows by name."""
    from boards import board_names, load_board
    from edgemoe.tables import table

    console: Console = ctx.obj
    found = [load_board(name) for name in board_names()]
    rows = [
        (
            b.name,
            b.title,
            b.part,
            f"{b.dsp:,}",
            f"{b.bram36:,}",
            f"{b.uram:,}",
            f"{b.lut:,}",
            f"{b.dram_gb_s:g}",
            f"{b.ports}{f' + {b.coherent_ports}' if b.coherent_ports else ''} x {b.port_width}",
            f"{b.clock_mhz_default:g}",
            b.pynq_name or "-",
        )
        for b in found
    ]
    columns = ("name", "board", "part", "DSP", "BRAM36", "URAM", "LUT", "GB/s", "ports", "MHz", "PYNQ")
    console.show(table("Boards", columns, rows, left=3))
    console.result({"boards": [b.model_dump(mode="json", exclude={"sources"}) for b in found]})
