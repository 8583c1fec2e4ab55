"""One accelerator, many networks: programs that are compiled for a build, and loaded while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
from boards import load_board
from codegen.build import Build
from codegen.compiling import compile_program, program_architecture
from codegen.manifest import job_names
from codegen.project import generate
from codegen.schedule import job_table
from codegen.weight_image import pack_weights, port_images
from common.contract import STATUS_BATCH, STATUS_DONE, STATUS_TASK, WAIT_FOR_ROUTER
from common.errors import InputError
from common.packing import pack_images
from conftest import NARROW
from edgemoe.cli import main
from emulation import Expected, check
from host import Accelerator, AcceleratorError, Manifest
from host.emulated import EmulatedBoard, EmulatedMemory, EmulatedRegisters
from host.hwh import Kernel
from pysim.design import Design
from pysim.model import Model
from pysim.network import Network
from pysim.precision import PRESETS
from pysim.quantizer import quantize

Pixels = NDArray[np.uint8]
Shape = Callable[..., Model]

OTHERS: dict[str, dict[str, Any]] = {
    "deeper": {"depth": 5, "image_size": (4, 8)},
    "odd experts": {"moe": {"experts": 3, "top_k": 1, "gate": "topk-softmax"}, "heads": 1, "depth": 2},
    "plain": {"moe": None, "depth": 2, "tasks": ["only"], "image_size": (8, 12)},
}
"""Networks that an accelerator of the larger micro network holds, unlike it in every size."""

LARGER = {"max_jobs": 100, "max_head_words": 3}


@pytest.fixture(scope="module")
def rtl(tmp_path_factory: pytest.TempPathFactory, designs: dict[str, Design]) -> Build:
    """An RTL build of the micro network with room for a little more: to read, not to change."""
    folder = tmp_path_factory.mktemp("rtl") / "build"
    hardware = NARROW.changed(backend="rtl", **LARGER)
    return generate(designs["w8a8"], folder, load_board("zcu111"), hardware=hardware)[0]


QUICK = PRESETS["w8a8"].model_copy(update={"name": "quick", "learned_rounding": False, "balanced": False})
"""The preset's hardware, for Designs that are made in no time."""


def quantised(model: Model) -> Design:
    return quantize(model, edgemoe.random_images(model, 2), QUICK)


@pytest.fixture(scope="module")
def others(micro_with: Shape) -> dict[str, Design]:
    return {name: quantised(micro_with(**fields)) for name, fields in OTHERS.items()}


@pytest.fixture(scope="module")
def programs(
    tmp_path_factory: pytest.TempPathFactory, rtl: Build, others: dict[str, Design]
) -> dict[str, tuple[Design, Path]]:
    """Compiled programs, and the Designs to compare with."""
    base, found = tmp_path_factory.mktemp("programs"), {}
    for number, (name, design) in enumerate(others.items()):
        compiled, _ = compile_program(design, rtl, base / str(number))
        found[name] = (compiled, base / str(number))
    return found


