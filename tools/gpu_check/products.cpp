// Of part 1: the values of every kind of product that plans ask cuBLASLt for, against sums in f64 on the host.
#include <fmt/format.h>

#include <cmath>

#include "gpu_check/check.h"
#include "support/tolerance.h"
#include "target/cuda/match/product_table.h"

namespace espalier::gpu_check {

namespace {

using ir::Array;
using ir::Dtype;
using target::GemmCall;

constexpr int64_t size = 32;  // of every matrix, so that leading dimensions and strides are square

/// Eighths, which every dtype holds and whose sums f32 holds.
Array numbers(Dtype dtype, int64_t elements, int64_t seed) {
  Array a(dtype, {elements});
  for (int64_t i = 0; i < elements; ++i) {
    const int64_t eighths = (i * 7919 + seed * 104729) % 17 - 8;
    a.set(i, ir::is_float(dtype) ? static_cast<double>(eighths) / 8 : static_cast<double>(eighths));
  }
  return a;
}

struct Results {
  Array d, second;  ///< no elements where there is no second one
};

int64_t at(int64_t row, int64_t column, bool transposed) {
  return transposed ? column + row * size : row + column * size;
}

double activated(double x, target::GemmEpilogue e) {
  using E = target::GemmEpilogue;
  if (e == E::relu || e == E::relu_bias) return std::max(x, 0.0);
  if (e != E::gelu && e != E::gelu_bias && !target::keeps_gelu_operand(e)) return x;
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

Results expected(const GemmCall& g, const Array& a, const Array& b, const Array& c, const Array& bias) {
  using E = target::GemmEpilogue;
  const int64_t square = size * size;
  Results out{Array(g.d.dtype, {g.batch * square}),
              Array(g.d.dtype, {target::keeps_gelu_operand(g.epilogue) ? square
                                : target::sums_operand(g.epilogue)     ? size
                                                                       : 0})};
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < size; ++l)
          sum += a.at(n * square + at(i, l, g.a.transposed)) * b.at(n * square + at(l, j, g.b.transposed));
        const int64_t place = n * square + at(i, j, false);
        sum += g.beta * (g.beta != 0 ? c.at(place) : 0);
        if (target::has_bias(g.epilogue)) sum += bias.at(i);
        if (target::keeps_gelu_operand(g.epilogue)) out.second.set(place, sum);
        out.d.set(place, activated(sum, g.epilogue));
      }
  for (int64_t i = 0; target::sums_operand(g.epilogue) && i < size; ++i) {
    double sum = 0;
    for (int64_t l = 0; l < size; ++l)
      sum += g.epilogue == E::sum_a ? a.at(at(i, l, g.a.transposed)) : b.at(at(l, i, g.b.transposed));
    out.second.set(i, sum);
  }
  return out;
}

/// Over results of which every byte is 0xff.
void check_values(target::Device& d, const GemmCall& g, target::Stream stream) {
  const int64_t elements = g.batch * size * size;
  const Array a = numbers(g.a.dtype, elements, 1), b = numbers(g.b.dtype, elements, 2),
              c = numbers(g.d.dtype, elements, 3), bias = numbers(g.d.dtype, size, 4);
  const Results want = expected(g, a, b, c, bias);
  std::vector<run::DeviceMemory> memory;
  const auto give = [&](int64_t bytes, const void* data) {
    memory.push_back(run::device_memory(d, bytes));
    const std::vector<unsigned char> poison(static_cast<size_t>(bytes), 0xff);
    run::upload_and_wait(d, memory.back().get(), data ? data : poison.data(), bytes);
    return memory.size() - 1;
  };
  give(a.bytes(), a.data());
  give(b.bytes(), b.data());
  if (g.beta != 0) give(c.bytes(), c.data());
  if (target::has_bias(g.epilogue)) give(bias.bytes(), bias.data());
  const size_t result = give(want.d.bytes(), nullptr);
  const size_t second = want.second.size() > 0 ? give(want.second.bytes(), nullptr) : 0;
  if (g.workspace > 0) give(g.workspace, nullptr);
  std::vector<target::Operand> operands;
  std::vector<target::Address> addresses;
  for (size_t i = 0; i < memory.size(); ++i) {
    operands.push_back({static_cast<int>(i), 0});
    addresses.push_back(memory[i].get());
  }
  const auto ready = d.load({}, std::vector<target::CallRecord>{{g, operands, {}}});
  d.launch(*ready, 0, addresses, stream);
  d.sync(stream);
  const auto compare = [&](const Array& expected, size_t buffer) {
    Array got(expected.dtype(), {expected.size()});
    run::download_and_wait(d, got.write(), memory[buffer].get(), got.bytes());
    const std::string off = test::difference(got, expected, test::tolerance_of(got.dtype()) * 4);
    demand(off.empty(), fmt::format("{} {}: {}", target::cuda::product_kind(g),
                                    target::cuda::product_layouts[target::cuda::product_layout(g)], off));
  };
  compare(want.d, result);
  if (second > 0) compare(want.second, second);
}

std::string product_values(const Place& place) {
  for (const target::DeviceLibrary& l : place.device->libraries())
    if (l.name == "cublaslt" && !l.missing.empty()) throw Lacks("there is no cuBLASLt: " + l.missing);
  const run::OwnedStream stream = run::owned_stream(*place.device);
  int right = 0, refused = 0;
  for (GemmCall g : target::cuda::product_kinds(size))
    for (const int layout : {0, 1, 2, 3}) {
      g.a.transposed = layout & 1;
      g.b.transposed = layout & 2;
      g.workspace = int64_t{32} << 20;
      target::LibraryAnswer answer;
      try {
        answer = place.device->ask(g);
      } catch (const target::DeviceError& e) {
        if (e.lost()) throw;
        answer.refusal = e.what();
      }
      if (!answer.refusal.empty()) {
        ++refused;
        continue;
      }
      g.workspace = answer.workspace;
      check_values(*place.device, g, stream.get());
      ++right;
    }
  demand(right > 0, "cuBLASLt does none of them");
  return fmt::format("{} kinds are right, {} are refused", right, refused);
}

}  // namespace

void add_products(std::vector<Check>& all) {
  all.push_back({"values of every kind of product", {}, [](const Place& p, const Loaded&) {
                   return product_values(p);
                 }});
}

}  // namespace espalier::gpu_check
