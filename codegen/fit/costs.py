"""Resources of many hardwares at once: those of the estimate, with every kind of each memory side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.fit.space import RESOURCES
from codegen.hardware import MemoryKind
from codegen.memories import Memory, engine_memories
from codegen.resources import Resources, logic_resources

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Costs:
    """Resources that some engines take, of many hardwares.

    Attributes:
        base: (hardwares, resources) of all but the memories whose kind is open.
        kinds: per field of `Hardware` the kinds, and (hardwares, kinds, resources) of its memories.
    """

    base: Integers
    kinds: Mapping[str, tuple[tuple[MemoryKind, ...], Integers]]

    def __len__(self) -> int:
        return len(self.base)

    def least(self, mixes: NDArray[np.float64]) -> NDArray[np.float64]:
        """(hardwares, mixes): the least of each weighted sum of resources, whatever the memories are built of."""
        found = self.base @ mixes.T
        for _, uses in self.kinds.values():
            found = found + (uses @ mixes.T).min(axis=1)
        return found

    def take(self, picks: Integers) -> Costs:
        """Some of the hardwares."""
        return Costs(
            self.base[picks], {name: (kinds, uses[picks]) for name, (kinds, uses) in self.kinds.items()}
        )

    @classmethod
    def joined(cls, parts: Sequence[Costs]) -> Costs:
        """Hardwares one behind the other; all have the same open memories."""
        kinds = {
            name: (each, np.concatenate([part.kinds[name][1] for part in parts]))
            for name, (each, _) in parts[0].kinds.items()
        }
        return cls(np.concatenate([part.base for part in parts]), kinds)


def costs_of(
    sizes: Architecture,
    engines: Sequence[str],
    kinds: Mapping[str, tuple[MemoryKind, ...]],
    count: int,
) -> Costs:
    """Costs of some engines.

    Args:
        sizes: a network on hardware, of which some sizes may be arrays of `count` elements.
        engines: names of the engines that are wanted.
        kinds: what each memory may be built of, by the field of `Hardware`.
        count: hardwares.
    """
    base = np.zeros((count, len(RESOURCES)), np.int64)
    logic = logic_resources(sizes)
    found: dict[str, tuple[tuple[MemoryKind, ...], Integers]] = {}
    for engine in engines:
        used = logic.get(engine, Resources())
        for column, amount in ((0, used.dsp), (3, used.lut), (4, used.ff)):
            base[:, column] += np.asarray(amount, np.int64)
        for memory in engine_memories(sizes, engine):
            if not memory.field:
                base[:, 1:4] += _uses(memory, memory.kind, count)
                continue
            open_kinds = kinds[memory.field]
            uses = np.zeros((count, len(open_kinds), len(RESOURCES)), np.int64)
            for place, kind in enumerate(open_kinds):
                uses[:, place, 1:4] = _uses(memory, kind, count)
            if memory.field in found:
                uses = uses + found[memory.field][1]
            found[memory.field] = open_kinds, uses
    return Costs(base, found)


def _uses(memory: Memory, kind: MemoryKind, count: int) -> Integers:
    """(hardwares, 3): halves of block RAMs, ultra RAMs and LUTs."""
    return np.stack([np.broadcast_to(part, count) for part in memory.cost(kind)], axis=1).astype(np.int64)
