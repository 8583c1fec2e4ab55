// What the attention engine computes with: scores, weights, and weighted values.
#ifndef EDGEMOE_ATTENTION_ARITHMETIC_H
#define EDGEMOE_ATTENTION_ARITHMETIC_H

#include "arithmetic.h"
#include "types.h"
#include "units.h"

namespace edgemoe {

constexpr int PRODUCT_BITS = 2 * ATTENTION_BITS + log2_up(LANES) + log2_up(HEAD_WORDS);
constexpr int WEIGHTED_BITS = EXPONENTIAL_BITS + ATTENTION_BITS + log2_up(IMAGE_TOKENS) + 1;

// Of a sum of weighted values, once the sum of its weights is between a half and 1.
constexpr int ALIGNED_BITS = EXPONENTIAL_BITS + ATTENTION_BITS + 1;

// The largest exponential of a row alone is more than a half, so that its sum has its leading one here or
// above.
constexpr int LEAST_POSITION = EXPONENTIAL_FRAC - 1;

typedef ap_int<PRODUCT_BITS> Product;  // of a query and a key, as far as it is summed
const Product EMPTY_PRODUCT = 0;
typedef exponential_t attention_weight_t;  // not yet divided by the sum of its row
typedef ap_int<WEIGHTED_BITS> weighted_t;

// The single-pass softmax of a row. A score takes three cycles, each with one operation on the sum, so that
// none waits for more than the cycle before: half of the last bit that stays is added; the sum is shifted;
// the exponential is added.
struct RowSoftmax {
  maximum_t maximum;
  rounded_sum_t sum;
  sum_shift_t shift;
  exponential_t addend;
  bool starts;  // the score is the row's first
};
const RowSoftmax EMPTY_ROW = {0, 1, 0, 0, false};

// First cycle of the next step in which the sum is final; the maximum is in all of them.
constexpr int SUM_CYCLE = HEAD_WORDS + 2 > ATTENTION_STEP ? HEAD_WORDS + 2 - ATTENTION_STEP : 0;
static_assert(ATTENTION_STEP >= HEAD_WORDS, "a step reads a head");
static_assert(ATTENTION_STEP > 3, "the three cycles of a score end before those of the next begin");

// One cycle of a step; the score counts in the one with the last word of a head.
inline RowSoftmax softmax_cycle(const RowSoftmax& before, int cycle, bool first, score_t score) {
#pragma HLS inline
  const int since = cycle - (HEAD_WORDS - 1);
  const int phase = since < 0 ? since + ATTENTION_STEP : since;
  RowSoftmax row = before;
  if (phase == 0) {
    const SoftmaxRise rise = softmax_rise(first, score, before.maximum);
    row.maximum = rise.maximum;
    row.shift = rise.shift;
    row.addend = softmax_weight(rise.maximum, score);
    row.starts = first;
    row.sum = before.sum + half_of(rise.shift);
  } else if (phase == 1) {
    row.sum = before.sum >> before.shift;
  } else if (phase == 2) {
    row.sum = (before.starts ? rounded_sum_t(0) : before.sum) + before.addend;
  }
  return row;
}

inline maximum_t row_maximum(const RowSoftmax& row) {
#pragma HLS inline
  return row.maximum;
}

inline exponential_sum_t row_sum(const RowSoftmax& row) {
#pragma HLS inline
  return row.sum;
}

// One more word of a head.
inline Product add_products(int word, const Product& before, const attention_word_t& query,
                            const attention_word_t& key) {
#pragma HLS inline
  wide_t sum = 0;
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    sum += wide_t(query.lane[lane]) * wide_t(key.lane[lane]);
  }
  // A type of its own keeps the tree of additions out of the recurrence, which is this one.
  const ap_int<2 * ATTENTION_BITS + log2_up(LANES)> lanes = sum;
  return (word == 0 ? Product(0) : before) + lanes;
}

inline score_t score_of(const Product& product, const AttentionSettings& settings) {
#pragma HLS inline
  return saturate<SCORE_BITS>(round_shift(wide_t(product) << SCORE_LIFT, settings.score_shift));
}

inline attention_weight_t attention_weight(maximum_t maximum, const Inverse&, score_t score) {
#pragma HLS inline
  // Slots that hold no row yet may hold any score; of a row, no score is above its maximum.
  const bool stale = (ap_int<SCORE_BITS + 2>(maximum) << SCORE_FRAC) < score;
  return stale ? exponential_t(0) : softmax_weight(maximum, score);
}

inline weighted_t add_weighted(const weighted_t& before, attention_weight_t weight, attention_t value) {
#pragma HLS inline
  const wide_t product = wide_t(weight) * wide_t(value);
#pragma HLS bind_op variable = product op = mul impl = dsp
  return wide_t(before) + product;
}

// A finished sum, divided by the sum of the weights.
inline activation_t mixed_value(const weighted_t& weighted, const Inverse& inverse,
                                const AttentionSettings& settings) {
#pragma HLS inline
  const shift_t align = inverse.position - LEAST_POSITION;
  const shift_t shift = MANTISSA_FRAC + LEAST_POSITION + settings.attention_shift;
  const weighted_t aligned = round_shift(weighted, align);
  return saturate<ACTIVATION_BITS>(
      round_shift(mantissa_product<ALIGNED_BITS>(aligned, inverse.mantissa), shift));
}

}  // namespace edgemoe

#endif
