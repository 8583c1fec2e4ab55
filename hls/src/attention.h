// Reordered attention: ATTENTION_ROWS query rows share each key, and their scores stay on chip.
#ifndef EDGEMOE_ATTENTION_H
#define EDGEMOE_ATTENTION_H

#include "types.h"

namespace edgemoe {

// Attention of one image whose first token is `first_token`, into the mixed region of the operand memory.
void attention(const HeadMemory& q, const HeadMemory& k, const HeadMemory& v, token_t first_token,
               const AttentionSettings& settings, OperandMemory& operands);

}  // namespace edgemoe

#endif
