"""Constants after unrolling, statements in a pipeline, and the memory that a name stands for."""

from __future__ import annotations

from codegen.hls_check.model import Function, Loop, Program
from codegen.hls_check.parse import Cursor, Operator, bare, children, evaluate, kind, operator_of
from codegen.hls_check.places import Place, arguments, constant_start, loop_variable, place_of


class Flow:
    """Questions whose answer lies in several functions.

    Attributes:
        program: the functions.
        parameters: function and place in its list, by libclang's name of a parameter.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.parameters: dict[str, tuple[Function, int]] = {}
        self._loop_variables: dict[str, Loop] = {}
        for function in program.functions.values():
            for index, parameter in enumerate(function.parameters):
                self.parameters[parameter.get_usr()] = (function, index)
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
            if key not in self.parameters:
                return False
            function, index = self.parameters[key]
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
            function, index = self.parameters.get(current.declaration, (None, 0))
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
    """Operands of a loop's comparison; nothing if its condition is none, or several that must all hold."""
    condition = bare(condition)
    if kind(condition) != "BINARY_OPERATOR":
        return []
    if operator_of(condition) == Operator.LOGICAL_AND:
        both = [_bounds(side) for side in children(condition)]
        return [bound for bounds in both for bound in bounds] if all(both) else []
    return children(condition) if operator_of(condition) in Operator.COMPARISONS else []
