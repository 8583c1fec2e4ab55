// Memories of a check build: every access in a pipelined loop is recorded with its iteration.
//
// `Memory<T, N, ...>` is a plain array elsewhere. Here it is a class that begins with random bits, checks its indices,
// measures after how many iterations an element is read or written again, counts the accesses of each bank in an
// iteration, and, if asked to, shows a write to reads only as late as the pragmas allow. codegen/hls_check/instrument.py
// puts the calls of this file in place of pragmas, so that a pragma's own expressions are what is checked.
//
// Environment: EDGEMOE_SEED begins the random bits; EDGEMOE_DELAY = 1 delays writes.
#ifndef EDGEMOE_CHECKED_MEMORY_H
#define EDGEMOE_CHECKED_MEMORY_H

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ap_int.h"

namespace edgemoe {
namespace check {

// Of a dependence, between iterations of a loop.
enum Direction { RAW, WAR, WAW, ANY };
enum Partition { COMPLETE, CYCLIC, BLOCK };
constexpr long long NEVER = -1;      // the distance of a dependence that is declared false
constexpr long long INFINITE = 1LL << 60;

// What is known of one dependence pragma: least distance and occurrences, and those that break it.
struct Pragma {
  long long declared = 0;
  long long runs = 0;
  long long seen = 0;
  long long least = INFINITE;
  long long broken = 0;
};

// Accesses of a bank that no memory has the ports for.
struct Crowd {
  long long times = 0;
  long long reads = 0;
  long long writes = 0;
};

class State {
 public:
  // Number of the entry into the loop that runs, 0 outside of all; of its iteration; of the loop; its interval.
  long long entry = 0;
  long long iteration = -1;
  int loop = -1;
  int interval = 1;
  const bool delays;

  std::map<int, Pragma> pragmas;
  std::map<std::pair<int, std::string>, Crowd> crowds;           // by loop and memory
  std::map<std::pair<std::string, int>, long long> undeclared;   // by memory and loop: least RAW distance
  std::map<std::string, long long> outside;                      // accesses outside of a memory
  std::map<int, long long> unnamed;                              // pragmas of what is no Memory

  static State &get() {
    static State state;
    return state;
  }

  long long enter() { return ++entries_; }

  uint64_t random() {
    // xorshift64*, Vigna 2016.
    random_ ^= random_ >> 12;
    random_ ^= random_ << 25;
    random_ ^= random_ >> 27;
    return random_ * 0x2545F4914F6CDD1DULL;
  }

  ~State() {
    for (const auto &found : pragmas) {
      std::printf("check dependence %d %lld %lld %lld %lld %lld\n", found.first, found.second.declared, found.second.runs,
                  found.second.seen, found.second.least, found.second.broken);
    }
    for (const auto &found : crowds) {
      std::printf("check ports %d %s %lld %lld %lld\n", found.first.first, found.first.second.c_str(), found.second.times,
                  found.second.reads, found.second.writes);
    }
    for (const auto &found : undeclared) {
      std::printf("check undeclared %d %s %lld\n", found.first.second, found.first.first.c_str(), found.second);
    }
    for (const auto &found : outside) {
      std::printf("check outside %s %lld\n", found.first.c_str(), found.second);
    }
    for (const auto &found : unnamed) {
      std::printf("check unnamed %d %lld\n", found.first, found.second);
    }
  }

 private:
  State() : delays(number("EDGEMOE_DELAY", 0) != 0), random_(0x9E3779B97F4A7C15ULL * (number("EDGEMOE_SEED", 1) + 1)) {}

  static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = std::getenv(name);
    return text ? std::strtoull(text, nullptr, 10) : otherwise;
  }

