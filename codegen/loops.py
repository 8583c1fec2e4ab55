"""The pipelined loops of the generated C++: a record of each, and how often each runs.

A record holds what the estimate assumes of a loop, which is what a synthesis report says of it: its initiation
interval and its depth (what the reports call iteration latency). `codegen/estimate.py` sums runs of these loops;
`codegen/csynth_check.py` compares the records with what the tool reports. Trip counts are exact; depths are counted
operator by operator for 300 MHz on UltraScale+ and were never measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.architecture import NORM_LATENCY, Architecture, attention_steps, ceil_div
from codegen.schedule import Job
from pysim.arithmetic import ICCAD23, REQUANTISE
from pysim.kernels.iccad23 import FEATURE

DIVIDER_DEPTH = 2 * FEATURE.frac + 4
"""Stages of a pipelined division of the original's arithmetic: one a bit of the quotient, and its ends."""
_DIVIDER = {REQUANTISE: 0, ICCAD23: DIVIDER_DEPTH}
"""Stages of a division where an arithmetic has one."""
_DIVISOR = {REQUANTISE: 14, ICCAD23: 3}
"""Stages that make the divisor of a token's exponentials."""


@dataclass(frozen=True)
class Loop:
    """A pipelined loop of the generated C++.

    Attributes:
        label: its label, unique in the project.
        function: the C++ function that it is in.
        engine: whose iterations it counts as (the name that `EDGEMOE_TICK` has there).
        depth: cycles from the start of an iteration to its end; paid once each time the loop is entered.
        nest: loops round it that the tool flattens into it, the outermost first; they cost nothing of their own.
        ii: cycles between the starts of two iterations.
        port: AXI bundle that it moves data through: `weights`, `image`, `output`, or none.
    """

    label: str
    function: str
    engine: str
    depth: int
    nest: tuple[str, ...] = ()
    ii: int = 1
    port: str = ""

    def cycles(self, trips: int) -> int:
        """Cycles of one execution: the last iteration starts `ii` x (trips - 1) cycles after the first.

        The cycle that this is too many is what it takes to get into a loop.
        """
        return trips * self.ii + self.depth if trips else 0


@dataclass(frozen=True)
class Overlap:
    """Two functions, called in one iteration of a loop, that are to run side by side.

    Attributes:
        loop: label of the loop.
        function: the C++ function that the loop is in.
        load: the function that loads.
        compute: the function that computes.
        pairs: calls of each in one iteration.
    """

    loop: str
    function: str
    load: str
    compute: str
    pairs: int


@dataclass(frozen=True)
class Run:
    """Executions of a loop.

    Attributes:
        loop: the loop.
        trips: iterations of one execution.
        entries: executions.
        requests: bursts that are asked for before the data come, over all executions.
    """

    loop: Loop
    trips: int
    entries: int = 1
    requests: int = 0

    @property
    def iterations(self) -> int:
        """Iterations of all executions."""
        return self.trips * self.entries

    @property
    def cycles(self) -> int:
        """Cycles of all executions, one after the other, where no memory makes them wait."""
        return self.entries * self.loop.cycles(self.trips)


REQUESTED_PORTS = ("weights",)
"""Ports whose bursts the code asks for itself; of the others the tool has to infer them."""

GROUP_OVERLAP = Overlap("GROUP_PAIRS", "linear", "load_group", "linear_group", pairs=2)
"""Weights of a group load while the group before computes."""


