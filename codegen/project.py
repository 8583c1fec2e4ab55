"""`generate`: a Design and a board become a build folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from boards import Board
from codegen.architecture import Architecture
from codegen.block_design import write_block_design
from codegen.hardware import Hardware, default_hardware
from codegen.host_files import require_model_of, write_host
from codegen.performance import Performance, evaluate, on_board, require_fit
from codegen.render import render
from codegen.rtl.blackbox import chosen
from codegen.rtl.blackbox_files import write_blackboxes
from codegen.rtl.hls_kernels import write_hls_kernels
from codegen.rtl.project import write_rtl
from codegen.testdata import write_test_data
from common.errors import InputError
from common.toml import read_toml
from pysim.design import Design
from pysim.files import new_folder, require_new, validate
from pysim.folders import require_folder
from pysim.model import Model
from pysim.program import macs

NETWORK_TEST_MACS = 2_000_000_000
"""Networks with more work than this an image are tested engine by engine only."""

STEPS = 4

VERSION = 2
"""Version of `build.toml`."""

HARDWARE_FILE = "hardware.toml"
"""In a build folder: the hardware that it is made of."""


class BuildSpec(BaseModel):
    """`build.toml`: what a build folder was generated from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2]
    board: str
    design_id: str
    hardware_id: str
    weights_sha256: str
    network_tested: bool


@dataclass(frozen=True)
class Build:
    """A build folder.

    Attributes:
        folder: the folder.
        spec: its `build.toml`.
        design: the Design that it computes, in `design/`.
        architecture: of the Design's network, on the hardware in `hardware.toml`.
    """

    folder: Path
    spec: BuildSpec
    design: Design = field(repr=False, compare=False)
    architecture: Architecture = field(repr=False, compare=False)

    @property
    def hls(self) -> Path:
        """The HLS project."""
        return self.folder / "hls"

    @property
    def host(self) -> Path:
        """What goes to the board."""
        return self.folder / "host"

    @property
    def rtl(self) -> Path:
        """The SystemVerilog kernels; empty for the original's arithmetic."""
        return self.folder / "rtl"

    @property
    def vivado(self) -> Path:
        """The block design; there is none for a board without a processing system."""
        return self.folder / "vivado"

    @classmethod
    def load(cls, folder: Path) -> Build:
        """Read a build folder; one whose design or hardware was exchanged is refused."""
        require_folder(folder, "build")
        path = folder / "build.toml"
        data = read_toml(path)
        if data.get("version", VERSION) != VERSION:
            raise InputError(
                f"{path}: version {data['version']!r}, expected {VERSION}",
                hint="`edgemoe generate` the build again: this release reads only builds of its own version",
            )
        spec = validate(BuildSpec, data, path)
        design = Design.load(folder / "design")
        _require_same(folder, "design_id of design/", design.design_id, spec.design_id)
        architecture = Architecture(design.network, Hardware.load(folder / HARDWARE_FILE))
        rows = architecture.hardware.attention_rows
        _require_same(folder, f"attention_rows of {HARDWARE_FILE}", rows, design.attention_rows)
        found = architecture.hardware_id
        _require_same(folder, f"hardware_id of design/ and {HARDWARE_FILE}", found, spec.hardware_id)
        return cls(folder, spec, design, architecture)


def _require_same(folder: Path, what: str, found: object, stated: object) -> None:
    if found != stated:
        raise InputError(
            f"{folder}: {what} is {found}, of the build {stated}",
            hint="generate the build again from its design",
        )


def generate(
    design: Design,
    folder: Path,
    board: Board,
    images: NDArray[np.uint8] | None = None,
    *,
    hardware: Hardware | None = None,
    task: int = 0,
    batch: int = 1,
    must_fit: bool = True,
    model: Model | None = None,
    blackboxes: Sequence[str] = (),
    progress: Callable[[int, int], Any] | None = None,
) -> tuple[Build, Performance]:
    """Write the hardware of a Design for a board: HLS project, scripts and host files.

    Args:
        design: the design.
        folder: the build folder to make.
        board: the board.
        images: what the test bench runs, (images, channels, H, W); seeded random pixels where none are given.
        hardware: how much hardware; the default where it is not given. Its P is that of the build's Design.
        task: the task that the test bench runs.
        batch: images that the accelerator holds on chip together.
        must_fit: refuse a design that the board has no room for; without it, the C++ can still be verified.
        model: the float network, whose task heads the host takes along to decode results.
        blackboxes: function units that the HLS project calls as RTL blackboxes.
        progress: called with steps done and in total.

    Raises:
        InputError: the folder exists, the design does not fit, or its hardware cannot be built.
    """
    require_new(folder)
    if model is not None:
        require_model_of(design, model)
    architecture = on_board(
        design.network,
        board,
        hardware or default_hardware(design.network, board, design.attention_rows),
        batch,
    )
    design = design.with_attention_rows(architecture.hardware.attention_rows)
    performance = require_fit(architecture, board) if must_fit else evaluate(architecture, board)
    boxes = chosen(architecture, blackboxes)
    if images is None:
        shape = (batch, design.spec.in_channels, *design.spec.image_size)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    network = macs(design.program) <= NETWORK_TEST_MACS
    spec = BuildSpec(
        version=VERSION,
        board=board.name,
        design_id=design.design_id,
        hardware_id=architecture.hardware_id,
        weights_sha256=design.weights_sha256,
        network_tested=network,
    )
    report = progress or (lambda done, total: None)
    with new_folder(folder) as temporary:
        render(architecture, temporary / "hls", board, boxes)
        write_blackboxes(architecture, boxes, temporary / "hls/blackbox")
        write_hls_kernels(architecture, temporary / "hls", board, boxes)
        report(1, STEPS)
        data = temporary / "hls/tb/tb_data"
        data.mkdir()
        write_test_data(
            design, architecture, data, images[: architecture.hardware.max_batch], task=task, network=network
        )
        report(2, STEPS)
        write_rtl(architecture, temporary / "rtl")
        write_host(design, architecture, temporary / "host", board, model)
        write_block_design(architecture, temporary / "vivado", board)
        report(3, STEPS)
        design.save(temporary / "design")
        architecture.hardware.save(temporary / HARDWARE_FILE)
        (temporary / "build.toml").write_bytes(tomli_w.dumps(spec.model_dump()).encode())
        report(STEPS, STEPS)
    return Build(folder, spec, design, architecture), performance
