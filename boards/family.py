"""Families of devices: the ports of their DSP slices, their part numbers, their processing systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

FamilyName = Literal["zynq-ultrascale+", "zynq-7000", "alveo"]


@dataclass(frozen=True)
class ProcessingSystem:
    """The processors of a device, as Vivado and its `.hwh` files name them.

    Attributes:
        architecture: name of the architecture.
        ip: name of the IP.
        clock: port of the first clock for the logic.
        interrupt: port of the first interrupt from the logic.
        masters: ports through which the processors reach the kernel's registers.
        address: where the registers are.
        clocks: parameters of each clock, whose number stands for `{}`: whether it is there, dividers, source.
        source: name of the PLL that is the clocks' source.
        frequency: parameter with the megahertz of each clock; empty where there is none.
        block_design: template of the script that builds the block design.
    """

    architecture: str
    ip: str
    clock: str
    interrupt: str
    masters: tuple[str, str]
    address: int
    clocks: tuple[str, str, str, str]
    source: str
    frequency: str
    block_design: str

    def clock_parameters(self, clock_mhz: float) -> dict[str, int | float | str]:
        """Parameters of the four clocks, of which the first is on and has no divider."""
        parameters: dict[str, int | float | str] = {}
        for number in range(4):
            values: tuple[int | str, ...] = (int(number == 0), 1, 1, self.source)
            parameters |= {
                name.format(number): value for name, value in zip(self.clocks, values, strict=True)
            }
            if self.frequency:
                parameters[self.frequency.format(number)] = clock_mhz
        return parameters


@dataclass(frozen=True)
class Family:
    """A family of devices.

    Attributes:
        dsp: name of its DSP slice.
        wide_port: signed bits of the wider factor of the slice's multiplier.
        narrow_port: signed bits of the other factor.
        part_pattern: regular expression that its part numbers begin with.
        example: one of its part numbers.
        processing_system: its processors; None where it has none, and XRT runs kernels on a card.
    """

    dsp: str
    wide_port: int
    narrow_port: int
    part_pattern: str
    example: str
    processing_system: ProcessingSystem | None

    @property
    def xrt(self) -> bool:
        """Whether XRT runs its kernels, which may have no port beside memory and control, nor output registers."""
        return self.processing_system is None

    def multiplier_dsp(self, first: int, second: int) -> int:
        """DSP slices of a product of two signed numbers of so many bits.

        Either factor may be split over the wide port and the other over the narrow one. Which way a tool goes is not
        known: the larger number counts.
        """
        wide, narrow = max(first, second) - 1, min(first, second) - 1
        most_wide, most_narrow = self.wide_port - 1, self.narrow_port - 1
        if wide <= most_wide and narrow <= most_narrow:
            return 1
        return max(-(-a // most_wide) * -(-b // most_narrow) for a, b in ((wide, narrow), (narrow, wide)))


ZYNQ_ULTRASCALE: Final = ProcessingSystem(
    architecture="zynquplus",
    ip="zynq_ultra_ps_e",
    clock="pl_clk0",
    interrupt="pl_ps_irq0",
    masters=("M_AXI_HPM0_FPD", "M_AXI_HPM1_FPD"),
    address=0xA0000000,
    clocks=(
        "PSU__FPGA_PL{}_ENABLE",
        "PSU__CRL_APB__PL{}_REF_CTRL__DIVISOR0",
        "PSU__CRL_APB__PL{}_REF_CTRL__DIVISOR1",
        "PSU__CRL_APB__PL{}_REF_CTRL__SRCSEL",
    ),
    source="IOPLL",
    frequency="PSU__CRL_APB__PL{}_REF_CTRL__ACT_FREQMHZ",
    block_design="zynq_ultrascale.tcl",
)
ZYNQ_7000: Final = ProcessingSystem(
    architecture="zynq",
    ip="processing_system7",
    clock="FCLK_CLK0",
    interrupt="IRQ_F2P",
    masters=("M_AXI_GP0", "M_AXI_GP1"),
    address=0x43C00000,
    clocks=(
        "PCW_FPGA_FCLK{}_ENABLE",
        "PCW_FCLK{}_PERIPHERAL_DIVISOR0",
        "PCW_FCLK{}_PERIPHERAL_DIVISOR1",
        "PCW_FCLK{}_PERIPHERAL_CLKSRC",
    ),
    source="IO PLL",
    frequency="",
    block_design="zynq_7000.tcl",
)

# DSP slices: UG579 (DSP48E2), UG479 (DSP48E1).
FAMILIES: Final[dict[FamilyName, Family]] = {
    "zynq-ultrascale+": Family("DSP48E2", 27, 18, r"x[caq](zu|k)\d", "xczu9eg-ffvb1156-2-e", ZYNQ_ULTRASCALE),
    "zynq-7000": Family("DSP48E1", 25, 18, r"x[caq]7z\d", "xc7z020clg400-1", ZYNQ_7000),
    "alveo": Family("DSP48E2", 27, 18, r"xcu\d", "xcu280-fsvh2892-2L-e", None),
}
