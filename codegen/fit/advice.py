"""Limits of the fastest hardware, gains of more of a resource, and prices of less of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from codegen.estimate import part_totals
from codegen.fit.base import Fitted, Space
from codegen.fit.space import MARGINS, Limits

MORE: Final = 1.1
"""Amount by which more of a resource is tried."""

LESS: Final = (0.75, 0.5)
"""Shares of what the fastest hardware takes that are tried."""

TRADED: Final[Mapping[str, tuple[str, ...]]] = {
    "dsp": ("dsp",),
    "memory": ("bram36", "uram"),
    "lut": ("lut",),
}
"""Resources against which time is set."""


@dataclass(frozen=True)
class Advice:
    """About the fastest hardware.

    Attributes:
        gains: milliseconds an image with a tenth more of each resource; the resource that buys most first.
        stage: the kind of stage that takes most cycles.
        stage_share: its share of all cycles.
        stage_bound: what it mostly waits for: compute, weights or overhead.
        pareto: the fastest hardware, and those within less of a resource that nothing else beats, the fastest first.
    """

    gains: Mapping[str, float]
    stage: str
    stage_share: float
    stage_bound: str
    pareto: tuple[Fitted, ...]
    ms: float

    @property
    def limited_by(self) -> tuple[str, ...]:
        """Resources of which more would save time, the most wanted first."""
        return tuple(name for name, ms in self.gains.items() if ms < self.ms)


def advise(
    search: Space, limits: Limits, best: Fitted, progress: Callable[[int, int], Any] | None = None
) -> Advice:
    """Search again with more and with less of each resource.

    Args:
        search: the space that `best` was found in.
        limits: the limits that it was found within.
        best: the fastest hardware.
        progress: called with the searches done and in total.
    """
    trials = len(MARGINS) + len(TRADED) * len(LESS)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, trials)

    gains = {}
    for name in MARGINS:
        more = search.run(limits.but(**{name: int(getattr(limits, name) * MORE)}))
        gains[name] = best.performance.ms if more is None else more.performance.ms
        step()
    found = [best]
    used = best.performance.resources
    for names in TRADED.values():
        for share in LESS:
            less = {name: int(share * used[name][0]) for name in names}
            slower = search.run(limits.but(**less), best.performance.cycles)
            if slower is not None:
                found.append(slower)
            step()
    most = max(part_totals(best.performance.stages), key=lambda total: total.cycles)
    ordered = dict(sorted(gains.items(), key=lambda gain: gain[1]))
    share = most.cycles / best.performance.cycles
    return Advice(ordered, most.part, share, most.bound_by, _pareto(found), best.performance.ms)


def _pareto(found: list[Fitted]) -> tuple[Fitted, ...]:
    """Those that no other one beats in time, or in DSP slices, memory or LUTs."""

    def measures(fitted: Fitted) -> tuple[float, ...]:
        used = {name: used for name, (used, _) in fitted.performance.resources.items()}
        # An ultra RAM has the bits of eight blocks.
        return fitted.performance.ms, used["dsp"], used["bram36"] + 8 * used["uram"], used["lut"]

    unique = {measures(fitted): fitted for fitted in reversed(found)}
    kept = [
        fitted
        for own, fitted in unique.items()
        if not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in unique)
    ]
    return tuple(sorted(kept, key=lambda fitted: fitted.performance.ms))
