"""The host's files and their readers: manifest, weights, packing, `.hwh`, registers; damage is one clear error."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
from blank import on_hardware
from boards import load_board
from codegen.build import Build
from codegen.host_files import LEFT_BEHIND, write_host
from codegen.hwh import control_registers
from codegen.manifest import arguments_of
from codegen.weight_image import pack_weights, port_images
from common import contract
from common.contract import EMULATED_HWH, Argument
from common.errors import InputError
from common.packing import ImageLayout, OutputLayout, pack_images, unpack_tokens
from emulation import faulty_board
from host import Accelerator, Manifest
from host.driver import locate
from host.emulated import EmulatedBoard
from host.hwh import Kernel, read_hwh
from host.registers import Registers
from pysim.design import Design
from pysim.model import Model

ROOT = Path(__file__).parents[1]
Pixels = NDArray[np.uint8]
Copy = Callable[..., Path]


@pytest.fixture
def copy(built: Build, tmp_path: Path) -> Copy:
    """A copy of the host folder whose manifest has some keys changed (None: left out)."""

    def make(**changes: Any) -> Path:
        folder = tmp_path / "host"
        shutil.copytree(built.host, folder, dirs_exist_ok=True)
        data = json.loads((folder / "manifest.json").read_text())
        for path, value in changes.items():
            *tables, key = path.split("__")
            table = data
            for name in tables:
                table = table[int(name) if name.isdigit() else name]
            if value is None:
                del table[key]
            else:
                table[key] = value
        (folder / "manifest.json").write_text(json.dumps(data))
        return folder

    return make


class TestManifest:
    def test_says_what_the_design_says(self, built: Build, micro: Model) -> None:
        manifest = Manifest.load(built.host)
        design = edgemoe.load_design(built.folder / "design")
        assert manifest.design_id == design.design_id
        assert manifest.hardware_id == built.architecture.hardware_id != design.design_id
        assert (manifest.board, manifest.precision, manifest.frac) == ("zcu111", "w8a8", design.residual.frac)
        assert manifest.clock_mhz == built.architecture.hardware.clock_mhz
        assert [task.name for task in manifest.tasks] == design.spec.tasks
        assert manifest.images.shape == (3, 8, 16)
        assert manifest.max_batch == 3
        heads = manifest.read_heads()
        assert set(heads) == {name for name in micro.weights if name.startswith("heads.")}
        for name, tensor in heads.items():
            assert_array_equal(tensor, micro.weights[name], strict=True)

    def test_weights_are_what_the_kernel_reads(self, built: Build) -> None:
        architecture = built.architecture
        ports = architecture.hardware.weight_ports
        weights = Manifest.load(built.host).read_weights()
        assert len(weights) == ports == 2
        for got, expected in zip(
            weights, port_images(pack_weights(built.design, architecture), ports), strict=True
        ):
            assert_array_equal(got, expected, strict=True)
        for port in range(ports):
            data = built.hls / "tb/tb_data" / f"weights_{port}.bin"
            assert data.read_bytes() == weights[port].tobytes()

    @pytest.mark.compile
    def test_arguments_are_those_of_the_kernel(self, built: Build) -> None:
        header = (built.hls / "src/top.h").read_text()
        declared = re.search(r'extern "C" void edgemoe_top\((.*?)\);', header, re.DOTALL)
        assert declared is not None
        sizes = {"axi_word_t* ": 64, "WeightPort ": 64, " int ": 32, " int* ": 32, "long long* ": 64}
        found = []
        for parameter in declared[1].split(","):
            text = f" {' '.join(parameter.split())}"
            (bits,) = (bits for kind, bits in sizes.items() if kind in text)
            name = text.split()[-1]
            found.append((name, bits, text.startswith((" unsigned long long*", " int*"))))
        # The clock counter comes in by a port of its own.
        found = [entry for entry in found if entry[0] != "clock_count"]
        assert found == [tuple(argument) for argument in Manifest.load(built.host).arguments]
        codes = dict(re.findall(r"(STATUS_\w+) = (\d)", header))
        assert codes == {name: str(getattr(contract, name)) for name in codes} and len(codes) == 3
        top = (built.hls / "src/top.cpp").read_text()
        for name, _, _ in found:
            assert re.search(rf"mode = s_axilite port = {name} bundle = control", top)

    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("version", 2, "version 2, expected 3"),
            ("version", None, "version is missing"),
            ("design_id", 7, "design_id is 7, expected str"),
            ("clock_mhz", "fast", "clock_mhz is 'fast', expected float"),
            ("max_batch", 0, "max_batch is 0, expected at least 1"),
            ("max_batch", True, "max_batch is True"),
            ("images", [], "images is .*, expected dict"),
            ("images__height", None, "images.height is missing"),
            ("images__height", 12, "images and.*|output.tokens, images and prefix_tokens do not fit"),
            ("images__patch_size", 3, "do not fit together"),
            ("images__patch_words", 7, "images.patch_words and images.lanes do not fit"),
            ("images__word_bytes", 4, "images.word_bytes, output.word_bytes and lanes do not fit"),
            ("images__lanes", 4, "images.lanes and output.lanes do not fit"),
            ("images__resample", "round", "resample is 'round', expected one of nearest"),
            ("images__padding", -1, "images.padding is -1, expected 0 to 255"),
            ("images__padding", 256, "images.padding is 256"),
            ("images__channels", 1 << 30, "images.channels is 1073741824, expected 1 to"),
            ("clock_mhz", float("nan"), "NaN is no number of JSON"),
            ("clock_mhz", float("inf"), "Infinity is no number of JSON"),
            ("clock_mhz", 0, "clock_mhz is 0"),
            ("clock_mhz", -300.0, "clock_mhz is -300.0"),
            ("clock_mhz", 10**400, "clock_mhz: .*, expected at most 128 bits"),
            ("clock_mhz", True, "clock_mhz is True"),
            ("frac", 10**30, "frac is 1000000000000000000000000000000, expected -64 to 64"),
            ("frac", 3.5, "frac is 3.5, expected int"),
            ("weights__port_bytes", 1 << 40, "weights: 2199023255552 bytes, expected at most"),
            ("tasks", [], "tasks: 0 names"),
            ("tasks__1__name", "semseg", "tasks: 2 names, 1 of them different"),
            ("tasks__1__name", "a\x1b[2J", r"tasks\[1\].name is 'a\\x1b\[2J'"),
            ("tasks__0__norm_eps", float("nan"), "NaN is no number of JSON"),
            ("tasks__0__norm_eps", 0, r"tasks\[0\].norm_eps is 0"),
            ("tasks__0__out_channels", None, r"tasks\[0\].out_channels is missing"),
            ("tasks__0__out_channels", 0, r"tasks\[0\].out_channels is 0"),
            ("design_id", "0" * 15, "design_id is '0+', expected 16 hexadecimal digits"),
            ("kernel", "edgemoe top", "kernel is 'edgemoe top', expected a name in C"),
            ("arguments__1__name", "other", "arguments: other, output: not as this driver expects"),
            ("arguments__4__output", True, "arguments: batch: not as"),
            ("arguments__0__name", "output", "arguments: image: not as"),
            ("weights__ports", 1 << 30, "weights.ports is 1073741824"),
            ("weights__port_bytes", 1 << 50, "weights.port_bytes is"),
            ("weights__sha256", "0" * 63, "weights.sha256 is"),
            ("heads_sha256", None, "one of heads and heads_sha256 is null"),
            ("output__tokens", 8, "output.tokens, images and prefix_tokens do not fit"),
            ("output__token_words", 2, "output.token_words and output.lanes do not fit"),
            ("output__word_bytes", 34, "images.word_bytes, output.word_bytes and lanes do not fit"),
            ("tasks__0__kind", "magic", r"tasks\[0\].kind is 'magic'"),
            ("tasks__1__norm", "yes", r"tasks\[1\].norm is 'yes', expected bool"),
            ("tasks", [3], r"tasks\[0\]. is int, expected an object"),
            ("arguments__1__bits", 16, r"arguments\[1\].bits is 16, expected 32 or 64"),
            ("weights__port_bytes", -1, "weights.port_bytes is -1"),
        ],
    )
    def test_wrong_keys(self, copy: Copy, key: str, value: Any, reason: str) -> None:
        folder = copy(**{key: value})
        with pytest.raises(InputError, match=reason) as caught:
            Manifest.load(folder)
        assert str(folder) in caught.value.message

    @pytest.mark.parametrize("key", ["weights__file", "heads"])
    @pytest.mark.parametrize(
        "name", ["/etc/passwd", "../weights.bin", "..", ".", "", "a/b", "a\\b", "a\0", "~", "w\n", "x" * 300]
    )
    def test_files_outside_the_folder(self, copy: Copy, key: str, name: str) -> None:
        folder = copy(**{key: name})
        with pytest.raises(InputError, match=r"expected the plain name of a file in the same folder"):
            Manifest.load(folder)

    def test_no_wrong_number_makes_memory_too_small(self, built: Build, copy: Copy) -> None:
        """One number that is not the kernel's: it is refused, or the kernel writes and reads no further than before."""
        folder = copy()
        path = folder / "manifest.json"
        content = json.loads(path.read_text())
        right = Manifest.load(folder)
        tried = 0
        for table in ("images", "output", "weights"):
            for key, value in content[table].items():
                if not isinstance(value, int):
                    continue
                for wrong in {1, value - 1, value // 2, value * 2}:
                    changed = content | {table: content[table] | {key: wrong}}
                    path.write_text(json.dumps(changed))
                    tried += 1
                    try:
                        loaded = Manifest.load(folder)
                        loaded.read_weights()
                    except InputError:
                        continue
                    assert loaded.images.image_bytes >= right.images.image_bytes, (table, key, wrong)
                    assert loaded.output.image_bytes >= right.output.image_bytes, (table, key, wrong)
        assert tried > 40

    def test_of_an_older_release(self, copy: Copy) -> None:
        """A kernel that does not report its limits is not driven by guessing them."""
        arguments = json.loads((copy() / "manifest.json").read_text())["arguments"]
        known = [argument for argument in arguments if argument["name"] not in ("max_batch", "status")]
        folder = copy(arguments=known)
        with pytest.raises(InputError, match="arguments: max_batch, status: not as") as caught:
            Manifest.load(folder)
        assert "generate the build again" in caught.value.hint

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000])
    def test_not_a_manifest(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(InputError, match=r"manifest.json: "):
            Manifest.load(tmp_path)

    def test_places(self, built: Build, tmp_path: Path) -> None:
        for place in (built.folder, built.host):
            assert locate(place) == (built.host / "manifest.json", built.host / "edgemoe.bit")
        bit = tmp_path / "mine.bit"
        assert locate(bit) == (tmp_path / "manifest.json", bit)
        with pytest.raises(InputError, match=r"no manifest.json here or in"):
            locate(tmp_path)
        with pytest.raises(InputError, match="no such file"):
            Accelerator(bit)

    @given(data=st.data())
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_damage(self, built: Build, tmp_path: Path, data: st.DataObject) -> None:
        """Whatever the file holds, it loads or is refused."""
        content = bytearray((built.host / "manifest.json").read_bytes())
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=4))
        (tmp_path / "manifest.json").write_bytes(content)
        try:
            assert isinstance(Manifest.load(tmp_path), Manifest)
        except InputError as error:
            assert error.message


