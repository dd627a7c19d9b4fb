#include "target/cuda/driver/dnn_engine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"
#include "target/choices.h"
#include "target/cuda/plugin_build.h"

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

namespace {

template <class Note>
std::vector<Note> notes_of(const DnnObject& engine, DnnAttribute name, DnnType type) {
  std::vector<Note> notes(dnn_notes_most);
  notes.resize(static_cast<size_t>(engine.get(name, type, dnn_notes_most, notes.data())));
  return notes;
}

/// Does the engine want the filter or the bias in an order that only cuDNN's own reordering makes?
bool wants_reordered(const DnnObject& engine) {
  const auto notes = notes_of<DnnBehaviour>(engine, A::engine_behaviour_notes, DnnType::behaviour_note);
  return std::any_of(notes.begin(), notes.end(), [](DnnBehaviour n) {
    return n == DnnBehaviour::reordered_filter || n == DnnBehaviour::reordered_bias;
  });
}

}  // namespace

/// What was found, and what was looked at, for the reason of a refusal.
struct DnnPlanner::Search {
  size_t most;
  std::vector<DnnPlan> found{};
  int configs = 0, by_notes = 0, by_order = 0, by_workspace = 0;
  int64_t least_workspace = -1;
  std::string error{};  ///< the first

  std::string reason() const {
    if (configs == 0) return error.empty() ? "it has no engine for it" : error;
    std::string text = fmt::format("none of its {} configurations serves", configs);
    if (by_notes) text += fmt::format("; {} are not precise or not deterministic", by_notes);
    if (by_order) text += fmt::format("; {} want reordered operands", by_order);
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

void DnnPlanner::search(const ConvCall& call, const DnnObject& graph, DnnHeuristics mode,
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
  for (int64_t i = 0; i < count && seen.found.size() < seen.most; ++i) {
    const DnnObject& config = configs[static_cast<size_t>(i)];
    ++seen.configs;
    try {
      const DnnObject engine(api_, DnnKind::engine);
      DnnDescriptor place = engine.get();
      config.get(A::config_engine, DnnType::descriptor, 1, &place);
      auto notes = notes_of<DnnNote>(engine, A::engine_numerical_notes, DnnType::numerical_note);
      if (!dnn_notes_permit(call, notes)) {
        ++seen.by_notes;
        continue;
      }
      if (wants_reordered(engine)) {
        ++seen.by_order;
        continue;
      }
      DnnPlan made{.plan = new_plan(A::plan_config, &config, {}),
                   .engine = engine.get_int64(A::engine_index),
                   .workspace = 0,
                   .notes = std::move(notes)};
      made.workspace = made.plan.get_int64(A::plan_workspace);
      if (made.workspace <= call.workspace) {
        seen.found.push_back(std::move(made));
        continue;
      }
      ++seen.by_workspace;
      if (seen.least_workspace < 0 || made.workspace < seen.least_workspace)
        seen.least_workspace = made.workspace;
    } catch (const DnnError& e) {
      if (seen.error.empty()) seen.error = e.what();
    }
  }
}

std::variant<std::vector<DnnPlan>, DnnRefusal> DnnPlanner::choices(const ConvCall& call, int most) const {
  Search seen{.most = static_cast<size_t>(most)};
  try {
    const DnnObject graph = conv_graph(api_, call, handle_);
    for (const DnnHeuristics mode : {DnnHeuristics::best, DnnHeuristics::fallback})
      if (seen.found.size() < seen.most) search(call, graph, mode, seen);
  } catch (const DnnError& e) {
    if (seen.error.empty()) seen.error = e.what();
  }
  if (seen.found.empty()) return DnnRefusal{seen.reason()};
  return std::move(seen.found);
}

std::string dnn_name(size_t place, const DnnPlan& plan) { return fmt::format("{}:{}", place, plan.engine); }

std::variant<DnnPlan, DnnRefusal> DnnPlanner::plan(const ConvCall& call, std::string_view name) const {
  constexpr size_t most_choices = 256;
  const size_t place =
      name.empty() ? 0 : number_of<size_t>(name.substr(0, name.find(':'))).value_or(most_choices);
  if (place >= most_choices) return DnnRefusal{fmt::format("it has no choice {}", name)};
  ConvCall asked = call;
  if (!name.empty()) asked.workspace = std::max(call.workspace, choice_workspace);
  auto made = choices(asked, static_cast<int>(place) + 1);
  if (auto* refusal = std::get_if<DnnRefusal>(&made)) return std::move(*refusal);
  auto& found = std::get<std::vector<DnnPlan>>(made);
  if (found.size() <= place || found[place].workspace > call.workspace ||
      (!name.empty() && dnn_name(place, found[place]) != name))
    return DnnRefusal{
        fmt::format("it has no choice {} with at most {} bytes of workspace", name, call.workspace)};
  return std::move(found[place]);
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

DnnLibrary::DnnLibrary(std::shared_ptr<const Context> context, const DnnApi& api, ObjectCache* plans)
    : context_(std::move(context)), api_(api), cache_(plans) {
  const Context::Current now(*context_, "cudnnCreate");
  if (const DnnStatus status = api_.Create(&handle_); status != dnn_success)
    fail("cudnnCreate", api_.GetErrorString(status));
}

DnnLibrary::~DnnLibrary() {
  CuResult ignored = cu_success;
  const Context::Current now(*context_, ignored);
  plans_.clear();
  api_.Destroy(handle_);
}

void DnnLibrary::fail(std::string_view what, std::string_view why) const {
  throw DeviceError({.where = fmt::format("{}, cuDNN", context_->device_name()),
                     .problem = fmt::format("{}: {}", what, why),
                     .got = "",
                     .allowed = ""},
                    false);
}

std::string DnnLibrary::key_of(const ConvCall& call, std::string_view name) const {
  std::vector<int64_t> record{static_cast<int64_t>(call.direction), call.spatial, call.tf32, call.exact,
                              static_cast<int64_t>(call.compute),   call.groups};
  const auto add = [&](const auto& all) { record.insert(record.end(), all.begin(), all.end()); };
  for (const ConvTensor* t : {&call.x, &call.w, &call.y}) {
    record.push_back(static_cast<int64_t>(t->dtype));
    add(t->dims);
    add(t->strides);
  }
  for (const auto* axes : {&call.stride, &call.pad_low, &call.pad_high, &call.dilation}) add(*axes);
  for (int i = 0; i < call.step_count; ++i)
    record.push_back(static_cast<int64_t>(call.steps[static_cast<size_t>(i)]));
  // These numbers, and which operand is which in the graph, are those of this build.
  return fmt::format("plan{}{} of cudnn {} for {} by {}\n{}", name.empty() ? "" : " ", name, version(),
                     context_->kind(), plugin_build(), fmt::join(record, " "));
}

DnnLibrary::Found DnnLibrary::find(const ConvCall& call, std::string_view name, bool load) const {
  const Context::Current now(*context_, "cudnnBackendFinalize");
  const std::lock_guard lock(*one_);
  const std::string key = key_of(call, name);
  std::shared_ptr<const DnnPlan> plan;
  if (const auto kept = plans_.find(key); kept != plans_.end())
    plan = kept->second.asked ? kept->second.asked : kept->second.loaded.lock();
  if (!plan || plan->workspace > call.workspace) {
    Found found = restore_or_make(call, name);
    if (std::holds_alternative<DnnRefusal>(found)) return found;
    plan = std::get<std::shared_ptr<const DnnPlan>>(found);
  }
  plans_.insert_or_assign(key, Kept{.asked = load ? nullptr : plan, .loaded = plan});
  return plan;
}

DnnLibrary::Found DnnLibrary::restore_or_make(const ConvCall& call, std::string_view name) const {
  const DnnPlanner planner = planner_without_stream();
  const std::string key = key_of(call, name);
  if (const std::optional<std::string> json = cache_ ? cache_->find(key) : std::nullopt) {
    auto restored = planner.restore(*json);
    auto* const plan = std::get_if<DnnPlan>(&restored);
    if (plan && plan->workspace <= call.workspace) return shared(std::move(*plan));
    if (!plan) cache_->reject(key);
  }
  auto made = planner.plan(call, name);
  if (auto* refusal = std::get_if<DnnRefusal>(&made)) return std::move(*refusal);
  auto plan = shared(std::get<DnnPlan>(std::move(made)));
  try {
    if (cache_) cache_->store(key, plan->json());
  } catch (const DnnError&) {  // an engine whose plans have no text is not kept
  }
  return plan;
}

/// The handle's last stream may be gone, or be captured by another thread: whoever plans has none.
DnnPlanner DnnLibrary::planner_without_stream() const {
  if (const DnnStatus status = api_.SetStream(handle_, nullptr); status != dnn_success)
    fail("cudnnSetStream", api_.GetErrorString(status));
  return {api_, handle_};
}

/// A plan that is destroyed as the library's calls are made: with the context current, one at a time. It may outlive the library.
std::shared_ptr<const DnnPlan> DnnLibrary::shared(DnnPlan plan) const {
  return {new DnnPlan(std::move(plan)), [context = context_, one = one_](const DnnPlan* last) {
            CuResult ignored = cu_success;
            const Context::Current now(*context, ignored);
            const std::lock_guard lock(*one);
            delete last;
          }};
}

std::string DnnLibrary::device_json() const {
  const Context::Current now(*context_, "cudnnBackendFinalize");
  const std::lock_guard lock(*one_);
  try {
    DnnObject device(api_, DnnKind::device);
    device.set(A::device_handle, handle_).finalize();
    return device.get_text(A::device_json);
  } catch (const DnnError& e) {
    fail("the device's figures", e.what());
  }
}

LibraryAnswer DnnLibrary::ask(const ConvCall& call, std::string_view name) const {
  Found found = find(call, name, false);
  if (auto* refusal = std::get_if<DnnRefusal>(&found)) return {.refusal = std::move(refusal->reason)};
  return {.workspace = std::get<std::shared_ptr<const DnnPlan>>(found)->workspace};
}

std::shared_ptr<const DnnPlan> DnnLibrary::plan(const ConvCall& call, std::string_view name) const {
  Found found = find(call, name, true);
  if (const auto* refusal = std::get_if<DnnRefusal>(&found)) fail(dims_text(call), refusal->reason);
  return std::get<std::shared_ptr<const DnnPlan>>(std::move(found));
}

std::vector<std::string> DnnLibrary::choices(const ConvCall& call, int most) const {
  const Context::Current now(*context_, "cudnnBackendFinalize");
  const std::lock_guard lock(*one_);
  auto made = planner_without_stream().choices(call, most);
  std::vector<std::string> names;
  if (const auto* found = std::get_if<std::vector<DnnPlan>>(&made))
    for (size_t i = 0; i < found->size(); ++i) names.push_back(dnn_name(i, (*found)[i]));
  return names;
}

void DnnLibrary::enqueue(const ConvCall& call, const DnnPlan& plan, std::span<const Address> operands,
                         CuStream stream) const {
  const Context::Current now(*context_, "cudnnBackendExecute");
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
    const std::lock_guard lock(*one_);
    // Always: a new stream may have the address of one that is gone.
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
                       .problem = "there is no cuDNN, and a convolution needs it",
                       .got = dnn.report.reason,
                       .allowed = "a place where it is found; `espalier devices` shows what was tried"},
                      false);
  return *dnn.api;
}

std::shared_ptr<const DnnLibrary> LazyDnn::get() {
  const std::lock_guard lock(one_);
  if (!made_) made_ = std::make_shared<const DnnLibrary>(context_, find_(), plans_);
  return made_;
}

}  // namespace espalier::target::cuda::driver
