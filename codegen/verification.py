"""The record of what was verified of a build, `verified.json` in its folder, for reports and for whoever asks later."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from codegen.build import Build
from codegen.csim import CsimResult
from common.errors import InputError
from common.reading import read_json
from pysim.files import validate
from pysim.scratch import scratch

FILE = "verified.json"


class Compared(BaseModel):
    """Values of one engine that were compared with the simulator's, and how many differed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    values: int
    mismatches: int


class Check(BaseModel):
    """One kind of check, as it ended when it was last run.

    Attributes:
        date: day and time at which it ended, UTC, ISO 8601.
        edgemoe: version that ran it.
        engines: what was compared, engine by engine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: str
    edgemoe: str
    engines: dict[str, Compared]

    @property
    def values(self) -> int:
        """Values compared over all engines."""
        return sum(engine.values for engine in self.engines.values())

    @property
    def mismatches(self) -> int:
        """Mismatches over all engines."""
        return sum(engine.mismatches for engine in self.engines.values())


class Verification(BaseModel):
    """Checks of a build by their names: csim, check, rtl, host.

    Attributes:
        version: of the file's layout.
        design_id: of the Design that was checked.
        hardware_id: of the hardware that was checked.
        checks: the last run of each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    design_id: str
    hardware_id: str
    checks: dict[str, Check] = {}


def read_verification(build: Build) -> Verification:
    """The record of a build; nothing where the record is missing, damaged, or of another build."""
    nothing = Verification(design_id=build.spec.design_id, hardware_id=build.spec.hardware_id)
    path = build.folder / FILE
    if not path.is_file():
        return nothing
    try:
        found = validate(Verification, read_json(path), path)
    except InputError:
        return nothing
    same = (found.design_id, found.hardware_id) == (nothing.design_id, nothing.hardware_id)
    return found if same else nothing


def record(build: Build, name: str, result: CsimResult, version: str) -> Path | None:
    """Put a check on record, in the place of its last run.

    Args:
        build: the build.
        name: of the check.
        result: what it compared.
        version: of edgemoe.

    Returns:
        The record; None where the build's folder cannot be written, which is no reason for a check to fail.
    """
    engines = {
        engine: Compared(values=values, mismatches=mismatches)
        for engine, (values, mismatches) in result.engines.items()
    }
    date = datetime.now(UTC).isoformat(timespec="seconds")
    before = read_verification(build)
    checks = before.checks | {name: Check(date=date, edgemoe=version, engines=engines)}
    path = build.folder / FILE
    try:
        with scratch(path) as partial:
            partial.write_text(before.model_copy(update={"checks": checks}).model_dump_json(indent=2) + "\n")
            partial.replace(path)
    except OSError:
        return None
    return path
