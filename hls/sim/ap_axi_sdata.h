// What the kernels use of Vitis HLS's header of the same name, which the open ap_int headers do not include.
#ifndef AP_AXI_SDATA_H
#define AP_AXI_SDATA_H

#include <cstdint>

#include "ap_int.h"

#define AXIS_ENABLE_LAST 0b00010000

namespace hls {

template <typename T, uint8_t EnableSignals>
struct axis_data {
  static_assert(EnableSignals == AXIS_ENABLE_LAST, "the kernels' streams have no other signal");
  T data = 0;
  ap_uint<1> last = 0;
};

}  // namespace hls

#endif
