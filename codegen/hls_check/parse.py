"""libclang: C++ files read as a compiler reads them, with blocks of C++ in place of the pragmas."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from codegen.csim import SIMULATION_HEADERS, find_compiler, header_folder
from common.errors import InputError
from pysim.cache import cache_folder

Cursor = Any
"""A node of the syntax tree: libclang has no types."""

STANDARD = "-std=c++14"

_PREFIX = '#include "ap_int.h"\n#include "hls_stream.h"\n'
"""Headers that nearly every file includes, read once."""

_WIDEST = 16384
"""Bits of the widest ap_int that is let pass: the tool's script of the kernels asks for what their streams need."""

_NAME = "edgemoe_check.cpp"

_RESULT_IS_INTEGER = 1


class Operator:
    """Numbers of libclang's `clang_getCursorBinaryOperatorKind` (clang-c/Index.h, since clang 17)."""

    MUL, DIV, REM, ADD, SUB = 3, 4, 5, 6, 7
    COMPARISONS = range(11, 17)
    LOGICAL_AND = 20
    ASSIGN, MUL_ASSIGN, DIV_ASSIGN, REM_ASSIGN, ADD_ASSIGN, SUB_ASSIGN = 22, 23, 24, 25, 26, 27


@dataclass(frozen=True)
class Unit:
    """C++ with everything that it includes.

    Attributes:
        tree: the root of the syntax tree.
        errors: (path, line, message) of what does not compile.
    """

    tree: Cursor
    errors: tuple[tuple[str, int, str], ...]


@cache
def _library() -> Any:
    try:
        from clang import cindex
    except ImportError as error:
        raise InputError("libclang was not found", hint="pip install 'edgemoe[hls]'") from error
    library = cindex.conf.lib
    library.clang_Cursor_Evaluate.argtypes = [cindex.Cursor]
    library.clang_Cursor_Evaluate.restype = ctypes.c_void_p
    library.clang_EvalResult_getKind.argtypes = [ctypes.c_void_p]
    library.clang_EvalResult_getAsLongLong.argtypes = [ctypes.c_void_p]
    library.clang_EvalResult_getAsLongLong.restype = ctypes.c_longlong
    library.clang_EvalResult_dispose.argtypes = [ctypes.c_void_p]
    library.clang_getCursorBinaryOperatorKind.argtypes = [cindex.Cursor]
    library.clang_getCursorBinaryOperatorKind.restype = ctypes.c_int
    return library


def evaluate(node: Cursor) -> int | None:
    """Value of an expression that is constant for the compiler; None of any other."""
    library = _library()
    result = library.clang_Cursor_Evaluate(node)
    if not result:
        return None
    try:
        if library.clang_EvalResult_getKind(result) != _RESULT_IS_INTEGER:
            return None
        return int(library.clang_EvalResult_getAsLongLong(result))
    finally:
        library.clang_EvalResult_dispose(result)


def operator_of(node: Cursor) -> int:
    """Number of a binary operator, as `Operator` has them; 0 of any other node."""
    return int(_library().clang_getCursorBinaryOperatorKind(node))


def parse(text: str, texts: Mapping[Path, str], includes: Sequence[Path]) -> Unit:
    """The syntax tree of C++.

    Args:
        text: the C++, which may include files.
        texts: of files, where they are to be read otherwise than from the disk.
        includes: folders of headers.

    Raises:
        InputError: no libclang, no g++, or no ap_int headers; headers that libclang does not read.
    """
    _library()
    from clang import cindex

    unsaved = [(_NAME, text), *((str(path), content) for path, content in texts.items())]

    def parsed(prefix: Path) -> Any:
        places = [f"-I{folder}" for folder in includes]
        arguments = [*_system_arguments(), "-include-pch", str(prefix), *places]
        # Without the precompiled declarations, of which there are tens of thousands.
        return cindex.Index.create(excludeDecls=True).parse(_NAME, arguments, unsaved_files=unsaved)

    try:
        unit = parsed(_prefix())
    except cindex.TranslationUnitLoadError:
        # What is precompiled is refused once a header that it was made of is another file, if only by its date: after a
        # reinstallation of the headers or of g++.
        _prefix().unlink(missing_ok=True)
        _prefix.cache_clear()
        try:
            unit = parsed(_prefix())
        except cindex.TranslationUnitLoadError as error:
            raise InputError(
                f"{header_folder()}: libclang cannot read the ap_int headers",
                hint="pip install --force-reinstall 'edgemoe[hls]'",
            ) from error
    errors = tuple(
        (str(about.location.file), about.location.line, about.spelling)
        for about in unit.diagnostics
        if about.severity >= cindex.Diagnostic.Error
    )
    return Unit(unit.cursor, errors)


