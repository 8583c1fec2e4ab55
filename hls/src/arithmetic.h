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

// A product of a number of BITS bits and one of at most FACTOR_BITS. Longer than a DSP slice takes, the
// former is split where the slice's port ends: a tool left to itself may split at the shorter port, into
// more.
template <int BITS>
wide_t slice_product(wide_t value, wide_t factor) {
#pragma HLS inline
  const ap_int<FACTOR_BITS> narrow = factor;
  if (BITS <= PART_BITS + 1) {
    const wide_t product = wide_t(ap_int<PART_BITS + 1>(value)) * wide_t(narrow);
#pragma HLS bind_op variable = product op = mul impl = dsp
    return product;
  }
  const ap_uint<PART_BITS> low = value;
  const ap_int<(BITS > PART_BITS ? BITS - PART_BITS : 1)> high = value >> PART_BITS;
  const wide_t lower = wide_t(low) * wide_t(narrow);
  const wide_t upper = wide_t(high) * wide_t(narrow);
#pragma HLS bind_op variable = lower op = mul impl = dsp
#pragma HLS bind_op variable = upper op = mul impl = dsp
  return lower + upper * (wide_t(1) << PART_BITS);
}

// A product with a mantissa, from a half to 1: less the half, which is a shift, it fits the slice's shorter
// port.
template <int BITS>
wide_t mantissa_product(wide_t value, mantissa_t mantissa) {
#pragma HLS inline
  const wide_t half = wide_t(1) << (MANTISSA_FRAC - 1);
  return slice_product<BITS>(value, wide_t(mantissa) - half) + value * half;
}

}  // namespace edgemoe

#endif
