"""Model and Design folders: what is written reads back equal; bad files end in a clear error, no other."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file

import edgemoe
from common.errors import EdgeMoeError, InputError
from pysim.design import Design
from pysim.files import new_file, new_folder
from pysim.model import Model
from pysim.precision import PRESETS
from pysim.spec import read_spec

KINDS = ["model", *PRESETS]
SPEC = "[model]\nname='a'\nimage_size=[8,8]\npatch_size=4\ndim=8\ndepth=2\nheads=2\nmlp_dim=8\ntasks=['t']\n"


def load(folder: Path, kind: str) -> Model | Design:
    return edgemoe.load_model(folder) if kind == "model" else edgemoe.load_design(folder)


@pytest.fixture
def copy_of(folders: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(kind: str) -> Path:
        return Path(shutil.copytree(folders / kind, tmp_path / kind))

    return copy


# --- Right files --------------------------------------------------------------------------------------------


def test_model_reads_back_equal(micro: Model, folders: Path) -> None:
    loaded = edgemoe.load_model(folders / "model")
    assert loaded.spec == micro.spec
    assert loaded.weights.keys() == micro.weights.keys()
    for name, tensor in micro.weights.items():
        assert_array_equal(loaded.weights[name], tensor, strict=True)


@pytest.mark.parametrize("preset", PRESETS)
def test_design_reads_back_equal(designs: dict[str, Design], folders: Path, preset: str) -> None:
    saved, loaded = designs[preset], edgemoe.load_design(folders / preset)
    for field in (
        "spec",
        "precision",
        "attention_rows",
        "residual_frac",
        "reports",
        "design_id",
        "weights_sha256",
    ):
        assert getattr(loaded, field) == getattr(saved, field)
    for name, tensor in saved.tensors.items():
        assert_array_equal(loaded.tensors[name], tensor, strict=True)


def test_results_are_readable_by_others(folders: Path) -> None:
    for path in (folders / "model", *(folders / "model").iterdir()):
        assert path.stat().st_mode & 0o044, path


@pytest.mark.parametrize("notes", ["", "EXPERTS ARE RANDOM"])
@pytest.mark.parametrize("layers", ["even", [0, 2]])
def test_spec_reads_back_equal(micro: Model, tmp_path: Path, notes: str, layers: str | list[int]) -> None:
    assert micro.spec.moe is not None
    moe = micro.spec.moe.model_copy(update={"layers": layers})
    spec = micro.spec.model_copy(update={"moe": moe, "notes": notes})
    path = tmp_path / "model.toml"
    path.write_text(tomli_w.dumps(spec.to_toml()))
    assert read_spec(path) == spec


# --- Wrong model.toml and design.toml -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": "x"}, "model.dim: "),
        ({"dim": 0}, "model.dim: "),
        ({"dim": 9}, "dim = 9 is not a multiple of heads = 2"),
        ({"depth": 1 << 19}, "model.depth: "),
        ({"depth": True}, "model.depth: "),
        ({"heads": 2.0}, "model.heads: "),
        ({"image_size": [8]}, "model.image_size"),
        ({"image_size": [8, 9]}, "image_size 8x9 is not a multiple of patch_size = 4"),
        ({"norm_eps": 0.0}, "model.norm_eps: "),
        ({"norm_eps": float("nan")}, "model.norm_eps: "),
        ({"tasks": []}, "model.tasks: "),
        ({"tasks": ["a", "a"]}, "task names must differ"),
        ({"tasks": ["../a"]}, "model.tasks.0: "),
        ({"name": "a/b"}, "model.name: "),
        ({"colour": "red"}, "model.colour: "),
        ({"moe": {"experts": 4}}, "model.moe.layers: Field required"),
        ({"moe": {"layers": "odd", "experts": 2, "hidden_dim": 8, "top_k": 3}}, "top_k = 3 is more than"),
        ({"moe": {"layers": "prime", "experts": 2, "hidden_dim": 8, "top_k": 1}}, "model.moe.layers"),
        ({"moe": {"layers": [2], "experts": 2, "hidden_dim": 8, "top_k": 1}}, "moe.layers names layer 2"),
        ({"moe": {"layers": [], "experts": 2, "hidden_dim": 8, "top_k": 1, "gate": "x"}}, "model.moe.gate: "),
        ({"task_heads": {"u": {"kind": "none"}}}, "task_heads.u is not one of the tasks"),
        ({"task_heads": {"t": {"kind": "token-linear"}}}, "needs out_channels"),
    ],
)
def test_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "model.toml"
    path.write_text(tomli_w.dumps({"model": tomllib.loads(SPEC)["model"] | change}))
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read_spec(path)
    assert str(path) in raised.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model: Field required"),
        ("model = 3", "model: "),
        (SPEC.replace("dim=8\ndepth", "depth"), "model.dim: Field required"),
        (SPEC + "[other]\n", "other: "),
        ("[model\n", "not valid TOML"),
        ("a = " + "[" * 10_000, "not valid TOML"),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_spec(path)


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        read_spec(tmp_path / "model.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_spec(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_files(copy_of: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"nothing: no such folder"):
        load(tmp_path / "nothing", kind)
    for name in ("weights.safetensors", "model.toml" if kind == "model" else "design.toml"):
        folder = copy_of(kind)
        (folder / name).unlink()
        with pytest.raises(InputError, match=f"{name}: no such file"):
            load(folder, kind)
        shutil.rmtree(folder)


def edit_design(folder: Path, field: str, value: str) -> None:
    """Give a field of `design.toml` another value, or, with a value of `-`, take it out."""
    path = folder / "design.toml"
    line = "" if value == "-" else f"{field} = {value}"
    text, count = re.subn(rf"^{field} = .*$", line, path.read_text(), flags=re.MULTILINE)
    assert count == 1
    path.write_text(text)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", "1", "version 1, expected 2"),
        ("version", '"new"', "version 'new', expected 2"),
        ("version", "-", "design.version: Field required"),
        ("attention_rows", "5", "design_id is "),
        ("attention_rows", "0", "design.attention_rows: "),
        ("attention_rows", "8\nattention_cols = 8", "design.attention_cols: "),
        ("weight_width", "15", "design_id is "),
        ("weight_width", "33", "design.precision.weight_width: "),
        ("weight_width", "8", "stored as I16, expected int8"),
        ("experts", "6", "shape (2, 5, 24), expected (2, 6, 24)"),
        ("depth", "5", "missing tensors: "),
        ("top_k", "3", "design_id is "),
        ("residual_frac", "3", "weights_sha256 is "),
        ("residual_frac", "300", "design.residual_frac: "),
    ],
)
def test_changed_design(copy_of: Callable[[str], Path], field: str, value: str, message: str) -> None:
    folder = copy_of("w16a16")
    edit_design(folder, field, value)
    with pytest.raises(InputError, match=re.escape(message)):
        edgemoe.load_design(folder)


# --- Wrong weights ------------------------------------------------------------------------------------------


def edit_weights(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_extra_misshapen_and_mistyped_tensors(copy_of: Callable[[str], Path], kind: str) -> None:
    name = "pos_embed" if kind == "model" else "position"

    def set_to(value: Any) -> Callable[[dict[str, Any]], None]:
        return lambda tensors: tensors.update({name: value})

    edits: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
        (lambda tensors: tensors.pop(name), f"missing tensor: {name}"),
        (lambda tensors: tensors.update(other=np.zeros(1, np.int8)), "unexpected tensor: other"),
        (lambda tensors: tensors.clear(), r"missing tensors: .* and \d+ more"),
        (
            set_to(np.zeros((9, 25), np.float32 if kind == "model" else np.int32)),
            rf"{name}: shape \(9, 25\), expected",
        ),
        (set_to(np.zeros((9, 24), np.float16)), f"tensor {name}: stored as F16, expected"),
        (set_to(np.zeros((9, 24), np.float64)), f"tensor {name}: stored as F64, expected"),
    ]
    for edit, message in edits:
        folder = copy_of(kind)
        edit_weights(folder, edit)
        with pytest.raises(InputError, match=message) as raised:
            load(folder, kind)
        assert "weights.safetensors" in raised.value.message
        shutil.rmtree(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(copy_of: Callable[[str], Path], value: float) -> None:
    folder = copy_of("model")
    edit_weights(folder, lambda tensors: tensors["blocks.1.moe.fc2.weight"].__setitem__((4, 3, 2), value))
    with pytest.raises(InputError, match=r"blocks.1.moe.fc2.weight: 1 of 2400 values are not finite"):
        edgemoe.load_model(folder)


@pytest.mark.parametrize("preset", PRESETS)
def test_tampered_weights(copy_of: Callable[[str], Path], preset: str) -> None:
    folder = copy_of(preset)
    edit_weights(folder, lambda tensors: tensors["blocks.2.fc1.weight"].__setitem__((0, 0), 1))
    with pytest.raises(InputError, match="weights_sha256 is "):
        edgemoe.load_design(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_weights(copy_of: Callable[[str], Path], kind: str) -> None:
    path = copy_of(kind) / "weights.safetensors"
    whole = path.read_bytes()
    for length in sorted({0, 1, 7, 8, 9, *range(10, len(whole), len(whole) // 40), len(whole) - 1}):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a readable safetensors file"):
            load(path.parent, kind)


@pytest.mark.parametrize("name", ["model.toml", "weights.safetensors"])
def test_folder_in_place_of_a_file(copy_of: Callable[[str], Path], name: str) -> None:
    folder = copy_of("model")
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(InputError, match=name):
        edgemoe.load_model(folder)


# --- Mutated bytes ------------------------------------------------------------------------------------------

VALUES = [
    b"-1",
    b"0",
    b"1e308",
    b"nan",
    b"inf",
    b"9" * 25,
    b"true",
    b'""',
    b"[]",
    b"{}",
    b"1048576",
    b"64",
    b"1.5",
]


Edit = tuple[int, int, bytes]
"""Start and end of what is exchanged, and what for."""


@st.composite
def edits(draw: st.DrawFn, original: bytes) -> list[Edit]:
    """The file cut short, with a value of the TOML exchanged, or with a few bytes overwritten."""
    kind = draw(st.sampled_from(["cut", "value", "header", "bytes"]))
    if kind == "cut":
        return [(draw(st.integers(0, len(original) - 1)), len(original), b"")]
    if kind == "value" and original[:1] == b"[":
        places = list(re.finditer(rb"= ([^\n]+)", original))
        place = draw(st.sampled_from(range(min(len(places), 70))))
        return [(places[place].start(1), places[place].end(1), draw(st.sampled_from(VALUES)))]
    # The first bytes of a safetensors file are its header.
    end = len(original) if kind == "bytes" else min(len(original), 2000)
    starts = draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=4))
    return [(start, start + 1, draw(st.binary(min_size=1, max_size=1))) for start in starts]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["toml", "safetensors"])
def test_mutated_files_raise_nothing_but_our_errors(
    folders: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, part: str
) -> None:
    folder = Path(shutil.copytree(folders / kind, tmp_path_factory.mktemp("mutated") / kind))
    (path,) = folder.glob(f"*.{part}")
    original = path.read_bytes()

    @settings(max_examples=150, deadline=5000)
    @given(edits(original))
    def check(changes: list[Edit]) -> None:
        content = original
        for start, end, new in changes:
            content = content[:start] + new + content[end:]
        path.write_bytes(content)
        try:
            loaded = load(folder, kind)
        except EdgeMoeError as error:
            assert error.exit_code == 2
            assert str(folder) in error.message or "model" in error.message
        else:
            assert part == "toml" or kind == "model" or content == original
            assert loaded.spec.dim == 24

    check()


# --- Writing ------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(micro: Model, designs: dict[str, Design], tmp_path: Path) -> None:
    for saved in (micro, designs["w8a8"]):
        with pytest.raises(InputError, match="exists already"):
            saved.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "folder") as folder:
        (folder / "part").write_text("half")
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "a" / "file.npz") as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "a").iterdir()) == []


def test_a_full_disk_is_an_input_error(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device")
    with (
        pytest.raises(InputError, match="folder: cannot be written: No space left"),
        new_folder(tmp_path / "folder"),
    ):
        raise full
    with (
        pytest.raises(InputError, match="file: cannot be written: No space left"),
        new_file(tmp_path / "file"),
    ):
        raise full
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for writer in (new_folder, new_file):
        with pytest.raises(InputError, match="cannot be created"), writer(tmp_path / "file" / "x"):
            pass
