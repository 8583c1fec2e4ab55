// What the attention engine computes with: scores, weights, and weighted values.
#ifndef EDGEMOE_ATTENTION_ARITHMETIC_H
#define EDGEMOE_ATTENTION_ARITHMETIC_H

#include "arithmetic.h"
#include "types.h"
#include "units.h"

namespace edgemoe {

// Of a query and a key, as far as it is summed.
struct Product {
  feature_t unscaled;
  feature_t scaled;
};

const Product EMPTY_PRODUCT = {0, 0};

typedef feature_t attention_weight_t;
typedef feature_t weighted_t;

// The single-pass softmax of a row. Its registers go round, so that a score finds the result of the one
// before in the last of them, and has the cycles of a whole step for its multiplication.
struct RowSoftmax {
  SoftmaxPass pass[ATTENTION_STEP];
};

inline RowSoftmax empty_row() {
#pragma HLS inline
  RowSoftmax row;
  for (int place = 0; place < ATTENTION_STEP; ++place) {
#pragma HLS unroll
    row.pass[place] = EMPTY_PASS;
  }
  return row;
}
const RowSoftmax EMPTY_ROW = empty_row();

// First cycle of the next step in which the sum is final; the maximum is in all of them.
constexpr int SUM_CYCLE = 0;

// One cycle of a step; the score counts in the one with the last word of a head.
inline RowSoftmax softmax_cycle(const RowSoftmax& before, int cycle, bool first, score_t score) {
#pragma HLS inline
  const SoftmaxPass oldest = before.pass[ATTENTION_STEP - 1];
  RowSoftmax row;
  row.pass[0] = cycle == HEAD_WORDS - 1 ? softmax_step(first, score, oldest) : SoftmaxPass(oldest);
  for (int place = 1; place < ATTENTION_STEP; ++place) {
#pragma HLS unroll
    row.pass[place] = before.pass[place - 1];
  }
  return row;
}

// In the first cycle of the next step.
inline maximum_t row_maximum(const RowSoftmax& row) {
#pragma HLS inline
  return row.pass[ATTENTION_STEP - HEAD_WORDS].maximum;
}

inline exponential_sum_t row_sum(const RowSoftmax& row) {
#pragma HLS inline
  return row.pass[ATTENTION_STEP - HEAD_WORDS].sum;
}

// One more word of a head.
inline Product add_products(int word, const Product& before, const attention_word_t& query,
                            const attention_word_t& key) {
#pragma HLS inline
  // Where a word holds whole blocks of dimensions, nothing unscaled is left over from the word before.
  constexpr bool WHOLE_BLOCKS = LANES % SCALED_DIMENSIONS == 0;
  feature_t unscaled = WHOLE_BLOCKS || word == 0 ? feature_t(0) : before.unscaled;
  feature_t scaled = 0;
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    unscaled += floor_product(query.lane[lane], key.lane[lane]);
    const int dimension = word * LANES + lane;
    if (dimension % SCALED_DIMENSIONS == SCALED_DIMENSIONS - 1 || dimension == HEAD_WORDS * LANES - 1) {
      scaled += (unscaled * SCALE_MULTIPLIER) >> SCALE_SHIFT;
      unscaled = 0;
    }
  }
  // One addition in the recurrence: features wrap, so that the order of additions does not matter.
  const Product product = {unscaled, (word == 0 ? feature_t(0) : before.scaled) + scaled};
  return product;
}

inline score_t score_of(const Product& product, const AttentionSettings&) {
#pragma HLS inline
  return product.scaled;
}

inline attention_weight_t attention_weight(maximum_t maximum, const Inverse& inverse, score_t score) {
#pragma HLS inline
  // Slots that hold no row yet may hold any score; of a row, no score is above its maximum.
  const exponential_t exponential = score > maximum ? exponential_t(0) : softmax_weight(maximum, score);
  return floor_product(exponential, inverse);
}

inline weighted_t add_weighted(const weighted_t& before, attention_weight_t weight, attention_t value) {
#pragma HLS inline
  return before + floor_product(value, weight);
}

// The weights are divided by their sum already.
inline activation_t mixed_value(const weighted_t& weighted, const Inverse&, const AttentionSettings&) {
#pragma HLS inline
  return weighted;
}

}  // namespace edgemoe

#endif
