"""The original's arithmetic on examples worked out by hand, with no oracle between its rules and the numbers.

Features count units of 2**-22, so 1.0 is 4194304; "lsb" is one unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pysim.arithmetic import ICCAD23
from pysim.formats import Format
from pysim.kernels import iccad23
from pysim.precision import PRESETS

ONE = 4194304
HIGHEST, LOWEST = 2147483647, -2147483648


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def linear(x: list[int], weight: list[int], bias: int) -> int:
    return int(iccad23.linear(ints(*x)[None], ints(*weight)[None], ints(bias), shift=14)[0, 0])


def test_linear_floors_each_product() -> None:
    # Weights have 14 fraction bits. 3 * 1 / 16384 floors to 0, 3 * -1 / 16384 floors to -1: not 0 in all.
    assert linear([3, 3], [1, -1], 0) == -1
    # 16383 * 1 / 16384 floors to 0 twice, though the sum of both, 1.99, would floor to 1.
    assert linear([16383, 16383], [1, 1], 0) == 0
    # 2.0 * 1.5 + 0.25 = 3.25
    assert linear([2 * ONE], [16384 + 8192], ONE // 4) == 13631488


def test_linear_wraps_and_wraps_back() -> None:
    # 16384 * 1 / 16384 is one lsb.
    assert linear([16384], [1], HIGHEST) == LOWEST
    assert linear([16384], [-1], LOWEST) == HIGHEST
    assert linear([16384, 16384], [1, -1], HIGHEST) == HIGHEST
    # -512.0 * -2.0 = 1024.0 is a whole turn of 2**32 lsb.
    assert linear([LOWEST], [-32768], 5) == 5


def test_pixel_products_keep_two_bits_fewer() -> None:
    # A pixel has 8 fraction bits and a patch weight 16: floor(255 * 3 / 4) = 191, floor(255 * -3 / 4) = -192.
    y = iccad23.linear(ints(255)[None], ints(3, -3)[:, None], ints(0, 0), shift=2)
    assert y.tolist() == [[191, -192]]


def test_gelu() -> None:
    # T[32] = 2**22 * 1 * (1 - Phi(1)) = 2**22 * 0.158655254 = 665448.365
    assert iccad23.gelu(ints(ONE, -ONE)).tolist() == [ONE - 665448, -665448]
    # T[33] = 2**22 * 1.03125 * (1 - Phi(1.03125)) = 654047.89, 11400 less: half of the way that is -5700, and
    # a sixteenth of it -712.5, which floors to -713.
    assert iccad23.gelu(ints(-ONE - 65536)).tolist() == [-665448 + 5700]
    assert iccad23.gelu(ints(-ONE - 8192)).tolist() == [-665448 + 713]
    # ReLU from 5.5 on; the minimum has no positive counterpart among features.
    assert iccad23.gelu(ints(23068672, -23068672, 0, HIGHEST, LOWEST)).tolist() == [
        23068672,
        0,
        0,
        HIGHEST,
        0,
    ]
    # T[1] = 2**22 / 32 * (1 - Phi(1/32)) = 63902.3...
    assert iccad23.gelu(ints(131072)).tolist() == [131072 - 63902]


def one_score(q: list[int], k: list[int]) -> int:
    return int(iccad23.scores(ints(*q)[None, None], ints(*k)[None, None])[0, 0, 0])


def test_scores() -> None:
    # 16 dimensions: scale 1/4. Products of 0.5 and -1 lsb floor to -1; a block of 8 is -8 / 4 = -2.
    assert one_score([ONE // 2] * 16, [-1] * 16) == -4
    # Products of 1 lsb: blocks of 7 and 1 give floor(7 / 4) + floor(1 / 4) = 1, though 8 / 4 = 2.
    assert one_score([ONE] * 7 + [0] + [ONE] + [0] * 7, [1] * 16) == 1
    # 16.0 * 16.0 = 256.0. Two in one block wrap to -512.0, a quarter of it is -128.0; in two, 64.0 each.
    assert one_score([16 * ONE] * 2 + [0] * 14, [16 * ONE] * 16) == -128 * ONE
    assert one_score([16 * ONE] + [0] * 7 + [16 * ONE] + [0] * 7, [16 * ONE] * 16) == 128 * ONE
    # 64 dimensions, the original's own: 1.0 * 1.0, 64 times, an eighth of it.
    assert one_score([ONE] * 64, [ONE] * 64) == 8 * ONE
    # 2 dimensions: 1 / sqrt(2) = 0.70710678 * 2**22 = 2965820.8 as a multiplier.
    assert one_score([ONE, 0], [ONE, 0]) == 2965821


def test_reciprocal() -> None:
    # 2**22 / 3 = 1398101.3; 1 / 2**-9 = 512.0 is one lsb too much for a feature; 2**44 / 8193 = 2147221535.9
    assert iccad23.reciprocal(ints(3 * ONE, 8192, 8193, 1)).tolist() == [
        1398101,
        HIGHEST,
        2147221535,
        HIGHEST,
    ]


def test_exp_of_known_values() -> None:
    # Within 2**-20, 4 lsb: exp(0) = 1, exp(-ln 2) = 1/2, exp(-1) * 2**22 = 1542998.2, exp(-512) = 0
    e = iccad23.exponentials(ints(0, -2907270, -ONE, LOWEST)[None], ints(0))[0].tolist()
    assert e[0] == ONE and e[3] == 0
    assert abs(e[1] - 2097152) <= 4 and abs(e[2] - 1542998) <= 4


def test_single_pass() -> None:
    # The first score is above the initial maximum: 0 * e + 1. An equal one adds exp(0) = 1.
    maxima, sums = iccad23.single_pass(ints(0, 0)[None], ints(0))
    assert (maxima.tolist(), sums.tolist()) == ([0], [2 * ONE])
    # At the type's minimum nothing is above the initial maximum: 0 + exp(0) + exp(0).
    maxima, sums = iccad23.single_pass(ints(LOWEST, LOWEST)[None], ints(1))
    assert (maxima.tolist(), sums.tolist()) == ([LOWEST], [2 * ONE])
    # The whole range apart: the difference saturates at -512, whose exponential is 0.
    maxima, sums = iccad23.single_pass(ints(LOWEST, HIGHEST, LOWEST)[None], ints(0))
    assert (maxima.tolist(), sums.tolist()) == ([HIGHEST], [ONE])


def test_attention_floors_each_weighted_value() -> None:
    # Two equal scores: p = 1/2 each. 3 lsb / 2 floors to 1, -3 lsb / 2 to -2: -1 in all, not 0.
    zero = np.zeros((1, 2, 1), np.int64)
    out, scores = iccad23.attention(zero, zero, ints(3, -3).reshape(1, 2, 1), ints(0, 1))
    assert scores.tolist() == [[[0, 0], [0, 0]]]
    assert out.tolist() == [[[-1], [-1]]]


def test_layer_norm_of_one_and_minus_one() -> None:
    # c = 2**21, mean 0, msq 1, var 2**22 + 4. Its root is isqrt(2**44 + 2**24) = 2**22 + 1, as (2**22 + 2)**2
    # is 4 more. r = 2**44 // (2**22 + 1) = 2**22 - 1; y is 4194303 and its negative; beta is 0.5.
    y = iccad23.layer_norm(ints(ONE, -ONE)[None], ints(2048, 2048), ints(1024, 1024), norm_frac=11)
    assert y.tolist() == [[6291455, -2097151]]


def test_layer_norm_of_equal_channels_is_off_by_its_floors() -> None:
    # x = 3.0, D = 3: c = 1398101, t = 3 * c = 4194303, mean = 12582909, 3 lsb short of x.
    # msq = 3 * 12582909 = 37748727, mean**2 >> 22 = 37748718, var = 9 + 4. The root isqrt(13 << 22) = 7384;
    # 2**44 // 7384 = 2382473732 is 568.03, wraps to -455.97; y = 3 * -1912493564 >> 22 = -1368, where exact sums
    # give 0.
    y = iccad23.layer_norm(np.full((1, 3), 3 * ONE), ints(2048, 2048, 2048), ints(0, 0, 0), norm_frac=11)
    assert y.tolist() == [[-1368, -1368, -1368]]


def test_layer_norm_of_a_nearly_constant_token_is_beta() -> None:
    # x = +-8 lsb: c = 21845, t = 0 and floor(-174760 / 2**22) = -1, mean = -96, msq = 0, var = 0 - 0 + 4.
    # The root isqrt(4 << 22) = 4096; 2**44 // 4096 = 2**32 wraps to 0: nothing but beta, 3 * 2**-11, is left.
    x = np.resize(ints(8, -8), (1, 192))
    y = iccad23.layer_norm(x, np.full(192, 2048), np.full(192, 3), norm_frac=11)
    assert y.tolist() == [[3 << 11] * 192]


def test_layer_norm_divides_as_its_type_does() -> None:
    # 4 channels, +-a: t = a / 4 and mean = 0, so that var = 4 * (a * a >> 24) + 4 where nothing else is floored.
    # a = 4096: var = 8, root 5792, 2**44 // 5792 = 3037324938 is 724.15, wraps to -299.85.
    # a = 8192: var = 20, root 9158, 2**44 // 9158 = 1920963752 is 457.99 and fits.
    gamma, beta = np.full(4, 2048), np.zeros(4, np.int64)
    for a, inverse in ((4096, -1257642358), (8192, 1920963752)):
        y = iccad23.layer_norm(ints(a, -a, a, -a)[None], gamma, beta, norm_frac=11)
        assert y.tolist() == [[a * sign * inverse >> 22 for sign in (1, -1, 1, -1)]]


def test_layer_norm_without_a_root_is_beta() -> None:
    # 64 equal channels: t = a / 64, mean = a, msq = 64 * (a * a >> 28), var = msq - (a * a >> 22) + 4.
    # a = 16896: msq = 64 * 1 and a * a >> 22 = 68 leave a variance of 0; a = 16256: 64 * 0 - 63 + 4 = -59.
    for a in (16896, 16256):
        y = iccad23.layer_norm(np.full((1, 64), a), np.full(64, 2048), np.full(64, -5), norm_frac=11)
        assert y.tolist() == [[-5 << 11] * 64]


def test_layer_norm_floors_after_gamma() -> None:
    # The same y, gamma one lsb of either sign: 4194303 >> 11 = 2047, -4194303 >> 11 = -2048.
    y = iccad23.layer_norm(np.array([[ONE, -ONE], [-ONE, ONE]]), ints(1, -1), ints(0, 0), norm_frac=11)
    assert y.tolist() == [[2047, 2047], [-2048, -2048]]


def test_gate_scaling_floors_and_wraps() -> None:
    # -1 lsb * 0.5 floors to -1; 300.0 * 2.0 = 600.0 wraps to -424.0.
    assert iccad23.scale(ints(-1, 3, 300 * ONE), ints(ONE // 2, ONE // 2, 2 * ONE)).tolist() == [
        -1,
        1,
        -424 * ONE,
    ]
    assert iccad23.add(ints(HIGHEST, LOWEST), ints(1, -1)).tolist() == [LOWEST, HIGHEST]


def test_floor_sqrt_is_exact_around_squares() -> None:
    roots = ints(0, 1, 2, 3, 7384, 94906265, 94906267, (1 << 31) - 1, 1 << 31)
    squares = roots * roots
    np.testing.assert_array_equal(iccad23.floor_sqrt(squares), roots)
    np.testing.assert_array_equal(iccad23.floor_sqrt(squares[1:] - 1), roots[1:] - 1)


def test_residual_stream_is_a_feature() -> None:
    """However many channels there are: the original's LayerNorm wraps, so that nothing is narrowed for it."""
    for dim in (1, 192, 1024):
        residual = ICCAD23.residual(PRESETS["iccad23"], iccad23.FRAC, dim)
        assert residual == iccad23.FEATURE == Format.parse("ap_fixed<32, 10>")
