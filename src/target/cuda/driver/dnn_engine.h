#pragma once
// Which of cuDNN's engines computes a convolution, and with how much workspace. Engines that are not deterministic or sum in less than
// the compute dtype are never taken; TF32 and lower precisions only where the record permits them.
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

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

  /// The first choice of cuDNN's heuristics that is permitted and takes at most the record's workspace.
  std::variant<DnnPlan, DnnRefusal> plan(const ConvCall& call) const;
  /// A plan from its text, made by the same version for such a device.
  std::variant<DnnPlan, DnnRefusal> restore(std::string_view json) const;

 private:
  struct Search;
  std::optional<DnnPlan> search(const ConvCall& call, const DnnObject& graph, DnnHeuristics mode,
                                Search& seen) const;
  DnnObject new_plan(DnnAttribute from, const DnnObject* config, std::string_view json) const;

  const DnnApi& api_;
  DnnHandle handle_ = nullptr;
  std::optional<DnnObject> device_;
};

/// cuDNN for the device of a context. Safe from any thread.
class DnnLibrary {
 public:
  /// DeviceError where cuDNN does not come up there.
  DnnLibrary(std::shared_ptr<const Context> context, const DnnApi& api);
  ~DnnLibrary();
  DnnLibrary(const DnnLibrary&) = delete;
  DnnLibrary& operator=(const DnnLibrary&) = delete;

  /// DeviceError with cuDNN's words where it has no plan.
  DnnPlan plan(const ConvCall& call) const;
  /// Put a plan of `call` into the stream; `operands` as ConvCall says.
  void enqueue(const ConvCall& call, const DnnPlan& plan, std::span<const Address> operands,
               CuStream stream) const;

 private:
  [[noreturn]] void fail(std::string_view what, std::string_view why) const;

  const std::shared_ptr<const Context> context_;
  const DnnApi& api_;
  DnnHandle handle_ = nullptr;
  mutable std::mutex one_;  // a handle has one stream at a time
};

/// Gives the functions of cuDNN, or throws why there are none.
using FindDnn = std::function<const DnnApi&()>;
/// Those that are found on this machine. DeviceError with the reason where there are none.
const DnnApi& find_dnn(Libraries& libraries);

/// The library of a device, found and made when it is first asked for.
class LazyDnn {
 public:
  LazyDnn(std::shared_ptr<const Context> context, FindDnn find)
      : context_(std::move(context)), find_(std::move(find)) {}
  /// What find_dnn() throws, or DeviceError where cuDNN does not come up on the device.
  std::shared_ptr<const DnnLibrary> get();

 private:
  const std::shared_ptr<const Context> context_;
  const FindDnn find_;
  std::mutex one_;
  std::shared_ptr<const DnnLibrary> made_;
};

}  // namespace espalier::target::cuda::driver
