"""The one table of kernel cases, for every backend: pysim now, compiled HLS C++ and RTL later.

A case is a kernel's name and its integer inputs, nothing else: what must come out is what `oracles.py` says.
A row below states a shape, number formats and how each operand is filled; its random numbers are seeded by
its own name, so that a new row changes no other.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysim.datapath import EXPONENTIAL, GELU_INPUT, NORM_WEIGHT_WIDTH, NORMALIZED, PROBABILITY, SCORE

IntArray = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Case:
    """One call of one kernel.

    Attributes:
        kernel: key of `oracles.ORACLES` and of what a backend implements.
        name: what is special about it; unique within the kernel.
        inputs: integer arrays (int64; uint64 where 64 unsigned bits are needed) and Python ints.
    """

    kernel: str
    name: str
    inputs: dict[str, IntArray | int]

    @property
    def id(self) -> str:
        return f"{self.kernel}-{self.name.replace(' ', '-')}"


# --- Fills: how an operand of a given range gets its values -------------------------------------------------

Fill = Callable[[np.random.Generator, tuple[int, ...], int, int], IntArray]
"""(random generator, shape, smallest value, largest value) to an int64 array."""


def uniform(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
    return rng.integers(low, high, shape, endpoint=True, dtype=np.int64)


def edges(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
    """Nothing but the values where mistakes hide."""
    values = [v for v in (low, low + 1, -1, 0, 1, high - 1, high) if low <= v <= high]
    return rng.choice(np.array(values, np.int64), shape)


def lowest(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
    return np.full(shape, low, np.int64)


def highest(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
    return np.full(shape, high, np.int64)


def ends(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
    """Smallest and largest value by turns: the largest differences there are."""
    return np.resize(np.array([low, high], np.int64), shape)


def counting(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
    """The range from its low end on, element by element, starting again at its end."""
    return (low + np.arange(math.prod(shape)) % (high - low + 1)).reshape(shape)


def constant(value: int) -> Fill:
    return lambda rng, shape, low, high: np.full(shape, value, np.int64)


def within(low: int, high: int) -> Fill:
    """Uniform over a range of its own; few values make ties."""
    return lambda rng, shape, _low, _high: uniform(rng, shape, low, high)


def ramp(start: int, step: int, axis: int = -1) -> Fill:
    """`start, start + step, ...` along an axis, the same for all others."""

    def fill(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
        line = start + step * np.arange(shape[axis], dtype=np.int64)
        line = line.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])
        return np.broadcast_to(line, shape).copy()

    return fill


def spike(value: int, rest: int = 0) -> Fill:
    """One value in the first place of every row, another everywhere else."""

    def fill(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
        out = np.full(shape, rest, np.int64)
        out[..., 0] = value
        return out

    return fill


def listed(*values: int) -> Fill:
    return lambda rng, shape, low, high: np.resize(np.array(values, np.int64), shape)


def sweep(low: int, high: int) -> Fill:
    """Equal steps over a range of its own, both ends included."""

    def fill(rng: np.random.Generator, shape: tuple[int, ...], _low: int, _high: int) -> IntArray:
        count = math.prod(shape)
        steps = np.arange(count, dtype=np.int64)
        return (low + (high - low) * steps // max(count - 1, 1)).reshape(shape)

    return fill


def around(*centres: int) -> Fill:
    """As many integers on both sides of each centre as there is room for."""

    def fill(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> IntArray:
        reach = math.prod(shape) // (2 * len(centres))
        return np.concatenate([np.arange(c - reach, c + reach) for c in centres]).reshape(shape)

    return fill


def doubling(*starts: int, less: int = 0) -> Fill:
    """A row for each start, twice as much in every column, and then some less."""
    return lambda rng, shape, low, high: (np.array(starts)[:, None] << np.arange(shape[1])) - less


def octaves(low: int, high: int, *beside: int) -> Fill:
    """Whole numbers of a score's units from `low` to `high`, or integers beside them by so much."""

    def fill(rng: np.random.Generator, shape: tuple[int, ...], _low: int, _high: int) -> IntArray:
        return (uniform(rng, shape, low, high) << SCORE.frac) + rng.choice(np.array(beside or (0,)), shape)

    return fill


def late(value: int, rest: int) -> Fill:
    """One value in the last place of every row, another everywhere else."""
    return lambda rng, shape, low, high: spike(value, rest)(rng, shape, low, high)[..., ::-1].copy()


zeros = constant(0)
ones = constant(1)


@dataclass(frozen=True)
class _Maker:
    """Fills operands of one case from its own random numbers."""

    rng: np.random.Generator

    @classmethod
    def of(cls, kernel: str, name: str) -> _Maker:
        return cls(np.random.default_rng(zlib.crc32(f"{kernel} {name}".encode())))

    def signed(self, fill: Fill, shape: tuple[int, ...], width: int) -> IntArray:
        return fill(self.rng, shape, -(1 << (width - 1)), (1 << (width - 1)) - 1)

    def range(self, fill: Fill, shape: tuple[int, ...], low: int, high: int) -> IntArray:
        return fill(self.rng, shape, low, high)

    def scaling(self, channels: int, shift: int, multipliers: bool, spread: int) -> dict[str, IntArray]:
        """Multiplier and shift of each channel; `shift` is that of a multiplier of 1."""
        multiplier = np.ones(channels, np.int64)
        if multipliers:
            multiplier = self.range(uniform, (channels,), 1 << 15, (1 << 16) - 1)
            shift += 15
        shifts = shift + self.range(uniform, (channels,), -spread, spread)
        return {"multiplier": multiplier, "shift": np.clip(shifts, 0, 62)}


# --- Kernels of the accelerator -----------------------------------------------------------------------------


def requantise(
    name: str,
    shape: tuple[int, int],
    values: Fill = uniform,
    *,
    width: int = 32,
    shift: Fill = uniform,
    multiplier: Fill = ones,
    addend: Fill = zeros,
    out: int = 16,
) -> Case:
    """sat(round(values * multiplier / 2**shift) + addend) of (tokens, channels)."""
    make = _Maker.of("requantise", name)
    inputs: dict[str, IntArray | int] = {
        "values": make.signed(values, shape, width),
        "multiplier": make.range(multiplier, shape[1:], 1, (1 << 16) - 1),
        "shift": make.range(shift, shape[1:], 0, 62),
        "addend": make.signed(addend, shape, out),
        "out_width": out,
    }
    return Case("requantise", name, inputs)


