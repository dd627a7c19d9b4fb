#include "target/cuda/sim/sim_compiler.h"

#include <fmt/format.h>

#include <sstream>

#include "target/cuda/sim/kernel_library.h"
#include "target/device.h"

namespace espalier::target::cuda::sim {

namespace {

constexpr char first_line[] = "image of the Espalier simulator";

}  // namespace

namespace {

/// A digit for each parameter: 1 where it is written, and 2 where it is restricted; "-" where there are none.
std::string promises(std::span<const KernelParameter> parameters) {
  std::string text;
  for (const KernelParameter& p : parameters)
    text += static_cast<char>('0' + (p.written ? 1 : 0) + (p.restricted ? 2 : 0));
  return text.empty() ? "-" : text;
}
std::vector<KernelParameter> parameters_of_promises(const std::string& text) {
  std::vector<KernelParameter> out;
  for (const char c : text)
    if (c != '-') out.push_back({.written = ((c - '0') & 1) != 0, .restricted = ((c - '0') & 2) != 0});
  return out;
}

}  // namespace

std::string write_image(const SimImage& image) {
  std::string text = fmt::format("{}\n{}\n", first_line, image.file.string());
  for (const SimImage::Kernel& k : image.kernels)
    text +=
        fmt::format("{} {} {} {}\n", k.name, k.max_threads, k.synchronises ? 1 : 0, promises(k.parameters));
  return text;
}

std::optional<SimImage> read_image(const std::string& text) {
  std::istringstream in(text);
  std::string line;
  if (!std::getline(in, line) || line != first_line || !std::getline(in, line)) return std::nullopt;
  SimImage image;
  image.file = line;
  SimImage::Kernel k;
  std::string promised;
  while (in >> k.name >> k.max_threads >> k.synchronises >> promised) {
    k.parameters = parameters_of_promises(promised);
    image.kernels.push_back(k);
  }
  return image;
}

std::vector<driver::KernelImage> SimCompiler::compile(std::span<const KernelSource> sources, int) {
  SimImage image{.file = {}, .kernels = {}};
  std::vector<std::string> names;
  for (const KernelSource& s : sources) {
    image.kernels.push_back({s.name, s.max_threads, s.synchronises, parameters_of(s)});
    names.push_back(s.name);
  }
  bool found = false;
  try {
    image.file = compile_kernels(sources, &found);
  } catch (const InternalError& e) {
    throw DeviceError({"kernels for the simulator", "do not compile", e.what(), ""}, false);
  }
  return {{.bytes = write_image(image), .kernels = std::move(names), .found = found}};
}

std::vector<driver::KernelImage> NoSimCompiler::compile(std::span<const KernelSource> sources, int) {
  if (sources.empty()) return {};
  throw driver::NoCompiler(
      {"kernels for the simulator", "cannot be compiled: there is no compiler", "", "one"});
}

std::vector<driver::MadeImage> sim_images(std::span<const KernelSource> sources, int arch, bool ptx) {
  std::vector<driver::MadeImage> out;
  for (driver::KernelImage& made : SimCompiler().compile(sources, arch)) {
    out.push_back(
        {std::move(made.bytes), fmt::format("sm_{}", arch), "sim", "simulator", std::move(made.kernels)});
    if (!ptx) continue;
    out.push_back(out.back());
    out.back().arch = fmt::format("compute_{}", arch);
  }
  return out;
}

}  // namespace espalier::target::cuda::sim
