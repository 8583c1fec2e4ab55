// Runs one image and task on an Alveo card through XRT's native C++ interface, without Python.
//
//   g++ -std=c++17 -O2 edgemoe_host.cpp -o edgemoe_host -I$XILINX_XRT/include -L$XILINX_XRT/lib
//   -lxrt_coreutil -pthread
//   ./edgemoe_host BUILD/host image.ppm segment tokens.npy
//
// BUILD/host is what `edgemoe generate --board u280` writes, with the edgemoe.xclbin that `v++ --link` leaves
// there. The image is a binary PPM, or PGM for a network of one channel, of the network's size. The final
// tokens are written as a NumPy array (tokens, dim) of int32: real values are integers / 2^frac.
//
// Interfaces: https://xilinx.github.io/XRT/master/html/xrt_native_apis.html (xrt::device, xrt::kernel,
// xrt::run, xrt::bo).

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "json.h"
#include "xrt/xrt_bo.h"
#include "xrt/xrt_device.h"
#include "xrt/xrt_kernel.h"

namespace edgemoe {

constexpr std::chrono::seconds PATIENCE{10};
constexpr std::int64_t MOST = 1 << 20;          // of everything that is counted
constexpr std::int64_t MOST_BYTES = 1LL << 40;  // of a buffer
constexpr std::size_t REPORT_BYTES = 64;        // hardware_id, max_batch and status, a 64-bit word each
constexpr std::uint64_t STATUS_DONE = 0;

// Bytes of a buffer, or numbers of anything in it.
std::size_t product(std::initializer_list<std::size_t> factors) {
  std::size_t found = 1;
  for (const std::size_t factor : factors) {
    if (factor != 0 && found > static_cast<std::size_t>(MOST_BYTES) / factor)
      throw Error("sizes beyond the memory of any card");
    found *= factor;
  }
  return found;
}

// What manifest.json says of a build: docs/files.md describes each key.
struct Manifest {
  std::string kernel, weights_file;
  std::uint64_t hardware_id;
  std::vector<std::string> inputs, tasks;  // arguments in the order of the C++, and tasks by their numbers
  std::size_t max_batch, channels, height, width, patch_size, lanes, patch_words, word_bytes;
  std::uint8_t padding;
  std::size_t tokens, dim, output_lanes, token_words, output_word_bytes;
  std::size_t ports, port_bytes;
  std::int64_t frac;

  std::size_t image_bytes() const {
    return product({height / patch_size, width / patch_size, patch_words, word_bytes});
  }
  std::size_t output_bytes() const { return product({tokens, token_words, output_word_bytes}); }
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + ": cannot be read");
  std::string content{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) throw Error(path + ": cannot be read");
  return content;
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = folder + "/manifest.json";
  try {
    const Json data = Json::parse(read_file(path));
    if (!data.has("runtime") || data["runtime"].str() != "xrt")
      throw Error("runtime is not xrt: the build is for a board, which `python3 -m host` runs");
    if (data.has("backend") && data["backend"].str() != "hls")
      throw Error("backend is not hls: another accelerator than this program drives");
    Manifest found;
    found.kernel = data["kernel"].str();
    found.hardware_id = std::stoull(data["hardware_id"].str(), nullptr, 16);
    found.max_batch = data["max_batch"].whole(1, MOST);
    found.frac = data["frac"].whole(-64, 64);
    for (const Json& argument : data["arguments"].items)
      if (!argument["output"].flag()) found.inputs.push_back(argument["name"].str());
    for (const Json& task : data["tasks"].items) found.tasks.push_back(task["name"].str());
    const Json &images = data["images"], &output = data["output"], &weights = data["weights"];
    found.channels = images["channels"].whole(1, MOST);
    found.height = images["height"].whole(1, MOST);
    found.width = images["width"].whole(1, MOST);
    found.patch_size = images["patch_size"].whole(1, MOST);
    found.lanes = images["lanes"].whole(1, MOST);
    found.patch_words = images["patch_words"].whole(1, MOST);
    found.word_bytes = images["word_bytes"].whole(static_cast<std::int64_t>(found.lanes), MOST);
    found.padding = static_cast<std::uint8_t>(images["padding"].whole(0, 255));
    found.tokens = output["tokens"].whole(1, MOST);
    found.dim = output["dim"].whole(1, MOST);
    found.output_lanes = output["lanes"].whole(1, MOST);
    found.token_words = output["token_words"].whole(1, MOST);
    found.output_word_bytes =
        output["word_bytes"].whole(static_cast<std::int64_t>(4 * found.output_lanes), MOST);
    found.weights_file = weights["file"].str();
    found.ports = weights["ports"].whole(1, 64);
    found.port_bytes = weights["port_bytes"].whole(1, MOST_BYTES);
    const std::size_t values = product({found.channels, found.patch_size, found.patch_size});
    product({found.max_batch, found.image_bytes()});
    product({found.max_batch, found.output_bytes()});
    product({found.ports, found.port_bytes});
    product({found.channels, found.height, found.width});
    if (found.height % found.patch_size != 0 || found.width % found.patch_size != 0 ||
        found.patch_words * found.lanes < values || found.token_words * found.output_lanes < found.dim ||
        found.weights_file.find('/') != std::string::npos)
      throw Error("its sizes do not fit together: copy the whole host folder of the build again");
    return found;
  } catch (const Error& error) {
    throw Error(path + ": " + error.what());
  } catch (const std::logic_error& error) {  // of stoull
    throw Error(path + ": hardware_id is no hexadecimal number");
  }
}

