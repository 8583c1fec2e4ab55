"""Precision presets: the widths of a design's operands, and how its values are narrowed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.errors import InputError
from common.toml import read_toml
from pysim.files import validate

Width = Annotated[int, Field(ge=4, le=18, strict=True)]


class Precision(BaseModel):
    """Widths in bits and options of a preset; formats inside the function units are in `pysim.datapath`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\z")]
    """Name in a Design, and in files that are made of it."""
    arithmetic: Literal["requantise", "iccad23"] = "requantise"
    """Exact sums with one rounding a value, or the original's truncating and wrapping arithmetic."""
    weight_width: Width = 16
    """Weights of the linear layers."""
    activation_width: Width = 16
    """Operands of the linear layers: normalised tokens, attention output, MLP hidden values."""
    attention_width: Width = 16
    """Queries, keys and values."""
    gate_width: Width = 16
    """Operands of the router: its copy of the normalised tokens, and the gate's weights."""
    residual_width: Annotated[int, Field(ge=8, le=32, strict=True)] = 24
    """The residual stream; narrowed for models so wide that LayerNorm's sums would leave 64 bits."""
    multipliers: bool = False
    """Scales are any real number (a multiplier and a shift) instead of a power of two (a shift)."""
    learned_rounding: bool = False
    """Weights are rounded for the least error of a layer's output on the calibration images, not one by one."""
    balanced: bool = False
    """Channels are centred and evened out between layers, by factors folded into their parameters."""


PRESETS = {
    preset.name: preset
    for preset in (
        Precision(name="w16a16"),
        Precision(
            name="w8a8",
            weight_width=8,
            activation_width=8,
            multipliers=True,
            balanced=True,
            learned_rounding=True,
        ),
        Precision(
            name="w8a10",
            weight_width=8,
            activation_width=10,
            multipliers=True,
            balanced=True,
            learned_rounding=True,
        ),
        Precision(name="iccad23", arithmetic="iccad23", residual_width=32),
    )
}


NARROWED = {
    "w8a8-lean": PRESETS["w8a8"].model_copy(
        update={"name": "w8a8-lean", "attention_width": 10, "gate_width": 10, "residual_width": 16}
    )
}
"""Presets that are others with fewer bits where it costs little, for boards with little memory."""

NAMED = PRESETS | NARROWED
"""Every preset by its name."""


def preset(name: str) -> Precision:
    """The preset of that name."""
    if name not in NAMED:
        raise InputError(
            f"precision {name!r} is unknown",
            hint=f"choose one of {', '.join(NAMED)}, or give the path of a .toml file with widths of your own",
        )
    return NAMED[name]


def find_precision(name_or_path: str) -> Precision:
    """The preset of that name, or what a `.toml` file describes.

    The file has one table `[precision]` with fields of `Precision`; `base` names the preset that the others come
    from (w16a16 where there is none), and `name` is the file's own where it is not given.

    Raises:
        InputError: no such preset or file, or a file with mistakes.
    """
    if not name_or_path.lower().endswith(".toml"):
        return preset(name_or_path)
    path = Path(name_or_path)
    data = read_toml(path, hint=f"without .toml it is a preset: {', '.join(NAMED)}")
    table = data.get("precision")
    if not isinstance(table, dict) or len(data) != 1:
        raise InputError(
            f"{path}: expected one table [precision] and nothing else",
            hint=f"with fields such as attention_width = 10; there are base, {_fields()}",
        )
    base = table.pop("base", "w16a16")
    if not isinstance(base, str) or base not in NAMED:
        raise InputError(f"{path}: precision: base is no preset", hint=f"choose one of {', '.join(NAMED)}")
    content: dict[str, Any] = NAMED[base].model_dump() | {"name": path.stem} | table
    try:
        return validate(Precision, content, f"{path}: precision")
    except InputError as error:
        raise InputError(error.message, hint=f"the fields are base, {_fields()}") from None


def _fields() -> str:
    return ", ".join(Precision.model_fields)
