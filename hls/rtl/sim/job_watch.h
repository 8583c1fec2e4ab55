// Notes when engines begin and end jobs, and what then stands in the memories they wrote.
//
// The module says with `event_done` (a bit for each engine) that a job ends, with `event_job` (a record of
// 512 bits for each) which one, and where it has `event_start` also that one begins. What is to be kept of
// which job is told by plans.
#pragma once

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "memory_model.h"
#include "verilated.h"
#include "verilated_sym_props.h"
#include "verilated_syms.h"

namespace edgemoe {

constexpr unsigned RECORD_BYTES = 64;
using Record = std::array<uint8_t, RECORD_BYTES>;

// Where the rows of a job lie: row r in memory r % banks, words side by side.
struct Plan {
  int32_t rows;  // -1: as many as the record says
  uint32_t first, stride, words;
  std::vector<uint32_t> banks;
};

// Words of a memory of the module, each in a multiple of bytes.
struct Words {
  const uint8_t* data;
  uint32_t depth, bytes;
};

class JobWatch {
 public:
  bool keep = false;  // contents of memories, beside the cycles

  void attach(VerilatedContext& context, const std::string& scope) {
    context_ = &context;
    scope_ = scope;
    words_.clear();
    done_ = start_ = job_ = nullptr;
    if (scope.empty()) return;
    const VerilatedVar &done = variable(scope, "event_done"), &job = variable(scope, "event_job");
    engines_ = unsigned(job.entBits()) / (8 * RECORD_BYTES);
    if (engines_ == 0 || engines_ > 64)
      violated("%s.event_job has %d bits", scope.c_str(), int(job.entBits()));
    done_ = static_cast<const uint8_t*>(done.datap());
    job_ = static_cast<const uint8_t*>(job.datap());
    flag_bytes_ = unsigned(done.entSize());
    const VerilatedVar* start = find(scope, "event_start");
    if (start) start_ = static_cast<const uint8_t*>(start->datap());
    for (const std::string& memory : memories_) words_.push_back(words_of(memory));
    restart();
  }

  // A call begins: the table from its start.
  void restart() {
    next_.assign(engines_, 0);
    began_.assign(engines_, -1);
    ending_ = 0;
  }

  // Number under which plans name a memory, which the scope `path` holds.
  const Words& add_memory(const std::string& path) {
    const Words words = words_of(path);
    memories_.push_back(path);
    words_.push_back(words);
    return words_.back();
  }

  void clear() {
    memories_.clear();
    words_.clear();
    table_.clear();
    plans_.clear();
    pending_.clear();
    kept_.clear();
  }

  void set_table(const std::vector<uint8_t>& bytes) {
    table_.resize(bytes.size() / RECORD_BYTES);
    for (size_t job = 0; job < table_.size(); ++job)
      std::memcpy(table_[job].data(), &bytes[job * RECORD_BYTES], RECORD_BYTES);
    plans_.assign(table_.size(), {});
  }

  void add_plan(size_t job, const Plan& plan) {
    if (job >= plans_.size()) violated("a plan for job %zu of a table of %zu", job, plans_.size());
    for (uint32_t bank : plan.banks)
      if (bank >= words_.size()) violated("a plan for memory %u of %zu", bank, words_.size());
    plans_[job].push_back(plan);
  }

  // Before the clock's edge: which jobs end at it. Whether any began or ended.
  bool sample(uint64_t cycle) {
    if (!done_) return false;
    ending_ = flags(done_);
    const uint64_t starting = start_ ? flags(start_) : 0;
    if ((ending_ | starting) == 0) return false;
    for (unsigned engine = 0; engine < engines_; ++engine) {
      if (ending_ >> engine & 1)
        std::memcpy(ended_[engine].data(), job_ + engine * RECORD_BYTES, RECORD_BYTES);
      if (starting >> engine & 1) began_[engine] = int64_t(cycle);
    }
    return true;
  }

  // After the edge. What a job wrote is on its way for some cycles more: a later job could not read it
  // before.
  void collect(uint64_t cycle) {
    for (unsigned engine = 0; ending_ && engine < engines_; ++engine)
      if (ending_ >> engine & 1) begin_note(cycle, engine);
    ending_ = 0;
    while (!pending_.empty() && pending_.front().end + SETTLE <= int64_t(cycle)) end_note();
  }

  // For each job that ended: header, and the rows of its plans.
  std::vector<uint8_t> take() {
    while (!pending_.empty()) end_note();
    std::vector<uint8_t> taken;
    taken.swap(kept_);
    return taken;
  }

