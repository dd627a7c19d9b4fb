#include "target/cpu/emit/batch_conv.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "target/cpu/emit/scalar_ops.h"
#include "target/cpu/jit/compile_ir.h"

namespace espalier::target::cpu {

namespace {

using Kind = BatchConv::Kind;
using Pair = BatchConv::Pair;

constexpr double chunk_cycles = 40000;

int64_t divide_up(int64_t n, int64_t d) { return (n + d - 1) / d; }

/// What a forward convolution and a data gradient have in common: a result gathered from a source.
struct Gather {
  Pair source, result;                ///< extents
  int64_t sums, outputs;              ///< channels that are summed, channels of the result
  int64_t sum_stride, output_stride;  ///< of the weights along them
};

Gather gather_of(const BatchConv& c) {
  const int64_t window = c.kernel[0] * c.kernel[1] * c.channels;
  if (c.kind == Kind::forward) return {c.in, c.out, c.channels, c.features, 1, window};
  return {c.out, c.in, c.features, c.channels, window, 1};
}

/// Positions along W that are computed by the same code: `count` tiles of `width`, from `first` on.
struct Span {
  int64_t first, width, count;
};

/// Where column `w` of the result and column `k` of the kernel meet the source; -1 where they do not.
int64_t source_column(const BatchConv& c, int64_t w, int64_t k) {
  const int64_t stride = c.stride[1], reach = k * c.dilation[1] - c.pad_low[1];
  if (c.kind == Kind::forward) {
    const int64_t s = w * stride + reach;
    return s >= 0 && s < c.in[1] ? s : -1;
  }
  const int64_t t = w - reach;
  return t >= 0 && t % stride == 0 && t / stride < c.out[1] ? t / stride : -1;
}

/// Tiles of a row of the result, neighbours that meet the source in the same way together.
std::vector<Span> gather_spans(const BatchConv& c, int64_t positions) {
  const int64_t width = gather_of(c).result[1];
  const int64_t moved = c.kind == Kind::forward ? positions * c.stride[1] : positions / c.stride[1];
  const bool regular = c.kind == Kind::forward || positions % c.stride[1] == 0;
  std::vector<Span> spans;
  std::vector<int64_t> last;
  for (int64_t first = 0; first < width; first += positions) {
    std::vector<int64_t> now;
    for (int64_t w = first; w < std::min(first + positions, width); ++w)
      for (int64_t k = 0; k < c.kernel[1]; ++k) now.push_back(source_column(c, w, k));
    bool alike = regular && now.size() == last.size();
    for (size_t i = 0; alike && i < now.size(); ++i)
      alike = now[i] < 0 ? last[i] < 0 : last[i] >= 0 && now[i] == last[i] + moved;
    if (alike) ++spans.back().count;
    else spans.push_back({first, std::min(positions, width - first), 1});
    last = std::move(now);
  }
  return spans;
}

/// Positions of y along W that meet the same columns of the kernel, as runs: first position and the one after the last.
struct Run {
  int64_t first, end;
  std::vector<bool> meets;
};

std::vector<Run> weight_grad_runs(const BatchConv& c) {
  std::vector<Run> runs;
  for (int64_t w = 0; w < c.out[1]; ++w) {
    std::vector<bool> meets;
    for (int64_t k = 0; k < c.kernel[1]; ++k) {
      const int64_t s = w * c.stride[1] + k * c.dilation[1] - c.pad_low[1];
      meets.push_back(s >= 0 && s < c.in[1]);
    }
    if (!runs.empty() && runs.back().meets == meets) runs.back().end = w + 1;
    else runs.push_back({w, w + 1, std::move(meets)});
  }
  return runs;
}

/// Cycles of a step that multiplies an a x b tile: multiply-adds, loads, or the latency of a sum that feeds itself.
double step_cycles(int64_t a, int64_t b) {
  constexpr double loads_per_cycle = 1, latency = 4;
  return std::max({static_cast<double>(a * b), static_cast<double>(a + b) / loads_per_cycle, latency});
}

void plan_gather(const BatchConv& c, int64_t registers, BatchConvPlan& plan) {
  const Gather g = gather_of(c);
  const double taps = static_cast<double>(c.kernel[0] * c.kernel[1] * g.sums);
  double best = 0;
  const int64_t phases = c.kind == Kind::data_grad ? c.stride[1] : 1;  // tiles of whole phases are alike
  for (int64_t w = 1; w <= std::min<int64_t>(g.result[1], registers); ++w) {
    if (w % phases && w < g.result[1] && phases < registers) continue;
    for (int64_t o = 1; o <= g.outputs && w * o + w + 1 < registers; ++o) {
      const auto across = [&](int64_t positions, int64_t outputs) {
        return positions * outputs == 0 ? 0 : step_cycles(positions, outputs);
      };
      const int64_t rest_w = g.result[1] % w, rest_o = g.outputs % o;
      const double tiles = static_cast<double>(g.result[1] / w), bands = static_cast<double>(g.outputs / o);
      const double cycles = tiles * (bands * across(w, o) + across(w, rest_o)) + bands * across(rest_w, o) +
                            across(rest_w, rest_o);
      if (best != 0 && cycles >= best) continue;
      best = cycles;
      plan.positions = w;
      plan.outputs = o;
    }
  }
  for (const Span& s : gather_spans(c, plan.positions))
    plan.code += s.width * c.kernel[1] * std::min(g.outputs, plan.outputs + g.outputs % plan.outputs);
  const int64_t rows = c.batch_blocks * g.result[0];
  plan.cycles = best * taps * static_cast<double>(rows);
  const auto chunks =
      static_cast<int64_t>(std::clamp(plan.cycles / chunk_cycles, 1.0, static_cast<double>(rows)));
  plan.rows_per_chunk = divide_up(rows, chunks);
  plan.chunks = divide_up(rows, plan.rows_per_chunk);
}

void plan_weight_grad(const BatchConv& c, int64_t registers, BatchConvPlan& plan) {
  double best = 0;
  const int64_t columns = c.kernel[1];
  for (int64_t f = 1; f <= c.features; ++f)
    for (int64_t n = 1; n <= c.channels; ++n) {
      if (c.features % f || c.channels % n || f * n * columns + std::min(f, n * columns) + 1 >= registers)
        continue;
      const double cycles =
          step_cycles(n * columns, f) * static_cast<double>(c.features / f * (c.channels / n));
      if (best != 0 && cycles >= best) continue;
      best = cycles;
      plan.feature_tile = f;
      plan.channel_tile = n;
    }
  plan.cycles = best * static_cast<double>(c.batch_blocks * c.kernel[0] * c.out[0] * c.out[1]);
  plan.code =
      static_cast<int64_t>(weight_grad_runs(c).size()) * columns * plan.feature_tile * plan.channel_tile;
  const int64_t tiles = c.kernel[0] * (c.features / plan.feature_tile) * (c.channels / plan.channel_tile);
  constexpr int64_t enough_tasks = 32;
  while (plan.groups < c.batch_blocks && tiles * plan.groups < enough_tasks) ++plan.groups;
  while (c.batch_blocks % plan.groups) ++plan.groups;
  plan.chunks = tiles * plan.groups;
}

class BatchConvEmitter {
 public:
  BatchConvEmitter(const BatchConv& conv, const BatchConvPlan& plan, const CpuFeatures& features)
      : c_(conv),
        plan_(plan),
        features_(features),
        w_(features.lanes()),
        ops_(w_, features),
        vector_(ir_f32.with_lanes(features.lanes())) {}

