"""Safe reading of checkpoints: PyTorch files without unpickling objects, safetensors files, folders of shards.

Nothing of a checkpoint is ever executed: PyTorch files are read with `weights_only=True`, which knows tensors
and plain containers only. Tensors stay in the file (memory-mapped where its format allows) until they are taken.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.printable import shown
from common.reading import read_json, require_file
from pysim.extras import require

FloatArray = NDArray[np.float32]

CONTAINERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts keep the tensors, beside epochs and optimizer states."""
FOLLOWERS = ("target_encoder", "teacher")
"""Keys of the network that follows another one in training, and is the one that is used: I-JEPA's, DINO's."""

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
SAFETENSORS_SUFFIX = ".safetensors"

INDEX_SUFFIX = ".index.json"
"""End of the name of the file that says in which shard a tensor is."""
MOST_INDEX_BYTES = 16 << 20
"""Limit of an index: a line a tensor."""

EXPERT_PART = ".mlp.experts."
"""Part of the names of tensors of which each rank of a sharded M3ViT checkpoint holds a part."""

_INDEXED = (SAFETENSORS_SUFFIX, ".bin")
_POINTER = b"version https://git-lfs"
_SHOWN = 4
_FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True)
class Entry:
    """A tensor that has not been read yet.

    Attributes:
        shape: its shape.
        dtype: its type as the file calls it.
        load: reads it as float32; None where it is not of a float type.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], FloatArray] | None


@dataclass
class State:
    """The tensors of a checkpoint; every one is taken or waived by the time of `finish`.

    Attributes:
        source: what messages call the checkpoint.
        entries: by the names that importers use.
        file_name: the file's own name of a tensor, for messages.
        chosen: key of the network in a file that holds several; empty for others.
    """

    source: str
    entries: Mapping[str, Entry]
    file_name: Callable[[str], str] = str
    chosen: str = ""
    _used: set[str] = field(default_factory=set)

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def called(self, key: str) -> str:
        """Name of a tensor in messages."""
        return f"{self.source}: tensor {self.file_name(key)}"

    def shape(self, key: str, rank: int) -> tuple[int, ...]:
        """Shape of a tensor that must exist and have `rank` axes."""
        if key not in self.entries:
            raise InputError(
                f"{self.source}: missing tensor {self.file_name(key)}", hint="is the checkpoint complete?"
            )
        shape = self.entries[key].shape
        if len(shape) != rank or 0 in shape:
            raise InputError(f"{self.called(key)}: shape {shape}, expected {rank} axes, none empty")
        return shape

    def take(self, key: str, shape: tuple[int, ...]) -> FloatArray:
        """A tensor as float32, which must have this shape and be finite.

        Raises:
            InputError: a missing, misshapen, non-float or non-finite tensor, naming it.
        """
        found = self.shape(key, len(shape))
        if found != shape:
            raise InputError(
                f"{self.called(key)}: shape {found}, expected {shape}",
                hint="the expected shape follows from the other tensors and the options given",
            )
        entry = self.entries[key]
        if entry.load is None:
            raise InputError(f"{self.called(key)}: type {entry.dtype}, expected a float of 16, 32 or 64 bits")
        self._used.add(key)
        tensor = entry.load()
        finite = np.isfinite(tensor)
        if not finite.all():
            count = tensor.size - int(np.count_nonzero(finite))
            raise InputError(
                f"{self.called(key)}: {count} of {tensor.size} values are not finite in float32",
                hint="the checkpoint is damaged or its training diverged",
            )
        return tensor

    def waive(self, keys: Iterable[str]) -> list[str]:
        """Leave tensors unread on purpose; returns their names."""
        waived = [key for key in keys if key in self.entries]
        self._used.update(waived)
        return waived

    def left(self) -> list[str]:
        """Names that were neither taken nor waived."""
        return [key for key in self.entries if key not in self._used]

    def finish(self, reasons: Mapping[str, str] | None = None) -> None:
        """Refuse tensors that nothing has taken.

        Args:
            reasons: regular expressions over names, and why such a tensor cannot be used.
        """
        left = [self.file_name(key) for key in self.left()]
        if not left:
            return
        for pattern, reason in (reasons or {}).items():
            for name in left:
                if re.search(pattern, name):
                    raise InputError(f"{self.source}: tensor {name}: {reason}")
        raise InputError(
            f"{self.source}: unexpected tensor{'s' if len(left) > 1 else ''}: {listed(left)}",
            hint="the network has parts that this importer does not know: dropping them would change its results",
        )

    def renamed(self, to_ours: Callable[[str], str], to_theirs: Callable[[str], str]) -> State:
        """The same tensors by other names; messages keep to the file's.

        Args:
            to_ours: new name of a tensor of the file.
            to_theirs: back again, for tensors that are missing.
        """
        theirs = {to_ours(key): key for key in self.entries}
        if len(theirs) < len(self.entries):
            twice = next(key for key in self.entries if theirs[to_ours(key)] != key)
            raise InputError(
                f"{self.source}: tensors {twice} and {theirs[to_ours(twice)]} are the same parameter",
                hint="the file mixes two layouts",
            )
        entries = {name: self.entries[key] for name, key in theirs.items()}
        return State(
            self.source, entries, lambda key: theirs[key] if key in theirs else to_theirs(key), self.chosen
        )

    def filled(self, shapes: Mapping[str, tuple[int, ...]]) -> State:
        """The same tensors, and zeros for those of these names and shapes that are missing."""
        zeros = {
            key: Entry(shape, "F32", partial(_zeros, shape))
            for key, shape in shapes.items()
            if key not in self.entries
        }
        return State(self.source, {**self.entries, **zeros}, self.file_name, self.chosen, self._used)


def _zeros(shape: tuple[int, ...]) -> FloatArray:
    return np.zeros(shape, np.float32)


def listed(names: Iterable[str]) -> str:
    """The first few names and how many more there are."""
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def read_state(source: Path) -> State:
    """Open a checkpoint: a PyTorch or safetensors file, an index of several, or a folder of M3ViT's shards.

    Args:
        source: the file; the `.index.json` of shards that hold a tensor each whole; or the folder of `0.pth`, `1.pth`,
            ..., which hold parts of the experts.

    Raises:
        InputError: no such file; unreadable, damaged, or in need of unpickling objects; inconsistent shards.
    """
    if source.is_dir():
        return State(str(source), _read_shards(source))
    require_file(source, missing="no such file or folder")
    if source.name.endswith(INDEX_SUFFIX):
        return State(str(source.parent), _read_index(source))
    if source.suffix == SAFETENSORS_SUFFIX:
        return State(str(source), _read_safetensors(source))
    tensors, chosen = _read_torch(source)
    return State(str(source), tensors, chosen=chosen)


def is_shard_folder(folder: Path) -> bool:
    """True for a folder that holds `0.pth` or its like."""
    return any((folder / f"0{suffix}").is_file() for suffix in (*TORCH_SUFFIXES, SAFETENSORS_SUFFIX))


def _read_file(path: Path) -> dict[str, Entry]:
    return _read_safetensors(path) if path.suffix == SAFETENSORS_SUFFIX else _read_torch(path)[0]


def _read_safetensors(path: Path) -> dict[str, Entry]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # checks every offset against the file
            names = list(file.keys())
        with path.open("rb") as stream:
            header_size = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(header_size))
    except (SafetensorError, OSError, ValueError) as error:
        _refuse_pointer(path)
        raise InputError(
            f"{path}: not a readable safetensors file: {error}",
            hint="the file may be truncated: copy it again",
        ) from None
    start = 8 + header_size
    return {name: _stored_entry(path, start, header[name]) for name in names}


def _stored_entry(path: Path, start: int, stored: Mapping[str, Any]) -> Entry:
    shape, dtype = tuple(stored["shape"]), str(stored["dtype"])
    offset = start + int(stored["data_offsets"][0])

    def load() -> FloatArray:
        if 0 in shape:
            return np.zeros(shape, np.float32)
        raw = np.memmap(path, _FLOATS[dtype], "r", offset, shape)
        if dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return _as_float32(raw)

    return Entry(shape, dtype, load if dtype in _FLOATS else None)


def _as_float32(array: NDArray[Any]) -> FloatArray:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which `take` refuses
        return np.asarray(array, np.float32)


def _read_torch(path: Path) -> tuple[dict[str, Entry], str]:
    """The tensors, and the key of the network that they are of where the file holds several."""
    tensors, chosen = _container(path, _load_torch(path))
    for key, tensor in tensors.items():
        if not isinstance(key, str):
            raise InputError(f"{path}: a tensor is named {key!r}, expected a string")
        if not hasattr(tensor, "layout"):
            raise InputError(
                f"{path}: {key}: a {type(tensor).__name__}, expected a tensor",
                hint="save the state_dict alone",
            )
    return {key: _torch_entry(tensor) for key, tensor in tensors.items()}, chosen


def _load_torch(path: Path) -> Any:
    require(f"{path}: reading a PyTorch file", "torch", otherwise="save it as .safetensors")
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged file can raise anything
        _refuse_pointer(path)
        raise _torch_error(path, error) from None


def _refuse_pointer(path: Path) -> None:
    """Refuse what Git leaves in place of a large file."""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise InputError(
                f"{path}: a pointer of Git LFS, not the weights themselves", hint="git lfs pull fetches them"
            )


def _torch_error(path: Path, error: Exception) -> InputError:
    """Why torch refused a file: objects inside it, or damage."""
    text = str(error)
    forbidden = re.search(r"GLOBAL ([\w.]+)", text)
    if forbidden is not None:
        return InputError(
            f"{path}: not only tensors: reading it would unpickle {forbidden[1]}, which can run any code",
            hint="where you trust the file, save its state_dict alone: torch.save(model.state_dict(), ...)",
        )
    if "TorchScript" in text:
        return InputError(
            f"{path}: a TorchScript archive, which holds code beside tensors",
            hint="save the state_dict of the module instead: torch.save(model.state_dict(), ...)",
        )
    # Of torch's page of advice, which ends in reading the file unsafely, only the reason is of use.
    reason = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    if reason is not None:
        detail = reason[1][:200]
    elif "Weights only load failed" in text or not text.strip():
        detail = "no pickle of tensors in it"
    else:
        detail = text.strip().splitlines()[0][:200]
    return InputError(
        f"{path}: not a readable PyTorch checkpoint: {detail}",
        hint="the file may be truncated: copy it again",
    )


def _container(path: Path, content: Any) -> tuple[Mapping[Any, Any], str]:
    """The mapping of names to tensors inside what a file holds, and its key where it is one of several networks'."""
    chosen = ""
    for _ in range(3):  # wrappers in wrappers occur, but not many
        if not isinstance(content, Mapping):
            raise InputError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
        keys = (*CONTAINERS, *FOLLOWERS)
        inner = next((key for key in keys if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        chosen = inner if inner in FOLLOWERS else chosen
        content = content[inner]
    if not any(hasattr(value, "layout") for value in content.values()):
        found = listed(str(key) for key in content) or "nothing"
        raise InputError(
            f"{path}: no tensors: the file holds {found}",
            hint=f"expected a state_dict, bare or under one of {', '.join(CONTAINERS)}",
        )
    return content, chosen


def _torch_entry(tensor: Any) -> Entry:
    import torch

    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    readable = dense and tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    dtype = str(tensor.dtype).removeprefix("torch.") if dense else f"{tensor.layout} on {tensor.device}"

    def load() -> FloatArray:
        return tensor.detach().to(torch.float32).contiguous().numpy()

    return Entry(tuple(tensor.shape), dtype, load if readable else None)


def _read_shards(folder: Path) -> dict[str, Entry]:
    """Rank 0 holds everything and its experts, the other ranks their experts: joined in the order of ranks."""
    files = sorted(
        (path for path in folder.iterdir() if re.fullmatch(r"\d{1,5}", path.stem) and path.is_file()),
        key=lambda path: int(path.stem),
    )
    if not files or [int(path.stem) for path in files] != list(range(len(files))):
        found = listed(path.name for path in files) or "none"
        raise InputError(
            f"{folder}: shards {found}, expected 0.pth, 1.pth, ... without a gap",
            hint="a sharded checkpoint is a folder with one file a rank",
        )
    first, *others = [_read_file(path) for path in files]
    shards = {key: [entry] for key, entry in first.items()}
    for path, entries in zip(files[1:], others, strict=True):
        expected = {key for key in first if EXPERT_PART in key}
        for kind, keys in (("missing", expected - set(entries)), ("unexpected", set(entries) - expected)):
            if keys:
                raise InputError(
                    f"{path}: {kind} tensors: {listed(sorted(keys))}",
                    hint="ranks other than 0 hold the same expert tensors (*.mlp.experts.*) and nothing else",
                )
        for key, entry in entries.items():
            if not entry.shape or entry.shape[1:] != first[key].shape[1:]:
                raise InputError(
                    f"{path}: tensor {key}: shape {entry.shape}, but {first[key].shape} in {files[0].name}"
                )
            shards[key].append(entry)
    return {key: _join(parts) for key, parts in shards.items()}


def _read_index(path: Path) -> dict[str, Entry]:
    """The tensors of the shards beside an index, of which each holds some tensors whole."""
    index = read_json(path, MOST_INDEX_BYTES)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise InputError(f"{path}: no weight_map, expected names of tensors and of the files that hold them")
    entries: dict[str, Entry] = {}
    for name in dict.fromkeys(places.values()):
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(_INDEXED):
            raise InputError(
                f"{path}: weight_map names the file {shown(name)}, expected one beside it that ends with "
                f"{' or '.join(_INDEXED)}"
            )
        shard = path.parent / name
        require_file(shard, hint=f"{path.name} names it: copy all files of the folder")
        found = _read_file(shard)
        expected = {key for key, place in places.items() if place == name}
        for kind, keys in (("missing", expected - set(found)), ("unexpected", set(found) - expected)):
            if keys:
                raise InputError(
                    f"{shard}: {kind} tensor{'s' if len(keys) > 1 else ''}, by {path.name}: {listed(sorted(keys))}",
                    hint="the index and the shards belong to different networks",
                )
        entries |= found
    return entries


def _join(parts: list[Entry]) -> Entry:
    if len(parts) == 1:
        return parts[0]
    loads = [part.load for part in parts if part.load is not None]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])

    def load() -> FloatArray:
        return np.concatenate([read() for read in loads])

    return Entry(shape, parts[0].dtype, load if len(loads) == len(parts) else None)


def prefix_of(state: State, anchor: str) -> str | None:
    """Prefix before `anchor` in the one tensor whose name ends with it; None where there is none.

    Raises:
        InputError: several tensors end with it.
    """
    found = [key for key in state.entries if key == anchor or key.endswith(f".{anchor}")]
    if len(found) > 1:
        raise InputError(
            f"{state.source}: several networks in one file: {listed(found)}", hint="save one of them alone"
        )
    return found[0].removesuffix(anchor) if found else None
