"""Number formats of the hardware and the integer arithmetic that moves values between them.

A value is an int64 count of units of 2**-frac; a `Format` says how many bits it has, where the binary
point is, and what happens to bits that do not fit, in the terms of Vitis HLS (`ap_fixed`, UG1399).
Every operation here is one rounding followed by one overflow step, and is exact up to that.

Examples:
    >>> fmt = Format.parse("ap_fixed<8, 4, AP_RND, AP_SAT>")
    >>> fmt.quantize([0.3, -0.3, 100.0])
    array([  5,  -5, 127])
    >>> fmt.to_float([5, -5, 127])
    array([ 0.3125, -0.3125,  7.9375])
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import FormatError, InputError, OverflowRiskError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
DOUBLE_DIGITS = 53
# Keeps every lsb and every value of every format a finite, normal double.
FRAC_LIMIT = 512


class Quantization(str, Enum):
    """Treatment of the bits below the lsb, by the names of Vitis HLS."""

    AP_TRN = "AP_TRN"  # toward -inf
    AP_TRN_ZERO = "AP_TRN_ZERO"  # toward zero
    AP_RND = "AP_RND"  # nearest, ties toward +inf
    AP_RND_ZERO = "AP_RND_ZERO"  # nearest, ties toward zero
    AP_RND_INF = "AP_RND_INF"  # nearest, ties away from zero
    AP_RND_MIN_INF = "AP_RND_MIN_INF"  # nearest, ties toward -inf
    AP_RND_CONV = "AP_RND_CONV"  # nearest, ties to even


class Overflow(str, Enum):
    """Treatment of a value outside the range, by the names of Vitis HLS."""

    AP_WRAP = "AP_WRAP"  # keep the low bits
    AP_SAT = "AP_SAT"  # nearest limit
    AP_SAT_ZERO = "AP_SAT_ZERO"  # zero
    AP_SAT_SYM = "AP_SAT_SYM"  # nearest of -max and max; as AP_SAT when unsigned


_SPELLING = re.compile(r"\s*ap_(u?)(fixed|int)\s*<([^<>]*)>\s*")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
_EXPECTED = "expected ap_[u]fixed<W, I[, Q[, O[, 0]]]> or ap_[u]int<W>"


@dataclass(frozen=True, slots=True)
class Format:
    """A fixed-point format of `width` bits, `frac` of which are below the binary point.

    `frac` may be negative (the lsb is more than 1) or above `width` (the range is less than 1), within
    -512..512. Values are held in int64, so a signed format has at most 64 bits and an unsigned one 63.
    The default modes are those of Vitis HLS. Raises FormatError when a field is out of range.

    Examples:
        >>> print(Format(16, 10))
        ap_fixed<16, 6>
        >>> Format(8, 8, signed=False).max
        255
    """

    width: int
    frac: int
    signed: bool = True
    quantization: Quantization = Quantization.AP_TRN
    overflow: Overflow = Overflow.AP_WRAP

    def __post_init__(self) -> None:
        """Refuse fields of the wrong type or out of range."""
        widest = 64 if self.signed else 63
        # `type() is`, as a bool is an int, and a NumPy integer would overflow in `min` and `max`.
        if type(self.width) is not int or not 1 <= self.width <= widest:
            kind = "signed" if self.signed else "unsigned"
            raise FormatError(
                f"width of a number format is {self.width!r}, expected an int from 1 to {widest} ({kind})",
                hint="values are held in int64, so signed formats have at most 64 bits and unsigned ones 63",
            )
        if type(self.frac) is not int or abs(self.frac) > FRAC_LIMIT:
            raise FormatError(
                f"frac of a number format is {self.frac!r}, "
                f"expected an int from {-FRAC_LIMIT} to {FRAC_LIMIT}",
                hint="frac is the number of bits below the binary point: W - I of ap_fixed<W, I>",
            )
        if type(self.signed) is not bool:
            raise FormatError(
                f"signed of a number format is {self.signed!r}, expected True or False",
                hint="True is ap_fixed, False is ap_ufixed",
            )
        for value, modes in ((self.quantization, Quantization), (self.overflow, Overflow)):
            if not isinstance(value, modes):
                raise FormatError(
                    f"{modes.__name__.lower()} of a number format is {value!r}, "
                    f"expected a member of {modes.__name__}",
                    hint=f"one of {', '.join(modes.__members__)}",
                )

    @classmethod
    def parse(cls, text: str) -> Format:
        """Read a format as Vitis HLS spells it; `Format.parse(str(f)) == f` for every format.

        Takes ap_fixed, ap_ufixed, ap_int and ap_uint with any white space, the modes of the first two
        being optional. The fifth argument of ap_fixed, the saturation bits of AP_WRAP, may only be 0.
        Raises FormatError naming what was read and what was expected.

        Examples:
            >>> Format.parse("ap_ufixed< 17,1, AP_RND >").frac
            16
            >>> print(Format.parse("ap_int<8>"))
            ap_fixed<8, 8>
        """
        match = _SPELLING.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise FormatError(
                f"{text!r} is not a number format, {_EXPECTED}", hint='for example "ap_fixed<16, 6>"'
            )
        unsigned, kind, inside = match.groups()
        args = [arg.strip() for arg in inside.split(",")]
        fewest, most = (1, 1) if kind == "int" else (2, 5)
        if not fewest <= len(args) <= most:
            raise FormatError(
                f"{text!r} has {len(args)} template argument(s), {_EXPECTED}",
                hint="W is the width, I the bits above the binary point, Q the rounding, O the overflow mode",
            )
        numbers, modes, rest = args[:2], args[2:4], args[4:]
        for number in numbers:
            if not _INTEGER.fullmatch(number):
                raise FormatError(
                    f"{number!r} in {text!r} is not a decimal integer, {_EXPECTED}",
                    hint="write the number out: names of constants are not looked up",
                )
        for mode, known in zip(modes, (Quantization, Overflow), strict=False):
            if mode not in known.__members__:
                raise FormatError(
                    f"{mode!r} in {text!r} is not a mode, expected one of {', '.join(known.__members__)}",
                    hint="the quantization mode comes before the overflow mode",
                )
        if rest not in ([], ["0"]):
            raise FormatError(
                f"{rest[0]!r} saturation bits in {text!r} are not supported, expected 0",
                hint="leave the fifth argument out",
            )
        width = int(numbers[0])
        return cls(
            width,
            width - int(numbers[-1]),
            not unsigned,
            Quantization(modes[0]) if modes else Quantization.AP_TRN,
            Overflow(modes[1]) if len(modes) > 1 else Overflow.AP_WRAP,
        )

    def with_modes(self, quantization: Quantization, overflow: Overflow) -> Format:
        """Return this format with other modes.

        Examples:
            >>> print(Format(8, 2).with_modes(Quantization.AP_RND, Overflow.AP_SAT))
            ap_fixed<8, 6, AP_RND, AP_SAT>
        """
        return Format(self.width, self.frac, self.signed, quantization, overflow)

    @property
    def int_bits(self) -> int:
        """Bits above the binary point, sign included: the I of ap_fixed<W, I>; may be negative."""
        return self.width - self.frac

    @property
    def min(self) -> int:
        """Smallest representable value, in lsb; AP_SAT_SYM never produces it when signed."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        """Largest representable value, in lsb."""
        return (1 << (self.width - self.signed)) - 1

    @property
    def lsb(self) -> float:
        """Value of one unit: 2**-frac."""
        return math.ldexp(1.0, -self.frac)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest NumPy integer type, of the same signedness, that holds every value.

        Examples:
            >>> Format(9, 0, signed=False).dtype
            dtype('uint16')
        """
        size = next(size for size in (8, 16, 32, 64) if size >= self.width)
        return np.dtype(f"{'int' if self.signed else 'uint'}{size}")

    @property
    def cpp(self) -> str:
        """The C++ type; the modes appear only when they are not both the defaults."""
        modes = (self.quantization.value, self.overflow.value)
        tail = "" if modes == ("AP_TRN", "AP_WRAP") else ", " + ", ".join(modes)
        return f"ap_{'' if self.signed else 'u'}fixed<{self.width}, {self.int_bits}{tail}>"

    def __str__(self) -> str:
        """Return the C++ type."""
        return self.cpp

    def quantize(self, values: ArrayLike) -> IntArray:
        """Turn real numbers of any shape, taken as float64, into integers of this format.

        Exact for every finite double: each is split into a 53-bit integer and a power of two, so that
        rounding is `round_shift`, and whatever int64 cannot hold is dealt with by the overflow mode.
        Raises FormatError for infinities, NaN and what is not a real number.

        Examples:
            >>> Format(4, 1).quantize([0.74, -0.01, 4.0, 1e300])
            array([ 1, -1, -8,  0])
        """
        real = np.asarray(values)
        if real.dtype.kind not in "fiub":
            raise FormatError(
                f"cannot quantize an array of {real.dtype}, expected real numbers",
                hint="pass numbers, not text, complex numbers or Python integers beyond 64 bits",
            )
        real = real.astype(np.float64, copy=False)
        finite = np.isfinite(real)
        if not finite.all():
            raise FormatError(
                f"cannot quantize {real[~finite].flat[0]} to {self}, expected finite numbers",
                hint=f"{real.size - np.count_nonzero(finite)} of {real.size} values are not finite",
            )
        mantissa, exponent = np.frexp(real)
        whole = np.ldexp(mantissa, DOUBLE_DIGITS).astype(np.int64)
        shift = DOUBLE_DIGITS - self.frac - exponent.astype(np.int64)
        ints = round_shift(whole, np.maximum(shift, 0), self.quantization)
        if (shift < 0).any():
            # Modulo 2**64, which is all that AP_WRAP needs to know of large values.
            ints = np.where(shift > -64, ints << np.clip(-shift, 0, 63), 0)
            if self.overflow != Overflow.AP_WRAP:
                limit = math.ldexp(1.0, 63 - self.frac)
                ints[real >= limit] = 0 if self.overflow == Overflow.AP_SAT_ZERO else INT64_MAX
                ints[real < -limit] = 0 if self.overflow == Overflow.AP_SAT_ZERO else INT64_MIN
        return apply_overflow(ints, self, out=ints)

    def requantise(self, values: ArrayLike, frac: int) -> IntArray:
        """Turn integers of any shape with `frac` bits below the binary point into this format.

        One rounding, then one overflow step. Raises FormatError when `values` are not integers, and
        OverflowRiskError when gaining bits below the point would push a value out of int64.

        Examples:
            >>> Format(8, 2, overflow=Overflow.AP_SAT).requantise([100, -7, 4000], frac=4)
            array([ 25,  -2, 127])
        """
        ints = _as_int64(values)
        shift = frac - self.frac
        if shift == 0 or not ints.size:
            return apply_overflow(ints, self)
        if shift > 0:
            moved = round_shift(ints, shift, self.quantization)
        else:
            left = -shift
            low, high = int(ints.min()), int(ints.max())
            if low < -(2**63 >> left) or high > INT64_MAX >> left:
                raise OverflowRiskError(
                    f"values from {low} to {high} with {frac} fraction bits do not fit in int64 "
                    f"once shifted left by {left} to reach {self}",
                    hint="start from fewer bits, or keep fewer bits below the binary point",
                )
            # Past a shift of 63 there are only zeros left.
            moved = np.asarray(ints << min(left, 63))
        # `moved` is ours alone: overflowing in place saves allocating a second array.
        return apply_overflow(moved, self, out=moved)

    def to_float(self, ints: ArrayLike) -> FloatArray:
        """Turn integers of this format, of any shape, into real numbers.

        Exact up to 53 significant bits, the nearest double beyond. Raises FormatError when `ints` are
        not integers.
        """
        return np.asarray(np.ldexp(_as_int64(ints).astype(np.float64), -self.frac))

    def contains(self, ints: ArrayLike) -> bool:
        """Tell whether all integers, of any shape, are between `min` and `max`.

        Examples:
            >>> Format(4, 0).contains([-8, 7]), Format(4, 0).contains(8)
            (True, False)
        """
        array = _as_int64(ints)
        return not array.size or bool(array.min() >= self.min and array.max() <= self.max)


