"""Test vectors of a Design's kernels: what the simulator feeds its engines, and what they return.

Function units are swept over their tables; the engines run one layer of each kind, every token of an image, on the
weight image's own beats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture, section_name
from codegen.rtl.kernels import attention, layernorm, linear, router, softmax, units
from codegen.rtl.kernels.base import Check, Kernel, Values
from codegen.rtl.streams import Bytes, IntArray
from codegen.schedule import stage_name
from codegen.testdata import tested_layers
from codegen.weight_image import in_lanes, pack_weights
from pysim.datapath import GELU_INPUT, MANTISSA_FRAC, PROBABILITY, SCORE
from pysim.design import Design
from pysim.kernels import units as functions
from pysim.kernels.gelu import activate
from pysim.kernels.router import Routing
from pysim.kernels.softmax import probabilities, single_pass
from pysim.program import Attention, Embed, Experts, Gate, Index, Linear, Norm, Operation, Value
from pysim.simulator import Machine
from pysim.tables import EXP2, RECIPROCAL, RSQRT, PiecewiseLinear

OFFSETS = 24
"""Places inside a segment at which a table is read: enough to see every bit of its slope."""
RANDOM_INPUTS = 2048
SOFTMAX_ROWS = 24

Checks = dict[str, list[Check]]


def checks(design: Design, architecture: Architecture, image: NDArray[np.uint8], task: int) -> Checks:
    """Every kernel's checks, by the kernel's name; `image` is (1, channels, H, W)."""
    design = design.with_attention_rows(architecture.hardware.attention_rows)
    kernels = _Kernels(architecture)
    found: Checks = {name: [] for name in kernels.all}
    for name, check in _unit_checks(kernels):
        found[name].append(check)
    engines = _EngineChecks(kernels, design, image, task)
    for name, check in engines.layers(tested_layers(architecture)):
        found[name].append(check)
    return found


class _Kernels:
    def __init__(self, architecture: Architecture) -> None:
        from codegen.rtl.kernels import kernels_of

        self.architecture = architecture
        self.all: Mapping[str, Kernel] = kernels_of(architecture)

    def __getitem__(self, name: str) -> Kernel:
        return self.all[name]


# --- Function units -----------------------------------------------------------------------------------------


def _sweep(table: PiecewiseLinear) -> IntArray:
    """Address and offset joined: every segment of a table at both ends and in between."""
    steps = 1 << table.step_bits
    offsets = np.unique(np.linspace(0, steps - 1, OFFSETS).astype(np.int64))
    return (np.arange(len(table.base), dtype=np.int64)[:, None] * steps + offsets).ravel()


def _unit_checks(kernels: _Kernels) -> Iterator[tuple[str, Check]]:
    generator = np.random.default_rng(0)
    fractions = _sweep(EXP2)
    whole = np.arange(40, dtype=np.int64)[:, None] << SCORE.frac
    differences = np.concatenate(
        [
            fractions,
            (whole + generator.integers(0, 1 << SCORE.frac, (40, 50))).ravel(),
            generator.integers(0, 1 << (SCORE.width + 1), RANDOM_INPUTS),
            [0, 1, (1 << SCORE.width) - 1, (1 << (SCORE.width + 1)) - 1],
        ]
    )
    yield (
        "exp2",
        _unit(kernels, "exp2", {"difference": differences}, {"exponential": functions.exp2(differences)}),
    )

    for name, table in (("reciprocal", RECIPROCAL), ("rsqrt", RSQRT)):
        values = np.concatenate([_mantissas(table), _all_lengths(generator)])
        mantissas, positions = _unit_results(name, values)
        yield name, _unit(kernels, name, {"value": values}, {"mantissa": mantissas, "position": positions})

    activation = kernels.architecture.network.activation
    magnitudes = np.zeros(1, np.int64) if activation.delta is None else _sweep(activation.delta)
    x = np.concatenate(
        [
            magnitudes,
            -magnitudes,
            generator.integers(GELU_INPUT.min, GELU_INPUT.max, RANDOM_INPUTS, endpoint=True),
            [GELU_INPUT.min, GELU_INPUT.min + 1, GELU_INPUT.max, -(1 << 17), 1 << 17],
        ]
    )
    x = np.resize(x, -(-len(x) // kernels.architecture.lanes) * kernels.architecture.lanes)
    yield activation.unit, _unit(kernels, activation.unit, {"x": x}, {"y": activate(activation, x)})

    kernel = kernels["softmax"]
    keys = kernels.architecture.softmax_keys
    scores = generator.normal(0, 3 << SCORE.frac, (SOFTMAX_ROWS, keys)).astype(np.int64)
    scores[0], scores[1] = 0, np.arange(keys) << 6
    # One key alone: its probability is 1, which the reciprocal's rounding may exceed by a unit.
    alone = _above_one()[: SOFTMAX_ROWS // 4]
    scores[2 : 2 + len(alone)] = SCORE.min
    scores[2 : 2 + len(alone), -1] = -alone
    scores = np.clip(scores, SCORE.min, SCORE.max)
    maxima, sums = single_pass(scores, np.zeros(SOFTMAX_ROWS, np.int64))
    expected = {"maxima": maxima, "sums": sums, "probabilities": probabilities(scores, maxima, sums).ravel()}

    def extract(values: Values) -> dict[str, IntArray]:
        statistics, given = values["statistics"], values["probabilities"]
        return {
            "maxima": statistics["maximum"].ravel(),
            "sums": statistics["sum"].ravel(),
            "probabilities": given["probability"].ravel(),
        }

    call = softmax.call(kernel, "rows of scores", list(scores))
    exact = softmax.cycles(SOFTMAX_ROWS, keys) if keys >= softmax.LEAST_EXACT_KEYS else None
    yield "softmax", Check(call, expected, extract, exact)


def _above_one() -> IntArray:
    """Distances below a whole maximum at which an exponential times its own reciprocal rounds to more than 1."""
    distances = np.arange(1 << SCORE.frac, dtype=np.int64)
    exponentials = functions.exp2(distances)
    mantissas, positions = functions.reciprocal(exponentials.astype(np.uint64))
    shifts = MANTISSA_FRAC - PROBABILITY.frac + positions
    rounded = (exponentials * mantissas + (np.int64(1) << (shifts - 1))) >> shifts
    return distances[rounded > 1 << PROBABILITY.frac]


def _unit(kernels: _Kernels, name: str, given: dict[str, IntArray], expected: dict[str, IntArray]) -> Check:
    kernel = kernels[name]
    call = units.call(kernel, "table sweep", **given)
    beats = len(call.inputs["x"][0])

    def extract(values: Values) -> dict[str, IntArray]:
        return {field: part.ravel() for field, part in values["y"].items()}

    return Check(call, expected, extract, units.cycles(name, beats))


def _mantissas(table: PiecewiseLinear) -> NDArray[np.uint64]:
    """Values whose leading bits visit a whole table; of two octaves, the second has the odd positions."""
    index = _sweep(table).astype(np.uint64)
    octave = np.uint64(1 << (RSQRT.address_bits - 1 + RSQRT.step_bits))
    if table is RSQRT:
        return np.where(index < octave, index + octave, index << np.uint64(1))
    return index + np.uint64(1 << (table.address_bits + table.step_bits))


def _all_lengths(generator: np.random.Generator) -> NDArray[np.uint64]:
    """Every position of the leading one, with neighbours, and random bits below."""
    powers = np.uint64(1) << np.arange(64, dtype=np.uint64)
    random = powers + (generator.integers(0, 1 << 63, 64, dtype=np.uint64) & (powers - np.uint64(1)))
    return np.concatenate([powers, powers - np.uint64(1), random])[np.r_[0:64, 65:192]]


def _unit_results(name: str, values: NDArray[np.uint64]) -> tuple[IntArray, IntArray]:
    """Mantissa, and the position of the leading one, of which the root's exponent is half."""
    function: Callable[..., tuple[IntArray, IntArray]] = getattr(functions, name)
    positions = functions.reciprocal(values)[1]
    return function(values)[0], positions


