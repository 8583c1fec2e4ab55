"""The zoo: the shapes are those that their papers print."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgemoe
from common.errors import InputError
from frontend.zoo import describe, find_spec, zoo_names
from pysim.spec import ModelSpec

NAMES = [
    "deit-base",
    "deit-small",
    "deit-tiny",
    "dinov2-small",
    "m3vit-base-nyud",
    "m3vit-base-pascal",
    "m3vit-small-nyud",
    "m3vit-small-pascal",
    "m3vit-tiny",
    "micro",
    "vit-tiny",
]


def test_names() -> None:
    assert zoo_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_named_after_its_model_and_tells_its_source(name: str) -> None:
    assert find_spec(name).name == name
    text = (Path(edgemoe.__file__).parents[1] / "frontend" / "zoo" / f"{name}.toml").read_text()
    assert text.startswith("# ")
    assert name == "micro" or "arXiv" in text.split("[model]")[0]


@pytest.mark.parametrize(
    ("name", "tokens", "head_dim", "tasks"),
    [
        ("m3vit-tiny", 129, 64, {"semseg": 7, "depth": 1}),
        ("m3vit-small-nyud", 1201, 32, {"semseg": 40, "depth": 1}),
        ("m3vit-small-pascal", 1025, 32, {"semseg": 21, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1}),
        ("m3vit-base-nyud", 1201, 64, {"semseg": 40, "depth": 1}),
        ("m3vit-base-pascal", 1025, 64, {"semseg": 21, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1}),
        ("vit-tiny", 197, 64, {"classify": 1000}),
        ("deit-tiny", 197, 64, {"classify": 1000}),
        ("deit-base", 197, 64, {"classify": 1000}),
        ("dinov2-small", 257, 64, {"classify": 1000}),
        ("deit-small", 197, 64, {"classify": 1000}),
        ("micro", 9, 12, {"semseg": 7, "depth": 1}),
    ],
)
def test_shapes(name: str, tokens: int, head_dim: int, tasks: dict[str, int]) -> None:
    spec = find_spec(name)
    assert (spec.tokens, spec.head_dim) == (tokens, head_dim)
    assert {task: spec.head(task).out_channels for task in spec.tasks} == tasks


def test_sizes_are_the_published_ones() -> None:
    # DeiT, table 1: 5 M, 22 M and 86 M parameters; 1.3, 4.6 and 17.6 GMAC at 224 x 224 (their repository).
    sizes = [describe(find_spec(name)) for name in ("vit-tiny", "deit-tiny", "deit-small", "deit-base")]
    assert [round(size.parameters / 1e6, 1) for size in sizes] == [5.7, 5.7, 22.1, 86.6]
    assert [round(size.macs / 1e9, 1) for size in sizes] == [1.3, 1.3, 4.6, 17.6]
    # DINOv2's ViT-S has 21 M parameters without a head, of which a linear one reads two vectors.
    dino = find_spec("dinov2-small")
    assert round((describe(dino).parameters - 1000 * (2 * dino.dim + 1)) / 1e6, 1) == 21.6


def test_parameters_are_those_of_a_model() -> None:
    assert describe(find_spec("micro")).parameters == edgemoe.init_model("micro").parameters


def test_multiply_accumulates_by_hand() -> None:
    spec = ModelSpec(
        name="hand",
        image_size=(2, 4),
        in_channels=1,
        patch_size=2,
        dim=2,
        depth=2,
        heads=1,
        mlp_dim=3,
        tasks=["t"],
    )
    # 2 patches of 4 values to 2 channels; 3 tokens: qkv and projection 4 * 2 * 2 each, scores and their
    # product with the values 3 * 2 each, the MLP 2 * 2 * 3 each.
    dense = 2 * 4 * 2 + 2 * 3 * (16 + 2 * 3 * 2 + 12)
    assert describe(spec).macs == dense
    moe = {"layers": "odd", "experts": 5, "hidden_dim": 7, "top_k": 2}
    sparse = spec.model_validate(spec.model_dump() | {"moe": moe})
    # In one layer, 5 logits and 2 experts of 7 hidden channels take the place of the MLP.
    assert describe(sparse).macs == dense + 3 * (2 * 5 + 2 * 2 * 2 * 7 - 12)


def test_a_file_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(edgemoe.__file__).parents[1] / "frontend" / "zoo" / "micro.toml").read_text()
    Path("vit-tiny").write_text(text)
    assert find_spec("vit-tiny").name == "micro"
    assert find_spec(str(tmp_path / "vit-tiny")).name == "micro"


def test_unknown_name_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vit-huge: neither a file nor a name") as raised:
        find_spec("vit-huge")
    assert raised.value.hint == f"the zoo has {', '.join(NAMES)}"
    with pytest.raises(InputError, match=r"a folder, expected a model\.toml"):
        find_spec(str(tmp_path))