  long long entries_ = 0;
  uint64_t random_;
};

// One entry into a pipelined loop, or into the nest that is flattened round it: the pipeline is empty before and after.
class Run {
 public:
  Run(int loop, int interval) : state_(State::get()), entry_(state_.entry), iteration_(state_.iteration),
                                loop_(state_.loop), interval_(state_.interval) {
    state_.entry = state_.enter();
    state_.iteration = -1;
    state_.loop = loop;
    state_.interval = interval;
  }
  ~Run() {
    state_.entry = entry_;
    state_.iteration = iteration_;
    state_.loop = loop_;
    state_.interval = interval_;
  }
  Run(const Run &) = delete;
  Run &operator=(const Run &) = delete;

 private:
  State &state_;
  const long long entry_;
  const long long iteration_;
  const int loop_;
  const int interval_;
};

inline void iterate() { ++State::get().iteration; }
inline bool begins() { return State::get().iteration == 0; }

// How one dimension is laid out.
struct Layout {
  bool partitioned = false;
  bool reshaped = false;
  Partition way = COMPLETE;
  long long factor = 0;
};

// Ports of a bank: UG1399, pragma HLS bind_storage. Without it, the tool takes a memory with two ports.
struct Ports {
  long long reads = 0;
  long long writes = 0;
  long long shared = 2;
};

template <typename T>
class Core {
 public:
  explicit Core(const std::vector<long long> &extents);

  T read(long long element) const;
  void write(long long element, const T &value);
  long long index(long long index, int dimension) const;
  long long extent(int dimension) const { return extents_[dimension]; }

  void name(const char *text) { name_ = text; }
  void lay_out(int dimension, bool reshaped, Partition way, long long factor);
  void ports(long long reads, long long writes, long long shared) { ports_ = {reads, writes, shared}; }
  void declare(int pragma, Direction direction, long long distance);

 private:
  // An element, and when it was touched last: an entry and an iteration.
  struct Cell {
    T value;
    long long write_entry = 0;
    long long write = 0;
    long long read_entry = 0;
    long long read = 0;
  };
  struct Declared {
    int pragma;
    Direction direction;
    long long distance;
  };
  struct Pending {
    long long iteration;
    T value;
  };
  struct Access {
    long long bank;
    long long word;
    bool writes;
    bool operator<(const Access &other) const {
      return bank != other.bank ? bank < other.bank : writes != other.writes ? writes < other.writes : word < other.word;
    }
    bool operator==(const Access &other) const {
      return bank == other.bank && word == other.word && writes == other.writes;
    }
  };

  void arrive() const;
  void meet(Direction direction, long long distance) const;
  void count(long long element, bool writes) const;
  void judge() const;
  long long delay() const;

  std::vector<long long> extents_;
  mutable std::vector<Cell> cells_;
  std::string name_ = "memory";
  std::vector<Layout> layout_;
  Ports ports_;
  mutable std::vector<Declared> declared_;
  mutable long long entry_ = 0;       // that `declared_`, `pending_` and `accesses_` belong to
  mutable std::map<long long, std::vector<Pending>> pending_;
  mutable std::vector<Access> accesses_;
  mutable long long counted_ = -1;    // the iteration of `accesses_`
  mutable int loop_ = -1;
  mutable int interval_ = 1;
};

}  // namespace check

// Random bits in a variable that nothing has set.
template <typename T>
typename std::enable_if<std::is_integral<T>::value>::type scramble(T &value) {
  value = static_cast<T>(check::State::get().random());
}

template <int W>
void scramble(ap_uint<W> &value) {
  value = 0;
  for (int bit = 0; bit < W; bit += 64) {
    const ap_uint<64> bits = check::State::get().random();
    value.range(bit + 63 < W ? bit + 63 : W - 1, bit) = bits;
  }
}

template <int W>
void scramble(ap_int<W> &value) {
  ap_uint<W> bits;
  scramble(bits);
  value = bits;
}

// What has members of its own has an overload of its own, which the instrumentation writes; other types are left alone.
template <typename T>
typename std::enable_if<!std::is_integral<T>::value>::type scramble(T &) {}

