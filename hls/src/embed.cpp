#include "embed.h"

#include "counters.h"

namespace edgemoe {

void queue_patches(token_t batch, Queues& queues) {
#pragma HLS inline off
  // Tokens before the patches, such as the class token, have none: their rows are the position table's alone.
  constexpr int PREFIX = IMAGE_TOKENS - PATCHES;
  token_t token = PREFIX;
  Count<PATCHES> patch = 0;
PATCH_TOKENS:
  for (int row = 0; row < int(batch) * PATCHES; ++row) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = MAX_BATCH * PATCHES
    EDGEMOE_TICK(IMAGE);
    const QueueEntry entry = {token, 0};
    queues[0][row] = entry;
    const bool ends_image = patch == PATCHES - 1;
    patch = ends_image ? Count<PATCHES>(0) : Count<PATCHES>(patch + 1);
    token += ends_image ? PREFIX + 1 : 1;
  }
}

}  // namespace edgemoe