def loops_of(architecture: Architecture) -> dict[str, Loop]:
    """Every pipelined loop of a Design's kernel, by its label."""
    arithmetic = architecture.network.arithmetic
    divider = _DIVIDER[arithmetic]
    found = [
        Loop("LOAD_POSITIONS", "load_header_and_positions", "load", 5, port="weights"),
        Loop("COPY_POSITIONS", "load_header_and_positions", "load", 5),
        Loop("LOAD_PIXELS", "load_patches", "image", 5, port="image"),
        Loop("PATCH_TOKENS", "queue_patches", "image", 3),
        Loop("LOAD_SETTINGS", "load_norm", "load", 4, port="weights"),
        Loop("LOAD_NORM", "load_norm", "load", 4, port="weights"),
        Loop("LOAD_GROUP", "load_group", "load", 5, port="weights"),
        # The write-back is the longest way: a wide product, a shift, a table, a product, a shift. 45 to 50.
        Loop("ROUNDS", "linear_group", "linear", 50),
        # Products and their tree, the score, its exponential; beside it the reciprocal, a weight, a weighted value.
        Loop("CYCLES", "attention_head", "attention", 40 + divider, ("KEYS",)),
        # The latency of the statistics, and the normalisation that reads them.
        Loop("WORDS", "layernorm", "norm", NORM_LATENCY[arithmetic] + 12, ("TOKENS",)),
        Loop("GATHER_WORDS", "gather", "gather", 6, ("GATHER_TOKENS",)),
        Loop("STORE_WORD", "store_tokens", "output", 5, port="output"),
    ]
    if architecture.spec.moe_layers:
        found += [
            Loop("LOAD_GATE", "load_gate", "load", 4, port="weights"),
            # Products and their tree, a sum, then a wide product and a shift.
            Loop("GATE_WORDS", "gate_logits", "router", 24, ("GATE_TOKENS",)),
            Loop("CHOOSE_TOKENS", "choose_experts", "router", 20),
            Loop("FIND_DIVISORS", "choose_experts", "router", _DIVISOR[arithmetic]),
            Loop("FILL_RANKS", "choose_experts", "router", 22 + divider, ("FILL_QUEUES",)),
            Loop("FIND_ACTIVE", "choose_experts", "router", 3),
        ]
        if architecture.spec.moe is not None and architecture.spec.moe.gate_kind.over_selected:
            found.append(Loop("SELECTED_TOKENS", "choose_experts", "router", 20))
    return {loop.label: loop for loop in found}


# Trips of one execution of each loop, for a job of the table with so many rows (of all images), in the order in which
# the kernel comes to them.


def copy_positions_trips(job: Job, batch: int) -> int:
    """COPY_POSITIONS: words of all images but the first."""
    return (batch - 1) * job.rows * job.out_words


def load_pixels_trips(architecture: Architecture, job: Job, rows: int) -> int:
    """LOAD_PIXELS: beats of the images."""
    return rows * job.out_words * architecture.pixel_beats


def rounds_trips(architecture: Architecture, job: Job, blocks: int, rows: int) -> int:
    """ROUNDS: cycles of the rounds of a group of so many blocks, and of the last write-back.

    An empty group takes no time.
    """
    if not blocks:
        return 0
    tiles = ceil_div(rows, architecture.hardware.token_tile)
    return (blocks * tiles + 1) * max(job.words, architecture.write_steps)


def keys_trips(architecture: Architecture, job: Job) -> int:
    """CYCLES in KEYS: steps of a head."""
    steps = attention_steps(job.rows, architecture.hardware.attention_rows)
    return steps * architecture.attention_step


def words_trips(architecture: Architecture, job: Job, rows: int) -> int:
    """WORDS in TOKENS of LayerNorm, the tokens that lag behind included."""
    return (rows + architecture.norm_lag) * job.words


def store_trips(architecture: Architecture, job: Job, rows: int) -> int:
    """STORE_WORD: beats of the result."""
    return rows * job.words * architecture.output_word_beats


def router_runs(job: Job, loops: Mapping[str, Loop], rows: int) -> list[Run]:
    """Logits, choice, softmax, reciprocals and queues of one layer.

    A loop over tokens, whose number the call decides, does not flatten into the loop round it: its depth is paid
    for each group of experts, each expert, each rank.
    """
    selected = [Run(loops["SELECTED_TOKENS"], rows, job.top_k)] if job.over_selected else []
    return [
        Run(loops["GATE_WORDS"], rows * job.words, job.blocks),
        Run(loops["CHOOSE_TOKENS"], rows, job.count),
        *selected,
        Run(loops["FIND_DIVISORS"], rows),
        Run(loops["FILL_RANKS"], rows * job.top_k),
        Run(loops["FIND_ACTIVE"], job.count),
    ]
