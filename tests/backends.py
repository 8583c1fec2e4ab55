"""The implementations that run the case table; adding one is one entry of `BACKENDS`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

import rtl_backend
from blank import blank
from boards import load_board
from cases import CASES, Case
from codegen import csim
from codegen import hardware as sizes
from codegen.architecture import PRODUCT_SHIFT, Architecture
from codegen.render import render
from common.errors import InputError
from locks import alone
from oracles import ORACLES
from pysim.activations import ACTIVATIONS, Activation
from pysim.datapath import score_lift
from pysim.formats import Format
from pysim.gates import GateKind
from pysim.kernels import iccad23
from pysim.kernels.attention import attention, first_keys
from pysim.kernels.embed import pixel_operands
from pysim.kernels.gelu import activate
from pysim.kernels.layernorm import layer_norm, normalize
from pysim.kernels.linear import Requantise, Weights, accumulate
from pysim.kernels.moe import run_experts
from pysim.kernels.router import Routing, route
from pysim.kernels.softmax import probabilities, single_pass
from pysim.kernels.units import exp2, reciprocal, rsqrt
from pysim.precision import Precision
from pysim.spec import ModelSpec, MoeSpec

IntArray = NDArray[Any]
Output = dict[str, IntArray]


@dataclass(frozen=True)
class Backend:
    """One implementation.

    Attributes:
        kernels: those it has.
        has: whether it can run a case of them; sizes and widths may be built in.
        run: a case to what `oracles.py` calls its outputs.
        whole: whether it gives all of these, or only what leaves a kernel.
    """

    kernels: frozenset[str]
    has: Callable[[Case], bool]
    run: Callable[[Case], Output]
    whole: bool = True


def expected(case: Case) -> Output:
    """What the oracle says."""
    inputs = {
        name: value if isinstance(value, int) else value.tolist() for name, value in case.inputs.items()
    }
    return {name: np.array(value, np.int64) for name, value in ORACLES[case.kernel](**inputs).items()}


def integers(width: int) -> Format:
    """Signed integers of that width: of a format, a kernel needs no more than the limits."""
    return Format(width, 0)


def shift_by(shift: int) -> Requantise:
    return Requantise(np.ones(1, np.int64), np.full(1, shift))


def _requantise(
    values: IntArray, multiplier: IntArray, shift: IntArray, addend: IntArray, out_width: int
) -> Output:
    return {"y": Requantise(multiplier, shift)(values, integers(out_width), addend)}


def _linear(
    x: IntArray,
    weight: IntArray,
    bias: IntArray,
    multiplier: IntArray,
    shift: IntArray,
    addend: IntArray,
    out_width: int,
    weight_width: int,
    **_widths: int,
) -> Output:
    # A Design stores weights in the narrowest type.
    narrow = weight.astype(integers(weight_width).dtype)
    products = Weights.of(narrow, int(np.abs(x).max(initial=0))).products(x)
    y = Requantise(multiplier, shift)(products, integers(out_width), addend, bias)
    return {"sums": accumulate(x, narrow, bias), "y": y}


def _mantissa(unit: Callable[[IntArray], tuple[IntArray, IntArray]]) -> Callable[..., Output]:
    def run(values: IntArray) -> Output:
        mantissas, exponents = unit(values)
        return {"mantissa": mantissas, "exponent": exponents}

    return run


def _softmax(scores: IntArray, first: IntArray) -> Output:
    maxima, sums = single_pass(scores, first)
    return {"maxima": maxima, "sums": sums, "probabilities": probabilities(scores, maxima, sums)}


def _attention(
    q: IntArray,
    k: IntArray,
    v: IntArray,
    attention_rows: int,
    score_shift: int,
    attention_shift: int,
    out_width: int,
    **_widths: int,
) -> Output:
    result = attention(
        q,
        k,
        v,
        attention_rows=attention_rows,
        score_shift=score_shift,
        attention_shift=attention_shift,
        out=integers(out_width),
    )
    return {"scores": result.scores, "maxima": result.maxima, "sums": result.sums, "output": result.output}


def _layernorm(
    x: IntArray, epsilon: int, gamma: IntArray, beta: IntArray, shift: int, out_width: int, **_widths: int
) -> Output:
    (y,) = layer_norm(x, epsilon, gamma, beta, [(shift, integers(out_width))])
    return {"normalized": normalize(x, epsilon), "y": y.astype(np.int64)}


def _router(logits: IntArray, k: int, over_selected: int) -> Output:
    routing = route(logits, k, GateKind.OVER_SELECTED if over_selected else GateKind.OVER_ALL)
    queues = [routing.queue(expert) for expert in range(routing.count)]
    return {
        "experts": routing.experts,
        "scores": routing.scores,
        "lengths": routing.lengths,
        "active": routing.active,
        "queue_tokens": np.concatenate([tokens for tokens, _ in queues]),
        "queue_scores": np.concatenate([scores for _, scores in queues]),
    }


def _moe(
    residual: IntArray,
    tokens: IntArray,
    experts: IntArray,
    scores: IntArray,
    weight: IntArray,
    bias: IntArray,
    shift: int,
    out_width: int,
    **_widths: int,
) -> Output:
    out = integers(out_width)

    def expert(number: int, x: IntArray) -> IntArray:
        return shift_by(shift)(accumulate(x, weight[number], bias[number]), out)

    return {"y": run_experts(residual, tokens, Routing(experts, scores, len(weight)), expert, out)}


def _embed(
    images: IntArray,
    patch_size: int,
    weight: IntArray,
    bias: IntArray,
    multiplier: IntArray,
    shift: IntArray,
    position: IntArray,
    out_width: int,
    **_widths: int,
) -> Output:
    operands = pixel_operands(images.astype(np.uint8), patch_size)
    stream = np.tile(position, (len(images), 1, 1))
    patch_rows = stream[:, 1:].reshape(len(operands), -1)
    requantise = Requantise(multiplier, shift)
    patch_rows = requantise(accumulate(operands, weight, bias), integers(out_width), patch_rows)
    stream[:, 1:] = patch_rows.reshape(len(images), -1, len(weight))
    return {"operands": operands, "y": stream.reshape(-1, len(weight))}


def _iccad23_softmax(scores: IntArray, first: IntArray) -> Output:
    maxima, sums = iccad23.single_pass(scores, first)
    return {
        "maxima": maxima,
        "sums": sums,
        "reciprocals": iccad23.reciprocal(sums),
        "exponentials": iccad23.exponentials(scores, maxima),
    }


def _iccad23_attention(q: IntArray, k: IntArray, v: IntArray, attention_rows: int) -> Output:
    output, scores = iccad23.attention(q, k, v, first_keys(q.shape[1], attention_rows))
    return {"scores": scores, "output": output}


def _iccad23_scale(residual: IntArray, y: IntArray, score: IntArray) -> Output:
    scaled = iccad23.scale(y, score)
    return {"scaled": scaled, "y": iccad23.add(residual, scaled)}


def _activation(activation: Activation) -> Callable[..., Output]:
    return lambda x: {"y": activate(activation, x)}


PYSIM: dict[str, Callable[..., Output]] = {
    "requantise": _requantise,
    "linear": _linear,
    **{name: _activation(each) for name, each in ACTIVATIONS.items()},
    "exp2": lambda differences: {"y": exp2(differences)},
    "reciprocal": _mantissa(reciprocal),
    "rsqrt": _mantissa(rsqrt),
    "softmax": _softmax,
    "attention": _attention,
    "layernorm": _layernorm,
    "router": _router,
    "moe": _moe,
    "embed": _embed,
    "iccad23_linear": lambda x, weight, bias, shift: {"y": iccad23.linear(x, weight, bias, shift=shift)},
    "iccad23_gelu": lambda x: {"y": iccad23.gelu(x)},
    "iccad23_softmax": _iccad23_softmax,
    "iccad23_attention": _iccad23_attention,
    "iccad23_layernorm": lambda x, gamma, beta, norm_frac: {
        "y": iccad23.layer_norm(x, gamma, beta, norm_frac=norm_frac)
    },
    "iccad23_scale": _iccad23_scale,
}


# --- The generated C++, compiled ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Hardware:
    """A Design for the sake of its C++ alone: what is baked into the kernels, and what is not.

    Attributes:
        name: of the Design.
        precision: widths in bits.
        tokens: keys that a softmax or attention row may have.
        dim: channels of a head.
        accepts: for every kernel, whether the C++ of this Design expresses a case.
        activation: its activation function.
    """

    name: str
    precision: Precision
    tokens: int
    dim: int
    accepts: dict[str, Callable[[dict[str, Any]], bool]] = field(repr=False)
    activation: str = "gelu"

    def has(self, case: Case) -> bool:
        return case.kernel in self.accepts and self.accepts[case.kernel](case.inputs)

    @property
    def architecture(self) -> Architecture:
        spec = ModelSpec(
            name="kernels",
            image_size=(1, self.tokens - 1),
            patch_size=1,
            in_channels=1,
            dim=self.dim,
            depth=1,
            heads=1,
            mlp_dim=4,
            activation=self.activation,
            tasks=["a"],
            moe=MoeSpec(layers="all", experts=4, hidden_dim=4, top_k=1),
        )
        words = sizes.Hardware(
            lanes=4, outputs=4, token_tile=1, attention_rows=1, axi_width=64, weight_ports=1
        )
        return blank(spec, self.precision, words)

    def render(self, folder: Path) -> list[Path]:
        """Write the sources of the kernel driver; returns those to compile. Headers are in `folder / "src"`."""
        architecture = self.architecture
        render(architecture, folder, load_board("u280"))
        # Compiled once for each number of experts, by being included.
        (folder / "src/router.cpp").rename(folder / "src/router_code.h")
        here: list[tuple[str, dict[str, Any]]] = [
            (c.kernel, c.inputs) for c in CASES if hardware_of(c) is self
        ]
        env = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        driver = env.get_template("kernel_driver.cpp.j2").render(
            arithmetic=architecture.arithmetic,
            norm_channels=sorted({i["x"].shape[1] for kernel, i in here if kernel.endswith("layernorm")}),
            routers=sorted({_router_shape(i) for kernel, i in here if kernel == "router"}),
        )
        (folder / "src/kernel_driver.cpp").write_text(driver)
        return [folder / "src" / f"{name}.cpp" for name in ("kernel_driver", "units", "tables", "counters")]


def _router_shape(inputs: dict[str, Any]) -> tuple[int, int, int]:
    return inputs["logits"].shape[1], inputs["k"], inputs["over_selected"]


def _always(_inputs: dict[str, Any]) -> bool:
    return True


def _requantising(name: str, tokens: int, activation: str = "gelu", **widths: int) -> Hardware:
    """Widths of operands may be narrower than the types; those of results, to which values saturate, may not."""
    precision = Precision(name=name, multipliers=True, **widths)
    operand, weight, heads = precision.activation_width, precision.weight_width, precision.attention_width
    dim = 64

    def fits_linear(i: dict[str, Any]) -> bool:
        # Only results that go to the residual stream have something to be added to.
        result = i["out_width"] == precision.residual_width or (
            i["out_width"] == heads and not i["addend"].any()
        )
        return i["x_width"] <= operand and i["weight_width"] <= weight and result

    def fits_attention(i: dict[str, Any]) -> bool:
        return (
            i["width"] <= heads
            and i["score_shift"] >= -score_lift(heads)
            and i["out_width"] == operand
            and i["q"].shape[1] <= tokens
            and i["q"].shape[2] <= dim
        )

    def fits_moe(i: dict[str, Any]) -> bool:
        return (
            i["x_width"] <= operand
            and i["weight_width"] <= weight
            and i["out_width"] == precision.residual_width
        )

    def fits_norm(i: dict[str, Any]) -> bool:
        return i["x_width"] <= precision.residual_width and i["out_width"] in (operand, precision.gate_width)

    def fits_router(i: dict[str, Any]) -> bool:
        # Logits of 24 bits are made of gate weights half as wide; and of two channels a token.
        return precision.gate_width > 12 and 2 * len(i["logits"]) <= dim

    accepts = {
        "requantise": _always,
        "linear": fits_linear,
        # What needs no table is in every Design's C++.
        activation: _always,
        "relu": _always,
        "exp2": _always,
        "reciprocal": _always,
        "rsqrt": _always,
        "softmax": lambda i: i["scores"].shape[1] <= tokens,
        "attention": fits_attention,
        "layernorm": fits_norm,
        "router": fits_router,
        "moe": fits_moe,
    }
    return Hardware(name, precision, tokens, dim, accepts, activation)


_ORIGINAL = Hardware(
    "iccad23",
    Precision(name="iccad23", arithmetic="iccad23", residual_width=32),
    tokens=1301,
    dim=16,
    accepts={
        "iccad23_linear": lambda i: i["shift"] <= PRODUCT_SHIFT,
        "iccad23_gelu": _always,
        "iccad23_softmax": _always,
        # The scale of scores is that of the Design's head dimension.
        "iccad23_attention": lambda i: i["q"].shape[2] == 16,
        "iccad23_layernorm": _always,
        "iccad23_scale": _always,
    },
)

HARDWARE = {
    hardware.name: hardware
    for hardware in (
        _requantising("16-bit", tokens=1301),
        _requantising(
            "8-bit", 129, "gelu_tanh", weight_width=8, activation_width=8, attention_width=8, gate_width=8
        ),
        _requantising("10-bit", 129, weight_width=8, activation_width=10, attention_width=10, gate_width=10),
        _requantising("18-bit", 129, "quick_gelu", activation_width=18, attention_width=18),
        _ORIGINAL,
    )
}
"""A case runs on the first that has it. Those of 8 and 10 bits multiply two weights at once."""


def hardware_of(case: Case) -> Hardware | None:
    return next((hardware for hardware in HARDWARE.values() if hardware.has(case)), None)


def compile_kernels(sources: Sequence[Path]) -> Path:
    """One executable; cached under everything that goes into it."""
    return csim.build(sources, sources[0].parent)


@cache
def _executables() -> dict[str, Path | InputError]:
    """Or why there is none, which is found out once instead of for every case."""

    def make(hardware: Hardware) -> Path | InputError:
        with tempfile.TemporaryDirectory() as folder:
            try:
                return compile_kernels(hardware.render(Path(folder)))
            except InputError as error:
                return error

    # One test process compiles, and the others find the result in the cache.
    with alone("kernels"), ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(HARDWARE, pool.map(make, HARDWARE.values()), strict=True))


def run_compiled(executable: Path, cases: Sequence[Case]) -> list[Output]:
    """All cases, which are of one kernel, in one process."""

    def tokens(name: str, value: IntArray | int) -> Iterator[str]:
        # Of unsigned 64 bits, the stream holds the signed number with the same bits.
        array = np.asarray(value).reshape(-1 if isinstance(value, int) else value.shape).astype(np.int64)
        yield f"{name} {array.ndim}"
        yield from map(str, array.shape)
        yield from map(str, array.ravel().tolist())

    lines = [f"{cases[0].kernel} {len(cases)}"]
    for case in cases:
        lines.append(str(len(case.inputs)))
        lines += [" ".join(tokens(name, value)) for name, value in case.inputs.items()]
    done = subprocess.run([executable], input="\n".join(lines), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = iter(done.stdout.splitlines())
    outputs = []
    for _ in cases:
        output = {}
        for _ in range(int(next(answer))):
            name, rank, *rest = next(answer).split(" ")
            sizes = tuple(map(int, rest[: int(rank)]))
            output[name] = np.array(rest[int(rank) :], np.int64).reshape(sizes)
        outputs.append(output)
    assert next(answer, None) is None
    return outputs


@cache
def _outputs(kernel: str, hardware: str) -> dict[str, Output]:
    """Of every case of the table that runs there, by its id."""
    mine = [c for c in CASES if c.kernel == kernel and hardware_of(c) is HARDWARE[hardware]]
    executable = _executables()[hardware]
    if isinstance(executable, InputError):
        raise executable
    outputs = run_compiled(executable, mine)
    return {case.id: output for case, output in zip(mine, outputs, strict=True)}


def _csim(case: Case) -> Output:
    hardware = hardware_of(case)
    assert hardware is not None
    return _outputs(case.kernel, hardware.name)[case.id]


# --- The SystemVerilog kernels, under cocotb ----------------------------------------------------------------


@cache
def _rtl_outputs(kernel: str, shape: str) -> dict[str, Output]:
    """Of every case of the table that runs there, by its id."""
    mine = [c for c in CASES if c.kernel == kernel and rtl_backend.shape_of(c) == shape]
    results = rtl_backend.play_cases(kernel, shape, mine)
    return {c.id: rtl_backend.output_of(c, shape, r) for c, r in zip(mine, results, strict=True)}


def _rtl(case: Case) -> Output:
    shape = rtl_backend.shape_of(case)
    assert shape is not None
    return _rtl_outputs(case.kernel, shape)[case.id]


# --- The registry -------------------------------------------------------------------------------------------

BACKENDS: dict[str, Backend] = {
    "pysim": Backend(
        frozenset(PYSIM), lambda case: case.kernel in PYSIM, lambda case: PYSIM[case.kernel](**case.inputs)
    ),
    "csim": Backend(
        frozenset(kernel for hardware in HARDWARE.values() for kernel in hardware.accepts),
        lambda case: hardware_of(case) is not None,
        _csim,
    ),
    "rtl": Backend(
        frozenset(c.kernel for c in CASES if rtl_backend.shape_of(c)),
        lambda case: rtl_backend.shape_of(case) is not None,
        _rtl,
        whole=False,
    ),
}