def linear(
    name: str,
    shape: tuple[int, int, int],
    *,
    bits: tuple[int, int, int] = (16, 16, 16),
    x: Fill = uniform,
    weight: Fill = uniform,
    bias: Fill = uniform,
    addend: Fill = zeros,
    shift: int | None = None,
    multipliers: bool = False,
) -> Case:
    """(tokens, inputs, outputs); bits of operands, weights and results; a shift that fits unless stated."""
    make = _Maker.of("linear", name)
    tokens, inputs, outputs = shape
    x_width, weight_width, out_width = bits
    # Brings the standard deviation of random sums to a sixth of the result's range: a few saturate.
    fitting = x_width + weight_width + inputs.bit_length() // 2 - out_width
    reach = x_width + weight_width - 1 + inputs.bit_length() // 2
    spread = 1 if shift is None else 0
    data: dict[str, IntArray | int] = {
        "x": make.signed(x, (tokens, inputs), x_width),
        "weight": make.signed(weight, (outputs, inputs), weight_width),
        "bias": make.signed(bias, (outputs,), reach),
        **make.scaling(outputs, max(fitting, 0) if shift is None else shift, multipliers, spread),
        "addend": make.signed(addend, (tokens, outputs), out_width),
        "x_width": x_width,
        "weight_width": weight_width,
        "out_width": out_width,
    }
    return Case("linear", name, data)


def activation(name: str, count: int, x: Fill = uniform, kernel: str = "gelu") -> Case:
    make = _Maker.of(kernel, name)
    return Case(kernel, name, {"x": make.range(x, (count,), GELU_INPUT.min, GELU_INPUT.max)})


def exp2(name: str, count: int, differences: Fill = uniform) -> Case:
    make = _Maker.of("exp2", name)
    largest = SCORE.max - SCORE.min
    return Case("exp2", name, {"differences": make.range(differences, (count,), 0, largest)})


def mantissa(kernel: str, name: str, values: list[int]) -> Case:
    """`reciprocal` or `rsqrt` of positive integers of up to 64 bits."""
    return Case(kernel, name, {"values": np.array(values, np.uint64)})


def all_lengths() -> list[int]:
    """Around every power of two that 64 bits hold: each position of the leading one, and both neighbours."""
    return sorted(
        {1 << n for n in range(64)} | {(1 << n) - 1 for n in range(1, 65)} | {(1 << n) + 1 for n in range(64)}
    )


