// Test of the function units, for the test bench: exponential, GELU, reciprocal and square root.
#ifndef EDGEMOE_UNITS_TEST_H
#define EDGEMOE_UNITS_TEST_H

#include <vector>

#include "units.h"

namespace edgemoe {

// `read` gives the values of a file, `compare` takes the name of a unit, its results and the expected ones.
template <typename Read, typename Compare>
void test_units(Read read, Compare compare) {
  std::vector<long long> exp_got, gelu_got, reciprocal_got, sqrt_got;
  for (const long long value : read("exp_in")) exp_got.push_back(exp_unit(value));
  for (const long long value : read("activation_in")) gelu_got.push_back(gelu_unit(value));
  for (const long long value : read("feature_in")) {
    reciprocal_got.push_back(reciprocal_unit(value));
    sqrt_got.push_back(sqrt_unit(value));
  }
  compare("exp", exp_got, read("exp_out"));
  compare("gelu", gelu_got, read("activation_out"));
  compare("reciprocal", reciprocal_got, read("reciprocal_out"));
  compare("sqrt", sqrt_got, read("sqrt_out"));
}

}  // namespace edgemoe

#endif
