"""ONNX: what is exported gives the network's results, what is imported is the network, and all else is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import edgemoe
from common.errors import InputError
from foreign import m3vit_state, saved, with_head, with_heads
from frontend.decoder import load_decoder
from frontend.importing import import_model
from frontend.network import Network
from frontend.onnx_export import export_decoder, export_model, has_task_input
from frontend.options import Options
from frontend.pixels import NONE, parse_normalization
from pysim import reference
from pysim.model import Model
from torch_vits import ForeignVit, export

pytestmark = pytest.mark.slow

MakeModel = Callable[..., Model]

RAW = Options(normalization=NONE)


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def pixels(model: Model, count: int = 2) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    images = edgemoe.random_images(model, count, seed=5)
    return images, (images / 256).astype(np.float32)


def head(model: Model, task: str, tokens: Any) -> Any:
    return reference.apply_head(model, task, tokens)


def fails(path: Path, *parts: str, options: Options = RAW) -> None:
    with pytest.raises(InputError) as caught:
        import_model(path, options)
    for part in parts:
        assert part in caught.value.message, caught.value.message


def assert_same(model: Model, expected: Model, atol: float = 0.0) -> None:
    assert set(model.weights) == set(expected.weights)
    for name, tensor in expected.weights.items():
        assert_allclose(model.weights[name], tensor, rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro network, exported once; to read, not to change."""
    path = tmp_path_factory.mktemp("onnx") / "micro.onnx"
    export_model(edgemoe.init_model("micro", seed=1), path)
    return path


# Our own networks


def test_export_gives_the_networks_results(micro: Model, exported: Path) -> None:
    images, fed = pixels(micro, 3)
    run = session(exported)
    for number, task in enumerate(micro.spec.tasks):
        tokens, logits = run.run(["tokens", task], {"image": fed, "task": np.array(number)})
        expected = reference.run(micro, images, number).tokens
        assert_allclose(tokens, expected, atol=1e-5)
        assert_allclose(logits, head(micro, task, expected), atol=1e-5)


def test_round_trip_through_onnx_is_exact(micro: Model, exported: Path) -> None:
    imported = import_model(exported)
    assert imported.model.spec == micro.spec
    assert_same(imported.model, micro)


