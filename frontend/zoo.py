"""The zoo: shapes of published networks, one `model.toml` each in `frontend/zoo/`."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.printable import one_line
from pysim.model import tensor_shapes
from pysim.program import macs, program
from pysim.spec import ModelSpec, read_spec

_FOLDER = Path(__file__).parent / "zoo"


def zoo_names() -> list[str]:
    """Names of the shapes in the zoo."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_spec(name_or_path: str) -> ModelSpec:
    """Read the shape in a `model.toml`, or the one of that name in the zoo; an existing file wins.

    Raises:
        InputError: neither a file nor a name in the zoo, or not a valid `model.toml`.
    """
    path = Path(name_or_path)
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # Too long for a path, or a NUL in it.
        there = folder = False
    if there and not folder:
        return read_spec(path)
    if name_or_path in zoo_names():
        return read_spec(_FOLDER / f"{name_or_path}.toml")
    if folder:
        raise InputError(
            f"{path}: a folder, expected a model.toml", hint=f"did you mean {path / 'model.toml'}?"
        )
    close = difflib.get_close_matches(name_or_path[:64], zoo_names(), n=2)
    raise InputError(
        f"{one_line(name_or_path)}: neither a file nor a name in the zoo",
        hint=(f"did you mean {' or '.join(close)}? " if close else "")
        + f"the zoo has {', '.join(zoo_names())}",
    )


@dataclass(frozen=True)
class Size:
    """Size of a network.

    Attributes:
        tokens: tokens of one image.
        parameters: weights of the model, task heads included.
        macs: multiply-accumulates of the backbone for one image and one task, with `top_k` experts a token.
    """

    tokens: int
    parameters: int
    macs: int


def describe(spec: ModelSpec) -> Size:
    """Tokens, parameters and multiply-accumulates of a network of this shape."""
    parameters = sum(math.prod(shape) for shape in tensor_shapes(spec).values())
    return Size(spec.tokens, parameters, macs(program(spec)))
