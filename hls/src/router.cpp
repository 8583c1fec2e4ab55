#include "router.h"

#include "counters.h"
#include "router_arithmetic.h"

namespace edgemoe {

typedef Memory<score_t, EXPERTS, MAX_TOKENS> Logits;

// Strictly greater: of equal logits, the expert that came first stays in front.
static Best insert(bool first, score_t logit, expert_t expert, const Best& before) {
#pragma HLS inline
  Best after;
  bool placed = false;
  for (int rank = 0; rank < TOP_K; ++rank) {
#pragma HLS unroll
    const bool empty =
        first ? true : rank >= expert;  // experts come in ascending order: so many ranks are taken
    const bool here = empty || logit > before.logit[rank];
    if (placed) {
      after.logit[rank] = before.logit[rank - 1];
      after.expert[rank] = before.expert[rank - 1];
    } else {
      after.logit[rank] = here ? logit : before.logit[rank];
      after.expert[rank] = here ? expert : before.expert[rank];
    }
    placed = placed || here;
  }
  return after;
}

static void gate_logits(const GateMemory& gate_input, token_t tokens, const GateWeights& weights,
                        const GateRecords records, const LinearSettings& settings, Logits& logits) {
#pragma HLS inline off
  accumulator_t sums[ROUTER_LANES];
#pragma HLS array_partition variable = sums complete
GATE_GROUPS_LOOP:
  for (int group = 0; group < GATE_GROUPS; ++group) {
  GATE_TOKENS:
    for (token_t token = 0; token < tokens; ++token) {
#pragma HLS loop_tripcount max = MAX_TOKENS
    GATE_WORDS:
      for (int word = 0; word < TOKEN_WORDS; ++word) {
#pragma HLS pipeline II = 1
        EDGEMOE_TICK(ROUTER);
        const gate_word_t x = gate_input[unsigned(token) * TOKEN_WORDS + word];
        const GateRow row = weights[group][word];
        for (int i = 0; i < ROUTER_LANES; ++i) {
#pragma HLS unroll
          const int expert = group * ROUTER_LANES + i;
          const accumulator_t bias = records[expert].bias;
          const accumulator_t before = word == 0 ? bias : accumulator_t(sums[i]);
          const accumulator_t sum = before + gate_products(x, row.weight[i], settings);
          sums[i] = sum;
          if (word == TOKEN_WORDS - 1 && expert < EXPERTS) {
            logits[expert][token] = logit_of(sum, records[expert]);
          }
        }
      }
    }
  }
}

void choose_experts(const GateMemory& gate_input, token_t tokens, const GateWeights& weights,
                    const GateRecords records, const LinearSettings& settings, Choices& best,
                    Routing& routing) {
#pragma HLS inline
  static Logits logits;
  static Memory<SoftmaxPass, MAX_TOKENS> pass;
  static Memory<Divisor, MAX_TOKENS> divisor;
#pragma HLS array_partition variable = logits cyclic factor = ROUTER_LANES dim = 1
#pragma HLS aggregate variable = pass
#pragma HLS aggregate variable = divisor
  gate_logits(gate_input, tokens, weights, records, settings, logits);

  // Experts outside, tokens inside: nothing that an iteration needs was made by one before it. The loops stay
  // two, because only the inner one is free of such waits.
CHOOSE_EXPERTS:
  for (int expert = 0; expert < EXPERTS; ++expert) {
  CHOOSE_TOKENS:
    for (token_t token = 0; token < tokens; ++token) {
#pragma HLS loop_tripcount max = MAX_TOKENS
#pragma HLS loop_flatten off
#pragma HLS pipeline II = 1
      EDGEMOE_TICK(ROUTER);
      const score_t logit = logits[expert][token];
      const Best before = best[token];
      best[token] = insert(expert == 0, logit, expert, before);
      if (!OVER_SELECTED) {
        const SoftmaxPass pass_before = pass[token];
        pass[token] = softmax_step(expert == 0, logit, pass_before);
      }
    }
  }
  if (OVER_SELECTED) {
  SELECTED_RANKS:
    for (int rank = 0; rank < TOP_K; ++rank) {
    SELECTED_TOKENS:
      for (token_t token = 0; token < tokens; ++token) {
#pragma HLS loop_tripcount max = MAX_TOKENS
#pragma HLS loop_flatten off
#pragma HLS pipeline II = 1
        EDGEMOE_TICK(ROUTER);
        const Best chosen = best[token];
        const SoftmaxPass pass_before = pass[token];
        pass[token] = softmax_step(rank == 0, chosen.logit[rank], pass_before);
      }
    }
  }
FIND_DIVISORS:
  for (token_t token = 0; token < tokens; ++token) {
#pragma HLS loop_tripcount max = MAX_TOKENS
#pragma HLS pipeline II = 1
    EDGEMOE_TICK(ROUTER);
    const SoftmaxPass found = pass[token];
    divisor[token] = divisor_of(found.sum);
  }

  token_t lengths[EXPERTS];
#pragma HLS array_partition variable = lengths complete
CLEAR_QUEUES:
  for (int expert = 0; expert < EXPERTS; ++expert) {
#pragma HLS unroll
    lengths[expert] = 0;
  }
FILL_QUEUES:
  for (token_t token = 0; token < tokens; ++token) {
#pragma HLS loop_tripcount max = MAX_TOKENS
  FILL_RANKS:
    for (int rank = 0; rank < TOP_K; ++rank) {
#pragma HLS pipeline II = 1
      EDGEMOE_TICK(ROUTER);
      const Best chosen = best[token];
      const SoftmaxPass found = pass[token];
      const Divisor inverse = divisor[token];
      const expert_t expert = chosen.expert[rank];
      const exponential_t exponential = softmax_weight(found.maximum, chosen.logit[rank]);
      const token_t length = lengths[expert];
      const QueueEntry entry = {token, gate_score(exponential, inverse)};
      routing.queues[expert][length] = entry;
      lengths[expert] = length + 1;
    }
  }
  routing.active_count = 0;
FIND_ACTIVE:
  for (int expert = 0; expert < EXPERTS; ++expert) {
#pragma HLS pipeline II = 1
    EDGEMOE_TICK(ROUTER);
    routing.lengths[expert] = lengths[expert];
    if (lengths[expert] > 0) {
      routing.active[routing.active_count] = expert;
      ++routing.active_count;
    }
  }
}

void router(const GateMemory& gate_input, token_t tokens, const GateWeights& weights,
            const GateRecords records, const LinearSettings& settings, Routing& routing) {
#pragma HLS inline off
  static Choices best;
#pragma HLS aggregate variable = best
  choose_experts(gate_input, tokens, weights, records, settings, best, routing);
}

}  // namespace edgemoe
