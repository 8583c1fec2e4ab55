// Kernels of the stand-in, and their runs: see xrt_device.h.
#pragma once

#include <dlfcn.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <map>
#include <type_traits>
#include <utility>

#include "xrt/xrt_bo.h"

enum ert_cmd_state {  // values of ert.h
  ERT_CMD_STATE_NEW = 1,
  ERT_CMD_STATE_QUEUED = 2,
  ERT_CMD_STATE_RUNNING = 3,
  ERT_CMD_STATE_COMPLETED = 4,
  ERT_CMD_STATE_ERROR = 5,
  ERT_CMD_STATE_ABORT = 6,
  ERT_CMD_STATE_SUBMITTED = 7,
  ERT_CMD_STATE_TIMEOUT = 8,
  ERT_CMD_STATE_NORESPONSE = 9,
};

namespace xrt {

class kernel {
 public:
  enum class cu_access_mode : std::uint8_t { exclusive = 0, shared = 1, none = 2 };

  kernel(const device&, const uuid&, const std::string& name, cu_access_mode mode) {
    if (mode != cu_access_mode::exclusive)
      throw std::runtime_error("another program could run the kernel in between");
    const char* library = std::getenv("EDGEMOE_KERNEL");
    void* opened = library == nullptr ? nullptr : dlopen(library, RTLD_NOW);
    function = opened == nullptr ? nullptr : dlsym(opened, name.c_str());
    if (function == nullptr) throw std::runtime_error("No such kernel '" + name + "'");
  }

  int group_id(int argument) const { return 100 + argument; }

  void* function = nullptr;
};

class run {
 public:
  explicit run(const kernel& of) : function_(of.function) {}

  void set_arg(int index, const bo& buffer) {
    if (buffer.handle->bank != 100 + static_cast<memory_group>(index))
      throw std::runtime_error("argument " + std::to_string(index) +
                               " is not connected to the buffer's bank");
    pointers_[index] = buffer;
  }
  void set_arg(int index, bo& buffer) { set_arg(index, static_cast<const bo&>(buffer)); }
  template <typename Scalar>
  void set_arg(int index, Scalar&& value) {
    static_assert(std::is_same_v<std::decay_t<Scalar>, int>, "the kernel's scalars have 32 bits");
    scalars_[index] = value;
  }

  void start() {
    // Pointers, two scalars, and the pointer to the report.
    const std::size_t count = pointers_.size() - 1;
    for (std::size_t index = 0; index < count; ++index)
      if (pointers_.count(static_cast<int>(index)) == 0)
        throw std::runtime_error("argument " + std::to_string(index) + " was never set");
    if (scalars_.size() != 2 || scalars_.begin()->first != static_cast<int>(count) ||
        pointers_.rbegin()->first != static_cast<int>(count) + 2)
      throw std::runtime_error("arguments are missing, or in another order than the kernel's");
    dispatch(count, std::make_index_sequence<20>());
    state_ = ERT_CMD_STATE_COMPLETED;
  }

  ert_cmd_state wait(const std::chrono::milliseconds& = std::chrono::milliseconds{0}) const { return state_; }

 private:
  void* function_;
  std::map<int, bo> pointers_;
  std::map<int, int> scalars_;
  ert_cmd_state state_ = ERT_CMD_STATE_NEW;

  template <std::size_t>
  using pointer = void*;

  // The kernel's function has as many pointers as the build has ports.
  template <std::size_t... Counts>
  void dispatch(std::size_t count, std::index_sequence<Counts...>) {
    const bool called = ((count == Counts && (call(std::make_index_sequence<Counts>()), true)) || ...);
    if (!called) throw std::runtime_error("more arguments than the stand-in knows");
  }

  template <std::size_t... Index>
  void call(std::index_sequence<Index...>) {
    const int count = sizeof...(Index);
    using Function = void (*)(pointer<Index>..., int, int, void*);
    reinterpret_cast<Function>(function_)(pointers_[Index].handle->of_card()..., scalars_[count],
                                          scalars_[count + 1], pointers_[count + 2].handle->of_card());
  }
};

}  // namespace xrt
