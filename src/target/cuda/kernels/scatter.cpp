#include "target/cuda/kernels/scatter.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/align.h"
#include "op/indexed.h"
#include "target/cuda/emit/scalar.h"
#include "target/cuda/kernels/pattern.h"

namespace espalier::target::cuda {

namespace {

using kernel::Refusal;

constexpr int threads = 256, warps = threads / 32;
constexpr int rounds = 16;  // 32 updates of a warp each
constexpr int64_t chunk = threads * rounds;
constexpr int64_t most_keys = 1 << 30;

/// The result is [outer, rows, inner], the updates [outer, picks, inner]; a row is chosen by pick, or (along) by element.
struct Shape {
  int64_t outer = 1, rows = 1, inner = 1, picks = 1;
  bool along = false;
  Dtype dtype = Dtype::f32, index = Dtype::i32;
  int64_t elements() const { return outer * rows * inner; }
  int64_t updates() const { return outer * picks * inner; }
  int64_t indices() const { return along ? updates() : picks; }
  int64_t keys() const { return along ? elements() : rows; }  ///< what the sort tells apart
};

Shape shape_of(const ir::Node& n) {
  Shape s;
  s.along = &n.op() == &op::scatter_add_along_op;
  const auto axis = static_cast<size_t>(n.attrs<op::ScatterAttrs>().axis);
  const std::vector<int64_t> dims = ir::static_dims(n.types()[0].dims);
  s.outer = ir::count(std::span(dims).first(axis));
  s.rows = dims[axis];
  s.inner = ir::count(std::span(dims).subspan(axis + 1));
  s.picks = s.along ? n.input(1).dims()[axis].value() : n.input(1).type().elements();
  s.dtype = n.types()[0].dtype;
  s.index = n.input(1).dtype();
  return s;
}

/// Neighbours of `run` elements that move as one, 16 bytes at most.
int vector_of(const Shape& s, int64_t run, const MapOptions& options) {
  int64_t v = 16 / ir::dtype_size(s.dtype);
  const auto aligned = [&](size_t buffer) {
    return buffer >= options.alignment.size() ||
           options.alignment[buffer] % (v * ir::dtype_size(s.dtype)) == 0;
  };
  while (v > 1 && (run % v != 0 || !aligned(0) || !aligned(2) || !aligned(3))) v /= 2;
  return static_cast<int>(v);
}

/// Statement-level words that depend on the dtype: `sum` takes in the value `x` (of memory).
std::string add_text(Dtype d, const std::string& sum, const std::string& x) {
  const std::string value = from_memory(x, d);
  return is_float(d) ? fmt::format("{} + {}", sum, value)
                     : fmt::format("esp_add<{}>({}, {})", register_type(d), sum, value);
}

class Builder {
 public:
  Builder(const Shape& s, const MapOptions& options) : s_(s), options_(options) {
    wide_ = std::max(s.elements(), s.updates()) > std::min(options.index_limit, most_keys);
    list_.name = "scatter";
    list_.in_place = {{0, 0}};
  }

  CallList direct() {
    vector_ = s_.along ? 1 : vector_of(s_, s_.inner, options_);
    const std::string entry = filled(
        R"((const $T* base, const $I* __restrict__ indices, const $T* __restrict__ updates, $T* result) {
  const $U unit = static_cast<$U>(blockIdx.x) * $threads + threadIdx.x;
  if (unit >= $units) return;
  const $N e = static_cast<$N>(unit) * $V;
  const $N i = e % $inner, r = e / $inner % $rows, o = e / $row_elements;
  const Vec<$T, $V> from = esp_load<$V>(base + e);
  $S sum[$V];
#pragma unroll
  for (int l = 0; l < $V; ++l) sum[l] = $base;
  for (int p = 0; p < $picks; ++p) {
    const $N at = (o * $picks + p) * $inner + i;
    if (static_cast<long long>(indices[$index]) != static_cast<long long>(r)) continue;
    const Vec<$T, $V> x = esp_load<$V>(updates + at);
#pragma unroll
    for (int l = 0; l < $V; ++l) sum[l] = $add;
  }
  Vec<$T, $V> to;
#pragma unroll
  for (int l = 0; l < $V; ++l) to.v[l] = $sum;
  esp_store<$V>(result + e, to);
}
)",
        {{"T", memory_type(s_.dtype)},
         {"I", memory_type(s_.index)},
         {"S", register_type(s_.dtype)},
         {"N", index_type()},
         {"U", unsigned_type()},
         {"V", std::to_string(vector_)},
         {"threads", std::to_string(threads)},
         {"units", std::to_string(s_.elements() / vector_)},
         {"inner", std::to_string(s_.inner)},
         {"rows", std::to_string(s_.rows)},
         {"row_elements", std::to_string(s_.rows * s_.inner)},
         {"picks", std::to_string(s_.picks)},
         {"index", s_.along ? "at" : "p"},
         {"base", from_memory("from.v[l]", s_.dtype)},
         {"add", add_text(s_.dtype, "sum[l]", "x.v[l]")},
         {"sum", to_memory("sum[l]", s_.dtype)}});
    add(kernel_source("scatter", entry, threads, false), s_.elements() / vector_, {{0}, {1}, {2}, {3}},
        {.bytes = whole_bytes(), .flops = static_cast<double>(s_.updates())});
    return std::move(list_);
  }

