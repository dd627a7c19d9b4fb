#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "gpu_check/check.h"
#include "support/op_samples.h"
#include "support/tolerance.h"
#include "target/cuda/plugin.h"
#include "target/reference/interpreter.h"
#include "tool/cuda_report.h"
#include "tool/json.h"

namespace espalier::gpu_check {

namespace {

using ir::Array;
using ir::Dtype;

/// Records given to the device by themselves, with memory of their own.
class Records {
 public:
  Records(const Place& place, std::vector<target::CallRecord> calls, const std::vector<int64_t>& buffers)
      : device_(*place.device), executable_(device_.load({}, calls)), stream_(run::owned_stream(device_)) {
    for (const int64_t bytes : buffers) memory_.push_back(run::device_memory(device_, bytes));
    for (const target::CallRecord& call : calls) {
      std::vector<target::Address>& at = operands_.emplace_back();
      for (const target::Operand& o : call.operands)
        at.push_back(memory_.at(static_cast<size_t>(o.buffer)).get() +
                     static_cast<target::Address>(o.offset));
    }
  }
  /// Numbers of any size up to 1 in buffer `b`: what multiplies zeros draws less power, and runs faster.
  void fill(size_t b, Dtype dtype, int64_t elements) {
    Array some(dtype, {std::min<int64_t>(elements, 1 << 20)});
    for (int64_t i = 0; i < some.size(); ++i) some.set(i, static_cast<double>(i * 7919 % 2003) / 1001 - 1);
    for (int64_t at = 0; at < elements; at += some.size())
      run::upload_and_wait(device_,
                           memory_[b].get() + static_cast<target::Address>(at * ir::dtype_size(dtype)),
                           some.data(), std::min(some.size(), elements - at) * ir::dtype_size(dtype));
  }
  /// Milliseconds of one run of them all, by events, of `turns` behind each other, after as many.
  double milliseconds(int turns) {
    for (int i = 0; i < turns; ++i) launch();
    const run::OwnedEvent begin = run::owned_event(device_, true), end = run::owned_event(device_, true);
    device_.record(begin.get(), stream_.get());
    for (int i = 0; i < turns; ++i) launch();
    device_.record(end.get(), stream_.get());
    device_.sync(stream_.get());
    return device_.elapsed_ms(begin.get(), end.get()) / turns;
  }

