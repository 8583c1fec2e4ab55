// Words, on-chip memories and counters.
#ifndef EDGEMOE_TYPES_H
#define EDGEMOE_TYPES_H

#include <type_traits>

#include "ap_int.h"
#include "counts.h"
#include "hls_burst_maxi.h"
#include "numbers.h"
#include "params.h"

// Loop labels are for the reports of the synthesis tool; a C++ compiler need not mind that nothing jumps to
// them.
#pragma GCC diagnostic ignored "-Wunused-label"

#ifdef EDGEMOE_CHECK
// Memories that check their accesses, for a test build: see codegen/hls_check.
#include "checked_memory.h"
#endif

namespace edgemoe {

// A signed number of BITS bits that never overflows. Simulation takes a native type, which is faster and
// gives the same.
#ifdef __SYNTHESIS__
template <int BITS>
using exact_t = ap_int<BITS>;
#else
template <int BITS>
using exact_t = typename std::enable_if<(BITS < 64), long long>::type;
#endif

typedef Count<MAX_TOKENS> token_t;        // a token, a row of a queue, or how many of them
typedef Count<WEIGHT_ROWS> weight_row_t;  // a row of half of the weight buffer, or operand words of a layer
typedef Count<ROW_WORDS> row_word_t;      // a word of a token's row in the operand memory
typedef Count<TILE_ROWS * ROW_WORDS> operand_row_t;
typedef Count<(MAX_BLOCKS + 1) * PARTS> out_word_t;  // a word of a layer's results, or how many
typedef Count<MAX_BLOCKS> block_t;                   // a block of outputs, or how many

// An array on chip. Elements are read and written whole.
#ifndef EDGEMOE_CHECK
template <typename T, int SIZE, int... SIZES>
struct MemoryOf {
  typedef typename MemoryOf<T, SIZES...>::type type[SIZE];
};

template <typename T, int SIZE>
struct MemoryOf<T, SIZE> {
  typedef T type[SIZE];
};

template <typename T, int... SIZES>
using Memory = typename MemoryOf<T, SIZES...>::type;
#endif

// LANES channels, read or written together.
template <typename T>
struct Word {
  T lane[LANES];
};

typedef Word<activation_t> activation_word_t;
typedef Word<attention_t> attention_word_t;
typedef Word<gate_t> gate_word_t;
typedef Word<residual_t> residual_word_t;

template <typename T>
Word<T> zero_word() {
#pragma HLS inline
  Word<T> word;
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    word.lane[lane] = 0;
  }
  return word;
}

// A memory port, and where a beat lies behind the weight ports.
typedef ap_uint<AXI_BITS> axi_word_t;
typedef hls::burst_maxi<axi_word_t> WeightPort;
typedef int beat_index_t;

// What all weight ports deliver in one cycle.
struct Beat {
  axi_word_t part[WEIGHT_PORTS];

  // Field number `index` of BITS bits, counted through all ports.
  template <int BITS>
  ap_uint<BITS> field(int index) const {
#pragma HLS inline
    constexpr int PER_PORT = AXI_BITS / BITS;
    const int low = index % PER_PORT * BITS;
    return part[index / PER_PORT].range(low + BITS - 1, low);
  }

  // A signed number of BITS bits in a field of STORED bits.
  template <int BITS, int STORED>
  ap_int<BITS> signed_field(int index) const {
#pragma HLS inline
    return ap_int<BITS>(field<STORED>(index));
  }
};

// The weights of one beat, and those that one operand word meets: output after output, lane after lane.
constexpr int WEIGHTS_PER_BEAT = BEAT_BITS / STORED_WEIGHT_BITS;
struct WeightBeat {
  weight_t weight[WEIGHTS_PER_BEAT];
};
struct WeightRow {
  WeightBeat beat[WORD_BEATS];
};

inline weight_t weight_of(const WeightRow& row, int output, int lane) {
#pragma HLS inline
  const int position = output * LANES + lane;
  return row.beat[position / WEIGHTS_PER_BEAT].weight[position % WEIGHTS_PER_BEAT];
}

// Half of the weight buffer: a row of weights for every block and operand word, and a record for every
// output.
typedef Memory<WeightBeat, WEIGHT_ROWS, WORD_BEATS> WeightMemory;
typedef Memory<Record, MAX_GROUP, OUTPUTS> RecordMemory;

// Tokens of a batch, banked so that the linear engine reads TOKEN_TILE of them at once.
typedef Memory<activation_word_t, TOKEN_TILE, TILE_ROWS * ROW_WORDS> OperandMemory;
typedef Memory<residual_word_t, MAX_TOKENS * TOKEN_WORDS> ResidualMemory;
typedef Memory<attention_word_t, MAX_TOKENS * MIXED_WORDS> HeadMemory;
typedef Memory<gate_word_t, MAX_TOKENS * TOKEN_WORDS> GateMemory;

// Bank of a token in the operand memory, and row of one of its words there.
typedef Count<TOKEN_TILE - 1> bank_t;

inline bank_t operand_bank(token_t token) {
#pragma HLS inline
  return unsigned(token) % TOKEN_TILE;
}

inline operand_row_t operand_row(token_t token, row_word_t word) {
#pragma HLS inline
  return unsigned(token) / TOKEN_TILE * ROW_WORDS + unsigned(word);
}

}  // namespace edgemoe

#endif