// Pixels (channels, height, width) of a binary PPM or PGM, whose header may hold comments.
std::vector<std::uint8_t> read_image(const std::string& path, const Manifest& manifest) {
  const std::string data = read_file(path);
  std::size_t at = 0;
  const auto word = [&] {
    while (at < data.size() && (std::isspace(static_cast<unsigned char>(data[at])) || data[at] == '#'))
      at = data[at] == '#' ? std::min(data.find('\n', at), data.size()) : at + 1;
    const std::size_t start = at;
    while (at < data.size() && !std::isspace(static_cast<unsigned char>(data[at]))) ++at;
    return data.substr(start, at - start);
  };
  const std::string magic = word(), width = word(), height = word(), most = word();
  const std::string wanted = manifest.channels == 1 ? "P5" : "P6";
  if (manifest.channels != 1 && manifest.channels != 3)
    throw Error("the network takes " + std::to_string(manifest.channels) + " channels, which no PPM has");
  if (magic != wanted || width != std::to_string(manifest.width) ||
      height != std::to_string(manifest.height) || most != "255")
    throw Error(path + ": " + magic.substr(0, 8) + " of " + width.substr(0, 8) + " x " + height.substr(0, 8) +
                ", expected " + wanted + " of " + std::to_string(manifest.width) + " x " +
                std::to_string(manifest.height) + " with 8 bits");
  ++at;  // one space ends the header
  const std::size_t plane = manifest.height * manifest.width;
  if (data.size() != at + manifest.channels * plane)
    throw Error(path + ": " + std::to_string(data.size() - std::min(at, data.size())) +
                " bytes of pixels, expected " + std::to_string(manifest.channels * plane));
  std::vector<std::uint8_t> pixels(manifest.channels * plane);
  for (std::size_t pixel = 0; pixel < plane; ++pixel)
    for (std::size_t channel = 0; channel < manifest.channels; ++channel)
      pixels[channel * plane + pixel] =
          static_cast<std::uint8_t>(data[at + pixel * manifest.channels + channel]);
  return pixels;
}

