"""The C++ of a check build: calls of `hls/sim/checked_memory.h` in place of pragmas, random bits in locals."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from codegen.hls_check.flow import Flow
from codegen.hls_check.model import Function, Loop, Pragma, Program
from codegen.hls_check.nest import nest_root
from codegen.hls_check.parse import Cursor, children, file_of, kind
from codegen.hls_check.places import Place, place_of, rank_and_extents
from codegen.hls_check.table import STORAGE

_CHECK = "edgemoe::check::"
_LAYOUTS = frozenset({"array_partition", "array_reshape", "bind_storage"})
_MANY = 1 << 20
"""Ports of a memory that has as many as are asked for."""

Edit = tuple[int, int, str]
"""First byte, byte behind the last one, and what comes in their place."""


def instrument(program: Program, flow: Flow) -> tuple[dict[Path, str], list[Loop]]:
    """Texts of a project's files for a check build.

    Returns:
        The texts, and the pipelined loops by the number under which the check build speaks of them.
    """
    edits: dict[Path, set[Edit]] = {path: set() for path in program.probed}
    loops: list[Loop] = []
    numbers: dict[tuple[str, int], int] = {}
    for function in program.functions.values():
        path = Path(file_of(function.node))
        for loop in function.loops:
            if not loop.pipelined:
                continue
            # Instances of a template stand at one place.
            number = numbers.setdefault((str(path), loop.node.extent.start.offset), len(loops))
            if number == len(loops):
                loops.append(loop)
            edits[path] |= set(_run(loop, nest_root(loop, flow), number))
        edits[path] |= set(_parameters(function, flow))
        edits[path] |= set(_locals(program, path, function.body))
    for node in program.declarations:
        path = Path(file_of(node))
        edits[path] |= set(_overload(program.probed[path].data, node))
    calls = {pragma.text.number: _call(pragma) for pragma in program.pragmas}
    texts = {}
    for path, probed in program.probed.items():
        found = edits[path] | {
            (start, end, calls.get(number, "")) for number, (start, end) in probed.blocks.items()
        }
        texts[path] = _applied(probed.data, found)
    return texts, loops


def _applied(data: bytes, edits: set[Edit]) -> str:
    """A text with its edits; of several at one byte, what closes comes before what opens."""
    parts, place = [], 0
    for start, end, text in sorted(edits, key=lambda edit: (edit[0], not edit[2].startswith("}"), edit)):
        parts += [data[place:start], text.encode()]
        place = max(place, end)
    return b"".join([*parts, data[place:]]).decode()


def _run(loop: Loop, root: Loop, number: int) -> Iterator[Edit]:
    """An object round the loop that is entered, and a call at the begin of each iteration."""
    pragma = loop.pragma("pipeline")
    interval = pragma.values.get("ii", 1) if pragma else 1
    extent = root.statement.extent
    yield extent.start.offset, extent.start.offset, f"{{ {_CHECK}Run edgemoe_run({number}, {interval}); "
    yield extent.end.offset, extent.end.offset, "}"
    inside = loop.body.extent.start.offset + 1
    yield inside, inside, f" {_CHECK}iterate();"


def _call(pragma: Pragma) -> str:
    """Call that stands in place of a pragma."""
    text = pragma.text
    variable = text.clauses.get("variable", "")
    if text.problems or not pragma.mentions:
        return ""
    if text.name == "dependence":
        direction = text.word("direction").upper() or "ANY"
        distance = text.clauses["distance"] if text.word("dependent") == "true" else f"{_CHECK}NEVER"
        called = f"{_CHECK}declare({text.number}, {variable}, {_CHECK}{direction}, {distance});"
        return f"if ({_CHECK}begins()) {{ {called} }}"
    return _layout(pragma, variable) if text.name in _LAYOUTS else ""


def _layout(pragma: Pragma, variable: str) -> str:
    text = pragma.text
    name = f'"{text.clauses["variable"]}"'
    if text.name == "bind_storage":
        shape = STORAGE[text.word("type")]
        reads = _MANY if shape.any_reads else shape.reads
        return f"{_CHECK}store({variable}, {name}, {reads}, {shape.writes}, {shape.shared});"
    way = text.word("type").upper() or "COMPLETE"
    reshaped = "true" if text.name == "array_reshape" else "false"
    dimension, factor = pragma.values.get("dim", 1), pragma.values.get("factor", 0)
    return f"{_CHECK}lay_out({variable}, {name}, {dimension}, {reshaped}, {_CHECK}{way}, {factor});"


def _parameters(function: Function, flow: Flow) -> Iterator[Edit]:
    """The test bench calls engines with memories of its own: those have the shapes that the top gives its memories."""
    if function.pattern or flow.in_pipeline(function, []):
        return
    inside = function.body.extent.start.offset + 1
    for parameter in function.parameters:
        if not parameter.spelling or not rank_and_extents(parameter):
            continue
        yield inside, inside, f' {_CHECK}call_it({parameter.spelling}, "{parameter.spelling}");'
        roots = flow.roots(Place(parameter.get_usr()))
        for pragma in flow.program.pragmas:
            if pragma.text.name in _LAYOUTS and not pragma.text.problems and pragma.mentions:
                node = pragma.mentions[0]
                if place_of(node) in roots and rank_and_extents(node) == rank_and_extents(parameter):
                    yield inside, inside, f" {_layout(pragma, parameter.spelling)}"


def _locals(program: Program, path: Path, body: Cursor) -> Iterator[Edit]:
    """Random bits in each local variable that begins with none of its own."""
    data, blocks = program.probed[path].data, sorted(program.probed[path].blocks.values())

    def in_pragma(offset: int) -> bool:
        index = bisect_right(blocks, (offset, len(data))) - 1
        return index >= 0 and offset < blocks[index][1]

    for block in body.walk_preorder():
        if kind(block) != "COMPOUND_STMT" or in_pragma(block.extent.start.offset):
            continue
        for statement in children(block):
            if kind(statement) != "DECL_STMT":
                continue
            names = [node.spelling for node in children(statement) if _is_open(data, node)]
            end = statement.extent.end.offset
            if names:
                yield end, end, "".join(f" using edgemoe::scramble; scramble({name});" for name in names)


def _is_open(data: bytes, node: Cursor) -> bool:
    """Whether a declaration leaves its variable's value open."""
    if kind(node) != "VAR_DECL" or node.storage_class.name == "STATIC" or "&" in node.type.spelling:
        return False
    tail = data[node.location.offset + len(node.spelling.encode()) : node.extent.end.offset]
    return not any(sign in tail for sign in (b"=", b"(", b"{"))


