"""Values that an iteration of a pipeline may have from the one before it."""

from __future__ import annotations

from codegen.hls_check.flow import Flow
from codegen.hls_check.model import Function, Loop
from codegen.hls_check.parse import Cursor, Operator, children, evaluate, kind, operator_of
from codegen.hls_check.places import Place, arguments, declaration_of, place_of


class Carried:
    """Follows values from variables that outlive an iteration, through locals and parameters."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._variables: dict[str, tuple[Function, list[Loop]]] = {}
        self._assigned: dict[str, list[tuple[list[Loop], Cursor | None]]] = {}
        for function in flow.program.functions.values():
            self._read_variables(function)
        self._apart = {
            root
            for pragma in flow.program.pragmas
            if pragma.text.name == "dependence" and pragma.text.word("direction") in ("", "raw")
            for place in map(place_of, pragma.mentions)
            if place
            for root in flow.roots(place)
        }
        self._carried: dict[str, bool] = {}

    def _read_variables(self, function: Function) -> None:
        """Declarations of a function's variables, and its assignments to them, with the values that can be seen."""
        for node, loops in function.nodes:
            if kind(node) == "VAR_DECL":
                self._variables[node.get_usr()] = (function, loops)
                starts = [child for child in children(node) if child.kind.is_expression()]
                self._set(node.get_usr(), loops, *starts[-1:])
            elif operator_of(node) >= Operator.ASSIGN:
                target, value = children(node)
                self._set_target(target, loops, value)
            elif kind(node) == "UNARY_OPERATOR":
                self._set_target(children(node)[0], loops, None)
            elif kind(node) == "CALL_EXPR":
                given = list(node.get_arguments())
                if node.spelling.startswith("operator") and node.spelling.endswith("=") and len(given) == 2:
                    self._set_target(given[0], loops, given[1])
                for argument, passed in zip(given, _passed_types(node), strict=False):
                    if "&" in passed and "const" not in passed:
                        self._set_target(argument, loops, None)

    def _set_target(self, target: Cursor, loops: list[Loop], value: Cursor | None) -> None:
        declaration = declaration_of(target)
        if declaration is not None:
            self._set(declaration.get_usr(), loops, value)

    def _set(self, key: str, loops: list[Loop], *values: Cursor | None) -> None:
        self._assigned.setdefault(key, []).extend((loops, value) for value in values)

    def is_carried(self, node: Cursor) -> bool:
        """Whether a value of an iteration of a pipeline may come from the one before it.

        What a dependence pragma speaks of may not: it comes from further away, or from nowhere. Indices and conditions
        choose values, but are no part of them.
        """
        if kind(node) == "DECL_REF_EXPR":
            return node.referenced is not None and self.is_carried_declaration(node.referenced)
        parts = children(node)
        if kind(node) == "CONDITIONAL_OPERATOR":
            chosen = evaluate(parts[0])
            parts = parts[1:] if chosen is None else [parts[1 if chosen else 2]]
        elif kind(node) == "ARRAY_SUBSCRIPT_EXPR":
            parts = parts[:1]
        return any(map(self.is_carried, parts))

    def is_carried_declaration(self, declaration: Cursor) -> bool:
        """Whether a variable may hold what an earlier iteration of a pipeline left in it."""
        if kind(declaration) not in ("VAR_DECL", "PARM_DECL"):
            return False
        key = declaration.get_usr()
        if key not in self._carried:
            self._carried[key] = False
            self._carried[key] = self._carried_source(declaration, key)
        return self._carried[key]

    def _carried_source(self, declaration: Cursor, key: str) -> bool:
        if self.flow.roots(Place(key)) & self._apart:
            return False
        assigned = self._assigned.get(key, [])
        in_loops = any(any(loop.pipelined for loop in loops) for loops, _ in assigned)
        if key in self.flow.parameters:
            function, index = self.flow.parameters[key]
            if not self.flow.in_pipeline(function, []):
                return in_loops
            passed = [arguments(call) for call in self.flow.program.calls.get(function.key, [])]
            if any(len(given) > index and self.is_carried(given[index]) for given in passed):
                return True
        elif key not in self._variables or not self.flow.in_pipeline(*self._variables[key]):
            return in_loops
        elif declaration.storage_class.name == "STATIC":
            return bool(assigned)
        return any(value is not None and self.is_carried(value) for _, value in assigned)


def _passed_types(call: Cursor) -> list[str]:
    """Types of a called function's parameters."""
    called = call.referenced
    if called is None or kind(called) not in ("FUNCTION_DECL", "CXX_METHOD"):
        return []
    return [str(parameter.type.get_canonical().spelling) for parameter in called.get_arguments()]