  std::string run() {
    w_.begin_function("void @kernel(ptr %buffers, i64 %chunk) #0");
    const bool weights = c_.kind == Kind::weight_grad;
    for (int i = 0; i < 4; ++i)
      buffers_.push_back(w_.load(w_.offset({"%buffers", ir_ptr}, ir_ptr, number(i)), ir_ptr, 8));
    if (weights) weight_grad({"%chunk", ir_i64});
    else gather({"%chunk", ir_i64});
    w_.end_function();
    return module_header() + w_.module_text() + "attributes #0 = { nounwind " + target_attributes(features_) +
           " }\n" + "attributes #1 = { nounwind willreturn memory(none) }\n";
  }

 private:
  static Val number(int64_t n) { return IrWriter::integer(ir_i64, n); }
  Val plus(const Val& a, const Val& b) { return w_.binary("add", a, b); }
  Val times(const Val& a, int64_t b) { return b == 1 ? a : w_.binary("mul", a, number(b)); }
  Val at(const Val& pointer, const Val& elements) { return w_.offset(pointer, ir_f32, elements); }
  Val at(const Val& pointer, int64_t elements) {
    return elements == 0 ? pointer : at(pointer, number(elements));
  }
  Val load_vector(const Val& pointer) { return w_.load(pointer, vector_, 4 * w_.lanes()); }
  Val load_splat(const Val& pointer) { return w_.splat(w_.load(pointer, ir_f32, 4), w_.lanes()); }