 private:
  void launch() {
    for (size_t i = 0; i < operands_.size(); ++i)
      device_.launch(*executable_, i, operands_[i], stream_.get());
  }
  target::Device& device_;
  std::unique_ptr<target::Executable> executable_;
  run::OwnedStream stream_;
  std::vector<run::DeviceMemory> memory_;
  std::vector<std::vector<target::Address>> operands_;
};

std::string facts(const Place& place) {
  using namespace target::cuda;
  const nlohmann::json all = tool::cuda_json(report(Ask::everything), plugin());
  write_file(place.folder / "facts.json", tool::json_line(all) + "\n");
  std::string text = place.device->info().name.value_or("a GPU without a name");
  for (const target::DeviceLibrary& l : place.device->libraries())
    text += ", " + l.name + " " + (l.missing.empty() ? l.version : "missing: " + l.missing);
  return text;
}

std::string copy_ceiling(const Place& place) {
  const int64_t bytes = place.small ? 1 << 20 : int64_t{1} << 30;
  Records copy(place, {{target::CopyCall{bytes}, {{0, 0}, {1, 0}}, {}}}, {bytes, bytes});
  const double ms = copy.milliseconds(place.small ? 2 : 20);
  const auto peak = place.device->info().peak_gbps();
  const double gbps = 2e-6 * static_cast<double>(bytes) / std::max(ms, 1e-9);
  return fmt::format("{:.0f} GB/s read and written{}", gbps,
                     peak ? fmt::format(", {:.2f} of the peak", gbps / *peak) : "");
}

std::string bus_ceiling(const Place& place) {
  target::Device& d = *place.device;
  const int64_t bytes = place.small ? 1 << 20 : int64_t{256} << 20;
  const run::DeviceMemory memory = run::device_memory(d, bytes);
  const run::PinnedMemory pinned = run::pinned_memory(d, bytes);
  const run::OwnedStream stream = run::owned_stream(d);
  const double up = median_ms(5, [&] {
    d.upload(memory.get(), pinned.get(), bytes, stream.get());
    d.sync(stream.get());
  });
  const double down = median_ms(5, [&] {
    d.download(pinned.get(), memory.get(), bytes, stream.get());
    d.sync(stream.get());
  });
  const double gigabytes = 1e-6 * static_cast<double>(bytes);
  return fmt::format("{:.1f} GB/s to the device, {:.1f} GB/s from it", gigabytes / up, gigabytes / down);
}

target::GemmCall square_product(Dtype dtype, bool tf32, int64_t n) {
  target::GemmCall g{.m = n, .n = n, .k = n, .tf32 = tf32, .workspace = int64_t{32} << 20};
  g.a = g.b = g.d = {.dtype = dtype, .transposed = false, .ld = n, .stride = 0};
  g.compute = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  return g;
}

std::string product_ceiling(const Place& place, Dtype dtype, bool tf32) {
  const int64_t n = place.small ? 32 : 8192, bytes = n * n * ir::dtype_size(dtype);
  target::GemmCall g = square_product(dtype, tf32, n);
  const target::LibraryAnswer answer = place.device->ask(g);
  if (!answer.refusal.empty()) throw std::runtime_error(answer.refusal);
  g.workspace = answer.workspace;
  std::vector<target::Operand> operands{{0, 0}, {1, 0}, {2, 0}};
  if (g.workspace > 0) operands.push_back({3, 0});
  Records product(place, {{g, operands, {}}}, {bytes, bytes, bytes, std::max<int64_t>(g.workspace, 256)});
  for (const size_t operand : {0, 1}) product.fill(operand, dtype, n * n);
  const double ms = product.milliseconds(place.small ? 1 : 100);
  const auto size = static_cast<double>(n);
  return fmt::format("{:.0f} TFLOP/s ({} x {} x {})", 2e-9 * size * size * size / std::max(ms, 1e-9), n, n,
                     n);
}

/// Every library product that plans assume without a device, and what the library says of it here.
std::string product_table(const Place& place) {
  std::string rows;
  int asked = 0, refused = 0;
  using target::GemmEpilogue;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::f64})
    for (const GemmEpilogue e :
         {GemmEpilogue::none, GemmEpilogue::bias, GemmEpilogue::relu, GemmEpilogue::relu_bias,
          GemmEpilogue::gelu, GemmEpilogue::gelu_bias, GemmEpilogue::gelu_aux, GemmEpilogue::gelu_aux_bias,
          GemmEpilogue::sum_a, GemmEpilogue::sum_b})
      for (const int transposed : {0, 1, 2, 3})
        for (const int64_t n : {64, 1024}) {
          target::GemmCall g = square_product(dtype, false, n);
          g.a.transposed = transposed & 1;
          g.b.transposed = transposed & 2;
          g.epilogue = e;
          std::string answer;
          try {
            const target::LibraryAnswer a = place.device->ask(g);
            answer = a.refusal.empty() ? fmt::format("workspace {}", a.workspace) : a.refusal;
            refused += !a.refusal.empty();
          } catch (const target::DeviceError& e) {
            if (e.lost()) throw;
            answer = e.what();
            ++refused;
          }
          ++asked;
          rows += target::text({g, {}, {}}) + " -> " + answer + "\n";
        }
  write_file(place.folder / "products.txt", rows);
  return fmt::format("{} asked, {} refused", asked, refused);
}

Array read(const run::Port& port, const void* from) {
  Array a(port.type.dtype, ir::static_dims(port.type.dims));
  if (a.bytes() > 0) std::memcpy(a.write(), from, static_cast<size_t>(a.bytes()));
  return a;
}

std::vector<Array> run_once(run::DeviceExecutor& e, const std::vector<Array>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].bytes() > 0)
      std::memcpy(e.input(i), inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
  e.poison();
  const run::Ticket ticket = e.run();
  std::vector<Array> all;
  for (size_t o = 0; o < e.program().outputs().size(); ++o)
    all.push_back(read(e.program().outputs()[o], e.output(ticket, o)));
  return all;
}

