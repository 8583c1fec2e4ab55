// The board's memory behind the AXI4 ports of a Verilated module: latency, bandwidth, random stalls, and a
// judge of every access. One call of `drive` before a cycle sets what the memory says; one of `sample`, once
// the module has answered and before the clock rises, takes what passed. Nothing is allocated in a cycle.
#pragma once

#include <array>
#include <cinttypes>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgemoe {

// A rule that the module broke, or a run that does not end.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] __attribute__((format(printf, 1, 2))) inline void violated(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Violation(text);
}

// Stalled and free cycles in runs of random lengths; none is stalled where the longest run is 0.
class Stalls {
 public:
  void seed(uint64_t seed, unsigned longest) {
    state_ = (seed + 1) * 0x9E3779B97F4A7C15u;
    longest_ = longest;
    left_ = 0;
    stalled_ = false;
  }

  bool now() {
    if (longest_ == 0) return false;
    if (left_ == 0) {
      stalled_ = !stalled_;
      left_ = 1 + below(stalled_ ? longest_ : FREE);
    }
    --left_;
    return stalled_;
  }

 private:
  static constexpr unsigned FREE = 6;

  // xorshift64* (Vigna 2016).
  unsigned below(unsigned limit) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return unsigned((state_ * 0x2545F4914F6CDD1Du >> 32) * limit >> 32);
  }

  uint64_t state_ = 1;
  unsigned longest_ = 0;
  unsigned left_ = 0;
  bool stalled_ = false;
};

// Bytes that a call may touch, and by which ports.
struct Region {
  uint64_t address;
  std::vector<uint8_t> bytes;
  uint64_t ports;  // a bit for each
};

struct Settings {
  uint64_t latency = 80;   // cycles from a request to its first beat, or from the last datum to the response
  uint64_t bandwidth = 0;  // of all ports together, thousandths of a byte in a cycle; 0: no limit
  unsigned outstanding = 32;  // bursts that a port's side of the memory takes before it answers the first
};

struct Burst {
  uint8_t* data = nullptr;
  uint64_t ready = 0;  // the first cycle in which a beat or a response may come
  unsigned beats = 0;  // that are left
};

// Bursts in their order: a ring of fixed size.
class Bursts {
 public:
  static constexpr unsigned CAPACITY = 64;
  bool empty() const { return count_ == 0; }
  unsigned count() const { return count_; }
  Burst& front() { return ring_[first_]; }
  void push(const Burst& burst) { ring_[(first_ + count_++) % CAPACITY] = burst; }
  void pop() {
    first_ = (first_ + 1) % CAPACITY;
    --count_;
  }
  void clear() { first_ = count_ = 0; }

 private:
  std::array<Burst, CAPACITY> ring_;
  unsigned first_ = 0;
  unsigned count_ = 0;
};

// One channel of addresses, whether of reads or of writes.
struct AddressSignals {
  uint64_t* address;
  uint8_t *length, *size, *burst, *valid, *ready;
};

struct ReadSignals {
  AddressSignals request;
  uint8_t *data, *response, *last, *valid, *ready;
  unsigned bytes;  // of a beat
};

struct WriteSignals {
  AddressSignals request;
  uint8_t *data, *strobe, *last, *valid, *ready;
  uint8_t *response, *response_valid, *response_ready;
  unsigned bytes;
};

// What reads and writes have in common: who asks for what.
class Port {
 public:
  Port(std::string name, unsigned number, const char* what, const AddressSignals& request, unsigned bytes)
      : name_(std::move(name)), number_(number), what_(what), request_(request), bytes_(bytes) {}

  const std::string& name() const { return name_; }
  unsigned number() const { return number_; }
  unsigned bytes() const { return bytes_; }
  uint64_t beats() const { return beats_; }

