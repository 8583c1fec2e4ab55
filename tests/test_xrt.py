"""Builds for a card: a kernel without a counter, its link configuration, and the host's way through XRT."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import edgemoe
from blank import on_hardware
from boards import Board, load_board
from codegen.build import Build
from codegen.csim import build_library, find_compiler, run_csim
from codegen.link import memory_banks, memory_ports
from codegen.performance import on_board
from codegen.project import generate
from common.errors import InputError
from conftest import NARROW, Pixels
from edgemoe.cli import main
from fake_pyxrt import FakeXrt, State, module
from frontend.zoo import find_spec
from host import Accelerator, AcceleratorError
from host.manifest import Manifest
from pysim.design import Design
from pysim.model import Model
from pysim.network import Network
from pysim.precision import PRESETS


@pytest.fixture(scope="module")
def card() -> Board:
    return load_board("u280")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, micro: Model, designs: dict[str, Design]) -> Build:
    folder = tmp_path_factory.mktemp("card") / "build"
    return generate(designs["w8a8"], folder, load_board("u280"), hardware=NARROW, model=micro)[0]


@pytest.fixture(scope="module")
def library(built: Build) -> Path:
    return build_library(built.hls)


@pytest.fixture
def xrt(built: Build, library: Path, monkeypatch: pytest.MonkeyPatch) -> FakeXrt:
    """A card on which the binary of the build can be loaded."""
    fake = FakeXrt(built.host, library)
    monkeypatch.setitem(sys.modules, "pyxrt", module(fake))
    (built.host / "edgemoe.xclbin").write_bytes(b"binary")
    return fake


class TestLink:
    def test_every_argument_is_connected_once(self, built: Build, card: Board) -> None:
        """Each pointer of the C++, each port with a bank of its own, and no bank that the card does not have."""
        text = (built.folder / "vitis/link.cfg").read_text()
        lines = [line for line in text.splitlines() if line.startswith("sp=")]
        assert len(lines) == len(set(lines))
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read_string("[top]\n" + text)
        assert parser["top"]["platform"] == card.platform
        assert parser["top"]["kernel_frequency"] == "300"
        assert parser["connectivity"]["nk"] == "edgemoe_top:1:edgemoe_top_1"
        banks = dict(re.findall(r"sp=edgemoe_top_1\.(\w+):HBM\[(\d+)\]$", text, re.MULTILINE))
        assert len(banks) == len(lines)
        source = (built.hls / "src/top.cpp").read_text()
        bundles = dict(re.findall(r"mode = m_axi port = (\w+) offset = slave bundle = (\w+)", source))
        assert banks.keys() == bundles.keys()
        by_bundle = {
            bundle: {banks[name] for name in banks if bundles[name] == bundle} for bundle in bundles.values()
        }
        assert all(len(found) == 1 for found in by_bundle.values()), "arguments of a bundle share its bank"
        assert len({*banks.values()}) == len(by_bundle), "bundles share no bank"
        assert max(map(int, banks.values())) < card.ports

    def test_large_buffers_take_several_banks(self, card: Board) -> None:
        network = Network(find_spec("vit-tiny"), PRESETS["w8a8"])
        many = on_hardware(network, max_batch=8, weight_ports=2, family="alveo")
        weights, _, images, result = memory_ports(many)
        assert (images.arguments, result.arguments) == (("image",), ("output", "report"))
        # Two batches of 8 images of 224 x 224 pixels, and of 197 tokens of 192 32-bit channels, in banks of 1 MiB.
        assert images.nbytes == 2 * 8 * 3 * 224 * 224
        assert result.nbytes == 2 * 8 * 197 * 192 * 4 + 64
        each = -(-weights.nbytes >> 20)
        banks = memory_banks(many, card.model_copy(update={"bank_mb": 1}))
        assert banks == {
            "weights_0": f"HBM[0:{each - 1}]",
            "weights_1": f"HBM[{each}:{2 * each - 1}]",
            "image": f"HBM[{2 * each}:{2 * each + 2}]",
            "output": f"HBM[{2 * each + 3}:{2 * each + 5}]",
            "report": f"HBM[{2 * each + 3}:{2 * each + 5}]",
        }

    def test_too_few_banks(self, designs: dict[str, Design], card: Board) -> None:
        architecture = on_board(designs["w8a8"].network, card, NARROW)
        ports = len(memory_ports(architecture))
        memory_banks(architecture, card.model_copy(update={"ports": ports}))
        with pytest.raises(InputError, match=f"need {ports} banks, but u280 has {ports - 1}"):
            memory_banks(architecture, card.model_copy(update={"ports": ports - 1}))
        with pytest.raises(InputError, match="says nothing of the memory behind its ports"):
            memory_banks(architecture, card.model_copy(update={"memory_bank": None}))

    def test_the_project_exports_a_kernel(self, built: Build) -> None:
        assert not built.vivado.exists()
        script = (built.hls / "run_hls.tcl").read_text()
        assert script.count("-flow_target vitis") == 2
        config = (built.hls / "hls_config.cfg").read_text()
        assert "flow_target=vitis" in config
        assert "package.output.format=xo\npackage.output.file=vitis/edgemoe_top.xo\n" in config
        assert "../hls/vitis/edgemoe_top.xo" in (built.folder / "vitis/link.cfg").read_text()


def test_the_kernel_has_no_port_that_xrt_does_not_know(built: Build) -> None:
    source = (built.hls / "src/top.cpp").read_text()
    modes = set(re.findall(r"#pragma HLS interface mode = (\w+)", source))
    assert modes == {"m_axi", "s_axilite"}
    for name in ("clock_count", "cycles", "hardware_id", "max_batch", "status"):
        assert f"port = {name}" not in source
    manifest = json.loads((built.host / "manifest.json").read_text())
    assert manifest["runtime"] == "xrt"
    assert "cycles" not in {argument["name"] for argument in manifest["arguments"]}


@pytest.mark.compile
def test_csim(built: Build) -> None:
    """The test bench, refused calls and the kernel's report included."""
    result = run_csim(built.hls)
    engines = result.engines
    assert not result.mismatches
    for name in ("network", "report", "hardware_id", "max_batch", "status", "untouched"):
        assert engines[name][0] > 0
    assert "cycles" not in engines


