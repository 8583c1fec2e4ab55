"""Words that a shell completes: names of presets, boards, networks, tasks, and keys of hardware.

A shell asks while somebody types: what goes wrong here completes nothing, and says nothing.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.contract import BACKENDS
from common.errors import EdgeMoeError
from common.fits import RESIZES
from common.tasks import ALL

_BASH, _OTHERS = "COMP_WORDS", "_TYPER_COMPLETE_ARGS"
"""Variables in which typer's scripts for bash, and for other shells, hand over the command line so far."""


def starting(words: Iterable[str], incomplete: str) -> list[str]:
    """The words that begin as somebody typed."""
    return [word for word in words if word.startswith(incomplete)]


def presets(incomplete: str) -> list[str]:
    """Presets of precision."""
    from pysim.precision import NAMED

    return starting(NAMED, incomplete)


def boards(incomplete: str) -> list[str]:
    """Boards."""
    from boards import board_names

    return starting(board_names(), incomplete)


def networks(incomplete: str) -> list[str]:
    """Shapes in the zoo."""
    from frontend.zoo import zoo_names

    return starting(zoo_names(), incomplete)


def resizes(incomplete: str) -> list[str]:
    """Ways to make pictures fit."""
    return starting(RESIZES, incomplete)


def backends(incomplete: str) -> list[str]:
    """Languages of an accelerator."""
    return starting(BACKENDS, incomplete)


def kinds(incomplete: str) -> list[str]:
    """Kinds of sources of networks."""
    from frontend.importing import KINDS

    return starting(KINDS, incomplete)


def settings(incomplete: str) -> list[str]:
    """Keys of hardware, with the sign that their value follows."""
    from codegen.hardware import Hardware

    return starting((f"{key}=" for key in Hardware.model_fields), incomplete)


def tasks(incomplete: str) -> list[str]:
    """Tasks of the network in a folder that the command line names already."""
    with contextlib.suppress(EdgeMoeError, OSError, LookupError, TypeError, ValueError):
        for word in shlex.split(os.environ.get(_BASH) or os.environ.get(_OTHERS) or ""):
            if found := _tasks(Path(word)):
                return starting(found, incomplete)
    return []


def tasks_or_all(incomplete: str) -> list[str]:
    """Tasks likewise, and the word for all of them."""
    found = tasks("")
    return starting([*found, ALL] if found else [], incomplete)


def _tasks(folder: Path) -> list[str]:
    """Names of the tasks of a Model, a Design or a build, in whose place they are not checked."""
    from common.toml import read_toml
    from pysim.design import MOST_BYTES

    for path, keys in (
        (folder / "design.toml", ("design", "model")),
        (folder / "design" / "design.toml", ("design", "model")),
        (folder / "model.toml", ("model",)),
    ):
        if path.is_file():
            table: Any = read_toml(path, MOST_BYTES)
            for key in keys:
                table = table[key]
            return [str(task) for task in table["tasks"]]
    return []
