"""Pragmas as text: found in a file, taken apart, judged by the table, and turned into C++ that a compiler checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from codegen.hls_check.table import ALLOCATED_OPERATIONS, CONTROL_MODES, MODES, PRAGMAS, STORAGE, Clause, Kind

_LINE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+HLS\b((?:[^\n\\]|\\\n|\\.)*)", re.IGNORECASE | re.MULTILINE)
_TOKEN = re.compile(r"\s*(?:(?P<operand>[A-Za-z_]\w*|\d\w*)|(?P<other>->|::|==|!=|<=|>=|<<|>>|&&|\|\||\S))")
_OPENING, _CLOSING = "([{", ")]}"
_JOINERS = ("->", "::", ".")


@dataclass(frozen=True)
class PragmaText:
    """One pragma.

    Attributes:
        number: of the pragma in its project.
        file: name of its file.
        line: on which it begins.
        start: place of its `#` in the file's text.
        end: place behind it.
        name: in lower case.
        clauses: values as they are written, by the clause's name in lower case; a flag's value is "".
        problems: what the table has against it.
    """

    number: int
    file: str
    line: int
    start: int
    end: int
    name: str
    clauses: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def word(self, clause: str) -> str:
        """Value of a clause of words or names, in lower case; "" if the pragma lacks it."""
        return self.clauses.get(clause, "").lower()


def find_pragmas(text: str, file: str, first_number: int = 0) -> list[PragmaText]:
    """The pragmas of a file, in its order, numbered from `first_number`."""
    found = []
    for number, match in enumerate(_LINE.finditer(text), first_number):
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        line = text.count("\n", 0, start) + 1
        name, clauses, problems = _read(re.sub(r"//.*", "", match[1].replace("\\\n", " ")))
        found.append(PragmaText(number, file, line, start, match.end(), name, clauses, tuple(problems)))
    return found


def clauses_of(name: str, mode: str = "") -> Mapping[str, Clause]:
    """The clauses that a pragma may have; of `interface`, those of a mode."""
    clauses = PRAGMAS[name]
    return {**clauses, **MODES.get(mode, {})} if name == "interface" else clauses


@dataclass(frozen=True)
class Probed:
    """A file with a block of C++ in place of each pragma.

    Attributes:
        data: the file, as a compiler counts it: in bytes.
        blocks: first byte of each pragma's block, and the byte behind it, by the pragma's number.
    """

    data: bytes
    blocks: Mapping[int, tuple[int, int]]


def probe(text: str, pragmas: list[PragmaText]) -> Probed:
    """Put a block of C++ in place of each pragma, which uses the pragma's expressions.

    Lines stay where they are. A pragma becomes `{ enum { hls_pragma_<number> = 0 }; ... }`: variables and functions are
    mentioned in the order of their clauses, and the integer of a clause is the enumerator `hls_<number>_<clause>`.
    """
    data, blocks, place = b"", {}, 0
    for pragma in pragmas:
        data += text[place : pragma.start].encode()
        block = _probe(pragma).encode()
        blocks[pragma.number] = (len(data), len(data) + len(block))
        data += block + b"\n" * text.count("\n", pragma.start, pragma.end)
        place = pragma.end
    return Probed(data + text[place:].encode(), blocks)


def _probe(pragma: PragmaText) -> str:
    statements = [f"enum {{ hls_pragma_{pragma.number} = 0 }};"]
    if pragma.name in PRAGMAS:
        known = clauses_of(pragma.name, pragma.word("mode"))
        for clause, value in pragma.clauses.items():
            kind = known[clause].kind if clause in known else Kind.NAME
            if not value or value == "return":
                continue
            if kind is Kind.VARIABLE or (kind is Kind.FUNCTION and pragma.word("type") != "operation"):
                statements.append(f"(void)({value});")
            elif kind is Kind.INTEGER:
                statements.append(f"enum {{ hls_{pragma.number}_{clause} = ({value}) }};")
            elif kind is Kind.NUMBER:
                statements.append(f'static_assert(({value}) > 0, "{clause} must be above zero");')
    return "{ " + " ".join(statements) + " }"


def _read(text: str) -> tuple[str, dict[str, str], list[str]]:
    items = _items(text)
    if not items:
        return "", {}, ["a pragma without a name"]
    name, clauses, problems = items[0][0].lower(), {}, []
    if items[0][1] is not None:
        return name, {}, [f"`{name} =` begins a pragma: its name is missing"]
    if name not in PRAGMAS:
        return name, {}, [f"unknown pragma `{name}`: UG1399 has {', '.join(sorted(PRAGMAS))}"]
    for key, value in items[1:]:
        clause, text_value, problem = _clause(name, items, key, value)
        if problem:
            problems.append(problem)
        elif clause in clauses:
            problems.append(f"`{clause}` is given twice")
        else:
            clauses[clause] = text_value
    problems += _incomplete(name, clauses)
    return name, clauses, problems


def _clause(
    name: str, items: list[tuple[str, str | None]], key: str, value: str | None
) -> tuple[str, str, str]:
    """Name and value of one item behind the pragma's name, or what is wrong with it."""
    known, word = clauses_of(name, _mode(items)), key.lower()
    if value is None:
        if word in known and known[word].kind is Kind.FLAG:
            return word, "", ""
        for clause, about in known.items():
            if about.bare and word in _words_of(clause, about):
                return clause, word, ""
        return "", "", f"`{name}` has no clause `{key}`: it has {', '.join(sorted(known))}"
    if word not in known:
        return "", "", f"`{name}` has no clause `{key} =`: it has {', '.join(sorted(known))}"
    about = known[word]
    if about.kind is Kind.FLAG:
        return "", "", f"`{key}` stands alone, without a value"
    if about.kind is Kind.WORD and value.lower() not in _words_of(word, about):
        return "", "", f"`{key} = {value}`: expected one of {', '.join(sorted(_words_of(word, about)))}"
    if about.kind is Kind.NAME and not re.fullmatch(r"\w+", value):
        return "", "", f"`{key} = {value}`: expected a name"
    return word, value, ""


