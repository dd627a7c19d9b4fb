#pragma once
// What a target is to the executor: it prepares one kernel per node of the fused level. Thread-safety: prepare() may be
// called from any thread; a Kernel is immutable and may run in several executors at once, each with its own scratch.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernel/target_spec.h"
#include "target/call.h"

namespace espalier::target {

/// Result `result` may be written over operand `operand` when that operand dies there.
struct InPlace {
  int result, operand;
};

/// A prepared step: work for the host's threads, or for a device. `buffers` holds the operands, then the results, in the node's order. Pointers are 64-byte aligned, but
/// for rows of arrays that a loop walks: those lie at multiples of their element's size.
class Kernel {
 public:
  virtual ~Kernel() = default;
  /// Which entry of the target's list this is, e.g. "loop", "onednn conv winograd", "reference".
  virtual std::string_view name() const = 0;
  /// Pieces of work, fixed by shape; the executor runs them on the pool, one at a time per thread.
  virtual int64_t chunks() const { return 1; }
  /// Bytes of scratch shared by all chunks (64-byte aligned).
  virtual int64_t scratch_bytes() const { return 0; }
  virtual void run(void* const* buffers, void* scratch, int64_t chunk) const = 0;
  /// Can a device do it, by `calls()` one after the other (none: there is nothing to do) and the kernels named there?
  virtual bool on_device() const { return false; }
  virtual std::span<const CallRecord> calls() const { return {}; }
  virtual std::span<const KernelSource> sources() const { return {}; }
  virtual std::vector<InPlace> in_place() const { return {}; }
  /// False when the kernel has packed this constant operand into itself: the executor then passes null for it.
  virtual bool reads(int operand) const { return (void)operand, true; }
  /// Bytes the kernel keeps for itself (packed weights), counted in the plan.
  virtual int64_t packed_bytes() const { return 0; }
};

struct Prepared {
  std::unique_ptr<Kernel> kernel;
  std::vector<kernel::Refusal> refusals;  ///< of the better entries that declined
  /// What people should know of it: a library that is missing and why, a figure that is assumed. Equal texts are one matter.
  std::vector<std::string> notes{};
};

struct PrepareOptions {
  bool exact =
      false;  ///< only kernels with the reference's rounding order class: no Winograd, no reduced precision
  /// Bytes by which the address of each operand, then of each result, divides; those not named: 64.
  std::span<const int64_t> alignment{};
  /// Products of f32 may round their operands to 10 bits of fraction, where a machine is faster so.
  bool tf32 = false;
};

class Target {
 public:
  virtual ~Target() = default;
  virtual const kernel::TargetSpec& spec() const = 0;
  /// The best kernel for `node` (a fusion, a contraction or any other op with static types). `constants[i]` is the array
  /// of operand i where that is known now, else null. Without a kernel where the target has none; one of the host's never is, as the
  /// reference is last in its list.
  virtual Prepared prepare(const ir::Node& node, std::span<const ir::Array* const> constants,
                           const PrepareOptions& options) const = 0;
  /// Are the bodies of control flow (cond, scan, while_loop) programs of their own, whose kernels this target prepares one by
  /// one? False: the kernel that prepare() gives for the node runs its bodies as well.
  virtual bool nests_bodies() const { return false; }
};

/// Bytes of all operands and results once; flops of the contraction inside, by the direct algorithm, else one per element.
Cost cost_of(const ir::Node& node);

}  // namespace espalier::target