  std::string state() const {
    std::string text;
    for (unsigned engine = 0; engine < engines_; ++engine) {
      char part[64];
      std::snprintf(part, sizeof part, "%sengine %u: next %u", engine ? ", " : "", engine, next_[engine]);
      text += part;
    }
    return text;
  }

 private:
  static constexpr size_t ROWS_AT = 16;
  static constexpr int64_t SETTLE = 4;  // cycles from the end of a job to its last value in memory, at most
  struct Header {
    int32_t job, engine;
    int64_t start, end;
    uint32_t rows, bytes;
  };
  static_assert(sizeof(Header) == 32, "Python reads it");

  const VerilatedVar* find(const std::string& scope, const char* name) const {
    const VerilatedScope* found = context_->scopeFind(("TOP." + scope).c_str());
    return found ? found->varFind(name) : nullptr;
  }

  const VerilatedVar& variable(const std::string& scope, const char* name) const {
    const VerilatedVar* found = find(scope, name);
    if (!found) violated("the module has no %s.%s that simulation sees", scope.c_str(), name);
    return *found;
  }

  Words words_of(const std::string& path) const {
    const VerilatedVar& found = variable(path, "words");
    return {static_cast<const uint8_t*>(found.datap()), uint32_t(found.elements(1)),
            uint32_t(found.entSize())};
  }

  uint64_t flags(const uint8_t* from) const {
    uint64_t value = 0;
    std::memcpy(&value, from, flag_bytes_);
    return value;
  }

  // Place of a job that an engine ended: the next in the table with this record, whose rows the module fills
  // in.
  uint32_t number_of(uint64_t cycle, unsigned engine, const Record& record) {
    for (uint32_t job = next_[engine]; job < table_.size(); ++job) {
      const Record& entry = table_[job];
      if (!std::memcmp(entry.data(), record.data(), ROWS_AT) &&
          !std::memcmp(&entry[ROWS_AT + 4], &record[ROWS_AT + 4], RECORD_BYTES - ROWS_AT - 4)) {
        next_[engine] = job + 1;
        return job;
      }
    }
    std::string text;
    for (uint8_t byte : record) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", byte);
      text += digits;
    }
    violated("engine %u ended a job that the table does not have behind its job %u: %s, cycle %" PRIu64,
             engine, next_[engine], text.c_str(), cycle);
  }

  void begin_note(uint64_t cycle, unsigned engine) {
    const Record& record = ended_[engine];
    Header header{-1, int32_t(engine), began_[engine], int64_t(cycle), 0, 0};
    std::memcpy(&header.rows, &record[ROWS_AT], sizeof header.rows);
    if (!table_.empty()) header.job = int32_t(number_of(cycle, engine, record));
    began_[engine] = -1;
    pending_.push_back(header);
  }

  void end_note() {
    Header header = pending_.front();
    pending_.pop_front();
    const size_t at = kept_.size();
    kept_.resize(at + sizeof header);
    if (keep && header.job >= 0)
      for (const Plan& plan : plans_[size_t(header.job)])
        copy(plan, plan.rows < 0 ? header.rows : uint32_t(plan.rows), uint64_t(header.end));
    header.bytes = uint32_t(kept_.size() - at - sizeof header);
    std::memcpy(&kept_[at], &header, sizeof header);
  }

  void copy(const Plan& plan, uint32_t rows, uint64_t cycle) {
    for (uint32_t row = 0; row < rows; ++row) {
      const size_t bank = row % plan.banks.size();
      const Words& memory = words_[plan.banks[bank]];
      const uint64_t address = plan.first + uint64_t(row / plan.banks.size()) * plan.stride;
      if (address + plan.words > memory.depth)
        violated("row %u of a job would lie at word %" PRIu64 " of %s, which has %u, cycle %" PRIu64, row,
                 address, memories_[plan.banks[bank]].c_str(), memory.depth, cycle);
      const uint8_t* from = memory.data + address * memory.bytes;
      kept_.insert(kept_.end(), from, from + size_t(plan.words) * memory.bytes);
    }
  }

  VerilatedContext* context_ = nullptr;
  std::string scope_;
  unsigned engines_ = 0, flag_bytes_ = 0;
  const uint8_t *done_ = nullptr, *start_ = nullptr, *job_ = nullptr;
  uint64_t ending_ = 0;
  std::array<Record, 64> ended_;
  std::vector<uint32_t> next_;
  std::vector<int64_t> began_;
  std::vector<std::string> memories_;
  std::vector<Words> words_;
  std::vector<Record> table_;
  std::vector<std::vector<Plan>> plans_;
  std::deque<Header> pending_;
  std::vector<uint8_t> kept_;
};

}  // namespace edgemoe
