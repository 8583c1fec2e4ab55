// What the router computes with: logits and gate scores.
#ifndef EDGEMOE_ROUTER_ARITHMETIC_H
#define EDGEMOE_ROUTER_ARITHMETIC_H

#include "arithmetic.h"
#include "types.h"
#include "units.h"

namespace edgemoe {

// What the exponentials of a token's logits are divided by: their sum.
struct Divisor {
  feature_t sum;
};

// Sum of products of one word of a token with one expert's gate weights.
inline feature_t gate_products(const gate_word_t& x, const gate_weight_t weight[LANES],
                               const LinearSettings& settings) {
#pragma HLS inline
  feature_t sum = 0;
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    sum += weigh(align(x.lane[lane], settings), weight[lane]);
  }
  return sum;
}

inline score_t logit_of(accumulator_t sum, const Record&) {
#pragma HLS inline
  return sum;
}

inline Divisor divisor_of(exponential_sum_t sum) {
#pragma HLS inline
  return {sum};
}

static_assert(EXPERTS < 1 << (FEATURE_BITS - 1 - FEATURE_FRAC),
              "the sum of a token's exponentials must not wrap");

// A quotient of their own, because it is floored once: a product with a reciprocal would be floored twice.
inline probability_t gate_score(exponential_t exponential, const Divisor& divisor) {
#pragma HLS inline
  return (ap_int<2 * FEATURE_FRAC + 2>(exponential) << FEATURE_FRAC) / divisor.sum;
}

}  // namespace edgemoe

#endif
