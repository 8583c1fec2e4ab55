"""Memories: what dependences are of, how many words a bank has, what becomes of structs."""

from __future__ import annotations

from codegen.hls_check.findings import Finding, Findings, at_pragma
from codegen.hls_check.flow import Flow
from codegen.hls_check.model import Function, Loop, Pragma, Program
from codegen.hls_check.parse import Cursor, children, declaration_file, descendants, kind
from codegen.hls_check.places import Place, element_type, place_of, rank_and_extents

FEWEST_IN_MEMORY = 5
"""Words in a bank that stays a memory: smaller arrays become registers, unless `bind_storage` says what holds them
(UG1399, config_array_partition: the threshold is 4 if none is set)."""


def check_dependence(program: Program, flow: Flow, pragma: Pragma) -> Findings:
    """Dependences outside of pipelined loops, or of what their loops do not use."""
    if pragma.text.name != "dependence" or pragma.loop is None:
        return
    if not pragma.loop.pipelined:
        yield at_pragma(
            pragma.text, "dependence-loop", f"{pragma.loop.name} is not pipelined: dependence means nothing"
        )
    for node in pragma.mentions:
        place = place_of(node)
        if place is None or not _used(pragma.loop, place):
            message = f"`{pragma.text.clauses['variable']}` is not used in {pragma.loop.name}"
            yield at_pragma(pragma.text, "dependence-loop", message)


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


def check_banks(program: Program, flow: Flow, pragma: Pragma) -> Findings:
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
            yield at_pragma(pragma.text, "dependence-registers", message)


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


def check_struct_arrays(program: Program, flow: Flow, function: Function) -> Findings:
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