@pytest.mark.compile
class TestHost:
    def test_integers_of_the_simulator(self, built: Build, xrt: FakeXrt, images: Pixels) -> None:
        expected = {
            task: edgemoe.simulate(built.design, images[:7], task).integers
            for task in built.design.spec.tasks
        }
        with Accelerator(built.folder) as accelerator:
            assert not accelerator.emulated
            assert accelerator.max_batch == built.architecture.hardware.max_batch
            assert accelerator.clock_mhz == 300
            for task, tokens in expected.items():
                one = accelerator.run(images[0], task)
                assert_array_equal(one.integers, tokens[0])
                assert one.cycles is one.latency_ms is None
                for result, wanted in zip(accelerator.run_batch(images[:7], task), tokens, strict=True):
                    assert_array_equal(result.integers, wanted)
                for result, wanted in zip(accelerator.stream(images[:4], task), tokens, strict=False):
                    assert_array_equal(result.integers, wanted)
        assert xrt.loaded == [str((built.host / "edgemoe.xclbin").resolve())]
        # The first call asks which hardware this is, with pointers to nothing of the driver's.
        assert xrt.started[0][len(xrt.inputs) - 2] == 0
        assert not xrt.memory.buffers, "all buffers were freed"
        with Accelerator(built.host / "edgemoe.xclbin") as again:
            assert_array_equal(again.run(images[0]).integers, expected[built.design.spec.tasks[0]][0])

    def test_emulated(self, built: Build, images: Pixels) -> None:
        with edgemoe.Accelerator(built.folder, emulate=True) as accelerator:
            result = accelerator.run(images[0])
        assert_array_equal(result.integers, edgemoe.simulate(built.design, images[:1]).integers[0])
        assert result.cycles is None

    def test_command_line(
        self, built: Build, xrt: FakeXrt, folders: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["run", str(built.folder), "--image", str(folders / "images/00.png")]
        assert main(arguments) == 0
        assert "s with the host, no cycles counted" in capsys.readouterr().out
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["emulated"] is False
        assert found["runs"][0]["cycles"] is found["runs"][0]["latency_ms"] is None
        assert main(["verify", str(built.folder), "--host", "--images", "2"]) == 0

    def test_other_hardware(self, built: Build, xrt: FakeXrt, monkeypatch: pytest.MonkeyPatch) -> None:
        real = xrt.hardware.execute
        monkeypatch.setattr(xrt.hardware, "execute", lambda values: (real(values) or {}) | {"hardware_id": 1})
        with pytest.raises(AcceleratorError, match="is hardware 0000000000000001"):
            Accelerator(built.folder)

    def test_failures(self, built: Build, xrt: FakeXrt, images: Pixels) -> None:
        with Accelerator(built.folder) as accelerator:
            xrt.ended = State.ERT_CMD_STATE_ABORT
            with pytest.raises(AcceleratorError, match="gave the call up"):
                accelerator.run(images[0])
            xrt.ended = State.ERT_CMD_STATE_COMPLETED
            wanted = edgemoe.simulate(built.design, images[:1]).integers[0]
            assert_array_equal(accelerator.run(images[0]).integers, wanted)
        xrt.busy = True
        with pytest.raises(AcceleratorError, match="XRT cannot load it: failed to open ip context"):
            Accelerator(built.folder)
        xrt.busy = False
        (built.host / "edgemoe.xclbin").write_bytes(b"of another platform")
        with pytest.raises(AcceleratorError, match="XRT cannot load it: failed to load xclbin"):
            Accelerator(built.folder)
        (built.host / "edgemoe.xclbin").unlink()
        with pytest.raises(InputError, match=r"edgemoe\.xclbin: no such file"):
            Accelerator(built.folder)

    def test_a_call_that_does_not_end(
        self, built: Build, xrt: FakeXrt, images: Pixels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("host.xrt_board.PATIENCE", 0.05)
        accelerator = Accelerator(built.folder, timeout=0.05)
        xrt.mode = "never"
        with pytest.raises(AcceleratorError, match="does not end, and XRT cannot stop it"):
            accelerator.run(images[0])
        accelerator.close()

    def test_one_at_a_time(self, built: Build, xrt: FakeXrt) -> None:
        with Accelerator(built.folder), pytest.raises(AcceleratorError, match="in use by another"):
            Accelerator(built.folder)


ROOT = Path(__file__).parents[1]


def write_ppm(path: Path, image: Pixels, comment: str = "") -> Path:
    """A picture (3, H, W) as a binary PPM."""
    _, height, width = image.shape
    path.write_bytes(f"P6\n{comment}{width} {height}\n255\n".encode() + image.transpose(1, 2, 0).tobytes())
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ host, compiled against the stand-in."""
    program = tmp_path_factory.mktemp("native") / "edgemoe_host"
    source = ROOT / "examples/xrt_host/edgemoe_host.cpp"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'tests/xrt_stand_in'}"]
    subprocess.run([find_compiler(), *flags, str(source), "-o", str(program), "-ldl"], check=True)
    return program


@pytest.mark.compile
class TestNativeHost:
    """The C++ host of `examples/xrt_host`, on a stand-in for XRT's headers that calls the compiled kernel."""

    @pytest.fixture
    def host(self, built: Build, tmp_path: Path) -> Path:
        """What is copied to the computer with the card, without the driver in Python."""
        folder = tmp_path / "host"
        folder.mkdir()
        for name in ("manifest.json", "weights.bin"):
            shutil.copyfile(built.host / name, folder / name)
        (folder / "edgemoe.xclbin").write_bytes(b"binary")
        return folder

    @staticmethod
    def call(program: Path, library: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *map(str, arguments)],
            env={"EDGEMOE_KERNEL": str(library)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def test_integers_of_the_simulator(
        self, built: Build, library: Path, program: Path, host: Path, images: Pixels, tmp_path: Path
    ) -> None:
        for number, task in enumerate(built.design.spec.tasks):
            image = write_ppm(tmp_path / f"{task}.ppm", images[number], "# a comment\n" * number)
            done = self.call(
                program, library, host, image, (task, str(number))[number], tmp_path / f"{task}.npy"
            )
            assert done.returncode == 0, done.stderr
            assert (
                f"{task}: 9 tokens of 24 channels, real = integer / 2^{built.design.residual.frac}"
                in done.stdout
            )
            found = np.load(tmp_path / f"{task}.npy", allow_pickle=False)
            expected = edgemoe.simulate(built.design, images[number : number + 1], task).integers[0]
            assert found.dtype == np.int32
            assert_array_equal(found, expected)

    def test_mistakes(
        self, built: Build, library: Path, program: Path, host: Path, images: Pixels, tmp_path: Path
    ) -> None:
        image, out = write_ppm(tmp_path / "a.ppm", images[0]), tmp_path / "out.npy"

        def error(*arguments: object) -> str:
            done = self.call(program, library, *arguments)
            assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: ")
            assert not out.exists()
            return done.stderr

        assert "usage:" in self.call(program, library, host).stderr
        assert "task flow is unknown: the network's tasks are semseg, depth" in error(
            host, image, "flow", out
        )
        small = write_ppm(tmp_path / "b.ppm", images[0, :, :4])
        assert "P6 of 16 x 4, expected P6 of 16 x 8" in error(host, small, "depth", out)
        (tmp_path / "c.ppm").write_bytes(image.read_bytes()[:-1])
        assert "383 bytes of pixels, expected 384" in error(host, tmp_path / "c.ppm", "depth", out)
        assert "No such device with index '3'" in error(host, image, "depth", out, 3)
        assert "none/manifest.json: cannot be read" in error(tmp_path / "none", image, "depth", out)
        weights = (host / "weights.bin").read_bytes()
        (host / "weights.bin").write_bytes(weights[:-1])
        assert f"weights.bin: {len(weights) - 1} bytes, expected {len(weights)}" in error(
            host, image, "depth", out
        )
        (host / "weights.bin").write_bytes(weights)
        text = (host / "manifest.json").read_text()
        for key, value, says in (
            ("hardware_id", built.spec.hardware_id[::-1], "runs other hardware"),
            ("hardware_id", "x", "no hexadecimal number"),
            ("runtime", "pynq", "runtime is not xrt"),
            ("backend", "rtl", "backend is not hls"),
            ("max_batch", 0, "expected a whole number from 1"),
            ("max_batch", 1.5, "expected a whole number from 1 to 1048576, not 1.5"),
            ("frac", None, "expected a whole number from -64 to 64"),
            ("kernel", "none", "No such kernel 'none'"),
        ):
            (host / "manifest.json").write_text(json.dumps(json.loads(text) | {key: value}))
            assert says in error(host, image, "depth", out), key
        for before, after, says in (
            ('"patch_words": ', '"patch_words": -', "expected a whole number from 1"),
            ('"weights.bin"', '"../weights.bin"', "do not fit together"),
            ('"frac"', '"fracture"', "no key frac"),
            ("{", "", "not JSON"),
            ('"xrt",', '"xrt"', "not JSON"),
        ):
            (host / "manifest.json").write_text(text.replace(before, after, 1))
            assert says in error(host, image, "depth", out), after
        large = json.loads(text)
        large["output"] |= {"tokens": 1 << 20, "token_words": 1 << 20, "word_bytes": 1 << 20}
        (host / "manifest.json").write_text(json.dumps(large))
        assert "sizes beyond the memory of any card" in error(host, image, "depth", out)
        (host / "manifest.json").write_text("[" * 100_000)
        assert "nested too deeply" in error(host, image, "depth", out)
        (host / "manifest.json").write_text(text)
        (host / "edgemoe.xclbin").unlink()
        assert "Failed to open xclbin" in error(host, image, "depth", out)
        out.write_bytes(b"mine")
        (host / "edgemoe.xclbin").write_bytes(b"binary")
        done = self.call(program, library, host, image, "depth", out)
        assert done.returncode == 2 and "exists already" in done.stderr and out.read_bytes() == b"mine"


def test_without_xrt(built: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    with pytest.raises(InputError, match="XRT cannot be imported") as caught:
        Accelerator(built.folder)
    assert "--emulate" in str(caught.value.hint)


def test_command_line_names_the_file(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = tmp_path / "build"
    assert main(["generate", str(folders / "w8a8"), "-o", str(build), "--board", "u280"]) == 0
    assert "vitis/link.cfg is for v++ --link" in capsys.readouterr().err
    assert Manifest.load(build / "host").runtime == "xrt"
