"""`manifest.json`: what a board must know of a build. Read and checked here; `codegen/manifest.py` writes it."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.capacities import CAPACITIES, Capacities
from common.contract import BACKENDS, MANIFEST, RUNTIMES, VERSION, Argument, kernel_arguments
from common.errors import InputError
from common.fits import FILTERS, RESIZES, Fit
from common.heads import HEAD_KINDS, LEAST_PREFIX, Head
from common.packing import ImageLayout, OutputLayout
from common.printable import shown
from common.reading import read_bytes, read_json, require_file
from common.tasks import task_number

MOST_BYTES = 4 << 30
"""Limit of weights and heads: the DRAM that a board of this kind has."""

_COPY_AGAIN = "copy the whole host folder of the build again"

_MOST_MEMORY = 1 << 40
"""Bytes of the weights, or of all images or tokens of a call: no board has so much."""
_MOST = 1 << 20
"""Limit of everything that is counted: what a network's shape may have as well."""
_MOST_TASKS = 256
_LONGEST_CLASS = 200
_MANIFEST_BYTES = 8 << 20
"""Limit of the file: room for the names of 50,000 classes."""
_LEAST_CROP = 0.01
_MOST_FRAC = 64
_MOST_PORTS = 64
_PORT_BYTES = (4, 8, 16, 32, 64)
"""Widths of a memory port."""
_MOST_MHZ = 10_000.0

# What the file's texts are made of: (pattern, what it stands for).
_HEX_16 = (r"[0-9a-f]{16}", "16 hexadecimal digits")
_HEX_64 = (r"[0-9a-f]{64}", "64 hexadecimal digits")
_IDENTIFIER = (r"[A-Za-z_][A-Za-z0-9_]{0,127}", "a name in C++")
_RUNTIME = ("|".join(RUNTIMES), " or ".join(RUNTIMES))
_BACKEND = ("|".join(BACKENDS), " or ".join(BACKENDS))
_NAME = (r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "letters, digits, '.', '_' and '-', 64 at most")
# Nothing that leads out of the folder: neither separators nor dots alone.
_FILE_NAME = (_NAME[0], "the plain name of a file in the same folder")


