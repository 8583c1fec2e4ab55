"""A project as the checks see it: functions, loops, calls, and the pragmas where they stand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from codegen.hls_check.parse import Cursor, Unit, children, file_of, kind, parse
from codegen.hls_check.pragma_text import PragmaText, Probed, find_pragmas, probe

LOOPS = {"FOR_STMT": "for", "WHILE_STMT": "while", "DO_STMT": "do", "CXX_FOR_RANGE_STMT": "range for"}
_FUNCTIONS = frozenset(
    {"FUNCTION_DECL", "FUNCTION_TEMPLATE", "CXX_METHOD", "CONSTRUCTOR", "CONVERSION_FUNCTION"}
)
_PLACES = frozenset({"NAMESPACE", "LINKAGE_SPEC", "UNEXPOSED_DECL"})
_TYPES = frozenset({"STRUCT_DECL", "CLASS_DECL", "CLASS_TEMPLATE"})


@dataclass(eq=False)
class Pragma:
    """A pragma at its place.

    Attributes:
        text: its words.
        function: that it stands in.
        loop: whose body it stands in, without anything between; None elsewhere.
        loops: all loops round it, the outermost first.
        values: of its integer clauses.
        mentions: the expressions of its variables and functions.
        at_top: whether it stands in the body of its function, without anything between.
    """

    text: PragmaText
    function: Function
    loop: Loop | None
    loops: tuple[Loop, ...]
    values: dict[str, int]
    mentions: list[Cursor]
    at_top: bool


@dataclass(eq=False)
class Loop:
    """A loop.

    Attributes:
        node: the statement.
        statement: the same with its label.
        kind: `for`, `while`, `do` or `range for`.
        label: "" without one.
        function: that it stands in.
        parent: the loop round it.
        body: its last statement.
        pragmas: that stand in its body, without anything between.
    """

    node: Cursor
    statement: Cursor
    kind: str
    label: str
    function: Function
    parent: Loop | None
    body: Cursor
    pragmas: list[Pragma] = field(default_factory=list)

    @property
    def line(self) -> int:
        """Line of the statement."""
        return int(self.node.location.line)

    @property
    def name(self) -> str:
        """Name of the place, for messages."""
        return self.label or f"the {self.kind} loop in line {self.line}"

    def pragma(self, name: str) -> Pragma | None:
        """The loop's pragma of a name."""
        return next((pragma for pragma in self.pragmas if pragma.text.name == name), None)

    @property
    def pipelined(self) -> bool:
        """Whether a pragma pipelines it."""
        pragma = self.pragma("pipeline")
        return pragma is not None and "off" not in pragma.text.clauses

    @property
    def around(self) -> list[Loop]:
        """The loop and the loops round it, the innermost first."""
        return [self, *(self.parent.around if self.parent else [])]


@dataclass(eq=False)
class Call:
    """A call of one of the project's functions."""

    node: Cursor
    callee: str
    caller: Function
    loops: tuple[Loop, ...]


@dataclass(eq=False)
class Function:
    """A function with a body; of a template, each instance and the pattern.

    Attributes:
        pattern: whether types and values are still open, because it is a template.
    """

    node: Cursor
    key: str
    name: str
    file: str
    body: Cursor
    parameters: list[Cursor]
    pattern: bool = False
    pragmas: list[Pragma] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    @cached_property
    def nodes(self) -> list[tuple[Cursor, list[Loop]]]:
        """Everything in the body, with the loops round it, the innermost first."""
        loops = {loop.node.hash: loop for loop in self.loops}
        found: list[tuple[Cursor, list[Loop]]] = []

        def walk(node: Cursor, around: list[Loop]) -> None:
            loop = loops.get(node.hash)
            inside = [loop, *around] if loop is not None else around
            found.append((node, inside))
            for child in children(node):
                walk(child, inside)

        walk(self.body, [])
        return found

    def pragma(self, name: str) -> Pragma | None:
        """The pragma of a name that stands in the function's body, without anything between."""
        return next((pragma for pragma in self.pragmas if pragma.text.name == name and pragma.at_top), None)


