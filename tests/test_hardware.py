"""Hardware: its file, its settings, its identity, and Designs on hardware with another P."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from numpy.testing import assert_array_equal

import edgemoe
from boards import FAMILIES, load_board
from codegen.architecture import Architecture
from codegen.build import Build
from codegen.hardware import Hardware, default_hardware, settable
from codegen.performance import estimate, on_board
from codegen.resources import dsp_by_engine
from common.errors import InputError
from edgemoe.cli import main
from pysim.design import Design
from pysim.network import Network

ODD = Hardware(
    lanes=3,
    outputs=9,
    token_tile=2,
    attention_rows=5,
    axi_width=64,
    weight_ports=3,
    weight_rows=100,
    router_lanes=8,
    weight_memory="lut",
    operand_memory="ultra",
    residual_memory="ultra",
    head_memory="ultra",
    gate_memory="lut",
    score_memory="block",
    choice_memory="lut",
    table_memory="lut",
    max_batch=2,
    clock_mhz=123.5,
    backend="rtl",
    family="alveo",
    stream_kib=64,
    stream_memory="ultra",
    max_tokens=99,
    max_token_words=98,
    max_head_words=97,
    max_mixed_words=96,
    max_row_words=95,
    max_experts=9,
    max_top_k=4,
    max_tasks=3,
    max_jobs=999,
    max_group=1,
)
"""Nothing as by default."""


def test_reads_back_equal(tmp_path: Path) -> None:
    ODD.save(tmp_path / "hardware.toml")
    assert Hardware.load(tmp_path / "hardware.toml") == ODD
    assert set(ODD.model_dump()) == set(Hardware.model_fields)
    assert not set(ODD.model_dump().items()) & set(Hardware().model_dump().items())


def test_keys_that_a_file_does_not_name_are_those_of_the_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[hardware]\nlanes = 8\nclock_mhz = 250\n")
    assert Hardware.load(path, ODD) == ODD.changed(lanes=8, clock_mhz=250)
    assert Hardware.load(path) == Hardware(lanes=8, clock_mhz=250)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing, expected one table"),
        ("lanes = 8\n", "holds lanes, expected one table"),
        ("hardware = 8\n", "holds hardware, expected one table"),
        ("[hardware]\n[more]\n", "holds hardware, more, expected one table"),
        ("[hardware]\nlane = 8\n", "hardware: no key 'lane', did you mean lanes?"),
        ("[hardware]\nlanes = 8.0\n", "hardware: lanes: "),
        ("[hardware]\nlanes = 0\n", "hardware: lanes: Input should be greater than or equal to 1"),
        ("[hardware]\nclock_mhz = nan\n", "hardware: clock_mhz: "),
        ("[hardware]\nclock_mhz = inf\n", "hardware: clock_mhz: "),
        ('[hardware]\nfamily = "spartan"\n', "hardware: family: "),
        ("[hardware\n", "not valid TOML"),
    ],
)
def test_wrong_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "hardware.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        Hardware.load(path)
    assert caught.value.message.startswith(str(path))
    assert message in caught.value.message


def test_settings() -> None:
    found = ODD.with_settings(["lanes=4", " outputs = 8 ", "clock_mhz=99.5", "axi_width=128"])
    assert found == ODD.changed(lanes=4, outputs=8, clock_mhz=99.5, axi_width=128)
    assert ODD.with_settings([]) == ODD


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["lanes"], "--set lanes: expected key=value"),
        (["lane=4"], "--set lane=4: no key 'lane', did you mean lanes?"),
        (["family=alveo"], "--set family=alveo: no key 'family'"),
        (["lanes=4", "lanes=8"], "--set lanes=8: lanes is set twice"),
        (["lanes=2000"], "--set: lanes: Input should be less than or equal to 1024 (got 2000)"),
        (["lanes=four"], "--set: lanes: Input should be a valid integer"),
        (["lanes="], "--set: lanes: "),
        (["axi_width=96"], "--set: axi_width: Input should be 32, 64, 128, 256 or 512 (got 96)"),
        (["clock_mhz=nan"], "--set: clock_mhz: "),
    ],
)
def test_wrong_settings(settings: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ODD.with_settings(settings)
    assert message in caught.value.message
    for name, values in settable().items():
        assert f"{name} ({values})" in caught.value.hint or "once" in caught.value.hint


def test_ranges_of_the_keys() -> None:
    ranges = settable()
    assert set(ranges) == set(Hardware.model_fields) - {"family", "backend"}
    assert ranges["lanes"] == ranges["attention_rows"] == "1 to 1024"
    assert ranges["axi_width"] == "32, 64, 128, 256, 512"


def test_a_board_decides_slices_and_clock(designs: dict[str, Design]) -> None:
    small = load_board("pynq-z2")
    hardware = default_hardware(designs["w8a8"].network, small)
    assert (hardware.family, hardware.clock_mhz) == ("zynq-7000", 100.0)
    assert on_board(designs["w8a8"].network, small).hardware == hardware
    chosen = ODD.changed(outputs=12, clock_mhz=150)
    assert on_board(designs["w8a8"].network, small, chosen).hardware == chosen.changed(family="zynq-7000")
    with pytest.raises(InputError, match=r"clock_mhz = 151, expected at most 150 on pynq-z2") as caught:
        on_board(designs["w8a8"].network, small, chosen.changed(clock_mhz=151))
    assert "clock_mhz = 100" in caught.value.hint


def test_two_weights_do_not_share_a_slice_of_a_zynq_7000(designs: dict[str, Design]) -> None:
    """Two signed 8-bit weights 18 apart take 27 bits: the port of a DSP48E1 has 25."""
    hardware = Hardware(lanes=4, outputs=8)
    large, small = (
        Architecture(designs["w8a8"].network, hardware.changed(family=family))
        for family in ("zynq-ultrascale+", "zynq-7000")
    )
    assert large.packed and not small.packed
    assert dsp_by_engine(small)["linear"] == 2 * dsp_by_engine(large)["linear"] == 4 * 8 * 4
    assert small.hardware_id != large.hardware_id
    narrow = designs["w8a8"].precision.model_copy(update={"weight_width": 6})
    assert Architecture(Network(designs["w8a8"].spec, narrow), small.hardware).packed


@pytest.mark.parametrize(("bits", "slices"), [((25, 18), 1), ((26, 18), 2), ((27, 18), 2), ((18, 18), 1)])
def test_slices_of_a_product_on_a_zynq_7000(bits: tuple[int, int], slices: int) -> None:
    assert FAMILIES["zynq-7000"].multiplier_dsp(*bits) == slices


def test_default_with_the_designs_rows(designs: dict[str, Design]) -> None:
    assert default_hardware(designs["w8a8"].network, attention_rows=7).attention_rows == 7
    assert default_hardware(designs["w8a8"].network).outputs == 32
    assert default_hardware(designs["w16a16"].network).outputs == 16
    assert default_hardware(designs["iccad23"].network).token_tile == 1


# --- Builds and commands ------------------------------------------------------------------------------------


def estimated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["estimate", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_estimate_takes_file_and_settings(
    folders: Path, designs: dict[str, Design], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    design, path = str(folders / "w8a8"), tmp_path / "mine.toml"
    path.write_text("[hardware]\nlanes = 8\noutputs = 16\n")
    base = edgemoe.default_hardware(designs["w8a8"])
    plain = estimated(capsys, design)
    assert plain["hardware"] == edgemoe.fit(designs["w8a8"]).hardware.model_dump()
    found = estimated(capsys, design, "--hardware", str(path), "--set", "outputs=8", "--set", "clock_mhz=200")
    expected = base.changed(lanes=8, outputs=8, clock_mhz=200)
    assert found["hardware"] == expected.model_dump()
    assert found["cycles"] == edgemoe.estimate(designs["w8a8"], hardware=expected).cycles > plain["cycles"]
    assert found["ms"] == pytest.approx(found["cycles"] / 200e3)
    assert edgemoe.estimate(designs["w8a8"], hardware=path).cycles != plain["cycles"]


def test_a_typo_is_refused_before_anything_is_written(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = ["generate", str(folders / "w8a8"), "-o", str(tmp_path / "build"), "--set", "lanse=8"]
    assert main(build) == 2
    error = capsys.readouterr().err
    assert "--set lanse=8: no key 'lanse', did you mean lanes?" in error
    assert "outputs (1 to 1024)" in error
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def other_rows(tmp_path_factory: pytest.TempPathFactory, folders: Path) -> Build:
    """A build with fewer attention rows than its Design: to read, not to change."""
    folder = tmp_path_factory.mktemp("rows") / "build"
    settings = [
        "--set",
        "lanes=4",
        "--set",
        "outputs=8",
        "--set",
        "token_tile=4",
        "--set",
        "attention_rows=2",
    ]
    assert main(["generate", str(folders / "w8a8"), "-o", str(folder), "--any-size", *settings]) == 0
    return Build.load(folder)


def test_a_build_holds_what_it_was_made_from(
    other_rows: Build, designs: dict[str, Design], folders: Path
) -> None:
    written = tomllib.loads((other_rows.folder / "hardware.toml").read_text())
    assert written == {"hardware": other_rows.architecture.hardware.model_dump()}
    assert other_rows.architecture.hardware.lanes == 4
    design = edgemoe.load_design(other_rows.folder / "design")
    given = designs["w8a8"]
    assert design.attention_rows == 2 != given.attention_rows
    assert design.weights_sha256 == given.weights_sha256
    assert other_rows.spec.design_id == design.design_id != given.design_id
    manifest = json.loads((other_rows.host / "manifest.json").read_text())
    assert manifest["design_id"] == design.design_id
    assert manifest["hardware_id"] == other_rows.spec.hardware_id
    assert f"0x{other_rows.spec.hardware_id}ULL" in (other_rows.hls / "src/params.h").read_text()


def test_integers_of_a_build_with_other_rows(other_rows: Build, designs: dict[str, Design]) -> None:
    """The build's Design is the given one with the build's P."""
    images = edgemoe.random_images(designs["w8a8"], 2, seed=4)
    like = designs["w8a8"].with_attention_rows(2)
    built = edgemoe.simulate(other_rows.design, images).integers
    assert_array_equal(built, edgemoe.simulate(like, images).integers, strict=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("hardware.toml", "token_tile = 4", "token_tile = 2", "hardware_id of design/ and hardware.toml is "),
        (
            "hardware.toml",
            "attention_rows = 2",
            "attention_rows = 3",
            "attention_rows of hardware.toml is 3, of the build 2",
        ),
        ("build.toml", "version = 2", "version = 1", "version 1, expected 2"),
    ],
)
def test_an_exchanged_build_is_refused(
    other_rows: Build, tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    shutil.copytree(other_rows.folder, tmp_path / "build")
    path = tmp_path / "build" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        Build.load(tmp_path / "build")
    assert "again" in caught.value.hint


def test_a_design_of_an_older_release_is_refused(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "w8a8", tmp_path / "old")
    path = tmp_path / "old/design.toml"
    content = tomllib.loads(path.read_text())
    del content["design"]["attention_rows"]
    content["design"] |= {"version": 1, "parallelism": {"linear_in": 16, "attention_rows": 16}}
    path.write_text(tomli_w.dumps(content))
    with pytest.raises(InputError, match="version 1, expected 2") as caught:
        Design.load(tmp_path / "old")
    assert "edgemoe quantize" in caught.value.hint


def test_the_clock_changes_no_identity(designs: dict[str, Design]) -> None:
    board, network = load_board("zcu102"), designs["w8a8"].network
    slow = on_board(network, board, default_hardware(network).changed(clock_mhz=50))
    assert slow.hardware_id == on_board(network, board).hardware_id
    assert estimate(network, board, hardware=slow.hardware).ms > estimate(network, board).ms