 protected:
  // Whether a request passes in this cycle; `burst` is what it asks for.
  bool requested(uint64_t cycle, std::deque<Region>& regions, Burst& burst) {
    const bool valid = *request_.valid;
    if (offered_) {
      if (!valid)
        violated("%s: took back a %s address before it was taken, cycle %" PRIu64, name_.c_str(), what_,
                 cycle);
      if (*request_.address != address_ || *request_.length != length_)
        violated("%s: changed a %s address before it was taken, cycle %" PRIu64, name_.c_str(), what_, cycle);
    }
    offered_ = valid && !*request_.ready;
    address_ = *request_.address;
    length_ = *request_.length;
    if (!valid || !*request_.ready) return false;
    burst.beats = length_ + 1u;
    burst.data = judge(cycle, regions, uint64_t(burst.beats) * bytes_);
    return true;
  }

  void forget() { offered_ = false; }

  std::string name_;
  unsigned number_;
  const char* what_;
  AddressSignals request_;
  unsigned bytes_;
  uint64_t beats_ = 0;  // that passed

 private:
  static constexpr uint64_t PAGE = 4096;

  uint8_t* judge(uint64_t cycle, std::deque<Region>& regions, uint64_t total) const {
    char access[160];
    std::snprintf(access, sizeof access, "%s: %s of %" PRIu64 " bytes at 0x%" PRIx64, name_.c_str(), what_,
                  total, address_);
    if (*request_.burst != 1)
      violated("%s has burst type %u, expected 1 (INCR), cycle %" PRIu64, access, *request_.burst, cycle);
    if (1u << *request_.size != bytes_)
      violated("%s has beats of %u bytes (size %u), expected %u, cycle %" PRIu64, access,
               1u << *request_.size, *request_.size, bytes_, cycle);
    if (address_ % bytes_)
      violated("%s is not aligned to its %u bytes, cycle %" PRIu64, access, bytes_, cycle);
    if (address_ / PAGE != (address_ + total - 1) / PAGE)
      violated("%s crosses a boundary of 4 KB, cycle %" PRIu64, access, cycle);
    for (Region& region : regions)
      if ((region.ports >> number_ & 1) && address_ >= region.address &&
          address_ + total <= region.address + region.bytes.size())
        return &region.bytes[address_ - region.address];
    std::string own;
    for (const Region& region : regions)
      if (region.ports >> number_ & 1) {
        char text[64];
        std::snprintf(text, sizeof text, "%s0x%" PRIx64 " to 0x%" PRIx64, own.empty() ? "" : ", ",
                      region.address, region.address + region.bytes.size() - 1);
        own += text;
      }
    violated("%s lies outside of its buffers (%s), cycle %" PRIu64, access,
             own.empty() ? "none" : own.c_str(), cycle);
  }

  bool offered_ = false;
  uint64_t address_ = 0;
  uint8_t length_ = 0;
};

class ReadPort : public Port {
 public:
  ReadPort(const std::string& name, unsigned number, const ReadSignals& signals)
      : Port(name, number, "read", signals.request, signals.bytes), signals_(signals) {}

  void seed(uint64_t seed, unsigned longest) {
    requests_.seed(2 * seed, longest);
    answers_.seed(2 * seed + 1, longest);
  }

  void drive(uint64_t cycle, const Settings& settings) {
    *request_.ready = bursts_.count() < settings.outstanding && !requests_.now();
    const bool stalled = answers_.now();
    due_ = !*signals_.valid && !stalled && !bursts_.empty() && bursts_.front().ready <= cycle;
  }

  // Whether a beat would come now, if there is bandwidth for it.
  bool due() const { return due_; }

  void grant() {
    const Burst& burst = bursts_.front();
    std::memcpy(signals_.data, burst.data, bytes_);
    *signals_.last = burst.beats == 1;
    *signals_.valid = 1;
    due_ = false;
  }

  bool sample(uint64_t cycle, std::deque<Region>& regions, const Settings& settings) {
    bool moved = false;
    if (*signals_.valid && *signals_.ready) {
      Burst& burst = bursts_.front();
      burst.data += bytes_;
      if (--burst.beats == 0) bursts_.pop();
      taken_ = true;
      ++beats_;
      moved = true;
    }
    Burst burst;
    if (requested(cycle, regions, burst)) {
      burst.ready = cycle + settings.latency;
      bursts_.push(burst);
      moved = true;
    }
    return moved;
  }