// Patch after patch, each by channel, row and column in words of lanes: docs/hls.md, and common/packing.py.
void pack_image(const std::vector<std::uint8_t>& pixels, const Manifest& manifest, std::uint8_t* memory) {
  const std::size_t size = manifest.patch_size, word = manifest.word_bytes;
  std::memset(memory, 0, manifest.image_bytes());
  for (std::size_t top = 0; top < manifest.height; top += size)
    for (std::size_t left = 0; left < manifest.width; left += size) {
      std::size_t place = 0;
      const auto put = [&](std::uint8_t value) {
        memory[place / manifest.lanes * word + place % manifest.lanes] = value;
        ++place;
      };
      for (std::size_t channel = 0; channel < manifest.channels; ++channel)
        for (std::size_t row = 0; row < size; ++row)
          for (std::size_t column = 0; column < size; ++column)
            put(pixels[(channel * manifest.height + top + row) * manifest.width + left + column]);
      while (place < manifest.patch_words * manifest.lanes) put(manifest.padding);
      memory += manifest.patch_words * word;
    }
}

std::vector<std::int32_t> unpack_tokens(const std::uint8_t* memory, const Manifest& manifest) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(manifest.tokens * manifest.dim);
  for (std::size_t token = 0; token < manifest.tokens; ++token)
    for (std::size_t channel = 0; channel < manifest.dim; ++channel) {
      const std::size_t word = token * manifest.token_words + channel / manifest.output_lanes;
      std::int32_t value;
      std::memcpy(&value, memory + word * manifest.output_word_bytes + 4 * (channel % manifest.output_lanes),
                  4);
      tokens.push_back(value);
    }
  return tokens;
}

// A NumPy file, version 1.0 of the format: numpy.lib.format.
void write_npy(const std::string& path, const std::vector<std::int32_t>& values, const Manifest& manifest) {
  std::string header = "{'descr': '<i4', 'fortran_order': False, 'shape': (" +
                       std::to_string(manifest.tokens) + ", " + std::to_string(manifest.dim) + "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::FILE* file = std::fopen(path.c_str(), "wbx");  // x: nothing is written over
  if (file == nullptr) throw Error(path + ": exists already, or cannot be written");
  const char start[10] = {'\x93',
                          'N',
                          'U',
                          'M',
                          'P',
                          'Y',
                          1,
                          0,
                          static_cast<char>(header.size() & 0xFF),
                          static_cast<char>(header.size() >> 8)};
  bool good = std::fwrite(start, 1, sizeof start, file) == sizeof start;
  good = good && std::fwrite(header.data(), 1, header.size(), file) == header.size();
  good = good && std::fwrite(values.data(), 4, values.size(), file) == values.size();
  if (std::fclose(file) != 0 || !good) {
    std::remove(path.c_str());
    throw Error(path + ": cannot be written");
  }
}

class Accelerator {
 public:
  Accelerator(const std::string& folder, unsigned device)
      : manifest_(read_manifest(folder)),
        device_(device),
        kernel_(device_, device_.load_xclbin(folder + "/edgemoe.xclbin"), manifest_.kernel,
                xrt::kernel::cu_access_mode::exclusive),
        run_(kernel_) {
    load_weights(folder + "/" + manifest_.weights_file);
    image_ = buffer("image", manifest_.max_batch * manifest_.image_bytes());
    output_ = buffer("output", manifest_.max_batch * manifest_.output_bytes());
    // The outputs go where the last argument points, which the manifest does not list.
    report_ = xrt::bo(device_, REPORT_BYTES, kernel_.group_id(static_cast<int>(manifest_.inputs.size())));
    run_.set_arg(static_cast<int>(manifest_.inputs.size()), report_);
    call(0, 0);  // A call without images touches no memory, and says which hardware this is.
  }

  const Manifest& manifest() const { return manifest_; }

  std::vector<std::int32_t> run(const std::vector<std::uint8_t>& pixels, std::size_t task) {
    pack_image(pixels, manifest_, image_.map<std::uint8_t*>());
    image_.sync(XCL_BO_SYNC_BO_TO_DEVICE, manifest_.image_bytes(), 0);
    call(1, static_cast<int>(task));
    output_.sync(XCL_BO_SYNC_BO_FROM_DEVICE, manifest_.output_bytes(), 0);
    return unpack_tokens(output_.map<std::uint8_t*>(), manifest_);
  }

