"""Random networks on random hardware: each is refused in a sentence, or all that is generated for it compiles."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import edgemoe
from blank import blank
from boards import FAMILIES, Board, load_board
from codegen.architecture import Architecture
from codegen.build import Build
from codegen.csim import FLAGS, find_compiler, header_folder, run_csim
from codegen.fit.space import KINDS, ROUTER_LANES
from codegen.hardware import Hardware
from codegen.project import generate
from codegen.render import render
from codegen.rtl.hls_kernels import MOST_AP_INT_BITS, write_hls_kernels
from codegen.rtl.kernels import has_kernels, kernels_of
from codegen.rtl.render import render as render_rtl
from codegen.rtl.simulation import lint
from common.errors import CheckError, EdgeMoeError
from pysim.design import Design
from pysim.model import init_model
from pysim.precision import PRESETS, Precision
from pysim.quantizer import quantize
from pysim.spec import ModelSpec
from scripts.fuzzing.outcome import Outcome

BOARD: Final = "zcu111"
"""A board with room; of what is compiled here, only its family matters."""

SIZES: Final = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
"""Powers of two and their neighbours, where widths of counters and of addresses change."""
TOKENS: Final = (*SIZES[1:], 63, 64, 65, 128, 256, 257)
WIDTHS: Final = (4, 5, 7, 8, 9, 10, 16, 17, 18)
RESIDUAL_WIDTHS: Final = (8, 9, 16, 24, 31, 32)
MULTIPLIERS: Final = 1024
"""Most that are drawn: Verilator takes minutes for many more."""
CSIM_TOKENS: Final = 33
"""Most that are drawn where the test bench runs."""

LONGEST_MESSAGE: Final = 400
"""Characters of a refusal."""

STAND_INS: Final = tuple(Path(__file__).parents[2] / folder for folder in ("hls/sim", "tests"))
"""Where there are headers in place of those of Vitis HLS."""

_PRECOMPILED: Final = (
    "cstdint",
    "cstdio",
    "cstdlib",
    "fstream",
    "string",
    "vector",
    "ap_int.h",
    "hls_stream.h",
)


@dataclass(frozen=True)
class Drawn:
    """What a case is about; `repr` of it is in the report of a failure."""

    spec: ModelSpec
    precision: Precision
    hardware: Hardware


def run(seed: int, number: int, *, csim: bool = False) -> Outcome:
    """Draw a case and check it; its outcome is "refused" or "compiled", unless it failed."""
    drawn = draw(random.Random(f"{seed}/{number}"), small=csim)
    try:
        outcome = check(drawn, csim=csim)
    except Exception as error:  # whatever it is, it is a finding
        outcome = Outcome("failed", "".join(traceback.format_exception(error)))
    return replace(outcome, detail=f"{outcome.detail}\n{drawn}") if outcome.state == "failed" else outcome


def draw(generator: random.Random, *, small: bool = False) -> Drawn:
    """A network and hardware for it: mostly hardware that can be built, sometimes not.

    Args:
        generator: what decides.
        small: a network that can be simulated in moments.
    """
    any_of = generator.choice
    spec = random_spec(generator, [size for size in TOKENS if size <= CSIM_TOKENS] if small else TOKENS)
    precision = any_of([*PRESETS.values(), _mixed(generator)])
    lanes = any_of((1, 1, 2, 3, 4, 4, 5, 7, 8, 8, 16, 16, 17, 32))
    outputs = lanes * any_of((1, 1, 2, 2, 3, 4)) + any_of((0,) * 15 + (1,))
    tile = any_of([size for size in SIZES if size * lanes * outputs <= MULTIPLIERS] or [1])
    needed = needed_rows(spec, lanes)
    return Drawn(
        spec,
        precision,
        Hardware(
            lanes=lanes,
            outputs=outputs,
            token_tile=tile,
            attention_rows=any_of((*SIZES, 64, 1024) if lanes < 8 else SIZES),
            axi_width=any_of((64, 64, 128, 128, 256, 512) * 4 + (32,)),
            weight_ports=any_of((1, 1, 2, 3, 4, 5, 16)),
            weight_rows=min(
                8192, any_of((needed, needed, needed + 1, 2 * needed, 3 * needed - 1, 512, 8192))
            ),
            max_batch=any_of((1, 1, 1, 2, 3, 4)),
            family=any_of(sorted(FAMILIES)),
            router_lanes=any_of(ROUTER_LANES),
            **{name: any_of(kinds) for name, kinds in KINDS.items()},
        ),
    )


def random_spec(generator: random.Random, tokens: Sequence[int]) -> ModelSpec:
    any_of = generator.choice
    prefix = any_of((0, 1, 1, 1, 2, 5))
    patches = any_of([count for count in tokens if count > prefix]) - prefix
    rows = any_of([size for size in SIZES if patches % size == 0])
    patch = any_of((1, 1, 2, 3, 4))
    heads, depth = any_of((1, 1, 2, 3, 4, 5)), any_of((1, 2, 2, 3))
    experts = any_of(SIZES)
    moe: dict[str, Any] | None = {
        "layers": any_of(("odd", "even", "all", [depth - 1], [])),
        "experts": experts,
        "hidden_dim": any_of(SIZES),
        "top_k": generator.randint(1, min(experts, 9)),
        "gate": any_of(("softmax-topk", "topk-softmax")),
        "renormalize": any_of((False, True)),
        "shared_gate": any_of((False, True)),
        "gate_bias": any_of((False, True)),
    }
    return ModelSpec.model_validate(
        {
            "name": "drawn",
            "image_size": (rows * patch, patches // rows * patch),
            "in_channels": any_of((1, 3, 3, 4)),
            "patch_size": patch,
            "prefix_tokens": prefix,
            "dim": heads * any_of([size for size in SIZES if size > 1]),
            "depth": depth,
            "heads": heads,
            "mlp_dim": any_of(SIZES),
            "activation": any_of(("gelu", "gelu", "gelu", "gelu_tanh", "quick_gelu", "relu")),
            "qkv_bias": any_of((False, True)),
            "tasks": [f"task{number}" for number in range(any_of((1, 2, 3)))],
            "moe": any_of((None, moe, moe, moe)),
        }
    )


def _mixed(generator: random.Random) -> Precision:
    any_of = generator.choice
    return Precision(
        name="mixed",
        weight_width=any_of(WIDTHS),
        activation_width=any_of(WIDTHS),
        attention_width=any_of(WIDTHS),
        gate_width=any_of(WIDTHS),
        residual_width=any_of(RESIDUAL_WIDTHS),
        multipliers=any_of((False, True)),
    )


def needed_rows(spec: ModelSpec, lanes: int) -> int:
    """Rows of the weight buffer for one block of the widest layer."""
    hidden = [spec.mlp_dim, spec.moe.hidden_dim if spec.moe else 1]
    heads = spec.heads * -(-spec.head_dim // lanes)
    return max(heads, *(-(-width // lanes) for width in (spec.dim, spec.patch_values, *hidden)))


def check(drawn: Drawn, *, csim: bool = False) -> Outcome:
    """Generate everything for a design and compile it, or run its test bench.

    Args:
        drawn: the design.
        csim: give the network random weights and images, quantise it, and run the test bench of its build.
    """
    with tempfile.TemporaryDirectory(prefix="edgemoe-fuzz-") as temporary:
        try:
            work = _generated(drawn, Path(temporary), csim)
        except EdgeMoeError as error:
            return judged(error)
        try:
            return Outcome("compiled", work())
        except EdgeMoeError as error:
            return Outcome("failed", error.message)


def _generated(drawn: Drawn, folder: Path, csim: bool) -> Callable[[], str]:
    """Everything that may be refused; returns what may not fail any more, and says what it did."""
    if csim:
        design, hardware = _quantised(drawn), drawn.hardware
        images = edgemoe.random_images(design, hardware.max_batch, seed=3)
        task = len(design.spec.tasks) - 1
        build, _ = generate(
            design, folder / "build", _board(), images, hardware=hardware, task=task, must_fit=False
        )
        return lambda: _simulated(build)
    architecture = blank(drawn.spec, drawn.precision, drawn.hardware)
    write_hls_kernels(architecture, folder, _board())
    return lambda: _compiled(architecture, folder)


@cache
def _board() -> Board:
    return load_board(BOARD)


def judged(error: EdgeMoeError) -> Outcome:
    message = error.message
    if error.exit_code != 2 or not message or "\n" in message or len(message) > LONGEST_MESSAGE:
        return Outcome("failed", f"an unclear refusal: exit code {error.exit_code}, {message!r}")
    return Outcome("refused", message)


def _quantised(drawn: Drawn) -> Design:
    model = init_model(drawn.spec, seed=1)
    images = edgemoe.random_images(model, 3, seed=2)
    return quantize(model, images, drawn.precision, drawn.hardware.attention_rows)


def _simulated(build: Build) -> str:
    result = run_csim(build.hls)
    if result.failed:
        raise CheckError(f"{result.failed} of {result.values} values differ: {result.mismatches[:3]}")
    return f"{result.values} values equal"


def _compiled(architecture: Architecture, folder: Path) -> str:
    render(architecture, folder, _board())
    sources = sorted(folder.rglob("*.cpp"))
    check_syntax(sources, [folder / "src", folder / "kernels"])
    kernels = kernels_of(architecture) if has_kernels(architecture) else {}
    for name, kernel in kernels.items():
        target = folder / "rtl" / name
        target.mkdir(parents=True)
        lint(render_rtl(architecture, [kernel], target), kernel.top)
    return f"{len(sources)} C++ files, {len(kernels)} kernels"


# --- C++, read by the compiler and not translated -------------------------------------------------------------


def check_syntax(sources: Sequence[Path], includes: Sequence[Path]) -> None:
    """Let g++ read C++ files, warnings being errors.

    Raises:
        CheckError: what it says about the first file that it refuses.
    """
    places = [f"-I{place}" for place in (_precompiled().parent, *includes, *STAND_INS)]

    def read(source: Path) -> str:
        command = [*_compiler(), *places, "-include", "common.h", "-fsyntax-only", str(source)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, said in zip(sources, pool.map(read, sources), strict=True):
            if said:
                raise CheckError(f"{source.name}: " + "\n".join(said.splitlines()[:10]))


def _compiler() -> list[str]:
    wide = f"-DAP_INT_MAX_W={MOST_AP_INT_BITS}"
    return [find_compiler(), *FLAGS, wide, "-isystem", str(header_folder())]


_folders: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _precompiled() -> Path:
    """A header with all that every file includes: most of the time goes into reading those."""
    _folders.append(tempfile.TemporaryDirectory(prefix="edgemoe-headers-"))
    header = Path(_folders[0].name) / "common.h"
    header.write_text("".join(f"#include <{name}>\n" for name in _PRECOMPILED))
    command = [*_compiler(), "-x", "c++-header", str(header), "-o", f"{header}.gch"]
    with suppress(subprocess.CalledProcessError):  # without it, everything takes longer
        subprocess.run(command, capture_output=True, check=True)
    return header
