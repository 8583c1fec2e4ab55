// Router: logits, single-pass softmax, top-k, and a queue of tokens for every expert.
#ifndef EDGEMOE_ROUTER_H
#define EDGEMOE_ROUTER_H

#include "queues.h"
#include "types.h"
#include "unpack.h"

namespace edgemoe {

// The best logits of a token, best first, and whose they are.
struct Best {
  score_t logit[TOP_K];
  expert_t expert[TOP_K];
};
typedef Memory<Best, MAX_TOKENS> Choices;

// The queues of one MoE layer.
struct Routing {
  token_t lengths[EXPERTS];  // tokens in each expert's queue
  Queues queues;
  expert_t active[EXPERTS];  // experts that have any token, in ascending order
  expert_t active_count;
};

// Route tokens 0 to tokens - 1; `best` is what each of them chose.
void choose_experts(const GateMemory& gate_input, token_t tokens, const GateWeights& weights,
                    const GateRecords records, const LinearSettings& settings, Choices& best,
                    Routing& routing);

// The same for those who need but the queues.
void router(const GateMemory& gate_input, token_t tokens, const GateWeights& weights,
            const GateRecords records, const LinearSettings& settings, Routing& routing);

}  // namespace edgemoe

#endif
