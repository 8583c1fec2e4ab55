// The beats of the weight image, taken apart as they come in.
#ifndef EDGEMOE_UNPACK_H
#define EDGEMOE_UNPACK_H

#include "types.h"

namespace edgemoe {

// gamma and beta of LANES channels.
struct NormWord {
  gamma_t gamma[LANES];
  accumulator_t beta[LANES];
};
typedef Memory<NormWord, TOKEN_WORDS> NormParameters;

// The gate weights that one word of a token meets: for some experts at once.
struct GateRow {
  gate_weight_t weight[ROUTER_LANES][LANES];
};
typedef Memory<GateRow, GATE_GROUPS, TOKEN_WORDS> GateWeights;
typedef Record GateRecords[GATE_GROUPS * ROUTER_LANES];

// How far a group of blocks has come in: for each block its records, then the weights that meet each operand
// word.
struct GroupPlace {
  Count<MAX_GROUP> block;
  weight_row_t row;
  Count<WORD_BEATS> part;
  Count<RECORD_BEATS + WEIGHT_ROWS * WORD_BEATS> beat_in_block;
};

inline void take_group_beat(const Beat& beat, int block_beats, GroupPlace& place, WeightMemory& weights,
                            RecordMemory& records) {
#pragma HLS inline
  constexpr int RECORDS_PER_BEAT = BEAT_BITS / RECORD_BITS;
  if (place.beat_in_block < RECORD_BEATS) {
    // Every output looks whether this beat holds its record, so that each bank has an address of its own.
    for (int output = 0; output < OUTPUTS; ++output) {
#pragma HLS unroll
      if (output / RECORDS_PER_BEAT == place.beat_in_block) {
        records[place.block][output] = record_of(beat.field<RECORD_BITS>(output % RECORDS_PER_BEAT));
      }
    }
  } else {
    WeightBeat word;
    for (int i = 0; i < WEIGHTS_PER_BEAT; ++i) {
#pragma HLS unroll
      word.weight[i] = beat.signed_field<WEIGHT_BITS, STORED_WEIGHT_BITS>(i);
    }
    weights[place.row][place.part] = word;
    if (place.part == WORD_BEATS - 1) {
      place.part = 0;
      ++place.row;
    } else {
      ++place.part;
    }
  }
  if (place.beat_in_block == block_beats - 1) {
    place.beat_in_block = 0;
    ++place.block;
  } else {
    ++place.beat_in_block;
  }
}

// How far the parameters of a norm have come in.
struct NormPlace {
  Count<TOKEN_WORDS> word;
  Count<NORM_WORD_BEATS> part;
  NormWord values;  // as far as they are there
};

inline void take_norm_beat(const Beat& beat, NormPlace& place, NormParameters& norm) {
#pragma HLS inline
  constexpr int FIELDS_PER_BEAT = BEAT_BITS / RECORD_BITS;
  // gamma and beta take turns, a field each: a narrow beat holds but one of them.
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    const int gamma = 2 * lane;
    const int beta = gamma + 1;
    if (gamma / FIELDS_PER_BEAT == place.part) {
      place.values.gamma[lane] = beat.signed_field<GAMMA_BITS, RECORD_BITS>(gamma % FIELDS_PER_BEAT);
    }
    if (beta / FIELDS_PER_BEAT == place.part) {
      place.values.beta[lane] = beat.signed_field<ACCUMULATOR_BITS, RECORD_BITS>(beta % FIELDS_PER_BEAT);
    }
  }
  if (place.part == NORM_WORD_BEATS - 1) {
    norm[place.word] = place.values;
    place.part = 0;
    ++place.word;
  } else {
    ++place.part;
  }
}

// How far a gate has come in: its records, then the weights, group after group and word after word.
struct GatePlace {
  Count<GATE_RECORD_BEATS> record_beat;
  Count<GATE_GROUPS> group;
  Count<TOKEN_WORDS> word;
  Count<GATE_WORD_BEATS> part;
  GateRow values;  // as far as they are there
};

inline void take_gate_beat(const Beat& beat, GatePlace& place, GateWeights& weights, GateRecords records) {
#pragma HLS inline
  constexpr int RECORDS_PER_BEAT = BEAT_BITS / RECORD_BITS;
  constexpr int GATES_PER_BEAT = BEAT_BITS / STORED_GATE_BITS;
  if (place.record_beat < GATE_RECORD_BEATS) {
    for (int expert = 0; expert < GATE_GROUPS * ROUTER_LANES; ++expert) {
#pragma HLS unroll
      if (expert / RECORDS_PER_BEAT == place.record_beat) {
        records[expert] = record_of(beat.field<RECORD_BITS>(expert % RECORDS_PER_BEAT));
      }
    }
    ++place.record_beat;
    return;
  }
  for (int position = 0; position < ROUTER_LANES * LANES; ++position) {
#pragma HLS unroll
    if (position / GATES_PER_BEAT == place.part) {
      place.values.weight[position / LANES][position % LANES] =
          beat.signed_field<GATE_WEIGHT_BITS, STORED_GATE_BITS>(position % GATES_PER_BEAT);
    }
  }
  if (place.part == GATE_WORD_BEATS - 1) {
    weights[place.group][place.word] = place.values;
    place.part = 0;
    if (place.word == TOKEN_WORDS - 1) {
      place.word = 0;
      ++place.group;
    } else {
      ++place.word;
    }
  } else {
    ++place.part;
  }
}

}  // namespace edgemoe

#endif
