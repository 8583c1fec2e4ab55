// Dot products of the linear engine on words of extremes, against sums of plain products. Prints how many it compared.
#include <cstdio>

#include "linear_arithmetic.h"

using namespace edgemoe;

namespace {

constexpr int LEAST_WEIGHT = -(1 << (WEIGHT_BITS - 1));
constexpr int MOST_WEIGHT = (1 << (WEIGHT_BITS - 1)) - 1;
constexpr int LEAST_X = -(1 << (ACTIVATION_BITS - 1));
constexpr int MOST_X = (1 << (ACTIVATION_BITS - 1)) - 1;

unsigned state = 1;

// One of two values, or any between them.
int drawn(int least, int most, bool extremes) {
  state = state * 1664525u + 1013904223u;
  const unsigned bits = state >> 8;
  return extremes ? (bits & 1 ? most : least) : least + int(bits % unsigned(most - least + 1));
}

int compare(const int x[LANES], const int weights[OUTPUTS][LANES]) {
  activation_word_t word;
  WeightRow row;
  for (int position = 0; position < WORD_BEATS * WEIGHTS_PER_BEAT; ++position) {
    row.beat[position / WEIGHTS_PER_BEAT].weight[position % WEIGHTS_PER_BEAT] = 0;
  }
  for (int lane = 0; lane < LANES; ++lane) {
    word.lane[lane] = x[lane];
    for (int o = 0; o < OUTPUTS; ++o) {
      const int position = o * LANES + lane;
      row.beat[position / WEIGHTS_PER_BEAT].weight[position % WEIGHTS_PER_BEAT] = weights[o][lane];
    }
  }
  const Dots dots = multiply(word, row, LinearSettings());
  for (int o = 0; o < OUTPUTS; ++o) {
    long long expected = 0;
    for (int lane = 0; lane < LANES; ++lane) expected += static_cast<long long>(x[lane]) * weights[o][lane];
    if (dots.of[o] != expected) {
      std::printf("output %d: got %lld, expected %lld\n", o, static_cast<long long>(dots.of[o]), expected);
      return 1;
    }
  }
  return 0;
}

}  // namespace

int main() {
  int x[LANES];
  int weights[OUTPUTS][LANES];
  int compared = 0;
  // All lanes alike: the largest sums of both signs, below and above.
  const int xs[] = {LEAST_X, MOST_X, 0, -1};
  const int ws[] = {LEAST_WEIGHT, MOST_WEIGHT, 0, -1};
  for (int value : xs) {
    for (int lower : ws) {
      for (int upper : ws) {
        for (int lane = 0; lane < LANES; ++lane) {
          x[lane] = value;
          for (int o = 0; o < OUTPUTS; ++o) weights[o][lane] = o % 2 ? upper : lower;
        }
        if (compare(x, weights)) return 1;
        ++compared;
      }
    }
  }
  for (int round = 0; round < 4000; ++round) {
    for (int lane = 0; lane < LANES; ++lane) {
      x[lane] = drawn(LEAST_X, MOST_X, round % 2 == 0);
      for (int o = 0; o < OUTPUTS; ++o) weights[o][lane] = drawn(LEAST_WEIGHT, MOST_WEIGHT, round % 2 == 0);
    }
    if (compare(x, weights)) return 1;
    ++compared;
  }
  std::printf("%d words, chains of %d\n", compared, CHAIN);
  return 0;
}
