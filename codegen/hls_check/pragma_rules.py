"""Pragmas at their places: what they name, where they stand, and what the tool would make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from codegen.hls_check.findings import Finding
from codegen.hls_check.flow import (
    Flow,
    Place,
    element_type,
    place_of,
    rank_and_extents,
)
from codegen.hls_check.model import Function, Loop, Pragma, Program
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
from codegen.hls_check.pragma_text import PragmaText, clauses_of
from codegen.hls_check.table import PRAGMAS, Kind

FEWEST_IN_MEMORY = 5
"""Words in a bank that stays a memory: smaller arrays become registers, unless `bind_storage` says what holds them
(UG1399, config_array_partition: the threshold is 4 if none is set)."""

_IN_LOOP = frozenset({"loop_tripcount", "loop_flatten", "unroll", "dependence"})
_IN_FUNCTION = frozenset({"inline", "interface", "top", "function_instantiate"})
_IN_EITHER = frozenset({"pipeline", "performance"})
_ARRAYS = frozenset({"array_partition", "array_reshape", "bind_storage", "dependence"})
_OPERATORS = {
    "mul": ("*", (Operator.MUL, Operator.MUL_ASSIGN)),
    "add": ("+", (Operator.ADD, Operator.ADD_ASSIGN)),
    "sub": ("-", (Operator.SUB, Operator.SUB_ASSIGN)),
}
Findings = Iterator[Finding]


def check_pragmas(program: Program, flow: Flow) -> list[Finding]:
    """Everything that is wrong with pragmas."""
    found = [*_texts(program), *_unplaced(program)]
    rules: tuple[Callable[[Program, Flow, Pragma], Findings], ...] = (
        _values,
        _placement,
        _array_variable,
        _dimensions,
        _aggregate,
        _dependence,
        _dependence_banks,
        _allocation,
        _operation,
        _storage_latency,
    )
    for pragma in program.pragmas:
        for rule in rules:
            found += rule(program, flow, pragma)
    for function in program.functions.values():
        found += _interface(function)
        found += _struct_arrays(program, flow, function)
        found += _twice(function)
    return found


def _found(text: PragmaText, rule: str, message: str) -> Finding:
    return Finding(text.file, text.line, rule, message)


def _texts(program: Program) -> Findings:
    """What needs no syntax tree, and expressions that are no C++."""
    placed = {pragma.text.number for pragma in program.pragmas}
    by_line = {(text.file, text.line): text for text in program.texts}
    for text in program.texts:
        for problem in text.problems:
            yield _found(text, "pragma-table", problem)
    for file, line, message in program.errors:
        about = by_line.get((file, line))
        if about and about.number not in placed:
            continue
        if about:
            yield _found(about, "pragma-expression", f"pragma {about.name}: as C++ at this place: {message}")
        else:
            yield Finding(file, line, "compile", f"does not compile: {message}")


def _unplaced(program: Program) -> Findings:
    """Pragmas outside functions, and in what the preprocessor leaves out."""
    placed = {pragma.text.number for pragma in program.pragmas}
    for text in program.texts:
        if text.number not in placed:
            yield _found(text, "pragma-place", f"pragma {text.name} stands in no function that is compiled")


def _values(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    text = pragma.text
    if text.name not in PRAGMAS or (text.file, text.line) in program.broken:
        return
    known = clauses_of(text.name, text.word("mode"))
    for clause, value in pragma.values.items():
        about = known[clause]
        if about.kind is Kind.INTEGER and pragma.function.pattern is False:
            if value < about.least:
                yield _found(text, "pragma-value", f"`{clause} = {value}`: at least {about.least} is needed")
            if about.most is not None and value > about.most:
                yield _found(text, "pragma-value", f"`{clause} = {value}`: {about.most} is the most")
    low, high = pragma.values.get("min"), pragma.values.get("max")
    if low is not None and high is not None and low > high:
        yield _found(text, "pragma-value", f"min = {low} is more than max = {high}")


def _placement(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    text, loop = pragma.text, pragma.loop
    if text.name in _IN_LOOP and loop is None:
        yield _found(text, "pragma-place", f"{text.name} belongs into the body of its loop, directly")
    if text.name in _IN_FUNCTION and not pragma.at_top:
        yield _found(text, "pragma-place", f"{text.name} belongs into the body of its function, directly")
    if text.name in _IN_EITHER and loop is None and not pragma.at_top:
        yield _found(
            text, "pragma-place", f"{text.name} belongs into the body of a loop or function, directly"
        )
    if text.name == "loop_tripcount" and loop is not None and loop.kind == "do":
        yield _found(text, "tripcount", "the tool ignores loop_tripcount in a do loop: write for or while")
    whole = text.name == "unroll" and "factor" not in text.clauses and not pragma.function.pattern
    if whole and loop is not None and not flow.trip_count_known(loop):
        yield _found(text, "unroll-bounds", f"{loop.name} cannot be unrolled: its bounds are not constant")


def _array_variable(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    if pragma.text.name not in _ARRAYS or pragma.function.pattern:
        return
    if (pragma.text.file, pragma.text.line) in program.broken:
        return
    for node in pragma.mentions:
        if not rank_and_extents(node) and not _is_stream(node):
            name = pragma.text.clauses["variable"]
            yield _found(pragma.text, "pragma-array", f"{pragma.text.name}: `{name}` is no array")


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
            yield _found(pragma.text, "pragma-dimension", message)
        elif dimension > 0 and pragma.values.get("factor", 1) > max(extents[dimension - 1], 1):
            message = (
                f"`factor = {pragma.values['factor']}`: the dimension has {extents[dimension - 1]} elements"
            )
            yield _found(pragma.text, "pragma-dimension", message)


def _aggregate(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    if pragma.text.name not in ("aggregate", "disaggregate") or pragma.function.pattern:
        return
    for node in pragma.mentions:
        of = element_type(node)
        if of.kind.name != "RECORD" or declaration_file(of) not in program.files:
            message = f"{pragma.text.name} is for structs, and `{pragma.text.clauses['variable']}` has none"
            yield _found(pragma.text, "pragma-aggregate", message)


def _dependence(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    if pragma.text.name != "dependence" or pragma.loop is None:
        return
    if not pragma.loop.pipelined:
        yield _found(
            pragma.text, "dependence-loop", f"{pragma.loop.name} is not pipelined: dependence means nothing"
        )
    for node in pragma.mentions:
        place = place_of(node)
        if place is None or not _used(pragma.loop, place):
            message = f"`{pragma.text.clauses['variable']}` is not used in {pragma.loop.name}"
            yield _found(pragma.text, "dependence-loop", message)


def _used(loop: Loop, place: Place) -> bool:
    """Whether a variable occurs in a loop's body outside its pragmas."""
    inside_pragmas = {
        inner.hash
        for pragma in loop.function.pragmas
        for node in pragma.mentions
        for inner in descendants(node)
    }
    return any(
        kind(inner) == "DECL_REF_EXPR"
        and inner.hash not in inside_pragmas
        and place_of(inner) == Place(place.declaration)
        for inner in descendants(loop.body)
    )


