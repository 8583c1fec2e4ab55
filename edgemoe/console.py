"""Output of the command line: results on stdout and remarks on stderr, or one JSON object on stdout."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from common.errors import EdgeMoeError
from common.printable import MOST, printable

if TYPE_CHECKING:
    import rich.console

_PLAIN_WIDTH = 10_000
"""Columns of output that goes to a file or a pipe: tables are as wide as they need to be."""


class Console:
    """Printer of one command.

    Attributes:
        as_json: stdout gets one JSON object and nothing else; tables go to stderr.
    """

    def __init__(self, as_json: bool) -> None:
        """Print results for people, or with `as_json` for scripts."""
        self.as_json = as_json
        self._result: dict[str, Any] = {}

    def show(self, *results: Any) -> None:
        """Print results for people: text and tables of `edgemoe.tables`."""
        target = self._stderr if self.as_json else self._stdout
        target.print(*(printable(each) if isinstance(each, str) else each for each in results))

    def note(self, text: str) -> None:
        """Print a remark."""
        self._stderr.print(printable(text, MOST))

    def warn(self, text: str) -> None:
        """Print a warning, which scripts find under `warnings`."""
        text = printable(text, MOST)
        self._stderr.print(f"warning: {text}")
        self._result.setdefault("warnings", []).append(text)

    def result(self, data: dict[str, Any]) -> None:
        """Add to the JSON object, which `finish` prints."""
        self._result |= data

    @property
    def collected(self) -> dict[str, Any]:
        """The JSON object so far, warnings included, with null for numbers that JSON does not have."""
        return dict(_finite(self._result))

    def finish(self, error: EdgeMoeError | None = None) -> None:
        """End the command: print the JSON object, or the error with its hint."""
        if error is not None and self.as_json:
            self.result({"error": error.message, "hint": error.hint})
        elif error is not None:
            self._tell(error)
        try:
            if self.as_json:
                print(json.dumps(self.collected, indent=2, allow_nan=False))
            sys.stdout.flush()
        except OSError:
            if error is not None and self.as_json:
                self._tell(error)
            raise

    def _tell(self, error: EdgeMoeError) -> None:
        self._stderr.print(f"error: {error.message}")
        if error.hint:
            self._stderr.print(f"hint: {error.hint}")

    @contextmanager
    def remarks(self) -> Iterator[None]:
        """Print what the package logs while it works: its warnings as warnings, the rest as remarks."""
        logger, handler = logging.getLogger("edgemoe"), _Remarks(self)
        before = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.level, logger.propagate = before

    @contextmanager
    def progress(self, description: str) -> Iterator[Callable[[int, int], None]]:
        """Show a progress bar (only on a terminal); the function that is handed out moves it."""
        from rich.progress import Progress, TimeElapsedColumn

        columns = (*Progress.get_default_columns(), TimeElapsedColumn())
        # A notebook asks for colours (FORCE_COLOR), but is no terminal that a bar could move on.
        hidden = not (self._stderr.is_terminal and self._stderr.file.isatty())
        with Progress(*columns, console=self._stderr, transient=True, disable=hidden) as bars:
            bar = bars.add_task(printable(description), total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)

    @cached_property
    def _stdout(self) -> rich.console.Console:
        return _rich_console(sys.stdout)

    @cached_property
    def _stderr(self) -> rich.console.Console:
        return _rich_console(sys.stderr)


class _Remarks(logging.Handler):
    """Handler that shows log records on a console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        show = self._console.warn if record.levelno >= logging.WARNING else self._console.note
        show(record.getMessage())


def _rich_console(file: TextIO) -> rich.console.Console:
    from rich.console import Console as RichConsole

    width = None if file.isatty() else _PLAIN_WIDTH
    return RichConsole(file=file, width=width, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
