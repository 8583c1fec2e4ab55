"""Families of devices, and the ports of their DSP slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

FamilyName = Literal["zynq-ultrascale+", "zynq-7000", "alveo"]


@dataclass(frozen=True)
class Family:
    """A family of devices.

    Attributes:
        dsp: name of its DSP slice.
        wide_port: signed bits of the wider factor of the slice's multiplier.
        narrow_port: signed bits of the other factor.
    """

    dsp: str
    wide_port: int
    narrow_port: int

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


_DSP48E2: Final = Family("DSP48E2", 27, 18)  # UG579
_DSP48E1: Final = Family("DSP48E1", 25, 18)  # UG479

FAMILIES: Final[dict[FamilyName, Family]] = {
    "zynq-ultrascale+": _DSP48E2,
    "zynq-7000": _DSP48E1,
    "alveo": _DSP48E2,
}