  // After the clock's edge: a beat that was taken is not there any more.
  void retire() {
    if (!taken_) return;
    taken_ = false;
    *signals_.valid = 0;
    std::memset(signals_.data, RUBBISH, bytes_);
  }

  void reset() {
    bursts_.clear();
    taken_ = false;
    *signals_.valid = *signals_.response = 0;
    *request_.ready = 0;
    forget();
  }

  std::string state() const {
    char text[160];
    std::snprintf(text, sizeof text, "%s: %u reads under way, %" PRIu64 " beats so far%s", name_.c_str(),
                  bursts_.count(), beats_, *signals_.valid ? ", a beat waits to be taken" : "");
    return text;
  }

  bool quiet() const { return bursts_.empty(); }

 private:
  static constexpr int RUBBISH = 0xA5;

  ReadSignals signals_;
  Bursts bursts_;
  Stalls requests_, answers_;
  bool due_ = false;
  bool taken_ = false;
};

class WritePort : public Port {
 public:
  WritePort(const std::string& name, unsigned number, const WriteSignals& signals)
      : Port(name, number, "write", signals.request, signals.bytes), signals_(signals) {}

  void seed(uint64_t seed, unsigned longest) {
    requests_.seed(3 * seed, longest);
    data_.seed(3 * seed + 1, longest);
    answers_.seed(3 * seed + 2, longest);
  }

  void drive(uint64_t cycle, const Settings& settings) {
    *request_.ready = bursts_.count() + answered_.count() < settings.outstanding && !requests_.now();
    const bool stalled = answers_.now();
    if (!*signals_.response_valid && !stalled && !answered_.empty() && answered_.front().ready <= cycle)
      *signals_.response_valid = 1;
    due_ = !data_.now() && !bursts_.empty();
    *signals_.ready = 0;
  }

  bool due() const { return due_; }

  void grant() {
    *signals_.ready = 1;
    due_ = false;
  }

  // Whether a grant was for nothing.
  bool unused() const { return *signals_.ready && !*signals_.valid; }

  bool sample(uint64_t cycle, std::deque<Region>& regions, const Settings& settings) {
    bool moved = false;
    if (*signals_.response_valid && *signals_.response_ready) {
      answered_.pop();
      taken_ = true;
      moved = true;
    }
    if (*signals_.valid && *signals_.ready) {
      Burst& burst = bursts_.front();
      for (unsigned byte = 0; byte < bytes_; ++byte)
        if (signals_.strobe[byte / 8] >> byte % 8 & 1) burst.data[byte] = signals_.data[byte];
      burst.data += bytes_;
      --burst.beats;
      if (bool(*signals_.last) != (burst.beats == 0))
        violated("%s: %s with %u beats of its burst to come, cycle %" PRIu64, name_.c_str(),
                 *signals_.last ? "WLAST" : "no WLAST", burst.beats, cycle);
      if (burst.beats == 0) {
        bursts_.pop();
        Burst answer;
        answer.ready = cycle + settings.latency;
        answered_.push(answer);
      }
      ++beats_;
      moved = true;
    }
    Burst burst;
    if (requested(cycle, regions, burst)) {
      bursts_.push(burst);
      moved = true;
    }
    return moved;
  }

  void retire() {
    if (taken_) *signals_.response_valid = 0;
    taken_ = false;
  }

  void reset() {
    bursts_.clear();
    answered_.clear();
    taken_ = false;
    *request_.ready = *signals_.ready = 0;
    *signals_.response_valid = *signals_.response = 0;
    forget();
  }

  std::string state() const {
    char text[160];
    std::snprintf(text, sizeof text, "%s: %u writes under way, %" PRIu64 " beats so far", name_.c_str(),
                  bursts_.count() + answered_.count(), beats_);
    return text;
  }

  bool quiet() const { return bursts_.empty() && answered_.empty(); }

 private:
  WriteSignals signals_;
  Bursts bursts_, answered_;
  Stalls requests_, data_, answers_;
  bool due_ = false;
  bool taken_ = false;
};

class MemoryModel {
 public:
  Settings settings;
  std::deque<Region> regions;

