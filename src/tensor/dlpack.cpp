#include "tensor/dlpack.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "run/runner.h"
#include "tensor/tracing.h"

namespace espalier::dlpack {

namespace {

static_assert(sizeof(PlainTensor) == 48 && sizeof(ManagedTensor) == 64, "the published ABI");

struct Row {
  Dtype dtype;
  uint8_t code, bits;
};
constexpr Row table[] = {{Dtype::f64, 2, 64}, {Dtype::f32, 2, 32}, {Dtype::bf16, 4, 16},
                         {Dtype::f16, 2, 16}, {Dtype::i64, 0, 64}, {Dtype::i32, 0, 32},
                         {Dtype::i8, 0, 8},   {Dtype::u8, 1, 8},   {Dtype::boolean, 6, 8}};

Dtype dtype_of(const DataType& type) {
  if (type.lanes == 1)
    for (const Row& r : table)
      if (r.code == type.code && r.bits == type.bits) return r.dtype;
  throw UserError({"DLPack tensor", "has a dtype that is not ours",
                   fmt::format("code {}, {} bits, {} lanes", type.code, type.bits, type.lanes),
                   "f64, f32, bf16, f16, i64, i32, i8, u8 or bool, one lane"});
}

/// No machine's memory holds more; their bytes can still be counted.
constexpr int64_t most_elements = int64_t{1} << 46;

std::vector<int64_t> dims_of(const PlainTensor& t) {
  if (t.rank < 0 || (t.rank > 0 && !t.shape))
    throw UserError({"DLPack tensor", "has no shape", "rank " + std::to_string(t.rank), "a shape"});
  std::vector<int64_t> dims(t.shape, t.shape + t.rank);
  for (const int64_t d : dims)
    if (d < 0) throw UserError({"DLPack tensor", "has a negative dim", join(dims), "0 or more"});
  int64_t elements = 1;
  bool fits = true;
  for (const int64_t d : dims)
    fits = fits && !__builtin_mul_overflow(elements, std::max<int64_t>(d, 1), &elements);
  fits = fits && elements <= most_elements;
  if (!fits || (!t.data && std::ranges::find(dims, 0) == dims.end()))
    throw UserError({"DLPack tensor", fits ? "has no memory" : "has too many elements", join(dims),
                     fits ? "a data pointer" : "less than 2^46 elements"});
  if (!t.strides) return dims;
  int64_t wanted = 1;
  bool row_major = true, empty = false;
  for (size_t i = dims.size(); i-- > 0;) {
    row_major = row_major && (dims[i] == 1 || t.strides[i] == wanted);
    empty = empty || dims[i] == 0;
    wanted *= dims[i];
  }
  if (!row_major && !empty)
    throw UserError({"DLPack tensor", "is not row-major",
                     fmt::format("dims {}, strides {}", join(dims), join({t.strides, dims.size()})),
                     "contiguous elements: make a copy of it"});
  return dims;
}

void* data_of(const PlainTensor& t) { return static_cast<char*>(t.data) + t.byte_offset; }

std::string name_of(const DeviceId& id) {
  if (id.kind == DeviceKind::cuda) return "cuda:" + std::to_string(id.number);
  if (id.kind == DeviceKind::cpu || id.kind == DeviceKind::cuda_host) return "cpu";
  return fmt::format("device kind {}", static_cast<int32_t>(id.kind));
}

const ManagedTensor& checked(const ManagedTensor* t) {
  if (!t) throw UserError({"DLPack tensor", "is null", "", "a tensor"});
  return *t;
}

std::shared_ptr<const void> owner_of(ManagedTensor* t) {
  return {t, [t](const void*) {
            if (t->deleter) t->deleter(t);
          }};
}

/// A tensor of ours with what keeps its elements.
struct Shared {
  ManagedTensor managed;
  std::vector<int64_t> dims;
  std::shared_ptr<const void> keep;
};

ManagedTensor* make(Dtype dtype, std::vector<int64_t> dims, const void* data, DeviceId device,
                    std::shared_ptr<const void> keep) {
  auto shared = std::make_unique<Shared>(Shared{{}, std::move(dims), std::move(keep)});
  PlainTensor& t = shared->managed.tensor;
  t.data = const_cast<void*>(data);
  t.device = device;
  t.rank = static_cast<int32_t>(shared->dims.size());
  for (const Row& r : table)
    if (r.dtype == dtype) t.dtype = {r.code, r.bits, 1};
  t.shape = shared->dims.data();
  shared->managed.context = shared.get();
  shared->managed.deleter = [](ManagedTensor* self) { delete static_cast<Shared*>(self->context); };
  return &shared.release()->managed;
}

}  // namespace

Array array_of(ManagedTensor* taken) {
  const PlainTensor& t = checked(taken).tensor;
  if (name_of(t.device) != "cpu")
    throw UserError({"DLPack tensor", "does not lie on the host", name_of(t.device),
                     "cpu; dlpack::bind_input() takes one where a step runs"});
  const Dtype dtype = dtype_of(t.dtype);
  std::vector<int64_t> dims = dims_of(t);
  return Array::borrow(dtype, std::move(dims), data_of(t), owner_of(taken));
}

ManagedTensor* share(const Array& array) {
  return make(array.dtype(), array.dims(), array.data(), {DeviceKind::cpu, 0},
              std::make_shared<const Array>(array));
}

ManagedTensor* share(const Parameter& parameter, const Device& gpu) {
  const int number = run::gpu_number(gpu.name());
  if (number < 0)
    throw UserError({"DLPack tensor of a parameter", "needs a GPU", gpu.name(), "share(storage())"});
  if (!parameter)
    throw UserError({"DLPack tensor of a parameter", "the parameter is empty", "", "one with a value"});
  const std::shared_ptr<run::Elements> elements = parameter.cell()->elements;
  const std::shared_ptr<run::OpenDevice> device = run::find_location(gpu.name()).device;
  const void* const at = run::as_pointer(elements->on(device));
  elements->bring_to(*device);
  device->finish();  // the one who takes it knows nothing of our streams
  return make(elements->host().dtype(), elements->host().dims(), at, {DeviceKind::cuda, number}, elements);
}

ManagedTensor* share(Step& step, size_t i, int64_t run, void* stream) {
  const ir::Type type = step.result_type(i);
  run::Runner& runner = step.runner();
  run::DeviceExecutor* const device = runner.on_device();
  if (!device)
    throw UserError(
        {"DLPack tensor of a result", "the step is not of a GPU", runner.place(), "share(result(i))"});
  if (run < 0 || run >= device->runs())
    throw UserError({"DLPack tensor of a result", "there is no run of that number", std::to_string(run),
                     fmt::format("0 to {}, as submit() gave it", device->runs() - 1)});
  run::OwnedStream reader;
  target::Device& gpu = device->device_program().device();
  if (stream) reader = {gpu, gpu.adopt_stream(stream)};
  run::DeviceExecutor::OnDevice held = device->hold(run, i, std::move(reader));
  return make(type.dtype, ir::static_dims(type.dims), run::as_pointer(held.at),
              {DeviceKind::cuda, run::gpu_number(runner.place())}, std::move(held.held));
}

namespace {

/// Where the elements of `taken` lie; UserError where it is not of `type` or not where the step runs.
void* data_for(Step& step, const std::string& what, const ir::Type& type, ManagedTensor* taken) {
  const PlainTensor& t = checked(taken).tensor;
  const std::string wanted = step.runner().place();
  if (name_of(t.device) != wanted)
    throw UserError({what, "lies elsewhere than the step runs", name_of(t.device), wanted});
  const Dtype dtype = dtype_of(t.dtype);
  const ir::Type is{dtype, ir::to_dims(dims_of(t))};
  if (is != type) throw UserError({what, "is of another type", is.text(), type.text()});
  return data_of(t);
}

}  // namespace

std::shared_ptr<const void> bind_input(Step& step, size_t i, ManagedTensor* taken) {
  step.bind_input(i, data_for(step, "argument " + std::to_string(i), step.argument_type(i), taken));
  return owner_of(taken);
}

std::shared_ptr<const void> bind_output(Step& step, size_t i, ManagedTensor* taken) {
  step.bind_output(i, data_for(step, "result " + std::to_string(i), step.result_type(i), taken));
  return owner_of(taken);
}

}  // namespace espalier::dlpack
