#include "target/cuda/kernels/pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/text.h"

namespace espalier::target::cuda {

std::string filled(std::string_view pattern, std::initializer_list<Word> words) {
  std::string out;
  for (size_t at = 0; at < pattern.size();) {
    if (pattern[at] != '$') {
      out += pattern[at++];
      continue;
    }
    size_t end = at + 1;
    while (end < pattern.size() &&
           (std::isalnum(static_cast<unsigned char>(pattern[end])) || pattern[end] == '_'))
      ++end;
    const std::string_view name = pattern.substr(at + 1, end - at - 1);
    const auto word = std::find_if(words.begin(), words.end(), [&](const Word& w) { return w.name == name; });
    ESPALIER_CHECK(word != words.end(), "a kernel's pattern asks for " + std::string(name));
    out += word->text;
    at = end;
  }
  return out;
}

KernelSource kernel_source(std::string_view name, const std::string& entry, int threads, bool synchronises,
                           bool large) {
  KernelSource out;
  out.name = fmt::format("{}_{:016x}", name, hash_text(entry));
  out.text = fmt::format("K_KERNEL{}({}, {})", large ? "_LARGE" : "", out.name, threads) + entry;
  out.max_threads = threads;
  out.synchronises = synchronises;
  return out;
}

KernelCall launch_of(const KernelSource& source, int64_t threads) {
  const int64_t blocks = (threads + source.max_threads - 1) / source.max_threads;
  ESPALIER_CHECK(blocks <= 0x7fffffff, "more blocks than a launch has");
  return {source.name, {static_cast<uint32_t>(blocks)}, {static_cast<uint32_t>(source.max_threads)}};
}

}  // namespace espalier::target::cuda