@cache
def _system_arguments() -> tuple[str, ...]:
    """Libclang as a wheel carries no headers: it reads those of g++, and the open ap_int headers."""
    command = [find_compiler(), STANDARD, "-E", "-v", "-x", "c++", os.devnull]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    listing = done.stderr.partition("#include <...> search starts here:")[2].partition("End of search list")[
        0
    ]
    folders = [line.strip() for line in listing.splitlines() if line.strip()]
    headers = [str(header_folder()), str(SIMULATION_HEADERS)]
    places = [argument for folder in [*headers, *folders] for argument in ("-isystem", folder)]
    return ("-x", "c++", STANDARD, "-Wno-everything", f"-DAP_INT_MAX_W={_WIDEST}", *places)


@cache
def _prefix() -> Path:
    """The headers of `_PREFIX`, precompiled, in the cache."""
    from clang import cindex

    arguments = _system_arguments()
    digest = hashlib.sha256("\n".join([_PREFIX, cindex.__file__, *arguments]).encode())
    for header in sorted(header_folder().rglob("*.h")):
        digest.update(header.read_bytes())
    target = cache_folder("hls_check") / f"{digest.hexdigest()[:32]}.pch"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        name = "edgemoe_prefix.h"
        unit = cindex.Index.create().parse(
            name, ["-x", "c++-header", *arguments[2:]], unsaved_files=[(name, _PREFIX)]
        )
        partial = target.with_suffix(f".{os.getpid()}.pch")
        unit.save(str(partial))
        partial.replace(target)
    return target


def children(node: Cursor) -> list[Cursor]:
    """The nodes below a node."""
    return list(node.get_children())


def kind(node: Cursor) -> str:
    """Name of a node's kind, such as FOR_STMT."""
    return str(node.kind.name)


def descendants(node: Cursor) -> list[Cursor]:
    """A node and everything below it."""
    return list(node.walk_preorder())


def file_of(node: Cursor) -> str:
    """Path of the file that a node stands in; "" where there is none."""
    file = node.location.file
    return str(file.name) if file else ""


def declaration_file(of: Cursor) -> str:
    """Path of the file that declares a type."""
    return file_of(of.get_declaration())


_WRAPPERS = frozenset(
    {
        "UNEXPOSED_EXPR",
        "PAREN_EXPR",
        "CSTYLE_CAST_EXPR",
        "CXX_FUNCTIONAL_CAST_EXPR",
        "CXX_STATIC_CAST_EXPR",
        "CXX_CONST_CAST_EXPR",
    }
)


def layers(node: Cursor) -> list[Cursor]:
    """An expression and what it wraps: casts, parentheses, conversions; the innermost one last."""
    found = [node]
    while True:
        node = found[-1]
        below = [child for child in children(node) if child.kind.is_expression()]
        converts = kind(node) == "CALL_EXPR" and len(below) == 1 and _is_conversion(node)
        if len(below) != 1 or not (kind(node) in _WRAPPERS or converts):
            return found
        inner = below[0]
        if converts and kind(inner) == "MEMBER_REF_EXPR" and children(inner):
            inner = children(inner)[0]
        found.append(inner)


def _is_conversion(node: Cursor) -> bool:
    """Whether a call only makes another type of its one operand."""
    called = node.referenced
    return called is not None and kind(called) in ("CONSTRUCTOR", "CONVERSION_FUNCTION")


def bare(node: Cursor) -> Cursor:
    """An expression without casts, parentheses and conversions."""
    return layers(node)[-1]
