"""The generated C++, compiled, against the simulator; and the estimate's trip counts against the executed ones."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemoe
from boards import load_board
from codegen import csim
from codegen.build import Build
from codegen.csim import CsimResult, run_csim
from codegen.estimate import Scheduler, total_trips
from codegen.hardware import Hardware
from codegen.project import generate
from common.errors import CheckError, InputError
from conftest import NARROW
from edgemoe.cli import main
from pysim.design import Design
from pysim.model import Model
from pysim.precision import Precision, preset
from pysim.quantizer import quantize
from pysim.simulator import simulate
from pysim.tables import GELU_DELTA

BOARD = load_board("zcu111")

SINGLE = Hardware(
    lanes=4, outputs=4, token_tile=1, attention_rows=1, axi_width=64, weight_ports=1, weight_rows=16
)
WIDE = Hardware(lanes=16, outputs=32, token_tile=16, attention_rows=64, weight_rows=64)
"""More of everything than the micro network has: rows, tokens, blocks. Only the largest board has room for it."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, a precision and hardware; `moe` and `fields` change the micro network."""

    precision: str | Precision
    hardware: Hardware
    batch: int = 1
    task: int = 0
    moe: dict[str, Any] | None = dataclasses.field(default_factory=dict)
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


FIVE_BITS = Precision(
    name="five bits", weight_width=5, activation_width=5, attention_width=5, multipliers=True
)

CASES = {
    "narrow-8-bit-batch": Case("w8a8", NARROW, batch=2, task=1, fields={"activation": "quick_gelu"}),
    "narrow-16-bit": Case("w16a16", NARROW),
    "ten-bit-activations": Case("w8a10", NARROW, batch=2, moe={"layers": [1]}, fields={"depth": 2}),
    "single-lane": Case(
        "w8a8",
        SINGLE,
        moe={"gate": "topk-softmax", "top_k": 3, "layers": [0, 3]},
        fields={"activation": "relu"},
    ),
    "wider-than-the-network": Case(
        "w16a16",
        WIDE,
        moe={"layers": "all", "shared_gate": True, "gate_bias": True},
        fields={"activation": "gelu_tanh"},
    ),
    "every-expert": Case(
        "w8a8", WIDE, moe={"experts": 3, "top_k": 3, "renormalize": True}, task=1, fields={"prefix_tokens": 5}
    ),
    "plain-one-patch": Case(
        "w8a8", NARROW, moe=None, fields={"image_size": (4, 4), "tasks": ["a"], "depth": 1}
    ),
    "one-expert-no-qkv-bias": Case(
        "w16a16", SINGLE, moe={"experts": 1, "top_k": 1}, fields={"qkv_bias": False, "prefix_tokens": 2}
    ),
    "activations-narrower-than-pixels": Case(FIVE_BITS, NARROW, fields={"depth": 1}, moe=None),
    "original-arithmetic": Case("iccad23", NARROW, batch=2, task=1),
    "original-arithmetic-single-lane": Case(
        "iccad23", SINGLE, moe={"top_k": 3, "renormalize": True}, fields={"prefix_tokens": 0}
    ),
}


def design_of(case: Case, micro_with: Callable[..., Model]) -> Design:
    model = micro_with(case.moe, **case.fields)
    precision = preset(case.precision) if isinstance(case.precision, str) else case.precision
    return quantize(model, edgemoe.random_images(model, 6), precision, case.hardware.attention_rows)


@pytest.mark.compile
@pytest.mark.parametrize("name", CASES)
def test_compiled_code_equals_simulator(name: str, tmp_path: Path, micro_with: Callable[..., Model]) -> None:
    case = CASES[name]
    design = design_of(case, micro_with)
    images = edgemoe.random_images(design, case.batch, seed=5)
    build, _ = generate(
        design, tmp_path / "build", BOARD, images, hardware=case.hardware, task=case.task, must_fit=False
    )
    if case.precision is FIVE_BITS:
        assert design.scalar("blocks.0.score_shift") < 0, "products of so few bits are shifted left"
    result = run_csim(build.hls)
    assert result.failed == 0, result.mismatches
    assert result.engines["network"] == (case.batch * design.spec.tokens * design.spec.dim, 0)
    expected = {
        "embed",
        "layernorm",
        "linear_heads",
        "attention",
        "linear_residual",
        "network",
        "hardware_id",
    }
    assert expected | {"max_batch", "status", "untouched"} <= set(result.engines)
    assert "refused" not in result.counts, "a call that is refused runs no engine and loads nothing"
    _check_trip_counts(build, images, case.task, result)


