// Products of features, floored. What wraps, wraps where it is stored: a feature keeps the low bits.
#ifndef EDGEMOE_ARITHMETIC_H
#define EDGEMOE_ARITHMETIC_H

#include "types.h"

namespace edgemoe {

inline wide_t floor_product(feature_t x, feature_t y) {
#pragma HLS inline
  return (x * y) >> FEATURE_FRAC;
}

inline aligned_t align(feature_t x, const LinearSettings& settings) {
#pragma HLS inline
  return aligned_t(x) << settings.align;
}

// Product of an aligned operand and a weight. A sum of such products may wrap at any addition, or at its end.
inline feature_t weigh(aligned_t x, weight_t weight) {
#pragma HLS inline
  return (x * weight) >> PRODUCT_SHIFT;
}

}  // namespace edgemoe

#endif
