"""The network program: what it says of a shape, written out by hand, and what its folds rely on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.errors import OverflowRiskError
from designs import random_design
from frontend.zoo import describe, find_spec, zoo_names
from pysim.arithmetic import Kind
from pysim.design import Design, decode_tensors, design_tensors
from pysim.model import Model, init_model, tensor_shapes
from pysim.overflow import check_accumulators
from pysim.precision import PRESETS
from pysim.program import (
    Attention,
    Destination,
    Embed,
    Experts,
    Gate,
    Linear,
    Norm,
    Program,
    blocks,
    linears,
    macs,
    of_type,
    products,
    program,
    tensors,
    values,
)
from pysim.spec import ModelSpec

MakeModel = Callable[..., Model]

CHANGES: dict[str, dict[str, Any]] = {
    "micro": {},
    "plain": {"moe": None},
    "all-experts": {"moe": {"layers": "all", "gate_bias": True}},
    "shared-gate": {"moe": {"shared_gate": True, "layers": [0]}, "depth": 2},
    "one-patch-one-task": {"image_size": (4, 4), "tasks": ["a"], "depth": 1, "qkv_bias": False},
}


@pytest.fixture(params=CHANGES)
def spec(request: pytest.FixtureRequest, micro_with: MakeModel) -> ModelSpec:
    return micro_with(**CHANGES[request.param]).spec


def two_blocks(micro_with: MakeModel) -> ModelSpec:
    return micro_with(depth=2).spec


def test_operations_and_what_flows_between_them(micro_with: MakeModel) -> None:
    found = [
        (type(op), op.name, [value.name for value in op.inputs], [value.name for value in op.outputs])
        for op in program(two_blocks(micro_with))
    ]

    def attention(block: str, stream: str) -> list[Any]:
        q, k, v = f"{block}.q", f"{block}.k", f"{block}.v"
        return [
            (Norm, f"{block}.norm1", [stream], [f"{block}.norm1"]),
            (Linear, f"{block}.qkv", [f"{block}.norm1"], [q, k, v]),
            (Attention, f"{block}.attention", [q, k, v], [f"{block}.scores", f"{block}.attention"]),
            (Linear, f"{block}.proj", [f"{block}.attention", stream], [f"{block}.attn_residual"]),
        ]

    dense, sparse = "blocks.0", "blocks.1"
    assert found == [
        (Embed, "embed", ["pixels"], ["embed"]),
        *attention(dense, "embed"),
        (Norm, f"{dense}.norm2", [f"{dense}.attn_residual"], [f"{dense}.norm2"]),
        (Linear, f"{dense}.fc1", [f"{dense}.norm2"], [f"{dense}.hidden"]),
        (Linear, f"{dense}.fc2", [f"{dense}.hidden", f"{dense}.attn_residual"], [f"{dense}.output"]),
        *attention(sparse, f"{dense}.output"),
        (Norm, f"{sparse}.norm2", [f"{sparse}.attn_residual"], [f"{sparse}.norm2", f"{sparse}.gate_input"]),
        (Gate, f"{sparse}.gate", [f"{sparse}.gate_input"], [f"{sparse}.logits", f"{sparse}.gate_scores"]),
        (
            Experts,
            f"{sparse}.experts",
            [f"{sparse}.norm2", f"{sparse}.gate_scores", f"{sparse}.attn_residual"],
            [f"{sparse}.hidden", f"{sparse}.output"],
        ),
    ]


TENSORS = """
    patch.weight 24,48 {w}; patch.bias 24 {b}; patch.multiplier 24 {m}; patch.shift 24 {s}; position 9,24 int32
    blocks.0.norm1.gamma 24 {g}; blocks.0.norm1.beta 24 {b}; epsilon 1 {e}; blocks.0.norm1.shift 1 {s}
    blocks.0.qkv.weight 72,24 {w}; blocks.0.qkv.bias 72 {b}; blocks.0.qkv.multiplier 72 {m}; blocks.0.qkv.shift 72 {s}
    blocks.0.score_shift 1 {a}; blocks.0.attention_shift 1 {a}
    blocks.0.proj.weight 24,24 {w}; blocks.0.proj.bias 24 {b}
    blocks.0.proj.multiplier 24 {m}; blocks.0.proj.shift 24 {s}
    blocks.0.norm2.gamma 24 {g}; blocks.0.norm2.beta 24 {b}; blocks.0.norm2.shift 1 {s}
    blocks.0.fc1.weight 40,24 {w}; blocks.0.fc1.bias 40 {b}; blocks.0.fc1.multiplier 40 {m}; blocks.0.fc1.shift 40 {s}
    blocks.0.hidden.multiplier 1 {m}; blocks.0.hidden.shift 1 {s}; blocks.0.hidden.zero 1 {z}
    blocks.0.fc2.weight 24,40 {w}; blocks.0.fc2.bias 24 {b}; blocks.0.fc2.multiplier 24 {m}; blocks.0.fc2.shift 24 {s}
    blocks.1.norm1.gamma 24 {g}; blocks.1.norm1.beta 24 {b}; blocks.1.norm1.shift 1 {s}
    blocks.1.qkv.weight 72,24 {w}; blocks.1.qkv.bias 72 {b}; blocks.1.qkv.multiplier 72 {m}; blocks.1.qkv.shift 72 {s}
    blocks.1.score_shift 1 {a}; blocks.1.attention_shift 1 {a}
    blocks.1.proj.weight 24,24 {w}; blocks.1.proj.bias 24 {b}
    blocks.1.proj.multiplier 24 {m}; blocks.1.proj.shift 24 {s}
    blocks.1.norm2.gamma 24 {g}; blocks.1.norm2.beta 24 {b}
    blocks.1.norm2.shift 1 {s}; blocks.1.norm2.gate_shift 1 {s}
    blocks.1.gate.weight 2,5,24 int16; blocks.1.gate.bias 2,5 {gb}
    blocks.1.gate.multiplier 2,5 {m}; blocks.1.gate.shift 2,5 {s}
    blocks.1.fc1.weight 5,20,24 {w}; blocks.1.fc1.bias 5,20 {b}
    blocks.1.fc1.multiplier 5,20 {m}; blocks.1.fc1.shift 5,20 {s}
    blocks.1.hidden.multiplier 5 {m}; blocks.1.hidden.shift 5 {s}; blocks.1.hidden.zero 5 {z}
    blocks.1.fc2.weight 5,24,20 {w}; blocks.1.fc2.bias 5,24 {b}
    blocks.1.fc2.multiplier 5,24 {m}; blocks.1.fc2.shift 5,24 {s}
    frac.patch_weight 1 {f}; frac.linear_weight 1 {f}; frac.norm 1 {f}
    frac.attention_bias 1 {f}; frac.linear_bias 1 {f}