  // ---- rows of a result gathered from a source ---------------------------------------------------------------------

  void gather(const Val& chunk) {
    const Gather g = gather_of(c_);
    const Val begin = times(chunk, plan_.rows_per_chunk);
    const Val end = w_.intrinsic(
        "llvm.smin", {plus(begin, number(plan_.rows_per_chunk)), number(c_.batch_blocks * g.result[0])});
    w_.loop(begin, end, 1, true, [&](const Val& row) {
      const Val picture = w_.binary("udiv", row, number(g.result[0]));
      line_ = w_.binary("urem", row, number(g.result[0]));
      source_ = at(buffers_[0], times(picture, g.source[0] * g.source[1] * g.sums * w_.lanes()));
      result_ = at(buffers_.back(), times(row, g.result[1] * g.outputs * w_.lanes()));
      const int64_t whole = g.outputs / plan_.outputs * plan_.outputs;
      if (whole > 0)
        w_.loop(number(0), number(whole), plan_.outputs, true, [&](const Val& o) { band(o, plan_.outputs); });
      if (whole < g.outputs) band(number(whole), g.outputs - whole);
    });
  }

  /// `outputs` channels of the result from `first` on, along the whole row.
  void band(const Val& first, int64_t outputs) {
    for (const Span& s : gather_spans(c_, plan_.positions)) {
      if (s.count == 1) {
        tile(s.first, s.width, number(0), first, outputs);
        continue;
      }
      w_.loop(number(0), number(s.count * s.width), s.width, true,
              [&](const Val& shift) { tile(s.first, s.width, shift, first, outputs); });
    }
  }

  /// `width` positions from first + shift on, times `outputs` channels from `o` on; shift is a multiple of width.
  void tile(int64_t first, int64_t width, const Val& shift, const Val& o, int64_t outputs) {
    const Gather g = gather_of(c_);
    sums_.clear();
    for (int64_t i = 0; i < width * outputs; ++i) {
      sums_.push_back(w_.slot(vector_));
      w_.store_slot(sums_.back(), IrWriter::zero(vector_));
    }
    const Val weights = at(buffers_[1], times(o, g.output_stride));
    Val along = shift;  // of the source
    if (c_.kind == Kind::forward) along = times(shift, c_.stride[1]);
    else if (c_.stride[1] > 1) along = w_.binary("udiv", shift, number(c_.stride[1]));
    const Val source = at(source_, times(along, g.sums * w_.lanes()));
    w_.loop(number(0), number(c_.kernel[0]), 1, true, [&](const Val& k) {
      const auto met = source_line(k);
      w_.if_else(met.first, [&] {
        const Val from = at(source, times(met.second, g.source[1] * g.sums * w_.lanes()));
        const Val row = at(weights, times(k, c_.kernel[1] * c_.channels));
        w_.loop(number(0), number(g.sums), 1, true, [&](const Val& n) {
          columns(first, width, outputs, at(from, times(n, w_.lanes())), at(row, times(n, g.sum_stride)));
        });
      });
    });
    for (int64_t i = 0; i < width; ++i)
      for (int64_t j = 0; j < outputs; ++j) {
        const Val to = at(result_, plus(times(plus(shift, number(first + i)), g.outputs * w_.lanes()),
                                        times(plus(o, number(j)), w_.lanes())));
        w_.store(finished(w_.load_slot(sum(i, j, outputs), vector_), o, j), to, 4 * w_.lanes());
      }
  }

  const Val& sum(int64_t i, int64_t j, int64_t outputs) const {
    return sums_[static_cast<size_t>(i * outputs + j)];
  }