 private:
  Manifest manifest_;
  xrt::device device_;
  xrt::kernel kernel_;
  xrt::run run_;
  std::vector<xrt::bo> weights_;
  xrt::bo image_, output_, report_;

  int number(const std::string& argument) const {
    for (std::size_t found = 0; found < manifest_.inputs.size(); ++found)
      if (manifest_.inputs[found] == argument) return static_cast<int>(found);
    throw Error("manifest.json: the kernel has no argument " + argument);
  }

  // Memory in the bank that an argument is connected to, which the kernel finds behind that argument.
  xrt::bo buffer(const std::string& argument, std::size_t bytes) {
    xrt::bo made(device_, bytes, kernel_.group_id(number(argument)));
    run_.set_arg(number(argument), made);
    return made;
  }

  void load_weights(const std::string& path) {
    const std::string data = read_file(path);
    if (data.size() != manifest_.ports * manifest_.port_bytes)
      throw Error(path + ": " + std::to_string(data.size()) + " bytes, expected " +
                  std::to_string(manifest_.ports * manifest_.port_bytes));
    for (std::size_t port = 0; port < manifest_.ports; ++port) {
      xrt::bo made = buffer("weights_" + std::to_string(port), manifest_.port_bytes);
      made.write(data.data() + port * manifest_.port_bytes);
      made.sync(XCL_BO_SYNC_BO_TO_DEVICE);
      weights_.push_back(made);
    }
  }

  void call(int batch, int task) {
    run_.set_arg(number("batch"), batch);
    run_.set_arg(number("task"), task);
    run_.start();
    const ert_cmd_state state = run_.wait(std::chrono::duration_cast<std::chrono::milliseconds>(PATIENCE));
    if (state != ERT_CMD_STATE_COMPLETED)
      throw Error("the call ended with state " + std::to_string(static_cast<int>(state)) +
                  " of ert_cmd_state: `xbutil examine` says what is wrong with the card");
    report_.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
    std::uint64_t words[3];
    std::memcpy(words, report_.map<std::uint8_t*>(), sizeof words);
    if (words[0] != manifest_.hardware_id)
      throw Error(
          "the card runs other hardware than manifest.json describes: take .xclbin and manifest.json from "
          "one build");
    if (words[2] != STATUS_DONE)
      throw Error("the accelerator refused the call: status " + std::to_string(words[2]));
  }
};

std::size_t task_number(const std::string& task, const std::vector<std::string>& tasks) {
  std::string known;
  for (std::size_t number = 0; number < tasks.size(); ++number) {
    if (tasks[number] == task || std::to_string(number) == task) return number;
    known += (number == 0 ? "" : ", ") + tasks[number];
  }
  throw Error("task " + task + " is unknown: the network's tasks are " + known);
}

int run(int count, char** arguments) {
  if (count < 5 || count > 6) {
    std::cerr << "usage: " << arguments[0] << " HOST_FOLDER IMAGE.ppm TASK OUTPUT.npy [DEVICE]\n";
    return 2;
  }
  const std::string folder = arguments[1], image = arguments[2], task = arguments[3], output = arguments[4];
  const unsigned device = count == 6 ? static_cast<unsigned>(std::strtoul(arguments[5], nullptr, 10)) : 0;
  const Manifest manifest = read_manifest(folder);
  const std::size_t number = task_number(task, manifest.tasks);
  const std::vector<std::uint8_t> pixels =
      read_image(image, manifest);  // mistakes are told before the card is taken
  Accelerator accelerator(folder, device);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<std::int32_t> tokens = accelerator.run(pixels, number);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  write_npy(output, tokens, manifest);
  std::cout << image << ": " << manifest.tasks[number] << ": " << manifest.tokens << " tokens of "
            << manifest.dim << " channels, real = integer / 2^" << manifest.frac << ", " << took.count()
            << " ms with the host; saved " << output << "\n";
  return 0;
}

}  // namespace edgemoe

int main(int count, char** arguments) {
  try {
    return edgemoe::run(count, arguments);
  } catch (const std::exception& error) {  // XRT throws its own
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
