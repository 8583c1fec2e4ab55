"""edgemoe: multi-task mixture-of-experts Vision Transformers on edge FPGAs, bit by bit.

>>> import edgemoe
>>> model = edgemoe.init_model("micro")
>>> images = edgemoe.random_images(model, 2)
>>> design = edgemoe.quantize(model, images, precision="w8a8")
>>> edgemoe.simulate(design, images, task="depth").integers.shape
(2, 9, 24)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    from edgemoe.sources import Source
    from frontend.options import Imported, Options
    from pysim.compare import Comparison
    from pysim.design import Design
    from pysim.model import Model
    from pysim.network import Network
    from pysim.precision import Precision
    from pysim.reference import ReferenceRun
    from pysim.sensitivity import Loss
    from pysim.simulator import Simulation

__all__ = [
    "Accelerator",
    "CheckError",
    "EdgeMoeError",
    "InputError",
    "QuantizationWarning",
    "compare",
    "default_hardware",
    "estimate",
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
    "sensitivity",
    "simulate",
    "verify",
]

__version__ = "0.1.0"

Progress = Callable[[int, int], Any]


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
    from frontend.onnx_export import export_model

    export_model(model, Path(path))


def load_design(folder: str | Path) -> Design:
    """Read a Design folder (`design.toml` and `weights.safetensors`)."""
    from pysim.design import Design

    return Design.load(Path(folder))


def load_images(paths: list[str | Path], model: Model | Design, *, fit: bool = False) -> NDArray[np.uint8]:
    """Read image files or folders of them as (images, channels, H, W) pixels; `fit` resizes and converts."""
    from pysim import images

    return images.load_images([Path(path) for path in paths], model.spec, fit=fit)


def random_images(model: Model | Design, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Seeded random pixels (count, channels, H, W): for trying things out, not for calibrating in earnest."""
    import numpy as np

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

    from pysim.precision import Precision, find_precision
    from pysim.quantizer import quantize as quantise

    chosen = precision if isinstance(precision, Precision) else find_precision(precision)
    if attention_rows is not None and not 1 <= attention_rows <= 1024:
        raise InputError(f"attention_rows = {attention_rows}, expected 1 to 1024")
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
    from pysim.simulator import simulate as run

    return run(design, images, task, trace=trace, progress=progress)


def reference(model: Model, images: NDArray[np.uint8], task: str | int = 0) -> ReferenceRun:
    """Run images through the float64 network."""
    from pysim import reference as module
    from pysim.simulator import task_number

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
    from pysim.compare import compare as run

    if simulation is None:
        simulation = simulate(design, images, task, trace=True)
    return run(model, design, images, task, simulation)


def generate(
    design: Design,
    folder: str | Path,
    board: str = "zcu102",
    images: NDArray[np.uint8] | None = None,
    *,
    hardware: Hardware | str | Path | None = None,
    batch: int = 1,
    must_fit: bool = True,
    model: Model | None = None,
    blackboxes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Build:
    """Write the hardware of a Design for a board into a new folder: HLS project, scripts and host files.

    Args:
        design: the design.
        folder: the build folder.
        board: name of a board, or a `.toml` file that describes one.
        images: (images, channels, H, W) for the test bench; seeded random pixels where none are given.
        hardware: how much hardware, or a `hardware.toml`; the fastest that fits where it is not given. With another P
            than the Design's, `design/` in the build is the Design to simulate.
        batch: images that the accelerator holds on chip together.
        must_fit: refuse a design that the board has no room for; without it, the C++ can still be verified.
        model: the float network, whose task heads the host takes along to decode results.
        blackboxes: function units that the HLS project calls as RTL blackboxes: exp2, gelu, reciprocal, rsqrt.
        progress: called with steps done and in total.
    """
    from boards import load_board
    from codegen.project import generate as run

    target = load_board(board)
    build, _ = run(
        design,
        Path(folder),
        target,
        images,
        hardware=_hardware(design, target, hardware, batch, must_fit),
        batch=batch,
        must_fit=must_fit,
        model=model,
        blackboxes=blackboxes,
        progress=progress,
    )
    return build


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
    hardware: Hardware | str | Path | None = None,
    batch: int = 1,
) -> Performance:
    """Cycles, traffic and resources of a network on a board, for a batch of images.

    Args:
        source: a Design; or, of which only the shape counts, a Model, a folder of either, a `model.toml` or a name in
            the zoo.
        board: name of a board, or a `.toml` file that describes one.
        precision: of what is no Design; w16a16 where it is not given.
        hardware: how much hardware, or a `hardware.toml`; the fastest that fits where it is not given, or, if nothing
            fits, what suits a ZCU102.
        batch: images that go through together.
    """
    from boards import load_board
    from codegen.performance import estimate as run

    target, found = load_board(board), _source(source, precision)
    chosen = _hardware(found.design or found.network, target, hardware, batch, must_fit=False)
    return run(found.network, target, batch, hardware=chosen)


def fit(
    source: Design | Model | str | Path,
    board: str = "zcu102",
    *,
    precision: str | Precision | None = None,
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

    target, found = load_board(board), _source(source, precision)
    if clock_mhz is not None:
        check_clock(target, clock_mhz)
    limits = limits_of(target, margins)
    return run(found.network, target, limits=limits, clock_mhz=clock_mhz, batch=batch, progress=progress)


def default_hardware(design: Design, board: str = "zcu102") -> Hardware:
    """Hardware that suits a ZCU102, with a Design's P, to make another from.

    As in `default_hardware(design).changed(lanes=8, outputs=16)`. The fastest that fits a board is what `fit` finds.
    """
    from boards import load_board
    from codegen.hardware import default_hardware as default

    return default(design.network, load_board(board), design.attention_rows)


def _source(source: Design | Model | str | Path, precision: str | Precision | None) -> Source:
    """A network, and the Design that it is of, if there is one."""
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
    return Source(Network(source.spec, precision), None)


def _hardware(
    design: Design | Network, board: Board, given: Hardware | str | Path | None, batch: int, must_fit: bool
) -> Hardware:
    """Hardware as given, or read from a file, whose missing keys are those of the default; or the fastest that fits."""
    from codegen.fit import fitted
    from codegen.hardware import Hardware
    from codegen.hardware import default_hardware as default
    from pysim.design import Design

    if isinstance(given, Hardware):
        return given
    network, rows = (design.network, design.attention_rows) if isinstance(design, Design) else (design, None)
    usual = default(network, board, rows)
    if given is not None:
        return Hardware.load(Path(given), usual)
    try:
        return fitted(network, board, batch=batch).hardware
    except InputError:
        if must_fit:
            raise
        return usual
