#include "gather.h"

#include "counters.h"

namespace edgemoe {

void gather(const Queues& queues, expert_t expert, token_t length, OperandMemory& operands) {
#pragma HLS inline off
GATHER_TOKENS:
  for (token_t row = 0; row < length; ++row) {
#pragma HLS loop_tripcount max = MAX_TOKENS
  GATHER_WORDS:
    for (int word = 0; word < TOKEN_WORDS; ++word) {
#pragma HLS pipeline II = 1
// Read from one region, written to another.
#pragma HLS dependence variable = operands inter RAW false
      EDGEMOE_TICK(GATHER);
      const QueueEntry entry = queues[expert][row];
      const activation_word_t x =
          operands[operand_bank(entry.token)][operand_row(entry.token, REGION_NORM + word)];
      operands[operand_bank(row)][operand_row(row, REGION_GATHERED + word)] = x;
    }
  }
}

}  // namespace edgemoe
