"""The errors the package raises on purpose; anything else that escapes is a bug."""

from __future__ import annotations

from typing import ClassVar

from common.printable import MOST, printable


class EdgeMoeError(Exception):
    """Base of every error of this package; raised only through its subclasses.

    `message` says what was found and what was expected, `hint` (maybe empty) what to do about it, and
    `exit_code` is what a command line ends with. Both texts may repeat what files hold: they come out bounded, and
    without control characters, however they are printed.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep `message`, which is also the `str()` of the error, and `hint`."""
        self.message = printable(message, MOST)
        self.hint = printable(hint, MOST)
        super().__init__(self.message)


class InputError(EdgeMoeError):
    """Raised when what the caller handed over is at fault: a bad file or a bad argument."""


class FormatError(InputError):
    """Raised for a number format, or a value for one, that does not exist or cannot be held."""


class OverflowRiskError(InputError):
    """Raised when an accumulator, or an intermediate value, could leave the bits it is given."""


class CheckError(EdgeMoeError):
    """Raised when a comparison was carried out and failed: the inputs were fine, the results differ."""

    exit_code: ClassVar[int] = 1


class QuantizationWarning(UserWarning):
    """A Design that was made, but that hardly computes the network it was made from."""
