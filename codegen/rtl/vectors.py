"""What the kernels of a Design are tested with: what the simulator feeds its engines, and what they return.

Function units are swept over their tables; the engines run one layer of each kind, every token of an image, on the
weight image's own beats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from codegen.architecture import Architecture
from codegen.rtl.kernels import attention, layernorm, linear, router, softmax, units
from codegen.rtl.kernels.base import Check, Kernel, Values
from codegen.rtl.kernels.linear import Destination
from codegen.rtl.streams import Bytes, IntArray
from codegen.testdata import tested_layers
from codegen.weight_image import head_channels, pack_weights
from pysim.datapath import GELU_INPUT, MANTISSA_FRAC, PROBABILITY, SCORE
from pysim.engines import RequantiseEngines
from pysim.kernels import units as functions
from pysim.kernels.gelu import gelu
from pysim.kernels.router import Routing
from pysim.kernels.softmax import probabilities, single_pass
from pysim.simulator import simulate
from pysim.tables import EXP2, GELU_DELTA, RECIPROCAL, RSQRT, PiecewiseLinear

OFFSETS = 24
"""Places inside a segment at which a table is read: enough to see every bit of its slope."""
RANDOM_INPUTS = 2048
SOFTMAX_ROWS = 24

Checks = dict[str, list[Check]]


def checks(architecture: Architecture, image: NDArray[np.uint8], task: int) -> Checks:
    """Every kernel's checks, by the kernel's name; `image` is (1, channels, H, W)."""
    kernels = _Kernels(architecture)
    found: Checks = {name: [] for name in kernels.all}
    for name, check in _unit_checks(kernels):
        found[name].append(check)
    engines = _EngineChecks(kernels, image, task)
    for layer in tested_layers(architecture):
        for name, check in engines.layer(layer):
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

    magnitudes = _sweep(GELU_DELTA)
    x = np.concatenate(
        [
            magnitudes,
            -magnitudes,
            generator.integers(GELU_INPUT.min, GELU_INPUT.max, RANDOM_INPUTS, endpoint=True),
            [GELU_INPUT.min, GELU_INPUT.min + 1, GELU_INPUT.max, -(1 << 17), 1 << 17],
        ]
    )
    x = np.resize(x, -(-len(x) // kernels.architecture.lanes) * kernels.architecture.lanes)
    yield "gelu", _unit(kernels, "gelu", {"x": x}, {"y": gelu(x)})

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
    """One layer, engine by engine: each is fed with what the simulator's engine is fed with."""

    def __init__(self, kernels: _Kernels, image: NDArray[np.uint8], task: int) -> None:
        self.kernels, self.task = kernels, task
        self.architecture = kernels.architecture
        self.design, self.spec = self.architecture.design, self.architecture.spec
        self.engines = RequantiseEngines(self.design)
        self.beats = pack_weights(self.architecture)
        last = tested_layers(self.architecture)[-1]
        self.trace = simulate(self.design, image, task, trace=True).trace if last > 0 else {}
        self.first = self.engines.embed(image)

    def section(self, name: str) -> Bytes:
        """Beats of a section of the weight image."""
        starts = self.architecture.sections
        end = min(start for start in starts.values() if start > starts[name])
        return self.beats[starts[name] : end]

    def layer(self, number: int) -> Iterator[tuple[str, Check]]:
        """All engines of a layer."""
        spec, block = self.spec, f"blocks.{number}"
        x = self.first if number == 0 else self.trace[f"blocks.{number - 1}.output"]
        y, _ = self.engines.norm(number, 1, x)
        yield "layernorm", self._norm(f"{block}.norm1", x, {"operand": y})
        qkv = self.engines.qkv(number, y)
        heads = qkv.reshape(spec.tokens, 3, spec.heads, spec.head_dim).transpose(1, 2, 0, 3)
        yield "linear", self._linear(f"{block}.qkv", y, self._in_heads(qkv, 3), Destination.HEADS)
        mixed_heads, _ = self.engines.attention(number, *heads)
        yield "attention", self._attention(block, heads, mixed_heads)
        mixed = mixed_heads.transpose(1, 0, 2).reshape(spec.tokens, spec.dim)
        after = self.engines.project(number, mixed, x)
        yield (
            "linear",
            self._linear(f"{block}.proj", self._in_heads(mixed, 1), after, Destination.RESIDUAL, old=x),
        )
        y, gate_input = self.engines.norm(number, 2, after)
        if number in spec.moe_layers:
            yield "layernorm", self._norm(f"{block}.norm2", after, {"operand": y, "gate_operand": gate_input})
            yield from self._moe(number, y, gate_input, after)
            return
        yield "layernorm", self._norm(f"{block}.norm2", after, {"operand": y})
        out, hidden = self.engines.mlp(number, y, after)
        yield "linear", self._linear(f"{block}.fc1", y, hidden.values, Destination.HIDDEN)
        yield "linear", self._linear(f"{block}.fc2", hidden.values, out, Destination.RESIDUAL, old=after)

    def _in_heads(self, values: IntArray, parts: int) -> IntArray:
        """Channels of heads that are padded to whole words, as the engines hold them."""
        channels = head_channels(self.architecture)
        split = values.reshape(len(values), parts, self.spec.dim)
        padded = np.where(channels >= 0, split[..., channels], 0)
        return padded.reshape(len(values), -1)

    def _norm(self, name: str, x: IntArray, expected: dict[str, IntArray]) -> Check:
        tensors = self.design.tensors
        shift = self.design.scalar(f"{name}.shift")
        call = layernorm.call(
            self.kernels["layernorm"],
            name,
            x,
            self.section(name),
            epsilon=self.design.scalar("epsilon"),
            shift=shift,
            gate_shift=int(tensors.get(f"{name}.gate_shift", [shift])[0]),
        )

        def extract(values: Values) -> dict[str, IntArray]:
            found = layernorm.outputs(values, self.spec.dim)
            return {output: found[output] for output in expected}

        return Check(call, expected, extract, layernorm.cycles(self.architecture, *x.shape))

    def _attention(self, block: str, heads: IntArray, expected: IntArray) -> Check:
        rows, spec = self.design.parallelism.attention_rows, self.spec
        call = attention.call(
            self.kernels["attention"],
            f"{block}.attention",
            *heads,
            rows_per_block=rows,
            score_shift=self.design.scalar(f"{block}.score_shift"),
            attention_shift=self.design.scalar(f"{block}.attention_shift"),
        )

        def extract(values: Values) -> dict[str, IntArray]:
            return {"mixed": attention.output(values, spec.heads, spec.head_dim)}

        exact = attention.cycles(self.architecture, spec.heads, spec.tokens, spec.head_dim, rows)
        return Check(call, {"mixed": expected}, extract, exact)

    def _linear(
        self,
        name: str,
        x: IntArray,
        expected: IntArray,
        destination: Destination,
        *,
        section: str | None = None,
        hidden_index: int = 0,
        old: IntArray | None = None,
        scores: IntArray | None = None,
    ) -> Check:
        outputs = expected.shape[1]
        hidden = (1, 0, 0)
        if destination is Destination.HIDDEN:
            prefix = name.rpartition(".fc1")[0] + ".hidden"
            requantise = self.design.requantise(prefix)
            zero = int(self.design.tensors[f"{prefix}.zero"][hidden_index])
            multiplier = requantise.multiplier[hidden_index if len(requantise.multiplier) > 1 else 0]
            hidden = (int(multiplier), int(requantise.shift[hidden_index]), zero)
        call = linear.call(
            self.kernels["linear"],
            self.architecture,
            section or name,
            x,
            self.section(section or name),
            outputs,
            destination,
            old=old,
            scores=scores,
            hidden=hidden,
        )
        job = linear.job_of(self.architecture, len(x), x.shape[1], outputs)

        def extract(values: Values) -> dict[str, IntArray]:
            return {"y": linear.output(self.architecture, values, job, outputs)}

        return Check(call, {"y": expected}, extract, linear.cycles(self.architecture, job))

    def _moe(
        self, number: int, y: IntArray, gate_input: IntArray, after: IntArray
    ) -> Iterator[tuple[str, Check]]:
        block, moe = f"blocks.{number}", self.spec.moe
        assert moe is not None
        routing = self.engines.route(self.engines.logits(number, self.task, gate_input))
        yield "router", self._router(block, gate_input, routing)
        stream = after.copy()
        for index in routing.active.tolist():
            tokens, scores = routing.queue(index)
            alone = Routing(np.full((len(tokens), 1), index), scores[:, None], routing.count)
            result, (hidden,) = self.engines.experts(number, alone, y[tokens], stream[tokens])
            yield (
                "linear",
                self._linear(
                    f"{block}.fc1",
                    y[tokens],
                    hidden.values,
                    Destination.HIDDEN,
                    section=f"{block}.fc1.{index}",
                    hidden_index=index,
                ),
            )
            yield (
                "linear",
                self._linear(
                    f"{block}.fc2",
                    hidden.values,
                    result,
                    Destination.EXPERT,
                    section=f"{block}.fc2.{index}",
                    old=stream[tokens],
                    scores=scores,
                ),
            )
            stream[tokens] = result

    def _router(self, block: str, gate_input: IntArray, routing: Routing) -> Check:
        moe = self.spec.moe
        assert moe is not None
        beats = self.section(f"{block}.gates")
        size = self.architecture.gate_beats
        call = router.call(
            self.kernels["router"],
            f"{block}.router",
            gate_input,
            beats[self.task * size : (self.task + 1) * size],
            experts=moe.experts,
            top_k=moe.top_k,
            over_selected=moe.normalize_over_selected,
            groups=self.architecture.gate_groups,
        )
        exact = router.cycles(
            self.architecture,
            (len(gate_input), gate_input.shape[1]),
            experts=moe.experts,
            top_k=moe.top_k,
            over_selected=moe.normalize_over_selected,
            last_active=int(routing.active[-1]),
        )
        return Check(call, router.expected_outputs(routing), router.outputs, exact)
