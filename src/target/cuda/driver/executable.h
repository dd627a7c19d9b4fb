#pragma once
// Call records made ready for one device.
#include <memory>
#include <vector>

#include "target/cuda/driver/context.h"
#include "target/cuda/driver/dnn_engine.h"
#include "target/cuda/driver/kernel_compiler.h"
#include "target/cuda/driver/lt_engine.h"

namespace espalier::target::cuda::driver {

/// One record made ready: all that can be decided before its operands are known.
class ReadyCall {
 public:
  virtual ~ReadyCall() = default;
  /// Put it into the stream. `operands`: as many as the record has.
  virtual void enqueue(const Context& context, std::span<const Address> operands, CuStream stream) const = 0;
};

/// Modules that stay loaded as long as something is ready that launches from them.
class Module;

class CudaExecutable final : public Executable {
 public:
  struct Call {
    std::unique_ptr<ReadyCall> ready;
    size_t operands;
  };
  CudaExecutable(std::shared_ptr<const Context> context, std::vector<std::unique_ptr<Module>> modules,
                 std::vector<Call> calls, const LoadReport& report);
  ~CudaExecutable() override;
  LoadReport report() const override { return report_; }
  void enqueue(size_t call, std::span<const Address> operands, CuStream stream) const;

 private:
  std::shared_ptr<const Context> context_;
  std::vector<std::unique_ptr<Module>> modules_;
  std::vector<Call> calls_;
  LoadReport report_;
};

/// What records are made ready with.
struct Loader {
  std::shared_ptr<const Context> context;
  KernelCompiler& compiler;
  int capability;
  LazyLt& lt;
  LazyDnn& dnn;
  const Ways* ways = nullptr;  ///< of the libraries; null: their first
};

/// Compile and load `sources` (equal names are one kernel), make every record ready. DeviceError where the compiler or the
/// driver refuses, InternalError where a record does not fit its kernel.
std::unique_ptr<CudaExecutable> load_executable(const Loader& loader, std::span<const KernelSource> sources,
                                                std::span<const CallRecord> calls);

}  // namespace espalier::target::cuda::driver
