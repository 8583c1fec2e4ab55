"""Number formats inside the accelerator that no Design changes: every width is stated here, once."""

from __future__ import annotations

from pysim.formats import Format, Overflow, Quantization

_RND_SAT = (Quantization.AP_RND, Overflow.AP_SAT)

PIXEL_FRAC = 8
"""A pixel p stands for p / 256."""
PIXEL_OFFSET = 128
"""Pixels enter the linear engine as p - 128, a signed byte; the patch biases make up for it."""

SCORE = Format(24, 12, True, *_RND_SAT)
"""Attention scores and gate logits, in units of log2: a difference of 1 is a factor of 2."""
EXPONENTIAL = Format(26, 25, False, *_RND_SAT)
"""2**-d, from 0 to 1 inclusive. So fine because rounded exponentials are summed over a whole row."""
PROBABILITY = Format(17, 16, False, *_RND_SAT)
"""Probabilities and gate scores, from 0 to 1 inclusive."""
GELU_INPUT = Format(24, 14, True, *_RND_SAT)
"""Format that the first MLP layer hands to its activation function."""
NORMALIZED = Format(24, 18, True, *_RND_SAT)
"""(x - mean) / std, before gamma and beta."""
MANTISSA_FRAC = 17
"""Fraction bits of the mantissas that the reciprocal units return: integers in [2**16, 2**17]."""
NORM_WEIGHT_WIDTH = 18
"""gamma, on the 18-bit port of a DSP slice."""
POSITION_WIDTH = 32
"""The position table, in units of the residual stream."""
MULTIPLIER_WIDTH = 16
"""Requantisation multipliers, unsigned."""
MAX_SHIFT = 62
"""The largest requantisation shift."""
ACCUMULATOR_LIMIT = 48
"""Bits of a DSP slice's accumulator: no dot product of a Design may need more."""


def score_lift(width: int) -> int:
    """Most bits that products of queries and keys are shifted left, to become scores.

    Queries and keys of few bits have few behind the point, and their products fewer than scores. Shifted so far, they
    reach scores as large as those of 16 bits do.

    Args:
        width: bits of queries and keys.
    """
    return max(2 * (16 - width), 0)


FORMATS = {
    "score": SCORE,
    "exponential": EXPONENTIAL,
    "probability": PROBABILITY,
    "gelu_input": GELU_INPUT,
    "normalized": NORMALIZED,
}
"""Every format of this module, by name."""
