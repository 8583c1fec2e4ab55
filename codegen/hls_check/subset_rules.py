"""The subset of C++ that the tool takes, and what it builds of the rest: UG1399, "Unsupported C/C++ Constructs"."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from codegen.hls_check.accumulate import check_accumulations
from codegen.hls_check.arithmetic_rules import check_addresses, check_divisions, check_wide_products
from codegen.hls_check.findings import Finding
from codegen.hls_check.flow import Flow
from codegen.hls_check.model import Function, Loop, Program, short_name
from codegen.hls_check.parse import children, descendants, file_of, kind
from codegen.hls_check.places import type_name
from codegen.hls_check.select import check_selections

_ALLOCATORS = frozenset({"malloc", "calloc", "realloc", "free", "alloca", "aligned_alloc"})
_REFUSED = {
    "CXX_NEW_EXPR": ("dynamic-memory", "new: memory must have a size that is known when the tool runs"),
    "CXX_DELETE_EXPR": ("dynamic-memory", "delete: there is no dynamic memory"),
    "CXX_THROW_EXPR": ("exceptions", "throw: hardware has no exceptions"),
    "CXX_TRY_STMT": ("exceptions", "try: hardware has no exceptions"),
    "CXX_TYPEID_EXPR": ("rtti", "typeid: types are gone when hardware runs"),
    "CXX_DYNAMIC_CAST_EXPR": ("rtti", "dynamic_cast: types are gone when hardware runs"),
    "GOTO_STMT": ("goto", "goto: write a loop"),
    "INDIRECT_GOTO_STMT": ("goto", "goto: write a loop"),
    "ASM_STMT": ("assembler", "assembler means nothing to the tool"),
}


def check_subset(program: Program, flow: Flow) -> list[Finding]:
    """Everything that the tool does not take, or takes and builds badly."""
    found = [*_recursion(program), *_declarations(program)]
    for function in program.functions.values():
        found += _statements(function)
        found += _loops(function, flow)
        if not function.pattern:
            found += check_selections(function, flow)
            found += check_divisions(function, flow)
            found += check_wide_products(function)
            found += check_addresses(function, flow)
    found += check_accumulations(flow)
    found += _labels(program)
    return found


def _recursion(program: Program) -> Iterator[Finding]:
    """Functions that call themselves, directly or through others."""
    finished: set[str] = set()

    def visit(function: Function, path: list[str]) -> Iterator[Finding]:
        if function.key in finished:
            return
        for call in function.calls:
            callee = program.functions.get(call.callee)
            if callee is None:
                continue
            if callee.key in [*path, function.key] and not _is_constexpr(callee):
                line = call.node.location.line
                yield Finding(
                    function.file, line, "recursion", f"{callee.name} calls itself: hardware has no stack"
                )
            elif callee.key not in [*path, function.key]:
                yield from visit(callee, [*path, function.key])
        finished.add(function.key)

    for function in program.functions.values():
        yield from visit(function, [])


def _is_constexpr(function: Function) -> bool:
    """Whether the compiler itself may run a function."""
    words = itertools.takewhile(lambda token: token.spelling != "{", function.node.get_tokens())
    return any(token.spelling == "constexpr" for token in words)


def _declarations(program: Program) -> Iterator[Finding]:
    for node in program.declarations:
        file, line = short_name(Path(file_of(node))), node.location.line
        for child in children(node):
            if kind(child) in ("CXX_METHOD", "DESTRUCTOR") and child.is_virtual_method():
                message = f"{child.spelling} is virtual: which function a call means must be known"
                yield Finding(file, child.location.line, "virtual", message)
        if kind(node) == "USING_DIRECTIVE" and any(child.spelling == "std" for child in children(node)):
            yield Finding(file, line, "standard-library", "using namespace std: nothing of it is synthesised")
        if any(kind(child) == "NAMESPACE_REF" and child.spelling == "std" for child in descendants(node)):
            yield Finding(file, line, "standard-library", "std: containers and streams are not synthesised")


def _statements(function: Function) -> Iterator[Finding]:
    if kind(function.node) == "CXX_METHOD" and function.node.is_virtual_method():
        yield Finding(
            function.file,
            function.node.location.line,
            "virtual",
            f"{function.name} is virtual: no call may choose",
        )
    for node, _ in function.nodes:
        name, line = kind(node), node.location.line
        if name in _REFUSED:
            rule, message = _REFUSED[name]
            yield Finding(function.file, line, rule, message)
        elif name == "CALL_EXPR" and node.spelling in _ALLOCATORS:
            yield Finding(
                function.file, line, "dynamic-memory", f"{node.spelling}: there is no dynamic memory"
            )
        elif name == "CALL_EXPR" and node.referenced is not None and _through_pointer(node.referenced):
            yield Finding(
                function.file, line, "virtual", "a call through a pointer: which function must be known"
            )
        elif name == "VAR_DECL" and node.type.get_canonical().kind.name == "VARIABLEARRAY":
            yield Finding(function.file, line, "dynamic-memory", f"{node.spelling} has a size that varies")
        elif name == "NAMESPACE_REF" and node.spelling == "std":
            message = "std: containers and streams are not synthesised"
            yield Finding(function.file, line, "standard-library", message)


def _through_pointer(called: object) -> bool:
    return kind(called) in ("VAR_DECL", "PARM_DECL", "FIELD_DECL") and "(*)" in type_name(called)


def _loops(function: Function, flow: Flow) -> Iterator[Finding]:
    for loop in function.loops:
        if flow.trip_count_known(loop) or (function.pattern and loop.kind == "for"):
            continue
        if flow.in_pipeline(function, loop.around[1:]):
            message = f"{loop.name} runs in a pipeline, which unrolls it: its bounds must be constant"
            yield Finding(function.file, loop.line, "loop-in-pipeline", message)
        elif loop.kind == "do":
            message = f"{loop.name}: nothing tells how often a do loop runs; write for or while with a loop_tripcount"
            yield Finding(function.file, loop.line, "loop-bounds", message)
        elif loop.pragma("loop_tripcount") is None:
            message = (
                f"{loop.name} has bounds that vary, and no loop_tripcount: reports would have no figures"
            )
            yield Finding(function.file, loop.line, "loop-bounds", message)
    for loop in function.loops:
        if not loop.label and not flow.unrolled(loop):
            message = f"the {loop.kind} loop has no label: reports would call it after its line"
            yield Finding(function.file, loop.line, "loop-label", message)


def _labels(program: Program) -> Iterator[Finding]:
    """Reports name a loop by function and label, and an inlined function's loops by the caller's name."""
    first: dict[tuple[str, str], Loop] = {}
    for function in program.functions.values():
        for loop in function.loops:
            other = first.setdefault((function.file, loop.label), loop)
            if loop.label and other.line != loop.line:
                message = f"label {loop.label} is in line {other.line} already"
                yield Finding(function.file, loop.line, "loop-label", message)
