"""The generated top of the accelerator: what it is made of, and its registers."""

from __future__ import annotations

from pathlib import Path

import pytest

from codegen.architecture import Architecture
from codegen.hardware import Hardware
from codegen.hwh import argument_offsets
from codegen.manifest import arguments_of
from codegen.rtl.accelerator import accelerator_files, accelerator_parameters
from codegen.rtl.slang import elaborate
from frontend.zoo import find_spec
from hls import TEMPLATES
from pysim.network import Network
from pysim.precision import preset

NARROW = Hardware(
    lanes=4, outputs=8, token_tile=3, attention_rows=4, axi_width=64, weight_ports=2, backend="rtl"
)
WIDE = NARROW.changed(lanes=8, outputs=8, token_tile=2, axi_width=128, router_lanes=2, max_batch=2)


def architecture(hardware: Hardware, precision: str = "w8a8") -> Architecture:
    return Architecture(Network(find_spec("micro"), preset(precision)), hardware)


def test_two_accelerators_live_in_one_simulation(tmp_path: Path) -> None:
    files = dict.fromkeys(
        [
            *accelerator_files(architecture(NARROW), tmp_path, "edgemoe_narrow"),
            *accelerator_files(architecture(WIDE, "w16a16"), tmp_path, "edgemoe_wide"),
        ]
    )
    elaborate([*files], "edgemoe_narrow", "edgemoe_wide")


def test_only_the_top_depends_on_the_hardware(tmp_path: Path) -> None:
    texts = []
    for hardware, precision in ((NARROW, "w8a8"), (WIDE, "w16a16")):
        folder = tmp_path / precision
        folder.mkdir()
        files = accelerator_files(architecture(hardware, precision), folder)
        texts.append({file.name: file.read_text() for file in files})
    first, second = texts
    assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} == {
        "edgemoe_top.sv"
    }


@pytest.mark.parametrize("hardware", [NARROW, WIDE])
def test_every_parameter_that_a_network_has_a_say_in_is_set(hardware: Hardware) -> None:
    """What the top does not name would have the library's default, which suits no network."""
    text = (TEMPLATES / "rtl/accelerator/accelerator.sv").read_text()
    names = {
        line.split("=")[0].split()[-1]
        for line in text[: text.index(") (")].splitlines()
        if line.strip().startswith("parameter ")
    }
    assert names - accelerator_parameters(architecture(hardware)).keys() == {"QUEUE_STYLE", "JOB_STYLE"}
    assert accelerator_parameters(architecture(hardware)).keys() <= names


def test_registers_are_where_the_host_expects_them(tmp_path: Path) -> None:
    wanted = architecture(NARROW)
    (text,) = (f.read_text() for f in accelerator_files(wanted, tmp_path) if f.name == "edgemoe_top.sv")
    for argument in arguments_of(wanted):
        offset = argument_offsets(arguments_of(wanted))[argument.name]
        for word in range(argument.bits // 32):
            read = f"'h{offset + 4 * word:02x}: read_value = {argument.name}_value[{32 * word}+:32];"
            assert read in text, argument
    for name, value in wanted.capacities.as_dict().items():
        assert f"assign {name}_value = 32'd{value};" in text