@dataclass(frozen=True)
class Task:
    """A task: its name, what decodes its tokens, and the names of its classes, if they have any."""

    name: str
    head: Head
    out_channels: int | None
    classes: tuple[str, ...] = ()


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
    """A build as a board must know it.

    Attributes:
        path: the file it was read from.
        name: of the network.
        design_id: identity of the design: shape, precision, attention rows and weights.
        hardware_id: identity of the hardware, which the kernel reports too.
        program_id: identity of what the kernel does with any weights of such a network: hardware, shape and precision.
        backend: what the hardware is made of, `hls` or `rtl`.
        board: the board that the build is for.
        clock_mhz: the clock that the build is for.
        precision: name of its preset.
        activation: name of its activation function.
        needs: capacities that the hardware must have for it.
        jobs: names of its jobs, in the order of the job table in its weights; None for `hls`, which does not read it.
        runtime: what loads and runs the kernel: `pynq`, or `xrt` on a card.
        kernel: name of the kernel's top function, which is also the name of its IP.
        arguments: those of the kernel's arguments that are registers, in its order.
        max_batch: images that one call takes at most. For people: the driver asks the hardware, which has to agree.
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
    hardware_id: str
    program_id: str
    backend: str
    board: str
    clock_mhz: float
    precision: str
    activation: str
    needs: Capacities
    jobs: tuple[str, ...] | None
    runtime: str
    kernel: str
    arguments: tuple[Argument, ...]
    max_batch: int
    images: ImageLayout
    fit: Fit
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
        file = path / MANIFEST if path.is_dir() else path
        data = read_json(
            file, _MANIFEST_BYTES, missing_hint="`edgemoe generate` writes it into host/", hint=_COPY_AGAIN
        )
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
            design_id=reader.text("design_id", _HEX_16),
            hardware_id=reader.text("hardware_id", _HEX_16),
            program_id=reader.text("program_id", _HEX_16),
            backend=reader.text("backend", _BACKEND),
            board=reader.get("board", str),
            clock_mhz=reader.number("clock_mhz", _MOST_MHZ),
            precision=reader.get("precision", str),
            activation=reader.get("activation", str),
            needs=_needs(reader.table("needs")),
            jobs=_jobs(reader),
            runtime=reader.optional("runtime", _RUNTIME) or RUNTIMES[0],
            kernel=reader.text("kernel", _IDENTIFIER),
            arguments=tuple(map(_argument, reader.items("arguments"))),
            max_batch=reader.count("max_batch"),
            images=_image_layout(reader.table("images")),
            fit=_fit(reader.table("images")),
            output=_output_layout(reader.table("output")),
            frac=reader.integer("frac", -_MOST_FRAC, _MOST_FRAC),
            tasks=tuple(map(_task, reader.items("tasks"))),
            weights=_weights(reader.table("weights")),
            heads=reader.optional("heads", _FILE_NAME),
            heads_sha256=reader.optional("heads_sha256", _HEX_64),
        )
        manifest._check()
        return manifest

    @property
    def counters(self) -> tuple[str, ...]:
        """Outputs that count a call's clock cycles: none under XRT, where a kernel has no counter to read."""
        return () if self.runtime == "xrt" else ("cycles",)

    def task(self, task: str | int) -> int:
        """Number of a task given by name or number."""
        return task_number([each.name for each in self.tasks], task)

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
        data = _read_checked(file, None, self.heads_sha256)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                tensors = {name: archive[name] for name in archive.files}
        except Exception as error:  # NumPy's and zip's parsers raise whatever they meet.
            raise InputError(f"{file}: not a readable .npz file: {error}", hint=_COPY_AGAIN) from None
        for name, shape in self._head_shapes().items():
            found = tensors.get(name)
            if found is None or found.shape != shape or found.dtype.kind != "f":
                shown = "missing" if found is None else f"{found.shape} of {found.dtype}"
                raise InputError(f"{file}: {name} is {shown}, expected {shape} of floats", hint=_COPY_AGAIN)
        return tensors

    def _head_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes of the tensors that `run_head` reads, by name."""
        return {
            tensor.name: tensor.shape
            for task in self.tasks
            for tensor in task.head.tensors(task.name, self.output.dim, task.out_channels)
        }

    def _check(self) -> None:
        """Conditions of a manifest: what must agree, or differ, or be less than a board has."""
        names = [task.name for task in self.tasks]
        if not 1 <= len(set(names)) == len(names) <= _MOST_TASKS:
            raise self._wrong(
                f"tasks: {len(names)} names, {len(set(names))} of them different, "
                f"expected 1 to {_MOST_TASKS} different ones"
            )
        if (self.heads is None) != (self.heads_sha256 is None):
            raise self._wrong("one of heads and heads_sha256 is null, expected both or none")
        for keys, right in self._agreements().items():
            if not right:
                raise self._wrong(f"{keys} do not fit together")
        needed = {
            "weights": self.weights.size,
            "images": self.max_batch * self.images.image_bytes,
            "output": self.max_batch * self.output.image_bytes,
        }
        for name, size in needed.items():
            if size > _MOST_MEMORY:
                raise self._wrong(f"{name}: {size} bytes, expected at most {_MOST_MEMORY}")
        self._check_arguments()

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}", hint=_COPY_AGAIN)

    def _agreements(self) -> dict[str, bool]:
        """Keys that depend on each other, and whether they agree."""
        images, output = self.images, self.output
        _, height, width = images.shape
        size, values = images.patch_size, images.shape[0] * images.patch_size**2
        words = (images.word_bytes, output.word_bytes)
        return {
            "images.shape and images.patch_size": height % size == 0 and width % size == 0,
            "output.tokens, images and prefix_tokens": all(
                output.tokens == images.patches + task.head.prefix_tokens for task in self.tasks
            ),
            "images.lanes and output.lanes": images.lanes == output.lanes,
            "images.patch_words and images.lanes": images.patch_words == -(-values // images.lanes),
            "output.tokens and needs.max_tokens": output.tokens == self.needs.max_tokens,
            "tasks and needs.max_tasks": len(self.tasks) == self.needs.max_tasks,
            "backend and jobs": (self.backend == "rtl") == (self.jobs is not None),
            "output.token_words and output.lanes": output.token_words == -(-output.dim // output.lanes),
            # A word starts on a beat of its memory port: an output that is too small would be written over its end.
            "images.word_bytes, output.word_bytes and lanes": words
            in [(_whole(images.lanes, port), _whole(4 * output.lanes, port)) for port in _PORT_BYTES],
        }

    def _check_arguments(self) -> None:
        """The kernel's arguments are those that this driver sets and reads."""
        expected = kernel_arguments(self.weights.ports, xrt=self.runtime == "xrt", rtl=self.backend == "rtl")
        if len(self.arguments) == len(expected) and set(self.arguments) == set(expected):
            return
        differ = sorted({argument.name for argument in set(expected).symmetric_difference(self.arguments)})
        raise InputError(
            f"{self.path}: arguments: {', '.join(differ)[:200] or 'one of them twice'}: not as this driver expects",
            hint="the driver and the build are of different releases: generate the build again",
        )


