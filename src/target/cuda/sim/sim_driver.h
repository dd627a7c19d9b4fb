#pragma once
// A CUDA driver on the host: what the product calls of libcuda, with its promises and no more. Work that is given to a stream runs late, only
// when something waits for it, so that a missing wait shows in the values; under the thread sanitizer every stream is someone of its own,
// so that it is a race with both source lines. What would fault, or work by luck, on a GPU is an error that says what happened.
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/object_cache.h"
#include "target/cuda/driver/kernel_compiler.h"
#include "target/cuda/driver/nvtx.h"
#include "target/cuda/driver/tables/cu.h"
#include "target/cuda/driver/tables/dnn.h"
#include "target/cuda/driver/tables/lt.h"
#include "target/cuda/sim/block.h"
#include "target/device.h"

namespace espalier::target::cuda::sim {

/// When something waits for a stream, that one and what it depends on must run; the others may have run before, or not.
enum class Others { late, first };

struct SimOptions {
  int devices = 1;
  int driver_version = driver::cu_oldest_driver;  ///< as cuDriverGetVersion() counts
  std::set<std::string> lacks{};                  ///< functions that this driver has not: "cuEventQuery"
  int capability = 90;
  int64_t memory_bytes = int64_t{1} << 30;  ///< of each device
  int64_t taken_bytes = 0;                  ///< of it, by other processes
  /// Bytes of shared memory that a block may have after the opt-in; 0: those of the capability.
  int shared_limit = 0;
  int64_t pinned_bytes = int64_t{1} << 40;  ///< that can be had of the host's
  bool default_stream = false;   ///< work may be put there; else it is an error, as it would be by oversight
  bool held_by_another = false;  ///< in compute mode exclusive process: no context can be had
  Others others = Others::late;
  Order order = Order::forward;  ///< of the threads of every launch
  uint64_t seed = 1;
  std::string lt_missing{}, dnn_missing{};  ///< why there is no cuBLASLt, no cuDNN; "": there is
  ObjectCache* plans = nullptr;             ///< where devices keep plans of cuDNN
  struct Ways {
    int count = 3;  ///< that the libraries know for each record
    int wrong = -1,
        failing = -1;  ///< the one whose first element is wrong, the one that is refused when it is to run
    int wrong_beside = -1;  ///< of cuBLASLt: the one whose second result begins with a wrong element
  } ways{};
  std::optional<GemmEpilogue> lt_lacks{};                      ///< the one that cuBLASLt has no algorithm for
  const driver::Nvtx* nvtx = nullptr;                          ///< of the tool that watches; null: none
  std::shared_ptr<driver::KernelCompiler> compiler = nullptr;  ///< null: this build's
};

/// A call of the driver that fails: that many calls from now (1: the next; 0: none), with this error. A call that gives something back
/// does so all the same. An error that lasts poisons the context.
struct Fault {
  int64_t call = 0;
  driver::CuResult error = 0;
};

/// What other processes have of the memory, of each device and of what the host can pin: never more than is free.
struct Taken {
  int64_t device = 0, pinned = 0;
};

/// What there is now of everything.
struct LiveCounts {
  int64_t contexts = 0, allocations = 0, pinned = 0, streams = 0, events = 0, modules = 0, graphs = 0;
  int64_t lt = 0, dnn = 0;  ///< handles and descriptors of cuBLASLt and of cuDNN
  int64_t bytes = 0;        ///< on all devices
  bool operator==(const LiveCounts&) const = default;
};

/// At most 8 exist at once. Safe from any thread, as the driver is.
class SimDriver {
 public:
  explicit SimDriver(const SimOptions& options = {});
  ~SimDriver();
  SimDriver(const SimDriver&) = delete;
  SimDriver& operator=(const SimDriver&) = delete;

  const SimOptions& options() const;
  /// Its functions.
  const driver::CuApi& api() const;
  /// Those of cuBLASLt over it.
  const driver::LtApi& lt() const;
  /// And of cuDNN.
  const driver::DnnApi& dnn() const;

  /// The function of that name, as cuGetProcAddress() gives it; null where it lacks it.
  void* find(const char* name) const;

  void fail(Fault fault);
  /// The kernel of that number from here on (1: the next; 0: none) ends with this error when its stream comes to it.
  void fail_kernel(int64_t kernel, driver::CuResult error);
  /// Other processes have so much from here on, or from that many calls from now on (1: the next).
  void take(Taken taken, int64_t call = 0);
  /// The context that is current on this thread; null: none.
  driver::CuContext current() const;
  /// Calls so far, but for those that tell versions and what errors mean.
  int64_t calls() const;
  LiveCounts live() const;
  /// How often each way of a library was taken: "cublaslt 0", "cudnn 2".
  std::map<std::string, int64_t> ways_taken() const;
  /// Kernels run so far.
  int64_t launches() const;
  /// What was still there when its context went, other than through an error that lasts: "2 streams, 1 module"; "" when nothing was.
  std::string leaked() const;

 private:
  struct Slot;
  std::unique_ptr<Slot> slot_;
};

/// A device of the driver, with kernels compiled by this build's compiler. The device keeps the driver.
std::unique_ptr<Device> make_sim_device(std::shared_ptr<SimDriver> driver, int index = 0);
std::unique_ptr<Device> make_sim_device(const SimOptions& options = {});

}  // namespace espalier::target::cuda::sim
