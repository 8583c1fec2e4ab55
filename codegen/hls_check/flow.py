"""Where values come from: what is constant after unrolling, how wide a value is, which memory a name stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codegen.hls_check.model import Call, Function, Loop, Program
from codegen.hls_check.parse import (
    Cursor,
    Operator,
    bare,
    children,
    descendants,
    evaluate,
    kind,
    layers,
    operator_of,
)

NATIVE_WIDE = 64
"""Bits of `long long`."""

_NATIVE_BITS = {
    "BOOL": 1,
    "CHAR_S": 8,
    "SCHAR": 8,
    "UCHAR": 8,
    "SHORT": 16,
    "USHORT": 16,
    "INT": 32,
    "UINT": 32,
    "LONG": 64,
    "ULONG": 64,
    "LONGLONG": 64,
    "ULONGLONG": 64,
}
_ARBITRARY = re.compile(r"\bap_(u?)int(?:_base)?<(\d+)")


def type_name(node: Cursor) -> str:
    """Type of an expression or declaration, without typedefs, references and const."""
    found = node.type.get_canonical()
    if found.kind.name in ("LVALUEREFERENCE", "RVALUEREFERENCE"):
        found = found.get_pointee()
    return str(found.spelling).replace("const ", "").replace("volatile ", "")


def native_bits(node: Cursor) -> int | None:
    """Bits of a native integer type; None of any other type."""
    return _NATIVE_BITS.get(node.type.get_canonical().kind.name)


def is_wrapping(node: Cursor) -> bool:
    """Whether a type is unsigned with 32 bits, or an ap_int: base + stride cannot be seen through either."""
    return node.type.get_canonical().kind.name == "UINT" or bool(_ARBITRARY.search(type_name(node)))


def arbitrary_bits(name: str) -> int | None:
    """W of `ap_int<W>` or `ap_uint<W>`."""
    match = _ARBITRARY.match(name)
    return int(match[2]) if match else None


def computed_bits(node: Cursor) -> int:
    """Bits that an expression has when it is computed, whatever it is cast to afterwards; 0 of a constant."""
    if evaluate(node) is not None:
        return 0
    wrapped = layers(node)
    widths = []
    for layer in wrapped:
        bits = native_bits(layer) or arbitrary_bits(type_name(layer))
        if bits:
            widths.append(bits)
    inner = wrapped[-1]
    if kind(inner) == "CONDITIONAL_OPERATOR":
        widths.append(max(computed_bits(choice) for choice in children(inner)[1:]))
    elif kind(inner) == "DECL_REF_EXPR" and inner.referenced is not None:
        widths += [computed_bits(start) for start in constant_start(inner.referenced)]
    return min(widths, default=NATIVE_WIDE)


def rank_and_extents(node: Cursor) -> list[int]:
    """Extents of an array's dimensions; none of anything else."""
    found, extents = node.type.get_canonical(), []
    if found.kind.name == "LVALUEREFERENCE":
        found = found.get_pointee()
    while found.kind.name in ("CONSTANTARRAY", "DEPENDENTSIZEDARRAY", "INCOMPLETEARRAY"):
        extents.append(int(found.element_count) if found.kind.name == "CONSTANTARRAY" else 0)
        found = found.element_type.get_canonical()
    return extents


def element_type(node: Cursor) -> Cursor:
    """Type of an array's elements, or of what is no array."""
    found = node.type.get_canonical()
    if found.kind.name == "LVALUEREFERENCE":
        found = found.get_pointee().get_canonical()
    while found.kind.name in ("CONSTANTARRAY", "DEPENDENTSIZEDARRAY", "INCOMPLETEARRAY"):
        found = found.element_type.get_canonical()
    return found


def constant_start(declaration: Cursor) -> list[Cursor]:
    """What a constant variable is set to: one expression, or none of any other declaration."""
    if kind(declaration) != "VAR_DECL" or not declaration.type.is_const_qualified():
        return []
    return [child for child in children(declaration) if child.kind.is_expression()][-1:]


@dataclass(frozen=True)
class Place:
    """A variable, or a member of one: its declaration's name in libclang, and the members' names."""

    declaration: str
    members: tuple[str, ...] = ()


def place_of(node: Cursor) -> Place | None:
    """What an expression names: elements of an array are the array. None of what is no variable."""
    members: list[str] = []
    node = bare(node)
    while True:
        if kind(node) == "MEMBER_REF_EXPR":
            members.append(node.spelling)
        elif kind(node) == "DECL_REF_EXPR":
            referenced = node.referenced
            if referenced is None:
                return None
            return Place(referenced.get_usr() or str(referenced.hash), tuple(reversed(members)))
        elif kind(node) != "ARRAY_SUBSCRIPT_EXPR":
            return None
        below = children(node)
        if not below:
            return None
        node = bare(below[0])


def declaration_of(node: Cursor) -> Cursor | None:
    """Declaration of the variable that an expression names, an element or a member of."""
    node = bare(node)
    while kind(node) in ("MEMBER_REF_EXPR", "ARRAY_SUBSCRIPT_EXPR") and children(node):
        node = bare(children(node)[0])
    return node.referenced if kind(node) == "DECL_REF_EXPR" else None


def arguments(call: Call) -> list[Cursor]:
    """Of a call, in order."""
    return list(call.node.get_arguments())