@dataclass
class Program:
    """Everything that the tool would synthesise together.

    Attributes:
        texts: all pragmas of its files.
        functions: by libclang's name of them.
        calls: by the function that they call.
        declarations: what stands outside functions.
        errors: (file, line, message) of what does not compile.
        probed: its files and headers, with blocks in place of pragmas.
    """

    texts: list[PragmaText]
    probed: dict[Path, Probed]
    functions: dict[str, Function] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    declarations: list[Cursor] = field(default_factory=list)
    errors: list[tuple[str, int, str]] = field(default_factory=list)

    @cached_property
    def files(self) -> frozenset[str]:
        """Paths of its files and headers."""
        return frozenset(map(str, self.probed))

    @cached_property
    def broken(self) -> frozenset[tuple[str, int]]:
        """Files and lines that do not compile."""
        return frozenset((file, line) for file, line, _ in self.errors)

    @property
    def pragmas(self) -> list[Pragma]:
        """All pragmas in functions."""
        return [pragma for function in self.functions.values() for pragma in function.pragmas]


def load(
    sources: Sequence[Path], tops: Sequence[Path], includes: Sequence[Path], *, synthesis: bool = True
) -> Program:
    """Read C++ files as one, because most of the time goes into types that they share.

    Args:
        sources: files whose names do not collide.
        tops: files that use the others, each by itself.
        includes: folders of the project's own headers, all of which are read.
        synthesis: whether they are read as the tool reads them, or as C simulation does.
    """
    headers = [header for folder in includes for header in sorted(folder.glob("*.h"))]
    texts: list[PragmaText] = []
    probed = {}
    for path in [*headers, *sources, *tops]:
        text = path.read_text()
        pragmas = find_pragmas(text, short_name(path), len(texts))
        probed[path] = probe(text, pragmas)
        texts += pragmas
    # The headers of ap_int that simulate were read before, and do not see the macro.
    lines = ["#define __SYNTHESIS__"] if synthesis else []
    lines += [f'#include "{path}"' for path in [*headers, *sources]]
    # Their headers were read before: what is left of them is their own.
    lines += [f'namespace top_{number} {{\n#include "{path}"\n}}' for number, path in enumerate(tops)]
    program = Program(texts, probed)
    unit = parse(
        "\n".join(lines) + "\n", {path: about.data.decode() for path, about in probed.items()}, includes
    )
    _Reader(program, unit).read()
    for function in program.functions.values():
        for call in function.calls:
            program.calls[call.callee].append(call)
    return program


def short_name(path: Path) -> str:
    """A file's name with its folder's, which tells an engine from its kernel."""
    return f"{path.parent.name}/{path.name}"


