"""Statistics of a network's activations on calibration images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from pysim import reference
from pysim.activations import ACTIVATIONS
from pysim.arithmetic import Kind
from pysim.datapath import PIXEL_FRAC
from pysim.kernels.embed import pixel_operands
from pysim.model import Model
from pysim.program import Embed, Experts, Gate, linears, of_type, program, values
from pysim.statistic import RowCollector, Statistic

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

BATCH_TOKENS = 4096
"""Images are calibrated together up to this many tokens."""

FEW_ROWS = 64
"""An expert that fewer tokens of a batch chose is shown those that came next to choosing it, too."""


HIDDEN = ".hidden"
"""End of the names of all hidden values."""


def input_name(op: Experts, expert: int) -> str:
    """Name of the statistic of what one expert was given."""
    return f"{op.name}.{expert}.input"


def hidden_name(op: Experts, expert: int) -> str:
    """Name of the statistic of one expert's hidden values."""
    return f"{op.name}.{expert}{HIDDEN}"


class _Choices:
    """The tokens of a batch at a layer with experts: which chose each of them, and how much of its result counts."""

    def __init__(self, gate: Gate, inputs: FloatArray, logits: FloatArray) -> None:
        """Take (tokens, channels) inputs of the experts and (tokens, experts) logits."""
        self.inputs = inputs
        self.order = np.argsort(-logits, axis=1, kind="stable")
        self.chosen = self.order[:, : gate.top_k]
        selected = np.take_along_axis(logits, self.chosen, axis=1)
        # For a token that did not choose the expert, what it would be given beside the chosen ones.
        terms = np.asarray(gate.kind.terms(logits, selected))
        self.scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.scores /= np.exp(terms - logits.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)

    def tokens(self, expert: int) -> IntArray:
        """Tokens that chose an expert, in order."""
        return np.nonzero((self.chosen == expert).any(axis=1))[0]

    def runners_up(self, expert: int) -> IntArray:
        """Tokens that came next to choosing an expert: as many as the others lack to FEW_ROWS, if there are."""
        tokens = self.tokens(expert)
        order = np.argsort(-self.scores[:, expert], kind="stable")
        return order[~np.isin(order, tokens)][: max(FEW_ROWS - len(tokens), 0)]

    def weights(self, expert: int, tokens: IntArray) -> FloatArray:
        """Share of an error of the expert's result in that of the layer, by energy: the squares of its scores."""
        return np.maximum(self.scores[tokens, expert] ** 2, 1e-12)


