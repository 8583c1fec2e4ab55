// What the linear engine computes with: products, their sums, and the results made of them.
#ifndef EDGEMOE_LINEAR_ARITHMETIC_H
#define EDGEMOE_LINEAR_ARITHMETIC_H

#include "arithmetic.h"
#include "types.h"
#include "units.h"

namespace edgemoe {

// Dot products of one operand word with every output of a block.
struct Dots {
  accumulator_t of[OUTPUTS];
};

inline Dots multiply(const activation_word_t& x, const WeightRow& weights, const LinearSettings& settings) {
#pragma HLS inline
  aligned_t aligned[LANES];
#pragma HLS array_partition variable = aligned complete
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    aligned[lane] = align(x.lane[lane], settings);
  }
  Dots dots;
  for (int o = 0; o < OUTPUTS; ++o) {
#pragma HLS unroll
    accumulator_t sum = 0;
    for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
      sum += weigh(aligned[lane], weight_of(weights, o, lane));
    }
    dots.of[o] = sum;
  }
  return dots;
}

// A sum begins with the bias, and wraps with it.
typedef accumulator_t sum_t;

inline sum_t first_sum(const Record& record) {
#pragma HLS inline
  return record.bias;
}

inline accumulator_t total_of(sum_t sum, const Record&) {
#pragma HLS inline
  return sum;
}

// A sum is a feature already.
typedef feature_t result_t;

inline result_t result_of(accumulator_t sum, const Record&) {
#pragma HLS inline
  return sum;
}

inline attention_t head_value(result_t result) {
#pragma HLS inline
  return result;
}

inline activation_t hidden_value(result_t result, const LinearSettings&) {
#pragma HLS inline
  return gelu_unit(result);
}

inline residual_t residual_value(result_t result, residual_t old) {
#pragma HLS inline
  return old + result;
}

inline residual_t expert_value(result_t result, probability_t score, residual_t old) {
#pragma HLS inline
  return old + floor_product(result, score);
}

}  // namespace edgemoe

#endif