class TestCompile:
    def test_program_is_of_the_design_for_the_build(
        self, rtl: Build, programs: dict[str, tuple[Design, Path]]
    ) -> None:
        for design, folder in programs.values():
            manifest = Manifest.load(folder)
            assert {file.name for file in folder.iterdir()} == {"manifest.json", "weights.bin"}
            assert manifest.hardware_id == rtl.spec.hardware_id != manifest.program_id
            assert manifest.design_id == design.design_id
            assert design.attention_rows == rtl.architecture.hardware.attention_rows
            assert (manifest.board, manifest.max_batch) == ("zcu111", 3)
            architecture = type(rtl.architecture)(design.network, rtl.architecture.hardware)
            assert manifest.jobs == tuple(job.name for job in job_table(architecture))
            assert manifest.needs == architecture.needs
            images = port_images(pack_weights(design, architecture), manifest.weights.ports)
            assert_array_equal(manifest.read_weights(), images)
        ids = {Manifest.load(folder).program_id for _, folder in programs.values()}
        assert len(ids) == len(programs)

    def test_build_says_all_of_its_capacities(self, rtl: Build) -> None:
        architecture = rtl.architecture
        assert architecture.hardware.given_capacities == architecture.capacities.as_dict()
        assert architecture.capacities.as_dict() == architecture.needs.as_dict() | LARGER

    @pytest.mark.parametrize(
        ("precision", "fields", "reasons"),
        [
            (
                "w16a16",
                {},
                ["weight_width: the design has 16, the accelerator 8", "multipliers: the design has"],
            ),
            ("w8a8", {"activation": "relu"}, ["activation: the design has relu, the accelerator gelu"]),
            ("w8a8", {"depth": 9}, ["max_jobs: it needs "]),
            (
                "w8a8",
                {"image_size": (8, 20), "moe": {"experts": 7, "top_k": 3}, "tasks": ["a", "b", "c"]},
                [
                    "max_tokens: it needs 11, the accelerator holds 9",
                    "max_experts: it needs 7, the accelerator holds 5",
                    "max_top_k: it needs 3, the accelerator holds 2",
                    "max_tasks: it needs 3, the accelerator holds 2",
                ],
            ),
            (
                "w16a16",
                {"dim": 48},
                [
                    "activation_width: the design has 16",
                    "max_token_words: it needs 6, the accelerator holds 3",
                ],
            ),
            ("iccad23", {}, ["the RTL accelerator has the arithmetic requantise, not iccad23"]),
        ],
    )
    def test_what_does_not_fit_is_named(
        self,
        rtl: Build,
        micro_with: Shape,
        precision: str,
        fields: dict[str, Any],
        reasons: list[str],
    ) -> None:
        with pytest.raises(InputError) as caught:
            program_architecture(Network(micro_with(**fields).spec, PRESETS[precision]), rtl)
        for reason in reasons:
            assert reason in caught.value.message

    def test_what_does_not_fit_leaves_nothing_behind(
        self, rtl: Build, micro_with: Shape, tmp_path: Path
    ) -> None:
        with pytest.raises(
            InputError, match="the accelerator does not hold micro: max_token_words: it needs 6"
        ):
            compile_program(quantised(micro_with(dim=48)), rtl, tmp_path / "program")
        assert not any(tmp_path.iterdir())

    def test_an_accelerator_of_hls_takes_other_weights_only(
        self, built: Build, micro: Model, micro_with: Shape, tmp_path: Path
    ) -> None:
        compile_program(quantised(edgemoe.init_model("micro", seed=9)), built, tmp_path / "same")
        with pytest.raises(
            InputError, match="an HLS accelerator, which has its network synthesised in, micro"
        ):
            compile_program(quantised(micro_with(depth=2)), built, tmp_path / "other")
        assert [path.name for path in tmp_path.iterdir()] == ["same"]

    def test_command(
        self, rtl: Build, others: dict[str, Design], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        design = others["plain"].with_attention_rows(7)
        design.save(tmp_path / "design")
        arguments = [
            "compile",
            str(tmp_path / "design"),
            "--for",
            str(rtl.folder),
            "-o",
            str(tmp_path / "out"),
        ]
        assert main([*arguments, "--json"]) == 0
        out, err = capsys.readouterr()
        found = json.loads(out)
        assert found["program_id"] == Manifest.load(tmp_path / "out").program_id
        assert found["hardware_id"] == rtl.spec.hardware_id
        assert found["capacities"]["max_jobs"] == {"needed": found["jobs"], "there": 100}
        assert found["weights_bytes"] == (tmp_path / "out/weights.bin").stat().st_size
        assert found["attention_rows"] == 4 and "attention_rows = 4 in the accelerator, 7 in" in err
        assert main(arguments) == 2
        assert "exists already" in capsys.readouterr().err

    def test_facade(self, rtl: Build, others: dict[str, Design], micro_with: Shape, tmp_path: Path) -> None:
        design = edgemoe.compile_program(others["plain"], rtl.folder, tmp_path / "program")
        assert Manifest.load(tmp_path / "program").design_id == design.design_id
        with pytest.raises(InputError, match="has another shape"):
            model = micro_with(depth=2)
            edgemoe.compile_program(others["plain"], rtl.folder, tmp_path / "no", model=model)


class StandIn(EmulatedRegisters):
    """An accelerator that runs any of some networks: which one it is, the weights in memory tell, as in the RTL one.

    It takes results from the simulator, for images that it finds in memory as the network's own layout has them.
    """

    def __init__(self, library: Path, manifest: Manifest, kernel: Kernel, memory: EmulatedMemory) -> None:
        super().__init__(manifest, kernel, memory)
        self.known: list[tuple[Manifest, Design, Pixels]] = []
        self.capacities = {name: 0 for name in manifest.needs.as_dict()}

    def knows(self, folder: Path, design: Design, images: Pixels) -> None:
        self.known.append((Manifest.load(folder), design, images))

    def execute(self, arguments: dict[str, int]) -> dict[str, int] | None:
        outputs = {"hardware_id": int(self._manifest.hardware_id, 16), "cycles": 0, **self.capacities}
        batch, task = arguments["batch"], arguments["task"]
        if batch > self.capacities["max_batch"] or task >= self.capacities["max_tasks"]:
            return outputs | {"status": STATUS_BATCH if batch > self.capacities["max_batch"] else STATUS_TASK}
        if batch == 0:
            return outputs | {"status": STATUS_DONE}
        (program,) = [each for each in self.known if self._has(arguments, each[0])]
        manifest, design, images = program
        tokens = edgemoe.simulate(design, images, task).integers
        for number in range(batch):
            packed = np.zeros(manifest.images.image_bytes, np.uint8)
            size = len(packed)
            there = self._at(arguments["image"] + number * size, size)
            for image, result in zip(images, tokens, strict=True):
                pack_images(image[None], manifest.images, packed)
                if np.array_equal(packed, there):
                    self._at(
                        arguments["output"] + number * manifest.output.image_bytes,
                        manifest.output.image_bytes,
                    )[:] = packed_tokens(result, manifest)
                    break
            else:
                raise AssertionError("no such image")
        return outputs | {"status": STATUS_DONE, "cycles": 1000 * len(manifest.jobs or ()) + batch}

    def _has(self, arguments: dict[str, int], manifest: Manifest) -> bool:
        size = manifest.weights.port_bytes
        return all(
            self._memory.find(arguments[f"weights_{port}"], size) is not None
            and np.array_equal(self._at(arguments[f"weights_{port}"], size), words)
            for port, words in enumerate(manifest.read_weights())
        )

    def _at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        buffer = self._memory.find(address, nbytes)
        assert buffer is not None
        return buffer.dram[address - buffer.address :][:nbytes]


def packed_tokens(tokens: NDArray[np.int64], manifest: Manifest) -> NDArray[np.uint8]:
    """Tokens (tokens, dim) as the kernel writes them."""
    layout = manifest.output
    words = np.zeros((layout.tokens, layout.token_words * layout.lanes), "<i4")
    words[:, : layout.dim] = tokens
    whole = words.reshape(layout.tokens * layout.token_words, layout.lanes).view(np.uint8)
    return np.pad(whole, ((0, 0), (0, layout.word_bytes - whole.shape[1]))).ravel()


class Case:
    """An accelerator on a board of the stand-in, with all that it may load."""

    def __init__(self, rtl: Build, programs: dict[str, tuple[Design, Path]]) -> None:
        own = (rtl.design, rtl.host)
        self.programs = {"own": own, **programs}
        self.images = {
            name: edgemoe.random_images(design, 4, seed=6) for name, (design, _) in self.programs.items()
        }
        self.board = EmulatedBoard(Manifest.load(rtl.host), Path(), StandIn)
        assert isinstance(self.board.hardware, StandIn)
        self.board.hardware.capacities = rtl.architecture.capacities.as_dict()
        for name, (design, folder) in self.programs.items():
            self.board.hardware.knows(folder, design, self.images[name])

    def check(self, accelerator: Accelerator, name: str) -> None:
        """All tasks of the program that is loaded, one image at a time and in batches."""
        design, _ = self.programs[name]
        assert accelerator.tasks == tuple(design.spec.tasks)
        for task in accelerator.tasks:
            tokens = edgemoe.simulate(design, self.images[name], task).integers
            check([accelerator.run(image, task) for image in self.images[name]], tokens)
            check(accelerator.run_batch(self.images[name], task), tokens)
            check(list(accelerator.stream(self.images[name], task)), tokens)


@pytest.fixture
def case(rtl: Build, programs: dict[str, tuple[Design, Path]]) -> Iterator[Case]:
    found = Case(rtl, programs)
    yield found
    assert not found.board.memory.buffers, "buffers were not freed"


class TestLoad:
    def test_networks_one_after_the_other(self, rtl: Build, case: Case) -> None:
        with Accelerator(rtl.host, board=case.board) as accelerator:
            assert accelerator.capacities == rtl.architecture.capacities
            buffers = accelerator.buffers
            case.check(accelerator, "own")
            for name in (*OTHERS, "own", "plain", "plain"):
                accelerator.load(case.programs[name][1])
                assert accelerator.manifest.design_id == case.programs[name][0].design_id
                case.check(accelerator, name)
                assert accelerator.buffers == len(case.board.memory.buffers) == buffers

    def test_cycles_are_the_hardwares(self, rtl: Build, case: Case) -> None:
        """Emulated, but no C++ of this computer: what it counts is what the hardware takes."""
        with Accelerator(rtl.host, board=case.board) as accelerator:
            result = accelerator.run(case.images["own"][0])
            assert accelerator.emulated and result.cycles == 1000 * len(job_names(rtl.architecture)) + 1
            assert result.latency_ms == result.cycles / accelerator.clock_mhz / 1e3

    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("precision", "w16a16", "precision: it needs w16a16, the accelerator has w8a8"),
            ("activation", "relu", "activation: it needs relu, the accelerator has gelu"),
            ("hardware_id", "0123456789abcdef", "it is for hardware 0123456789abcdef, the accelerator is"),
            ("max_jobs", 101, "max_jobs: it needs 101, the accelerator holds 100"),
            ("max_row_words", 99, "max_row_words: it needs 99, the accelerator holds "),
            ("backend", "hls", "backend: it needs hls, the accelerator has rtl"),
        ],
    )
    def test_what_does_not_fit_is_named_and_nothing_changes(
        self, rtl: Build, case: Case, tmp_path: Path, key: str, value: Any, reason: str
    ) -> None:
        source = case.programs["deeper"][1]
        content = json.loads((source / "manifest.json").read_text())
        if key in content["needs"]:
            content["needs"][key] = value
        else:
            content |= {"hardware_id": "0123456789abcdef", key: value}
        if key == "backend":
            content["jobs"] = None
            content["arguments"] = [each for each in content["arguments"] if each["name"] != WAIT_FOR_ROUTER]
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        (tmp_path / "weights.bin").write_bytes((source / "weights.bin").read_bytes())
        with Accelerator(rtl.host, board=case.board) as accelerator:
            with pytest.raises(InputError, match=reason):
                accelerator.load(tmp_path)
            case.check(accelerator, "own")

    def test_damaged_programs_change_nothing(self, rtl: Build, case: Case, tmp_path: Path) -> None:
        source = case.programs["deeper"][1]
        (tmp_path / "manifest.json").write_bytes((source / "manifest.json").read_bytes())
        with Accelerator(rtl.host, board=case.board) as accelerator:
            for weights, reason in ((b"", "0 bytes, expected"), (None, "SHA-256")):
                data = (source / "weights.bin").read_bytes()
                (tmp_path / "weights.bin").write_bytes(data[:-1] + b"\1" if weights is None else weights)
                with pytest.raises(InputError, match=reason):
                    accelerator.load(tmp_path)
            with pytest.raises(InputError, match=r"no manifest\.json here"):
                accelerator.load(tmp_path / "nowhere")
            case.check(accelerator, "own")

    def test_no_memory_for_two_changes_nothing(self, rtl: Build, case: Case) -> None:
        with Accelerator(rtl.host, board=case.board) as accelerator:
            used = sum(len(buffer.array) for buffer in case.board.memory.buffers.values())
            case.board.memory.capacity = 2 * used - 1  # all but the last buffer
            with pytest.raises(AcceleratorError, match="contiguous memory are not to be had"):
                accelerator.load(rtl.host)
            assert sum(len(buffer.array) for buffer in case.board.memory.buffers.values()) == used
            case.check(accelerator, "own")

    def test_only_between_calls(self, rtl: Build, case: Case) -> None:
        with Accelerator(rtl.host, board=case.board) as accelerator:
            stream = accelerator.stream(case.images["own"])
            next(stream)
            with pytest.raises(AcceleratorError, match="load: the accelerator is busy with stream"):
                accelerator.load(case.programs["plain"][1])
            assert len(list(stream)) == 3
            accelerator.load(case.programs["plain"][1], wait=True)
        with pytest.raises(AcceleratorError, match="the accelerator is closed"):
            accelerator.load(case.programs["plain"][1])

    def test_an_accelerator_that_lacks_what_its_manifest_needs(self, rtl: Build, case: Case) -> None:
        assert isinstance(case.board.hardware, StandIn)
        case.board.hardware.capacities["max_jobs"] = 10
        with pytest.raises(AcceleratorError, match=r"does not hold micro: max_jobs: it needs \d+, the .* 10"):
            Accelerator(rtl.host, board=case.board)


