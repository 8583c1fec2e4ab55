"""The number formats against two oracles: apytypes, and exact fractions.

Nothing in the oracles shifts or masks, so that they cannot share a mistake with the code under test.
"""

import itertools
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from apytypes import APyFixedArray, OverflowMode, QuantizationMode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import CheckError, EdgeMoeError, FormatError, InputError, OverflowRiskError
from pysim.formats import INT64_MAX, INT64_MIN, Format, Overflow, Quantization, apply_overflow, round_shift

MODES = list(itertools.product(Quantization, Overflow))
APY_QUANTIZATION = {mode: getattr(QuantizationMode, mode.value.removeprefix("AP_")) for mode in Quantization}
APY_OVERFLOW = {Overflow.AP_WRAP: OverflowMode.WRAP, Overflow.AP_SAT: OverflowMode.SAT}

QUARTERS = [-10, -7, -6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7, 10]
# Quarters are:   -2.5 -1.75 -1.5 -1.25 -.75 -.5 -.25 0 .25 .5 .75 1.25 1.5 1.75 2.5
ROUNDED_QUARTERS = {
    Quantization.AP_TRN: [-3, -2, -2, -2, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2],
    Quantization.AP_TRN_ZERO: [-2, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2],
    Quantization.AP_RND: [-2, -2, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3],
    Quantization.AP_RND_ZERO: [-2, -2, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2],
    Quantization.AP_RND_INF: [-3, -2, -2, -1, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 3],
    Quantization.AP_RND_MIN_INF: [-3, -2, -2, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2, 2],
    Quantization.AP_RND_CONV: [-2, -2, -2, -1, -1, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2],
}

AROUND_THREE_BITS = [-13, -9, -8, -5, -4, -3, -1, 0, 3, 4, 7, 8, 12, 17]
THREE_BITS = {
    (True, Overflow.AP_WRAP): [3, -1, 0, 3, -4, -3, -1, 0, 3, -4, -1, 0, -4, 1],
    (True, Overflow.AP_SAT): [-4, -4, -4, -4, -4, -3, -1, 0, 3, 3, 3, 3, 3, 3],
    (True, Overflow.AP_SAT_ZERO): [0, 0, 0, 0, -4, -3, -1, 0, 3, 0, 0, 0, 0, 0],
    (True, Overflow.AP_SAT_SYM): [-3, -3, -3, -3, -3, -3, -1, 0, 3, 3, 3, 3, 3, 3],
    (False, Overflow.AP_WRAP): [3, 7, 0, 3, 4, 5, 7, 0, 3, 4, 7, 0, 4, 1],
    (False, Overflow.AP_SAT): [0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 7, 7, 7, 7],
    (False, Overflow.AP_SAT_ZERO): [0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 7, 0, 0, 0],
    (False, Overflow.AP_SAT_SYM): [0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 7, 7, 7, 7],
}


