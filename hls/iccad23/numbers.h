// Numbers of the original's arithmetic, and the parameters that scale them: 32-bit features that wrap, and
// products that are floored one by one.
#ifndef EDGEMOE_NUMBERS_H
#define EDGEMOE_NUMBERS_H

#include "ap_int.h"
#include "params.h"
#include "widths.h"

namespace edgemoe {

typedef ap_int<FEATURE_BITS> feature_t;
typedef ap_uint<FEATURE_FRAC + 1> exponential_t;  // from 0 to 1 inclusive
typedef ap_int<64> wide_t;                        // a product of two features
typedef ap_uint<64> wide_uint_t;
typedef ap_uint<SHIFT_BITS> shift_t;

// Nearly everything is a feature.
constexpr int RESIDUAL_BITS = FEATURE_BITS;
constexpr int ACCUMULATOR_BITS = FEATURE_BITS;
typedef feature_t activation_t;
typedef feature_t attention_t;
typedef feature_t gate_t;
typedef feature_t residual_t;
typedef feature_t score_t;
typedef feature_t maximum_t;
typedef feature_t exponential_sum_t;
typedef feature_t probability_t;
typedef feature_t accumulator_t;

// Parameters: where their binary points are depends on the network, and the weight image tells.
typedef ap_int<WEIGHT_BITS> weight_t;
typedef ap_int<GATE_WEIGHT_BITS> gate_weight_t;
typedef ap_int<GAMMA_BITS> gamma_t;

// A product of the linear engine is (x << align) * weight >> PRODUCT_SHIFT, so that what varies with the
// network is one shifter an operand instead of one a product.
constexpr int ALIGNED_BITS = FEATURE_BITS + PRODUCT_SHIFT;
typedef ap_int<ALIGNED_BITS> aligned_t;

// One output channel: a bias that is a feature already.
struct Record {
  accumulator_t bias;
};

inline Record record_of(ap_uint<RECORD_BITS> bits) {
#pragma HLS inline
  return {feature_t(bits)};
}

// What all layers share.
struct Header {
  shift_t patch_align;  // of pixels, whose 8 bits leave room for more than features have
};

inline Header header_of(ap_uint<HEADER_BITS> bits) {
#pragma HLS inline
  return {shift_t(bits)};
}

// Scalar settings of a layer.
typedef ap_int<SETTING_BITS> LayerSettings[SETTINGS];

// Of a linear layer.
struct LinearSettings {
  shift_t align;
};

inline LinearSettings linear_settings(const LayerSettings settings, int first) {
#pragma HLS inline
  return {shift_t(settings[first])};
}

// Before any layer has loaded its own, the first setting is that of the patch embedding.
inline void settings_of_header(const Header& header, LayerSettings settings) {
#pragma HLS inline
  settings[0] = header.patch_align;
}

// The attention has no parameters.
struct AttentionSettings {};

inline AttentionSettings attention_settings(const LayerSettings, int) {
#pragma HLS inline
  return {};
}

struct NormSettings {
  shift_t shift;  // fraction bits of gamma
};

inline NormSettings norm_settings(const Header&, const LayerSettings settings, int first) {
#pragma HLS inline
  return {shift_t(settings[first])};
}

}  // namespace edgemoe

#endif
