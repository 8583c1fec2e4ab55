"""Every form of graph that people have: each imports as what it computes, or is refused for what stands in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_array_equal

import edgemoe
from common.errors import EdgeMoeError, InputError
from damage import bent
from frontend.importing import import_model
from frontend.options import Imported, Options
from frontend.pixels import NONE, parse_normalization
from onnx_vits import DIM, HEADS, HEIGHT, PATCH, SCALE, TOKENS, WIDTH, GraphVit, halved
from pysim import reference

pytestmark = pytest.mark.slow

RAW = Options(normalization=NONE)
LEAST = 110.0
"""Decibels between float32 and float64 results of one network."""


def run(path: Path, names: list[str], feed: Any) -> list[Any]:
    """Results of onnxruntime for (images, channels, height, width) in [0, 1), one image at a time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    last = session.get_inputs()[0].shape[3] == 3
    rows = [
        session.run(names, {"image": (image.transpose(1, 2, 0) if last else image)[None]}) for image in feed
    ]
    return [np.concatenate(results) for results in zip(*rows, strict=True)]


def decibels(found: Any, expected: Any) -> float:
    return float(10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum()))


def assert_same(
    imported: Imported, path: Path, vit: GraphVit, least: float = LEAST, scale: float = 256
) -> None:
    """Tokens, and logits if there are any, are onnxruntime's."""
    model = imported.model
    images = edgemoe.random_images(model, 2, seed=3)
    logits, tokens = run(path, [vit.output, vit.last], (images / scale).astype(np.float32))
    found = reference.run(model, images).tokens
    assert decibels(found, tokens.astype(np.float64)) > least
    heads = [task for task in model.spec.tasks if model.spec.head(task).kind != "none"]
    for task in heads:
        assert decibels(reference.apply_head(model, task, found), logits.astype(np.float64)) > least


def fails(path: Path, *parts: str, options: Options = RAW) -> InputError:
    with pytest.raises(InputError) as caught:
        import_model(path, options)
    for part in parts:
        assert part in caught.value.message, caught.value.message
    return caught.value


