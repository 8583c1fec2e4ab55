// LayerNorm.
#ifndef EDGEMOE_LAYERNORM_H
#define EDGEMOE_LAYERNORM_H

#include "types.h"
#include "unpack.h"

namespace edgemoe {

// Normalise tokens 0 to tokens - 1: operands for the linear engine, and for the router with more of their
// fraction.
void layernorm(const ResidualMemory& residual, token_t tokens, const NormParameters& parameters,
               const NormSettings& settings, OperandMemory& operands, GateMemory& gate_input);

}  // namespace edgemoe

#endif
