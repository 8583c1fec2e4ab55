"""The files of Model and Design folders: checked fields, safetensors, atomic output folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.errors import InputError
from common.printable import shown, shown_key
from common.reading import require_file
from pysim.scratch import scratch

Tensors = dict[str, NDArray[Any]]
"""Named arrays, as a safetensors file holds them."""


class TensorSpec(NamedTuple):
    """Shape and dtype that a file must hold for a tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


Schema = TypeVar("Schema", bound=BaseModel)

_MOST_PROBLEMS = 10
"""Fields that a message names."""

_SAFETENSORS_DTYPES = {
    "F32": np.float32,
    "F64": np.float64,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
}


def validate(schema: type[Schema], data: Any, source: Path | str) -> Schema:
    """Check `data` against a pydantic schema; the offending fields are named in one `InputError`."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        lines = [_problem(problem) for problem in problems[:_MOST_PROBLEMS]]
        if len(problems) > len(lines):
            lines.append(f"and {len(problems) - len(lines):,} more")
        raise InputError(f"{source}: " + "; ".join(lines)) from None


def _problem(problem: ErrorDetails) -> str:
    field = ".".join(map(shown_key, problem["loc"])) or "(whole file)"
    reason = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    got = f" (got {shown(given)})" if isinstance(given, (str, int, float, list)) else ""
    return f"{field}: {reason}{got}"


def read_tensors(path: Path, expected: Mapping[str, TensorSpec]) -> Tensors:
    """Read a safetensors file that must hold exactly the `expected` tensors.

    Raises:
        InputError: unreadable or truncated file; a missing, extra, misshapen or wrongly typed tensor.
    """
    require_file(path, hint="the weights belong beside the .toml of their folder")
    try:
        with safe_open(path, framework="numpy") as file:
            _check_names(path, set(file.keys()), set(expected))
            for name, wanted in expected.items():
                _check_tensor(path, name, file.get_slice(name), wanted)
            return {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file: {error}",
            hint="the file may be truncated: copy it again",
        ) from None


def _check_tensor(path: Path, name: str, view: Any, wanted: TensorSpec) -> None:
    stored = _SAFETENSORS_DTYPES.get(view.get_dtype())
    if stored is None or np.dtype(stored) != wanted.dtype:
        raise InputError(f"{path}: tensor {name}: stored as {view.get_dtype()}, expected {wanted.dtype}")
    shape = tuple(view.get_shape())
    if shape != wanted.shape:
        raise InputError(
            f"{path}: tensor {name}: shape {shape}, expected {wanted.shape}",
            hint="the shape follows from the .toml beside the weights: one of the two is wrong",
        )


def _check_names(path: Path, present: set[str], expected: set[str]) -> None:
    for kind, names in (("missing", expected - present), ("unexpected", present - expected)):
        if names:
            listed = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise InputError(
                f"{path}: {kind} tensor{'s' if len(names) > 1 else ''}: {listed}",
                hint="the names follow from the .toml beside the weights",
            )


def read_npz(path: Path) -> Tensors:
    """The arrays of an `.npz` file.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    require_file(path)
    try:
        # Opened here, as numpy leaves files open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # Parsers of archives and headers raise whatever they meet.
        raise InputError(f"{path}: not a readable .npz file: {error}", hint="it may be truncated") from None


def write_folder(
    folder: Path,
    toml: Mapping[str, Any],
    tensors: Tensors,
    *,
    stem: str,
    others: Mapping[str, Tensors] | None = None,
) -> None:
    """Write `{stem}.toml` and `weights.safetensors` into a new folder, all or nothing.

    `others` are further safetensors files by their stems.
    """
    with new_folder(folder) as temporary:
        (temporary / f"{stem}.toml").write_bytes(tomli_w.dumps(toml).encode())
        # Not save_file, which makes files that only their owner can read.
        for name, content in ({"weights": tensors} | dict(others or {})).items():
            contiguous = {key: np.ascontiguousarray(tensor) for key, tensor in content.items()}
            (temporary / f"{name}.safetensors").write_bytes(save(contiguous))


def require_new(path: Path) -> None:
    """Refuse an output that exists: nothing is ever overwritten."""
    if path.exists():
        raise InputError(f"{path}: exists already", hint="choose another output, or remove this one first")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block ends without an exception."""
    with _made(folder) as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path for a file that appears as `path` only when the block ends without an exception."""
    with _made(path) as temporary:
        yield temporary


@contextmanager
def _made(target: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `target`, which must be new, at the end of the block."""
    require_new(target)
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(scratch(target))
        except OSError as error:
            raise InputError(f"{target}: cannot be created: {error.strerror}") from None
        try:
            yield temporary
            temporary.rename(target)
        except OSError as error:
            raise InputError(f"{target}: cannot be written: {error.strerror}") from None
