"""Capacities of an accelerator: what a network needs, what the hardware gives, and where they are to be read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from codegen.architecture import Architecture
from codegen.hardware import Hardware, default_hardware, settable
from codegen.hwh import control_registers
from codegen.manifest import arguments_of
from codegen.rtl.accelerator import accelerator_files, accelerator_parameters
from codegen.schedule import job_table
from common.capacities import CAPACITIES, Capacities
from common.contract import WAIT_FOR_ROUTER, kernel_arguments
from common.errors import InputError
from frontend.zoo import find_spec
from pysim.network import Network
from pysim.precision import PRESETS
from pysim.spec import ModelSpec

SMALL = Hardware(lanes=4, outputs=8, token_tile=2, attention_rows=4, weight_rows=24, backend="rtl")


def network(moe: dict[str, Any] | None = {}, precision: str = "w8a8", **changes: Any) -> Network:  # noqa: B006
    """The micro network of another shape, or without experts."""
    data = find_spec("micro").model_dump()
    data["moe"] = None if moe is None else data["moe"] | moe
    return Network(ModelSpec.model_validate(data | {"task_heads": {}} | changes), PRESETS[precision])


def test_a_network_needs_its_own_sizes() -> None:
    needs = Architecture(network(), SMALL).needs
    assert needs == Capacities(
        max_batch=1,
        max_tokens=9,
        max_token_words=6,
        max_head_words=3,
        max_mixed_words=6,
        max_row_words=6 + 6 + 12,
        max_experts=5,
        max_top_k=2,
        max_tasks=2,
        max_jobs=len(job_table(Architecture(network(), SMALL))),
        max_group=3,
    )
    plain = Architecture(network(moe=None), SMALL).needs
    assert (plain.max_experts, plain.max_top_k, plain.max_row_words) == (0, 0, 6 + 12)


@pytest.mark.parametrize("backend", ["hls", "rtl"])
def test_capacities_are_the_needs_where_nothing_else_is_said(backend: str) -> None:
    architecture = Architecture(network(), SMALL.changed(backend=backend, max_batch=3))
    assert architecture.capacities == architecture.needs
    assert architecture.capacities.rows == 27


@pytest.mark.parametrize("name", [name for name in CAPACITIES if name not in ("max_batch", "max_group")])
def test_a_capacity_that_does_not_suffice_is_named(name: str) -> None:
    need = getattr(Architecture(network(), SMALL).needs, name)
    assert getattr(Architecture(network(), SMALL.changed(**{name: need})).capacities, name) == need
    with pytest.raises(InputError) as caught:
        Architecture(network(), SMALL.changed(**{name: need - 1}))
    message = f"micro does not fit the accelerator: {name}: it needs {need}, the accelerator holds {need - 1}"
    assert caught.value.message == message
    assert caught.value.hint.endswith(f"--set {name}={need}")


def test_every_capacity_that_lacks_is_named() -> None:
    with pytest.raises(InputError) as caught:
        Architecture(network(), SMALL.changed(max_tokens=8, max_jobs=10, max_experts=0))
    for name, there in (("max_tokens", 8), ("max_jobs", 10), ("max_experts", 0)):
        assert f"{name}: it needs " in caught.value.message
        assert f"the accelerator holds {there}" in caught.value.message


def test_fewer_blocks_of_a_group_make_more_groups() -> None:
    free, narrow = Architecture(network(), SMALL), Architecture(network(), SMALL.changed(max_group=1))
    assert free.max_group == 3 and narrow.max_group == narrow.needs.max_group == 1
    for kind, shape in narrow.shapes.items():
        assert 2 * shape.pairs >= shape.blocks, kind
    assert narrow.layout == free.layout


def test_one_hardware_runs_many_networks() -> None:
    """Networks of other depth, heads, experts and tokens have the identity of the accelerator that holds them."""
    large = Architecture(network(), SMALL)
    hardware, others = large.built_hardware, 0
    assert Architecture(network(), hardware).hardware_id == large.hardware_id
    for other in (
        network(depth=1),
        network(moe=None),
        network({"experts": 3, "top_k": 1, "gate": "topk-softmax"}),
        network(image_size=(4, 8), tasks=["only"]),
        network(heads=6),
        network(norm_eps=1e-3, qkv_bias=False),
    ):
        architecture = Architecture(other, hardware)
        assert architecture.hardware_id == large.hardware_id
        assert architecture.capacities == large.capacities
        assert architecture.sum_bits == large.sum_bits
        assert architecture.softmax_sum_bits == large.softmax_sum_bits
        others += architecture.layout != large.layout
    assert others == 6
    for unlike in (network(precision="w16a16"), network(activation="relu")):
        assert Architecture(unlike, hardware).hardware_id != large.hardware_id


def test_the_accelerator_is_the_same_whatever_network_it_was_made_for(tmp_path: Path) -> None:
    """Nothing of a network but what is part of the identity is in its SystemVerilog."""
    hardware = Architecture(network(), SMALL).built_hardware
    texts = []
    for number, made_for in enumerate((network(), network(moe=None, depth=1, image_size=(4, 8), heads=6))):
        (tmp_path / str(number)).mkdir()
        files = accelerator_files(Architecture(made_for, hardware), tmp_path / str(number))
        texts.append({file.name: file.read_text() for file in files})
    assert texts[0] == texts[1]
    top = texts[0]["edgemoe_top.sv"]
    for name, value in hardware.given_capacities.items():
        assert f"assign {name}_value = 32'd{value};" in top


@pytest.mark.parametrize(("experts", "queues"), [(0, 1), (1, 2), (2, 2), (5, 5)])
def test_a_router_is_there_where_any_expert_is(experts: int, queues: int) -> None:
    moe = {"experts": experts, "top_k": 1} if experts else None
    assert accelerator_parameters(Architecture(network(moe=moe), SMALL))["EXPERTS"] == queues


def test_every_capacity_is_part_of_the_identity() -> None:
    built = Architecture(network(), SMALL).built_hardware
    ids = {Architecture(network(), built).hardware_id}
    for name in CAPACITIES:
        ids.add(Architecture(network(), built.changed(**{name: getattr(built, name) + 1})).hardware_id)
    ids.add(Architecture(network(), SMALL.changed(backend="hls")).hardware_id)
    assert len(ids) == 2 + len(CAPACITIES)


def test_what_has_no_capacities_refuses_them() -> None:
    with pytest.raises(
        InputError, match="max_tokens, max_jobs: capacities of an RTL accelerator, but backend"
    ):
        Architecture(network(), SMALL.changed(backend="hls", max_tokens=99, max_jobs=99))
    with pytest.raises(InputError, match="RTL accelerator has the arithmetic requantise, not iccad23"):
        Architecture(network(precision="iccad23"), SMALL)
    with pytest.raises(InputError, match="backend = rtl: not for boards of the family alveo"):
        Architecture(network(), SMALL.changed(family="alveo"))
    with pytest.raises(InputError, match="max_tokens = 40000 with max_batch = 2: 80000 tokens"):
        Architecture(network(), SMALL.changed(max_tokens=40000, max_batch=2))


def test_hardware_toml_keeps_capacities(tmp_path: Path) -> None:
    built = Architecture(network(), SMALL).built_hardware
    for hardware in (SMALL, built):
        hardware.save(tmp_path / "hardware.toml")
        assert Hardware.load(tmp_path / "hardware.toml") == hardware
    assert set(CAPACITIES) <= set(settable())
    assert built.given_capacities == Architecture(network(), SMALL).needs.as_dict()
    assert SMALL.with_settings(["max_tokens=50"]).max_tokens == 50


def test_registers_of_both_backends_are_the_same() -> None:
    hls = arguments_of(Architecture(network(), SMALL.changed(backend="hls")))
    rtl = arguments_of(Architecture(network(), SMALL))
    assert rtl[-1].name == WAIT_FOR_ROUTER and rtl[:-1] == hls
    registers = control_registers(rtl)
    assert registers[: len(control_registers(hls))] == control_registers(hls) and len(registers) > 30
    names = [argument.name for argument in hls]
    assert names[-len(CAPACITIES) - 1 :] == ["max_batch", "status", *CAPACITIES[1:]]
    assert [field.name for field in fields(Capacities)] == list(CAPACITIES)
    # XRT reads no registers back: such a kernel has room for neither, and reports the rest in memory.
    card = [argument.name for argument in kernel_arguments(4, xrt=True)]
    assert card[-3:] == ["hardware_id", "max_batch", "status"] and "cycles" not in card


def test_default_hardware_has_none() -> None:
    assert list(default_hardware(network()).given_capacities) == ["max_batch"]
    assert not set(default_hardware(network()).model_dump()) & set(CAPACITIES[1:])
