"""Hardware of a build: sizes and clock of the accelerator, in `hardware.toml` and on the command line."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from boards import FAMILIES, Board, Family, FamilyName
from common.capacities import CAPACITIES, Capacities
from common.contract import Backend
from common.errors import InputError
from common.toml import read_toml
from pysim import datapath, tables
from pysim.arithmetic import ICCAD23, arithmetic_of
from pysim.design import VERSION, AttentionRows, default_attention_rows
from pysim.files import validate
from pysim.kernels import iccad23
from pysim.network import Network

Power = Annotated[int, Field(ge=1, le=1024, strict=True)]
Most = Annotated[int, Field(ge=1, le=65535, strict=True)]

MemoryKind = Literal["lut", "block", "ultra"]
"""Kind of a memory: LUTs, block RAM or ultra RAM."""

SHALLOW = 256
"""Most scores of a row that the default hardware keeps in LUTs."""

WEIGHT_IMAGE_VERSION = 2
"""Version of the weight image's layout, whose offsets are baked into the generated C++."""

QUANTISER_ONLY = {"name", "learned_rounding", "balanced"}
"""Options of a precision that no hardware knows of."""

CLOCK_MHZ = 300.0
"""Clock of the default hardware, on boards whose own default is no lower."""


STREAM_KIB = 64
"""Size of the buffer of an RTL accelerator's weight streamer where none is given."""


