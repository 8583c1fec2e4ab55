"""Widths of one's own: precision files, and presets narrowed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
from common.errors import InputError, OverflowRiskError
from edgemoe.cli import main
from pysim.model import Model
from pysim.precision import NAMED, PRESETS, find_precision
from pysim.program import Attention, of_type


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_fields_of_a_file_replace_those_of_its_base(tmp_path: Path) -> None:
    file = written(tmp_path, '[precision]\nbase = "w8a8"\nattention_width = 12\n')
    expected = PRESETS["w8a8"].model_copy(update={"name": "mine", "attention_width": 12})
    assert find_precision(file) == expected
    other = written(tmp_path, '[precision]\nname = "own"\nweight_width = 6\n')
    assert find_precision(other) == PRESETS["w16a16"].model_copy(update={"name": "own", "weight_width": 6})
    assert find_precision("w8a8-lean") == NAMED["w8a8-lean"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[precision]\nweights = 8\n", "precision: weights: Extra inputs are not permitted"),
        (
            "[precision]\nweight_width = 3\n",
            "precision: weight_width: Input should be greater than or equal to 4",
        ),
        ('[precision]\nname = "../x"\n', "precision: name: "),
        ('[precision]\nbase = "w4a4"\n', "precision: base is no preset"),
        ("[precision]\nbase = 8\n", "precision: base is no preset"),
        ("weight_width = 8\n", "expected one table [precision]"),
        ("[precision]\n[other]\n", "expected one table [precision]"),
        ("[precision\n", "not valid TOML"),
    ],
)
def test_wrong_files(text: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_precision(written(tmp_path, text))
    assert "mine.toml" in caught.value.message and error in caught.value.message


def test_a_missing_file_is_told_from_a_preset() -> None:
    with pytest.raises(InputError, match=r"none\.toml") as caught:
        find_precision("none.toml")
    assert "w8a8-lean" in caught.value.hint


def test_quantize_takes_a_file(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], micro: Model, images: NDArray[np.uint8]
) -> None:
    file = written(tmp_path, '[precision]\nbase = "w8a8"\nresidual_width = 20\n')
    arguments = ["quantize", str(folders / "model"), "--images", str(folders / "images"), "--precision", file]
    assert main([*arguments, "-o", str(tmp_path / "design"), "--json"]) == 0
    capsys.readouterr()
    design = edgemoe.load_design(tmp_path / "design")
    assert design.precision == find_precision(file)
    assert design.residual.width == 20
    same = edgemoe.quantize(micro, images, find_precision(file))
    assert same.weights_sha256 == design.weights_sha256
    assert main(["estimate", str(tmp_path / "design"), "--board", "kv260", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"]


def test_lean_keeps_most_of_the_signal(micro: Model, images: NDArray[np.uint8]) -> None:
    """A residual stream of 16 bits still has more of them than 8-bit operands."""
    lean, full = (
        edgemoe.compare(micro, edgemoe.quantize(micro, images, preset), images).sqnr_db_same_routing
        for preset in ("w8a8-lean", "w8a8")
    )
    assert full - 6 < lean < full + 3


@pytest.mark.parametrize("width", [4, 6, 8])
@pytest.mark.filterwarnings("ignore::common.errors.QuantizationWarning")
def test_narrow_queries_are_shifted_left(width: int, micro: Model, images: NDArray[np.uint8]) -> None:
    """Scores keep their unit, 2**-12, however coarse the products are that they are made of."""
    precision = PRESETS["w16a16"].model_copy(update={"name": "narrow", "attention_width": width})
    design = edgemoe.quantize(micro, images, precision)
    (first, *_) = of_type(design.program, Attention)
    shift = design.scalar(first.score_shift)
    assert -first.score_lift <= shift < 0
    assert design.scalar("blocks.1.score_shift") < 0
    found = edgemoe.simulate(design, images[:1], trace=True).trace
    query, key = found[first.query.name], found[first.key.name]
    head = slice(0, first.head_dim)
    products = query[:, head].astype(np.int64) @ key[:, head].astype(np.int64).T
    assert_array_equal(found[first.scores.name][0, 0], products * 2**-shift)
    # A bit more halves the errors.
    sqnr = edgemoe.compare(micro, design, images).sqnr_db_same_routing
    assert sqnr > {4: 10, 6: 18, 8: 30}[width]


@pytest.mark.parametrize("width", [4, 16])
def test_queries_that_no_shift_brings_into_range_are_refused(
    width: int, micro: Model, images: NDArray[np.uint8]
) -> None:
    weights = dict(micro.weights)
    name = "blocks.0.attn.qkv.weight"
    assert name in weights
    weights[name] = weights[name] * np.float32(2.0**14)
    precision = PRESETS["w16a16"].model_copy(update={"name": "narrow", "attention_width": width})
    with pytest.raises(OverflowRiskError, match=rf"fraction bits in {width} bits: scores of them leave"):
        edgemoe.quantize(Model(micro.spec, weights), images, precision)
