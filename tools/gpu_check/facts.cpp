#include <fmt/format.h>

#include <exception>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "gpu_check/check.h"
#include "kernel/bit_mask.h"
#include "target/cuda/match/product_table.h"
#include "target/cuda/plugin.h"
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
  std::vector<run::DeviceMemory> memory_;
  std::vector<std::vector<target::Address>> operands_;
  run::OwnedStream stream_;  // goes first: what an error has left in it uses the memory
};

/// With the figures that cuDNN has of the device: with those a machine without a GPU plans for it.
std::string facts(const Place& place) {
  using namespace target::cuda;
  nlohmann::json all = tool::cuda_json(report(Ask::everything), plugin());
  const auto write = [&] { write_file(place.folder / "facts.json", tool::json_line(all) + "\n"); };
  write();  // whatever cuDNN does next, the others are there
  std::string text = place.device->info().name.value_or("a GPU without a name");
  std::exception_ptr problem;
  for (const target::DeviceLibrary& l : place.device->libraries()) {
    text += ", " + l.name + " " + (l.missing.empty() ? l.version : "missing: " + l.missing);
    if (l.name != "cudnn" || !l.missing.empty()) continue;
    try {
      const std::string json = place.device->described_by(l.name);
      const nlohmann::json described = nlohmann::json::parse(json, nullptr, false);
      demand(described.is_object(), "cuDNN's text of the device is no JSON: " + json);
      all["cudnn_device"] = described;
    } catch (const std::exception& e) {
      all["cudnn_device_problem"] = e.what();
      problem = std::current_exception();
    }
  }
  write();
  if (problem) std::rethrow_exception(problem);
  return text;
}

std::string copy_ceiling(const Place& place) {
  const double gbps = copy_gbps(place);
  const auto peak = place.device->info().peak_gbps();
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

/// What the library says of one kind of product, over small and large ones.
target::cuda::ProductCell cell_of(target::Device& device, target::GemmCall call,
                                  std::span<const int64_t> sizes) {
  constexpr int most = 8;
  target::cuda::ProductCell cell{.recorded = true, .algorithms = most};
  for (const int64_t n : sizes) {
    call.m = call.n = call.k = call.a.ld = call.b.ld = call.d.ld = n;
    if (call.batch > 1) call.a.stride = call.b.stride = call.d.stride = n * n;
    if (call.mask_ld > 0) call.mask_ld = kernel::row_bits(n);
    try {
      const auto ways = static_cast<int64_t>(device.choices(call, most).size());
      cell.algorithms = std::min(cell.algorithms, ways);
      if (ways > 0) cell.workspace = std::max(cell.workspace, device.ask(call).workspace);
    } catch (const target::DeviceError& e) {  // values that the library does not take at all
      if (e.lost()) throw;
      cell.algorithms = 0;
    }
  }
  if (cell.algorithms == 0) cell.workspace = 0;
  return cell;
}

/// Every kind of product that plans ask for, as match/product_table.h reads it.
std::string product_table(const Place& place) {
  target::cuda::ProductTable table{
      .capability = static_cast<int>(place.device->info().capability.value_or(0)),
      .device = place.device->info().name.value_or("without a name"),
      .library = "none",
      .rows = {}};
  bool there = false;
  for (const target::DeviceLibrary& l : place.device->libraries())
    if (l.name == "cublaslt" && l.missing.empty()) there = true, table.library = l.version;
  const std::vector<int64_t> sizes = place.small ? std::vector<int64_t>{64} : std::vector<int64_t>{64, 1024};
  int recorded = 0, none = 0;
  for (target::GemmCall call : target::cuda::product_kinds(sizes[0])) {
    call.workspace = int64_t{32} << 20;
    auto& row = table.rows[target::cuda::product_kind(call)];
    for (size_t layout = 0; there && layout < row.size(); ++layout) {
      call.a.transposed = layout & 1;
      call.b.transposed = layout & 2;
      row[layout] = cell_of(*place.device, call, sizes);
      ++recorded;
      none += row[layout].algorithms == 0;
    }
  }
  write_file(place.folder / "products.txt", text(table));
  demand(target::cuda::parse_product_table(text(table), "products.txt") == table, "it does not read back");
  demand(!there || none < recorded, "cuBLASLt has no algorithm for anything");
  return there ? fmt::format("{} kinds recorded, {} without an algorithm", recorded, none)
               : fmt::format("{} kinds assumed: there is no cuBLASLt", 4 * table.rows.size());
}

}  // namespace

double copy_gbps(const Place& place) {
  const int64_t bytes = place.small ? 1 << 20 : int64_t{1} << 30;
  Records copy(place, {{target::CopyCall{bytes}, {{0, 0}, {1, 0}}, {}}}, {bytes, bytes});
  return 2e-6 * static_cast<double>(bytes) / std::max(copy.milliseconds(place.small ? 2 : 20), 1e-9);
}

double product_tflops(const Place& place, Dtype dtype, bool tf32) {
  for (const target::DeviceLibrary& l : place.device->libraries())
    if (l.name == "cublaslt" && !l.missing.empty()) throw Lacks("there is no cuBLASLt: " + l.missing);
  const int64_t n = place.small ? 32 : 8192, bytes = n * n * ir::dtype_size(dtype);
  target::GemmCall g = square_product(dtype, tf32, n);
  const target::LibraryAnswer answer = place.device->ask(g);
  demand(answer.refusal.empty(), answer.refusal);
  g.workspace = answer.workspace;
  std::vector<target::Operand> operands{{0, 0}, {1, 0}, {2, 0}};
  if (g.workspace > 0) operands.push_back({3, 0});
  Records product(place, {{g, operands, {}}}, {bytes, bytes, bytes, std::max<int64_t>(g.workspace, 256)});
  for (const size_t operand : {0, 1}) product.fill(operand, dtype, n * n);
  const auto size = static_cast<double>(n);
  return 2e-9 * size * size * size / std::max(product.milliseconds(place.small ? 1 : 100), 1e-9);
}

void add_facts(std::vector<Check>& all) {
  all.push_back({"facts", {}, [](const Place& p, const Loaded&) { return facts(p); }});
  all.push_back({"table of products", {}, [](const Place& p, const Loaded&) { return product_table(p); }});
  all.push_back({"copies on the device", {}, [](const Place& p, const Loaded&) { return copy_ceiling(p); }});
  all.push_back({"copies over the bus", {}, [](const Place& p, const Loaded&) { return bus_ceiling(p); }});
  for (const auto& [name, dtype, tf32] : {std::tuple{"bf16", Dtype::bf16, false},
                                          {"f16", Dtype::f16, false},
                                          {"f32", Dtype::f32, false},
                                          {"tf32", Dtype::f32, true}})
    all.push_back({fmt::format("products of {}", name),
                   {},
                   [dtype = dtype, tf32 = tf32](const Place& p, const Loaded&) {
                     return fmt::format("{:.0f} TFLOP/s", product_tflops(p, dtype, tf32));
                   }});
}

}  // namespace espalier::gpu_check
