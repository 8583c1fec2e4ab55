// Queues of tokens: which tokens an engine takes, in which order.
#ifndef EDGEMOE_QUEUES_H
#define EDGEMOE_QUEUES_H

#include "types.h"

namespace edgemoe {

typedef Count<EXPERTS> expert_t;  // an expert, or how many

struct QueueEntry {
  token_t token;
  probability_t score;  // its gate score
};

typedef Memory<QueueEntry, EXPERTS, MAX_TOKENS> Queues;

}  // namespace edgemoe

#endif
