"""The `.hwh` of the emulated board: registers as Vitis HLS lays them out, in the format that Vivado writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from boards import VIVADO_TEMPLATES, Board
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


def control_registers(arguments: Sequence[Argument]) -> list[Register]:
    """The control interface as Vitis HLS lays it out: an argument takes its words and one more, outputs twice that."""
    registers, offset = list(_CONTROL_REGISTERS), FIRST_ARGUMENT
    for argument in arguments:
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
        offset += 4 * (words + 1) * (2 if argument.output else 1)
    return registers


def _processing_system(board: Board, clock_mhz: float) -> dict[str, Any]:
    """The processing system as a `.hwh` names it; a board without one is emulated as a Zynq UltraScale+."""
    if board.family == "zynq-7000":
        parameters: dict[str, Any] = {}
        for clock in range(4):
            parameters |= {
                f"PCW_FPGA_FCLK{clock}_ENABLE": int(clock == 0),
                f"PCW_FCLK{clock}_PERIPHERAL_DIVISOR0": 1,
                f"PCW_FCLK{clock}_PERIPHERAL_DIVISOR1": 1,
                f"PCW_FCLK{clock}_PERIPHERAL_CLKSRC": "IO PLL",
            }
        return {
            "arch": "zynq",
            "ip": "processing_system7",
            "clock": "FCLK_CLK0",
            "interrupt": "IRQ_F2P",
            "master": "M_AXI_GP0",
            "second_master": "M_AXI_GP1",
            "parameters": parameters,
        }
    parameters = {}
    for clock in range(4):
        parameters |= {
            f"PSU__FPGA_PL{clock}_ENABLE": int(clock == 0),
            f"PSU__CRL_APB__PL{clock}_REF_CTRL__DIVISOR0": 1,
            f"PSU__CRL_APB__PL{clock}_REF_CTRL__DIVISOR1": 1,
            f"PSU__CRL_APB__PL{clock}_REF_CTRL__SRCSEL": "IOPLL",
            f"PSU__CRL_APB__PL{clock}_REF_CTRL__ACT_FREQMHZ": clock_mhz,
        }
    return {
        "arch": "zynquplus",
        "ip": "zynq_ultra_ps_e",
        "clock": "pl_clk0",
        "interrupt": "pl_ps_irq0",
        "master": "M_AXI_HPM0_FPD",
        "second_master": "M_AXI_HPM1_FPD",
        "parameters": parameters,
    }


def write_emulated_hwh(arguments: Sequence[Argument], path: Path, board: Board, clock_mhz: float) -> None:
    """Describe the emulated board as Vivado describes a real one."""
    names = {
        "vendor": IP_VENDOR,
        "version": IP_VERSION,
        "ps": _processing_system(board, clock_mhz),
        "board_part": board.board_part,
        "part": board.part,
        "instance": INSTANCE,
        "top": TOP,
        "registers": control_registers(arguments),
        "address": 0x43C00000 if board.family == "zynq-7000" else 0xA0000000,
        "address_range": ADDRESS_RANGE,
        "clock_hz": round(clock_mhz * 1e6),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Sources(VIVADO_TEMPLATES).text("emulated.hwh", names))
