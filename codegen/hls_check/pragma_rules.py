"""Pragmas at their places: what they name, where they stand, and what the tool would make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from codegen.hls_check.findings import Finding, Findings, at_pragma
from codegen.hls_check.flow import Flow
from codegen.hls_check.interface_rules import check_interface
from codegen.hls_check.memory_rules import check_banks, check_dependence, check_struct_arrays
from codegen.hls_check.model import Function, Pragma, Program
from codegen.hls_check.parse import (
    Cursor,
    Operator,
    bare,
    children,
    declaration_file,
    descendants,
    kind,
    operator_of,
)
from codegen.hls_check.places import Place, element_type, place_of, rank_and_extents
from codegen.hls_check.pragma_text import clauses_of
from codegen.hls_check.table import PRAGMAS, Kind

_IN_LOOP = frozenset({"loop_tripcount", "loop_flatten", "unroll", "dependence"})
_IN_FUNCTION = frozenset({"inline", "interface", "top", "function_instantiate"})
_IN_EITHER = frozenset({"pipeline", "performance"})
_ARRAYS = frozenset({"array_partition", "array_reshape", "bind_storage", "dependence"})
_OPERATORS = {
    "mul": ("*", (Operator.MUL, Operator.MUL_ASSIGN)),
    "add": ("+", (Operator.ADD, Operator.ADD_ASSIGN)),
    "sub": ("-", (Operator.SUB, Operator.SUB_ASSIGN)),
}


def check_pragmas(program: Program, flow: Flow) -> list[Finding]:
    """Everything that is wrong with pragmas."""
    found = [*_texts(program), *_unplaced(program)]
    rules: tuple[Callable[[Program, Flow, Pragma], Findings], ...] = (
        _values,
        _placement,
        _array_variable,
        _dimensions,
        _aggregate,
        check_dependence,
        check_banks,
        _allocation,
        _operation,
        _storage_latency,
    )
    for pragma in program.pragmas:
        for rule in rules:
            found += rule(program, flow, pragma)
    for function in program.functions.values():
        found += check_interface(function)
        found += check_struct_arrays(program, flow, function)
        found += _twice(function)
    return found


def _texts(program: Program) -> Findings:
    """Findings that need no syntax tree, and expressions that are no C++."""
    placed = {pragma.text.number for pragma in program.pragmas}
    by_line = {(text.file, text.line): text for text in program.texts}
    for text in program.texts:
        for problem in text.problems:
            yield at_pragma(text, "pragma-table", problem)
    for file, line, message in program.errors:
        about = by_line.get((file, line))
        if about and about.number not in placed:
            continue
        if about:
            yield at_pragma(
                about, "pragma-expression", f"pragma {about.name}: as C++ at this place: {message}"
            )
        else:
            yield Finding(file, line, "compile", f"does not compile: {message}")


def _unplaced(program: Program) -> Findings:
    """Pragmas outside functions, and in what the preprocessor leaves out."""
    placed = {pragma.text.number for pragma in program.pragmas}
    for text in program.texts:
        if text.number not in placed:
            yield at_pragma(
                text, "pragma-place", f"pragma {text.name} stands in no function that is compiled"
            )


def _values(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    text = pragma.text
    if text.name not in PRAGMAS or (text.file, text.line) in program.broken:
        return
    known = clauses_of(text.name, text.word("mode"))
    for clause, value in pragma.values.items():
        about = known[clause]
        if about.kind is Kind.INTEGER and pragma.function.pattern is False:
            if value < about.least:
                yield at_pragma(
                    text, "pragma-value", f"`{clause} = {value}`: at least {about.least} is needed"
                )
            if about.most is not None and value > about.most:
                yield at_pragma(text, "pragma-value", f"`{clause} = {value}`: {about.most} is the most")
    low, high = pragma.values.get("min"), pragma.values.get("max")
    if low is not None and high is not None and low > high:
        yield at_pragma(text, "pragma-value", f"min = {low} is more than max = {high}")


def _placement(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    text, loop = pragma.text, pragma.loop
    if text.name in _IN_LOOP and loop is None:
        yield at_pragma(text, "pragma-place", f"{text.name} belongs into the body of its loop, directly")
    if text.name in _IN_FUNCTION and not pragma.at_top:
        yield at_pragma(text, "pragma-place", f"{text.name} belongs into the body of its function, directly")
    if text.name in _IN_EITHER and loop is None and not pragma.at_top:
        yield at_pragma(
            text, "pragma-place", f"{text.name} belongs into the body of a loop or function, directly"
        )
    if text.name == "loop_tripcount" and loop is not None and loop.kind == "do":
        yield at_pragma(text, "tripcount", "the tool ignores loop_tripcount in a do loop: write for or while")
    whole = text.name == "unroll" and "factor" not in text.clauses and not pragma.function.pattern
    if whole and loop is not None and not flow.trip_count_known(loop):
        yield at_pragma(text, "unroll-bounds", f"{loop.name} cannot be unrolled: its bounds are not constant")


def _array_variable(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    if pragma.text.name not in _ARRAYS or pragma.function.pattern:
        return
    if (pragma.text.file, pragma.text.line) in program.broken:
        return
    for node in pragma.mentions:
        if not rank_and_extents(node) and not _is_stream(node):
            name = pragma.text.clauses["variable"]
            yield at_pragma(pragma.text, "pragma-array", f"{pragma.text.name}: `{name}` is no array")


def _is_stream(node: Cursor) -> bool:
    return "hls::stream" in str(element_type(node).spelling)


def _dimensions(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    if pragma.text.name not in ("array_partition", "array_reshape") or pragma.function.pattern:
        return
    for node in pragma.mentions:
        extents = rank_and_extents(node)
        dimension = pragma.values.get("dim", 1)
        if not extents:
            continue
        if dimension > len(extents):
            message = (
                f"`dim = {dimension}`: `{pragma.text.clauses['variable']}` has {len(extents)} dimensions"
            )
            yield at_pragma(pragma.text, "pragma-dimension", message)
        elif dimension > 0 and pragma.values.get("factor", 1) > max(extents[dimension - 1], 1):
            message = (
                f"`factor = {pragma.values['factor']}`: the dimension has {extents[dimension - 1]} elements"
            )
            yield at_pragma(pragma.text, "pragma-dimension", message)


def _aggregate(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    if pragma.text.name not in ("aggregate", "disaggregate") or pragma.function.pattern:
        return
    for node in pragma.mentions:
        of = element_type(node)
        if of.kind.name != "RECORD" or declaration_file(of) not in program.files:
            message = f"{pragma.text.name} is for structs, and `{pragma.text.clauses['variable']}` has none"
            yield at_pragma(pragma.text, "pragma-aggregate", message)


def _allocation(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    if pragma.text.name != "allocation":
        return
    for node in pragma.mentions:
        called = bare(node).referenced
        key = called.get_usr() if called is not None else ""
        # Calls in inlined functions are calls of this one.
        if not _reached(program, pragma.function, key):
            message = f"`{pragma.text.clauses['instances']}` is not called in {pragma.function.name}"
            yield at_pragma(pragma.text, "pragma-allocation", message)


def _reached(program: Program, function: Function, key: str) -> bool:
    for call in function.calls:
        if call.callee == key:
            return True
        callee = program.functions.get(call.callee)
        inlined = callee.pragma("inline") if callee and callee is not function else None
        if callee and inlined and "off" not in inlined.text.clauses and _reached(program, callee, key):
            return True
    return False


def _operation(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    """`bind_op` binds what is assigned to its variable; of another operation it binds nothing."""
    wanted = _OPERATORS.get(pragma.text.word("op"))
    if pragma.text.name != "bind_op" or wanted is None:
        return
    for node in pragma.mentions:
        place = place_of(node)
        if place is None or not any(_applies(value, *wanted) for value in _assigned(pragma.function, place)):
            message = (
                f"no `{wanted[0]}` is assigned to `{pragma.text.clauses['variable']}`: bind_op binds nothing"
            )
            yield at_pragma(pragma.text, "pragma-operation", message)


def _assigned(function: Function, place: Place) -> Iterator[Cursor]:
    """Expressions assigned to a variable, or its element, in a function."""
    for node, _ in function.nodes:
        below = children(node)
        if kind(node) == "VAR_DECL" and node.get_usr() == place.declaration:
            yield from (child for child in below if child.kind.is_expression())
        elif len(below) > 1 and _assigns(node) and place_of(below[0]) == place:
            yield node


_ASSIGNMENTS = frozenset(f"operator{sign}=" for sign in ("", *"+-*/%&|^", "<<", ">>"))


def _assigns(node: Cursor) -> bool:
    if kind(node) == "CALL_EXPR":
        return node.spelling in _ASSIGNMENTS
    return operator_of(node) >= Operator.ASSIGN


def _applies(value: Cursor, sign: str, numbers: tuple[int, ...]) -> bool:
    names = (f"operator{sign}", f"operator{sign}=")
    return any(operator_of(node) in numbers or node.spelling in names for node in descendants(value))


def _storage_latency(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    latency = pragma.values.get("latency")
    if pragma.text.name != "bind_storage" or latency is None:
        return
    if latency == 0 and pragma.text.word("type") != "fifo":
        yield at_pragma(pragma.text, "pragma-value", "`latency = 0`: a memory takes a cycle at least")


def _twice(function: Function) -> Findings:
    """Pragmas that a loop or function can have but one of."""
    single = _IN_EITHER | {"inline", "loop_flatten", "loop_tripcount", "unroll", "dataflow"}

    def judge(pragmas: Iterable[Pragma]) -> Findings:
        named = sorted(
            (p for p in pragmas if p.text.name in single), key=lambda p: (p.text.name, p.text.line)
        )
        for name, group in groupby(named, key=lambda p: p.text.name):
            for pragma in list(group)[1:]:
                yield at_pragma(pragma.text, "pragma-twice", f"{name} stands here for the second time")

    yield from judge(pragma for pragma in function.pragmas if pragma.at_top)
    for loop in function.loops:
        yield from judge(loop.pragmas)