FORMS: dict[str, dict[str, Any]] = {
    "q, k, v fused": {},
    "q, k, v in another order": {"attention": "other_order"},
    "q, k, v interleaved in each head": {"attention": "interleaved"},
    "split, then biases": {"attention": "split_adds"},
    "Gemm on rows, heads as batch": {"attention": "gemm"},
    "queries and keys scaled": {"attention": "both_scaled"},
    "Einsum": {"attention": "einsum"},
    "Einsum, tokens first": {"attention": "einsum_tokens_first"},
    "Einsum with dots, projections too": {"attention": "einsum_dots"},
    "keys first": {"attention": "keys_first"},
    "zero mask": {"attention": "mask"},
    "mask made of sizes": {"attention": "computed_mask"},
    "mask that keeps all": {"attention": "where_mask"},
    "guard against NaN": {"attention": "guard"},
    "Attention": {"attention": "operation", "opset": 23},
    "Attention of opset 24": {"attention": "operation", "opset": 24},
    "Attention, heads side by side": {"attention": "flat_operation", "opset": 23},
    "Attention, keys shared by heads": {"attention": "shared_keys", "opset": 23},
    "Attention, zero mask": {
        "attention": "operation",
        "opset": 23,
        "mask": np.zeros((TOKENS, TOKENS), np.float32),
    },
    "Attention, mask that keeps all": {
        "attention": "operation",
        "opset": 23,
        "mask": np.ones((TOKENS, TOKENS), bool),
    },
    "values of another head": {"attention": "moved_heads"},
    "layer scale": {"layer_scale": True},
    "registers": {"registers": 2},
    "channels last": {"patches": "last"},
    "linear patches": {"patches": "linear"},
    "linear patches, channels last": {"patches": "last_linear"},
    "positions resized by bicubic interpolation": {"positions": "cubic"},
    "positions resized with antialiasing": {"positions": "antialiased"},
    "positions resized by scales": {"positions": "scaled"},
    "positions made of waves": {"positions": "waves"},
    "MLP on rows": {"mlp": "rows"},
    "norms of nine operations": {"nine": (2.0, -1)},
    "a large epsilon": {"epsilon": 1e-2},
    "two blocks": {"depth": 2, "attention": "split_adds", "layer_scale": True},
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_import(tmp_path: Path, name: str) -> None:
    vit = GraphVit(**FORMS[name])
    path = vit.save(tmp_path / "vit.onnx")
    imported = import_model(path, RAW)
    spec = imported.model.spec
    assert (spec.heads, spec.image_size, spec.patch_size) == (HEADS, (HEIGHT, WIDTH), PATCH)
    assert spec.task_heads
    assert_same(imported, path, vit)


def lone_mask(value: Any, keep: Any, dtype: Any = np.float32) -> Any:
    mask = np.full((1, 1, TOKENS, TOKENS), keep, dtype)
    mask[..., 2, 3] = value
    return mask


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a mask": ({"attention": "mask", "mask": lone_mask(-1e4, 0)}, ("(Add): scores to which constants other",)),
    "a faint mask": ({"attention": "mask", "mask": lone_mask(1e-3, 0)}, ("constants other than zero",)),
    "a hidden key": (
        {"attention": "where_mask", "mask": lone_mask(False, True, bool)},
        ("(Where): scores some of which are masked",),
    ),
    "a mask of Attention": (
        {"attention": "operation", "opset": 23, "mask": lone_mask(False, True, bool)},
        ("(Attention): scores to which constants other than zero",),
    ),
    "causal": ({"attention": "causal", "opset": 23}, ("(Attention): attention with a causal mask",)),
    "soft cap": ({"attention": "capped", "opset": 23}, ("(Attention): attention with a soft cap",)),
    "scale of Attention": (
        {"attention": "operation", "opset": 23, "scale": 1.01 * SCALE},
        ("(Attention): computes something else", "multiplied by 0.505, expected 0.5 for heads of 4 channels"),
    ),
    "scale": ({"scale": 1.001 * SCALE}, ("multiplied by 0.5005, expected 0.5",)),
    "scale of channels": ({"scale": DIM**-0.5}, ("multiplied by 0.288675, expected 0.5",)),
    "another guard": ({"attention": "wrong_guard"}, ("(Equal): expected the product of attention weights and values",)),
    "keys of other tokens": ({"attention": "moved_keys"}, ("(Add): computes something else than the residual",)),
    "rotary positions": ({"attention": "rotary"}, ("depend on the place of a token (rotary positions",)),
    "norms of queries": (
        {"attention": "normed"},
        ("(LayerNormalization): expected only linear layers", "no norms of queries and keys"),
    ),
    "a gate": ({"attention": "gated"}, ("expected the projection of attention",)),
    "a short cut": ({"attention": "short_cut"}, ("expected the projection of attention",)),
    "tokens moved in an MLP": ({"mlp": "moved_tokens"}, ("(Add): computes something else than the",)),
    "places in an MLP": ({"mlp": "positions"}, ("(Add): computes something else than the residual sum of an MLP",)),
    "a gated MLP": ({"mlp": "gated"}, ("(Split): picks channels: a gated MLP",)),
    "a sharper sigmoid": ({"mlp": "double"}, ("computes something else than GELU by a sigmoid",)),
    "another power in norms": ({"nine": (4.0, -1)}, ("(ReduceMean): computes something else than the LayerNorm",)),
    "norms over tokens": ({"nine": (2.0, 1)}, ("(ReduceMean): computes something else than the LayerNorm",)),
    "patches in columns": ({"patches": "columns"}, ("constant tokens, then patches in rows",)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_graphs_that_compute_something_else(tmp_path: Path, name: str) -> None:
    how, parts = WRONG[name]
    fails(GraphVit(**how).save(tmp_path / "vit.onnx"), "node ", *parts)


def test_operations_with_operands_of_others(tmp_path: Path) -> None:
    """Damage within a part that is probed with unit vectors."""
    for op, other in (("Conv", "Add"), ("MatMul", "Conv"), ("Gather", "Einsum")):
        proto = GraphVit("interleaved").proto()
        next(node for node in proto.graph.node if node.op_type == op).op_type = other
        path = tmp_path / "vit.onnx"
        path.write_bytes(proto.SerializeToString())
        fails(path, "node ")


def test_small_weights_hide_nothing(tmp_path: Path) -> None:
    """Fresh networks have scores near zero, where a softmax of anything is nearly the same."""
    for attention in ("moved_keys", "mask"):
        vit = GraphVit(attention, mask=lone_mask(0.01, 0))
        for tensor in vit.constants:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
                values = onnx.numpy_helper.to_array(tensor) * np.float32(1e-3)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        fails(vit.save(tmp_path / f"{attention}.onnx"), "node ")


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    """To the last bit: neither the scale of attention nor the probing of layers rounds them."""
    vit = GraphVit("other_order")
    weights = import_model(vit.save(tmp_path / "vit.onnx"), RAW).model.weights
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in vit.constants}
    (joined,) = (tensor for tensor in tensors.values() if tensor.shape == (DIM, 3 * DIM))
    v, q, k = np.split(joined.T, 3)
    assert_array_equal(weights["blocks.0.attn.qkv.weight"], np.concatenate([q, k, v]))
    kernel = next(tensor for tensor in tensors.values() if tensor.ndim == 4)
    assert_array_equal(weights["patch_embed.weight"], kernel)


def test_half_precision_behind_casts_in_any_order(tmp_path: Path) -> None:
    vit = GraphVit("guard", depth=2)
    proto = halved(vit.proto())
    path = tmp_path / "half.onnx"
    path.write_bytes(proto.SerializeToString())
    assert_same(import_model(path, RAW), path, vit, least=45)
    loop = onnx.ModelProto()
    loop.CopyFrom(proto)
    loop.graph.node[-3].input[0] = loop.graph.node[0].output[0]
    path.write_bytes(loop.SerializeToString())
    fails(path, "reads its own result, directly or through others")


def test_images_that_the_graph_normalises(tmp_path: Path) -> None:
    vit = GraphVit(patches="normalised")
    path = vit.save(tmp_path / "vit.onnx")
    error = fails(
        path, "the graph itself scales or shifts the image", "--normalize needed", options=Options()
    )
    assert "unit" in (error.hint or "")
    unit = import_model(path, Options(normalization=parse_normalization("unit")))
    assert_same(unit, path, vit, scale=255)


# Decoders and cuts


def test_the_encoder_in_front_of_a_decoder(tmp_path: Path) -> None:
    """As DINOv2 with a decoder: layer scale, registers, and an image as result."""
    vit = GraphVit(depth=2, layer_scale=True, registers=1, decoder=True)
    path = vit.save(tmp_path / "vit.onnx")
    imported = import_model(path, RAW)
    assert imported.model.spec.task_heads == {}
    assert imported.model.spec.prefix_tokens == 2
    (said,) = (remark for remark in imported.remarks if "left out" in remark)
    assert f"output {vit.output} left out" in said
    assert "(ConvTranspose)" in said
    assert vit.last in said
    assert_same(imported, path, vit)


def test_a_cut_by_hand(tmp_path: Path) -> None:
    vit = GraphVit(depth=2)
    path = vit.save(tmp_path / "vit.onnx")
    sums = [node for node in vit.nodes if node.op_type == "Add"]
    behind_first = next(node for node in sums if node.output[0] in _stream(vit)[1:])
    for name in (behind_first.output[0], behind_first.name):
        imported = import_model(path, Options(normalization=NONE, outputs=(name,)))
        assert imported.model.spec.depth == 1
        images = edgemoe.random_images(imported.model, 1, seed=3)
        proto = vit.proto()
        proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(behind_first.output[0]))
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(proto.SerializeToString())
        (tokens,) = run(cut, [behind_first.output[0]], (images / 256).astype(np.float32))
        assert decibels(reference.run(imported.model, images).tokens, tokens) > LEAST
    error = fails(path, "--outputs nowhere: no tensor or node", options=Options(outputs=("nowhere",)))
    assert vit.output in (error.hint or "")


