"""Errors of the running hardware; bad files and bad arguments are `InputError`, as everywhere."""

from __future__ import annotations

from typing import ClassVar

from common.errors import EdgeMoeError


class AcceleratorError(EdgeMoeError):
    """Raised when the hardware does not do what it should: it is stuck, busy, or another one than expected."""

    exit_code: ClassVar[int] = 1
