"""Sources of what is generated: real files, which are copied, and templates (`.j2`), which are rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TEMPLATE = ".j2"
"""Suffix that a template has behind the name of its file."""

_LITERALS_PER_LINE = 12


class Sources:
    """Files of some folders, of which the first that has a file provides it.

    Attributes:
        folders: the folders.
        environment: of their templates, in which undefined names are errors.
    """

    def __init__(self, *folders: Path, **options: Any) -> None:
        """Take folders, and Jinja's options beside those that all templates have."""
        self.folders = folders
        self.environment = Environment(
            loader=FileSystemLoader(folders),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            **options,
        )
        self.environment.filters["literals"] = _literals
        self.environment.filters["camel"] = _camel
        self.environment.filters["boolean"] = _boolean

    def text(self, name: str, *contexts: DataclassInstance | Mapping[str, Any]) -> str:
        """Text of a file, such as `src/types.h`: as it is, or what its template gives.

        Args:
            name: of the file.
            contexts: objects whose attributes the template names, or names with their values; the last one counts.
        """
        for folder in self.folders:
            if (folder / name).is_file():
                return (folder / name).read_text(encoding="utf-8")
            if (folder / f"{name}{TEMPLATE}").is_file():
                break
        names: dict[str, Any] = {}
        for context in contexts:
            names |= context if isinstance(context, Mapping) else _attributes(context)
        return self.environment.get_template(f"{name}{TEMPLATE}").render(names)


def _attributes(context: DataclassInstance) -> dict[str, Any]:
    return {field.name: getattr(context, field.name) for field in fields(context)}


def file_name(source: Path) -> str:
    """Name of the file that a source becomes."""
    return source.name.removesuffix(TEMPLATE)


def is_template(source: Path) -> bool:
    """Whether a source is rendered, not copied."""
    return source.suffix == TEMPLATE


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _camel(name: str) -> str:
    return name.title().replace("_", "")


def _literals(values: list[int]) -> str:
    rows = [values[i : i + _LITERALS_PER_LINE] for i in range(0, len(values), _LITERALS_PER_LINE)]
    return ",\n".join("    " + ", ".join(map(str, row)) for row in rows)
