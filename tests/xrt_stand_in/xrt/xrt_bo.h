// Buffers of the stand-in: see xrt_device.h.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "xrt/xrt_device.h"

enum xclBOSyncDirection { XCL_BO_SYNC_BO_TO_DEVICE = 0, XCL_BO_SYNC_BO_FROM_DEVICE };

namespace xrt {

using memory_group = std::uint32_t;

class bo {
 public:
  struct memory {
    std::vector<std::uint64_t> host, card;  // words, for their alignment
    std::size_t size;
    memory_group bank;
    std::uint8_t* of_card() { return reinterpret_cast<std::uint8_t*>(card.data()); }
    std::uint8_t* of_host() { return reinterpret_cast<std::uint8_t*>(host.data()); }
  };

  bo() = default;
  bo(const device&, std::size_t size, memory_group bank) : handle(std::make_shared<memory>()) {
    if (size == 0) throw std::runtime_error("a buffer of no bytes");
    handle->size = size;
    handle->bank = bank;
    // Whatever the last owner left, and room behind the end for a port's last beat.
    handle->host.assign(size / 8 + 64, 0x5A5A5A5A5A5A5A5A);
    handle->card.assign(size / 8 + 64, 0xA5A5A5A5A5A5A5A5);
  }

  std::size_t size() const { return handle->size; }

  void sync(xclBOSyncDirection direction, std::size_t size, std::size_t offset) {
    if (offset + size > handle->size) throw std::runtime_error("sync beyond the end of a buffer");
    if (direction == XCL_BO_SYNC_BO_TO_DEVICE)
      std::memcpy(handle->of_card() + offset, handle->of_host() + offset, size);
    else
      std::memcpy(handle->of_host() + offset, handle->of_card() + offset, size);
  }
  void sync(xclBOSyncDirection direction) { sync(direction, size(), 0); }

  void write(const void* source) { std::memcpy(handle->of_host(), source, size()); }

  void* map() { return handle->of_host(); }
  template <typename MapType>
  MapType map() {
    return reinterpret_cast<MapType>(map());
  }

  std::shared_ptr<memory> handle;
};

}  // namespace xrt