def round_shift(values: ArrayLike, shift: ArrayLike, mode: Quantization) -> IntArray:
    """Divide integers by 2**shift with one rounding; the result is a new array.

    `values` and `shift` are integers of shapes that broadcast; `shift` has no upper limit. Exact for all
    of int64. Raises FormatError when either is not integers, InputError when a shift is negative.

    Examples:
        >>> round_shift([-3, -1, 1, 3], 1, Quantization.AP_RND)
        array([-1,  0,  1,  2])
        >>> round_shift(7, [0, 1, 2, 100], Quantization.AP_RND_CONV)
        array([7, 4, 2, 0])
    """
    v, s = _as_int64(values), _as_int64(shift)
    least, most = (int(s.min()), int(s.max())) if s.size else (0, 0)
    if least < 0:
        raise InputError(
            f"shift to the right is {least}, expected 0 or more", hint="Format.requantise shifts both ways"
        )
    if mode == Quantization.AP_TRN:
        return np.asarray(v >> np.minimum(s, 63))
    if mode == Quantization.AP_RND and least >= 2:
        # The simulator's hot path, hence in place. The half becomes 1 once all but the last bit of the
        # shift is done, and adding it cannot overflow as at least one bit has gone by then.
        out = np.asarray(v >> np.minimum(s - 1, 63))
        out += 1
        out >>= 1
        return out
    if most > 62:
        # Keeps `rest + 1` below within int64: the three lowest bits become one that says if any was set,
        # which is all that rounding asks of bits below the half. From 65 on all shifts round alike.
        deep = s > 62
        v = np.where(deep, (v >> 3) | ((v & 7) != 0), v)
        s = np.where(deep, np.minimum(s, 65) - 3, s)
    out = np.asarray(v >> s)
    rest = v & ((np.int64(1) << s) - 1)
    if mode == Quantization.AP_TRN_ZERO:
        out += (v < 0) & (rest > 0)
        return out
    # Where nothing is shifted out there is no half: 1 is then more than `rest` can be.
    half = np.maximum((np.int64(1) << s) >> 1, 1)
    if mode == Quantization.AP_RND:
        out += rest >= half
    elif mode == Quantization.AP_RND_ZERO:
        out += rest + (v < 0) > half
    elif mode == Quantization.AP_RND_INF:
        out += rest + (v >= 0) > half
    elif mode == Quantization.AP_RND_MIN_INF:
        out += rest > half
    else:
        out += rest + (out & 1) > half
    return out


