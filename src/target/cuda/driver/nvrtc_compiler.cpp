#include "target/cuda/driver/nvrtc_compiler.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "base/text.h"
#include "target/device.h"

namespace espalier::target::cuda::driver {

namespace {

std::string bytes_of(const NvrtcApi& nvrtc, NvrtcProgram program,
                     int (*NvrtcApi::*size)(NvrtcProgram, size_t*),
                     int (*NvrtcApi::*get)(NvrtcProgram, char*)) {
  size_t n = 0;
  if ((nvrtc.*size)(program, &n) != 0) return "";
  std::string out(n, '\0');
  return n > 0 && (nvrtc.*get)(program, out.data()) == 0 ? out : "";
}

/// Text of the compiler ends with a zero byte of its own.
std::string text_of(std::string bytes) {
  while (!bytes.empty() && bytes.back() == '\0') bytes.pop_back();
  return bytes;
}

/// Is it the beginning of what cuModuleLoadData() takes, a cubin or PTX?
bool is_image(const std::string& bytes) {
  return bytes.starts_with(
             "\x7f"
             "ELF") ||
         bytes.find(".version") != std::string::npos;
}

std::vector<int> known_archs(const NvrtcApi& nvrtc) {
  int n = 0;
  if (nvrtc.GetNumSupportedArchs(&n) != 0) return {};
  std::vector<int> out(static_cast<size_t>(n));
  if (nvrtc.GetSupportedArchs(out.data()) != 0) return {};
  return out;
}

/// Do `work(i)` for every i below `n` on as many threads as there are processors; the first exception is thrown on.
template <class Work>
void in_parallel(size_t n, const Work& work) {
  std::atomic<size_t> next{0};
  std::mutex failing;
  std::exception_ptr failure;
  const auto run = [&] {
    for (size_t i = next++; i < n; i = next++) try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(failing);
        if (!failure) failure = std::current_exception();
        next = n;
      }
  };
  std::vector<std::thread> threads;
  const size_t wanted = std::min<size_t>(n, std::max(1u, std::thread::hardware_concurrency()));
  for (size_t t = 1; t < wanted; ++t) threads.emplace_back(run);
  run();
  for (std::thread& t : threads) t.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

NvrtcOutput run_nvrtc(const NvrtcApi& nvrtc, const std::string& text, std::span<const std::string> options) {
  NvrtcOutput out;
  NvrtcProgram program = nullptr;
  if (const int error = nvrtc.CreateProgram(&program, text.c_str(), "kernel.cu", 0, nullptr, nullptr);
      error != 0) {
    out.log = fmt::format("nvrtcCreateProgram fails with {}", error);
    return out;
  }
  std::vector<const char*> flags;
  for (const std::string& o : options) flags.push_back(o.c_str());
  const int error = nvrtc.CompileProgram(program, static_cast<int>(flags.size()), flags.data());
  out.compiled = error == 0;
  out.log = text_of(bytes_of(nvrtc, program, &NvrtcApi::GetProgramLogSize, &NvrtcApi::GetProgramLog));
  if (!out.compiled && out.log.empty()) out.log = fmt::format("nvrtcCompileProgram fails with {}", error);
  if (out.compiled) {
    out.cubin = bytes_of(nvrtc, program, &NvrtcApi::GetCUBINSize, &NvrtcApi::GetCUBIN);
    out.ptx = text_of(bytes_of(nvrtc, program, &NvrtcApi::GetPTXSize, &NvrtcApi::GetPTX));
  }
  nvrtc.DestroyProgram(&program);
  return out;
}

std::string nvrtc_arch(std::span<const int> known, int capability) {
  int best = 0;
  for (const int arch : known)
    if (arch <= capability) best = std::max(best, arch);
  if (best == 0) return "";
  // Code for one architecture runs on later ones of the same major version; others need the driver's compiler.
  return fmt::format("{}_{}", best / 10 == capability / 10 ? "sm" : "compute", best);
}

NvrtcCompiler::NvrtcCompiler(Libraries& libraries, KernelTexts texts, ObjectCache& cache)
    : libraries_(libraries),
      texts_(std::move(texts)),
      header_hash_(fmt::format("{:016x}", hash_text(texts_.header))),
      cache_(cache) {}

KernelImage NvrtcCompiler::image_of(const NvrtcApi& nvrtc, const std::string& version,
                                    const std::string& arch, const KernelSource& source) const {
  std::vector<std::string> options = texts_.options;
  options.push_back("-arch=" + arch);
  const std::string key =
      fmt::format("nvrtc {}\n{}\nheader {}\n{}", version, join(options, " "), header_hash_, source.text);
  if (std::optional<std::string> kept = cache_.find(key)) {
    if (is_image(*kept)) return {.bytes = *std::move(kept), .kernels = {source.name}, .found = true};
    cache_.reject(key);
  }
  const NvrtcOutput made = run_nvrtc(nvrtc, texts_.header + source.text, options);
  const std::string& image = arch.starts_with("sm") ? made.cubin : made.ptx;
  if (!made.compiled || !is_image(image))
    throw DeviceError({fmt::format("kernel {} for {}", source.name, arch),
                       fmt::format("NVRTC {} does not compile it", version), made.log, ""},
                      false);
  cache_.store(key, image);
  return {.bytes = image, .kernels = {source.name}, .found = false};
}

std::vector<KernelImage> NvrtcCompiler::compile(std::span<const KernelSource> sources, int capability) {
  if (sources.empty()) return {};
  const Loaded<NvrtcApi>& nvrtc = libraries_.nvrtc();
  if (!nvrtc.api)
    throw NoCompiler({"kernels for a GPU", "cannot be compiled: there is no NVRTC", nvrtc.report.reason,
                      "a CUDA toolkit's folder in ESPALIER_CUDA_PATH"});
  const std::string arch = nvrtc_arch(known_archs(*nvrtc.api), capability);
  if (arch.empty())
    throw NoCompiler({fmt::format("kernels for a GPU of compute capability {}", capability),
                      fmt::format("NVRTC {} does not know it", nvrtc.report.version), "",
                      "another version of NVRTC"});
  std::vector<KernelImage> images(sources.size());
  in_parallel(sources.size(),
              [&](size_t i) { images[i] = image_of(*nvrtc.api, nvrtc.report.version, arch, sources[i]); });
  return images;
}

std::vector<MadeImage> nvrtc_images(Libraries& libraries, const KernelTexts& texts,
                                    std::span<const KernelSource> sources, int arch, bool ptx) {
  const Loaded<NvrtcApi>& nvrtc = libraries.nvrtc();
  if (!nvrtc.api)
    throw UserError({"kernel images", "cannot be made: there is no NVRTC", nvrtc.report.reason,
                     "a CUDA toolkit's folder in ESPALIER_CUDA_PATH"});
  const std::vector<int> known = known_archs(*nvrtc.api);
  if (std::find(known.begin(), known.end(), arch) == known.end())
    throw UserError({fmt::format("--arch {}", arch),
                     fmt::format("NVRTC {} does not know it", nvrtc.report.version), "",
                     fmt::format("{}", fmt::join(known, ", "))});
  const std::string name = fmt::format("sm_{}", arch), later = fmt::format("compute_{}", arch),
                    compiler = "nvrtc " + nvrtc.report.version;
  std::vector<std::string> options = texts.options;
  options.push_back("-arch=" + name);
  std::vector<MadeImage> made(ptx ? 2 * sources.size() : sources.size());
  in_parallel(sources.size(), [&](size_t i) {
    NvrtcOutput out = run_nvrtc(*nvrtc.api, texts.header + sources[i].text, options);
    if (!out.compiled || !is_image(out.cubin) || !is_image(out.ptx))
      throw UserError({fmt::format("kernel {} for {}", sources[i].name, name),
                       fmt::format("NVRTC {} does not compile it", nvrtc.report.version), out.log, ""});
    const auto image = [&](const std::string& of, const char* kind, std::string bytes) {
      return MadeImage{std::move(bytes), of, kind, compiler, {sources[i].name}};
    };
    made[i] = image(name, "cubin", std::move(out.cubin));
    if (ptx) made[sources.size() + i] = image(later, "ptx", std::move(out.ptx));
  });
  return made;
}

}  // namespace espalier::target::cuda::driver
