// Runs a Verilated accelerator for another program: commands on standard input, answers on standard output.
//
// A command is a line; some have bytes behind it. An answer is `ok` with words, `data N` with N bytes behind
// the line, or `error` with what is wrong. `common/rtl_process.py` speaks to it. Which AXI ports there are is
// in `ports.h`, which is written beside the model.
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "Vaccelerator.h"
#include "job_watch.h"
#include "memory_model.h"
#include "ports.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

using edgemoe::violated;
using edgemoe::Violation;

// An assertion of the module failed: its text went to standard error.
void vl_stop(const char* file, int line, const char* hierarchy) {
  violated("an assertion failed: %s:%d in %s", file, line, hierarchy);
}

namespace {

template <typename Signal>
uint8_t* bytes_of(Signal& signal) {
  return reinterpret_cast<uint8_t*>(&signal);
}

class Accelerator {
 public:
  explicit Accelerator(unsigned seed) {
    // What no reset sets is random, and so is what the code leaves open.
    context_.randReset(2);
    context_.randSeed(int(seed));
    context_.traceEverOn(VM_TRACE);
    model_.reset(new Vaccelerator(&context_));
    connect();
  }

  ~Accelerator() {
    record("");
    model_->final();
  }

  edgemoe::MemoryModel memory;
  edgemoe::JobWatch watch;
  uint64_t limit = 200'000;  // cycles without anything happening
  uint64_t cycle() const { return cycle_; }
  // The name is a word of C++ to Verilator, which changes it.
  bool interrupt() const { return model_->__SYM__interrupt; }
  VerilatedContext& context() { return context_; }

  void reset() {
    memory.reset();
    model_->s_axi_control_AWVALID = model_->s_axi_control_WVALID = model_->s_axi_control_ARVALID = 0;
    model_->s_axi_control_BREADY = model_->s_axi_control_RREADY = 0;
    model_->ap_rst_n = 0;
    // What no reset has set yet may be anything.
    model_->contextp()->assertOn(false);
    for (int count = 0; count < RESET_CYCLES; ++count) edge();
    model_->contextp()->assertOn(true);
    model_->ap_rst_n = 1;
    watch.restart();
    last_ = cycle_;
  }

  void step() {
    memory.drive(cycle_);
#ifdef EDGEMOE_CLOCK_COUNT
    model_->clock_count = cycle_;
#endif
    model_->ap_clk = 0;
    model_->eval();
    dump();
    if (memory.sample(cycle_)) last_ = cycle_;
    if (watch.sample(cycle_)) last_ = cycle_;
    sample_control();
    edge();
    memory.retire();
    watch.collect(cycle_);
    ++cycle_;
    if (cycle_ - last_ > limit) {
      last_ = cycle_;
      violated("nothing has happened for %" PRIu64 " cycles, cycle %" PRIu64 "; %s; %s", limit, cycle_,
               memory.state().c_str(), watch.state().c_str());
    }
  }

  void write(uint32_t offset, uint32_t value) {
    model_->s_axi_control_AWADDR = offset;
    model_->s_axi_control_WDATA = value;
    model_->s_axi_control_WSTRB = 0xF;
    model_->s_axi_control_AWVALID = model_->s_axi_control_WVALID = 1;
    model_->s_axi_control_BREADY = 1;
    bool answered = false;
    for (int count = 0; !answered; ++count) {
      patient(count, offset);
      step();
      if (taken_.address) model_->s_axi_control_AWVALID = 0;
      if (taken_.data) model_->s_axi_control_WVALID = 0;
      answered = taken_.response;
    }
    model_->s_axi_control_BREADY = 0;
    if (taken_.code) violated("writing register 0x%x was answered with error %d", offset, taken_.code);
  }

  uint32_t read(uint32_t offset) {
    model_->s_axi_control_ARADDR = offset;
    model_->s_axi_control_ARVALID = model_->s_axi_control_RREADY = 1;
    bool answered = false;
    for (int count = 0; !answered; ++count) {
      patient(count, offset);
      step();
      if (taken_.request) model_->s_axi_control_ARVALID = 0;
      answered = taken_.value;
    }
    model_->s_axi_control_RREADY = 0;
    if (taken_.code) violated("reading register 0x%x was answered with error %d", offset, taken_.code);
    return taken_.read;
  }

  // Up to so many cycles, or until the interrupt.
  void run(uint64_t cycles) {
    last_ = cycle_;
    for (; cycles && !interrupt(); --cycles) step();
  }

  void idle(uint64_t cycles) {
    last_ = cycle_;
    for (; cycles; --cycles) {
      last_ = cycle_;
      step();
    }
  }

  // A waveform from now on; none where the name is empty.
  void record(const std::string& file) {
#if VM_TRACE
    if (waves_) waves_->close();
    waves_.reset();
    if (file.empty()) return;
    waves_.reset(new VerilatedVcdC);
    model_->trace(waves_.get(), 99);
    waves_->open(file.c_str());
#else
    if (!file.empty()) violated("this build records no waveforms");
#endif
  }

