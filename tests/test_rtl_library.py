"""Library modules of the RTL: the same for every Design, so that several accelerators live in one simulation."""

from __future__ import annotations

from pathlib import Path

import pytest

import rtl_backend as rtl
from codegen.rtl.kernels import kernels_of
from codegen.rtl.library import LIBRARY_TOPS, write_library
from codegen.rtl.render import render
from codegen.rtl.slang import elaborate
from common.errors import InputError
from hls import TEMPLATES

GENERATED = {
    *(f"edgemoe_{kernel}.sv" for kernel in ("linear", "layernorm", "attention", "router", "softmax", "gelu")),
    *(f"edgemoe_{kernel}_control.sv" for kernel in ("linear", "layernorm", "attention", "router")),
    "edgemoe_rom_gelu_delta.v",
    "edgemoe_rom_gelu_tanh_delta.v",
    "edgemoe_gelu_unit.v",
}
"""What depends on the Design: wrappers of streams, their registers, the activation function."""


def rendered(shape: str, folder: Path) -> dict[str, str]:
    folder.mkdir()
    architecture = rtl.architecture(shape)
    files = render(architecture, kernels_of(architecture).values(), folder)
    return {file.name: file.read_text() for file in files}


def test_only_wrappers_depend_on_the_design(tmp_path: Path) -> None:
    first, second = (rendered(shape, tmp_path / shape) for shape in ("16-bit", "8-bit"))
    differing = {name for name in first.keys() & second.keys() if first[name] != second[name]}
    assert differing <= GENERATED
    engines = {f"edgemoe_{path.name}" for path in (TEMPLATES / "rtl/engines").glob("*.sv")}
    assert len(engines) >= 8 and engines <= first.keys() - differing


def test_two_widths_of_a_module_live_in_one_design(tmp_path: Path) -> None:
    files = write_library(tmp_path, "edgemoe_ring_buffer")
    top = tmp_path / "two.sv"
    top.write_text(
        "module two (input logic ap_clk, input logic [3:0] a, input logic [63:0] b,\n"
        "    output logic [63:0] narrow, output logic [255:0] wide);\n"
        + "".join(
            f"  edgemoe_ring_buffer #(.PORTS({number}), .WIDTH({width}), .DEPTH({depth})) {name}_ring (\n"
            "      .ap_clk(ap_clk), .ap_rst_n(a[0]), .free(), .reserve(a[1]), .reserve_beats('0),\n"
            f"      .push({number}'(a)), .push_data({number * width}'(b)), .command_valid(a[2]), .command_ready(),\n"
            "      .command_drops(a[3]), .command_beats('0), .out_valid(), .out_ready(a[1]),\n"
            f"      .out_data({name}));\n"
            for name, number, width, depth in (("narrow", 2, 32, 16), ("wide", 4, 64, 256))
        )
        + "endmodule\n"
    )
    elaborate([*files, top], "two")


@pytest.mark.parametrize("top", LIBRARY_TOPS)
def test_slang_reads_the_library(top: str, tmp_path: Path) -> None:
    elaborate(write_library(tmp_path, top), top)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("assign b = c; logic c; assign c = a;", "used before its declaration"),
        ("logic [1:0] c; assign c = a; assign b = c[5];", "cannot refer to element 5"),
        ("assign b = a", "expected ';'"),
    ],
)
def test_slang_refuses(body: str, complaint: str, tmp_path: Path) -> None:
    source = tmp_path / "edgemoe_bad.sv"
    source.write_text(f"module edgemoe_bad (input logic a, output logic b);\n{body}\nendmodule\n")
    with pytest.raises(InputError, match="edgemoe_bad") as caught:
        elaborate([source], "edgemoe_bad")
    assert complaint in str(caught.value)