template <typename T, std::size_t N>
void scramble(T (&values)[N]) {
  for (T &value : values) {
    scramble(value);
  }
}

namespace check {

template <typename T>
Core<T>::Core(const std::vector<long long> &extents) : extents_(extents), layout_(extents.size()) {
  long long size = 1;
  for (const long long extent : extents) {
    size *= extent;
  }
  cells_.resize(size);
  for (Cell &cell : cells_) {
    scramble(cell.value);
  }
}

template <typename T>
long long Core<T>::index(long long index, int dimension) const {
  if (index < 0 || index >= extents_[dimension]) {
    ++State::get().outside[name_];
    return 0;
  }
  return index;
}

// Whatever belongs to another entry is over: all writes have arrived.
template <typename T>
void Core<T>::arrive() const {
  const State &state = State::get();
  if (entry_ == state.entry) {
    return;
  }
  judge();
  for (const auto &waiting : pending_) {
    cells_[waiting.first].value = waiting.second.back().value;
  }
  pending_.clear();
  declared_.clear();
  entry_ = state.entry;
  loop_ = state.loop;
  interval_ = state.interval;
}

template <typename T>
void Core<T>::declare(int pragma, Direction direction, long long distance) {
  arrive();
  for (const Declared &known : declared_) {
    if (known.pragma == pragma) {
      return;
    }
  }
  declared_.push_back({pragma, direction, distance});
  Pragma &about = State::get().pragmas[pragma];
  about.declared = distance;
  ++about.runs;
}

template <typename T>
void Core<T>::meet(Direction direction, long long distance) const {
  bool known = false;
  for (const Declared &declared : declared_) {
    if (declared.direction != direction && declared.direction != ANY) {
      continue;
    }
    known = true;
    Pragma &about = State::get().pragmas[declared.pragma];
    ++about.seen;
    about.least = std::min(about.least, distance);
    if (declared.distance == NEVER || distance < declared.distance) {
      ++about.broken;
    }
  }
  if (!known && direction == RAW) {
    auto &least = State::get().undeclared;
    const auto key = std::make_pair(name_, State::get().loop);
    const auto found = least.find(key);
    if (found == least.end() || distance < found->second) {
      least[key] = distance;
    }
  }
}

// Iterations after which a write is seen: as late as the pragmas of this loop allow.
template <typename T>
long long Core<T>::delay() const {
  long long longest = 0;
  for (const Declared &declared : declared_) {
    if (declared.direction == RAW || declared.direction == ANY) {
      longest = std::max(longest, declared.distance == NEVER ? INFINITE : declared.distance);
    }
  }
  return longest;
}

template <typename T>
T Core<T>::read(long long element) const {
  const State &state = State::get();
  arrive();
  if (state.entry == 0) {
    return cells_[element].value;
  }
  Cell &touched = cells_[element];
  if (touched.write_entry == state.entry && touched.write < state.iteration) {
    meet(RAW, state.iteration - touched.write);
  }
  touched.read_entry = state.entry;
  touched.read = state.iteration;
  count(element, false);
  const auto waiting = pending_.find(element);
  if (waiting != pending_.end()) {
    const long long arrived = state.iteration - delay();
    for (auto write = waiting->second.rbegin(); write != waiting->second.rend(); ++write) {
      // Within its own iteration, the tool keeps the order.
      if (write->iteration == state.iteration || write->iteration <= arrived) {
        return write->value;
      }
    }
  }
  return cells_[element].value;
}

template <typename T>
void Core<T>::write(long long element, const T &value) {
  const State &state = State::get();
  arrive();
  if (state.entry == 0) {
    cells_[element].value = value;
    return;
  }
  Cell &touched = cells_[element];
  if (touched.write_entry == state.entry && touched.write < state.iteration) {
    meet(WAW, state.iteration - touched.write);
  }
  if (touched.read_entry == state.entry && touched.read < state.iteration) {
    meet(WAR, state.iteration - touched.read);
  }
  touched.write_entry = state.entry;
  touched.write = state.iteration;
  count(element, true);
  const long long longest = state.delays ? delay() : 0;
  if (longest == 0) {
    cells_[element].value = value;
    return;
  }
  std::vector<Pending> &waiting = pending_[element];
  // What arrived before this iteration need not wait behind it.
  while (waiting.size() > 1 && waiting[1].iteration <= state.iteration - longest) {
    waiting.erase(waiting.begin());
  }
  if (!waiting.empty() && waiting.front().iteration <= state.iteration - longest) {
    cells_[element].value = waiting.front().value;
    waiting.erase(waiting.begin());
  }
  waiting.push_back({state.iteration, value});
}

template <typename T>
void Core<T>::lay_out(int dimension, bool reshaped, Partition way, long long factor) {
  for (std::size_t d = 0; d < extents_.size(); ++d) {
    if (dimension == 0 || dimension == int(d) + 1) {
      layout_[d].partitioned = !reshaped;
      layout_[d].reshaped = reshaped;
      layout_[d].way = way;
      layout_[d].factor = way == COMPLETE ? extents_[d] : factor;
    }
  }
}

template <typename T>
void Core<T>::count(long long element, bool writes) const {
  const State &state = State::get();
  if (counted_ != state.iteration) {
    judge();
    counted_ = state.iteration;
  }
  long long bank = 0;
  long long word = 0;
  long long words = 1;
  long long place = 1;
  for (int d = int(extents_.size()) - 1; d >= 0; --d) {
    const long long at = element % extents_[d];
    element /= extents_[d];
    const Layout &layout = layout_[d];
    long long in_bank = at;
    long long extent = extents_[d];
    if (layout.partitioned || layout.reshaped) {
      const long long size = (extents_[d] + layout.factor - 1) / layout.factor;
      const bool cyclic = layout.way == CYCLIC;
      in_bank = layout.way == COMPLETE ? 0 : cyclic ? at / layout.factor : at % size;
      extent = layout.way == COMPLETE ? 1 : size;
      if (layout.partitioned) {
        bank += place * (layout.way == COMPLETE ? at : cyclic ? at % layout.factor : at / size);
        place *= layout.factor;
      }
    }
    word += words * in_bank;
    words *= extent;
  }
  // A bank of one word is a register, which has as many ports as it needs.
  if (words > 1) {
    accesses_.push_back({bank, word, writes});
  }
}

template <typename T>
void Core<T>::judge() const {
  if (accesses_.empty()) {
    return;
  }
  std::sort(accesses_.begin(), accesses_.end());
  accesses_.erase(std::unique(accesses_.begin(), accesses_.end()), accesses_.end());
  for (std::size_t first = 0; first < accesses_.size();) {
    std::size_t next = first;
    long long reads = 0;
    long long writes = 0;
    for (; next < accesses_.size() && accesses_[next].bank == accesses_[first].bank; ++next) {
      ++(accesses_[next].writes ? writes : reads);
    }
    const long long left = std::max(0LL, reads - ports_.reads * interval_) + std::max(0LL, writes - ports_.writes * interval_);
    if (left > ports_.shared * interval_) {
      Crowd &crowd = State::get().crowds[std::make_pair(loop_, name_)];
      ++crowd.times;
      crowd.reads = std::max(crowd.reads, reads);
      crowd.writes = std::max(crowd.writes, writes);
    }
    first = next;
  }
  accesses_.clear();
}

// An element that may be read or assigned to.
template <typename T>
class Element {
 public:
  struct Made {};
  Element(Made, Core<T> &core, long long element) : core_(&core), element_(element) {}
  Element(const Element &) = default;

