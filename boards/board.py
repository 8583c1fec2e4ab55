"""The description of a board, and reading it from a TOML file."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from boards.family import FAMILIES, FamilyName
from common.errors import InputError
from common.printable import one_line, shown, shown_key
from common.toml import read_toml

_SHIPPED: Final = Path(__file__).parent


class BoardError(InputError):
    """Raised for a board that does not exist, or a board file that cannot be used."""


def _one_line(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


Text = Annotated[str, AfterValidator(_one_line)]
Count = Annotated[int, Field(ge=1, le=100_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=100_000_000)]
# Part numbers and names end up in Tcl scripts and file names: only what is harmless there.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\z")]
Part = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-zA-Z0-9]+)*\z")]
BoardPart = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+:[A-Za-z0-9._-]+:part0:[0-9]+(\.[0-9]+)*\z")
]
Platform = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\z")]
PynqName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\z")]
Megahertz = Annotated[float, Field(ge=1, le=1500, allow_inf_nan=False)]


class Board(BaseModel):
    """A board as a design sees it: part, resources, memory and clocks.

    Attributes:
        name: what the command line calls it (lower case).
        title: what its maker calls it.
        family: which processing system surrounds the logic; decides the block design.
        part: the part number, as Vivado spells it.
        board_part: Vivado's name of the board file, which carries the preset of the processing system.
        pynq_name: the name of the board in PYNQ images (`BOARD`), or None where there is no official image.
        dsp: DSP slices (DSP48).
        bram36: block RAMs of 36 Kb.
        uram: UltraRAMs of 288 Kb.
        lut: six-input lookup tables.
        ff: flip-flops.
        lutram_luts: those of the lookup tables that can be memory or shift registers, where known.
        dram_gb_s: peak of the DRAM that the ports reach, in 1e9 bytes a second: transfer rate x width / 8.
        ports: high-performance ports from logic to DRAM: S_AXI_HP on Zynq, HBM ports on Alveo.
        coherent_ports: further ports to the same DRAM that pass the cache-coherent interconnect (S_AXI_HPC).
        port_width: data bits of one port.
        clock_mhz_default: what a generated design runs at unless told otherwise.
        clock_mhz_max: the highest clock that is sane to ask for in a generated design.
        software: images and tools that support the board.
        shell_percent: percent of every resource that the card's shell takes before any design, where there is one.
        platform: the card's platform, as `v++` spells it.
        memory_bank: name of the memory behind the ports in `v++` (HBM or DDR); each port has a bank of its own.
        bank_mb: size of a bank in MiB.
        sources: where each value is from, by field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    title: Text
    family: FamilyName
    part: Part
    board_part: BoardPart
    pynq_name: PynqName | None = None
    software: Text | None = None
    dsp: Count
    bram36: Count
    uram: CountOrZero
    lut: Count
    ff: Count
    lutram_luts: Count | None = None
    dram_gb_s: Annotated[float, Field(ge=0.001, le=100_000, allow_inf_nan=False)]
    ports: Annotated[int, Field(ge=1, le=256)]
    coherent_ports: Annotated[int, Field(ge=0, le=256)] = 0
    port_width: Literal[32, 64, 128, 256, 512, 1024]
    clock_mhz_default: Megahertz
    clock_mhz_max: Megahertz
    shell_percent: Annotated[float, Field(ge=0, le=90, allow_inf_nan=False)] | None = None
    platform: Platform | None = None
    memory_bank: Literal["HBM", "DDR"] | None = None
    bank_mb: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    sources: dict[str, Text] = Field(default_factory=dict)

    @field_validator("part")
    @classmethod
    def _part_of_family(cls, part: str, info: ValidationInfo) -> str:
        family = info.data.get("family")
        if family is not None:
            known = FAMILIES[family]
            if not re.match(known.part_pattern, part):
                raise ValueError(f"is no part of family {family}, which are like {known.example}")
        return part

    @field_validator("lutram_luts")
    @classmethod
    def _no_more_than_lut(cls, value: int | None, info: ValidationInfo) -> int | None:
        lut = info.data.get("lut")
        if value is not None and lut is not None and value > lut:
            raise ValueError(f"must be at most lut = {lut}, of which it is a part")
        return value

    @field_validator("clock_mhz_max")
    @classmethod
    def _no_less_than_default(cls, value: float, info: ValidationInfo) -> float:
        default = info.data.get("clock_mhz_default")
        if default is not None and value < default:
            raise ValueError(f"must be at least clock_mhz_default = {default:g}")
        return value

    @field_validator("sources")
    @classmethod
    def _sources_of_fields(cls, sources: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(sources) - (set(cls.model_fields) - {"sources"}))
        if unknown:
            raise ValueError(f"no such field: {', '.join(map(shown_key, unknown[:5]))}")
        return sources

    def available(self, resource: str) -> int:
        """Amount of a resource (dsp, bram36, uram, lut, ff) that a design may have: what the shell leaves of it."""
        return int(getattr(self, resource) * (100 - (self.shell_percent or 0)) / 100)

    def read_gb_s(self, clock_mhz: float | None = None) -> float:
        """The most that the `ports` together can read from DRAM, in 1e9 bytes a second.

        The lesser of the DRAM's peak and what the ports carry at `clock_mhz` (default: the board's default).
        A bound, not a promise: refresh, turnarounds and the processors' own traffic take their share.
        """
        clock = self.clock_mhz_default if clock_mhz is None else clock_mhz
        return min(self.dram_gb_s, self.ports * self.port_width / 8 * clock / 1000)