 private:
  static constexpr int RESET_CYCLES = 16;
  static constexpr int PATIENCE = 1000;  // cycles for a register

  struct Taken {
    bool address, data, response, request, value;
    int code;
    uint32_t read;
  };

  static void patient(int count, uint32_t offset) {
    if (count == PATIENCE) violated("register 0x%x does not answer within %d cycles", offset, PATIENCE);
  }

  void connect() {
    Vaccelerator& m = *model_;
#define EDGEMOE_ADDRESS(port, a)                                                            \
  {&m.m_axi_##port##_##a##ADDR,  &m.m_axi_##port##_##a##LEN,   &m.m_axi_##port##_##a##SIZE, \
   &m.m_axi_##port##_##a##BURST, &m.m_axi_##port##_##a##VALID, &m.m_axi_##port##_##a##READY}
#define EDGEMOE_CONNECT_READ(port)                                                                    \
  memory.add(#port, edgemoe::ReadSignals{EDGEMOE_ADDRESS(port, AR), bytes_of(m.m_axi_##port##_RDATA), \
                                         &m.m_axi_##port##_RRESP, &m.m_axi_##port##_RLAST,            \
                                         &m.m_axi_##port##_RVALID, &m.m_axi_##port##_RREADY,          \
                                         sizeof m.m_axi_##port##_RDATA});
#define EDGEMOE_CONNECT_WRITE(port)                                                                    \
  memory.add(#port, edgemoe::WriteSignals{EDGEMOE_ADDRESS(port, AW), bytes_of(m.m_axi_##port##_WDATA), \
                                          bytes_of(m.m_axi_##port##_WSTRB), &m.m_axi_##port##_WLAST,   \
                                          &m.m_axi_##port##_WVALID, &m.m_axi_##port##_WREADY,          \
                                          &m.m_axi_##port##_BRESP, &m.m_axi_##port##_BVALID,           \
                                          &m.m_axi_##port##_BREADY, sizeof m.m_axi_##port##_WDATA});
    EDGEMOE_READ_PORTS(EDGEMOE_CONNECT_READ)
    EDGEMOE_WRITE_PORTS(EDGEMOE_CONNECT_WRITE)
  }

  void edge() {
    model_->ap_clk = 0;
    model_->eval();
    model_->ap_clk = 1;
    model_->eval();
    dump();
  }

  void dump() {
#if VM_TRACE
    if (waves_) waves_->dump(time_);
#endif
    ++time_;
    context_.time(time_);
  }

  void sample_control() {
    const Vaccelerator& m = *model_;
    taken_.address = m.s_axi_control_AWVALID && m.s_axi_control_AWREADY;
    taken_.data = m.s_axi_control_WVALID && m.s_axi_control_WREADY;
    taken_.response = m.s_axi_control_BVALID && m.s_axi_control_BREADY;
    taken_.request = m.s_axi_control_ARVALID && m.s_axi_control_ARREADY;
    taken_.value = m.s_axi_control_RVALID && m.s_axi_control_RREADY;
    if (taken_.value) taken_.read = m.s_axi_control_RDATA;
    taken_.code = taken_.response ? m.s_axi_control_BRESP : taken_.value ? m.s_axi_control_RRESP : 0;
  }

  VerilatedContext context_;
#if VM_TRACE
  std::unique_ptr<VerilatedVcdC> waves_;
#endif
  std::unique_ptr<Vaccelerator> model_;
  uint64_t cycle_ = 0;
  uint64_t time_ = 0;
  uint64_t last_ = 0;  // the cycle in which something happened
  Taken taken_{};
};

std::vector<uint8_t> payload(size_t bytes) {
  std::vector<uint8_t> data(bytes);
  if (bytes && std::fread(data.data(), 1, bytes, stdin) != bytes) std::exit(1);
  return data;
}

class Session {
 public:
  explicit Session(std::FILE* answers) : answers_(answers) { renew(1); }

  // Answers commands until there are none left.
  void serve() {
    char* line = nullptr;
    size_t room = 0;
    while (::getline(&line, &room, stdin) > 0) {
      std::istringstream words(line);
      std::string name;
      words >> name;
      try {
        answer(name, words);
      } catch (const Violation& violation) {
        const std::string text = violation.what();
        const bool dated = text.find("cycle ") != std::string::npos;
        say("error " + text + (dated ? "" : ", cycle " + std::to_string(accelerator_->cycle())));
      }
      std::fflush(answers_);
    }
    std::free(line);
  }

 private:
  template <typename Value = uint64_t>
  static Value next(std::istringstream& words) {
    Value value{};
    if (!(words >> value)) violated("a command lacks an argument");
    return value;
  }

  void say(const std::string& text) { std::fprintf(answers_, "%s\n", text.c_str()); }

  void send(const std::vector<uint8_t>& data) {
    std::fprintf(answers_, "data %zu\n", data.size());
    std::fwrite(data.data(), 1, data.size(), answers_);
  }

  void renew(unsigned seed) {
    accelerator_.reset();
    accelerator_.reset(new Accelerator(seed));
    accelerator_->reset();
  }

  edgemoe::Region& region(uint64_t address, uint64_t bytes) {
    for (edgemoe::Region& found : accelerator_->memory.regions)
      if (address >= found.address && address + bytes <= found.address + found.bytes.size()) return found;
    violated("no buffer holds the %" PRIu64 " bytes from 0x%" PRIx64 " on", bytes, address);
  }

  void answer(const std::string& name, std::istringstream& words) {
    Accelerator& it = *accelerator_;
    std::string reply = "ok";
    if (name == "new") {
      renew(next<unsigned>(words));
    } else if (name == "reset") {
      it.reset();
    } else if (name == "memory") {
      edgemoe::Settings settings;
      settings.latency = next(words);
      settings.bandwidth = next(words);
      settings.outstanding = next<unsigned>(words);
      if (settings.latency < 1 || settings.outstanding < 1 ||
          settings.outstanding > edgemoe::Bursts::CAPACITY)
        violated("memory: latency at least 1, outstanding 1 to %u", edgemoe::Bursts::CAPACITY);
      it.memory.settings = settings;
    } else if (name == "stalls") {
      const uint64_t seed = next(words);
      it.memory.stall(seed, next<unsigned>(words));
    } else if (name == "limit") {
      it.limit = next(words);
    } else if (name == "region") {
      edgemoe::Region added;
      added.address = next(words);
      added.bytes.assign(next(words), 0);
      added.ports = 0;
      for (std::string port; words >> port;) added.ports |= it.memory.bit_of(port);
      it.memory.regions.push_back(std::move(added));
    } else if (name == "forget") {
      it.memory.regions.clear();
    } else if (name == "write") {
      const uint64_t address = next(words), bytes = next(words);
      const std::vector<uint8_t> data = payload(bytes);
      edgemoe::Region& found = region(address, bytes);
      std::copy(data.begin(), data.end(), found.bytes.begin() + long(address - found.address));
    } else if (name == "read") {
      const uint64_t address = next(words), bytes = next(words);
      const edgemoe::Region& found = region(address, bytes);
      const auto from = found.bytes.begin() + long(address - found.address);
      send(std::vector<uint8_t>(from, from + long(bytes)));
      return;
    } else if (name == "set") {
      const uint32_t offset = next<uint32_t>(words);
      it.write(offset, next<uint32_t>(words));
    } else if (name == "get") {
      reply += " " + std::to_string(it.read(next<uint32_t>(words)));
    } else if (name == "run") {
      it.run(next(words));
      reply += it.interrupt() ? " 1 " : " 0 ";
      reply += std::to_string(it.cycle());
    } else if (name == "idle") {
      it.idle(next(words));
      reply += it.memory.quiet() ? " 1" : " 0";
    } else if (name == "traffic") {
      reply += " " + it.memory.traffic();
    } else if (name == "watch") {
      std::string scope;
      words >> scope;
      it.watch.clear();
      it.watch.attach(it.context(), scope);
    } else if (name == "words") {
      const edgemoe::Words& added = it.watch.add_memory(next<std::string>(words));
      reply += " " + std::to_string(added.depth) + " " + std::to_string(added.bytes);
    } else if (name == "table") {
      it.watch.set_table(payload(next(words) * edgemoe::RECORD_BYTES));
    } else if (name == "plan") {
      const uint64_t job = next(words);
      edgemoe::Plan plan;
      plan.rows = next<int32_t>(words);
      plan.first = next<uint32_t>(words);
      plan.stride = next<uint32_t>(words);
      plan.words = next<uint32_t>(words);
      for (uint32_t bank; words >> bank;) plan.banks.push_back(bank);
      if (plan.banks.empty()) violated("a plan without a memory");
      it.watch.add_plan(job, plan);
    } else if (name == "call") {
      it.watch.restart();
      it.watch.keep = next<unsigned>(words) != 0;
    } else if (name == "jobs") {
      send(it.watch.take());
      return;
    } else if (name == "record") {
      std::string file;
      std::getline(words >> std::ws, file);
      it.record(file);
    } else {
      violated("no command is named %s", name.c_str());
    }
    say(reply);
  }

  std::FILE* answers_;
  std::unique_ptr<Accelerator> accelerator_;
};

}  // namespace

int main() {
  // What the module prints must not come between the answers.
  std::FILE* answers = ::fdopen(::dup(STDOUT_FILENO), "wb");
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  Session(answers).serve();
  std::fclose(answers);
}
