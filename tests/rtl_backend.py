"""The case table on the SystemVerilog kernels: one build of each kernel for a set of widths, sizes told at run time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blank import blank
from cases import Case
from codegen.architecture import Architecture
from codegen.hardware import Hardware
from codegen.rtl.kernels import attention, layernorm, linear, router, softmax, units
from codegen.rtl.kernels.base import Call, Kernel, Result
from codegen.rtl.kernels.units import unit_kernels
from codegen.rtl.render import render
from codegen.rtl.simulation import Scenario, build, play
from codegen.weight_image import pack_gate, pack_linear, pack_norm, pack_records
from locks import alone
from pysim.activations import ACTIVATIONS
from pysim.datapath import score_lift
from pysim.precision import Precision
from pysim.program import Destination
from pysim.spec import ModelSpec, MoeSpec

IntArray = NDArray[Any]
Output = dict[str, IntArray]

MAX_CHANNELS = 1204
MAX_WORDS = 80
GATE_EXPERTS, GATE_RANKS = 16, 5


@dataclass(frozen=True)
class Shape:
    """A Design for the sake of its kernels: widths, hardware, the largest sizes, and the activation function."""

    name: str
    precision: Precision
    hardware: Hardware
    tokens: int
    activation: str = "gelu"

    @property
    def architecture(self) -> Architecture:
        spec = ModelSpec(
            name=self.name,
            image_size=(1, self.tokens - 1),
            patch_size=1,
            in_channels=1,
            dim=64,
            depth=1,
            heads=1,
            mlp_dim=4,
            activation=self.activation,
            tasks=["a"],
            moe=MoeSpec(layers="all", experts=GATE_EXPERTS, hidden_dim=4, top_k=GATE_RANKS),
        )
        return blank(spec, self.precision, self.hardware)


def _parallelism(outputs: int, tile: int, rows: int) -> Hardware:
    return Hardware(
        lanes=4,
        outputs=outputs,
        token_tile=tile,
        attention_rows=16,
        axi_width=64,
        weight_ports=1,
        weight_rows=rows,
    )


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("16-bit", Precision(name="16-bit", multipliers=True), _parallelism(8, 3, 100), 1301),
        Shape(
            "8-bit",
            Precision(
                name="8-bit",
                weight_width=8,
                activation_width=8,
                attention_width=8,
                gate_width=8,
                multipliers=True,
            ),
            _parallelism(8, 4, 64),
            129,
            "gelu_tanh",
        ),
        Shape(
            "10-bit",
            Precision(
                name="10-bit",
                weight_width=8,
                activation_width=10,
                attention_width=10,
                gate_width=10,
                multipliers=True,
            ),
            _parallelism(8, 4, 64),
            129,
        ),
        Shape(
            "18-bit",
            Precision(name="18-bit", activation_width=18, attention_width=18, multipliers=True),
            _parallelism(4, 1, 64),
            129,
            "quick_gelu",
        ),
        Shape("relu", Precision(name="relu"), _parallelism(4, 1, 64), 9, "relu"),
    )
}
"""A case runs on the first that has it. 8 and 10 bits multiply two weights at once; groups of blocks differ."""


@cache
def architecture(shape: str) -> Architecture:
    return SHAPES[shape].architecture


@cache
def kernel_of(name: str, shape: str) -> Kernel:
    arch = architecture(shape)
    makers: dict[str, Callable[[], Kernel]] = {
        "softmax": lambda: softmax.softmax_kernel(arch),
        "layernorm": lambda: layernorm.layernorm_kernel(arch, MAX_CHANNELS),
        "attention": lambda: attention.attention_kernel(arch, any_size=True),
        "linear": lambda: linear.linear_kernel(arch, words=MAX_WORDS),
        "router": lambda: router.router_kernel(arch, any_size=True),
    }
    name = ACTIVATIONS[name].unit if name in ACTIVATIONS else name
    units_by_name = {kernel.name: kernel for kernel in unit_kernels(arch)}
    return units_by_name[name] if name in units_by_name else makers[name]()


def _widths(shape: str) -> Precision:
    return SHAPES[shape].precision


def _has(case: Case, shape: str) -> bool:
    """Whether the kernels of a shape can run a case: operands may be narrower than the types, results may not."""
    i, p = case.inputs, _widths(shape)
    tokens = SHAPES[shape].tokens
    if case.kernel in ACTIVATIONS or shape == "relu":
        return case.kernel == SHAPES[shape].activation
    if case.kernel in ("exp2", "reciprocal", "rsqrt"):
        return shape == "16-bit"
    if case.kernel == "softmax":
        return shape == "16-bit"
    if case.kernel == "layernorm":
        return bool(i["x_width"] <= p.residual_width and i["out_width"] in (p.activation_width, p.gate_width))
    if case.kernel == "attention":
        keys, head_dim = i["q"].shape[1:]  # type: ignore[union-attr]
        rows = min(int(i["attention_rows"]), keys)
        fits = keys <= tokens and head_dim <= 64 and rows <= SHAPES[shape].hardware.attention_rows
        fits = fits and i["score_shift"] >= -score_lift(p.attention_width)
        return bool(fits and i["width"] <= p.attention_width and i["out_width"] == p.activation_width)
    if case.kernel == "linear":
        to_residual = i["out_width"] == p.residual_width
        to_heads = i["out_width"] == p.attention_width and not np.any(i["addend"])
        fits = i["x_width"] <= p.activation_width and i["weight_width"] <= p.weight_width
        words = architecture(shape).words(i["x"].shape[1])  # type: ignore[union-attr]
        return bool(fits and (to_residual or to_heads) and words <= MAX_WORDS)
    # Logits of 24 bits are made of gate weights half as wide; and of two channels a token.
    return case.kernel == "router" and shape == "16-bit"


def shape_of(case: Case) -> str | None:
    return next((shape for shape in SHAPES if _has(case, shape)), None)


# --- A case as a call, and a result as what `oracles.py` calls its outputs ----------------------------------


def call_of(case: Case, shape: str) -> Call:
    i: dict[str, Any] = case.inputs
    arch, kernel = architecture(shape), kernel_of(case.kernel, shape)
    if case.kernel == "exp2":
        return units.call(kernel, case.id, difference=i["differences"])
    if case.kernel in ("reciprocal", "rsqrt"):
        return units.call(kernel, case.id, value=i["values"])
    if case.kernel in ACTIVATIONS:
        return units.call(kernel, case.id, x=np.resize(i["x"], -(-len(i["x"]) // arch.lanes) * arch.lanes))
    if case.kernel == "softmax":
        rows = [np.roll(row, -first) for row, first in zip(i["scores"], i["first"], strict=True)]
        return softmax.call(kernel, case.id, rows)
    if case.kernel == "layernorm":
        parameters = pack_norm(arch, i["gamma"], i["beta"])
        shifts = {"shift": i["shift"], "gate_shift": i["shift"]}
        return layernorm.call(kernel, case.id, i["x"], parameters, epsilon=i["epsilon"], **shifts)
    if case.kernel == "attention":
        return attention.call(
            kernel,
            case.id,
            i["q"],
            i["k"],
            i["v"],
            attention_rows=i["attention_rows"],
            score_shift=i["score_shift"],
            attention_shift=i["attention_shift"],
        )
    if case.kernel == "linear":
        weights = pack_linear(arch, i["weight"], pack_records(arch, i["bias"], i["multiplier"], i["shift"]))
        to_residual = i["out_width"] == _widths(shape).residual_width
        destination = Destination.RESIDUAL if to_residual else Destination.HEADS
        outputs = len(i["weight"])
        return linear.call(kernel, arch, case.id, i["x"], weights, outputs, destination, old=i["addend"])
    return _router_call(kernel, arch, case)


def _router_call(kernel: Kernel, arch: Architecture, case: Case) -> Call:
    """Logits of any value by gate weights: two channels a token, which all other tokens have as zero."""
    i: dict[str, Any] = case.inputs
    tokens, experts = i["logits"].shape
    low = i["logits"] & 0xFFF
    weight = np.zeros((GATE_EXPERTS, 2 * tokens), np.int64)
    weight[:experts, 0::2], weight[:experts, 1::2] = low.T, (i["logits"] - low).T >> 12
    x = np.zeros((tokens, 2 * tokens), np.int64)
    x[np.arange(tokens), 2 * np.arange(tokens)] = 1
    x[np.arange(tokens), 2 * np.arange(tokens) + 1] = 1 << 12
    nothing = np.zeros(GATE_EXPERTS, np.int64)
    gate = pack_gate(arch, weight, pack_records(arch, nothing, nothing + 1, nothing))
    return router.call(
        kernel,
        case.id,
        x,
        gate,
        experts=experts,
        top_k=i["k"],
        over_selected=bool(i["over_selected"]),
        groups=arch.gate_groups,
        router_lanes=arch.router_lanes,
    )


def _job(case: Case, arch: Architecture) -> linear.Job:
    weight: IntArray = case.inputs["weight"]  # type: ignore[assignment]
    x: IntArray = case.inputs["x"]  # type: ignore[assignment]
    return linear.job_of(arch, len(x), x.shape[1], len(weight))


def output_of(case: Case, shape: str, result: Result) -> Output:
    """What the kernel gives of a case's outputs: intermediate sums and scores stay inside."""
    i: dict[str, Any] = case.inputs
    arch = architecture(shape)
    values = result.values(kernel_of(case.kernel, shape))
    if case.kernel == "exp2":
        return {"y": values["y"]["exponential"].ravel()}
    if case.kernel in ("reciprocal", "rsqrt"):
        position = values["y"]["position"].ravel()
        exponent = position if case.kernel == "reciprocal" else position >> 1
        return {"mantissa": values["y"]["mantissa"].ravel(), "exponent": exponent}
    if case.kernel in ACTIVATIONS:
        return {"y": values["y"]["y"].ravel()[: len(i["x"])]}
    if case.kernel == "softmax":
        rolled = values["probabilities"]["probability"].reshape(i["scores"].shape)
        back = [np.roll(row, first) for row, first in zip(rolled, i["first"], strict=True)]
        statistics = values["statistics"]
        return {
            "maxima": statistics["maximum"].ravel(),
            "sums": statistics["sum"].ravel(),
            "probabilities": np.stack(back),
        }
    if case.kernel == "layernorm":
        found = layernorm.outputs(values, i["x"].shape[1])
        wide = i["out_width"] == _widths(shape).activation_width
        return {"y": found["operand" if wide else "gate_operand"]}
    if case.kernel == "attention":
        heads, _, head_dim = i["q"].shape
        return {"output": attention.output(values, heads, head_dim)}
    if case.kernel == "linear":
        return {"y": linear.output(arch, values, _job(case, arch), len(i["weight"]))}
    found = router.outputs(values)
    tokens, ranks = found["queue_tokens"], found["queue_ranks"]
    chosen = np.full((len(i["logits"]), i["k"]), -1)
    scores = np.full_like(chosen, -1)
    chosen[tokens, ranks], scores[tokens, ranks] = found["queue_experts"], found["queue_scores"]
    lengths = np.zeros(i["logits"].shape[1], np.int64)
    lengths[found["active"]] = found["lengths"]
    return {
        "experts": chosen,
        "scores": scores,
        "lengths": lengths,
        "active": found["active"],
        "queue_tokens": tokens,
        "queue_scores": found["queue_scores"],
    }