  CallList sorted() {
    const int64_t n = s_.indices(), blocks = (n + chunk - 1) / chunk;
    int passes = 1;
    while (passes < 4 && s_.keys() >> (8 * passes) != 0) ++passes;
    const int64_t column = n * 4;
    const Operand keys[] = {scratch(column), scratch(column)}, order[] = {scratch(column), scratch(column)};
    const Operand counts = blocks > 1 ? scratch(blocks * 256 * 4) : Operand{};
    const Operand starts = scratch((s_.keys() + 1) * 4);
    for (int pass = 0; pass < passes; ++pass) {
      const Operand from_keys = pass == 0 ? Operand{1} : keys[(pass - 1) % 2];
      const int64_t bytes = n * (pass == 0 ? ir::dtype_size(s_.index) : 8);
      if (blocks > 1)
        add(count_kernel(pass), blocks * threads, {from_keys, counts}, {.bytes = bytes + blocks * 1024});
      std::vector<Operand> operands{from_keys};
      if (pass > 0) operands.push_back(order[(pass - 1) % 2]);
      if (blocks > 1) operands.push_back(counts);
      operands.push_back(keys[pass % 2]);
      operands.push_back(order[pass % 2]);
      add(place_kernel(pass, blocks), blocks * threads, std::move(operands), {.bytes = bytes + n * 8});
    }
    const Operand last_keys = keys[(passes - 1) % 2], last_order = order[(passes - 1) % 2];
    add(starts_kernel(), s_.keys() + 1, {last_keys, starts}, {.bytes = column + (s_.keys() + 1) * 4});
    vector_ = s_.along ? 1 : vector_of(s_, s_.inner, options_);
    add(sum_kernel(), s_.elements() / vector_, {{0}, {2}, last_order, starts, {3}},
        {.bytes = whole_bytes(), .flops = static_cast<double>(s_.updates())});
    return std::move(list_);
  }

 private:
  const char* index_type() const { return wide_ ? "long long" : "int"; }
  const char* unsigned_type() const { return wide_ ? "unsigned long long" : "unsigned"; }
  int64_t whole_bytes() const {
    return (2 * s_.elements() + s_.updates()) * ir::dtype_size(s_.dtype) +
           s_.indices() * ir::dtype_size(s_.index);
  }

  Operand scratch(int64_t bytes) {
    const int64_t at = list_.scratch_bytes;
    list_.scratch_bytes += whole_lines(bytes);
    return {4, at};
  }

  void add(KernelSource source, int64_t all_threads, std::vector<Operand> operands, Cost cost) {
    cost.dtype = s_.dtype;
    KernelCall call = launch_of(source, all_threads);
    for (const Operand& o : operands) call.alignment.push_back(widest_access(o.buffer));
    list_.calls.push_back({.work = std::move(call), .operands = std::move(operands), .cost = cost});
    list_.sources.push_back(std::move(source));
  }

  /// Indices and what is sorted go by the element.
  int64_t widest_access(int buffer) const {
    return buffer == 1 ? ir::dtype_size(s_.index) : buffer == 4 ? 4 : vector_ * ir::dtype_size(s_.dtype);
  }

