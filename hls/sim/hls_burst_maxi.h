// A stand-in for the header of the same name that Vitis HLS brings, for C simulation with g++: as much of
// hls::burst_maxi as the accelerator uses, after UG1399, "Using Manual Burst".
//
// Requests belong to the port, which is the memory that the pointer names: copies of a port share them, as they do in
// hardware. Reading what was not requested stops the program; the test bench asks at the end what was not read.
#ifndef EDGEMOE_HLS_BURST_MAXI_H
#define EDGEMOE_HLS_BURST_MAXI_H

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>

namespace hls {

template <typename T>
class burst_maxi {
 public:
  burst_maxi(T *memory) : memory_(memory) {}

  // Ask for `length` elements from `offset` on; `read` then gives them one by one.
  void read_request(std::size_t offset, unsigned length) {
    if (length == 0) {
      fail("a request of no elements");
    }
    requests()[memory_].push_back({offset, length});
  }

  T read() {
    std::deque<Request> &waiting = requests()[memory_];
    if (waiting.empty()) {
      fail("a read that no request covers");
    }
    Request &first = waiting.front();
    const T value = memory_[first.offset++];
    if (--first.left == 0) {
      waiting.pop_front();
    }
    return value;
  }

  // Elements of all ports that were requested and not read: in hardware, the next reader would get them.
  static std::size_t unread() {
    std::size_t count = 0;
    for (const auto &port : requests()) {
      for (const Request &request : port.second) {
        count += request.left;
      }
    }
    return count;
  }

 private:
  struct Request {
    std::size_t offset;
    unsigned left;
  };

  static std::map<T *, std::deque<Request>> &requests() {
    static std::map<T *, std::deque<Request>> all;
    return all;
  }

  static void fail(const char *what) {
    std::fprintf(stderr, "hls::burst_maxi: %s\n", what);
    std::abort();
  }

  T *memory_;
};

}  // namespace hls

#endif