  operator T() const { return core_->read(element_); }
  Element &operator=(const T &value) {
    core_->write(element_, value);
    return *this;
  }
  Element &operator=(const Element &other) {
    core_->write(element_, T(other));
    return *this;
  }

 private:
  Core<T> *core_;
  long long element_;
};

// What an array gives for its first indices, and at last an element.
template <typename T, int LEFT>
class Row {
 public:
  Row(Core<T> &core, long long element, int dimension) : core_(&core), element_(element), dimension_(dimension) {}
  typename std::conditional<LEFT == 1, Element<T>, Row<T, LEFT - 1>>::type operator[](long long index) const {
    return step(index, std::integral_constant<bool, LEFT == 1>());
  }

 private:
  long long next(long long index) const {
    return element_ * core_->extent(dimension_) + core_->index(index, dimension_);
  }
  Element<T> step(long long index, std::true_type) const {
    return Element<T>(typename Element<T>::Made(), *core_, next(index));
  }
  Row<T, LEFT - 1> step(long long index, std::false_type) const {
    return Row<T, LEFT - 1>(*core_, next(index), dimension_ + 1);
  }

  Core<T> *core_;
  long long element_;
  int dimension_;
};

template <typename T, int LEFT>
class ConstRow {
 public:
  ConstRow(const Core<T> &core, long long element, int dimension) : core_(&core), element_(element), dimension_(dimension) {}
  typename std::conditional<LEFT == 1, T, ConstRow<T, LEFT - 1>>::type operator[](long long index) const {
    return step(index, std::integral_constant<bool, LEFT == 1>());
  }

