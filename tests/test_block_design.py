"""The block-design scripts, run by a Tcl interpreter with stand-ins for the commands of Vivado, which is not here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import edgemoe
from blank import on_hardware
from boards import FAMILIES, Board, board_names, load_board
from codegen.block_design import memory_masters, write_block_design
from codegen.build import ACCELERATOR, Build
from codegen.hardware import default_hardware
from codegen.host_files import write_host
from codegen.performance import on_board
from codegen.rtl.accelerator import accelerator_files
from codegen.rtl.packaging import IP_TOP, write_package_script
from codegen.rtl.simulation import lint
from common.contract import EMULATED_HWH
from host.hwh import read_hwh
from pysim.design import Design

TCLSH = shutil.which("tclsh")

STUBS = r"""
proc record {args} { puts "call: $args" }
foreach name {create_project update_ip_catalog add_files update_compile_order create_bd_design create_bd_cell
    apply_bd_automation connect_bd_net connect_bd_intf_net assign_bd_address validate_bd_design save_bd_design
    set_property launch_runs wait_on_run open_run report_timing_summary report_utilization} {
  proc $name {args} [format {
    record %s {*}$args
    if {[info exists ::env(FAKE_FAIL)] && $::env(FAKE_FAIL) eq "%s"} { error "%s went wrong" }
    after_%s {*}$args
  } $name $name $name $name]
  proc after_$name {args} {}
}
proc put {path text} {
  file mkdir [file dirname $path]
  set channel [open $path w]
  puts -nonewline $channel $text
  close $channel
}
proc after_create_project {args} { file delete -force project }
proc after_launch_runs {args} {
  put project/edgemoe.runs/impl_1/edgemoe_wrapper.bit bits
  put project/$::env(FAKE_SOURCES)/sources_1/bd/edgemoe/hw_handoff/edgemoe.hwh handoff
}
proc write_hw_platform {args} { record write_hw_platform {*}$args; put [lindex $args end] platform }
proc make_wrapper {args} { return wrapper.v }
foreach name {get_bd_pins get_bd_intf_pins get_bd_cells get_files get_runs} {
  proc $name {args} { return [lindex $args end] }
}
proc current_project {} { return project }
proc current_fileset {} { return sources }
proc get_ipdefs {args} {
  regexp {VLNV =~ (.*):\*} [lindex $args end] -> name
  if {[info exists ::env(FAKE_NO_IP)] && $::env(FAKE_NO_IP) eq $name} { return {} }
  return [list $name:9.0 $name:10.0 $name:1.0]
}
proc get_board_parts {args} {
  set found {}
  foreach part $::env(FAKE_BOARDS) {
    if {[string match [lindex $args end] $part]} { lappend found $part }
  }
  return $found
}
proc get_property {name run} {
  return [dict get $::env(FAKE_PROPERTIES) $name]
}
# The IP packager: objects are the lists of names that lead to them.
namespace eval ipx {
  foreach name {package_project associate_bus_interfaces create_xgui_files update_checksums check_integrity save_core} {
    proc $name {args} [format {
      record ipx::%s {*}$args
      if {[info exists ::env(FAKE_FAIL)] && $::env(FAKE_FAIL) eq "%s"} { error "%s went wrong" }
      if {"%s" eq "save_core"} { put ip/component.xml xml }
      if {"%s" eq "package_project"} { file mkdir ip }
    } $name $name $name $name $name]
  }
  proc current_core {} { return core }
  proc get_bus_interfaces {args} {
    set name [lindex $args [expr {[lindex $args 0] eq "-quiet"}]]
    return [expr {[info exists ::env(FAKE_NO_BUS)] && $::env(FAKE_NO_BUS) eq $name ? {} : $name}]
  }
  proc get_memory_maps {args} { return $::env(FAKE_MAP) }
  proc get_address_blocks {args} { return $::env(FAKE_BLOCK) }
  foreach name {add_memory_map add_address_block add_register add_field} {
    proc $name {name parent} [format {record ipx::%s $name; return [list {*}$parent $name]} $name]
  }
}
proc close_project {} { record close_project }
source $::env(FAKE_SCRIPT)
"""
PASSED = "PROGRESS 100% STATUS {write_bitstream Complete!} STATS.WNS 0.1 STATS.WHS 0.01 STATS.TPWS 0.0"


@pytest.fixture(autouse=True)
def _needs_tcl() -> None:
    assert TCLSH is not None, "tclsh is missing: apt-get install tcl"


@pytest.fixture(scope="module")
def design(designs: dict[str, Design]) -> Design:
    return designs["w8a8"]


def build_for(folder: Path, board: Board, design: Design) -> Path:
    """A build folder as far as the script needs one."""
    (folder / "host").mkdir(parents=True)
    (folder / "hls/vitis/solution/impl/ip").mkdir(parents=True)
    (folder / "hls/vitis/solution/impl/ip/component.xml").touch()
    assert write_block_design(on_board(design.network, board), folder / "vivado", board)
    return folder


def run(folder: Path, board: Board, **environment: str) -> subprocess.CompletedProcess[str]:
    stubs = folder / "stubs.tcl"
    stubs.write_text(STUBS)
    fakes = {
        "FAKE_SCRIPT": str(folder / "vivado" / "build.tcl"),
        "FAKE_BOARDS": board.board_part,
        "FAKE_PROPERTIES": PASSED,
        "FAKE_SOURCES": "edgemoe.gen",
        "FAKE_MAP": "s_axi_control",
        "FAKE_BLOCK": "reg0",
    }
    assert TCLSH is not None
    return subprocess.run(
        [TCLSH, str(stubs)],
        env=os.environ | fakes | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def left(folder: Path) -> set[str]:
    return {path.name for path in (folder / "host").iterdir()}


BOARDS = [name for name in board_names() if FAMILIES[load_board(name).family].processing_system]


@pytest.mark.parametrize("name", BOARDS)
def test_everything_is_connected(tmp_path: Path, design: Design, built: Build, name: str) -> None:
    board = load_board(name)
    folder = build_for(tmp_path / "build", board, design)
    done = run(folder, board)
    assert done.returncode == 0, done.stdout + done.stderr
    assert left(folder) == {"edgemoe.bit", "edgemoe.hwh", "edgemoe.xsa"}
    assert (folder / "host/edgemoe.hwh").read_text() == "handoff"
    nets = re.findall(r"^call: connect_bd_net (\S+) (\S+)$", done.stdout, re.MULTILINE)
    wired = {pin for net in nets for pin in net}
    interfaces = re.findall(r"^call: connect_bd_intf_net (\S+) (\S+)$", done.stdout, re.MULTILINE)
    joined = [pin for pair in interfaces for pin in pair]
    assert len(joined) == len(set(joined)), "an interface is connected twice"
    # All that the C++ has, by the names that Vitis HLS gives to the ports.
    source = (built.hls / "src/top.cpp").read_text()
    bundles = set(re.findall(r"mode = m_axi .*?bundle = (\w+)", source))
    ports = default_hardware(design.network).weight_ports
    wanted = {b for b in bundles if "weights" not in b} | {f"gmem_weights_{port}" for port in range(ports)}
    assert {pin for pin in joined if pin.startswith("edgemoe_top_0/m_axi")} == {
        f"edgemoe_top_0/m_axi_{bundle}" for bundle in wanted
    }
    assert "port = clock_count" in source
    for pin in ("ap_clk", "ap_rst_n", "clock_count", "interrupt"):
        assert f"edgemoe_top_0/{pin}" in wired
    memory = [pin for pin in joined if re.search(r"/S_AXI_HP\d", pin)]
    assert 1 <= len(memory) <= board.ports
    clocks = [pin for pin in wired if re.search(r"(?i)s_?axi_?hp\d.*aclk", pin)]
    assert len(clocks) == len(memory)
    assert (
        f"CONFIG.{'PCW_FPGA0' if board.family == 'zynq-7000' else 'PSU__CRL_APB__PL0_REF_CTRL_'}"
        in done.stdout
    )
    widths = re.findall(r"CONFIG\.(?:PSU__SAXIGP\d__DATA_WIDTH|PCW_S_AXI_HP\d_DATA_WIDTH) (\d+)", done.stdout)
    assert widths == [str(board.port_width)] * len(memory)
    masters = re.findall(r"CONFIG.NUM_SI (\d+) CONFIG.NUM_MI 1", done.stdout)
    assert sum(map(int, masters)) == len(wanted)


def test_weights_have_ports_of_their_own_first(design: Design) -> None:
    zcu102 = load_board("zcu102")
    assert memory_masters(on_hardware(design), zcu102) == [
        ["gmem_weights_0", "gmem_image"],
        ["gmem_weights_1", "gmem_output"],
        ["gmem_weights_2"],
        ["gmem_weights_3"],
    ]
    one = on_hardware(design, weight_ports=1)
    assert memory_masters(one, zcu102) == [["gmem_weights_0"], ["gmem_image"], ["gmem_output"]]


class TestFailures:
    @pytest.fixture
    def board(self) -> Board:
        return load_board("zcu104")

    @pytest.fixture
    def folder(self, tmp_path: Path, board: Board, design: Design) -> Path:
        return build_for(tmp_path / "build", board, design)

    @pytest.mark.parametrize(
        "changed",
        ["STATS.WNS -0.001", "STATS.WHS -0.2", "STATS.TPWS -1", "STATS.WNS {}", "PROGRESS 50%"],
    )
    def test_timing_and_runs(self, folder: Path, board: Board, changed: str) -> None:
        (folder / "host/edgemoe.bit").write_text("of an earlier run")
        done = run(folder, board, FAKE_PROPERTIES=f"{PASSED} {changed}")
        assert done.returncode == 1
        assert "edgemoe: FAILED: " in done.stdout
        assert left(folder) == set()

    @pytest.mark.parametrize(
        "step", ["create_project", "create_bd_cell", "validate_bd_design", "launch_runs", "open_run"]
    )
    def test_commands(self, folder: Path, board: Board, step: str) -> None:
        done = run(folder, board, FAKE_FAIL=step)
        assert done.returncode == 1
        assert re.search(rf"edgemoe: FAILED: \w+: {step} went wrong", done.stdout)
        assert left(folder) == set()

    def test_no_kernel(self, folder: Path, board: Board) -> None:
        (folder / "hls/vitis/solution/impl/ip/component.xml").unlink()
        done = run(folder, board)
        assert done.returncode == 1
        assert "run hls/run_hls.tcl first" in done.stdout
        other = folder / "elsewhere"
        other.mkdir()
        (other / "component.xml").touch()
        assert run(folder, board, EDGEMOE_IP=str(other)).returncode == 0

    def test_board_files(self, folder: Path, board: Board) -> None:
        done = run(folder, board, FAKE_BOARDS="xilinx.com:zcu104:part0:1.9 xilinx.com:zcu104:part0:1.10")
        assert done.returncode == 0
        assert "board file xilinx.com:zcu104:part0:1.10 instead of" in done.stdout
        done = run(folder, board, FAKE_BOARDS="xilinx.com:zcu102:part0:3.4")
        assert done.returncode == 1
        assert "is not installed" in done.stdout

    def test_ip_that_vivado_lacks(self, folder: Path, board: Board) -> None:
        done = run(folder, board, FAKE_NO_IP="xilinx.com:ip:axi_intc")
        assert done.returncode == 1
        assert "this Vivado has no IP xilinx.com:ip:axi_intc" in done.stdout

    def test_newest_ip(self, folder: Path, board: Board) -> None:
        assert "xilinx.com:ip:smartconnect:10.0" in run(folder, board).stdout

    @pytest.mark.parametrize("jobs", ["0", "many", "[exit 0]"])
    def test_jobs(self, folder: Path, board: Board, jobs: str) -> None:
        done = run(folder, board, EDGEMOE_JOBS=jobs)
        assert done.returncode == 1
        assert "EDGEMOE_JOBS is" in done.stdout

    def test_stop_after_the_design(self, folder: Path, board: Board) -> None:
        done = run(folder, board, EDGEMOE_STOP_AFTER="design")
        assert done.returncode == 0
        assert "launch_runs" not in done.stdout
        assert run(folder, board, EDGEMOE_STOP_AFTER="lunch").returncode == 1

    def test_older_place_of_the_handoff(self, folder: Path, board: Board) -> None:
        assert run(folder, board, FAKE_SOURCES="edgemoe.srcs").returncode == 0
        assert "edgemoe.hwh" in left(folder)
        assert run(folder, board, FAKE_SOURCES="elsewhere").returncode == 1
        assert left(folder) == set()


class TestRtl:
    """An RTL accelerator: `package.tcl` makes an IP of it, which `build.tcl` takes instead of one of Vitis HLS."""

    @pytest.fixture
    def board(self) -> Board:
        return load_board("zcu104")

    @pytest.fixture
    def folder(self, tmp_path: Path, board: Board, design: Design) -> Path:
        """A build folder as far as both scripts need one."""
        hardware = default_hardware(design.network, board).changed(backend="rtl")
        architecture = on_board(design.network, board, hardware)
        (tmp_path / "host").mkdir()
        (tmp_path / ACCELERATOR).mkdir(parents=True)
        accelerator_files(architecture, tmp_path / ACCELERATOR)
        assert write_block_design(architecture, tmp_path / "vivado", board)
        write_package_script(architecture, tmp_path / ACCELERATOR, tmp_path / "vivado", board)
        write_host(design, architecture, tmp_path / "emulation", board)
        return tmp_path

    def package(self, folder: Path, board: Board, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(folder, board, FAKE_SCRIPT=str(folder / "vivado/package.tcl"), **environment)

    @pytest.mark.parametrize(("found", "block"), [("s_axi_control", "reg0"), ("", "")])
    def test_ip_has_the_registers_of_the_emulation(
        self, folder: Path, board: Board, found: str, block: str
    ) -> None:
        done = self.package(folder, board, FAKE_MAP=found, FAKE_BLOCK=block)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (folder / "vivado/ip/component.xml").is_file()
        assert not (folder / "vivado/packaging").exists()
        place = f"{found or 'core s_axi_control'}"
        place = block or f"{place} Reg"
        offsets = {
            name: int(offset, 0)
            for offset, name in re.findall(
                rf"^call: set_property address_offset (\S+) {{{place} (\w+)}}$", done.stdout, re.MULTILINE
            )
        }
        kernel = read_hwh(folder / "emulation" / EMULATED_HWH, "edgemoe_top")
        assert offsets == kernel.registers
        assert kernel.vlnv == "edgemoe:rtl:edgemoe_top:0.1"
        assert len(re.findall(r"^call: ipx::add_register ", done.stdout, re.MULTILINE)) == len(offsets)
        for name in ("AP_START", "AP_DONE"):
            assert f"call: ipx::add_field {name}\n" in done.stdout
        assert ("slave_memory_map_ref" in done.stdout) == (not found)

    def test_interfaces_have_clock_and_reset(self, folder: Path, board: Board) -> None:
        done = self.package(folder, board)
        busses = re.findall(
            r"^call: ipx::associate_bus_interfaces -busif (\w+) -clock ap_clk -reset ap_rst_n core$",
            done.stdout,
            re.MULTILINE,
        )
        masters = [f"m_axi_gmem_{name}" for name in ("weights_0", "weights_1", "weights_2", "weights_3")]
        assert busses == ["s_axi_control", *masters, "m_axi_gmem_image", "m_axi_gmem_output"]
        wrapper = (folder / "vivado/edgemoe_ip.v").read_text()
        assert f"ASSOCIATED_BUSIF {':'.join(busses)}, ASSOCIATED_RESET ap_rst_n" in wrapper
        # Every signal of an interface is named to the packager under the interface and its own name.
        named = re.findall(
            r'aximm:1.0 (\w+) (\w+)" \*\)\s+(?:input |output) wire (?:\[\d+:0\] )?(\w+)', wrapper
        )
        assert {bus for bus, _, _ in named} == set(busses)
        assert all(port == f"{bus}_{signal}" for bus, signal, port in named)
        assert len(named) == 17 + 5 * 11 + 14

    def test_every_file_is_in_it(self, folder: Path, board: Board) -> None:
        done = self.package(folder, board)
        (call,) = re.findall(r"^call: add_files -norecurse \{(.*?)\}$", done.stdout, re.MULTILINE | re.DOTALL)
        there = {path.name for path in (folder / ACCELERATOR).iterdir()}
        assert {Path(file).name for file in call.split()} == there | {"edgemoe_ip.v"}
        assert {"edgemoe_top.sv", "edgemoe_job_pkg.sv"} <= there
        assert "call: set_property top edgemoe_ip sources" in done.stdout
        assert "call: set_property name edgemoe_top core" in done.stdout

    def test_block_design_takes_the_ip(self, folder: Path, board: Board) -> None:
        done = run(folder, board)
        assert done.returncode == 1 and "run package.tcl first" in done.stdout
        assert self.package(folder, board).returncode == 0
        done = run(folder, board)
        assert done.returncode == 0, done.stdout + done.stderr
        assert left(folder) == {"edgemoe.bit", "edgemoe.hwh", "edgemoe.xsa"}
        assert "create_bd_cell -type ip -vlnv edgemoe:rtl:edgemoe_top:0.1 edgemoe_top_0" in done.stdout
        joined = set(re.findall(r"edgemoe_top_0/(\w+)", done.stdout))
        wrapper = (folder / "vivado/edgemoe_ip.v").read_text()
        interfaces = set(re.findall(r"aximm:1.0 (\w+) ", wrapper))
        assert joined == interfaces | {"ap_clk", "ap_rst_n", "interrupt"}
        assert "cycle_counter" not in done.stdout and not (folder / "vivado/cycle_counter.v").exists()

    @pytest.mark.parametrize("step", ["create_project", "package_project", "check_integrity", "save_core"])
    def test_what_fails_leaves_no_ip(self, folder: Path, board: Board, step: str) -> None:
        done = self.package(folder, board, FAKE_FAIL=step)
        assert done.returncode == 1
        assert re.search(rf"edgemoe: FAILED: \w+: {step} went wrong", done.stdout)
        assert not (folder / "vivado/ip").exists()

    def test_what_is_missing_is_named(self, folder: Path, board: Board) -> None:
        done = self.package(folder, board, FAKE_NO_BUS="m_axi_gmem_image")
        assert done.returncode == 1 and "no interface m_axi_gmem_image was found" in done.stdout
        (folder / ACCELERATOR / "edgemoe_dot.sv").unlink()
        done = self.package(folder, board)
        assert done.returncode == 1 and "no file ../rtl/accelerator/edgemoe_dot.sv" in done.stdout


@pytest.mark.rtl
def test_the_module_of_the_ip_is_the_accelerator(tmp_path: Path, design: Design) -> None:
    """Verilator, for which every warning is an error, finds no port missing and none of another width."""
    architecture = on_hardware(design, backend="rtl", lanes=4, outputs=8, token_tile=2)
    (tmp_path / ACCELERATOR).mkdir(parents=True)
    (tmp_path / "vivado").mkdir()
    files = accelerator_files(architecture, tmp_path / ACCELERATOR)
    write_package_script(architecture, tmp_path / ACCELERATOR, tmp_path / "vivado", load_board("zcu102"))
    lint([*files, tmp_path / "vivado" / f"{IP_TOP}.v"], IP_TOP)


def test_the_counter_is_as_wide_as_the_kernel_reads(tmp_path: Path, design: Design) -> None:
    folder = build_for(tmp_path / "build", load_board("zcu102"), design)
    assert "output reg [63:0] count" in (folder / "vivado/cycle_counter.v").read_text()
    edgemoe.generate(design, tmp_path / "whole", "zcu102")
    header = (tmp_path / "whole/hls/src/top.h").read_text()
    assert "volatile const unsigned long long* clock_count" in header
    assert (tmp_path / "whole/vivado/build.tcl").is_file()
