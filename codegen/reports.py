"""Reading the reports of Vitis HLS: files that somebody else's program wrote, so that nothing in them is trusted."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Final

from common.errors import InputError

MAX_REPORT_BYTES: Final = 32 << 20

Range = tuple[int, int]
"""Least and most of a number that the tool gives as a range."""

UNKNOWN: Final = ("", "undef", "?", "-", "na", "n/a", "x", "inf")
"""Texts that the tool writes where it cannot tell."""


def read_report(path: Path) -> str:
    """The text of a report.

    Raises:
        InputError: it cannot be read, is too large or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_REPORT_BYTES:
        raise InputError(f"{path}: larger than {MAX_REPORT_BYTES} bytes, which no report is")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML report, `profile`.

    Raises:
        InputError: it is no such report.
    """
    text = read_report(path)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path}: declares a document type, which no report does")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise InputError(f"{path}: not XML: {error}") from None
    if root.tag != "profile":
        raise InputError(f"{path}: not a synthesis report: its root is {shown(root.tag)}, expected profile")
    return root


def shown(text: str) -> str:
    """A text of a report, as far as a message repeats it."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def optional_text(root: ElementTree.Element, name: str) -> str | None:
    """The text of an element, or None where there is no such element."""
    element = root.find(name)
    return None if element is None else (element.text or "").strip()


def required_text(root: ElementTree.Element, name: str, path: Path) -> str:
    """The text of an element that every report has."""
    text = optional_text(root, name)
    if not text:
        raise InputError(f"{path}: no {name}", hint="is it the report of a synthesis that finished?")
    return text


def nanoseconds(text: str, name: str, path: Path) -> float:
    """A number of ns."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text):
        raise InputError(f"{path}: {name} is {shown(text)}, expected a number of ns")
    return float(text)


def whole_number(text: str, name: str, path: Path) -> int:
    """A whole number of up to 18 digits."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InputError(f"{path}: {name} is {shown(text)}, expected a whole number")
    return int(text)


def number_range(text: str | None, name: str, path: Path) -> Range | None:
    """A number, or a range such as `1 ~ 99`; None where the tool could not tell."""
    if text is None:
        return None
    ends = [end.strip() for end in text.split("~")]
    if any(end.lower() in UNKNOWN for end in ends):
        return None
    numbers = [whole_number(end, name, path) for end in ends]
    return min(numbers), max(numbers)