  void add(const std::string& name, const ReadSignals& signals) {
    reads_.emplace_back(name, ports(), signals);
  }
  void add(const std::string& name, const WriteSignals& signals) {
    writes_.emplace_back(name, ports(), signals);
  }
  unsigned ports() const { return unsigned(reads_.size() + writes_.size()); }

  // Bits of the ports of a name.
  uint64_t bit_of(const std::string& name) const {
    for (const ReadPort& port : reads_)
      if (port.name() == name) return uint64_t(1) << port.number();
    for (const WritePort& port : writes_)
      if (port.name() == name) return uint64_t(1) << port.number();
    violated("no port is named %s", name.c_str());
  }

  void stall(uint64_t seed, unsigned longest) {
    for (ReadPort& port : reads_) port.seed((seed << 8) + port.number(), longest);
    for (WritePort& port : writes_) port.seed((seed << 8) + port.number(), longest);
  }

  void drive(uint64_t cycle) {
    for (ReadPort& port : reads_) port.drive(cycle, settings);
    for (WritePort& port : writes_) port.drive(cycle, settings);
    if (settings.bandwidth) {
      budget_ += settings.bandwidth;
      // What nobody uses is lost, but for a beat.
      if (budget_ > settings.bandwidth + widest()) budget_ = settings.bandwidth + widest();
    }
    // Everybody's turn once, from the one behind the last that got anything on.
    const unsigned all = ports(), start = turn_;
    for (unsigned step = 0; step < all; ++step) {
      const unsigned number = start + step < all ? start + step : start + step - all;
      if (number < reads_.size() ? offer(reads_[number]) : offer(writes_[number - reads_.size()]))
        turn_ = number + 1 < all ? number + 1 : 0;
    }
  }

  // Whether anything passed.
  bool sample(uint64_t cycle) {
    bool moved = false;
    for (ReadPort& port : reads_) moved |= port.sample(cycle, regions, settings);
    for (WritePort& port : writes_) {
      if (port.unused() && settings.bandwidth) budget_ += 1000 * uint64_t(port.bytes());
      moved |= port.sample(cycle, regions, settings);
    }
    return moved;
  }

  void retire() {
    for (ReadPort& port : reads_) port.retire();
    for (WritePort& port : writes_) port.retire();
  }

  void reset() {
    for (ReadPort& port : reads_) port.reset();
    for (WritePort& port : writes_) port.reset();
    budget_ = 0;
    turn_ = 0;
  }

  std::string state() const {
    std::string text;
    for (const ReadPort& port : reads_) text += (text.empty() ? "" : "; ") + port.state();
    for (const WritePort& port : writes_) text += (text.empty() ? "" : "; ") + port.state();
    return text;
  }

  // Whether nothing is under way.
  bool quiet() const {
    for (const ReadPort& port : reads_)
      if (!port.quiet()) return false;
    for (const WritePort& port : writes_)
      if (!port.quiet()) return false;
    return true;
  }

  // Beats that passed at each port since the model was made: names and numbers.
  std::string traffic() const {
    std::string text;
    for (const ReadPort& port : reads_)
      text += port.name() + " " + std::to_string(port.beats() * port.bytes()) + " ";
    for (const WritePort& port : writes_)
      text += port.name() + " " + std::to_string(port.beats() * port.bytes()) + " ";
    return text;
  }

 private:
  template <typename Channel>
  bool offer(Channel& port) {
    if (!port.due()) return false;
    const uint64_t price = 1000 * uint64_t(port.bytes());
    if (settings.bandwidth) {
      if (budget_ < price) return false;
      budget_ -= price;
    }
    port.grant();
    return true;
  }

  uint64_t widest() const {
    unsigned bytes = 0;
    for (const ReadPort& port : reads_) bytes = port.bytes() > bytes ? port.bytes() : bytes;
    for (const WritePort& port : writes_) bytes = port.bytes() > bytes ? port.bytes() : bytes;
    return 1000 * uint64_t(bytes);
  }

  std::deque<ReadPort> reads_;
  std::deque<WritePort> writes_;
  uint64_t budget_ = 0;  // thousandths of a byte
  unsigned turn_ = 0;
};

}  // namespace edgemoe
