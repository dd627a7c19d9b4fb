#pragma once
// Kernels that are written by hand: a pattern in the port's language, in which $words stand for what depends on the node.
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "target/call.h"

namespace espalier::target::cuda {

struct Word {
  std::string_view name;  ///< as in the pattern, without its "$"
  std::string text;
};

/// `pattern` with each "$name" replaced; InternalError for a name that is not among `words`.
std::string filled(std::string_view pattern, std::initializer_list<Word> words);

/// The kernel whose parameters and body are `entry` ("(const float* x, ...) {...}"), named "NAME_HASH" by its text. Large: one that needs
/// many registers.
KernelSource kernel_source(std::string_view name, const std::string& entry, int threads, bool synchronises,
                           bool large = false);

/// A launch of `source` by so many threads in all, in whole blocks of its size.
KernelCall launch_of(const KernelSource& source, int64_t threads);

}  // namespace espalier::target::cuda