def _words_of(clause: str, about: Clause) -> frozenset[str]:
    return frozenset(MODES) if clause == "mode" and not about.words else about.words


def _mode(items: list[tuple[str, str | None]]) -> str:
    for key, value in items:
        if key.lower() == "mode" and value is not None:
            return value.lower()
        if value is None and key.lower() in MODES:
            return key.lower()
    return ""


def _incomplete(name: str, clauses: dict[str, str]) -> list[str]:
    """Clauses that are missing, or that do not go together."""
    problems = [
        f"`{name}` needs `{clause} =`"
        for clause, about in clauses_of(name, clauses.get("mode", "").lower()).items()
        if about.required and clause not in clauses
    ]
    words = {clause: value.lower() for clause, value in clauses.items()}
    if name in ("array_partition", "array_reshape"):
        needs_factor = words.get("type", "complete") != "complete"
        if needs_factor != ("factor" in words):
            problems.append(
                "block and cyclic need `factor =`"
                if needs_factor
                else "`factor =` means nothing where all is split"
            )
    elif name == "allocation" and words.get("type") == "operation":
        if words.get("instances", "") not in ALLOCATED_OPERATIONS:
            problems.append(f"`instances = {clauses.get('instances')}` is no operation that can be limited")
    elif name == "bind_storage":
        shape, made_of = STORAGE.get(words.get("type", "")), words.get("impl", "auto")
        if shape and made_of not in shape.implementations:
            problems.append(
                f"`impl = {made_of}` does not exist for {words['type']}: {sorted(shape.implementations)}"
            )
    elif name == "interface":
        if (words.get("mode") in CONTROL_MODES) and words.get("port") != "return":
            problems.append(f"{words['mode']} is for `port = return`")
    elif name == "dependence":
        problems += _dependence(words)
    elif name == "pipeline" and "off" in words and len(words) > 1:
        problems.append("`off` goes with nothing else")
    return problems


def _dependence(words: dict[str, str]) -> list[str]:
    if words.get("type", "inter") == "intra":
        return ["`intra` takes away the order within an iteration, which nothing here can prove: use `inter`"]
    if "class" in words:
        return ["`class =` speaks of all arrays at once: name one with `variable =`"]
    if words.get("dependent") == "true":
        return [] if "distance" in words else ["`true` without `distance =` says nothing"]
    if "dependent" not in words:
        return ["`true` or `false` is missing: the tool takes false"]
    if "distance" in words:
        return ["`distance =` goes with `true` only"]
    if "direction" not in words:
        return ["`inter false` takes away RAW, WAR and WAW: name one direction, or say `distance = N true`"]
    return []


def _items(text: str) -> list[tuple[str, str | None]]:
    """Words that stand alone (no value) and `name = expression`, in order.

    An expression ends where another operand follows it without an operator between: no C++ expression goes on so.
    """
    tokens = [match for match in _TOKEN.finditer(text) if match.lastgroup]
    items: list[tuple[str, str | None]] = []
    place = 0
    while place < len(tokens):
        key = tokens[place].group(tokens[place].lastgroup or 0)
        place += 1
        if place < len(tokens) and tokens[place]["other"] == "=":
            end = _expression_end(tokens, place + 1)
            first, last = place + 1, end - 1
            value = text[tokens[first].start() : tokens[last].end()].strip() if end > first else ""
            items.append((key, " ".join(value.split())))
            place = end
        else:
            items.append((key, None))
    return items


def _expression_end(tokens: list[re.Match[str]], place: int) -> int:
    depth, complete = 0, False
    while place < len(tokens):
        token = tokens[place]
        text = token["operand"] or token["other"]
        if depth == 0 and complete and token["operand"]:
            break
        depth += (text in _OPENING) - (text in _CLOSING)
        complete = bool(token["operand"]) or text in _CLOSING
        place += 1
    return place