  /// "const int key = ..." of update j: where it goes, or beyond all where it is ignored.
  std::string key_text(int pass) const {
    if (pass > 0) return "const int key = live ? keys[j] : 0;";
    const std::string place = !s_.along ? "static_cast<int>(x)"
                                        : fmt::format("(j / {} * {} + static_cast<int>(x)) * {} + j % {}",
                                                      s_.picks * s_.inner, s_.rows, s_.inner, s_.inner);
    return fmt::format(
        "const long long x = live ? static_cast<long long>(keys[j]) : 0;\n"
        "    const int key = x >= 0 && x < {} ? {} : {};",
        s_.rows, place, s_.keys());
  }
  std::string key_type(int pass) const { return pass > 0 ? "int" : memory_type(s_.index); }

  /// The updates of a warp, 32 at a time: `peers` are the lanes whose digits are equal; the lowest of them does `$leader`.
  std::string walk(int pass, std::string_view lane_work, std::string_view leader_work) const {
    return filled(R"(  for (int round = 0; round < $rounds; ++round) {
    const int j = first + round * 32 + lane;
    const bool live = j < $n;
    $key
    const int digit = key >> $shift & 255;
    unsigned peers = __ballot_sync(0xffffffffu, live);
#pragma unroll
    for (int bit = 0; bit < 8; ++bit) {
      const bool one = digit >> bit & 1;
      const unsigned with = __ballot_sync(0xffffffffu, one);
      peers &= one ? with : ~with;
    }
    const unsigned before = peers & ((1u << lane) - 1u);
    $lane_work
    __syncwarp();
    if (live && before == 0) $leader_work
    __syncwarp();
  }
)",
                  {{"rounds", std::to_string(rounds)},
                   {"n", std::to_string(s_.indices())},
                   {"key", key_text(pass)},
                   {"shift", std::to_string(8 * pass)},
                   {"lane_work", std::string(lane_work)},
                   {"leader_work", std::string(leader_work)}});
  }

  /// How often each digit is among the updates of each warp: count[warp * 256 + digit].
  std::string counted(int pass) const {
    return filled(R"(  K_SHARED(int, count, $all);
  const int t = static_cast<int>(threadIdx.x), lane = t & 31, warp = t >> 5;
  const int first = (static_cast<int>(blockIdx.x) * $warps + warp) * $of_warp;
  for (int d = t; d < $all; d += $threads) count[d] = 0;
  __syncthreads();
)",
                  {{"all", std::to_string(warps * 256)},
                   {"warps", std::to_string(warps)},
                   {"of_warp", std::to_string(32 * rounds)},
                   {"threads", std::to_string(threads)}}) +
           walk(pass, "", "count[warp * 256 + digit] += __popc(peers);") + "  __syncthreads();\n";
  }

  KernelSource count_kernel(int pass) const {
    const std::string entry =
        fmt::format("(const {}* __restrict__ keys, int* __restrict__ counts) {{\n", key_type(pass)) +
        counted(pass) +
        filled(R"(  int sum = 0;
#pragma unroll
  for (int w = 0; w < $warps; ++w) sum += count[w * 256 + t];
  counts[static_cast<int>(blockIdx.x) * 256 + t] = sum;
}
)",
               {{"warps", std::to_string(warps)}});
    return kernel_source("scatter_count", entry, threads, true);
  }

  /// Every update to its place among those of its digit: stable, so that equal keys stay in row-major order.
  KernelSource place_kernel(int pass, int64_t blocks) const {
    std::string entry = fmt::format("(const {}* __restrict__ keys, ", key_type(pass));
    if (pass > 0) entry += "const int* __restrict__ order, ";
    if (blocks > 1) entry += "const int* __restrict__ counts, ";
    entry += "int* __restrict__ new_keys, int* __restrict__ new_order) {\n" + counted(pass);
    entry += filled(R"(  K_SHARED(int, scan, 256);
  int total = 0, earlier = 0;
  $totals
  scan[t] = total;
  __syncthreads();
#pragma unroll
  for (int step = 1; step < 256; step *= 2) {
    const int sum = scan[t] + (t >= step ? scan[t - step] : 0);
    __syncthreads();
    scan[t] = sum;
    __syncthreads();
  }
  int place = scan[t] - total + earlier;
#pragma unroll
  for (int w = 0; w < $warps; ++w) {
    const int own = count[w * 256 + t];
    count[w * 256 + t] = place;
    place += own;
  }
  __syncthreads();
)",
                    {{"warps", std::to_string(warps)}, {"totals", totals(blocks)}});
    entry += walk(pass,
                  fmt::format("if (live) {{\n"
                              "      const int to = count[warp * 256 + digit] + __popc(before);\n"
                              "      new_keys[to] = key;\n"
                              "      new_order[to] = {};\n"
                              "    }}",
                              pass > 0 ? "order[j]" : "j"),
                  "count[warp * 256 + digit] += __popc(peers);");
    return kernel_source("scatter_place", entry + "}\n", threads, true);
  }

  static std::string totals(int64_t blocks) {
    if (blocks == 1) return fmt::format("for (int w = 0; w < {}; ++w) total += count[w * 256 + t];", warps);
    return fmt::format(
        "for (int b = 0; b < {}; ++b) {{\n"
        "    const int own = counts[b * 256 + t];\n"
        "    if (b < static_cast<int>(blockIdx.x)) earlier += own;\n"
        "    total += own;\n"
        "  }}",
        blocks);
  }

  /// Where the updates of each row begin among the sorted ones.
  KernelSource starts_kernel() const {
    return kernel_source("scatter_starts",
                         filled(R"((const int* __restrict__ keys, int* __restrict__ starts) {
  const unsigned row = blockIdx.x * $threads + threadIdx.x;
  if (row > $keys) return;
  int low = 0, high = $n;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (keys[middle] < static_cast<int>(row)) low = middle + 1;
    else high = middle;
  }
  starts[row] = low;
}
)",
                                {{"threads", std::to_string(threads)},
                                 {"keys", std::to_string(s_.keys())},
                                 {"n", std::to_string(s_.indices())}}),
                         threads, false);
  }

  KernelSource sum_kernel() const {
    const std::string where =
        s_.along ? "order[j]" : fmt::format("(o * {} + order[j]) * {} + i", s_.picks, s_.inner);
    const std::string decode =
        s_.along ? "const int row = static_cast<int>(e);"
                 : fmt::format("const {} i = e % {}, row = e / {} % {}, o = e / {};", index_type(), s_.inner,
                               s_.inner, s_.rows, s_.rows * s_.inner);
    return kernel_source(
        "scatter_sum",
        filled(
            R"((const $T* base, const $T* __restrict__ updates, const int* __restrict__ order, const int* __restrict__ starts, $T* result) {
  const $U unit = static_cast<$U>(blockIdx.x) * $threads + threadIdx.x;
  if (unit >= $units) return;
  const $N e = static_cast<$N>(unit) * $V;
  $decode
  const Vec<$T, $V> from = esp_load<$V>(base + e);
  $S sum[$V];
#pragma unroll
  for (int l = 0; l < $V; ++l) sum[l] = $base;
  const int end = starts[row + 1];
#pragma unroll 4
  for (int j = starts[row]; j < end; ++j) {
    const Vec<$T, $V> x = esp_load<$V>(updates + ($where));
#pragma unroll
    for (int l = 0; l < $V; ++l) sum[l] = $add;
  }
  Vec<$T, $V> to;
#pragma unroll
  for (int l = 0; l < $V; ++l) to.v[l] = $sum;
  esp_store<$V>(result + e, to);
}
)",
            {{"T", memory_type(s_.dtype)},
             {"S", register_type(s_.dtype)},
             {"N", index_type()},
             {"U", unsigned_type()},
             {"V", std::to_string(vector_)},
             {"threads", std::to_string(threads)},
             {"units", std::to_string(s_.elements() / vector_)},
             {"decode", decode},
             {"where", where},
             {"base", from_memory("from.v[l]", s_.dtype)},
             {"add", add_text(s_.dtype, "sum[l]", "x.v[l]")},
             {"sum", to_memory("sum[l]", s_.dtype)}}),
        threads, false);
  }

  const Shape& s_;
  const MapOptions& options_;
  bool wide_ = false;
  int vector_ = 1;
  CallList list_{};
};

}  // namespace

std::variant<CallList, Refusal> scatter_calls(const ir::Node& node, const ScatterOptions& options) {
  if (&node.op() != &op::scatter_add_op && &node.op() != &op::scatter_add_along_op)
    return Refusal{"scatter", "no scatter"};
  const Shape s = shape_of(node);
  Builder builder(s, options.map);
  if (s.elements() == 0) return CallList{.name = "scatter", .calls = {}, .sources = {}, .in_place = {}};
  if (s.picks <= options.few_updates || s.updates() == 0 || s.elements() <= options.little_work / s.picks)
    return builder.direct();
  if (s.keys() > most_keys || s.indices() > most_keys)
    return Refusal{"scatter",
                   fmt::format("{} updates of {} places are too many to sort", s.indices(), s.keys())};
  return builder.sorted();
}

}  // namespace espalier::target::cuda