def _check_trip_counts(build: Build, images: Any, task: int, result: CsimResult) -> None:
    routing = simulate(build.design, images, task).routing
    queues = {layer: choices.lengths.tolist() for layer, choices in routing.items()}
    stages = Scheduler(build.architecture, len(images)).run(queues)
    assert total_trips(stages) == result.counts["network"]
    by_name = {stage.name: stage.trips for stage in stages}
    for step, counts in result.counts.items():
        # Engines that are tested alone on a whole image: the others run on part of one, or load by themselves.
        if step.endswith((".attention", ".norm1")) and len(images) == 1:
            assert counts == by_name[step]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, micro_with: Callable[..., Model]) -> Build:
    folder = tmp_path_factory.mktemp("csim") / "build"
    case = CASES["narrow-16-bit"]
    return generate(design_of(case, micro_with), folder, BOARD, hardware=case.hardware, must_fit=False)[0]


@pytest.mark.compile
def test_changed_table_entry_is_found(build: Build, tmp_path: Path) -> None:
    broken = tmp_path / "hls"
    shutil.copytree(build.hls, broken)
    tables = broken / "src/tables.cpp"
    text = tables.read_text()
    first = text.index("> GELU_DELTA[")
    start = text.index("{", first) + 1
    # The base lies above the slope.
    tables.write_text(f"{text[:start]}(1 << {GELU_DELTA.slope_format.width}) + {text[start:].lstrip()}")
    result = run_csim(broken)
    assert result.engines["gelu"][1] > 0
    assert result.mismatches[0].startswith("gelu[")


@pytest.mark.compile
def test_tampered_test_data_is_exit_code_1(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "build"
    shutil.copytree(build.folder, folder)
    network = folder / "hls/tb/tb_data/network.bin"
    values = np.fromfile(network, "<i8")
    values[7] += 1
    values.tofile(network)
    assert main(["verify", str(folder), "--csim", "--json"]) == 1
    assert '"mismatches": 1' in capsys.readouterr().out


@pytest.mark.compile
def test_code_that_does_not_compile_is_shown(build: Build, tmp_path: Path) -> None:
    broken = tmp_path / "hls"
    shutil.copytree(build.hls, broken)
    (broken / "src/embed.cpp").write_text("int f( { return 0; }\n")
    with pytest.raises(InputError, match=r"embed\.cpp: does not compile"):
        run_csim(broken)


@pytest.mark.compile
def test_missing_test_data_is_an_abnormal_end(build: Build, tmp_path: Path) -> None:
    broken = tmp_path / "hls"
    shutil.copytree(build.hls, broken)
    (broken / "tb/tb_data/exp2_in.bin").unlink()
    with pytest.raises(CheckError, match=r"exp2_in\.bin"):
        run_csim(broken)


def test_no_compiler(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"g\+\+ was not found") as caught:
        run_csim(build.hls)
    assert "apt-get" in caught.value.hint


@pytest.mark.compile
def test_no_headers(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen.csim.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="hls4ml"):
        run_csim(build.hls)


def test_exchanged_design_is_refused(build: Build, tmp_path: Path, designs: dict[str, Design]) -> None:
    folder = tmp_path / "build"
    shutil.copytree(build.folder, folder)
    shutil.rmtree(folder / "design")
    designs["w8a8"].save(folder / "design")
    with pytest.raises(InputError, match="design_id"):
        Build.load(folder)


def test_tampered_weights_are_refused(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(build.folder, folder)
    weights = folder / "design/weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert main(["verify", str(folder), "--csim"]) == 2


def test_existing_output_and_unknown_board(folders: Path, tmp_path: Path) -> None:
    design = str(folders / "w16a16")
    assert main(["generate", design, "-o", str(tmp_path)]) == 2
    assert main(["generate", design, "-o", str(tmp_path / "build"), "--board", "zcu999"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_any_size_generates_what_does_not_fit(folders: Path, tmp_path: Path) -> None:
    board, large = "pynq-z2", ["--set", "lanes=16", "--set", "outputs=16", "--set", "token_tile=4"]
    generate = ["generate", str(folders / "w16a16"), "--board", board, *large]
    assert main([*generate, "-o", str(tmp_path / "refused")]) == 2
    assert not (tmp_path / "refused").exists()
    assert main([*generate, "-o", str(tmp_path / "build"), "--any-size"]) == 0
    built = Build.load(tmp_path / "build").spec
    assert built.board == board and not built.fits


def test_not_a_build_folder(tmp_path: Path) -> None:
    assert main(["verify", str(tmp_path / "none"), "--csim"]) == 2
    assert main(["verify", str(tmp_path), "--csim"]) == 2


@pytest.mark.compile
def test_precompiled_header_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `-H`, the compiler marks a precompiled header that it uses with an exclamation mark."""
    commands: list[list[str]] = []
    check = csim._check

    def recording(command: list[str], failure: str) -> None:
        commands.append(command)
        check(command, failure)

    monkeypatch.setattr(csim, "_check", recording)
    source = tmp_path / "new.cpp"
    source.write_text(f"// {tmp_path}\n#include <ap_int.h>\nap_int<5> five() {{ return 5; }}\n")
    csim.compile_sources([source], [tmp_path])
    told = subprocess.run([*commands[-1][:-1], "/dev/null", "-H"], capture_output=True, text=True, check=True)
    assert re.search(r"^! .*/ap_int\.h\.gch$", told.stderr, re.MULTILINE), told.stderr
