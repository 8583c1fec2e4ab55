"""Names of classes: from files and hubs into Models, Designs and builds, and in what commands print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemoe
from boards import load_board
from codegen.host_files import require_model_of, write_host
from codegen.performance import on_board
from common.decoded import decoded_json, described, guesses
from common.errors import InputError
from conftest import NARROW, Pixels
from edgemoe.cli import main
from frontend.class_names import in_order, told_names, with_class_names
from host.manifest import Manifest, Task
from host.result import Result
from pysim.design import Design
from pysim.model import Model
from pysim.spec import HeadSpec

MakeModel = Callable[..., Model]
SEMSEG = ["road", "sky", "tree", "car", "house"]


@pytest.fixture(scope="module")
def named(micro: Model) -> Model:
    """The micro network, with names of the classes of its first task."""
    count = micro.spec.head("semseg").out_channels
    assert count is not None
    names = [SEMSEG[i] if i < len(SEMSEG) else f"thing {i}" for i in range(count)]
    heads = {
        **micro.spec.task_heads,
        "semseg": micro.spec.head("semseg").model_copy(update={"classes": names}),
    }
    return Model(micro.spec.model_copy(update={"task_heads": heads}), micro.weights)


def test_what_counts_for_names() -> None:
    assert in_order(["a", "b"]) == ["a", "b"]
    assert in_order({"1": "b", "0": "a"}) == in_order({1: "b", 0: "a"}) == ["a", "b"]
    for wrong in ({"0": "a", "2": "b"}, [], {}, "ab", ["a", ""], ["a", 1], None, 3):
        assert in_order(wrong) is None
    assert told_names({"0": "tench,\n Tinca ", "1": "LABEL_1"}) == ("tench, Tinca", "LABEL_1")
    for wrong in ({"0": "LABEL_0", "1": "LABEL_1"}, None, ["a\x1b[2J"], ["  "]):
        assert told_names(wrong) == ()


def test_files(named: Model, micro: Model, tmp_path: Path) -> None:
    names = named.spec.head("semseg").classes
    text, listed, numbered = tmp_path / "names.txt", tmp_path / "a.json", tmp_path / "b.json"
    by_task = tmp_path / "c.JSON"
    text.write_text("".join(f" {name} \r\n" for name in names), encoding="utf-8")
    listed.write_text(json.dumps(names))
    numbered.write_text(json.dumps({str(i): name for i, name in enumerate(names)}))
    by_task.write_text(json.dumps({"semseg": names}))
    for option in (f"semseg={text}", f"semseg={listed}", f"semseg={numbered}", str(by_task), str(listed)):
        found = with_class_names(micro.spec, [option])
        assert found == named.spec
        assert found.shape() == micro.spec.shape()
    assert with_class_names(micro.spec, []) == micro.spec


def test_wrong_files(micro: Model, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("one\ntwo\n")
    with pytest.raises(
        InputError, match=r"task semseg: \(whole file\): classes has 2 names, but out_channels"
    ):
        with_class_names(micro.spec, [f"semseg={file}"])
    several = micro.spec.model_copy(
        update={
            "task_heads": {name: HeadSpec(kind="token-linear", out_channels=2) for name in micro.spec.tasks}
        }
    )
    with pytest.raises(InputError, match="of which task") as caught:
        with_class_names(several, [str(file)])
    assert caught.value.hint == f"--class-names semseg={file}"
    bare = micro.spec.model_copy(update={"task_heads": {}})
    with pytest.raises(InputError, match="of which task"):
        with_class_names(bare, [str(file)])
    with pytest.raises(InputError, match="semseg, a task that has no head"):
        with_class_names(bare, [f"semseg={file}"])
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"0": "a", "7": "b"}')
    with pytest.raises(InputError, match="no names of classes"):
        with_class_names(several, [f"semseg={wrong}"])
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        with_class_names(several, [f"semseg={tmp_path / 'binary.txt'}"])
    with pytest.raises(InputError, match="no such file"):
        with_class_names(several, [f"semseg={tmp_path / 'none'}"])


def test_names_of_channels() -> None:
    with pytest.raises(ValueError, match="classes has 1 names, but out_channels = 2"):
        HeadSpec(kind="cls-linear", out_channels=2, classes=["a"])
    with pytest.raises(ValueError, match="control characters"):
        HeadSpec(kind="cls-linear", out_channels=1, classes=["a\n"])


def test_they_go_along(named: Model, micro: Model, designs: dict[str, Design], tmp_path: Path) -> None:
    named.save(tmp_path / "model")
    assert Model.load(tmp_path / "model").spec == named.spec
    assert "classes" not in str(micro.spec.to_toml())
    design = designs["w8a8"]
    renamed = Design(
        named.spec, design.precision, design.attention_rows, design.residual_frac, design.tensors
    )
    assert renamed.design_id == design.design_id
    renamed.save(tmp_path / "design")
    assert Design.load(tmp_path / "design").spec == named.spec
    require_model_of(design, named)


def test_words() -> None:
    scores = np.log([[0.1, 0.6, 0.3]])[0]
    assert described("digit", scores, ["a", "b", "c"]) == "b (60.0 %), c (30.0 %), a (10.0 %)"
    assert described("digit", scores, ["a"]) == "class 1 (60.0 %), class 2 (30.0 %), a (10.0 %)"
    assert described("digit", scores, ["a", "tench, Tinca tinca"]).startswith(
        '"tench, Tinca tinca" (60.0 %), class 2'
    )
    assert [guess.number for guess in guesses("digit", np.arange(9.0))] == [8, 7, 6, 5, 4]
    places = np.eye(3)[[[0, 0, 2, 0]]]
    assert described("semseg", places, ["sky", "road", "tree"]) == "map 1x4: sky (75.0 %), tree (25.0 %)"
    assert decoded_json("semseg", places, ["sky"])["top"] == [
        {"class": 0, "name": "sky", "share": 0.75},
        {"class": 2, "name": "class 2", "share": 0.25},
    ]
    depth = np.array([[[0.0], [3.0]]])
    assert described("depth", depth) == "map 1x2, 0 to 3, mean 1.5"
    assert decoded_json("depth", depth) == {"low": 0.0, "high": 3.0, "mean": 1.5}
    assert described("normals", np.zeros((2, 2, 3))) == "map 2x2 of directions"
    assert described("age", np.array([7.0])) == "value 7"


def test_commands_keep_them(
    named: Model, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"semseg": named.spec.head("semseg").classes}))
    assert main(["init", "micro", "-o", str(tmp_path / "a"), "--class-names", str(file)]) == 0
    assert Model.load(tmp_path / "a").spec == named.spec
    images = str(folders / "images")
    quantise = ["quantize", str(folders / "model"), "-o", str(tmp_path / "b"), "--images", images]
    assert main([*quantise, "--precision", "w8a8", "--class-names", str(file)]) == 0
    assert Design.load(tmp_path / "b").spec == named.spec
    assert main(["init", "micro", "-o", str(tmp_path / "c"), "--class-names", str(tmp_path / "none")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


class TestBuild:
    @pytest.fixture(scope="class")
    @classmethod
    def host(cls, named: Model, designs: dict[str, Design], tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Host folder of a Design without names, with the heads of a Model that has got them since."""
        folder = tmp_path_factory.mktemp("named") / "host"
        network, board = designs["w8a8"].network, load_board("zcu111")
        architecture = on_board(network, board, NARROW)
        write_host(designs["w8a8"], architecture, folder, board, named)
        return folder

    def test_the_host_knows_them(self, host: Path, named: Model) -> None:
        tasks = {task.name: task.classes for task in Manifest.load(host).tasks}
        assert tasks == {"semseg": tuple(named.spec.head("semseg").classes), "depth": ()}

    @pytest.mark.parametrize(
        "wrong", [["a"], 3, [["a"]] * 7, [1] * 7, [""] * 7, ["a\u0007"] * 7, ["x" * 201] * 7]
    )
    def test_wrong_names_are_refused(self, host: Path, named: Model, tmp_path: Path, wrong: Any) -> None:
        assert named.spec.head("semseg").out_channels == 7
        content = json.loads((host / "manifest.json").read_text())
        content["tasks"][0]["classes"] = wrong
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"tasks\[0\]\.classes is "):
            Manifest.load(tmp_path)

    def test_names_without_a_head(self, host: Path, tmp_path: Path) -> None:
        content = json.loads((host / "manifest.json").read_text())
        content["tasks"][1] |= {"kind": "none", "out_channels": None, "classes": ["a"]}
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match="expected no names"):
            Manifest.load(tmp_path)

    def test_results(self, named: Model, designs: dict[str, Design], images: Pixels) -> None:
        task = Task("semseg", named.spec.decoder("semseg"), 7, tuple(named.spec.head("semseg").classes))
        integers = edgemoe.simulate(designs["w8a8"], images[:1]).integers[0].astype(np.int32)
        frac = designs["w8a8"].residual.frac
        result = Result("semseg", integers, None, 1, None, frac, (2, 4), task, named.weights)
        assert result.output is not None
        assert str(result) == described("semseg", result.output, task.classes)
        (most, *_) = result.guesses
        assert most.name == task.classes[np.bincount(result.map.ravel()).argmax()]
        bare = Result("semseg", integers, None, 1, None, frac, (2, 4), task, {})
        assert (str(bare), bare.guesses) == ("9 tokens (no head in this build)", [])
