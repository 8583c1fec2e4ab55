"""`generate`: a Design and a board become a build folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from boards import Board
from codegen.architecture import Architecture
from codegen.block_design import write_block_design
from codegen.host_files import require_model_of, write_host
from codegen.performance import Performance, estimate, on_board, require_fit
from codegen.render import render
from codegen.rtl.blackbox import chosen
from codegen.rtl.blackbox_files import write_blackboxes
from codegen.rtl.hls_kernels import write_hls_kernels
from codegen.rtl.project import write_rtl
from codegen.testdata import write_test_data
from pysim.design import Design
from pysim.errors import InputError
from pysim.files import new_folder, read_toml, require_new, validate
from pysim.model import Model
from pysim.program import macs

NETWORK_TEST_MACS = 2_000_000_000
"""Networks with more work than this an image are tested engine by engine only."""

STEPS = 4


class BuildSpec(BaseModel):
    """`build.toml`: what a build folder was generated from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    board: str
    design_id: str
    weights_sha256: str
    network_tested: bool


@dataclass(frozen=True)
class Build:
    """A build folder.

    Attributes:
        folder: the folder.
        spec: its `build.toml`.
    """

    folder: Path
    spec: BuildSpec

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
        """Read a build folder; one whose design was exchanged is refused."""
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder", hint="expected a build folder: `edgemoe generate` makes one"
            )
        path = folder / "build.toml"
        spec = validate(BuildSpec, read_toml(path), path)
        design = Design.load(folder / "design")
        for field in ("design_id", "weights_sha256"):
            if getattr(design, field) != getattr(spec, field):
                raise InputError(
                    f"{folder}: {field} of the design is {getattr(design, field)}, "
                    f"of the build {getattr(spec, field)}",
                    hint="generate the build again from its design",
                )
        return cls(folder, spec)


def generate(
    design: Design,
    folder: Path,
    board: Board,
    images: NDArray[np.uint8] | None = None,
    *,
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
        task: the task that the test bench runs.
        batch: images that the accelerator holds on chip together.
        must_fit: refuse a design that the board has no room for; without it, the C++ can still be verified.
        model: the float network, whose task heads the host takes along to decode results.
        blackboxes: function units that the HLS project calls as RTL blackboxes.
        progress: called with steps done and in total.

    Raises:
        InputError: the folder exists, the design does not fit, or its parallelism cannot be built.
    """
    require_new(folder)
    if model is not None:
        require_model_of(design, model)
    design = on_board(design, board, batch)
    performance = require_fit(design, board) if must_fit else estimate(design, board)
    architecture = Architecture(design)
    boxes = chosen(architecture, blackboxes)
    if images is None:
        shape = (batch, design.spec.in_channels, *design.spec.image_size)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    network = macs(design.program) <= NETWORK_TEST_MACS
    spec = BuildSpec(
        version=1,
        board=board.name,
        design_id=design.design_id,
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
            architecture, data, images[: design.parallelism.max_batch], task=task, network=network
        )
        report(2, STEPS)
        write_rtl(architecture, temporary / "rtl")
        write_host(architecture, temporary / "host", board, model)
        write_block_design(architecture, temporary / "vivado", board)
        report(3, STEPS)
        design.save(temporary / "design")
        (temporary / "build.toml").write_bytes(tomli_w.dumps(spec.model_dump()).encode())
        report(STEPS, STEPS)
    return Build(folder, spec), performance
