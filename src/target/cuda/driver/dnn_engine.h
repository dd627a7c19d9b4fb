#pragma once
// Which of cuDNN's engines computes a convolution, and with how much workspace. Engines that are not deterministic or sum in less than
// the compute dtype are never taken; TF32 and lower precisions only where the record permits them.
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/object_cache.h"
#include "target/cuda/driver/context.h"
#include "target/cuda/driver/dnn_graph.h"
#include "target/cuda/driver/libraries.h"

namespace espalier::target::cuda::driver {

/// May an engine with these notes compute `call`?
bool dnn_notes_permit(const ConvCall& call, std::span<const DnnNote> notes);

/// Figures of an H200 as cuDNN wants them: with those it plans where no GPU is.
extern const std::string_view dnn_h200_json;

/// A finished choice.
struct DnnPlan {
  DnnObject plan;
  int64_t engine = -1;  ///< cuDNN's number for it; -1 in a plan that was restored
  int64_t workspace = 0;
  std::vector<DnnNote> notes;
  /// The plan as text, from which DnnPlanner::restore() makes it again.
  std::string json() const { return plan.get_text(DnnAttribute::plan_json); }
};

/// What a plan of `espalier tune` calls the choice: "2:7" is the third, of engine 7.
std::string dnn_name(size_t place, const DnnPlan& plan);

/// Why there is none, in cuDNN's words where it has some.
struct DnnRefusal {
  std::string reason;
};

/// Makes plans for one device. Not for several threads at once.
class DnnPlanner {
 public:
  /// For the device of `handle`.
  DnnPlanner(const DnnApi& api, DnnHandle handle) : api_(api), handle_(handle) {}
  /// For a device that is described, which need not be there. DnnError: cuDNN is older than 9.8 or does not know such a device.
  DnnPlanner(const DnnApi& api, std::string_view device_json);

  /// Choices of cuDNN's heuristics that are permitted and take at most the record's workspace, the best first, at most so many of them and
  /// at least one.
  std::variant<std::vector<DnnPlan>, DnnRefusal> choices(const ConvCall& call, int most) const;
  /// The first of them, or that of a name: dnn_name() of it and of its place among the choices with at most choice_workspace bytes.
  std::variant<DnnPlan, DnnRefusal> plan(const ConvCall& call, std::string_view name = {}) const;
  /// A plan from its text, made by the same version for such a device.
  std::variant<DnnPlan, DnnRefusal> restore(std::string_view json) const;

 private:
  struct Search;
  void search(const ConvCall& call, const DnnObject& graph, DnnHeuristics mode, Search& seen) const;
  DnnObject new_plan(DnnAttribute from, const DnnObject* config, std::string_view json) const;

  const DnnApi& api_;
  DnnHandle handle_ = nullptr;
  std::optional<DnnObject> device_;
};

/// cuDNN for the device of a context. Safe from any thread. Equal records share a plan. Plans are kept on disk, as cuDNN's own text, under the
/// record, the kind of device and cuDNN's version: a text that cuDNN does not take is counted as corrupt, and the plan is made anew.
class DnnLibrary {
 public:
  /// `plans` null: nothing is kept on disk. DeviceError where cuDNN does not come up there.
  DnnLibrary(std::shared_ptr<const Context> context, const DnnApi& api, ObjectCache* plans);
  ~DnnLibrary();
  DnnLibrary(const DnnLibrary&) = delete;
  DnnLibrary& operator=(const DnnLibrary&) = delete;

  std::string version() const { return library_version(api_.GetVersion()); }
  /// What DnnPlanner takes to plan for this device where it is not. DeviceError: cuDNN is older than 9.8.
  std::string device_json() const;
  /// What cuDNN says of a record; the plan it makes for that is kept until plan() asks for it.
  LibraryAnswer ask(const ConvCall& call, std::string_view name = {}) const;
  /// DeviceError with cuDNN's words where it has no plan. `name`: as DnnPlanner::plan() has it.
  std::shared_ptr<const DnnPlan> plan(const ConvCall& call, std::string_view name = {}) const;
  /// The names of cuDNN's choices, the best first, at most so many; none where it has none.
  std::vector<std::string> choices(const ConvCall& call, int most) const;
  /// Put a plan of `call` into the stream; `operands` as ConvCall says.
  void enqueue(const ConvCall& call, const DnnPlan& plan, std::span<const Address> operands,
               CuStream stream) const;
  /// The object cache's key of a record's plan; its workspace is no part of it.
  std::string key_of(const ConvCall& call, std::string_view name = {}) const;

 private:
  using Found = std::variant<std::shared_ptr<const DnnPlan>, DnnRefusal>;
  Found find(const ConvCall& call, std::string_view name, bool load) const;
  Found restore_or_make(const ConvCall& call, std::string_view name) const;
  DnnPlanner planner_without_stream() const;
  std::shared_ptr<const DnnPlan> shared(DnnPlan plan) const;
  [[noreturn]] void fail(std::string_view what, std::string_view why) const;

  const std::shared_ptr<const Context> context_;
  const DnnApi& api_;
  ObjectCache* const cache_;
  DnnHandle handle_ = nullptr;  // has one stream at a time
  // Shared with plans; the last owner of one may let it go within a call.
  const std::shared_ptr<std::recursive_mutex> one_ = std::make_shared<std::recursive_mutex>();
  struct Kept {
    std::shared_ptr<const DnnPlan> asked;  // and not yet loaded
    std::weak_ptr<const DnnPlan> loaded;
  };
  mutable std::map<std::string, Kept> plans_;  // by key
};

/// Gives the functions of cuDNN, or throws why there are none.
using FindDnn = std::function<const DnnApi&()>;
/// Those that are found on this machine. DeviceError with the reason where there are none.
const DnnApi& find_dnn(Libraries& libraries);

/// The library of a device, found and made when it is first asked for.
class LazyDnn {
 public:
  LazyDnn(std::shared_ptr<const Context> context, FindDnn find, ObjectCache* plans)
      : context_(std::move(context)), find_(std::move(find)), plans_(plans) {}
  /// What find_dnn() throws, or DeviceError where cuDNN does not come up on the device.
  std::shared_ptr<const DnnLibrary> get();

 private:
  const std::shared_ptr<const Context> context_;
  const FindDnn find_;
  ObjectCache* const plans_;
  std::mutex one_;
  std::shared_ptr<const DnnLibrary> made_;
};

}  // namespace espalier::target::cuda::driver
