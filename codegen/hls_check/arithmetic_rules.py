"""Operations that cost more than they seem to: dividers, 64-bit multipliers, addresses that may wrap."""

from __future__ import annotations

from collections.abc import Iterator

from codegen.hls_check.findings import Finding
from codegen.hls_check.flow import Flow
from codegen.hls_check.model import Function
from codegen.hls_check.parse import Cursor, Operator, bare, children, descendants, evaluate, kind, operator_of
from codegen.hls_check.places import NATIVE_WIDE, computed_bits, is_wrapping, native_bits

_DIVIDERS = frozenset({"operator/", "operator%", "operator/=", "operator%="})
_DIVISIONS = frozenset({Operator.DIV, Operator.REM, Operator.DIV_ASSIGN, Operator.REM_ASSIGN})
_PRODUCTS = frozenset({Operator.MUL, Operator.MUL_ASSIGN})

EXACT_QUOTIENTS = frozenset({"gate_score", "whole_reciprocal"})
"""Functions of the original's arithmetic (iccad23) that give an exact quotient: a divider is what they ask for."""


def operands(node: Cursor) -> list[Cursor]:
    """Left and right operand of a binary operator, native or of a class."""
    return list(node.get_arguments()) if kind(node) == "CALL_EXPR" else children(node)


def check_divisions(function: Function, flow: Flow) -> Iterator[Finding]:
    """Divisions and remainders by what varies, and in pipelines by what is no power of two."""
    for node, loops in function.nodes:
        divides = operator_of(node) in _DIVISIONS or (
            kind(node) == "CALL_EXPR" and node.spelling in _DIVIDERS
        )
        sides = operands(node) if divides else []
        if len(sides) != 2 or (flow.is_static(sides[0]) and flow.is_static(sides[1])):
            continue
        divisor = evaluate(bare(sides[1]))
        line = node.location.line
        if divisor is None and function.name not in EXACT_QUOTIENTS:
            message = "a division by what varies: some 36 cycles of divider; carry the quotient, or multiply"
            yield Finding(function.file, line, "divider", message)
        elif (
            divisor is not None
            and (divisor <= 0 or divisor & (divisor - 1))
            and flow.in_pipeline(function, loops)
        ):
            message = f"a division by {divisor} in a pipeline is a divider or a wide product: count instead"
            yield Finding(function.file, line, "divider", message)


def check_wide_products(function: Function) -> Iterator[Finding]:
    """Native 64-bit products of what is computed with 64 bits: the tool cannot see that fewer matter."""
    for node, _ in function.nodes:
        if operator_of(node) not in _PRODUCTS or native_bits(node) != NATIVE_WIDE:
            continue
        widths = [computed_bits(side) for side in children(node)]
        if NATIVE_WIDE in widths and not _is_power_of_two(node):
            message = (
                "a product of 64 bits, of an operand that is computed with 64 bits: 4 to 16 DSP slices; "
                "cast the operand to an ap_int of the bits that it has"
            )
            yield Finding(function.file, node.location.line, "wide-product", message)


def _is_power_of_two(product: Cursor) -> bool:
    values = [evaluate(side) for side in children(product)]
    return any(value is not None and value > 0 and value & (value - 1) == 0 for value in values)


def check_addresses(function: Function, flow: Flow) -> Iterator[Finding]:
    """Addresses of memory ports that are no base + stride, because they may wrap at 2**32."""
    for node, _ in function.nodes:
        if kind(node) != "ARRAY_SUBSCRIPT_EXPR" or len(children(node)) != 2:
            continue
        base, index = children(node)
        pointer = bare(base)
        if pointer.referenced is None or pointer.referenced.type.get_canonical().kind.name != "POINTER":
            continue
        wraps = [
            inner
            for inner in descendants(index)
            if inner.kind.is_expression() and evaluate(inner) is None and is_wrapping(inner)
        ]
        if wraps:
            message = (
                f"the address of {pointer.spelling} is computed as {wraps[-1].type.spelling}, which may wrap: no burst "
                "is found in it; compute it as int, or request the burst"
            )
            yield Finding(function.file, node.location.line, "port-address", message)