def _overload(data: bytes, node: Cursor) -> Iterator[Edit]:
    """A function that fills the members of a struct, behind it."""
    below = children(node)
    if kind(node) not in ("STRUCT_DECL", "CLASS_TEMPLATE") or not node.is_definition() or not node.spelling:
        return
    fields = [child for child in below if kind(child) == "FIELD_DECL"]
    if not fields or any(field.access_specifier.name != "PUBLIC" for field in fields):
        return
    if any(field.type.is_const_qualified() or "&" in field.type.spelling for field in fields):
        return
    end = data.index(b";", node.extent.end.offset) + 1
    parameters = [child for child in below if kind(child).startswith("TEMPLATE_")]
    of = node.spelling
    if kind(node) == "CLASS_TEMPLATE":
        of += "<" + ", ".join(parameter.spelling for parameter in parameters) + ">"
    head = ", ".join(_template_parameter(parameter) for parameter in parameters)
    filled = " ".join(f"scramble(value.{field.spelling});" for field in fields)
    kept = f"template <{head}> " if kind(node) == "CLASS_TEMPLATE" else "inline "
    yield end, end, f" {kept}void scramble({of} &value) {{ using edgemoe::scramble; {filled} }}"


def _template_parameter(parameter: Cursor) -> str:
    if kind(parameter) == "TEMPLATE_NON_TYPE_PARAMETER":
        return f"{parameter.type.spelling} {parameter.spelling}"
    return f"typename {parameter.spelling}"
