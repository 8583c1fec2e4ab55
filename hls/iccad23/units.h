// Function units: exponential and GELU from tables, exact reciprocal and square root.
#ifndef EDGEMOE_UNITS_H
#define EDGEMOE_UNITS_H

#include "tables.h"
#include "types.h"

namespace edgemoe {

constexpr int ONE = 1 << FEATURE_FRAC;

// How far a feature is below another one, no more than half of their range.
typedef ap_uint<FEATURE_BITS> distance_t;

// exp(-distance), within 2**-20.
exponential_t exp_unit(distance_t distance);

// What the softmax keeps of the sum of a row.
typedef feature_t Inverse;
const Inverse EMPTY_INVERSE = 0;

// The running maximum and sum of a single-pass softmax.
struct SoftmaxPass {
  maximum_t maximum;
  exponential_sum_t sum;
};

// Of a row that does not exist.
const SoftmaxPass EMPTY_PASS = {0, ONE};

// One score of the single pass, the row's first or a later one.
SoftmaxPass softmax_step(bool first, score_t score, const SoftmaxPass& before);

// exp(score - maximum), where no score is larger than the maximum.
exponential_t softmax_weight(maximum_t maximum, score_t score);

// 1 / value, saturated: the largest feature for values that are close to zero, zero, or below.
feature_t reciprocal_unit(feature_t value);

// 1 / value of a value above zero, as features divide: what does not fit wraps.
feature_t inverse_unit(feature_t value);

// The square root of a feature above zero; of any other, that of the smallest one above.
feature_t sqrt_unit(feature_t value);

// relu(x) - delta(|x|).
feature_t gelu_unit(feature_t x);

}  // namespace edgemoe

#endif