  /// Is line `k` of the kernel inside the source, and on which line of it?
  std::pair<Val, Val> source_line(const Val& k) {
    const Val reach = plus(times(k, c_.dilation[0]), number(-c_.pad_low[0]));
    if (c_.kind == Kind::forward) {
      const Val line = plus(times(line_, c_.stride[0]), reach);
      return {w_.icmp("ult", line, number(c_.in[0])), line};
    }
    const Val t = w_.binary("sub", line_, reach), stride = number(c_.stride[0]);
    if (c_.stride[0] == 1) return {w_.icmp("ult", t, number(c_.out[0])), t};
    const Val line = w_.binary("sdiv", t, stride);
    const Val meets = w_.icmp("eq", w_.binary("srem", t, stride), number(0));
    const Val range = w_.binary("and", w_.icmp("sge", t, number(0)), w_.icmp("slt", line, number(c_.out[0])));
    return {w_.binary("and", meets, range), line};
  }

  /// All columns of the kernel's line, for one of the channels that are summed.
  void columns(int64_t first, int64_t width, int64_t outputs, const Val& source, const Val& weights) {
    const Gather g = gather_of(c_);
    for (int64_t k = 0; k < c_.kernel[1]; ++k) {
      std::vector<std::pair<int64_t, Val>> met;
      for (int64_t i = 0; i < width; ++i)
        if (const int64_t s = source_column(c_, first + i, k); s >= 0)
          met.emplace_back(i, load_vector(at(source, s * g.sums * w_.lanes())));
      if (met.empty()) continue;
      for (int64_t j = 0; j < outputs; ++j) {
        const Val weight = load_splat(at(weights, k * c_.channels + j * g.output_stride));
        for (const auto& [i, x] : met) multiply_add(sum(i, j, outputs), x, weight);
      }
    }
  }

  void multiply_add(const Val& slot, const Val& a, const Val& b) {
    w_.store_slot(slot, w_.intrinsic("llvm.fma", {a, b, w_.load_slot(slot, vector_)}));
  }

  Val finished(Val y, const Val& o, int64_t j) {
    if (c_.bias) y = w_.binary("fadd", y, load_splat(at(buffers_[2], plus(o, number(j)))));
    if (c_.relu) y = ops_.extreme(true, ir::Dtype::f32, y, IrWriter::zero(vector_));
    return y;
  }

  // ---- weight gradient ---------------------------------------------------------------------------------------------

  /// The chunk's number: group, line of the kernel, tile of x's channels, tile of y's, outermost first.
  void weight_grad(Val chunk) {
    const auto digit = [&](int64_t radix) {
      Val d = w_.binary("urem", chunk, number(radix));
      chunk = w_.binary("udiv", chunk, number(radix));
      return d;
    };
    const Val o = times(digit(c_.features / plan_.feature_tile), plan_.feature_tile);
    const Val n = times(digit(c_.channels / plan_.channel_tile), plan_.channel_tile);
    const Val k = digit(c_.kernel[0]);
    const int64_t columns = c_.kernel[1], count = plan_.feature_tile * plan_.channel_tile * columns;
    sums_.clear();
    for (int64_t i = 0; i < count; ++i) {
      sums_.push_back(w_.slot(vector_));
      w_.store_slot(sums_.back(), IrWriter::zero(vector_));
    }
    const int64_t pictures = c_.batch_blocks / plan_.groups;
    const Val first = times(chunk, pictures);
    w_.loop(first, plus(first, number(pictures)), 1, true, [&](const Val& picture) {
      const Val x = at(buffers_[0], plus(times(picture, c_.in[0] * c_.in[1] * c_.channels * w_.lanes()),
                                         times(n, w_.lanes())));
      const Val dy = at(buffers_[1], plus(times(picture, c_.out[0] * c_.out[1] * c_.features * w_.lanes()),
                                          times(o, w_.lanes())));
      w_.loop(number(0), number(c_.out[0]), 1, true, [&](const Val& line) {
        const Val in =
            plus(times(line, c_.stride[0]), plus(times(k, c_.dilation[0]), number(-c_.pad_low[0])));
        w_.if_else(w_.icmp("ult", in, number(c_.in[0])), [&] {
          weight_grad_row(at(x, times(in, c_.in[1] * c_.channels * w_.lanes())),
                          at(dy, times(line, c_.out[1] * c_.features * w_.lanes())));
        });
      });
    });
    for (int64_t f = 0; f < plan_.feature_tile; ++f)
      for (int64_t m = 0; m < plan_.channel_tile; ++m)
        for (int64_t col = 0; col < columns; ++col) {
          const Val row = plus(times(plus(plus(o, number(f)), times(chunk, c_.features)), c_.kernel[0]), k);
          const Val to = plus(times(plus(times(row, columns), number(col)), c_.channels), plus(n, number(m)));
          w_.store(lanes_sum(w_.load_slot(weight_sum(f, m, col), vector_)), at(buffers_.back(), to), 4);
        }
  }