class _Collector:
    """Gathers statistics of every tensor that the float network shows."""

    def __init__(self, model: Model, moments: bool, apart: bool) -> None:
        self.model, self.spec, self.moments, self.apart = model, model.spec, moments, apart
        self.generator = np.random.default_rng(0)
        operations = program(model.spec)
        fixed = (Kind.SCORE, Kind.PROBABILITY)
        self.skipped = {value.name for value in values(operations).values() if value.kind in fixed}
        (self.embed,) = of_type(operations, Embed)
        self.operands = {op.input.name for op in linears(operations)}
        self.experts = {op.name: op for op in of_type(operations, Experts)}
        self.inputs = {op.fc1.input.name for op in self.experts.values()}
        self.gates = {gate.logits.name: gate for gate in of_type(operations, Gate)}
        self.hidden = {op.hidden.name: op for op in self.experts.values()}
        self.found: dict[str, RowCollector] = {}
        self.fitted: dict[str, RowCollector] = {}
        self.held: dict[str, RowCollector] = {}
        self.hold_out(np.zeros(0, bool))

    def hold_out(self, held: BoolArray) -> None:
        """Note which of the images that come next are held out."""
        self.held_tokens = np.repeat(held, self.spec.tokens)

    def result(self) -> dict[str, Statistic]:
        """The statistic of each tensor by its name."""
        fitted = {name: rows.result() for name, rows in self.fitted.items()}
        held = {name: rows.result().samples for name, rows in self.held.items()}
        return {
            name: replace(rows.result(), fitted=fitted.get(name), held=held.get(name))
            for name, rows in self.found.items()
        }

    def __call__(self, name: str, value: FloatArray) -> None:
        """Take a tensor; its rows are those of tokens, or of what an expert was given."""
        if name in self.skipped:
            return
        layer, _, rest = name.partition(".experts.")
        if rest:
            self._expert(self.experts[f"{layer}.experts"], int(rest.partition(".")[0]), value)
            return
        rows = value.reshape(-1, value.shape[-1])
        prefix = np.arange(len(rows)) % self.spec.tokens < self.spec.prefix_tokens
        tokens = np.arange(len(rows)) if value.ndim == 2 else None
        self._add(name, rows, tokens, prefix=prefix if value.ndim == 2 else None)
        if name in self.inputs:
            self.given = rows
        elif name in self.gates:
            self.choices = _Choices(self.gates[name], self.given, rows)
        elif name in self.hidden:
            self._show_more(self.hidden[name])

    def show_pixels(self, images: NDArray[np.uint8]) -> None:
        """Take the operands of the patch embedding."""
        operands = pixel_operands(images, self.embed.patch_size).astype(np.float64) * 2.0**-PIXEL_FRAC
        self._add(self.embed.patch.input.name, operands, None)

    def _add(
        self,
        name: str,
        rows: FloatArray,
        tokens: IntArray | None,
        *,
        prefix: NDArray[np.bool_] | None = None,
        weights: FloatArray | None = None,
    ) -> None:
        if name not in self.found:
            # The hidden values of all experts together are of no use: their channels mean something else in each.
            read = weights is not None or (name in self.operands and name not in self.hidden)
            self.found[name] = RowCollector(self.moments and read)
        keys = self.generator.random(len(rows))
        self.found[name].add(rows, keys, prefix, weights)
        if self.apart and tokens is not None:
            self._add_apart(name, rows, keys, self.held_tokens[tokens])

    def _add_apart(self, name: str, rows: FloatArray, keys: FloatArray, held: BoolArray) -> None:
        """Keep what choices are proposed from apart from what they are judged on."""
        if name in self.inputs:
            collectors, which = self.held, held
        elif name.endswith(HIDDEN):
            collectors, which = self.fitted, ~held
        else:
            return
        if which.any():
            collectors.setdefault(name, RowCollector(with_moments=False)).add(
                rows[which], keys[which], None, None
            )

    def _expert(self, op: Experts, expert: int, hidden: FloatArray) -> None:
        """The hidden values of an expert's own tokens."""
        self._add_expert(op, expert, self.choices.tokens(expert), hidden)

    def _add_expert(self, op: Experts, expert: int, tokens: IntArray, hidden: FloatArray) -> None:
        weights = self.choices.weights(expert, tokens)
        if self.moments:
            self._add(input_name(op, expert), self.choices.inputs[tokens], tokens, weights=weights)
        self._add(hidden_name(op, expert), hidden, tokens, weights=weights)

    def _show_more(self, op: Experts) -> None:
        """Give experts that few tokens chose those that came next: ranges and moments of nothing mislead."""
        weight, bias = self.model.value(op.fc1.weight), self.model.value(op.fc1.bias)
        for expert in range(op.experts):
            tokens = self.choices.runners_up(expert)
            if len(tokens):
                before = self.choices.inputs[tokens] @ weight[expert].T + bias[expert]
                self._add_expert(op, expert, tokens, ACTIVATIONS[self.spec.activation].function(before))


def _batch(model: Model) -> int:
    return max(1, BATCH_TOKENS // model.spec.tokens)


def calibration_runs(model: Model, images: NDArray[np.uint8]) -> int:
    """Number of times that `calibrate` will report progress."""
    return -(-len(images) // _batch(model)) * len(model.spec.tasks)


def calibrate(
    model: Model,
    images: NDArray[np.uint8],
    progress: Callable[[int], Any],
    *,
    moments: bool = False,
    held: BoolArray | None = None,
) -> dict[str, Statistic]:
    """Run the float network on every image and task, and gather statistics of each tensor.

    Args:
        model: the network.
        images: (images, channels, H, W) pixels.
        progress: called with the runs done.
        moments: whether second moments are gathered of what linear layers read.
        held: (images,) which of them are held out: statistics are of all, but those of hidden values without these
            are there, too, and rows of these alone of what gates read.

    Returns:
        The statistic of each tensor by its name; of experts also one for each, of its inputs and hidden values, whose
        rows weigh what the squares of their gate scores are.

    Raises:
        InputError: no image was given.
    """
    if len(images) == 0:
        raise InputError("no calibration image was given", hint="pass at least one with --images")
    apart = held is not None and bool(held.any())
    collector = _Collector(model, moments, apart)
    batch, done = _batch(model), 0
    for start in range(0, len(images), batch):
        for task in range(len(model.spec.tasks)):
            some = images[start : start + batch]
            if held is not None:
                collector.hold_out(held[start : start + batch])
            if task == 0:
                collector.show_pixels(some)
            reference.run(model, some, task, tap=collector)
            done += 1
            progress(done)
    return collector.result()