/// Samples of the op in every dtype as one program, over poisoned memory, against the reference.
std::string op_agrees(const Place& place, const ir::OpDef& op) {
  ir::Graph all;
  all.name = std::string(op.name);
  std::vector<Array> inputs, want;
  for (const Dtype dtype : test::dtypes_of(op.dtypes))
    for (uint64_t salt = 0; salt < (place.small ? 1 : 4); ++salt) {
      ir::SampleRng rng = test::rng_of(op, salt);
      const ir::Sample s = op.sample(rng, dtype);
      ir::Graph one = test::graph_of(op, s);
      for (Array& a : target::reference::evaluate(one, s.inputs)) want.push_back(std::move(a));
      inputs.insert(inputs.end(), s.inputs.begin(), s.inputs.end());
      std::vector<ir::Value> operands;
      for (const Array& a : s.inputs) {
        operands.push_back(ir::new_input(fmt::format("x{}", all.inputs.size()), a.type()));
        all.inputs.push_back(operands.back());
      }
      for (const ir::Value& v : make_all(op, operands, s.attrs))
        all.outputs.push_back({fmt::format("y{}", all.outputs.size()), v});
    }
  run::DeviceExecutor e(loaded(place, all, true));  // not exact, gradients of weights in bf16 round twice
  const std::vector<Array> got = run_once(e, inputs);
  for (size_t i = 0; i < want.size(); ++i) {
    const std::string off = test::difference(got[i], want[i], test::tolerance_of(want[i].dtype()) * 8);
    demand(off.empty(), want[i].type().text() + ": " + off);
  }
  return fmt::format("{} results", want.size());
}

/// Positive and negative floats of every size, the same on every machine.
Array spread_floats(int64_t n) {
  Array a(Dtype::f32, {n});
  const uint64_t step = (uint64_t{1} << 32) / static_cast<uint64_t>(n);
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = static_cast<uint32_t>(static_cast<uint64_t>(i) * step + 1);
    std::memcpy(&a.write<float>()[i], &bits, sizeof bits);
  }
  return a;
}

/// Largest distance of an f32 function from the one that is computed in f64, over floats of every size, in units in the last place.
std::string function_error(const Place& place, const ir::OpDef& op) {
  const Array x = spread_floats(place.small ? 4096 : 1 << 20);
  ir::Graph g, exact;
  const auto define = [&](ir::Graph& to, Dtype dtype) {
    const ir::Value in = ir::new_input("x", {dtype, {x.size()}});
    to.inputs = {in};
    to.outputs = {{"y", make_all(op, {in}, {})[0]}};
  };
  define(g, Dtype::f32);
  define(exact, Dtype::f64);
  run::DeviceExecutor e(loaded(place, g));
  const Array got = run_once(e, {x})[0];
  const std::vector<Array> wide{x.cast(Dtype::f64)};
  const Array want = target::reference::evaluate(exact, wide)[0];
  int64_t worst = 0, where = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const auto w = static_cast<double>(static_cast<float>(want.at(i)));
    if (std::isnan(w) && std::isnan(got.at(i))) continue;
    demand(std::isnan(w) == std::isnan(got.at(i)) && std::isinf(w) == std::isinf(got.at(i)) &&
               (!std::isinf(w) || got.at(i) == w),
           fmt::format("{} of {} is {}, not {}", op.name, x.at(i), got.at(i), w));
    if (std::isinf(w)) continue;
    if (const int64_t d = test::ulp_distance(Dtype::f32, got.at(i), w); d > worst) worst = d, where = i;
  }
  demand(worst <= 8, fmt::format("{} ulp at {}", worst, x.at(where)));
  return fmt::format("{} ulp{}", worst, worst > 0 ? fmt::format(", at {}", x.at(where)) : "");
}

/// Functions of one number that are computed by themselves; of those that are made of others (sigmoid, gelu) the tails are not within ulps.
bool is_function(const ir::OpDef& op) {
  for (const std::string_view name : {"exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin",
                                      "cos", "tan", "atan", "tanh", "erf", "softplus"})
    if (op.name == name) return op.dtypes.has(Dtype::f32);
  return false;
}

}  // namespace

void check_kernels(const Place& place, Log& log) {
  log.check("facts", [&] { return facts(place); });
  log.check("table of products", [&] { return product_table(place); });
  log.check("copies on the device", [&] { return copy_ceiling(place); });
  log.check("copies over the bus", [&] { return bus_ceiling(place); });
  for (const auto& [name, dtype, tf32] : {std::tuple{"bf16", Dtype::bf16, false},
                                          {"f16", Dtype::f16, false},
                                          {"f32", Dtype::f32, false},
                                          {"tf32", Dtype::f32, true}})
    log.check(fmt::format("products of {}", name),
              [&, dtype = dtype, tf32 = tf32] { return product_ceiling(place, dtype, tf32); });
  for (const ir::OpDef* op : test::sampled_ops())
    log.check(fmt::format("op {}", op->name), [&] { return op_agrees(place, *op); });
  for (const ir::OpDef* op : op::all_ops())
    if (is_function(*op))
      log.check(fmt::format("error of {}", op->name), [&] { return function_error(place, *op); });
}

}  // namespace espalier::gpu_check
