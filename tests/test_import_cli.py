"""`edgemoe import` and `edgemoe export` from the command line: every source, every kind of bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import edgemoe
from edgemoe import cli
from foreign import m3vit_state, saved, timm_state, with_head
from frontend.options import Options
from onnx_vits import GraphVit
from pysim.model import Model

M3VIT = ("--top-k", "2", "--heads", "2", "--image-size", "8x16")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def m3vit(micro_with: Callable[..., Model], tmp_path: Path) -> Path:
    return saved(tmp_path / "m3vit.pth", m3vit_state(micro_with(task_heads={})), epoch=1)


@pytest.mark.slow
def test_m3vit_to_onnx_and_back(run: Run, m3vit: Path, tmp_path: Path) -> None:
    model, graph, decoder = tmp_path / "model", tmp_path / "net.onnx", tmp_path / "depth.onnx"
    code, out, err = run("import", m3vit, "-o", model, *M3VIT)
    assert code == 0
    assert out.endswith("tasks semseg, depth\n")
    assert "image normalisation (mean 0.485" in err
    assert "decoders of semseg, depth kept in decoders.safetensors" in err
    assert sorted(path.name for path in model.iterdir()) == [
        "decoders.safetensors",
        "model.toml",
        "weights.safetensors",
    ]
    code, out, err = run("export", model, "-o", graph, "--json")
    assert code == 0
    assert json.loads(out) == {"onnx": str(graph), "bytes": graph.stat().st_size}
    code, out, err = run("export", model, "-o", decoder, "--decoder", "depth")
    assert code == 0
    assert "output depth of 8x16" in out
    code, out, err = run("import", graph, "-o", tmp_path / "back", "--json")
    assert code == 0
    assert json.loads(out)["remarks"] == []
    assert (tmp_path / "back" / "model.toml").read_text() == (model / "model.toml").read_text()
    first, second = edgemoe.load_model(model), edgemoe.load_model(tmp_path / "back")
    for name, tensor in first.weights.items():
        assert_array_equal(second.weights[name], tensor)


def test_plain_vit(run: Run, micro_with: Callable[..., Model], tmp_path: Path) -> None:
    vit = with_head(micro_with(moe=None, tasks=["classify"]), 10)
    source = saved(tmp_path / "deit.pth", timm_state(vit))
    options = ("--heads", 2, "--image-size", "8x16", "--normalize", "none", "--tasks", "digit")
    code, _, err = run("import", source, "-o", tmp_path / "model", *options)
    assert code == 0
    assert "classifier of 10 classes" in err
    model = edgemoe.load_model(tmp_path / "model")
    assert model.spec.tasks == ["digit"]
    assert_array_equal(model.weights["heads.digit.weight"], vit.weights["heads.classify.weight"])
    assert_array_equal(model.weights["patch_embed.weight"], vit.weights["patch_embed.weight"])


@pytest.mark.slow
def test_facade(m3vit: Path, tmp_path: Path) -> None:
    options = Options(top_k=2, heads=2, image_size=(8, 16))
    imported = edgemoe.import_model(m3vit, options)
    edgemoe.export_onnx(imported.model, tmp_path / "net.onnx")
    assert edgemoe.import_model(tmp_path / "net.onnx").model.spec == imported.model.spec


def test_bad_input_ends_with_2_and_leaves_nothing(
    run: Run, m3vit: Path, folders: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    text = tmp_path / "text.pth"
    text.write_bytes(b"hello")
    graph = tmp_path / "text.onnx"
    graph.write_bytes(b"hello")
    state = m3vit_state(edgemoe.init_model("micro", seed=1))
    state["module.backbone.blocks.0.norm1.bias"] = np.full(24, np.nan, np.float32)
    nan = saved(tmp_path / "nan.pth", state)
    before = sorted(tmp_path.iterdir())
    for arguments, says in (
        (("import", m3vit, "-o", out), "--heads, --image-size, --top-k needed"),
        (("import", m3vit, "-o", out, *M3VIT, "--normalize", "dark"), "--normalize 'dark': unknown"),
        (("import", m3vit, "-o", out, *M3VIT, "--image-size", "8"), "expected HxW"),
        (("import", m3vit, "-o", out, *M3VIT, "--tasks", "a b,c"), "tasks"),
        (("import", m3vit, "-o", out, *M3VIT, "--norm-eps", "-1"), "norm_eps"),
        (("import", m3vit, "-o", out, *M3VIT, "--kind", "zip"), "--kind zip: unknown"),
        (
            ("import", m3vit, "-o", out, *M3VIT, "--fill-missing-experts", 1),
            "--fill-missing-experts does not apply",
        ),
        (("import", nan, "-o", out, *M3VIT), "blocks.0.norm1.bias: 24 of 24 values are not finite"),
        (("import", text, "-o", out), "text.pth: not a readable PyTorch checkpoint"),
        (("import", graph, "-o", out), "text.onnx: not a readable ONNX file"),
        (("import", folders / "model", "-o", out), "a Model folder already"),
        (("import", m3vit, "-o", folders / "model", *M3VIT), "exists already"),
        (("export", folders / "nothing", "-o", out), "nothing: no such folder"),
        (("export", folders / "model", "-o", m3vit), "exists already"),
        (("export", folders / "model", "-o", out, "--decoder", "depth"), "no decoder for task 'depth'"),
    ):
        code, stdout, err = run(*arguments)
        assert code == 2, arguments
        assert err.startswith("error: ") and says in err, err
        assert stdout == ""
        assert sorted(tmp_path.iterdir()) == before, arguments


def test_a_graph_is_cut(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    vit = GraphVit(decoder=True, layer_scale=True)
    path = vit.save(tmp_path / "vit.onnx")
    code, out, err = run("import", path, "-o", tmp_path / "found")
    assert code == 0
    assert f"output {vit.output} left out: no linear head, but a decoder" in err
    code, out, err = run("import", path, "-o", tmp_path / "cut", "--outputs", vit.last, "--json")
    assert code == 0
    assert len(json.loads(out)["remarks"]) == 1  # the normalisation, but nothing left out
    found, cut = (edgemoe.load_model(tmp_path / name) for name in ("found", "cut"))
    for name, tensor in cut.weights.items():
        assert_array_equal(found.weights[name], tensor)
    code, out, err = run("import", path, "-o", tmp_path / "none", "--outputs", f"{vit.last},{vit.output}")
    assert code == 2
    assert "expected" in err
    assert f"{vit.output!r} to be tokens, or a linear head on them" in err
    assert not (tmp_path / "none").exists()
    code, out, err = run("import", path, "-o", tmp_path / "none", "--kind", "vit", "--outputs", vit.last)
    assert code == 2