def test_other_weights_of_the_same_network_on_compiled_code(
    built: Build,
    accelerator: Accelerator,
    board: EmulatedBoard,
    images: Pixels,
    expected: Expected,
    micro_with: Shape,
    rtl: Build,
    tmp_path: Path,
) -> None:
    """The C++ has its network synthesised in: another one is refused, and the old one goes on."""
    other, _ = compile_program(quantised(edgemoe.init_model("micro", seed=9)), built, tmp_path / "weights")
    buffers = len(board.memory.buffers)
    accelerator.load(tmp_path / "weights")
    for task in other.spec.tasks:
        tokens = edgemoe.simulate(other, images[:4], task).integers
        check(accelerator.run_batch(images[:4], task), tokens)
        assert not np.array_equal(tokens, expected[task][:4])
    for folder in (rtl.host, rtl.folder):
        with pytest.raises(
            InputError, match="is another network than micro, which this accelerator has synthesised in"
        ):
            accelerator.load(folder)
    check([accelerator.run(images[0], "depth")], edgemoe.simulate(other, images[:1], "depth").integers)
    accelerator.load(built.folder)
    check(accelerator.run_batch(images[:4], "semseg"), expected["semseg"][:4])
    assert len(board.memory.buffers) == buffers


@pytest.mark.rtl
@pytest.mark.nightly
def test_networks_one_after_the_other_on_the_accelerator(
    rtl: Build, programs: dict[str, tuple[Design, Path]]
) -> None:
    """One Verilated accelerator, never reset: under the driver, every network returns the simulator's integers."""
    own = {"own": (rtl.design, rtl.host)}
    with edgemoe.Accelerator(rtl.folder, emulate=True, backend="rtl") as accelerator:
        assert accelerator.capacities == rtl.architecture.capacities
        for name in ("own", "odd experts", "plain", "deeper", "own"):
            design, folder = (own | programs)[name]
            accelerator.load(folder)
            images = edgemoe.random_images(design, 2, seed=8)
            for task in accelerator.tasks:
                tokens = edgemoe.simulate(design, images, task).integers
                results = [*accelerator.run_batch(images, task), accelerator.run(images[0], task)]
                check(results, np.concatenate([tokens, tokens[:1]]))
                assert all(result.cycles for result in results)
