#include "target/cuda/match/ask.h"

namespace espalier::target::cuda {

LibraryAnswer assume(const CallRecord::Work& work) {
  const auto* const product = std::get_if<GemmCall>(&work);
  return {.workspace = product ? product->workspace : std::get<ConvCall>(work).workspace, .assumed = true};
}

}  // namespace espalier::target::cuda
