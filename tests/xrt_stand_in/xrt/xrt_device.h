// Stand-in for a card behind XRT's native C++ interface, as far as examples/xrt_host uses it. Names and
// signatures are those of XRT's own headers (xrt_device.h, xrt_bo.h, xrt_kernel.h, ert.h); what they do is
// ours:
//
// - memory of the card is apart from the computer's, and only `sync` carries one over the other;
// - each argument of the kernel has a bank of its own, and a buffer of another bank is refused;
// - what the kernel's arguments are set to is kept, as in its registers, and an argument that never was stops
// a start;
// - a start calls the compiled kernel, a shared library named by the variable EDGEMOE_KERNEL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>

namespace xrt {

class uuid {
 public:
  std::string path;
};

class device {
 public:
  explicit device(unsigned int number) {
    if (number != 0) throw std::runtime_error("No such device with index '" + std::to_string(number) + "'");
  }

  uuid load_xclbin(const std::string& path) {
    if (!std::ifstream(path)) throw std::runtime_error("Failed to open xclbin file '" + path + "'");
    return uuid{path};
  }
};

}  // namespace xrt
