// Function units, most read from tables: power of two, reciprocal, its square root, activation function.
#ifndef EDGEMOE_UNITS_H
#define EDGEMOE_UNITS_H

#include "tables.h"
#include "types.h"

namespace edgemoe {

// The exact output of an activation function.
typedef ap_int<GELU_INPUT_BITS + GELU_FRAC - GELU_INPUT_FRAC> gelu_t;

// A number as mantissa * 2**-(MANTISSA_FRAC + position), or with half the position for a square root.
struct Normalised {
  mantissa_t mantissa;
  position_t position;
};

// 2**-difference for a score difference >= 0.
exponential_t exp2_unit(ap_uint<SCORE_BITS + 1> difference);

// What the softmax keeps of the sum of a row.
typedef Normalised Inverse;
const Inverse EMPTY_INVERSE = {0, 0};

// The running maximum and sum of a single-pass softmax; the maximum is a whole power of two.
struct SoftmaxPass {
  maximum_t maximum;
  exponential_sum_t sum;
};

// Of a row that does not exist.
const SoftmaxPass EMPTY_PASS = {0, 1};

// What a score does to a row: the maximum that holds from now on, and the shift of the sum so far, which
// rounds.
constexpr int EXPONENTIAL_SUM_BITS = exponential_sum_t::width;
typedef Count<EXPONENTIAL_SUM_BITS> sum_shift_t;
typedef ap_uint<EXPONENTIAL_SUM_BITS + 1> rounded_sum_t;

struct SoftmaxRise {
  maximum_t maximum;
  sum_shift_t shift;
};

SoftmaxRise softmax_rise(bool first, score_t score, maximum_t before);

inline rounded_sum_t half_of(sum_shift_t shift) {
#pragma HLS inline
  return shift == 0 ? rounded_sum_t(0) : rounded_sum_t(rounded_sum_t(1) << (shift - 1));
}

// One score of the single pass, the row's first or a later one.
SoftmaxPass softmax_step(bool first, score_t score, const SoftmaxPass& before);

// 2**(score - maximum), where no score is larger than the maximum.
exponential_t softmax_weight(maximum_t maximum, score_t score);

// 1 / value of a positive integer.
Normalised reciprocal_unit(wide_uint_t value);

// 1 / sqrt(value) of a positive integer; the exponent is half the position.
Normalised rsqrt_unit(wide_uint_t value);

// relu(x) - delta(|x|), with GELU_FRAC fraction bits: GELU and its approximations, each with its own table.
gelu_t gelu_unit(gelu_input_t x);

// The same without a table.
inline gelu_t relu_unit(gelu_input_t x) {
#pragma HLS inline
  const int value = x;
  const wide_t rectified = value < 0 ? 0 : value;
  return rectified * (wide_t(1) << (GELU_FRAC - GELU_INPUT_FRAC));
}

}  // namespace edgemoe

#endif
