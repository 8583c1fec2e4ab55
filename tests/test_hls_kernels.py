"""The HLS project's top functions for the kernels: compiled with g++, on the calls that check the RTL kernels.

Vitis HLS is not installed here: a header of the tests stands for its `ap_axi_sdata.h`, a real Tcl interpreter with
stub commands runs the script, and our own Verilog stands for the one that it would leave.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from jinja2 import FileSystemLoader
from numpy.typing import NDArray

import edgemoe
from blank import on_hardware
from boards import load_board
from codegen.architecture import Architecture
from codegen.build import Build
from codegen.csim import compile_sources, link
from codegen.performance import on_board
from codegen.render import project_sources, render
from codegen.rtl.hls_kernels import RESULTS, SCRIPT, write_hls_kernels
from codegen.rtl.kernels import kernels_of
from codegen.rtl.kernels.base import Call, Check, Frames, Kernel, Result
from codegen.rtl.vectors import checks
from codegen.rtl.verify import verify_rtl, vitis_sources
from common.errors import InputError
from conftest import NARROW
from edgemoe.cli import main
from hls import TEMPLATES
from pysim.design import Design
from pysim.model import Model
from pysim.tables import EXP2

pytestmark = pytest.mark.compile

TESTS = Path(__file__).parent
BOARD = load_board("zcu111")
ENGINES = ("units", "tables", "layernorm", "attention", "linear", "memory", "router", "counters")
"""Files of `src` that the kernels need."""

TCLSH = shutil.which("tclsh")


@dataclass(frozen=True)
class Project:
    """An HLS project with the kernels of one Design."""

    architecture: Architecture
    folder: Path
    checks: dict[str, list[Check]]

    @property
    def kernels(self) -> dict[str, Kernel]:
        return kernels_of(self.architecture)

    def executable(self, name: str) -> Path:
        """The driver of a kernel, with the engines as the tests of the whole accelerator compile them."""
        kernel, src = self.kernels[name], self.folder / "src"
        env = project_sources(self.architecture).environment
        env.loader = FileSystemLoader([TESTS, TEMPLATES])
        streams = [stream.name for stream in kernel.streams]
        registers = [register.name for register in kernel.registers]
        passed = ", ".join([*streams, *registers, *(["&malformed"] if kernel.has_flag else [])])
        driver = self.folder / f"drivers/{name}_driver.cpp"
        driver.parent.mkdir(exist_ok=True)
        template = env.get_template("hls_kernel_driver.cpp.j2")
        driver.write_text(template.render(kernel=kernel, passed=passed))
        engines = compile_sources([src / f"{file}.cpp" for file in ENGINES], [src])
        own = [self.folder / f"kernels/{name}.cpp", driver]
        return link([*engines, *compile_sources(own, [src, self.folder / "kernels"])], driver)


def run(project: Project, name: str, calls: Sequence[Call]) -> list[Result]:
    """Calls of a kernel's top, one after the other in one process."""
    kernel, files = project.kernels[name], [project.folder / f"{name}.{end}" for end in ("in", "out")]
    content = [struct.pack("<q", len(calls))]
    for call in calls:
        for register in kernel.registers:
            value = int(call.registers[register.name]) & (2**64 - 1)
            content.append(struct.pack("<Q", value))
        for stream in kernel.inputs:
            frames = call.inputs.get(stream.name, [])
            content.append(struct.pack("<q", len(frames)))
            content += [struct.pack("<q", len(frame)) + frame.tobytes() for frame in frames]
    files[0].write_bytes(b"".join(content))
    done = subprocess.run(
        [project.executable(name), *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    data = files[1].read_bytes()
    place = 0

    def number() -> int:
        nonlocal place
        place += 8
        return int(struct.unpack_from("<q", data, place - 8)[0])

    results = []
    for _ in calls:
        malformed = bool(number())
        outputs: dict[str, Frames] = {}
        for stream in kernel.outputs:
            outputs[stream.name] = []
            for _ in range(number()):
                size = number() * stream.width // 8
                frame = np.frombuffer(data, np.uint8, size, place).reshape(-1, stream.width // 8)
                outputs[stream.name].append(frame)
                place += size
        results.append(Result(outputs, 0, malformed))
    assert place == len(data)
    return results


@pytest.fixture(scope="module")
def projects(
    tmp_path_factory: pytest.TempPathFactory, designs: dict[str, Design], images: NDArray[np.uint8]
) -> dict[str, Project]:
    """Of words and beats that divide nothing in the network."""
    made = {}
    for preset in ("w16a16", "w8a8"):
        architecture = on_board(designs[preset].network, BOARD, NARROW)
        folder = tmp_path_factory.mktemp(preset)
        render(architecture, folder, BOARD)
        write_hls_kernels(architecture, folder, BOARD)
        found = checks(designs[preset], architecture, images[:1], task=1)
        made[preset] = Project(architecture, folder, found)
    return made


UNITS = ("exp2", "reciprocal", "rsqrt", "gelu", "softmax")
"""Of the same widths whatever the precision."""

NAMES = (*UNITS, "layernorm", "attention", "linear", "router")


@pytest.mark.parametrize(
    ("preset", "name"),
    [("w8a8", name) for name in NAMES] + [("w16a16", name) for name in NAMES if name not in UNITS],
)
def test_a_top_gives_what_the_simulator_gives(projects: dict[str, Project], preset: str, name: str) -> None:
    project = projects[preset]
    kernel, mine = project.kernels[name], project.checks[name]
    results = run(project, name, [check.call for check in mine])
    assert sum(check.values for check in mine) > 0
    for check, result in zip(mine, results, strict=True):
        assert {stream: len(frames) for stream, frames in result.outputs.items()} == dict(check.call.outputs)
        assert check.mismatches(kernel, result) == 0, check.difference(kernel, result)
        assert not result.malformed


@pytest.mark.parametrize(
    "file", [*(f"kernels/{name}.cpp" for name in UNITS), "src/units.cpp", "src/tables.cpp"]
)
def test_units_are_the_same_in_both_precisions(projects: dict[str, Project], file: str) -> None:
    texts = {(project.folder / file).read_text() for project in projects.values()}
    assert len(texts) == 1


def damaged(call: Call, stream: str, kind: str) -> Call:
    first, *rest = call.inputs[stream]
    frame = first[:-1] if kind == "short" else np.concatenate([first, first[:2]])
    return replace(call, inputs={**call.inputs, stream: [frame, *rest]})


@pytest.mark.parametrize("kind", ["short", "long"])
@pytest.mark.parametrize("name", ["layernorm", "attention", "linear", "router"])
def test_a_frame_of_a_wrong_length_sets_the_flag_and_the_next_call_is_right(
    projects: dict[str, Project], name: str, kind: str
) -> None:
    project = projects["w8a8"]
    kernel, check = project.kernels[name], project.checks[name][-1]
    for stream in check.call.inputs:
        bad, good = run(project, name, [damaged(check.call, stream, kind), check.call])
        assert bad.malformed
        assert good.malformed  # only reset clears it
        assert check.mismatches(kernel, good) == 0


def test_a_row_of_scores_that_is_too_long_is_cut_and_flagged(projects: dict[str, Project]) -> None:
    project = projects["w8a8"]
    kernel, check = project.kernels["softmax"], project.checks["softmax"][0]
    row = check.call.inputs["scores"][0]
    long = replace(check.call, inputs={"scores": [np.concatenate([row, row])]})
    cut, whole = run(project, "softmax", [long, check.call])
    assert cut.malformed
    assert len(cut.outputs["probabilities"][0]) == len(row) == project.architecture.softmax_keys
    assert check.mismatches(kernel, whole) == 0


# --- What is written ----------------------------------------------------------------------------------------


def test_ports_are_those_of_the_verilog(projects: dict[str, Project]) -> None:
    project = projects["w16a16"]
    for name, kernel in project.kernels.items():
        text = re.sub(r"\s+", " ", (project.folder / f"kernels/{name}.cpp").read_text())
        arguments = re.search(rf"extern \"C\" void {kernel.top}\((.*?)\) {{", text)
        assert arguments is not None
        declared = [argument.strip() for argument in arguments[1].split(", ")]
        expected = [f"edgemoe::Stream<{stream.width}>& {stream.name}" for stream in kernel.streams]
        expected += [f"ap_{'' if r.signed else 'u'}int<{r.bits}> {r.name}" for r in kernel.registers]
        assert declared == expected + (["ap_uint<1>* malformed"] if kernel.has_flag else [])
        for port in (*(r.name for r in kernel.registers), "return"):
            assert ("s_axilite port = " + port + " bundle = control" in text) == bool(kernel.registers)
        assert ("ap_ctrl_none port = return" in text) != bool(kernel.registers)


def test_beats_wider_than_ap_int_are_asked_for(tmp_path: Path, designs: dict[str, Design]) -> None:
    hardware = {"lanes": 32, "outputs": 32, "token_tile": 2}
    architecture = on_hardware(designs["w16a16"], **hardware)
    widest = max(stream.width for kernel in kernels_of(architecture).values() for stream in kernel.streams)
    assert widest == 32 * 64  # GELU's results, which are exact
    write_hls_kernels(architecture, tmp_path, BOARD)
    assert f"static_assert({widest} <= AP_INT_MAX_W" in (tmp_path / "kernels/gelu.cpp").read_text()
    assert f' -DAP_INT_MAX_W={widest}"' in (tmp_path / SCRIPT).read_text()


def test_a_network_without_experts_has_no_router(
    tmp_path: Path, micro_with: Callable[..., Model], images: NDArray[np.uint8]
) -> None:
    architecture = on_hardware(edgemoe.quantize(micro_with(None), images[:1], "w8a8"))
    files = write_hls_kernels(architecture, tmp_path, BOARD)
    assert {file.stem for file in files if file.suffix == ".cpp"} == set(NAMES) - {"router"}
    assert "router" not in (tmp_path / SCRIPT).read_text().partition("set sources")[0]


def test_the_originals_arithmetic_has_none(tmp_path: Path, designs: dict[str, Design]) -> None:
    assert write_hls_kernels(on_hardware(designs["iccad23"]), tmp_path, BOARD) == []
    assert list(tmp_path.iterdir()) == []


# --- The script ---------------------------------------------------------------------------------------------

STUBS = """
proc record {args} { puts "call: $args" }
foreach name {add_files set_part create_clock set_clock_uncertainty \\
  config_compile config_unroll open_solution close_project} {
  proc $name {args} [format {record %s {*}$args} $name]
}
proc open_project {args} { record open_project {*}$args; set ::project [lindex $args end] }
proc set_top {top} { record set_top $top; set ::top $top }
proc csynth_design {args} {
  record csynth_design $::project
  if {[info exists ::env(FAKE_FAIL)] && $::env(FAKE_FAIL) eq $::project} { error "it went wrong" }
  if {[info exists ::env(FAKE_NOTHING)]} { return }
  file mkdir $::project/solution/syn/verilog
  set channel [open $::project/solution/syn/verilog/$::top.v w]
  puts $channel "module $::top ();\\nendmodule"
  close $channel
}
source $::env(FAKE_SCRIPT)
"""


class TestScript:
    """The rendered Tcl, run by tclsh with stubs for the tool's commands."""

    @pytest.fixture(autouse=True)
    def _needs_tcl(self) -> None:
        if TCLSH is None:
            pytest.xfail("no tclsh")

    @staticmethod
    def run(built: Build, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        folder.mkdir()
        shutil.copy(built.hls / SCRIPT, folder)
        (folder / "stubs.tcl").write_text(STUBS)
        inherited = {name: value for name, value in os.environ.items() if name != "EDGEMOE_KERNELS"}
        used = inherited | {"FAKE_SCRIPT": str(folder / SCRIPT)} | variables
        command = [TCLSH or sys.executable, str(folder / "stubs.tcl")]
        return subprocess.run(command, env=used, capture_output=True, text=True, timeout=60, check=False)

    @staticmethod
    def synthesised(done: subprocess.CompletedProcess[str]) -> list[str]:
        return re.findall(r"^call: csynth_design (\S+)$", done.stdout, re.MULTILINE)

    def test_every_kernel_comes_where_verify_looks_for_it(self, built: Build, tmp_path: Path) -> None:
        folder = tmp_path / "hls"
        done = self.run(built, folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.synthesised(done) == list(NAMES)
        flags = f"-std=c++14 -I{folder}/src -I{folder}/kernels"
        assert f"call: add_files {folder}/src/linear.cpp -cflags {{{flags}}}" in done.stdout
        for kernel in kernels_of(built.architecture).values():
            files = vitis_sources(folder / RESULTS, kernel)
            assert files == [folder / RESULTS / kernel.name / f"solution/syn/verilog/{kernel.top}.v"]
            assert f"call: add_files {folder}/kernels/{kernel.name}.cpp -cflags" in done.stdout

    def test_some_kernels(self, built: Build, tmp_path: Path) -> None:
        done = self.run(built, tmp_path / "hls", EDGEMOE_KERNELS="router,exp2")
        assert done.returncode == 0
        assert self.synthesised(done) == ["exp2", "router"]

    @pytest.mark.parametrize("bad", ["exp", "exp2;exit", "[exit 0]", "$env(HOME)", "exp2,{"])
    def test_a_kernel_that_does_not_exist(self, built: Build, tmp_path: Path, bad: str) -> None:
        done = self.run(built, tmp_path / "hls", EDGEMOE_KERNELS=bad)
        assert done.returncode == 1
        assert "edgemoe: FAILED: no kernel" in done.stdout
        assert self.synthesised(done) == []

    def test_a_synthesis_that_fails(self, built: Build, tmp_path: Path) -> None:
        done = self.run(built, tmp_path / "a", FAKE_FAIL="rsqrt")
        assert done.returncode == 1
        assert "edgemoe: FAILED: rsqrt: it went wrong" in done.stdout
        assert self.synthesised(done) == ["exp2", "reciprocal", "rsqrt"]
        done = self.run(built, tmp_path / "b", FAKE_NOTHING="1")
        assert done.returncode == 1
        assert "exp2/solution/syn/verilog/edgemoe_exp2.v was written" in done.stdout

    def test_a_path_with_a_space(self, built: Build, tmp_path: Path) -> None:
        done = self.run(built, tmp_path / "my project")
        assert done.returncode == 1
        assert "FAILED: the tool splits" in done.stdout


# --- Verilog that Vitis HLS wrote ---------------------------------------------------------------------------

ROM = """
module {name} (
    input wire ap_clk,
    input wire ce,
    input wire [{address}:0] address,
    output reg [{base}:0] base,
    output reg signed [{slope}:0] slope
);
  reg [{base}+{slope}+1:0] rom0[0:{last}];
  initial $readmemh("./{name}.dat", rom0);
  always @(posedge ap_clk) if (ce) {{base, slope}} <= rom0[address];
endmodule
"""


def vitis_tree(built: Build, folder: Path) -> Path:
    """Our Verilog of two kernels, where and as Vitis HLS leaves its own: with time scales, and with a ROM in a file."""
    kernels = kernels_of(built.architecture)
    for name in ("exp2", "rsqrt"):
        place = folder / name / "solution/syn/verilog"
        place.mkdir(parents=True)
        for source in kernels[name].sources:
            text = "`timescale 1 ns / 1 ps\n" + (built.rtl / source.file).read_text()
            (place / source.file).write_text(text)
    place, rom = folder / "exp2/solution/syn/verilog", f"edgemoe_rom_{EXP2.name}"
    base, slope = EXP2.base_format.width, EXP2.slope_format.width
    sizes = {"address": EXP2.address_bits - 1, "base": base - 1, "slope": slope - 1}
    (place / f"{rom}.v").write_text(ROM.format(name=rom, last=len(EXP2.base) - 1, **sizes))
    words = (EXP2.base.astype(np.int64) << slope) | (EXP2.slope.astype(np.int64) & ((1 << slope) - 1))
    (place / f"{rom}.dat").write_text("".join(f"{word:x}\n" for word in words.tolist()))
    return folder


@pytest.mark.rtl
def test_the_kernels_test_benches_run_on_vitis_verilog(
    built: Build, images: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = vitis_tree(built, tmp_path / RESULTS)
    (tree / "gelu/solution/syn/verilog").mkdir(parents=True)  # left empty: nothing to verify
    result = verify_rtl(built, images[:1], rtl_folder=tree)
    assert set(result.engines) == {"exp2", "rsqrt"}
    assert all(values > 0 and mismatches == 0 for values, mismatches in result.engines.values())
    assert result.cycles == (0, 0)  # Vitis schedules as it likes
    data = tree / "exp2/solution/syn/verilog/edgemoe_rom_exp2.dat"
    first, _, rest = data.read_text().partition("\n")
    data.write_text(f"{int(first, 16) ^ 1 << 8:x}\n{rest}")
    shutil.rmtree(tree / "rsqrt")
    assert main(["verify", str(built.folder), "--rtl", "--rtl-dir", str(tree)]) == 1
    assert "edgemoe_exp2, table sweep: table sweep: beat" in capsys.readouterr().err


def test_verilog_without_the_top_module(
    built: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = vitis_tree(built, tmp_path / RESULTS) / "exp2/solution/syn/verilog"
    (place / "edgemoe_exp2.sv").unlink()
    assert main(["verify", str(built.folder), "--rtl", "--rtl-dir", str(tmp_path / RESULTS)]) == 2
    error = capsys.readouterr().err
    assert "no module edgemoe_exp2" in error
    assert "its top function has that name" in error


@pytest.mark.parametrize(("exists", "message"), [(True, "no kernel's Verilog"), (False, "no such folder")])
def test_a_folder_without_verilog(
    built: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], exists: bool, message: str
) -> None:
    folder = tmp_path / RESULTS
    if exists:
        folder.mkdir()
    assert main(["verify", str(built.folder), "--rtl", "--rtl-dir", str(folder)]) == 2
    assert message in capsys.readouterr().err


def test_verilog_may_also_lie_right_in_the_kernels_folder(built: Build, tmp_path: Path) -> None:
    kernel = kernels_of(built.architecture)["exp2"]
    (tmp_path / "exp2").mkdir()
    (tmp_path / "exp2/edgemoe_exp2.v").write_text("(* a = 1 *)\nmodule edgemoe_exp2 (\n);\nendmodule\n")
    assert vitis_sources(tmp_path, kernel) == [tmp_path / "exp2/edgemoe_exp2.v"]
    with pytest.raises(InputError, match="no module edgemoe_exp2"):
        (tmp_path / "exp2/edgemoe_exp2.v").write_text("module edgemoe_exp2_x ();\nendmodule\n")
        vitis_sources(tmp_path, kernel)
