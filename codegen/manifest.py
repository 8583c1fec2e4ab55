"""`manifest.json`: what the host must know of a build, derived from its Architecture. `host.manifest` reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from codegen.architecture import Architecture
from codegen.context import TOP
from codegen.schedule import job_table
from codegen.weight_image import image_layout, output_layout
from common.contract import HEADS, RUNTIMES, VERSION, WEIGHTS, Argument, kernel_arguments
from pysim.design import Design


def runtime(architecture: Architecture) -> str:
    """Program that loads and runs the kernel: one of `common.contract.RUNTIMES`."""
    return RUNTIMES[architecture.hardware.device.xrt]


def arguments_of(architecture: Architecture) -> list[Argument]:
    """Arguments of the kernel that the host sets and reads, in the order of the C++."""
    hardware = architecture.hardware
    return kernel_arguments(hardware.weight_ports, xrt=hardware.device.xrt, rtl=hardware.backend == "rtl")


def job_names(architecture: Architecture) -> list[str]:
    """Names of the jobs of the job table, in its order."""
    return [job.name for job in job_table(architecture)]


def rtl_arguments(architecture: Architecture) -> list[Argument]:
    """Arguments of the RTL accelerator, which builds of the other backend hold as well, to be simulated."""
    return kernel_arguments(architecture.hardware.weight_ports, xrt=False, rtl=True)


def manifest(
    design: Design,
    architecture: Architecture,
    board: Mapping[str, Any],
    weights: tuple[int, str],
    heads_sha256: str | None,
    classes: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The manifest of a build, as JSON values.

    Args:
        design: the Design whose weights go along.
        architecture: of its network, on the hardware of the build.
        board: its `board` and `pynq_name`.
        weights: bytes of one port's share of the weight image, and the hash of the whole file.
        heads_sha256: hash of the file with the task heads; None where there is none.
        classes: names of the classes of each task; none where they have none.
    """
    spec = design.spec
    images, fit = image_layout(architecture), spec.fit()
    channels, height, width = images.shape
    port_bytes, sha256 = weights
    return {
        "version": VERSION,
        "name": spec.name,
        "design_id": design.design_id,
        "hardware_id": architecture.hardware_id,
        "program_id": architecture.program_id,
        "backend": architecture.hardware.backend,
        "weights_sha256": design.weights_sha256,
        "board": board["board"],
        "pynq_name": board["pynq_name"],
        "clock_mhz": architecture.hardware.clock_mhz,
        "precision": design.precision.name,
        "activation": spec.activation,
        "needs": architecture.needs.as_dict(),
        "jobs": job_names(architecture) if architecture.hardware.backend == "rtl" else None,
        "runtime": runtime(architecture),
        "kernel": TOP,
        "arguments": [argument._asdict() for argument in arguments_of(architecture)],
        "max_batch": architecture.hardware.max_batch,
        "images": {
            "channels": channels,
            "height": height,
            "width": width,
            **fit._asdict(),
            **{name: value for name, value in images._asdict().items() if name != "shape"},
        },
        "output": output_layout(architecture)._asdict(),
        "frac": design.residual.frac,
        "tasks": [
            {
                "name": task,
                "out_channels": spec.head(task).out_channels,
                **spec.decoder(task)._asdict(),
                **({"classes": list(classes[task])} if classes[task] else {}),
            }
            for task in spec.tasks
        ],
        "weights": {
            "file": WEIGHTS,
            "ports": architecture.hardware.weight_ports,
            "port_bytes": port_bytes,
            "sha256": sha256,
        },
        "heads": None if heads_sha256 is None else HEADS,
        "heads_sha256": heads_sha256,
    }
