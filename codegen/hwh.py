"""The `.hwh` of the emulated board: registers as Vitis HLS lays them out, in the format that Vivado writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from boards import FAMILIES, VIVADO_TEMPLATES, Board
from boards.family import ZYNQ_ULTRASCALE
from codegen.context import IP_VENDOR, IP_VERSION, TOP
from codegen.sources import Sources
from common.contract import Argument

INSTANCE: Final = f"{TOP}_0"
"""Name of the kernel in the block design."""

RESERVED_NAMES: Final = frozenset({"output", "task"})
"""Arguments whose names Verilog reserves: Vitis HLS appends `_r` to those of their registers."""

FIRST_ARGUMENT: Final = 0x10
ADDRESS_RANGE: Final = 0x10000


class Field(NamedTuple):
    """Bits of a register."""

    name: str
    description: str
    access: str
    bit: int
    width: int


class Register(NamedTuple):
    """A 32-bit register of the kernel's control interface."""

    name: str
    offset: int
    description: str
    access: str
    fields: tuple[Field, ...]


_CONTROL_REGISTERS: Final = (
    Register(
        "CTRL",
        0x0,
        "Control signals",
        "read-write",
        (
            Field("AP_START", "Control signal Register for 'ap_start'.", "read-write", 0, 1),
            Field("AP_DONE", "Control signal Register for 'ap_done'.", "read-only", 1, 1),
            Field("AP_IDLE", "Control signal Register for 'ap_idle'.", "read-only", 2, 1),
            Field("AP_READY", "Control signal Register for 'ap_ready'.", "read-only", 3, 1),
            Field("AUTO_RESTART", "Control signal Register for 'auto_restart'.", "read-write", 7, 1),
            Field("INTERRUPT", "Control signal Register for 'interrupt'.", "read-only", 9, 1),
        ),
    ),
    Register(
        "GIER",
        0x4,
        "Global Interrupt Enable Register",
        "read-write",
        (Field("Enable", "Master enable of the interrupt output.", "read-write", 0, 1),),
    ),
    Register(
        "IP_IER",
        0x8,
        "IP Interrupt Enable Register",
        "read-write",
        (
            Field("CHAN0_INT_EN", "Enable Channel 0 (ap_done) Interrupt.", "read-write", 0, 1),
            Field("CHAN1_INT_EN", "Enable Channel 1 (ap_ready) Interrupt.", "read-write", 1, 1),
        ),
    ),
    Register(
        "IP_ISR",
        0xC,
        "IP Interrupt Status Register",
        "read-write",
        (
            Field("CHAN0_INT_ST", "Channel 0 (ap_done) Interrupt Status.", "read-only", 0, 1),
            Field("CHAN1_INT_ST", "Channel 1 (ap_ready) Interrupt Status.", "read-only", 1, 1),
        ),
    ),
)


def argument_offsets(arguments: Sequence[Argument]) -> dict[str, int]:
    """Byte offset of each argument's first word: it takes its words and one more, an output twice that."""
    offsets, offset = {}, FIRST_ARGUMENT
    for argument in arguments:
        offsets[argument.name] = offset
        offset += 4 * (argument.bits // 32 + 1) * (2 if argument.output else 1)
    return offsets


def control_registers(arguments: Sequence[Argument]) -> list[Register]:
    """The control interface as Vitis HLS lays it out."""
    registers, offsets = list(_CONTROL_REGISTERS), argument_offsets(arguments)
    for argument in arguments:
        offset = offsets[argument.name]
        name = f"{argument.name}_r" if argument.name in RESERVED_NAMES else argument.name
        words = argument.bits // 32
        access = "read-only" if argument.output else "write-only"
        for word in range(words):
            own = name if words == 1 else f"{name}_{word + 1}"
            text = f"Bit {32 * word + 31} to {32 * word} of {name}"
            field = Field(own, text, access, 0, 32)
            registers.append(Register(own, offset + 4 * word, f"Data signal of {name}", access, (field,)))
        if argument.output:
            valid = Field(f"{name}_ap_vld", f"Control signal {name}_ap_vld", "read-only", 0, 1)
            control = Register(
                f"{name}_ctrl", offset + 4 * words, f"Control signal of {name}", "read-only", (valid,)
            )
            registers.append(control)
    return registers


def write_emulated_hwh(
    arguments: Sequence[Argument], path: Path, board: Board, clock_mhz: float, library: str
) -> None:
    """Describe the emulated board as Vivado describes a real one; a board without processors gets some.

    Args:
        arguments: of the kernel.
        path: of the file.
        board: the board.
        clock_mhz: the clock.
        library: of the kernel's IP: the backend.
    """
    ps = FAMILIES[board.family].processing_system or ZYNQ_ULTRASCALE
    names = {
        "vendor": IP_VENDOR,
        "library": library,
        "version": IP_VERSION,
        "ps": ps,
        "clock_parameters": ps.clock_parameters(clock_mhz),
        "board_part": board.board_part,
        "part": board.part,
        "instance": INSTANCE,
        "top": TOP,
        "registers": control_registers(arguments),
        "address_range": ADDRESS_RANGE,
        "clock_hz": round(clock_mhz * 1e6),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Sources(VIVADO_TEMPLATES).text("emulated.hwh", names))