def board_names() -> tuple[str, ...]:
    """Names of the shipped boards, in alphabetical order."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def load_board(name_or_path: str) -> Board:
    """The board of that name, or the one that a `.toml` file describes.

    Anything that ends in `.toml` is a path; a name may be spelled in upper case.

    Raises:
        BoardError: no such board or file, or a file with mistakes, all of which are named in one message.
    """
    if name_or_path.lower().endswith(".toml"):
        return _read(Path(name_or_path))
    names = board_names()
    name = name_or_path.lower()
    if name in names:
        return _read(_SHIPPED / f"{name}.toml")
    close = difflib.get_close_matches(name, names, n=2)
    raise BoardError(
        f"no board {name_or_path!r}; there are {', '.join(names)}",
        hint=(f"did you mean {' or '.join(close)}? " if close else "")
        + "a board of your own is described in a .toml file, which is given by its path",
    )


def _read(path: Path) -> Board:
    try:
        data = read_toml(path, hint=f"without .toml it is a name: {', '.join(board_names())}")
    except InputError as error:
        raise BoardError(error.message, hint=error.hint) from None
    try:
        return Board.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
    problems = [_describe(problem) for problem in found[:_MOST_PROBLEMS]]
    if len(found) > len(problems):
        problems.append(f"and {len(found) - len(problems):,} more")
    raise BoardError(f"{one_line(path)}: " + "; ".join(problems), hint="docs/boards.md explains every field")


_MOST_PROBLEMS: Final = 30
"""Fields that a message names: more than a board has."""

_SPELLINGS: Final = {
    "name": "my-board (lower case, digits, '.', '_' and '-')",
    "part": "xczu9eg-ffvb1156-2-e",
    "board_part": "xilinx.com:zcu102:part0:3.4",
    "pynq_name": "Pynq-Z2",
    "platform": "xilinx_u280_gen3x16_xdma_1_202211_1",
}


def _describe(problem: Any) -> str:
    """One problem that pydantic found, as `field: what is wrong (got what)`."""
    field = ".".join(map(shown_key, problem["loc"])) or "(whole file)"
    if problem["type"] == "missing":
        return f"{field}: is missing"
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, list(Board.model_fields), n=1)
        return f"{field}: no such field" + (f", did you mean {close[0]}?" if close else "")
    if problem["type"] == "string_pattern_mismatch":
        reason = f"must be spelled like {_SPELLINGS[field]}"
    else:
        reason = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = problem["input"]
    return f"{field}: {reason}" + (f" (got {shown(given)})" if isinstance(given, (str, int, float)) else "")


def markdown_table() -> str:
    """The shipped boards as a Markdown table, which `docs/boards.md` holds."""
    columns = (
        "Board",
        "Part",
        "DSP",
        "BRAM36",
        "URAM",
        "LUT",
        "FF",
        "DRAM GB/s",
        "Ports",
        "Clock MHz",
        "PYNQ",
    )
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("| --- | --- |" + " ---: |" * 6 + " --- | --- | --- |")
    for board in map(load_board, board_names()):
        coherent = f" + {board.coherent_ports}" if board.coherent_ports else ""
        cells = (
            f"`{board.name}`",
            f"`{board.part}`",
            *(str(count) for count in (board.dsp, board.bram36, board.uram, board.lut, board.ff)),
            f"{board.dram_gb_s:g}",
            f"{board.ports}{coherent} x {board.port_width} bit",
            f"{board.clock_mhz_default:g} (max. {board.clock_mhz_max:g})",
            f"`{board.pynq_name}`" if board.pynq_name else "-",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def software_table() -> str:
    """Images and tools of the shipped boards as a Markdown table, which `docs/boards.md` holds."""
    lines = ["| Board | Images and tools |", "| --- | --- |"]
    lines += [f"| `{board.name}` | {board.software or '-'} |" for board in map(load_board, board_names())]
    return "\n".join(lines) + "\n"