class Hardware(BaseModel):
    """Sizes of the accelerator. Only `attention_rows` has any influence on results.

    Which of them go together, and with which network, `Architecture` decides. Capacities (`max_tokens` and what follows
    it, see `common.capacities`) are those of an RTL accelerator; where one is not given, it is what the network needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    lanes: Power = 16
    """Channels of a word: inputs that one output of the linear engine takes a cycle."""
    outputs: Power = 16
    """Outputs that the linear engine works on at once: a multiple of `lanes`."""
    token_tile: Power = 4
    """Tokens that share a weight while it is in the linear engine."""
    attention_rows: AttentionRows = 16
    """P: query rows that share one pass over the keys."""
    axi_width: Literal[32, 64, 128, 256, 512] = 128
    """Bits of a memory port."""
    weight_ports: Annotated[int, Field(ge=1, le=16, strict=True)] = 4
    """Memory ports that load weights side by side."""
    weight_rows: Annotated[int, Field(ge=1, le=8192, strict=True)] = 512
    """Depth of each half of the weight buffer, in words of `lanes` x `outputs` weights."""
    router_lanes: Literal[2, 4, 8, 16, 32] = 4
    """Experts whose logits the router computes at once."""
    weight_memory: MemoryKind = "block"
    """Kind of memory of the weight buffer."""
    operand_memory: MemoryKind = "block"
    """Kind of memory of the operands of the linear engine."""
    residual_memory: Literal["block", "ultra"] = "block"
    """Kind of memory of the residual stream, of which LayerNorm reads two words a cycle."""
    head_memory: MemoryKind = "block"
    """Kind of memory of queries, keys and values."""
    gate_memory: MemoryKind = "block"
    """Kind of memory of the router's copy of the tokens."""
    score_memory: MemoryKind = "lut"
    """Kind of memory of attention scores."""
    choice_memory: Literal["lut", "block"] = "block"
    """Kind of memory of the router's logits, choices and sums."""
    table_memory: Literal["lut", "block"] = "block"
    """Kind of memory of tables of more than 256 segments."""
    max_batch: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    """Images that share each weight while it is on chip."""
    clock_mhz: Annotated[float, Field(ge=1, le=1000)] = CLOCK_MHZ
    """Clock of the accelerator."""
    max_tokens: Most | None = None
    """Most tokens of an image."""
    max_token_words: Most | None = None
    """Most words of a token of the residual stream."""
    max_head_words: Most | None = None
    """Most words of an attention head."""
    max_mixed_words: Most | None = None
    """Most words of a row of queries, keys or values: all heads."""
    max_row_words: Most | None = None
    """Most words of a row of operands: the regions of a token, one behind the other."""
    max_experts: Annotated[int, Field(ge=0, le=65535, strict=True)] | None = None
    """Most experts of a layer; 0 for an accelerator without a router."""
    max_top_k: Annotated[int, Field(ge=0, le=255, strict=True)] | None = None
    """Most experts that a token chooses."""
    max_tasks: Annotated[int, Field(ge=1, le=256, strict=True)] | None = None
    """Most tasks."""
    max_jobs: Most | None = None
    """Most jobs of a job table."""
    max_group: Annotated[int, Field(ge=1, le=8192, strict=True)] | None = None
    """Most blocks of outputs in each half of the weight buffer."""
    stream_kib: Annotated[int, Field(ge=4, le=8192, strict=True)] | None = None
    """KiB by which the weight streamer of an RTL accelerator may be ahead: a power of two, or the next one below."""
    stream_memory: Literal["block", "ultra"] | None = None
    """Kind of memory that these are; block RAM if nothing is given."""
    backend: Backend = "hls"
    """Language of the accelerator: `hls`, with its network synthesised in, or `rtl`, which reads it from memory."""
    family: FamilyName = "zynq-ultrascale+"
    """Family of devices, whose DSP slices decide what they can multiply: that of the board, always."""

    @property
    def device(self) -> Family:
        """The family of devices, which says what its DSP slices can do."""
        return FAMILIES[self.family]

    def changed(self, **changes: Any) -> Hardware:
        """Hardware with other values of some fields.

        Raises:
            InputError: no such field, or a value out of its range.
        """
        return _changed(self, changes, "hardware")

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields; capacities that are not given are left out, since TOML has no word for nothing."""
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def given_capacities(self) -> dict[str, int]:
        """The capacities that are given, by name."""
        values = {name: getattr(self, name) for name in CAPACITIES}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def stream_beats(self) -> int:
        """Beats of the buffer of an RTL accelerator's weight streamer."""
        beat_bytes = self.weight_ports * self.axi_width // 8
        beats = 1024 * (self.stream_kib or STREAM_KIB) // beat_bytes
        return 1 << (beats.bit_length() - 1)

    def with_capacities(self, capacities: Capacities) -> Hardware:
        """Hardware with all capacities given."""
        return self.changed(**capacities.as_dict())

    def with_settings(self, settings: Sequence[str]) -> Hardware:
        """Hardware with the settings of a command line.

        Args:
            settings: each as `key=value`, such as `lanes=8`.

        Raises:
            InputError: no `=`, no such key, a key given twice, or a value out of its range.
        """
        return _changed(self, parse_settings(settings), "--set")

    def save(self, path: Path) -> None:
        """Write a `hardware.toml`."""
        path.write_bytes(tomli_w.dumps({"hardware": self.model_dump()}).encode())

    @classmethod
    def load(cls, path: Path, default: Hardware | None = None) -> Hardware:
        """Read a `hardware.toml`.

        Args:
            path: the file.
            default: what holds for the keys that the file does not name; without it they have the fields' defaults.

        Raises:
            InputError: not TOML, no table `[hardware]`, another table or key, or a value out of its range.
        """
        data = read_toml(path)
        table = data.get("hardware")
        if not isinstance(table, dict) or len(data) != 1:
            found = ", ".join(data) or "nothing"
            raise InputError(
                f"{path}: holds {found[:200]}, expected one table [hardware]",
                hint=f"such as the hardware.toml of a build; {_keys()}",
            )
        return _changed(default or cls(), table, f"{path}: hardware")


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Values by key of the settings of a command line, each as `key=value`; their ranges are not looked at.

    Raises:
        InputError: no `=`, no such key, or a key given twice.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise InputError(f"--set {setting}: expected key=value, such as lanes=8", hint=_keys())
        if name not in settable():
            raise _no_key(f"--set {setting}", name)
        if name in changes:
            raise InputError(f"--set {setting}: {name} is set twice", hint="give each key once")
        changes[name] = _number(text)
    return changes


def settable() -> dict[str, str]:
    """Range of each field that a user chooses, by its name."""
    schema = Hardware.model_json_schema()["properties"]
    # One that may be absent has its range in the first of two alternatives.
    ranges = {name: field.get("anyOf", [field])[0] for name, field in schema.items()}
    return {
        name: ", ".join(map(str, field["enum"]))
        if "enum" in field
        else f"{field['minimum']} to {field['maximum']}"
        for name, field in ranges.items()
        if name not in _NOT_SET
    }


