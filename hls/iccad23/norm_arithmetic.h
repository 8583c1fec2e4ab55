// What the LayerNorm engine computes with: sums, the statistics made of them, and normalised values.
#ifndef EDGEMOE_NORM_ARITHMETIC_H
#define EDGEMOE_NORM_ARITHMETIC_H

#include "arithmetic.h"
#include "types.h"
#include "units.h"

namespace edgemoe {

constexpr int SHARE = ONE / DIM;  // of one channel in a mean
constexpr int EPSILON = 4;

// The mean of a token and of its squares, as far as they are summed.
struct NormSums {
  feature_t mean;
  feature_t squares;
};

struct NormStatistics {
  feature_t mean;
  feature_t deviation;  // its reciprocal, which wraps where the deviation is 2**-9 or less
};

// One more word of a token.
inline NormSums add_channels(bool first, const NormSums& before, const residual_word_t& x) {
#pragma HLS inline
  feature_t mean = 0;
  feature_t squares = 0;
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    const feature_t part = floor_product(x.lane[lane], SHARE);
    mean += part;
    squares += floor_product(x.lane[lane], part);
  }
  // One addition in each recurrence: features wrap, so that the order of additions does not matter.
  const NormSums sums = {(first ? feature_t(0) : before.mean) + mean,
                         (first ? feature_t(0) : before.squares) + squares};
  return sums;
}

inline NormStatistics statistics_of(const NormSums& sums, const NormSettings&) {
#pragma HLS inline
  const feature_t variance = sums.squares - floor_product(sums.mean, sums.mean) + EPSILON;
  NormStatistics statistics;
  statistics.mean = sums.mean;
  statistics.deviation = inverse_unit(sqrt_unit(variance));
  return statistics;
}

// One channel, with gamma and beta applied.
typedef feature_t norm_result_t;

inline norm_result_t normalise(residual_t x, const NormStatistics& statistics, gamma_t gamma,
                               accumulator_t beta, const NormSettings& settings) {
#pragma HLS inline
  const feature_t centred = x - statistics.mean;
  const feature_t normalised = floor_product(centred, statistics.deviation);
  const feature_t scaled = (normalised * gamma) >> settings.shift;
  return scaled + beta;
}

inline activation_t norm_value(norm_result_t normalised, const NormSettings&) {
#pragma HLS inline
  return normalised;
}

inline gate_t gate_value(norm_result_t normalised, const NormSettings&) {
#pragma HLS inline
  return normalised;
}

}  // namespace edgemoe

#endif
