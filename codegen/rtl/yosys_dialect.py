"""SystemVerilog as Yosys reads it, which knows no `import` in the head of a module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_HEAD = re.compile(r"^module (\w+)\n  import (\w+)::\*;\n", re.MULTILINE)
_PACKAGE = re.compile(r"^package (\w+);", re.MULTILINE)
_TYPE = re.compile(r"^  \} (\w+);", re.MULTILINE)


def rewrite(sources: Sequence[Path]) -> None:
    """Rewrite the files of modules, in place: packages are imported ahead of a module, their types have full names.

    Args:
        sources: files of modules and of the packages that they import.
    """
    texts = {source: source.read_text() for source in sources}
    packages = {found[1]: _TYPE.findall(text) for text in texts.values() if (found := _PACKAGE.search(text))}
    for source, text in texts.items():
        imported = {package for _, package in _HEAD.findall(text)}
        if imported:
            text = _HEAD.sub(r"import \2::*;\n\nmodule \1\n", text)
            for package in imported:
                names = "|".join(packages[package])
                text = re.sub(rf"\b({names})\b", rf"{package}::\1", text)
            source.write_text(text)
