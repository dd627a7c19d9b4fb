#pragma once
// The GPUs and NVIDIA's libraries, for `espalier devices`.
#include <nlohmann/json.hpp>
#include <string>

#include "target/cuda/plugin.h"

namespace espalier::tool {

/// {"gpus": [...], "cuda": {...}} as docs/devices.schema.json describes it; what is unavailable is null.
nlohmann::json cuda_json(const target::cuda::CudaReport& report, const target::cuda::Plugin& plugin);

/// The same for people, in lines.
std::string cuda_text(const target::cuda::CudaReport& report, const target::cuda::Plugin& plugin);

}  // namespace espalier::tool
