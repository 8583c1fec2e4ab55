"""Sources of a network where no weights are needed: a name, a `model.toml`, a Model, a Design, a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.printable import one_line
from edgemoe.options import parse_image_size
from frontend.importing import import_spec
from frontend.options import Options
from frontend.zoo import find_spec
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


class Untold(NamedTuple):
    """Facts that a checkpoint cannot tell of its shape, as options of the command line; None where not said."""

    kind: str | None = None
    top_k: int | None = None
    heads: int | None = None
    image_size: str | None = None

    def options(self) -> Options:
        """Options of the importers."""
        size = None if self.image_size is None else parse_image_size(self.image_size)
        return Options(top_k=self.top_k, heads=self.heads, image_size=size)

    def refuse(self, source: str, what: str) -> None:
        """Refuse all of them, for a source that says everything itself."""
        given = [name for name, value in self._asdict().items() if value is not None]
        if given:
            raise InputError(
                f"--{given[0].replace('_', '-')} is for checkpoints and ONNX files, but {one_line(source)} is {what}",
                hint="leave it out",
            )


TOLD = Untold()
"""A source that says everything."""


def read_source(source: str, precision: str | None = None, untold: Untold = TOLD) -> Source:
    """The network of a zoo name, a `model.toml`, a Model folder, a Design folder, or whatever `import` takes.

    Args:
        source: which.
        precision: a preset, or a `.toml` file; a Design has its own.
        untold: what a checkpoint cannot tell of its shape.

    Raises:
        InputError: none of these, a precision beside a Design, or facts beside a source that tells them.
    """
    path = Path(source)
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # Too long for a path, or a NUL in it.
        there = folder = False
    if folder and (path / "design.toml").exists():
        untold.refuse(source, "a Design")
        if precision is not None:
            raise InputError(
                f"{one_line(source)}: a Design has its own precision",
                hint="leave --precision out, or give the Model that the Design was quantised from",
            )
        design = Design.load(path)
        return Source(design.network, design)
    widths = find_precision(precision or DEFAULT_PRECISION)
    if folder and (path / "model.toml").exists():
        untold.refuse(source, "a Model")
        return Source(Network(read_spec(path / "model.toml"), widths), None)
    if there and path.suffix != ".toml":
        return Source(Network(import_spec(path, untold.options(), untold.kind), widths), None)
    untold.refuse(source, "a model.toml or a name in the zoo")
    return Source(Network(find_spec(source), widths), None)
