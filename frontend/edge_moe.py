"""Importer of the original Edge-MoE's weight folder: one raw little-endian float32 file a tensor.

The folder says most of the shape by which files it holds and how long they are; the number of heads, the
image's size and top-k it cannot tell, so these are arguments whose defaults are the published network's.
Gates are stored transposed there, (experts, dim), which is the order of our `gate.weight`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pysim.errors import InputError
from pysim.files import Tensors, validate
from pysim.model import Model, tensor_shapes
from pysim.spec import ModelSpec

SUFFIX = ".float32.bin"
ITEM = 4
"""Bytes of a float32."""

FILL_HINT = "--fill-missing-experts SEED fills them with random weights"

_TASK_NAMES = ("semseg", "depth")
_SHOWN = 4


@dataclass(frozen=True)
class Geometry:
    """What the folder cannot tell; the defaults are those of the published network."""

    heads: int = 3
    top_k: int = 2
    image_size: tuple[int, int] = (128, 256)
    patch_size: int = 16
    norm_eps: float = 1e-6


def import_edge_moe(
    folder: Path, geometry: Geometry | None = None, *, fill_missing_experts: int | None = None
) -> Model:
    """Read a weight folder of the original as a Model.

    Args:
        folder: holds `patch_embed_weight.float32.bin` and its like.
        geometry: what the folder cannot tell.
        fill_missing_experts: seed of random weights for the experts whose files are missing; the Model's
            `notes` say so.

    Raises:
        InputError: no such folder; missing files; a file of the wrong length; weights that are not finite.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", hint="expected a folder of *.float32.bin files")
    spec = _infer_spec(folder, geometry or Geometry())
    files = {name: _file_name(name) for name in tensor_shapes(spec) if ".gate." not in name}
    gates = {
        f"l{layer}_w_gate_T_task{task}{SUFFIX}"
        for layer in spec.moe_layers
        for task in range(len(spec.tasks))
    }
    missing = [file for file in [*files.values(), *sorted(gates)] if not (folder / file).is_file()]
    experts = [file for file in missing if _is_expert_weight(file)]
    _refuse_missing(folder, [file for file in missing if file not in experts])
    if fill_missing_experts is None:
        _refuse_missing(folder, experts, hint=FILL_HINT)

    shapes = tensor_shapes(spec)
    weights = {
        name: _read(folder / file, shapes[name]) for name, file in files.items() if file not in experts
    }
    for layer in sorted(spec.moe_layers):
        shape = shapes[f"blocks.{layer}.moe.gate.weight"][1:]
        each = [
            _read(folder / f"l{layer}_w_gate_T_task{task}{SUFFIX}", shape) for task in range(len(spec.tasks))
        ]
        weights[f"blocks.{layer}.moe.gate.weight"] = np.stack(each)
    if experts and fill_missing_experts is not None:
        filled = [name for name, file in files.items() if file in experts]
        weights |= _random_experts(spec, weights, filled, fill_missing_experts)
        spec = spec.model_copy(update={"notes": _fill_note(filled, fill_missing_experts)})
    return Model(spec, weights)


def _file_name(tensor: str) -> str:
    """File of one of our tensors."""
    name = re.sub(r"^blocks\.(\d+)\.", r"l\1_", tensor)
    for ours, theirs in (
        ("attn.qkv", "qkv"),
        ("attn.proj", "attn_proj"),
        ("mlp.", ""),
        ("moe.fc1", "htoh4"),
        ("moe.fc2", "h4toh"),
    ):
        name = name.replace(ours, theirs)
    return name.replace(".", "_") + SUFFIX


def _is_expert_weight(file: str) -> bool:
    return re.fullmatch(rf"l\d+_(htoh4|h4toh)_weight{re.escape(SUFFIX)}", file) is not None


def _refuse_missing(folder: Path, files: list[str], *, hint: str = "") -> None:
    if not files:
        return
    listed = ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")
    kind = "expert weights" if hint else "weights"
    raise InputError(
        f"{folder}: {kind} missing, {len(files)} file{'s' if len(files) > 1 else ''}: {listed}",
        hint=hint or "is this the original's weight folder, complete?",
    )


def _values(folder: Path, stem: str) -> int:
    """Number of float32 values in a file that must exist."""
    path = folder / (stem + SUFFIX)
    if not path.is_file():
        _refuse_missing(folder, [path.name])
    size = path.stat().st_size
    if size == 0 or size % ITEM:
        raise InputError(f"{path}: {size} bytes, expected a positive multiple of {ITEM} (float32)")
    return size // ITEM


