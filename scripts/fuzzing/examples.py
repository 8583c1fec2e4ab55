"""Hypothesis, told what to do: as many examples as a case has, from the case's seed, and no files."""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings

from scripts.fuzzing.outcome import Outcome


def settings_for(examples: int, *, shrink: bool, steps: int = 50) -> settings:
    """Settings of a case; without `shrink`, the first failure is reported as it was found."""
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=phases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def seed_of(target: str, seed: int, number: int) -> int:
    """Of a case."""
    return zlib.crc32(f"{target}/{seed}/{number}".encode())


def outcome_of(test: Callable[[], None], examples: int) -> Outcome:
    """Run a test of so many examples."""
    try:
        test()
    except Exception as error:  # whatever it is, it is a finding
        # The notes of the exception, which hypothesis adds, hold the example.
        return Outcome("failed", "".join(traceback.format_exception(error)))
    return Outcome("right", f"{examples} examples", examples)
