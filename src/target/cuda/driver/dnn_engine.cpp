#include "target/cuda/driver/dnn_engine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace espalier::target::cuda::driver {

using A = DnnAttribute;

const std::string_view dnn_h200_json =
    R"({"cudaDeviceId":0,"deviceVer":900,"driverVer":13000,"maxGridSize":[2147483647,65535,65535],)"
    R"("maxBlockSize":[1024,1024,64],"regsPerBlock":65536,"multiProcessorCount":132,"warpSize":32,)"
    R"("maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":232448,"reservedSharedMemoryPerBlock":1024,)"
    R"("maxRegistersPerSM":65536,"maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,)"
    R"("pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,"smClockRateKHz":1980000,"memClockRateKHz":3201000,)"
    R"("l2CacheSize":62914560,"deviceName":"NVIDIA H200","totalGlobalMem":150754820096})";

bool dnn_notes_permit(const ConvCall& call, std::span<const DnnNote> notes) {
  const bool f32 =
      call.x.dtype == ir::Dtype::f32 && call.w.dtype == ir::Dtype::f32 && call.y.dtype == ir::Dtype::f32;
  return std::none_of(notes.begin(), notes.end(), [&](DnnNote n) {
    switch (n) {
      case DnnNote::nondeterministic:
      case DnnNote::reduced_precision_reduction: return true;
      case DnnNote::down_convert_inputs: return !call.tf32;
      case DnnNote::tensor_core: return f32 && !call.tf32;
      case DnnNote::fft:
      case DnnNote::winograd:
      case DnnNote::winograd_4x4:
      case DnnNote::winograd_6x6:
      case DnnNote::winograd_13x13: return call.exact;
      case DnnNote::strict_nan: break;
    }
    return false;
  });
}

/// What was looked at, for the reason of a refusal.
struct DnnPlanner::Search {
  int configs = 0, by_notes = 0, by_workspace = 0;
  int64_t least_workspace = -1;
  std::string error;  ///< the first

  std::string reason() const {
    if (configs == 0) return error.empty() ? "it has no engine for it" : error;
    std::string text = fmt::format("none of its {} configurations serves", configs);
    if (by_notes) text += fmt::format("; {} are not precise or not deterministic", by_notes);
    if (by_workspace)
      text += fmt::format("; {} want {} bytes of workspace or more", by_workspace, least_workspace);
    return error.empty() ? text : text + "; " + error;
  }
};

DnnPlanner::DnnPlanner(const DnnApi& api, std::string_view device_json) : api_(api) {
  device_.emplace(api, DnnKind::device);
  device_->set(A::device_json, device_json).finalize();
}

DnnObject DnnPlanner::new_plan(DnnAttribute from, const DnnObject* config, std::string_view json) const {
  DnnObject plan(api_, DnnKind::plan);
  if (handle_) plan.set(A::plan_handle, handle_);
  else plan.set(A::plan_device, *device_);
  if (config) plan.set(from, *config);
  else plan.set(from, json);
  plan.finalize();
  return plan;
}

std::optional<DnnPlan> DnnPlanner::search(const ConvCall& call, const DnnObject& graph, DnnHeuristics mode,
                                          Search& seen) const {
  DnnObject heuristics(api_, DnnKind::heuristics);
  heuristics.set(A::heuristics_graph, graph).set(A::heuristics_mode, DnnType::heuristics_mode, 1, &mode);
  if (device_) heuristics.set(A::heuristics_device, *device_);
  heuristics.finalize();
  std::vector<DnnObject> configs;
  std::vector<DnnDescriptor> places;
  for (int64_t n = heuristics.count(A::heuristics_results, DnnType::descriptor); n > 0; --n) {
    configs.emplace_back(api_, DnnKind::engine_config);
    places.push_back(configs.back().get());
  }
  const int64_t count = places.empty() ? 0
                                       : heuristics.get(A::heuristics_results, DnnType::descriptor,
                                                        static_cast<int64_t>(places.size()), places.data());
  for (int64_t i = 0; i < count; ++i) {
    const DnnObject& config = configs[static_cast<size_t>(i)];
    ++seen.configs;
    try {
      const DnnObject engine(api_, DnnKind::engine);
      DnnDescriptor place = engine.get();
      config.get(A::config_engine, DnnType::descriptor, 1, &place);
      std::vector<DnnNote> notes(dnn_notes_most);
      notes.resize(static_cast<size_t>(
          engine.get(A::engine_numerical_notes, DnnType::numerical_note, dnn_notes_most, notes.data())));
      if (!dnn_notes_permit(call, notes)) {
        ++seen.by_notes;
        continue;
      }
      DnnPlan made{.plan = new_plan(A::plan_config, &config, {}),
                   .engine = engine.get_int64(A::engine_index),
                   .workspace = 0,
                   .notes = std::move(notes)};
      made.workspace = made.plan.get_int64(A::plan_workspace);
      if (made.workspace <= call.workspace) return made;
      ++seen.by_workspace;
      if (seen.least_workspace < 0 || made.workspace < seen.least_workspace)
        seen.least_workspace = made.workspace;
    } catch (const DnnError& e) {
      if (seen.error.empty()) seen.error = e.what();
    }
  }
  return std::nullopt;
}

