// The tokens of an expert, side by side.
#ifndef EDGEMOE_GATHER_H
#define EDGEMOE_GATHER_H

#include "queues.h"
#include "types.h"

namespace edgemoe {

// Normalised tokens in the order of a queue of so many, so that the linear engine finds them in neighbouring
// banks.
void gather(const Queues& queues, expert_t expert, token_t length, OperandMemory& operands);

}  // namespace edgemoe

#endif
