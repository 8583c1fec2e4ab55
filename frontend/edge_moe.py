"""Importer of the original Edge-MoE's weight folder: one raw little-endian float32 file a tensor.

The folder says most of the shape by which files it holds and how long they are; the number of heads, the
image's size and top-k it cannot tell, so these are arguments whose defaults are the published network's.
Gates are stored transposed there, (experts, dim), which is the order of our `gate.weight`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from pysim.arithmetic import Role, Tensor
from pysim.files import Tensors, validate
from pysim.model import Model
from pysim.program import Embed, Gate, Linear, Norm, linears, of_type, program
from pysim.spec import ModelSpec

SUFFIX = ".float32.bin"
ITEM = 4
"""Bytes of a float32."""

FILL_HINT = "--fill-missing-experts SEED fills them with random weights"

_TASK_NAMES = ("semseg", "depth")
_SHOWN = 4


@dataclass(frozen=True)
class Geometry:
    """Sizes that the folder cannot tell; the defaults are those of the published network."""

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
    parameters = _parameters(spec)
    gates = [gate for op in of_type(program(spec), Gate) for gate in _gate_files(op)]
    missing = [file for file in [*(p.file for p in parameters), *gates] if not (folder / file).is_file()]
    unfilled = [p for p in parameters if p.expert is not None and p.file in missing]
    experts = [p.file for p in unfilled]
    _refuse_missing(folder, [file for file in missing if file not in experts])
    if fill_missing_experts is None:
        _refuse_missing(folder, experts, hint=FILL_HINT)

    weights = {p.name: _read(folder / p.file, p.shape) for p in parameters if p.file not in experts}
    for op in of_type(program(spec), Gate):
        each = [_read(folder / file, op.weight.shape[1:]) for file in _gate_files(op)]
        assert op.weight.source is not None
        weights[op.weight.source.name] = np.stack(each)
    if unfilled and fill_missing_experts is not None:
        weights |= _random_experts(spec, weights, unfilled, fill_missing_experts)
        spec = spec.model_copy(update={"notes": _fill_note(unfilled, fill_missing_experts)})
    return Model(spec, weights)


class _Parameter(NamedTuple):
    """One of our tensors, its file, and the experts' layer whose weights it holds, if it is one."""

    name: str
    shape: tuple[int, ...]
    file: str
    expert: Linear | None = None


def _parameters(spec: ModelSpec) -> list[_Parameter]:
    """Every tensor but the gates, which have a file for each task."""
    found = []
    for op in program(spec):
        if isinstance(op, Norm):
            found += [_parameter(op, tensor) for tensor in (op.gamma, op.beta)]
        elif isinstance(op, Embed):
            found.append(_parameter(op, op.position))
        for linear in linears((op,)):
            found += [_parameter(linear, tensor) for tensor in (linear.weight, linear.bias)]
    return found


def _parameter(op: Embed | Norm | Linear, tensor: Tensor) -> _Parameter:
    assert tensor.source is not None and tensor.role is not None
    if tensor.role is Role.POSITION:
        return _Parameter(*tensor.source, f"pos_embed{SUFFIX}")
    theirs, expert = {"patch": "patch_embed", "proj": "attn_proj"}.get(op.part, op.part), None
    if isinstance(op, Linear) and op.experts is not None:
        theirs, expert = {"fc1": "htoh4", "fc2": "h4toh"}[op.part], op
    part = "bias" if tensor.role.is_bias else "weight"
    file = f"{'' if op.layer is None else f'l{op.layer}_'}{theirs}_{part}{SUFFIX}"
    return _Parameter(*tensor.source, file, None if tensor.role.is_bias else expert)


def _gate_files(op: Gate) -> list[str]:
    """A file for every task."""
    return [f"l{op.layer}_w_gate_T_task{task}{SUFFIX}" for task in range(op.tasks)]


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


def _random_experts(spec: ModelSpec, weights: Tensors, unfilled: list[_Parameter], seed: int) -> Tensors:
    """Normal weights with the spread of the dense layers', each layer's drawn from a stream of its own."""
    dense = [op for op in linears(program(spec)) if op.experts is None]
    filled: Tensors = {}
    for name, shape, _, op in unfilled:
        assert op is not None and op.layer is not None
        sources = [each.weight.source for each in dense if each.part == op.part]
        like = [weights[source.name] for source in sources if source is not None]
        spread = float(np.mean([tensor.std() for tensor in like])) if like else shape[-1] ** -0.5
        generator = np.random.default_rng([seed, op.layer, {"fc1": 1, "fc2": 2}[op.part]])
        filled[name] = generator.normal(0.0, spread, shape).astype(np.float32)
    return filled


def _fill_note(unfilled: list[_Parameter], seed: int) -> str:
    layers = sorted({p.expert.layer for p in unfilled if p.expert is not None and p.expert.layer is not None})
    return (
        f"EXPERT WEIGHTS ARE RANDOM in layers {', '.join(map(str, layers))} (seed {seed}): the source folder "
        "lacks them. Outputs mean nothing."
    )
