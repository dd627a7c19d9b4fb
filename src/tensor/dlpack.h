#pragma once
// Tensors of other libraries in place, and ours in theirs: DLPack, the structs of its published ABI (version 0.8, dlpack.h of
// github.com/dmlc/dlpack), which NumPy, PyTorch, JAX and CuPy speak. Nothing is copied.
#include <memory>

#include "tensor/compile.h"

namespace espalier::dlpack {

/// Kinds of devices: `cpu`, `cuda` and `cuda_host` (pinned) are understood.
enum class DeviceKind : int32_t { cpu = 1, cuda = 2, cuda_host = 3 };

struct DeviceId {
  DeviceKind kind = DeviceKind::cpu;
  int32_t number = 0;
};

struct DataType {
  uint8_t code = 2;  ///< 0 int, 1 unsigned, 2 float, 4 bfloat, 6 bool
  uint8_t bits = 32;
  uint16_t lanes = 1;
};

struct PlainTensor {
  void* data = nullptr;
  DeviceId device;
  int32_t rank = 0;
  DataType dtype;
  int64_t* shape = nullptr;
  int64_t* strides = nullptr;  ///< in elements; null: row-major
  uint64_t byte_offset = 0;
};

/// What travels ("DLManagedTensor"): whoever takes it calls the deleter once, when it needs it no more.
struct ManagedTensor {
  PlainTensor tensor;
  void* context = nullptr;
  void (*deleter)(ManagedTensor* self) = nullptr;
};

/// The elements of a tensor in the host's memory; the deleter is called when the last copy of the array goes. UserError, and nothing is
/// taken, where it lies on a GPU, has another dtype than ours, strides that are not row-major, or several lanes.
ESPALIER_API Array array_of(ManagedTensor* taken);
/// `array` for others: read by them, as others may hold it too.
ESPALIER_API ManagedTensor* share(const Array& array);
/// The elements of a parameter on a GPU, of its newest value, for others; they stay where they are while either side lives. Compiled
/// functions write there when they update the parameter. DeviceError: from the device.
ESPALIER_API ManagedTensor* share(const Parameter& parameter, const Device& gpu);
/// Result `i` of run `run` of a step on a GPU (Step::submit()), where it lies, for others to read. `stream` is the CUstream that they read
/// in, which must outlive the tensor: what is put there from now on comes after the run, by an event, and what the step computes into the
/// place later comes after what was put there before the deleter was called. Null: this waits for the run, and who calls the deleter has
/// read. Until then the result stays as it is, and its memory lives, with the step or without: other runs use the step's other place, so
/// one run may be under way, and input() is elsewhere. Where both places are held, input() and submit() are UserErrors. The deleter may be
/// called on any thread. UserError on the host (share(step.result(i))), for a run that was not begun, and where a later one has taken its place.
ESPALIER_API ManagedTensor* share(Step& step, size_t i, int64_t run, void* stream);

/// Read argument `i` of `step` from a tensor where the step runs: the deleter is called when the last copy of what is returned goes, which must
/// be kept while runs read it. What is written there must be done before the run begins, or put into CompileOptions::stream. UserError, and
/// nothing is taken, where it lies elsewhere or is of another type, row-major or not, and where bind_input() has one.
ESPALIER_API std::shared_ptr<const void> bind_input(Step& step, size_t i, ManagedTensor* taken);
/// Write result `i` of `step` into a tensor where the step runs, from the next run on: what was put into CompileOptions::stream after the run, or comes
/// after Step::wait(), sees it. What is returned must be kept while runs write it. UserError as of bind_input() and Step::bind_output().
ESPALIER_API std::shared_ptr<const void> bind_output(Step& step, size_t i, ManagedTensor* taken);

}  // namespace espalier::dlpack
