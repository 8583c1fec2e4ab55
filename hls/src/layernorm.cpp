#include "layernorm.h"

#include "counters.h"
#include "norm_arithmetic.h"

namespace edgemoe {

// The last NORM_LAG + 1 tokens are under way: one gives its sums, the oldest is normalised.
constexpr int UNDER_WAY = NORM_LAG + 1;

// Iterations from a token's statistics to the first of its words that needs them.
constexpr int STATISTICS_DISTANCE = (NORM_LAG - 1) * TOKEN_WORDS + 1;

void layernorm(const ResidualMemory& residual, token_t tokens, const NormParameters& parameters,
               const NormSettings& settings, OperandMemory& operands, GateMemory& gate_input) {
#pragma HLS inline off
  static Memory<NormStatistics, UNDER_WAY> statistics;
#pragma HLS aggregate variable = statistics
#pragma HLS bind_storage variable = statistics type = ram_s2p impl = lutram
  NormSums sums = {0, 0};
  Count<UNDER_WAY> newest = 0;
  Count<UNDER_WAY> oldest = 1 % UNDER_WAY;
  const Count<MAX_TOKENS + NORM_LAG> turns = tokens + NORM_LAG;
TOKENS:
  for (Count<MAX_TOKENS + NORM_LAG> token = 0; token < turns; ++token) {
#pragma HLS loop_tripcount max = MAX_TOKENS + NORM_LAG
  WORDS:
    for (int word = 0; word < TOKEN_WORDS; ++word) {
#pragma HLS pipeline II = 1
// Time enough for the unit's latency.
#pragma HLS dependence variable = statistics inter RAW distance = STATISTICS_DISTANCE true
      EDGEMOE_TICK(NORM);
      const NormStatistics of_oldest = statistics[oldest];
      if (token < tokens) {
        const residual_word_t x = residual[unsigned(token) * TOKEN_WORDS + word];
        sums = add_channels(word == 0, sums, x);
        if (word == TOKEN_WORDS - 1) {
          statistics[newest] = statistics_of(sums, settings);
        }
      }
      if (token >= NORM_LAG) {
        const token_t ready = token - NORM_LAG;
        const int row = unsigned(ready) * TOKEN_WORDS + word;
        const residual_word_t x = residual[row];
        const NormWord parameter = parameters[word];
        activation_word_t operand;
        gate_word_t gate_operand;
        for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
          const norm_result_t normalised =
              normalise(x.lane[lane], of_oldest, parameter.gamma[lane], parameter.beta[lane], settings);
          operand.lane[lane] = norm_value(normalised, settings);
          gate_operand.lane[lane] = gate_value(normalised, settings);
        }
        operands[operand_bank(ready)][operand_row(ready, REGION_NORM + word)] = operand;
        gate_input[row] = gate_operand;
      }
      if (word == TOKEN_WORDS - 1) {
        newest = newest == UNDER_WAY - 1 ? Count<UNDER_WAY>(0) : Count<UNDER_WAY>(newest + 1);
        oldest = oldest == UNDER_WAY - 1 ? Count<UNDER_WAY>(0) : Count<UNDER_WAY>(oldest + 1);
      }
    }
  }
}

}  // namespace edgemoe