def _stream(vit: GraphVit) -> list[str]:
    """Tokens in front of the blocks, and behind each."""
    norms = [node.input[0] for node in vit.nodes if node.op_type == "LayerNormalization"]
    return norms[::2]


def test_blocks_that_are_no_decoder(tmp_path: Path) -> None:
    """Attention that is none of ours behind blocks that are: not taken for a decoder, but the cut is offered."""
    vit = GraphVit(depth=2)
    path = vit.save(tmp_path / "vit.onnx")
    proto = vit.proto()
    last = [node for node in proto.graph.node if node.op_type == "Softmax"][-1]
    last.op_type = "Sigmoid"
    del last.attribute[:]
    path.write_bytes(proto.SerializeToString())
    error = fails(path, "expected attention, which has one softmax")
    assert f"--outputs {_stream(vit)[1]} cuts the graph" in (error.hint or "")


def test_a_pooler_is_left_out(tmp_path: Path) -> None:
    vit = GraphVit()
    proto = vit.proto()
    proto.graph.node.append(onnx.helper.make_node("Tanh", [vit.output], ["pooled"], name="pooler"))
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info("pooled"))
    path = tmp_path / "vit.onnx"
    path.write_bytes(proto.SerializeToString())
    imported = import_model(path, RAW)
    assert list(imported.model.spec.task_heads) == [vit.output]
    assert any(
        "output pooled left out" in remark and "pooler (Tanh)" in remark for remark in imported.remarks
    )
    assert_same(imported, path, vit)


