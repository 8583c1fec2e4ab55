// Trip counts of the pipelined loops, for the test bench: synthesis does not see them.
#ifndef EDGEMOE_COUNTERS_H
#define EDGEMOE_COUNTERS_H

#ifdef EDGEMOE_COUNT

#include "params.h"

namespace edgemoe {

extern long long trip_counts[COUNT_ENGINES];

}  // namespace edgemoe

#define EDGEMOE_TICK(engine) (++edgemoe::trip_counts[edgemoe::COUNT_##engine])

#else

#define EDGEMOE_TICK(engine) ((void)0)

#endif

#endif
