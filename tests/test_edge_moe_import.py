"""Import of the original's weight folder, on a small one in its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from common.errors import InputError
from frontend.edge_moe import SUFFIX, Geometry, import_edge_moe

DIM, DEPTH, MLP, EXPERTS, HIDDEN, TOKENS, PATCH = 12, 4, 20, 3, 10, 9, 4
GEOMETRY = Geometry(heads=2, top_k=2, image_size=(8, 16), patch_size=PATCH)

FloatArray = NDArray[np.float32]


def shapes() -> dict[str, tuple[int, ...]]:
    named: dict[str, tuple[int, ...]] = {
        "patch_embed_weight": (DIM, 3, PATCH, PATCH),
        "patch_embed_bias": (DIM,),
        "pos_embed": (TOKENS, DIM),
        "image": (3, 8, 16),
    }
    for i in range(DEPTH):
        layer: dict[str, tuple[int, ...]] = {
            "qkv_weight": (3 * DIM, DIM),
            "qkv_bias": (3 * DIM,),
            "attn_proj_weight": (DIM, DIM),
            "attn_proj_bias": (DIM,),
            **{f"norm{n}_{part}": (DIM,) for n in (1, 2) for part in ("weight", "bias")},
        }
        if i % 2 == 0:
            layer |= {
                "fc1_weight": (MLP, DIM),
                "fc1_bias": (MLP,),
                "fc2_weight": (DIM, MLP),
                "fc2_bias": (DIM,),
            }
        else:
            layer |= {"htoh4_weight": (EXPERTS, HIDDEN, DIM), "htoh4_bias": (EXPERTS, HIDDEN)}
            layer |= {"h4toh_weight": (EXPERTS, DIM, HIDDEN), "h4toh_bias": (EXPERTS, DIM)}
            layer |= {f"w_gate_T_task{task}": (EXPERTS, DIM) for task in (0, 1)}
        named |= {f"l{i}_{name}": shape for name, shape in layer.items()}
    return named


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, dict[str, FloatArray]]:
    folder = tmp_path / "weights"
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.3, shape).astype("<f4") for name, shape in shapes().items()}
    for name, array in arrays.items():
        array.tofile(folder / (name + SUFFIX))
    return folder, arrays


def remove_experts(folder: Path, layers: tuple[int, ...] = (1, 3)) -> None:
    for layer in layers:
        for name in ("htoh4", "h4toh"):
            (folder / f"l{layer}_{name}_weight{SUFFIX}").unlink()


def test_every_tensor_lands_where_it_belongs(source: tuple[Path, dict[str, FloatArray]]) -> None:
    folder, arrays = source
    model = import_edge_moe(folder, GEOMETRY)
    spec = model.spec
    assert (spec.dim, spec.depth, spec.heads, spec.mlp_dim, spec.tokens) == (DIM, DEPTH, 2, MLP, TOKENS)
    assert spec.moe is not None
    assert (spec.moe.layers, spec.moe.experts, spec.moe.hidden_dim, spec.moe.top_k) == (
        "odd",
        EXPERTS,
        HIDDEN,
        2,
    )
    assert (spec.tasks, spec.task_heads, spec.notes, spec.norm_eps) == (["semseg", "depth"], {}, "", 1e-6)
    for ours, theirs in (
        ("patch_embed.weight", "patch_embed_weight"),
        ("pos_embed", "pos_embed"),
        ("blocks.2.attn.qkv.bias", "l2_qkv_bias"),
        ("blocks.3.attn.proj.weight", "l3_attn_proj_weight"),
        ("blocks.3.norm2.weight", "l3_norm2_weight"),
        ("blocks.0.mlp.fc1.weight", "l0_fc1_weight"),
        ("blocks.2.mlp.fc2.bias", "l2_fc2_bias"),
        ("blocks.1.moe.fc1.weight", "l1_htoh4_weight"),
        ("blocks.3.moe.fc2.weight", "l3_h4toh_weight"),
        ("blocks.3.moe.fc2.bias", "l3_h4toh_bias"),
    ):
        assert_array_equal(model.weights[ours], arrays[theirs], strict=True)
    gates = [arrays[f"l3_w_gate_T_task{task}"] for task in (0, 1)]
    assert_array_equal(model.weights["blocks.3.moe.gate.weight"], np.stack(gates))


def test_geometry_that_does_not_fit(source: tuple[Path, dict[str, FloatArray]]) -> None:
    folder, _ = source
    with pytest.raises(InputError, match=r"patch_embed_weight.*2304 bytes, expected a multiple of 12288"):
        import_edge_moe(folder)
    with pytest.raises(InputError, match=r"pos_embed.*432 bytes, expected 240") as raised:
        import_edge_moe(folder, Geometry(heads=2, image_size=(8, 8), patch_size=PATCH))
    assert "--image-size" in raised.value.hint
    with pytest.raises(InputError, match="dim = 12 is not a multiple of heads = 5"):
        import_edge_moe(folder, Geometry(heads=5, image_size=(8, 16), patch_size=PATCH))
    with pytest.raises(InputError, match="top_k = 4 is more than experts = 3"):
        import_edge_moe(folder, Geometry(heads=2, top_k=4, image_size=(8, 16), patch_size=PATCH))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("l2_fc1_weight", 956, "956 bytes, expected 960: float32 of shape (20, 12)"),
        ("l3_w_gate_T_task1", 148, "148 bytes, expected 144"),
        ("l1_htoh4_bias", 124, "124 bytes, expected a multiple of 12 (experts)"),
        ("l0_norm1_weight", 0, "0 bytes, expected a positive multiple of 4"),
        ("l0_norm1_weight", 47, "47 bytes, expected a positive multiple of 4"),
    ],
)
def test_wrong_length(source: tuple[Path, dict[str, FloatArray]], name: str, size: int, message: str) -> None:
    path = source[0] / (name + SUFFIX)
    path.write_bytes(path.read_bytes().ljust(size, b"\0")[:size])
    with pytest.raises(InputError) as raised:
        import_edge_moe(source[0], GEOMETRY)
    assert f"{path}: {message}" in raised.value.message


def test_weights_that_are_not_finite(source: tuple[Path, dict[str, FloatArray]]) -> None:
    path = source[0] / f"l1_norm1_bias{SUFFIX}"
    np.full(DIM, np.nan, "<f4").tofile(path)
    with pytest.raises(InputError, match=r"blocks\.1\.norm1\.bias: 12 of 12 values are not finite"):
        import_edge_moe(source[0], GEOMETRY)


@pytest.mark.parametrize("name", ["pos_embed", "l0_norm1_weight", "l1_w_gate_T_task0", "l3_w_gate_T_task1"])
def test_missing_file(source: tuple[Path, dict[str, FloatArray]], name: str) -> None:
    (source[0] / (name + SUFFIX)).unlink()
    with pytest.raises(InputError, match=f"weights missing, 1 file: {name}{SUFFIX}") as raised:
        import_edge_moe(source[0], GEOMETRY, fill_missing_experts=0)
    assert "--fill" not in raised.value.hint


def test_many_missing_files(source: tuple[Path, dict[str, FloatArray]]) -> None:
    for path in source[0].glob("l2_*"):
        path.unlink()
    with pytest.raises(InputError, match=r"weights missing, 12 files: (\S+, ){3}\S+ and 8 more"):
        import_edge_moe(source[0], GEOMETRY)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing: no such folder"):
        import_edge_moe(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no \*\.float32\.bin file"):
        import_edge_moe(tmp_path)
    (tmp_path / f"image{SUFFIX}").write_bytes(b"")
    with pytest.raises(InputError, match="no layer in this folder"):
        import_edge_moe(tmp_path)


def test_missing_experts_are_filled_only_when_asked(source: tuple[Path, dict[str, FloatArray]]) -> None:
    folder, arrays = source
    remove_experts(folder)
    with pytest.raises(InputError, match="expert weights missing, 4 files: l1_htoh4_weight") as raised:
        import_edge_moe(folder, GEOMETRY)
    assert raised.value.hint == "--fill-missing-experts SEED fills them with random weights"

    model = import_edge_moe(folder, GEOMETRY, fill_missing_experts=7)
    assert model.spec.notes.startswith("EXPERT WEIGHTS ARE RANDOM in layers 1, 3 (seed 7)")
    names = [f"blocks.{layer}.moe.fc{part}.weight" for layer in (1, 3) for part in (1, 2)]
    for name in names:
        part = name[-8]
        spread = np.mean([arrays[f"l{layer}_fc{part}_weight"].std() for layer in (0, 2)])
        assert model.weights[name].std() == pytest.approx(spread, rel=0.15)
    values: list[Any] = [model.weights[name].ravel()[:8].tolist() for name in names]
    assert len({tuple(value) for value in values}) == 4

    again = import_edge_moe(folder, GEOMETRY, fill_missing_experts=7)
    other = import_edge_moe(folder, GEOMETRY, fill_missing_experts=8)
    for name in names:
        assert_array_equal(again.weights[name], model.weights[name])
        assert (other.weights[name] != model.weights[name]).all()


def test_experts_that_are_there_stay(source: tuple[Path, dict[str, FloatArray]]) -> None:
    folder, arrays = source
    complete = import_edge_moe(folder, GEOMETRY, fill_missing_experts=7)
    assert complete.spec.notes == ""
    remove_experts(folder, (3,))
    model = import_edge_moe(folder, GEOMETRY, fill_missing_experts=7)
    assert "in layers 3 (seed 7)" in model.spec.notes
    assert_array_equal(model.weights["blocks.1.moe.fc1.weight"], arrays["l1_htoh4_weight"])
