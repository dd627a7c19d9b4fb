// Batched matrix product. Each chunk (a range of the batch, of columns or of rows, by shape) runs on one thread, so that no sum is ever
// shared between threads.
#include "target/cpu/onednn/dot.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/threads.h"
#include "target/cpu/onednn/support.h"

namespace espalier::target::cpu::onednn {

using dnnl::memory;
using Dims = memory::dims;

namespace {

enum class Axis : uint8_t { batch, rows, columns };

struct Split {
  Axis axis = Axis::batch;
  Cut cut;
};

/// How the work is cut: by shape alone.
Split choose_split(const DotSpec& s) {
  constexpr double chunk_work = 1e6;  // floating-point operations: some 10 us
  const double work = 2.0 * static_cast<double>(s.batch * s.m) * static_cast<double>(s.n * s.k);
  const int64_t parts = std::clamp(static_cast<int64_t>(work / chunk_work), int64_t{1}, int64_t{16});
  if (s.batch > 1) return {Axis::batch, cut(s.batch, std::min(parts, s.batch), 1)};
  if (s.n >= 256 || s.n >= s.m) return {Axis::columns, cut(s.n, parts, 64)};
  return {Axis::rows, cut(s.m, parts, 16)};
}

/// A matrix of `rows` by `columns`, batched where batch > 1, with strides that the library recognises as plain: those of
/// an axis of size one are free.
memory::desc matrix(ir::Dtype dtype, int64_t batch, int64_t rows, int64_t columns, const int64_t* strides) {
  int64_t row = strides[1], column = strides[2];
  if (columns == 1) column = 1;
  if (rows == 1) row = column == 1 ? columns : 1;
  if (batch == 1) return {Dims{rows, columns}, data_type(dtype), Dims{row, column}};
  return {Dims{batch, rows, columns}, data_type(dtype), Dims{strides[0], row, column}};
}

/// The product of one chunk, and the packing of its B.
struct Part {
  Step product, pack;
  memory::desc weights;  ///< B as the product reads it
  int64_t packed_bytes = 0;
  std::string implementation;
};

Part make_part(const DotSpec& s, int64_t result_pitch) {
  const int64_t result_strides[3] = {s.m * result_pitch, result_pitch, 1};
  const memory::desc a = matrix(s.compute, s.batch, s.m, s.k, s.a_strides);
  const memory::desc given = matrix(s.compute, s.batch, s.k, s.n, s.b_strides);
  const memory::desc c = matrix(s.result, s.batch, s.m, s.n, result_strides);
  const memory::desc b =
      s.constant_b ? memory::desc(given.dims(), given.data_type(), memory::format_tag::any) : given;
  Dims channel_dims(s.batch > 1 ? 3 : 2, 1);
  channel_dims.back() = s.n;
  const memory::desc bias(channel_dims, memory::data_type::f32,
                          s.batch > 1 ? memory::format_tag::abc : memory::format_tag::ab);
  const dnnl::primitive_attr attr = attributes(s.posts, channel_dims);
  const dnnl::matmul::primitive_desc pd(
      s.bias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c), attr, engine());
  const memory::desc weights = pd.weights_desc();
  std::vector<Step::Argument> arguments{{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, c}};
  if (s.bias) arguments.push_back({DNNL_ARG_BIAS, bias});
  append_post_arguments(s.posts, channel_dims, arguments);
  return {Step(dnnl::matmul(pd), std::move(arguments), pd.scratchpad_desc()), reorder(given, weights),
          weights, bytes_of(weights), pd.impl_info_str()};
}

class DotCall final : public Call {
 public:
  DotSpec spec;
  Split split;
  Part whole, last;  ///< of the full chunks and of the shorter last one
  bool has_last = false;

  std::string name() const override { return whole.implementation; }
  int64_t chunks() const override { return split.cut.count; }
  int64_t scratch_bytes() const override { return chunks() * part_scratch(); }
  int64_t packed_bytes() const override {
    if (!spec.constant_b) return 0;
    return split.axis == Axis::columns ? chunks() * packed_pitch() : whole.packed_bytes;
  }

  std::string packing() const override {
    if (packed_bytes() == 0) return {};
    return fmt::format("{} {} of {} {} {}", static_cast<int>(split.axis),
                       split.axis == Axis::columns ? split.cut.size : 0, spec.b_strides[1], spec.b_strides[2],
                       layout_name(whole.weights));
  }

  void pack(const void* b, void* packed) const override {
    const TeamScope scope(1);
    const std::vector<std::byte> work(
        static_cast<size_t>(std::max(whole.pack.scratch_bytes(), has_last ? last.pack.scratch_bytes() : 0)));
    const int64_t pieces = split.axis == Axis::columns ? chunks() : 1;
    for (int64_t i = 0; i < pieces; ++i) {
      const Part& part = of(i);
      void* const to = at(packed, i * packed_pitch());
      const void* const from = at(b, i * b_step());
      if (part.pack) part.pack.run(std::initializer_list<const void*>{from, to}, at(work.data(), 0));
      else std::copy_n(static_cast<const std::byte*>(from), part.packed_bytes, static_cast<std::byte*>(to));
    }
  }