VARIANTS: dict[str, dict[str, Any]] = {
    "renormalised": {"moe": {"gate": "topk-softmax"}},
    "shared gate with biases": {"moe": {"shared_gate": True, "gate_bias": True, "layers": [0, 2]}},
    "shared gate": {"moe": {"shared_gate": True}},
    "gate biases": {"moe": {"gate_bias": True, "top_k": 1}},
    "plain": {"moe": None, "tasks": ["depth"], "qkv_bias": False},
    "one task": {"tasks": ["semseg"], "moe": {"layers": "all", "top_k": 5}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_without_our_metadata(micro_with: MakeModel, tmp_path: Path, name: str) -> None:
    """As anyone exports our torch network, with the older exporter: nothing is known but the graph."""
    model = micro_with(**VARIANTS[name])
    network = Network.from_model(model)
    by_task = has_task_input(model)

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Any, task: Any = 0) -> Any:
            tokens = self.network(image, task)
            return (tokens, *(self.network.heads[name](tokens) for name in model.spec.task_heads))

    _, fed = pixels(model)
    example = (torch.from_numpy(fed), torch.tensor(0)) if by_task else (torch.from_numpy(fed),)
    names = ["image", "task"][: len(example)]
    outputs = ["tokens", *model.spec.task_heads]
    path = export(
        Graph(), tmp_path / "net.onnx", example, dynamo=False, input_names=names, output_names=outputs
    )
    options = Options(normalization=NONE, tasks=tuple(model.spec.tasks))
    imported = import_model(path, options).model
    assert_same(imported, model)
    spec, moe = imported.spec, imported.spec.moe
    assert spec.tasks == model.spec.tasks
    assert (spec.heads, spec.norm_eps, spec.moe_layers) == (model.spec.heads, 1e-6, model.spec.moe_layers)
    assert spec.task_heads == model.spec.task_heads
    if moe is not None and model.spec.moe is not None and moe.top_k < moe.experts:
        assert moe.gate_kind is model.spec.moe.gate_kind
        assert (moe.top_k, moe.shared_gate) == (model.spec.moe.top_k, model.spec.moe.shared_gate)


# Networks of others


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("style", ["manual", "fused", "split", "scaled-queries", "no-bias", "torchvision"])
def test_vits_of_others(tmp_path: Path, style: str, dynamo: bool) -> None:
    assert_imports(ForeignVit(style), tmp_path, dynamo=dynamo)


@pytest.mark.parametrize("opset", [14, 17, 20])
def test_opsets(tmp_path: Path, opset: int) -> None:
    """Before 17, LayerNorm is exported as nine operations; before 20, GELU is as five."""
    assert_imports(ForeignVit("fused"), tmp_path, dynamo=False, opset_version=opset)


@pytest.mark.parametrize(
    ("style", "opset", "operation"),
    [
        ("masked", 20, "IsNaN"),
        ("masked-by-hand", 20, "Softmax"),
        ("fused", 23, "Attention"),
        ("masked", 24, ""),
    ],
)
def test_masks_and_todays_operations(tmp_path: Path, style: str, opset: int, operation: str) -> None:
    """Torch's SDPA with a mask has a guard against NaN; from opset 23 on, attention is one operation."""
    assert_imports(ForeignVit(style), tmp_path, dynamo=True, opset_version=opset)
    found = {node.op_type for node in onnx.load(tmp_path / "vit.onnx").graph.node}
    assert not operation or operation in found


def test_dynamic_batch(tmp_path: Path) -> None:
    options = {"input_names": ["images"], "dynamic_axes": {"images": {0: "batch"}}}
    assert_imports(ForeignVit("fused"), tmp_path, dynamo=False, **options)


def assert_imports(vit: ForeignVit, folder: Path, **how: Any) -> Model:
    """The imported network computes what the module does, norm of images included."""
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 16), dtype=np.uint8)
    normal = (torch.from_numpy(images) / 255 - 0.5) / 0.5
    path = export(vit, folder / "vit.onnx", (normal,), **how)
    half = import_model(path, Options(normalization=parse_normalization("half"))).model
    with torch.no_grad():
        features, logits = vit.features(normal), vit(normal)
    run = reference.run(half, images)
    assert_allclose(run.tokens, features.numpy(), atol=2e-5)
    assert_allclose(head(half, "classify", run.tokens), logits.numpy(), atol=2e-5)
    assert half.spec.norm_eps == pytest.approx(1e-6)
    return half


class Sigmoid(nn.Module):
    """X times the sigmoid of a multiple of x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.factor * x)


class Tanh(nn.Module):
    """GELU by tanh, operation by operation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


ACTIVATIONS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "relu": ("relu", nn.ReLU),
    "tanh": ("gelu_tanh", lambda: nn.GELU("tanh")),
    "tanh by hand": ("gelu_tanh", Tanh),
    "sigmoid": ("quick_gelu", lambda: Sigmoid(1.702)),
}


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_functions_of_others(tmp_path: Path, name: str, dynamo: bool) -> None:
    expected, make = ACTIVATIONS[name]
    model = assert_imports(ForeignVit("fused", make()), tmp_path, dynamo=dynamo)
    assert model.spec.activation == expected


def test_layers_with_different_activation_functions(tmp_path: Path) -> None:
    vit = ForeignVit("fused")
    vit.blocks[1].mlp[1] = nn.ReLU()
    path = export(vit, tmp_path / "vit.onnx", (torch.zeros(1, 3, 8, 16),), dynamo=False)
    fails(path, "layers that differ: ['gelu', 'relu']")


class MeanAsToken(ForeignVit):
    """The class token is made of the image."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.position)


class MovedPatches(ForeignVit):
    """The patches stand in front of the class token."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        assert self.cls is not None
        return self.blocks(torch.cat([x, self.cls.expand(images.shape[0], -1, -1)], dim=1) + self.position)


