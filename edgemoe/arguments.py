"""Arguments of the facade that are of the wrong type: a sentence instead of what fails deep inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.contract import BACKENDS
from common.errors import InputError
from common.printable import shown

if TYPE_CHECKING:
    from pysim.design import Design
    from pysim.model import Model


def require_model(value: Any, name: str = "model") -> Model:
    """A Model.

    Raises:
        InputError: something else.
    """
    from pysim.model import Model

    if isinstance(value, Model):
        return value
    raise InputError(
        f"{name} is {described(value)}, expected a Model",
        hint="edgemoe.load_model, init_model and import_model(...).model make one",
    )


def require_design(value: Any, name: str = "design") -> Design:
    """A Design.

    Raises:
        InputError: something else.
    """
    from pysim.design import Design

    if isinstance(value, Design):
        return value
    raise InputError(
        f"{name} is {described(value)}, expected a Design", hint="edgemoe.quantize and load_design make one"
    )


def require_network(value: Any, name: str = "model") -> Model | Design:
    """A Model or a Design.

    Raises:
        InputError: something else.
    """
    from pysim.design import Design
    from pysim.model import Model

    if isinstance(value, Model | Design):
        return value
    raise InputError(f"{name} is {described(value)}, expected a Model or a Design")


def require_images(value: Any, name: str = "images") -> None:
    """An array, whose shape and type are looked at where the network is known.

    Raises:
        InputError: something else.
    """
    # Not above: the command line imports this module, and its help needs no numpy.
    import numpy as np

    if not isinstance(value, np.ndarray):
        raise InputError(
            f"{name} is {described(value)}, expected an array (images, channels, H, W) of uint8",
            hint="edgemoe.load_images reads files and folders",
        )


def require_count(value: Any, name: str, most: int) -> int:
    """A whole number from 1 on.

    Raises:
        InputError: something else, or more than `most`.
    """
    import numpy as np

    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= most:
        raise InputError(f"{name} = {shown(value)}, expected a whole number from 1 to {most:,}")
    return int(value)


def known_backend(name: Any) -> dict[str, str]:
    """The field of `Hardware` that a backend decides, if one is given.

    Raises:
        InputError: there is none of this name.
    """
    if name is None:
        return {}
    if name not in BACKENDS:
        raise InputError(f"backend {shown(name)}: unknown", hint=f"one of {', '.join(BACKENDS)}")
    return {"backend": name}


def described(value: Any) -> str:
    """A value as Python writes it where that is short, or its type: networks hold millions of numbers."""
    plain = isinstance(value, str | bool | int | float | bytes) or value is None
    name = type(value).__name__
    return shown(value) if plain else f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"
