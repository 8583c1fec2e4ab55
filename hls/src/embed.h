// Patch embedding: which tokens the patches become.
#ifndef EDGEMOE_EMBED_H
#define EDGEMOE_EMBED_H

#include "queues.h"
#include "types.h"

namespace edgemoe {

// The tokens of a batch that have a patch, in order, as queue 0.
void queue_patches(token_t batch, Queues& queues);

}  // namespace edgemoe

#endif
