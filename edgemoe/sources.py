"""Sources of a network where no weights are needed: a name, a `model.toml`, a Model or a Design."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.printable import one_line
from frontend.zoo import find_spec, zoo_names
from pysim.design import Design
from pysim.network import Network
from pysim.precision import find_precision
from pysim.spec import read_spec

DEFAULT_PRECISION = "w16a16"
"""Precision of a source that has none of its own."""


class Source(NamedTuple):
    """A network, and the Design that it came from, if it is one."""

    network: Network
    design: Design | None


def read_source(source: str, precision: str | None = None) -> Source:
    """The network of a zoo name, a `model.toml`, a Model folder or a Design folder.

    Args:
        source: which.
        precision: a preset, or a `.toml` file; a Design has its own.

    Raises:
        InputError: none of these, or a precision beside a Design.
    """
    folder = Path(source)
    try:
        there = folder.is_dir()
    except (OSError, ValueError):  # Too long for a path, or a NUL in it.
        there = False
    if there and (folder / "design.toml").exists():
        if precision is not None:
            raise InputError(
                f"{one_line(source)}: a Design has its own precision",
                hint="leave --precision out, or give the Model that the Design was quantised from",
            )
        design = Design.load(folder)
        return Source(design.network, design)
    widths = find_precision(precision or DEFAULT_PRECISION)
    if there and (folder / "model.toml").exists():
        return Source(Network(read_spec(folder / "model.toml"), widths), None)
    if there:
        raise InputError(
            f"{one_line(source)}: holds neither model.toml nor design.toml",
            hint=f"expected a Model, a Design, a model.toml, or a name in the zoo: {', '.join(zoo_names())}",
        )
    return Source(Network(find_spec(source), widths), None)