def cycles_of(case: Case, shape: str) -> int | None:
    """What the formulas say, where they say it exactly."""
    i: dict[str, Any] = case.inputs
    arch = architecture(shape)
    if case.kernel in ("exp2", "reciprocal", "rsqrt", *ACTIVATIONS):
        unit = kernel_of(case.kernel, shape).name
        return units.cycles(unit, len(call_of(case, shape).inputs["x"][0]))
    if case.kernel == "softmax":
        rows, keys = i["scores"].shape
        return softmax.cycles(rows, keys) if keys >= softmax.LEAST_EXACT_KEYS else None
    if case.kernel == "layernorm":
        return layernorm.cycles(arch, *i["x"].shape)
    if case.kernel == "attention":
        heads, tokens, head_dim = i["q"].shape
        return attention.cycles(arch, heads, tokens, head_dim, i["attention_rows"])
    if case.kernel == "linear":
        return linear.cycles(arch, _job(case, arch))
    if case.kernel == "router":
        chosen = np.argsort(-i["logits"], axis=1, kind="stable")[:, : i["k"]]
        return router.cycles(
            arch,
            (len(i["logits"]), 2 * len(i["logits"])),
            experts=i["logits"].shape[1],
            top_k=i["k"],
            over_selected=bool(i["over_selected"]),
            last_active=int(chosen.max()),
        )
    return None