std::variant<DnnPlan, DnnRefusal> DnnPlanner::plan(const ConvCall& call) const {
  Search seen;
  try {
    const DnnObject graph = conv_graph(api_, call, handle_);
    for (const DnnHeuristics mode : {DnnHeuristics::best, DnnHeuristics::fallback})
      if (auto found = search(call, graph, mode, seen)) return std::move(*found);
  } catch (const DnnError& e) {
    if (seen.error.empty()) seen.error = e.what();
  }
  return DnnRefusal{seen.reason()};
}

std::variant<DnnPlan, DnnRefusal> DnnPlanner::restore(std::string_view json) const {
  try {
    DnnPlan made{.plan = new_plan(A::plan_json, nullptr, json), .engine = -1, .workspace = 0, .notes = {}};
    made.workspace = made.plan.get_int64(A::plan_workspace);
    return made;
  } catch (const DnnError& e) {
    return DnnRefusal{e.what()};
  }
}

// ---- on a device -----------------------------------------------------------------------------------------------------

namespace {

/// "convolution x 2,8,7,6 w 12,8,3,3 y 2,12,5,4".
std::string dims_text(const ConvCall& call) {
  const auto first = [&](const ConvTensor& t) {
    return fmt::join(t.dims.begin(), t.dims.begin() + call.spatial + 2, ",");
  };
  return fmt::format("convolution x {} w {} y {}", first(call.x), first(call.w), first(call.y));
}

}  // namespace

DnnLibrary::DnnLibrary(std::shared_ptr<const Context> context, const DnnApi& api)
    : context_(std::move(context)), api_(api) {
  context_->enter("cudnnCreate");
  if (const DnnStatus status = api_.Create(&handle_); status != dnn_success)
    fail("cudnnCreate", api_.GetErrorString(status));
}

DnnLibrary::~DnnLibrary() { api_.Destroy(handle_); }

void DnnLibrary::fail(std::string_view what, std::string_view why) const {
  throw DeviceError({.where = fmt::format("{}, cuDNN", context_->device_name()),
                     .problem = fmt::format("{}: {}", what, why),
                     .got = "",
                     .allowed = ""},
                    false);
}

DnnPlan DnnLibrary::plan(const ConvCall& call) const {
  context_->enter("cudnnBackendFinalize");
  const std::lock_guard lock(one_);
  auto made = DnnPlanner(api_, handle_).plan(call);
  if (const auto* refusal = std::get_if<DnnRefusal>(&made)) fail(dims_text(call), refusal->reason);
  return std::get<DnnPlan>(std::move(made));
}

void DnnLibrary::enqueue(const ConvCall& call, const DnnPlan& plan, std::span<const Address> operands,
                         CuStream stream) const {
  context_->enter("cudnnBackendExecute");
  const int tensors = conv_operands(call) - (call.workspace > 0);
  std::vector<int64_t> ids;
  for (int i = 0; i < tensors; ++i) ids.push_back(dnn_tensor_id(i));
  const Address workspace = plan.workspace > 0 ? operands[static_cast<size_t>(tensors)] : 0;
  try {
    DnnObject pack(api_, DnnKind::variant_pack);
    pack.set(A::pack_ids, ids)
        .set(A::pack_pointers, DnnType::pointer, tensors, operands.data())
        .set(A::pack_workspace, DnnType::pointer, 1, &workspace)
        .finalize();
    const std::lock_guard lock(one_);
    DnnStatus status = api_.SetStream(handle_, stream);
    if (status == dnn_success) status = api_.BackendExecute(handle_, plan.plan.get(), pack.get());
    if (status != dnn_success) throw DnnError(api_, "cudnnBackendExecute", status);
  } catch (const DnnError& e) {
    fail(dims_text(call), e.what());
  }
}

const DnnApi& find_dnn(Libraries& libraries) {
  const Loaded<DnnApi>& dnn = libraries.dnn();
  if (!dnn.api)
    throw DeviceError({.where = "cuDNN",
                       .problem = "a convolution needs it and it cannot be used",
                       .got = dnn.report.reason,
                       .allowed = "a place where it is found; `espalier devices` shows what was tried"},
                      false);
  return *dnn.api;
}

std::shared_ptr<const DnnLibrary> LazyDnn::get() {
  const std::lock_guard lock(one_);
  if (!made_) made_ = std::make_shared<const DnnLibrary>(context_, find_());
  return made_;
}

}  // namespace espalier::target::cuda::driver
