"""Names, types and widths of what stands in expressions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codegen.hls_check.model import Call, Loop
from codegen.hls_check.parse import Cursor, bare, children, descendants, evaluate, kind, layers

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
    """Initial value of a constant variable: one expression, or none of any other declaration."""
    if kind(declaration) != "VAR_DECL" or not declaration.type.is_const_qualified():
        return []
    return [child for child in children(declaration) if child.kind.is_expression()][-1:]


@dataclass(frozen=True)
class Place:
    """A variable, or a member of one: its declaration's name in libclang, and the members' names."""

    declaration: str
    members: tuple[str, ...] = ()


def place_of(node: Cursor) -> Place | None:
    """Variable that an expression names: elements of an array are the array. None of what is no variable."""
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
    """Arguments of a call, in order."""
    return list(call.node.get_arguments())


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
