// Unsigned numbers as narrow as their largest value allows: hardware pays for every bit of a counter or an
// index.
#ifndef EDGEMOE_COUNTS_H
#define EDGEMOE_COUNTS_H

#include "ap_int.h"

namespace edgemoe {

// Bits of an unsigned number from 0 to `largest`.
constexpr int bits_for(int largest) { return largest < 2 ? 1 : 1 + bits_for(largest / 2); }

// Bits that a sum of so many terms has more than each of them.
constexpr int log2_up(int terms) { return terms < 2 ? 0 : 1 + log2_up((terms + 1) / 2); }

template <int LARGEST>
using Count = ap_uint<bits_for(LARGEST)>;

}  // namespace edgemoe

#endif