def _quotient(folder: Path, stem: str, divisor: int, what: str) -> int:
    """Length of a file's first axis, the other axes being `divisor` values long."""
    values = _values(folder, stem)
    if values % divisor:
        path, unit = folder / (stem + SUFFIX), ITEM * divisor
        raise InputError(f"{path}: {ITEM * values} bytes, expected a multiple of {unit} ({what})")
    return values // divisor


def _infer_spec(folder: Path, geometry: Geometry) -> ModelSpec:
    names = [path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")]
    if not names:
        raise InputError(
            f"{folder}: no *{SUFFIX} file in this folder", hint="expected the original's weights"
        )
    depth = 1 + max(
        (int(match[1]) for name in names if (match := re.match(r"l(\d{1,4})_", name))), default=-1
    )
    if depth == 0:
        raise InputError(
            f"{folder}: no layer in this folder", hint=f"expected l0_norm1_weight{SUFFIX} and its like"
        )
    experts_at = sorted(
        {int(match[1]) for name in names if (match := re.match(r"l(\d{1,4})_(htoh4|w_gate)", name))}
    )
    dense = next((layer for layer in range(depth) if layer not in experts_at), None)
    dim = _values(folder, "l0_norm1_weight")
    patch_values = geometry.patch_size**2
    channels = _quotient(folder, "patch_embed_weight", dim * patch_values, "dim x patch")
    spec: dict[str, object] = {
        "name": "edge-moe",
        "image_size": geometry.image_size,
        "in_channels": channels,
        "patch_size": geometry.patch_size,
        "dim": dim,
        "depth": depth,
        "heads": geometry.heads,
        "mlp_dim": 4 * dim if dense is None else _values(folder, f"l{dense}_fc1_bias"),
        "norm_eps": geometry.norm_eps,
        "tasks": ["task0"],
    }
    if experts_at:
        first = experts_at[0]
        experts = _quotient(folder, f"l{first}_w_gate_T_task0", dim, "dim")
        tasks = {
            int(match[1]) for name in names if (match := re.fullmatch(r"l\d+_w_gate_T_task(\d{1,3})", name))
        }
        spec["tasks"] = [_task_name(task) for task in range(1 + max(tasks))]
        odd = experts_at == list(range(1, depth, 2))
        spec["moe"] = {
            "layers": "odd" if odd else experts_at,
            "experts": experts,
            "hidden_dim": _quotient(folder, f"l{first}_htoh4_bias", experts, "experts"),
            "top_k": geometry.top_k,
        }
    return validate(ModelSpec, spec, folder)


def _task_name(task: int) -> str:
    return _TASK_NAMES[task] if task < len(_TASK_NAMES) else f"task{task}"


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    size, expected = path.stat().st_size, ITEM * int(np.prod(shape))
    if size != expected:
        hint = "does --image-size fit these weights?" if path.name == f"pos_embed{SUFFIX}" else ""
        raise InputError(f"{path}: {size} bytes, expected {expected}: float32 of shape {shape}", hint=hint)
    try:
        return np.fromfile(path, "<f4").astype(np.float32).reshape(shape)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _random_experts(spec: ModelSpec, weights: Tensors, names: list[str], seed: int) -> Tensors:
    """Normal weights with the spread of the dense layers', each layer's drawn from a stream of its own."""
    shapes = tensor_shapes(spec)
    filled: Tensors = {}
    for name in names:
        layer, part = int(name.split(".")[1]), 1 if ".fc1." in name else 2
        dense = [weights[key] for key in weights if key.endswith(f"mlp.fc{part}.weight")]
        spread = float(np.mean([tensor.std() for tensor in dense])) if dense else shapes[name][-1] ** -0.5
        generator = np.random.default_rng([seed, layer, part])
        filled[name] = generator.normal(0.0, spread, shapes[name]).astype(np.float32)
    return filled


def _fill_note(names: list[str], seed: int) -> str:
    layers = sorted({int(name.split(".")[1]) for name in names})
    return (
        f"EXPERT WEIGHTS ARE RANDOM in layers {', '.join(map(str, layers))} (seed {seed}): the source folder "
        "lacks them. Outputs mean nothing."
    )
