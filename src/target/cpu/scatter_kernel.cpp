#include "target/cpu/scatter_kernel.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "op/indexed.h"

namespace espalier::target::cpu {

namespace {

using ir::Dtype;
using kernel::Refusal;

/// The result is [outer, rows, inner], the updates [outer, picks, inner]; a row is chosen by pick, or (along) by element.
struct Shape {
  int64_t outer = 1, rows = 1, inner = 1, picks = 1;
  bool along = false;
};

/// An axis of `total` cut in `count` pieces of `size`, the last one shorter.
struct Pieces {
  int64_t total = 0, size = 1, count = 1;
  Pieces(int64_t length, int64_t wanted, int64_t unit) : total(length) {
    const int64_t most = std::max<int64_t>(1, (length + unit - 1) / unit);
    size = (most + std::clamp<int64_t>(wanted, 1, most) - 1) / std::clamp<int64_t>(wanted, 1, most) * unit;
    count = std::max<int64_t>(1, (length + size - 1) / size);
  }
  int64_t begin(int64_t piece) const { return piece * size; }
  int64_t end(int64_t piece) const { return std::min(total, (piece + 1) * size); }
};

struct Operands {
  const void *base, *indices, *updates;
  void *result, *sums;  ///< sums: f32, for the 16-bit floats
};
struct Range {
  int64_t begin, end;
};

template <class T>
constexpr bool is_half = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

/// What an element is summed in.
template <class T>
struct SumOf {
  using type = T;
};
template <class T>
requires is_half<T>
struct SumOf<T> {
  using type = float;
};
template <class T>
requires std::is_integral_v<T>
struct SumOf<T> {
  using type = std::make_unsigned_t<T>;  // wraps
};

template <class T, class Index>
void add_piece(const Shape& s, const Operands& m, Range outer, Range rows, Range inner) {
  using Sum = typename SumOf<T>::type;
  const int64_t width = inner.end - inner.begin;
  for (int64_t o = outer.begin; o < outer.end; ++o) {
    const int64_t at = o * s.rows * s.inner + inner.begin, from = o * s.picks * s.inner + inner.begin;
    const T* base = static_cast<const T*>(m.base) + at;
    const T* updates = static_cast<const T*>(m.updates) + from;
    T* result = static_cast<T*>(m.result) + at;
    Sum* sums = is_half<T> ? static_cast<Sum*>(m.sums) + at : reinterpret_cast<Sum*>(result);
    if constexpr (is_half<T>) {
      for (int64_t r = rows.begin; r < rows.end; ++r)
        for (int64_t i = 0; i < width; ++i) sums[r * s.inner + i] = static_cast<float>(base[r * s.inner + i]);
    } else if (base != result) {
      for (int64_t r = rows.begin; r < rows.end; ++r)
        std::memcpy(result + r * s.inner, base + r * s.inner, static_cast<size_t>(width) * sizeof(T));
    }
    const Index* indices = static_cast<const Index*>(m.indices) + (s.along ? from : 0);
    for (int64_t p = 0; p < s.picks; ++p) {
      const T* update = updates + p * s.inner;
      if (s.along) {
        for (int64_t i = 0; i < width; ++i) {
          const auto r = static_cast<int64_t>(indices[p * s.inner + i]);
          if (r >= rows.begin && r < rows.end) sums[r * s.inner + i] += static_cast<Sum>(update[i]);
        }
      } else if (const auto r = static_cast<int64_t>(indices[p]); r >= rows.begin && r < rows.end) {
        Sum* row = sums + r * s.inner;
        for (int64_t i = 0; i < width; ++i) row[i] += static_cast<Sum>(update[i]);
      }
    }
    if constexpr (is_half<T>)
      for (int64_t r = rows.begin; r < rows.end; ++r)
        for (int64_t i = 0; i < width; ++i) result[r * s.inner + i] = T(sums[r * s.inner + i]);
  }
}

using PieceFn = void (*)(const Shape&, const Operands&, Range outer, Range rows, Range inner);

PieceFn piece_of(Dtype dtype, Dtype index) {
  return ir::dispatch(dtype, [&](auto tag) -> PieceFn {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, bool>) return nullptr;
    else return index == Dtype::i32 ? add_piece<T, int32_t> : add_piece<T, int64_t>;
  });
}

/// Pieces of some 64 thousand elements at least, 16 at most.
int64_t parts_of(const Shape& s) {
  return std::clamp<int64_t>(s.outer * (s.rows + s.picks) * s.inner >> 16, 1, 16);
}

class ScatterKernel final : public Kernel {
 public:
  ScatterKernel(const Shape& s, PieceFn piece, int64_t sum_bytes)
      : shape_(s),
        piece_(piece),
        sum_bytes_(sum_bytes),
        outer_(s.outer, parts_of(s), 1),
        inner_(s.inner, parts_of(s) / outer_.count, 64),
        rows_(s.rows, parts_of(s) / (outer_.count * inner_.count), 1) {}

  std::string_view name() const override { return "scatter"; }
  int64_t chunks() const override { return outer_.count * inner_.count * rows_.count; }
  int64_t scratch_bytes() const override { return sum_bytes_; }
  std::vector<InPlace> in_place() const override { return {{0, 0}}; }

  void run(void* const* buffers, void* scratch, int64_t chunk) const override {
    const int64_t r = chunk % rows_.count, i = chunk / rows_.count % inner_.count,
                  o = chunk / rows_.count / inner_.count;
    piece_(shape_, {buffers[0], buffers[1], buffers[2], buffers[3], scratch},
           {outer_.begin(o), outer_.end(o)}, {rows_.begin(r), rows_.end(r)},
           {inner_.begin(i), inner_.end(i)});
  }

 private:
  Shape shape_;
  PieceFn piece_;
  int64_t sum_bytes_;
  Pieces outer_, inner_, rows_;
};

}  // namespace

std::variant<std::unique_ptr<Kernel>, Refusal> make_scatter_kernel(const ir::Node& n) {
  const bool along = &n.op() == &op::scatter_add_along_op;
  if (!along && &n.op() != &op::scatter_add_op) return Refusal{"scatter", "no scatter"};
  const auto axis = static_cast<size_t>(n.attrs<op::ScatterAttrs>().axis);
  const std::vector<int64_t> dims = ir::static_dims(n.types()[0].dims);
  const Shape s{.outer = ir::count(std::span(dims).first(axis)),
                .rows = dims[axis],
                .inner = ir::count(std::span(dims).subspan(axis + 1)),
                .picks = along ? n.input(1).dims()[axis].value() : n.input(1).type().elements(),
                .along = along};
  const Dtype dtype = n.types()[0].dtype;
  const bool half = dtype == Dtype::bf16 || dtype == Dtype::f16;
  return std::make_unique<ScatterKernel>(s, piece_of(dtype, n.input(1).dtype()),
                                         half ? n.types()[0].elements() * 4 : 0);
}

}  // namespace espalier::target::cpu