class _Reader:
    """Fills a program."""

    def __init__(self, program: Program, unit: Unit) -> None:
        self.program = program
        self.unit = unit
        self.numbered = {text.number: text for text in program.texts}

    def read(self) -> None:
        known = set(self.program.errors)
        for path, line, message in self.unit.errors:
            error = (short_name(Path(path)), line, message)
            if error not in known:
                self.program.errors.append(error)
        for node in children(self.unit.tree):
            self._declaration(node)

    def _declaration(self, node: Cursor) -> None:
        own = file_of(node) in self.program.files
        if kind(node) in _PLACES or (own and kind(node) in _TYPES):
            for child in children(node):
                self._declaration(child)
        if own and kind(node) in _FUNCTIONS:
            self._function(node)
        elif own and kind(node) not in _PLACES:
            self.program.declarations.append(node)

    def _function(self, node: Cursor) -> None:
        below = children(node)
        body = next((child for child in below if kind(child) == "COMPOUND_STMT"), None)
        key = node.get_usr()
        if body is None or key in self.program.functions:
            return
        parameters = [child for child in below if kind(child) == "PARM_DECL"]
        pattern = "TEMPLATE" in kind(node) or "TEMPLATE" in kind(node.semantic_parent)
        function = Function(
            node, key, node.spelling, short_name(Path(file_of(node))), body, parameters, pattern
        )
        self.program.functions[key] = function
        for child in below:
            # A constructor's initialisers and default arguments call functions too.
            if child is not body and child.kind.is_expression():
                self._statement(child, function, ())
        self._block(body, function, (), None, at_top=True)

    def _block(
        self,
        block: Cursor,
        function: Function,
        loops: tuple[Loop, ...],
        loop: Loop | None,
        *,
        at_top: bool = False,
    ) -> None:
        """Statements of a block; pragmas among them belong to `loop`, whose body it is, or to the function."""
        for node in children(block):
            number = _pragma_number(node)
            if number is None:
                self._statement(node, function, loops)
                continue
            pragma = self._pragma(node, number, function, loops, loop, at_top)
            function.pragmas.append(pragma)
            if loop:
                loop.pragmas.append(pragma)

    def _pragma(
        self,
        node: Cursor,
        number: int,
        function: Function,
        loops: tuple[Loop, ...],
        loop: Loop | None,
        at_top: bool,
    ) -> Pragma:
        values, mentions = {}, []
        for statement in children(node):
            if kind(statement) == "DECL_STMT":
                for constant in _constants(statement):
                    clause = constant.spelling.removeprefix(f"hls_{number}_")
                    if clause != constant.spelling:
                        values[clause] = int(constant.enum_value)
            elif kind(statement) == "CSTYLE_CAST_EXPR" and children(statement):
                mentions.append(children(children(statement)[-1])[0])
        return Pragma(self.numbered[number], function, loop, loops, values, mentions, at_top)

    def _statement(
        self, node: Cursor, function: Function, loops: tuple[Loop, ...], labelled: Cursor | None = None
    ) -> None:
        name = kind(node)
        if name in LOOPS:
            self._loop(node, labelled, function, loops)
            return
        if name == "COMPOUND_STMT":
            self._block(node, function, loops, None)
            return
        if name == "LABEL_STMT":
            for child in children(node):
                self._statement(child, function, loops, node)
            return
        if name == "CALL_EXPR" and node.referenced is not None:
            function.calls.append(Call(node, node.referenced.get_usr(), function, loops))
        for child in children(node):
            self._statement(child, function, loops)

    def _loop(
        self, node: Cursor, labelled: Cursor | None, function: Function, loops: tuple[Loop, ...]
    ) -> None:
        parts = children(node)
        if not parts:
            return
        body = parts[0] if kind(node) == "DO_STMT" else parts[-1]
        label = labelled.spelling if labelled is not None else ""
        parent = loops[-1] if loops else None
        loop = Loop(node, labelled or node, LOOPS[kind(node)], label, function, parent, body)
        function.loops.append(loop)
        inside = (*loops, loop)
        for part in parts:
            if part == body and kind(part) == "COMPOUND_STMT":
                self._block(part, function, inside, loop)
            else:
                self._statement(part, function, inside)


def _constants(statement: Cursor) -> list[Cursor]:
    return [
        constant
        for declaration in children(statement)
        if kind(declaration) == "ENUM_DECL"
        for constant in children(declaration)
        if kind(constant) == "ENUM_CONSTANT_DECL"
    ]


def _pragma_number(node: Cursor) -> int | None:
    """Number of the pragma that a block stands for; None of any other statement."""
    if kind(node) != "COMPOUND_STMT":
        return None
    first = next(iter(node.get_children()), None)
    if first is None or kind(first) != "DECL_STMT":
        return None
    names = [constant.spelling for constant in _constants(first)]
    return int(names[0].removeprefix("hls_pragma_")) if names and names[0].startswith("hls_pragma_") else None
