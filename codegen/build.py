"""A build folder: what `generate` makes, and every later command reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from codegen.architecture import Architecture
from codegen.hardware import Hardware
from common.errors import InputError
from common.toml import read_toml
from pysim.design import Design
from pysim.files import validate
from pysim.folders import require_folder

VERSION = 2
"""Version of `build.toml`."""

ACCELERATOR = "rtl/accelerator"
"""Folder in a build folder with the SystemVerilog of the whole accelerator."""

HARDWARE_FILE = "hardware.toml"
"""File in a build folder with the hardware that the build is made of."""


class BuildSpec(BaseModel):
    """`build.toml`: what a build folder was generated from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2]
    board: str
    design_id: str
    hardware_id: str
    weights_sha256: str
    network_tested: bool
    fits: bool = True
    """Whether the board has room for it; a build that it has none for is good for verification only."""


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
        """The folder that goes to the board."""
        return self.folder / "host"

    @property
    def rtl(self) -> Path:
        """The SystemVerilog kernels; empty for the original's arithmetic."""
        return self.folder / "rtl"

    @property
    def accelerator(self) -> list[Path]:
        """The whole accelerator's SystemVerilog; none for the original's arithmetic."""
        return sorted((self.folder / ACCELERATOR).glob("*.*v"))

    @property
    def vivado(self) -> Path:
        """The block design; a card that XRT runs has `vitis/link.cfg` instead."""
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