def _whole(nbytes: int, port: int) -> int:
    """Bytes of the beats that hold so many."""
    return -(-nbytes // port) * port


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
            f"{file}: its SHA-256 is {found[:16]}..., but {MANIFEST} says {sha256[:16]}...",
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
            raise self.wrong(key, value, kind.__name__)
        return value

    def wrong(self, key: str, value: Any, expected: str) -> InputError:
        return InputError(
            f"{self.file}: {self.where}{key} is {shown(value)}, expected {expected}", hint=_COPY_AGAIN
        )

    def text(self, key: str, rule: tuple[str, str]) -> str:
        """A text that a pattern matches as a whole."""
        value, (pattern, meaning) = self.get(key, str), rule
        if not re.fullmatch(pattern, value):
            raise self.wrong(key, value, meaning)
        return str(value)

    def optional(self, key: str, rule: tuple[str, str]) -> str | None:
        return None if self.data.get(key) is None else self.text(key, rule)

    def integer(self, key: str, least: int, most: int) -> int:
        value = self.get(key, int)
        if not least <= value <= most:
            raise self.wrong(key, value, f"{least} to {most}")
        return int(value)

    def count(self, key: str, most: int = _MOST) -> int:
        value = self.get(key, int)
        if value < 1:
            raise self.wrong(key, value, "at least 1")
        return self.integer(key, 1, most)

    def number(self, key: str, most: float) -> float:
        """A number above 0."""
        value = self.data.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            value = self.get(key, float)
        if not 0 < value <= most:  # Nor is it NaN.
            raise self.wrong(key, value, f"a number above 0, {most:g} at most")
        return float(value)

    def table(self, key: str) -> _Reader:
        return _Reader(self.file, self.get(key, dict), f"{self.where}{key}.")

    def items(self, key: str) -> list[_Reader]:
        return [_Reader(self.file, item, f"{key}[{i}].") for i, item in enumerate(self.get(key, list))]


def _argument(reader: _Reader) -> Argument:
    bits = reader.get("bits", int)
    if bits not in (32, 64):
        raise reader.wrong("bits", bits, "32 or 64")
    return Argument(reader.text("name", _IDENTIFIER), bits, reader.get("output", bool))


def _needs(reader: _Reader) -> Capacities:
    return Capacities(**{name: reader.integer(name, 0, _MOST) for name in CAPACITIES})


def _jobs(reader: _Reader) -> tuple[str, ...] | None:
    if reader.data.get("jobs") is None:
        return None
    names = reader.get("jobs", list)
    for name in names:
        if not isinstance(name, str):
            raise reader.wrong("jobs", names, "a list of names")
    return tuple(names)


def _task(reader: _Reader) -> Task:
    kind = reader.get("kind", str)
    if kind not in HEAD_KINDS:
        raise reader.wrong("kind", kind, f"one of {', '.join(HEAD_KINDS)}")
    head = Head(kind, reader.get("norm", bool), reader.number("norm_eps", 1.0))
    # Builds of older releases have neither of these keys.
    if "fc_norm" in reader.data:
        head = head._replace(fc_norm=reader.get("fc_norm", bool))
    if "prefix_tokens" in reader.data:
        head = head._replace(prefix_tokens=reader.integer("prefix_tokens", 0, _MOST))
    least = LEAST_PREFIX.get(kind, 0)
    if head.prefix_tokens < least:
        raise reader.wrong("prefix_tokens", head.prefix_tokens, f"at least {least} for {kind}")
    given = kind != "none" or reader.data.get("out_channels") is not None
    channels = reader.count("out_channels") if given else None
    return Task(reader.text("name", _NAME), head, channels, _classes(reader, channels))


def _classes(reader: _Reader, channels: int | None) -> tuple[str, ...]:
    """Names of the classes; none in builds of older releases, and of heads whose classes have none."""
    if "classes" not in reader.data:
        return ()
    names = reader.get("classes", list)
    if len(names) != channels:
        raise reader.wrong("classes", names, f"{channels or 'no'} names")
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_CLASS or not name.isprintable():
            raise reader.wrong("classes", name, f"names of 1 to {_LONGEST_CLASS} printable characters")
    return tuple(names)


def _image_layout(reader: _Reader) -> ImageLayout:
    shape = (reader.count("channels"), reader.count("height"), reader.count("width"))
    return ImageLayout(
        shape,
        reader.count("patch_size"),
        reader.count("lanes"),
        reader.count("patch_words"),
        reader.count("word_bytes"),
        reader.integer("padding", 0, 255),
    )


def _fit(reader: _Reader) -> Fit:
    """Way to make pictures fit; builds of older releases stretch them."""
    resample = reader.get("resample", str)
    if resample not in FILTERS:
        raise reader.wrong("resample", resample, f"one of {', '.join(FILTERS)}")
    if "method" not in reader.data:
        return Fit("stretch", resample=resample)
    method = reader.get("method", str)
    if method not in RESIZES:
        raise reader.wrong("method", method, f"one of {', '.join(RESIZES)}")
    crop = reader.number("crop", 1.0)
    if crop < _LEAST_CROP:
        raise reader.wrong("crop", crop, f"{_LEAST_CROP} to 1")
    return Fit(method, crop, resample)


def _output_layout(reader: _Reader) -> OutputLayout:
    return OutputLayout(*(reader.count(name) for name in OutputLayout._fields))


def _weights(reader: _Reader) -> Weights:
    return Weights(
        reader.text("file", _FILE_NAME),
        reader.count("ports", _MOST_PORTS),
        reader.count("port_bytes", _MOST_MEMORY),
        reader.text("sha256", _HEX_64),
    )