# --- Engines ------------------------------------------------------------------------------------------------


class _EngineChecks:
    """Some layers, engine by engine: each is fed with what the simulator's engine is fed with."""

    def __init__(self, kernels: _Kernels, design: Design, image: NDArray[np.uint8], task: int) -> None:
        self.kernels, self.task = kernels, task
        self.architecture, self.design = kernels.architecture, design
        self.machine = Machine(design, image, task)
        self.beats = pack_weights(design, self.architecture)

    def section(self, name: str) -> Bytes:
        """Beats of a section of the weight image."""
        starts = self.architecture.sections
        end = min(start for start in starts.values() if start > starts[name])
        return self.beats[starts[name] : end]

    def layers(self, numbers: Sequence[int]) -> Iterator[tuple[str, Check]]:
        """All engines of these layers, by the kernel's name."""
        for op in self.architecture.program:
            if op.layer is not None and op.layer > max(numbers):
                return
            # Experts change the residual stream that they are checked with.
            before = self.machine.fork()
            self.machine.step(op)
            if op.layer in numbers:
                for name, check in self._checks(op, before):
                    yield name, replace(check, layer=op.layer, stage=stage_name(op))

    def _checks(self, op: Operation, before: Machine) -> Iterator[tuple[str, Check]]:
        match op:
            case Norm():
                yield "layernorm", self._norm(op)
            case Linear():
                x, old = self._in_heads(op.input), None if op.added is None else self.machine[op.added]
                expected = np.concatenate([self._in_heads(value) for value in op.results], axis=1)
                yield "linear", self._linear(op, (), x, expected, old=old)
            case Attention():
                yield "attention", self._attention(op)
            case Gate():
                yield "router", self._router(op)
            case Experts():
                yield from self._experts(op, before)
            case Embed():
                pass  # its linear layer is one like any other, and tested with those
            case _:
                assert_never(op)

    def _in_heads(self, value: Value) -> IntArray:
        """A value as the engines hold it, with heads padded to whole words."""
        return in_lanes(self.architecture, [value], self.machine[value])

    def _norm(self, op: Norm) -> Check:
        x = self.machine[op.input]
        expected = {"operand": self.machine[op.output]}
        if op.gate_output is not None:
            expected["gate_operand"] = self.machine[op.gate_output]
        call = layernorm.call(
            self.kernels["layernorm"],
            op.name,
            x,
            self.section(op.name),
            epsilon=self.design.scalar(op.epsilon),
            shift=self.design.scalar(op.shift),
            gate_shift=self.design.scalar(op.gate_shift or op.shift),
        )

        def extract(values: Values) -> dict[str, IntArray]:
            found = layernorm.outputs(values, op.input.channels)
            return {output: found[output] for output in expected}

        return Check(call, expected, extract, layernorm.cycles(self.architecture, *x.shape))

    def _attention(self, op: Attention) -> Check:
        rows = self.architecture.hardware.attention_rows
        call = attention.call(
            self.kernels["attention"],
            op.name,
            *(self.machine.heads(value) for value in op.inputs),
            attention_rows=rows,
            score_shift=self.design.scalar(op.score_shift),
            attention_shift=self.design.scalar(op.attention_shift),
        )

        def extract(values: Values) -> dict[str, IntArray]:
            return {"mixed": attention.output(values, op.heads, op.head_dim)}

        exact = attention.cycles(self.architecture, op.heads, op.tokens, op.head_dim, rows)
        return Check(call, {"mixed": self.machine.heads(op.output)}, extract, exact)

    def _linear(
        self,
        op: Linear,
        index: Index,
        x: IntArray,
        expected: IntArray,
        *,
        old: IntArray | None = None,
        scores: IntArray | None = None,
    ) -> Check:
        outputs, name = expected.shape[1], section_name(op, index)
        hidden = (1, 0, 0)
        if op.activation is not None:
            place = index or (0,)
            requantise = self.design.requantise(op.activation.scaling, place)
            zero = self.design.integers(op.activation.zero, place)
            hidden = (int(requantise.multiplier[0]), int(requantise.shift[0]), int(zero))
        call = linear.call(
            self.kernels["linear"],
            self.architecture,
            name,
            x,
            self.section(name),
            outputs,
            op.destination,
            old=old,
            scores=scores,
            hidden=hidden,
        )
        job = linear.job_of(self.architecture, len(x), x.shape[1], outputs)

        def extract(values: Values) -> dict[str, IntArray]:
            return {"y": linear.output(self.architecture, values, job, outputs)}

        return Check(call, {"y": expected}, extract, linear.cycles(self.architecture, job))

    def _experts(self, op: Experts, before: Machine) -> Iterator[tuple[str, Check]]:
        assert op.layer is not None
        routing, y = before.routing[op.layer], before[op.fc1.input]
        stream = before[op.stream].copy()
        for expert in routing.active.tolist():
            tokens, scores = routing.queue(expert)
            alone = Routing(np.full((len(tokens), 1), expert), scores[:, None], routing.count)
            old = stream[tokens]
            result, (hidden,) = before.engines.experts(op, alone, y[tokens], old)
            yield "linear", self._linear(op.fc1, (expert,), y[tokens], hidden.values)
            yield "linear", self._linear(op.fc2, (expert,), hidden.values, result, old=old, scores=scores)
            stream[tokens] = result

    def _router(self, op: Gate) -> Check:
        assert op.layer is not None
        gate_input, routing = self.machine[op.input], self.machine.routing[op.layer]
        beats, size = self.section(op.name), self.architecture.gate_beats
        call = router.call(
            self.kernels["router"],
            stage_name(op),
            gate_input,
            beats[self.task * size : (self.task + 1) * size],
            experts=op.experts,
            top_k=op.top_k,
            over_selected=op.kind.over_selected,
            groups=self.architecture.gate_groups,
            router_lanes=self.architecture.router_lanes,
        )
        exact = router.cycles(
            self.architecture,
            (len(gate_input), gate_input.shape[1]),
            experts=op.experts,
            top_k=op.top_k,
            over_selected=op.kind.over_selected,
            last_active=int(routing.active[-1]),
        )
        return Check(call, router.expected_outputs(routing), router.outputs, exact)
