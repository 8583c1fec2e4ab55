"""Memories that are chosen when the hardware runs: a tool cannot bind such a pointer to one memory."""

from __future__ import annotations

from collections.abc import Iterator

from codegen.hls_check.findings import Finding
from codegen.hls_check.flow import Flow
from codegen.hls_check.model import Function
from codegen.hls_check.parse import Cursor, bare, children, descendants, kind
from codegen.hls_check.places import Place, place_of

_POINTERS = frozenset({"POINTER"})
_ARRAYS = frozenset({"CONSTANTARRAY", "INCOMPLETEARRAY", "DEPENDENTSIZEDARRAY"})


def check_selections(function: Function, flow: Flow) -> Iterator[Finding]:
    """Pointers that vary, memories chosen by a condition, and rows of arrays chosen by an index."""
    for node, _ in function.nodes:
        name, line = kind(node), node.location.line
        if name == "VAR_DECL" and node.type.get_canonical().kind.name in _POINTERS:
            message = (
                f"{node.spelling} is a pointer that is assigned: name the memory itself where it is used"
            )
            yield Finding(function.file, line, "selected-memory", message)
        elif name == "VAR_DECL" and _is_reference(node) and _chooses(node):
            message = (
                f"{node.spelling} refers to one memory or another: name the memory itself where it is used"
            )
            yield Finding(function.file, line, "selected-memory", message)
        elif name == "CONDITIONAL_OPERATOR" and _is_memory(node):
            message = "a condition chooses a memory: choose between the words that were read"
            yield Finding(function.file, line, "selected-memory", message)
        elif name == "IF_STMT":
            yield from _branches(function, flow, node)
        elif name == "CALL_EXPR":
            yield from _rows(function, flow, node)


def _is_reference(node: Cursor) -> bool:
    return node.type.get_canonical().kind.name == "LVALUEREFERENCE"


def _chooses(declaration: Cursor) -> bool:
    starts = [child for child in children(declaration) if child.kind.is_expression()]
    return bool(starts) and kind(bare(starts[-1])) == "CONDITIONAL_OPERATOR"


def _is_memory(node: Cursor) -> bool:
    return node.type.get_canonical().kind.name in _POINTERS | _ARRAYS


def _branches(function: Function, flow: Flow, node: Cursor) -> Iterator[Finding]:
    """Two branches that call one function with different memories become one call with a selected pointer."""
    branches = [child for child in children(node) if not child.kind.is_expression()]
    if len(branches) != 2 or kind(branches[1]) == "IF_STMT":
        return
    called = [_memories_passed(branch, flow) for branch in branches]
    for key, (callee, memories, line) in called[0].items():
        other = called[1].get(key)
        if other and memories != other[1]:
            message = (
                f"both branches call {callee}, with different memories: the compiler makes one call of them whose "
                "pointers are selected; write the calls in a row, without a condition"
            )
            yield Finding(function.file, line, "selected-memory", message)


def _memories_passed(branch: Cursor, flow: Flow) -> dict[str, tuple[str, list[Place | None], int]]:
    """Per function that a branch calls: its name, the memories that it is given, and the line."""
    found = {}
    for node in descendants(branch):
        if kind(node) == "CALL_EXPR" and _is_module(flow, node):
            passed = [place_of(given) for given in node.get_arguments() if _passes_memory(given)]
            found[node.referenced.get_usr()] = (node.spelling, passed, node.location.line)
    return found


def _passes_memory(argument: Cursor) -> bool:
    of = bare(argument).type.get_canonical().kind.name
    return of in _ARRAYS | _POINTERS or (of == "RECORD" and place_of(argument) is not None)


def _rows(function: Function, flow: Flow, call: Cursor) -> Iterator[Finding]:
    """A row of an array, chosen by an index that varies, handed to a function."""
    if not _is_module(flow, call):
        return
    for argument in call.get_arguments():
        row = bare(argument)
        if kind(row) != "ARRAY_SUBSCRIPT_EXPR" or row.type.get_canonical().kind.name not in _ARRAYS:
            continue
        if not flow.is_static(children(row)[1]):
            message = f"{call.spelling} is given a row that an index chooses: pass the array and the index"
            yield Finding(function.file, call.location.line, "selected-memory", message)


def _is_module(flow: Flow, call: Cursor) -> bool:
    """Whether a call is one of a function of the project that keeps a module of its own: is not inlined."""
    callee = flow.program.functions.get(call.referenced.get_usr()) if call.referenced is not None else None
    inline = callee.pragma("inline") if callee else None
    return callee is not None and (inline is None or "off" in inline.text.clauses)
