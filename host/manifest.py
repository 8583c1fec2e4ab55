"""`manifest.json`: what a board must know of a build. Read and checked here; `codegen/manifest.py` writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.packing import ImageLayout, OutputLayout
from host.registers import Argument
from pysim.errors import InputError
from pysim.heads import Head
from pysim.pictures import RESAMPLE
from pysim.printable import shown
from pysim.reading import read_bytes, read_json, require_file

VERSION = 1
"""Version of the manifest's format."""
FILE = "manifest.json"
MOST_BYTES = 4 << 30
"""Of weights and heads: the DRAM that a board of this kind has."""

_HEAD_KINDS = ("token-linear", "cls-linear", "none")
_COPY_AGAIN = "copy the whole host folder of the build again"


@dataclass(frozen=True)
class Task:
    """A task: its name and what decodes its tokens."""

    name: str
    head: Head
    out_channels: int | None


@dataclass(frozen=True)
class Weights:
    """The weight image: a file with the words of port 0, then those of port 1, and so on."""

    file: str
    ports: int
    port_bytes: int
    sha256: str

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.ports * self.port_bytes


@dataclass(frozen=True)
class Manifest:
    """What a board must know of a build.

    Attributes:
        path: the file it was read from.
        name: of the network.
        design_id: identity of the hardware, which the kernel reports too.
        board: the board that the build is for.
        clock_mhz: the clock that the build is for.
        precision: name of its preset.
        kernel: name of the kernel's top function, which is also the name of its IP.
        arguments: those of the kernel's arguments that are registers, in its order.
        max_batch: images that one call takes at most.
        images: how images lie in memory.
        output: how final tokens lie in memory.
        frac: fraction bits of the final tokens.
        tasks: in the order of their numbers.
        weights: the weight image.
        heads: file with the tensors of the task heads; None where the build has none.
        heads_sha256: its hash.
    """

    path: Path
    name: str
    design_id: str
    board: str
    clock_mhz: float
    precision: str
    kernel: str
    arguments: tuple[Argument, ...]
    max_batch: int
    images: ImageLayout
    output: OutputLayout
    frac: int
    tasks: tuple[Task, ...]
    weights: Weights
    heads: str | None
    heads_sha256: str | None

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Args:
            path: the file, or a folder that holds it.

        Raises:
            InputError: unreadable, or a key is missing, of the wrong type, or at odds with another.
        """
        file = path / FILE if path.is_dir() else path
        data = read_json(file, missing_hint="`edgemoe generate` writes it into host/", hint=_COPY_AGAIN)
        reader = _Reader(file, data, "")
        version = reader.get("version", int)
        if version != VERSION:
            raise InputError(
                f"{file}: version {version}, expected {VERSION}",
                hint="the driver and the build are of different releases: take both from one",
            )
        manifest = cls(
            path=file,
            name=reader.get("name", str),
            design_id=reader.get("design_id", str),
            board=reader.get("board", str),
            clock_mhz=reader.number("clock_mhz"),
            precision=reader.get("precision", str),
            kernel=reader.get("kernel", str),
            arguments=tuple(map(_argument, reader.items("arguments"))),
            max_batch=reader.count("max_batch"),
            images=_image_layout(reader.table("images")),
            output=_output_layout(reader.table("output")),
            frac=reader.get("frac", int),
            tasks=tuple(map(_task, reader.items("tasks"))),
            weights=_weights(reader.table("weights")),
            heads=reader.optional("heads", str),
            heads_sha256=reader.optional("heads_sha256", str),
        )
        manifest._check()
        return manifest

    def task(self, task: str | int) -> int:
        """Number of a task given by name or number."""
        names = [each.name for each in self.tasks]
        if task in names:
            return names.index(str(task))
        if isinstance(task, int) and 0 <= task < len(names):
            return task
        raise InputError(f"task {task!r} is unknown", hint=f"the network's tasks are {', '.join(names)}")

    def read_weights(self) -> NDArray[np.uint8]:
        """The weight image: (ports, bytes of a port), checked against its hash."""
        file = self.path.parent / self.weights.file
        data = _read_checked(file, self.weights.size, self.weights.sha256)
        return np.frombuffer(data, np.uint8).reshape(self.weights.ports, self.weights.port_bytes)

    def read_heads(self) -> dict[str, NDArray[Any]]:
        """Tensors of the task heads by name; none where the build has no heads."""
        if self.heads is None or self.heads_sha256 is None:
            return {}
        file = self.path.parent / self.heads
        _read_checked(file, None, self.heads_sha256)
        try:
            with np.load(file, allow_pickle=False) as archive:
                tensors = {name: archive[name] for name in archive.files}
        except Exception as error:  # NumPy's and zip's parsers raise whatever they meet.
            raise InputError(f"{file}: not a readable .npz file: {error}", hint=_COPY_AGAIN) from None
        for task in self.tasks:
            if task.head.kind == "none":
                continue
            shape = (task.out_channels, self.output.dim)
            found = tensors.get(f"heads.{task.name}.weight")
            if found is None or found.shape != shape:
                shown = "missing" if found is None else found.shape
                raise InputError(
                    f"{file}: heads.{task.name}.weight is {shown}, expected {shape}",
                    hint=_COPY_AGAIN,
                )
        return tensors

    def _check(self) -> None:
        """Numbers that must agree."""
        _, height, width = self.images.shape
        size, values = self.images.patch_size, self.images.shape[0] * self.images.patch_size**2
        agree = {
            "images.shape and images.patch_size": height % size == 0 and width % size == 0,
            "output.tokens and images": self.output.tokens == self.images.patches + 1,
            "images.patch_words and images.lanes": self.images.patch_words == -(-values // self.images.lanes),
            "images.word_bytes and images.lanes": self.images.word_bytes >= self.images.lanes,
            "output.token_words and output.lanes": self.output.token_words
            == -(-self.output.dim // self.output.lanes),
            "output.word_bytes and output.lanes": self.output.word_bytes >= 4 * self.output.lanes
            and self.output.word_bytes % 4 == 0,
        }
        for names, right in agree.items():
            if not right:
                raise InputError(f"{self.path}: {names} do not fit together", hint=_COPY_AGAIN)


def _read_checked(file: Path, size: int | None, sha256: str) -> bytes:
    there = require_file(file, hint=_COPY_AGAIN).st_size
    if size is not None and there != size:
        raise InputError(
            f"{file}: {there} bytes, expected {size}", hint=f"truncated on the way? {_COPY_AGAIN}"
        )
    data = read_bytes(file, MOST_BYTES, hint=_COPY_AGAIN)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise InputError(
            f"{file}: its SHA-256 is {found[:16]}..., but {FILE} says {sha256[:16]}...",
            hint=f"damaged, or of another build: {_COPY_AGAIN}",
        )
    return data


class _Reader:
    """A table of a manifest; whatever is wrong names its key."""

    def __init__(self, file: Path, data: Any, where: str) -> None:
        if not isinstance(data, Mapping):
            raise InputError(f"{file}: {where or 'the file'} is {type(data).__name__}, expected an object")
        self.file, self.data, self.where = file, data, where

    def get(self, key: str, kind: type) -> Any:
        if key not in self.data:
            raise InputError(f"{self.file}: {self.where}{key} is missing", hint=_COPY_AGAIN)
        value = self.data[key]
        # A bool is an int to Python, not to a manifest.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(
                f"{self.file}: {self.where}{key} is {shown(value)}, expected {kind.__name__}",
                hint=_COPY_AGAIN,
            )
        return value

    def optional(self, key: str, kind: type) -> Any:
        return None if self.data.get(key) is None else self.get(key, kind)

    def count(self, key: str) -> int:
        value = self.get(key, int)
        if not 1 <= value < 1 << 40:
            raise InputError(
                f"{self.file}: {self.where}{key} is {value}, expected at least 1", hint=_COPY_AGAIN
            )
        return int(value)

    def number(self, key: str) -> float:
        value = self.data.get(key)
        return float(
            value if isinstance(value, int) and not isinstance(value, bool) else self.get(key, float)
        )

    def table(self, key: str) -> _Reader:
        return _Reader(self.file, self.get(key, dict), f"{self.where}{key}.")

    def items(self, key: str) -> list[_Reader]:
        return [_Reader(self.file, item, f"{key}[{i}].") for i, item in enumerate(self.get(key, list))]


def _argument(reader: _Reader) -> Argument:
    bits = reader.get("bits", int)
    if bits not in (32, 64):
        raise InputError(f"{reader.file}: {reader.where}bits is {bits}, expected 32 or 64", hint=_COPY_AGAIN)
    return Argument(reader.get("name", str), bits, reader.get("output", bool))


def _task(reader: _Reader) -> Task:
    kind = reader.get("kind", str)
    if kind not in _HEAD_KINDS:
        raise InputError(
            f"{reader.file}: {reader.where}kind is {kind!r}, expected one of {', '.join(_HEAD_KINDS)}",
            hint=_COPY_AGAIN,
        )
    head = Head(kind, reader.get("norm", bool), reader.number("norm_eps"))
    return Task(reader.get("name", str), head, reader.optional("out_channels", int))


def _image_layout(reader: _Reader) -> ImageLayout:
    resample = reader.get("resample", str)
    if resample != RESAMPLE:
        raise InputError(
            f"{reader.file}: {reader.where}resample is {resample!r}, this driver resizes {RESAMPLE}"
        )
    shape = (reader.count("channels"), reader.count("height"), reader.count("width"))
    return ImageLayout(
        shape,
        reader.count("patch_size"),
        reader.count("lanes"),
        reader.count("patch_words"),
        reader.count("word_bytes"),
        reader.get("padding", int),
    )


def _output_layout(reader: _Reader) -> OutputLayout:
    return OutputLayout(*(reader.count(name) for name in OutputLayout._fields))


def _weights(reader: _Reader) -> Weights:
    return Weights(
        reader.get("file", str), reader.count("ports"), reader.count("port_bytes"), reader.get("sha256", str)
    )