def _dependence_banks(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    """A dependence of so small a bank that the tool makes registers of it is a recurrence that no pragma lengthens."""
    if pragma.text.name != "dependence":
        return
    for node in pragma.mentions:
        place, extents = place_of(node), rank_and_extents(node)
        if place is None or not extents:
            continue
        words = bank_words(program, flow, place, extents)
        bound = any(_is_named(program, root, "bind_storage") for root in {place} | flow.roots(place))
        if words < FEWEST_IN_MEMORY and not bound:
            name = pragma.text.clauses["variable"]
            message = (
                f"`{name}` has {words} words a bank: the tool makes registers of so few, and the dependence says "
                "nothing; turn a ring of registers instead, or say with bind_storage what holds them"
            )
            yield _found(pragma.text, "dependence-registers", message)


def bank_words(program: Program, flow: Flow, place: Place, extents: list[int]) -> int:
    """Words in each bank of an array, after the partitions and reshapes of it and of what it stands for."""
    left = list(extents)
    roots = flow.roots(place) | {place}
    for pragma in program.pragmas:
        if pragma.text.name not in ("array_partition", "array_reshape"):
            continue
        if not any(place_of(node) in roots for node in pragma.mentions):
            continue
        dimension, way = pragma.values.get("dim", 1), pragma.text.word("type")
        for index in range(len(left)):
            if dimension in (0, index + 1):
                factor = pragma.values.get("factor", 1)
                left[index] = -(-left[index] // factor) if way in ("block", "cyclic") else 1
    words = 1
    for extent in left:
        words *= extent
    return words


def _struct_arrays(program: Program, flow: Flow, function: Function) -> Findings:
    """Arrays of structs with arrays in them: unless told otherwise, the tool makes an array of each member."""
    for node, loops in function.nodes:
        # What a pipeline declares are values of one iteration.
        if kind(node) != "VAR_DECL" or function.pattern or flow.in_pipeline(function, loops):
            continue
        place = Place(node.get_usr())
        members = children(node.type.get_canonical().get_declaration())
        fields = [member for member in members if kind(member) == "FIELD_DECL"]
        for variable, at in [
            (node, place),
            *((field, Place(place.declaration, (field.spelling,))) for field in fields),
        ]:
            extents = rank_and_extents(variable)
            if not extents or not _has_arrays(program, element_type(variable)):
                continue
            if bank_words(program, flow, at, extents) > 1 and not _is_named(
                program, at, "aggregate", "disaggregate"
            ):
                message = (
                    f"`{variable.spelling}` is an array of structs with arrays: the tool makes an array of each "
                    "member, with several accesses where you see one; aggregate it"
                )
                yield Finding(function.file, node.location.line, "struct-array", message)


def _has_arrays(program: Program, of: Cursor) -> bool:
    """Whether a type is a struct of the project that holds arrays."""
    if of.kind.name != "RECORD" or declaration_file(of) not in program.files:
        return False
    return any(
        kind(child) == "FIELD_DECL" and rank_and_extents(child) for child in children(of.get_declaration())
    )


def _is_named(program: Program, place: Place, *names: str) -> bool:
    """Whether a pragma of these names is of a variable."""
    return any(
        pragma.text.name in names and place_of(node) == place
        for pragma in program.pragmas
        for node in pragma.mentions
    )


def _allocation(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    if pragma.text.name != "allocation":
        return
    for node in pragma.mentions:
        called = bare(node).referenced
        key = called.get_usr() if called is not None else ""
        # Calls in inlined functions are calls of this one.
        if not _reached(program, pragma.function, key):
            message = f"`{pragma.text.clauses['instances']}` is not called in {pragma.function.name}"
            yield _found(pragma.text, "pragma-allocation", message)


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
            yield _found(pragma.text, "pragma-operation", message)


def _assigned(function: Function, place: Place) -> Iterator[Cursor]:
    """What is assigned to a variable, or its element, in a function."""
    for node, _ in function.nodes:
        below = children(node)
        if kind(node) == "VAR_DECL" and node.get_usr() == place.declaration:
            yield from (child for child in below if child.kind.is_expression())
        elif len(below) > 1 and _assigns(node) and place_of(below[0]) == place:
            yield node


def _assigns(node: Cursor) -> bool:
    if kind(node) == "CALL_EXPR":
        return node.spelling.startswith("operator") and node.spelling.endswith("=")
    return operator_of(node) >= Operator.ASSIGN


def _applies(value: Cursor, sign: str, numbers: tuple[int, ...]) -> bool:
    names = (f"operator{sign}", f"operator{sign}=")
    return any(operator_of(node) in numbers or node.spelling in names for node in descendants(value))


def _storage_latency(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    latency = pragma.values.get("latency")
    if pragma.text.name != "bind_storage" or latency is None:
        return
    if latency == 0 and pragma.text.word("type") != "fifo":
        yield _found(pragma.text, "pragma-value", "`latency = 0`: a memory takes a cycle at least")


def _twice(function: Function) -> Findings:
    """Pragmas that a loop or function can have but one of."""
    single = _IN_EITHER | {"inline", "loop_flatten", "loop_tripcount", "unroll", "dataflow"}

    def judge(pragmas: Iterable[Pragma]) -> Findings:
        named = sorted(
            (p for p in pragmas if p.text.name in single), key=lambda p: (p.text.name, p.text.line)
        )
        for name, group in groupby(named, key=lambda p: p.text.name):
            for pragma in list(group)[1:]:
                yield _found(pragma.text, "pragma-twice", f"{name} stands here for the second time")

    yield from judge(pragma for pragma in function.pragmas if pragma.at_top)
    for loop in function.loops:
        yield from judge(loop.pragmas)


def _interface(function: Function) -> Findings:
    """Ports of a top function: all named, memory ports complete, a bundle for each."""
    pragmas = [pragma for pragma in function.pragmas if pragma.text.name == "interface"]
    if not pragmas:
        return
    parameters = {parameter.spelling: parameter for parameter in function.parameters}
    named: dict[str, set[str]] = {}
    bundles: dict[str, str] = {}
    controls: dict[str, str] = {}
    for pragma in pragmas:
        text = pragma.text
        port, mode, bundle = text.clauses.get("port", ""), text.word("mode"), text.clauses.get("bundle", "")
        named.setdefault(port, set()).add(mode)
        if port != "return" and port not in parameters:
            yield _found(text, "interface-port", f"`{port}` is no parameter of {function.name}")
            continue
        if mode == "m_axi":
            for clause in ("bundle", "depth", "offset"):
                if clause not in text.clauses:
                    yield _found(text, "interface-memory", f"m_axi port `{port}` needs `{clause} =`")
            if bundle in bundles:
                message = f"bundle `{bundle}` has port `{bundles[bundle]}`: two ports in a bundle wait for each other"
                yield _found(text, "interface-bundle", message)
            bundles[bundle] = port
        elif mode == "s_axilite":
            controls[bundle] = port
            if len(controls) > 1:
                message = (
                    f"bundle `{bundle}`: the registers are in `{next(iter(controls))}`, and one is enough"
                )
                yield _found(text, "interface-bundle", message)
        elif (
            port in parameters
            and "volatile" in parameters[port].type.spelling
            and "depth" not in text.clauses
        ):
            message = (
                f"volatile port `{port}` needs `depth =`: co-simulation cannot tell how often it is read"
            )
            yield _found(text, "interface-depth", message)
    first = pragmas[0].text
    for name in [*parameters, "return"]:
        if name not in named:
            yield _found(first, "interface-port", f"`{name}` has no interface pragma")
    for port, modes in named.items():
        offset = next((p.text.word("offset") for p in pragmas if p.text.clauses.get("port") == port), "")
        if "m_axi" in modes and offset == "slave" and "s_axilite" not in modes:
            yield _found(first, "interface-port", f"the address of `{port}` needs a register: s_axilite")