class Flow:
    """Questions whose answer lies in several functions."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._parameters: dict[str, tuple[Function, int]] = {}
        self._loop_variables: dict[str, Loop] = {}
        for function in program.functions.values():
            for index, parameter in enumerate(function.parameters):
                self._parameters[parameter.get_usr()] = (function, index)
            for loop in function.loops:
                variable = loop_variable(loop)
                if variable is not None:
                    self._loop_variables[variable.get_usr()] = loop
        self._static: dict[str, bool] = {}
        self._pipelined: set[str] = self._pipelined_functions()

    def _pipelined_functions(self) -> set[str]:
        """Functions that run in a pipeline: their own, or that of a loop from which they are called."""
        found = {f.key for f in self.program.functions.values() if f.pragma("pipeline")}
        grown = True
        while grown:
            grown = False
            for key, calls in self.program.calls.items():
                if key in self.program.functions and key not in found:
                    inside = any(
                        c.caller.key in found or any(loop.pipelined for loop in c.loops) for c in calls
                    )
                    if inside:
                        found.add(key)
                        grown = True
        return found

    def in_pipeline(self, function: Function, loops: tuple[Loop, ...] | list[Loop]) -> bool:
        """Whether a statement runs in a pipeline."""
        return function.key in self._pipelined or any(loop.pipelined for loop in loops)

    def unrolled(self, loop: Loop) -> bool:
        """Whether the tool makes one copy of the body for every iteration."""
        pragma = loop.pragma("unroll")
        if pragma is not None:
            return "factor" not in pragma.text.clauses
        inside = self.in_pipeline(loop.function, loop.around[1:])
        return inside and not loop.pipelined and self.trip_count_known(loop)

    def trip_count_known(self, loop: Loop) -> bool:
        """Whether start, end and step of a `for` loop are constant once the loops round it are unrolled."""
        parts = children(loop.node)
        variable = loop_variable(loop)
        if loop.kind != "for" or len(parts) != 4 or variable is None:
            return False
        starts = [child for child in children(variable) if child.kind.is_expression()]
        bounds = _bounds(parts[1])
        if not starts or not bounds:
            return False
        key = variable.get_usr()
        before = self._static.get(key)
        self._static[key] = True
        try:
            return all(self.is_static(part) for part in (starts[-1], *bounds, parts[2]))
        finally:
            del self._static[key]
            if before is not None:
                self._static[key] = before

    def is_static(self, node: Cursor) -> bool:
        """Whether an expression is constant once the loops that can be unrolled are."""
        if evaluate(node) is not None:
            return True
        name = kind(node)
        if name == "CONDITIONAL_OPERATOR":
            condition, *choices = children(node)
            chosen = evaluate(condition)
            return all(
                map(self.is_static, [condition, *choices] if chosen is None else [choices[not chosen]])
            )
        if name == "DECL_REF_EXPR":
            return node.referenced is not None and self.is_static_declaration(node.referenced)
        if name == "MEMBER_REF_EXPR":
            return False
        below = [child for child in children(node) if child.kind.is_expression()]
        if name == "CALL_EXPR" and not below:
            return False
        return all(self.is_static(child) for child in below)

    def is_static_declaration(self, declaration: Cursor) -> bool:
        """Whether a variable is constant once the loops that can be unrolled are."""
        name = kind(declaration)
        if name in ("ENUM_CONSTANT_DECL", "TEMPLATE_NON_TYPE_PARAMETER", "FUNCTION_DECL", "CXX_METHOD"):
            return True
        if name in ("CONVERSION_FUNCTION", "CONSTRUCTOR", "OVERLOADED_DECL_REF"):
            return True
        key = declaration.get_usr()
        if key not in self._static:
            # What asks for itself again is judged by its other sources.
            self._static[key] = True
            self._static[key] = self._static_source(declaration, key)
        return self._static[key]

    def _static_source(self, declaration: Cursor, key: str) -> bool:
        if key in self._loop_variables:
            return self.unrolled(self._loop_variables[key])
        if kind(declaration) == "PARM_DECL":
            if key not in self._parameters:
                return False
            function, index = self._parameters[key]
            calls = self.program.calls.get(function.key, [])
            passed = [arguments(call) for call in calls]
            return bool(passed) and all(
                len(given) > index and self.is_static(given[index]) for given in passed
            )
        starts = constant_start(declaration)
        return bool(starts) and self.is_static(starts[-1])

    def roots(self, place: Place) -> set[Place]:
        """The variables that a parameter may stand for; any other place is its own root."""
        found: set[Place] = set()
        open_places, seen = [place], {place}
        while open_places:
            current = open_places.pop()
            function, index = self._parameters.get(current.declaration, (None, 0))
            calls = self.program.calls.get(function.key, []) if function else []
            passed = [given[index] for given in map(arguments, calls) if len(given) > index]
            sources = [source for source in map(place_of, passed) if source]
            if not sources:
                found.add(current)
            for source in sources:
                next_place = Place(source.declaration, source.members + current.members)
                if next_place not in seen:
                    seen.add(next_place)
                    open_places.append(next_place)
        return found


def _bounds(condition: Cursor) -> list[Cursor]:
    """What a loop's condition compares; nothing if it is no comparison, or several that must all hold."""
    condition = bare(condition)
    if kind(condition) != "BINARY_OPERATOR":
        return []
    if operator_of(condition) == Operator.LOGICAL_AND:
        both = [_bounds(side) for side in children(condition)]
        return [bound for bounds in both for bound in bounds] if all(both) else []
    return children(condition) if operator_of(condition) in Operator.COMPARISONS else []


def loop_variable(loop: Loop) -> Cursor | None:
    """The variable that a `for` loop declares."""
    first = children(loop.node)[0]
    if loop.kind != "for" or kind(first) != "DECL_STMT":
        return None
    return next((child for child in children(first) if kind(child) == "VAR_DECL"), None)


def mentions(node: Cursor, place: Place) -> bool:
    """Whether a variable's name occurs in a statement."""
    return any(
        kind(inner) == "DECL_REF_EXPR" and place_of(inner) == Place(place.declaration)
        for inner in descendants(node)
    )