class SumPooled(ForeignVit):
    """The classifier reads half the sum of two patches."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.features(images))
        return self.head(x[:, 2:4].mean(1))


TOKENS_AND_HEADS: dict[str, dict[str, Any]] = {
    "no class token": {"cls_token": False, "pool": "patches"},
    "registers, mean of all": {"registers": 4, "pool": "all"},
    "registers, norm of the mean": {"registers": 2, "pool": "patches", "fc_norm": True},
    "distilled": {"distilled": True},
    "another last norm": {"head_eps": 1e-3},
}


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", TOKENS_AND_HEADS)
def test_tokens_and_heads_of_others(tmp_path: Path, name: str, dynamo: bool) -> None:
    how = TOKENS_AND_HEADS[name]
    model = assert_imports(ForeignVit("fused", **how), tmp_path, dynamo=dynamo)
    prefix = how.get("cls_token", True) + how.get("distilled", False) + how.get("registers", 0)
    assert model.spec.prefix_tokens == prefix
    assert model.spec.head("classify").norm_eps == how.get("head_eps")
    assert model.spec.head("classify").fc_norm == how.get("fc_norm", False)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("style", ["fused", "torchvision"])
def test_layer_scale_is_folded(tmp_path: Path, style: str, dynamo: bool) -> None:
    vit = ForeignVit(style, layer_scale=True)
    model, state = assert_imports(vit, tmp_path, dynamo=dynamo), vit.state_dict()
    attention = "attn.proj" if style == "fused" else "attn.attention.out_proj"
    for name, scale, layer in (("attn.proj", "ls1", attention), ("mlp.fc2", "ls2", "mlp.2")):
        factor = state[f"blocks.1.{scale}.gamma"].numpy()
        for part, each in (("weight", factor[:, None]), ("bias", factor)):
            expected = state[f"blocks.1.{layer}.{part}"].numpy() * each
            assert_array_equal(model.weights[f"blocks.1.{name}.{part}"], expected)


class ScaledByToken(ForeignVit):
    """Factors for the tokens of a branch, of which there are as many as channels."""

    def __init__(self) -> None:
        super().__init__("fused", dim=9, heads=3, layer_scale=True)
        for block in self.blocks:
            block.ls1.gamma = nn.Parameter(torch.linspace(0.5, 2, 9)[:, None])


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize(
    ("vit", "node", "why"),
    [
        (lambda: ForeignVit(activation=nn.LeakyReLU()), "(LeakyRelu)", "no operation of a ViT"),
        (lambda: ForeignVit(activation=nn.SiLU()), "(", "something else than GELU by a sigmoid"),
        (lambda: ForeignVit(activation=Sigmoid(1.7)), "(", "something else than GELU by a sigmoid"),
        (lambda: ForeignVit(activation=nn.Sequential(nn.GELU(), nn.GELU())), "(", "something else than GELU"),
        (lambda: ForeignVit(activation=nn.Sequential(nn.GELU(), nn.ReLU())), "(", "expected an activation"),
        (lambda: ForeignVit(activation=nn.Identity()), "(", "expected an activation function between"),
        (lambda: ForeignVit("wrong-scale"), "(Softmax)", "something else than softmax(q k / sqrt(head_dim))"),
        (lambda: ForeignVit(norm_pre=True), "(", "expected"),
        (lambda: MeanAsToken(), "(", "expected positions"),
        (lambda: MovedPatches(), "(", "something else than constant tokens, then patches in rows"),
        (lambda: ScaledByToken(), "(Add)", "something else than the residual sum of projected attention"),
        (
            lambda: SumPooled(),
            "(Gemm)",
            "reads neither the class token alone nor all patch tokens, nor a mean",
        ),
    ],
    ids=[
        "leaky",
        "silu",
        "1.7",
        "twice",
        "two",
        "none",
        "scale",
        "norm before",
        "image token",
        "moved",
        "token scale",
        "sum",
    ],
)
def test_graphs_that_do_not_fit(tmp_path: Path, vit: Any, node: str, why: str, dynamo: bool) -> None:
    path = export(vit(), tmp_path / "vit.onnx", (torch.zeros(1, 3, 8, 16),), dynamo=dynamo)
    fails(path, f"{path}: node ", node, why)


def test_different_epsilons(tmp_path: Path) -> None:
    vit = ForeignVit("fused")
    vit.blocks[1].norm2.eps = 1e-3
    path = export(vit, tmp_path / "vit.onnx", (torch.zeros(1, 3, 8, 16),), dynamo=False)
    fails(path, "(LayerNormalization): epsilon 0.001, but 1e-06")


# Files


@pytest.fixture
def proto(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported)


def rewritten(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data(exported: Path, proto: onnx.ModelProto, micro: Model, tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="external.data", size_threshold=0)
    assert_same(import_model(path).model, micro)
    data = tmp_path / "external.data"
    content = data.read_bytes()
    data.write_bytes(content[:-100])
    fails(path, "external data ends at byte")
    data.unlink()
    fails(path, "external data missing", "external.data")
    (tmp_path / "outside").write_bytes(content)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link").symlink_to(tmp_path / "outside")
    for location in ("../outside", str(tmp_path / "outside"), "link", "sub/../../outside", ""):
        changed = onnx.load(path, load_external_data=False)
        for tensor in changed.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        fails(rewritten(changed, inner / "external.onnx"), "outside the folder of the ONNX file")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("external", [False, True])
def test_half_precision_is_converted(
    proto: onnx.ModelProto, micro: Model, tmp_path: Path, dtype: Any, external: bool
) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(array.astype(dtype), tensor.name))
    path = tmp_path / "half.onnx"
    onnx.save(proto, path, save_as_external_data=external, location="half.data", size_threshold=0)
    imported = import_model(path).model
    name = "blocks.1.moe.fc1.weight"
    assert_array_equal(imported.weights[name], micro.weights[name].astype(dtype).astype(np.float32))


def test_values_that_are_not_finite(proto: onnx.ModelProto, tmp_path: Path) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name.endswith("norm1.weight"))
    array = numpy_helper.to_array(tensor).copy()
    array[3] = np.inf
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    fails(rewritten(proto, tmp_path / "inf.onnx"), f"tensor {tensor.name}: 1 of 24 values are not finite")


def test_metadata_that_does_not_fit_is_ignored(proto: onnx.ModelProto, micro: Model, tmp_path: Path) -> None:
    for text in ("not JSON", micro.spec.model_copy(update={"heads": 3}).model_dump_json()):
        helper.set_model_props(proto, {"edgemoe": text})
        imported = import_model(rewritten(proto, tmp_path / "edited.onnx"), RAW)
        assert imported.model.spec.heads == 2
        assert any("was ignored" in remark for remark in imported.remarks)


def test_unreadable_files(proto: onnx.ModelProto, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    for content in (b"", b"hello", proto.SerializeToString()[:-1000]):
        bad.write_bytes(content)
        fails(bad, "not a readable ONNX file")
    fails(tmp_path / "absent.onnx", "no such file")
    node = helper.make_node("Magic", ["image"], ["x"], name="trick", domain="custom")
    proto.graph.node.insert(0, node)
    fails(rewritten(proto, bad), "node trick (custom.Magic)", "an operation of its own domain")
    proto.graph.node[0].domain = ""
    for node in proto.graph.node[1:]:
        node.input[:] = ["x" if name == "image" else name for name in node.input]
    fails(rewritten(proto, bad), "node trick (Magic)", "no operation of a ViT")
    proto.graph.node[0].CopyFrom(helper.make_node("Identity", ["later"], ["x"], name="early"))
    fails(rewritten(proto, bad), "node early (Identity): input 'later' is not made by any node")


def test_inputs(proto: onnx.ModelProto, tmp_path: Path) -> None:
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[2].ClearField("dim_value")
    path = rewritten(proto, tmp_path / "open.onnx")
    fails(path, "--image-size needed")
    assert import_model(path, Options(image_size=(8, 16))).model.spec.image_size == (8, 16)
    fails(path, "images of Nonex16", options=Options(image_size=(8, 20)))
    dims[2].dim_value = 10**9
    fails(rewritten(proto, path), "expected no more than 8192")
    fails(path, "--heads does not apply to --kind onnx", options=Options(heads=2))
    proto.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    fails(rewritten(proto, path), "inputs image, task, other")


# Decoders


class M3vitDecoder(nn.Module):
    """M3ViT's decoder, written down once more."""

    def __init__(self, state: dict[str, Any], grid: tuple[int, int]) -> None:
        super().__init__()
        self.state, self.grid = state, grid

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        f, state = nn.functional, self.state
        x = f.layer_norm(tokens[:, 1:], tokens.shape[-1:], state["norm.weight"], state["norm.bias"], 1e-6)
        x = x.permute(0, 2, 1).reshape(len(x), -1, *self.grid)
        for i in range(4):
            x = f.conv2d(x, state[f"conv_{i}.weight"], state[f"conv_{i}.bias"], padding=1)
            norm = [
                state[f"syncbn_fc_{i}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
            ]
            x = f.relu(f.batch_norm(x, *norm))
            if i < 3:
                x = f.interpolate(
                    x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=False
                )
        x = f.conv2d(x, state["conv_4.weight"], state["conv_4.bias"])
        x = f.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=False)
        return f.interpolate(x, size=(8, 16), mode="bilinear", align_corners=False)