def apply_overflow(values: ArrayLike, fmt: Format, *, out: IntArray | None = None) -> IntArray:
    """Bring integers in units of the lsb of `fmt` into its range by its overflow mode.

    The result is `out` (of the shape of `values`, and maybe `values` itself) or else a new array. Raises
    FormatError when `values` are not integers.

    Examples:
        >>> apply_overflow([7, 8, -9], Format(4, 0))
        array([ 7, -8,  7])
    """
    v = _as_int64(values)
    if out is None:
        out = np.empty_like(v)
    if fmt.overflow == Overflow.AP_WRAP and fmt.width < 64:
        np.bitwise_and(v, fmt.max - fmt.min, out=out)
        if fmt.signed:
            # Extends the sign without leaving int64: flips the sign bit and takes its weight off.
            out ^= -fmt.min
            out += fmt.min
    elif fmt.overflow == Overflow.AP_WRAP:
        np.copyto(out, v)
    elif fmt.overflow == Overflow.AP_SAT_ZERO:
        np.multiply(v, (v >= fmt.min) & (v <= fmt.max), out=out)
    elif fmt.overflow == Overflow.AP_SAT_SYM and fmt.signed:
        # As ap_fixed does it: the lowest bit of the minimum is set, so a width of 1 keeps its -1.
        np.clip(v, fmt.min | 1, fmt.max, out=out)
    else:
        np.clip(v, fmt.min, fmt.max, out=out)
    return out


def _as_int64(values: ArrayLike) -> IntArray:
    """View or convert to int64 without changing a value, or raise FormatError."""
    array = np.asarray(values)
    # NumPy takes an empty list for floats.
    if array.size and array.dtype.kind not in "iu":
        raise FormatError(
            f"got an array of {array.dtype}, expected integers of at most 64 bits",
            hint="Format.quantize turns real numbers into integers",
        )
    if array.dtype == np.uint64 and array.size and array.max() > INT64_MAX:
        raise FormatError(f"got {array.max()}, expected integers that fit in int64", hint="at most 2**63 - 1")
    return array.astype(np.int64, copy=False)