# --- Running ------------------------------------------------------------------------------------------------


@cache
def built(name: str, shape: str, *, waves: bool = False) -> Path:
    """One test process builds, and the others find the result in the cache."""
    kernel = kernel_of(name, shape)
    with tempfile.TemporaryDirectory() as folder, alone(f"rtl-{name}-{shape}"):
        return build(render(architecture(shape), [kernel], Path(folder)), kernel.top, waves=waves)


def play_cases(
    name: str, shape: str, cases: Sequence[Case], *, stalls: int | None = None, reset_after: int | None = None
) -> list[Result]:
    """Every case of one kernel, each from a reset on, in one simulator process."""
    scenarios = [
        Scenario(case.id, [call_of(case, shape)], None if stalls is None else stalls + number, reset_after)
        for number, case in enumerate(cases)
    ]
    return [results[0] for results in play(kernel_of(name, shape), built(name, shape), scenarios)]


def record(case: Case, folder: Path) -> Path:
    """A waveform of a case."""
    shape = shape_of(case)
    assert shape is not None
    folder.mkdir(parents=True, exist_ok=True)
    waves = folder / f"{case.id}.vcd"
    scenario = Scenario(case.id, [call_of(case, shape)])
    play(kernel_of(case.kernel, shape), built(case.kernel, shape, waves=True), [scenario], waves=waves)
    return waves
