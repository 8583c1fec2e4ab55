"""Whether a board has room for a hardware, and what it would have room for."""

from __future__ import annotations

from boards import Board
from codegen.architecture import Architecture
from codegen.fit.default import fitted
from codegen.fit.space import OF_RTL, Fixed
from codegen.hardware import Hardware
from codegen.performance import Performance, evaluate
from common.errors import InputError


def require_fit(architecture: Architecture, board: Board) -> Performance:
    """The estimate of what `on_board` gave.

    Raises:
        InputError: the board has less of something than the hardware takes; the hint has settings that fit.
    """
    performance = evaluate(architecture, board)
    if performance.fits:
        return performance
    hardware = architecture.hardware
    try:
        found = fitted(
            architecture.network,
            board,
            clock_mhz=hardware.clock_mhz,
            batch=hardware.max_batch,
            fixed=_of_rtl(hardware),
        )
        hint = (
            f"the fastest that fits takes {found.performance.ms:.2f} ms an image: {settings(found.hardware)}"
        )
    except InputError as error:
        hint = f"{error.message}; {error.hint}"
    raise InputError(f"the design does not fit {board.name}: {performance.short}", hint=hint)


def settings(hardware: Hardware) -> str:
    """Settings of a hardware, as the command line takes them."""
    chosen = hardware.model_dump(exclude={"family", "clock_mhz", "max_batch", "backend"})
    return " ".join(f"--set {name}={value}" for name, value in chosen.items())


def _of_rtl(hardware: Hardware) -> Fixed:
    """The fields of an RTL accelerator that are given; none for C++."""
    found = {name: value for name, value in hardware.model_dump().items() if name in OF_RTL}
    return found if hardware.backend == "rtl" else {}
