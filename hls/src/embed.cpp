#include "embed.h"

#include "counters.h"

namespace edgemoe {

void queue_patches(token_t batch, Queues& queues) {
#pragma HLS inline off
  token_t row = 0;
  token_t image_token = 0;
  // Tokens before the patches, such as the class token, have none: their rows are the position table's alone.
PATCH_IMAGES:
  for (token_t image = 0; image < batch; ++image) {
#pragma HLS loop_tripcount max = MAX_BATCH
  PATCH_TOKENS:
    for (int token = IMAGE_TOKENS - PATCHES; token < IMAGE_TOKENS; ++token) {
#pragma HLS pipeline II = 1
      EDGEMOE_TICK(IMAGE);
      const QueueEntry entry = {token_t(image_token + token), 0};
      queues[0][row] = entry;
      ++row;
    }
    image_token += IMAGE_TOKENS;
  }
}

}  // namespace edgemoe