_NOT_SET = ("backend", "family")
"""Fields that follow from other options: `--backend` and `--board`."""


def _keys() -> str:
    return "the keys are " + "; ".join(f"{name} ({values})" for name, values in settable().items())


def _no_key(source: str, name: str) -> InputError:
    close = difflib.get_close_matches(name, settable(), n=1)
    meant = f", did you mean {close[0]}?" if close else ""
    return InputError(f"{source}: no key {name[:60]!r}{meant}", hint=_keys())


def _changed(base: Hardware, changes: Mapping[str, Any], source: str) -> Hardware:
    for name in changes:
        if name not in Hardware.model_fields:
            raise _no_key(source, name)
    try:
        return validate(Hardware, base.model_dump() | dict(changes), source)
    except InputError as error:
        raise InputError(error.message, hint=_keys()) from None


def _number(text: str) -> int | float | str:
    """The number that a text spells, or the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def default_hardware(
    network: Network, board: Board | None = None, attention_rows: int | None = None
) -> Hardware:
    """Hardware that suits a ZCU102, at the board's clock and with its DSP slices.

    Narrow weights share DSP slices in pairs, which pays for twice the outputs. The original's arithmetic, whose
    products take several slices each, gets the original's size.

    Args:
        network: shape and precision.
        board: the board; without one, a device of the family's default at 300 MHz.
        attention_rows: P; what suits the shape where it is not given.
    """
    precision = network.precision
    narrow = precision.weight_width <= 8 and precision.activation_width <= 8
    original = arithmetic_of(precision) is ICCAD23
    hardware = Hardware(
        outputs=32 if narrow and not original else 16,
        token_tile=1 if original else 4,
        score_memory="lut" if network.spec.tokens <= SHALLOW else "block",
        attention_rows=attention_rows or default_attention_rows(network.spec, precision),
    )
    if board is None:
        return hardware
    return hardware.changed(clock_mhz=min(CLOCK_MHZ, board.clock_mhz_default), family=board.family)


def hardware_on(board: Board, hardware: Hardware) -> Hardware:
    """Chosen hardware on a board: with the board's DSP slices.

    Raises:
        InputError: a faster clock than the board may have.
    """
    check_clock(board, hardware.clock_mhz)
    return hardware.changed(family=board.family)


def check_clock(board: Board, clock_mhz: float) -> None:
    """Refuse a faster clock than a board may have.

    Raises:
        InputError: it is faster.
    """
    if clock_mhz > board.clock_mhz_max:
        raise InputError(
            f"clock_mhz = {clock_mhz:g}, expected at most {board.clock_mhz_max:g} on {board.name}",
            hint=f"a slower clock, such as the board's default: clock_mhz = {board.clock_mhz_default:g}",
        )


def hardware_id(network: Network, hardware: Hardware) -> str:
    """16 hexadecimal digits over everything that is synthesised; weights and clock are not part of it.

    Of the network that is its shape, for an accelerator of C++. For an RTL accelerator, whose capacities must all be
    given, it is precision and activation function alone: every network that may run on it has the same identity.
    LayerNorm's sums narrow the residual stream of very wide networks, which counts as precision.
    """
    deltas = [delta for delta in (network.activation.delta,) if delta is not None]
    rtl = hardware.backend == "rtl"
    baked = {
        "version": VERSION,
        "weight_image": WEIGHT_IMAGE_VERSION,
        "model": {"activation": network.spec.activation} if rtl else network.spec.shape(),
        "precision": network.precision.model_dump(exclude=QUANTISER_ONLY, mode="json")
        | {"residual_width": network.residual_width},
        "hardware": hardware.model_dump(exclude={"clock_mhz"}, mode="json"),
        "formats": {name: str(fmt) for name, fmt in datapath.FORMATS.items()},
        "tables": [
            (t.name, t.base.tolist(), t.slope.tolist(), t.frac, t.step_bits)
            for t in (*tables.UNIT_TABLES, *deltas, *iccad23.TABLES)
        ],
        "gelu_table": iccad23.GELU_TABLE.tolist(),
    }
    return hashlib.sha256(json.dumps(baked, sort_keys=True).encode()).hexdigest()[:16]