  const Val& weight_sum(int64_t f, int64_t m, int64_t column) const {
    return sums_[static_cast<size_t>((f * plan_.channel_tile + m) * c_.kernel[1] + column)];
  }

  void weight_grad_row(const Val& x, const Val& dy) {
    for (const Run& r : weight_grad_runs(c_)) {
      if (r.end == r.first + 1) weight_grad_position(x, dy, number(r.first), r.meets);
      else
        w_.loop(number(r.first), number(r.end), 1, true,
                [&](const Val& w) { weight_grad_position(x, dy, w, r.meets); });
    }
  }

  void weight_grad_position(const Val& x, const Val& dy, const Val& w, const std::vector<bool>& meets) {
    std::vector<Val> y;
    const Val from = at(dy, times(w, c_.features * w_.lanes()));
    const Val source = at(x, times(w, c_.stride[1] * c_.channels * w_.lanes()));
    for (int64_t f = 0; f < plan_.feature_tile; ++f) y.push_back(load_vector(at(from, f * w_.lanes())));
    for (int64_t k = 0; k < c_.kernel[1]; ++k) {
      if (!meets[static_cast<size_t>(k)]) continue;
      const int64_t column = k * c_.dilation[1] - c_.pad_low[1];
      for (int64_t m = 0; m < plan_.channel_tile; ++m) {
        const Val v = load_vector(at(source, (column * c_.channels + m) * w_.lanes()));
        for (int64_t f = 0; f < plan_.feature_tile; ++f)
          multiply_add(weight_sum(f, m, k), v, y[static_cast<size_t>(f)]);
      }
    }
  }

  /// Upper half onto lower half until one lane is left.
  Val lanes_sum(Val v) {
    for (int n = v.type.lanes; n > 1; n /= 2)
      v = w_.binary("fadd", w_.part(v, 0, n / 2), w_.part(v, n / 2, n / 2));
    return v;
  }

  const BatchConv& c_;
  const BatchConvPlan& plan_;
  const CpuFeatures& features_;
  IrWriter w_;
  ScalarOps ops_;
  const IrType vector_;
  std::vector<Val> buffers_, sums_;
  Val line_, source_, result_;
};

}  // namespace

std::string BatchConv::text() const {
  return fmt::format(
      "batch conv {} [{} {} {}] in {} kernel {} out {} stride {} pad {} dilation {} bias {} relu {}",
      static_cast<int>(kind), batch_blocks, channels, features, fmt::join(in, "x"), fmt::join(kernel, "x"),
      fmt::join(out, "x"), fmt::join(stride, "x"), fmt::join(pad_low, "x"), fmt::join(dilation, "x"), bias,
      relu);
}

BatchConvPlan plan_batch_conv(const BatchConv& conv, const CpuFeatures& features) {
  BatchConvPlan plan;
  const int64_t registers = features.avx512 ? 32 : 16;
  if (conv.kind == Kind::weight_grad) plan_weight_grad(conv, registers, plan);
  else plan_gather(conv, registers, plan);
  return plan;
}

std::string emit_batch_conv(const BatchConv& conv, const BatchConvPlan& plan, const CpuFeatures& features) {
  ESPALIER_CHECK(conv.kind != Kind::weight_grad || conv.kernel[1] <= max_batch_conv_columns,
                 "a kernel too wide for a weight gradient in registers");
  return BatchConvEmitter(conv, plan, features).run();
}

}  // namespace espalier::target::cpu