def test_probabilities_end_a_head(tmp_path: Path) -> None:
    vit = GraphVit()
    vit.nodes.append(onnx.helper.make_node("Softmax", [vit.output], ["probabilities"], name="last"))
    proto = vit.proto()
    proto.graph.output[0].name = "probabilities"
    path = tmp_path / "vit.onnx"
    path.write_bytes(proto.SerializeToString())
    imported = import_model(path, RAW)
    assert list(imported.model.spec.task_heads) == ["probabilities"]
    assert any("output probabilities: node last (Softmax) left out" in remark for remark in imported.remarks)
    proto.graph.output.add(name=vit.output)
    path.write_bytes(proto.SerializeToString())
    assert_same(import_model(path, Options(normalization=NONE, outputs=(vit.output, vit.last))), path, vit)


def test_tokens_of_inner_blocks_are_left_out(tmp_path: Path) -> None:
    vit = GraphVit(depth=2)
    proto = vit.proto()
    inner = _stream(vit)[1]
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(inner))
    path = tmp_path / "vit.onnx"
    path.write_bytes(proto.SerializeToString())
    imported = import_model(path, RAW)
    assert any(f"output {inner} left out: it does not read" in remark for remark in imported.remarks)
    assert_same(imported, path, vit)


# No graph that computes something else is ever accepted


@pytest.mark.parametrize(
    "attention", ["fused", "split_adds", "einsum", "keys_first", "mask", "flat_operation"]
)
def test_bent_graphs_are_refused_or_read_rightly(tmp_path: Path, attention: str) -> None:
    """Whatever is changed in a graph that imports: what is still accepted computes what onnxruntime computes."""
    vit = GraphVit(attention, patches="linear" if attention == "einsum" else "convolution", opset=23)
    proto, rng = vit.proto(), np.random.default_rng(len(attention))
    path, accepted, refused = tmp_path / "vit.onnx", 0, 0
    for _ in range(60):
        path.write_bytes(bent(proto, rng).SerializeToString())
        try:
            imported = import_model(path, RAW)
        except EdgeMoeError:
            refused += 1
            continue
        try:
            run(path, [vit.output, vit.last], np.zeros((1, 3, HEIGHT, WIDTH), np.float32))
        except Exception:  # a file that onnxruntime refuses has no results to compare with
            continue
        accepted += 1
        assert_same(imported, path, vit)
    assert accepted > 3
    assert refused > 10
