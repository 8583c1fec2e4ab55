"""edgemoe: multi-task mixture-of-experts Vision Transformers on edge FPGAs, bit by bit.

Examples:
    >>> import edgemoe
    >>> model = edgemoe.init_model("micro")
    >>> images = edgemoe.random_images(model, 2)
    >>> design = edgemoe.quantize(model, images, precision="w8a8")
    >>> edgemoe.simulate(design, images, task="depth").integers.shape
    (2, 9, 24)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import CheckError, EdgeMoeError, InputError, QuantizationWarning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from boards import Board
    from codegen.build import Build
    from codegen.csim import CsimResult
    from codegen.fit import Fitted
    from codegen.hardware import Hardware
    from codegen.performance import Performance
    from edgemoe.accelerator import Accelerator
    from edgemoe.evaluation import Evaluation
    from edgemoe.sources import Source
    from frontend.decoder import Decoder
    from frontend.options import Imported, Options
    from pysim.compare import Comparison
    from pysim.design import Design
    from pysim.model import Model
    from pysim.network import Network
    from pysim.precision import Precision
    from pysim.reference import ReferenceRun
    from pysim.sensitivity import Loss, Sensitivity
    from pysim.simulator import Simulation

__all__ = [
    "Accelerator",
    "CheckError",
    "EdgeMoeError",
    "InputError",
    "QuantizationWarning",
    "compare",
    "compile_program",
    "default_hardware",
    "estimate",
    "evaluate",
    "export_onnx",
    "fit",
    "generate",
    "import_model",
    "init_model",
    "load_design",
    "load_images",
    "load_model",
    "quantize",
    "random_images",
    "reference",
    "report",
    "sensitivity",
    "simulate",
    "verify",
]

__version__ = "0.2.0"

Progress = Callable[[int, int], Any]

MOST_BATCH = 64
"""Images that share each weight, at most."""
MOST_IMAGES = 1 << 24
"""Limit of random images."""


def __getattr__(name: str) -> Any:
    # A class cannot be a function that imports when it is called, as the verbs below are.
    if name == "Accelerator":
        from edgemoe.accelerator import Accelerator

        return Accelerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_model(folder: str | Path) -> Model:
    """Read a Model folder (`model.toml` and `weights.safetensors`)."""
    from pysim.model import Model

    return Model.load(Path(folder))


def init_model(config: str | Path, seed: int = 0) -> Model:
    """A Model with seeded random weights.

    Args:
        config: a `model.toml`, or the name of a shape in the zoo, such as "m3vit-tiny".
        seed: of the random weights.
    """
    from frontend.zoo import find_spec
    from pysim.model import init_model as initialise

    return initialise(find_spec(str(config)), seed)


def import_model(source: str | Path, options: Options | None = None, kind: str | None = None) -> Imported:
    """Read a network from elsewhere: a checkpoint of M3ViT, Edge-MoE, timm, torchvision or Hugging Face, or ONNX.

    Args:
        source: a file or folder.
        options: what the source cannot tell, such as `Options(heads=3, top_k=2, image_size=(128, 256))`.
        kind: m3vit, edge-moe, vit or onnx; guessed from the source where it is not given.
    """
    from frontend.importing import import_model as run

    return run(Path(source), options, kind)


def export_onnx(model: Model, path: str | Path) -> None:
    """Write the float network to a new ONNX file."""
    from edgemoe.arguments import require_model
    from frontend.onnx_export import export_model

    export_model(require_model(model), Path(path))


def load_design(folder: str | Path) -> Design:
    """Read a Design folder (`design.toml` and `weights.safetensors`)."""
    from pysim.design import Design

    return Design.load(Path(folder))


def load_images(
    paths: str | Path | Iterable[str | Path],
    model: Model | Design,
    *,
    resize: str | None = None,
    fit: bool = False,
    say: Callable[[str], Any] | None = None,
    frames: int | None = None,
) -> NDArray[np.uint8]:
    """Images as (images, channels, H, W) uint8 pixels.

    Args:
        paths: image files, videos, folders of images, or one of either.
        model: the network that is to read them.
        resize: how to make pictures of another size or other colours fit: `crop`, `stretch` or `pad`, or `own`, the
            network's own way; refused where it is not given.
        fit: the same as `resize="crop"`.
        say: told of what was done and left out.
        frames: of each video at most.
    """
    from edgemoe.arguments import described, require_network
    from pysim import images

    spec = require_network(model).spec
    given: list[Any] | None = None
    if isinstance(paths, str | Path):
        given = [paths]
    elif isinstance(paths, Iterable):
        given = list(paths)
    if given is None or not all(isinstance(path, str | Path) for path in given):
        raise InputError(f"paths is {described(paths)}, expected a path, or a list of them")
    if resize == "own":
        resize = spec.fit().method
    elif resize is None and fit:
        resize = "crop"
    return images.load_images([Path(path) for path in given], spec, resize=resize, say=say, frames=frames)


def random_images(model: Model | Design, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Seeded random pixels (count, channels, H, W): for trying things out, not for calibrating in earnest."""
    import numpy as np

    from edgemoe.arguments import require_count, require_network

    require_network(model)
    require_count(count, "count", MOST_IMAGES)
    shape = (count, model.spec.in_channels, *model.spec.image_size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def quantize(
    model: Model,
    images: NDArray[np.uint8],
    precision: str | Precision = "w16a16",
    *,
    attention_rows: int | None = None,
    progress: Progress | None = None,
) -> Design:
    """Calibrate on images and quantise.

    Each of the Design's `warnings` is issued as a `QuantizationWarning`, too.

    Args:
        model: the float network.
        images: (images, channels, H, W) uint8 calibration images.
        precision: a preset, a `.toml` file with widths of your own, or a `Precision`.
        attention_rows: query rows that share one pass over the keys (P).
        progress: called with the calibration runs done and in total.
    """
    import warnings

    from edgemoe.arguments import require_count, require_images, require_model
    from pysim.precision import Precision, find_precision
    from pysim.quantizer import quantize as quantise

    require_model(model)
    require_images(images)
    chosen = precision if isinstance(precision, Precision) else find_precision(precision)
    if attention_rows is not None:
        require_count(attention_rows, "attention_rows", 1024)
    design = quantise(model, images, chosen, attention_rows, progress)
    for text in design.warnings:
        warnings.warn(text, QuantizationWarning, stacklevel=2)
    return design


def sensitivity(
    model: Model,
    design: Design,
    images: NDArray[np.uint8],
    task: str | int = 0,
    *,
    progress: Progress | None = None,
) -> list[Loss]:
    """Loss of the final tokens that each layer and tensor of a Design causes alone, the largest first.

    Args:
        model: the float network that the Design was made from.
        design: its quantisation, to one of the presets that round once.
        images: (images, channels, H, W) uint8, of which the first few are run.
        task: name or number of the task.
        progress: called with the runs done and in total.
    """
    from pysim.sensitivity import sensitivity as measure
    from pysim.simulator import task_number

    return measure(model, design, images, task_number(design.spec, task), progress)


def simulate(
    design: Design,
    images: NDArray[np.uint8],
    task: str | int = 0,
    *,
    trace: bool = False,
    progress: Progress | None = None,
) -> Simulation:
    """Run images (images, channels, H, W) through a Design, bit by bit as the accelerator does."""
    from edgemoe.arguments import require_design, require_images
    from pysim.simulator import simulate as run

    require_design(design)
    require_images(images)
    return run(design, images, task, trace=trace, progress=progress)


def reference(model: Model, images: NDArray[np.uint8], task: str | int = 0) -> ReferenceRun:
    """Run images through the float64 network."""
    from edgemoe.arguments import require_images, require_model
    from pysim import reference as module
    from pysim.simulator import task_number

    require_model(model)
    require_images(images)
    return module.run(model, images, task_number(model.spec, task))


def compare(
    model: Model,
    design: Design,
    images: NDArray[np.uint8],
    task: str | int = 0,
    *,
    simulation: Simulation | None = None,
) -> Comparison:
    """Errors of a Design against the float64 network, stage by stage where the simulation holds a trace."""
    from edgemoe.arguments import require_design, require_images, require_model
    from pysim.compare import compare as run

    require_model(model)
    require_design(design)
    require_images(images)
    if simulation is None:
        simulation = simulate(design, images, task, trace=True)
    return run(model, design, images, task, simulation)


def evaluate(
    design: Design,
    model: Model,
    data: str | Path | Mapping[str, NDArray[Any]],
    task: str | int = 0,
    *,
    resize: str | None = None,
    float_too: bool = True,
    decoder: Decoder | None = None,
    workers: int = 0,
    scheduler: str | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Accuracy of a Design on labelled images, beside that of the float network, with 95 % intervals.

    Args:
        design: the design.
        model: the float network that it was made from, whose head decodes the tokens of both.
        data: an `.npz` file or a folder of labelled images, as `edgemoe evaluate --data` takes them; or arrays `images`
            (images, channels, H, W) uint8 and `labels`.
        task: name or number of the task.
        resize: how to make pictures that do not fit the network, fit: `crop`, `stretch`, `pad` or `own`.
        float_too: run the float network, too.
        decoder: what decodes tokens where the task has no linear head: `frontend.decoder.load_decoder`.
        workers: processes of one thread each; 0 is this process. A program that asks for some has its own work under
            `if __name__ == "__main__":`, as each of them imports it.
        scheduler: address of a Dask scheduler to run on instead.
        resume: folder that keeps finished chunks: after an interruption, the same call goes on from there.
        progress: called with images done and in total.
    """
    from edgemoe.chunks import Places
    from edgemoe.evaluation import Job
    from edgemoe.evaluation import evaluate as run
    from edgemoe.labelled import labelled
    from pysim.simulator import task_number

    name = design.spec.tasks[task_number(design.spec, task)]
    places = Places(workers, scheduler, None if resume is None else Path(resume))
    found = labelled(data, design.spec, name, resize=resize)
    return run(Job(design, model, name, decoder, float_too), found, places, progress=progress)


def generate(
    design: Design,
    folder: str | Path,
    board: str = "zcu102",
    images: NDArray[np.uint8] | None = None,
    *,
    backend: str | None = None,
    hardware: Hardware | str | Path | None = None,
    batch: int = 1,
    must_fit: bool = True,
    model: Model | None = None,
    blackboxes: Sequence[str] = (),
    sensitivity: Sensitivity | None = None,
    progress: Progress | None = None,
) -> Build:
    """Write the hardware of a Design for a board into a new folder: HLS project, scripts and host files.

    Args:
        design: the design.
        folder: the build folder.
        board: name of a board, or a `.toml` file that describes one.
        images: (images, channels, H, W) for the test bench; seeded random pixels where none are given.
        backend: hls or rtl; that of the hardware where it is not given, otherwise hls.
        hardware: how much hardware, or a `hardware.toml`; the fastest that fits where it is not given. With another P
            than the Design's, `design/` in the build is the Design to simulate.
        batch: images that the accelerator holds on chip together.
        must_fit: refuse a design that the board has no room for; without it, the C++ can still be verified.
        model: the float network, whose task heads the host takes along to decode results.
        blackboxes: function units that the HLS project calls as RTL blackboxes: exp2, gelu, reciprocal, rsqrt.
        sensitivity: losses of the Design's tensors (`pysim.sensitivity.read_sensitivity` of its folder), for the
            build's report.
        progress: called with steps done and in total.
    """
    from boards import load_board
    from codegen.project import generate as run
    from edgemoe.arguments import require_count, require_design, require_images, require_model

    require_design(design)
    require_count(batch, "batch", MOST_BATCH)
    if images is not None:
        require_images(images)
    if model is not None:
        require_model(model)
    target = load_board(board)
    build, _ = run(
        design,
        Path(folder),
        target,
        images,
        hardware=_hardware(design, target, hardware, batch, must_fit, backend),
        batch=batch,
        must_fit=must_fit,
        model=model,
        blackboxes=blackboxes,
        sensitivity=sensitivity,
        progress=progress,
    )
    return build


def compile_program(
    design: Design, build: str | Path, folder: str | Path, *, model: Model | None = None
) -> Design:
    """The program of a Design for an accelerator that is built already, in a new folder for `Accelerator.load`.

    Args:
        design: the design.
        build: the build folder of the accelerator. Where it is made of C++, whose network is synthesised in, the design
            must be of the same shape and precision.
        folder: to make: weights and manifest.
        model: the float network, whose task heads go along.

    Returns:
        The Design to simulate and compare with: with the accelerator's attention rows.

    Raises:
        InputError: the accelerator does not hold it; the message names every reason.
    """
    from codegen.build import Build
    from codegen.compiling import compile_program as run
    from edgemoe.arguments import require_design, require_model

    require_design(design)
    if model is not None:
        require_model(model)
    return run(design, Build.load(Path(build)), Path(folder), model)[0]


def verify(folder: str | Path, *, progress: Progress | None = None) -> CsimResult:
    """Compile the C++ of a build with g++, run its test bench, and return what it compared."""
    from codegen.build import Build
    from codegen.csim import run_csim

    return run_csim(Build.load(Path(folder)).hls, progress)


def estimate(
    source: Design | Model | str | Path,
    board: str = "zcu102",
    *,
    precision: str | Precision | None = None,
    backend: str | None = None,
    hardware: Hardware | str | Path | None = None,
    batch: int = 1,
) -> Performance:
    """Cycles, traffic and resources of a network on a board, for a batch of images.

    Args:
        source: a Design; or, of which only the shape counts, a Model, a folder of either, a `model.toml`, a name in
            the zoo, or a checkpoint or ONNX file that tells its shape by itself.
        board: name of a board, or a `.toml` file that describes one.
        precision: of what is no Design; w16a16 where it is not given.
        backend: hls or rtl; that of the hardware where it is not given, otherwise hls.
        hardware: how much hardware, or a `hardware.toml`; the fastest that fits where it is not given, or, if nothing
            fits, what suits a ZCU102.
        batch: images that go through together.
    """
    from boards import load_board
    from codegen.performance import estimate as run
    from edgemoe.arguments import require_count

    require_count(batch, "batch", MOST_BATCH)
    target, found = load_board(board), _source(source, precision)
    chosen = _hardware(
        found.design or found.network, target, hardware, batch, must_fit=False, backend=backend
    )
    return run(found.network, target, batch, hardware=chosen)


def fit(
    source: Design | Model | str | Path,
    board: str = "zcu102",
    *,
    precision: str | Precision | None = None,
    backend: str | None = None,
    margins: Mapping[str, float] | None = None,
    clock_mhz: float | None = None,
    batch: int = 1,
    progress: Progress | None = None,
) -> Fitted:
    """The fastest hardware that fits a board, and its estimate.

    Args:
        source: what `estimate` takes.
        board: name of a board, or a `.toml` file that describes one.
        precision: of what is no Design; w16a16 where it is not given.
        backend: hls or rtl; hls where it is not given.
        margins: percent of dsp, bram36, uram, lut and ff that may be used; where it is not given, 90 of the first
            three and 75 of the others.
        clock_mhz: the board's default where it is not given.
        batch: images that go through together.
        progress: called with steps done and in total.

    Raises:
        InputError: nothing fits.
    """
    from boards import load_board
    from codegen.fit import fit as run
    from codegen.fit import limits_of
    from codegen.hardware import check_clock
    from edgemoe.arguments import known_backend, require_count

    require_count(batch, "batch", MOST_BATCH)
    target, found = load_board(board), _source(source, precision)
    fixed = known_backend(backend)
    if clock_mhz is not None:
        check_clock(target, clock_mhz)
    limits = limits_of(target, margins)
    return run(
        found.network, target, limits=limits, clock_mhz=clock_mhz, batch=batch, fixed=fixed, progress=progress
    )


def report(
    source: str | Path,
    path: str | Path,
    images: NDArray[np.uint8] | None = None,
    *,
    model: Model | None = None,
    tasks: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write what is known of a Design or a build as one page of HTML, which needs nothing beside it.

    Args:
        source: a Design folder or a build folder.
        path: the new file.
        images: (images, channels, H, W) to run, with every intermediate tensor; a handful is enough.
        model: the float network to compare with.
        tasks: to run; all where none are given.
        progress: called with tasks done and in total.

    Raises:
        InputError: no such folder, or a file that exists; no plotly.
    """
    from edgemoe.report_contents import collect, read_source, write
    from pysim.files import require_new

    require_new(Path(path))
    design, built = read_source(Path(source))
    write(collect(Path(source), design, built, images, model, tasks, progress), Path(path))


def default_hardware(design: Design, board: str = "zcu102") -> Hardware:
    """Hardware that suits a ZCU102, with a Design's P, to make another from.

    As in `default_hardware(design).changed(lanes=8, outputs=16)`. The fastest that fits a board is what `fit` finds.
    """
    from boards import load_board
    from codegen.hardware import default_hardware as default
    from edgemoe.arguments import require_design

    require_design(design)
    return default(design.network, load_board(board), design.attention_rows)


def _source(source: Design | Model | str | Path, precision: str | Precision | None) -> Source:
    """A network, and the Design that it is of, if there is one."""
    from edgemoe.arguments import require_model
    from edgemoe.sources import DEFAULT_PRECISION, Source, read_source
    from pysim.design import Design
    from pysim.network import Network
    from pysim.precision import Precision, find_precision

    if isinstance(source, Design):
        if precision is not None:
            raise InputError("a Design has its own precision", hint="leave `precision` out")
        return Source(source.network, source)
    if isinstance(source, str | Path):
        if isinstance(precision, Precision):
            return Source(Network(read_source(str(source)).network.spec, precision), None)
        return read_source(str(source), precision)
    if not isinstance(precision, Precision):
        precision = find_precision(precision or DEFAULT_PRECISION)
    require_model(source, "source")
    return Source(Network(source.spec, precision), None)


def _hardware(
    design: Design | Network,
    board: Board,
    given: Hardware | str | Path | None,
    batch: int,
    must_fit: bool,
    backend: str | None,
) -> Hardware:
    """Hardware as given, or read from a file, whose missing keys are those of the default; or the fastest that fits."""
    from codegen.fit import fitted
    from codegen.hardware import Hardware
    from codegen.hardware import default_hardware as default
    from edgemoe.arguments import known_backend
    from pysim.design import Design

    fixed = known_backend(backend)
    if isinstance(given, Hardware):
        return given.changed(**fixed)
    network, rows = (design.network, design.attention_rows) if isinstance(design, Design) else (design, None)
    usual = default(network, board, rows)
    if given is not None:
        return Hardware.load(Path(given), usual).changed(**fixed)
    try:
        return fitted(network, board, batch=batch, fixed=fixed).hardware
    except InputError:
        if must_fit:
            raise
        return usual.changed(**fixed)
