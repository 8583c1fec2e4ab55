"""`compile`: a Design becomes a program, which an accelerator that was built for another one runs as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codegen.architecture import Architecture
from codegen.build import Build
from codegen.hardware import QUANTISER_ONLY
from codegen.host_files import require_model_of, write_program
from common.capacities import CAPACITIES, lacking_text
from common.contract import MANIFEST
from common.errors import InputError
from common.reading import read_json
from pysim.design import Design
from pysim.files import new_folder
from pysim.model import Model
from pysim.network import Network


def compile_program(
    design: Design, build: Build, folder: Path, model: Model | None = None
) -> tuple[Design, Architecture]:
    """Write the program of a Design for an existing accelerator: manifest, weights and task heads in a new folder.

    Args:
        design: the Design.
        build: of the accelerator. Its P is that of the program.
        folder: to make, all or nothing.
        model: the float network, whose task heads go along.

    Returns:
        The Design with the accelerator's P, and its network on the accelerator.

    Raises:
        InputError: the accelerator does not hold it, the folder exists, or the Model is another network.
    """
    if model is not None:
        require_model_of(design, model)
    architecture = program_architecture(design.network, build)
    design = design.with_attention_rows(architecture.hardware.attention_rows)
    board = read_json(build.host / MANIFEST, hint="generate the build again")
    with new_folder(folder) as temporary:
        write_program(design, architecture, temporary, board, model)
    return design, architecture


def program_architecture(network: Network, build: Build) -> Architecture:
    """A network on the accelerator of a build.

    Raises:
        InputError: the accelerator does not hold it; the message names every reason.
    """
    built = build.architecture
    if built.hardware.backend == "hls":
        architecture = Architecture(network, built.hardware)
        if architecture.hardware_id != built.hardware_id:
            raise InputError(
                f"{build.folder}: an HLS accelerator, which has its network synthesised in, {built.spec.name} in "
                f"{built.precision.name}: it takes other weights of the same shape and precision only",
                hint="generate a build of this Design; or with --backend rtl one that reads its network from memory",
            )
        return architecture
    reasons = [
        f"{name}: the design has {wants}, the accelerator {there}"
        for name, (wants, there) in _differences(network, built.network).items()
    ]
    hardware = built.built_hardware
    # Without what may not suffice, so that all of it is named at once.
    free = hardware.changed(**{name: None for name in CAPACITIES if name not in ("max_batch", "max_group")})
    lacking = built.capacities.lacking(Architecture(network, free).needs)
    if lacking:
        reasons.append(lacking_text(lacking))
    if not reasons:
        return Architecture(network, hardware)
    larger = "".join(f" --set {name}={needs}" for name, (needs, _) in lacking.items())
    raise InputError(
        f"{build.folder}: the accelerator does not hold {network.spec.name}: {'; '.join(reasons)}",
        hint=f"generate one that does: --backend rtl{larger}",
    )


def _differences(network: Network, built: Network) -> dict[str, tuple[Any, Any]]:
    """Numbers of a network that are synthesised, as far as they are other ones: its own, and the accelerator's."""
    ours, theirs = (each.precision.model_dump(exclude=QUANTISER_ONLY) for each in (network, built))
    # LayerNorm's sums narrow the residual stream of a very wide network.
    ours["residual_width"], theirs["residual_width"] = network.residual_width, built.residual_width
    ours["activation"], theirs["activation"] = network.spec.activation, built.spec.activation
    return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
