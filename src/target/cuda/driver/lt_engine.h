#pragma once
// Matrix products by cuBLASLt, from their records alone.
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "target/cuda/driver/context.h"
#include "target/cuda/driver/libraries.h"
#include "target/device.h"

namespace espalier::target::cuda::driver {

/// The functions of cuBLASLt and a handle of it for the device of a context. Safe from any thread.
class LtLibrary {
 public:
  /// DeviceError where the library has none.
  LtLibrary(std::shared_ptr<const Context> context, const LtApi& api);
  ~LtLibrary();
  LtLibrary(const LtLibrary&) = delete;
  LtLibrary& operator=(const LtLibrary&) = delete;

  const Context& context() const { return *context_; }
  const LtApi& api() const { return api_; }
  LtHandle handle() const { return handle_; }
  std::string version() const { return library_version(api_.GetVersion()); }

 private:
  std::shared_ptr<const Context> context_;
  const LtApi& api_;
  LtHandle handle_ = nullptr;
};

/// Gives the functions of cuBLASLt, or throws why there are none.
using FindLt = std::function<const LtApi&()>;
/// Those that are found on this machine. DeviceError with the reason where there are none.
const LtApi& find_lt(Libraries& libraries);

/// The library of a device, found and made when it is first asked for.
class LazyLt {
 public:
  LazyLt(std::shared_ptr<const Context> context, FindLt find)
      : context_(std::move(context)), find_(std::move(find)) {}
  /// What find_lt() throws, or DeviceError where the library has no use for the device.
  std::shared_ptr<const LtLibrary> get();

 private:
  std::shared_ptr<const Context> context_;
  FindLt find_;
  std::mutex one_;
  std::shared_ptr<const LtLibrary> made_;
};

/// What a record is to cuBLASLt: its descriptors, which need no device.
class LtDescriptors {
 public:
  /// DeviceError where the library does not take a value.
  LtDescriptors(const LtApi& api, const GemmCall& call);
  ~LtDescriptors();
  LtDescriptors(const LtDescriptors&) = delete;
  LtDescriptors& operator=(const LtDescriptors&) = delete;

  LtMatmulDesc desc = nullptr;
  LtMatrixLayout a = nullptr, b = nullptr, d = nullptr;  ///< C lies as D does
  LtMatmulPreference preference = nullptr;

 private:
  LtMatrixLayout layout(const GemmMatrix& m, int64_t rows, int64_t columns, int64_t batch) const;
  void release() noexcept;

  const LtApi& api_;
};

/// The algorithms for a record that the library's heuristic knows, at most so many, the best first; none where the library does not do it.
/// They take at most the workspace of the record. DeviceError: from the library.
std::vector<LtHeuristic> lt_choices(const LtLibrary& library, const LtDescriptors& descriptors, int most);

/// The name of an algorithm in a plan: its bytes, which mean something to the version of the library that gave them.
std::string lt_name(const LtAlgo& algo);

/// What the library says of a record, of its first choice or of that of this name.
LibraryAnswer ask_lt(const LtLibrary& library, const GemmCall& call, std::string_view name = {});

/// A record with its descriptors and the algorithm that the library's heuristic puts first, or that of a name. Safe from any thread.
class LtPlan {
 public:
  /// DeviceError where the library has no algorithm for it, or does not do it by that of this name; what was asked for is in it.
  LtPlan(std::shared_ptr<const LtLibrary> library, const GemmCall& call, std::string_view name = {});

  /// Put it into the stream: `operands` as GemmCall says. DeviceError where the library refuses them.
  void enqueue(std::span<const Address> operands, CuStream stream) const;
  /// Bytes of its workspace that the algorithm uses.
  int64_t workspace() const { return static_cast<int64_t>(chosen_.workspace_bytes); }

 private:
  std::shared_ptr<const LtLibrary> library_;
  GemmCall call_;
  LtDescriptors descriptors_;
  LtHeuristic chosen_{};
  mutable std::mutex addresses_;  // of bias, mask and second result, which are part of the descriptor
};

}  // namespace espalier::target::cuda::driver
