#include "counters.h"

#ifdef EDGEMOE_COUNT

namespace edgemoe {

long long trip_counts[COUNT_ENGINES] = {};

}  // namespace edgemoe

#endif
