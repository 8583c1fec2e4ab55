"""Tasks by name or number, as callers and command lines give them. Needs the standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from common.errors import InputError
from common.printable import shown

ALL = "all"
"""Stands for every task on a command line."""


def task_number(names: Sequence[str], task: Any) -> int:
    """Number of a task.

    Args:
        names: of all tasks, in the order of their numbers.
        task: a name, or a number of whatever type; a bool, which is an int to Python, is a mistake.

    Raises:
        InputError: neither, or none of these tasks.
    """
    if isinstance(task, str) and task in names:
        return list(names).index(task)
    if isinstance(task, Integral) and not isinstance(task, bool) and 0 <= int(task) < len(names):
        return int(task)
    raise InputError(
        f"task {shown(task)} is unknown",
        hint=f"the network's tasks are {', '.join(names)}",
    )


def chosen_tasks(names: Sequence[str], option: str | None) -> list[str]:
    """Names of the tasks that an option of a command line stands for: one, `all`, or the first if it is not given.

    Raises:
        InputError: an unknown task; `all` where one task has this name.
    """
    if option is None:
        return [names[0]]
    if option == ALL:
        if ALL in names:
            raise InputError(
                "--task all: one of the tasks has this name, which stands for every task, too",
                hint=f"--task {list(names).index(ALL)} is that one by its number",
            )
        return list(names)
    if option not in names and option.isdecimal() and len(option) < 6:
        return [names[task_number(names, int(option))]]
    return [names[task_number(names, option)]]