@cache
def power(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def rounded(x: Fraction, mode: Quantization) -> int:
    below = x.numerator // x.denominator
    rest = x - below
    if mode is Quantization.AP_TRN:
        return below
    if mode is Quantization.AP_TRN_ZERO:
        return int(x)
    if rest != Fraction(1, 2):
        return below + (rest > Fraction(1, 2))
    return {
        Quantization.AP_RND: below + 1,
        Quantization.AP_RND_ZERO: below if x > 0 else below + 1,
        Quantization.AP_RND_INF: below + 1 if x > 0 else below,
        Quantization.AP_RND_MIN_INF: below,
        Quantization.AP_RND_CONV: below + below % 2,
    }[mode]


def overflowed(n: int, fmt: Format) -> int:
    count = 2**fmt.width
    low, high = (-count // 2, count // 2 - 1) if fmt.signed else (0, count - 1)
    if fmt.overflow is Overflow.AP_WRAP:
        return (n - low) % count + low
    if fmt.overflow is Overflow.AP_SAT_SYM and fmt.width > 1 and fmt.signed:
        low = -high
    if low <= n <= high:
        return n
    if fmt.overflow is Overflow.AP_SAT_ZERO:
        return 0
    return low if n < low else high


def expected(x: Fraction, fmt: Format) -> int:
    """Return the real number `x` in units of `fmt`, by definition."""
    return overflowed(rounded(x * power(fmt.frac), fmt.quantization), fmt)


def apytypes_cast(values: range, frac: int, fmt: Format) -> np.ndarray:
    """Cast by apytypes, which is always signed: one more bit stands in for unsigned sources and targets."""
    source = APyFixedArray(values, frac_bits=frac, bits=max(abs(values[0]), values[-1]).bit_length() + 1)
    wrap = fmt.overflow is Overflow.AP_WRAP
    cast = source.cast(
        bits=fmt.width + (not fmt.signed),
        frac_bits=fmt.frac,
        quantization=APY_QUANTIZATION[fmt.quantization],
        overflow=APY_OVERFLOW[fmt.overflow],
    )
    ints = (cast.to_numpy() * 2.0**fmt.frac).astype(np.int64)
    if fmt.signed:
        return ints
    return ints % 2**fmt.width if wrap else np.maximum(ints, 0)


@pytest.mark.parametrize("mode", Quantization)
def test_rounding_by_hand(mode: Quantization) -> None:
    by_hand = ROUNDED_QUARTERS[mode]
    np.testing.assert_array_equal(round_shift(QUARTERS, 2, mode), by_hand)
    np.testing.assert_array_equal(Format(8, 0, quantization=mode).quantize(np.array(QUARTERS) / 4), by_hand)
    assert [rounded(Fraction(n, 4), mode) for n in QUARTERS] == by_hand
    cast = APyFixedArray(QUARTERS, bits=8, frac_bits=2).cast(
        bits=8, frac_bits=0, quantization=APY_QUANTIZATION[mode]
    )
    np.testing.assert_array_equal(cast.to_numpy(), by_hand)


@pytest.mark.parametrize(("signed", "mode"), THREE_BITS)
def test_overflow_by_hand(signed: bool, mode: Overflow) -> None:
    fmt = Format(3, 0, signed, overflow=mode)
    by_hand = THREE_BITS[signed, mode]
    np.testing.assert_array_equal(apply_overflow(AROUND_THREE_BITS, fmt), by_hand)
    np.testing.assert_array_equal(fmt.quantize(AROUND_THREE_BITS), by_hand)
    assert [overflowed(n, fmt) for n in AROUND_THREE_BITS] == by_hand


@pytest.mark.parametrize(("quantization", "overflow"), MODES)
def test_every_value_of_small_formats(quantization: Quantization, overflow: Overflow) -> None:
    sources = itertools.product([range(-32, 32), range(64)], range(-3, 10), [0, 3])
    for values, frac, target_frac in sources:
        for width, signed in itertools.product([1, 2, 3, 5, 7], [True, False]):
            fmt = Format(width, target_frac, signed, quantization, overflow)
            if overflow in APY_OVERFLOW:
                oracle = apytypes_cast(values, frac, fmt)
            else:
                exact = (round_once(n, frac - target_frac, quantization) for n in values)
                oracle = np.array([overflowed(n, fmt) for n in exact])
            where = f"from {frac} fraction bits to {fmt}"
            np.testing.assert_array_equal(fmt.requantise(values, frac), oracle, err_msg=where)
            reals = np.array(values) * 2.0**-frac
            np.testing.assert_array_equal(fmt.quantize(reals), oracle, err_msg=where)


@cache
def round_once(n: int, shift: int, mode: Quantization) -> int:
    return rounded(n * power(-shift), mode)


@pytest.mark.parametrize("mode", Quantization)
def test_round_shift_at_the_ends_of_int64(mode: Quantization) -> None:
    ends = [INT64_MIN + n for n in range(6)] + [INT64_MAX - n for n in range(6)]
    values = np.array(
        [*ends, *(sign * 2**n + m for n in (61, 62) for sign in (-1, 1) for m in (-1, 0, 1)), 0]
    )
    shifts = [0, 1, 2, 3, 4, 31, 61, 62, 63, 64, 65, 66, 100, 1000]
    oracle = [[rounded(int(n) * power(-s), mode) for s in shifts] for n in values]
    np.testing.assert_array_equal(round_shift(values[:, None], np.array(shifts), mode), oracle)
    np.testing.assert_array_equal(
        np.stack([round_shift(values, s, mode) for s in shifts], axis=1), np.array(oracle)
    )


@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("signed", [True, False])
def test_overflow_of_wide_formats(signed: bool, overflow: Overflow) -> None:
    near = itertools.product([0, 2**61, 2**62, 2**63], [1, -1], range(-2, 3))
    values = [n for base, sign, m in near if INT64_MIN <= (n := sign * base + m) <= INT64_MAX]
    for width in range(61, 64 + signed):
        fmt = Format(width, 0, signed, overflow=overflow)
        assert apply_overflow(values, fmt).tolist() == [overflowed(n, fmt) for n in values]


@pytest.mark.parametrize("left", [1, 5, 61, 62, 63, 64, 100])
def test_left_shift_up_to_the_ends_of_int64(left: int) -> None:
    fmt = Format(64, left)
    for last, step in ((INT64_MAX // 2**left, 1), (-(2**63 // 2**left), -1)):
        assert fmt.requantise([0, last], 0).tolist() == [0, last * 2**left]
        with pytest.raises(OverflowRiskError, match=f"left by {left}"):
            fmt.requantise([0, last + step], 0)


INT64 = st.integers(INT64_MIN, INT64_MAX) | st.integers(-70, 70) | st.integers(-(2**40), 2**40)


@st.composite
def formats(draw: st.DrawFn, widest: int = 64) -> Format:
    signed = draw(st.booleans())
    width = draw(st.integers(1, min(widest, 63 + signed)))
    frac = draw(st.integers(-20, 80) | st.integers(-512, 512))
    return Format(width, frac, signed, draw(st.sampled_from(Quantization)), draw(st.sampled_from(Overflow)))


@settings(deadline=None, max_examples=200)
@given(formats())
def test_spelling_round_trips(fmt: Format) -> None:
    assert Format.parse(str(fmt)) == fmt
    assert Format.parse(f"\n {fmt.cpp} ".replace(",", "\t,\n ").replace("<", " < ").replace(">", " >")) == fmt


@settings(deadline=None, max_examples=600)
@given(formats(), st.lists(INT64, min_size=1, max_size=8), st.integers(-12, 12) | st.integers(-70, 70))
def test_requantise_is_exact(fmt: Format, values: list[int], shift: int) -> None:
    frac = fmt.frac + shift
    exact = [n * power(-shift) for n in values]
    if shift < 0 and not all(INT64_MIN <= x <= INT64_MAX for x in exact):
        with pytest.raises(OverflowRiskError, match=f"left by {-shift}"):
            fmt.requantise(values, frac)
        return
    got = fmt.requantise(values, frac)
    oracle = [expected(n * power(-frac), fmt) for n in values]
    assert got.dtype == np.int64
    assert got.tolist() == oracle
    assert fmt.contains(got)
    np.testing.assert_array_equal(fmt.requantise(got, fmt.frac), got)
    np.testing.assert_array_equal(fmt.requantise(got.astype(fmt.dtype), fmt.frac), got)


@settings(deadline=None, max_examples=600)
@given(
    formats(),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    st.lists(INT64, min_size=1, max_size=8),
)
@example(Format(8, 0), [5e-324, -5e-324, 1e300, -1e300, 1.7976931348623157e308, -0.0], [])
@example(Format(8, -512, quantization=Quantization.AP_RND_INF), [5e-324, -5e-324, 1e300, -1e300], [])
@example(Format(64, 512, overflow=Overflow.AP_SAT_ZERO), [0.0, -5e-324, 1e300, -1e300], [])
@example(Format(64, 0, overflow=Overflow.AP_SAT_ZERO), [-(2.0**63), 2.0**63], [])
@example(Format(63, 0, signed=False, overflow=Overflow.AP_SAT_ZERO), [2.0**63, 2.0**62], [])
def test_quantize_is_exact(fmt: Format, floats: list[float], halves: list[int]) -> None:
    # Halves of the lsb meet ties and limits, which arbitrary doubles hardly ever do.
    floats = floats + [float(n * power(-fmt.frac - 1)) for n in halves]
    got = fmt.quantize(floats)
    assert got.dtype == np.int64
    assert got.tolist() == [expected(Fraction(x), fmt) for x in floats]
    assert fmt.contains(got)


@settings(deadline=None, max_examples=200)
@given(formats(widest=53), st.data())
def test_real_values_survive(fmt: Format, data: st.DataObject) -> None:
    lowest = fmt.min + (fmt.signed and fmt.overflow is Overflow.AP_SAT_SYM and fmt.width > 1)
    n = data.draw(st.integers(lowest, fmt.max))
    real = fmt.to_float(n)
    assert Fraction(float(real)) == n * power(-fmt.frac)
    np.testing.assert_array_equal(fmt.quantize(real), n)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(INT64, st.integers(0, 70)), min_size=1, max_size=8), st.sampled_from(Quantization))
def test_round_shift_by_arrays(pairs: list[tuple[int, int]], mode: Quantization) -> None:
    values, shifts = zip(*pairs, strict=True)
    oracle = [rounded(n * power(-s), mode) for n, s in pairs]
    np.testing.assert_array_equal(round_shift(values, shifts, mode), oracle)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize(("quantization", "overflow"), MODES)
def test_shapes_and_inputs_are_kept(
    shape: tuple[int, ...], quantization: Quantization, overflow: Overflow
) -> None:
    fmt = Format(4, 2, True, quantization, overflow)
    values = np.full(shape, 37, dtype=np.int64)
    for frac in (0, 2, 3, 4):
        result = fmt.requantise(values, frac)
        assert isinstance(result, np.ndarray)
        assert result.shape == shape
        assert result.dtype == np.dtype(np.int64)
        assert not np.shares_memory(result, values)
    for scale in (2.0**-4, 2.0**20):
        result = fmt.quantize(values * scale)
        assert result.shape == shape
        assert result.dtype == np.dtype(np.int64)
    assert fmt.to_float(values).shape == shape
    assert (values == 37).all()


def test_round_shift_broadcasts() -> None:
    got = round_shift(np.array([[8], [9], [11]], dtype=np.int8), np.array([0, 1, 2]), Quantization.AP_RND)
    np.testing.assert_array_equal(got, [[8, 4, 2], [9, 5, 2], [11, 6, 3]])


def test_apply_overflow_writes_where_told() -> None:
    values = np.array([100, -100])
    out = np.zeros(2, dtype=np.int64)
    assert apply_overflow(values, Format(4, 0, overflow=Overflow.AP_SAT), out=out) is out
    np.testing.assert_array_equal(out, [7, -8])
    np.testing.assert_array_equal(values, [100, -100])


def test_one_bit_keeps_its_sign_when_symmetric() -> None:
    np.testing.assert_array_equal(
        Format(1, 0, overflow=Overflow.AP_SAT_SYM).requantise([-5, -1, 0, 5], 0), [-1, -1, 0, 0]
    )


@pytest.mark.parametrize(
    ("text", "fmt"),
    [
        ("ap_fixed<16, 6>", Format(16, 10)),
        ("ap_fixed<16,6,AP_RND>", Format(16, 10, quantization=Quantization.AP_RND)),
        (
            " ap_ufixed < 17 ,1,\nAP_RND, AP_SAT ,0 > ",
            Format(17, 16, False, Quantization.AP_RND, Overflow.AP_SAT),
        ),
        ("ap_fixed<8, -3>", Format(8, 11)),
        ("ap_fixed<8, 12>", Format(8, -4)),
        ("ap_int<8>", Format(8, 0)),
        ("ap_uint< 1 >", Format(1, 0, signed=False)),
    ],
)
def test_spellings(text: str, fmt: Format) -> None:
    assert Format.parse(text) == fmt


@pytest.mark.parametrize(
    ("fmt", "text"),
    [
        (Format(16, 10), "ap_fixed<16, 6>"),
        (Format(8, 11), "ap_fixed<8, -3>"),
        (Format(8, 8, overflow=Overflow.AP_SAT), "ap_fixed<8, 0, AP_TRN, AP_SAT>"),
        (
            Format(17, 16, False).with_modes(Quantization.AP_RND, Overflow.AP_SAT),
            "ap_ufixed<17, 1, AP_RND, AP_SAT>",
        ),
    ],
)
def test_cpp(fmt: Format, text: str) -> None:
    assert fmt.cpp == str(fmt) == text


def test_properties() -> None:
    fmt = Format(9, 11)
    assert (fmt.int_bits, fmt.min, fmt.max, fmt.lsb) == (-2, -256, 255, 2.0**-11)
    assert fmt.dtype == np.dtype(np.int16)
    fmt = Format(63, -2, signed=False)
    assert (fmt.int_bits, fmt.min, fmt.max, fmt.lsb) == (65, 0, 2**63 - 1, 4.0)
    assert fmt.dtype == np.dtype(np.uint64)
    assert Format(64, 0).min == INT64_MIN
    assert fmt.contains([])
    assert not fmt.contains([0, -1])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ap_float<16, 6>", "ap_float<16, 6>"),
        ("ap_fixed<16, 6", "ap_fixed<16, 6"),
        ("ap_fixed<16>", "1 template argument"),
        ("ap_int<8, 8>", "2 template argument"),
        ("ap_fixed<16, 6, AP_RND, AP_SAT, 0, 0>", "6 template argument"),
        ("ap_fixed<W, 6>", "'W'"),
        ("ap_fixed<16, 1_0>", "'1_0'"),
        ("ap_fixed<, 6>", "''"),
        ("ap_fixed<16, 6, AP_ROUND>", "'AP_ROUND'.*AP_RND_CONV"),
        ("ap_fixed<16, 6, AP_SAT, AP_RND>", "'AP_SAT'"),
        ("ap_fixed<16, 6, AP_RND, AP_WRAP_SM>", "'AP_WRAP_SM'.*AP_SAT_SYM"),
        ("ap_fixed<16, 6, AP_TRN, AP_WRAP, 2>", "'2' saturation bits"),
        ("ap_fixed<65, 6>", "65.*1 to 64"),
        ("ap_ufixed<64, 6>", "64.*1 to 63"),
        ("ap_fixed<0, 6>", "0.*1 to 64"),
        ("ap_fixed<16, 600>", "-584"),
    ],
)
def test_bad_spellings_are_named(text: str, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint) as caught:
        Format.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"width": 8.0}, "width.*8.0"),
        ({"width": True}, "width.*True"),
        ({"width": 64, "signed": False}, "width.*64.*63"),
        ({"frac": "4"}, "frac.*'4'"),
        ({"frac": 513}, "frac.*513"),
        ({"signed": 1}, "signed.*1"),
        ({"quantization": "AP_RND"}, "quantization.*'AP_RND'"),
        ({"overflow": Quantization.AP_RND}, "overflow.*AP_RND"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint) as caught:
        Format(**{"width": 8, "frac": 4, **fields})
    assert caught.value.hint


