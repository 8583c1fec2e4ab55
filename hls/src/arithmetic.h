// Rounding and saturation: every narrowing of the accelerator is one of each.
#ifndef EDGEMOE_ARITHMETIC_H
#define EDGEMOE_ARITHMETIC_H

#include "types.h"

namespace edgemoe {

// AP_RND: add half of the last bit that stays, then drop what is below it.
inline wide_t round_shift(wide_t value, shift_t shift) {
#pragma HLS inline
  const int bits = shift;
  const wide_t half = bits == 0 ? wide_t(0) : wide_t(1) << (bits - 1);
  return (value + half) >> bits;
}

// AP_SAT to BITS signed bits.
template <int BITS>
ap_int<BITS> saturate(wide_t value) {
#pragma HLS inline
  const wide_t high = (wide_t(1) << (BITS - 1)) - 1;
  const wide_t low = -high - 1;
  return ap_int<BITS>(value > high ? high : value < low ? low : value);
}

}  // namespace edgemoe

#endif