 private:
  long long next(long long index) const {
    return element_ * core_->extent(dimension_) + core_->index(index, dimension_);
  }
  T step(long long index, std::true_type) const { return core_->read(next(index)); }
  ConstRow<T, LEFT - 1> step(long long index, std::false_type) const {
    return ConstRow<T, LEFT - 1>(*core_, next(index), dimension_ + 1);
  }

  const Core<T> *core_;
  long long element_;
  int dimension_;
};

template <typename T, int... EXTENTS>
class Checked {
 public:
  static constexpr int DIMENSIONS = sizeof...(EXTENTS);
  Checked() : core_({EXTENTS...}) {}

  auto operator[](long long index) -> decltype(std::declval<const Row<T, DIMENSIONS> &>()[0]) {
    return Row<T, DIMENSIONS>(core_, 0, 0)[index];
  }
  auto operator[](long long index) const -> decltype(std::declval<const ConstRow<T, DIMENSIONS> &>()[0]) {
    return ConstRow<T, DIMENSIONS>(core_, 0, 0)[index];
  }

  Core<T> &core() const { return core_; }

 private:
  mutable Core<T> core_;
};

// What stands in place of pragmas. Of plain arrays, only dependences are told.
template <typename T, int... EXTENTS>
void declare(int pragma, const Checked<T, EXTENTS...> &memory, Direction direction, long long distance) {
  memory.core().declare(pragma, direction, distance);
}
template <typename T>
void declare(int pragma, const T &, Direction, long long) {
  ++State::get().unnamed[pragma];
}

template <typename T, int... EXTENTS>
void lay_out(const Checked<T, EXTENTS...> &memory, const char *name, int dimension, bool reshaped, Partition way,
             long long factor) {
  memory.core().name(name);
  memory.core().lay_out(dimension, reshaped, way, factor);
}
template <typename T>
void lay_out(const T &, const char *, int, bool, Partition, long long) {}

template <typename T, int... EXTENTS>
void store(const Checked<T, EXTENTS...> &memory, const char *name, long long reads, long long writes, long long shared) {
  memory.core().name(name);
  memory.core().ports(reads, writes, shared);
}
template <typename T>
void store(const T &, const char *, long long, long long, long long) {}

template <typename T, int... EXTENTS>
void call_it(const Checked<T, EXTENTS...> &memory, const char *name) {
  memory.core().name(name);
}
template <typename T>
void call_it(const T &, const char *) {}

}  // namespace check

template <typename T, int... EXTENTS>
using Memory = check::Checked<T, EXTENTS...>;

}  // namespace edgemoe

#endif
