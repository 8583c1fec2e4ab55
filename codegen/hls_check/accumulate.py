"""Sums that a loop carries: a pipeline of II = 1 has one cycle for what lies between an iteration and the next."""

from __future__ import annotations

from collections.abc import Iterator

from codegen.hls_check.arithmetic_rules import operands
from codegen.hls_check.carried import Carried
from codegen.hls_check.findings import Finding
from codegen.hls_check.flow import Flow
from codegen.hls_check.model import Function, Loop
from codegen.hls_check.parse import Cursor, Operator, bare, children, kind, operator_of
from codegen.hls_check.places import (
    Place,
    arbitrary_bits,
    declaration_of,
    loop_variable,
    mentions,
    native_bits,
    place_of,
    type_name,
)

_ADDED = frozenset({"operator+=", "operator-="})
_SUMS = frozenset({Operator.ADD_ASSIGN, Operator.SUB_ASSIGN})


def check_accumulations(flow: Flow) -> Iterator[Finding]:
    """Chains of additions that begin with a value of an earlier iteration, and sums that may be merged into one."""
    carried = Carried(flow)
    for function in flow.program.functions.values():
        if not function.pattern:
            yield from _chains(function, carried)
            yield from _merged_sums(function, carried)


def _chains(function: Function, carried: Carried) -> Iterator[Finding]:
    flow = carried.flow
    counted: dict[Place, int] = {}
    for node, loops in function.nodes:
        added = operator_of(node) in _SUMS or (kind(node) == "CALL_EXPR" and node.spelling in _ADDED)
        sides = operands(node) if added else []
        if len(sides) != 2 or not flow.in_pipeline(function, loops):
            continue
        place, declaration = place_of(sides[0]), declaration_of(sides[0])
        if place is None or declaration is None:
            continue
        repeated = [loop for loop in _unrolled_inside(loops, flow) if _adds_up(loop, sides[0], declaration)]
        counted[place] = counted.get(place, 0) + (2 if repeated else 1)
        begins = repeated[-1].node if repeated else node
        if counted[place] > 1 and _is_carried(function, carried, declaration, place, begins, loops):
            message = (
                f"a chain of additions begins with what an earlier iteration left in {declaration.spelling}: "
                "sum the lanes in a variable of their own first, of just their bits, and add that once"
            )
            yield Finding(function.file, node.location.line, "accumulator-chain", message)


def _unrolled_inside(loops: list[Loop], flow: Flow) -> list[Loop]:
    """The unrolled loops up to the pipelined one."""
    found = []
    for loop in loops:
        if loop.pipelined:
            break
        if flow.unrolled(loop):
            found.append(loop)
    return found


def _adds_up(loop: Loop, target: Cursor, declaration: Cursor) -> bool:
    """Whether all iterations of an unrolled loop add to the same variable."""
    variable = loop_variable(loop)
    if variable is None or mentions(target, Place(variable.get_usr())):
        return False
    start, end = loop.node.extent.start.offset, loop.node.extent.end.offset
    inside = start <= declaration.location.offset < end
    return not (inside and str(declaration.location.file) == str(loop.node.location.file))


def _is_carried(
    function: Function, carried: Carried, declaration: Cursor, place: Place, begins: Cursor, loops: list[Loop]
) -> bool:
    """Whether a sum starts with a value of an earlier iteration, as far as can be seen before where it `begins`."""
    pipelined = next((loop for loop in loops if loop.pipelined), None)
    if kind(declaration) == "PARM_DECL":
        return pipelined is not None or carried.is_carried_declaration(declaration)
    outside = pipelined.node.extent.start.offset if pipelined is not None else 0
    starts = _starts(function, declaration, place, begins, outside)
    if pipelined is not None and declaration.location.offset < outside and not starts:
        return True
    return any(carried.is_carried(start) for start in starts)


def _starts(function: Function, declaration: Cursor, place: Place, node: Cursor, after: int) -> list[Cursor]:
    """Expressions assigned to a variable before a sum, behind a place in the file."""
    found = []
    if declaration.location.offset > after:
        found += [c for c in children(declaration) if c.kind.is_expression() and not _is_default(c)][-1:]
    for other, _ in function.nodes:
        if not after < other.location.offset < node.location.offset:
            continue
        assigns = operator_of(other) == Operator.ASSIGN or (
            kind(other) == "CALL_EXPR" and other.spelling == "operator="
        )
        if assigns and place_of(operands(other)[0]) == place:
            found.append(operands(other)[1])
    return found


def _is_default(start: Cursor) -> bool:
    """A constructor without arguments."""
    return kind(start) == "CALL_EXPR" and not any(child.kind.is_expression() for child in children(start))


def _merged_sums(function: Function, carried: Carried) -> Iterator[Finding]:
    """Sums of lanes that are as wide as what they are added to: the tool may balance both trees into one."""
    flow = carried.flow
    balance = function.pragma("expression_balance")
    if balance and "off" in balance.text.clauses:
        return
    for node, loops in function.nodes:
        adds = operator_of(node) == Operator.ADD or (
            kind(node) == "CALL_EXPR" and node.spelling == "operator+"
        )
        sides = operands(node) if adds else []
        if len(sides) != 2 or not flow.in_pipeline(function, loops):
            continue
        for side, other in (sides, sides[::-1]):
            lanes = bare(side)
            if _bits(lanes) < _bits(bare(other)) or not carried.is_carried(other):
                continue
            if _is_lane_sum(lanes, function, flow):
                message = (
                    f"{lanes.spelling} is a sum of lanes with {_bits(lanes)} bits, as many as what it is added to: the "
                    "tool may balance all additions into one tree, with the carried value in it; give it fewer bits, "
                    "or say expression_balance off"
                )
                yield Finding(function.file, node.location.line, "accumulator-width", message)


def _is_lane_sum(node: Cursor, function: Function, flow: Flow) -> bool:
    """Whether an expression is what an unrolled loop sums up, here or in the function that gives it."""
    if kind(node) == "DECL_REF_EXPR":
        return _sums_up(function, [place_of(node)], flow)
    called = node.referenced if kind(node) == "CALL_EXPR" else None
    callee = flow.program.functions.get(called.get_usr()) if called is not None else None
    if callee is None:
        return False
    inline = callee.pragma("inline")
    if inline and "off" in inline.text.clauses:
        return False  # a module's result is a register, which no balancing passes
    returned = [children(inner) for inner, _ in callee.nodes if kind(inner) == "RETURN_STMT"]
    return _sums_up(callee, [place_of(result[0]) for result in returned if result], flow)


def _bits(node: Cursor) -> int:
    return arbitrary_bits(type_name(node)) or native_bits(node) or 0


def _sums_up(function: Function, places: list[Place | None], flow: Flow) -> bool:
    """Whether an unrolled loop adds to a variable again and again."""
    for node, loops in function.nodes:
        added = operator_of(node) in _SUMS or (kind(node) == "CALL_EXPR" and node.spelling in _ADDED)
        if added and any(flow.unrolled(loop) for loop in loops) and place_of(operands(node)[0]) in places:
            return True
    return False
