"""`generate`: a Design and a board become a build folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from boards import Board
from codegen.architecture import Architecture
from codegen.block_design import write_block_design
from codegen.build import ACCELERATOR, HARDWARE_FILE, VERSION, Build, BuildSpec
from codegen.fit import require_fit
from codegen.hardware import Hardware, default_hardware
from codegen.host_files import require_model_of, write_host
from codegen.link import write_link
from codegen.performance import Performance, evaluate, on_board
from codegen.render import render
from codegen.rtl.blackbox import chosen
from codegen.rtl.blackbox_files import write_blackboxes
from codegen.rtl.hls_kernels import write_hls_kernels
from codegen.rtl.packaging import write_package_script
from codegen.rtl.project import write_rtl
from codegen.testdata import write_test_data
from pysim.design import Design
from pysim.files import new_folder, require_new
from pysim.model import Model
from pysim.program import macs
from pysim.sensitivity import FILE as LOSSES
from pysim.sensitivity import Sensitivity

NETWORK_TEST_MACS = 2_000_000_000
"""Networks with more work than this an image are tested engine by engine only."""

STEPS = 4


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
    sensitivity: Sensitivity | None = None,
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
        sensitivity: losses of the Design's tensors, which the build's Design keeps.
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
    # A program that is compiled for this build later must find all capacities said.
    architecture = Architecture(design.network, architecture.built_hardware)
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
        fits=performance.fits,
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
        rtl = architecture.hardware.backend == "rtl"
        write_host(design, architecture, temporary / "host", board, model)
        if not write_block_design(architecture, temporary / "vivado", board):
            write_link(architecture, temporary / "vitis", board)
        elif rtl:
            write_package_script(architecture, temporary / ACCELERATOR, temporary / "vivado", board)
        report(3, STEPS)
        losses = (
            {} if sensitivity is None else {LOSSES: sensitivity.model_dump_json(indent=1, exclude_none=True)}
        )
        design.save(temporary / "design", losses)
        architecture.hardware.save(temporary / HARDWARE_FILE)
        (temporary / "build.toml").write_bytes(tomli_w.dumps(spec.model_dump()).encode())
        report(STEPS, STEPS)
    return Build(folder, spec, design, architecture), performance
