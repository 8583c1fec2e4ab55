"""What no template can build is refused when the Architecture is made, by the rule that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blank import blank, on_hardware
from boards import FamilyName, load_board
from codegen.architecture import Architecture
from codegen.hardware import Hardware
from codegen.rtl.hls_kernels import write_hls_kernels
from common.errors import InputError
from edgemoe.cli import main
from pysim.design import Design
from pysim.model import Model
from pysim.precision import PRESETS, Precision
from pysim.spec import ModelSpec, MoeSpec


@pytest.mark.parametrize(
    ("preset", "changes", "complaint", "hint"),
    [
        ("w16a16", {"axi_width": 32}, "axi_width = 32, expected at least 64", "must not straddle"),
        (
            "w8a8",
            {"lanes": 5, "outputs": 5},
            "outputs = 5 is odd: two outputs share a DSP slice where weights have 8 bits and operands 8",
            "an even value for outputs, such as 10, or an even one for lanes",
        ),
    ],
)
def test_hardware_that_cannot_be_built(
    preset: str, changes: dict[str, int], complaint: str, hint: str, designs: dict[str, Design]
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        on_hardware(designs[preset], **changes)
    assert hint in caught.value.hint


def test_odd_outputs_are_built_where_products_are_not_packed(designs: dict[str, Design]) -> None:
    assert on_hardware(designs["w16a16"], lanes=5, outputs=5).outputs == 5


@pytest.mark.parametrize(
    ("weight", "activation", "family", "packed"),
    [
        (8, 8, "zynq-ultrascale+", True),
        (8, 10, "alveo", True),
        (8, 11, "alveo", False),
        (9, 9, "zynq-ultrascale+", False),
        (6, 12, "zynq-7000", True),
        (6, 13, "zynq-7000", False),
        (7, 8, "zynq-7000", False),
    ],
)
def test_widths_of_which_two_products_share_a_slice(
    weight: int, activation: int, family: FamilyName, packed: bool, micro: Model
) -> None:
    precision = Precision(name="narrow", weight_width=weight, activation_width=activation)
    assert blank(micro.spec, precision, Hardware(family=family)).packed == packed


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lanes": 0}, r"hardware: lanes: .*greater than or equal to 1 \(got 0\)"),
        ({"outputs": 2048}, "hardware: outputs: .*1024"),
        ({"axi_width": 100}, "hardware: axi_width: .*32, 64, 128, 256 or 512"),
        ({"clock_mhz": 5e-324}, "hardware: clock_mhz: .*greater than or equal to 1"),
        ({"lane": 4}, r"hardware: no key 'lane', did you mean lanes\?"),
        ({"token_tile": 1.5}, "hardware: token_tile"),
    ],
)
def test_values_that_no_hardware_has(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        Hardware().changed(**changes)
    assert "lanes (1 to 1024)" in caught.value.hint


def shaped(
    preset: str, images: int = 1, *, tokens: int = 5, experts: int = 2, hidden: int = 2
) -> Callable[[], Architecture]:
    spec = ModelSpec(
        name="shaped",
        image_size=(1, tokens - 1),
        patch_size=1,
        in_channels=1,
        dim=2,
        depth=1,
        heads=1,
        mlp_dim=2,
        tasks=["a"],
        moe=MoeSpec(layers="all", experts=experts, hidden_dim=hidden, top_k=1),
    )
    narrow = Hardware(lanes=1, outputs=2, weight_rows=8192, max_batch=images)
    return lambda: blank(spec, PRESETS[preset], narrow)


@pytest.mark.parametrize(
    ("architecture", "complaint"),
    [
        (
            shaped("w8a8", 64, tokens=1024),
            r"65536 tokens \(1024 an image, max_batch = 64\), expected at most 65535",
        ),
        (shaped("w16a16", experts=65536), "moe.experts = 65536, expected at most 65535: the router numbers"),
        (shaped("iccad23", experts=512), "moe.experts = 512, expected at most 511: the sum of a token's"),
        (
            shaped("iccad23", 64, tokens=1 << 19, hidden=64),
            r"the operand memory would have \d+ words, expected fewer than",
        ),
    ],
    ids=["tokens", "experts", "experts-iccad23", "words"],
)
def test_networks_that_the_generated_code_cannot_count(
    architecture: Callable[[], Architecture], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        architecture()


@pytest.mark.parametrize(
    "architecture",
    [shaped("w8a8", 63, tokens=1024), shaped("w16a16", experts=65535), shaped("iccad23", experts=511)],
    ids=["tokens", "experts", "experts-iccad23"],
)
def test_the_largest_networks_that_it_counts(architecture: Callable[[], Architecture]) -> None:
    assert architecture().sections["end"] > 0


@pytest.mark.parametrize(
    ("changes", "complaint", "hint"),
    [
        (
            {"lanes": 128, "outputs": 128, "token_tile": 1},
            "beats of stream y of kernel gelu would have 8192 bits, expected at most 4096",
            "smaller value for lanes",
        ),
        (
            {"axi_width": 512, "weight_ports": 16},
            "beats of stream parameters of kernel layernorm would have 8192 bits",
            "fewer weight_ports",
        ),
    ],
)
def test_beats_that_no_ap_int_holds(
    changes: dict[str, int], complaint: str, hint: str, designs: dict[str, Design], tmp_path: Path
) -> None:
    architecture = on_hardware(designs["w8a8"], **changes)
    with pytest.raises(InputError, match=complaint) as caught:
        write_hls_kernels(architecture, tmp_path, load_board("zcu111"))
    assert hint in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_generate_names_the_rule_and_writes_nothing(
    designs: dict[str, Design], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    designs["w8a8"].save(tmp_path / "design")
    odd = ["--set", "lanes=5", "--set", "outputs=5", str(tmp_path / "design")]
    for command in (["generate", "-o", str(tmp_path / "build"), "--any-size"], ["estimate"]):
        assert main([*command, *odd]) == 2
        error = capsys.readouterr().err
        assert "outputs = 5 is odd: two outputs share a DSP slice" in error
        assert "choose an even value for outputs, such as 10" in error
    assert [path.name for path in tmp_path.iterdir()] == ["design"]