def test_decoders_run_in_torch_and_onnxruntime(micro_with: MakeModel, tmp_path: Path) -> None:
    model = micro_with(task_heads={})
    state = m3vit_state(model, prefix="")
    options = Options(heads=2, top_k=2, image_size=(8, 16), normalization=NONE)
    imported = import_model(saved(tmp_path / "m.pth", state), options)
    imported.save(tmp_path / "model")
    loaded = edgemoe.load_model(tmp_path / "model")
    tokens = torch.from_numpy(reference.run(loaded, pixels(model)[0]).tokens).float()
    with torch.no_grad():
        result = load_decoder(tmp_path / "model", loaded.spec, "depth")(tokens)
        own = {key.removeprefix("decoders.depth."): torch.from_numpy(np.array(t)) for key, t in state.items()}
        expected = M3vitDecoder(own, (2, 4))(tokens)
    assert result.shape == (2, 3, 8, 16)
    assert_allclose(result.numpy(), expected.numpy(), atol=1e-5)
    path = tmp_path / "depth.onnx"
    export_decoder(tmp_path / "model", loaded, "depth", path)
    (output,) = session(path).run(["depth"], {"tokens": tokens.numpy()})
    assert_allclose(output, expected.numpy(), atol=1e-5)


def test_decoders_that_cannot_run(micro: Model, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    micro.save(tmp_path / "model")
    with pytest.raises(InputError, match="no decoder for task 'depth'"):
        load_decoder(tmp_path / "model", micro.spec, "depth")
    file = tmp_path / "model" / "decoders.safetensors"
    save_file({"depth.linear.weight": np.zeros((2, 2), np.float32)}, file)
    with pytest.raises(InputError, match=r"depth\.conv_4\.weight is missing"):
        load_decoder(tmp_path / "model", micro.spec, "depth")
    save_file({"depth.conv_4.weight": np.zeros((2, 6, 1, 1), np.float32)}, file)
    with pytest.raises(InputError, match=r"tensor depth\.conv_0\.bias: shape None, expected \(6,\)"):
        load_decoder(tmp_path / "model", micro.spec, "depth")
    file.write_bytes(b"cut")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_decoder(tmp_path / "model", micro.spec, "depth")


def test_tasks_with_names_of_the_graphs_own(micro_with: MakeModel, tmp_path: Path) -> None:
    heads = {name: {"kind": "token-linear", "out_channels": 2} for name in ("tokens", "image")}
    model = with_heads(micro_with(moe=None, depth=1, tasks=["tokens", "image"]), heads)
    export_model(model, tmp_path / "net.onnx")
    imported = import_model(tmp_path / "net.onnx").model
    assert imported.spec == model.spec
    assert_same(imported, model)


def test_plain_vit_with_a_classifier(micro_with: MakeModel, tmp_path: Path) -> None:
    model = with_head(micro_with(moe=None, tasks=["classify"]), 10)
    export_model(model, tmp_path / "vit.onnx")
    imported = import_model(tmp_path / "vit.onnx").model
    assert imported.spec == model.spec
    assert_same(imported, model)
