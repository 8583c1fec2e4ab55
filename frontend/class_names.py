"""Names of classes, of a file or as hubs have them, for the heads of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.printable import one_line, shown
from common.reading import read_bytes, read_json
from pysim.files import validate
from pysim.spec import HeadSpec, ModelSpec

MOST_FILE_BYTES = 16 << 20
"""Limit of a file with names."""

_FORMS = "one name a line, or JSON: a list, an object of numbers to names, or either by task"


def in_order(names: Any) -> list[str] | None:
    """Names by the number of their class, from a list or from an object of numbers to names, as `id2label` is.

    Returns:
        None where it is neither, or where numbers are missing.
    """
    if isinstance(names, Mapping):
        numbers = {str(key): name for key, name in names.items()}
        names = [numbers.get(str(number)) for number in range(len(numbers))]
    if not isinstance(names, Sequence) or isinstance(names, str):
        return None
    return list(names) if names and all(isinstance(name, str) and name for name in names) else None


def told_names(names: Any) -> tuple[str, ...]:
    """Names as a configuration tells them, spaces tidied; none where they are missing or only numbered.

    Hugging Face's transformers number classes without names `LABEL_0`, `LABEL_1` and so on.
    """
    found = in_order(names) or []
    tidy = tuple(" ".join(name.split())[:200] for name in found)
    numbered = all(name == f"LABEL_{number}" for number, name in enumerate(tidy))
    return () if numbered or not all(name and name.isprintable() for name in tidy) else tidy


def with_class_names(spec: ModelSpec, options: Iterable[str]) -> ModelSpec:
    """A network whose heads have the names of files.

    Args:
        spec: the network.
        options: files, each of `[TASK=]FILE`; without a task it is for the only head that has several channels.

    Raises:
        InputError: unreadable files, unknown tasks, or other numbers of names than a head has channels.
    """
    heads = dict(spec.task_heads)
    for option in options:
        for task, names in _read(option, spec).items():
            source = f"--class-names {option}: task {task}"
            heads[task] = validate(HeadSpec, heads[task].model_dump() | {"classes": names}, source)
    return spec.model_copy(update={"task_heads": heads})


def _read(option: str, spec: ModelSpec) -> dict[str, list[str]]:
    """Names by task."""
    before, sign, after = option.partition("=")
    chosen = before if sign and before in spec.tasks else None
    path = Path(after if chosen is not None else option)
    if path.suffix.lower() == ".json":
        content = read_json(path, MOST_FILE_BYTES)
    else:
        data = read_bytes(path, MOST_FILE_BYTES)
        try:
            content = [line.strip() for line in data.decode("utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise InputError(f"{one_line(path)}: not UTF-8: {error.reason}", hint=_FORMS) from None
    if chosen is None and isinstance(content, Mapping) and content and set(content) <= set(spec.tasks):
        by_task: Mapping[str, Any] = content
    else:
        by_task = {chosen if chosen is not None else _only_head(spec, path): content}
    found = {}
    for task, names in by_task.items():
        ordered = in_order(names)
        if spec.head(task).kind == "none":
            raise InputError(f"{one_line(path)}: names of the classes of {task}, a task that has no head")
        if ordered is None:
            raise InputError(
                f"{one_line(path)}: no names of classes: {shown(names)}", hint=f"expected {_FORMS}"
            )
        found[task] = ordered
    return found


def _only_head(spec: ModelSpec, path: Path) -> str:
    heads = [task for task in spec.tasks if (spec.head(task).out_channels or 1) > 1]
    if len(heads) != 1:
        listed = f"tasks {', '.join(heads)}" if heads else "no task"
        raise InputError(
            f"--class-names {one_line(path)}: of which task? {listed} of this network "
            f"{'have' if heads else 'has'} a head of several channels",
            hint=f"--class-names {heads[0]}={one_line(path)}" if heads else "names need a head",
        )
    return heads[0]
