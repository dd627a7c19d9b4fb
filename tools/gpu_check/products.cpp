// Of part 1: the values of every kind of product that plans ask cuBLASLt for, against sums in f64 on the host.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

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
  Array d, second;  ///< no elements where there is no second one, or none that is compared
};

int64_t at(int64_t row, int64_t column, bool transposed) {
  return transposed ? column + row * size : row + column * size;
}

double activated(double x, target::GemmEpilogue e) {
  using E = target::GemmEpilogue;
  if (e == E::relu || e == E::relu_bias || target::gives_mask(e)) return std::max(x, 0.0);
  if (e != E::gelu && e != E::gelu_bias && !target::keeps_gelu_operand(e)) return x;
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/// One result of a product, before what is added to it.
double sum_of(const GemmCall& g, const Array& a, const Array& b, int64_t n, int64_t i, int64_t j) {
  double sum = 0;
  for (int64_t l = 0; l < size; ++l)
    sum +=
        a.at(n * size * size + at(i, l, g.a.transposed)) * b.at(n * size * size + at(l, j, g.b.transposed));
  return sum;
}

/// `masked`: operand A of the product whose relu gave the mask.
Results expected(const GemmCall& g, const Array& a, const Array& b, const Array& c, const Array& bias,
                 const Array& masked) {
  using E = target::GemmEpilogue;
  const int64_t square = size * size;
  Results out{Array(g.d.dtype, {g.batch * square}),
              Array(g.d.dtype, {target::keeps_gelu_operand(g.epilogue) ? square
                                : target::sums_operand(g.epilogue)     ? size
                                                                       : 0})};
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) {
        double sum = sum_of(g, a, b, n, i, j);
        const int64_t place = n * square + at(i, j, false);
        sum += g.beta * (g.beta != 0 ? c.at(place) : 0);
        if (target::has_bias(g.epilogue)) sum += bias.at(i);
        if (target::keeps_gelu_operand(g.epilogue)) out.second.set(place, sum);
        if (target::takes_mask(g.epilogue) && !(sum_of(g, masked, b, n, i, j) > 0)) sum = 0;
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

/// A record's operands in memory of the device; results begin with every byte 0xff.
class Operands {
 public:
  explicit Operands(target::Device& device) : device_(device) {}
  size_t give(int64_t bytes, const void* data) {
    memory_.push_back(run::device_memory(device_, bytes));
    const std::vector<unsigned char> poison(static_cast<size_t>(bytes), 0xff);
    run::upload_and_wait(device_, memory_.back().get(), data ? data : poison.data(), bytes);
    return memory_.size() - 1;
  }
  size_t give(const Array& a) { return give(a.bytes(), a.data()); }
  size_t take(run::DeviceMemory memory) {
    memory_.push_back(std::move(memory));
    return memory_.size() - 1;
  }
  run::DeviceMemory take_back(size_t i) { return std::move(memory_[i]); }
  target::Address at(size_t i) const { return memory_[i].get(); }
  void run(const GemmCall& g, target::Stream stream) {
    std::vector<target::Operand> operands;
    std::vector<target::Address> addresses;
    for (size_t i = 0; i < memory_.size(); ++i) {
      operands.push_back({static_cast<int>(i), 0});
      addresses.push_back(memory_[i].get());
    }
    const auto ready = device_.load({}, std::vector<target::CallRecord>{{g, operands, {}}});
    device_.launch(*ready, 0, addresses, stream);
    device_.sync(stream);
  }

 private:
  target::Device& device_;
  std::vector<run::DeviceMemory> memory_;
};

/// How the product that gives `g` its mask is asked for.
GemmCall mask_maker(const GemmCall& g) {
  GemmCall maker = g;
  maker.epilogue = target::GemmEpilogue::relu_aux;
  maker.beta = 0;
  return maker;
}

/// What a relu of a * b leaves, as this library packs it.
run::DeviceMemory mask_of(target::Device& d, GemmCall g, const Array& a, const Array& b,
                          target::Stream stream) {
  g.workspace = d.ask(g).workspace;
  Operands o(d);
  o.give(a), o.give(b);
  o.give(g.batch * size * size * ir::dtype_size(g.d.dtype), nullptr);
  const size_t mask = o.give(target::mask_bytes(g), nullptr);
  if (g.workspace > 0) o.give(g.workspace, nullptr);
  o.run(g, stream);
  return o.take_back(mask);
}

bool is_gelu(target::GemmEpilogue e) {
  return e == target::GemmEpilogue::gelu || e == target::GemmEpilogue::gelu_bias ||
         target::keeps_gelu_operand(e);
}

double largest_difference(const Array& got, const Array& want) {
  double largest = 0;
  for (int64_t i = 0; i < want.size(); ++i)
    if (const double off = std::fabs(got.at(i) - want.at(i)); !(off <= largest)) largest = off;
  return largest;
}

/// What is wrong; "" where nothing is. What a mask holds shows where it is taken. `gelu_error`: the largest of gelu, by dtype.
std::string wrong_values(target::Device& d, const GemmCall& g, target::Stream stream,
                         std::map<Dtype, double>& gelu_error) {
  const int64_t elements = g.batch * size * size;
  const Array a = numbers(g.a.dtype, elements, 1), b = numbers(g.b.dtype, elements, 2),
              c = numbers(g.d.dtype, elements, 3), bias = numbers(g.d.dtype, size, 4),
              masked = numbers(g.a.dtype, elements, 5);
  const Results want = expected(g, a, b, c, bias, masked);
  Operands o(d);
  o.give(a), o.give(b);
  if (g.beta != 0) o.give(c);
  if (target::has_bias(g.epilogue)) o.give(bias);
  if (target::takes_mask(g.epilogue)) o.take(mask_of(d, mask_maker(g), masked, b, stream));
  const size_t result = o.give(want.d.bytes(), nullptr);
  const size_t second = want.second.size() > 0 ? o.give(want.second.bytes(), nullptr) : 0;
  if (target::gives_mask(g.epilogue)) o.give(target::mask_bytes(g), nullptr);
  if (g.workspace > 0) o.give(g.workspace, nullptr);
  o.run(g, stream);
  std::string wrong;
  const auto compare = [&](const Array& expected, size_t buffer, bool gelu) {
    Array got(expected.dtype(), {expected.size()});
    run::download_and_wait(d, got.write(), o.at(buffer), got.bytes());
    if (gelu) {
      double& worst = gelu_error[got.dtype()];
      if (const double off = largest_difference(got, expected); !(off <= worst)) worst = off;
    }
    const std::string off = test::difference(got, expected, test::tolerance_of(got.dtype()) * 4);
    if (!off.empty()) wrong += (wrong.empty() ? "" : "; ") + off;
  };
  compare(want.d, result, is_gelu(g.epilogue));
  if (second > 0) compare(want.second, second, false);
  return wrong;
}

std::string product_values(const Place& place) {
  for (const target::DeviceLibrary& l : place.device->libraries())
    if (l.name == "cublaslt" && !l.missing.empty()) throw Lacks("there is no cuBLASLt: " + l.missing);
  const run::OwnedStream stream = run::owned_stream(*place.device);
  int right = 0, refused = 0;
  Wrong wrong;
  std::map<Dtype, double> gelu_error;
  for (GemmCall g : target::cuda::product_kinds(size))
    for (const int layout : {0, 1, 2, 3}) {
      g.a.transposed = layout & 1;
      g.b.transposed = layout & 2;
      g.workspace = int64_t{32} << 20;
      target::LibraryAnswer answer;
      try {
        answer = place.device->ask(g);
        if (answer.refusal.empty() && target::takes_mask(g.epilogue))
          answer.refusal = place.device->ask(mask_maker(g)).refusal;
      } catch (const target::DeviceError& e) {
        if (e.lost()) throw;
        answer.refusal = e.what();
      }
      if (!answer.refusal.empty()) {
        ++refused;
        continue;
      }
      g.workspace = answer.workspace;
      const std::string kind = fmt::format("{} {}: ", target::cuda::product_kind(g),
                                           target::cuda::product_layouts[target::cuda::product_layout(g)]);
      std::string off;
      try {
        off = wrong_values(*place.device, g, stream.get(), gelu_error);
      } catch (const target::DeviceError& e) {
        off = e.what();
        if (e.lost())
          throw target::DeviceError(
              {"products", fmt::format("the device is lost after {} right kinds", right),
               kind + off + wrong.list(), ""},
              true);
      }
      if (off.empty()) ++right;
      else wrong.add(kind + off);
    }
  std::string counts = fmt::format("{} kinds are right, {} are refused", right, refused);
  for (const auto& [dtype, error] : gelu_error)
    counts += fmt::format(", gelu in {} is off by at most {:.2g}", ir::dtype_name(dtype), error);
  wrong.demand_none(counts);
  demand(right > 0, "cuBLASLt does none of them");
  return counts;
}

}  // namespace

void add_products(std::vector<Check>& all) {
  all.push_back({"values of every kind of product", {}, [](const Place& p, const Loaded&) {
                   return product_values(p);
                 }});
}

}  // namespace espalier::gpu_check