def test_bad_values_are_named() -> None:
    fmt = Format(8, 4)
    with pytest.raises(FormatError, match="16"):
        Format.parse(16)  # type: ignore[arg-type]
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(FormatError, match=rf"quantize {bad} to ap_fixed<8, 4>") as caught:
            fmt.quantize([[0.0, bad]])
        assert "1 of 2" in caught.value.hint
    with pytest.raises(FormatError, match="complex128"):
        fmt.quantize([1j])
    with pytest.raises(FormatError, match="float64"):
        fmt.requantise([1.0], 4)
    with pytest.raises(FormatError, match="object"):
        fmt.contains([2**64])
    with pytest.raises(FormatError, match="9223372036854775808"):
        fmt.to_float(np.array([2**63], dtype=np.uint64))
    with pytest.raises(InputError, match="-3"):
        round_shift([1, 2], [0, -3], Quantization.AP_TRN)
    with pytest.raises(OverflowRiskError, match="from -1 to 4611686018427387904"):
        Format(64, 1).requantise([2**62, -1], 0)


def test_errors_carry_message_hint_and_exit_code() -> None:
    error = FormatError("width is 0", hint="use 1")
    assert (str(error), error.message, error.hint, error.exit_code) == (
        "width is 0",
        "width is 0",
        "use 1",
        2,
    )
    assert isinstance(error, InputError)
    assert isinstance(OverflowRiskError("x"), InputError)
    assert not isinstance(CheckError("x"), InputError)
    assert (EdgeMoeError("x").hint, EdgeMoeError.exit_code, CheckError.exit_code) == ("", 2, 1)
