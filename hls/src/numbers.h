// Numbers of the requantising arithmetic, and the parameters that scale them: exact sums, and one rounding
// and one saturation for each value that is produced.
#ifndef EDGEMOE_NUMBERS_H
#define EDGEMOE_NUMBERS_H

#include "ap_int.h"
#include "params.h"
#include "widths.h"

namespace edgemoe {

typedef ap_int<WEIGHT_BITS> weight_t;
typedef ap_int<OPERAND_BITS> activation_t;
typedef ap_int<ATTENTION_BITS> attention_t;
typedef ap_int<GATE_BITS> gate_t;
typedef ap_int<GATE_WEIGHT_BITS> gate_weight_t;
typedef ap_int<RESIDUAL_BITS> residual_t;
typedef ap_int<SCORE_BITS> score_t;
typedef ap_uint<EXPONENTIAL_BITS> exponential_t;
typedef ap_uint<PROBABILITY_BITS> probability_t;
typedef ap_int<SCORE_BITS - SCORE_FRAC + 1> maximum_t;
// A sum over the keys of an image, or over the experts.
typedef ap_uint<SOFTMAX_SUM_BITS> exponential_sum_t;
typedef ap_int<GELU_INPUT_BITS> gelu_input_t;
typedef ap_int<NORMALIZED_BITS> normalized_t;
typedef ap_int<GAMMA_BITS> gamma_t;
typedef ap_int<ACCUMULATOR_BITS> accumulator_t;
typedef ap_uint<MULTIPLIER_BITS> multiplier_t;
typedef ap_uint<MANTISSA_FRAC + 1> mantissa_t;
typedef ap_uint<6> position_t;  // of a leading one in 64 bits
typedef ap_uint<SHIFT_BITS> shift_t;
// Intermediate values of a requantisation. A native type, as every product fits it: what ap_int would make of
// one is wider than 64 bits, and slow to simulate.
typedef long long wide_t;
typedef unsigned long long wide_uint_t;

// Requantisation of one output channel.
struct Record {
  accumulator_t bias;
  multiplier_t multiplier;
  shift_t shift;
};

inline Record record_of(ap_uint<RECORD_BITS> bits) {
#pragma HLS inline
  Record record;
  record.bias = ap_int<BIAS_BITS>(bits.range(BIAS_BITS - 1, 0));
  record.multiplier =
      MULTIPLIERS ? multiplier_t(bits.range(BIAS_BITS + MULTIPLIER_BITS - 1, BIAS_BITS)) : multiplier_t(1);
  record.shift = bits.range(RECORD_BITS - 1, RECORD_BITS - SHIFT_BITS);
  return record;
}

// What all layers share.
struct Header {
  wide_uint_t epsilon;
};

inline Header header_of(ap_uint<HEADER_BITS> bits) {
#pragma HLS inline
  return {bits};
}

// Scalar settings of a layer.
typedef ap_int<SETTING_BITS> LayerSettings[SETTINGS];

// Of a linear layer: requantisation of the activation function's output, where there is one.
struct LinearSettings {
  multiplier_t multiplier;
  shift_t shift;
  activation_t zero;
};

// Those from `first` on: what is behind the activation function, where there is one.
inline LinearSettings linear_settings(const LayerSettings settings, int first) {
#pragma HLS inline
  LinearSettings linear;
  linear.multiplier = settings[first];
  linear.shift = settings[first + 1];
  linear.zero = settings[first + 2];
  return linear;
}

// The patch embedding needs no settings: it goes through no activation function.
inline void settings_of_header(const Header&, LayerSettings) {
#pragma HLS inline
}

struct AttentionSettings {
  shift_t score_shift;
  int attention_shift;
};

inline AttentionSettings attention_settings(const LayerSettings settings, int first) {
#pragma HLS inline
  return {settings[first], int(settings[first + 1])};
}

struct NormSettings {
  wide_uint_t epsilon;
  shift_t shift;
  shift_t gate_shift;  // of the router's operands
};

// The router's shift follows the other one; a norm without a router makes no use of it.
inline NormSettings norm_settings(const Header& header, const LayerSettings settings, int first) {
#pragma HLS inline
  return {header.epsilon, settings[first], settings[first + 1]};
}

}  // namespace edgemoe

#endif