class TestDamagedFiles:
    @pytest.fixture
    def opened(self, library: Path) -> Callable[[Path], None]:
        def attempt(folder: Path) -> None:
            board, kernel = faulty_board(folder, library)
            try:
                Accelerator(folder, board=board)
            finally:
                assert not board.memory.buffers and not kernel.writes

        return attempt

    @pytest.mark.compile
    @pytest.mark.parametrize("name", ["weights.bin", "heads.npz"])
    @pytest.mark.parametrize("damage", ["truncated", "longer", "changed", "empty", "missing"])
    def test_data(self, copy: Copy, opened: Callable[[Path], None], name: str, damage: str) -> None:
        folder = copy()
        path = folder / name
        content = path.read_bytes()
        changed = content[:100] + bytes([content[100] ^ 1]) + content[101:]
        damaged = {"truncated": content[:-1], "longer": content + b"0", "changed": changed, "empty": b""}
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(damaged[damage])
        with pytest.raises(InputError, match=re.escape(str(path))) as caught:
            opened(folder)
        assert "copy the whole host folder" in caught.value.hint

    @pytest.mark.compile
    @pytest.mark.parametrize("name", ["manifest.json", "weights.bin", "heads.npz", "emulated/edgemoe.hwh"])
    @pytest.mark.parametrize("kind", ["pipe", "device", "folder", "huge"])
    def test_not_a_file(self, copy: Copy, opened: Callable[[Path], None], name: str, kind: str) -> None:
        """What would be read for ever, or take all memory, is refused at once; a link to a file is one."""
        folder = copy()
        path = folder / name
        path.rename(folder / "kept")
        path.symlink_to(folder / "kept")
        Manifest.load(folder).read_weights()
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir()
        else:
            with path.open("wb") as file:
                file.truncate(2 << 40)  # No block of it is on the disk.
        with pytest.raises(InputError, match=re.escape(str(path))):
            opened(path if name == "manifest.json" else folder)

    @pytest.mark.compile
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"semseg.weight": (3, 24)}, r"heads.semseg.weight is \(3, 24\) of float32, expected \(7, 24\)"),
            ({"depth.bias": (2,)}, r"heads.depth.bias is \(2,\) of float32, expected \(1,\)"),
            ({"depth.bias": None}, r"heads.depth.bias is missing"),
            ({"depth.bias": "int"}, r"heads.depth.bias is \(1,\) of int64, expected \(1,\) of floats"),
        ],
    )
    def test_heads_of_another_model(
        self, copy: Copy, opened: Callable[[Path], None], change: dict[str, Any], reason: str
    ) -> None:
        folder = copy()
        tensors = Manifest.load(folder).read_heads()
        for name, shape in change.items():
            tensors[f"heads.{name}"] = (
                np.zeros(1, int) if shape == "int" else np.zeros(shape or 1, np.float32)
            )
            if shape is None:
                del tensors[f"heads.{name}"]
        with (folder / "heads.npz").open("wb") as file:
            np.savez(file, **tensors)  # type: ignore[arg-type]
        digest = hashlib.sha256((folder / "heads.npz").read_bytes()).hexdigest()
        data = json.loads((folder / "manifest.json").read_text()) | {"heads_sha256": digest}
        (folder / "manifest.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=reason):
            opened(folder)

    @pytest.mark.compile
    def test_pickles_are_refused(self, copy: Copy, opened: Callable[[Path], None]) -> None:
        folder = copy()
        with (folder / "heads.npz").open("wb") as file:
            np.savez(file, evil=np.array([{"a": 1}], object))
        digest = hashlib.sha256((folder / "heads.npz").read_bytes()).hexdigest()
        data = json.loads((folder / "manifest.json").read_text()) | {"heads_sha256": digest}
        (folder / "manifest.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=r"not a readable .npz file"):
            opened(folder)

    @pytest.mark.compile
    def test_registers_of_another_kernel(self, copy: Copy, library: Path, built: Build) -> None:
        folder = copy()
        board = EmulatedBoard(Manifest.load(folder), library)
        registers = {
            name: at for name, at in board.kernel.registers.items() if not name.startswith("weights_1")
        }
        board.kernel = dataclasses.replace(board.kernel, registers=registers)
        with pytest.raises(InputError, match="has no 64-bit register for weights_1"):
            Accelerator(folder, board=board)
        assert not board.memory.buffers


class TestWithoutHeads:
    @pytest.mark.compile
    def test_results_without_heads(self, built: Build, library: Path, images: Pixels, tmp_path: Path) -> None:
        write_host(built.design, built.architecture, tmp_path / "host", load_board("zcu111"))
        manifest = Manifest.load(tmp_path / "host")
        assert manifest.heads is None and not (tmp_path / "host/heads.npz").exists()
        with Accelerator(tmp_path / "host", board=EmulatedBoard(manifest, library)) as accelerator:
            result = accelerator.run(images[0])
        assert result.output is None and result.tokens.shape == (9, 24)
        with pytest.raises(InputError, match="has no head"):
            assert result.map is None

    def test_model_of_another_design(
        self, designs: dict[str, Design], micro_with: Callable[..., Model], tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="another shape, other tasks or other heads"):
            edgemoe.generate(designs["w8a8"], tmp_path / "build", model=micro_with(moe={"top_k": 1}))
        assert not list(tmp_path.iterdir())

    def test_class_of_the_image(self, built: Build) -> None:
        from common.heads import Head, run_head
        from host.manifest import Task
        from host.result import Result

        weights = {"heads.c.weight": np.eye(4, 24, dtype=np.float32), "heads.c.bias": np.zeros(4, np.float32)}
        head = Head("cls-linear", False, 1e-6)
        integers = np.arange(9 * 24, dtype=np.int32).reshape(9, 24) % 7
        result = Result("c", integers, 1, 1, 1.0, 2, (2, 4), Task("c", head, 4), weights)
        assert_array_equal(result.output, [0, 0.25, 0.5, 0.75])
        assert_array_equal(result.output, run_head(head, "c", weights, result.tokens[None])[0])  # type: ignore[index]
        assert result.label == 3
        with pytest.raises(InputError, match="cls-linear, not token-linear"):
            assert result.map is None


@st.composite
def layouts(draw: st.DrawFn) -> ImageLayout:
    channels, size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shape = (channels, size * draw(st.integers(1, 3)), size * draw(st.integers(1, 3)))
    lanes, port = draw(st.integers(1, 20)), draw(st.sampled_from([8, 16]))
    words = -(-channels * size**2 // lanes)
    return ImageLayout(shape, size, lanes, words, -(-lanes // port) * port, draw(st.sampled_from([0, 128])))


class TestPacking:
    @given(layout=layouts(), count=st.integers(0, 3), given_memory=st.booleans())
    @settings(deadline=None, max_examples=150)
    def test_images_byte_by_byte(self, layout: ImageLayout, count: int, given_memory: bool) -> None:
        images = np.random.default_rng(0).integers(0, 256, (count, *layout.shape), dtype=np.uint8)
        channels, height, width = layout.shape
        size = layout.patch_size
        expected = []
        for image in images:
            for row in range(0, height, size):
                for column in range(0, width, size):
                    values = [
                        int(image[c, row + y, column + x])
                        for c in range(channels)
                        for y in range(size)
                        for x in range(size)
                    ]
                    values += [layout.padding] * (layout.patch_words * layout.lanes - len(values))
                    for start in range(0, len(values), layout.lanes):
                        word = values[start : start + layout.lanes]
                        expected += word + [0] * (layout.word_bytes - layout.lanes)
        out = np.full(count * layout.image_bytes + 5, 77, np.uint8) if given_memory else None
        packed = pack_images(images, layout, out)
        assert packed.tolist() == expected
        assert out is None or (np.shares_memory(packed, out) or not count)
        assert out is None or out[-5:].tolist() == [77] * 5

    @given(dim=st.integers(1, 40), lanes=st.integers(1, 20), port=st.sampled_from([8, 16]))
    @settings(deadline=None, max_examples=60)
    def test_tokens_byte_by_byte(self, dim: int, lanes: int, port: int) -> None:
        layout = OutputLayout(3, dim, lanes, -(-dim // lanes), -(-4 * lanes // port) * port)
        tokens = np.random.default_rng(0).integers(-(2**31), 2**31, (2, 3, dim), dtype=np.int64)
        memory = bytearray()
        for row in tokens.reshape(-1, dim).tolist():
            row += [99] * (layout.token_words * lanes - dim)
            for start in range(0, len(row), lanes):
                word = b"".join(
                    value.to_bytes(4, "little", signed=True) for value in row[start : start + lanes]
                )
                memory += word.ljust(layout.word_bytes, b"\x55")
        got = unpack_tokens(np.frombuffer(memory + b"more", np.uint8)[: len(memory)], 2, layout)
        assert_array_equal(got, tokens)
        assert got.dtype == np.int32 and got.flags.owndata


REAL = """<?xml version="1.0" encoding="UTF-8" standalone="no" ?>
<EDKSYSTEM EDWVERSION="1.2" TIMESTAMP="Mon Jan  5 10:00:00 2026" VIVADOVERSION="2023.2">
  <SYSTEMINFO ARCH="zynquplus" BOARD="xilinx.com:zcu104:part0:1.1" DEVICE="xczu7ev" NAME="design_1"/>
  <EXTERNALPORTS/>
  <MODULES>
    <MODULE FULLNAME="/vadd_0" HWVERSION="1.0" INSTANCE="vadd_0" MODTYPE="vadd" VLNV="xilinx.com:hls:vadd:1.0">
      <ADDRESSBLOCKS>
        <ADDRESSBLOCK ACCESS="read-write" INTERFACE="s_axi_control" NAME="Reg" RANGE="65536" USAGE="register">
          <REGISTERS>
            <REGISTER NAME="CTRL">
              <PROPERTY NAME="ADDRESS_OFFSET" VALUE="0x0"/>
              <FIELDS>
                <FIELD NAME="AP_START"><PROPERTY NAME="ADDRESS_OFFSET" VALUE="0"/></FIELD>
                <FIELD NAME="AP_DONE"><PROPERTY NAME="ADDRESS_OFFSET" VALUE="1"/></FIELD>
              </FIELDS>
            </REGISTER>
            <REGISTER NAME="in1_1"><PROPERTY NAME="ADDRESS_OFFSET" VALUE="0x10"/></REGISTER>
            <REGISTER NAME="in1_2"><PROPERTY NAME="ADDRESS_OFFSET" VALUE="20"/></REGISTER>
            <REGISTER NAME="size"><PROPERTY NAME="ADDRESS_OFFSET" VALUE="0x1C"/></REGISTER>
          </REGISTERS>
        </ADDRESSBLOCK>
      </ADDRESSBLOCKS>
      <PARAMETERS>
        <PARAMETER NAME="C_S_AXI_CONTROL_BASEADDR" VALUE="0xA0010000"/>
        <PARAMETER NAME="C_S_AXI_CONTROL_HIGHADDR" VALUE="0xA001FFFF"/>
      </PARAMETERS>
      <PORTS>
        <PORT CLKFREQUENCY="299997009" DIR="I" NAME="ap_clk" SIGIS="clk"/>
        <PORT DIR="O" NAME="interrupt" SENSITIVITY="LEVEL_HIGH" SIGIS="INTERRUPT"/>
      </PORTS>
    </MODULE>
  </MODULES>
</EDKSYSTEM>
"""


class TestHwh:
    def write(self, folder: Path, text: str) -> Path:
        path = folder / "design.hwh"
        path.write_text(text, encoding="utf-8-sig")
        return path

    def test_as_vivado_writes_it(self, tmp_path: Path) -> None:
        kernel = read_hwh(self.write(tmp_path, REAL), "vadd")
        assert kernel.registers == {"CTRL": 0, "in1_1": 0x10, "in1_2": 0x14, "size": 0x1C}
        assert (kernel.address, kernel.address_range) == (0xA0010000, 0x10000)
        assert kernel.instance == "vadd_0" and not kernel.interrupt
        assert kernel.clock_mhz == pytest.approx(299.997009)

    @pytest.mark.parametrize("frequency", ["", "0", "-1", "fast", "²", "9" * 5000])
    def test_clock_that_is_none(self, tmp_path: Path, frequency: str) -> None:
        path = self.write(tmp_path, REAL.replace('"299997009"', f'"{frequency}"'))
        assert read_hwh(path, "vadd").clock_mhz is None

    def test_connected_interrupt(self, tmp_path: Path) -> None:
        wired = 'SIGIS="INTERRUPT"><CONNECTIONS><CONNECTION INSTANCE="i" PORT="intr"/></CONNECTIONS></PORT>'
        kernel = read_hwh(self.write(tmp_path, REAL.replace('SIGIS="INTERRUPT"/>', wired)), "vadd")
        assert kernel.interrupt

    @pytest.mark.parametrize(
        ("before", "after", "reason"),
        [
            ('MODTYPE="vadd"', 'MODTYPE="vsub"', "no IP vadd, expected one"),
            ('NAME="CTRL"', 'NAME="CONTROL"', "no register CTRL"),
            ("C_S_AXI", "C_M_AXI", "has no address"),
            ('VALUE="20"', 'VALUE="twenty"', "ADDRESS_OFFSET of in1_2 is 'twenty'"),
            ("0xA0010000", "", "C_S_AXI_CONTROL_BASEADDR is ''"),
            ("</EDKSYSTEM>", "", "not XML"),
            ("EDKSYSTEM", "html", "not a .hwh: its root is 'html'"),
            ("<EDKSYSTEM", "<!DOCTYPE a><EDKSYSTEM", "document type"),
        ],
    )
    def test_damaged(self, tmp_path: Path, before: str, after: str, reason: str) -> None:
        path = self.write(tmp_path, REAL.replace(before, after))
        with pytest.raises(InputError, match=re.escape(reason)) as caught:
            read_hwh(path, "vadd")
        assert str(path) in caught.value.message

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            read_hwh(tmp_path / "none.hwh", "vadd")

    def test_largest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.write(tmp_path, REAL)
        with path.open("r+b") as file:
            file.truncate(1 + (64 << 20))
        with pytest.raises(InputError, match="larger than 67,108,864 bytes"):
            read_hwh(path, "vadd")
        path = self.write(tmp_path, REAL)
        monkeypatch.setattr("host.hwh.MAX_BYTES", path.stat().st_size)
        assert read_hwh(path, "vadd").instance == "vadd_0"

    @pytest.mark.parametrize("board", ["zcu102", "pynq-z2", "u280"])
    def test_of_the_emulated_board(self, board: str, designs: dict[str, Design], tmp_path: Path) -> None:
        architecture = on_hardware(designs["w8a8"])
        write_host(designs["w8a8"], architecture, tmp_path / "host", load_board(board))
        kernel = read_hwh(tmp_path / "host" / EMULATED_HWH, "edgemoe_top")
        arguments = arguments_of(architecture)
        assert kernel.registers == {r.name: r.offset for r in control_registers(arguments)}
        assert kernel.interrupt and kernel.clock_mhz == architecture.hardware.clock_mhz
        assert kernel.vlnv == "edgemoe:hls:edgemoe_top:0.1"

    def test_offsets_are_those_of_vitis(self) -> None:
        """As in the headers that Vitis HLS writes: 8 bytes for 32 bits, 12 for 64, outputs twice that."""
        arguments = [
            Argument("a", 64, False),
            Argument("n", 32, False),
            Argument("result", 64, True),
            Argument("flag", 32, True),
            Argument("last", 32, False),
        ]
        offsets = {r.name: r.offset for r in control_registers(arguments)}
        assert offsets == {
            "CTRL": 0x00,
            "GIER": 0x04,
            "IP_IER": 0x08,
            "IP_ISR": 0x0C,
            "a_1": 0x10,
            "a_2": 0x14,
            "n": 0x1C,
            "result_1": 0x24,
            "result_2": 0x28,
            "result_ctrl": 0x2C,
            "flag": 0x3C,
            "flag_ctrl": 0x40,
            "last": 0x4C,
        }


class TestRegisters:
    class Memory:
        def __init__(self) -> None:
            self.words: dict[int, int] = {}

        def read(self, offset: int) -> int:
            return self.words.get(offset, 0)

        def write(self, offset: int, value: int) -> None:
            assert 0 <= value < 1 << 32
            self.words[offset] = value

    def registers(self, memory: Memory, **offsets: int) -> Registers:
        kernel = Kernel(Path("a.hwh"), "k", "v", 0, 64, {"CTRL": 0} | offsets, False, None)
        return Registers(memory, kernel, [Argument("task", 32, False), Argument("out", 64, True)])

    def test_names_that_verilog_reserves(self) -> None:
        memory = self.Memory()
        registers = self.registers(memory, task_r=0x10, out_1=0x20, out_2=0x24)
        registers.set("task", 5)
        registers.set("task", 5)
        registers.set("out", 0x1_2345_6789)
        assert memory.words == {0x10: 5, 0x20: 0x2345_6789, 0x24: 1}
        assert registers.argument_writes == 2
        assert registers.get("out") == 0x1_2345_6789
        assert registers.take_valid("out"), "no control register: it cannot be known"

    def test_interrupt_status_of_old_and_new_releases(self) -> None:
        class Old(TestRegisters.Memory):  # Toggles on write.
            def write(self, offset: int, value: int) -> None:
                self.words[offset] = self.words.get(offset, 0) ^ value

        class New(TestRegisters.Memory):  # Clears on read, and must not be toggled back on.
            def read(self, offset: int) -> int:
                return self.words.pop(offset, 0)

            def write(self, offset: int, value: int) -> None:
                raise AssertionError("written")

        for memory in (Old(), New()):
            memory.words[0xC] = 1
            self.registers(memory, task=0x10, out_1=0x20, out_2=0x24, IP_ISR=0xC).clear_interrupt()
            assert not memory.words.get(0xC)


def test_registers_are_described() -> None:
    data = control_registers([Argument("image", 64, output=False)])[-2:]
    described = [register.fields[0].description for register in data]
    assert described == ["Bit 31 to 0 of image", "Bit 63 to 32 of image"]


class TestImports:
    """The driver imports nothing that a board does not have."""

    FILES = tuple(
        path
        for package in ("common", "host")
        for path in sorted((ROOT / package).glob("*.py"))
        if package == "host" or path.stem not in LEFT_BEHIND
    )

    @pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}.{path.stem}")
    def test_modules(self, path: Path) -> None:
        tops = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                tops |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                tops.add(node.module or "")
        foreign = {name for name in tops if name.split(".")[0] not in sys.stdlib_module_names}
        assert {name.split(".")[0] for name in foreign} <= {
            "common",
            "host",
            "imageio",
            "imageio_ffmpeg",
            "numpy",
            "PIL",
            "pillow_heif",
            "pynq",
            "pynqmetadata",
            "pyxrt",
        }
        assert not foreign & {f"common.{name}" for name in LEFT_BEHIND}

    def test_everything_it_needs_goes_along(self, built: Build) -> None:
        copied = {path.relative_to(built.host).as_posix() for path in built.host.rglob("*.py")}
        assert copied == {path.relative_to(ROOT).as_posix() for path in self.FILES}
