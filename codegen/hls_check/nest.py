"""Nests of loops of which the tool makes one pipeline."""

from __future__ import annotations

from codegen.hls_check.flow import Flow
from codegen.hls_check.model import LOOPS, Loop
from codegen.hls_check.parse import Cursor, children, descendants, kind

_CONTROL = frozenset({"IF_STMT", "SWITCH_STMT", "CONDITIONAL_OPERATOR"})


def nest_root(loop: Loop, flow: Flow) -> Loop:
    """The outermost loop of the nest that is flattened into a pipelined loop; the loop itself without such a nest.

    Releases differ: UG1399 up to 2024 flattens loops with nothing beside the inner one; 2026.1 also with other
    statements, as long as they are no control flow. Here, whatever may be flattened counts as flattened, because a
    dependence must hold either way; `loop_flatten off` is what keeps loops apart.
    """
    outer = loop.parent
    if (
        outer is None
        or outer.kind == "do"
        or _keeps_apart(loop)
        or _keeps_apart(outer)
        or outer.pragma("unroll")
    ):
        return loop
    if not _only_loop(outer, loop, flow):
        return loop
    return nest_root(outer, flow)


def _keeps_apart(loop: Loop) -> bool:
    pragma = loop.pragma("loop_flatten")
    return pragma is not None and "off" in pragma.text.clauses


def _only_loop(outer: Loop, loop: Loop, flow: Flow) -> bool:
    """Whether a loop's body has one loop, and no control flow beside it."""
    for statement in children(outer.body):
        if statement == loop.statement:
            continue
        for node in descendants(statement):
            if kind(node) in _CONTROL or kind(node) in LOOPS:
                return False
            if (
                kind(node) == "CALL_EXPR"
                and node.referenced is not None
                and _has_loops(node.referenced, flow)
            ):
                return False
    return True


def _has_loops(called: Cursor, flow: Flow) -> bool:
    """Whether a function has loops that stay loops, itself or in what it calls."""
    seen: set[str] = set()
    open_keys = [called.get_usr()]
    while open_keys:
        function = flow.program.functions.get(open_keys.pop())
        if function is None or function.key in seen:
            continue
        seen.add(function.key)
        if any(not flow.unrolled(loop) for loop in function.loops):
            return True
        open_keys += [call.callee for call in function.calls]
    return False