  void run(const CallArgs& args, int64_t chunk) const override {
    const TeamScope scope(1);
    const bool columns = split.axis == Axis::columns;
    const int64_t from = chunk * split.cut.size, result_size = ir::dtype_size(spec.result);
    const void* pointers[16];
    size_t count = 0;
    pointers[count++] = at(args.a, chunk * a_step());
    pointers[count++] = spec.constant_b ? at(args.packed, columns ? chunk * packed_pitch() : 0)
                                        : at(args.b, chunk * b_step());
    const int64_t result_step = columns ? 1 : split.axis == Axis::rows ? spec.n : spec.m * spec.n;
    void* const result = at(args.result, from * result_step * result_size);
    pointers[count++] = result;
    if (args.residual && args.residual != args.result)
      copy_residual(at(args.residual, from * result_step * result_size), result, chunk);
    const int64_t first_column = columns ? from * static_cast<int64_t>(sizeof(float)) : 0;
    if (spec.bias) pointers[count++] = at(args.bias, first_column);
    for (const void* channel : args.channels) pointers[count++] = at(channel, first_column);
    of(chunk).product.run({pointers, count}, at(args.scratch, chunk * part_scratch()));
  }

 private:
  void copy_residual(const void* from, void* to, int64_t chunk) const {
    const int64_t size = std::min(split.cut.size, total() - chunk * split.cut.size);
    const int64_t row = spec.n * ir::dtype_size(spec.result);
    if (split.axis == Axis::columns) copy_rows(from, to, spec.m, size * ir::dtype_size(spec.result), row);
    else copy_rows(from, to, 1, size * row * (split.axis == Axis::rows ? 1 : spec.m), 0);
  }
  int64_t total() const {
    return split.axis == Axis::batch ? spec.batch : split.axis == Axis::rows ? spec.m : spec.n;
  }
  const Part& of(int64_t chunk) const { return has_last && chunk + 1 == split.cut.count ? last : whole; }
  int64_t part_scratch() const {
    return whole_lines(std::max(whole.product.scratch_bytes(), has_last ? last.product.scratch_bytes() : 0));
  }
  int64_t packed_pitch() const { return whole_lines(whole.packed_bytes); }
  /// Bytes from one chunk's A (B) to the next.
  int64_t a_step() const {
    if (split.axis == Axis::columns) return 0;
    return split.cut.size * spec.a_strides[split.axis == Axis::rows ? 1 : 0] * ir::dtype_size(spec.compute);
  }
  int64_t b_step() const {
    if (split.axis == Axis::rows) return 0;
    return split.cut.size * spec.b_strides[split.axis == Axis::columns ? 2 : 0] *
           ir::dtype_size(spec.compute);
  }
};

PreparedCall prepare(DotSpec s) {
  const TeamScope scope(1);
  auto call = std::make_unique<DotCall>();
  call->split = choose_split(s);
  s.constant_b = s.constant_b && s.batch == 1;
  call->spec = s;
  const auto of_size = [&](int64_t size) {
    DotSpec part = s;
    (call->split.axis == Axis::batch ? part.batch : call->split.axis == Axis::rows ? part.m : part.n) = size;
    return make_part(part, s.n);
  };
  const int64_t total = call->split.axis == Axis::batch  ? s.batch
                        : call->split.axis == Axis::rows ? s.m
                                                         : s.n;
  call->whole = of_size(call->split.cut.size);
  if (const int64_t rest = total % call->split.cut.size; rest > 0) {
    call->last = of_size(rest);
    call->has_last = true;
  }
  if (is_reference(call->whole.implementation) || is_reference(call->last.implementation))
    return Declined{"only the library's reference code: " + call->whole.implementation};
  return call;
}

}  // namespace

PreparedCall prepare_dot(const DotSpec& s) {
  const auto known = [](ir::Dtype d) { return d == ir::Dtype::f32 || d == ir::Dtype::bf16; };
  if (!known(s.compute) || !known(s.result)) return Declined{"only f32 and bf16"};
  if (s.compute == ir::Dtype::f32 && s.result == ir::Dtype::bf16)
    return Declined{"f32 operands with a bf16 result"};
  if (std::min({s.batch, s.m, s.n, s.k}) <= 0) return Declined{"an empty operand or result"};
  if (s.posts.size() > 8) return Declined{"too many post-operations"};
  try {
    return prepare(s);
  } catch (const dnnl::error& error) {
    return Declined{error.message};
  }
}

}  // namespace espalier::target::cpu::onednn