def one_octave(position: int, count: int) -> list[int]:
    """Values with their leading one at `position`, spread over the table, with low bits that are dropped."""
    step = max((1 << position) // count, 1)
    return [(1 << position) + min(i * step + (step - 1) * (i & 1), (1 << position) - 1) for i in range(count)]


def softmax(name: str, rows: int, keys: int, scores: Fill = uniform, *, block: int = 1) -> Case:
    """Rows of scores; row r meets key r % block first."""
    make = _Maker.of("softmax", name)
    inputs: dict[str, IntArray | int] = {
        "scores": make.range(scores, (rows, keys), SCORE.min, SCORE.max),
        "first": np.arange(rows, dtype=np.int64) % block % keys,
    }
    return Case("softmax", name, inputs)


def attention(
    name: str,
    shape: tuple[int, int, int],
    attention_rows: int,
    *,
    bits: tuple[int, int] = (16, 16),
    q: Fill = uniform,
    k: Fill = uniform,
    v: Fill = uniform,
    score_shift: int | None = None,
    attention_shift: int = 0,
) -> Case:
    """(images * heads, tokens, head_dim); scores spread over about 8 octaves unless the shift is stated."""
    make = _Maker.of("attention", name)
    width, out_width = bits
    fitting = max(2 * width - 4 + shape[2].bit_length() // 2 - (SCORE.frac + 2), 0)
    inputs: dict[str, IntArray | int] = {
        "q": make.signed(q, shape, width),
        "k": make.signed(k, shape, width),
        "v": make.signed(v, shape, width),
        "attention_rows": attention_rows,
        "score_shift": fitting if score_shift is None else score_shift,
        "attention_shift": attention_shift,
        "width": width,
        "out_width": out_width,
    }
    return Case("attention", name, inputs)


def layernorm(
    name: str,
    shape: tuple[int, int],
    x: Fill = uniform,
    *,
    width: int = 24,
    epsilon: int = 16,
    gamma: Fill = uniform,
    beta: Fill = uniform,
    shift: int = 22,
    out: int = 16,
) -> Case:
    make = _Maker.of("layernorm", name)
    inputs: dict[str, IntArray | int] = {
        "x": make.signed(x, shape, width),
        "epsilon": epsilon,
        "gamma": make.signed(gamma, shape[1:], NORM_WEIGHT_WIDTH),
        "beta": make.signed(beta, shape[1:], shift + out),
        "shift": shift,
        "x_width": width,
        "out_width": out,
    }
    return Case("layernorm", name, inputs)


def router(
    name: str, tokens: int, experts: int, k: int, logits: Fill = uniform, *, selected: bool = False
) -> Case:
    """`selected`: scores are a softmax over the chosen experts only."""
    make = _Maker.of("router", name)
    inputs: dict[str, IntArray | int] = {
        "logits": make.range(logits, (tokens, experts), SCORE.min, SCORE.max),
        "k": k,
        "over_selected": int(selected),
    }
    return Case("router", name, inputs)


def moe(
    name: str,
    shape: tuple[int, int, int],
    k: int,
    *,
    choice: Fill | None = None,
    bits: tuple[int, int, int] = (16, 16, 24),
    residual: Fill = uniform,
    x: Fill = uniform,
    weight: Fill = uniform,
    scores: Fill = uniform,
    shift: int | None = None,
) -> Case:
    """(tokens, dim, experts); an expert is one linear layer. Without `choice`, a token has k random ones."""
    make = _Maker.of("moe", name)
    tokens, dim, experts = shape
    x_width, weight_width, out_width = bits
    fitting = max(x_width + weight_width + dim.bit_length() // 2 - out_width, 0)
    if choice is None:
        chosen = make.rng.permuted(np.tile(np.arange(experts), (tokens, 1)), axis=1)[:, :k]
    else:
        chosen = make.range(choice, (tokens, k), 0, experts - 1)
    inputs: dict[str, IntArray | int] = {
        "residual": make.signed(residual, (tokens, dim), out_width),
        "tokens": make.signed(x, (tokens, dim), x_width),
        "experts": chosen.astype(np.int64),
        "scores": make.range(scores, (tokens, k), 0, 1 << PROBABILITY.frac),
        "weight": make.signed(weight, (experts, dim, dim), weight_width),
        "bias": make.signed(uniform, (experts, dim), x_width + weight_width),
        "shift": fitting if shift is None else shift,
        "x_width": x_width,
        "weight_width": weight_width,
        "out_width": out_width,
    }
    return Case("moe", name, inputs)


def embed(
    name: str,
    images: tuple[int, int, int, int],
    patch_size: int,
    dim: int,
    *,
    pixels: Fill = uniform,
    weight: Fill = uniform,
    position: Fill = uniform,
    bits: tuple[int, int] = (16, 24),
    multipliers: bool = False,
) -> Case:
    """(images, channels, height, width) to the residual stream; token 0 of an image is position row 0."""
    make = _Maker.of("embed", name)
    _, channels, height, width = images
    weight_width, out_width = bits
    values = channels * patch_size**2
    fitting = 8 + weight_width + values.bit_length() // 2 - out_width
    inputs: dict[str, IntArray | int] = {
        "images": make.range(pixels, images, 0, 255),
        "patch_size": patch_size,
        "weight": make.signed(weight, (dim, values), weight_width),
        "bias": make.signed(uniform, (dim,), 8 + weight_width + 2),
        **make.scaling(dim, max(fitting, 0), multipliers, 1 if fitting > 0 else 0),
        "position": make.signed(
            position, ((height // patch_size) * (width // patch_size) + 1, dim), out_width
        ),
        "weight_width": weight_width,
        "out_width": out_width,
    }
    return Case("embed", name, inputs)


# --- The original's arithmetic: 32-bit features with 22 fraction bits ---------------------------------------

ONE = 1 << 22
"""1.0 as a feature."""
UP_TO_1, UP_TO_4, GATE = within(-ONE, ONE), within(-4 * ONE, 4 * ONE), within(0, ONE)
FEATURE_BITS = 32
NORM_FRAC = 11


def iccad23_linear(
    name: str,
    shape: tuple[int, int, int],
    *,
    x: Fill = uniform,
    weight: Fill = uniform,
    bias: Fill = uniform,
    shift: int = 14,
) -> Case:
    """(tokens, inputs, outputs)."""
    make = _Maker.of("iccad23_linear", name)
    tokens, inputs, outputs = shape
    data: dict[str, IntArray | int] = {
        "x": make.signed(x, (tokens, inputs), FEATURE_BITS),
        "weight": make.signed(weight, (outputs, inputs), 16),
        "bias": make.signed(bias, (outputs,), FEATURE_BITS),
        "shift": shift,
    }
    return Case("iccad23_linear", name, data)


def iccad23_gelu(name: str, count: int, x: Fill = uniform) -> Case:
    make = _Maker.of("iccad23_gelu", name)
    return Case("iccad23_gelu", name, {"x": make.signed(x, (count,), FEATURE_BITS)})


def iccad23_softmax(name: str, rows: int, keys: int, scores: Fill, *, block: int = 1) -> Case:
    make = _Maker.of("iccad23_softmax", name)
    inputs: dict[str, IntArray | int] = {
        "scores": make.signed(scores, (rows, keys), FEATURE_BITS),
        "first": np.arange(rows, dtype=np.int64) % block % keys,
    }
    return Case("iccad23_softmax", name, inputs)


def iccad23_attention(
    name: str,
    shape: tuple[int, int, int],
    attention_rows: int,
    *,
    q: Fill = UP_TO_1,
    k: Fill = UP_TO_4,
    v: Fill = uniform,
) -> Case:
    """(images * heads, tokens, head_dim)."""
    make = _Maker.of("iccad23_attention", name)
    inputs: dict[str, IntArray | int] = {
        "q": make.signed(q, shape, FEATURE_BITS),
        "k": make.signed(k, shape, FEATURE_BITS),
        "v": make.signed(v, shape, FEATURE_BITS),
        "attention_rows": attention_rows,
    }
    return Case("iccad23_attention", name, inputs)


def iccad23_layernorm(name: str, shape: tuple[int, int], x: Fill, *, norm: Fill = uniform) -> Case:
    make = _Maker.of("iccad23_layernorm", name)
    inputs: dict[str, IntArray | int] = {
        "x": make.signed(x, shape, FEATURE_BITS),
        "gamma": make.signed(norm, shape[1:], 16),
        "beta": make.signed(norm, shape[1:], 16),
        "norm_frac": NORM_FRAC,
    }
    return Case("iccad23_layernorm", name, inputs)


def iccad23_scale(name: str, shape: tuple[int, int], *, y: Fill = uniform, score: Fill = GATE) -> Case:
    """residual + y * score, the score being that of a token."""
    make = _Maker.of("iccad23_scale", name)
    inputs: dict[str, IntArray | int] = {
        "residual": make.signed(uniform, shape, FEATURE_BITS),
        "y": make.signed(y, shape, FEATURE_BITS),
        "score": make.signed(score, (shape[0], 1), FEATURE_BITS),
    }
    return Case("iccad23_scale", name, inputs)


# --- The table ----------------------------------------------------------------------------------------------

OCTAVE = 1 << SCORE.frac
"""A score difference of 1, that is a factor of 2."""
TOP = SCORE.max
BOTTOM = SCORE.min
GELU_ONE = 1 << GELU_INPUT.frac
NORM_ONE = 1 << NORMALIZED.frac


def _rows() -> Iterator[Case]:
    # fmt: off
    yield requantise("random", (13, 63), width=24)
    yield requantise("shift 0", (5, 7), shift=zeros, width=17)
    yield requantise("shift 0 with multipliers", (5, 7), shift=zeros, width=12, multiplier=uniform, out=24)
    yield requantise("shift 1 ties", (3, 16), ramp(-8, 1), shift=constant(1))
    yield requantise("ties of every shift", (2, 31), doubling(-3, 3), shift=ramp(1, 1), out=8)
    yield requantise("every shift of wide values", (9, 63), edges, width=62, shift=ramp(0, 1), out=32)
    yield requantise("just below a tie", (2, 31), doubling(-1, 1, less=1), shift=ramp(1, 1), out=8)
    yield requantise("large multipliers", (7, 11), edges, width=40, multiplier=highest, shift=within(20, 50))
    yield requantise("smallest multiplier and largest shift", (3, 5), edges, width=61, shift=highest)
    yield requantise("saturates low", (3, 4), lowest, width=48, shift=constant(3), out=8)
    yield requantise("saturates high", (3, 4), highest, width=48, shift=constant(3), out=8)
    yield requantise("addend brings it back", (2, 6), ends, width=17, shift=zeros, addend=ends, out=16)
    yield requantise("addend saturates", (4, 6), edges, width=16, shift=zeros, addend=edges, out=16)
    yield requantise("24 bit stream", (3, 5), edges, width=45, shift=constant(20), addend=edges, out=24)
    yield requantise("one bit out", (3, 5), width=5, shift=within(0, 3), out=1)

    for bits in ((16, 16, 16), (8, 8, 8), (16, 8, 24), (8, 16, 16), (18, 18, 24), (4, 4, 8)):
        tag = " by ".join(map(str, bits))
        yield linear(f"random {tag}", (7, 37, 11), bits=bits)
        yield linear(f"multipliers {tag}", (5, 29, 13), bits=bits, multipliers=True)
        yield linear(f"all minimum {tag}", (3, 17, 5), bits=bits, x=lowest, weight=lowest, bias=lowest)
        yield linear(f"minimum times maximum {tag}", (3, 17, 5), bits=bits, x=lowest, weight=highest)
        yield linear(f"edges {tag}", (5, 19, 7), bits=bits, x=edges, weight=edges, bias=edges, addend=edges)
    yield linear("one by one by one", (1, 1, 1))
    yield linear("one token", (1, 192, 16), bits=(16, 16, 24))
    yield linear("whole tiles", (4, 32, 16))
    yield linear("longer than a tile by one", (5, 33, 17))
    yield linear("saturates high", (3, 16, 4), x=highest, weight=highest, shift=4)
    yield linear("saturates low", (3, 16, 4), x=highest, weight=lowest, shift=4)
    yield linear("shift 0", (5, 3, 4), bits=(8, 8, 24), shift=0)
    yield linear("shift 0 with saturation", (5, 30, 4), bits=(8, 8, 8), shift=0)
    yield linear("zero weights leave the bias", (3, 11, 6), weight=zeros)
    yield linear("residual addend", (7, 23, 11), bits=(16, 16, 24), addend=uniform)
    yield linear("residual and multipliers", (7, 23, 11), bits=(8, 8, 24), addend=uniform, multipliers=True)
    yield linear("addend at both ends", (4, 9, 6), bits=(16, 16, 24), addend=ends)
    yield linear("signs by turns", (3, 64, 8), x=ends, weight=ends)
    yield linear("10 bit", (7, 37, 12), bits=(10, 8, 10), multipliers=True)
    yield linear("10 bit signs by turns", (3, 64, 8), bits=(10, 8, 10), x=ends, weight=ends)
    yield linear("10 bit all minimum", (3, 64, 8), bits=(10, 8, 10), x=lowest, weight=lowest)
    yield linear("long sums", (2, 3072, 3), bits=(18, 18, 16), x=lowest, weight=lowest)

    for kernel in ("gelu", "gelu_tanh", "quick_gelu", "relu"):
        yield activation("random", 2000, kernel=kernel)
        yield activation("dense around zero", 2049, ramp(-1024, 1), kernel)
        yield activation("edges", 64, edges, kernel)
        yield activation("every segment", 3000, sweep(-9 * GELU_ONE, 9 * GELU_ONE), kernel)
        yield activation("around the end of the table", 64, around(-8 * GELU_ONE, 8 * GELU_ONE), kernel)
        yield activation("one", 1, constant(GELU_ONE), kernel)

    yield exp2("random small", 2000, within(0, 28 * OCTAVE))
    yield exp2("every fraction", OCTAVE + 1, ramp(0, 1))
    yield exp2("every fraction four octaves down", OCTAVE + 1, ramp(4 * OCTAVE, 1))
    yield exp2("seventeen octaves down", 4096, ramp(17 * OCTAVE - 2048, 1))
    yield exp2("last values above zero", 4096, ramp((EXPONENTIAL.frac + 1) * OCTAVE - 2048, 1))
    yield exp2("sharing a rounded integer", 4096, ramp((EXPONENTIAL.frac - 1) * OCTAVE, 1))
    yield exp2("shifts around 62", 64, ramp(57 * OCTAVE, OCTAVE // 4))
    yield exp2("every whole number", 4096, ramp(0, OCTAVE))
    yield exp2("every whole number less one", 4095, ramp(OCTAVE - 1, OCTAVE))
    yield exp2("largest differences", 64, ramp(TOP - BOTTOM - 63, 1))
    yield exp2("random large", 500)

    for kernel, position in (("reciprocal", 16), ("reciprocal", 26), ("rsqrt", 40), ("rsqrt", 41)):
        yield mantissa(kernel, f"one octave at {position}", one_octave(position, 700))
    for kernel in ("reciprocal", "rsqrt"):
        yield mantissa(kernel, "all lengths", all_lengths())
        yield mantissa(kernel, "small", list(range(1, 600)))
        yield mantissa(kernel, "largest", [(1 << 64) - 1 - i for i in range(20)])
        yield mantissa(kernel, "no dropped bits", [(1 << 18) + i for i in range(64)])
        yield mantissa(kernel, "one dropped bit", [(1 << 19) + i for i in range(64)])

    yield softmax("one key", 3, 1)
    yield softmax("two keys", 4, 2, within(-OCTAVE, OCTAVE), block=2)
    yield softmax("prime sizes", 23, 37, within(-4 * OCTAVE, 4 * OCTAVE), block=5)
    yield softmax("block of one", 5, 11, within(-4 * OCTAVE, 4 * OCTAVE))
    yield softmax("block larger than keys", 11, 7, within(-4 * OCTAVE, 4 * OCTAVE), block=16)
    yield softmax("whole range", 17, 19, block=4)
    yield softmax("edges", 17, 19, edges, block=4)
    yield softmax("all equal", 4, 129, constant(77), block=4)
    yield softmax("all minimum", 4, 65, lowest, block=4)
    yield softmax("all maximum", 4, 65, highest, block=4)
    yield softmax("both ends", 6, 9, ends, block=4)
    yield softmax("ascending by one", 4, 257, ramp(-128, 1), block=4)
    yield softmax("ascending by an octave", 4, 40, ramp(-20 * OCTAVE, OCTAVE), block=4)
    yield softmax("ascending by a fraction", 4, 129, ramp(0, 300), block=4)
    yield softmax("descending", 4, 129, ramp(0, -300), block=4)
    yield softmax("maximum first", 4, 33, spike(TOP, BOTTOM), block=4)
    yield softmax("maximum last", 1, 33, ramp(BOTTOM, (TOP - BOTTOM) // 32), block=4)
    yield softmax("ties of the maximum", 6, 31, within(0, 1), block=3)
    yield softmax("1201 keys", 6, 1201, within(-3 * OCTAVE, 3 * OCTAVE), block=8)
    yield softmax("1201 keys ascending", 2, 1201, ramp(-600, 1), block=2)
    yield softmax("1201 keys equal", 2, 1201, zeros, block=2)
    # The maximum is a whole number, and a score on a whole number is its own.
    yield softmax("on whole numbers", 9, 31, octaves(-3, 3), block=4)
    yield softmax("just above whole numbers", 9, 31, octaves(-3, 3, 1), block=4)
    yield softmax("just below whole numbers", 9, 31, octaves(-3, 3, -1), block=4)
    yield softmax("on and around whole numbers", 9, 31, octaves(-3, 3, -1, 0, 1), block=4)
    yield softmax("one score on each whole number", 4, 9, ramp(-4 * OCTAVE, OCTAVE), block=4)
    yield softmax("one score just above each whole number", 4, 9, ramp(-4 * OCTAVE + 1, OCTAVE), block=4)
    yield softmax("zero and its neighbours", 6, 13, within(-1, 1), block=5)
    yield softmax("all zero", 2, 5, zeros, block=2)
    yield softmax("all just above zero", 2, 5, ones, block=2)
    yield softmax("all just below zero", 2, 5, constant(-1), block=2)
    yield softmax("negative", 9, 31, within(-7 * OCTAVE, -1), block=4)
    yield softmax("negative on whole numbers", 9, 31, octaves(-9, -1), block=4)
    yield softmax("on -3 and just above", 5, 12, listed(-3 * OCTAVE, 1 - 3 * OCTAVE), block=5)
    yield softmax("far negative", 4, 17, within(BOTTOM, BOTTOM + 3 * OCTAVE), block=4)
    yield softmax("maximum beyond every score", 3, 9, within(TOP - OCTAVE + 2, TOP), block=3)
    half_unit = -EXPONENTIAL.frac * OCTAVE  # exp2 of a score as far down from 1
    # A jump of n divides the sum by 2**n: to nothing, and then beyond any shift of 64 bits.
    for jump in (1, 2, *range(EXPONENTIAL.frac - 1, EXPONENTIAL.frac + 4), 61, 62, 63, 64, 65, 200):
        values = (0, 0, 0, jump * OCTAVE, jump * OCTAVE - 1)
        yield softmax(f"maximum jumps by {jump}", 5, 5, listed(*values), block=5)
        values = (1, 1, jump * OCTAVE + 1, 5, jump * OCTAVE)
        yield softmax(f"maximum jumps by {jump} from just above", 5, 5, listed(*values), block=5)
    yield softmax("maximum jumps over the whole range", 3, 40, late(TOP, BOTTOM), block=3)
    yield softmax("1201 keys and a jump of 63", 2, 1201, late(63 * OCTAVE, 0), block=2)
    yield softmax("sum on a tie of the shift", 4, 4, listed(half_unit, 0, OCTAVE, 1), block=4)
    yield softmax("ties of the shift octave by octave", 5, 30, ramp(half_unit - OCTAVE, OCTAVE), block=5)
    yield softmax("ties on a whole number", 6, 31, listed(2 * OCTAVE, OCTAVE, 2 * OCTAVE), block=3)
    yield softmax("ties just above a whole number", 6, 31, listed(2 * OCTAVE + 1, 1, 2 * OCTAVE + 1), block=3)
    # Exponentials that are all half a unit and round up, beside the least sum there is.
    yield softmax("1201 keys half a unit each", 2, 1201, spike(1, half_unit), block=2)
    yield softmax("1201 keys less than half a unit", 2, 1201, spike(1, half_unit - 1), block=2)
    yield softmax("1201 keys half a unit before the best", 2, 1201, late(1, half_unit), block=2)
    yield softmax("1201 keys ascending over 30 octaves", 3, 1201, ramp(-29 * OCTAVE - 7, 102), block=8)
    yield softmax("1201 keys on whole numbers", 2, 1201, octaves(-40, 0), block=2)

    yield attention("one token", (2, 1, 4), 8)
    yield attention("block of one", (1, 13, 8), 1)
    yield attention("whole blocks", (2, 16, 16), 8)
    yield attention("last block short", (3, 17, 16), 8)
    yield attention("block larger than tokens", (2, 7, 8), 64)
    yield attention("block of all tokens", (1, 11, 8), 11)
    yield attention("prime sizes", (3, 19, 13), 5)
    yield attention("head dim 24", (2, 13, 24), 4)
    yield attention("head dim 1", (2, 9, 1), 4)
    yield attention("8 bit", (2, 17, 16), 4, bits=(8, 8))
    yield attention("8 bit results of 16 bit values", (2, 17, 16), 4, bits=(16, 8), attention_shift=8)
    yield attention("10 bit", (2, 17, 16), 4, bits=(10, 10))
    yield attention("18 bit", (2, 11, 16), 4, bits=(18, 18))
    yield attention("all minimum", (2, 11, 16), 4, q=lowest, k=lowest, v=lowest)
    yield attention("all minimum 8 bit", (2, 11, 16), 4, bits=(8, 8), q=lowest, k=lowest, v=lowest)
    yield attention("all minimum 18 bit", (2, 65, 16), 4, bits=(18, 18), q=lowest, k=lowest, v=lowest)
    yield attention("scores saturate both ways", (2, 13, 8), 4, score_shift=0)
    yield attention("scores at both ends", (1, 13, 8), 4, q=highest, k=ramp(-99, 99, axis=1), score_shift=0)
    yield attention("scores equal", (2, 21, 8), 4, k=zeros)
    yield attention("scores ascend", (2, 21, 8), 4, q=constant(256), k=ramp(0, 1, axis=1), score_shift=2)
    yield attention("scores descend", (2, 21, 8), 4, q=constant(-256), k=ramp(0, 1, axis=1), score_shift=2)
    yield attention("output saturates", (2, 13, 8), 4, v=edges, attention_shift=-6)
    yield attention("output saturates 8 bit", (2, 13, 8), 4, bits=(16, 8), v=ends, attention_shift=2)
    yield attention("least shift", (2, 13, 8), 4, bits=(8, 16), attention_shift=-17)
    yield attention("large shift", (2, 13, 8), 4, attention_shift=12)
    yield attention("edges", (3, 17, 8), 4, q=edges, k=edges, v=edges)
    yield attention("score shift 0", (2, 13, 8), 4, bits=(8, 8), q=within(-9, 9), score_shift=0)
    yield attention("8 bit, left", (2, 13, 8), 4, bits=(8, 8), q=within(-9, 9), k=within(-9, 9), score_shift=-5)
    yield attention("8 bit, as far left as it goes", (2, 13, 8), 4, bits=(8, 8), k=within(-1, 1), score_shift=-16)
    yield attention("8 bit, ends to the left", (2, 11, 16), 4, bits=(8, 8), q=ends, k=ends, score_shift=-9)
    yield attention("8 bit, left by one", (2, 13, 8), 4, bits=(8, 8), score_shift=-1)
    yield attention("m3vit head", (1, 129, 64), 8)
    # Scores are q * k of one channel here, in units of 2**-12: the sums, and so their alignment, are chosen.
    one: dict[str, Any] = {"q": constant(1), "score_shift": 0}
    yield attention("least sum", (1, 9, 1), 9, k=listed(1, *[-30000] * 8), **one)
    yield attention("sum just below one", (1, 9, 1), 9, k=listed(-1, *[-32768] * 8), **one)
    yield attention("sum of one", (1, 5, 1), 5, k=listed(0, *[-32768] * 4), v=edges, **one)
    for tokens in (1, 2, 3, 4, 5, 8, 16, 31, 33):
        yield attention(f"sum of {tokens}", (1, tokens, 1), 4, k=zeros, v=edges, **one)
        yield attention(f"least sum times {tokens}", (1, tokens, 1), 4, k=ones, v=edges, **one)
    yield attention("scores on whole numbers", (2, 13, 1), 4, k=octaves(-3, 3), **one)
    yield attention("scores just above whole numbers", (2, 13, 1), 4, k=octaves(-3, 3, 1), **one)
    yield attention("scores negative", (2, 13, 1), 4, k=within(-32768, -1), **one)
    leap = listed(0, 0, 63 * 64, 1)
    yield attention("maximum jumps by 63", (1, 6, 1), 3, q=constant(64), k=leap, score_shift=0)
    yield attention("ties of the alignment", (1, 8, 2), 4, k=zeros, v=within(-3, 3), attention_shift=-17)
    # A unit of the aligned sum is 2**-7 of a result's here: of so many results, some tell how it was rounded.
    fine: dict[str, Any] = {"bits": (16, 32), "v": within(-999, 999), "attention_shift": -17}
    yield attention("rounding of the alignment", (2, 33, 32), 4, **fine)
    yield attention("rounding of the alignment of equal keys", (2, 31, 32), 4, k=ones, q=zeros, **fine)
    yield attention("18 bit aligned", (1, 65, 4), 8, bits=(18, 18), k=zeros, v=lowest, attention_shift=-17)
    far = listed(1, *[-131072] * 4)
    yield attention("least sum of wide v", (1, 5, 1), 5, bits=(18, 18), k=far, v=ends, attention_shift=-17, **one)

    yield layernorm("one token", (1, 192))
    yield layernorm("prime sizes", (7, 37))
    yield layernorm("one channel", (3, 1))
    yield layernorm("two channels", (5, 2), edges)
    yield layernorm("equal channels", (3, 48), constant(12345))
    yield layernorm("all minimum", (2, 192), lowest)
    yield layernorm("all maximum", (2, 192), highest)
    yield layernorm("all zero", (2, 16), zeros)
    yield layernorm("one channel off by one", (2, 64), spike(1001, 1000))
    yield layernorm("one channel at the end", (2, 192), spike((1 << 23) - 1, -(1 << 23)))
    yield layernorm("largest variance", (2, 192), ends)
    yield layernorm("largest variance that fits", (2, 510), ends)
    yield layernorm("all minimum of the widest", (2, 511), lowest)
    yield layernorm("one spike of the widest", (2, 511), spike((1 << 23) - 1, -(1 << 23)))
    yield layernorm("off by one next to the end", (2, 511), spike((1 << 23) - 2, (1 << 23) - 1))
    yield layernorm("off by one next to the minimum", (2, 509), spike(1 - (1 << 23), -(1 << 23)))
    yield layernorm("normalized saturates high", (1, 1201), spike(1 << 19), width=21)
    yield layernorm("normalized saturates low", (1, 1201), spike(-(1 << 20)), width=21)
    yield layernorm("edges", (9, 31), edges)
    yield layernorm("small values", (9, 31), within(-3, 3))
    yield layernorm("large epsilon", (5, 31), within(-300, 300), epsilon=(1 << 40) + 12345)
    yield layernorm("epsilon larger than 32 bits of variance", (5, 31), epsilon=1 << 55)
    yield layernorm("8 bit stream", (5, 64), width=8, out=8)
    yield layernorm("8 bit result", (5, 48), out=8, shift=30)
    yield layernorm("10 bit result", (5, 48), out=10, shift=28)
    yield layernorm("wide stream", (5, 31), width=27)
    yield layernorm("extreme gamma and beta", (5, 32), gamma=edges, beta=edges)
    yield layernorm("gamma all minimum", (5, 32), gamma=lowest, beta=lowest)
    yield layernorm("saturates both ways", (5, 32), gamma=ends, beta=zeros, shift=12)
    yield layernorm("gamma one", (5, 32), gamma=constant(1 << 10), beta=zeros, shift=18)
    yield layernorm("shift 0", (3, 8), gamma=constant(1), beta=zeros, shift=0, out=24)

    yield router("random", 29, 16, 2)
    yield router("close logits", 29, 16, 2, within(-2 * OCTAVE, 2 * OCTAVE))
    yield router("close logits over the selected", 29, 16, 2, within(-2 * OCTAVE, 2 * OCTAVE), selected=True)
    yield router("one token", 1, 16, 2, within(-OCTAVE, OCTAVE))
    yield router("one expert", 9, 1, 1)
    yield router("all experts chosen", 7, 5, 5, within(-OCTAVE, OCTAVE))
    yield router("all experts chosen over the selected", 7, 5, 5, within(-OCTAVE, OCTAVE), selected=True)
    yield router("top 1", 13, 8, 1, within(-OCTAVE, OCTAVE))
    yield router("top 1 over the selected", 13, 8, 1, within(-OCTAVE, OCTAVE), selected=True)
    yield router("top 3 of 7", 17, 7, 3, within(-OCTAVE, OCTAVE))
    yield router("experts not a power of two", 23, 11, 2, within(-OCTAVE, OCTAVE))
    yield router("all equal", 5, 16, 2, constant(5))
    yield router("all minimum", 5, 16, 2, lowest)
    yield router("all maximum over the selected", 5, 16, 2, highest, selected=True)
    yield router("many ties", 31, 16, 2, within(0, 2))
    yield router("many ties top 4", 31, 6, 4, within(-1, 0), selected=True)
    yield router("tie for the last place", 4, 8, 2, listed(9, 5, 0, 9, 5, 5, 0, 1))
    yield router("edges", 31, 16, 3, edges)
    yield router("both ends", 5, 8, 2, ends)
    yield router("ascending", 6, 16, 2, ramp(-100, 7))
    yield router("descending", 6, 16, 2, ramp(100, -7))
    yield router("far behind the best", 5, 4, 2, ramp(TOP, -17 * OCTAVE))
    yield router("one expert gets all, others none", 19, 8, 1, spike(OCTAVE))
    yield router("on whole numbers", 13, 16, 2, octaves(-2, 2))
    yield router("on whole numbers over the selected", 13, 16, 2, octaves(-2, 2), selected=True)
    yield router("just above whole numbers", 13, 16, 3, octaves(-2, 2, 1))
    yield router("negative", 13, 16, 2, within(-5 * OCTAVE, -1))
    yield router("maximum jumps by 63", 5, 6, 2, listed(0, 1, 2, 63 * OCTAVE, 0, 5))
    yield router("scores of next to nothing", 5, 8, 3, ramp(0, -9 * OCTAVE))
    yield router("equal scores of different logits", 5, 6, 2, listed(1, 40 * OCTAVE, 2, 0, 3))

    yield moe("random", (17, 12, 4), 2)
    yield moe("one token", (1, 8, 8), 2)
    yield moe("one expert", (5, 7, 1), 1)
    yield moe("every expert for every token", (5, 7, 3), 3)
    yield moe("all tokens to the last expert", (9, 7, 5), 1, choice=constant(4))
    yield moe("all tokens to two experts", (9, 7, 5), 2, choice=listed(3, 1))
    yield moe("best expert has the higher number", (6, 7, 5), 2, choice=listed(4, 0, 1, 3))
    yield moe("prime sizes", (23, 13, 7), 3)
    yield moe("8 bit", (11, 16, 6), 2, bits=(8, 8, 24))
    yield moe("all minimum", (3, 8, 3), 2, residual=lowest, x=lowest, weight=highest, scores=highest)
    yield moe("each addition saturates", (4, 8, 3), 3, residual=ends, weight=edges, scores=highest, shift=2)
    yield moe("saturates high", (3, 8, 3), 2, residual=highest, x=lowest, weight=lowest, scores=highest)
    yield moe("scores zero and one", (9, 8, 4), 2, scores=ends)
    yield moe("narrow stream", (9, 8, 4), 2, bits=(8, 8, 12), residual=edges)

    yield embed("random", (2, 3, 8, 12), 4, 7)
    yield embed("multipliers", (1, 3, 8, 8), 4, 7, bits=(8, 24), multipliers=True)
    yield embed("one patch", (1, 1, 2, 2), 2, 3)
    yield embed("patches of one pixel", (1, 3, 2, 3), 1, 5)
    yield embed("tall image", (1, 2, 15, 3), 3, 5)
    yield embed("black", (1, 3, 4, 8), 4, 5, pixels=lowest, weight=edges)
    yield embed("white", (1, 3, 4, 8), 4, 5, pixels=highest, weight=edges)
    yield embed("all minimum", (1, 3, 4, 8), 4, 5, pixels=lowest, weight=lowest, position=lowest)
    yield embed("saturates high", (1, 3, 4, 4), 4, 5, pixels=lowest, weight=lowest, position=highest)
    yield embed("narrow stream", (3, 1, 6, 6), 3, 5, bits=(8, 12), position=edges)
    yield embed("all pixels differ", (1, 3, 8, 8), 4, 3, pixels=counting, weight=counting, bits=(8, 24))

    yield iccad23_linear("random", (7, 37, 5))
    yield iccad23_linear("ordinary values", (5, 64, 5), x=UP_TO_4, bias=UP_TO_1)
    yield iccad23_linear("all minimum", (3, 16, 4), x=lowest, weight=lowest, bias=lowest)
    yield iccad23_linear("wraps low", (3, 16, 4), x=highest, weight=lowest, bias=lowest)
    yield iccad23_linear("wraps high", (3, 3, 4), x=highest, weight=highest, bias=highest)
    yield iccad23_linear("small products floor", (3, 41, 4), x=constant(-1), weight=ones, bias=zeros)
    yield iccad23_linear("edges", (7, 19, 5), x=edges, weight=edges, bias=edges)
    yield iccad23_linear("pixels", (6, 48, 5), x=within(0, 255), bias=UP_TO_1, shift=2)
    yield iccad23_linear("shift 0", (3, 9, 4), x=within(-255, 255), shift=0)
    yield iccad23_linear("one by one by one", (1, 1, 1))

    yield iccad23_gelu("random", 1000, within(-7 * ONE, 7 * ONE))
    yield iccad23_gelu("whole range", 500)
    yield iccad23_gelu("edges", 30, edges)
    yield iccad23_gelu("sweep", 4001, sweep(-6 * ONE, 6 * ONE))
    yield iccad23_gelu("around the limit", 40, around(-11 * ONE // 2, 11 * ONE // 2))
    yield iccad23_gelu("segment ends", 359, ramp(-179 << 17, 1 << 17))
    yield iccad23_gelu("one below segment ends", 359, ramp((-179 << 17) - 1, 1 << 17))

    yield iccad23_softmax("random", 11, 37, UP_TO_4, block=4)
    yield iccad23_softmax("whole range", 11, 37, uniform, block=4)
    yield iccad23_softmax("all minimum", 3, 17, lowest, block=4)
    yield iccad23_softmax("all maximum", 3, 17, highest, block=4)
    yield iccad23_softmax("both ends", 4, 17, ends, block=4)
    yield iccad23_softmax("all equal", 4, 129, constant(-3 * ONE), block=4)
    yield iccad23_softmax("ascending", 4, 129, ramp(0, ONE // 50), block=4)
    yield iccad23_softmax("ascending by one", 2, 129, ramp(-64, 1), block=4)
    yield iccad23_softmax("descending", 4, 129, ramp(0, -ONE // 50), block=4)
    yield iccad23_softmax("minimum before the rest", 2, 9, spike(-(1 << 31), 0), block=2)
    yield iccad23_softmax("block larger than keys", 9, 5, UP_TO_1, block=16)
    yield iccad23_softmax("one key", 2, 1, uniform)
    yield iccad23_softmax("sum wraps", 1, 520, zeros)
    yield iccad23_softmax("edges", 9, 23, edges, block=4)

    yield iccad23_attention("one token", (2, 1, 8), 4)
    yield iccad23_attention("random", (2, 17, 16), 4)
    yield iccad23_attention("block of one", (1, 11, 16), 1)
    yield iccad23_attention("block larger than tokens", (1, 7, 16), 64)
    yield iccad23_attention("head dim not a power of two", (2, 11, 24), 4)
    yield iccad23_attention("head dim not whole blocks", (2, 7, 13), 4)
    yield iccad23_attention("head dim 2", (2, 7, 2), 4)
    yield iccad23_attention("head dim 64", (1, 33, 64), 8, q=within(-ONE // 2, ONE // 2))
    yield iccad23_attention("all minimum", (2, 9, 16), 4, q=lowest, k=lowest, v=lowest)
    yield iccad23_attention("edges", (2, 9, 16), 4, q=edges, k=edges, v=edges)
    yield iccad23_attention("scores wrap", (2, 11, 16), 4, q=uniform, k=uniform)
    yield iccad23_attention("scores wrap with a multiplier", (2, 11, 12), 4, q=uniform, k=uniform)
    yield iccad23_attention("scores equal", (1, 23, 8), 8, k=zeros)
    yield iccad23_attention("scores ascend", (1, 23, 16), 8, q=constant(ONE), k=ramp(0, ONE // 16, axis=1))
    yield iccad23_attention("small products floor", (1, 9, 16), 4, q=constant(-1), k=constant(1))

    yield iccad23_layernorm("random", (7, 37), UP_TO_4)
    yield iccad23_layernorm("192 channels", (3, 192), within(-30 * ONE, 30 * ONE))
    yield iccad23_layernorm("whole range", (5, 37), uniform)
    yield iccad23_layernorm("power of two channels", (5, 64), UP_TO_1)
    yield iccad23_layernorm("one channel", (3, 1), UP_TO_1)
    yield iccad23_layernorm("one channel at its minimum", (1, 1), lowest)
    yield iccad23_layernorm("equal channels", (3, 48), constant(5 * ONE // 3))
    yield iccad23_layernorm("all zero", (3, 48), zeros)
    yield iccad23_layernorm("all minimum", (2, 192), lowest, norm=lowest)
    yield iccad23_layernorm("edges", (7, 31), edges, norm=edges)
    yield iccad23_layernorm("small values", (7, 31), within(-9, 9))
    yield iccad23_layernorm("variance of 4 units", (2, 192), listed(8, -8))
    yield iccad23_layernorm("variances of 2 to 17 units", (60, 4), within(-9000, 9000))
    yield iccad23_layernorm("variances of 4 to -11 units", (30, 64), ramp(16384, 64, axis=0))
    yield iccad23_layernorm("variance wraps", (2, 32), ends)
    yield iccad23_layernorm("one spike", (2, 192), spike(100 * ONE))

    yield iccad23_scale("random", (9, 11))
    yield iccad23_scale("edges", (9, 11), y=edges, score=listed(0, 1, ONE - 1, ONE))
    yield iccad23_scale("score one", (3, 7), score=constant(ONE))
    yield iccad23_scale("all minimum", (3, 7), y=lowest, score=constant(ONE))
    yield iccad23_scale("wraps", (5, 7), y=uniform, score=uniform)
    # fmt: on


CASES: tuple[Case, ...] = tuple(_rows())
