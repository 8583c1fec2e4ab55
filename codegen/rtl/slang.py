"""A second opinion on SystemVerilog: slang, which keeps to the standard where Verilator and Yosys do not."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError
from pysim.extras import require

_WARNINGS = ("-Wextra", "-Wno-useless-cast")
"""A cast to a width that is a parameter's has no use where both happen to be the same."""
_LOG_LINES = 20


def elaborate(sources: Sequence[Path], *tops: str) -> None:
    """Let slang read and elaborate modules.

    Args:
        sources: files of the modules and all that they instantiate, packages before what imports them.
        tops: the modules.

    Raises:
        InputError: no slang, or code that it refuses or warns of.
    """
    require("checking RTL with slang", "pyslang")
    import pyslang
    from pyslang.driver import Driver

    driver = Driver()
    driver.addStandardArgs()
    chosen = [word for top in tops for word in ("--top", top)]
    command = shlex.join(["slang", *_WARNINGS, *chosen, *map(str, sources)])
    if not (driver.parseCommandLine(command) and driver.processOptions() and driver.parseAllSources()):
        raise InputError(
            f"{', '.join(tops)}: slang cannot read {', '.join(source.name for source in sources)}"
        )
    compilation = driver.createCompilation()
    found = compilation.getAllDiagnostics()
    engine, severity = driver.diagEngine, pyslang.DiagnosticSeverity
    refused = (severity.Warning, severity.Error, severity.Fatal)
    said = [each for each in found if engine.getSeverity(each.code, each.location) in refused]
    if said:
        lines = pyslang.DiagnosticEngine.reportAll(driver.sourceManager, said).splitlines()
        raise InputError("\n".join([f"{', '.join(tops)}: slang refuses it:", *lines[:_LOG_LINES]]))