"""
"""Every tensor of a dense and a sparse block, with its shape and a letter for its type; `-` where there is none."""

EXACT = {
    "b": "int64",
    "gb": "int64",
    "s": "uint8",
    "g": "int32",
    "e": "int64",
    "a": "int8",
    "z": "int32",
    "f": "-",
}
TYPES = {
    "w16a16": EXACT | {"w": "int16", "m": "-"},
    "w8a8": EXACT | {"w": "int8", "m": "uint16"},
    "w8a10": EXACT | {"w": "int8", "m": "uint16"},
    "iccad23": {"w": "int16", "b": "int16", "gb": "int32", "g": "int16", "f": "int32"}
    | dict.fromkeys("mseaz", "-"),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_tensors_are_those_of_the_file(preset: str, tmp_path: Path, micro_with: MakeModel) -> None:
    lines = TENSORS.format(**TYPES[preset]).replace("\n", ";").split(";")
    rows = [line.split() for line in lines if line.strip() and not line.endswith("-")]
    expected = {name: (tuple(map(int, shape.split(","))), np.dtype(dtype)) for name, shape, dtype in rows}
    model = init_model(two_blocks(micro_with))
    found = tensors(program(model.spec, PRESETS[preset]))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == expected
    design = random_design(model.spec, PRESETS[preset])
    design.save(tmp_path / "design")
    stored = load_file(tmp_path / "design/weights.safetensors")
    decoding = decode_tensors(model.spec)
    assert {n: (t.shape, t.dtype) for n, t in stored.items() if n not in decoding} == expected
    assert decoding.keys() == stored.keys() - expected.keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_operations_fit_together(spec: ModelSpec, preset: str) -> None:
    operations = program(spec, PRESETS[preset])
    _check_order(operations)
    for op in products(operations):
        *_, outputs, inputs = op.weight.shape
        results = [op.logits] if isinstance(op, Gate) else op.results
        assert inputs == op.input.channels and outputs == sum(value.channels for value in results)
        assert op.bias.shape[-1] == outputs
    for op in linears(operations):
        assert op.weight.shape[:-2] == (() if op.experts is None else (op.experts,))
        assert len(op.indices) == (op.experts or 1)
        assert op.destination.takes_old == (op.added is not None)
        assert (
            op.output.kind
            is {
                Destination.HEADS: Kind.QUERY,
                Destination.HIDDEN: Kind.HIDDEN,
                Destination.RESIDUAL: Kind.STREAM,
                Destination.EXPERT: Kind.STREAM,
            }[op.destination]
        )
    for value in values(operations).values():
        assert value.channels % value.groups == 0
        assert value.name.endswith(value.part)


def _check_order(operations: Program) -> None:
    """Every value is written once, before it is read, and the last one is the residual stream."""
    written = {"pixels"}
    for op in operations:
        assert {value.name for value in op.inputs} <= written
        assert written.isdisjoint(value.name for value in op.outputs)
        written |= {value.name for value in op.outputs}
    assert operations[-1].outputs[-1].kind is Kind.STREAM
    assert [number for number, _ in enumerate(blocks(operations))] == list(blocks(operations))
    assert sum(blocks(operations).values(), operations[:1]) == operations


def test_shapes_and_sources_do_not_depend_on_the_precision(spec: ModelSpec) -> None:
    described = [
        [(op.name, [(v.name, v.rows, v.channels) for v in (*op.inputs, *op.outputs)], op.macs) for op in ops]
        for ops in (program(spec, precision) for precision in PRESETS.values())
    ]
    assert described[0] == described[1] == described[2]
    for precision in PRESETS.values():
        sources = [t.source for t in tensors(program(spec, precision)).values() if t.source is not None]
        assert {s.name: s.shape for s in sources} | {
            name: shape for name, shape in tensor_shapes(spec).items() if name.startswith("heads.")
        } == tensor_shapes(spec)


def test_gates_of_tasks(micro_with: MakeModel) -> None:
    (own,) = of_type(program(micro_with({"layers": [1]}).spec), Gate)
    (shared,) = of_type(program(micro_with({"layers": [1], "shared_gate": True}).spec), Gate)
    assert [own.weight_index(1), shared.weight_index(1), own.bias_index(1)] == [(1,), (0,), (1,)]
    assert own.tasks == shared.tasks == 2
    assert own.bias.source is None  # the micro network's gates have no biases: a Design's are zeros


@pytest.mark.parametrize("name", zoo_names())
def test_multiply_accumulates(name: str) -> None:
    spec = find_spec(name)
    tokens, dim, moe = spec.tokens, spec.dim, spec.moe
    total = spec.patches * spec.patch_values * dim
    for layer in range(spec.depth):
        total += tokens * 3 * dim * dim + tokens * dim * dim  # qkv and the projection
        total += 2 * spec.heads * tokens * tokens * spec.head_dim  # scores, and values weighted by them
        if moe is not None and layer in spec.moe_layers:
            total += tokens * dim * moe.experts + moe.top_k * tokens * 2 * dim * moe.hidden_dim
        else:
            total += tokens * 2 * dim * spec.mlp_dim
    assert macs(program(spec)) == describe(spec).macs == total


def test_is_frozen(micro_with: MakeModel) -> None:
    for op in program(two_blocks(micro_with)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            op.name = "other"  # type: ignore[misc]


# --- The overflow check, at its limits ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def design(micro_with: MakeModel) -> Design:
    return random_design(two_blocks(micro_with), PRESETS["w16a16"])


@pytest.mark.parametrize("name", ["patch", "blocks.0.qkv", "blocks.0.fc2", "blocks.1.fc1", "blocks.1.gate"])
@pytest.mark.parametrize("sign", [1, -1])
def test_accumulators_hold_48_bits(design: Design, name: str, sign: int) -> None:
    """Sums from -(2**47 - 1) to 2**47 - 1 pass; one more does not."""
    found = dict(design.tensors)
    weight = found[f"{name}.weight"].astype(np.int64)
    row = (0,) * (weight.ndim - 1)
    # Pixels are bytes, all other operands have 16 bits.
    products = int(np.abs(weight[row]).sum()) << (7 if name == "patch" else 15)
    bias = found[f"{name}.bias"] = np.zeros_like(found[f"{name}.bias"])
    bias[row] = sign * ((1 << 47) - 1 - products)
    check_accumulators(design.program, found)
    bias[row] += sign
    with pytest.raises(OverflowRiskError, match=rf"^{name}: .* may need 49 bits, the accumulator has 48"):
        check_accumulators(design.program, found)


def test_gamma_has_18_bits(design: Design) -> None:
    found = dict(design.tensors)
    gamma = found["blocks.1.norm2.gamma"] = found["blocks.1.norm2.gamma"].copy()
    gamma[3] = 1 - (1 << 17)
    check_accumulators(design.program, found)
    gamma[3] = 1 << 17
    with pytest.raises(OverflowRiskError, match=r"^blocks\.1\.norm2\.gamma: 131072 needs more than 18 bits"):
        check_accumulators(design.program, found)


def test_shift_is_at_most_62(design: Design) -> None:
    found = dict(design.tensors)
    shift = found["blocks.0.proj.shift"] = found["blocks.0.proj.shift"].copy()
    shift[5] = 62
    check_accumulators(design.program, found)
    shift[5] = 63
    with pytest.raises(OverflowRiskError, match=r"^blocks\.0\.proj\.shift: 63, expected at most 62"):
        check_accumulators(design.program, found)


def test_sums_that_wrap_are_not_checked(micro_with: MakeModel) -> None:
    """The original's arithmetic has no accumulator to leave."""
    wide = random_design(two_blocks(micro_with), PRESETS["iccad23"])
    largest = {
        name: np.full_like(t, np.iinfo(t.dtype).max)
        for name, t in wide.tensors.items()
        if t.dtype.kind == "i"
    }
    dataclasses.replace(wide, tensors=wide.tensors | largest)


def test_design_tensors_are_the_programs(spec: ModelSpec) -> None:
    for precision in PRESETS.values():
        assert list(design_tensors(spec, precision)) == list(tensors(program(spec, precision)))
